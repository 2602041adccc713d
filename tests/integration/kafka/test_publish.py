"""Publishing to a real Kafka: no record makes another one fail, and what is stored is what was given."""

import time

from psubd.errors import BadRecord, PsubdError, StorageUnavailable, TooLarge
from psubd.model import Position, Record, TopicSpec
from psubd.storage.kafka.backend import KafkaStorage
from tests.integration.kafka.hosts import KafkaCase

HOUR_MS = 3_600_000


class Poisons(KafkaCase):
    """Records that Kafka refuses, in one call and in calls beside those of others."""

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
        self.assertEqual(list(range(39)), offsets)

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

    def test_a_log_that_stamps_its_own_time(self) -> None:
        """message.timestamp.type=LogAppendTime: the answer's timestamp is the one that is read."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), config={"message.timestamp.type": "LogAppendTime"}))).name
        (answer,) = self.wait(self.storage.publish([Record(topic, b"x", None, (), 0, 1_000)], "all"))
        assert isinstance(answer, Position)
        self.assertLess(abs(answer.timestamp - time.time() * 1000), 60_000)
        self.assertEqual(answer.timestamp, self.wait(self.storage.read(topic, 0, 0, 1, 1000)).messages[0].timestamp)
