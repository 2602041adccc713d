"""Posts on SQLite with its real threads: what one turn brings is one transaction, and is on disk before anybody is told."""

import sqlite3
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import globalLogPublisher

from psubd.errors import Internal, StorageUnavailable
from psubd.model import Position, Record, TopicSpec
from psubd.storage.sqlite import SqliteStorage, backend
from psubd.storage.sqlite.tail import OVERHEAD
from tests.integration.storage.rooms import SqliteCase


class PostTests(SqliteCase):
    def setUp(self) -> None:
        super().setUp()
        self.wait(self.storage.create_topic(TopicSpec("t", 2)))

    def post(self, value: bytes, partition: int = 0, storage: SqliteStorage | None = None) -> "Deferred[Any]":
        told: Deferred[Any] = Deferred()
        (storage or self.storage).post(Record("t", value, partition=partition), "all", told.callback)
        return told

    def transactions(self) -> float:
        return self.sample("psubd_storage_transactions_total")

    def test_a_turn_is_one_transaction(self) -> None:
        """A hundred posts of one turn cross together; a publish of that turn goes behind those before it."""
        before = self.transactions()
        self.wait(gatherResults([self.post(b"%d" % number) for number in range(100)]))
        self.assertEqual(before + 1, self.transactions())
        first, between, last = self.post(b"a"), self.storage.publish([Record("t", b"b", partition=0)], "all"), self.post(b"c")
        self.assertEqual([100, 101, 102], [self.wait(first).offset, self.wait(between)[0].offset, self.wait(last).offset])

    def test_much_of_a_turn_crosses_in_portions(self) -> None:
        """So that a transaction stays bounded: all are stored, in order."""
        self.patch(backend, "POSTED_BYTES", 5000)
        told = [self.post(b"%d" % number + b"x" * 1000) for number in range(40)]
        self.assertEqual(list(range(40)), [self.wait(one).offset for one in told])

    def test_what_stays_in_memory_is_counted(self) -> None:
        """The newest messages count with all that they hold: against `tail_bytes` they are not more."""
        record = Record("t", b"v" * 100, b"key", (("name", b"value"),), 0)
        told: list[Deferred[Any]] = [Deferred() for _ in range(10)]
        for one in told:
            self.storage.post(record, "all", one.callback)
        self.wait(gatherResults(told))
        self.assertEqual(10 * (record.size + OVERHEAD), self.storage.status()["tail_bytes"])

    def test_on_disk_before_it_is_told(self) -> None:
        """Another connection to the file finds the record in the call that tells of it."""
        other = sqlite3.connect(self.path)
        self.addCleanup(other.close)
        found: list[tuple[Any, int]] = []
        done: Deferred[None] = Deferred()

        def told(position: Any) -> None:
            found.append((position, other.execute("SELECT count(*) FROM messages").fetchone()[0]))
            if len(found) == 20:
                done.callback(None)

        for number in range(20):
            self.storage.post(Record("t", b"%d" % number, partition=0), "all", told)
        self.wait(done)
        for position, count in found:
            self.assertIsInstance(position, Position)
            self.assertGreater(count, position.offset)

    def test_one_that_listens_badly(self) -> None:
        """What a listener raises is logged; the others hear, and the storage goes on."""

        def bad(_: Any) -> None:
            raise ValueError("a listener's bug")

        self.storage.post(Record("t", b"a", partition=0), "all", bad)
        self.assertEqual(1, self.wait(self.post(b"b")).offset)
        self.assertEqual(2, self.wait(self.post(b"c")).offset)
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))

    def test_a_bug_is_told_as_such(self) -> None:
        """A record that trips the storage up is Internal, and in the log; what was posted with it is stored."""
        bad: Deferred[Any] = Deferred()
        first = self.post(b"a")
        self.storage.post(Record("t", b"x", partition=0, timestamp="now"), "all", bad.callback)  # type: ignore[arg-type]
        told = [first, bad, self.post(b"b")]
        self.assertEqual([Position, Internal, Position], [type(self.wait(one)) for one in told])
        self.assertEqual(1, len(self.flushLoggedErrors(TypeError)))

    def test_lost_with_acks_0_is_logged(self) -> None:
        """Once for all of a transaction, with how many."""
        said: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(said.append)
        self.addCleanup(globalLogPublisher.removeObserver, said.append)
        for partition in (0, 7, 8, 1):
            self.storage.post(Record("t", b"a", partition=partition), "0", self.fail)
        self.wait(self.post(b"z"))
        self.assertEqual([2], [event["count"] for event in said if "count" in event])

    def test_too_much_waiting_is_refused(self) -> None:
        """Beyond queue_bytes a post is refused at once, and nobody is told of it; when the writer has worked, there is room again."""
        self.wait(self.storage.stop())
        storage = self.open(queue_bytes=1 << 20, busy_timeout_ms=10_000)
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        waiting = [self.post(b"x" * 400_000, storage=storage) for _ in range(2)]
        with self.assertRaises(StorageUnavailable):
            storage.post(Record("t", b"x" * 400_000, partition=0), "all", self.fail)
        other.execute("ROLLBACK")
        for told in waiting:
            self.assertIsInstance(self.wait(told), Position)
        self.assertIsInstance(self.wait(self.post(b"x" * 400_000, storage=storage)), Position)
        self.assertEqual(0, storage.status()["waiting_bytes"])

    def test_one_record_larger_than_the_queue(self) -> None:
        """Alone it passes, as with publish."""
        self.wait(self.storage.stop())
        storage = self.open(queue_bytes=1 << 20)
        self.wait(storage.create_topic(TopicSpec("large", max_message_bytes=1 << 22)))
        told: Deferred[Any] = Deferred()
        storage.post(Record("large", bytes(1 << 21), partition=0), "all", told.callback)
        self.assertIsInstance(self.wait(told), Position)
