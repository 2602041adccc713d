"""Publishing as Confluent's clients do it: ``POST /topics/{topic}`` and ``/topics/{topic}/partitions/{partition}``."""

from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from psubd import fields
from psubd.endpoints.answers import encode
from psubd.endpoints.batch import MAX_RECORDS, TimeSlice
from psubd.endpoints.confluent import bodies, embedded, media
from psubd.endpoints.confluent.callers import Guests
from psubd.endpoints.confluent.faults import Incomplete
from psubd.endpoints.confluent.refusals import number_of
from psubd.endpoints.confluent.topics import no_partition, partition_of
from psubd.errors import BadRecord, PsubdError, TooLarge, TopicMissing
from psubd.interfaces import IClock, IExchange, IGate, IPublisher, IStorage
from psubd.model import Answer, Grant, Position, Record, StoredTopic, Topic

NULL = msgspec.Raw(b"null")


class Body(msgspec.Struct, frozen=True):
    """What else a client of Confluent's may send (schemas, their ids) says nothing here."""

    records: list[msgspec.Raw] | None = None


class Form(msgspec.Struct, frozen=True):
    """One record. ``timestamp`` and ``headers`` are Strimzi's. Numbers may be text, as everywhere on these routes."""

    key: msgspec.Raw = NULL
    value: msgspec.Raw = NULL
    partition: bodies.Number | None = None
    timestamp: bodies.Number | None = None
    headers: list[embedded.Header] | None = None


read_body = msgspec.json.Decoder(Body).decode
read_form = msgspec.json.Decoder(Form).decode


class Producing:
    """Many records a request. What the request alone can tell of its form is refused as a whole and nothing is published; what is wrong with a record
    itself is told in its place.

    :param max_message_bytes: the largest value, in bytes."""

    def __init__(self, callers: Guests, gate: IGate, publisher: IPublisher, storage: IStorage, clock: IClock, max_message_bytes: int) -> None:
        self._callers, self._gate, self._publisher, self._storage, self._clock = callers, gate, publisher, storage, clock
        self._max_message_bytes = max_message_bytes

    def to_topic(self, exchange: IExchange, topic: str) -> Deferred[Answer]:
        return self._produce(exchange, topic, None)

    def to_partition(self, exchange: IExchange, topic: str, partition: str) -> Deferred[Answer]:
        """A record's own partition goes before the path's."""
        return self._produce(exchange, topic, partition)

    def _produce(self, exchange: IExchange, topic: str, partition: str | None) -> Deferred[Answer]:
        grant = self._callers.publisher(exchange)
        registered = self._gate.may_publish(grant, topic, 0, 0)
        number = None if partition is None else partition_of(topic, partition)
        format = media.produced(exchange)
        answers = media.answer_type(exchange, media.spoken(exchange.headers))
        return Deferred.fromCoroutine(self._publish(grant, registered, number, format, exchange.body, answers))

    async def _publish(self, grant: Grant, topic: Topic, partition: int | None, format: embedded.Format, body: bytes, answers: str) -> Answer:
        found = await self._read(topic.id, raws(body), format, partition)
        waiting = self._publisher.ready(topic)
        if waiting is not None:
            await waiting
        known: StoredTopic | None = self._storage.known(topic.id)
        check_there(topic, partition, known)
        judged = await self._judge(topic, found, known)
        fit = [record for record in judged if isinstance(record, Record)]
        self._gate.may_publish(grant, topic.id, len(fit), sum(record.size for record in fit))
        stored = iter(await self._publisher.publish(fit, "all") if fit else ())
        results = [next(stored) if isinstance(record, Record) else record for record in judged]
        document = {"offsets": [place(result) for result in results], "key_schema_id": None, "value_schema_id": None}
        return Answer(body=encode(document), headers=[media.line(answers)])

    async def _read(self, topic: str, found: Sequence[msgspec.Raw], format: embedded.Format, partition: int | None) -> list[Record]:
        """:raises PsubdError: the first that is no record."""
        records: list[Record] = []
        slice = TimeSlice(self._clock)
        for number, raw in enumerate(found):
            if slice.is_over():
                await slice.give_way()
            records.append(read_record(topic, raw, format, number, partition, self._max_message_bytes))
        return records

    async def _judge(self, topic: Topic, found: Sequence[Record], known: StoredTopic | None) -> list[Record | PsubdError]:
        """Each by itself: ready to be stored, or why it is not. :raises TopicMissing: which is so for all of them."""
        judged: list[Record | PsubdError] = []
        slice = TimeSlice(self._clock)
        for record in found:
            if slice.is_over():
                await slice.give_way()
            try:
                check_there(topic, record.partition, known)
                judged.append(self._publisher.judge(topic, record))
            except TopicMissing:
                raise
            except PsubdError as refused:
                judged.append(refused)
        return judged


def check_there(topic: Topic, partition: int | None, known: StoredTopic | None) -> None:
    """:raises PartitionMissing: it is known that there is no such partition."""
    if partition is not None and known is not None and partition >= known.partitions:
        raise no_partition(topic.id, partition, known.partitions)


def raws(body: bytes) -> list[msgspec.Raw]:
    """The records' JSON texts. :raises BadBody: :raises Incomplete: there are none. :raises TooLarge: too many."""
    found = bodies.shaped(read_body, body, '{"records": [{"value": ...}, ...]}').records
    if not found:
        raise Incomplete("records: there are none; send at least one")
    if len(found) > MAX_RECORDS:
        raise TooLarge(f"records: {len(found)}; at most {MAX_RECORDS}")
    return found


def read_record(topic: str, raw: msgspec.Raw, format: embedded.Format, number: int, partition: int | None, most: int) -> Record:
    """:param most: bytes of the largest value. :raises BadRecord: which says the record's number, from 0. :raises Incomplete:"""
    try:
        form = read_form(raw)
        key, value = embedded.bytes_of(form.key, format, "key", most), embedded.bytes_of(form.value, format, "value", most)
        own, timestamp = numbered(form.partition, "partition", bodies.MOST_PARTITION), numbered(form.timestamp, "timestamp", fields.INT64)
        headers = () if form.headers is None else embedded.headers_of(form.headers)
    except msgspec.ValidationError as refused:
        raise Incomplete(f"record {number}: {refused}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise BadRecord(f"record {number}: {fields.not_json(bytes(raw), broken)}") from None
    except PsubdError as refused:
        refused.detail = f"record {number}: {refused.detail}"
        raise
    return Record(topic, value, key, headers, partition if own is None else own, timestamp)


def numbered(said: bodies.Number | None, name: str, most: int) -> int | None:
    """A number of a record. :raises Incomplete:"""
    return None if said is None else bodies.number(said, name, 0, most, Incomplete)


def place(result: Position | PsubdError) -> dict[str, Any]:
    """Where a record is, or why it is nowhere (50002: it may be there)."""
    if isinstance(result, PsubdError):
        return {"partition": None, "offset": None, "error_code": number_of(result), "error": result.detail}
    return {"partition": result.partition, "offset": result.offset, "error_code": None, "error": None}
