"""The registrar's topics on a real Kafka."""

from psubd.errors import BadBody, Exists, NotFound, PsubdError, TooLarge
from psubd.manager.views import TopicView
from psubd.model import Elastic, Record, Topic, TopicSpec
from psubd.services.registrar_topics import ROOM
from tests.integration.kafka.house import KafkaHouse


class Registering(KafkaHouse):
    def by_tool(self, name: str, partitions: int, *config: str) -> None:
        """A topic that Kafka's own tool makes."""
        self.cluster.topics("--create", "--topic", name, "--partitions", str(partitions), *[part for each in config for part in ("--config", each)])

    def delete(self, topic: str, force: bool = False, data: bool = False) -> dict[str, list[str]]:
        return self.wait(self.registrar.delete_topic(topic, force, data, "test", None))

    def alter(self, topic: str, **changes: object) -> Topic:
        return self.wait(self.registrar.alter_topic(topic, changes, "test", None))

    def in_kafka(self, topic: str) -> bool:
        return topic in self.wait(self.storage.describe([topic]))

    def test_made(self) -> None:
        """As it was asked for, in Kafka and in the registry; what is shown as its config is the request's own, not what psubd sets besides."""
        asked = {"delete.retention.ms": "7000"}
        topic = self.make(partitions=3, retention_ms=60_000, retention_bytes=None, config=asked, elastic=Elastic(6))
        self.assertEqual((topic.partitions, topic.replication, topic.retention_ms, topic.retention_bytes), (3, 1, 60_000, None))
        self.assertEqual((topic.config, topic.adopted), (asked, False))
        stored = self.wait(self.storage.describe([topic.id]))[topic.id]
        self.assertEqual((topic.uid, stored.max_message_bytes), (stored.uid, 1_048_576 + ROOM))
        self.assertLess(asked.items(), stored.config.items())
        shown = TopicView.of(topic, 1, stored, None)
        self.assertEqual((shown.config, shown.retention_ms, shown.cleanup), (asked, 60_000, "delete"))
        self.assertEqual(self.make().config, {})

    def test_the_contracts_largest_message_fits(self) -> None:
        """Exactly 1 MiB of value with 64 KiB of key and headers, in a topic that psubd made."""
        topic = self.make()
        record = self.publisher.judge(topic, Record(topic.id, b"v" * 1_048_576, b"k" * 32_768, (("h", b"x" * 32_767),)))
        (answer,) = self.wait(self.publisher.publish([record], "all"))
        self.assertNotIsInstance(answer, PsubdError)

    def test_altered(self) -> None:
        """Retention, partitions and config: in Kafka, in the registry, and nothing else in either."""
        topic = self.make(config={"delete.retention.ms": "7000"})
        topic = self.alter(topic.id, partitions=2, retention_ms=None, config={"segment.ms": "100000"})
        self.assertEqual((topic.partitions, topic.retention_ms, topic.config), (2, None, {"delete.retention.ms": "7000", "segment.ms": "100000"}))
        stored = self.wait(self.storage.describe([topic.id]))[topic.id]
        self.assertEqual((stored.partitions, stored.retention_ms, stored.config["segment.ms"]), (2, None, "100000"))
        for changes in ({"partitions": 1}, {"config": {"no.such": "x"}}, {"config": {"segment.ms": "never"}}):
            with self.assertRaises(BadBody):
                self.alter(topic.id, **changes)

    def test_adopted(self) -> None:
        """A topic of somebody else's is taken as it is there; partitions given must be those it has; its own limit is known before a publish."""
        name = self.name()
        self.by_tool(name, 3, "retention.ms=5000", "retention.bytes=999999", "max.message.bytes=5000", "cleanup.policy=compact")
        with self.assertRaises(Exists) as caught:
            self.make(name, partitions=2)
        self.assertIn("3 partitions", caught.exception.detail)
        topic = self.make(name, given=False, retention_ms=77)
        self.assertEqual(
            (topic.adopted, topic.partitions, topic.retention_ms, topic.retention_bytes, topic.cleanup), (True, 3, 5_000, 999_999, "compact")
        )
        self.assertEqual(topic.config, {"max.message.bytes": "5000"})
        with self.assertRaises(TooLarge) as large:
            self.publisher.judge(topic, Record(name, b"v" * 5_000, b"k"))
        self.assertIn("max.message.bytes", large.exception.detail)
        fits = self.publisher.judge(topic, Record(name, b"v" * 4_900, b"k"))
        (answer,) = self.wait(self.publisher.publish([fits], "all"))
        self.assertNotIsInstance(answer, PsubdError)

    def test_an_adopted_one_is_forgotten(self) -> None:
        """Deleting it leaves its data in Kafka, unless the data is asked for; psubd's groups on it are forgotten either way."""
        name = self.name()
        self.by_tool(name, 1)
        for data in (False, True):
            self.make(name, partitions=1)
            self.bind(name)
            self.publish(name, b"x")
            self.assertNotEqual({}, self.wait(self.storage.committed(self.app)))
            self.delete(name, force=True, data=data)
            self.assertEqual({}, self.wait(self.storage.committed(self.app)))
            self.assertEqual(self.in_kafka(name), not data)
        with self.assertRaises(NotFound):
            self.delete(name)

    def test_deleted_and_made_again(self) -> None:
        """Another topic under the same name, at once: nothing of the former is left, for its groups neither."""
        name = self.make(partitions=2).id
        self.bind(name)
        self.publish(name, b"old")
        self.assertEqual([b"old"], self.take())
        self.delete(name)
        self.assertFalse(self.in_kafka(name))
        self.make(name)
        self.bind(name)
        self.publish(name, b"new")
        self.assertEqual([b"new"], self.take())

    def test_names(self) -> None:
        """Two hundred characters are a topic; one that differs from another by a dot for an underscore, which Kafka refuses, is a clear 4xx and
        leaves nothing behind."""
        base = self.name()
        long = (base + "." + "x" * 200)[:200]
        self.assertEqual(self.make(long).id, long)
        self.make(f"{base}.b")
        with self.assertRaises(PsubdError) as caught:
            self.make(f"{base}_b")
        self.assertIn(caught.exception.status, (400, 409))
        self.assertIn(f"{base}.b", caught.exception.detail)
        self.assertIsNone(self.gate.topic(f"{base}_b"))
        self.assertFalse(self.in_kafka(f"{base}_b"))

    def test_refused_by_kafka(self) -> None:
        """More copies than brokers, settings that it does not know or take: 400 with Kafka's words, and nothing is registered."""
        for settings in ({"replication": 3}, {"config": {"no.such": "x"}}, {"config": {"segment.ms": "never"}}):
            name = self.name()
            with self.assertRaises(BadBody) as caught:
                self.make(name, **settings)
            self.assertIn(name, caught.exception.detail)
            self.assertIsNone(self.gate.topic(name))
            self.assertFalse(self.in_kafka(name))


class Replicated(KafkaHouse):
    brokers = 3

    def test_copies(self) -> None:
        """So many as were asked for; without a number, the cluster's own default."""
        self.assertEqual(self.make(replication=2).replication, 2)
        self.assertEqual(self.make().replication, 3)
        name = self.name()
        self.wait(self.another().create_topic(TopicSpec(name, 2, replication=1)))
        self.assertEqual(self.make(name, given=False, replication=3).replication, 1)
