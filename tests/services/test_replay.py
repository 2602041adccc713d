"""Replays: reading from a place without any group."""

from twisted.internet.defer import CancelledError

from psubd.errors import BadCredentials, BadParameter, OffsetOutOfRange, OverBudget, StorageUnavailable, TopicMissing, TopicNotBound
from psubd.model import TopicPartition
from tests.services.house import SubscriberTestCase, places


class StartTests(SubscriberTestCase):
    def setUp(self):
        super().setUp()
        for hour in range(5):
            self.publish(timestamp=1_000_000 + hour * 1000)
        self.publish(partition=1, count=2)

    def offsets(self, **asked):
        return [(partition, offset) for _, partition, offset in places(self.wait(self.replay(batch=100, **asked)))]

    def test_earliest(self):
        """From the log's first message, of one partition or of all."""
        self.assertEqual(self.offsets(partition=0), [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)])
        self.assertEqual(sorted(self.offsets()), [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1)])

    def test_latest(self):
        """From the end: nothing that is there, all that comes."""
        delivery = self.wait(self.replay(start="latest"))
        self.assertEqual((places(delivery), delivery.next), ([], {0: 5, 1: 2, 2: 0}))

    def test_time(self):
        """From the first message of that time or later."""
        self.assertEqual(self.offsets(start=("time", 1_002_500), partition=0), [(0, 3), (0, 4)])
        self.assertEqual(self.offsets(start=("time", 10**15)), [])

    def test_offset(self):
        """From an offset of a partition."""
        self.assertEqual(self.offsets(start={0: 3}, partition=0), [(0, 3), (0, 4)])

    def test_before_the_start(self):
        """Before the log's start: its start."""
        self.storage.beneath._shelves["orders"].logs[0].first = 2
        del self.storage.beneath._shelves["orders"].logs[0].messages[:2]
        self.assertEqual(self.offsets(start={0: 0}, partition=0), [(0, 2), (0, 3), (0, 4)])

    def test_past_the_end(self):
        """Past the end: refused; at the end: nothing yet."""
        self.failureResultOf(self.replay(start={0: 6}, partition=0), OffsetOutOfRange)
        self.assertEqual(self.offsets(start={0: 5}, partition=0), [])

    def test_no_such_partition(self):
        """A partition that the topic does not have is refused, and the field named."""
        for asked in ({"partition": 3}, {"start": {7: 0}}, {"start": {7: 0}, "partition": 7}):
            error = self.failureResultOf(self.replay(**asked), BadParameter).value
            self.assertIn("partition", error.detail)

    def test_next_goes_on(self):
        """`next` goes on where the answer ended, over all partitions, until each message came once."""
        found, start = [], "earliest"
        while True:
            delivery = self.wait(self.replay(start=start, batch=2))
            if not delivery.messages:
                break
            found += places(delivery)
            start = delivery.next
        self.assertEqual(len(found), 7)
        self.assertEqual(len(set(found)), 7)

    def test_next_after_partitions_were_added(self):
        """A partition that was added since the last answer is read from its first message."""
        delivery = self.wait(self.replay(batch=100))
        self.wait(self.storage.grow("orders", 4))
        self.publish(partition=3)
        self.assertEqual(self.got(self.replay(start=delivery.next, batch=100)), [("orders", 3, 0)])

    def test_every_partition_has_its_turn(self):
        """A partition that always has more starves no other."""
        self.publish(count=200)
        start, found = "earliest", []
        for _ in range(12):
            delivery = self.wait(self.replay(start=start, batch=1))
            found += places(delivery)
            start = delivery.next
        self.assertIn(("orders", 1, 1), found)


class BoundsTests(SubscriberTestCase):
    def test_batch_and_bytes(self):
        """An answer keeps to both bounds; one message always fits; `next` is the first that did not."""
        self.publish(count=4, size=1000)
        delivery = self.wait(self.replay(batch=3, max_bytes=2500, partition=0))
        self.assertEqual((len(delivery.messages), delivery.next), (2, {0: 2}))
        delivery = self.wait(self.replay(batch=1, partition=0))
        self.assertEqual((len(delivery.messages), delivery.next), (1, {0: 1}))
        self.assertEqual(len(self.wait(self.replay(batch=3, max_bytes=10, partition=0)).messages), 1)

    def test_bytes_over_partitions(self):
        """A message that does not fit any more is left to the next answer, whichever partition it is of."""
        self.publish(partition=0, size=1000)
        self.publish(partition=1, size=2000)
        delivery = self.wait(self.replay(batch=10, max_bytes=2500))
        self.assertEqual(len(delivery.messages), 1)
        self.assertEqual(len(self.wait(self.replay(start=delivery.next, batch=10, max_bytes=2500)).messages), 1)

    def test_gaps(self):
        """A gap is passed, however wide, also without waiting; `next` lies behind it."""
        self.publish(count=10)
        self.storage.hidden[TopicPartition("orders", 0)] = set(range(8))
        self.assertEqual(self.got(self.replay(batch=2, partition=0)), [("orders", 0, 8), ("orders", 0, 9)])
        self.storage.hidden[TopicPartition("orders", 0)] = set(range(10))
        self.assertEqual(self.wait(self.replay(batch=2, partition=0)).next, {0: 10})

    def test_what_it_is(self):
        """A replayed message has no attempt and no token; settling it does nothing; no group is touched or made."""
        self.publish()
        serial = self.registry.snapshot().serial
        delivery = self.wait(self.replay())
        self.assertEqual((delivery.messages[0].attempt, delivery.messages[0].token, delivery.messages[0].epoch), (None, None, None))
        delivery.settle(0)
        self.clock.advance(1000)
        self.assertEqual((self.registry.snapshot().serial, self.committed()["orders", 0]), (serial, 0))
        self.assertEqual(self.metric("psubd_groups_loaded"), 0)
        self.assertEqual(self.metric("psubd_delivered_messages_total", topic="orders"), 1)


