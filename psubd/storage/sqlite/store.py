"""The blocking half: requests in, one transaction, answers out. Knows no Twisted, no queue and no clock."""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import msgspec

from psubd.errors import BadHeader, BadParameter, Exists, PsubdError, StorageTimeout, StorageUnavailable, TooLarge, TopicMissing
from psubd.fields import INT64
from psubd.model import Message, Position, Record, StorageLimits, StoredTopic
from psubd.storage.sqlite.catalogue import Catalogue, Log, Shelf
from psubd.storage.sqlite.database import Damaged, Database, Full, Statement, failure_kind
from psubd.storage.sqlite.meters import Meters
from psubd.storage.sqlite.records import pack
from psubd.storage.sqlite.requests import Alter, Append, Configure, Create, Drop, Forget, Grow, Keep, Moved, Report, Write
from psubd.storage.sqlite.schema import MAX_OFFSET, OFFSET_BITS
from psubd.storage.topics import configured, grown, stored

LIMITS = StorageLimits(max_metadata=32_768)
"""So long only where a group has tens of thousands of messages in flight and acks every other: a place is a row, written once an interval."""

SEGMENT_RECORDS = 1024
"""A log's open segment is closed by the transaction that fills it to so many records."""

CHUNKS = (512, 128)
"""Rows of a statement: so many at a time, the rest (fewer than 128) in one of its own length; each length is a prepared statement."""


class Draft:
    """What a transaction is to append to one log; the log itself moves when it has ended."""

    __slots__ = ("end", "log", "messages", "newest", "partition", "payload", "rows", "rules", "shelf", "size", "stem")

    def __init__(self, shelf: Shelf, log: Log) -> None:
        self.shelf, self.log, self.rules = shelf, log, shelf.rules
        self.end, self.newest, self.size, self.payload = log.end, log.newest, 0, 0
        self.stem, self.partition = log.no << OFFSET_BITS, log.partition
        self.rows: list[Any] = []
        self.messages: list[Message] = []

    def append(self, record: Record, now: int) -> Position | PsubdError:
        """Take the record, or refuse it; what it is to be answered once the transaction has ended.

        :param now: ms since the epoch when it came in.
        """
        key, value, headers, timestamp, offset = record.key, record.value, record.headers, record.timestamp, self.end
        if timestamp is None:
            timestamp = now
        payload = record.size if headers else (0 if value is None else len(value)) + (0 if key is None else len(key))
        refused = self.rules.refusal(record, payload, timestamp, now)
        if refused is not None:
            return refused
        if offset > MAX_OFFSET:
            return StorageUnavailable(f"partition {self.partition} of topic {record.topic} has no offsets left; publish to another one")
        try:
            packed = pack((offset, timestamp, key, value, headers))
        except UnicodeEncodeError:
            return BadHeader("a record header's name is not Unicode text")
        self.rows += (self.stem | offset, timestamp, packed)
        self.messages.append(Message(offset, timestamp, key, value, headers))
        self.end = offset + 1
        self.size += len(packed)
        self.payload += payload
        if timestamp > self.newest:
            self.newest = timestamp
        return Position(record.topic, self.partition, offset, timestamp)

    @property
    def full(self) -> bool:
        return self.end - self.log.base >= SEGMENT_RECORDS

    def seal(self) -> Statement:
        log = self.log
        return "INSERT INTO segments VALUES (?, ?, ?, ?, ?)", (log.no, log.base, self.end, self.newest, log.open_size + self.size)

    def apply(self) -> Moved:
        """The transaction has ended: move the log."""
        log = self.log
        if self.full:
            log.base, log.newest, log.open_size = self.end, -1, 0
        else:
            log.newest, log.open_size = self.newest, log.open_size + self.size
        log.end, log.size = self.end, log.size + self.size
        return Moved(self.shelf.topic.name, log.partition, log.first, log.end, self.messages, self.payload)


