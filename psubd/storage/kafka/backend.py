"""The storage on Kafka: Deferreds, on the reactor's thread."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from kafka import errors
from kafka.future import Future
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, DeferredLock, FirstError, fail, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from psubd import drivers
from psubd.errors import Internal, PsubdError, StorageTimeout, StorageUnavailable, TooLarge, TopicMissing
from psubd.interfaces import IClock, IStorage
from psubd.model import Acks, Bounds, Commit, PartitionLayout, Position, Record, Slice, StorageLimits, StoredTopic, TopicPartition, TopicSpec, sizes
from psubd.storage.kafka.atlas import Change, Chart, uid
from psubd.storage.kafka.client import KafkaClient, Postbox
from psubd.storage.kafka.faults import Lost, Unsent, timeout, unavailable
from psubd.storage.kafka.line import Line
from psubd.storage.kafka.meters import Meters
from psubd.storage.kafka.outbox import RECORD_OVERHEAD, Bundle, Entry, Settled, Told, count_of
from psubd.storage.kafka.reads import Piece
from psubd.storage.kafka.settings import convert
from psubd.storage.kafka.shelves import Budget, Shelf, Shelves
from psubd.storage.kafka.tail import Arrival, Round
from psubd.storage.kafka.threads import Mailbox
from psubd.storage.watches import Watches, fire

T = TypeVar("T")
log = Logger()

SWEEP_MS = 5_000
ROUSE_MS = 1_000
DEAF_MS = 4_000
"""Who waits at a partition's end that the tail has not spoken for since is woken, so that it reads, and is told where that fails. Otherwise it
would take an end that nobody can see for one where nothing comes. The tail speaks every 500 ms at least, and has 3,500 to find out that it is cut
off."""

IDLE_MS = 30_000
"""A partition's end that nobody waited at or read from for so long is no longer read."""

STOPPED = "psubd stops"
CUT_OFF = "psubd stopped before Kafka answered: it may be done or not"


class Waiting(Watches):
    """Who waits for what comes."""

    def anybody(self, topic: str, partition: int) -> bool:
        return bool(self._waiting.get(topic, {}).get(partition))

    def rouse(self, topic: str, partition: int) -> None:
        """Fire all that wait on the partition."""
        due = list(self._waiting.get(topic, {}).get(partition, {}))
        for waiter in due:
            self._withdraw(topic, partition, waiter)
        fire(due)


class Turns:
    """One call of a group at a time: a later commit must not be overtaken by an earlier one."""

    def __init__(self) -> None:
        self._locks: dict[str, DeferredLock] = {}

    def run(self, group: str, call: "Callable[[], Deferred[T]]") -> "Deferred[T]":
        lock = self._locks.setdefault(group, DeferredLock())
        done: Deferred[T] = lock.run(call)
        return done.addBoth(self._left, group, lock)

    def _left(self, result: Any, group: str, lock: DeferredLock) -> Any:
        if not lock.locked and not lock.waiting:
            self._locks.pop(group, None)
        return result


class Call:
    """One call of `publish`: what came of its records, in their order."""

    __slots__ = ("_left", "_results", "answer")

    def __init__(self, count: int) -> None:
        self.answer: Deferred[list[Position | PsubdError]] = Deferred()
        self._results: list[Position | PsubdError | None] = [None] * count
        self._left = count

    def told(self, number: int, result: Position | PsubdError) -> None:
        self.told_all((number,), (result,))

    def told_all(self, numbers: Sequence[int], results: Sequence[Position | PsubdError]) -> None:
        """What came of the records of these numbers."""
        stored = self._results
        for number, result in zip(numbers, results, strict=True):
            stored[number] = result
        self._left -= len(numbers)
        if not self._left and not self.answer.called:
            self.answer.callback([each for each in stored if each is not None])

    def refusals(self) -> list[Position | PsubdError]:
        """Where nobody waits: all of them were refused at once, or nothing."""
        return [] if self._left else [each for each in self._results if each is not None]


