"""Publish: records are judged before the storage sees them, so that no request makes another one fail."""

from collections.abc import Sequence

import msgspec
from prometheus_client import CollectorRegistry, Counter
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from psubd.errors import BadHeader, PsubdError, TooLarge, TopicMissing
from psubd.interfaces import IClock, IPublisher, IStorage
from psubd.model import Acks, Position, Record, StoredTopic, Topic
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
        self._asked: dict[str, list[Deferred[None]]] = {}
        self._counts = Counts(metrics)

    # --- judging ----------------------------------------------------------------------------------------------------------------

    def ready(self, topic: Topic) -> Deferred[None] | None:
        stored = self._storage.known(topic.id)
        if stored is not None and stored.uid == topic.uid:
            return None
        return self._ask(topic.id)

    def judge(self, topic: Topic, record: Record) -> Record:
        stored = self._storage.known(topic.id)
        if stored is None or stored.uid != topic.uid:
            raise TopicMissing(f"topic {topic.id} is registered, but it is gone from the storage; register it again")
        self._judge_size(record, stored)
        if record.key is None and stored.cleanup == "compact":
            raise BadHeader(f"key: topic {topic.id} is compacted, where every message needs a key; send one")
        now = self._clock.epoch_ms()
        timestamp = now if record.timestamp is None else judged_timestamp(record.timestamp, now, stored)
        return msgspec.structs.replace(record, partition=self._partition(record, stored), timestamp=timestamp)

    def _judge_size(self, record: Record, stored: StoredTopic) -> None:
        value = len(record.value) if record.value is not None else 0
        if value > self._max_message_bytes:
            raise TooLarge(f"the value has {value} bytes; psubd takes at most {self._max_message_bytes} (max-message-bytes)")
        beside = size_beside(record)
        if beside > BESIDE_BYTES:
            raise TooLarge(f"key and headers have {beside} bytes; at most {BESIDE_BYTES} together")
        loosely = value + beside + LOOSE_OVERHEAD + LOOSE_HEADER * len(record.headers)
        if loosely <= stored.max_message_bytes:
            return
        weight = stored_size(record)
        if weight > stored.max_message_bytes:
            raise TooLarge(
                f"the record takes up to {weight} bytes in the storage; topic {stored.name} has a limit of its own of {stored.max_message_bytes}"
                " (max.message.bytes)"
            )

    def _partition(self, record: Record, stored: StoredTopic) -> int:
        partitions = stored.partitions
        if record.partition is not None:
            if not 0 <= record.partition < partitions:
                raise BadHeader(f"partition: topic {stored.name} has no partition {record.partition}; send 0 to {partitions - 1}")
            return record.partition
        if record.key is None:
            return self._spread.next(stored.name, partitions)
        return partition_of(record.key, partitions) if partitions > 1 else 0

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

    def publish(self, records: Sequence[Record], acks: Acks) -> Deferred[list[Position | PsubdError]]:
        return self._storage.publish(records, acks).addCallbacks(self._counted, self._failed, (records,), {}, (len(records),), {})

    def _counted(self, results: list[Position | PsubdError], records: Sequence[Record]) -> list[Position | PsubdError]:
        messages = size = 0
        for place, record in enumerate(records):
            result = results[place] if results else None
            if isinstance(result, PsubdError):
                self._counts.failed(result.code, 1)
            else:
                messages += 1
                size += record.size
        if messages:
            self._counts.published(records[0].topic, messages, size)
        return results

    def _failed(self, failure: Failure, messages: int) -> Failure:
        if not failure.check(CancelledError):
            error = failure.value
            self._counts.failed(error.code if isinstance(error, PsubdError) else "internal", messages)
        return failure


class Counts:
    """The publisher's counters."""

    def __init__(self, metrics: CollectorRegistry | None) -> None:
        self._messages = Counter("psubd_published_messages_total", "Messages that the storage took", ["topic"], registry=metrics)
        self._bytes = Counter("psubd_published_bytes_total", "Value, key and header bytes that the storage took", ["topic"], registry=metrics)
        self._failures = Counter("psubd_publish_failures_total", "Judged messages that the storage did not take", ["code"], registry=metrics)
        self._children: dict[str, tuple[Counter, Counter]] = {}

    def published(self, topic: str, messages: int, size: int) -> None:
        """``messages`` of ``size`` bytes together are stored."""
        child = self._children.get(topic)
        if child is None:
            child = self._children[topic] = (self._messages.labels(topic), self._bytes.labels(topic))
        child[0].inc(messages)
        child[1].inc(size)

    def failed(self, code: str, messages: int) -> None:
        """``messages`` were not taken."""
        self._failures.labels(code).inc(messages)


def judged_timestamp(timestamp: int, now: int, stored: StoredTopic) -> int:
    """``timestamp`` if the topic takes it. :raises BadHeader:"""
    latest = now + min(AHEAD_MS, stored.timestamp_ahead_ms)
    if not 0 <= timestamp <= latest:
        raise BadHeader(f"timestamp: {timestamp} is out of range; send milliseconds since the epoch, 0 to {latest} (now is {now})")
    return timestamp


def size_beside(record: Record) -> int:
    """Bytes of key and headers; a header's name counts as its UTF-8."""
    size = len(record.key) if record.key is not None else 0
    for name, value in record.headers:
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
