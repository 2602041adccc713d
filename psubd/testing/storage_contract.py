"""What every `psubd.interfaces.IStorage` holds: one suite, run on memory, on SQLite with its threads, and on a real Kafka.

`StorageContract` asserts only what a Kafka can hold too (gaps in the offsets, retention in the broker's own time); `RetentionContract` adds what
the embedded storages promise of retention and compaction. The host class mixes them into a test case and says how to wait. Topics and groups
have names of their own in every test, so that one broker serves them all.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from psubd.errors import BadBody, Exists, PsubdError, StorageUnavailable, TooLarge, TopicMissing
from psubd.interfaces import IStorage
from psubd.model import Acks, Commit, Message, Position, Record, StoredTopic, TopicPartition, TopicSpec

T = TypeVar("T")

WIDE = 1 << 26
"""A ``max_bytes`` that stops no read here."""


class Host(Protocol):
    """What the host class provides, beside trial's assertions."""

    storage: IStorage

    def now(self) -> int:
        """The wall clock that the storage goes by, ms since the epoch."""

    def wait(self, deferred: "Deferred[T]") -> T:
        """The result, or raise what it failed with."""

    def pause(self) -> None:
        """Let the storage work a little; nothing, where all is synchronous."""

    def pending(self, deferred: "Deferred[Any]") -> bool:
        """Whether it has not fired, after the storage had time to."""


