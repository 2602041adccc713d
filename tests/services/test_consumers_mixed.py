"""Consumer instances and clients of the sub endpoint in one group: nobody gets what another holds."""

from psubd.errors import StorageUnavailable
from psubd.model import Record
from psubd.services.letters import REDRIVE_GROUP
from tests.services.circle import Circle
from tests.services.house import SubscriberTestCase, offsets


class MixedTests(Circle, SubscriberTestCase):
    def test_reserved(self):
        """While an instance has a partition, polls of the group get nothing of it; other groups do, and it comes back when the instance leaves."""
        self.publish(count=2)
        self.subscribed()
        self.assertEqual(self.take(group="shop.g"), [])
        self.assertEqual(self.take(group="shop.h"), [("orders", 0, 0), ("orders", 0, 1)])
        waiting = self.poll(group="shop.g")
        self.assertNoResult(waiting)
        self.wait(self.dismiss())
        self.assertEqual(self.got(waiting), [("orders", 0, 0)])

    def test_others(self):
        """Partitions that no instance wants go on to polls."""
        self.publish(partition=0)
        self.publish(partition=1)
        self.wait(self.enlist())
        self.assign("c1", 0)
        self.assertEqual(self.take(group="shop.g"), [("orders", 1, 0)])
        self.assertEqual(self.fetch(), [("orders", 0, 0)])

    def test_waiting_poll(self):
        """A poll that waits when an instance subscribes gets nothing of its partitions any more."""
        waiting = self.poll(group="shop.g", timeout=1_000)
        self.subscribed()
        self.publish()
        self.assertNoResult(waiting)
        self.clock.advance(1_001)
        self.assertEqual(self.got(waiting), [])
        self.assertEqual(self.fetched(), [0])

    def test_leased_before(self):
        """What clients hold when the partition comes to an instance stays theirs: it stops before the first such message, and skips what they ack."""
        self.publish(count=5)
        held = self.lease(group="shop.g", count=3)
        self.subscribed()
        self.assertEqual(self.fetched(), [])
        self.ack(held[0])
        self.assertEqual(self.fetched(), [])
        self.ack(held[1], held[2])
        self.assertEqual(self.fetched(), [3, 4])
        self.wait(self.commit())
        self.assertEqual(self.place(), 5)

    def test_wakes(self):
        """An instance that waits for such a message is given it as soon as it came back, or what follows once it is done."""
        self.publish(count=3)
        held = self.lease(group="shop.g", count=2)
        self.subscribed()
        reading = self.read(timeout=60_000)
        self.nack(held[0])
        self.gives(reading, 0)
        reading = self.read(timeout=60_000)
        self.ack(held[1])
        self.gives(reading, 2)

    def test_lapses(self):
        """A lease that lapses gives its message to the instance."""
        self.publish(count=2)
        self.lease(group="shop.g", count=1, ack_timeout_ms=5_000)
        self.subscribed()
        reading = self.read(timeout=60_000)
        self.assertNoResult(reading)
        self.clock.advance(5_001)
        self.gives(reading, 0, 1)

    def test_delayed(self):
        """A message that waits after a nack is waited for."""
        self.publish(count=2)
        [held] = self.lease(group="shop.g", count=1)
        self.nack(held, delay=5_000)
        self.subscribed()
        reading = self.read(timeout=60_000)
        self.assertNoResult(reading)
        self.clock.advance(5_001)
        self.gives(reading, 0, 1)

    def test_written_before(self):
        """An answer in auto mode that is being written at that moment is waited for, whichever way it ends."""
        self.publish(count=3)
        delivery = self.wait(self.poll(group="shop.g", batch=2))
        self.subscribed()
        reading = self.read(timeout=60_000)
        self.assertNoResult(reading)
        delivery.settle(2)
        given = self.wait(reading)
        self.assertEqual(offsets(given.messages), [2])
        given.settle(1)

    def test_written_before_broken(self):
        """What it does not take comes to the instance."""
        self.publish(count=3)
        delivery = self.wait(self.poll(group="shop.g", batch=2))
        self.subscribed()
        reading = self.read(timeout=60_000)
        delivery.settle(1)
        given = self.wait(reading)
        self.assertEqual(offsets(given.messages), [0, 1, 2])
        given.settle(3)

    def test_dead_letter(self):
        """A message on its way to the dead-letter topic is waited for, and skipped once it is there."""
        self.create_topic("dead")
        self.bind("shop", "orders", max_attempts=2, dead_letter="dead", ack="explicit")
        self.publish(count=2)
        [held] = self.lease(group="shop.g", count=1)
        self.storage.failing["publish dead"] = StorageUnavailable("away")
        self.nack(held, dead=True)
        self.subscribed()
        self.assertEqual(self.fetched(), [])
        reading = self.read(timeout=60_000)
        self.storage.failing.clear()
        for _ in range(10):
            self.clock.advance(1_000)
        self.gives(reading, 1)

    def test_done_past_a_hole(self):
        """What is done past a hole is skipped, by the next process too."""
        self.publish(count=4)
        held = self.lease(group="shop.g", count=4)
        self.ack(held[1], held[3])
        self.nack(held[0])
        self.nack(held[2])
        self.clock.advance(501)
        self.crash()
        self.subscribed()
        self.assertEqual(self.fetched(), [0, 2])
        self.wait(self.commit())
        self.assertEqual(self.place(), 4)

    def test_sought(self):
        """Who sought gets what stands there, done or not; never what is leased at that moment."""
        self.publish(count=4)
        held = self.lease(group="shop.g", count=3)
        self.ack(held[0], held[1])
        self.subscribed()
        self.wait(self.seek(0))
        self.assertEqual(self.fetched(), [0, 1])
        self.nack(held[2])
        self.assertEqual(self.fetched(), [2, 3])

    def test_ordered(self):
        """On an ordered binding the instance waits for the message of a key that is out, and gets the next one of it after that."""
        self.bind("shop", "orders", ordered=True, ack="explicit")
        self.publish(key=b"a")
        self.publish(key=b"a")
        self.publish(key=b"b")
        held = self.lease(group="shop.g", count=3)
        self.assertEqual(offsets(held), [0, 2])
        self.subscribed()
        self.assertEqual(self.fetched(), [])
        self.ack(held[0])
        self.assertEqual(self.fetched(), [1])
        self.ack(held[1])
        self.publish(key=b"a")
        self.assertEqual(self.fetched(), [3])
        self.wait(self.commit())
        self.wait(self.dismiss())
        self.publish(key=b"a")
        self.assertEqual(offsets(self.lease(group="shop.g", count=2)), [4])

    def test_commit_over_leases(self):
        """A commit past what clients hold makes it done: their acks are safe, and nothing of it comes again."""
        self.publish(count=3)
        held = self.lease(group="shop.g", count=2)
        self.subscribed()
        self.wait(self.commit(p0=3))
        self.assertEqual(self.ack(*held), (2, []))
        self.wait(self.dismiss())
        self.assertEqual(self.drain(group="shop.g"), [])

    def test_comes_back(self):
        """What the instance read and did not commit goes to polls after it left, in order, as never tried."""
        self.publish(count=3)
        self.subscribed()
        self.fetch(batch=2)
        self.wait(self.commit(p0=1))
        self.wait(self.dismiss())
        delivery = self.wait(self.poll(group="shop.g", batch=10))
        self.assertEqual([(each.message.offset, each.attempt) for each in delivery.messages], [(1, 1), (2, 1)])
        delivery.settle(2)

    def test_redriven(self):
        """Messages that were redriven for another group are not for it."""
        records = [Record("orders", b"x", None, ((REDRIVE_GROUP, name),), 0) for name in (b"shop.h", b"shop.g")]
        self.wait(self.storage.publish(records, "all"))
        self.subscribed()
        self.assertEqual(self.fetched(), [1])

    def test_reset(self):
        """A reset by hand moves the instance along; it keeps the partition."""
        self.publish(count=4)
        self.subscribed()
        self.fetch()
        self.wait(self.commit())
        self.wait(self.subscriber.reset("shop.g", "orders", [0], {0: 1}, False, "test"))
        self.assertEqual(self.take(group="shop.g"), [])
        self.assertEqual(self.fetched(), [1, 2, 3])

    def test_reset_while_read(self):
        """A read that waits goes on where the reset points."""
        self.publish(count=4)
        self.subscribed()
        self.fetch()
        reading = self.read(timeout=60_000)
        self.wait(self.subscriber.reset("shop.g", "orders", [0], {0: 3}, False, "test"))
        self.gives(reading, 3)

    def test_rebound(self):
        """Another delivery setting of the binding changes nothing for it."""
        self.publish(count=2)
        self.subscribed()
        self.fetch(batch=1)
        self.bind("shop", "orders", ack="explicit", ordered=True)
        self.assertEqual(self.take(group="shop.g"), [])
        self.assertEqual(self.fetched(), [1])

    def test_loaded_by_a_poll(self):
        """Whoever loads the group finds its instances: a poll gets nothing of what is theirs, from the first on."""
        self.publish(count=2)
        self.subscribed()
        self.crash()
        self.assertEqual(self.take(group="shop.g"), [])
        self.assertEqual(self.fetched(), [0, 1])

    def test_window_given_back(self):
        """What was read ahead for polls is given back when the partition goes to an instance."""
        self.publish(count=50, size=1000)
        self.lease(group="shop.g", count=1)
        self.assertGreater(self.subscriber._windows.held, 40_000)
        self.subscribed()
        self.assertEqual(self.subscriber._windows.held, 0)
