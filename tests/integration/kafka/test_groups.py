"""Groups' places in a real Kafka."""

from kafka import KafkaConsumer
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as Place

from psubd.errors import InUse, StorageUnavailable
from psubd.model import Commit, TopicPartition, TopicSpec
from tests.integration.kafka.hosts import KafkaCase

OURS = "psubd1;x"


class Groups(KafkaCase):
    """Commits without membership."""

    def topic(self, partitions: int = 1) -> str:
        return self.wait(self.storage.create_topic(TopicSpec(self.name(), partitions))).name

    def consumer(self, group: str) -> KafkaConsumer:
        made = KafkaConsumer(bootstrap_servers=self.cluster.bootstrap, group_id=f"psubd.{group}", enable_auto_commit=False)
        self.addCleanup(made.close)
        return made

    def foreign(self, topic: str, group: str) -> None:
        """A commit that psubd did not write."""
        consumer = KafkaConsumer(bootstrap_servers=self.cluster.bootstrap, group_id=f"psubd.{group}", enable_auto_commit=False)
        consumer.assign([Place(topic, 0)])
        consumer.commit({Place(topic, 0): OffsetAndMetadata(7, "theirs", -1)})
        consumer.close()

    def test_a_foreign_commit_is_never_overwritten(self) -> None:
        """committed, commit and forget are InUse, and what was there stays; adopted on purpose, all of them pass."""
        topic, group = self.topic(), self.name()
        self.foreign(topic, group)
        place = TopicPartition(topic, 0)
        failed = self.wait(self.storage.commit(group, {place: Commit(1, OURS)}))
        self.assertIsInstance(failed[place], InUse)
        for call in (lambda: self.storage.committed(group), lambda: self.storage.forget(group, topic), lambda: self.storage.forget(group, None)):
            with self.assertRaises(InUse):
                self.wait(call())
        self.assertIn(" 7 ", self.cluster.groups("--describe", "--group", f"psubd.{group}"))
        self.wait(self.storage.adopt(group))
        self.assertEqual({place: Commit(7, "theirs")}, self.wait(self.storage.committed(group)))
        self.assertEqual({}, self.wait(self.storage.commit(group, {place: Commit(1, OURS)})))
        self.assertEqual({place: Commit(1, OURS)}, self.wait(self.storage.committed(group)))

    def test_another_nodes_commits_are_ours(self) -> None:
        """A group that another process of psubd's committed is taken without a word."""
        topic, group = self.topic(), self.name()
        place = TopicPartition(topic, 0)
        self.assertEqual({}, self.wait(self.storage.commit(group, {place: Commit(1, OURS)})))
        other = self.another()
        self.assertEqual({place: Commit(1, OURS)}, self.wait(other.committed(group)))
        self.assertEqual({}, self.wait(other.commit(group, {place: Commit(2, OURS)})))

    def member(self, group: str, topic: str) -> KafkaConsumer:
        """A consumer that has joined the group, and has its partitions."""
        consumer = self.consumer(group)
        consumer.subscribe([topic])
        for _ in range(100):
            consumer.poll(50)
            if consumer.assignment():
                break
        self.assertTrue(consumer.assignment())
        return consumer

    def test_a_group_with_members_is_in_use(self) -> None:
        """A consumer that joined the group: commits are InUse while it is there, also where psubd had the group before; they pass when it left."""
        topic, group = self.topic(), self.name()
        place = TopicPartition(topic, 0)
        self.assertEqual({}, self.wait(self.storage.commit(group, {place: Commit(1, OURS)})))
        consumer = self.member(group, topic)
        self.assertIsInstance(self.wait(self.storage.commit(group, {place: Commit(2, OURS)}))[place], InUse)
        consumer.close()
        self.assertEqual({}, self.wait(self.storage.commit(group, {place: Commit(3, OURS)})))

    def test_what_members_left_behind_is_theirs(self) -> None:
        """A consumer that joined a group of psubd's, committed and left: its commit is never overwritten, though psubd had the group before; adopted
        on purpose, the group is psubd's again."""
        topic, group = self.topic(), self.name()
        place = TopicPartition(topic, 0)
        self.assertEqual({}, self.wait(self.storage.commit(group, {place: Commit(1, OURS)})))
        consumer = self.member(group, topic)
        self.assertIsInstance(self.wait(self.storage.commit(group, {place: Commit(2, OURS)}))[place], InUse)
        consumer.commit({Place(topic, 0): OffsetAndMetadata(7, "theirs", -1)})
        consumer.close()
        self.assertIsInstance(self.wait(self.storage.commit(group, {place: Commit(3, OURS)}))[place], InUse)
        self.wait(self.storage.adopt(group))
        self.assertEqual({place: Commit(7, "theirs")}, self.wait(self.storage.committed(group)))
        self.assertEqual({}, self.wait(self.storage.commit(group, {place: Commit(3, OURS)})))

    def test_more_places_than_a_request_takes(self) -> None:
        """300 places of 4,096 characters, more than 1 MiB, which Kafka refuses in one request, are kept in one call."""
        topic, group = self.topic(300), self.name()
        places = {TopicPartition(topic, number): Commit(number, OURS + "m" * (4_096 - len(OURS))) for number in range(300)}
        self.assertEqual({}, self.wait(self.storage.commit(group, places)))
        self.assertEqual(places, self.wait(self.storage.committed(group)))
        self.wait(self.storage.forget(group, topic))
        self.assertEqual({}, self.wait(self.storage.committed(group)))

    def test_commits_of_a_group_keep_their_order(self) -> None:
        """A hundred commits of one place under way together: the last one counts."""
        topic, group = self.topic(), self.name()
        place = TopicPartition(topic, 0)
        calls = [self.storage.commit(group, {place: Commit(number, OURS)}) for number in range(100)]
        for call in calls:
            self.assertEqual({}, self.wait(call))
        self.assertEqual({place: Commit(99, OURS)}, self.wait(self.storage.committed(group)))

    def test_many_groups_under_way(self) -> None:
        """Two hundred groups on twenty topics, all committing and all read: as many connections as ever, and not one more."""
        topics = [self.topic(2) for _ in range(20)]
        watches = [self.storage.watch(topic, partition, 0) for topic in topics for partition in (0, 1)]
        groups = [self.name() for _ in range(200)]
        places = {TopicPartition(topic, partition): Commit(5, OURS) for topic in topics for partition in (0, 1)}
        for _ in range(3):
            calls = [self.storage.commit(group, places) for group in groups]
            for call in calls:
                self.assertEqual({}, self.wait(call))
        for call in [self.storage.committed(group) for group in groups]:
            self.assertEqual(places, self.wait(call))
        for topic in topics:
            self.wait(self.storage.read(topic, 0, 0, 10, 1000))
        status = self.storage.status()
        self.assertLessEqual(status["connections"], status["connections_per_broker_at_most"])
        self.assertLessEqual(connections_to(set(self.cluster.ports.values())), status["connections_per_broker_at_most"])
        for watch in watches:
            watch.addErrback(lambda _: None)
            watch.cancel()

    def test_stop_finishes_what_was_accepted(self) -> None:
        """Commits of a group that wait for their turn when the storage stops are made, all of them and in order; later ones are refused."""
        topic, group = self.topic(), self.name()
        place, storage = TopicPartition(topic, 0), self.another()
        calls = [storage.commit(group, {place: Commit(number, OURS)}) for number in range(50)]
        stopped = storage.stop()
        with self.assertRaises(StorageUnavailable):
            self.wait(storage.commit(group, {place: Commit(99, OURS)}))
        for call in calls:
            self.assertEqual({}, self.wait(call))
        self.wait(stopped)
        self.assertEqual({place: Commit(49, OURS)}, self.wait(self.storage.committed(group)))


def connections_to(ports: set[int]) -> int:
    """TCP connections of this process to these loopback ports, as the kernel has them."""
    import os
    import re

    own = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
        found = re.fullmatch(r"socket:\[([0-9]+)\]", target)
        if found:
            own.add(found.group(1))
    with open("/proc/self/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return sum(1 for row in rows if row[9] in own and row[3] == "01" and int(row[2].rpartition(":")[2], 16) in ports)
