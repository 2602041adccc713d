"""The double holds to the contract of registries."""

from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import RegistryUnavailable
from psubd.interfaces import Put
from psubd.testing.clock import FakeClock
from psubd.testing.registry import MemoryRegistry
from psubd.testing.registry_contract import SharedRegistryContract

T = TypeVar("T")


class MemoryRegistryTests(SharedRegistryContract, SynchronousTestCase):
    """`psubd.testing.registry.MemoryRegistry`."""

    def setUp(self) -> None:
        self.clock = FakeClock()
        self.registry = MemoryRegistry(self.clock)
        self.wait(self.registry.start())

    def wait(self, deferred: "Deferred[T]") -> T:
        results: list[T] = []
        failures: list[Failure] = []
        deferred.addCallbacks(results.append, failures.append)
        if failures:
            failures[0].raiseException()
        return results[0]

    def restart(self, crash: bool = False) -> MemoryRegistry:
        if not crash:
            self.wait(self.registry.stop())
        again = MemoryRegistry(self.clock, past=self.registry)
        self.wait(again.start())
        return again

    def second(self) -> MemoryRegistry:
        other = MemoryRegistry(self.clock, beside=self.registry)
        self.wait(other.start())
        return other

    def test_refuse(self) -> None:
        """A test can have every change refused; nothing is written, and it goes on when the test says so."""
        self.registry.refuse = RegistryUnavailable("disk full")
        self.refused(RegistryUnavailable, self.ask(Put("/topics/t", b"")))
        self.assertEqual(self.registry.trouble(), "disk full")
        self.registry.refuse = None
        self.assertEqual(self.make(Put("/topics/t", b"")).serial, 1)

    def test_held(self) -> None:
        """A test can hold changes back, and let them go in order."""
        self.registry.held = True
        asked = [self.ask(Put(f"/topics/{n}", b"")) for n in range(3)]
        self.assertNoResult(asked[0])
        self.registry.release()
        self.assertEqual([self.wait(change).serial for change in asked], [1, 2, 3])
