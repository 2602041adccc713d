"""What the bodies and queries of instances say. Confluent's clients write numbers as strings, and members that nobody knows: those are ignored."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from psubd import fields
from psubd.endpoints.confluent.faults import BadFetch, BadInstance, Incomplete, NoSchemas
from psubd.endpoints.confluent.media import FORMATS, NO_SCHEMAS, SCHEMAS, Dialect
from psubd.errors import BadBody, BadParameter, PsubdError
from psubd.model import Aim, InstanceSpec, Mark, Start, TopicPartition

T = TypeVar("T")

Number = int | str

MOST_FETCH_BYTES = 10_000_000
"""Of ``fetch.min.bytes``, as Confluent has it."""

MOST_WAIT_MS = 60_000
"""How long a read waits at most, whatever the instance asks for: as a poll of ``/v1/sub``."""

MOST_PARTITION = 2**31 - 1
MILLISECONDS_FROM = 10**11
"""A time that is a number: below it are seconds since the epoch, as Confluent's server reads them, from it on milliseconds, as Kafka's own tools
write them: as seconds it would be the year 5138."""

RESETS: dict[str, Start | None] = {"earliest": "earliest", "smallest": "earliest", "latest": "latest", "largest": "latest", "none": None}


class Place(msgspec.Struct, frozen=True):
    """One partition."""

    topic: str
    partition: Number

    @property
    def at(self) -> TopicPartition:
        """:raises BadBody:"""
        return TopicPartition(self.topic, number(self.partition, "partition", 0, MOST_PARTITION, BadBody))


class PlacedOffset(Place, frozen=True):
    """``metadata``: of a commit."""

    offset: Number
    metadata: str | None = None

    def number(self, low: int) -> int:
        """The offset, from ``low`` on. :raises BadBody:"""
        return number(self.offset, "offset", low, fields.INT64 - 1, BadBody)


class PlacedTime(Place, frozen=True):
    timestamp: str | int | float


class Subscription(msgspec.Struct, frozen=True):
    topics: list[str] | None = None
    topic_pattern: str | None = None


class Partitions(msgspec.Struct, frozen=True):
    partitions: list[Place] | None = None


class Positions(msgspec.Struct, frozen=True):
    offsets: list[PlacedOffset] | None = None
    timestamps: list[PlacedTime] | None = None


class Offsets(msgspec.Struct, frozen=True):
    offsets: list[PlacedOffset] | None = None


def body_of(body: bytes, shape: type[T]) -> T:
    """:raises BadBody: :raises Incomplete: it is empty."""
    if not body.strip():
        raise Incomplete("the body is empty; send a JSON object")
    return fields.json_body(body, shape)


def shaped(read: Callable[[bytes], T], body: bytes, example: str) -> T:
    """The body, read. :param example: of what to send. :raises Incomplete: it is JSON of another shape. :raises BadBody: it is no JSON."""
    try:
        return read(body)
    except msgspec.ValidationError as refused:
        raise Incomplete(f"{refused}; send {example}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise BadBody(fields.not_json(body, broken)) from None


def number(said: Number, name: str, low: int, high: int, error: type[PsubdError]) -> int:
    """A number, or its digits. :raises PsubdError: ``error``"""
    return fields.integer(str(said).strip(), name, low, high, error)


def required(said: T | None, name: str) -> T:
    """:raises Incomplete: it was not sent."""
    if said is None:
        raise Incomplete(f"{name}: missing, or null; send a list")
    return said


# --- an instance -----------------------------------------------------------------------------------------------------------------


def instance_of(body: bytes, dialect: Dialect, timeout_ms: int) -> tuple[str | None, InstanceSpec]:
    """The id that the client wants (None: any), and the instance.

    :param timeout_ms: how long its reads wait where it does not say. :raises BadInstance: :raises NoSchemas: :raises BadFetch: :raises BadBody:
    """
    said: dict[str, Any] | None = fields.json_body(body, dict[str, Any] | None) if body.strip() else None  # type: ignore[arg-type]
    said = {name: value for name, value in (said or {}).items() if value is not None}
    spec = InstanceSpec(
        dialect,
        format_of(said),
        reset_of(said),
        flag_of(said, dialect == 2, "auto.commit.enable", "enable.auto.commit"),
        fetch_of(said),
        wait_of(said, timeout_ms),
    )
    return id_of(said), spec


def first(said: dict[str, Any], *names: str) -> tuple[str, Any]:
    """The first of these members that was sent, by its name; None: none was."""
    return next(((name, said[name]) for name in names if name in said), (names[0], None))


def id_of(said: dict[str, Any]) -> str | None:
    """``id`` wins over ``name``, as at Confluent's. :raises BadInstance:"""
    name, id = first(said, "id", "name")
    if id is None or id == "":
        return None
    if not isinstance(id, str) or len(id) > 200 or not id.isprintable() or "/" in id or id in (".", ".."):
        raise BadInstance(f"{name}: 1 to 200 characters that can be printed, no slash, neither . nor ..")
    return id


