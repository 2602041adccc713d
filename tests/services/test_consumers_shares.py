"""Consumer instances: who there is, what they read, and who has which partition."""

from psubd.errors import (
    BadCredentials,
    BadParameter,
    IllegalState,
    InstanceExists,
    InstanceMissing,
    NoPlace,
    PartitionMissing,
    RegistryUnavailable,
    TopicMissing,
    TopicNotBound,
)
from psubd.model import Wish
from tests.services.circle import SPEC, Circle, at
from tests.services.house import SubscriberTestCase, offsets, places


class InstanceTests(Circle, SubscriberTestCase):
    def test_made_twice(self):
        """An id is one instance's; after it left, another's."""
        self.wait(self.enlist())
        self.failureResultOf(self.enlist(), InstanceExists)
        self.wait(self.dismiss())
        self.failureResultOf(self.dismiss(), InstanceMissing)
        self.wait(self.enlist())
        self.assertEqual(self.metric("psubd_instances"), 1)

    def test_wish_at_once(self):
        """It may be subscribed as it is made."""
        self.publish()
        self.wait(self.enlist(wish=Wish(topics=("orders",))))
        self.assertEqual(self.fetched(), [0])

    def test_anothers_group(self):
        """A group of another application is refused, and so is a grant that holds no longer."""
        self.failureResultOf(self.enlist(group="owner.g"), BadParameter)
        grant = self.grant()
        self.wait(self.registrar.delete_application("shop", True, "test", None))
        self.failureResultOf(self.subscriber.enlist(grant, "shop.g", "c1", SPEC), BadCredentials)

    def test_too_much(self):
        """One instance names at most 1,000 topics or partitions; what is more is refused, and nothing has changed."""
        self.subscribed()
        self.failureResultOf(self.wish(topics=tuple(f"t{number}" for number in range(1001))), BadParameter)
        self.assertEqual(self.look().topics, ("orders",))
        self.wait(self.wish(topics=("orders",) * 1001))

    def test_bound_to_nothing(self):
        """An application that is bound to nothing may have instances; they just cannot subscribe."""
        self.unbind("shop", "orders")
        self.wait(self.enlist())
        self.failureResultOf(self.wish(topics=("orders",)), TopicNotBound)

    def test_stands(self):
        """How it stands: what it asked for, what that is today, and what it has."""
        self.subscribed()
        standing = self.look()
        self.assertEqual(standing.topics, ("orders",))
        self.assertEqual(standing.partitions, (at(0), at(1), at(2)))
        self.assertEqual((standing.spec.dialect, standing.spec.wish.topics, standing.spec.auto_commit), (2, ("orders",), False))

    def test_deleted_group(self):
        """A group that is deleted takes its instances along; those that read are told."""
        self.subscribed()
        reading = self.read(timeout=30_000)
        self.wait(self.subscriber.forget_group("shop.g", "test"))
        self.failureResultOf(reading, InstanceMissing)
        self.failureResultOf(self.read(), InstanceMissing)

    def test_deleted_before_it_began(self):
        """So does one that never began on a topic."""
        self.wait(self.enlist())
        self.wait(self.subscriber.forget_group("shop.g", "test"))
        self.failureResultOf(self.read(), InstanceMissing)

    def test_deleted_application(self):
        """And so does an application."""
        self.subscribed()
        self.wait(self.registrar.delete_application("shop", True, "test", None))
        self.create_application("shop")
        self.bind("shop", "orders")
        self.failureResultOf(self.read(), InstanceMissing)
        self.assertEqual(self.metric("psubd_instances"), 0)

    def test_registry_fails(self):
        """Where the registry cannot be written nothing is made."""
        self.registry.refuse = RegistryUnavailable("away")
        self.failureResultOf(self.enlist(), RegistryUnavailable)
        self.registry.refuse = None
        self.failureResultOf(self.read(), InstanceMissing)


