"""Consumer instances: what a read gives, and when."""

from psubd.errors import (
    BadCredentials,
    IllegalState,
    InstanceMissing,
    OffsetOutOfRange,
    PartitionMissing,
    RateLimited,
    StorageUnavailable,
    TopicMissing,
    TopicNotBound,
)
from psubd.model import Rate
from tests.services.circle import Circle
from tests.services.house import SubscriberTestCase, offsets, places


class ReadingTests(Circle, SubscriberTestCase):
    def test_reads_on(self):
        """An instance reads on from its own position; what it read is not done before it is committed."""
        self.publish(count=3)
        self.subscribed()
        self.assertEqual(self.fetched(), [0, 1, 2])
        self.publish(count=2)
        self.assertEqual(self.fetched(), [3, 4])
        self.assertEqual(self.fetched(), [])
        self.clock.advance(1)
        self.assertEqual(self.place(), 0)
        self.wait(self.commit())
        self.assertEqual(self.place(), 5)

    def test_in_flight(self):
        """``max_in_flight`` and ``max_attempts`` are not for instances: they read on without a commit."""
        self.create_topic("dead")
        self.bind("shop", "orders", max_in_flight=1, max_attempts=1, dead_letter="dead")
        self.publish(count=3)
        self.subscribed()
        self.assertEqual(self.fetched(batch=2), [0, 1])
        self.wait(self.seek(0))
        self.assertEqual(self.fetched(), [0, 1, 2])

    def test_broken(self):
        """What was not wholly written is given again by the next read, all of it."""
        self.publish(count=3)
        self.subscribed()
        delivery = self.wait(self.read())
        delivery.settle(2)
        self.assertEqual(self.metric("psubd_given_back_total"), 3)
        self.assertEqual(self.fetched(), [0, 1, 2])

    def test_settled_once(self):
        """Only the first word on what became of an answer counts."""
        self.publish(count=1)
        self.subscribed()
        delivery = self.wait(self.read())
        delivery.settle(0)
        delivery.settle(1)
        self.assertEqual(self.fetched(), [0])

    def test_one_at_a_time(self):
        """A second read of the same instance waits for the first to be settled, and goes on after it: they share the messages."""
        self.publish(count=3)
        self.subscribed()
        first = self.wait(self.read(batch=2))
        second = self.read(timeout=1_000)
        self.assertNoResult(second)
        first.settle(2)
        self.gives(second, 2)

    def test_one_at_a_time_broken(self):
        """Where the first was not wholly written, the second gets what it held."""
        self.publish(count=3)
        self.subscribed()
        first = self.wait(self.read(batch=2))
        second = self.read(timeout=1_000)
        first.settle(1)
        self.gives(second, 0, 1, 2)

    def test_turn_timeout(self):
        """A read waits for its turn no longer than it would for a message."""
        self.publish(count=1)
        self.subscribed()
        first = self.wait(self.read())
        second, at_once = self.read(timeout=1_000), self.read()
        self.assertEqual(places(self.wait(at_once)), [])
        self.clock.advance(1)
        self.assertNoResult(second)
        self.clock.advance(1_000)
        self.assertEqual(places(self.wait(second)), [])
        first.settle(0)
        self.assertEqual(self.fetched(), [0])

    def test_turn_left(self):
        """A client that goes while its read waits for its turn is forgotten."""
        self.publish(count=2)
        self.subscribed()
        first = self.wait(self.read(batch=1))
        left, last = self.read(timeout=1_000), self.read(timeout=1_000)
        left.cancel()
        self.failureResultOf(left)
        first.settle(1)
        self.gives(last, 1)

    def test_waits(self):
        """A read answers as soon as there is a message, on any of its partitions."""
        self.subscribed()
        reading = self.read(timeout=30_000)
        self.assertNoResult(reading)
        self.publish(partition=2)
        delivery = self.wait(reading)
        self.assertEqual(places(delivery), [("orders", 2, 0)])
        delivery.settle(1)

    def test_times_out(self):
        """Without a message it is empty once its time is over."""
        self.subscribed()
        reading = self.read(timeout=1_000)
        self.clock.advance(1_001)
        self.assertEqual(places(self.wait(reading)), [])
        self.publish()
        self.assertEqual(self.fetched(), [0])

    def test_min_bytes(self):
        """A read that wants so many bytes waits for them, or its time, and gives what there is then."""
        self.publish(size=10)
        self.subscribed()
        reading = self.read(timeout=1_000, min_bytes=30)
        self.publish(size=10, partition=1)
        self.assertNoResult(reading)
        self.publish(size=10)
        delivery = self.wait(reading)
        self.assertEqual(sorted(places(delivery)), [("orders", 0, 0), ("orders", 0, 1), ("orders", 1, 0)])
        delivery.settle(3)
        self.publish(size=10)
        reading = self.read(timeout=1_000, min_bytes=30)
        self.clock.advance(1_001)
        self.gives(reading, 2)

    def test_min_bytes_memory(self):
        """What it gathers meanwhile counts as read ahead: where memory for that runs out it gives what it has."""
        self.subscribed()
        self.publish(size=1_000)
        reading = self.read(timeout=10_000, min_bytes=5_000)
        self.assertEqual(self.subscriber._windows.held, 1_000)
        self.subscriber._windows.budget = 500
        self.publish(size=10)
        delivery = self.wait(reading)
        self.assertEqual(offsets(delivery.messages), [0, 1])
        self.assertEqual(self.subscriber._windows.held, 0)
        delivery.settle(2)

    def test_bounds(self):
        """At most so many messages and bytes; the first always fits, and none is left out for one that does not."""
        self.publish(size=100)
        self.publish(size=10, count=3)
        self.subscribed()
        self.assertEqual(self.fetched(max_bytes=50), [0])
        self.assertEqual(self.fetched(max_bytes=25), [1, 2])
        self.assertEqual(self.fetched(max_bytes=25, batch=1), [3])

    def test_no_starving(self):
        """A partition that is always full does not keep the others from their turn."""
        for partition in range(3):
            self.publish(partition=partition, count=20)
        self.subscribed()
        turns = [self.fetch(batch=5)[0][1] for _ in range(6)]
        self.assertEqual(sorted(turns[:3]), [0, 1, 2])
        self.assertEqual(turns[:3], turns[3:])

    def test_looks_where_something_came(self):
        """A read that waits on many partitions reads those where something came, and no other."""
        self.wait(self.storage.grow("orders", 40))
        self.subscribed()
        reading = self.read(timeout=30_000, min_bytes=100)
        self.storage.calls.clear()
        self.publish(partition=30, size=60)
        self.publish(partition=7, size=60)
        delivery = self.wait(reading)
        self.assertEqual(sorted(places(delivery)), [("orders", 7, 0), ("orders", 30, 0)])
        self.assertLessEqual(self.storage.calls["read"], 4)
        delivery.settle(2)

    def test_withdrawn(self):
        """A client that goes while its read waits changes nothing."""
        self.subscribed()
        reading = self.read(timeout=1_000)
        reading.cancel()
        self.failureResultOf(reading)
        self.publish()
        self.assertEqual(self.fetched(), [0])

    def test_withdrawn_in_storage(self):
        """Nor one that goes while the storage is read."""
        self.publish()
        self.subscribed()
        self.storage.held.add("read")
        reading = self.read(timeout=1_000)
        reading.cancel()
        self.failureResultOf(reading)
        self.storage.release("read")
        self.clock.advance(1)
        self.assertEqual(self.fetched(), [0])

    def test_storage_fails(self):
        """A storage that fails is told; afterwards it goes on where it was."""
        self.publish()
        self.subscribed()
        self.storage.failing["read"] = StorageUnavailable("away")
        self.failureResultOf(self.read(timeout=1_000), StorageUnavailable)
        self.storage.failing.clear()
        self.assertEqual(self.fetched(), [0])

    def test_nothing_wished(self):
        """An instance that has neither a subscription nor partitions is told."""
        self.wait(self.enlist())
        self.failureResultOf(self.read(timeout=1_000), IllegalState)

    def test_unknown(self):
        """Who was never made, or is another application's, is not there."""
        self.failureResultOf(self.read("nobody"), InstanceMissing)
        self.subscribed()
        self.failureResultOf(self.read("c2"), InstanceMissing)
        self.failureResultOf(self.read("c1", group="shop.other"), InstanceMissing)
        self.assertEqual(self.subscriber.loaded(), 1)

    def test_unbound(self):
        """A topic that is revoked goes at once; the rest is read on; with nothing left it is told."""
        self.create_topic("bills")
        self.bind("shop", "bills")
        self.subscribed(topics=("orders", "bills"))
        reading = self.read(timeout=5_000)
        self.unbind("shop", "orders")
        self.assertNoResult(reading)
        self.publish("bills")
        delivery = self.wait(reading)
        self.assertEqual(places(delivery), [("bills", 0, 0)])
        delivery.settle(1)
        reading = self.read(timeout=5_000)
        self.unbind("shop", "bills")
        self.failureResultOf(reading, TopicNotBound)
        self.failureResultOf(self.read(), TopicNotBound)

    def test_bound_again(self):
        """A topic that is bound again is read again, from where the new binding and the instance say."""
        self.publish(count=2)
        self.subscribed()
        self.assertEqual(self.fetched(), [0, 1])
        self.unbind("shop", "orders")
        self.failureResultOf(self.read(), TopicNotBound)
        self.bind("shop", "orders")
        self.assertEqual(self.fetched(), [0, 1])

    def test_revoked_while_written(self):
        """What is being written of a topic that is revoked is broken off, and is nobody's."""
        self.publish(count=2)
        self.subscribed()
        delivery = self.wait(self.read())
        self.assertTrue(delivery.stands())
        self.unbind("shop", "orders")
        self.assertFalse(delivery.stands())
        delivery.settle(2)

    def test_key_ends(self):
        """A read of a key that ends is refused while it waits."""
        self.subscribed()
        grant = self.grant()
        reading = self.read(timeout=5_000)
        _, self.keys["shop"]["subkey"] = self.wait(self.registrar.rotate("shop", "subkey", 0, "test", None))
        self.failureResultOf(reading, BadCredentials)
        self.failureResultOf(self.subscriber.look(grant, self.group, "c1"), BadCredentials)
        self.assertEqual(self.partitions(), [0, 1, 2])

    def test_rate(self):
        """What is read is taken from the binding's rate; in debt it is refused, later it goes on."""
        self.bind("shop", "orders", rate=Rate(messages_per_s=2))
        self.publish(count=6)
        self.subscribed()
        self.assertEqual(self.fetched(batch=4), [0, 1, 2, 3])
        self.failureResultOf(self.read(), RateLimited)
        self.clock.advance(1_500)
        self.assertEqual(self.fetched(), [4, 5])

    def test_gone(self):
        """A topic that is gone from the storage is told."""
        self.publish()
        self.subscribed()
        self.assertEqual(self.fetched(), [0])
        self.wait(self.storage.delete_topic("orders"))
        self.failureResultOf(self.read(timeout=1_000), TopicMissing)

    def test_made_again(self):
        """A topic that was made again is read from its first message."""
        self.publish(count=3)
        self.subscribed()
        self.assertEqual(self.fetched(), [0, 1, 2])
        self.wait(self.registrar.delete_topic("orders", True, True, "test", None))
        self.create_topic("orders", 3)
        self.bind("shop", "orders")
        self.publish(count=1)
        self.assertEqual(self.fetched(), [0])

    def test_gaps(self):
        """Messages that retention took are left out, and told of."""
        told = []
        self.subscriber.listen(told.append)
        self.publish(count=3)
        self.subscribed()
        self.storage.beneath._shelves["orders"].logs[0].messages.pop(0)
        self.storage.beneath._shelves["orders"].logs[0].first = 1
        self.assertEqual(self.fetched(), [1, 2])
        self.assertIn("group.skipped shop.g orders partition 0: retention took offsets 0 to 0, which were not done", told)

    def test_cut(self):
        """A log that was cut below what was read is read on where the group goes."""
        self.publish(count=5)
        self.subscribed()
        self.assertEqual(self.fetched(), [0, 1, 2, 3, 4])
        self.wait(self.commit(p0=2))
        self.storage.beneath._shelves["orders"].logs[0].truncate(3)
        reading = self.read(timeout=5_000)
        self.clock.advance(1_500)
        self.gives(reading, 2)
        self.publish(count=1)
        self.assertEqual(self.fetched(), [3])

    def test_grown(self):
        """Partitions that are added are read too, by who waits already."""
        self.subscribed()
        reading = self.read(timeout=5_000)
        self.wait(self.storage.grow("orders", 4))
        self.publish(partition=3)
        self.clock.advance(200)
        delivery = self.wait(reading)
        self.assertEqual(places(delivery), [("orders", 3, 0)])
        delivery.settle(1)

    def test_seek(self):
        """After a seek it reads on there; the group's place stays."""
        self.publish(count=5)
        self.subscribed()
        self.fetch()
        self.wait(self.commit())
        self.wait(self.seek(1))
        self.assertEqual(self.fetched(), [1, 2, 3, 4])
        self.assertEqual(self.place(), 5)
        self.wait(self.seek("earliest"))
        self.assertEqual(self.fetched(batch=1), [0])
        self.wait(self.seek("latest"))
        self.assertEqual(self.fetched(), [])

    def test_seek_time(self):
        """To a time: the first message as new, else the end."""
        now = self.clock.epoch_ms()
        for ago in (3_000, 2_000, 1_000):
            self.publish(timestamp=now - ago)
        self.subscribed()
        self.wait(self.seek(("time", now - 2_000)))
        self.assertEqual(self.fetched(), [1, 2])
        self.wait(self.seek(("time", now + 1)))
        self.assertEqual(self.fetched(), [])

    def test_seek_refused(self):
        """A partition that is not there or not its own, and an offset past the end, are refused, and nothing moves."""
        self.publish(count=2)
        self.subscribed()
        self.fetch()
        self.failureResultOf(self.seek(0, 7), PartitionMissing)
        self.failureResultOf(self.seek(3), OffsetOutOfRange)
        self.subscribed("c2")
        self.failureResultOf(self.seek(0, self.partitions("c2")[0]), IllegalState)
        self.assertEqual(self.fetched(), [])

    def test_seek_waiting(self):
        """A read that waits gets what the seek pointed at."""
        self.publish(count=2)
        self.subscribed()
        self.fetch()
        reading = self.read(timeout=5_000)
        self.wait(self.seek(1))
        self.gives(reading, 1)

    def test_seek_while_written(self):
        """A seek while an answer is being written counts after it."""
        self.publish(count=3)
        self.subscribed()
        delivery = self.wait(self.read())
        self.wait(self.seek(1))
        delivery.settle(3)
        self.assertEqual(self.fetched(), [1, 2])

    def test_stop(self):
        """Reads that wait end empty when the node stops, those for their turn too."""
        self.publish()
        self.subscribed()
        out = self.wait(self.read())
        turn = self.read(timeout=60_000)
        self.subscribed("c2", group="shop.h")
        waiting = self.read("c2", timeout=60_000, group="shop.h")
        waiting.addErrback(lambda _: None)
        self.fetch("c2", group="shop.h") if waiting.called else None
        stopping = self.subscriber.stop()
        self.assertEqual(places(self.wait(turn)), [])
        out.settle(0)
        self.wait(stopping)