def format_of(said: dict[str, Any]) -> Any:
    """:raises BadInstance: :raises NoSchemas:"""
    format = said.get("format", "binary")
    known = format.lower() if isinstance(format, str) else None
    if known in SCHEMAS:
        raise NoSchemas(f"format: {NO_SCHEMAS}")
    if known not in FORMATS:
        raise BadInstance(f"format: invalid format type; send one of {', '.join(FORMATS)}")
    return known


def reset_of(said: dict[str, Any]) -> Start | None:
    """:raises BadInstance:"""
    reset = said.get("auto.offset.reset", "latest")
    if not isinstance(reset, str) or reset.lower() not in RESETS:
        raise BadInstance(f"auto.offset.reset: send one of {', '.join(RESETS)}")
    return RESETS[reset.lower()]


def flag_of(said: dict[str, Any], default: bool, *names: str) -> bool:
    """A boolean, or its word. :raises BadInstance:"""
    name, flag = first(said, *names)
    if flag is None or isinstance(flag, bool):
        return default if flag is None else flag
    if not isinstance(flag, str) or flag.lower() not in ("true", "false"):
        raise BadInstance(f"{name}: send true or false")
    return flag.lower() == "true"


def fetch_of(said: dict[str, Any]) -> int:
    """Bytes that a read waits for; Kafka's default, -1 here, is any. :raises BadFetch:"""
    name, least = first(said, "fetch.min.bytes", "responseMinBytes")
    return 1 if least is None else max(1, number(plain(least), name, -1, MOST_FETCH_BYTES, BadFetch))


def wait_of(said: dict[str, Any], default: int) -> int:
    """:raises BadInstance:"""
    name, wait = first(said, "consumer.request.timeout.ms", "requestWaitMs")
    return min(MOST_WAIT_MS, default if wait is None else number(plain(wait), name, 0, MOST_PARTITION, BadInstance))


def plain(said: Any) -> Number:
    """What is neither a number nor a text is not a number either."""
    return said if isinstance(said, (int, str)) and not isinstance(said, bool) else "?"


# --- places ----------------------------------------------------------------------------------------------------------------------


def places_of(body: bytes) -> list[TopicPartition]:
    """``{"partitions": [...]}``."""
    return [place.at for place in required(body_of(body, Partitions).partitions, "partitions")]


def marks_of(body: bytes) -> list[Mark] | None:
    """A client names the last message that it is done with; None: it names none, and means what it was given."""
    if not body.strip() or body.strip() == b"null":
        return None
    said = required(body_of(body, Offsets).offsets, "offsets")
    return [Mark(each.at, each.number(-1) + 1, each.metadata or "") for each in said]


def aims_of(body: bytes) -> list[Aim]:
    """``{"offsets": [...], "timestamps": [...]}``."""
    said = body_of(body, Positions)
    if said.offsets is None and said.timestamps is None:
        raise Incomplete("offsets: missing; send offsets, or timestamps, or both")
    return [
        *(Aim(each.at, each.number(0)) for each in said.offsets or ()),
        *(Aim(each.at, ("time", milliseconds(each.timestamp))) for each in said.timestamps or ()),
    ]


def milliseconds(said: str | int | float) -> int:
    """A moment: ISO 8601, or a number (`MILLISECONDS_FROM`). :raises BadBody:"""
    try:
        if isinstance(said, str) and not fields.INTEGER.fullmatch(said):
            moment = datetime.fromisoformat(said)
            found = round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
        else:
            value = float(said)
            found = round(value if abs(value) >= MILLISECONDS_FROM else value * 1000)
    except (ValueError, OverflowError):
        raise BadBody("timestamp: send a time as 2026-01-31T12:00:00Z, or the number of seconds or milliseconds since the epoch") from None
    if not 0 <= found <= fields.INT64:
        raise BadBody("timestamp: before 1970, or too late")
    return found


# --- queries ---------------------------------------------------------------------------------------------------------------------


def query(raw: bytes, *names: str) -> dict[str, str]:
    """These parameters of a query, each once; others are ignored, as at Confluent's. :raises BadParameter:"""
    parts = [part for part in raw.split(b"&") if part.partition(b"=")[0].decode("latin-1") in names]
    return {name: values[0] for name, values in fields.query(b"&".join(parts), dict.fromkeys(names, False)).items()}


def bound(said: dict[str, str], name: str, most: int) -> int | None:
    """A number of the query that can only make it less; None, and -1: it was not sent. :raises BadParameter:"""
    if said.get(name) in (None, "", "-1"):
        return None
    return min(most, fields.integer(said[name], name, 0, fields.INT64, BadParameter))
