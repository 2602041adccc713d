"""Publish: records are judged before the storage sees them, so that no request makes another one fail."""

from collections.abc import Callable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from psubd.counts import Count, Counts
from psubd.errors import BadHeader, PsubdError, TooLarge, TopicMissing
from psubd.interfaces import IClock, IPublisher, IStorage
from psubd.model import Acks, Headers, Position, Record, StoredTopic, Topic, sizes
from psubd.services.partitioner import Spread, partition_of

MAX_MESSAGE_BYTES = 1_048_576
"""The contract's default for a value."""
BESIDE_BYTES = 65_536
"""Key and headers together (contract, section 2)."""
AHEAD_MS = 3_600_000
"""How far past now a timestamp may lie (contract, section 2)."""
BATCH_OVERHEAD = 61
"""Kafka's ``DefaultRecordBatch.RECORD_BATCH_OVERHEAD``: a record is weighed by the broker with the batch that holds it."""
RECORD_OVERHEAD = 21
"""Kafka's ``DefaultRecord.MAX_RECORD_OVERHEAD``: attributes, the two deltas and the record's own length, at their longest."""

LOOSE_OVERHEAD, LOOSE_HEADER = 128, 16
"""More than `stored_size` adds to a record and to each of its headers (five bytes a length at most): spares counting where it cannot matter."""


