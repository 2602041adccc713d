"""POST /v1/pub and /v1/pub/{topic}: one message a request (contract, section 2)."""

from twisted.internet.defer import Deferred

from psubd import fields
from psubd.endpoints import names
from psubd.endpoints.answers import json_answer
from psubd.endpoints.credentials import Callers
from psubd.endpoints.names import Lines
from psubd.errors import BadHeader, ConflictingHeaders, NotSupported, PsubdError
from psubd.interfaces import IExchange, IGate, IPublisher
from psubd.model import Acks, Answer, Position, Record, Topic

LATER = {
    "idempotency-key": "publishing once by idempotency-key",
    "delay": "scheduling by delay",
    "deliver.at": "scheduling by deliver.at",
}
"""Headers of the contract that belong to a later version of psubd."""
MOST_PARTITION = 2**31 - 1
ACKS: dict[bytes, Acks] = {b"0": "0", b"1": "1", b"all": "all", b"-1": "all"}


class Publishing:
    """One message: the body as it came, what goes with it in headers."""

    def __init__(self, callers: Callers, gate: IGate, publisher: IPublisher) -> None:
        self._callers = callers
        self._gate = gate
        self._publisher = publisher

    def publish(self, exchange: IExchange, topic: str | None = None) -> Deferred[Answer]:
        """:param topic: from the path; None: the header names it."""
        grant = self._callers.publisher(exchange)
        refuse_query(exchange)
        lines = names.read(exchange.headers)
        refuse_later(lines)
        acks = read_acks(lines)
        record = read_record(read_topic(lines, topic), lines, exchange.body)
        registered = self._gate.may_publish(grant, record.topic, 1, record.size)
        waiting = self._publisher.ready(registered)
        if waiting is None:
            return self._store(registered, record, acks)
        return waiting.addCallback(lambda _: self._store(registered, record, acks))

    def _store(self, topic: Topic, record: Record, acks: Acks) -> Deferred[Answer]:
        judged = self._publisher.judge(topic, record)
        return self._publisher.publish((judged,), acks).addCallback(stored, record.topic, acks)


def stored(results: list[Position | PsubdError], topic: str, acks: Acks) -> Answer:
    """The answer to a single publish. :raises PsubdError: what the storage failed with."""
    if acks == "0":
        return json_answer({"topic": topic}, 202)
    (result,) = results
    if isinstance(result, PsubdError):
        raise result
    return json_answer(result)


def refuse_query(exchange: IExchange) -> None:
    """:raises BadParameter: the route takes no query, and one was sent."""
    if exchange.raw_query:
        fields.query(exchange.raw_query, {})


def refuse_later(lines: Lines) -> None:
    """:raises NotSupported: for a header whose meaning is not built yet."""
    for name, meaning in LATER.items():
        if name in lines.singles:
            raise NotSupported(f"{name}: {meaning} is not built yet; leave the header out")


def read_topic(lines: Lines, path: str | None) -> str:
    """The topic, from the path or the header. :raises BadHeader: :raises ConflictingHeaders:"""
    said = lines.text("topic.id")
    if said is None:
        if path is None:
            raise BadHeader("topic.id: missing; name the topic in this header, or in the path: /v1/pub/<topic>")
        return path
    if not fields.topic_id(said):
        raise BadHeader("topic.id: not a topic id; 1 to 200 of A-Z a-z 0-9 . _ -")
    if path is not None and path != said:
        raise ConflictingHeaders("topic.id and the path name different topics; send one of them")
    return said


def read_acks(lines: Lines) -> Acks:
    """:raises BadHeader:"""
    said = lines.singles.get("acks")
    if said is None:
        return "all"
    acks = ACKS.get(said)
    if acks is None:
        raise BadHeader("acks: send 0, 1 or all (or -1, which is all)")
    return acks


def read_record(topic: str, lines: Lines, body: bytes) -> Record:
    """The record that the request describes. :raises BadHeader: :raises ReservedHeader: :raises ConflictingHeaders:"""
    value = None if read_tombstone(lines, body) else body
    partition, timestamp = lines.text("partition"), lines.text("timestamp")
    return Record(
        topic,
        value,
        names.record_key(lines),
        names.record_headers(lines),
        None if partition is None else fields.integer(partition, "partition", 0, MOST_PARTITION, BadHeader),
        None if timestamp is None else fields.integer(timestamp, "timestamp", 0, fields.INT64, BadHeader),
    )


def read_tombstone(lines: Lines, body: bytes) -> bool:
    """Whether null is published. :raises BadHeader: with a body."""
    said = lines.text("tombstone")
    if said is None or not fields.boolean(said, "tombstone", BadHeader):
        return False
    if body:
        raise BadHeader("tombstone: true publishes null and goes with an empty body; send no body, or leave the header out")
    return True
