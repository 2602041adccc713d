"""The double of membership: what services are tested with must itself keep the promises."""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from psubd.errors import InUse, RegistryUnavailable
from psubd.interfaces import IMembership
from psubd.testing.clock import FakeClock
from psubd.testing.membership import MemoryMembership


class Memory(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.a = MemoryMembership(self.clock, id="a", address="127.0.0.1:1")
        self.b = MemoryMembership(self.clock, beside=self.a, id="b")
        self.told: list[str] = []
        self.a.listen(lambda: self.told.append("a"))
        self.b.listen(lambda: self.told.append("b"))

    def test_provides(self) -> None:
        """It is a membership."""
        verifyObject(IMembership, self.a)

    def test_members(self) -> None:
        """Each sees both, and which one it is itself; keys name the node and the session."""
        self.assertEqual({member.id: member.self for member in self.a.members().values()}, {"a": True, "b": False})
        self.assertEqual({member.id: member.self for member in self.b.members().values()}, {"a": False, "b": True})
        self.assertEqual(self.b.members()[self.a.key].address, "127.0.0.1:1")
        self.assertTrue(self.a.key.startswith("a-"))

    def test_claims(self) -> None:
        """A slot is one node's; epochs rise with each claim of any slot; both hear of it; who has it may ask again."""
        first = self.successResultOf(self.a.claim(7))
        self.failureResultOf(self.b.claim(7), InUse)
        second = self.successResultOf(self.b.claim(8))
        self.assertLess(first, second)
        self.assertEqual(self.successResultOf(self.a.claim(7)), first)
        self.assertEqual((self.a.epoch_of(7), self.b.epoch_of(7), self.a.epoch_of(8), self.b.epoch_of(8)), (first, None, None, second))
        self.assertEqual(self.b.claims()[7].member, self.a.key)
        self.assertEqual(sorted(set(self.told)), ["a", "b"])
        self.successResultOf(self.a.release(7))
        self.assertIsNone(self.a.epoch_of(7))
        self.successResultOf(self.a.release(8))
        self.assertEqual(self.b.epoch_of(8), second)
        self.assertLess(second, self.successResultOf(self.b.claim(7)))

    def test_lease(self) -> None:
        """While ZooKeeper answers the lease goes on; silent, it ends in a session less a second, at that very instant and with a call."""
        self.successResultOf(self.a.claim(1))
        self.clock.advance(100_000)
        self.assertIsNotNone(self.a.epoch_of(1))
        self.a.silence()
        self.assertEqual(self.a.lease_ends_ms(), 109_000)
        self.clock.advance(8999)
        self.assertIsNotNone(self.a.epoch_of(1))
        self.told.clear()
        self.clock.advance(1)
        self.assertEqual((self.a.epoch_of(1), self.told), (None, ["a"]))
        self.a.answered()
        self.assertIsNotNone(self.a.epoch_of(1))
        self.a.end_lease()
        self.assertIsNone(self.a.epoch_of(1))
        self.assertIsNotNone(self.b.claims().get(1))

    def test_expired(self) -> None:
        """An expired node is gone for the others, who take its slots; it believes in its claim until its lease ends, and can change nothing."""
        self.successResultOf(self.a.claim(1))
        self.a.silence()
        self.a.expire()
        self.assertEqual([member.id for member in self.b.members().values()], ["b"])
        taken = self.successResultOf(self.b.claim(1))
        self.assertIsNotNone(self.a.epoch_of(1))
        self.assertLess(self.a.epoch_of(1) or 0, taken)
        self.failureResultOf(self.a.claim(2), RegistryUnavailable)
        self.clock.advance(9000)
        self.assertIsNone(self.a.epoch_of(1))
        former = self.a.key
        self.a.join()
        self.assertNotEqual(self.a.key, former)
        self.assertEqual(set(self.b.members()), {self.a.key, self.b.key})
        self.assertEqual(self.a.claims()[1].member, self.b.key)

    def test_leave(self) -> None:
        """A node that leaves is gone with its claims and its lease."""
        self.successResultOf(self.a.claim(1))
        self.a.leave()
        self.assertEqual((self.a.epoch_of(1), dict(self.b.claims()), len(self.b.members())), (None, {}, 1))

    def test_blind(self) -> None:
        """A node whose eyes are closed sees changes when they open."""
        self.b.close_eyes()
        self.successResultOf(self.a.claim(1))
        self.assertEqual(dict(self.b.claims()), {})
        self.b.open_eyes()
        self.assertEqual(set(self.b.claims()), {1})

    def test_declared(self) -> None:
        """What a node says of itself the others see; and while the registry refuses, nothing."""
        self.successResultOf(self.a.declare(False, 12))
        self.successResultOf(self.a.locate("127.0.0.1:2"))
        seen = self.b.members()[self.a.key]
        self.assertEqual((seen.eligible, seen.load, seen.address), (False, 12, "127.0.0.1:2"))
        self.a.refuse = RegistryUnavailable("away")
        for refused in (self.a.declare(True, 1), self.a.claim(3), self.a.release(3), self.a.locate(None)):
            self.failureResultOf(refused, RegistryUnavailable)
        self.assertIs(self.b.members()[self.a.key], seen)
