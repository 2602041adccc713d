"""The registry's SQLite file: blocking calls, no reactor. `psubd.registry.local` makes them on one thread."""

import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from psubd.errors import ConfigError
from psubd.interfaces import Change, Entry
from psubd.registry.mirror import KEPT_CHANGES
from psubd.registry.tree import Step

SCHEMA = 1
APPLICATION_ID = 0x70735247
"""``psRG`` in the file's header: tells this file from any other SQLite file."""

BUSY_S = 5.0
"""How long a write waits for another process that has the file locked (a backup, an operator's ``sqlite3``)."""

TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE entries (path TEXT PRIMARY KEY, data BLOB NOT NULL, version INTEGER NOT NULL, serial INTEGER NOT NULL);
CREATE TABLE changes (serial INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, actor TEXT NOT NULL, what TEXT NOT NULL, paths TEXT NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA};
COMMIT;
"""

PLAIN = {
    "SQLITE_BUSY": "it is locked by another process",
    "SQLITE_LOCKED": "it is locked by another process",
    "SQLITE_FULL": "there is no space left for it",
    "SQLITE_READONLY": "it cannot be written (permissions, or a read-only file system)",
    "SQLITE_CANTOPEN": "it cannot be opened (permissions, or a folder in its place)",
    "SQLITE_NOTADB": "it is not an SQLite file, or it is damaged",
    "SQLITE_CORRUPT": "it is damaged",
}


class Loaded(msgspec.Struct, frozen=True):
    """What `Store.open` found: entries by path in order, the last changes in order, this node's id, and how often it was opened."""

    entries: list[tuple[str, Entry]]
    changes: list[Change]
    node_id: str
    starts: int


class Store:
    """One file, held by one process: a lock file beside it is locked from `open` to `close`.

    Every method but `open` fails with sqlite3.Error or OSError, and has then written all or nothing; which of both, `holds` tells.

    :param path: the file; its folder must exist.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None

    def open(self, host: str) -> Loaded:
        """Claim the file, make it where it is absent, read all of it.

        :param host: the node's id, if the file has none yet.
        :raises ConfigError: where that cannot be; nothing is held then.
        """
        try:
            self._claim()
            self._make_file()
            self._prepare(self.connection())
            return self._load(self.connection(), host)
        except ConfigError:
            self.close()
            raise
        except (sqlite3.Error, OSError) as broken:
            self.close()
            raise ConfigError([f"registry: {self.path}: {plain(broken)}"]) from broken

    def write(self, change: Change, steps: Sequence[Step]) -> None:
        """Store a change and what it leaves, all or none; on the disk when it returns."""
        with transaction(self.connection()) as connection:
            for step in steps:
                if step.entry is None:
                    connection.execute("DELETE FROM entries WHERE path = ?", (step.path,))
                else:
                    row = (step.path, step.entry.data, step.entry.version, step.entry.serial)
                    connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", row)
            paths = msgspec.json.encode(change.paths).decode()
            connection.execute("INSERT INTO changes VALUES (?, ?, ?, ?, ?)", (change.serial, change.at_ms, change.actor, change.what, paths))
            connection.execute("DELETE FROM changes WHERE serial <= ?", (change.serial - KEPT_CHANGES,))

    def holds(self, change: Change) -> bool:
        """Whether the change is stored, by a fresh look at the file: after a failed sync the old connection does not know what a restart
        would find in the write-ahead log."""
        self._disconnect()
        found = self.connection().execute("SELECT 1 FROM changes WHERE serial = ?", (change.serial,)).fetchone()
        return found is not None

    def probe(self) -> None:
        """Write something that changes nothing, to see whether it can be done."""
        with transaction(self.connection()) as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('probe', abs(random()))")

    def close(self) -> None:
        """Let go of the file. Closed already: nothing happens."""
        self._disconnect()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def connection(self) -> sqlite3.Connection:
        """The connection, made where there is none."""
        if self._connection is None:
            # Used by one thread at a time, though not always the same one: `close` after a failed start.
            made = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                made.execute("PRAGMA journal_mode = WAL")
                made.execute("PRAGMA synchronous = FULL")
            except sqlite3.Error:
                made.close()
                raise
            self._connection = made
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _claim(self) -> None:
        lock = os.open(self.path + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise ConfigError(
                [f"registry: {self.path} is in use by another process (pid {holder}); stop it, or give this one a state folder of its own"]
            ) from None
        self._lock = lock
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())

    def _make_file(self) -> None:
        # Made before SQLite opens it: the log and its index get the file's own mode.
        made = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if stat.S_IMODE(os.fstat(made).st_mode) != 0o600:
                os.fchmod(made, 0o600)
        finally:
            os.close(made)
        folder = os.open(os.path.dirname(os.path.abspath(self.path)), os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name is there after a power cut, too
        finally:
            os.close(folder)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """The file has our tables, in the form that we know.

        :raises ConfigError: it has others.
        """
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            raise ConfigError([f"registry: {self.path}: its file system takes no write-ahead log; use a local one"])
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        kind = connection.execute("PRAGMA application_id").fetchone()[0]
        if version == 0 and kind == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            connection.executescript(TABLES)
            return
        if kind != APPLICATION_ID:
            raise ConfigError([f"registry: {self.path} is an SQLite file of something else; name another one"])
        if version > SCHEMA:
            raise ConfigError([f"registry: {self.path} was written by a newer psubd (schema {version}, this one knows {SCHEMA}); upgrade psubd"])
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise ConfigError([f"registry: {self.path} is damaged ({found}); restore it from a backup"])

    def _load(self, connection: sqlite3.Connection, host: str) -> Loaded:
        with transaction(connection):
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('node_id', ?), ('starts', 0)", (host,))
            connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'starts'")
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        rows = connection.execute("SELECT path, data, version, serial FROM entries ORDER BY path")
        changes = connection.execute("SELECT serial, at_ms, actor, what, paths FROM changes ORDER BY serial")
        return Loaded(
            [(path, Entry(data, version, serial)) for path, data, version, serial in rows],
            [Change(serial, at_ms, actor, what, msgspec.json.decode(paths, type=tuple[str, ...])) for serial, at_ms, actor, what, paths in changes],
            meta["node_id"],
            meta["starts"],
        )


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of it or none; on the disk at its end."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite ends it by itself after some errors
            connection.execute("ROLLBACK")
        raise


def plain(broken: Exception) -> str:
    """What went wrong, for an operator."""
    if isinstance(broken, OSError):
        return broken.strerror or str(broken)
    name = getattr(broken, "sqlite_errorname", "")
    return next((text for prefix, text in PLAIN.items() if name.startswith(prefix)), str(broken))
