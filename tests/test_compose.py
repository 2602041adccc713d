"""The parts, put together; started and stopped in order. Whole processes are in tests/integration/process."""

import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from psubd import compose
from psubd.config import Config
from psubd.errors import ConfigError
from psubd.folder import StateFolder
from psubd.interfaces import INodes, IRegistry, IStorage
from psubd.model import Token
from psubd.services.registrar import Registrar
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.registry import MemoryRegistry
from psubd.wire.limits import WireSettings


class SchemesTests(SynchronousTestCase):
    def test_own(self) -> None:
        """psubd's own plugins are found as anybody's."""
        found = compose.schemes()
        self.assertLessEqual({"sqlite", "memory"}, set(found.storages))
        self.assertLessEqual({"sqlite"}, set(found.registries))

    def test_two_of_one(self) -> None:
        """Two plugins with one scheme are refused, and both are named."""

        class Acme:
            scheme = "sqlite"

        class Other:
            scheme = "sqlite"

        with mock.patch("psubd.compose.getPlugins", side_effect=lambda interface, package: [Acme(), Other(), Other()]):
            refused = self.assertRaises(ConfigError, compose.schemes)
        self.assertEqual(len(refused.mistakes), 4)
        self.assertIn("Acme", refused.mistakes[0])
        self.assertIn("Other", refused.mistakes[0])
        self.assertIn("both provide sqlite:", refused.mistakes[0])


class BuildTests(SynchronousTestCase):
    def build(self, **settings: Any) -> compose.House:
        return compose.build(Config(state="/nowhere", **settings), compose.schemes(), StateFolder("/nowhere"), FakeClock().reactor)

    def test_parts(self) -> None:
        """Every part is what its interface says, and nothing was opened."""
        house = self.build()
        self.assertTrue(IStorage.providedBy(house.storage))
        self.assertTrue(IRegistry.providedBy(house.registry))
        self.assertTrue(INodes.providedBy(house.nodes))
        self.assertIn("process_resident_memory_bytes", {sample.name for family in house.metrics.collect() for sample in family.samples})

    def test_choice(self) -> None:
        """The URL chooses."""
        self.assertIsInstance(self.build(storage="memory:").storage, MemoryStorage)

    def test_registry_without_nodes(self) -> None:
        """A registry plugin that provides no INodes is refused."""
        half = mock.Mock()
        directlyProvides(half, IRegistry)
        with mock.patch("psubd.compose.backends", return_value=(half, mock.Mock())):
            refused = self.assertRaises(ConfigError, self.build)
        self.assertIn("provides no INodes", refused.mistakes[0])

    def test_wire_settings(self) -> None:
        """The ports get what is configured; the defaults are the wire's own."""
        self.assertEqual(compose.wire_settings(Config()), WireSettings())
        got = compose.wire_settings(Config(write_timeout_ms=5, max_connections=7, body_budget_bytes=1 << 25))
        self.assertEqual((got.write_timeout_ms, got.max_connections, got.body_budget_bytes), (5, 7, 1 << 25))


class FirstTokenTests(SynchronousTestCase):
    def setUp(self) -> None:
        clock = FakeClock()
        storage, self.registry = MemoryStorage(clock), MemoryRegistry(clock)
        self.successResultOf(self.registry.start())
        self.registrar = Registrar(self.registry, storage, clock, 1 << 20)
        self.state = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.state)

    def start(self, given: str | None = None) -> None:
        """What a start does for the first token."""
        with mock.patch("atexit.register"):
            daemon = compose.Daemon(Config(state=self.state, admin_token=given), None)
        daemon._house = mock.Mock(registry=self.registry, registrar=self.registrar)
        self.successResultOf(Deferred.fromCoroutine(daemon._first_token()))

    def file(self) -> str | None:
        path = os.path.join(self.state, "admin-token")
        if not os.path.exists(path):
            return None
        with open(path, encoding="utf-8") as file:
            return file.read().strip()

    def role(self, token: str) -> str | None:
        known: Token | None = self.registrar.token_of(token)
        return known.role if known else None

    def test_made_once(self) -> None:
        """The first start makes it and registers it, the next changes nothing."""
        self.start()
        token = self.file()
        assert token is not None
        self.assertEqual(self.role(token), "admin")
        self.start()
        self.assertEqual((self.file(), len(self.registry.snapshot().children("/tokens"))), (token, 1))

    def test_crash_between(self) -> None:
        """A file that was written and not registered yet is taken as it is."""
        with open(os.path.join(self.state, "admin-token"), "w", encoding="utf-8") as file:
            file.write("pt_of-the-first-start\n")
        self.start()
        self.assertEqual((self.file(), self.role("pt_of-the-first-start")), ("pt_of-the-first-start", "admin"))

    def test_not_again(self) -> None:
        """While an admin token is registered none is made, and one that was deleted does not come back."""
        self.start()
        first = self.file()
        assert first is not None
        self.successResultOf(self.registrar.create_token("alice", "admin", "test"))
        self.successResultOf(self.registrar.delete_token("admin", "test"))
        self.start()
        self.assertIsNone(self.role(first))
        os.unlink(os.path.join(self.state, "admin-token"))
        self.start()
        self.assertIsNone(self.file())

    def test_viewers_do_not_count(self) -> None:
        """A viewer's token does not open the door to make others: the first admin token is made all the same."""
        self.successResultOf(self.registrar.create_token("eve", "viewer", "test"))
        self.start()
        self.assertIsNotNone(self.file())

    def test_given(self) -> None:
        """The environment's token counts at each start, and no file is written."""
        for _ in range(2):
            self.start("pt_of-the-environment")
        self.assertEqual((self.file(), self.role("pt_of-the-environment")), (None, "admin"))


