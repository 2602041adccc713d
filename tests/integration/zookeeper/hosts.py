"""What the tests on a real ZooKeeper share."""

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import uuid4

import pytest_twisted
from prometheus_client import CollectorRegistry
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from psubd.interfaces import Change, Delete, ISnapshot, Plan, Put
from psubd.registry.zookeeper.registry import ZooKeeperRegistry
from psubd.registry.zookeeper.settings import place
from psubd.services.clock import SystemClock
from psubd.testing.waiting import blockon
from psubd.testing.zookeeper import Ensemble, shared

T = TypeVar("T")

SESSION_MS = 3_000


class ZooKeeperCase(SynchronousTestCase):
    """A path of its own in a real ZooKeeper for each test, and nodes on it.

    :cvar servers: of the ensemble. :cvar settings: ``[registry.zk]``.
    """

    servers = 1
    settings: dict[str, Any] = {"session_timeout_ms": SESSION_MS}

    def setUp(self) -> None:
        if pytest_twisted._instances.gr_twisted is None:
            raise SkipTest("needs pytest-twisted: run it with pytest")
        self.ensemble: Ensemble = shared(self.servers)
        self.chroot = f"/tests/{uuid4().hex[:12]}"

    def build(self, state: str | None = None, hosts: str | None = None, **settings: Any) -> ZooKeeperRegistry:
        """A node, not started. ``state``: a folder; None: a new one."""
        from twisted.internet import reactor

        folder = state or self.mktemp()
        os.makedirs(folder, exist_ok=True)
        url = f"zk://{hosts or self.ensemble.hosts}{self.chroot}"
        made = ZooKeeperRegistry(place(url), folder, SystemClock(reactor), reactor, {**self.settings, **settings}, CollectorRegistry())
        self.addCleanup(lambda: self.wait(made.stop()))
        return made

    def node(self, state: str | None = None, hosts: str | None = None, **settings: Any) -> ZooKeeperRegistry:
        """A node, started."""
        made = self.build(state, hosts, **settings)
        self.wait(made.start())
        return made

    def crash(self, node: ZooKeeperRegistry) -> None:
        """End it as a kill does: without a word to ZooKeeper, so that its session stands until it times out."""
        client = node.session.client
        client._ending.set()
        client._kazoo._stopped.set()  # kazoo's loop does not connect again
        client._line.cut()
        self.until(lambda: client._line.ended, "the end of kazoo's loop")
        self.wait(node.stop())

    def wait(self, deferred: "Deferred[T]", timeout: float = 60) -> T:
        return blockon(deferred, timeout)

    def pause(self, seconds: float = 0.01) -> None:
        """Let the reactor run."""
        from twisted.internet import reactor

        blockon(task.deferLater(reactor, seconds))

    def until(self, holds: Callable[[], Any], what: str, seconds: float = 30) -> None:
        """Wait until ``holds``; fail with ``what`` where it does not in time."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                self.fail(f"never came: {what}")
            self.pause()

    def put(self, node: ZooKeeperRegistry, *writes: Put | Delete, what: str = "thing.made x") -> "Deferred[Change]":
        """Begin a change."""

        def plan(snapshot: ISnapshot, serial: int) -> Plan:
            return Plan(what, writes)

        return node.change("tester", plan)
