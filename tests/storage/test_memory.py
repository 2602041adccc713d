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
        self.clock.advance(0)  # what was posted is told in the next turn
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


class MemoryTruncationTests(MemoryCase):
    """The double of a log that an unclean election cut."""

    def put(self, count: int) -> None:
        self.wait(self.storage.publish([Record("t", b"x", partition=1)] * count, "all"))

    def test_a_log_that_was_cut(self) -> None:
        """What lay behind the cut is gone, the topic stays the same, who waits hears of it; what comes next is of another epoch, and where that of
        before ended is told as long as the log lives, also after it grew past that and was cut again."""
        uid = self.wait(self.storage.create_topic(TopicSpec("t", 2))).uid
        self.put(5)
        watch = self.storage.watch("t", 1, 5)
        self.storage.truncate("t", 1, 3)
        self.wait(watch)
        self.assertEqual(uid, self.wait(self.storage.describe(["t"]))["t"].uid)
        self.assertEqual((0, 3, 0), self.bound())
        self.assertEqual({1: 3}, self.wait(self.storage.log_ends("t", {0: 0, 1: 0})))
        self.assertEqual({}, self.wait(self.storage.log_ends("t", {1: 1})))
        self.put(4)
        part = self.wait(self.storage.read("t", 1, 2, 9, 1 << 20))
        self.assertEqual(([2, 3, 4, 5, 6], 1), ([message.offset for message in part.messages], part.log_epoch))
        self.assertEqual(0, self.wait(self.storage.read("t", 1, 0, 3, 1 << 20)).log_epoch)
        self.storage.truncate("t", 1, 2)
        self.assertEqual({1: 2}, self.wait(self.storage.log_ends("t", {1: 0})))
        self.assertEqual({1: 2}, self.wait(self.storage.log_ends("t", {1: 1})))
        self.assertEqual((0, 2, 0), self.bound())

    def bound(self) -> tuple[int, int, int]:
        bound = self.wait(self.storage.bounds("t"))[1]
        return bound.first, bound.end, bound.log_epoch


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
