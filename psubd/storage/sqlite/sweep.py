"""Retention and compaction: taken away in bounded portions, each a transaction, so that publishes go on in between.

- By age: a log loses its front up to the first message that is young enough, by the messages' own timestamps.
- By bytes: a log loses its oldest messages while its rows hold more than ``retention_bytes``; the newest one stays.
- A compacted log keeps the newest message of each key, and a tombstone for a day after compaction saw it (``delete.retention.ms``). It looks at
  each message once: ``keys`` remembers where each key's newest one is. Age and bytes do not count, as in Kafka.
- A deleted topic's messages go the same way, and what was freed goes back to the file system once it is much.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from psubd.model import Message
from psubd.storage.sqlite.catalogue import Log, Shelf
from psubd.storage.sqlite.database import Damaged, Statement
from psubd.storage.sqlite.reading import offset_at, read
from psubd.storage.sqlite.requests import Moved, Report
from psubd.storage.sqlite.schema import MAX_OFFSET, OFFSET_BITS, message_id
from psubd.storage.sqlite.store import Store, rowwise

PORTION_RECORDS = 2_000
PORTION_BYTES = 16 * 1024 * 1024
"""What one transaction takes away or looks at, at most: a few tens of milliseconds of the writer's time."""

LOGS_A_STEP = 100
"""Logs that are looked at before waiting publishes get their turn; one costs about 20 us."""

SLACK_PAGES = 4_096
"""Free pages (16 MiB) that the file may keep; beyond, and where they are a quarter of it, they are given back."""

SHRINK_PAGES = 256

ROWS = "SELECT group_concat((id - ?) || ':' || length(record)) FROM (SELECT id, record FROM messages WHERE id >= ? AND id < ? ORDER BY id LIMIT ?)"


def steps(store: Store, now: int) -> Iterator[Report]:
    """One sweep, as of ``now`` (ms since the epoch); between two steps other requests may have their turn. Each tells what moved.

    A log that is damaged is left as it is, and told; the others have their turn.

    :raises StorageUnavailable: :raises StorageTimeout: the next sweep tries again.
    """
    yield from _bury(store)
    looked = 0
    for shelf in list(store.catalogue.shelves.values()):
        for log in list(shelf.logs):
            try:
                yield from _compact(store, shelf, log, now) if shelf.rules.compact else _retire(store, shelf, log, now)
            except Damaged as error:
                yield Report(complaint=f"retention of topic {shelf.topic.name}, partition {log.partition}: {error.detail}")
            looked += 1
            if looked % LOGS_A_STEP == 0:
                yield Report()
    yield from _shrink(store)


def _retire(store: Store, shelf: Shelf, log: Log, now: int) -> Iterator[Report]:
    while not shelf.gone and log.first < log.end:
        kept_from = _kept_from(store, shelf, log, now)
        gone, size, new_first = _front(store, log, kept_from, 0 if shelf.topic.retention_bytes is None else log.size - shelf.topic.retention_bytes)
        if new_first <= log.first:
            return
        store.transact(_cut(log, new_first), ("SELECT 1 FROM logs WHERE no = ? AND first = ?", (log.no, new_first)))
        store.meters.swept.inc(gone)
        log.first, log.size, log.front = new_first, log.size - size, None
        _reopen(store, log)
        yield Report(moved=[Moved(shelf.topic.name, log.partition, log.first, log.end)])


def _kept_from(store: Store, shelf: Shelf, log: Log, now: int) -> int:
    """The first offset that age lets stay."""
    if shelf.topic.retention_ms is None:
        return log.first
    oldest = now - shelf.topic.retention_ms
    low, high = message_id(log.no, log.first), message_id(log.no, log.end)
    if log.front is None:
        for (log.front,) in store.database.query("SELECT timestamp FROM messages WHERE id >= ? AND id < ? ORDER BY id LIMIT 1", low, high):
            pass
    if log.front is not None and log.front >= oldest:
        return log.first
    return store.database.ask(lambda connection: offset_at(connection, log.no, log.first, log.end, max(0, oldest)))


def _front(store: Store, log: Log, kept_from: int, excess: int) -> tuple[int, int, int]:
    """What goes next: how many messages, their bytes, and the first offset that stays."""
    if kept_from <= log.first and excess <= 0:
        return 0, 0, log.first
    count = size = 0
    new_first = log.first
    rows = _rows(store, log.no, log.first, log.end)
    for offset, length in rows:
        if (offset >= kept_from and (excess <= size or offset == log.end - 1)) or (count and size + length > PORTION_BYTES):
            return count, size, new_first
        count, size, new_first = count + 1, size + length, offset + 1
    return count, size, new_first if len(rows) == PORTION_RECORDS else max(new_first, kept_from)


def _rows(store: Store, no: int, first: int, end: int) -> list[tuple[int, int]]:
    """Offset and bytes of the next messages, in one step (see `schema`)."""
    base = message_id(no, 0)
    ((joined,),) = store.database.query(ROWS, base, message_id(no, first), message_id(no, end), PORTION_RECORDS)
    pairs = (pair.split(":") for pair in joined.split(",")) if joined else ()
    return sorted((int(offset), int(length)) for offset, length in pairs)


