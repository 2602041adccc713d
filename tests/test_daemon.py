"""The daemon's starts and stops, in order. Whole processes are in tests/integration/process and tests/integration/nodes."""

import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from psubd import daemon
from psubd.config import Config
from psubd.crew import Crew
from psubd.errors import ConfigError, RegistryUnavailable, StorageTimeout
from psubd.model import Token
from psubd.services.registrar import Registrar
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.registry import MemoryRegistry


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
            started = daemon.Daemon(Config(state=self.state, admin_token=given), None)
        started._house = mock.Mock(registry=self.registry, registrar=self.registrar)
        self.successResultOf(Deferred.fromCoroutine(started._first_token()))

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

    def test_workers(self) -> None:
        """The first of several workers makes it, in the folder that they have in common."""
        given = Config(state=self.state, workers=2)
        for number, made in ((1, False), (0, True)):
            with mock.patch("atexit.register"):
                worker = daemon.Daemon(given.of(given.crew.worker(number)), None)
            worker._house = mock.Mock(registry=self.registry, registrar=self.registrar)
            self.successResultOf(Deferred.fromCoroutine(worker._first_token()))
            self.assertEqual(self.file() is not None, made)

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
            self.daemon = daemon.Daemon(Config(state=self.state), self.clock.reactor)
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
        self.clock.advance(daemon.LINGER_MS)

    def test_order(self) -> None:
        """Not ready at once; the ports close after a moment; polls end while requests drain; then gate, storage, registry."""
        self.daemon._trouble = None
        self.daemon.running = True
        self.stopped = self.daemon.stopService()
        self.assertEqual((self.daemon.trouble(), self.events), ("psubd is stopping", []))
        self.clock.advance(daemon.LINGER_MS)
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
        self.clock.advance(daemon.LINGER_MS)
        self.assertEqual(self.events, [])
        self.committed.callback(None)
        self.drained.callback(None)
        self.daemon._starting.callback(None)
        self.clock.advance(daemon.LINGER_MS)
        self.successResultOf(self.stopped)
        self.assertEqual(self.events[-1], "registry")

    def test_never_started(self) -> None:
        """Nothing was built: nothing to stop."""
        self.daemon._house, self.daemon._ports, self.daemon._sites = None, {}, []
        self.stop()
        self.successResultOf(self.stopped)


class Part:
    """A part of a house that tells what is done to it, in the order in which it is, and fails or waits where the test says so.

    :ivar fails: what a call fails with, by its name; once for each in the list. :ivar waits: Deferreds that a call gives, by its name.
    """

    def __init__(self, name: str, events: list[str]) -> None:
        self.name, self.events = name, events
        self.fails: dict[str, list[Exception]] = {}
        self.waits: dict[str, Deferred[None]] = {}

    def __getattr__(self, call: str) -> Callable[..., Any]:
        def do(*arguments: Any) -> Deferred[Any]:
            self.events.append(f"{self.name} {call}")
            if self.fails.get(call):
                return fail(self.fails[call].pop(0))
            return self.waits.get(call) or succeed(None)

        return do


