"""The publisher: what it judges, what it hands to the storage, what it counts."""

from collections.abc import Sequence
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from psubd.errors import BadHeader, StorageUnavailable, TooLarge, TopicMissing
from psubd.interfaces import IPublisher
from psubd.model import Acks, Record, StoredTopic, Topic, TopicSpec
from psubd.services.partitioner import RUN_BYTES, RUN_MS, partition_of
from psubd.services.publisher import MAX_MESSAGE_BYTES, Publisher, stored_size, varint_size
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock

KIB = 1024


def registered(stored: StoredTopic) -> Topic:
    """The topic as the registry would hold it."""
    return Topic(
        id=stored.name,
        owner="shop",
        serial=1,
        created_ms=0,
        uid=stored.uid,
        partitions=stored.partitions,
        replication=None,
        retention_ms=stored.retention_ms,
        retention_bytes=None,
        cleanup=stored.cleanup,
        elastic=None,
        config={},
        adopted=False,
    )


class PublisherCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.storage = MemoryStorage(self.clock)
        self.successResultOf(self.storage.start())
        self.metrics = CollectorRegistry()
        self.publisher = Publisher(self.storage, self.clock, metrics=self.metrics)

    def topic(self, name: str = "orders", **settings: Any) -> Topic:
        """A topic in the storage, as the registry holds it."""
        return registered(self.successResultOf(self.storage.create_topic(TopicSpec(name=name, **settings))))

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.get_sample_value(name, labels) or 0


class JudgeTests(PublisherCase):
    def test_interface(self) -> None:
        """It provides what it says."""
        verifyObject(IPublisher, self.publisher)

    def test_defaults(self) -> None:
        """A record without partition and timestamp gets both; the rest stays as it was."""
        record = Record("orders", b"v", b"k", (("a", b"1"), ("a", None)))
        judged = self.publisher.judge(self.topic(partitions=6), record)
        self.assertEqual(judged, msgspec.structs.replace(record, partition=partition_of(b"k", 6), timestamp=self.clock.epoch_ms()))

    def test_empty_key_is_a_key(self) -> None:
        """An empty key goes to its own partition, as with the Java client; it is not spread."""
        topic = self.topic(partitions=6)
        found = {self.publisher.judge(topic, Record("orders", b"v", b"")).partition for _ in range(20)}
        self.assertEqual(found, {partition_of(b"", 6)})

    def test_keyless_spread(self) -> None:
        """Records without a key go to all partitions, in turn where they come one by one; those that come together go to one."""
        topic, record = self.topic(partitions=6), Record("orders", b"v")
        self.assertEqual({self.publisher.judge(topic, record).partition for _ in range(6)}, set(range(6)))
        self.publisher.post(msgspec.structs.replace(record, partition=0, timestamp=1), "all", lambda result: None)
        self.assertEqual(len({self.publisher.judge(topic, record).partition for _ in range(6)}), 1)
        self.clock.advance(RUN_MS)
        self.assertEqual({self.publisher.judge(topic, record).partition for _ in range(6)}, set(range(6)))

    def test_exact_partition(self) -> None:
        """A partition that the topic has is taken as it is, key or no key."""
        topic = self.topic(partitions=3)
        self.assertEqual(self.publisher.judge(topic, Record("orders", b"v", b"k", partition=2)).partition, 2)

    def test_partition_out_of_range(self) -> None:
        """One that it does not have is refused, and the range is named."""
        topic = self.topic(partitions=3)
        for partition in (3, -1, 2**31 - 1):
            refused = self.assertRaises(BadHeader, self.publisher.judge, topic, Record("orders", b"v", partition=partition))
            self.assertIn("0 to 2", refused.detail)

    def test_timestamp_range(self) -> None:
        """0 and an hour past now are taken; a millisecond beyond is not."""
        topic, hour = self.topic(), self.clock.epoch_ms() + 3_600_000
        for timestamp in (0, hour):
            self.assertEqual(self.publisher.judge(topic, Record("orders", b"v", timestamp=timestamp)).timestamp, timestamp)
        for timestamp in (-1, hour + 1, 2**63 - 1):
            self.assertRaises(BadHeader, self.publisher.judge, topic, Record("orders", b"v", timestamp=timestamp))

    def test_value_limit(self) -> None:
        """A value of exactly the limit is taken, one byte more is 413."""
        topic = self.topic()
        self.publisher.judge(topic, Record("orders", bytes(1_048_576)))
        refused = self.assertRaises(TooLarge, self.publisher.judge, topic, Record("orders", bytes(1_048_577)))
        self.assertIn("1048576", refused.detail)

    def test_own_value_limit(self) -> None:
        """The limit is the configured one."""
        publisher = Publisher(self.storage, self.clock, max_message_bytes=10)
        topic = self.topic()
        publisher.judge(topic, Record("orders", bytes(10)))
        self.assertRaises(TooLarge, publisher.judge, topic, Record("orders", bytes(11)))

    def test_key_and_headers_limit(self) -> None:
        """Key, header names and header values have 64 KiB together, beside the value."""
        topic = self.topic()
        full = Record("orders", bytes(1_048_576), bytes(32 * KIB), (("n" * 100, bytes(32 * KIB - 100)),))
        self.publisher.judge(topic, full)
        over = msgspec.structs.replace(full, headers=(("n" * 101, bytes(32 * KIB - 100)),))
        self.assertRaises(TooLarge, self.publisher.judge, topic, over)
        self.assertRaises(TooLarge, self.publisher.judge, topic, Record("orders", b"", bytes(64 * KIB + 1)))

    def test_topics_own_limit(self) -> None:
        """An adopted topic's limit holds beforehand, named, with the storage's overhead counted."""
        topic = self.topic(max_message_bytes=1000)
        fits = Record("orders", bytes(1000 - stored_size(Record("orders", b"")) - 1))
        self.assertEqual(stored_size(fits), 1000)
        self.publisher.judge(topic, fits)
        over = msgspec.structs.replace(fits, value=(fits.value or b"") + b"x")
        refused = self.assertRaises(TooLarge, self.publisher.judge, topic, over)
        self.assertIn("1000", refused.detail)
        self.assertIn("orders", refused.detail)

    def test_overhead_of_many_headers(self) -> None:
        """Each header's lengths count: many tiny headers weigh more than their bytes."""
        headers = tuple(("a", b"") for _ in range(1000))
        self.assertEqual(stored_size(Record("t", b"", None, headers)) - stored_size(Record("t", b"")), 1000 * 3 + 1)

    def test_compacted_without_key(self) -> None:
        """A compacted topic takes no message without a key, a tombstone neither; an empty key is one."""
        topic = self.topic(cleanup="compact")
        for value in (b"v", None):
            self.assertRaises(BadHeader, self.publisher.judge, topic, Record("orders", value))
        self.publisher.judge(topic, Record("orders", None, b""))

    def test_gone_from_storage(self) -> None:
        """A registered topic that the storage does not have is missing."""
        topic = self.topic()
        self.successResultOf(self.storage.delete_topic("orders"))
        self.assertRaises(TopicMissing, self.publisher.judge, topic, Record("orders", b"v"))

    def test_another_under_the_name(self) -> None:
        """One that was deleted and made again behind psubd's back is not the registered one."""
        topic = self.topic()
        self.successResultOf(self.storage.delete_topic("orders"))
        self.topic()
        self.assertRaises(TopicMissing, self.publisher.judge, topic, Record("orders", b"v"))


