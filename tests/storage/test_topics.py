from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import BadBody, BadHeader, TooLarge
from psubd.model import Record, TopicSpec
from psubd.storage.topics import MAX_PARTITIONS, Rules, configured, grown, stored

NOW = 1_700_000_000_000


class SpecTests(SynchronousTestCase):
    def test_every_mistake_is_told_together(self) -> None:
        """One refusal names all that is wrong with a spec."""
        spec = TopicSpec("..", 0, 2, -1, -1, "delete", 0, {"max.message.bytes": "0", "x": "y"})
        refused = self.assertRaises(BadBody, stored, spec)
        for word in ("id:", "partitions:", "replication:", "retention_ms:", "retention_bytes:", "max_message_bytes:", "max.message.bytes", "'x'"):
            self.assertIn(word, refused.detail)

    def test_each_topic_has_its_own_uid(self) -> None:
        """The same spec twice gives two ids."""
        self.assertNotEqual(stored(TopicSpec("t")).uid, stored(TopicSpec("t")).uid)

    def test_config_wins_over_the_specs_fields(self) -> None:
        """What is said by Kafka's name counts, -1 as no bound, and is kept as it was said."""
        topic = stored(TopicSpec("t", config={"retention.ms": "-1", "retention.bytes": "7", "message.timestamp.after.max.ms": "5"}))
        self.assertEqual((None, 7, 5), (topic.retention_ms, topic.retention_bytes, topic.timestamp_ahead_ms))
        self.assertEqual("-1", topic.config["retention.ms"])

    def test_config_takes_strings_only(self) -> None:
        """A number where a string is due, and text that is no number, are refused."""
        for value in (5, "5.0", "", "\u0665", "9" * 19, None):
            self.assertRaises(BadBody, stored, TopicSpec("t", config={"retention.ms": value}))  # type: ignore[dict-item]
        self.assertRaises(BadBody, configured, stored(TopicSpec("t")), {"config": ["retention.ms"]})

    def test_growing_is_bounded(self) -> None:
        """No more than MAX_PARTITIONS."""
        topic = stored(TopicSpec("t"))
        self.assertRaises(BadBody, grown, topic, MAX_PARTITIONS + 1)
        self.assertEqual(MAX_PARTITIONS, grown(topic, MAX_PARTITIONS).partitions)

    def test_a_field_and_its_config_never_disagree(self) -> None:
        """Setting retention_bytes moves retention.bytes where that was set, and the other way round."""
        topic = stored(TopicSpec("t", config={"retention.bytes": "7"}))
        topic = configured(topic, {"retention_bytes": None})
        self.assertEqual((None, "-1"), (topic.retention_bytes, topic.config["retention.bytes"]))
        topic = configured(topic, {"config": {"retention.bytes": "9"}})
        self.assertEqual((9, "9"), (topic.retention_bytes, topic.config["retention.bytes"]))

    def test_what_cannot_be_changed_is_refused(self) -> None:
        """cleanup.policy and members that configure does not have are BadBody; naming the present policy is not a change."""
        topic = stored(TopicSpec("t"))
        self.assertRaises(BadBody, configured, topic, {"config": {"cleanup.policy": "compact"}})
        self.assertRaises(BadBody, configured, topic, {"partitions": 3})
        self.assertRaises(BadBody, configured, topic, {"retention_ms": "1"})
        self.assertRaises(BadBody, configured, topic, {"retention_ms": True})
        self.assertEqual("delete", configured(topic, {"config": {"cleanup.policy": "delete"}}).cleanup)


class RulesTests(SynchronousTestCase):
    def test_size_counts_all_of_the_payload(self) -> None:
        """Value, key, header names and values; exactly at the limit is taken, one byte more is not."""
        record = Record("t", b"v" * 60, b"k" * 20, (("ab", b"c" * 10), ("n" * 8, None)))
        self.assertEqual(100, record.size)
        self.assertIsNone(Rules(stored(TopicSpec("t", max_message_bytes=100))).refusal(record, record.size, NOW, NOW))
        refusal = Rules(stored(TopicSpec("t", max_message_bytes=99))).refusal(record, record.size, NOW, NOW)
        self.assertIsInstance(refusal, TooLarge)

    def test_timestamps_have_two_bounds(self) -> None:
        """An hour ahead and no further; back as far as message.timestamp.before.max.ms says."""
        rules = Rules(stored(TopicSpec("t", config={"message.timestamp.before.max.ms": "1000"})))
        record = Record("t", b"")
        taken = {shift: rules.refusal(record, record.size, NOW + shift, NOW) is None for shift in (3_600_000, 3_600_001, -1000, -1001)}
        self.assertEqual({3_600_000: True, 3_600_001: False, -1000: True, -1001: False}, taken)

    def test_no_timestamp_is_beyond_what_can_be_kept(self) -> None:
        """Even with the bound set to the greatest number, a timestamp below 0 or beyond 63 bits is refused."""
        rules = Rules(stored(TopicSpec("t", config={"message.timestamp.after.max.ms": str(2**63 - 1)})))
        for timestamp in (-1, 2**63):
            self.assertIsInstance(rules.refusal(Record("t", b""), 0, timestamp, NOW), BadHeader)