class ManyNodesTests(SynchronousTestCase):
    """One node of many: it listens before its registry is there, and lets go of its groups before it stops listening."""

    def setUp(self) -> None:
        self.clock = FakeClock()
        self.events: list[str] = []
        self.state = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.state)
        self.config = Config(state=self.state, peer=("tcp:0:interface=127.0.0.1",), peer_address="10.0.0.5:9092", drain_delay_ms=2_000)
        with mock.patch("atexit.register"):
            self.daemon = daemon.Daemon(self.config, self.clock.reactor)
        names = ("registry", "storage", "gate", "subscriber", "monitor", "membership", "secret", "mesh", "ownership", "switchboard")
        self.parts = {name: Part(name, self.events) for name in names}
        self.seats: dict[int, str | None] = {0: "here", 1: "other"}
        self.parts["membership"].slots = 2  # type: ignore[assignment]
        self.parts["ownership"].seat = lambda slot: self.seats[slot]  # type: ignore[method-assign, assignment]
        self.members = {"own": 1, "other": 1}
        self.parts["ownership"].lease_stands = lambda: True  # type: ignore[method-assign, assignment]
        self.parts["membership"].members = lambda: self.members  # type: ignore[method-assign, assignment]
        cluster = mock.Mock(**{name: self.parts[name] for name in ("secret", "mesh", "ownership", "switchboard")})
        house = mock.Mock(cluster=cluster, **{name: self.parts[name] for name in names[:6]})
        self.daemon._ports["peer"] = [mock.Mock(getHost=lambda: IPv4Address("TCP", "127.0.0.1", 40001))]
        self.daemon._listen = self.step("listens")  # type: ignore[method-assign]
        self.daemon._write_ports = self.step("ports.json")  # type: ignore[method-assign]
        self.daemon._first_token = self.step("token")  # type: ignore[method-assign]
        self.daemon._demonstrate = self.step("demo")  # type: ignore[method-assign]
        self.daemon._stop_listening = self.step("ports close")  # type: ignore[method-assign]
        for patched in (mock.patch("psubd.daemon.build", return_value=house), mock.patch("psubd.daemon.schemes")):
            patched.start()
            self.addCleanup(patched.stop)

    def step(self, event: str) -> Any:
        async def run() -> None:
            self.events.append(event)

        return run

    def start(self) -> None:
        self.daemon._begin()

    def closed(self) -> bool:
        try:
            self.daemon._entrance._check()
        except RegistryUnavailable as refused:
            self.why = refused.detail
            return True
        return False

    def test_start(self) -> None:
        """Ports, registry, gate, storage, the nodes' secret, the groups, then the other nodes; requests are let in last."""
        self.start()
        self.assertEqual(
            self.events,
            [
                "listens",
                "ports.json",
                "registry start",
                "gate start",
                "storage start",
                "monitor start",
                "secret open",
                "subscriber start",
                "membership locate",
                "switchboard serve",
                "ownership start",
                "mesh start",
                "token",
                "demo",
            ],
        )
        self.assertEqual((self.daemon.trouble(), self.closed()), (None, False))

    def test_worker(self) -> None:
        """A worker opens the data port, which others serve meanwhile, when it has all that it needs to serve, and then says where it is."""
        self.daemon.config = self.config.of(Crew(2, self.state, self.config.listen, self.config.manager, self.config.peer, "").worker(1))
        self.daemon._listen_apart = self.step("manager and peers")  # type: ignore[method-assign]
        self.daemon._listen_shared = self.step("data port")  # type: ignore[method-assign]
        self.start()
        self.assertEqual(self.events[:2], ["manager and peers", "registry start"])
        self.assertEqual(self.events[-3:], ["demo", "data port", "ports.json"])
        self.assertFalse(self.closed())

    def test_groups_on_their_way(self) -> None:
        """Requests are served as soon as it is among the nodes; it says that it is ready once each group has a node, or after a while."""
        self.seats[1] = "moving"
        self.start()
        self.assertFalse(self.closed())
        self.assertIn("groups are on their way", self.daemon.trouble() or "")
        self.seats[1] = "here"
        self.clock.advance(daemon.LOOK_MS)
        self.assertIsNone(self.daemon.trouble())
        self.setUp()
        self.seats[0] = None
        self.start()
        for _ in range(daemon.SETTLE_MS // daemon.LOOK_MS):
            self.assertIsNotNone(self.daemon.trouble())
            self.clock.advance(daemon.LOOK_MS)
        self.assertIsNone(self.daemon.trouble())

    def test_stop_while_groups_come(self) -> None:
        """A stop does not wait for them, and is one of a node that serves."""
        self.seats[1] = "moving"
        self.start()
        del self.members["other"]
        self.successResultOf(self.stop())
        self.assertEqual(self.daemon.trouble(), "psubd is stopping")
        self.assertIn("ownership drain", self.events)

    def test_registry_away(self) -> None:
        """It waits for the registry, listening and closed, and says so; it goes on by itself."""
        self.parts["registry"].waits["start"] = came = Deferred()
        self.start()
        self.assertEqual(self.events, ["listens", "ports.json", "registry start"])
        self.assertTrue(self.closed())
        self.assertIn("waits for its registry", self.why)
        self.assertIsNotNone(self.daemon.trouble())
        came.callback(None)
        self.assertEqual((self.events[-1], self.closed()), ("demo", False))

    def test_registry_goes_while_starting(self) -> None:
        """What needs the registry or the storage is tried again; nothing is done twice that was done."""
        away = RegistryUnavailable("it went away")
        self.parts["secret"].fails["open"] = [away, StorageTimeout("it may be made")]
        self.parts["subscriber"].fails["start"] = [away]
        self.parts["membership"].fails["locate"] = [away]
        self.start()
        self.assertTrue(self.closed())
        for _ in range(3):
            self.clock.advance(daemon.AGAIN_MS)
        self.assertFalse(self.closed())
        counted = {event: self.events.count(event) for event in ("secret open", "subscriber start", "membership locate", "mesh start", "gate start")}
        self.assertEqual(counted, {"secret open": 3, "subscriber start": 2, "membership locate": 1, "mesh start": 1, "gate start": 1})

    def test_cannot_start(self) -> None:
        """A registry that can never work ends the process."""
        self.parts["registry"].fails["start"] = [ConfigError(["registry: no such user"])]
        self.daemon.reactor = mock.Mock()
        with mock.patch("psubd.daemon.tell") as told:
            self.start()
        told.assert_called_once_with(["cannot start: registry: no such user"])
        self.daemon.reactor.stop.assert_called_once_with()
        self.assertEqual(self.daemon.ending.status, 1)

    def test_stop_while_waiting(self) -> None:
        """A stop does not wait for a registry that is away: it is given up, and what was opened is closed."""
        for case in ("registry", "secret"):
            self.setUp()
            if case == "registry":
                self.parts["registry"].waits["start"] = Deferred()
            else:
                self.parts["secret"].fails["open"] = [RegistryUnavailable("away")] * 9
            self.start()
            with mock.patch("psubd.daemon.tell") as told:
                stopped = self.stop()
                self.successResultOf(stopped)
            told.assert_not_called()
            self.assertEqual(self.events[-3:], ["gate stop", "storage stop", "registry stop"])
            self.assertNotIn("ownership drain", self.events)
            self.assertEqual(self.clock.reactor.getDelayedCalls(), [])

    def stop(self) -> "Deferred[None]":
        self.daemon.running = True
        return self.daemon.stopService()

    def test_stop(self) -> None:
        """Not ready at once; it serves on for its time; hands over; then the ports close, and what is left ends as on a single node."""
        self.start()
        self.events.clear()
        self.parts["ownership"].waits["drain"] = handed = Deferred()
        stopped = self.stop()
        self.assertEqual((self.daemon.trouble(), self.events, self.closed()), ("psubd is stopping", ["monitor stop"], False))
        self.clock.advance(1_999)
        self.assertEqual(self.events, ["monitor stop"])
        self.clock.advance(1)
        self.assertEqual(self.events, ["monitor stop", "ownership drain"])
        handed.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(
            self.events[2:],
            ["ports close", "switchboard stop", "subscriber stop", "ownership stop", "mesh stop", "gate stop", "storage stop", "registry stop"],
        )
        self.assertEqual(self.clock.reactor.getDelayedCalls(), [])

    def test_stop_of_the_only_one(self) -> None:
        """Where there is no other node nobody is waited for."""
        self.start()
        del self.members["other"]
        stopped = self.stop()
        self.successResultOf(stopped)
        self.assertIn("ownership drain", self.events)

    def test_stop_without_a_lease(self) -> None:
        """A node whose lease has ended has nothing to hand over, and does not try."""
        self.start()
        del self.members["other"]
        self.parts["ownership"].lease_stands = lambda: False  # type: ignore[method-assign, assignment]
        self.successResultOf(self.stop())
        self.assertNotIn("ownership drain", self.events)
        self.assertIn("subscriber stop", self.events)

    def test_stop_that_fails(self) -> None:
        """A step that fails is logged, and the others come all the same."""
        self.start()
        del self.members["other"]
        self.events.clear()
        for name, call in (("ownership", "drain"), ("switchboard", "stop"), ("mesh", "stop")):
            self.parts[name].fails[call] = [ValueError("boom")]
        self.successResultOf(self.stop())
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 3)
        self.assertEqual(self.events[-3:], ["gate stop", "storage stop", "registry stop"])
        self.assertIn("subscriber stop", self.events)