class WaitTests(SubscriberTestCase):
    def test_a_message_comes(self):
        """A replay at the end waits for a message, of whichever partition."""
        waiting = self.replay(timeout=5000)
        self.assertNoResult(waiting)
        self.assertEqual(self.metric("psubd_polls_waiting"), 1)
        self.publish(partition=2)
        delivery = self.wait(waiting)
        self.assertEqual((places(delivery), delivery.next), ([("orders", 2, 0)], {0: 0, 1: 0, 2: 1}))

    def test_partitions_added_while_it_waits(self):
        """A replay of all partitions that waits sees a message of one that is added meanwhile; a replay of one partition goes on with that one."""
        waiting, alone = self.replay(timeout=5000), self.replay(partition=0, timeout=5000)
        self.wait(self.storage.grow("orders", 4))
        self.publish(partition=3)
        delivery = self.wait(waiting)
        self.assertEqual((places(delivery), delivery.next), ([("orders", 3, 0)], {0: 0, 1: 0, 2: 0, 3: 1}))
        self.assertNoResult(alone)
        self.clock.advance(5000)
        self.assertEqual(self.wait(alone).next, {0: 0})

    def test_timeout(self):
        """After its timeout it is answered empty, with the place to go on."""
        waiting = self.replay(timeout=5000)
        self.clock.advance(4999)
        self.assertNoResult(waiting)
        self.clock.advance(1)
        self.assertEqual(self.wait(waiting).next, {0: 0, 1: 0, 2: 0})

    def test_cancelled(self):
        """A replay that is cancelled leaves nothing behind."""
        waiting = self.replay(timeout=5000)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(len(self.storage.beneath._watches), 0)
        self.assertEqual(self.metric("psubd_polls_waiting"), 0)

    def test_revoked(self):
        """It ends with 403 when the binding is revoked while it waits, with 401 when its key ends."""
        waiting = self.replay(timeout=5000)
        self.unbind("shop", "orders")
        self.failureResultOf(waiting, TopicNotBound)
        self.bind("shop", "orders")
        waiting = self.replay(timeout=5000)
        self.wait(self.registrar.rotate("shop", "subkey", 0, "test", None))
        self.failureResultOf(waiting, BadCredentials)

    def test_revoked_while_it_reads(self):
        """What was read for a binding that is revoked meanwhile is not delivered."""
        self.publish()
        self.storage.held.add("read")
        waiting = self.replay()
        self.unbind("shop", "orders")
        self.storage.release("read")
        self.failureResultOf(waiting, TopicNotBound)

    def test_stop(self):
        """At the stop it is answered empty; a new one is refused."""
        waiting = self.replay(timeout=5000)
        self.wait(self.subscriber.stop())
        self.assertEqual(self.got(waiting), [])
        self.failureResultOf(self.replay(), OverBudget)

    def test_trouble(self):
        """A storage that is away is told as it is, also to those that wait; a topic that is gone is 404."""
        waiting = self.replay(timeout=5000)
        self.storage.failing["read"] = StorageUnavailable("away")
        self.publish()
        self.failureResultOf(waiting, StorageUnavailable)
        self.storage.failing.clear()
        self.wait(self.storage.delete_topic("orders"))
        self.failureResultOf(self.replay(), TopicMissing)


class NoReplayTests(SubscriberTestCase):
    def test_before_the_cursor(self):
        """A binding without replay gives no access to what lies before the cursor of the application's own group, committed or not yet; what
        lies behind it can be read."""
        self.publish(count=5)
        self.bind("shop", "orders", replay=False)
        self.assertEqual(len(self.wait(self.replay(batch=10)).messages), 5)
        self.take(3)
        error = self.failureResultOf(self.replay(batch=10, partition=0), TopicNotBound).value
        self.assertIn("3", error.detail)
        self.failureResultOf(self.replay(start={0: 2}, partition=0), TopicNotBound)
        self.failureResultOf(self.replay(start=("time", 0)), TopicNotBound)
        self.assertEqual(len(self.wait(self.replay(start={0: 3}, partition=0, batch=10)).messages), 2)
        self.assertEqual(self.got(self.replay(start="latest")), [])
        self.restart()
        self.failureResultOf(self.replay(start={0: 2}, partition=0), TopicNotBound)

    def test_latest_binding(self):
        """Bound from the end without replay: nothing that was published before is ever given."""
        self.create_topic("news")
        self.publish("news", count=3)
        self.bind("shop", "news", start="latest", replay=False)
        self.failureResultOf(self.replay("news"), TopicNotBound)
        self.publish("news")
        self.assertEqual(self.got(self.replay("news", {0: 3}, batch=10)), [("news", 0, 3)])

    def test_a_forgotten_group_gives_nothing(self):
        """Where the own group was deleted there is no cursor: nothing that is there is given."""
        self.publish(count=3)
        self.bind("shop", "orders", replay=False)
        self.wait(self.subscriber.forget_group("shop", "test"))
        self.failureResultOf(self.replay(), TopicNotBound)