class Steps:
    """How the contracts speak of a storage."""

    storage: IStorage
    now: Callable[[], int]
    wait: Callable[..., Any]
    pause: Callable[[], None]
    pending: Callable[["Deferred[Any]"], bool]
    assertEqual: Callable[..., None]
    assertTrue: Callable[..., None]
    assertFalse: Callable[..., None]
    assertIsNone: Callable[..., None]
    assertIsInstance: Callable[..., None]
    assertNotEqual: Callable[..., None]
    assertLess: Callable[..., None]
    assertLessEqual: Callable[..., None]
    assertGreater: Callable[..., None]
    assertGreaterEqual: Callable[..., None]
    assertNotIn: Callable[..., None]
    assertRaises: Callable[..., Any]
    fail: Callable[..., Any]

    def name(self) -> str:
        """A name that nobody had before."""
        return f"contract-{uuid4().hex[:16]}"

    def topic(self, partitions: int = 1, **members: Any) -> StoredTopic:
        """A new topic."""
        return self.wait(self.storage.create_topic(TopicSpec(self.name(), partitions, **members)))  # type: ignore[no-any-return]

    def put(self, topic: StoredTopic, *values: bytes | None, partition: int = 0, timestamp: int | None = None, key: bytes | None = None) -> list[int]:
        """Publish to one partition; the offsets."""
        records = [Record(topic.name, value, key, (), partition, timestamp or self.now()) for value in values]
        return [position.offset for position in self.publish(records)]

    def publish(self, records: Sequence[Record], acks: Acks = "all") -> list[Position]:
        """Publish what must succeed."""
        answers = self.wait(self.storage.publish(records, acks))
        self.assertEqual([], [answer for answer in answers if not isinstance(answer, Position)])
        return answers  # type: ignore[no-any-return]

    def everything(self, topic: StoredTopic, partition: int = 0, offset: int = 0, max_records: int = 1000, max_bytes: int = WIDE) -> list[Message]:
        """All messages from ``offset`` on, read by following ``next_offset``."""
        found: list[Message] = []
        while True:
            part = self.wait(self.storage.read(topic.name, partition, offset, max_records, max_bytes))
            found.extend(part.messages)
            if part.next_offset >= part.end:
                return found
            self.assertGreater(part.next_offset, offset, "a read below the end goes on")
            offset = part.next_offset

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until ``holds``, looking again and again; fail with ``what`` if it never does."""
        for _ in range(1000):
            if holds():
                return
            self.pause()
        self.fail(f"never came: {what}")


class StorageContract(Steps):
    """Mix into a test case that is a `Host`."""

    # --- topics ---

    def test_provides_the_interface(self) -> None:
        """The storage has every member of IStorage, with its parameters."""
        self.assertTrue(verifyObject(IStorage, self.storage))
        self.assertIsNone(self.storage.trouble())
        self.assertIsInstance(self.storage.status()["kind"], str)

    def test_a_topic_that_was_made_is_usable_and_known(self) -> None:
        """When create_topic fires, the topic is described, known, and has empty partitions to write to."""
        topic = self.topic(3, retention_ms=3_600_000, retention_bytes=10_000_000)
        self.assertEqual((3, 3_600_000, 10_000_000, "delete"), (topic.partitions, topic.retention_ms, topic.retention_bytes, topic.cleanup))
        self.assertEqual({topic.name: topic}, self.wait(self.storage.describe([topic.name])))
        self.assertEqual(topic, self.storage.known(topic.name))
        bounds = self.wait(self.storage.bounds(topic.name))
        self.assertEqual({0, 1, 2}, set(bounds))
        self.assertTrue(all(bound.first == bound.end for bound in bounds.values()))
        self.put(topic, b"x", partition=2)

    def test_a_second_topic_of_a_name_is_refused(self) -> None:
        """Exists, and the first one keeps its id, its partitions and its messages."""
        topic = self.topic(2)
        self.put(topic, b"kept")
        with self.assertRaises(Exists):
            self.wait(self.storage.create_topic(TopicSpec(topic.name, 5)))
        self.assertEqual(topic, self.wait(self.storage.describe([topic.name]))[topic.name])
        self.assertEqual([b"kept"], [message.value for message in self.everything(topic)])

    def test_a_setting_that_is_not_taken_makes_no_topic(self) -> None:
        """An unknown config name is BadBody that names it; the topic is not there afterwards."""
        name = self.name()
        with self.assertRaises(BadBody) as refused:
            self.wait(self.storage.create_topic(TopicSpec(name, config={"no.such.setting": "1"})))
        self.assertTrue("no.such.setting" in refused.exception.detail, refused.exception.detail)
        self.assertEqual({}, self.wait(self.storage.describe([name])))

    def test_layout(self) -> None:
        """Each partition has a leader that is one of its replicas, in sync, and one of the brokers that are there."""
        topic = self.topic(3)
        brokers = self.wait(self.storage.brokers())
        self.assertEqual(list(brokers), sorted(set(brokers)))
        layout = self.wait(self.storage.layout(topic.name))
        self.assertEqual([0, 1, 2], sorted(layout))
        for place in layout.values():
            self.assertEqual(topic.replication, len(place.replicas))
            self.assertTrue({place.leader} <= set(place.in_sync) <= set(place.replicas) <= set(brokers), place)

    def test_describe_leaves_out_what_is_not_there(self) -> None:
        """Asked for one that is and one that is not, describe answers with the one; known says None."""
        topic, other = self.topic(), self.name()
        self.assertEqual({topic.name}, set(self.wait(self.storage.describe([other, topic.name]))))
        self.assertIsNone(self.storage.known(other))

    def test_a_topic_grows(self) -> None:
        """More partitions: the new one takes messages, the id stays, what was stored stays."""
        topic = self.topic(1)
        self.put(topic, b"a")
        grown = self.wait(self.storage.grow(topic.name, 3))
        self.assertEqual((topic.uid, 3), (grown.uid, grown.partitions))
        self.assertEqual(grown, self.storage.known(topic.name))
        self.put(grown, b"b", partition=2)
        self.assertEqual([b"a"], [message.value for message in self.everything(grown)])
        self.assertEqual([b"b"], [message.value for message in self.everything(grown, 2)])

    def test_a_topic_never_shrinks(self) -> None:
        """The same number of partitions, or fewer, is BadBody and changes nothing; a topic that is not there is TopicMissing."""
        topic = self.topic(2)
        for partitions in (1, 2):
            with self.assertRaises(BadBody):
                self.wait(self.storage.grow(topic.name, partitions))
        self.assertEqual(topic, self.wait(self.storage.describe([topic.name]))[topic.name])
        with self.assertRaises(TopicMissing):
            self.wait(self.storage.grow(self.name(), 2))

    def test_a_topic_is_configured(self) -> None:
        """Retention and config are changed, shown by describe and known; None takes the bound away; other settings stay."""
        topic = self.topic(1, retention_ms=3_600_000)
        self.wait(self.storage.configure(topic.name, {"retention_bytes": 5_000_000, "config": {"max.message.bytes": "2000000"}}))
        changed = self.wait(self.storage.configure(topic.name, {"retention_ms": None}))
        self.assertEqual((None, 5_000_000, 2_000_000), (changed.retention_ms, changed.retention_bytes, changed.max_message_bytes))
        self.assertEqual("2000000", changed.config["max.message.bytes"])
        self.assertEqual(changed, self.storage.known(topic.name))
        self.assertEqual(topic.uid, changed.uid)

    def test_a_bad_setting_changes_nothing(self) -> None:
        """configure with an unknown config name is BadBody and nothing of it is set; a topic that is not there is TopicMissing."""
        topic = self.topic()
        with self.assertRaises(BadBody):
            self.wait(self.storage.configure(topic.name, {"retention_ms": 77_000, "config": {"no.such.setting": "1"}}))
        self.assertEqual(topic, self.wait(self.storage.describe([topic.name]))[topic.name])
        with self.assertRaises(TopicMissing):
            self.wait(self.storage.configure(self.name(), {"retention_ms": 1000}))

    def test_a_deleted_topic_is_gone(self) -> None:
        """When delete_topic fires: not described, not known, and everything that names it is TopicMissing; deleting again is done."""
        topic = self.topic()
        self.put(topic, b"x")
        self.wait(self.storage.delete_topic(topic.name))
        self.assertEqual({}, self.wait(self.storage.describe([topic.name])))
        self.assertIsNone(self.storage.known(topic.name))
        for call in (
            lambda: self.storage.read(topic.name, 0, 0, 1, WIDE),
            lambda: self.storage.log_ends(topic.name, {0: 0}),
            lambda: self.storage.bounds(topic.name),
            lambda: self.storage.layout(topic.name),
            lambda: self.storage.offset_at(topic.name, 0),
        ):
            with self.assertRaises(TopicMissing):
                self.wait(call())
        (answer,) = self.wait(self.storage.publish([Record(topic.name, b"x", partition=0)], "all"))
        self.assertIsInstance(answer, TopicMissing)
        self.wait(self.storage.delete_topic(topic.name))

    def test_a_topic_made_again_is_another_one(self) -> None:
        """Another uid, and nothing of the former one's messages."""
        topic = self.topic(2)
        self.put(topic, b"old", partition=1)
        self.wait(self.storage.delete_topic(topic.name))
        again = self.wait(self.storage.create_topic(TopicSpec(topic.name, 2)))
        self.assertNotEqual(topic.uid, again.uid)
        self.assertEqual([], self.everything(again, 1))
        self.put(again, b"new", partition=1)
        self.assertEqual([b"new"], [message.value for message in self.everything(again, 1)])

    # --- publish ---

    def test_a_record_comes_back_as_it_was_given(self) -> None:
        """Value, key, headers in order with repeats, null and empty ones, and the timestamp, byte for byte."""
        topic = self.topic()
        timestamp = self.now() - 5000
        headers = (("a", b"1"), ("b", None), ("a", b"\x00\xff"), ("h\u00e9", b""), ("c", "\u20ac".encode()))
        octets = bytes(range(256))
        given = [
            Record(topic.name, octets, octets[::-1], headers, 0, timestamp),
            Record(topic.name, None, b"k", (), 0, timestamp + 1),
            Record(topic.name, b"", b"", (), 0, timestamp + 2),
            Record(topic.name, b"v", None, (("only", None),), 0, timestamp),
        ]
        positions = self.publish(given)
        found = self.everything(topic)
        self.assertEqual([position.offset for position in positions], [message.offset for message in found])
        self.assertEqual([position.timestamp for position in positions], [message.timestamp for message in found])
        self.assertEqual(
            [(record.value, record.key, record.headers, record.timestamp) for record in given],
            [(message.value, message.key, message.headers, message.timestamp) for message in found],
        )

    def test_a_record_without_timestamp_gets_the_moment(self) -> None:
        """The storage's own time, the same in the answer and in what is read."""
        topic = self.topic()
        before = self.now()
        (position,) = self.publish([Record(topic.name, b"x", partition=0)])
        self.assertLessEqual(before - 1000, position.timestamp)
        self.assertEqual(position.timestamp, self.everything(topic)[0].timestamp)

    def test_offsets_rise_in_the_order_given(self) -> None:
        """Per partition, within a call and over calls that are under way together."""
        topic = self.topic(2)
        calls = [
            self.storage.publish(
                [Record(topic.name, b"%d.%d" % (call, number), partition=number % 2, timestamp=self.now()) for number in range(10)], "all"
            )
            for call in range(20)
        ]
        for call in calls:
            self.assertEqual(10, len([answer for answer in self.wait(call) if isinstance(answer, Position)]))
        for partition in (0, 1):
            found = self.everything(topic, partition)
            self.assertEqual(
                [b"%d.%d" % (call, number) for call in range(20) for number in range(partition, 10, 2)], [message.value for message in found]
            )
            self.assertEqual(sorted({message.offset for message in found}), [message.offset for message in found])

    def test_positions_name_what_is_read_there(self) -> None:
        """Each position leads to its record."""
        topic = self.topic(3)
        records = [Record(topic.name, b"%d" % number, partition=number % 3, timestamp=self.now()) for number in range(30)]
        for record, position in zip(records, self.publish(records, "1"), strict=True):
            self.assertEqual((topic.name, record.partition), (position.topic, position.partition))
            part = self.wait(self.storage.read(topic.name, position.partition, position.offset, 1, WIDE))
            self.assertEqual((position.offset, record.value), (part.messages[0].offset, part.messages[0].value))

    def test_every_acks_stores(self) -> None:
        """``1`` and ``all`` answer with positions, ``0`` with an empty list; all of them are there soon."""
        topic = self.topic()
        self.publish([Record(topic.name, b"one", partition=0, timestamp=self.now())], "1")
        self.publish([Record(topic.name, b"all", partition=0, timestamp=self.now())], "all")
        self.assertEqual([], self.wait(self.storage.publish([Record(topic.name, b"none", partition=0, timestamp=self.now())], "0")))
        self.until(lambda: len(self.everything(topic)) == 3, "the record with acks=0")
        self.assertEqual([b"one", b"all", b"none"], [message.value for message in self.everything(topic)])

    def test_one_record_fails_alone(self) -> None:
        """A partition or a topic that is not there, or a record too large, is TopicMissing or TooLarge in its place; the others are stored."""
        topic = self.topic(2)
        now = self.now()
        records = [
            Record(topic.name, b"a", partition=0, timestamp=now),
            Record(topic.name, b"b", partition=9, timestamp=now),
            Record(self.name(), b"c", partition=0, timestamp=now),
            Record(topic.name, b"d" * (topic.max_message_bytes + 1), partition=1, timestamp=now),
            Record(topic.name, b"e", partition=1, timestamp=now),
        ]
        answers = self.wait(self.storage.publish(records, "all"))
        self.assertEqual([Position, TopicMissing, TopicMissing, TooLarge, Position], [type(answer) for answer in answers])
        self.assertEqual([b"a"], [message.value for message in self.everything(topic, 0)])
        self.assertEqual([b"e"], [message.value for message in self.everything(topic, 1)])

    def test_nothing_to_publish(self) -> None:
        """No records: no answers."""
        self.assertEqual([], self.wait(self.storage.publish([], "all")))

    def test_a_value_of_one_mebibyte(self) -> None:
        """The default topic takes 1048576 bytes of value with 64 KiB of key and headers, and gives them back."""
        topic = self.topic()
        value = bytes(range(256)) * 4096
        self.publish([Record(topic.name, value, b"k" * 32_768, (("h", b"v" * 32_000),), 0, self.now())])
        (message,) = self.everything(topic)
        self.assertTrue(message.value == value)
        self.assertEqual((b"k" * 32_768, (("h", b"v" * 32_000),)), (message.key, message.headers))

    # --- post ---

    def posted(self, *records: Record, acks: Acks = "all") -> "list[Deferred[Position | PsubdError]]":
        """Post them in one turn; what each one's poster is told."""
        heard: list[Deferred[Position | PsubdError]] = [Deferred() for _ in records]
        for record, told in zip(records, heard, strict=True):
            self.storage.post(record, acks, told.callback)
        self.assertEqual([], [told for told in heard if told.called], "nobody is told within the call")
        return heard

    def test_a_posted_record_is_stored_and_told(self) -> None:
        """With ``all`` and with ``1``: not before the call returned, and once; when it is told, the record is there where it is said to be."""
        topic = self.topic(2)
        for acks in ("1", "all"):
            record = Record(topic.name, acks.encode(), b"k", (("h", b"v"),), 1, self.now() - 5)
            (heard,) = self.posted(record, acks=acks)
            position = self.wait(heard)
            self.assertEqual((topic.name, 1, record.timestamp), (position.topic, position.partition, position.timestamp))
            (message,) = self.wait(self.storage.read(topic.name, 1, position.offset, 1, WIDE)).messages
            self.assertEqual(
                (position.offset, record.timestamp, record.value, record.key, record.headers),
                (message.offset, message.timestamp, message.value, message.key, message.headers),
            )

    def test_posts_keep_their_order(self) -> None:
        """Per partition, among many of one turn and among the publishes of that turn."""
        topic = self.topic(2)
        now = self.now()
        heard: list[Deferred[Any]] = []
        expected: list[list[bytes]] = [[], []]
        for turn in range(6):
            for number in range(40):
                value, partition = b"%d.%d" % (turn, number), number % 2
                record = Record(topic.name, value, partition=partition, timestamp=now)
                expected[partition].append(value)
                if number % 13 == 5:
                    heard.append(self.storage.publish([record], "all"))
                else:
                    heard += self.posted(record)
            if turn % 2:
                self.wait(self.storage.bounds(topic.name))  # some turns come together, some apart
        offsets: list[list[int]] = [[], []]
        for told in heard:
            answer = self.wait(told)
            (position,) = answer if isinstance(answer, list) else [answer]
            offsets[position.partition].append(position.offset)
        for partition in (0, 1):
            found = self.everything(topic, partition)
            self.assertEqual(expected[partition], [message.value for message in found])
            self.assertEqual(offsets[partition], [message.offset for message in found])

    def test_one_posted_record_fails_alone(self) -> None:
        """A partition or a topic that is not there, or a record too large, is told as TopicMissing or TooLarge; its neighbours are stored."""
        topic = self.topic(2)
        now = self.now()
        heard = self.posted(
            Record(topic.name, b"a", partition=0, timestamp=now),
            Record(topic.name, b"b", partition=9, timestamp=now),
            Record(self.name(), b"c", partition=0, timestamp=now),
            Record(topic.name, b"d" * (topic.max_message_bytes + 1), partition=1, timestamp=now),
            Record(topic.name, b"e", partition=1, timestamp=now),
        )
        self.assertEqual([Position, TopicMissing, TopicMissing, TooLarge, Position], [type(self.wait(told)) for told in heard])
        self.assertEqual([b"a"], [message.value for message in self.everything(topic, 0)])
        self.assertEqual([b"e"], [message.value for message in self.everything(topic, 1)])

    def test_a_record_posted_for_nobody(self) -> None:
        """With acks 0 it is stored soon, and nobody is told, also where it fails."""
        topic = self.topic()
        nobody: list[Any] = []
        self.storage.post(Record(topic.name, b"none", partition=0, timestamp=self.now()), "0", nobody.append)
        self.storage.post(Record(topic.name, b"lost", partition=7, timestamp=self.now()), "0", nobody.append)
        (heard,) = self.posted(Record(topic.name, b"all", partition=0, timestamp=self.now()))
        self.wait(heard)
        self.until(lambda: len(self.everything(topic)) == 2, "the record with acks=0")
        self.assertEqual([], nobody)

    def test_a_watch_hears_of_what_was_posted(self) -> None:
        """Who waits for the record may read it."""
        topic = self.topic()
        end = self.wait(self.storage.bounds(topic.name))[0].end
        watch = self.storage.watch(topic.name, 0, end)
        (heard,) = self.posted(Record(topic.name, b"a", partition=0, timestamp=self.now()))
        self.wait(watch)
        self.assertEqual(b"a", self.everything(topic, offset=end)[0].value)
        self.wait(heard)

    def test_what_was_posted_is_finished_by_a_stop(self) -> None:
        """stop in the same turn: what was accepted is stored and told; what comes later is refused at once, and nobody is told."""
        topic = self.topic()
        (heard,) = self.posted(Record(topic.name, b"a", partition=0, timestamp=self.now()))
        stopped = self.storage.stop()
        nobody: list[Any] = []
        for acks in ("all", "1", "0"):
            with self.assertRaises(StorageUnavailable):
                self.storage.post(Record(topic.name, b"b", partition=0, timestamp=self.now()), acks, nobody.append)
        self.assertIsInstance(self.wait(heard), Position)
        self.wait(stopped)
        self.assertEqual([], nobody)

    # --- read ---

    def test_a_read_keeps_to_max_records(self) -> None:
        """At most so many, in order, and next_offset leads to the rest."""
        topic = self.topic()
        self.put(topic, *[b"%d" % number for number in range(25)])
        part = self.wait(self.storage.read(topic.name, 0, 0, 10, WIDE))
        self.assertLessEqual(len(part.messages), 10)
        self.assertEqual([b"%d" % number for number in range(25)], [message.value for message in self.everything(topic, max_records=10)])
        self.assertEqual([b"%d" % number for number in range(25)], [message.value for message in self.everything(topic, max_records=1)])

    def test_a_read_keeps_to_max_bytes_but_gives_one(self) -> None:
        """Never more payload than max_bytes, unless it is one record alone; whatever it says, every record comes."""
        topic = self.topic()
        sizes = [10, 3000, 10, 10, 50_000, 10]
        self.put(topic, *[b"x" * size for size in sizes])
        for max_bytes in (1, 1024, 4096, 60_000):
            offset, found = 0, list[int]()
            while len(found) < len(sizes):
                part = self.wait(self.storage.read(topic.name, 0, offset, 100, max_bytes))
                size = sum(message.size for message in part.messages)
                self.assertTrue(size <= max_bytes or len(part.messages) == 1, (size, max_bytes))
                self.assertGreater(part.next_offset, offset)
                offset = part.next_offset
                found += [len(message.value or b"") for message in part.messages]
            self.assertEqual(sizes, found)

    def test_a_read_from_the_middle(self) -> None:
        """The first message is that of the offset."""
        topic = self.topic()
        offsets = self.put(topic, b"a", b"b", b"c", b"d")
        self.assertEqual([b"c", b"d"], [message.value for message in self.everything(topic, offset=offsets[2])])

    def test_a_read_at_the_end_is_empty(self) -> None:
        """No messages, the log's bounds, and the same place to go on."""
        topic = self.topic()
        offsets = self.put(topic, b"a", b"b")
        end = self.wait(self.storage.bounds(topic.name))[0].end
        self.assertGreater(end, offsets[-1])
        part = self.wait(self.storage.read(topic.name, 0, end, 10, WIDE))
        self.assertEqual(((), end, end), (part.messages, part.next_offset, part.end))

    def test_a_read_past_the_end_is_empty(self) -> None:
        """No messages, and the true bounds."""
        topic = self.topic()
        self.put(topic, b"a")
        bounds = self.wait(self.storage.bounds(topic.name))[0]
        part = self.wait(self.storage.read(topic.name, 0, bounds.end + 1000, 10, WIDE))
        self.assertEqual(((), bounds.first, bounds.end), (part.messages, part.first, part.end))

    def test_a_read_of_an_empty_partition(self) -> None:
        """An empty slice at once."""
        topic = self.topic(2)
        part = self.wait(self.storage.read(topic.name, 1, 0, 10, WIDE))
        self.assertEqual(((), part.end, part.end), (part.messages, part.first, part.next_offset))

    def test_a_read_of_a_partition_that_is_not_there(self) -> None:
        """TopicMissing."""
        topic = self.topic(1)
        with self.assertRaises(TopicMissing):
            self.wait(self.storage.read(topic.name, 1, 0, 1, WIDE))

    def test_many_reads_together(self) -> None:
        """Reads that are under way together each get their own answer."""
        topic = self.topic(4)
        for partition in range(4):
            self.put(topic, *[b"%d-%d" % (partition, number) for number in range(50)], partition=partition)
        asked = [(partition, self.storage.read(topic.name, partition, 0, 50, WIDE)) for partition in (0, 1, 2, 3) * 5]
        for partition, reading in asked:
            messages = self.wait(reading).messages
            self.assertEqual([b"%d-%d" % (partition, number) for number in range(len(messages))], [message.value for message in messages])
            self.assertTrue(messages)

    # --- watch ---

    def test_watch_fires_at_once_where_there_is_something(self) -> None:
        """An offset that is there, and a topic that is not: nothing to wait for."""
        topic = self.topic()
        offsets = self.put(topic, b"a")
        self.wait(self.storage.watch(topic.name, 0, offsets[0]))
        self.wait(self.storage.watch(self.name(), 0, 0))

    def test_watch_waits_for_the_record(self) -> None:
        """It fires after the publish, and a read then finds the record; one for a later offset, or another partition, goes on waiting."""
        topic = self.topic(2)
        end = self.wait(self.storage.bounds(topic.name))[0].end
        here, later, elsewhere = (self.storage.watch(topic.name, partition, offset) for partition, offset in ((0, end), (0, end + 1000), (1, end)))
        self.assertTrue(self.pending(here))
        self.put(topic, b"a")
        self.wait(here)
        self.assertEqual(b"a", self.everything(topic, offset=end)[0].value)
        self.assertTrue(self.pending(later))
        self.assertTrue(self.pending(elsewhere))
        self.withdraw(later, elsewhere)

    def test_watch_fires_for_all_that_wait(self) -> None:
        """A thousand waiters on a partition all hear of one record."""
        topic = self.topic()
        end = self.wait(self.storage.bounds(topic.name))[0].end
        waiting = [self.storage.watch(topic.name, 0, end) for _ in range(1000)]
        self.put(topic, b"a")
        for watch in waiting:
            self.wait(watch)

    def test_watch_fires_when_the_topic_goes(self) -> None:
        """Who waits on a topic that is deleted hears of it."""
        topic = self.topic()
        watch = self.storage.watch(topic.name, 0, 1000)
        self.assertTrue(self.pending(watch))
        self.wait(self.storage.delete_topic(topic.name))
        self.wait(watch)

    def test_watch_fires_when_the_topic_grows(self) -> None:
        """Who waits on a topic that gets partitions hears of it."""
        topic = self.topic()
        watch = self.storage.watch(topic.name, 0, 1000)
        self.wait(self.storage.grow(topic.name, 2))
        self.wait(watch)

    def test_a_watch_is_withdrawn(self) -> None:
        """Cancelled, it fails with CancelledError, and the others still hear."""
        topic = self.topic()
        end = self.wait(self.storage.bounds(topic.name))[0].end
        withdrawn, kept = self.storage.watch(topic.name, 0, end), self.storage.watch(topic.name, 0, end)
        self.withdraw(withdrawn)
        self.put(topic, b"a")
        self.wait(kept)

    def withdraw(self, *watches: "Deferred[None]") -> None:
        for watch in watches:
            watch.cancel()
            with self.assertRaises(CancelledError):
                self.wait(watch)

    # --- places in the log ---

    def test_bounds(self) -> None:
        """Each partition's own, moving with what is published; a topic that is not there is TopicMissing."""
        topic = self.topic(2)
        before = self.wait(self.storage.bounds(topic.name))
        offsets = self.put(topic, b"a", b"b", partition=1)
        after = self.wait(self.storage.bounds(topic.name))
        self.assertEqual(before[0], after[0])
        self.assertEqual((before[1].first, True), (after[1].first, after[1].end > offsets[-1]))
        with self.assertRaises(TopicMissing):
            self.wait(self.storage.bounds(self.name()))

    def test_offset_at(self) -> None:
        """The first offset whose record is as new as the time, in log order, though timestamps go up and down; the end where there is none."""
        topic = self.topic(2)
        base = self.now() - 100_000
        offsets = [self.put(topic, b"x", timestamp=base + age)[0] for age in (1000, 5000, 3000, 7000, 2000, 9000)]
        end = self.wait(self.storage.bounds(topic.name))
        for age, expected in ((0, 0), (1000, 0), (1001, 1), (3000, 1), (5000, 1), (5001, 3), (7001, 5), (9000, 5)):
            self.assertEqual({0: offsets[expected], 1: end[1].end}, self.wait(self.storage.offset_at(topic.name, base + age)), age)
        self.assertEqual(end[0].end, self.wait(self.storage.offset_at(topic.name, base + 9001))[0])

    def test_a_log_that_was_not_cut(self) -> None:
        """The log's epoch never falls along it, and is that of the bounds at its end; where it ended is told of no epoch that goes on, of none that
        is not known, and of none at all; a topic that is not there is TopicMissing."""
        topic = self.topic(2)
        for _ in range(3):
            self.put(topic, b"a", b"b", b"c")
        bound = self.wait(self.storage.bounds(topic.name))[0]
        epochs, offset = list[int](), bound.first
        while offset < bound.end:
            part = self.wait(self.storage.read(topic.name, 0, offset, 1, WIDE))
            epochs.append(part.log_epoch)
            offset = part.next_offset
        self.assertEqual(sorted(epochs), epochs)
        self.assertGreaterEqual(bound.log_epoch, epochs[-1])
        for asked in ({0: epochs[-1]}, {0: bound.log_epoch, 1: -1}, {0: 1_000_000, 1: 7}, {}):
            self.assertEqual({}, self.wait(self.storage.log_ends(topic.name, asked)), asked)
        with self.assertRaises(TopicMissing):
            self.wait(self.storage.log_ends(self.name(), {0: 0}))

    # --- groups ---

    def test_a_place_keeps_the_epoch_of_its_log(self) -> None:
        """Where the storage numbers its leaders' terms a commit's log_epoch comes back, the newest one; elsewhere -1 does."""
        topic, group = self.topic(2), self.name()
        known, none = TopicPartition(topic.name, 0), TopicPartition(topic.name, 1)
        for epoch in (3, 2, 5):
            self.assertEqual({}, self.wait(self.storage.commit(group, {known: Commit(4, "a", epoch), none: Commit(4, "b")})))
        kept = self.wait(self.storage.committed(group))
        numbered = self.wait(self.storage.bounds(topic.name))[0].log_epoch >= 0
        self.assertEqual({known: Commit(4, "a", 5 if numbered else -1), none: Commit(4, "b")}, kept)

    def test_a_group_keeps_its_places(self) -> None:
        """What was committed in one call, over topics and partitions, comes back with its metadata; another group has none of it."""
        one, two = self.topic(3), self.topic(1)
        group = self.name()
        places = {
            TopicPartition(one.name, 0): Commit(0),
            TopicPartition(one.name, 2): Commit(41, "some metadata"),
            TopicPartition(two.name, 0): Commit(2**40, "m" * self.storage.limits.max_metadata),
        }
        self.assertEqual({}, self.wait(self.storage.commit(group, places)))
        self.assertEqual(places, self.wait(self.storage.committed(group)))
        self.assertEqual({}, self.wait(self.storage.committed(self.name())))

    def test_a_later_commit_takes_the_place(self) -> None:
        """Forward or back, the newest counts; what it does not name stays."""
        topic, group = self.topic(2), self.name()
        first, second = TopicPartition(topic.name, 0), TopicPartition(topic.name, 1)
        self.wait(self.storage.commit(group, {first: Commit(5, "a"), second: Commit(6, "b")}))
        self.wait(self.storage.commit(group, {first: Commit(3, "c")}))
        self.assertEqual({first: Commit(3, "c"), second: Commit(6, "b")}, self.wait(self.storage.committed(group)))

    def test_a_place_that_cannot_be_kept_fails_alone(self) -> None:
        """A partition or topic that is not there, or too much metadata, is answered with why; the others are kept."""
        topic, group = self.topic(2), self.name()
        good, wide = TopicPartition(topic.name, 0), TopicPartition(topic.name, 1)
        missing, gone = TopicPartition(topic.name, 9), TopicPartition(self.name(), 0)
        failed = self.wait(
            self.storage.commit(
                group, {good: Commit(1), missing: Commit(1), gone: Commit(1), wide: Commit(1, "m" * (self.storage.limits.max_metadata + 1))}
            )
        )
        self.assertEqual({missing, gone, wide}, set(failed))
        self.assertTrue(all(isinstance(why, PsubdError) for why in failed.values()))
        self.assertEqual({good: Commit(1)}, self.wait(self.storage.committed(group)))

    def test_a_group_forgets_a_topic(self) -> None:
        """Its places there are gone, those on another topic stay, other groups' too; forgetting what is not there is done."""
        one, two = self.topic(2), self.topic(1)
        group, other = self.name(), self.name()
        kept = TopicPartition(two.name, 0)
        places = {TopicPartition(one.name, 0): Commit(1), TopicPartition(one.name, 1): Commit(2), kept: Commit(3)}
        self.wait(self.storage.commit(group, places))
        self.wait(self.storage.commit(other, places))
        self.wait(self.storage.forget(group, one.name))
        self.wait(self.storage.forget(group, self.name()))
        self.assertEqual({kept: Commit(3)}, self.wait(self.storage.committed(group)))
        self.assertEqual(places, self.wait(self.storage.committed(other)))

    def test_a_group_forgets_all(self) -> None:
        """No topic named: all of its places are gone; a group that never was: done."""
        topic, group = self.topic(2), self.name()
        self.wait(self.storage.commit(group, {TopicPartition(topic.name, 0): Commit(1), TopicPartition(topic.name, 1): Commit(2)}))
        self.wait(self.storage.forget(group, None))
        self.wait(self.storage.forget(self.name(), None))
        self.assertEqual({}, self.wait(self.storage.committed(group)))

    # --- the end ---

    def test_what_is_stopped_takes_nothing(self) -> None:
        """stop finishes what was accepted; every call after it is StorageUnavailable, and who watches hears."""
        topic = self.topic()
        accepted = self.storage.publish([Record(topic.name, b"x", partition=0, timestamp=self.now())], "all")
        watch = self.storage.watch(topic.name, 0, 1000)
        self.wait(self.storage.stop())
        self.assertIsInstance(self.wait(accepted)[0], Position)
        self.wait(watch)
        for call in (
            lambda: self.storage.publish([Record(topic.name, b"y", partition=0)], "all"),
            lambda: self.storage.read(topic.name, 0, 0, 1, WIDE),
            lambda: self.storage.log_ends(topic.name, {0: 0}),
            lambda: self.storage.committed("g"),
            lambda: self.storage.create_topic(TopicSpec(self.name())),
        ):
            with self.assertRaises(StorageUnavailable):
                self.wait(call())
        self.wait(self.storage.stop())


