"""Reads: a few connections, each used by one thread at a time. WAL shows them only what was committed before they began."""

import sqlite3
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import TypeVar

import msgspec

from psubd.errors import StorageUnavailable
from psubd.model import Commit, Message, TopicPartition
from psubd.storage.sqlite.meters import Meters
from psubd.storage.sqlite.records import unpack
from psubd.storage.sqlite.schema import OFFSET_BITS, message_id

T = TypeVar("T")

RANGE = "SELECT id, record FROM messages WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
SIZES = f"SELECT group_concat(length(record)) FROM ({RANGE})"  # noqa: S608 - constants
PACKED = f"SELECT CAST(group_concat(record, '') AS BLOB), count(*) FROM ({RANGE})"  # noqa: S608 - constants


class Readers:
    """The connections of one storage.

    :param connect: makes one (`Database.reader`).
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], meters: Meters) -> None:
        self._connect = connect
        self._meters = meters
        self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """``question`` on a connection of its own. One that failed is thrown away, so that no other read meets it.

        :raises StorageUnavailable: the file cannot be read, or is damaged there.
        """
        connection: sqlite3.Connection | None = None
        try:
            connection = self._take()
            answer = question(connection)
        except (sqlite3.Error, msgspec.DecodeError) as error:
            self._meters.failures.labels("read").inc()
            if connection is not None:
                connection.close()
            word = getattr(error, "sqlite_errorname", None) or str(error)
            raise StorageUnavailable(f"the storage cannot be read there ({word})", retry_after=5) from None
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        self._idle.put(connection)
        return answer

    def close(self) -> None:
        """Close them all; nobody asks any more."""
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                return

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.get_nowait()
        except Empty:
            return self._connect()


def read(connection: sqlite3.Connection, no: int, offset: int, end: int, max_records: int, max_bytes: int) -> tuple[list[Message], int]:
    """Messages of log ``no`` at ``offset`` <= o < ``end``, at least one where there is one, and where the next read goes on."""
    low, high = message_id(no, offset), message_id(no, end)
    while True:
        limit = 1 if max_records == 1 else _fitting(connection, low, high, max_records, max_bytes)
        packed, count = connection.execute(PACKED, (low, high, limit)).fetchone()
        if not count:
            return [], end
        if count == 1 or len(packed) <= max_bytes:
            break  # else retention took the front away between the two looks
    messages = unpack(count, packed)
    (following,) = connection.execute("SELECT min(id) FROM messages WHERE id > ? AND id < ?", (message_id(no, messages[-1].offset), high)).fetchone()
    return messages, end if following is None else following - (no << OFFSET_BITS)


def offset_at(connection: sqlite3.Connection, no: int, first: int, end: int, timestamp: int) -> int:
    """The first offset from ``first`` on whose message is as new as ``timestamp``; ``end`` where there is none. See `schema` on segments."""
    found = (
        connection.execute(
            "SELECT base FROM segments WHERE no = ? AND stop > ? AND newest >= ? ORDER BY base LIMIT 1", (no, first, timestamp)
        ).fetchone()
        or connection.execute("SELECT max(stop) FROM segments WHERE no = ?", (no,)).fetchone()
    )
    begin = max(first, found[0] or 0)
    row = connection.execute(
        "SELECT id FROM messages WHERE id >= ? AND id < ? AND timestamp >= ? ORDER BY id LIMIT 1",
        (message_id(no, begin), message_id(no, end), timestamp),
    ).fetchone()
    return end if row is None else row[0] - (no << OFFSET_BITS)


def offsets_at(connection: sqlite3.Connection, logs: Mapping[int, tuple[int, int, int]], timestamp: int) -> dict[int, int]:
    """`offset_at` of each partition; ``logs`` says its number, first and end offset."""
    return {partition: offset_at(connection, no, first, end, timestamp) for partition, (no, first, end) in logs.items()}


def places(connection: sqlite3.Connection, group: str) -> dict[TopicPartition, Commit]:
    """What the group keeps."""
    rows = connection.execute(
        "SELECT topic, partition, offset, metadata FROM places JOIN logs USING (no) WHERE name = ? AND topic IS NOT NULL", (group,)
    )
    return {TopicPartition(topic, partition): Commit(offset, metadata) for topic, partition, offset, metadata in rows.fetchall()}


def _fitting(connection: sqlite3.Connection, low: int, high: int, max_records: int, max_bytes: int) -> int:
    """How many messages go into ``max_bytes``: at least one. Lengths only: no value is looked at."""
    (sizes,) = connection.execute(SIZES, (low, high, max_records)).fetchone()
    if sizes is None:
        return 1
    total = count = 0
    for size in map(int, sizes.split(",")):
        total += size
        if total > max_bytes and count:
            break
        count += 1
    return count