class IdleTests(Circle, SubscriberTestCase):
    settings = {"instance_timeout_ms": 10_000}

    def test_discarded(self):
        """An instance that nobody called for its time is discarded; any call renews it."""
        self.subscribed()
        for _ in range(3):
            self.clock.advance(9_000)
            self.look()
        self.clock.advance(9_999)
        self.assertEqual(self.metric("psubd_instances"), 1)
        self.clock.advance(2)
        self.assertEqual(self.metric("psubd_instances"), 0)
        self.assertEqual(self.metric("psubd_instances_discarded_total"), 1)
        self.failureResultOf(self.read(), InstanceMissing)
        self.wait(self.enlist())

    def test_reads_are_calls(self):
        """A read that waits, or is being written, is a call until it ends."""
        self.publish()
        self.subscribed()
        delivery = self.wait(self.read())
        self.clock.advance(25_000)
        delivery.settle(1)
        reading = self.read(timeout=25_000)
        self.clock.advance(25_001)
        self.assertEqual(places(self.wait(reading)), [])
        self.clock.advance(9_000)
        self.assertEqual(self.fetched(), [])
        self.assertEqual(self.metric("psubd_instances"), 1)

    def test_registry_away(self):
        """One that cannot be discarded now is later."""
        self.subscribed()
        self.registry.refuse = RegistryUnavailable("away")
        self.clock.advance(10_001)
        self.assertEqual(self.metric("psubd_instances"), 1)
        self.registry.refuse = None
        self.clock.advance(1_001)
        self.assertEqual(self.metric("psubd_instances"), 0)

    def test_comes_again(self):
        """What a discarded instance read and did not commit comes again, to who is left."""
        self.publish(partition=0, count=2)
        self.publish(partition=1, count=2)
        self.publish(partition=2, count=2)
        self.subscribed()
        self.fetch()
        self.clock.advance(5_000)
        self.subscribed("c2")
        self.clock.advance(5_001)
        self.assertEqual(self.partitions("c2"), [0, 1, 2])
        self.assertEqual(len(self.fetch("c2")), 6)

    def test_in_memory(self):
        """A group that has instances stays in memory, until they left."""
        self.subscribed()
        for _ in range(12):
            self.clock.advance(9_000)
            self.look()
        self.assertEqual(self.subscriber.loaded(), 1)
        self.clock.advance(10_001)
        self.clock.advance(90_000)
        self.clock.advance(15_001)
        self.assertEqual(self.subscriber.loaded(), 0)

    def test_idle_costs_nothing(self):
        """An instance that nobody reads with asks nothing of the storage."""
        self.publish(count=10)
        self.subscribed()
        self.fetch()
        self.clock.advance(501)
        calls = dict(self.storage.calls)
        self.publish(count=10)
        self.clock.advance(5_000)
        del self.storage.calls["publish"], calls["publish"]
        self.assertEqual(self.storage.calls, calls)


