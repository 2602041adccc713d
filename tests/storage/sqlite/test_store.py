import os
import random
import sqlite3

from psubd.errors import BadHeader, BadParameter, Exists, StorageTimeout, StorageUnavailable, TooLarge, TopicMissing
from psubd.model import Commit, Position, Record, TopicPartition
from psubd.storage.sqlite.database import Full
from psubd.storage.sqlite.reading import places
from psubd.storage.sqlite.requests import Append, Forget, Keep
from psubd.storage.sqlite.schema import MAX_OFFSET
from tests.storage.sqlite.rooms import NOW, StoreCase


def append(topic: str, *values: bytes, partition: int = 0) -> Append:
    return Append([Record(topic, value, partition=partition) for value in values], NOW, sum(map(len, values)))


class WriteTests(StoreCase):
    def test_all_that_is_given_is_one_transaction(self) -> None:
        """Fifty requests, over partitions, with a group's places: one commit, in the metrics and in the file."""
        self.room.create("t", 3)
        before = self.room.sample("psubd_storage_transactions_total")
        requests: list[Append | Keep] = [append("t", b"%d" % number, partition=number % 3) for number in range(50)]
        requests.append(Keep("g", {TopicPartition("t", 0): Commit(5, "m")}))
        report = self.room.store.write(requests)
        self.assertEqual(before + 1, self.room.sample("psubd_storage_transactions_total"))
        self.assertEqual(50, self.room.sample("psubd_storage_records_total"))
        self.assertEqual(1, self.room.sample("psubd_storage_transaction_records_count"))
        self.assertEqual(51, len(report.answers))
        self.assertEqual([b"%d" % number for number in range(1, 50, 3)], [message.value for message in self.room.messages("t", 1)])
        self.assertEqual({(moved.partition, moved.end) for moved in report.moved}, {(0, 17), (1, 17), (2, 16)})

    def test_requests_that_store_nothing_cost_no_transaction(self) -> None:
        """Refused records alone never touch the disk."""
        before = self.room.sample("psubd_storage_transactions_total")
        (answer,) = self.room.append(Record("none", b"x", partition=0))
        self.assertIsInstance(answer, TopicMissing)
        self.assertEqual(before, self.room.sample("psubd_storage_transactions_total"))

    def test_a_header_name_that_is_no_text_fails_alone(self) -> None:
        """A lone surrogate cannot be stored as UTF-8: refused, its neighbour stored."""
        self.room.create("t")
        refused, stored = self.room.append(Record("t", b"a", None, (("\ud800", b""),), 0), Record("t", b"b", partition=0))
        self.assertIsInstance(refused, BadHeader)
        self.assertEqual(0, stored.offset)

    def test_the_last_offset_is_the_last(self) -> None:
        """A partition whose 44 bits are used up refuses plainly, and takes nothing from its neighbour's range."""
        self.room.create("t", 2)
        self.room.log("t").end = MAX_OFFSET
        last, beyond = self.room.append(Record("t", b"a", partition=0), Record("t", b"b", partition=0))
        self.assertEqual(MAX_OFFSET, last.offset)
        self.assertIsInstance(beyond, StorageUnavailable)
        self.assertEqual([], self.room.messages("t", 1))
        self.assertEqual([MAX_OFFSET], [message.offset for message in self.room.messages("t")])

    def test_many_rows_go_in_whole(self) -> None:
        """Every length of statement: counts around the sizes that inserts are cut into."""
        for number, count in enumerate((1, 2, 127, 128, 129, 511, 512, 513, 641, 1200)):
            name = f"t{number}"
            self.room.create(name)
            self.room.put(name, *[b"%d" % value for value in range(count)])
            self.assertEqual([b"%d" % value for value in range(count)], [message.value for message in self.room.messages(name)])

    def test_places_in_one_transaction_keep_their_order(self) -> None:
        """Kept, forgotten, kept again, and kept twice: the last word of each counts."""
        self.room.create("t", 2)
        one, two = TopicPartition("t", 0), TopicPartition("t", 1)
        self.room.store.write(
            [Keep("g", {one: Commit(1), two: Commit(1)}), Forget("g", "t"), Keep("g", {one: Commit(2)}), Keep("g", {one: Commit(3, "last")})]
        )
        connection = self.room.store.database.connection
        assert connection is not None
        self.assertEqual({one: Commit(3, "last")}, places(connection, "g"))

    def test_a_place_beyond_63_bits_fails_alone(self) -> None:
        """An offset that cannot be kept is answered so."""
        self.room.create("t", 2)
        place = TopicPartition("t", 0)
        failed = self.room.one(self.room.store.write([Keep("g", {place: Commit(2**63), TopicPartition("t", 1): Commit(-1)})]))
        self.assertEqual({BadParameter}, {type(why) for why in failed.values()})
        self.assertEqual(2, len(failed))

    def test_places_go_with_their_topic(self) -> None:
        """A topic made again under the name has no group's place."""
        self.room.create("t")
        self.room.store.write([Keep("g", {TopicPartition("t", 0): Commit(1)})])
        self.room.drop("t")
        self.room.create("t")
        connection = self.room.store.database.connection
        assert connection is not None
        self.assertEqual({}, places(connection, "g"))


