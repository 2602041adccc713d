"""The secret that the nodes share."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import RegistryUnavailable
from psubd.interfaces import Plan, Put
from psubd.peers.secret import PATH, PeerSecret
from psubd.testing.clock import FakeClock
from psubd.testing.registry import MemoryRegistry


class Secrets(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.registry = MemoryRegistry(self.clock)
        self.registry.start()

    def keep(self, data: bytes) -> None:
        self.successResultOf(self.registry.change("test", lambda snapshot, serial: Plan("test", (Put(PATH, data),))))

    def test_made_once(self) -> None:
        """It is made where it is absent, is the same on every node and after a restart, and another registry has another one."""
        other = MemoryRegistry(self.clock, beside=self.registry)
        other.start()
        first, second = PeerSecret(self.registry), PeerSecret(other)
        self.successResultOf(first.open())
        self.successResultOf(second.open())
        self.assertEqual(first(), second())
        self.assertEqual(len(first()), 32)
        self.assertEqual(self.registry.snapshot().serial, 1)
        stranger = MemoryRegistry(self.clock)
        stranger.start()
        third = PeerSecret(stranger)
        self.successResultOf(third.open())
        self.assertNotEqual(first(), third())

    def test_race(self) -> None:
        """Two nodes make it at once: the first one's stands."""
        self.registry.held = True
        first, second = PeerSecret(self.registry), PeerSecret(self.registry)
        opening: list[Any] = [first.open(), second.open()]
        self.registry.release()
        for deferred in opening:
            self.successResultOf(deferred)
        self.assertEqual(self.registry.snapshot().serial, 1)

    def test_absent(self) -> None:
        """Not made, or the registry cannot be written: told as such."""
        secret = PeerSecret(self.registry)
        self.assertRaises(RegistryUnavailable, secret)
        self.registry.refuse = RegistryUnavailable("away")
        self.failureResultOf(secret.open(), RegistryUnavailable)

    def test_damaged(self) -> None:
        """What stands there and is none is neither used nor shown nor replaced."""
        for data in (b"", b"{}", b'"c2hvcnQ="', b'"%s"' % (b"*" * 44), b"\xff"):
            self.keep(data)
            secret = PeerSecret(self.registry)
            self.successResultOf(secret.open())
            said = str(self.assertRaises(RegistryUnavailable, secret))
            self.assertNotIn("c2hvcnQ", said)

    def test_shown_nowhere(self) -> None:
        """Neither its repr nor the audit shows it."""
        secret = PeerSecret(self.registry)
        self.successResultOf(secret.open())
        told = repr(secret) + repr(self.registry.history(0))
        entry = self.registry.snapshot().get(PATH)
        assert entry is not None
        self.assertNotIn(entry.data.decode().strip('"'), told)
