"""The file: opened for this process alone, written in transactions whose outcome is always known or said not to be.

Blocking; knows no Twisted. Used by the writer's thread; `Database.reader` makes a connection for each reader.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from psubd.errors import ConfigError, StorageTimeout, StorageUnavailable
from psubd.storage.sqlite import schema

T = TypeVar("T")

Statement = tuple[str, Sequence[Any]]
Connect = Callable[..., sqlite3.Connection]

CHECKPOINT_PAGES = 4_000
"""The WAL is written back to the file at about 16 MiB (SQLite's own 1000 pages cost a second fsync four times as often)."""

JOURNAL_BYTES = 64 * 1024 * 1024
"""A WAL that grew beyond (a large batch, a long read) is cut back to this."""

PROBE_BYTES = 65_536


class Full(StorageUnavailable):
    """No room: the same records may fit in smaller transactions."""


class Damaged(StorageUnavailable):
    """The file is damaged where it was looked at; elsewhere it may be sound."""


class Database:
    """One SQLite file, in WAL mode with ``synchronous=FULL``: a commit has ended when it is on stable storage.

    :param path: absolute. Its folder exists. :param busy_timeout_ms: how long to wait for another program's lock.
    :param max_bytes: the file's greatest size, 0: none. :param connect: `sqlite3.connect`, or a test's that fails on demand.
    """

    def __init__(self, path: str, busy_timeout_ms: int, max_bytes: int = 0, connect: Connect = sqlite3.connect) -> None:
        self.path = path
        self._timeout = busy_timeout_ms / 1000
        self._max_bytes = max_bytes
        self._connect = connect
        self._lock = -1
        self._in_doubt = False
        self.connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Lock, create or migrate. :raises ConfigError: in plain words, whatever it is that makes the file unusable."""
        try:
            self._take_lock()
            self._create()
            self.connection = self._open()
            schema.prepare(self.connection, self.path)
            self._check_concatenation()
        except ConfigError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise ConfigError([f"storage: {self.path}: {error.strerror or error}"]) from None
        except sqlite3.Error as error:
            self.close()
            raise ConfigError([f"storage: {self.path}: {_at_start(error)}"]) from None

    def close(self) -> None:
        """Write the WAL back, close, let go of the lock. Never raises: what was committed is safe in the WAL."""
        if self.connection is not None:
            with suppress(sqlite3.Error):
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._drop_connection()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def reader(self) -> sqlite3.Connection:
        """A connection that reads. :raises sqlite3.Error:"""
        connection = self._connect(self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA query_only = 1")
            connection.execute("PRAGMA cache_size = -8192")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def run(self, statements: Sequence[Statement], proof: Statement | None = None) -> None:
        """Run them in one transaction; it is on stable storage when this returns. A single statement is its own transaction (one step: see
        `schema` on the interpreter lock).

        :param proof: a query that finds a row if, and only if, the transaction is in the file: asked where the outcome is not clear.
        :raises Full: :raises StorageUnavailable: surely not stored. :raises StorageTimeout: it may be stored or not: read the file again (after
            `heal`, where `in_doubt` says so) before anything else is written.
        """
        connection = self._live()
        committing = len(statements) == 1
        try:
            if committing:
                connection.execute(*statements[0])
            else:
                connection.execute("BEGIN IMMEDIATE")
                for statement in statements:
                    connection.execute(*statement)
                committing = True
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            if not self._rolled_back():
                self._in_doubt = True
            if not (committing and _doubtful(error)):
                raise _failure(error) from None
            self._settle(error, proof)
        except BaseException:
            self._rolled_back()
            raise

    def query(self, sql: str, *parameters: Any) -> list[Any]:
        """All rows. :raises StorageUnavailable:"""
        return self.ask(lambda connection: connection.execute(sql, parameters).fetchall())

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """``question`` on the writer's connection. :raises StorageUnavailable: :raises Damaged: also for bytes that cannot be decoded."""
        try:
            return question(self._live())
        except sqlite3.Error as error:
            raise _failure(error) from None
        except msgspec.DecodeError as error:
            raise Damaged(f"the storage's file is damaged there ({error}); restore it from a backup", retry_after=60) from None

    def script(self, sql: str) -> None:
        """Run to the end what has rows without columns: of ``incremental_vacuum`` sqlite3's ``execute`` does one page. :raises StorageUnavailable:"""
        try:
            self._live().executescript(sql)
        except sqlite3.Error as error:
            raise _failure(error) from None

    def probe(self) -> None:
        """Write 64 KiB and take them away again, as `run`: see whether there is room."""
        self.run([("INSERT OR REPLACE INTO scratch VALUES (1, zeroblob(?))", (PROBE_BYTES,))], ("SELECT 1", ()))
        self.run([("DELETE FROM scratch", ())], ("SELECT 1", ()))

    def heal(self) -> None:
        """Where `in_doubt`: open the file again and overwrite what may stand behind the WAL's end. :raises StorageUnavailable:"""
        if not self._in_doubt:
            return
        try:
            self._drop_connection()
            self.connection = self._open()
            self._overwrite()
        except sqlite3.Error as error:
            raise _failure(error) from None
        self._in_doubt = False

    @property
    def in_doubt(self) -> bool:
        """Whether a transaction's outcome is not known yet; `heal` before the next one."""
        return self._in_doubt

    def _live(self) -> sqlite3.Connection:
        if self.connection is None:
            raise StorageUnavailable("the storage's file is not open")
        return self.connection

    def _rolled_back(self) -> bool:
        assert self.connection is not None
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except sqlite3.Error:
            return False
        return True

    def _settle(self, error: sqlite3.Error, proof: Statement | None) -> None:
        """After a commit whose sync failed: its frames may stand in the WAL behind what SQLite takes as its end, and a crash now could bring them
        back. A further commit overwrites them; then a look tells the truth."""
        self._in_doubt = True
        try:
            self._overwrite()
            stored = proof is not None and bool(self._live().execute(*proof).fetchall())
        except sqlite3.Error as again:
            raise StorageTimeout(f"the disk failed while storing ({_word(error)}, then {_word(again)}): it may be stored or not") from None
        self._in_doubt = False
        if proof is None:
            raise StorageTimeout(f"the disk failed while storing ({_word(error)}): look whether it was done")
        if not stored:
            raise _failure(error)

    def _overwrite(self) -> None:
        self._live().execute("INSERT OR REPLACE INTO scratch VALUES (2, ?)", (os.urandom(8),))

    def _take_lock(self) -> None:
        self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError([f"storage: {self.path}: another process uses it; stop that one, or name another file"]) from None

    def _create(self) -> None:
        """A new file is readable by its owner only (SQLite gives the WAL the same mode), and its name is on stable storage."""
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            os.close(os.open(self.path, os.O_RDWR | os.O_CLOEXEC))
            return
        folder = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _open(self) -> sqlite3.Connection:
        connection = self._connect(self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False, cached_statements=256)
        try:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # counts in a new file only; before the WAL, or it does not take
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise sqlite3.OperationalError(f"no write-ahead log on this file system (journal mode {mode})")
            for pragma in ("synchronous = FULL", "secure_delete = FAST", "cache_size = -32768", f"wal_autocheckpoint = {CHECKPOINT_PAGES}"):
                connection.execute(f"PRAGMA {pragma}")
            connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}").fetchall()
            if self._max_bytes:
                pages = self._max_bytes // int(connection.execute("PRAGMA page_size").fetchone()[0])
                connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _check_concatenation(self) -> None:
        """`reading` joins blobs with group_concat, which keeps every byte in all builds that were tried; one that does not is refused."""
        joined = self._live().execute("SELECT CAST(group_concat(x, '') AS BLOB) FROM (SELECT x'00ff' AS x UNION ALL SELECT x'80000a')").fetchone()[0]
        if joined != b"\x00\xff\x80\x00\x0a":
            raise ConfigError([f"storage: SQLite {sqlite3.sqlite_version} joins blobs in a way of its own; psubd needs another build of it"])

    def _drop_connection(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) or 0


