"""``memory:``: a storage in this process's memory, lost when it ends. Also the double of the other rooms' tests: everything is synchronous."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from psubd.errors import Exists, PsubdError, StorageUnavailable, TooLarge, TopicMissing
from psubd.interfaces import Environment, IClock, IStorage, IStorageFactory
from psubd.model import Acks, Bounds, Commit, Message, PartitionLayout, Position, Record, Slice, StorageLimits, StoredTopic, TopicPartition, TopicSpec
from psubd.storage.topics import Rules, configured, grown, here, stored
from psubd.storage.watches import Watches

T = TypeVar("T")
Told = Callable[[Position | PsubdError], None]

SWEEP_MS = 30_000
"""How often retention and compaction look at everything."""

MAX_BYTES = 1 << 30
"""Payload bytes that are held before publishes are refused, unless ``[storage.memory] max_bytes`` says otherwise."""

OVERHEAD = 200
"""Bytes that a held message costs beside its payload, counted into ``max_bytes`` (measured: 190 on CPython 3.11)."""


class Log:
    """One partition. Offsets rise; compaction leaves gaps.

    :ivar epochs: of the log: where each begins, the first one at 0. More than one only where a test cut it (`truncate`).
    """

    def __init__(self) -> None:
        self.epochs: list[int] = [0]
        self.first = self.end = 0
        self.size = 0
        self.messages: list[Message] = []
        self.tombs: dict[int, int] = {}

    def append(self, record: Record, timestamp: int) -> int:
        """Keep it; its offset."""
        message = Message(self.end, timestamp, record.key, record.value, record.headers)
        self.messages.append(message)
        self.size += message.size
        self.end += 1
        return message.offset

    def read(self, offset: int, max_records: int, max_bytes: int) -> Slice:
        """As `IStorage.read`."""
        taken: list[Message] = []
        size = 0
        begin = bisect_left(self.messages, max(offset, self.first), key=_offset)
        following = self.end if offset < self.end else offset
        for message in islice(self.messages, begin, None):
            size += message.size
            if len(taken) == max_records or (taken and size > max_bytes):
                following = message.offset
                break
            taken.append(message)
        return Slice(tuple(taken), following, self.first, self.end, self.epoch_at(min(following, self.end)))

    def bounds(self) -> Bounds:
        return Bounds(self.first, self.end, self.epoch_at(self.end))

    def epoch_at(self, following: int) -> int:
        """Of the last record before ``following``; 0 where there is none."""
        return max(0, bisect_left(self.epochs, following) - 1)

    def end_of(self, epoch: int) -> int | None:
        """Where the log of that epoch ended; None: it was not cut, or never was."""
        return self.epochs[epoch + 1] if 0 <= epoch < len(self.epochs) - 1 else None

    def truncate(self, end: int) -> None:
        """Lose all from ``end`` on, as a log does whose new leader never had it. What comes next is of another epoch."""
        kept = bisect_left(self.messages, end, key=_offset)
        self.size -= sum(message.size for message in self.messages[kept:])
        del self.messages[kept:]
        self.first, self.end = min(self.first, end), end
        self.epochs = [*(min(begin, end) for begin in self.epochs), end]

    def offset_at(self, timestamp: int) -> int:
        """The first offset of a record that is as new, else the end."""
        return next((message.offset for message in self.messages if message.timestamp >= timestamp), self.end)

    def retire(self, topic: StoredTopic, now: int) -> None:
        """Drop what is too old, then the oldest while there are more bytes than the topic keeps; the newest stays then."""
        oldest = None if topic.retention_ms is None else self.offset_at(now - topic.retention_ms)
        excess = 0 if topic.retention_bytes is None else self.size - topic.retention_bytes
        gone = 0
        for message in self.messages:
            aged = oldest is not None and message.offset < oldest
            if not aged and (excess <= 0 or message.offset == self.end - 1):
                break
            excess -= message.size
            self.size -= message.size
            gone += 1
        if gone:
            self.first = self.messages[gone - 1].offset + 1
            del self.messages[:gone]

    def compact(self, now: int, tombstone_ms: int) -> None:
        """Keep the newest of each key; a tombstone for ``tombstone_ms`` after it was seen here first."""
        newest = {message.key: message.offset for message in self.messages}
        tombs = {message.offset for message in self.messages if message.value is None and newest[message.key] == message.offset}
        self.tombs = {offset: self.tombs.get(offset, now) for offset in tombs}
        lapsed = {offset for offset, seen in self.tombs.items() if now - seen > tombstone_ms}
        self.messages = [message for message in self.messages if newest[message.key] == message.offset and message.offset not in lapsed]
        self.size = sum(message.size for message in self.messages)


class Shelf:
    """One topic and its logs."""

    def __init__(self, topic: StoredTopic) -> None:
        self.logs: list[Log] = []
        self.change(topic)

    def change(self, topic: StoredTopic) -> None:
        self.topic, self.rules = topic, Rules(topic)
        self.logs.extend(Log() for _ in range(topic.partitions - len(self.logs)))

    def sweep(self, now: int) -> None:
        for log in self.logs:
            if self.rules.compact:
                log.compact(now, self.rules.tombstone_ms)
            else:
                log.retire(self.topic, now)

    @property
    def weight(self) -> int:
        return sum(log.size + OVERHEAD * len(log.messages) for log in self.logs)


@implementer(IStorage)
class MemoryStorage:
    """Topics in dictionaries. Each Deferred has fired when it is returned, but for `watch`.

    :param max_bytes: with so much held, publishes fail with StorageUnavailable until retention or a deletion made room.
    """

    limits = StorageLimits()
    log = Logger()

    def __init__(self, clock: IClock, max_bytes: int = MAX_BYTES) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._shelves: dict[str, Shelf] = {}
        self._places: dict[str, dict[TopicPartition, Commit]] = {}
        self._watches = Watches()
        self._weight = 0
        self._sweeping: IDelayedCall | None = None
        self._posted: list[tuple[Told | None, Position | PsubdError]] = []

    def start(self) -> "Deferred[None]":
        self._sweeping = self._clock.call_later(SWEEP_MS, self._sweep)
        return succeed(None)

    def stop(self) -> "Deferred[None]":
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
            self._tell()
            self._watches.close()
        return succeed(None)

    def trouble(self) -> str | None:
        return "it is stopped" if self._sweeping is None else None

    def create_topic(self, spec: TopicSpec) -> "Deferred[StoredTopic]":
        return self._answer(lambda: self._create(spec))

    def describe(self, topics: Sequence[str]) -> "Deferred[dict[str, StoredTopic]]":
        return self._answer(lambda: {name: self._shelves[name].topic for name in topics if name in self._shelves})

    def known(self, topic: str) -> StoredTopic | None:
        shelf = self._shelves.get(topic)
        return shelf.topic if shelf else None

    def grow(self, topic: str, partitions: int) -> "Deferred[StoredTopic]":
        return self._answer(lambda: self._change(topic, lambda old: grown(old, partitions)))

    def configure(self, topic: str, changes: Mapping[str, Any]) -> "Deferred[StoredTopic]":
        return self._answer(lambda: self._change(topic, lambda old: configured(old, changes)))

    def delete_topic(self, topic: str) -> "Deferred[None]":
        return self._answer(lambda: self._delete(topic))

    def post(self, record: Record, acks: Acks, told: Told) -> None:
        if self._sweeping is None:
            raise StorageUnavailable("the storage is stopped")
        if not self._posted:
            self._clock.call_later(0, self._tell)
        self._posted.append((None if acks == "0" else told, self._store(record, self._clock.epoch_ms())))

    def _tell(self) -> None:
        """What was posted in a turn: wake who waits for it, then answer."""
        posted, self._posted = self._posted, []
        self._wake([result for _, result in posted])
        for told, result in posted:
            if told is not None:
                told(result)
            elif isinstance(result, PsubdError):
                self.log.error("Accepted with acks=0 and not stored: {why}", why=str(result))

    def publish(self, records: Sequence[Record], acks: Acks) -> "Deferred[list[Position | PsubdError]]":
        return self._answer(lambda: self._publish(records) if acks != "0" else self._publish(records)[:0])

    def read(self, topic: str, partition: int, offset: int, max_records: int, max_bytes: int) -> "Deferred[Slice]":
        return self._answer(lambda: self._log(topic, partition).read(offset, max_records, max_bytes))

    def watch(self, topic: str, partition: int, offset: int) -> "Deferred[None]":
        shelf = self._shelves.get(topic)
        if self._sweeping is None or shelf is None or not 0 <= partition < len(shelf.logs) or offset < shelf.logs[partition].end:
            return succeed(None)
        return self._watches.wait(topic, partition, offset)

    def layout(self, topic: str) -> "Deferred[dict[int, PartitionLayout]]":
        return self._answer(lambda: here(self._shelf(topic).topic.partitions))

    def brokers(self) -> "Deferred[tuple[int, ...]]":
        return self._answer(lambda: (0,))

    def bounds(self, topic: str) -> "Deferred[dict[int, Bounds]]":
        return self._answer(
            lambda: {partition: Bounds(log.first, log.end, log.epoch_at(log.end)) for partition, log in enumerate(self._shelf(topic).logs)}
        )

    def offset_at(self, topic: str, timestamp: int) -> "Deferred[dict[int, int]]":
        return self._answer(lambda: {partition: log.offset_at(timestamp) for partition, log in enumerate(self._shelf(topic).logs)})

    def log_ends(self, topic: str, epochs: Mapping[int, int]) -> "Deferred[dict[int, int]]":
        return self._answer(lambda: self._log_ends(topic, epochs))

    def commit(self, group: str, places: Mapping[TopicPartition, Commit]) -> "Deferred[dict[TopicPartition, PsubdError]]":
        return self._answer(lambda: self._commit(group, places))

    def committed(self, group: str) -> "Deferred[dict[TopicPartition, Commit]]":
        return self._answer(lambda: dict(self._places.get(group, {})))

    def forget(self, group: str, topic: str | None) -> "Deferred[None]":
        return self._answer(lambda: self._forget(group, topic))

    def adopt(self, group: str) -> "Deferred[None]":
        return self._answer(lambda: None)

    def status(self) -> Mapping[str, Any]:
        return {
            "kind": "memory",
            "topics": len(self._shelves),
            "partitions": sum(len(shelf.logs) for shelf in self._shelves.values()),
            "bytes": self._weight,
            "max_bytes": self._max_bytes,
            "waiting_reads": len(self._watches),
        }

    def truncate(self, topic: str, partition: int, end: int) -> None:
        """Cut the log, for the tests of those who must bear it (an unclean election of a leader does so on Kafka). The topic stays the same one."""
        self._log(topic, partition).truncate(end)
        self._weigh()
        self._watches.changed(topic)

    def _answer(self, call: Callable[[], T]) -> "Deferred[T]":
        return execute(self._do, call)

    def _do(self, call: Callable[[], T]) -> T:
        if self._sweeping is None:
            raise StorageUnavailable("the storage is stopped")
        return call()

    def _shelf(self, topic: str) -> Shelf:
        shelf = self._shelves.get(topic)
        if shelf is None:
            raise TopicMissing(f"topic {topic} is not in the storage")
        return shelf

    def _log(self, topic: str, partition: int | None) -> Log:
        logs = self._shelf(topic).logs
        if partition is None or not 0 <= partition < len(logs):
            raise TopicMissing(f"topic {topic} has no partition {partition}; it has {len(logs)}")
        return logs[partition]

    def _create(self, spec: TopicSpec) -> StoredTopic:
        if spec.name in self._shelves:
            raise Exists(f"topic {spec.name} is in the storage already")
        topic = stored(spec)
        self._shelves[spec.name] = Shelf(topic)
        return topic

    def _change(self, name: str, change: Callable[[StoredTopic], StoredTopic]) -> StoredTopic:
        shelf = self._shelf(name)
        before, topic = shelf.topic, change(shelf.topic)
        shelf.change(topic)
        shelf.sweep(self._clock.epoch_ms())
        self._weigh()
        if before.partitions != topic.partitions:
            self._watches.changed(name)
        return topic

    def _delete(self, topic: str) -> None:
        if self._shelves.pop(topic, None) is None:
            return
        for group in list(self._places):
            self._forget(group, topic)
        self._weigh()
        self._watches.changed(topic)

    def _publish(self, records: Sequence[Record]) -> list[Position | PsubdError]:
        now = self._clock.epoch_ms()
        answers = [self._store(record, now) for record in records]
        self._wake(answers)
        return answers

    def _wake(self, answers: Sequence[Position | PsubdError]) -> None:
        for topic, partition in {(answer.topic, answer.partition) for answer in answers if isinstance(answer, Position)}:
            shelf = self._shelves.get(topic)  # may be gone again by now
            if shelf is not None and partition < len(shelf.logs):
                self._watches.grew(topic, partition, shelf.logs[partition].end)

    def _store(self, record: Record, now: int) -> Position | PsubdError:
        timestamp = now if record.timestamp is None else record.timestamp
        size = record.size
        weight = size + OVERHEAD
        try:
            log = self._log(record.topic, record.partition)
            refused = self._shelves[record.topic].rules.refusal(record, size, timestamp, now)
            if refused is None and self._weight + weight > self._max_bytes:
                refused = StorageUnavailable(f"the memory storage is full ({self._max_bytes} bytes); wait for retention, or delete a topic")
        except TopicMissing as missing:
            return missing
        if refused is not None:
            return refused
        self._weight += weight
        assert record.partition is not None  # _log has looked
        return Position(record.topic, record.partition, log.append(record, timestamp), timestamp)

    def _log_ends(self, topic: str, epochs: Mapping[int, int]) -> dict[int, int]:
        ends = {partition: self._log(topic, partition).end_of(epoch) for partition, epoch in epochs.items()}
        return {partition: end for partition, end in ends.items() if end is not None}

    def _commit(self, group: str, places: Mapping[TopicPartition, Commit]) -> dict[TopicPartition, PsubdError]:
        failed: dict[TopicPartition, PsubdError] = {}
        for place, commit in places.items():
            try:
                self._log(place.topic, place.partition)
            except TopicMissing as missing:
                failed[place] = missing
                continue
            if len(commit.metadata) > self.limits.max_metadata:
                failed[place] = TooLarge(f"the commit's metadata has {len(commit.metadata)} characters; at most {self.limits.max_metadata}")
                continue
            self._places.setdefault(group, {})[place] = commit
        return failed

    def _forget(self, group: str, topic: str | None) -> None:
        places = self._places.get(group, {})
        for place in [place for place in places if topic in (None, place.topic)]:
            del places[place]
        if not places:
            self._places.pop(group, None)

    def _sweep(self) -> None:
        now = self._clock.epoch_ms()
        for shelf in self._shelves.values():
            shelf.sweep(now)
        self._weigh()
        self._sweeping = self._clock.call_later(SWEEP_MS, self._sweep)

    def _weigh(self) -> None:
        self._weight = sum(shelf.weight for shelf in self._shelves.values())


class MemorySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[storage.memory]``. ``max_bytes``: payload that may be held, with 200 bytes more a message; at least 1 MiB."""

    max_bytes: int = MAX_BYTES


@implementer(IPlugin, IStorageFactory)
class MemoryFactory:
    """Provides ``memory:``."""

    scheme = "memory"
    usage = "memory:  an embedded log in memory, lost at exit"
    shared = False

    def check(self, url: str, settings: Mapping[str, Any]) -> list[str]:
        mistakes = [] if url == "memory:" else [f"storage: {url!r}; memory: takes nothing behind the colon"]
        try:
            chosen = msgspec.convert(dict(settings), MemorySettings)
        except msgspec.ValidationError as refused:
            return [*mistakes, f"storage.memory: {refused}"]
        if chosen.max_bytes < 1 << 20:
            mistakes.append(f"storage.memory: max_bytes: {chosen.max_bytes}; send at least {1 << 20}")
        return mistakes

    def build(self, url: str, environment: Environment) -> IStorage:
        chosen = msgspec.convert(dict(environment.settings), MemorySettings)
        return MemoryStorage(environment.clock, max_bytes=chosen.max_bytes)


def _offset(message: Message) -> int:
    return message.offset
