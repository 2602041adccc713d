"""A log that an unclean election cut: a real one, with a leader that dies alone with what it acknowledged last."""

from collections.abc import Callable

from psubd.delivery.cursor import decode
from psubd.model import Commit, Poll, Position, Record, TopicPartition
from psubd.services.group_records import group_of
from psubd.services.places import Place, commit_of
from psubd.testing.kafka import Cluster, need, release
from tests.integration.kafka.hosts import need_pytest
from tests.integration.kafka.house import KafkaHouse

QUICK = {
    "unclean.leader.election.enable": "true",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "broker.session.timeout.ms": "1500",
    "broker.heartbeat.interval.ms": "300",
}
"""A broker that does not answer leaves the in-sync replicas after a second and a half."""


class UncleanElection(KafkaHouse):
    """Two brokers, and a controller beside them; the cluster is the test's own."""

    def set_up_cluster(self) -> Cluster:
        need_pytest()
        need()
        release()
        cluster = Cluster(2, QUICK)
        self.addCleanup(cluster.stop)
        return cluster.start()

    def lease(self, count: int) -> dict[int, str]:
        """Tokens by offset."""
        found: dict[int, str] = {}
        while len(found) < count:
            delivery = self.wait(
                self.subscriber.poll(self.grant(), Poll(self.app, batch_size=count - len(found), ack="explicit", ack_timeout_ms=3_600_000))
            )
            delivery.settle(len(delivery.messages))
            found |= {each.message.offset: each.token or "" for each in delivery.messages}
        return found

    def ack(self, *tokens: str) -> tuple[int, list[str]]:
        verdict = self.wait(self.subscriber.ack(self.grant(), tokens))
        return verdict.count, list(verdict.lost)

    def taken(self, count: int, group: str | None = None) -> list[bytes]:
        found: list[bytes] = []
        while len(found) < count:
            found += self.take(group, count, 30_000)
        return found

    def numbered(self, word: bytes, count: int) -> list[bytes]:
        return [b"%s-%d" % (word, number) for number in range(count)]

    def store(self, topic: str, values: list[bytes]) -> list[int]:
        """Publish what Kafka acknowledges, as long as it takes."""
        offsets: list[int] = []
        for value in values:

            def stored(value: bytes = value) -> bool:
                (answer,) = self.wait(self.storage.publish([Record(topic, value, partition=0)], "all"))
                if isinstance(answer, Position):
                    offsets.append(answer.offset)
                return isinstance(answer, Position)

            self.until(stored, "a record stored", 60)
        return offsets

    def lose(self, topic: str, values: list[bytes], meanwhile: Callable[[], None]) -> None:
        """The follower is away while ``values`` are stored, and then the leader goes for good: the follower leads without them."""
        client = self.storage._client
        assert client is not None
        leader = client.atlas.leader(topic, 0)
        assert leader is not None
        follower = 3 - leader
        self.cluster.pause(follower)
        self.store(topic, values)
        meanwhile()
        self.cluster.kill(leader)
        self.cluster.resume(follower)
        self.until(lambda: client.atlas.leader(topic, 0) == follower, "the follower leads", 60)

    def test_the_tail_is_lost(self) -> None:
        """A group in use, and one that comes to its places, go on where the log ended, though it has grown past where they stood: nothing from before
        comes again, nothing that is there is skipped, and leases of what is gone are lost."""
        topic = self.far_from_the_places()
        self.bind(topic)
        at, other = TopicPartition(topic, 0), f"{self.app}.other"
        kept, lost, new = self.numbered(b"kept", 5), self.numbered(b"lost", 5), self.numbered(b"new", 9)
        self.store(topic, kept)
        self.assertEqual((self.taken(5), self.taken(5, other)), (kept, kept))
        self.until(lambda: {self.committed(group)[at].offset for group in (self.app, other)} == {5}, "their commits")
        epoch = self.committed(self.app)[at].log_epoch
        tokens: dict[int, str] = {}

        def meanwhile() -> None:
            tokens.update(self.lease(5))
            self.assertEqual(self.ack(tokens[7]), (1, []))

        self.lose(topic, lost, meanwhile)
        cut = self.store(topic, new)[0]
        self.assertIn(cut, (5, 6))  # the answer to a fetch may have been on its way to the follower
        self.assertEqual(self.wait(self.storage.log_ends(topic, {0: epoch})), {0: cut})
        self.assertEqual(self.taken(cut + 4), lost[: cut - 5] + new)
        self.assertEqual(self.ack(tokens[5], tokens[7], tokens[9]), (0, [tokens[5], tokens[7], tokens[9]]))
        self.assertIn(self.line(self.app, topic, 10, 5), self.told)
        self.until(lambda: self.committed(self.app)[at].offset == cut + 9, "its commit")
        self.assertGreater(self.committed(self.app)[at].log_epoch, epoch)

        self.restart()
        self.wait(self.storage.commit(other, {at: self.of_the_old_log(other, topic, epoch)}))
        self.assertEqual(self.taken(9, other), new)
        self.assertEqual(self.told, [self.line(other, topic, 10, cut)])
        self.assertEqual(self.take(other, timeout=500) + self.take(timeout=500), [])

    def far_from_the_places(self) -> str:
        """A topic whose leader is not the broker that has the groups' places, of which there is no copy here."""
        self.committed(self.app)
        client = self.storage._client
        assert client is not None
        (coordinator,) = set(client.groups.coordinators.values())
        for _ in range(20):
            topic = self.make(replication=2).id
            if client.atlas.leader(topic, 0) not in (None, coordinator):
                return topic
        self.fail("all of them are led by one broker")

    def line(self, group: str, topic: str, stood: int, offset: int) -> str:
        return f"group.log_truncated {group} {topic} partition 0: the log was cut below offset {stood}; goes on at {offset}"

    def of_the_old_log(self, group: str, topic: str, epoch: int) -> Commit:
        """A commit that Kafka kept though it lost what it is of: the places lie in another log."""
        record = group_of(self.registry.snapshot(), group)
        assert record is not None
        commit = commit_of(record.topics[topic], 1, Place(7, ((8, 10),), 10, True, log_epoch=epoch), 4096)
        assert decode(commit) is not None
        return commit

    def committed(self, group: str) -> dict[TopicPartition, Commit]:
        return self.wait(self.storage.committed(group))