class WishTests(Circle, SubscriberTestCase):
    def test_exclude(self):
        """Subscribed and assigned by hand exclude each other until it wishes for nothing."""
        self.subscribed()
        self.failureResultOf(self.wish(partitions=(at(0),)), IllegalState)
        self.assertEqual(self.partitions(), [0, 1, 2])
        self.wait(self.wish())
        self.assertEqual(self.look().partitions, ())
        self.assign("c1", 0)
        self.failureResultOf(self.wish(topics=("orders",)), IllegalState)
        self.failureResultOf(self.wish(pattern=".*"), IllegalState)
        self.assertEqual(self.partitions(), [0])
        self.wait(self.wish())
        self.failureResultOf(self.wish(topics=("orders",), pattern=".*"), BadParameter)

    def test_another(self):
        """A second subscription replaces the first."""
        self.create_topic("bills")
        self.bind("shop", "bills")
        self.subscribed()
        self.wait(self.wish(topics=("bills",)))
        self.assertEqual(self.look().partitions, (at(0, "bills"),))
        self.publish()
        self.assertEqual(self.take(group="shop.g"), [("orders", 0, 0)])

    def test_refused(self):
        """A topic that is not bound, gone, or has no such partition is refused, and nothing changes."""
        self.subscribed()
        self.failureResultOf(self.wish(topics=("orders", "bills")), TopicNotBound)
        self.create_topic("bills")
        self.bind("shop", "bills")
        self.wait(self.storage.delete_topic("bills"))
        self.failureResultOf(self.wish(topics=("orders", "bills")), TopicMissing)
        self.failureResultOf(self.wish(pattern="("), BadParameter)
        self.failureResultOf(self.wish(pattern="a" * 257), BadParameter)
        self.assertEqual(self.look().topics, ("orders",))
        self.wait(self.enlist("c2"))
        self.failureResultOf(self.wish("c2", partitions=(at(3),)), PartitionMissing)

    def test_pattern(self):
        """A pattern matches whole names of bound topics, and what is bound later."""
        for topic in ("bills.eu", "bills.us", "more.bills.eu", "bills.cn"):
            self.create_topic(topic)
        self.bind("shop", "bills.eu")
        self.bind("shop", "more.bills.eu")
        self.wait(self.enlist())
        self.wait(self.wish(pattern="bills\\.[a-z]+"))
        self.assertEqual(self.look().topics, ("bills.eu",))
        reading = self.read(timeout=30_000)
        self.bind("shop", "bills.us", start="latest")
        self.publish("bills.us")
        delivery = self.wait(reading)
        self.assertEqual(places(delivery), [("bills.us", 0, 0)])
        delivery.settle(1)
        self.unbind("shop", "bills.eu")
        self.assertEqual(self.look().topics, ("bills.us",))

    def test_pattern_of_nothing(self):
        """A pattern that matches nothing reads nothing."""
        self.wait(self.enlist())
        self.wait(self.wish(pattern="nothing"))
        self.assertEqual(self.fetch(), [])

    def test_begins(self):
        """A group begins on a topic that is new to it where the instance says, whatever the binding says, by the time the wish is granted."""
        self.bind("shop", "orders", start="latest")
        self.publish(count=2)
        self.subscribed("c1", reset="earliest")
        self.assertEqual(self.fetched(), [0, 1])
        self.enlist_latest()
        self.publish(count=1)
        self.assertEqual(self.fetched("c2", group="shop.h"), [2])

    def enlist_latest(self):
        self.subscribed("c2", group="shop.h", reset="latest")

    def test_own_group(self):
        """The application's own group has its place from the binding on."""
        self.publish(count=2)
        self.subscribed(group="shop", reset="latest")
        self.assertEqual(self.fetched(group="shop"), [0, 1])

    def test_no_place(self):
        """With no reset the group must have a place."""
        self.wait(self.enlist(reset=None))
        self.failureResultOf(self.wish(topics=("orders",)), NoPlace)
        self.failureResultOf(self.wish(partitions=(at(0),)), NoPlace)
        self.subscribed("c2")
        self.wait(self.wish(topics=("orders",)))

    def test_no_place_later(self):
        """So must it on a topic that a pattern matches later."""
        self.wait(self.enlist(reset=None))
        self.wait(self.wish(pattern="bills"))
        self.create_topic("bills")
        self.bind("shop", "bills")
        self.failureResultOf(self.read(), NoPlace)

    def test_no_place_for_a_poll(self):
        """A poll begins where the binding says, whatever instances say that may not begin there."""
        self.create_topic("bills")
        self.wait(self.enlist(reset=None))
        self.wait(self.wish(pattern="bills"))
        self.bind("shop", "bills")
        self.assertEqual(self.take(group="shop.g", topics=["bills"]), [])
        self.publish("bills")
        self.assertEqual(self.fetch(), [("bills", 0, 0)])


