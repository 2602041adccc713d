"""Offsets that no record has: markers of transactions, aborted records, what was compacted away. None of them stalls a reader."""

from kafka import KafkaProducer

from psubd.model import Message, Position, Record, TopicSpec
from tests.integration.kafka.hosts import KafkaCase


class Gaps(KafkaCase):
    """Read to the end, and wait there."""

    def everything(self, topic: str, max_records: int = 1000) -> tuple[list[Message], int]:
        """All messages, and the place where a reader stands then."""
        found: list[Message] = []
        offset = 0
        while True:
            part = self.wait(self.storage.read(topic, 0, offset, max_records, 1 << 20))
            found += part.messages
            if part.next_offset >= part.end:
                return found, part.next_offset
            self.assertGreater(part.next_offset, offset, "a reader that follows next_offset goes on")
            offset = part.next_offset

    def producer(self) -> KafkaProducer:
        made = KafkaProducer(bootstrap_servers=self.cluster.bootstrap, transactional_id=self.name())
        self.addCleanup(made.close, 5)
        made.init_transactions()
        return made

    def transaction(self, producer: KafkaProducer, topic: str, values: list[bytes], commit: bool) -> None:
        producer.begin_transaction()
        for value in values:
            producer.send(topic, value, partition=0).get(10)
        (producer.commit_transaction if commit else producer.abort_transaction)()

    def test_aborted_transactions(self) -> None:
        """What a transactional producer aborted is never given; a reader goes past it and its markers, to the very end of the log."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name()))).name
        producer = self.producer()
        for number, commit in enumerate((True, False, False, True, False)):
            self.transaction(producer, topic, [b"%d-%d" % (number, each) for each in range(3)], commit)
        found, at = self.everything(topic)
        self.assertEqual([b"0-0", b"0-1", b"0-2", b"3-0", b"3-1", b"3-2"], [message.value for message in found])
        self.assertEqual(20, at)
        self.assertEqual([message.value for message in found], [message.value for message in self.everything(topic, max_records=1)[0]])
        self.assertEqual(20, self.wait(self.storage.bounds(topic))[0].end)

    def test_an_open_transaction_waits(self) -> None:
        """Records of a transaction that is not ended are not given, nor is what lies behind them, until it ends; who waits hears of it then. Nobody
        who reads and waits in turns spins meanwhile."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name()))).name
        producer = self.producer()
        watch = self.storage.watch(topic, 0, 0)
        producer.begin_transaction()
        producer.send(topic, b"open", partition=0).get(10)
        (behind,) = self.wait(self.storage.publish([Record(topic, b"behind", None, (), 0, None)], "all"))
        self.assertIsInstance(behind, Position)
        self.assertTrue(self.pending(watch))
        part = self.wait(self.storage.read(topic, 0, 0, 10, 1000))
        self.assertEqual(((), 0, 0), (part.messages, part.next_offset, part.end))
        self.assertTrue(self.pending(self.storage.watch(topic, 0, part.next_offset)))
        producer.commit_transaction()
        self.wait(watch)
        self.assertEqual([b"open", b"behind"], [message.value for message in self.everything(topic)[0]])

    def test_a_waiter_goes_past_an_aborted_transaction(self) -> None:
        """Who waits at the end hears of a transaction that was aborted, finds nothing, stands behind it, and hears of the next record."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name()))).name
        producer = self.producer()
        watch = self.storage.watch(topic, 0, 0)
        self.assertTrue(self.pending(watch))
        self.transaction(producer, topic, [b"aborted"], commit=False)
        self.wait(watch)
        part = self.wait(self.storage.read(topic, 0, 0, 10, 1000))
        self.assertEqual(((), 2, 2), (part.messages, part.next_offset, part.end))
        watch = self.storage.watch(topic, 0, 2)
        self.assertTrue(self.pending(watch))
        self.wait(self.storage.publish([Record(topic, b"next", None, (), 0, None)], "all"))
        self.wait(watch)
        self.assertEqual([b"next"], [message.value for message in self.wait(self.storage.read(topic, 0, 2, 10, 1000)).messages])

    def test_a_compacted_topic(self) -> None:
        """Read to the end after the cleaner went over it: the newest of each key, no stall in the holes, wherever a reader begins."""
        quick = {"min.cleanable.dirty.ratio": "0.01", "segment.ms": "200", "max.compaction.lag.ms": "500", "min.compaction.lag.ms": "0"}
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), cleanup="compact", config=quick))).name
        for turn in range(4):
            for number in range(0, 400, 50):
                records = [Record(topic, b"%d" % turn, b"k%d" % (each % 10), (), 0, None) for each in range(number, number + 50)]
                self.wait(self.storage.publish(records, "all"))
            self.pause(0.3)
        cleaned = self.another()

        def holes() -> bool:
            cleaned._shelves.clear(topic)
            return len(self.wait(cleaned.read(topic, 0, 0, 10_000, 1 << 20)).messages) < 1_000

        self.until(lambda: self.touch(topic) and holes(), "a cleaner that was there", 60)
        self.storage._shelves.clear(topic)
        found, at = self.everything(topic)
        self.assertEqual(at, self.wait(self.storage.bounds(topic))[0].end)
        self.assertEqual({b"k%d" % number for number in range(10)} | {b"touch"}, {message.key for message in found})
        offsets = [message.offset for message in found]
        self.assertEqual(sorted(set(offsets)), offsets)
        hole = next(offset for offset in range(at) if offset not in set(offsets))
        part = self.wait(self.storage.read(topic, 0, hole, 1, 1000))
        self.assertEqual(min(offset for offset in offsets if offset > hole), part.messages[0].offset if part.messages else part.next_offset)

    def touch(self, topic: str) -> bool:
        """One more record: a segment is rolled, and so cleaned, only when something is written."""
        self.wait(self.storage.publish([Record(topic, b"", b"touch", (), 0, None)], "all"))
        return True