class FullTests(StoreCase):
    max_bytes = 1 << 20

    def test_a_large_request_makes_no_small_one_fail(self) -> None:
        """With no room for all of a batch, each request stands or falls alone, and the offsets have no hole."""
        self.room.create("t", 1)
        large = b"x" * 1_100_000
        report = self.room.store.write([append("t", b"a"), append("t", large), append("t", b"b"), append("t", large), append("t", b"c")])
        outcomes = [outcome[0].offset if isinstance(outcome, list) else type(outcome) for _, outcome in report.answers]
        self.assertEqual([0, Full, 1, Full, 2], outcomes)
        self.assertEqual([b"a", b"b", b"c"], [message.value for message in self.room.messages("t")])
        self.assertEqual(3 + 2_200_000, report.released)
        self.reopen()
        self.assertEqual([3], self.room.put("t", b"d"))

    def test_goes_on_when_retention_made_room(self) -> None:
        """Full, then refused, then a sweep by bytes, then stored."""
        self.room.create("t", retention_bytes=100_000)
        while True:
            outcome = self.room.store.write([append("t", b"x" * 100_000)]).answers[0][1]
            if isinstance(outcome, Full):
                break
        end = self.room.log("t").end
        self.room.sweep()
        self.assertEqual([end], self.room.put("t", b"x" * 100_000))

    def test_a_large_record_makes_no_other_one_fail(self) -> None:
        """Of what was posted together, and stands in one request: likewise, each to who posted it."""
        self.room.create("t", 1)
        values = [b"a", b"x" * 1_100_000, b"b", b"x" * 1_100_000, b"c"]
        posters = [lambda _: None for _ in values]
        together = Append([Record("t", value, partition=0) for value in values], NOW, 2_200_003, list(posters))
        report = self.room.store.write([append("t", b"before"), together, append("t", b"after")])
        self.assertEqual([None, *([poster] for poster in posters), None], [ticket for ticket, _ in report.answers])
        outcomes = [outcome[0].offset if isinstance(outcome, list) else type(outcome) for _, outcome in report.answers]
        self.assertEqual([0, 1, Full, 2, Full, 3, 4], outcomes)
        self.assertEqual([b"before", b"a", b"b", b"c", b"after"], [message.value for message in self.room.messages("t")])
        self.assertEqual(6 + 2_200_003 + 5, report.released)