class StopTests(SynchronousTestCase):
    """What was accepted is answered, what was answered is kept: in this order, whatever fails."""

    def setUp(self) -> None:
        self.clock = FakeClock()
        self.events: list[str] = []
        self.state = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.state)
        with mock.patch("atexit.register"):
            self.daemon = compose.Daemon(Config(state=self.state), self.clock.reactor)
        self.committed: Deferred[None] = Deferred()
        self.drained: Deferred[None] = Deferred()
        self.daemon._ports = {"listen": [self.part("stopListening", "closed")], "manager": []}
        self.daemon._sites = [self.part("drain", "draining", self.drained)]
        self.daemon._house = mock.Mock(
            subscriber=self.part("stop", "polls end", self.committed),
            gate=self.part("stop", "gate"),
            storage=self.part("stop", "storage"),
            registry=self.part("stop", "registry"),
        )
        self.stopped = None

    def part(self, method: str, event: str, outcome: Any = None) -> Any:
        def call() -> Any:
            self.events.append(event)
            return outcome or succeed(None)

        return mock.Mock(**{method: call})

    def stop(self) -> None:
        self.daemon.running = True
        self.stopped = self.daemon.stopService()
        self.clock.advance(compose.LINGER_MS)

    def test_order(self) -> None:
        """Not ready at once; the ports close after a moment; polls end while requests drain; then gate, storage, registry."""
        self.daemon._trouble = None
        self.daemon.running = True
        self.stopped = self.daemon.stopService()
        self.assertEqual((self.daemon.trouble(), self.events), ("psubd is stopping", []))
        self.clock.advance(compose.LINGER_MS)
        self.assertEqual(self.events, ["closed", "draining", "polls end"])
        self.committed.callback(None)
        self.assertNoResult(self.stopped)
        self.drained.callback(None)
        self.successResultOf(self.stopped)
        self.assertEqual(self.events, ["closed", "draining", "polls end", "gate", "storage", "registry"])
        self.assertEqual(self.clock.reactor.getDelayedCalls(), [])

    def test_bound(self) -> None:
        """Requests that do not end are cut off after their time."""
        self.stop()
        self.committed.callback(None)
        self.clock.advance(Config().drain_timeout_ms - 1)
        self.assertNoResult(self.stopped)
        self.clock.advance(1)
        self.successResultOf(self.stopped)
        self.assertEqual(self.events[-1], "registry")

    def test_failure(self) -> None:
        """A step that fails is logged, and the rest goes on: the storage keeps what it has, the registry is closed."""
        boom: Callable[[], Any] = lambda: fail(ValueError("boom"))
        self.daemon._house.subscriber = mock.Mock(stop=boom)
        self.daemon._house.storage = mock.Mock(stop=boom)
        self.drained.callback(None)
        self.stop()
        self.successResultOf(self.stopped)
        self.assertEqual(self.events[-2:], ["gate", "registry"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
        self.assertEqual(self.clock.reactor.getDelayedCalls(), [])

    def test_while_starting(self) -> None:
        """A stop during the start waits for the step that is under way; what comes after it is not begun."""
        self.daemon._starting = Deferred()
        self.daemon.running = True
        self.stopped = self.daemon.stopService()
        self.clock.advance(compose.LINGER_MS)
        self.assertEqual(self.events, [])
        self.committed.callback(None)
        self.drained.callback(None)
        self.daemon._starting.callback(None)
        self.clock.advance(compose.LINGER_MS)
        self.successResultOf(self.stopped)
        self.assertEqual(self.events[-1], "registry")

    def test_never_started(self) -> None:
        """Nothing was built: nothing to stop."""
        self.daemon._house, self.daemon._ports, self.daemon._sites = None, {}, []
        self.stop()
        self.successResultOf(self.stopped)