def refused(record: Record, chart: Chart | None, size: int) -> PsubdError:
    """Why a record of that size cannot go to the topic, which can be told without asking Kafka."""
    if chart is None:
        return TopicMissing(f"topic {record.topic!r} is not in Kafka")
    topic, partition = chart.stored, record.partition or 0
    if not 0 <= partition < topic.partitions:
        return TopicMissing(f"topic {record.topic!r} has no partition {partition}; it has {topic.partitions}")
    return TooLarge(f"the record has {size} bytes; topic {record.topic!r} takes {topic.max_message_bytes} (max.message.bytes)")


def bundled(records: Sequence[Record], charts: Mapping[str, Chart], call: Call, deadline: float, least: int) -> list[Entry]:
    """What of the call's records can be sent: those of one partition in one `Bundle`, in their order, where they are ``least`` at least. The others
    are refused."""
    places: dict[tuple[str, int], tuple[list[Record], list[int], list[int]]] = {}
    for number, (record, size) in enumerate(zip(records, sizes(records), strict=True)):
        topic, partition = record.topic, record.partition or 0
        chart = charts.get(topic)
        if chart is None or not 0 <= partition < chart.stored.partitions or size > chart.stored.max_message_bytes:
            call.told(number, refused(record, chart, size))
            continue
        found = places.get((topic, partition))
        if found is None:
            found = places[topic, partition] = [], [], []
        found[0].append(record)
        found[1].append(number)
        found[2].append(size + RECORD_OVERHEAD)
    entries: list[Entry] = []
    for those, numbers, taken in places.values():
        if len(those) >= least:
            entries.append(Bundle(those, numbers, sum(taken), deadline, call.told_all))
        else:
            entries += [Entry(record, size, deadline, partial(call.told, number)) for record, number, size in zip(those, numbers, taken, strict=True)]
    return entries


def first_failure(failure: Failure) -> Failure:
    """What `gatherResults` failed with."""
    assert isinstance(failure.value, FirstError)
    return failure.value.subFailure


