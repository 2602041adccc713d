"""psubd beside Kafka's own tools."""

import json

from psubd.model import Commit, Record, TopicPartition, TopicSpec
from psubd.services.partitioner import partition_of
from psubd.storage.kafka import atlas
from tests.integration.kafka.hosts import KafkaCase


class Tools(KafkaCase):
    """What one writes the other reads."""

    def test_the_console_consumer_reads_what_was_published(self) -> None:
        """With key, headers, timestamp and partition."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), 2))).name
        at = self.now() - 1_000
        self.wait(self.storage.publish([Record(topic, "wert \u20ac".encode(), b"schl", (("a", b"1"), ("b", b"two")), 1, at)], "all"))
        shown = [f"print.{name}=true" for name in ("key", "headers", "timestamp", "partition")]
        arguments = [part for each in shown for part in ("--formatter-property", each)]
        (line,) = self.cluster.console_consumer(topic, 1, *arguments)
        self.assertEqual([f"CreateTime:{at}", "Partition:1", "a:1,b:two", "schl", "wert \u20ac"], line.split("\t"))

    def test_what_the_console_producer_writes_is_read(self) -> None:
        """With key and headers; who waits hears of it."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name()))).name
        watch = self.storage.watch(topic, 0, 0)
        self.assertTrue(self.pending(watch))
        self.cluster.console_producer(
            topic, ["h1:v1,h2:v2\tk\tvalue"], "--reader-property", "parse.key=true", "--reader-property", "parse.headers=true"
        )
        self.wait(watch)
        (message,) = self.wait(self.storage.read(topic, 0, 0, 10, 1000)).messages
        self.assertEqual((b"k", b"value", (("h1", b"v1"), ("h2", b"v2"))), (message.key, message.value, message.headers))

    def test_keys_lie_where_the_java_client_puts_them(self) -> None:
        """A thousand keys from Kafka's own producer, on seven partitions: each where psubd's partitioner puts it."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), 7))).name
        keys = [f"key-{number}" + "\u00e9" * (number % 5) for number in range(1_000)]
        self.cluster.console_producer(topic, [f"{key}\t" for key in keys], "--reader-property", "parse.key=true")
        seen = 0
        for partition in range(7):
            offset = 0
            while True:
                part = self.wait(self.storage.read(topic, partition, offset, 1_000, 1 << 20))
                for message in part.messages:
                    self.assertEqual(partition, partition_of(message.key or b"", 7), message.key)
                    seen += 1
                offset = part.next_offset
                if offset >= part.end:
                    break
        self.assertEqual(1_000, seen)

    def test_partitions_that_a_tool_added(self) -> None:
        """Grown 2 -> 3 by kafka-topics: known, and those who wait hear, within five seconds; the new partition is written and read."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), 2))).name
        watch = self.storage.watch(topic, 0, 0)
        self.cluster.topics("--alter", "--topic", topic, "--partitions", "3")
        self.until(lambda: (self.storage.known(topic) or self.fail("gone")).partitions == 3, "the third partition", 5)
        self.wait(watch, 5)
        self.wait(self.storage.publish([Record(topic, b"new", None, (), 2, None)], "all"))
        self.assertEqual(b"new", self.wait(self.storage.read(topic, 2, 0, 1, 100)).messages[0].value)

    def test_a_long_quiet_wait_is_looked_after(self) -> None:
        """A topic on which somebody waits is looked after although nobody names it for longer than others are: that it grew is heard."""
        self.patch(atlas, "UNUSED_S", 4.0)  # waits are named again each second (backend.ROUSE_MS): some of those must fit in
        storage = self.another(metadata_interval_ms=100)
        topic = self.wait(storage.create_topic(TopicSpec(self.name(), 1))).name
        watch = storage.watch(topic, 0, 0)
        self.pause(6)
        self.wait(self.storage.grow(topic, 2))
        self.wait(watch, 10)

    def test_the_new_partition_is_used_at_once_by_who_knows_of_it(self) -> None:
        """A publish or a read that names a partition which psubd has not heard of looks before it refuses."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), 1))).name
        self.wait(self.another().grow(topic, 2))
        (answer,) = self.wait(self.storage.publish([Record(topic, b"x", None, (), 1, None)], "all"))
        self.assertEqual(1, answer.partition)
        self.wait(self.another().grow(topic, 3))
        self.assertEqual((), self.wait(self.storage.read(topic, 2, 0, 1, 100)).messages)

    def test_an_adopted_topic_is_described_as_it_is(self) -> None:
        """Its settings, partitions and id as Kafka has them."""
        topic = self.name()
        config = [
            "retention.ms=5000",
            "retention.bytes=-1",
            "cleanup.policy=compact",
            "max.message.bytes=777777",
            "message.timestamp.after.max.ms=99",
        ]
        self.cluster.topics("--create", "--topic", topic, "--partitions", "3", *[part for each in config for part in ("--config", each)])
        stored = self.wait(self.storage.describe([topic]))[topic]
        self.assertEqual((3, 1, 5_000, None), (stored.partitions, stored.replication, stored.retention_ms, stored.retention_bytes))
        self.assertEqual(("compact", 777_777, 99), (stored.cleanup, stored.max_message_bytes, stored.timestamp_ahead_ms))
        self.assertIn(f"TopicId: {stored.uid}", self.cluster.topics("--describe", "--topic", topic))

    def test_kafka_shows_the_groups(self) -> None:
        """kafka-consumer-groups --describe: the group under its prefix, with offsets, ends and lags."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), 2))).name
        self.wait(self.storage.publish([Record(topic, b"x", None, (), 0, None) for _ in range(10)], "all"))
        group = self.name()
        self.wait(self.storage.commit(group, {TopicPartition(topic, 0): Commit(4, "psubd1;x"), TopicPartition(topic, 1): Commit(0, "psubd1;x")}))
        lines = self.cluster.groups("--describe", "--group", f"psubd.{group}").splitlines()
        rows = [line.split()[:6] for line in lines if line.startswith("psubd.")]
        self.assertEqual([[f"psubd.{group}", topic, "0", "4", "10", "6"], [f"psubd.{group}", topic, "1", "0", "0", "0"]], sorted(rows))

    def test_status_is_json(self) -> None:
        """The status page's values are JSON, with no credential."""
        self.assertEqual("kafka", json.loads(json.dumps(self.storage.status()))["kind"])
