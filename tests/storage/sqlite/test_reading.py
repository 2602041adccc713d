import sqlite3

from prometheus_client import CollectorRegistry

from psubd.errors import StorageUnavailable
from psubd.model import Record
from psubd.storage.sqlite.meters import Meters
from psubd.storage.sqlite.reading import Readers, read
from tests.storage.sqlite.rooms import NOW, StoreCase


class ReadTests(StoreCase):
    def read(self, offset: int, end: int, max_records: int = 100, max_bytes: int = 1 << 20) -> tuple[list[int], int]:
        connection = self.room.store.database.connection
        assert connection is not None
        messages, following = read(connection, self.room.log("t").no, offset, end, max_records, max_bytes)
        return [message.offset for message in messages], following

    def gapped(self) -> None:
        """Offsets 2, 3, 7 of ten."""
        self.room.create("t")
        self.room.put("t", *[b"x" * 50] * 10)
        self.room.store.database.run([("DELETE FROM messages WHERE id & 15 NOT IN (2, 3, 7)", ())])

    def test_gaps_are_stepped_over(self) -> None:
        """The place to go on is past the gap behind the last message, or the end: no reader waits for an offset that will not come."""
        self.gapped()
        self.assertEqual(([2, 3, 7], 10), self.read(0, 10))
        self.assertEqual(([2, 3], 7), self.read(0, 10, 2))
        self.assertEqual(([2], 3), self.read(1, 10, 1))
        self.assertEqual(([7], 10), self.read(4, 10, 1))
        self.assertEqual(([], 10), self.read(8, 10))

    def test_nothing_past_the_end_that_was_named(self) -> None:
        """What was committed after the caller looked is left to the next read."""
        self.gapped()
        self.assertEqual(([2, 3], 7), self.read(0, 7))
        self.assertEqual(([], 2), self.read(0, 2))

    def test_bytes(self) -> None:
        """As many as go into max_bytes, counted as they are stored; one at least."""
        self.gapped()
        self.assertEqual(([2, 3], 7), self.read(0, 10, 100, 140))
        self.assertEqual(([2], 3), self.read(0, 10, 100, 1))

    def test_another_logs_messages_are_never_read(self) -> None:
        """Whatever the offsets asked for, a read stays in its log's range."""
        for name in ("a", "t", "z"):
            self.room.create(name)
            self.room.put(name, name.encode())
        self.assertEqual(([0], 5), self.read(0, 5))
        self.assertEqual(([], 1 << 43), self.read(1, 1 << 43))


class ReadersTests(StoreCase):
    def readers(self) -> Readers:
        readers = Readers(self.room.store.database.reader, Meters(CollectorRegistry()))
        self.addCleanup(readers.close)
        return readers

    def test_only_what_is_committed_is_seen(self) -> None:
        """While a transaction is under way on the writer's connection, a reader sees the state before it, and does not wait."""
        self.room.create("t")
        writer = self.room.store.database.connection
        assert writer is not None
        readers = self.readers()
        count = lambda connection: connection.execute("SELECT count(*) FROM messages").fetchone()[0]
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO messages VALUES (1, 1, x'00')")
        self.assertEqual(0, readers.ask(count))
        writer.execute("COMMIT")
        self.assertEqual(1, readers.ask(count))

    def test_a_reader_cannot_write(self) -> None:
        """Its connection refuses to."""
        with self.assertRaises(StorageUnavailable):
            self.readers().ask(lambda connection: connection.execute("DELETE FROM messages"))

    def test_one_that_failed_harms_no_other(self) -> None:
        """Its connection is thrown away: the next question has another one, and is answered."""
        self.room.create("t")
        readers = self.readers()
        used: list[sqlite3.Connection] = []

        def breaks(connection: sqlite3.Connection) -> None:
            used.append(connection)
            connection.execute("SELECT broken")

        with self.assertRaises(StorageUnavailable):
            readers.ask(breaks)
        with self.assertRaises(ZeroDivisionError):
            readers.ask(lambda connection: used.append(connection) or 1 // 0)
        self.assertEqual(1, readers.ask(lambda connection: used.append(connection) or connection.execute("SELECT 1").fetchone()[0]))
        self.assertEqual(3, len({id(connection) for connection in used}))
        self.assertEqual(1, readers.ask(lambda connection: used.append(connection) or 1))
        self.assertIs(used[2], used[3])

    def test_damaged_bytes_fail_that_read_only(self) -> None:
        """A record that cannot be decoded is StorageUnavailable; what lies elsewhere is read."""
        self.room.create("t", 2)
        self.room.append(Record("t", b"a", None, (), 0, NOW), Record("t", b"b", None, (), 1, NOW))
        damaged, sound = self.room.log("t", 0), self.room.log("t", 1)
        self.room.store.database.run([("UPDATE messages SET record = x'ff' WHERE id = ?", (damaged.no << 44,))])
        readers = self.readers()
        with self.assertRaises(StorageUnavailable):
            readers.ask(lambda connection: read(connection, damaged.no, 0, 1, 10, 1000))
        self.assertEqual(b"b", readers.ask(lambda connection: read(connection, sound.no, 0, 1, 10, 1000))[0][0].value)
