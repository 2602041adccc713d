"""What is at hand, given without a Deferred: the same messages that a poll would get, and never before somebody who waits for them."""

from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from psubd.model import Poll, Rate
from psubd.services.channels import FIRST_RECORDS, PORTION_RECORDS
from psubd.services.handouts import Hand
from tests.services.house import SubscriberTestCase, places


class AtOnceCase(SubscriberTestCase):
    def at_once(self, group="shop", topics=None, batch=1, grant=None, **settings):
        return self.subscriber.at_once(grant or self.grant(group.partition(".")[0]), Poll(group, topics, batch, **settings))


class AtOnceTests(AtOnceCase):
    def setUp(self):
        super().setUp()
        self.publish(count=5)
        self.assertEqual(self.take(1), [("orders", 0, 0)])  # the group is loaded, and has read on

    def test_what_is_at_hand(self):
        """The next message, whole; done once it is settled."""
        delivery = self.at_once()
        self.assertEqual(places(delivery), [("orders", 0, 1)])
        self.assertEqual((delivery.messages[0].attempt, delivery.messages[0].token, delivery.next), (1, None, None))
        self.assertTrue(delivery.stands())
        delivery.settle(1)
        self.clock.advance(500)
        self.assertEqual(self.committed()["orders", 0], 2)

    def test_given_back(self):
        """What was not handed over comes again, first, as the same attempt."""
        self.at_once(batch=2).settle(1)
        delivery = self.at_once()
        self.assertEqual((places(delivery), delivery.messages[0].attempt), ([("orders", 0, 1)], 1))

    def test_cannot_be_made(self):
        """An answer that a bug of ours keeps from being made gives all its messages back: they come again, first, as the same attempt."""

        def broken(hand):
            raise RuntimeError("a bug")

        with mock.patch.object(Hand, "messages", broken):
            self.assertRaises(RuntimeError, self.at_once, batch=2)
        delivery = self.at_once(batch=2)
        self.assertEqual((places(delivery), delivery.messages[0].attempt), ([("orders", 0, 1), ("orders", 0, 2)], 1))

    def test_explicit(self):
        """A message that is leased has its token, and counts as leased until that is shown."""
        delivery = self.at_once(ack="explicit", batch=2)
        delivery.settle(2)
        self.assertEqual(self.metric("psubd_leases_out"), 2)
        self.assertEqual(self.ack(*delivery.messages), (2, []))
        self.assertEqual(self.metric("psubd_leases_out"), 0)

    def test_as_many_as_asked_for(self):
        """A batch, within its bytes."""
        self.assertEqual(len(self.at_once(batch=3).messages), 3)
        self.assertEqual(len(self.at_once(batch=10).messages), 1)
        self.publish(count=5, size=1000)
        self.assertEqual(len(self.at_once(batch=10, max_bytes=2048).messages), 2)

    def test_nothing_at_hand(self):
        """None where nothing is there, and for a group that is not loaded: nobody is made to wait, and nothing is kept of the ask."""
        self.drain()
        self.assertIsNone(self.at_once())
        self.assertIsNone(self.at_once(group="shop.other"))
        self.assertEqual((self.metric("psubd_polls_waiting"), self.metric("psubd_groups_loaded")), (0, 1))

    def test_who_may_not(self):
        """None for whom a poll would refuse: another's group, a topic that is not bound, a key that was replaced, while it stops."""
        former, owner = self.grant(), self.grant("owner")
        self.create_topic("secrets")
        self.assertIsNone(self.at_once(grant=owner))
        self.assertIsNone(self.at_once(topics=("orders", "secrets")))
        self.wait(self.registrar.rotate("shop", "subkey", 0, "test", None))
        self.assertIsNone(self.at_once(grant=former))
        self.keys["shop"] = {**self.keys["shop"], "subkey": self.wait(self.registrar.rotate("shop", "subkey", 0, "test", None))[1]}
        self.assertEqual(places(self.at_once()), [("orders", 0, 1)])
        present = self.grant()
        self.wait(self.subscriber.stop())
        self.assertIsNone(self.at_once(grant=present))

    def test_revoked(self):
        """Not a message after the binding went, nor of what another binding of the same topic may not read."""
        self.unbind("shop", "orders")
        self.assertIsNone(self.at_once())

    def test_rate(self):
        """A rate in debt counts here too, and what is given here is taken from it."""
        self.bind("shop", "orders", start="earliest", rate=Rate(messages_per_s=2))
        self.at_once(batch=2).settle(2)
        self.assertIsNone(self.at_once())
        self.clock.advance(1000)
        self.assertEqual(places(self.at_once()), [("orders", 0, 3)])

    def test_bytes_of_a_rate(self):
        """Taken by size, into debt."""
        self.bind("shop", "orders", start="earliest", rate=Rate(bytes_per_s=15))
        self.at_once(batch=3).settle(3)
        self.assertIsNone(self.at_once())
        self.clock.advance(1000)
        self.assertIsNone(self.at_once())
        self.clock.advance(1100)
        self.assertIsNotNone(self.at_once())

    def test_contested(self):
        """Nothing while somebody else has the group in the storage."""
        self.storage.members.add("shop")
        self.at_once().settle(1)
        self.clock.advance(500)
        self.assertIsNone(self.at_once())
        self.storage.members.clear()
        self.clock.advance(10_000)
        self.assertIsNotNone(self.at_once())

    def test_counted(self):
        """It counts as delivered, and the group as used."""
        before = self.metric("psubd_delivered_messages_total", topic="orders")
        self.at_once(batch=2).settle(2)
        self.assertEqual(self.metric("psubd_delivered_messages_total", topic="orders"), before + 2)

    def test_beside_those_that_wait(self):
        """Who waits for another topic does not keep anybody from this one."""
        self.create_topic("empty")
        self.bind("shop", "empty", start="earliest")
        waiting = self.poll(topics=("empty",))
        self.assertEqual(places(self.at_once(topics=("orders",))), [("orders", 0, 1)])
        self.publish("empty")
        self.assertEqual(self.got(waiting), [("empty", 0, 0)])


