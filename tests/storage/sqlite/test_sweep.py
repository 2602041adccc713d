import os

from psubd.errors import StorageUnavailable
from psubd.model import Record
from psubd.storage.sqlite import sweep
from psubd.storage.sqlite.reading import offset_at
from tests.storage.sqlite.rooms import NOW, StoreCase

DAY = 86_400_000


class RetentionTests(StoreCase):
    def test_large_values_go_in_portions(self) -> None:
        """A portion takes at most 16 MiB, so that a publish waits behind little; all of the old goes in the end."""
        self.room.create("t", retention_ms=1000)
        for _ in range(40):
            self.room.put("t", b"x" * 1_000_000, timestamp=NOW - 5000)
        self.room.put("t", b"new")
        self.assertGreaterEqual(self.room.sweep(), 3)
        self.assertEqual([(40, b"new")], [(message.offset, message.value) for message in self.room.messages("t")])
        self.assertEqual(41, self.room.sample("psubd_storage_records_total"))
        self.assertEqual(40, self.room.sample("psubd_storage_swept_records_total"))

    def test_many_records_go_in_portions(self) -> None:
        """2000 records a portion."""
        self.room.create("t", retention_ms=1000)
        self.room.append(*[Record("t", b"x", partition=0, timestamp=NOW - 5000)] * 5000)
        self.assertGreaterEqual(self.room.sweep(), 3)
        self.assertEqual((5000, 5000, 0), (self.room.log("t").first, self.room.log("t").end, self.room.log("t").size))

    def test_a_portion_that_fails_is_tried_again(self) -> None:
        """No room for a portion: nothing of it is gone, the bounds stay; the next sweep does it."""
        self.room.create("t", retention_ms=1000)
        self.room.put("t", b"a", b"b", timestamp=NOW - 5000)
        self.room.faults.before["COMMIT"] = ["SQLITE_FULL"]
        self.assertRaises(StorageUnavailable, self.room.sweep)
        self.assertEqual((0, 2), (self.room.log("t").first, len(self.room.messages("t"))))
        self.room.sweep()
        self.assertEqual((2, []), (self.room.log("t").first, self.room.messages("t")))

    def test_offsets_are_not_used_again_after_a_crash(self) -> None:
        """An emptied partition's end is in the file: a process that did not close goes on behind it."""
        self.room.create("t", retention_ms=1000)
        self.room.put("t", b"a", b"b", timestamp=NOW - 5000)
        self.room.sweep()
        self.reopen()
        self.assertEqual([2], self.room.put("t", b"c"))

    def test_a_damaged_log_stops_no_other(self) -> None:
        """A record that cannot be decoded is told; the sweep goes on with the next log."""
        self.room.create("a", cleanup="compact")
        self.room.create("b", retention_ms=1000)
        self.room.put("a", b"x", key=b"k")
        self.room.put("b", b"x", timestamp=NOW - 5000)
        self.room.store.database.run([("UPDATE messages SET record = x'ff' WHERE id = ?", (self.room.log("a").no << 44,))])
        complaints = [report.complaint for report in sweep.steps(self.room.store, NOW) if report.complaint]
        self.assertEqual(1, len(complaints))
        self.assertIn("topic a, partition 0", complaints[0])
        self.assertEqual((1, 1), (self.room.log("b").first, self.room.log("b").end))

    def test_a_young_front_costs_no_question(self) -> None:
        """Once a sweep has seen that a log's first message is young, the next ones ask the file nothing until it is old."""
        self.room.create("t", retention_ms=10_000)
        self.room.put("t", b"a", timestamp=NOW)
        self.room.sweep(NOW)
        del self.room.faults.statements[:]
        self.room.sweep(NOW + 5000)
        self.assertEqual([], [statement for statement in self.room.faults.statements if "messages" in statement])
        self.room.put("t", b"b", timestamp=NOW + 9000)
        self.room.sweep(NOW + 10_001)
        self.assertEqual([b"b"], [message.value for message in self.room.messages("t")])
        self.room.sweep(NOW + 19_001)
        self.assertEqual((2, 2), (self.room.log("t").first, self.room.log("t").end))

    def test_a_topic_deleted_during_a_sweep(self) -> None:
        """The sweep goes on with the others and buries it the next time."""
        for name in ("a", "b"):
            self.room.create(name, retention_ms=1000)
            self.room.append(*[Record(name, b"x", partition=0, timestamp=NOW - 5000)] * 5000)
        going = sweep.steps(self.room.store, NOW)
        next(going)
        self.room.drop("a")
        for _ in going:
            pass
        self.assertEqual([], self.room.messages("b"))
        self.room.sweep()
        self.assertEqual([(0, 0)], self.room.store.database.query("SELECT count(*), (SELECT count(*) FROM segments) FROM messages"))

    def test_the_file_gives_back_what_is_free(self) -> None:
        """After most of 60 MB was deleted, the file is small again."""
        self.room.create("t")
        self.room.create("u")
        self.room.put("u", b"stays")
        for _ in range(60):
            self.room.put("t", b"x" * 1_000_000)
        self.room.drop("t")
        self.room.sweep()
        self.room.close()
        self.assertLess(os.stat(self.room.path).st_size, 30_000_000)
        self.room.open()
        self.assertEqual([b"stays"], [message.value for message in self.room.messages("u")])


