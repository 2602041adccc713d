import os
import sqlite3
import stat

from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import ConfigError, StorageTimeout, StorageUnavailable
from psubd.storage.sqlite import schema
from psubd.storage.sqlite.database import Database, Full
from tests.storage.sqlite.faulty import Faults

PUT = "INSERT INTO messages VALUES (?, ?, ?)"
PROOF = "SELECT 1 FROM messages WHERE id = ?"


class DatabaseCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        self.path = os.path.join(folder, "s.sqlite")
        self.faults = Faults()

    def database(self, max_bytes: int = 0, path: str | None = None) -> Database:
        database = Database(path or self.path, 50, max_bytes, self.faults.connect)
        self.addCleanup(database.close)
        return database

    def opened(self, max_bytes: int = 0) -> Database:
        database = self.database(max_bytes)
        database.open()
        return database

    def refusal(self, path: str | None = None) -> str:
        (mistake,) = self.assertRaises(ConfigError, self.database(path=path).open).mistakes
        return mistake

    def ids(self, database: Database) -> list[int]:
        return [row[0] for row in database.query("SELECT id FROM messages ORDER BY id")]


class OpenTests(DatabaseCase):
    def test_a_new_file_is_private_and_durable(self) -> None:
        """0600 for file, WAL, shared memory and lock whatever the umask; WAL, synchronous=FULL."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        database = self.opened()
        database.run([(PUT, (1, 1, b"x"))])
        for suffix in ("", "-wal", "-shm", ".lock"):
            self.assertEqual(0o600, stat.S_IMODE(os.stat(self.path + suffix).st_mode), suffix)
        self.assertEqual([("wal",)], database.query("PRAGMA journal_mode"))
        self.assertEqual([(2,)], database.query("PRAGMA synchronous"))
        self.assertEqual([(schema.VERSION,)], database.query("PRAGMA user_version"))

    def test_what_was_run_is_there_when_opened_again(self) -> None:
        """Closing writes the WAL back; opening finds everything."""
        database = self.opened()
        database.run([(PUT, (7, 1, b"x"))])
        database.close()
        self.assertFalse(os.path.exists(self.path + "-wal"))
        self.assertEqual([7], self.ids(self.opened()))

    def test_a_second_opener_is_refused(self) -> None:
        """Another one on the same file is told that it is in use; after the first has closed it opens."""
        first = self.opened()
        self.assertIn("another process uses it", self.refusal())
        first.close()
        self.opened()

    def test_a_file_locked_by_another_program_is_refused(self) -> None:
        """One that writes in it, without our lock file (the sqlite3 shell, a backup), is as plain a refusal."""
        self.opened().close()
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN EXCLUSIVE")
        self.assertIn("another process uses it", self.refusal())

    def test_paths_that_cannot_be_used(self) -> None:
        """Below a file, in a folder that is not there, a folder itself, in /proc: plain words with the path, no traceback, no lock left."""
        open(self.path + ".file", "w").close()
        for path in (self.path + ".file/s.sqlite", self.path + ".none/s.sqlite", "/proc/s.sqlite", os.path.dirname(self.path)):
            self.assertIn(path, self.refusal(path))

    def test_a_file_that_is_no_database(self) -> None:
        """Other bytes are told, and left as they are."""
        with open(self.path, "wb") as file:
            file.write(b"certainly not SQLite" * 1000)
        self.assertIn("damaged", self.refusal())
        with open(self.path, "rb") as file:
            self.assertEqual(b"certainly not SQLite" * 1000, file.read())

    def test_a_damaged_database(self) -> None:
        """A psubd file whose schema page was overwritten is told as damaged."""
        self.opened().close()
        with open(self.path, "r+b") as file:
            file.seek(100)
            file.write(b"\xff" * 3000)
        self.assertIn("damaged", self.refusal())

    def test_another_programs_database(self) -> None:
        """It is refused, and no table is made in it."""
        other = sqlite3.connect(self.path)
        other.execute("CREATE TABLE theirs (x)")
        other.close()
        self.assertIn("another program", self.refusal())
        again = sqlite3.connect(self.path)
        self.addCleanup(again.close)
        self.assertEqual([("theirs",)], again.execute("SELECT name FROM sqlite_master").fetchall())

    def test_a_newer_schema(self) -> None:
        """A file of a newer psubd is refused, naming both versions, and stays as it is."""
        database = self.opened()
        database.query("PRAGMA user_version = 99")
        database.close()
        mistake = self.refusal()
        self.assertIn("99", mistake)
        self.assertIn("newer", mistake)

    def test_a_migration_that_fails_leaves_no_half(self) -> None:
        """When making the tables fails in the middle, none is there, and the next start makes them all."""
        self.faults.before["CREATE INDEX"] = ["SQLITE_FULL"]
        self.assertIn("full", self.refusal())
        database = self.opened()
        self.assertEqual([], self.ids(database))
        self.assertEqual([(0,)], database.query("SELECT count(*) FROM keys"))


class RunTests(DatabaseCase):
    def test_all_or_nothing(self) -> None:
        """A transaction whose second statement fails leaves nothing of the first, and the next one works."""
        database = self.opened()
        self.assertRaises(StorageUnavailable, database.run, [(PUT, (1, 1, b"a")), (PUT, (1, 1, b"b"))])
        self.assertEqual([], self.ids(database))
        database.run([(PUT, (1, 1, b"a")), (PUT, (2, 1, b"b"))])
        self.assertEqual([1, 2], self.ids(database))

    def test_a_bug_rolls_back_too(self) -> None:
        """What is not SQLite's error (a value that cannot be bound) leaves nothing behind either."""
        database = self.opened()
        self.assertRaises(OverflowError, database.run, [(PUT, (1, 1, b"a")), (PUT, (2**70, 1, b"b"))])
        database.run([(PUT, (3, 1, b"a")), (PUT, (4, 1, b"b"))])
        self.assertEqual([3, 4], self.ids(database))

    def test_a_full_file_goes_on_when_there_is_room(self) -> None:
        """At max_bytes a batch is Full and gone; smaller ones, and after a deletion large ones, are stored."""
        database = self.opened(max_bytes=1 << 20)
        self.assertRaises(Full, database.run, [(PUT, (1, 1, b"x" * (2 << 20)))])
        self.assertRaises(Full, database.run, [(PUT, (1, 1, b"a")), (PUT, (2, 1, b"x" * (2 << 20)))])
        self.assertEqual([], self.ids(database))
        database.run([(PUT, (3, 1, b"x" * 600_000))])
        self.assertRaises(Full, database.run, [(PUT, (4, 1, b"x" * 600_000))])
        database.run([("DELETE FROM messages", ())])
        database.run([(PUT, (4, 1, b"x" * 600_000))])
        self.assertEqual([4], self.ids(database))

    def test_a_probe_sees_whether_there_is_room(self) -> None:
        """It fails where 64 KiB do not fit, and leaves nothing where they do."""
        database = self.opened(max_bytes=1 << 20)
        database.probe()
        self.assertEqual([], database.query("SELECT id FROM scratch"))
        database.run([(PUT, (1, 1, b"x" * 960_000))])
        self.assertRaises(Full, database.probe)

    def test_a_lock_of_another_program_passes(self) -> None:
        """While it holds the file a batch is refused after the busy timeout, surely not stored; then the next is stored."""
        database = self.opened()
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        refused = self.assertRaises(StorageUnavailable, database.run, [(PUT, (1, 1, b"a"))])
        self.assertIn("another program", refused.detail)
        other.execute("ROLLBACK")
        database.run([(PUT, (2, 1, b"a"))])
        self.assertEqual([2], self.ids(database))

    def test_a_write_that_failed_is_surely_not_stored(self) -> None:
        """No room, told at the commit: the transaction is gone, no doubt is left."""
        for name in ("SQLITE_FULL", "SQLITE_IOERR_WRITE"):
            database = self.opened()
            self.faults.before["COMMIT"] = [name]
            self.assertRaises(Full, database.run, [(PUT, (1, 1, b"a")), (PUT, (2, 1, b"b"))], (PROOF, (1,)))
            self.assertFalse(database.in_doubt)
            self.assertEqual([], self.ids(database))
            database.close()


