"""Publishing to a real Kafka: no record makes another one fail, and what is stored is what was given."""

import time

from psubd.errors import BadRecord, PsubdError, StorageUnavailable, TooLarge, TopicMissing
from psubd.model import Position, Record, TopicSpec
from psubd.storage.kafka.backend import KafkaStorage
from tests.integration.kafka.hosts import KafkaCase

HOUR_MS = 3_600_000


class Poisons(KafkaCase):
    """Records that Kafka refuses, in one call and in calls beside those of others.

    :cvar orderly: whether order holds where nobody could foresee the refusal.
    """

    orderly = True

    def good(self, topic: str, count: int = 10) -> list[Record]:
        return [Record(topic, b"good %d" % number, b"k%d" % number, (), 0, self.now()) for number in range(count)]

    def poisoned(self, topic: str, poison: Record, storage: KafkaStorage | None = None) -> PsubdError:
        """Publish ten good records with the poison among them, as one call; and as one call each, all under way together. Twice, so that what the
        first left behind is seen too. The refusal."""
        storage = storage or self.storage
        for _ in range(2):
            records = self.good(topic)
            answers = self.wait(storage.publish([*records[:5], poison, *records[5:]], "all"))
            self.assertEqual([Position] * 10, [type(answer) for number, answer in enumerate(answers) if number != 5])
            calls = [storage.publish([record], "all") for record in [*records[:5], poison, *records[5:]]]
            singles = [self.wait(call)[0] for call in calls]
            self.assertEqual([Position] * 10, [type(answer) for number, answer in enumerate(singles) if number != 5])
            self.assertIsInstance(singles[5], type(answers[5]))
            positions = [answer.offset for answer in (*answers, *singles) if isinstance(answer, Position)]
            self.assertEqual(sorted(positions), positions, "in the order given")
        refusal = answers[5]
        assert isinstance(refusal, PsubdError)
        return refusal

    def test_a_timestamp_two_hours_ahead(self) -> None:
        """It is refused alone."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name()))).name
        refusal = self.poisoned(topic, Record(topic, b"x", b"k", (), 0, self.now() + 2 * HOUR_MS))
        self.assertIsInstance(refusal, BadRecord)

    def test_no_key_on_a_compacted_topic(self) -> None:
        """It is refused alone."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), cleanup="compact"))).name
        self.assertIsInstance(self.poisoned(topic, Record(topic, b"x", None, (), 0, self.now())), BadRecord)

    def test_one_mebibyte_on_an_adopted_topic(self) -> None:
        """A topic with Kafka's default max.message.bytes does not take exactly 1 MiB of value: refused alone, TooLarge."""
        topic = self.name()
        self.cluster.topics("--create", "--topic", topic, "--partitions", "1")
        self.assertIsInstance(self.poisoned(topic, Record(topic, b"x" * 1_048_576, b"k", (), 0, self.now())), TooLarge)

    def test_a_topic_that_takes_small_records_only(self) -> None:
        """Batches keep to the topic's own limit, so that many small records pass where few would fit into a default batch."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), max_message_bytes=2_000))).name
        records = [Record(topic, b"x" * 1_000, None, (), 0, self.now()) for _ in range(50)]
        answers = self.wait(self.storage.publish(records, "all"))
        self.assertEqual([Position] * 50, [type(answer) for answer in answers])

    def test_a_limit_that_shrank_unseen(self) -> None:
        """max.message.bytes lowered by somebody else: batches are halved until they fit; the one that never does is refused alone."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name()))).name
        other = self.another()
        self.wait(other.configure(topic, {"config": {"max.message.bytes": "3000"}}))
        records = [Record(topic, b"x" * 500, None, (), 0, self.now()) for _ in range(40)]
        records[7] = Record(topic, b"x" * 5_000, None, (), 0, self.now())
        answers = self.wait(self.storage.publish(records, "all"))
        self.assertEqual([7], [number for number, answer in enumerate(answers) if not isinstance(answer, Position)])
        self.assertIsInstance(answers[7], TooLarge)
        offsets = [answer.offset for answer in answers if isinstance(answer, Position)]
        self.assertEqual(list(range(39)), offsets if self.orderly else sorted(offsets))

    def test_compressed(self) -> None:
        """With compression the same holds, and records come back as they were."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name()))).name
        storage = self.another(compression="gzip")
        self.assertIsInstance(self.poisoned(topic, Record(topic, b"x", b"k", (), 0, self.now() + 2 * HOUR_MS), storage), BadRecord)
        found = self.wait(storage.read(topic, 0, 0, 100, 1 << 20)).messages
        self.assertEqual([b"good %d" % number for number in range(10)] * 4, [message.value for message in found])


class Levels(KafkaCase):
    """Levels of acks, and what the storage holds back."""

    def test_none_waits_for_nobody(self) -> None:
        """acks 0 is answered before anything is sent, and a poison among them takes no other along."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name()))).name
        for number in range(5):
            done = self.storage.publish([Record(topic, b"%d" % number, None, (), 0, self.now())], "0")
            self.assertTrue(done.called)
        self.until(lambda: len(self.wait(self.storage.read(topic, 0, 0, 100, 1 << 20)).messages) == 5, "five records")

    def test_a_full_buffer_refuses(self) -> None:
        """More than buffer_bytes under way: the call fails at once with StorageUnavailable, and later ones pass."""
        storage = self.another(buffer_bytes=10_000)
        topic = self.wait(storage.create_topic(TopicSpec(self.name()))).name
        first = storage.publish([Record(topic, b"x" * 9_000, None, (), 0, self.now())], "all")
        with self.assertRaises(StorageUnavailable):
            self.wait(storage.publish([Record(topic, b"x" * 9_000, None, (), 0, self.now())], "all"))
        self.assertIsInstance(self.wait(first)[0], Position)
        self.assertIsInstance(self.wait(storage.publish([Record(topic, b"y", None, (), 0, self.now())], "all"))[0], Position)

    def test_many_at_once(self) -> None:
        """Ten thousand calls under way together: all stored, each partition's in the order of the calls, and few wakes of the reactor."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), 3))).name
        calls = [self.storage.publish([Record(topic, b"%d" % number, None, (), number % 3, None)], "all") for number in range(10_000)]
        answers = [self.wait(call)[0] for call in calls]
        self.assertEqual({Position}, {type(answer) for answer in answers})
        for partition in range(3):
            offsets = [answer.offset for answer in answers[partition::3] if isinstance(answer, Position)]
            self.assertEqual(list(range(len(offsets))), offsets)
        self.assertLess(self.storage._mailbox.wakes, 1_000)

    def test_posted_one_by_one(self) -> None:
        """Ten thousand posts of one turn: each is told once, never within its call, its own place; a partition has them in the order of the calls."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), 3))).name
        told: dict[int, list[Position | PsubdError]] = {number: [] for number in range(10_000)}
        for number, results in told.items():
            self.storage.post(Record(topic, b"%d" % number, None, (), number % 3, self.now()), "all", results.append)
        self.assertEqual({0}, {len(results) for results in told.values()})
        self.until(lambda: all(told.values()), "the answers")
        self.assertEqual({1}, {len(results) for results in told.values()})
        for partition in range(3):
            offsets = [results[0].offset for number, results in told.items() if number % 3 == partition and isinstance(results[0], Position)]
            self.assertEqual(list(range(len(offsets))), offsets)
            (last,) = self.wait(self.storage.read(topic, partition, offsets[-1], 1, 1000)).messages
            self.assertEqual(partition, int(last.value or b"") % 3)
        self.assertLess(self.storage._mailbox.wakes, 1_000)

    def test_posts_that_are_refused(self) -> None:
        """A topic that nobody looked at yet is looked at; one that is not there, a partition that is not, a record over the topic's limit: told so,
        later; what cannot be accepted raises."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), max_message_bytes=2_000))).name
        storage = self.another(buffer_bytes=10_000)
        told: list[Position | PsubdError] = []
        records = (
            Record(topic, b"x", None, (), 0, self.now()),
            Record(self.name(), b"x", None, (), 0, self.now()),
            Record(topic, b"x", None, (), 7, self.now()),
            Record(topic, b"x", None, (), -1, self.now()),
            Record(topic, b"x" * 2_001, None, (), 0, self.now()),
        )
        for record in records:
            before = len(told)
            storage.post(record, "all", told.append)
            self.assertEqual(before, len(told), "never within the call")
            self.until(lambda before=before: len(told) > before, "the answer")  # type: ignore[misc]
        self.assertEqual([Position, TopicMissing, TopicMissing, TopicMissing, TooLarge], [type(each) for each in told])
        wide = self.wait(self.storage.create_topic(TopicSpec(self.name()))).name
        self.wait(storage.describe([wide]))
        storage.post(Record(wide, b"x" * 9_000, None, (), 0, self.now()), "all", told.append)
        with self.assertRaises(StorageUnavailable):
            storage.post(Record(wide, b"x" * 9_000, None, (), 0, self.now()), "all", told.append)
        self.until(lambda: len(told) == 6, "the large one")
        storage.post(Record(wide, b"none waits", None, (), 0, self.now()), "0", told.append)
        self.until(lambda: self.wait(storage.bounds(wide))[0].end == 2, "what had acks 0")
        self.assertEqual(6, len(told), "acks 0 is told nothing")
        self.wait(storage.stop())
        with self.assertRaises(StorageUnavailable):
            storage.post(records[0], "all", told.append)

    def test_a_log_that_stamps_its_own_time(self) -> None:
        """message.timestamp.type=LogAppendTime: the answer's timestamp is the one that is read."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), config={"message.timestamp.type": "LogAppendTime"}))).name
        (answer,) = self.wait(self.storage.publish([Record(topic, b"x", None, (), 0, 1_000)], "all"))
        assert isinstance(answer, Position)
        self.assertLess(abs(answer.timestamp - time.time() * 1000), 60_000)
        self.assertEqual(answer.timestamp, self.wait(self.storage.read(topic, 0, 0, 1, 1000)).messages[0].timestamp)
