"""A store on a file of the test's own."""

import os
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from psubd.model import Message, Position, Record, TopicSpec
from psubd.storage.sqlite.database import Database
from psubd.storage.sqlite.meters import Meters
from psubd.storage.sqlite.reading import read
from psubd.storage.sqlite.requests import Append, Configure, Create, Drop, Report
from psubd.storage.sqlite.store import Store
from psubd.storage.sqlite.sweep import steps
from tests.storage.sqlite.faulty import Faults

NOW = 1_700_000_000_000


class StoreRoom:
    """A store, and how a test speaks to it without any thread."""

    def __init__(self, path: str, max_bytes: int = 0) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.faults = Faults()
        self.open()

    def open(self) -> None:
        self.metrics = CollectorRegistry()
        self.store = Store(Database(self.path, 50, self.max_bytes, self.faults.connect), Meters(self.metrics))
        self.store.open()

    def close(self) -> None:
        self.store.database.close()

    def create(self, name: str, partitions: int = 1, **members: Any) -> Any:
        return self.one(self.store.alter(Create(TopicSpec(name, partitions, **members))))

    def drop(self, name: str) -> None:
        self.one(self.store.alter(Drop(name, NOW)))

    def configure(self, name: str, changes: dict[str, Any]) -> Any:
        return self.one(self.store.alter(Configure(name, changes, NOW)))

    def append(self, *records: Record, now: int = NOW) -> list[Any]:
        return self.one(self.store.write([Append(records, now, 0)]))  # type: ignore[no-any-return]

    def put(self, topic: str, *values: bytes | None, partition: int = 0, timestamp: int = NOW, key: bytes | None = None) -> list[int]:
        answers = self.append(*[Record(topic, value, key, (), partition, timestamp) for value in values])
        assert all(isinstance(answer, Position) for answer in answers), answers
        return [answer.offset for answer in answers]

    def one(self, report: Report) -> Any:
        ((_, outcome),) = report.answers
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def log(self, topic: str, partition: int = 0) -> Any:
        return self.store.catalogue.shelves[topic].logs[partition]

    def messages(self, topic: str, partition: int = 0, offset: int = 0, max_records: int = 1 << 20) -> list[Message]:
        log = self.log(topic, partition)
        connection = self.store.database.connection
        assert connection is not None
        return read(connection, log.no, max(offset, log.first), log.end, max_records, 1 << 30)[0]

    def sweep(self, now: int = NOW) -> int:
        """A whole sweep; how many steps it took."""
        return sum(1 for _ in steps(self.store, now))

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.get_sample_value(name, labels) or 0.0


class StoreCase(SynchronousTestCase):
    max_bytes = 0

    def setUp(self) -> None:
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        self.room = StoreRoom(os.path.join(folder, "s.sqlite"), self.max_bytes)
        self.addCleanup(lambda: self.room.close())

    def reopen(self) -> None:
        self.room.close()
        self.room.open()
