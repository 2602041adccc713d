"""Consumer instances when their node restarts, dies, or hands their slot over."""

from psubd.errors import IllegalState, InstanceMissing, Moved, OwnershipInDoubt
from psubd.model import Poll
from psubd.testing.membership import SESSION_MS
from tests.services.circle import Circle
from tests.services.house import SubscriberTestCase, offsets
from tests.services.nodes import NodesCase as ManyNodes
from tests.services.several import SLOTS
from tests.services.several import NodesCase as SlotsCase
from tests.services.test_carried import Drawer


class RestartTests(Circle, SubscriberTestCase):
    def setUp(self):
        super().setUp()
        self.wait(self.subscriber.stop())
        self.carryover = Drawer()
        self.subscriber = self.make_subscriber()

    def test_stopped_well(self):
        """After a SIGTERM it goes on where it was: nothing that was wholly written comes again, and what was owed is committed then."""
        self.publish(count=4)
        self.subscribed()
        self.fetch(batch=2)
        self.restart()
        self.assertEqual(self.fetched(batch=1), [2])
        self.wait(self.commit())
        self.assertEqual(self.place(), 3)

    def test_commit_comes_first(self):
        """The first call after a SIGTERM may be the commit: it has all that was wholly written before."""
        self.publish(count=4)
        self.subscribed()
        self.fetch(batch=2)
        self.restart()
        self.assertEqual([mark.offset for mark in self.wait(self.commit())], [2])
        self.assertEqual(self.place(), 2)

    def test_deletion_comes_first(self):
        """And so has a deletion, or another wish, of one that commits by itself."""
        self.publish(count=4)
        self.subscribed(auto_commit=True)
        self.fetch(batch=1)
        self.restart()
        self.wait(self.wish(topics=("orders",)))
        self.clock.advance(501)
        self.assertEqual(self.place(), 1)
        self.fetch(batch=1)
        self.restart()
        self.wait(self.dismiss())
        self.clock.advance(501)
        self.assertEqual(self.place(), 2)

    def test_stopped_in_the_middle(self):
        """What was not wholly written by then comes again."""
        self.publish(count=4)
        self.subscribed()
        self.fetch(batch=1)
        delivery = self.wait(self.read(batch=2))
        self.restart()
        delivery.settle(2)
        self.assertEqual(self.fetched(), [1, 2, 3])

    def test_crashed(self):
        """After a crash it goes on at what was committed, under the same id."""
        self.publish(count=4)
        self.subscribed()
        self.fetch(batch=3)
        self.wait(self.commit(p0=2))
        self.crash()
        self.assertEqual(self.metric("psubd_instances"), 1)
        self.assertEqual(self.fetched(), [2, 3])

    def test_commit_after_a_crash(self):
        """What was read before a crash is not known any more: who commits it then is told so, once, and not after it has read on."""
        self.publish(count=2)
        self.subscribed()
        self.fetch()
        self.crash()
        self.failureResultOf(self.commit(), IllegalState)
        self.assertEqual(self.wait(self.commit()), [])
        self.assertEqual(self.place(), 0)
        self.crash()
        self.fetch()
        self.wait(self.commit())
        self.assertEqual(self.place(), 2)
        self.crash()
        self.assertEqual(self.fetch(), [])
        self.wait(self.commit())

    def test_idle_from_then_on(self):
        """Its time counts from the start."""
        self.subscribed()
        self.clock.advance(200_000)
        self.restart()
        self.clock.advance(299_000)
        self.assertEqual(self.metric("psubd_instances"), 1)
        self.clock.advance(1_001)
        self.assertEqual(self.metric("psubd_instances"), 0)

    def test_shares_stay(self):
        """Who had which partition has it after a restart in good order, however it came to that."""
        self.subscribed("c1")
        self.subscribed("c2")
        self.wait(self.dismiss("c1"))
        self.subscribed("c3")
        for id in ("c2", "c3"):
            self.fetch(id)
        before = self.partitions("c2"), self.partitions("c3")
        self.restart()
        self.assertEqual((self.partitions("c2"), self.partitions("c3")), before)

    def test_reset_meanwhile(self):
        """A position from before a reset does not count."""
        self.publish(count=4)
        self.subscribed()
        self.fetch(batch=3)
        kept = self.carryover
        self.wait(self.subscriber.stop())
        self.carryover = None
        self.subscriber = self.make_subscriber()
        self.wait(self.subscriber.reset("shop.g", "orders", [0], {0: 1}, False, "test"))
        self.wait(self.subscriber.stop())
        self.carryover = kept
        self.subscriber = self.make_subscriber()
        self.assertEqual(self.fetched(), [1, 2, 3])


