"""What a client asks of /v1/sub: parameters in a query or in a JSON object, to a `Poll` or a `Replay` (contract, section 3)."""

import json
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from psubd import fields
from psubd.endpoints import places
from psubd.errors import BadBody, BadParameter
from psubd.model import AckMode, Poll, Replay

T = TypeVar("T")

BATCH = (1, 10_000)
BYTES = (1024, 67_108_864)
TIMEOUT = (0, 60_000)
ACK_TIMEOUT = (1000, 43_200_000)
PARTITION = (0, 2**31 - 1)
OFFSET = (0, fields.INT64)

MAX_TOKENS = 10_000
"""Of one call."""

MAX_BODY = 4 * 1024 * 1024
"""Of ``POST /v1/sub`` and the acks: 10,000 tokens of some 200 characters, with room."""

PARAMETERS = {
    "batchSize": False,
    "maxBytes": False,
    "topic": True,
    "timeout": False,
    "group": False,
    "ack": False,
    "ackTimeout": False,
    "offset": False,
    "partition": False,
}
"""The query's parameters, and whether one may be repeated."""


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The parameters, checked one by one; None: not sent."""

    batch_size: Annotated[int, Meta(ge=BATCH[0], le=BATCH[1])] = 1
    max_bytes: Annotated[int, Meta(ge=BYTES[0], le=BYTES[1])] = 8_388_608
    topic: str | list[str] | None = None
    timeout: Annotated[int, Meta(ge=TIMEOUT[0], le=TIMEOUT[1])] = 30_000
    group: str | None = None
    ack: str | None = None
    ack_timeout: Annotated[int, Meta(ge=ACK_TIMEOUT[0], le=ACK_TIMEOUT[1])] | None = None
    offset: str | int | None = None
    partition: Annotated[int, Meta(ge=PARTITION[0], le=PARTITION[1])] | None = None
    tokens: Annotated[list[str], Meta(max_length=MAX_TOKENS)] | None = None


def from_query(raw: bytes) -> Form:
    """:raises BadParameter:"""
    sent = fields.query(raw, PARAMETERS)

    def number(name: str, bounds: tuple[int, int], default: int) -> int:
        return fields.integer(sent[name][0], name, *bounds) if name in sent else default

    def text(name: str) -> str | None:
        return sent[name][0] if name in sent else None

    return Form(
        number("batchSize", BATCH, 1),
        number("maxBytes", BYTES, 8_388_608),
        sent.get("topic"),
        number("timeout", TIMEOUT, 30_000),
        text("group"),
        text("ack"),
        number("ackTimeout", ACK_TIMEOUT, 0) or None,
        text("offset"),
        number("partition", PARTITION, -1) if "partition" in sent else None,
    )


def from_json(body: bytes) -> Form:
    """:raises BadBody:"""
    return once_each(body, Form)


def once_each(body: bytes, shape: type[T]) -> T:
    """A JSON body as a value of ``shape``. :raises BadBody: also for a member that stands twice, of which the parser would take the last."""
    form = fields.json_body(body, shape)
    json.loads(body, object_pairs_hook=refuse_twice, parse_int=str)
    return form


def refuse_twice(members: list[tuple[str, object]]) -> None:
    """:raises BadBody: a name stands twice in an object."""
    seen: set[str] = set()
    for name, _ in members:
        if name in seen:
            raise BadBody(f"{name}: sent twice; send it once")
        seen.add(name)


def ask(form: Form, application: str) -> Poll | Replay:
    """What is asked for, by an application. ``ackTimeout`` counts for the messages that are leased, whoever chose that: the poll or a binding.

    :raises BadParameter:
    """
    if form.offset is not None:
        return replay(form, str(form.offset))
    if form.partition is not None:
        raise BadParameter("partition: goes with offset only; a group reads all partitions")
    topics = read_topics(form)
    return Poll(
        read_group(form.group, application),
        topics or None,
        form.batch_size,
        form.max_bytes,
        form.timeout,
        read_ack(form.ack),
        form.ack_timeout,
    )


def read_topics(form: Form) -> tuple[str, ...]:
    """The topics in the order sent, each once. :raises BadParameter:"""
    if form.topic is None:
        return ()
    topics = [form.topic] if isinstance(form.topic, str) else form.topic
    for topic in topics:
        if not fields.topic_id(topic):
            raise BadParameter(f"topic: {topic[:40]!r} is not a topic id; 1 to 200 of A-Z a-z 0-9 . _ -")
    return tuple(dict.fromkeys(topics))


def read_group(name: str | None, application: str) -> str:
    """The group's full name. :raises BadParameter:"""
    if name is None:
        return application
    if fields.GROUP_NAME.fullmatch(name) is None:
        raise BadParameter(f"group: {name[:40]!r} is not a group's name; 1 to 200 of A-Z a-z 0-9 . _ -")
    return f"{application}.{name}"


def read_ack(said: str | None) -> AckMode | None:
    """None: each binding's own. :raises BadParameter:"""
    if said is None:
        return None
    return "explicit" if fields.choice(said, "ack", ("auto", "explicit")) == "explicit" else "auto"


def replay(form: Form, offset: str) -> Replay:
    """:raises BadParameter:"""
    with_group = {"group": form.group, "ack": form.ack, "ackTimeout": form.ack_timeout, "tokens": form.tokens}
    for name, value in with_group.items():
        if value is not None:
            raise BadParameter(f"{name}: does not go with offset, which reads without any group")
    topics = read_topics(form)
    if len(topics) != 1:
        raise BadParameter("topic: a replay needs exactly one")
    start, partition = read_start(offset, topics[0], form.partition)
    return Replay(topics[0], start, partition, form.batch_size, form.max_bytes, form.timeout)


Start = Literal["earliest", "latest"] | tuple[Literal["time"], int] | dict[int, int]


def read_start(offset: str, topic: str, partition: int | None) -> tuple[Start, int | None]:
    """Where a replay begins, and in which partition (None: all). :raises BadParameter:"""
    if offset == "earliest":
        return "earliest", partition
    if offset == "latest":
        return "latest", partition
    if offset.startswith("time:"):
        return ("time", fields.integer(offset[5:], "offset", *OFFSET)), partition
    if offset.startswith(places.FORMAT):
        return from_place(places.read(offset), topic, partition)
    number = fields.integer(offset, "offset", *OFFSET)
    if partition is None:
        raise BadParameter("partition: missing; an offset that is a number needs one")
    return {partition: number}, partition


def from_place(place: places.Place, topic: str, partition: int | None) -> tuple[Start, int | None]:
    """A replay that goes on. :raises BadParameter: topic or partition are not those of the answer that it came from."""
    if place.topic != topic:
        raise BadParameter("offset: this next is of another topic")
    if partition is None or partition == place.partition:
        return place.offsets, place.partition
    if place.partition is not None or partition not in place.offsets:
        raise BadParameter("partition: this next is of other partitions")
    return {partition: place.offsets[partition]}, partition
