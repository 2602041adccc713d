"""The async face: `SqliteStorage`, on the reactor's thread. What blocks is the writer's thread and a few that read."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from psubd.errors import Internal, PsubdError, StorageUnavailable
from psubd.interfaces import IClock, IStorage
from psubd.model import Acks, Bounds, Commit, PartitionLayout, Position, Record, Slice, StoredTopic, TopicPartition, TopicSpec, sizes
from psubd.storage.sqlite import reading
from psubd.storage.sqlite.database import Database
from psubd.storage.sqlite.meters import Meters
from psubd.storage.sqlite.mirror import Mirror, Place
from psubd.storage.sqlite.requests import Append, Close, Configure, Create, Drop, Forget, Grow, Keep, Probe, Report, Request, SweepNow, Told
from psubd.storage.sqlite.settings import parse
from psubd.storage.sqlite.store import LIMITS, Store
from psubd.storage.sqlite.tail import Tail
from psubd.storage.sqlite.writer import Writer
from psubd.storage.topics import here

T = TypeVar("T")

PROBE_MS = 1_000
"""How often a file that cannot be written is tried again, so that `trouble` ends also where nobody publishes."""

WAITING_OVERHEAD = 300
"""Bytes that a record costs beside its payload while it waits for the writer."""

POSTED_BYTES = 1024 * 1024
"""So much that was posted in one turn crosses at once, so that the writer can keep a transaction to its own bound."""


class Accepted:
    """The ticket of a publish with ``acks=0``: nobody waits for it, a failure is logged."""


@implementer(IStorage)
class SqliteStorage:
    """The embedded durable log, in one file of one process.

    :param path: absolute path of the file. :param reactor: IReactorTime, IReactorFromThreads and IReactorThreads.
    :param settings: ``[storage.sqlite]``. :param metrics: where its metrics go, once per registry.
    :raises ConfigError: for settings that are not right.
    """

    limits = LIMITS
    log = Logger()

    def __init__(self, path: str, clock: IClock, reactor: Any, settings: Mapping[str, Any], metrics: CollectorRegistry) -> None:
        self._settings = parse(settings)
        self._path = path
        self._clock = clock
        self._reactor = reactor
        meters = Meters(metrics)
        database = Database(path, self._settings.busy_timeout_ms, self._settings.max_bytes)
        self._database = database
        self._store = Store(database, meters)
        self._writer = Writer(self._store, self._crossing)
        self._readers = reading.Readers(database.reader, meters)
        self._pool = ThreadPool(minthreads=0, maxthreads=self._settings.reader_threads, name="psubd-storage-read")
        self._mirror = Mirror(Tail(self._settings.tail_bytes))
        self._waiting_bytes = 0
        self._posted: Append | None = None
        self._trouble: str | None = "it has not started"
        self._closed: str | None = "the storage has not started"
        self._stopping = False
        self._ended: Deferred[None] | None = None
        self._timers: dict[str, IDelayedCall] = {}

    # --- start and stop ---

    def start(self) -> "Deferred[None]":
        started: Deferred[None] = Deferred()
        self._ended = Deferred()
        self._thread = threading.Thread(target=self._live, args=(started,), name="psubd-storage-write", daemon=True)
        self._thread.start()
        return started

    def stop(self) -> "Deferred[None]":
        if self._ended is None:
            return succeed(None)
        if not self._stopping:
            self._stopping = True
            self._closed = self._trouble = "the storage is stopped"
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
            self._put(Close())
        stopped: Deferred[None] = Deferred()
        self._ended.addCallback(lambda _: stopped.callback(None))
        return stopped

    def trouble(self) -> str | None:
        return self._trouble

    def status(self) -> Mapping[str, Any]:
        return {
            "kind": "sqlite",
            "path": self._path,
            "bytes": _file_size(self._path),
            "wal_bytes": _file_size(f"{self._path}-wal"),
            "topics": len(self._mirror.shelves),
            "partitions": sum(len(shelf.places) for shelf in self._mirror.shelves.values()),
            "waiting_bytes": self._waiting_bytes,
            "waiting_reads": len(self._mirror.watches),
            "tail_bytes": self._mirror.tail.held,
            "trouble": self._trouble,
        }

    # --- topics ---

    def create_topic(self, spec: TopicSpec) -> "Deferred[StoredTopic]":
        return self._request(Create(spec))

    def describe(self, topics: Sequence[str]) -> "Deferred[dict[str, StoredTopic]]":
        """From memory: this process alone writes the file."""
        if self._closed is not None:
            return self._refused()
        shelves = self._mirror.shelves
        return succeed({name: shelves[name].topic for name in topics if name in shelves})

    def known(self, topic: str) -> StoredTopic | None:
        shelf = self._mirror.shelves.get(topic)
        return None if shelf is None else shelf.topic

    def grow(self, topic: str, partitions: int) -> "Deferred[StoredTopic]":
        return self._request(Grow(topic, partitions))

    def configure(self, topic: str, changes: Mapping[str, Any]) -> "Deferred[StoredTopic]":
        return self._request(Configure(topic, dict(changes), self._clock.epoch_ms()))

    def delete_topic(self, topic: str) -> "Deferred[None]":
        return self._request(Drop(topic, self._clock.epoch_ms()))

    # --- messages ---

    def post(self, record: Record, acks: Acks, told: Told) -> None:
        if self._closed is not None:
            raise StorageUnavailable(self._closed)
        size = record.size + WAITING_OVERHEAD
        if self._waiting_bytes + size > self._settings.queue_bytes and self._waiting_bytes:
            raise StorageUnavailable("too much waits to be stored; send slower")
        self._waiting_bytes += size
        posted = self._posted
        if posted is None:
            posted = self._posted = Append([], self._clock.epoch_ms(), 0, [])
            self._reactor.callLater(0, self._hand_over)
        posted.records.append(record)  # type: ignore[attr-defined]
        posted.ticket.append(None if acks == "0" else told)
        posted.size += size
        if posted.size > POSTED_BYTES:
            self._hand_over()

    def publish(self, records: Sequence[Record], acks: Acks) -> "Deferred[list[Position | PsubdError]]":
        if self._closed is not None:
            return self._refused()
        size = WAITING_OVERHEAD * len(records) + sum(sizes(records))
        if self._waiting_bytes and self._waiting_bytes + size > self._settings.queue_bytes:
            return fail(StorageUnavailable("too much waits to be stored; send slower"))
        self._waiting_bytes += size
        request = Append(records, self._clock.epoch_ms(), size)
        if acks == "0":
            request.ticket = Accepted()
            self._put(request)
            return succeed([])
        return self._request(request)

    def read(self, topic: str, partition: int, offset: int, max_records: int, max_bytes: int) -> "Deferred[Slice]":
        if self._closed is not None:
            return self._refused()
        try:
            place = self._mirror.place(topic, partition)
        except PsubdError as missing:
            return fail(missing)
        begin = max(offset, place.first)
        if begin >= place.end:
            return succeed(Slice((), begin, place.first, place.end))
        newest = self._mirror.tail.read((topic, partition), begin, max_records, max_bytes)
        if newest is not None:
            return succeed(Slice(tuple(newest), newest[-1].offset + 1, place.first, place.end))
        return self._read_file(topic, partition, place, begin, max_records, max_bytes)

    def watch(self, topic: str, partition: int, offset: int) -> "Deferred[None]":
        try:
            place = self._mirror.place(topic, partition)
        except PsubdError:
            return succeed(None)
        if self._closed is not None or offset < place.end:
            return succeed(None)
        return self._mirror.watches.wait(topic, partition, offset)

    def layout(self, topic: str) -> "Deferred[dict[int, PartitionLayout]]":
        return self.bounds(topic).addCallback(lambda bounds: here(len(bounds)))

    def brokers(self) -> "Deferred[tuple[int, ...]]":
        return self._refused() if self._closed is not None else succeed((0,))

    def bounds(self, topic: str) -> "Deferred[dict[int, Bounds]]":
        if self._closed is not None:
            return self._refused()
        try:
            return succeed(self._mirror.shelf(topic).bounds())
        except PsubdError as missing:
            return fail(missing)

    def offset_at(self, topic: str, timestamp: int) -> "Deferred[dict[int, int]]":
        if self._closed is not None:
            return self._refused()
        try:
            shelf = self._mirror.shelf(topic)
        except PsubdError as missing:
            return fail(missing)
        uid = shelf.topic.uid
        logs = {partition: (place.no, place.first, place.end) for partition, place in enumerate(shelf.places)}

        def still_that_topic(offsets: dict[int, int]) -> dict[int, int]:
            self._mirror.same(topic, uid)
            return offsets

        return self._ask(lambda connection: reading.offsets_at(connection, logs, timestamp)).addCallback(still_that_topic)

    def log_ends(self, topic: str, epochs: Mapping[int, int]) -> "Deferred[dict[int, int]]":
        """This log is never cut: it has one writer, and no leaders."""
        return self.bounds(topic).addCallback(lambda _: {})

    # --- groups ---

    def commit(self, group: str, places: Mapping[TopicPartition, Commit]) -> "Deferred[dict[TopicPartition, PsubdError]]":
        return self._request(Keep(group, dict(places)))

    def committed(self, group: str) -> "Deferred[dict[TopicPartition, Commit]]":
        if self._closed is not None:
            return self._refused()
        return self._ask(lambda connection: reading.places(connection, group))

    def forget(self, group: str, topic: str | None) -> "Deferred[None]":
        return self._request(Forget(group, topic))

    def adopt(self, group: str) -> "Deferred[None]":
        """This process alone writes the file: there are no others' places."""
        return succeed(None) if self._closed is None else self._refused()

    # --- to the threads and back ---

    def _request(self, request: Append | Keep | Forget | Create | Grow | Configure | Drop) -> "Deferred[Any]":
        if self._closed is not None:
            return self._refused()
        answered: Deferred[Any] = Deferred()
        request.ticket = answered
        self._put(request)
        return answered

    def _put(self, request: Request) -> None:
        """Hand the request to the writer, behind what was posted before it."""
        self._hand_over()
        self._writer.put(request)

    def _hand_over(self) -> None:
        """What was posted crosses to the writer as one request."""
        posted, self._posted = self._posted, None
        if posted is not None:
            self._writer.put(posted)

    def _ask(self, question: Callable[[Any], T]) -> "Deferred[T]":
        return deferToThreadPool(self._reactor, self._pool, self._readers.ask, question)

    def _read_file(self, topic: str, partition: int, place: Place, begin: int, max_records: int, max_bytes: int) -> "Deferred[Slice]":
        pages, uid, no, end = self._mirror.pages, self._mirror.shelf(topic).topic.uid, place.no, place.end
        held = pages.read(no, begin, max_records, max_bytes)
        if held is not None:
            return succeed(Slice(tuple(held[0]), held[1], place.first, end))
        era = pages.era

        def sliced(answer: Any) -> Slice:
            messages, following = answer
            now = self._mirror.same(topic, uid).places[partition]
            if pages.era == era:
                pages.put(no, begin, messages, following)
            return Slice(tuple(messages), following, now.first, now.end)

        return self._ask(lambda connection: reading.read(connection, no, begin, end, max_records, max_bytes)).addCallback(sliced)

    def _refused(self) -> "Deferred[Any]":
        return fail(StorageUnavailable(self._closed or "the storage is stopped"))

    # --- on the writer's thread ---

    def _live(self, started: "Deferred[None]") -> None:
        """The writer's thread, from opening the file to closing it."""
        try:
            report = self._store.open()
        except BaseException:  # noqa: BLE001 - told to who started it
            self._database.close()
            self._reactor.callFromThread(self._not_started, started, Failure())
            return
        self._reactor.callFromThread(self._started, started, report)
        self._writer.run()
        self._pool.stop()  # joins the readers: their answers are on the way
        self._readers.close()
        self._database.close()
        self._reactor.callFromThread(self._finished)

    def _crossing(self, report: Report) -> None:
        self._reactor.callFromThread(self._heard, report)

    # --- on the reactor's thread again ---

    def _started(self, started: "Deferred[None]", report: Report) -> None:
        self._mirror.take(report)
        if self._stopping:
            started.errback(StorageUnavailable("the storage was stopped while it started"))
            return
        self._trouble = self._closed = None
        self._pool.start()
        self._again("sweep", self._settings.retention_interval_ms, SweepNow)
        started.callback(None)

    def _not_started(self, started: "Deferred[None]", why: Failure) -> None:
        ended, self._ended = self._ended, None
        started.errback(why)
        if ended is not None:
            ended.callback(None)

    def _finished(self) -> None:
        assert self._ended is not None
        self._thread.join()  # what called this was its last act
        self._mirror.watches.close()
        self._ended.callback(None)

    def _heard(self, report: Report) -> None:
        """A transaction has ended: know it first, then wake who waited for it, then answer (whoever is answered may begin to wait). What was posted
        meanwhile crosses before all that, so that the writer is at work while the answers go out."""
        self._hand_over()
        self._waiting_bytes -= report.released
        self._mirror.take(report)
        if report.tried:
            self._judge(report.fault)
        self._mirror.tell(report)
        if report.complaint is not None:
            self.log.error("The storage: {what}", what=report.complaint)
        self._tell_lost(report.answers)
        for ticket, outcome in report.answers:
            if isinstance(ticket, list):
                self._tell(ticket, outcome)
            elif not isinstance(ticket, Accepted):
                self._answer(ticket, outcome)

    def _tell_lost(self, answers: list[tuple[Any, Any]]) -> None:
        """One line for all that a transaction lost of what was accepted with ``acks=0``."""
        lost: list[Exception] = []
        for ticket, outcome in answers:
            if isinstance(ticket, list) and None in ticket:
                results = [outcome] * len(ticket) if isinstance(outcome, Exception) else outcome
                lost += [result for told, result in zip(ticket, results, strict=True) if told is None and isinstance(result, Exception)]
            elif isinstance(ticket, Accepted):
                results = [outcome] if isinstance(outcome, Exception) else outcome
                lost += [result for result in results if isinstance(result, Exception)]
        if lost:
            self.log.error("Accepted with acks=0 and not stored: {count} publishes or records; the first: {why}", count=len(lost), why=str(lost[0]))

    def _tell(self, waiting: list[Told | None], outcome: Any) -> None:
        """Each record's own outcome to who posted it."""
        if isinstance(outcome, Exception):
            outcome = [self._told_as(outcome)] * len(waiting)
        for told, result in zip(waiting, outcome, strict=True):
            if told is None:
                continue
            try:
                told(result)
            except Exception:  # noqa: BLE001 - one listener's bug is nobody else's
                self.log.failure("who posted a record failed over its outcome")

    def _told_as(self, error: Exception) -> PsubdError:
        """What a client may be told of it; a bug is logged here."""
        if isinstance(error, PsubdError):
            return error
        self.log.failure("the storage tripped over a bug of its own", Failure(error))
        return Internal("the storage tripped over a bug of its own; it is in the log")

    def _answer(self, ticket: Any, outcome: Any) -> None:
        if ticket.called:
            return  # cancelled by who asked; it was done all the same
        if isinstance(outcome, Exception):
            ticket.errback(outcome)
        else:
            ticket.callback(outcome)

    def _judge(self, fault: str | None) -> None:
        if self._closed is not None or fault == self._trouble:
            return
        if fault is None:
            self.log.info("The storage can be written again: {path}", path=self._path)
        elif self._trouble is None:
            self.log.error("The storage cannot be written: {path}: {why}", path=self._path, why=fault)
            self._again("probe", PROBE_MS, lambda now: Probe())
        self._trouble = fault

    def _again(self, name: str, ms: int, request: Callable[[int], Request]) -> None:
        """Put a request to the writer every ``ms``; the probe ends with the trouble."""

        def due() -> None:
            del self._timers[name]
            if name == "probe" and self._trouble is None:
                return
            self._put(request(self._clock.epoch_ms()))
            self._again(name, ms, request)

        self._timers[name] = self._clock.call_later(ms, due)


def _file_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