@implementer(IStorage)
class KafkaStorage:
    """See `psubd.storage.kafka` for how it is built.

    :param bootstrap: ``host:port`` of some brokers. :param settings: the table ``[storage.kafka]``; credentials of the environment win over it.
    :param reactor: IReactorFromThreads, IReactorThreads and IReactorTime.
    """

    kind = "kafka"
    limits = StorageLimits(places_expire=True)
    convert = staticmethod(convert)
    bundled_from = 2
    """Records of one call and one partition that go as one."""

    def __init__(
        self,
        bootstrap: Sequence[str],
        clock: IClock,
        reactor: Any,
        settings: Mapping[str, Any] | None = None,
        metrics: CollectorRegistry | None = None,
    ) -> None:
        self.settings = self.convert(settings or {})
        self._bootstrap, self._clock, self._reactor = tuple(bootstrap), clock, reactor
        threads: IReactorFromThreads = reactor
        self._mailbox = Mailbox(threads)
        self._shelves = Shelves(Budget(self.settings.window_bytes, self.settings.cache_bytes))
        self._joined: set[tuple[str, int]] = set()
        self._watches = Waiting()
        self._turns = Turns()
        self._waking: set[Acks] = set()
        self._looking: dict[str, list[Deferred[None]]] = {}
        self._reading: dict[tuple[str, str, int, int], list[Deferred[Piece]]] = {}
        self._open: set[Deferred[Any]] = set()
        self._unanswered = 0
        self._timeout_s = self.settings.storage_timeout_s
        self._client: KafkaClient | None = None
        self._stopping: Deferred[None] | None = None
        self._closing = False
        self._stop_by = 0.0
        self._patience: IDelayedCall | None = None
        self._sweeping: IDelayedCall | None = None
        self._rousing: IDelayedCall | None = None
        self._meters = Meters(metrics or CollectorRegistry(), lambda: self._client)

    # --- life ---

    def start(self) -> "Deferred[None]":
        drivers.listen("kafka")
        self._client = self._new_client()
        started: Deferred[None] = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._client.start)
        return started.addCallback(lambda _: self._started())

    def _new_client(self) -> KafkaClient:
        return KafkaClient(self._bootstrap, self.settings, self._heard_of_change, self._heard, self._heard_of_answers)

    def _started(self) -> None:
        trouble = self.trouble()
        if trouble is None:
            log.info("Kafka answers: {brokers} brokers", brokers=len(self._running.control.managers[0].nodes()))
        else:
            log.warn("Kafka is not there yet, psubd goes on trying: {trouble}", trouble=trouble)
        self._told = trouble
        self._sweep()
        self._rouse()

    def stop(self) -> "Deferred[None]":
        """What was accepted is done, or fails by ``storage_timeout_ms``. The reactor goes on meanwhile."""
        if self._stopping is None:
            self._stopping = Deferred()
            for timer in (self._sweeping, self._rousing):
                if timer is not None:
                    timer.cancel()
            self._watches.close()
            self._stop_by = time.monotonic() + self.settings.storage_timeout_s
            self._patience = self._clock.call_later(self.settings.storage_timeout_ms, self._close)
            self._close_if_idle()
        waiting: Deferred[None] = Deferred()
        self._stopping.addCallback(self._stopped, waiting)
        return waiting

    def _close(self) -> None:
        """All that was accepted is answered, or its time is up."""
        if self._closing:
            return
        self._closing = True
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        if self._client is None:
            self._ended()
        else:
            ended: Deferred[None] = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._client.stop, self._stop_by)
            ended.addErrback(lambda failure: log.failure("Kafka's connections could not be closed", failure))
            ended.addBoth(lambda _: self._mailbox.put(self._ended))

    @staticmethod
    def _stopped(_: None, waiting: "Deferred[None]") -> None:
        waiting.callback(None)

    def _ended(self) -> None:
        for waiting in list(self._open):
            if waiting in self._open and not waiting.called:  # one may end with another
                waiting.errback(StorageTimeout(CUT_OFF))
        assert self._stopping is not None
        self._stopping.callback(None)

    def trouble(self) -> str | None:
        if self._stopping is not None:
            return STOPPED
        return "not started" if self._client is None else self._client.atlas.trouble

    @property
    def _running(self) -> KafkaClient:
        """:raises StorageUnavailable: before the start and after the stop."""
        if self._client is None or self._stopping is not None:
            raise StorageUnavailable(STOPPED if self._stopping else "psubd starts")
        return self._client

    # --- topics ---

    def create_topic(self, spec: TopicSpec) -> "Deferred[StoredTopic]":
        return self._ask(lambda client: (client.control, client.topics.create, spec))

    def describe(self, topics: Sequence[str]) -> "Deferred[dict[str, StoredTopic]]":
        return self._ask(lambda client: (client.control, client.describe, tuple(topics)))

    def known(self, topic: str) -> StoredTopic | None:
        chart = None if self._client is None else self._client.atlas.want(topic)
        return None if chart is None else chart.stored

    def grow(self, topic: str, partitions: int) -> "Deferred[StoredTopic]":
        return self._ask(lambda client: (client.control, client.topics.grow, topic, partitions))

    def configure(self, topic: str, changes: Mapping[str, Any]) -> "Deferred[StoredTopic]":
        return self._ask(lambda client: (client.control, client.topics.configure, topic, dict(changes)))

    def delete_topic(self, topic: str) -> "Deferred[None]":
        return self._ask(lambda client: (client.control, client.topics.delete, topic))

    # --- publish ---

    def publish(self, records: Sequence[Record], acks: Acks) -> "Deferred[list[Position | PsubdError]]":
        deadline = time.monotonic() + self.settings.storage_timeout_s
        try:
            unsure = self._unsure(records)
        except StorageUnavailable as stopped:
            return fail(stopped)
        if not unsure:
            return self._post(records, acks, deadline)
        looked = gatherResults([self._look(topic) for topic in unsure], consumeErrors=True)
        return looked.addCallbacks(lambda _: self._post(records, acks, deadline), first_failure)

    def _unsure(self, records: Sequence[Record]) -> set[str]:
        """Topics that must be looked at first; also those that are being looked at, so that no call overtakes an earlier one."""
        want = self._running.atlas.want
        most: dict[str, int] = {}
        for topic, partition in {(record.topic, record.partition or 0) for record in records}:
            most[topic] = max(most.get(topic, 0), partition)
        charts = {topic: want(topic) for topic in most}
        return {topic for topic, chart in charts.items() if chart is None or most[topic] >= chart.stored.partitions or topic in self._looking}

    def _post(self, records: Sequence[Record], acks: Acks, deadline: float) -> "Deferred[list[Position | PsubdError]]":
        client = self._running
        call = Call(len(records))
        outbox, charts = client.outboxes[acks], client.atlas.charts
        entries = bundled(records, charts, call, deadline, self.bundled_from)
        if entries:
            try:
                outbox.room(sum([entry.size for entry in entries]))
            except StorageUnavailable as full:
                return fail(full)
            for entry in entries:
                self._put(acks, outbox, entry, charts.get(entry.record.topic))
        return succeed(call.refusals()) if acks == "0" or not records else call.answer

    def post(self, record: Record, acks: Acks, told: Told) -> None:
        client = self._client
        if client is None or self._stopping is not None:
            raise StorageUnavailable(STOPPED if self._stopping else "psubd starts")
        now, topic, partition = time.monotonic(), record.topic, record.partition or 0
        chart = client.atlas.want(topic, now)
        if chart is None or partition >= len(chart.leaders) or topic in self._looking:
            self._post_unsure(record, acks, told)
            return
        if acks == "0":
            told = self._unheard
        size = record.size
        if size > chart.stored.max_message_bytes or partition < 0:
            self._mailbox.put(told, refused(record, chart, size))
            return
        size += RECORD_OVERHEAD
        outbox = client.outboxes[acks]
        outbox.room(size)
        self._put(acks, outbox, Entry(record, size, now + self._timeout_s, told), chart)

    def _put(self, acks: Acks, outbox: Postbox, entry: Entry, chart: Chart | None) -> None:
        outbox.post(entry, chart)
        self._unanswered += entry.count
        if acks not in self._waking:
            self._waking.add(acks)
            self._reactor.callLater(0, self._wake, acks)

    def _post_unsure(self, record: Record, acks: Acks, told: Told) -> None:
        """The topic must be looked at first."""
        if acks == "0":
            told = self._unheard
        self.publish([record], acks).addCallbacks(lambda results: told(results[0]) if results else None, lambda failure: told(failure.value))

    @staticmethod
    def _unheard(result: Position | PsubdError) -> None:
        """What came of a record of ``acks: 0``: nobody waits for it."""
        if isinstance(result, PsubdError):
            log.warn("A message with acks 0 was not stored: {why}", why=result.detail)

    def _wake(self, acks: Acks) -> None:
        self._waking.discard(acks)
        if self._client is not None:
            self._client.outboxes[acks].wake()

    def _heard_of_answers(self, acks: Acks, settled: list[Settled]) -> None:
        self._mailbox.put(self._answer, acks, settled)

    def _answer(self, acks: Acks, settled: list[Settled]) -> None:
        seconds, begun = self._meters.publish_seconds[acks], time.monotonic() - self._timeout_s
        for each in settled:
            entries = each.entries
            count = count_of(entries)
            if each.error is None:
                shelf = self._shelves.get(each.topic, each.partition)
                if shelf is not None and each.base + count > shelf.written:
                    shelf.written = each.base + count
            seconds.observe_all([entry.deadline - begun for entry in entries for _ in range(entry.count)])
            for entry, result in each.results():
                try:
                    entry.told(result)
                except Exception:  # noqa: BLE001 - one caller's bug must not take the others' answers along
                    log.failure("The answer to a message could not be handed over")
            self._unanswered -= count
        self._close_if_idle()

    # --- read ---

    def read(self, topic: str, partition: int, offset: int, max_records: int, max_bytes: int) -> "Deferred[Slice]":
        try:
            chart = self._running.atlas.want(topic)
        except StorageUnavailable as stopped:
            return fail(stopped)
        if chart is None or partition >= chart.stored.partitions:
            return self._look(topic).addCallback(lambda _: self._read(topic, partition, offset, max_records, max_bytes))
        return self._read(topic, partition, offset, max_records, max_bytes)

    def _read(self, topic: str, partition: int, offset: int, max_records: int, max_bytes: int) -> "Deferred[Slice]":
        chart = self._running.atlas.charts.get(topic)
        if chart is None or not 0 <= partition < chart.stored.partitions:
            return fail(TopicMissing(f"topic {topic!r} has no partition {partition} in Kafka"))
        now = self._clock.elapsed_ms()
        shelf = self._shelves.make(topic, partition, now, chart.stored.uid)
        shelf.used_at = now
        here = self._shelves.slice(shelf, offset, max_records, max_bytes)
        if here is not None and (here.next_offset < here.end or shelf.at_end(here.next_offset, now)):
            self._meters.served["shelf"] += 1
            due = shelf.due(here.next_offset, now)
            if due is not None:
                self._read_ahead(topic, chart.stored.uid, partition, due)
            return succeed(here)
        if shelf.at_end(offset, now):
            self._meters.served["end"] += 1
            return succeed(Slice((), offset, shelf.first, max(offset, shelf.end)))
        self._meters.served["broker"] += 1
        if here is None or not here.messages:
            fetched = self._fetch(topic, chart.stored.uid, partition, offset if here is None else here.next_offset)
            return fetched.addCallback(self._sliced, max_records, max_bytes)
        # What is here reaches to where the log ended when it was read: only a broker knows where it ends now.
        fetched = self._fetch(topic, chart.stored.uid, partition, here.next_offset)
        return fetched.addCallback(lambda piece: msgspec.structs.replace(here, first=piece.first, end=piece.end))

    def _fetch(self, topic: str, topic_uid: str, partition: int, offset: int) -> "Deferred[Piece]":
        """A piece of the log, from a broker; who asks for one that is on its way already shares it."""
        key = (topic, topic_uid, partition, offset)
        waiting: Deferred[Piece] = Deferred()
        if key in self._reading:
            self._reading[key].append(waiting)
            return waiting
        self._reading[key] = [waiting]
        fetched: Deferred[Piece] = self._ask(lambda client: (client.reading, client.reads.read, topic, partition, offset))
        fetched.addBoth(self._fetched, key)
        return waiting

    def _read_ahead(self, topic: str, topic_uid: str, partition: int, offset: int) -> None:
        """Have on the shelf what will be asked for next. Whoever asks for it hears of it where that fails."""
        if (topic, topic_uid, partition, offset) not in self._reading:
            self._fetch(topic, topic_uid, partition, offset).addErrback(lambda failure: None)

    def _fetched(self, result: Piece | Failure, key: tuple[str, str, int, int]) -> None:
        topic, topic_uid, partition, _ = key
        waiting = self._reading.pop(key)
        chart = None if self._client is None else self._client.atlas.charts.get(topic)
        if isinstance(result, Failure):
            self._meters.failures["read"] += 1
            for each in waiting:
                each.errback(result.value)
            return
        if chart is not None and chart.stored.uid == topic_uid:
            now = self._clock.elapsed_ms()
            shelf = self._shelves.make(topic, partition, now, topic_uid)
            self._shelves.put(shelf, result, now)
            if (topic, partition) not in self._joined:
                shelf.end = result.end  # see `_arrived`; who waits from now on has the tail say where it ends
        for each in waiting:
            each.callback(result)

    def _sliced(self, piece: Piece, max_records: int, max_bytes: int) -> Slice:
        passing = Shelf(self._clock.elapsed_ms())
        Shelves(Budget(piece.size, piece.size)).put(passing, piece, 0)
        found = passing.slice(piece.start, max_records, max_bytes)
        return Slice((), piece.next, piece.first, piece.end) if found is None else found

    def layout(self, topic: str) -> "Deferred[dict[int, PartitionLayout]]":
        return self._look(topic).addCallback(lambda _: self._ask(lambda client: (client.control, client.layout, topic)))

    def brokers(self) -> "Deferred[tuple[int, ...]]":
        return self._ask(lambda client: (client.control, client.brokers))

    def bounds(self, topic: str) -> "Deferred[dict[int, Bounds]]":
        asked = self._look(topic).addCallback(lambda _: self._ask(lambda client: (client.reading, client.reads.bounds, topic)))
        return asked.addCallback(self._bounded, topic)

    def offset_at(self, topic: str, timestamp: int) -> "Deferred[dict[int, int]]":
        return self._look(topic).addCallback(lambda _: self._ask(lambda client: (client.reading, client.reads.offset_at, topic, timestamp)))

    def log_ends(self, topic: str, epochs: Mapping[int, int]) -> "Deferred[dict[int, int]]":
        wanted = dict(epochs)
        try:
            chart = self._running.atlas.want(topic)
        except StorageUnavailable as stopped:
            return fail(stopped)
        looked = self._look(topic) if chart is None or max(wanted, default=0) >= chart.stored.partitions else succeed(None)
        asked = looked.addCallback(lambda _: self._ask(lambda client: (client.reading, client.reads.log_ends, topic, wanted)))
        return asked.addCallback(self._cut_shelves, topic, wanted)

    def _cut_shelves(self, ends: dict[int, int], topic: str, epochs: Mapping[int, int]) -> dict[int, int]:
        for partition, end in ends.items():
            self._shelves.cut(topic, partition, end, epochs[partition])
        return ends

    def _bounded(self, bounds: dict[int, Bounds], topic: str) -> dict[int, Bounds]:
        for partition, bound in bounds.items():
            self._shelves.cut(topic, partition, bound.end)
        return bounds

    # --- wait ---

    def watch(self, topic: str, partition: int, offset: int) -> "Deferred[None]":
        if self._client is None or self._stopping is not None:
            return succeed(None)
        chart = self._client.atlas.want(topic)
        if chart is None or partition >= chart.stored.partitions:
            watch = self._watches.wait(topic, partition, offset)
            self._look(topic).addBoth(lambda _: self._waits(topic, partition, offset))
            return watch
        if self._something(chart, partition, offset):
            return succeed(None)
        watch = self._watches.wait(topic, partition, offset)
        self._join(chart, partition, offset)
        return watch

    def _waits(self, topic: str, partition: int, offset: int) -> None:
        """Somebody waits on a topic that was looked at only now."""
        chart = None if self._client is None else self._client.atlas.charts.get(topic)
        if chart is None or not 0 <= partition < chart.stored.partitions:
            self._watches.changed(topic)
        elif self._something(chart, partition, offset):
            self._watches.grew(topic, partition, offset + 1)
        else:
            self._join(chart, partition, offset)

    def _something(self, chart: Chart, partition: int, offset: int) -> bool:
        """Whether a record at ``offset`` or behind it is known to be there."""
        return self._shelves.make(chart.stored.name, partition, self._clock.elapsed_ms(), chart.stored.uid).end > offset

    def _join(self, chart: Chart, partition: int, offset: int) -> None:
        topic, now = chart.stored.name, self._clock.elapsed_ms()
        self._shelves.make(topic, partition, now, chart.stored.uid).used_at = now
        if (topic, partition) not in self._joined and self._watches.anybody(topic, partition):
            self._joined.add((topic, partition))
            self._running.tail.join(topic, partition, offset)

    def _leave(self, topic: str, partition: int) -> None:
        self._joined.discard((topic, partition))
        if self._client is not None:
            self._client.tail.leave(topic, partition)

    # --- groups ---

    def commit(self, group: str, places: Mapping[TopicPartition, Commit]) -> "Deferred[dict[TopicPartition, PsubdError]]":
        done = self._in_turn(group, lambda client, name, by: (client.committing, client.groups.commit, name, dict(places), by))
        return done.addCallback(self._count_failed)

    def committed(self, group: str) -> "Deferred[dict[TopicPartition, Commit]]":
        return self._in_turn(group, lambda client, name, by: (client.committing, client.groups.committed, name, by))

    def forget(self, group: str, topic: str | None) -> "Deferred[None]":
        return self._in_turn(group, lambda client, name, by: (client.committing, client.groups.forget, name, topic, by))

    def adopt(self, group: str) -> "Deferred[None]":
        return self._in_turn(group, lambda client, name, by: (client.committing, client.groups.adopt, name))

    def _in_turn(self, group: str, work: Callable[[KafkaClient, str, float], tuple[Any, ...]]) -> "Deferred[Any]":
        """Its time runs while it waits for its turn."""
        by = time.monotonic() + self.settings.storage_timeout_s
        name = self.settings.group_prefix + group
        try:
            client = self._running
        except StorageUnavailable as stopped:
            return fail(stopped)

        def begin() -> Deferred[Any]:
            if time.monotonic() > by:
                return fail(StorageUnavailable("the group's calls before this one took all of its time"))
            return self._submit(*work(client, name, by))

        done: Deferred[Any] = self._turns.run(name, begin)
        self._open.add(done)
        return done.addBoth(self._closed, done)

    def _count_failed(self, failed: dict[TopicPartition, PsubdError]) -> dict[TopicPartition, PsubdError]:
        self._meters.failures["commit"] += len(failed)
        return failed

    # --- status ---

    def status(self) -> Mapping[str, Any]:
        client = self._client
        if client is None:
            return {"kind": self.kind, "bootstrap": list(self._bootstrap), "trouble": self.trouble()}
        return {
            "kind": self.kind,
            "bootstrap": list(self._bootstrap),
            "trouble": self.trouble(),
            "brokers": sorted(client.control.managers[0].nodes()),
            "security_protocol": self.settings.security_protocol,
            "topics": len(client.atlas.charts),
            "connections": client.connections,
            "connections_per_broker_at_most": client.connections_per_broker,
            "queued_bytes": sum(outbox.queued_bytes for outbox in client.outboxes.values()),
            "idempotent": client.outboxes["all"].idempotent,
            "ends_read": len(self._joined),
            "waiting_reads": len(self._watches),
            "cached_bytes": self._shelves.size,
        }

    # --- from the threads ---

    def _ask(self, work: Callable[[KafkaClient], tuple[Any, ...]]) -> "Deferred[Any]":
        """Run what ``work`` names (line, function, arguments) on that line's thread."""
        try:
            return self._submit(*work(self._running))
        except StorageUnavailable as stopped:
            return fail(stopped)

    def _submit(self, line: Line, call: Callable[..., Any], *given: Any) -> "Deferred[Any]":
        answer: Deferred[Any] = Deferred()
        try:
            future: Future = line.submit(call, *given)
        except RuntimeError:  # the line is closed
            return fail(StorageUnavailable(STOPPED))
        self._open.add(answer)
        answer.addBoth(self._closed, answer)
        future.add_callback(lambda value: self._mailbox.put(self._succeeded, answer, value))
        future.add_errback(lambda error: self._mailbox.put(self._failed, answer, error))
        return answer

    def _closed(self, result: Any, answer: "Deferred[Any]") -> Any:
        self._open.discard(answer)
        self._close_if_idle()
        return result

    def _close_if_idle(self) -> None:
        """Once it stops, and nothing that was accepted waits for an answer."""
        if self._stopping is not None and not self._open and not self._unanswered:
            self._close()

    def _succeeded(self, answer: "Deferred[Any]", value: Any) -> None:
        if not answer.called:
            answer.callback(value)

    def _failed(self, answer: "Deferred[Any]", error: BaseException) -> None:
        if answer.called:
            return
        if isinstance(error, PsubdError):
            answer.errback(error)
        elif isinstance(error, Lost):
            answer.errback(timeout(error))
        elif isinstance(error, Unsent | errors.KafkaError):
            answer.errback(unavailable(error))
        elif self._stopping is not None:
            answer.errback(StorageTimeout(CUT_OFF))
        else:
            log.failure("A call to Kafka failed in a way that nobody foresaw", Failure(error))
            answer.errback(Internal("a call to Kafka failed in a way that nobody foresaw"))

    def _look(self, topic: str) -> "Deferred[None]":
        """Look at a topic that is not known, or looks other than somebody says. Who asks meanwhile shares the answer, in order."""
        waiting: Deferred[None] = Deferred()
        if topic in self._looking:
            self._looking[topic].append(waiting)
            return waiting
        self._looking[topic] = [waiting]
        looked = self._ask(lambda client: (client.control, client.describe, (topic,)))
        looked.addBoth(self._looked, topic)
        return waiting

    def _looked(self, result: Any, topic: str) -> None:
        for waiting in self._looking.pop(topic):
            if isinstance(result, Failure):
                waiting.errback(result.value)
            else:
                waiting.callback(None)

    def _heard_of_change(self, topic: str, change: Change) -> None:
        self._mailbox.put(self._befell, topic, change)

    def _befell(self, topic: str, change: Change) -> None:
        if change != "grown":
            for place in [place for place in self._joined if place[0] == topic]:
                self._leave(*place)
            self._shelves.clear(topic)
        self._watches.changed(topic)

    def _heard(self, heard: Round) -> None:
        self._mailbox.put(self._take, heard)

    def _take(self, heard: Round) -> None:
        now = self._clock.elapsed_ms()
        for place in heard.standing:
            shelf = self._shelves.get(*place)
            if shelf is not None:
                shelf.heard_at = now
        try:
            for arrival in heard.arrivals:
                if (arrival.topic, arrival.partition) in self._joined and self._is_now(arrival):
                    self._arrived(arrival, now)
        finally:
            if self._client is not None:
                self._client.tail.taken(heard.size)

    def _is_now(self, arrival: Arrival) -> bool:
        """Whether it is of the topic that has the name now."""
        chart = None if self._client is None else self._client.atlas.charts.get(arrival.topic)
        return chart is not None and chart.id == arrival.uid

    def _arrived(self, arrival: Arrival, now: int) -> None:
        shelf = self._shelves.make(arrival.topic, arrival.partition, now, uid(arrival.uid))
        if arrival.piece is not None:
            self._shelves.put(shelf, arrival.piece, now)
        # Not the highest ever heard of: a log may have lost its end, and who waits there must not be told that there is something to read. Where this
        # is older than what a read was told, the tail has more to say soon.
        lost = shelf.frontier is not None and arrival.next < shelf.frontier
        shelf.frontier, shelf.end = arrival.next, max(arrival.next, arrival.end)
        if lost:
            # Who waits behind the new end would not hear of what takes those offsets: a read tells him where the log ends.
            self._shelves.cut(arrival.topic, arrival.partition, shelf.end)
            self._watches.rouse(arrival.topic, arrival.partition)
        self._watches.grew(arrival.topic, arrival.partition, shelf.end)

    def _sweep(self) -> None:
        """Stop reading ends where nobody waits, forget what is old, and say when Kafka went or came back."""
        if self._stopping is not None:
            return
        now = self._clock.elapsed_ms()
        for place in list(self._joined):
            shelf = self._shelves.get(*place)
            if not self._watches.anybody(*place) and (shelf is None or now - shelf.used_at > IDLE_MS):
                self._leave(*place)
                self._shelves.forget(*place)
        self._shelves.age(now)
        self._tell(self.trouble())
        self._sweeping = self._clock.call_later(SWEEP_MS, self._sweep)

    def _rouse(self) -> None:
        """Keep the topics looked after that somebody waits on, and wake those whose wait tells nothing any more."""
        if self._stopping is not None:
            return
        now = self._clock.elapsed_ms()
        for topic, partition in list(self._joined):
            if self._watches.anybody(topic, partition):
                self._running.atlas.want(topic)
                shelf = self._shelves.get(topic, partition)
                if shelf is None or now - shelf.heard_at > DEAF_MS:
                    self._watches.rouse(topic, partition)
        self._rousing = self._clock.call_later(ROUSE_MS, self._rouse)

    def _tell(self, trouble: str | None) -> None:
        if (trouble is None) != (self._told is None):
            if trouble is None:
                log.info("Kafka answers again")
            else:
                log.warn("Kafka is away: {trouble}", trouble=trouble)
        self._told = trouble

    _told: str | None = None