class ColdStorage:
    """A storage that has to be asked before it knows a topic."""

    def __init__(self) -> None:
        self.asked: list[Deferred[dict[str, StoredTopic]]] = []
        self.memory: dict[str, StoredTopic] = {}

    def known(self, topic: str) -> StoredTopic | None:
        return self.memory.get(topic)

    def describe(self, topics: Sequence[str]) -> "Deferred[dict[str, StoredTopic]]":
        self.asked.append(Deferred())
        return self.asked[-1]


STORED = StoredTopic("orders", "uid-1", 1, 1, None, None, "delete", 1_118_208)


class ReadyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.storage: Any = ColdStorage()
        self.publisher = Publisher(self.storage, FakeClock())
        self.topic = registered(STORED)

    def answer(self) -> None:
        self.storage.memory["orders"] = STORED
        self.storage.asked[0].callback({"orders": STORED})

    def test_known(self) -> None:
        """A topic that is in the storage's memory can be judged at once, and the storage is not asked."""
        self.storage.memory["orders"] = STORED
        self.assertIsNone(self.publisher.ready(self.topic))
        self.assertEqual(self.storage.asked, [])

    def test_asked_once_for_all(self) -> None:
        """Many who publish to a cold topic at once ask the storage once, and all go on; one that gave up harms nobody."""
        waiting = [self.publisher.ready(self.topic) for _ in range(3)]
        assert waiting[1] is not None
        waiting[1].cancel()
        self.failureResultOf(waiting[1])
        self.answer()
        self.assertEqual(len(self.storage.asked), 1)
        for deferred in (waiting[0], waiting[2]):
            assert deferred is not None
            self.assertIsNone(self.successResultOf(deferred))
        self.assertIsNone(self.publisher.ready(self.topic))

    def test_stale_memory(self) -> None:
        """A topic that the storage remembers under another uid is asked for again: it may have been made again on another node."""
        self.storage.memory["orders"] = msgspec.structs.replace(STORED, uid="uid-0")
        waiting = self.publisher.ready(self.topic)
        assert waiting is not None
        self.assertNoResult(waiting)
        self.answer()
        self.successResultOf(waiting)
        self.publisher.judge(self.topic, Record("orders", b"v"))

    def test_failure(self) -> None:
        """What the storage fails with reaches all who wait, and the next one asks anew."""
        waiting = [self.publisher.ready(self.topic) for _ in range(2)]
        self.storage.asked[0].errback(StorageUnavailable("away"))
        for deferred in waiting:
            assert deferred is not None
            self.failureResultOf(deferred, StorageUnavailable)
        self.assertIsNotNone(self.publisher.ready(self.topic))
        self.assertEqual(len(self.storage.asked), 2)


