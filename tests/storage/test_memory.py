from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import StorageUnavailable
from psubd.interfaces import Environment, IStorageFactory
from psubd.model import Position, Record, TopicSpec
from psubd.storage.memory import SWEEP_MS, MemoryFactory, MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.storage_contract import RetentionContract, StorageContract


class MemoryCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.storage = MemoryStorage(self.clock)
        self.successResultOf(self.storage.start())

    def now(self) -> int:
        return self.clock.epoch_ms()

    def wait(self, deferred: "Deferred[Any]") -> Any:
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.assertEqual(1, len(results), "it has not fired")
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def pause(self) -> None:
        pass

    def pending(self, deferred: "Deferred[Any]") -> bool:
        return not deferred.called


class MemoryStorageTests(StorageContract, MemoryCase):
    """The contract, on memory."""


class MemoryRetentionTests(RetentionContract, MemoryCase):
    """Retention and compaction, on memory."""

    def sweep(self, ms: int) -> None:
        self.clock.advance(max(ms, SWEEP_MS))


class MemoryBoundTests(MemoryCase):
    def test_full_memory_refuses_until_there_is_room(self) -> None:
        """Past max_bytes a publish is StorageUnavailable, and works again after a topic was deleted."""
        storage = MemoryStorage(self.clock, max_bytes=10_000)
        self.successResultOf(storage.start())
        for name in ("one", "two"):
            self.successResultOf(storage.create_topic(TopicSpec(name)))
        answers = self.successResultOf(storage.publish([Record("one", b"x" * 4000, partition=0)] * 3, "all"))
        self.assertEqual([Position, Position, StorageUnavailable], [type(answer) for answer in answers])
        self.successResultOf(storage.delete_topic("one"))
        (answer,) = self.successResultOf(storage.publish([Record("two", b"x" * 4000, partition=0)], "all"))
        self.assertIsInstance(answer, Position)
        self.successResultOf(storage.stop())

    def test_the_factory_tells_every_mistake(self) -> None:
        """A path, an unknown setting and a bad number are each told; what is right builds a storage with that bound."""
        factory = MemoryFactory()
        self.assertTrue(IStorageFactory.providedBy(factory))
        self.assertEqual([], factory.check("memory:", {"max_bytes": 1 << 21}))
        self.assertEqual(2, len(factory.check("memory:/x", {"size": 1})))
        self.assertEqual(1, len(factory.check("memory:", {"max_bytes": 5})))
        built = factory.build("memory:", Environment("/", {"max_bytes": 1 << 21}, self.clock, None, None))
        self.assertEqual(1 << 21, built.status()["max_bytes"])