class OffsetAtTests(StoreCase):
    def at(self, timestamp: int) -> int:
        log = self.room.log("t")
        connection = self.room.store.database.connection
        assert connection is not None
        return offset_at(connection, log.no, log.first, log.end, timestamp)

    def test_over_many_segments(self) -> None:
        """Ten thousand records with timestamps up and down: the same as looking at each."""
        self.room.create("t")
        times = [NOW - 10_000 + number + (number * 7919) % 500 for number in range(10_000)]
        for block in range(0, 10_000, 400):
            self.room.append(*[Record("t", b"x", partition=0, timestamp=time) for time in times[block : block + 400]])
        for timestamp in (0, *range(NOW - 10_500, NOW + 1000, 97)):
            expected = next((offset for offset, time in enumerate(times) if time >= timestamp), 10_000)
            self.assertEqual(expected, self.at(timestamp), timestamp)

    def test_looks_at_few_rows(self) -> None:
        """At 100,000 records a look costs the rows of one segment and the segments, not the log: counted in SQLite's own steps."""
        self.room.create("t")
        for block in range(100):
            self.room.append(*[Record("t", b"x", partition=0, timestamp=NOW - 1_000_000 + block * 1000 + number) for number in range(1000)])
        connection = self.room.store.database.connection
        assert connection is not None
        steps = [0]

        def count() -> int:
            steps[0] += 100
            return 0

        connection.set_progress_handler(count, 100)
        for offset in (0, 50_500, 99_999):
            steps[0] = 0
            self.assertEqual(offset, self.at(NOW - 1_000_000 + offset))
            self.assertLess(steps[0], 20_000)
        connection.set_progress_handler(None, 0)


class CompactionTests(StoreCase):
    def test_over_portions(self) -> None:
        """Keys that come again thousands of records later supersede all the same; only the newest of each stays, in order."""
        self.room.create("t", cleanup="compact")
        self.room.append(*[Record("t", b"%d" % number, b"k%d" % (number % 700), (), 0, NOW) for number in range(5000)])
        self.room.sweep()
        kept = self.room.messages("t")
        self.assertEqual(list(range(4300, 5000)), [message.offset for message in kept])
        self.room.append(*[Record("t", b"again", b"k%d" % (number % 700), (), 0, NOW) for number in range(700)])
        self.room.sweep()
        self.assertEqual([b"again"] * 700, [message.value for message in self.room.messages("t")])

    def test_goes_on_after_a_reopening(self) -> None:
        """Where it had come to, and where each key's newest is, are in the file; so is the end, when the last message itself went."""
        self.room.create("t", cleanup="compact", config={"delete.retention.ms": "1000"})
        self.room.put("t", b"1", key=b"a")
        self.room.put("t", None, key=b"a")
        self.room.sweep(NOW)
        self.reopen()
        self.room.sweep(NOW + 5000)
        self.assertEqual([], self.room.messages("t"))
        self.reopen()
        self.assertEqual([2], self.room.put("t", b"2", key=b"a"))

    def test_a_tombstone_superseded_again(self) -> None:
        """A value after a tombstone takes the tombstone's place, and is not taken away a day later."""
        self.room.create("t", cleanup="compact")
        self.room.put("t", None, key=b"a")
        self.room.sweep(NOW)
        self.room.put("t", b"alive", key=b"a")
        self.room.sweep(NOW + 1)
        self.room.sweep(NOW + 2 * DAY)
        self.assertEqual([b"alive"], [message.value for message in self.room.messages("t")])

    def test_partitions_are_compacted_apart(self) -> None:
        """The same key in two partitions stays in both."""
        self.room.create("t", 2, cleanup="compact")
        for partition in (0, 1):
            self.room.put("t", b"x", key=b"k", partition=partition)
        self.room.sweep()
        self.assertEqual([1, 1], [len(self.room.messages("t", partition)) for partition in (0, 1)])

    def test_a_deleted_topic_leaves_no_keys(self) -> None:
        """Its rows in every table are gone after the next sweep."""
        self.room.create("t", cleanup="compact")
        self.room.put("t", b"x", key=b"k")
        self.room.sweep()
        self.room.drop("t")
        self.room.sweep()
        for table in ("messages", "segments", "keys", "logs", "places"):
            self.assertEqual([(0,)], self.room.store.database.query(f"SELECT count(*) FROM {table}"), table)
