"""No partition, topic or waiting client starves."""

from psubd.model import Record
from tests.services.house import SubscriberTestCase, places

BEHIND = 100_000


class PartitionTests(SubscriberTestCase):
    """Ten partitions of one topic, the first one far behind."""

    def setUp(self):
        super().setUp()
        self.create_topic("wide", 10)
        self.bind("shop", "wide", max_in_flight=100_000)
        record = Record("wide", b"v", partition=0)
        self.wait(self.storage.publish([record] * BEHIND, "all"))
        self.take(1, topics=("wide",))

    def within_twenty(self, batch, **settings):
        """Each live message comes within 20 deliveries of its turn."""
        turns = {}
        delivered = 0
        for step in range(60):
            partition = 1 + step % 9
            for offset in self.publish("wide", partition):
                turns[partition, offset] = delivered
            for _ in range(3):
                delivery = self.wait(self.poll(topics=("wide",), batch=batch, **settings))
                for _, at, offset in places(delivery):
                    delivered += 1
                    if at:
                        self.assertLessEqual(delivered - turns.pop((at, offset)), 20)
                delivery.settle(len(delivery.messages))
        self.assertFalse(turns)

    def test_one_at_a_time(self):
        """With batchSize 1."""
        self.within_twenty(1)

    def test_ten_at_a_time(self):
        """With batchSize 10, where answers could be filled by the one that is behind."""
        self.within_twenty(10)

    def test_explicit(self):
        """In explicit mode."""
        self.within_twenty(10, ack="explicit")

    def test_shares(self):
        """An answer takes from all partitions that have something in equal shares, each in its order; what some do not need goes to the others."""
        for partition in range(1, 5):
            self.publish("wide", partition, count=100)
        self.publish("wide", 5, count=3)
        found = places(self.wait(self.poll(topics=("wide",), batch=60)))
        counts = [sum(at == partition for _, at, _ in found) for partition in range(6)]
        self.assertEqual((sum(counts), counts[5]), (60, 3))
        self.assertLessEqual(max(counts[:5]) - min(counts[:5]), 3)
        for partition in range(1, 5):
            self.assertEqual([offset for _, at, offset in found if at == partition], list(range(counts[partition])))

    def test_large_messages(self):
        """A partition of large messages leaves its share of an answer's bytes to the others."""
        self.publish("wide", 1, count=50, size=100_000)
        self.publish("wide", 2, count=50, size=1000)
        found = places(self.wait(self.poll(topics=("wide",), batch=1000, max_bytes=1_000_000)))
        self.assertEqual({at for _, at, _ in found}, {0, 1, 2})
        self.assertLess(sum(at == 1 for _, at, _ in found), 10)
        self.assertEqual(sum(at == 2 for _, at, _ in found), 50)


class TopicTests(SubscriberTestCase):
    def test_one_far_behind(self):
        """A topic far behind leaves a live one its turn, in every answer."""
        self.create_topic("behind", 4)
        self.bind("shop", "behind")
        for partition in range(4):
            self.publish("behind", partition, count=2000)
        self.take(1, topics=("behind",))
        self.take(1, topics=("orders",))
        for batch in (1, 10):
            for _ in range(20):
                self.publish("orders")
                found = [self.take(batch) for _ in range(2 if batch == 1 else 1)]
                self.assertIn("orders", {topic for taken in found for topic, _, _ in taken})


class PollTests(SubscriberTestCase):
    def test_one_each_first(self):
        """Of those that wait each gets one message before anybody gets a second, the oldest first; what is more is shared."""
        polls = [self.poll(batch=10_000), *(self.poll() for _ in range(3)), self.poll(batch=10_000)]
        self.publish(count=3)
        self.assertEqual([poll.called for poll in polls], [True] * 3 + [False] * 2)
        self.assertEqual([len(self.got(poll)) for poll in polls[:3]], [1] * 3)
        polls = [*polls[3:], self.poll(batch=10_000)]
        self.publish(count=101)
        one, *large = [len(self.got(poll)) for poll in polls]
        self.assertEqual((one, sum(large)), (1, 100))
        self.assertGreater(min(large), 30)

    def test_small_beside_large(self):
        """Ten clients of batchSize 1 beside one of 10,000, who all ask again at once: each small one gets at least half its share of the turns,
        and of what comes by the handful at least half its share of the messages."""
        counts = dict.fromkeys(range(11), 0)

        def ask(client):
            self.poll(batch=10_000 if client == 0 else 1).addCallback(self.got_some, client, counts, ask)

        for client in counts:
            ask(client)
        total = 0
        for step in range(200):
            total += len(self.publish(partition=step % 3, count=1 + step % 12))
        self.assertEqual(sum(counts.values()), total)
        for client in range(1, 11):
            self.assertGreaterEqual(counts[client], total / 11 / 2)

    def got_some(self, delivery, client, counts, ask):
        counts[client] += len(delivery.messages)
        delivery.settle(len(delivery.messages))
        if delivery.messages:
            ask(client)

    def test_backlog(self):
        """The same while there is a backlog: in each round of answers every small one has its turn."""
        self.publish(count=20_000)
        for _ in range(8):
            self.storage.held.add("read")
            polls = [self.poll(batch=10_000), *(self.poll() for _ in range(10))]
            self.storage.release("read")
            sizes = []
            for poll in polls:
                delivery = self.wait(poll)
                sizes.append(len(delivery.messages))
                delivery.settle(len(delivery.messages))
            self.assertEqual(sizes[1:], [1] * 10)
            self.assertGreater(sizes[0], 100)
