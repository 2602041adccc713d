"""Kafka groups that somebody else has: refused, taken over on purpose, lost to a member and had back."""

from kafka import KafkaConsumer
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as Place

from psubd.errors import InUse, OwnershipInDoubt
from psubd.model import Binding, Commit, Record, TopicPartition
from psubd.services.group_records import group_of
from tests.integration.kafka.house import KafkaHouse


class ForeignGroups(KafkaHouse):
    def setUp(self) -> None:
        super().setUp()
        self.topic = self.make(partitions=2).id
        self.group = f"{self.app}.g"

    def foreign(self, group: str, topic: str, offset: int) -> None:
        """A commit by Kafka's own consumer, which is gone afterwards."""
        consumer = KafkaConsumer(bootstrap_servers=self.cluster.bootstrap, group_id=f"psubd.{group}", enable_auto_commit=False)
        consumer.assign([Place(topic, 0)])
        consumer.commit({Place(topic, 0): OffsetAndMetadata(offset, "theirs", -1)})
        consumer.close()

    def stands(self, group: str) -> dict[tuple[str, int], str]:
        """The group's offsets as Kafka's own tool shows them."""
        rows = [line.split() for line in self.cluster.groups("--describe", "--group", f"psubd.{group}").splitlines() if line.startswith("psubd.")]
        return {(row[1], int(row[2])): row[3] for row in rows}

    def reset(self, group: str, to: object) -> dict[int, int]:
        return self.wait(self.subscriber.reset(group, self.topic, None, to, False, "test"))  # type: ignore[arg-type]

    def test_a_commit_of_theirs(self) -> None:
        """The first read is 409 and leaves it as it is; PUT offsets takes the group over, wholly: also after a restart, and places of theirs on
        another topic go."""
        self.bind(self.topic)
        other = self.make().id
        self.publish(self.topic, b"a", b"b", b"c")
        self.foreign(self.group, self.topic, 2)
        self.foreign(self.group, other, 0)
        with self.assertRaises(InUse) as caught:
            self.take(self.group)
        self.assertIn("offsets", caught.exception.detail)
        self.assertIsNone(group_of(self.registry.snapshot(), self.group))
        self.assertEqual({(self.topic, 0): "2", (other, 0): "0"}, self.stands(self.group))
        self.assertEqual({0: 1}, self.reset(self.group, {0: 1}))
        self.assertEqual([b"b"], self.take(self.group))
        self.restart()
        self.assertEqual([b"c"], self.take(self.group))
        self.assertNotIn((other, 0), self.stands(self.group))

    def test_the_applications_own_group(self) -> None:
        """A binding whose group somebody else has is 409, and nothing is registered; without them it is made."""
        self.foreign(self.app, self.topic, 5)
        before = self.registry.snapshot().serial
        with self.assertRaises(InUse) as caught:
            self.bind(self.topic)
        self.assertIn("nothing was changed", caught.exception.detail)
        self.assertEqual(before, self.registry.snapshot().serial)
        self.assertEqual({(self.topic, 0): "5"}, self.stands(self.app))
        self.cluster.groups("--delete", "--group", f"psubd.{self.app}")
        self.assertIsInstance(self.bind(self.topic), Binding)

    def test_a_member_before_the_first_read(self) -> None:
        """A group with a member is 409 for the first read and for PUT offsets; once it left, both pass."""
        self.bind(self.topic)
        self.publish(self.topic, b"a")
        member = self.member(self.group, self.topic)
        for call in (lambda: self.take(self.group), lambda: self.reset(self.group, "latest")):
            with self.assertRaises(InUse):
                call()
            self.assertIsNone(group_of(self.registry.snapshot(), self.group))
        member.close()
        self.reset(self.group, "earliest")
        self.assertEqual([b"a"], self.take(self.group))

    def test_a_member_that_joins_later(self) -> None:
        """Its leasing stops with 503, an event and the gauge, and goes on by itself when the member left: nothing is skipped, and nothing that was
        handed over before comes again."""
        self.bind(self.topic)
        self.publish(self.topic, *[b"%d" % number for number in range(6)])
        self.assertEqual([b"0", b"1"], [*self.take(), *self.take()])
        self.until(lambda: self.kept() == 2, "the first commit")
        member = self.member(self.app, self.topic)
        self.assertEqual([b"2"], self.take())
        self.until(lambda: self.metric("psubd_groups_contested") == 1, "the contest")
        self.assertEqual("group.contested", self.told[0].split()[0])
        with self.assertRaises(OwnershipInDoubt) as caught:
            self.take()
        self.assertIn("retry-after", caught.exception.headers)
        with self.assertRaises(InUse):
            self.reset(self.app, "latest")
        member.close()
        self.until(lambda: self.metric("psubd_groups_contested") == 0, "that it is psubd's again")
        self.assertEqual(f"group.regained {self.app}", self.told[-1])
        self.assertEqual(3, self.kept())
        self.assertEqual([b"3", b"4", b"5"], [value for _ in range(3) for value in self.take()])
        self.assertEqual(2, len(self.told))

    def test_a_member_that_commits(self) -> None:
        """What a member committed in psubd's group is not overwritten when it left: the group stays 503 and says why, until PUT offsets takes it
        back; partitions that are not moved go on where they were."""
        self.bind(self.topic)
        self.publish(self.topic, b"x", partition=1)
        self.assertEqual([b"x"], self.take())
        self.publish(self.topic, b"a", b"b", b"c")
        self.assertEqual([b"a"], self.take())
        self.until(lambda: self.kept() == 1, "the first commit")
        member = self.member(self.app, self.topic)
        member.commit({Place(self.topic, number): OffsetAndMetadata(1 + number, "", -1) for number in (0, 1)})
        self.assertEqual([b"b"], self.take())
        self.until(lambda: self.metric("psubd_groups_contested") == 1, "the contest")
        member.close()
        self.until(lambda: len(self.told) == 2, "that psubd sees what it left")
        with self.assertRaises(OwnershipInDoubt) as caught:
            self.take()
        self.assertIn("did not write", caught.exception.detail)
        self.assertEqual({(self.topic, 0): "1", (self.topic, 1): "2"}, self.stands(self.app))
        self.assertEqual({0: 0}, self.wait(self.subscriber.reset(self.app, self.topic, [0], "earliest", False, "test")))
        self.assertEqual((0.0, f"group.regained {self.app}"), (self.metric("psubd_groups_contested"), self.told[-1]))
        self.assertEqual([b"a", b"b", b"c"], [value for _ in range(4) for value in self.take(timeout=0)])
        self.restart()
        self.assertEqual([], self.take(timeout=0))

    def test_stop_with_a_member(self) -> None:
        """psubd stops as fast as ever; started again with the member still there it says so, and without it delivers what was not kept."""
        self.bind(self.topic)
        self.publish(self.topic, b"a", b"b")
        self.assertEqual([b"a"], self.take())
        self.until(lambda: self.kept() == 1, "the first commit")
        member = self.member(self.app, self.topic)
        self.assertEqual([b"b"], self.take())
        self.until(lambda: self.metric("psubd_groups_contested") == 1, "the contest")
        self.restart()
        self.assertEqual([b"b"], self.take())
        self.until(lambda: self.metric("psubd_groups_contested") == 1, "the contest")
        member.close()
        self.until(lambda: self.kept() == 2, "the last commit")

    def test_what_expired_is_read_from_its_first_message(self) -> None:
        """A known group's place that Kafka has no more: from the first message, with the event."""
        self.bind(self.topic)
        self.publish(self.topic, b"a", b"b")
        self.assertEqual([b"a"], self.take())
        self.until(lambda: self.kept() == 1, "the first commit")
        self.restart()
        self.cluster.groups("--delete-offsets", "--group", f"psubd.{self.app}", "--topic", f"{self.topic}:0")
        self.assertEqual([b"a"], self.take())
        self.assertEqual([f"group.places_missing {self.app} {self.topic} partitions 0: no place was kept, read from the first message"], self.told)

    def test_places_are_renewed_as_they_are(self) -> None:
        """The sweep's commit of a group that nobody reads changes no offset and no metadata."""
        self.bind(self.topic)
        self.wait(self.storage.publish([Record(self.topic, b"x", partition=1)], "all"))
        self.reset(self.group, "latest")
        before = self.wait(self.storage.committed(self.group))
        self.subscriber._renewal._round()
        self.until(lambda: self.metric("psubd_groups_renewed_total") == 2, "both groups renewed")
        self.assertEqual(before, self.wait(self.storage.committed(self.group)))
        self.assertEqual(1, before[TopicPartition(self.topic, 1)].offset)

    def kept(self) -> int | None:
        """The committed offset of the application's own group on partition 0."""
        found: dict[TopicPartition, Commit] = self.wait(self.storage.committed(self.app))
        return found[TopicPartition(self.topic, 0)].offset if TopicPartition(self.topic, 0) in found else None