class PublishTests(PublisherCase):
    def judged(self, topic: Topic, *values: bytes) -> list[Record]:
        return [self.publisher.judge(topic, Record(topic.id, value, b"k")) for value in values]

    def test_stored_in_order(self) -> None:
        """Records of one key are stored in the order given, and the positions say where."""
        records = self.judged(self.topic(), b"1", b"2", b"3")
        positions = self.successResultOf(self.publisher.publish(records, "all"))
        self.assertEqual([position.offset for position in positions], [0, 1, 2])
        stored = self.successResultOf(self.storage.read("orders", 0, 0, 10, 10_000))
        self.assertEqual([message.value for message in stored.messages], [b"1", b"2", b"3"])

    def test_no_positions_without_acks(self) -> None:
        """With acks 0 there are no positions; the records are there."""
        self.assertEqual(self.successResultOf(self.publisher.publish(self.judged(self.topic(), b"1"), "0")), [])
        self.assertEqual(self.successResultOf(self.storage.bounds("orders"))[0].end, 1)
        self.assertEqual(self.count("psubd_published_messages_total", topic="orders"), 1)

    def test_counted(self) -> None:
        """Messages and their bytes (value, key, headers) are counted by topic."""
        self.successResultOf(self.publisher.publish(self.judged(self.topic(), b"123", b"45"), "all"))
        self.assertEqual(self.count("psubd_published_messages_total", topic="orders"), 2)
        self.assertEqual(self.count("psubd_published_bytes_total", topic="orders"), 7)

    def test_failures_counted_alone(self) -> None:
        """One record's failure is counted by its code; the other is published."""
        records = self.judged(self.topic(), b"1", b"2")
        records[0] = msgspec.structs.replace(records[0], partition=9)
        results = self.successResultOf(self.publisher.publish(records, "all"))
        self.assertIsInstance(results[0], TopicMissing)
        self.assertEqual(self.count("psubd_publish_failures_total", code="topic_missing"), 1)
        self.assertEqual(self.count("psubd_published_messages_total", topic="orders"), 1)

    def test_whole_failure_counted(self) -> None:
        """A storage that is away fails the call, and all its records are counted."""
        records = self.judged(self.topic(), b"1", b"2")
        self.successResultOf(self.storage.stop())
        self.failureResultOf(self.publisher.publish(records, "all"), StorageUnavailable)
        self.assertEqual(self.count("psubd_publish_failures_total", code="storage_unavailable"), 2)
        self.assertEqual(self.count("psubd_published_messages_total", topic="orders"), 0)

    def test_bug_counted_as_internal(self) -> None:
        """A failure that is no refusal is counted as internal; a client that went away is no failure."""
        records = self.judged(self.topic(), b"1")
        self.patch(self.storage, "publish", lambda records, acks: fail(RuntimeError("bug")))
        self.failureResultOf(self.publisher.publish(records, "all"), RuntimeError)
        self.assertEqual(self.count("psubd_publish_failures_total", code="internal"), 1)
        self.patch(self.storage, "publish", lambda records, acks: Deferred())
        waiting = self.publisher.publish(records, "all")
        waiting.cancel()
        self.failureResultOf(waiting)
        self.assertEqual(self.count("psubd_publish_failures_total", code="internal"), 1)