def _word(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", None) or str(error)


def _doubtful(error: sqlite3.Error) -> bool:
    """Whether a commit that failed so may have put its last frame into the WAL. A write that failed (no room, a limit) left it incomplete."""
    return _code(error) & 0xFF == sqlite3.SQLITE_IOERR and _code(error) != sqlite3.SQLITE_IOERR_WRITE


def _failure(error: sqlite3.Error) -> StorageUnavailable:
    base = _code(error) & 0xFF
    if base in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_NOMEM) or _code(error) == sqlite3.SQLITE_IOERR_WRITE:
        return Full(f"the storage has no room ({_word(error)}); free some of the disk, or raise the limit", retry_after=5)
    if base in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageUnavailable("another program locks the storage's file; try again", retry_after=1)
    if base in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Damaged(f"the storage's file is damaged there ({_word(error)}); restore it from a backup", retry_after=60)
    return StorageUnavailable(f"the storage failed ({_word(error)})", retry_after=5)


def failure_kind(error: BaseException) -> str:
    """The word that the metrics count a failure under."""
    if isinstance(error, Full | Damaged):
        return type(error).__name__.lower()
    return "in_doubt" if isinstance(error, StorageTimeout) else "unavailable"


def _at_start(error: sqlite3.Error) -> str:
    base = _code(error) & 0xFF
    if base in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "another process uses it; stop that one, or name another file"
    if base in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return f"is no SQLite file, or it is damaged ({_word(error)}); move it away, or restore it from a backup"
    if base in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return f"cannot be opened for writing ({_word(error)})"
    if base == sqlite3.SQLITE_FULL:
        return "the disk is full"
    return f"cannot be used ({_word(error)}: {error})"