class DoubtTests(DatabaseCase):
    """A commit whose sync failed: whether its frames come back after a crash is settled before anybody is answered."""

    def run_two(self, database: Database) -> None:
        database.run([(PUT, (1, 1, b"a")), (PUT, (2, 1, b"b"))], (PROOF, (2,)))

    def test_what_turns_out_stored_is_no_failure(self) -> None:
        """The commit took, though it was told as failed: after a further commit and a look, it stands."""
        database = self.opened()
        self.faults.after["COMMIT"] = ["SQLITE_IOERR_FSYNC"]
        self.run_two(database)
        self.assertFalse(database.in_doubt)
        self.assertEqual([1, 2], self.ids(database))

    def test_what_turns_out_gone_is_unavailable(self) -> None:
        """The commit did not take: a further commit overwrote what may stand in the WAL, so that it is surely not stored."""
        database = self.opened()
        self.faults.before["COMMIT"] = ["SQLITE_IOERR_FSYNC"]
        self.assertRaises(StorageUnavailable, self.run_two, database)
        self.assertFalse(database.in_doubt)
        self.assertIn("INSERT OR REPLACE INTO scratch VALUES (2, ?)", self.faults.statements)
        self.assertEqual([], self.ids(database))
        self.run_two(database)
        self.assertEqual([1, 2], self.ids(database))

    def test_a_single_statement_is_settled_too(self) -> None:
        """It is its own transaction, and its sync can fail as well."""
        database = self.opened()
        self.faults.after["INSERT INTO messages"] = ["SQLITE_IOERR_FSYNC"]
        database.run([(PUT, (1, 1, b"a"))], (PROOF, (1,)))
        self.faults.before["INSERT INTO messages"] = ["SQLITE_IOERR_FSYNC"]
        self.assertRaises(StorageUnavailable, database.run, [(PUT, (2, 1, b"a"))], (PROOF, (2,)))
        self.assertEqual([1], self.ids(database))

    def test_doubt_that_stays_is_said(self) -> None:
        """Where the disk fails again, it is StorageTimeout; nothing is written until heal has opened the file again and settled it."""
        database = self.opened()
        self.faults.after["COMMIT"] = ["SQLITE_IOERR_FSYNC"]
        self.faults.before["INSERT OR REPLACE INTO scratch"] = ["SQLITE_IOERR_WRITE", "SQLITE_IOERR_WRITE"]
        self.assertRaises(StorageTimeout, self.run_two, database)
        self.assertTrue(database.in_doubt)
        self.assertRaises(StorageUnavailable, database.heal)
        self.assertTrue(database.in_doubt)
        database.heal()
        self.assertFalse(database.in_doubt)
        self.assertEqual([1, 2], self.ids(database))

    def test_without_proof_the_file_is_to_be_read_again(self) -> None:
        """A transaction that names no proof is StorageTimeout, though the doubt itself is settled."""
        database = self.opened()
        self.faults.before["COMMIT"] = ["SQLITE_IOERR_FSYNC"]
        self.assertRaises(StorageTimeout, database.run, [(PUT, (1, 1, b"a")), (PUT, (2, 1, b"b"))])
        self.assertFalse(database.in_doubt)
