"""POST /v1/pub/{topic}/batch: many records a request, in the order given (contract, section 2)."""

from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from psubd import fields
from psubd.endpoints import frames, names, records
from psubd.endpoints.answers import JSON_LINE, json_answer
from psubd.endpoints.credentials import Callers
from psubd.endpoints.media import sent_type
from psubd.endpoints.names import Lines
from psubd.endpoints.pub import read_acks, read_topic, refuse_query
from psubd.errors import BadBody, BadHeader, PsubdError, TooLarge, UnsupportedMediaType
from psubd.interfaces import IClock, IExchange, IGate, IPublisher
from psubd.model import Acks, Answer, Grant, Position, Record, Topic, sizes

MAX_RECORDS = 10_000
MAX_BODY = 16 * 1024 * 1024
"""The contract's bounds of a batch."""
SLICE_MS = 10
"""How long records are read in one go before other requests get their turn: 16 MiB in 10,000 records take some 50 ms here."""

ALLOWED = frozenset(("topic.id", "acks", "content-type"))

PLAIN_BYTES, PLAIN_RECORDS = 1024 * 1024, 2_000
"""A body of so many bytes and records at most is read in one go: less than `SLICE_MS`."""

Raw = bytes | msgspec.Raw | frames.Frame
Raws = Sequence[Raw]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON batch; the records are looked at one by one."""

    records: list[msgspec.Raw]


class Batches:
    """Many records: what the request alone can tell is refused before anything is published.

    :param max_message_bytes: the largest value, in bytes.
    """

    def __init__(self, callers: Callers, gate: IGate, publisher: IPublisher, clock: IClock, max_message_bytes: int) -> None:
        self._callers = callers
        self._gate = gate
        self._publisher = publisher
        self._clock = clock
        self._max_message_bytes = max_message_bytes

    def publish(self, exchange: IExchange, topic: str) -> Deferred[Answer]:
        """Answers 200, 207, 202 with ``acks: 0``, or fails with the first record's error where none stands."""
        grant = self._callers.publisher(exchange)
        said: tuple[Acks, str | None] | None = exchange.kept.get("batch")
        acks = read_head(exchange, topic) if said is None else said[0]
        registered = self._gate.may_publish(grant, topic, 0, 0)
        if said is None:
            said = exchange.kept["batch"] = (acks, sent_type(exchange))
        plain = read_plain(topic, said[1], exchange.body)
        raws = None if plain is not None else read_body(said[1], exchange.body)
        return Deferred.fromCoroutine(self._publish(grant, registered, acks, plain or [], raws or []))

    async def _publish(self, grant: Grant, topic: Topic, acks: Acks, plain: list[Record], raws: Raws) -> Answer:
        waiting = self._publisher.ready(topic)
        if waiting is not None:
            await waiting
        judged = self._judged_plain(topic, plain) if plain else await self._judged(topic, raws)
        self._gate.may_publish(grant, topic.id, len(judged), sum(sizes(judged)))
        results = await self._publisher.publish(judged, acks)
        if acks == "0":
            return json_answer({"topic": topic.id, "accepted": len(judged)}, 202)
        return answered(results)

    def _judged_plain(self, topic: Topic, found: list[Record]) -> list[Record]:
        """As `_judged`, in one go: they are not many bytes."""
        try:
            return self._publisher.judge_all(topic, found)
        except PsubdError:
            return [self._judge(topic, record, number) for number, record in enumerate(found)]

    async def _judged(self, topic: Topic, raws: Raws) -> list[Record]:
        """All records, ready to be stored. :raises PsubdError: the first one that is refused, with ``record``."""
        judged: list[Record] = []
        slice = TimeSlice(self._clock)
        for number, raw in enumerate(raws):
            if slice.is_over():
                await slice.give_way()
            judged.append(self._judge(topic, raw, number))
        return judged

    def _judge(self, topic: Topic, raw: Raw | Record, number: int) -> Record:
        try:
            return self._publisher.judge(topic, raw if isinstance(raw, Record) else self._read(topic.id, raw))
        except PsubdError as refused:
            raise records.in_record(refused, number) from None

    def _read(self, topic: str, raw: Raw) -> Record:
        return frames.read(topic, raw) if isinstance(raw, frames.Frame) else records.read(topic, raw, self._max_message_bytes)


def read_head(exchange: IExchange, topic: str) -> Acks:
    """What the head says, but for the body's type. :raises PsubdError:"""
    refuse_query(exchange)
    lines = names.read(exchange.headers)
    refuse_single(lines)
    read_topic(lines, topic)
    return read_acks(lines)