class SlotTests(Circle, SlotsCase):
    group = "shop"

    def test_handed_over(self):
        """A slot that is handed over takes positions along: nothing is given twice, and what is owed can be committed at the next node."""
        self.publish(count=4)
        self.subscribed()
        self.fetch(batch=2)
        self.hand(self.a, self.b)
        self.assertEqual(self.fetched(batch=1), [2])
        self.wait(self.commit())
        self.assertEqual(self.place(), 3)

    def test_handed_over_never_asked(self):
        """And so they are by a node that was never asked for them."""
        self.publish(count=4)
        self.subscribed()
        self.fetch(batch=2)
        self.hand(self.a, self.b)
        self.hand(self.b, self.a)
        self.assertEqual(self.fetched(), [2, 3])

    def test_read_waits(self):
        """A read that waits, also one for its turn, ends Moved; nothing of it was done."""
        self.publish()
        self.subscribed()
        out = self.wait(self.read())
        waiting = self.read(timeout=60_000)
        parcel = self.a.subscriber.hand_over(self.a.slot)
        self.failureResultOf(waiting, Moved)
        self.assertNoResult(parcel)
        self.assertTrue(out.stands())
        out.settle(1)
        self.wait(self.a.membership.release(self.a.slot))
        self.b.take(self.wait(parcel))
        self.on(self.b)
        self.assertEqual(self.fetched(), [])
        self.publish()
        self.assertEqual(self.fetched(), [1])

    def test_not_written_by_then(self):
        """What is not written when the slot leaves does not stand any more, and comes again."""
        self.publish(count=2)
        self.subscribed()
        out = self.wait(self.read())
        parcel = self.a.subscriber.hand_over(self.a.slot)
        self.clock.advance(2_001)
        self.assertFalse(out.stands())
        self.wait(self.a.membership.release(self.a.slot))
        self.b.take(self.wait(parcel))
        out.settle(2)
        self.on(self.b)
        self.assertEqual(self.fetched(), [0, 1])

    def test_died(self):
        """After a death the next owner begins at what was committed, and dismisses who does not come back."""
        self.publish(count=4)
        self.subscribed()
        self.fetch(batch=3)
        self.wait(self.commit(p0=1))
        self.a.expire()
        for slot in range(SLOTS):
            self.b.take(slot=slot)
        self.on(self.b)
        self.assertEqual(self.fetched(), [1, 2, 3])
        self.a.wake()
        self.clock.advance(SESSION_MS)
        self.assertEqual(self.b.metrics.get_sample_value("psubd_instances"), 1)
        self.clock.advance(300_001)
        self.assertEqual(self.b.metrics.get_sample_value("psubd_instances"), 0)

    def test_stood_still(self):
        """A node whose lease has ended gives nothing and commits nothing; what it was writing is broken off."""
        self.publish(count=2)
        self.subscribed()
        out = self.wait(self.read())
        self.a.membership.end_lease()
        self.assertFalse(out.stands())
        self.failureResultOf(self.commit(), OwnershipInDoubt)
        self.failureResultOf(self.read(), OwnershipInDoubt)
        out.settle(0)


class SwitchboardTests(Circle, ManyNodes):
    """All of it from whichever node is asked."""

    asked = 0

    @property
    def consumers(self):
        """Another node each time."""
        running = [node for node in self.nodes if node.running]
        self.asked += 1
        return running[self.asked % len(running)].board

    def grant(self):
        return self.nodes[-1].grant()

    def wait(self, deferred):
        self.settle()
        return super().wait(deferred)

    def fetch(self, id="c1", **settings):
        found = super().fetch(id, **settings)
        self.settle()
        return found

    def test_round_robin(self):
        """Made at one node, read at the next, committed at the one after."""
        self.publish(count=4)
        self.subscribed()
        self.assertEqual(self.fetched(batch=2), [0, 1])
        self.wait(self.commit())
        self.assertEqual(self.place(), 2)
        self.assertEqual(self.fetched(batch=1), [2])
        self.assertEqual(self.committed_of().offset, 2)
        self.assertEqual(self.wait(self.commit(p0=3, metadata="mine"))[0].consumed, 2)
        self.assertEqual(self.committed_of().metadata, "mine")
        self.wait(self.seek(0))
        self.wait(self.seek(("time", 0)))
        self.assertEqual(self.fetched(), [0, 1, 2, 3])
        self.assertEqual(self.partitions(), [0, 1, 2])
        self.wait(self.dismiss())
        self.failureResultOf(self.settled(self.read()), InstanceMissing)

    def settled(self, deferred):
        self.settle()
        return deferred

    def test_broken_elsewhere(self):
        """What another node did not wholly write comes again."""
        self.publish(count=2)
        self.subscribed()
        delivery = self.wait(self.other("shop.g").board.read(self.grant(), "shop.g", "c1", self.ask()))
        delivery.settle(1)
        self.settle()
        self.assertEqual(self.fetched(), [0, 1])

    def ask(self, timeout=0):
        return Poll("shop.g", None, 100, timeout_ms=timeout)

    def test_owner_dies(self):
        """When the owner dies another node goes on from what was committed, under the same id; a read that waits goes on there."""
        self.publish(count=3)
        self.join("c")
        self.pass_time(8_000)
        self.subscribed()
        self.fetch(batch=2)
        self.wait(self.commit(p0=1))
        owner, other = self.owner("shop.g"), self.other("shop.g")
        owner.die()
        reading = other.board.read(other.grant(), "shop.g", "c1", self.ask(60_000))
        self.pass_time(30_000)
        delivery = self.wait(reading)
        self.assertEqual(offsets(delivery.messages), [1, 2])
        delivery.settle(2)
        self.settle()
        self.assertEqual(self.fetched(), [])

    def test_slot_moves(self):
        """A read that waits while the slot goes to another node goes on there, and nothing is given twice."""
        self.publish(count=2)
        self.subscribed()
        self.assertEqual(self.fetched(batch=1), [0])
        owner = self.owner("shop.g")
        self.assertEqual(self.fetched(), [1])
        reading = self.other("shop.g").board.read(self.grant(), "shop.g", "c1", self.ask(60_000))
        self.settle()
        self.wait_for_drain(owner)
        self.publish()
        self.pass_time(1_000)
        delivery = self.wait(reading)
        self.assertEqual(offsets(delivery.messages), [2])
        delivery.settle(1)
        self.settle()

    def wait_for_drain(self, owner):
        draining = owner.ownership.drain()
        self.pass_time(5_000)
        self.wait(draining)
        self.assertIsNot(self.owner("shop.g"), owner)