class PostTests(PublisherCase):
    def post(self, acks: Acks = "all", **members: Any) -> list[Any]:
        """What came of one record by the end of the turn."""
        told: list[Any] = []
        record = self.publisher.judge(self.topic_, Record("orders", b"123", b"k"))
        self.publisher.post(msgspec.structs.replace(record, **members), acks, told.append)
        self.assertEqual(told, [])
        self.clock.advance(0)
        return told

    def setUp(self) -> None:
        super().setUp()
        self.topic_ = self.topic()

    def test_stored_and_counted(self) -> None:
        """Who posted is told where it is, after the call; message and bytes are counted."""
        self.assertEqual([position.offset for position in self.post() + self.post()], [0, 1])
        self.assertEqual(self.count("psubd_published_messages_total", topic="orders"), 2)
        self.assertEqual(self.count("psubd_published_bytes_total", topic="orders"), 8)

    def test_without_acks(self) -> None:
        """Nobody is told; the record is there, and counted as it was accepted."""
        self.assertEqual(self.post("0"), [])
        self.assertEqual(self.successResultOf(self.storage.bounds("orders"))[0].end, 1)
        self.assertEqual(self.count("psubd_published_messages_total", topic="orders"), 1)

    def test_failure_counted(self) -> None:
        """A record's failure is told and counted by its code."""
        self.assertIsInstance(self.post(partition=9)[0], TopicMissing)
        self.assertEqual(self.count("psubd_publish_failures_total", code="topic_missing"), 1)
        self.assertEqual(self.count("psubd_published_messages_total", topic="orders"), 0)

    def test_refusal_counted(self) -> None:
        """A storage that does not accept refuses the call itself; that is counted, and nobody is told."""
        self.successResultOf(self.storage.stop())
        told: list[Any] = []
        for acks in ("all", "0"):
            self.assertRaises(StorageUnavailable, self.publisher.post, Record("orders", b"1", partition=0), acks, told.append)
        self.clock.advance(0)
        self.assertEqual(told, [])
        self.assertEqual(self.count("psubd_publish_failures_total", code="storage_unavailable"), 2)
        self.assertEqual(self.count("psubd_published_messages_total", topic="orders"), 0)


class JudgeAllTests(PublisherCase):
    def test_as_one_by_one(self) -> None:
        """What `judge` makes of each, in order."""
        topic = self.topic(partitions=6)
        records = [Record("orders", b"%d" % number, b"k%d" % number, (), None, None if number % 2 else 5) for number in range(20)]
        self.assertEqual(self.publisher.judge_all(topic, records), [self.publisher.judge(topic, record) for record in records])
        keyless = self.publisher.judge_all(topic, [Record("orders", bytes(RUN_BYTES))] * 6)
        self.assertEqual({record.partition for record in keyless}, set(range(6)))

    def test_bare_values_of_one_partition(self) -> None:
        """The short way gives what `judge` gives, and refuses what it refuses: a value too large, a partition that is not there."""
        topic = self.topic()
        records = [
            *(Record("orders", value) for value in (b"", b"1", None, bytes(MAX_MESSAGE_BYTES))),
            Record("orders", b"1", b""),
            Record("orders", b"1", None, (("a", None),)),
            Record("orders", b"1", None, (), 0),
            Record("orders", b"1", None, (), None, 0),
        ]
        self.assertEqual(self.publisher.judge_all(topic, records), [self.publisher.judge(topic, record) for record in records])
        self.assertRaises(TooLarge, self.publisher.judge_all, topic, [Record("orders", bytes(MAX_MESSAGE_BYTES + 1))])
        self.assertRaises(BadHeader, self.publisher.judge_all, topic, [Record("orders", b"1", None, (), 1)])

    def test_refused(self) -> None:
        """One that is refused refuses all."""
        topic = self.topic()
        self.assertRaises(TooLarge, self.publisher.judge_all, topic, [Record("orders", b""), Record("orders", b"", bytes(64 * KIB + 1))])
        self.successResultOf(self.storage.delete_topic("orders"))
        self.assertRaises(TopicMissing, self.publisher.judge_all, topic, [Record("orders", b"")])


class VarintTests(SynchronousTestCase):
    def test_sizes(self) -> None:
        """A zigzag varint has seven bits a byte, and one bit is the sign's."""
        sizes = {0: 1, 63: 1, 64: 2, 8191: 2, 8192: 3, 1_048_575: 3, 1_048_576: 4}
        self.assertEqual({number: varint_size(number) for number in sizes}, sizes)