class TimeSlice:
    """Long work gives way to other requests after `SLICE_MS` each."""

    def __init__(self, clock: IClock) -> None:
        self._clock = clock
        self._until = clock.elapsed_ms() + SLICE_MS

    def is_over(self) -> bool:
        return self._clock.elapsed_ms() >= self._until

    async def give_way(self) -> None:
        """Comes back after the reactor served the others."""
        waiting: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self._clock.call_later(0, waiting.callback, None)
        await waiting
        self._until = self._clock.elapsed_ms() + SLICE_MS


def refuse_single(lines: Lines) -> None:
    """:raises BadHeader: for the headers that describe one message."""
    wrong = [name for name in lines.singles if name not in ALLOWED]
    wrong += [f"header.{name.decode('latin-1')}" for name, _ in lines.named[:3]]
    if lines.tracestate is not None:
        wrong.append("tracestate")
    if wrong:
        raise BadHeader(f"{', '.join(wrong)}: not on a batch, where each record says this for itself; only acks applies to all")


def read_body(media: str | None, body: bytes) -> Raws:
    """The records' JSON texts, or their frames. :raises UnsupportedMediaType: :raises BadBody: :raises TooLarge:"""
    raws: Raws
    match media:
        case "application/json":
            raws = read_json(body)
        case "application/x-ndjson":
            raws = read_lines(body)
        case frames.TYPE:
            raws = frames.cut(body, MAX_RECORDS)
        case _:
            raise UnsupportedMediaType(
                f"content-type: {(media or 'none')[:60]!r} is not a batch; send application/json, application/x-ndjson or {frames.TYPE}"
            )
    if len(raws) > MAX_RECORDS:
        raise TooLarge(f"the batch has {len(raws)} records; at most {MAX_RECORDS}")
    if not raws:
        raise BadBody("the batch has no records; send at least one")
    return raws


def read_plain(topic: str, media: str | None, body: bytes) -> list[Record] | None:
    """The records, some at least, of a body that is not large and holds plain text in all of them, or frames; None: of another one, good or bad."""
    if len(body) > PLAIN_BYTES:
        return None
    try:
        if media == frames.TYPE:
            return frames.read_all(topic, body, PLAIN_RECORDS) or None
        if body.count(b"{") > PLAIN_RECORDS + 1 or body.count(b"\n") > MAX_RECORDS:
            return None
        if media == "application/json":
            return records.plain(topic, records.read_plain_body(body).records) or None
        if media == "application/x-ndjson":
            return records.plain(topic, [records.read_plain(line) for line in body.split(b"\n") if line.strip()]) or None
    except (msgspec.DecodeError, UnicodeError, RecursionError, PsubdError):
        return None  # read again, one by one, for what is wrong, and with which
    return None


def read_json(body: bytes) -> Raws:
    """``{"records": [...]}``. Nothing is nested here that the parser would follow: it leaves the records as they are."""
    try:
        return msgspec.json.decode(body, type=Body).records
    except msgspec.ValidationError as refused:
        raise BadBody(f'{refused}; send {{"records": [...]}}') from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise BadBody(fields.not_json(body, broken)) from None


def read_lines(body: bytes) -> Raws:
    """A record a line; blank lines are passed over, but count as lines."""
    lines = body.count(b"\n")
    if lines > MAX_RECORDS:
        raise TooLarge(f"the batch has {lines} lines or more; at most {MAX_RECORDS}")
    return [line for line in body.split(b"\n") if line.strip()]


def answered(results: Sequence[Position | PsubdError]) -> Answer:
    """200 or 207. :raises PsubdError: none stands: the first failure, with ``results``."""
    failures = [result for result in results if isinstance(result, PsubdError)]
    if not failures:
        places = b",".join([b'{"partition":%d,"offset":%d}' % (result.partition, result.offset) for result in results])  # type: ignore[union-attr]
        return Answer(200, b'{"results":[%b],"failed":0}' % places, [JSON_LINE])
    told: list[dict[str, Any]] = []
    for result in results:
        if isinstance(result, PsubdError):
            told.append({"error": {"code": result.code, "detail": result.detail}})
        else:
            told.append({"partition": result.partition, "offset": result.offset})
    if len(failures) == len(told):
        first = failures[0]
        first.members = {**first.members, "results": told, "failed": len(failures)}
        raise first
    return json_answer({"results": told, "failed": len(failures)}, 207)