class FaultTests(StoreCase):
    def test_a_record_that_is_none_fails_alone(self) -> None:
        """A bug's work among what was posted together: that one is answered so, the others are stored."""
        self.room.create("t")
        records = [Record("t", b"a", partition=0), Record("t", object(), b"k", partition=0), Record("t", b"b", partition=0)]  # type: ignore[arg-type]
        report = self.room.store.write([Append(records, NOW, 0, [print, print, print])])
        self.assertEqual([list, TypeError, list], [type(outcome) for _, outcome in report.answers])
        self.assertEqual([b"a", b"b"], [message.value for message in self.room.messages("t")])

    def test_ends_are_never_ahead_of_what_is_stored(self) -> None:
        """After a commit that failed, the next record gets the offset that the failed one would have had; nothing of the failed one is there."""
        self.room.create("t")
        for name in ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_BUSY"):
            end = self.room.log("t").end
            self.room.faults.before["INSERT INTO messages"] = [name]
            with self.assertRaises(StorageUnavailable):
                self.room.put("t", b"lost")
            self.assertEqual([end], self.room.put("t", b"kept"))
        self.assertEqual([b"kept"] * 4, [message.value for message in self.room.messages("t")])

    def test_a_commit_in_doubt_that_is_there_is_answered_as_stored(self) -> None:
        """The sync failed, the truth is read back: stored, and the ends say so."""
        self.room.create("t")
        self.room.faults.after["INSERT INTO messages"] = ["SQLITE_IOERR_FSYNC"]
        self.assertEqual([0], self.room.put("t", b"a"))
        self.assertEqual([1], self.room.put("t", b"b"))

    def test_a_doubt_that_stays_is_timeout_and_read_back(self) -> None:
        """In doubt: StorageTimeout. The next write reads the file first, so that its offset is behind what is there after all, and tells all."""
        self.room.create("t")
        self.room.faults.after["INSERT INTO messages"] = ["SQLITE_IOERR_FSYNC"]
        self.room.faults.before["INSERT OR REPLACE INTO scratch"] = ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_FSYNC"]
        with self.assertRaises(StorageTimeout):
            self.room.put("t", b"perhaps")
        with self.assertRaises(StorageUnavailable):
            self.room.put("t", b"not tried")
        report = self.room.store.write([append("t", b"next")])
        self.assertTrue(report.all_shelves)
        self.assertEqual(Position("t", 0, 1, NOW), report.answers[0][1][0])
        self.assertEqual([b"perhaps", b"next"], [message.value for message in self.room.messages("t")])

    def test_a_topic_in_doubt_is_read_back(self) -> None:
        """A create whose outcome was in doubt is StorageTimeout; the next call knows what is in the file: made it was."""
        self.room.faults.after["COMMIT"] = ["SQLITE_IOERR_FSYNC"]
        with self.assertRaises(StorageTimeout):
            self.room.create("t")
        with self.assertRaises(Exists):
            self.room.create("t")
        self.assertEqual([0], self.room.put("t", b"x"))

    def test_one_requests_bug_is_no_others(self) -> None:
        """A request that cannot be bound fails with its own error; those that shared its transaction are stored."""
        self.room.create("t")
        report = self.room.store.write([append("t", b"a"), Keep("\ud800", {TopicPartition("t", 0): Commit(1)}), append("t", b"b")])
        kinds = [type(outcome) for _, outcome in report.answers]
        self.assertEqual([list, UnicodeEncodeError, list], kinds)
        self.assertEqual([b"a", b"b"], [message.value for message in self.room.messages("t")])

    def test_a_sweep_touches_nothing_while_the_file_is_in_doubt(self) -> None:
        """It fails until a write has settled the doubt."""
        self.room.create("t", retention_ms=1000)
        self.room.put("t", b"old", timestamp=NOW - 5000)
        self.room.faults.after["INSERT INTO messages"] = ["SQLITE_IOERR_FSYNC"]
        self.room.faults.before["INSERT OR REPLACE INTO scratch"] = ["SQLITE_IOERR_FSYNC"]
        with self.assertRaises(StorageTimeout):
            self.room.put("t", b"perhaps")
        self.assertRaises(StorageUnavailable, self.room.sweep)
        self.room.store.probe()
        self.room.sweep()
        self.assertEqual([b"perhaps"], [message.value for message in self.room.messages("t")])