class Batch:
    """One transaction in the making, for `Store.write`."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._drafts: dict[tuple[str, int | None], Draft] = {}
        self._others: list[Statement] = []
        self._kept: list[Any] = []
        self._proof: Statement | None = None

    def plan(self, request: Write) -> Any:
        """Take the request in; what it is to be answered once the transaction has ended."""
        if isinstance(request, Append):
            return self._append(request.records, request.now)
        if isinstance(request, Keep):
            return self._keep(request)
        return self._forget(request)

    def drafts(self) -> list[Draft]:
        """Of the logs that get something."""
        return [draft for draft in self._drafts.values() if draft.messages]

    def statements(self) -> list[Statement]:
        self._flush_places()
        drafts = self.drafts()
        rows = drafts[0].rows if len(drafts) == 1 else [value for draft in drafts for value in draft.rows]
        seals = [draft.seal() for draft in drafts if draft.full]
        return [*rowwise("INSERT INTO messages VALUES", 3, rows), *seals, *self._others]

    def proof(self) -> Statement | None:
        """See `Database.run`: the last row that is appended, else the place that is kept last."""
        drafts = self.drafts()
        if drafts:
            return "SELECT 1 FROM messages WHERE id = ?", (drafts[0].rows[-3],)
        return self._proof

    def _append(self, records: Sequence[Record], now: int) -> list[Position | PsubdError]:
        drafts = self._drafts
        answers: list[Position | PsubdError] = []
        topic: str | None = None
        partition: int | None = None
        draft: Draft | None = None
        for record in records:  # as a rule they are all for one log
            if draft is None or record.partition != partition or record.topic != topic:
                topic, partition = record.topic, record.partition
                found = drafts.get((topic, partition)) or self._draft(record)
                if not isinstance(found, Draft):
                    answers.append(found)
                    draft = None
                    continue
                draft = found
            answers.append(draft.append(record, now))
        return answers

    def _draft(self, record: Record) -> Draft | TopicMissing:
        shelf = self._catalogue.shelves.get(record.topic)
        log = None if shelf is None else shelf.log(record.partition)
        if shelf is None or log is None:
            return TopicMissing(f"topic {record.topic} is not in the storage, or has no partition {record.partition}")
        draft = self._drafts[record.topic, record.partition] = Draft(shelf, log)
        return draft

    def _keep(self, request: Keep) -> dict[Any, PsubdError]:
        failed: dict[Any, PsubdError] = {}
        for place, commit in request.places.items():
            shelf = self._catalogue.shelves.get(place.topic)
            log = None if shelf is None else shelf.log(place.partition)
            if log is None:
                failed[place] = TopicMissing(f"topic {place.topic} is not in the storage, or has no partition {place.partition}")
            elif len(commit.metadata) > LIMITS.max_metadata:
                failed[place] = TooLarge(f"the commit's metadata has {len(commit.metadata)} characters; at most {LIMITS.max_metadata}")
            elif not 0 <= commit.offset <= INT64:
                failed[place] = BadParameter(f"offset: {commit.offset} is out of range; send 0 to {INT64}")
            else:
                row = (request.group, log.no, commit.offset, commit.metadata)
                self._kept += row
                self._proof = "SELECT 1 FROM places WHERE name = ? AND no = ? AND offset = ? AND metadata = ?", row
        return failed

    def _forget(self, request: Forget) -> None:
        self._flush_places()
        self._proof = None
        if request.topic is None:
            self._others.append(("DELETE FROM places WHERE name = ?", (request.group,)))
        elif request.topic in self._catalogue.shelves:
            self._others.append(("DELETE FROM places WHERE name = ? AND no IN (SELECT no FROM logs WHERE topic = ?)", (request.group, request.topic)))

    def _flush_places(self) -> None:
        """Rows in the order in which they came: the last one of a group and log stands; before a Forget, what came before it."""
        self._others += rowwise("INSERT OR REPLACE INTO places VALUES", 4, self._kept)
        self._kept = []


class Store:
    """Everything that is written, on one thread.

    :param database: opened by `open`.
    """

    def __init__(self, database: Database, meters: Meters) -> None:
        self.database = database
        self.catalogue = Catalogue()
        self.meters = meters
        self._stale = False

    def open(self) -> Report:
        """Open the file and read what there is. :raises ConfigError:"""
        self.database.open()
        return self.reload()

    def reload(self) -> Report:
        """Read the topics and ends from the file again."""
        self.catalogue.load(self.database)
        return Report(shelves={name: shelf.view() for name, shelf in self.catalogue.shelves.items()}, all_shelves=True)

    def write(self, requests: Sequence[Write]) -> Report:
        """All of them in one transaction. Where that has no room, or one trips over a bug, each in one of its own: none makes another fail."""
        report = self._guarded(lambda: self._write(requests), requests)
        if any(_lonely(outcome) for _, outcome in report.answers):
            alone = [part for request in requests for part in (request.apart() if isinstance(request, Append) else [request])]
            if len(alone) > 1:
                report = merged([self._guarded(partial(self._write, [request]), [request]) for request in alone])
        report.released = sum(request.size for request in requests if isinstance(request, Append))
        return report

    def alter(self, request: Alter) -> Report:
        """Make, change or delete a topic, in a transaction of its own."""
        return self._guarded(lambda: self._alter(request), [request])

    def probe(self) -> Report:
        """See whether the file can be written."""
        return self._guarded(self._probe, [])

    def refreshed(self) -> Report | None:
        """Before anything is written: where the file's state is not known for sure, settle it and read it again. None: it is known."""
        if not self._stale and not self.database.in_doubt:
            return None
        self._stale = True
        self.database.heal()
        report = self.reload()
        self._stale = False
        return report

    def transact(self, statements: Sequence[Statement], proof: Statement | None = None) -> None:
        """`Database.run`, counted and timed."""
        if self._stale or self.database.in_doubt:
            raise StorageUnavailable("the storage's file has to be read again after a failure; try again")
        begun = time.perf_counter()
        try:
            self.database.run(statements, proof)
        except (StorageUnavailable, StorageTimeout) as error:
            self._stale = self._stale or isinstance(error, StorageTimeout)
            self.meters.failures.labels(failure_kind(error)).inc()
            raise
        self.meters.seconds.observe(time.perf_counter() - begun)
        self.meters.transactions.value += 1

    def _write(self, requests: Sequence[Write]) -> Report:
        batch = Batch(self.catalogue)
        answers = [(request.ticket, batch.plan(request)) for request in requests]
        statements = batch.statements()
        if not statements:
            return Report(answers=answers)
        self.transact(statements, batch.proof())
        drafts = batch.drafts()
        if drafts:
            records = sum(len(draft.messages) for draft in drafts)
            self.meters.records.value += records
            self.meters.batch.observe(records)
        return Report(answers=answers, moved=[draft.apply() for draft in drafts], tried=True)

    def _probe(self) -> Report:
        self.database.probe()
        return Report(tried=True)

    def _alter(self, request: Alter) -> Report:
        if isinstance(request, Create):
            return self._create(request)
        if isinstance(request, Grow):
            return self._grow(request)
        if isinstance(request, Configure):
            return self._configure(request)
        return self._drop(request)

    def _guarded(self, work: Callable[[], Report], requests: Sequence[Write | Alter]) -> Report:
        """``work`` on a known state; what it raises is the answer to all of ``requests``."""
        fresh: Report | None = None
        try:
            fresh = self.refreshed()
            report = work()
        except (StorageUnavailable, StorageTimeout) as error:
            report = Report(answers=[(request.ticket, error) for request in requests], tried=True, fault=error.detail)
        except PsubdError as refused:
            report = Report(answers=[(request.ticket, refused) for request in requests])
        except Exception as bug:  # noqa: BLE001 - the writer lives on; who asked is told, and it is logged there
            self.meters.failures.labels("bug").inc()
            report = Report(answers=[(request.ticket, bug) for request in requests])
        return report if fresh is None else merged([fresh, report])

    def _create(self, request: Create) -> Report:
        name = request.spec.name
        if name in self.catalogue.shelves:
            raise Exists(f"topic {name} is in the storage already")
        topic = stored(request.spec)
        logs, statements = self._new_logs(topic, 0)
        self.transact([("INSERT INTO topics VALUES (?, ?)", (name, msgspec.json.encode(topic))), *statements])
        shelf = self.catalogue.shelves[name] = Shelf(topic, logs)
        return altered(request, shelf)

    def _grow(self, request: Grow) -> Report:
        shelf = self.catalogue.shelf(request.topic)
        topic = grown(shelf.topic, request.partitions)
        logs, statements = self._new_logs(topic, len(shelf.logs))
        self.transact([_update(topic), *statements])
        shelf.logs += logs
        shelf.change(topic)
        return altered(request, shelf)

    def _configure(self, request: Configure) -> Report:
        shelf = self.catalogue.shelf(request.topic)
        topic = configured(shelf.topic, request.changes)
        self.transact([_update(topic)])
        shelf.change(topic)
        return altered(request, shelf)

    def _drop(self, request: Drop) -> Report:
        shelf = self.catalogue.shelves.get(request.topic)
        if shelf is None:
            return Report(answers=[(request.ticket, None)])
        self.transact(
            [
                ("DELETE FROM topics WHERE name = ?", (request.topic,)),
                ("DELETE FROM places WHERE no IN (SELECT no FROM logs WHERE topic = ?)", (request.topic,)),
                ("UPDATE logs SET topic = NULL WHERE topic = ?", (request.topic,)),
            ]
        )
        shelf.gone = True
        del self.catalogue.shelves[request.topic]
        self.catalogue.dead.update(log.no for log in shelf.logs)
        return Report(answers=[(request.ticket, None)], shelves={request.topic: None}, tried=True)

    def _new_logs(self, topic: StoredTopic, have: int) -> tuple[list[Log], list[Statement]]:
        numbers = self.catalogue.free_numbers()
        logs = [Log(no, partition) for partition, no in zip(range(have, topic.partitions), numbers, strict=False)]
        if len(logs) < topic.partitions - have:
            raise StorageUnavailable("the storage has no room for more partitions; delete a topic")
        rows = [value for log in logs for value in (log.no, topic.name, log.partition)]
        return logs, rowwise("INSERT INTO logs (no, topic, partition) VALUES", 3, rows)


