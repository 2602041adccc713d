"""Any history of the blocking half against a naive model that keeps everything in lists."""

import shutil
import tempfile
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from psubd.model import Commit, Message, Record, TopicPartition
from psubd.storage.sqlite.reading import offset_at, places, read
from psubd.storage.sqlite.requests import Append, Grow, Keep
from psubd.storage.topics import TOMBSTONE_MS
from tests.storage.sqlite.rooms import NOW, StoreRoom

RETENTION_MS = 1000
KEYS = [b"a", b"b", b"c", b"d"]


class NaiveLog:
    """Offset, timestamp, key, value of all that is there."""

    def __init__(self) -> None:
        self.first = self.end = 0
        self.rows: list[tuple[int, int, bytes | None, bytes | None]] = []
        self.seen: dict[int, int] = {}

    def retire(self, now: int) -> None:
        kept = next((row[0] for row in self.rows if row[1] >= now - RETENTION_MS), self.end)
        if self.rows:
            self.first = kept
        self.rows = [row for row in self.rows if row[0] >= kept]

    def compact(self, now: int) -> None:
        newest = {row[2]: row[0] for row in self.rows}
        self.rows = [row for row in self.rows if newest[row[2]] == row[0]]
        for row in self.rows:
            self.seen.setdefault(row[0], now)
        self.rows = [row for row in self.rows if row[3] is not None or now - self.seen[row[0]] <= TOMBSTONE_MS]


class History(RuleBasedStateMachine):
    """Topics: ``plain`` keeps all, ``old`` retires by age, ``keyed`` is compacted. Each may be dropped and made again."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.room = StoreRoom(f"{self.folder}/s.sqlite")
        self.now = NOW
        self.logs: dict[str, list[NaiveLog]] = {}
        self.places: dict[TopicPartition, Commit] = {}

    def teardown(self) -> None:
        self.room.close()
        shutil.rmtree(self.folder)

    @rule(name=some.sampled_from(["plain", "old", "keyed"]), partitions=some.integers(1, 3))
    def create(self, name: str, partitions: int) -> None:
        if name in self.logs:
            return
        self.room.create(name, partitions, cleanup="compact" if name == "keyed" else "delete", retention_ms=RETENTION_MS if name == "old" else None)
        self.logs[name] = [NaiveLog() for _ in range(partitions)]

    @precondition(lambda self: self.logs)
    @rule(data=some.data())
    def grow(self, data: some.DataObject) -> None:
        name = data.draw(some.sampled_from(sorted(self.logs)))
        self.room.one(self.room.store.alter(Grow(name, len(self.logs[name]) + 1)))
        self.logs[name].append(NaiveLog())

    @precondition(lambda self: self.logs)
    @rule(
        data=some.data(),
        count=some.one_of(some.integers(1, 5), some.integers(1000, 2500)),
        ages=some.lists(some.integers(-500, 3000), min_size=1, max_size=7),
        key=some.integers(0, 3),
    )
    def append(self, data: some.DataObject, count: int, ages: list[int], key: int) -> None:
        name = data.draw(some.sampled_from(sorted(self.logs)))
        logs = self.logs[name]
        records = []
        for number in range(count):
            log = logs[number % len(logs)]
            value = None if number % 5 == key else b"%d" % number
            record = Record(name, value, KEYS[(number + key) % 4], (), number % len(logs), self.now - ages[number % len(ages)])
            records.append(record)
            log.rows.append((log.end, record.timestamp or 0, record.key, record.value))
            log.end += 1
        self.room.append(*records, now=self.now)

    @rule(ms=some.sampled_from([0, 700, 5000, TOMBSTONE_MS + 1]))
    def sweep(self, ms: int) -> None:
        self.now += ms
        self.room.sweep(self.now)
        for log in self.logs.get("old", []):
            log.retire(self.now)
        for log in self.logs.get("keyed", []):
            log.compact(self.now)

    @precondition(lambda self: self.logs)
    @rule(data=some.data())
    def drop(self, data: some.DataObject) -> None:
        name = data.draw(some.sampled_from(sorted(self.logs)))
        self.room.drop(name)
        del self.logs[name]
        self.places = {place: commit for place, commit in self.places.items() if place.topic != name}

    @precondition(lambda self: self.logs)
    @rule(data=some.data(), offset=some.integers(0, 50))
    def commit(self, data: some.DataObject, offset: int) -> None:
        name = data.draw(some.sampled_from(sorted(self.logs)))
        place, commit = TopicPartition(name, 0), Commit(offset, f"m{offset}")
        self.room.store.write([Keep("g", {place: commit})])
        self.places[place] = commit

    @rule()
    def reopen(self) -> None:
        self.room.close()
        self.room.open()

    @rule(name=some.sampled_from(["SQLITE_FULL", "SQLITE_IOERR_FSYNC"]))
    def lose(self, name: str) -> None:
        """A publish that fails leaves nothing."""
        for topic in self.logs:
            self.room.faults.before["INSERT INTO messages"] = [name]
            report = self.room.store.write([self.request(topic)])
            assert isinstance(report.answers[0][1], Exception)

    def request(self, topic: str) -> Append:
        return Append([Record(topic, b"lost", b"a", (), 0, self.now)], self.now, 1)

    @invariant()
    def agrees(self) -> None:
        """Every log's bounds and messages, read in pieces; offset_at of some times; the group's places."""
        connection = self.room.store.database.connection
        assert connection is not None
        assert set(self.logs) == set(self.room.store.catalogue.shelves)
        for name, logs in self.logs.items():
            for partition, naive in enumerate(logs):
                log = self.room.log(name, partition)
                assert (log.first, log.end) == (naive.first, naive.end), (name, partition)
                self.reads_as(naive, lambda offset, log=log: read(connection, log.no, max(offset, log.first), log.end, 997, 1 << 20))
                for timestamp in (0, self.now - 2000, self.now - 100, self.now + 10_000):
                    expected = next((row[0] for row in naive.rows if row[1] >= timestamp), naive.end)
                    assert offset_at(connection, log.no, log.first, log.end, timestamp) == expected
        assert places(connection, "g") == self.places

    def reads_as(self, naive: NaiveLog, ask: Callable[[int], tuple[list[Message], int]]) -> None:
        found, offset = [], naive.first
        while offset < naive.end:
            messages, offset = ask(offset)
            found += [(message.offset, message.timestamp, message.key, message.value) for message in messages]
        assert found == naive.rows


HistoryTests = History.TestCase
HistoryTests.settings = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
