"""A SQLite storage with its real threads, in a file of the test's own; time is the test's."""

import os
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from psubd.storage.sqlite import SqliteStorage
from psubd.testing.clock import FakeClock
from psubd.testing.waiting import blockon

T = TypeVar("T")


class SqliteCase(SynchronousTestCase):
    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.clock = FakeClock()
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.path = f"{self.folder}/storage.sqlite"
        self.storage = self.open()

    def built(self, **settings: Any) -> SqliteStorage:
        self.metrics = CollectorRegistry()
        return SqliteStorage(self.path, self.clock, self.reactor, {**self.settings, **settings}, self.metrics)

    def open(self, **settings: Any) -> SqliteStorage:
        """Another storage on the file, started; stopped at the end of the test."""
        storage = self.built(**settings)
        self.wait(storage.start())
        self.addCleanup(lambda: self.wait(storage.stop()))
        return storage

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.get_sample_value(name, labels) or 0.0

    def now(self) -> int:
        return self.clock.epoch_ms()

    def wait(self, deferred: "Deferred[T]") -> T:
        return blockon(deferred)

    def pause(self) -> None:
        blockon(deferLater(self.reactor, 0.005, lambda: None))

    def pending(self, deferred: "Deferred[Any]") -> bool:
        blockon(deferLater(self.reactor, 0.05, lambda: None))
        return not deferred.called

    def sweep(self, ms: int) -> None:
        self.clock.advance(max(ms, 30_000))