class ReopenTests(StoreCase):
    def test_everything_survives(self) -> None:
        """Topics with their settings and uid, messages, ends and places, after close and open."""
        topic = self.room.create("t", 2, retention_bytes=10_000, config={"max.message.bytes": "5000"})
        self.room.put("t", b"a", b"b", partition=1)
        self.room.store.write([Keep("g", {TopicPartition("t", 1): Commit(1, "m")})])
        self.reopen()
        self.assertEqual(topic, self.room.store.catalogue.shelves["t"].topic)
        self.assertEqual([b"a", b"b"], [message.value for message in self.room.messages("t", 1)])
        self.assertEqual([2], self.room.put("t", b"c", partition=1))
        with self.assertRaises(TopicMissing):
            self.room.store.catalogue.shelf("u")

    def test_segments_and_sizes_are_found_again(self) -> None:
        """What the writer counts of a log (bytes, open segment) is the same after a reopening, whatever was written and cut before."""
        self.room.create("t", retention_bytes=40_000)
        for count in (10, 1500, 700, 600, 3):
            self.room.append(*[Record("t", b"x" * 20, partition=0, timestamp=NOW - random.randrange(1000)) for _ in range(count)])
        self.room.sweep()
        log = self.room.log("t")
        before = (log.first, log.end, log.size, log.base, log.open_size)
        self.reopen()
        log = self.room.log("t")
        self.assertEqual(before, (log.first, log.end, log.size, log.base, log.open_size))
        ((size,),) = self.room.store.database.query("SELECT sum(length(record)) FROM messages")
        self.assertEqual(size, log.size)

    def test_numbers_of_dead_logs_are_not_used(self) -> None:
        """While a deleted topic's messages are still there, a new topic's log has another number, also after a reopening."""
        self.room.create("t")
        self.room.put("t", b"secret")
        self.room.drop("t")
        self.reopen()
        self.room.create("u")
        self.assertEqual([], self.room.messages("u"))
        self.room.sweep()
        self.assertEqual([(0,)], self.room.store.database.query("SELECT count(*) FROM messages"))
        self.assertEqual(set(), self.room.store.catalogue.dead)

    def test_nothing_is_readable_by_others(self) -> None:
        """The payload stands in files that only the owner reads."""
        self.room.create("t")
        self.room.put("t", b"secret")
        for name in os.listdir(os.path.dirname(self.room.path)):
            self.assertEqual(0, os.stat(os.path.join(os.path.dirname(self.room.path), name)).st_mode & 0o077, name)


class AlterTests(StoreCase):
    def test_a_failed_alteration_changes_nothing(self) -> None:
        """No room for a create, grow, configure or drop: StorageUnavailable, and the topics stay as they were, here and in the file."""
        topic = self.room.create("t", 2)
        for act in (
            lambda: self.room.create("u", 3),
            lambda: self.room.configure("t", {"retention_ms": 5}),
            lambda: self.room.drop("t"),
        ):
            for where in ("COMMIT", "UPDATE topics", "DELETE FROM topics", "INSERT INTO topics"):
                self.room.faults.before[where] = ["SQLITE_FULL"]
            self.assertRaises(StorageUnavailable, act)
            self.room.faults.before.clear()
            self.assertEqual({"t": topic}, {name: shelf.topic for name, shelf in self.room.store.catalogue.shelves.items()})
        self.reopen()
        self.assertEqual({"t": topic}, {name: shelf.topic for name, shelf in self.room.store.catalogue.shelves.items()})
        self.assertEqual([0], self.room.put("t", b"x", partition=1))

    def test_too_much_metadata(self) -> None:
        """One character more than 32768 is TooLarge."""
        self.room.create("t")
        failed = self.room.one(self.room.store.write([Keep("g", {TopicPartition("t", 0): Commit(1, "m" * 32_769)})]))
        self.assertIsInstance(failed[TopicPartition("t", 0)], TooLarge)

    def test_the_file_names_no_other_journal(self) -> None:
        """The tables are those of the schema, in a file that plain sqlite3 opens."""
        other = sqlite3.connect(self.room.path)
        self.addCleanup(other.close)
        names = {name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        self.assertEqual({"topics", "logs", "messages", "segments", "places", "keys", "scratch"}, names)