def _cut(log: Log, new_first: int) -> list[Statement]:
    """Take away what is before ``new_first``; the segment that it falls into is counted again."""
    low, cut = message_id(log.no, log.first), message_id(log.no, new_first)
    return [
        ("DELETE FROM messages WHERE id >= ? AND id < ?", (low, cut)),
        ("DELETE FROM segments WHERE no = ? AND stop <= ?", (log.no, new_first)),
        (
            f"""UPDATE segments SET base = ?, size = (SELECT coalesce(sum(length(record)), 0) FROM messages
                WHERE id >= ? AND id < (segments.no << {OFFSET_BITS} | segments.stop)) WHERE no = ? AND base < ?""",  # noqa: S608 - a constant
            (new_first, cut, log.no, new_first),
        ),
        ("UPDATE logs SET first = ?, end = ? WHERE no = ?", (new_first, log.end, log.no)),
    ]


def _reopen(store: Store, log: Log) -> None:
    """The open segment begins no earlier than the log."""
    if log.base < log.first:
        log.base = log.first
        ((log.open_size,),) = store.database.query(
            "SELECT coalesce(sum(length(record)), 0) FROM messages WHERE id >= ? AND id < ?",
            message_id(log.no, log.first),
            message_id(log.no, log.end),
        )


def _compact(store: Store, shelf: Shelf, log: Log, now: int) -> Iterator[Report]:
    while not shelf.gone and log.cleaned < log.end:
        messages, following = store.database.ask(
            partial(read, no=log.no, offset=log.cleaned, end=log.end, max_records=PORTION_RECORDS, max_bytes=PORTION_BYTES)
        )
        older, statements = _superseded(store, log, messages, now)
        store.transact(
            [*statements, *_take_out(log, older), ("UPDATE logs SET cleaned = ?, end = ? WHERE no = ?", (following, log.end, log.no))],
            ("SELECT 1 FROM logs WHERE no = ? AND cleaned = ?", (log.no, following)),
        )
        store.meters.swept.inc(len(older))
        log.cleaned = following
        yield Report(moved=[Moved(shelf.topic.name, log.partition, log.first, log.end, thinned=True)])
    while not shelf.gone and (lapsed := _lapsed(store, log, now - shelf.rules.tombstone_ms)):
        offsets = [offset for _, offset in lapsed]
        forgotten = rowwise("DELETE FROM keys WHERE (no, key) IN (VALUES", 2, [value for key, _ in lapsed for value in (log.no, key)], ")")
        store.transact(
            [*forgotten, *_take_out(log, offsets), ("UPDATE logs SET end = ? WHERE no = ?", (log.end, log.no))],
            ("SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM keys WHERE no = ? AND key = ?)", (log.no, lapsed[0][0])),
        )
        store.meters.swept.inc(len(offsets))
        yield Report(moved=[Moved(shelf.topic.name, log.partition, log.first, log.end, thinned=True)])


def _superseded(store: Store, log: Log, messages: list[Message], now: int) -> tuple[list[int], list[Statement]]:
    """Offsets that a later message of the same key takes the place of, and what ``keys`` is to say."""
    newest: dict[bytes, Message] = {}
    older: list[int] = []
    for message in messages:
        if message.key is None:
            continue
        if message.key in newest:
            older.append(newest[message.key].offset)
        newest[message.key] = message
    rows: list[Any] = []
    for key, message in newest.items():
        rows += (log.no, key, message.offset, now if message.value is None else None)
    older += _remembered(store, log, list(newest))
    return older, rowwise("INSERT OR REPLACE INTO keys VALUES", 4, rows)


def _remembered(store: Store, log: Log, keys: list[bytes]) -> list[int]:
    """Where the newest messages of ``keys`` are, of those that were looked at before."""
    found: list[int] = []
    for place in range(0, len(keys), 500):
        some = keys[place : place + 500]
        marks = ",".join("?" * len(some))
        query = f"SELECT group_concat(offset) FROM keys WHERE no = ? AND key IN ({marks})"  # noqa: S608 - question marks only
        ((joined,),) = store.database.query(query, log.no, *some)
        found += map(int, str(joined).split(",")) if joined is not None else ()
    return found


def _take_out(log: Log, offsets: list[int]) -> list[Statement]:
    return rowwise("DELETE FROM messages WHERE id IN (VALUES", 1, [message_id(log.no, offset) for offset in offsets], ")")


def _lapsed(store: Store, log: Log, before: int) -> list[tuple[bytes, int]]:
    """Key and offset of tombstones that were kept long enough."""
    return store.database.query("SELECT key, offset FROM keys WHERE no = ? AND dead_ms < ? LIMIT 500", log.no, before)


def _bury(store: Store) -> Iterator[Report]:
    """Take away the messages of deleted topics, then their logs."""
    for no in sorted(store.catalogue.dead):
        while rows := _rows(store, no, 0, MAX_OFFSET + 1):
            stop, size = 0, 0
            for offset, length in rows:
                stop, size = offset + 1, size + length
                if size > PORTION_BYTES:
                    break
            store.transact([("DELETE FROM messages WHERE id >= ? AND id < ?", (message_id(no, 0), message_id(no, stop)))], ("SELECT 1", ()))
            yield Report()
        store.transact(
            [
                ("DELETE FROM segments WHERE no = ?", (no,)),
                ("DELETE FROM keys WHERE no = ?", (no,)),
                ("DELETE FROM logs WHERE no = ? AND topic IS NULL", (no,)),
            ],
            ("SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM logs WHERE no = ?)", (no,)),
        )
        store.catalogue.dead.discard(no)
        yield Report()


def _shrink(store: Store) -> Iterator[Report]:
    while True:
        ((free,),) = store.database.query("PRAGMA freelist_count")
        ((pages,),) = store.database.query("PRAGMA page_count")
        if free <= SLACK_PAGES or free * 4 <= pages:
            return
        store.database.script(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")
        yield Report()
