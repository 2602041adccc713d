"""What the tests on a real Kafka share."""

import time
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import uuid4

import pytest_twisted
from prometheus_client import CollectorRegistry
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from psubd.services.clock import SystemClock
from psubd.storage.kafka.backend import KafkaStorage
from psubd.testing.kafka import Cluster, shared
from psubd.testing.waiting import blockon

T = TypeVar("T")


def need_pytest() -> None:
    """Skip under plain trial, before a cluster is started for nothing: there `blockon` cannot wait."""
    if pytest_twisted._instances.gr_twisted is None:
        raise SkipTest("needs pytest-twisted: run it with pytest")


class KafkaCase(SynchronousTestCase):
    """A storage on a real Kafka for each test.

    :cvar brokers: of the cluster. :cvar settings: ``[storage.kafka]``. :cvar driver: `KafkaStorage` or `RdKafkaStorage`.
    """

    brokers = 1
    settings: dict[str, Any] = {}
    driver: type[KafkaStorage] = KafkaStorage

    def setUp(self) -> None:
        self.cluster = self.set_up_cluster()
        self.storage = self.another()

    def set_up_cluster(self) -> Cluster:
        """The cluster of the test."""
        need_pytest()
        return shared(self.brokers)

    def another(self, bootstrap: str | None = None, **settings: Any) -> KafkaStorage:
        """One more storage on the cluster, started."""
        from twisted.internet import reactor

        made = self.driver(
            (bootstrap or self.cluster.bootstrap).split(","), SystemClock(reactor), reactor, {**self.settings, **settings}, CollectorRegistry()
        )
        self.wait(made.start())
        self.addCleanup(lambda: self.wait(made.stop()))
        return made

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def wait(self, deferred: "Deferred[T]", timeout: float = 60) -> T:
        return blockon(deferred, timeout)

    def pause(self, seconds: float = 0.02) -> None:
        """Let the reactor run."""
        from twisted.internet import reactor

        blockon(task.deferLater(reactor, seconds))

    def pending(self, deferred: "Deferred[Any]") -> bool:
        self.pause(0.2)
        return not deferred.called

    def name(self) -> str:
        return f"test-{uuid4().hex[:16]}"

    def until(self, holds: Callable[[], bool], what: str, seconds: float = 30) -> None:
        """Wait until ``holds``; fail with ``what`` where it does not in time."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                self.fail(f"never came: {what}")
            self.pause()
