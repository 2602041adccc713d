"""The tables, their version, and how an older file is brought up to it.

- A partition is a *log* with a number; a message's rowid is ``number << 44 | offset``. So one B-tree holds all logs, each one's messages side by
  side in order, an insert is an append to its log's run, a read is one range, and there is no second index to keep (measured: as fast as a
  WITHOUT ROWID table keyed by two columns at 100 bytes, and unlike it made for values of a megabyte). 44 bits are 17 * 10^12 offsets a
  partition (5 years at 100,000/s), 19 bits are half a million logs; a number is used again only when its log's rows are gone.
- A message is one blob in msgpack, so that the readers can take a whole answer out of SQLite in one step and decode it in one call. Every
  row that Python's sqlite3 steps over lets go of the interpreter lock and has to win it back from a busy reactor: 500 rows/s against 9,800 were
  measured for inserts one by one and many in a statement.
- ``timestamp`` stands before the blob: a scan for a time reads no overflow page. Timestamps go up and down within a log, so an index on
  them would answer "the first offset that is as new" only by looking at everything newer. Instead each run of about 1024 messages leaves a row
  in ``segments`` with its greatest timestamp when it is full: the first segment that is as new is found by looking through a thousand rows a million
  messages, and then at most one run is scanned. Where the newest of a run was compacted away, the scan just goes on.
- ``logs.first`` and ``logs.end`` are written when retention or compaction takes something away; otherwise the end is that of the newest row.
"""

import sqlite3
from collections.abc import Callable

from psubd.errors import ConfigError

APPLICATION_ID = 0x70737562
"""``psub``: tells a psubd storage from another program's SQLite file."""

OFFSET_BITS = 44
MAX_OFFSET = (1 << OFFSET_BITS) - 2
"""So that the end behind it is a number of the same log, too."""

MAX_LOGS = (1 << (63 - OFFSET_BITS)) - 1

VERSION_1 = (
    "CREATE TABLE topics (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
    # topic NULL: the topic is deleted, its messages go bit by bit, then this row
    """CREATE TABLE logs (no INTEGER PRIMARY KEY, topic TEXT, partition INTEGER NOT NULL, first INTEGER NOT NULL DEFAULT 0,
       end INTEGER NOT NULL DEFAULT 0, cleaned INTEGER NOT NULL DEFAULT 0, UNIQUE (topic, partition))""",
    "CREATE TABLE messages (id INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, record BLOB NOT NULL)",
    # offsets base <= o < stop
    """CREATE TABLE segments (no INTEGER NOT NULL, base INTEGER NOT NULL, stop INTEGER NOT NULL, newest INTEGER NOT NULL, size INTEGER NOT NULL,
       PRIMARY KEY (no, base)) WITHOUT ROWID""",
    """CREATE TABLE places (name TEXT NOT NULL, no INTEGER NOT NULL, offset INTEGER NOT NULL, metadata TEXT NOT NULL,
       PRIMARY KEY (name, no)) WITHOUT ROWID""",
    # compacted topics: where each key's newest record is among those below logs.cleaned; dead_ms: since when it is a tombstone
    "CREATE TABLE keys (no INTEGER NOT NULL, key BLOB NOT NULL, offset INTEGER NOT NULL, dead_ms INTEGER, PRIMARY KEY (no, key)) WITHOUT ROWID",
    "CREATE INDEX keys_dead ON keys (no, dead_ms) WHERE dead_ms IS NOT NULL",
    # what `database` writes to see whether it can
    "CREATE TABLE scratch (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
)


def first_version(connection: sqlite3.Connection) -> None:
    for statement in VERSION_1:
        connection.execute(statement)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (first_version,)
"""Each brings a file from the version that is its index to the next one, inside the transaction of `prepare`."""

VERSION = len(MIGRATIONS)


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Make the tables in a new file, or bring an older one up to date; all or nothing.

    :raises ConfigError: for another program's file, or one that a newer psubd wrote.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or version or tables):
        raise ConfigError([f"storage: {path} is a database of another program; name another file"])
    if version > VERSION:
        raise ConfigError([f"storage: {path} has schema version {version}; this psubd knows {VERSION}: run the newer psubd that wrote it"])
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migrate in MIGRATIONS[version:]:
            migrate(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def message_id(no: int, offset: int) -> int:
    """The rowid of a log's message."""
    return no << OFFSET_BITS | offset
