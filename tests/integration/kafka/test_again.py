"""Topics that are deleted and made again under the same name."""

from psubd.model import Position, Record, TopicSpec
from tests.integration.kafka.hosts import KafkaCase


class Again(KafkaCase):
    """What is kept of the topic before must not be taken for the one that has its name now."""

    def records(self, topic: str, *values: bytes) -> list[Record]:
        return [Record(topic, value, None, (), 0, None) for value in values]

    def test_made_again_while_nobody_looked(self) -> None:
        """A topic that psubd no longer looks after is deleted and made again by others: nothing of the old one is read; who waits at the new end
        waits, and hears of the next record; what is published is stored and told its own place."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name()))).name
        self.wait(self.storage.publish(self.records(topic, b"0", b"1", b"2"), "all"))
        self.assertEqual(3, len(self.wait(self.storage.read(topic, 0, 0, 10, 1_000)).messages))
        client = self.storage._client
        assert client is not None
        client.control.run(lambda: client.atlas.wanted.pop(topic))  # as after `UNUSED_S`
        client.control.run(lambda: client.atlas.charts.pop(topic))
        other = self.another()
        self.wait(other.delete_topic(topic))
        self.wait(other.create_topic(TopicSpec(topic)))
        found = self.wait(self.storage.read(topic, 0, 0, 10, 1_000))
        self.assertEqual(((), 0, 0), (found.messages, found.next_offset, found.end))
        watch = self.storage.watch(topic, 0, 0)
        self.assertTrue(self.pending(watch))
        answers = self.wait(self.storage.publish(self.records(topic, b"a", b"b", b"c"), "all"))
        self.assertEqual([0, 1, 2], [answer.offset for answer in answers if isinstance(answer, Position)])
        self.wait(watch)
        self.assertEqual([b"a", b"b", b"c"], [message.value for message in self.wait(self.storage.read(topic, 0, 0, 10, 1_000)).messages])