@implementer(IPublisher)
class Publisher:
    """Judges and stores.

    :param max_message_bytes: the largest value, in bytes.
    :param metrics: where the counters go; None: nowhere.
    """

    def __init__(
        self, storage: IStorage, clock: IClock, max_message_bytes: int = MAX_MESSAGE_BYTES, metrics: CollectorRegistry | None = None
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._max_message_bytes = max_message_bytes
        self._spread = Spread()
        self._waiting = 0  # records that the storage was given and has not answered
        self._asked: dict[str, list[Deferred[None]]] = {}
        self._counts = Tally(metrics)

    # --- judging ----------------------------------------------------------------------------------------------------------------

    def ready(self, topic: Topic) -> Deferred[None] | None:
        stored = self._storage.known(topic.id)
        if stored is not None and stored.uid == topic.uid:
            return None
        return self._ask(topic.id)

    def judge(self, topic: Topic, record: Record) -> Record:
        return self._judge(record, self._stored(topic), self._clock.epoch_ms(), not self._waiting)

    def judge_all(self, topic: Topic, records: Sequence[Record]) -> list[Record]:
        stored, now = self._stored(topic), self._clock.epoch_ms()
        # a bare value of no great size can only be taken, and has one place to go: most batches are of those
        simple = stored.partitions == 1 and stored.cleanup != "compact"
        most = min(self._max_message_bytes, stored.max_message_bytes - LOOSE_OVERHEAD) if simple else -1
        judged = []
        for number, record in enumerate(records):
            value = record.value
            if value is None or len(value) > most or not bare(record):
                judged.append(self._judge(record, stored, now, not number))
            else:
                judged.append(Record(record.topic, value, None, (), 0, now))
        return judged

    def _stored(self, topic: Topic) -> StoredTopic:
        stored = self._storage.known(topic.id)
        if stored is None or stored.uid != topic.uid:
            raise TopicMissing(f"topic {topic.id} is registered, but it is gone from the storage; register it again")
        return stored

    def _judge(self, record: Record, stored: StoredTopic, now: int, alone: bool) -> Record:
        value, key, headers, timestamp = record.value, record.key, record.headers, record.timestamp
        self._judge_size(0 if value is None else len(value), key, headers, record, stored)
        if key is None and stored.cleanup == "compact":
            raise BadHeader(f"key: topic {stored.name} is compacted, where every message needs a key; send one")
        timestamp = now if timestamp is None else judged_timestamp(timestamp, now, stored)
        return Record(record.topic, value, key, headers, self._partition(record, stored, now, alone), timestamp)

    def _judge_size(self, value: int, key: bytes | None, headers: Headers, record: Record, stored: StoredTopic) -> None:
        beside = 0 if key is None else len(key)
        if headers:
            beside += headers_size(headers)
        if value > self._max_message_bytes:
            raise TooLarge(f"the value has {value} bytes; psubd takes at most {self._max_message_bytes} (max-message-bytes)")
        if beside > BESIDE_BYTES:
            raise TooLarge(f"key and headers have {beside} bytes; at most {BESIDE_BYTES} together")
        if value + beside + LOOSE_OVERHEAD + LOOSE_HEADER * len(headers) <= stored.max_message_bytes:
            return
        weight = stored_size(record)
        if weight > stored.max_message_bytes:
            raise TooLarge(
                f"the record takes up to {weight} bytes in the storage; topic {stored.name} has a limit of its own of {stored.max_message_bytes}"
                " (max.message.bytes)"
            )

    def _partition(self, record: Record, stored: StoredTopic, now: int, alone: bool) -> int:
        partition, key, partitions = record.partition, record.key, stored.partitions
        if partition is not None:
            if not 0 <= partition < partitions:
                raise BadHeader(f"partition: topic {stored.name} has no partition {partition}; send 0 to {partitions - 1}")
            return partition
        if key is None:
            return self._spread.next(stored.name, partitions, record.size, now, alone) if partitions > 1 else 0
        return partition_of(key, partitions) if partitions > 1 else 0

    def _ask(self, topic: str) -> Deferred[None]:
        """Ask the storage about the topic, once for all who wait for it."""
        waiter: Deferred[None] = Deferred()
        waiters = self._asked.get(topic)
        if waiters is not None:
            waiters.append(waiter)
            return waiter
        self._asked[topic] = [waiter]
        self._storage.describe([topic]).addBoth(self._told, topic)
        return waiter

    def _told(self, result: dict[str, StoredTopic] | Failure, topic: str) -> None:
        for waiter in self._asked.pop(topic):
            if waiter.called:
                continue
            if isinstance(result, Failure):
                waiter.errback(result)
            else:
                waiter.callback(None)

    # --- storing ----------------------------------------------------------------------------------------------------------------

    def post(self, record: Record, acks: Acks, told: Callable[[Position | PsubdError], None]) -> None:
        size = record.size
        try:
            self._storage.post(record, acks, partial(self._posted, record.topic, size, told))
        except PsubdError as refused:
            self._counts.failed(refused.code, 1)
            raise
        if acks == "0":
            self._counts.published(record.topic, 1, size)
        else:
            self._waiting += 1

    def _posted(self, topic: str, size: int, told: Callable[[Position | PsubdError], None], result: Position | PsubdError) -> None:
        self._waiting -= 1
        if isinstance(result, PsubdError):
            self._counts.failed(result.code, 1)
        else:
            self._counts.published(topic, 1, size)
        told(result)

    def publish(self, records: Sequence[Record], acks: Acks) -> Deferred[list[Position | PsubdError]]:
        self._waiting += len(records)
        return self._storage.publish(records, acks).addCallbacks(self._counted, self._failed, (records,), {}, (len(records),), {})

    def _counted(self, results: list[Position | PsubdError], records: Sequence[Record]) -> list[Position | PsubdError]:
        messages = len(records)
        self._waiting -= messages
        size = sum(sizes(records))
        for record, result in zip(records, results, strict=False):  # with acks 0 there are none
            if isinstance(result, PsubdError):
                self._counts.failed(result.code, 1)
                messages -= 1
                size -= record.size
        if messages:
            self._counts.published(records[0].topic, messages, size)
        return results

    def _failed(self, failure: Failure, messages: int) -> Failure:
        self._waiting -= messages
        if not failure.check(CancelledError):
            error = failure.value
            self._counts.failed(error.code if isinstance(error, PsubdError) else "internal", messages)
        return failure


class Tally:
    """The publisher's counters."""

    def __init__(self, metrics: CollectorRegistry | None) -> None:
        self._messages = Counts("psubd_published_messages_total", "Messages that the storage took", ["topic"], metrics)
        self._bytes = Counts("psubd_published_bytes_total", "Value, key and header bytes that the storage took", ["topic"], metrics)
        self._failures = Counts("psubd_publish_failures_total", "Judged messages that the storage did not take", ["code"], metrics)
        self._topics: dict[str, tuple[Count, Count]] = {}

    def published(self, topic: str, messages: int, size: int) -> None:
        """``messages`` of ``size`` bytes together are stored."""
        counts = self._topics.get(topic)
        if counts is None:
            counts = self._topics[topic] = (self._messages.labels(topic), self._bytes.labels(topic))
        counts[0].value += messages
        counts[1].value += size

    def failed(self, code: str, messages: int) -> None:
        """``messages`` were not taken."""
        self._failures.labels(code).value += messages


def judged_timestamp(timestamp: int, now: int, stored: StoredTopic) -> int:
    """``timestamp`` if the topic takes it. :raises BadHeader:"""
    latest = now + min(AHEAD_MS, stored.timestamp_ahead_ms)
    if not 0 <= timestamp <= latest:
        raise BadHeader(f"timestamp: {timestamp} is out of range; send milliseconds since the epoch, 0 to {latest} (now is {now})")
    return timestamp


def bare(record: Record) -> bool:
    """Whether the record names nothing beside its topic and value."""
    return record.key is None and not record.headers and record.partition is None and record.timestamp is None


def headers_size(headers: Headers) -> int:
    """Bytes of record headers; a name counts as its UTF-8."""
    size = 0
    for name, value in headers:
        size += text_size(name) + (len(value) if value is not None else 0)
    return size


def stored_size(record: Record) -> int:
    """The most that the record can weigh in a storage: Kafka's upper bound for a batch with this one record, uncompressed
    (``AbstractRecords.estimateSizeInBytesUpperBound``). The embedded storages need less."""
    size = BATCH_OVERHEAD + RECORD_OVERHEAD + sized(record.key) + sized(record.value) + varint_size(len(record.headers))
    for name, value in record.headers:
        length = text_size(name)
        size += varint_size(length) + length + sized(value)
    return size


def sized(data: bytes | None) -> int:
    """Bytes of ``data`` with its length before it; null has the length -1."""
    return 1 if data is None else varint_size(len(data)) + len(data)


def varint_size(number: int) -> int:
    """Bytes of a zigzag varint of ``number``, which is not negative."""
    return max(1, (number.bit_length() + 7) // 7)


def text_size(text: str) -> int:
    """Bytes of ``text`` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