class SameTests(AtOnceCase):
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(1, 40)), max_size=25),
        st.lists(st.integers(1, 6), max_size=25),
        st.booleans(),
    )
    def test_as_by_polls(self, published, batches, ordered):
        """A group that is served at once gets the same messages in the same order, answer by answer, as one whose polls go the long way."""
        self.tearDown()
        self.setUp()
        self.create_topic("more", 2)
        for topic in ("orders", "more"):
            self.bind("shop", topic, start="earliest", ordered=ordered)
        for partition, key, size in published:
            topic = "orders" if key % 2 else "more"
            self.publish(topic, partition % (3 if key % 2 else 2), size=size, key=b"%d" % key)
        quick, slow = [], []
        for batch in batches:
            ask = {"batch": batch, "timeout_ms": 0, "max_bytes": 60}
            delivery = self.at_once(group="shop.quick", **ask) or self.wait(self.poll(group="shop.quick", batch=batch, timeout=0, max_bytes=60))
            quick.append(places(delivery))
            delivery.settle(len(delivery.messages))
            delivery = self.wait(self.poll(group="shop.slow", batch=batch, timeout=0, max_bytes=60))
            slow.append(places(delivery))
            delivery.settle(len(delivery.messages))
        self.assertEqual(quick, slow)


class PortionTests(AtOnceCase):
    def setUp(self):
        super().setUp()
        self.asked = []
        read = self.storage.read
        self.patch(self.storage, "read", lambda *ask: (self.asked.append(ask[3]), read(*ask))[1])

    def test_little_for_who_takes_little(self):
        """A group that takes one message reads no more than a few ahead, however many there are."""
        self.publish(count=5000)
        self.take(1)
        self.assertLessEqual(sum(self.asked), 3 * FIRST_RECORDS)

    def test_more_for_who_goes_on(self):
        """Each read that comes full is followed by a larger one, up to a bound; the next begins before what is at hand is used up."""
        self.publish(count=12_000)
        self.take(1)
        for _ in range(11_000):
            delivery = self.at_once()
            self.assertIsNotNone(delivery)  # never has to wait for the storage
            delivery.settle(1)
        self.assertEqual(max(self.asked), PORTION_RECORDS)
        self.assertEqual(self.asked, sorted(self.asked))

    def test_a_batch_is_read_at_a_time(self):
        """Who asks for many gets them in one answer."""
        self.publish(count=1500)
        self.assertEqual(len(self.take(1500)), 1500)

    def test_memory_that_was_given_back(self):
        """After its window was shed a group begins small again."""
        self.publish(count=5000)
        self.take(1000)
        self.subscriber._live["shop"].shed()
        self.subscriber._live["shop"].appetite = 1
        del self.asked[:]
        self.take(1)
        self.assertEqual(self.asked[0], FIRST_RECORDS)