class RetentionContract(Steps):
    """What the embedded storages add.

    The host's ``sweep(ms)`` lets ``ms`` pass, or up to half a minute more, and makes the storage look at everything.
    """

    sweep: Callable[[int], None]

    def first(self, topic: StoredTopic, partition: int = 0) -> int:
        return self.wait(self.storage.bounds(topic.name))[partition].first  # type: ignore[no-any-return]

    def test_retention_by_age(self) -> None:
        """Records older than retention_ms, by their own timestamps, go from the front; the first offset says so; one that is not old stops it."""
        topic = self.topic(2, retention_ms=60_000)
        now = self.now()
        for age in (90_000, 70_000, 1_000, 80_000, 0):
            self.put(topic, b"x", timestamp=now - age)
        self.sweep(0)
        self.until(lambda: self.first(topic) == 2, "two old records gone")
        self.assertEqual([2, 3, 4], [message.offset for message in self.everything(topic)])
        part = self.wait(self.storage.read(topic.name, 0, 0, 1, WIDE))
        self.assertEqual((2, 2), (part.first, part.messages[0].offset))

    def test_offsets_go_on_after_all_went(self) -> None:
        """A partition that retention emptied keeps its end, and its next record gets the next offset."""
        topic = self.topic(1, retention_ms=60_000)
        self.put(topic, b"a", b"b", b"c")
        self.sweep(61_000)
        self.until(lambda: self.first(topic) == 3, "all gone")
        part = self.wait(self.storage.read(topic.name, 0, 1, 10, WIDE))
        self.assertEqual(((), 3, 3, 3), (part.messages, part.next_offset, part.first, part.end))
        self.assertEqual([3], self.put(topic, b"d"))

    def test_retention_by_bytes(self) -> None:
        """The oldest go until no more than retention_bytes are kept, per partition."""
        topic = self.topic(2, retention_bytes=50_000)
        self.put(topic, *[b"x" * 1000] * 100)
        self.put(topic, *[b"y" * 1000] * 20, partition=1)
        self.sweep(0)
        self.until(lambda: self.first(topic) > 0, "the oldest gone")
        kept = self.everything(topic)
        self.assertLessEqual(sum(message.size for message in kept), 50_000)
        self.assertGreaterEqual(len(kept), 45)
        self.assertEqual(list(range(100 - len(kept), 100)), [message.offset for message in kept])
        self.assertEqual(0, self.first(topic, 1))

    def test_bytes_never_take_the_newest(self) -> None:
        """A record larger than retention_bytes is there until a newer one comes."""
        topic = self.topic(1, retention_bytes=100)
        self.put(topic, b"a" * 1000, b"b" * 1000)
        self.sweep(0)
        self.until(lambda: self.first(topic) == 1, "the older one gone")
        self.assertEqual([b"b" * 1000], [message.value for message in self.everything(topic)])

    def test_without_bounds_nothing_goes(self) -> None:
        """retention None keeps all."""
        topic = self.topic(1, retention_ms=None)
        other = self.topic(1, retention_ms=1000)
        self.put(topic, b"a", timestamp=1)
        self.put(other, b"a", timestamp=1)
        self.sweep(0)
        self.until(lambda: self.first(other) == 1, "the other topic's swept")
        self.assertEqual(1, len(self.everything(topic)))

    def test_a_new_retention_counts_at_once(self) -> None:
        """configure needs no wait for the next sweep."""
        topic = self.topic(1, retention_ms=None)
        self.put(topic, b"a", timestamp=self.now() - 10_000)
        self.wait(self.storage.configure(topic.name, {"retention_ms": 5000}))
        self.until(lambda: self.first(topic) == 1, "the old record gone")

    def test_retention_of_many(self) -> None:
        """Thousands of records, in bounded portions, go all the same; offset_at and reads are right in what is left."""
        topic = self.topic(1, retention_ms=600_000)
        old, young = self.now() - 3_600_000, self.now() - 20_000
        times = [old + number if number < 5500 else young + number for number in range(6000)]
        for block in range(0, 6000, 1000):
            self.publish([Record(topic.name, b"%d" % time, partition=0, timestamp=time) for time in times[block : block + 1000]])
        self.assertEqual({0: 5700}, self.wait(self.storage.offset_at(topic.name, young + 5700)))
        self.assertEqual({0: 5500}, self.wait(self.storage.offset_at(topic.name, old + 5500)))
        self.sweep(0)
        self.until(lambda: self.first(topic) == 5500, "five and a half thousand gone")
        self.assertEqual(list(range(5500, 6000)), [message.offset for message in self.everything(topic)])
        self.assertEqual({0: 5700}, self.wait(self.storage.offset_at(topic.name, young + 5700)))
        self.assertEqual({0: 5500}, self.wait(self.storage.offset_at(topic.name, 0)))

    def test_compaction_keeps_the_newest_of_each_key(self) -> None:
        """Older records of a key go, leaving gaps that reads step over; order and offsets stay; a key's later record supersedes again."""
        topic = self.topic(1, cleanup="compact")
        for number, key in enumerate([b"a", b"b", b"a", b"c", b"b", b"a"]):
            self.put(topic, b"%d" % number, key=key)
        self.sweep(0)
        self.until(lambda: len(self.everything(topic)) == 3, "compacted")
        self.assertEqual([(3, b"c"), (4, b"b"), (5, b"a")], [(message.offset, message.key) for message in self.everything(topic)])
        self.put(topic, b"6", key=b"c")
        self.sweep(0)
        self.until(lambda: len(self.everything(topic)) == 3, "compacted again")
        self.assertEqual([(4, b"b"), (5, b"a"), (6, b"c")], [(message.offset, message.key) for message in self.everything(topic)])
        self.assertEqual(7, self.wait(self.storage.bounds(topic.name))[0].end)

    def test_a_tombstone_is_kept_for_a_day(self) -> None:
        """It takes its key's older records away at once, and goes itself a day after; the end of the log stays."""
        topic = self.topic(1, cleanup="compact")
        self.put(topic, b"1", key=b"a")
        self.put(topic, b"2", key=b"b")
        self.put(topic, None, key=b"a")
        self.sweep(0)
        self.until(lambda: len(self.everything(topic)) == 2, "compacted")
        self.assertEqual([(1, b"2"), (2, None)], [(message.offset, message.value) for message in self.everything(topic)])
        self.sweep(23 * 3_600_000)
        self.assertEqual(2, len(self.everything(topic)))
        self.sweep(2 * 3_600_000)
        self.until(lambda: len(self.everything(topic)) == 1, "the tombstone gone")
        self.assertEqual([3], self.put(topic, b"3", key=b"a"))

    def test_a_compacted_topic_ignores_age_and_needs_keys(self) -> None:
        """The newest of a key is kept however old; a record without a key is refused alone."""
        topic = self.topic(1, cleanup="compact", retention_ms=1000)
        self.put(topic, b"old", key=b"k", timestamp=self.now() - 3_600_000)
        refused, stored = self.wait(
            self.storage.publish([Record(topic.name, b"x", partition=0), Record(topic.name, b"y", b"q", partition=0, timestamp=self.now())], "all")
        )
        self.assertIsInstance(refused, PsubdError)
        self.assertIsInstance(stored, Position)
        self.sweep(0)
        self.pause()
        self.assertEqual([b"old", b"y"], [message.value for message in self.everything(topic)])

    def test_timestamps_keep_to_the_topics_bounds(self) -> None:
        """Further ahead than an hour, or older than message.timestamp.before.max.ms: refused alone."""
        topic = self.topic(1, config={"message.timestamp.before.max.ms": "10000"})
        now = self.now()
        answers = self.wait(
            self.storage.publish([Record(topic.name, b"x", partition=0, timestamp=now + shift) for shift in (3_700_000, 0, -11_000)], "all")
        )
        self.assertEqual([False, True, False], [isinstance(answer, Position) for answer in answers])
        self.assertEqual(1, len(self.everything(topic)))

    def test_settings_of_a_topic_are_told_apart(self) -> None:
        """Kafka's own names set what they mean; more than one copy, a bad number or a bad name is BadBody that names it."""
        topic = self.topic(1, config={"retention.ms": "-1", "retention.bytes": "5000", "cleanup.policy": "compact", "max.message.bytes": "100"})
        self.assertEqual((None, 5000, "compact", 100), (topic.retention_ms, topic.retention_bytes, topic.cleanup, topic.max_message_bytes))
        changed = self.wait(self.storage.configure(topic.name, {"retention_ms": 9000}))
        self.assertEqual((9000, "9000"), (changed.retention_ms, changed.config["retention.ms"]))
        for bad, word in (
            (TopicSpec(self.name(), replication=3), "replication"),
            (TopicSpec(self.name(), partitions=0), "partitions"),
            (TopicSpec(self.name(), retention_ms=-5), "retention_ms"),
            (TopicSpec("__mine"), "id"),
            (TopicSpec(self.name(), config={"retention.ms": "soon"}), "retention.ms"),
            (TopicSpec(self.name(), config={"cleanup.policy": "compact,delete"}), "cleanup.policy"),
        ):
            with self.assertRaises(BadBody) as refused:
                self.wait(self.storage.create_topic(bad))
            self.assertTrue(word in refused.exception.detail, refused.exception.detail)
            self.assertEqual({}, self.wait(self.storage.describe([bad.name])))
