"""Who serves which groups where there is one node."""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass

from psubd.errors import InUse
from psubd.interfaces import Claim, IMembership
from psubd.registry.alone import Alone
from psubd.testing.clock import FakeClock
from psubd.testing.registry import MemoryRegistry


class AloneTests(SynchronousTestCase):
    """`psubd.registry.alone.Alone`."""

    def setUp(self) -> None:
        self.clock = FakeClock()
        self.registry = MemoryRegistry(self.clock)
        self.alone = Alone(self.registry, self.clock)
        self.successResultOf(self.registry.start())
        self.told = 0
        self.end = self.alone.listen(self.hear)

    def hear(self) -> None:
        self.told += 1

    def test_class(self) -> None:
        """It provides what it says."""
        self.assertTrue(verifyClass(IMembership, Alone))

    def test_serves_all_from_the_start(self) -> None:
        """One slot, held with the node's epoch, for ever."""
        self.assertEqual((self.alone.slots, self.alone.epoch_of(0), self.alone.epoch_of(1)), (1, self.registry.epoch, None))
        self.assertEqual(self.alone.claims(), {0: Claim(self.alone.key, self.registry.epoch)})
        self.clock.advance(1e12)
        self.assertGreater(self.alone.lease_ends_ms(), self.clock.elapsed_ms())
        self.assertEqual(self.alone.epoch_of(0), self.registry.epoch)

    def test_given_back_and_taken(self) -> None:
        """A release holds until the next claim."""
        self.successResultOf(self.alone.release(0))
        self.assertEqual((self.alone.epoch_of(0), self.alone.claims()), (None, {}))
        self.assertEqual(self.successResultOf(self.alone.claim(0)), self.registry.epoch)
        self.assertEqual(self.alone.epoch_of(0), self.registry.epoch)
        self.assertEqual(self.told, 2)
        self.successResultOf(self.alone.release(7))
        self.assertEqual(self.told, 2)

    def test_no_other_slot(self) -> None:
        """There is one."""
        self.failureResultOf(self.alone.claim(1), InUse)

    def test_the_one_member(self) -> None:
        """With what it says of itself."""
        self.successResultOf(self.alone.declare(True, 3))
        self.successResultOf(self.alone.locate("h:1"))
        [(key, member)] = self.alone.members().items()
        self.assertEqual(key, self.alone.key)
        self.assertEqual((member.key, member.id, member.eligible, member.load, member.address, member.self), (key, "memory", True, 3, "h:1", True))
        self.assertEqual(self.told, 2)
        self.successResultOf(self.alone.declare(True, 3))
        self.assertEqual(self.told, 2)

    def test_listeners(self) -> None:
        """One that raises harms no other; one that has ended hears nothing."""
        self.alone.listen(lambda: 1 / 0)
        heard: list[int] = []
        self.alone.listen(lambda: heard.append(1))
        self.end()
        self.successResultOf(self.alone.declare(True, 1))
        self.assertEqual((self.told, heard), (0, [1]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
