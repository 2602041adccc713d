"""Logs with gaps, and logs that change, under groups with explicit leases: no stall, nothing skipped, in order."""

from kafka import KafkaAdminClient, KafkaProducer
from kafka.structs import TopicPartition as Place

from psubd.errors import PsubdError
from psubd.model import Delivered, Poll, Record, TopicPartition, TopicSpec
from tests.integration.kafka.house import KafkaHouse

HOUR = 3_600_000


class LogsInGroups(KafkaHouse):
    """One application, one topic of one partition, bound with explicit acks."""

    def lease(self, batch: int = 100, timeout: int = 10_000) -> list[Delivered]:
        delivery = self.wait(self.subscriber.poll(self.grant(), Poll(self.app, None, batch, timeout_ms=timeout, ack="explicit", ack_timeout_ms=HOUR)))
        delivery.settle(len(delivery.messages))
        return list(delivery.messages)

    def leases(self, count: int) -> list[Delivered]:
        found: list[Delivered] = []
        while len(found) < count:
            found += self.lease(count - len(found))
        return found

    def rest(self) -> list[Delivered]:
        """All that comes until nothing comes any more."""
        found: list[Delivered] = []
        while leased := self.lease(timeout=300):
            found += leased
        return found

    def ack(self, *leased: Delivered) -> tuple[int, int]:
        verdict = self.wait(self.subscriber.ack(self.grant(), [each.token or "" for each in leased]))
        return verdict.count, len(verdict.lost)

    def nack(self, *leased: Delivered) -> int:
        return self.wait(self.subscriber.nack(self.grant(), [each.token or "" for each in leased], 0, False)).count

    def shed(self) -> None:
        """Nothing that was read ahead is at hand any more."""
        self.pause(0.1)
        for group in self.subscriber._live.values():
            group.shed()

    def assert_done_to_the_end(self, topic: str) -> None:
        at = TopicPartition(topic, 0)
        end = self.wait(self.storage.bounds(topic))[0].end

        def there() -> bool:
            kept = self.wait(self.storage.committed(self.app)).get(at)
            return kept is not None and kept.offset == end

        self.until(there, "all of it committed")
        self.assertEqual([item.lag for item in self.wait(self.subscriber.group(self.app)).items], [0])

    def producer(self) -> KafkaProducer:
        made = KafkaProducer(bootstrap_servers=self.cluster.bootstrap, transactional_id=self.name())
        self.addCleanup(made.close, 5)
        made.init_transactions()
        return made

    def test_transactions_that_abort(self) -> None:
        """Strictly in order, one at a time, past what was aborted and its markers, to the very end; the same again with acks in another order."""
        topic = self.make().id
        self.bind(topic, ordered=True)
        producer, expected = self.producer(), list[bytes]()
        for number, commit in enumerate((False, True, False, False, True, False)):
            producer.begin_transaction()
            values = [b"%d-%d" % (number, each) for each in range(3)]
            for value in values:
                producer.send(topic, value, partition=0).get(10)
            (producer.commit_transaction if commit else producer.abort_transaction)()
            expected += values if commit else []
        for value in expected:
            (one,) = self.lease()
            self.assertEqual(one.message.value, value)
            self.assertEqual(self.lease(timeout=0), [])
            self.assertEqual(self.ack(one), (1, 0))
        self.assert_done_to_the_end(topic)
        self.bind(topic, ordered=False)
        self.wait(self.subscriber.reset(self.app, topic, None, "earliest", False, "test"))
        again = self.leases(len(expected))
        self.assertEqual([each.message.value for each in again], expected)
        self.assertEqual(self.ack(*again[::-2], *again[::-1]), (len(expected) * 3 // 2, 0))
        self.assert_done_to_the_end(topic)

    def test_a_cleaner_that_takes_what_is_leased(self) -> None:
        """A compacted topic: what was leased, compacted away and nacked does not come again, nobody waits for it; what is there does, in order."""
        quick = {"min.cleanable.dirty.ratio": "0.01", "segment.ms": "200", "max.compaction.lag.ms": "500", "min.compaction.lag.ms": "0"}
        topic = self.make(cleanup="compact", config=quick).id
        self.bind(topic)
        records = [Record(topic, b"%d" % number, b"k%d" % (number % 5), (), 0) for number in range(40)]
        self.wait(self.storage.publish(records, "all"))
        first = self.leases(20)
        self.assertEqual(self.ack(*first[::3]), (7, 0))
        self.pause(0.3)
        self.wait(self.storage.publish([Record(topic, b"last", b"k%d" % number, (), 0) for number in range(5)], "all"))
        self.shed()
        other = self.another()

        def cleaned() -> bool:
            other._shelves.clear(topic)
            self.wait(self.storage.publish([Record(topic, b"", b"touch", (), 0)], "all"))
            return len(self.wait(other.read(topic, 0, 0, 1_000, 1 << 20)).messages) < 20

        self.until(cleaned, "a cleaner that was there", 60)
        self.storage._shelves.clear(topic)
        there = [message.offset for message in self.wait(other.read(topic, 0, 0, 1_000, 1 << 20)).messages]
        self.assertEqual(self.nack(*[each for number, each in enumerate(first) if number % 3]), 13)
        found = self.rest()
        offsets = [each.message.offset for each in found]
        self.assertEqual(offsets, sorted(set(offsets)))
        done = {each.message.offset for each in first[::3]}
        self.assertLessEqual({offset for offset in there if offset not in done} - set(offsets), set())
        self.assertEqual(self.ack(*found), (len(found), 0))
        self.assert_done_to_the_end(topic)

    def test_retention_takes_what_is_leased(self) -> None:
        """The log's start moves past leases and past what was not read yet: the group goes on at the start, is told, and acks of what went count."""
        topic = self.make().id
        self.bind(topic)
        self.publish(topic, *[b"%d" % number for number in range(12)])
        first = self.leases(5)
        self.shed()
        admin = KafkaAdminClient(bootstrap_servers=self.cluster.bootstrap)
        self.addCleanup(admin.close)
        admin.delete_records({Place(topic, 0): 8})
        self.storage._shelves.clear(topic)
        self.assertEqual(self.nack(first[1], first[2]), 2)
        rest = self.leases(4)
        self.assertEqual([each.message.offset for each in rest], [8, 9, 10, 11])
        self.assertEqual(self.ack(*rest[::-1], first[0], first[4]), (6, 0))
        self.ack(*first)
        self.assertEqual(self.lease(timeout=300), [])
        self.assert_done_to_the_end(topic)
        self.assertTrue([line for line in self.told if line.startswith(f"group.skipped {self.app} {topic} partition 0: ")], self.told)

    def test_a_topic_made_again(self) -> None:
        """The group begins at its first message, though it stood further on in the former one, whose leases are lost."""
        topic = self.make().id
        self.bind(topic)
        self.publish(topic, *[b"old"] * 6)
        first = self.leases(6)
        self.assertEqual(self.ack(*first[:4]), (4, 0))
        other = self.another()
        self.wait(other.delete_topic(topic))
        self.until(lambda: self.made_again(topic), "the topic again")
        self.publish(topic, *[b"new-%d" % number for number in range(8)])
        found = self.leases(8)
        self.assertEqual([each.message.value for each in found], [b"new-%d" % number for number in range(8)])
        self.assertEqual(self.ack(*first), (0, 6))
        self.assertEqual(self.ack(*found), (8, 0))
        self.assert_done_to_the_end(topic)
        self.assertEqual(self.told, [f"group.topic_recreated {self.app} {topic}: the topic was made again"])

    def made_again(self, topic: str) -> bool:
        try:
            self.wait(self.storage.create_topic(TopicSpec(topic)))
        except PsubdError:
            return False
        return True