def altered(request: Alter, shelf: Shelf) -> Report:
    return Report(answers=[(request.ticket, shelf.topic)], shelves={shelf.topic.name: shelf.view()}, tried=True)


def merged(reports: Sequence[Report]) -> Report:
    """One report that says what all of them say, in their order."""
    whole = Report(answers=[], moved=[], shelves={})
    for report in reports:
        if report.all_shelves:
            whole.all_shelves, whole.shelves, whole.moved = True, {}, []
        whole.answers += report.answers
        whole.moved += report.moved
        whole.shelves |= report.shelves
        whole.tried |= report.tried
        whole.fault = report.fault or whole.fault
    return whole


def rowwise(head: str, width: int, values: Sequence[Any], tail: str = "") -> list[Statement]:
    """Statements ``head (?,..),(?,..) tail`` over ``values``, ``width`` a row, one row after another: few steps for many rows (see `schema`)."""
    statements: list[Statement] = []
    place, left = 0, len(values) // width
    while left:
        size = next((chunk for chunk in CHUNKS if left >= chunk), left)
        statements.append((_sql(head, width, size, tail), values[place : place + size * width]))
        place, left = place + size * width, left - size
    return statements


@lru_cache(maxsize=1024)
def _sql(head: str, width: int, size: int, tail: str) -> str:
    row = "(" + ",".join("?" * width) + ")"
    return f"{head} {','.join([row] * size)}{tail}"


def _lonely(outcome: object) -> bool:
    """Whether a request that was answered so may fare better, or do less harm, alone."""
    return isinstance(outcome, Exception) and (isinstance(outcome, Full | Damaged) or not isinstance(outcome, PsubdError))


def _update(topic: StoredTopic) -> Statement:
    return "UPDATE topics SET body = ? WHERE name = ?", (msgspec.json.encode(topic), topic.name)
