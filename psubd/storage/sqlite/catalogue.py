"""Topics and logs as the writer knows them: read from the file at start, moved only after a transaction has ended."""

from collections.abc import Iterator

import msgspec

from psubd.errors import TopicMissing
from psubd.model import StoredTopic
from psubd.storage.sqlite.database import Database
from psubd.storage.sqlite.requests import ShelfView
from psubd.storage.sqlite.schema import MAX_LOGS, message_id
from psubd.storage.topics import Rules


class Log:
    """One partition.

    :ivar size: bytes of its rows.
    :ivar base: first offset of the open segment, ``newest`` its greatest timestamp, ``open_size`` its bytes.
    :ivar cleaned: compaction has looked at what is below.
    :ivar front: the first message's timestamp, once retention has asked for it: while that is young there is nothing to ask the file.
    """

    __slots__ = ("base", "cleaned", "end", "first", "front", "newest", "no", "open_size", "partition", "size")

    def __init__(self, no: int, partition: int, first: int = 0, end: int = 0, cleaned: int = 0) -> None:
        self.no, self.partition, self.first, self.end, self.cleaned = no, partition, first, end, cleaned
        self.size = self.open_size = 0
        self.base = end
        self.newest = -1
        self.front: int | None = None


class Shelf:
    """A topic and its logs, by partition. ``gone``: it was deleted, for a sweep that still holds it."""

    def __init__(self, topic: StoredTopic, logs: list[Log]) -> None:
        self.logs = logs
        self.gone = False
        self.change(topic)

    def change(self, topic: StoredTopic) -> None:
        self.topic, self.rules = topic, Rules(topic)

    def log(self, partition: int | None) -> Log | None:
        """The partition's log, or None."""
        return None if partition is None or not 0 <= partition < len(self.logs) else self.logs[partition]

    def view(self) -> ShelfView:
        return ShelfView(self.topic, tuple((log.no, log.first, log.end) for log in self.logs))


class Catalogue:
    """All topics by name, and ``dead``: numbers of logs whose messages have still to go."""

    def __init__(self) -> None:
        self.shelves: dict[str, Shelf] = {}
        self.dead: set[int] = set()

    def shelf(self, topic: str) -> Shelf:
        """:raises TopicMissing:"""
        shelf = self.shelves.get(topic)
        if shelf is None:
            raise TopicMissing(f"topic {topic} is not in the storage")
        return shelf

    def free_numbers(self) -> Iterator[int]:
        """Numbers that no log has, the smallest first."""
        used = self.dead | {log.no for shelf in self.shelves.values() for log in shelf.logs}
        return (no for no in range(1, MAX_LOGS + 1) if no not in used)

    def load(self, database: Database) -> None:
        """Read all of it from the file. :raises StorageUnavailable:"""
        topics = {name: msgspec.json.decode(body, type=StoredTopic) for name, body in database.query("SELECT name, body FROM topics")}
        logs: dict[str, list[Log]] = {name: [] for name in topics}
        self.dead = set()
        for no, topic, partition, first, end, cleaned in database.query(
            "SELECT no, topic, partition, first, end, cleaned FROM logs ORDER BY topic, partition"
        ):
            if topic is None:
                self.dead.add(no)
            else:
                logs[topic].append(read_log(database, Log(no, partition, first, end, cleaned)))
        for shelf in self.shelves.values():
            shelf.gone = True
        self.shelves = {name: Shelf(topic, logs[name]) for name, topic in topics.items()}


def read_log(database: Database, log: Log) -> Log:
    """Find out where the log ends, and what its open segment holds (about 1024 rows, looked at without their values)."""
    low, high = message_id(log.no, 0), message_id(log.no + 1, 0)
    ((last,),) = database.query("SELECT max(id) FROM messages WHERE id >= ? AND id < ?", low, high)
    ((stop, sealed),) = database.query("SELECT max(stop), coalesce(sum(size), 0) FROM segments WHERE no = ?", log.no)
    log.end = max(log.end, -1 if last is None else last - low + 1)
    log.base = max(log.first, stop or 0)
    ((newest, size),) = database.query(
        "SELECT max(timestamp), coalesce(sum(length(record)), 0) FROM messages WHERE id >= ? AND id < ?", message_id(log.no, log.base), high
    )
    log.newest, log.open_size, log.size = -1 if newest is None else newest, size, sealed + size
    return log