class ShareTests(Circle, SubscriberTestCase):
    def test_shared_out(self):
        """Partitions are shared out evenly; nobody gets what another has."""
        for partition in range(3):
            self.publish(partition=partition)
        self.subscribed()
        self.subscribed("c2")
        shares = self.partitions(), self.partitions("c2")
        self.assertEqual(sorted(shares[0] + shares[1]), [0, 1, 2])
        self.assertEqual(sorted(map(len, shares)), [1, 2])
        found = self.fetch() + self.fetch("c2")
        self.assertEqual(sorted(found), [("orders", 0, 0), ("orders", 1, 0), ("orders", 2, 0)])

    def test_joins(self):
        """What is due to one that joins goes there at once where nothing of it is owed, else when it is committed."""
        for partition in range(3):
            self.publish(partition=partition)
        self.subscribed()
        self.fetch()
        self.subscribed("c2")
        self.assertEqual((self.partitions(), self.partitions("c2")), ([0, 1, 2], []))
        self.publish(partition=0)
        self.publish(partition=1)
        self.publish(partition=2)
        waiting = self.read("c2", timeout=30_000)
        self.wait(self.commit())
        delivery = self.wait(waiting)
        self.assertEqual(offsets(delivery.messages), [1])
        delivery.settle(1)
        self.assertEqual(sorted(self.partitions() + self.partitions("c2")), [0, 1, 2])

    def test_holds_back(self):
        """Of what is due to another the holder gets no more."""
        self.subscribed()
        for partition in range(3):
            self.publish(partition=partition)
        self.fetch()
        self.subscribed("c2")
        for partition in range(3):
            self.publish(partition=partition)
        found = {partition for _, partition, _ in self.fetch()}
        self.wait(self.commit())
        self.assertEqual(found, set(self.partitions()))

    def test_patience(self):
        """Whoever waits for a partition has it after the binding's ``ack_timeout_ms``; what was not committed comes again, and who read it is told,
        once."""
        self.bind("shop", "orders", ack_timeout_ms=20_000)
        for partition in range(3):
            self.publish(partition=partition)
        self.subscribed()
        self.fetch()
        self.subscribed("c2")
        self.clock.advance(19_000)
        self.assertEqual(self.partitions("c2"), [])
        self.clock.advance(1_001)
        [moved] = self.partitions("c2")
        self.assertEqual(self.fetch("c2"), [("orders", moved, 0)])
        self.failureResultOf(self.commit(), IllegalState)
        kept = [partition for partition in range(3) if partition != moved]
        self.assertEqual([self.place(partition) for partition in kept], [1, 1])
        self.assertEqual(self.place(moved), 0)
        self.wait(self.commit())

    def test_patience_written(self):
        """One that is being written at that moment goes once it is settled."""
        self.bind("shop", "orders", ack_timeout_ms=20_000)
        for partition in range(3):
            self.publish(partition=partition)
        self.subscribed()
        delivery = self.wait(self.read())
        self.subscribed("c2")
        self.clock.advance(20_001)
        self.assertEqual(self.partitions("c2"), [])
        self.assertTrue(delivery.stands())
        delivery.settle(3)
        self.assertEqual(len(self.partitions("c2")), 1)

    def test_broken_goes(self):
        """One that comes back unwritten goes at once."""
        for partition in range(3):
            self.publish(partition=partition)
        self.subscribed()
        delivery = self.wait(self.read())
        self.subscribed("c2")
        self.assertEqual(self.partitions("c2"), [])
        delivery.settle(0)
        self.assertEqual(len(self.partitions("c2")), 1)

    def test_auto_goes(self):
        """In auto-commit it goes with the next read."""
        for partition in range(3):
            self.publish(partition=partition)
        self.subscribed(auto_commit=True)
        self.fetch()
        self.subscribed("c2")
        self.assertEqual(self.partitions("c2"), [])
        self.fetch()
        self.assertEqual(len(self.partitions("c2")), 1)
        self.assertEqual(self.fetch("c2"), [])

    def test_leaves(self):
        """What one that leaves had goes to the others; what it did not commit comes again."""
        for partition in range(3):
            self.publish(partition=partition)
        self.subscribed()
        self.subscribed("c2")
        mine = self.fetch()
        self.assertEqual(len(self.fetch("c2") + mine), 3)
        self.wait(self.dismiss())
        self.assertEqual(sorted(self.fetch("c2")), sorted(mine))

    def test_leaves_while_written(self):
        """What is being written to one that leaves is broken off."""
        self.publish()
        self.subscribed()
        delivery = self.wait(self.read())
        self.wait(self.dismiss())
        self.assertFalse(delivery.stands())
        delivery.settle(1)
        self.assertEqual(self.take(group="shop.g"), [("orders", 0, 0)])

    def test_by_hand(self):
        """Partitions by hand are not shared out; the one that asked last has it."""
        self.publish(partition=0)
        self.subscribed("c1")
        self.wait(self.enlist("c2"))
        self.assign("c2", 0)
        self.assertEqual((self.partitions("c1"), self.partitions("c2")), ([1, 2], [0]))
        self.wait(self.enlist("c3"))
        self.assign("c3", 0, 1)
        self.assertEqual((self.partitions("c1"), self.partitions("c2"), self.partitions("c3")), ([2], [], [0, 1]))
        self.assertEqual(self.fetch("c3"), [("orders", 0, 0)])
        self.assign("c2", 0)
        self.wait(self.commit("c3"))
        self.assertEqual(self.partitions("c2"), [0])
        self.wait(self.dismiss("c2"))
        self.assertEqual(self.partitions("c3"), [0, 1])

    def test_grown(self):
        """Partitions that are added are shared out too."""
        self.subscribed()
        self.subscribed("c2")
        self.wait(self.storage.grow("orders", 6))
        self.fetch()
        self.clock.advance(200)
        shares = self.partitions(), self.partitions("c2")
        self.assertEqual((sorted(shares[0] + shares[1]), list(map(len, shares))), ([0, 1, 2, 3, 4, 5], [3, 3]))
