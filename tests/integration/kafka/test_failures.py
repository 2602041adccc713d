"""Kafka, or a part of it, goes away and comes back."""

import threading
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred

from psubd.errors import PsubdError, StorageTimeout, StorageUnavailable
from psubd.model import Acks, Commit, Position, Record, TopicPartition, TopicSpec
from psubd.services.clock import SystemClock
from psubd.storage.kafka.backend import KafkaStorage
from psubd.testing.kafka import Cluster, free_port, need, release
from tests.integration.kafka.hosts import KafkaCase, need_pytest

OURS = "psubd1;x"


class Publishing:
    """Publishes without end, a few calls under way at a time, and keeps what was answered."""

    def __init__(self, storage: KafkaStorage, topic: str, partitions: int, width: int = 16) -> None:
        self.storage, self.topic, self.partitions = storage, topic, partitions
        self.acknowledged: dict[bytes, Position] = {}
        self.failed: list[PsubdError] = []
        self.count = 0
        self.goes_on = True
        self.calls: set[Deferred[Any]] = set()
        for _ in range(width):
            self.another()

    def another(self) -> None:
        value = b"%d" % self.count
        self.count += 1
        call = self.storage.publish([Record(self.topic, value, None, (), self.count % self.partitions, None)], "all")
        self.calls.add(call)
        call.addBoth(self.answered, value, call)

    def answered(self, answers: Any, value: bytes, call: "Deferred[Any]") -> None:
        from twisted.internet import reactor

        self.calls.discard(call)
        answer = answers[0] if isinstance(answers, list) else answers.value
        if isinstance(answer, Position):
            self.acknowledged[value] = answer
        else:
            self.failed.append(answer)
        if self.goes_on:
            reactor.callLater(0, self.another)


class OneOfThree(KafkaCase):
    """Three brokers, and a controller beside them."""

    brokers = 3

    def everything(self, topic: str, partitions: int) -> list[bytes]:
        found = []
        for partition in range(partitions):
            offset = 0
            while True:
                part = self.wait(self.storage.read(topic, partition, offset, 10_000, 1 << 20))
                found += [message.value or b"" for message in part.messages]
                if part.next_offset >= part.end:
                    break
                offset = part.next_offset
        return found

    def test_a_broker_is_killed(self) -> None:
        """kill -9 of one broker under load, and its return: everything that was acknowledged is there, once; traffic, reads, waits and commits go on;
        no record fails."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), 6))).name
        group, place = self.name(), TopicPartition(topic, 0)
        self.assertEqual({}, self.wait(self.storage.commit(group, {place: Commit(1, OURS)})))
        publishing = Publishing(self.storage, topic, 6)
        self.until(lambda: len(publishing.acknowledged) > 500, "five hundred")
        self.cluster.kill(1)
        before = len(publishing.acknowledged)
        self.until(lambda: len(publishing.acknowledged) > before + 1_000, "a thousand more without the broker", 60)
        self.assertIsNone(self.storage.trouble())
        for partition in range(6):
            self.wait(self.storage.watch(topic, partition, 0))
        self.assertEqual({}, self.wait(self.storage.commit(group, {place: Commit(2, OURS)})))
        self.assertEqual({place: Commit(2, OURS)}, self.wait(self.storage.committed(group)))
        self.cluster.restart(1)
        before = len(publishing.acknowledged)
        self.until(lambda: len(publishing.acknowledged) > before + 1_000, "a thousand more with it", 60)
        publishing.goes_on = False
        self.until(lambda: not publishing.calls, "the last answers")
        self.assertEqual([], publishing.failed)
        found = self.everything(topic, 6)
        self.assertEqual(len(set(found)), len(found), "none twice")
        self.assertEqual(set(publishing.acknowledged), set(found))

    def test_who_waits_hears_through_a_failover(self) -> None:
        """Waiters at the ends of twelve partitions, one broker killed: each hears of the next record, wherever its partition is led now; and a broker
        that comes back and leads again is read from there."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), 12))).name
        for broker in (1, 3):
            ends = self.wait(self.storage.bounds(topic))
            watches = [self.storage.watch(topic, partition, ends[partition].end) for partition in range(12)]
            self.pause(0.5)
            self.cluster.kill(broker)
            records = [Record(topic, b"%d" % broker, None, (), partition, None) for partition in range(12)]
            self.assertEqual([Position] * 12, [type(answer) for answer in self.wait(self.storage.publish(records, "all"))])
            for partition, watch in enumerate(watches):
                self.wait(watch)
                self.assertEqual(b"%d" % broker, self.wait(self.storage.read(topic, partition, ends[partition].end, 1, 100)).messages[0].value)
            self.cluster.restart(broker)

    def test_a_broker_hangs(self) -> None:
        """SIGSTOP of one broker: its connections stand and answer nothing. Records go on over the others in time; none acknowledged is lost."""
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name(), 3))).name
        publishing = Publishing(self.storage, topic, 3)
        self.until(lambda: len(publishing.acknowledged) > 200, "two hundred")
        self.cluster.pause(2)
        self.addCleanup(self.cluster.wait_ready)
        self.addCleanup(self.cluster.resume, 2)
        before = len(publishing.acknowledged)
        self.until(lambda: len(publishing.acknowledged) > before + 500, "five hundred more", 60)
        publishing.goes_on = False
        self.until(lambda: not publishing.calls, "the last answers")
        self.assertTrue(all(isinstance(failed, StorageTimeout | StorageUnavailable) for failed in publishing.failed))
        self.assertLessEqual(set(publishing.acknowledged), set(self.everything(topic, 3)))


class Away(KafkaCase):
    """The only broker goes, or was never there. The cluster is the test's own."""

    settings = {"storage_timeout_ms": 3_000, "request_timeout_ms": 1_000}
    cut_off: tuple[type[PsubdError], ...] = (StorageUnavailable,)
    """What a record is told that waited for a connection when psubd stopped."""

    def setUp(self) -> None:
        need_pytest()
        need()
        release()
        self.cluster = Cluster(1)
        self.addCleanup(self.cluster.stop)

    def records(self, topic: str) -> list[Record]:
        return [Record(topic, b"x", None, (), 0, None)]

    def test_down_and_back(self) -> None:
        """Publishes, reads, commits and descriptions fail with StorageUnavailable, trouble says why; who waited is woken, to find that out; when
        Kafka is back all works again with the same storage, and who waits then hears."""
        self.cluster.start()
        self.storage = self.another()
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name()))).name
        group, place = self.name(), TopicPartition(topic, 0)
        self.wait(self.storage.publish(self.records(topic), "all"))
        self.assertEqual({}, self.wait(self.storage.commit(group, {place: Commit(1, OURS)})))
        watch = self.storage.watch(topic, 0, 1)
        self.assertTrue(self.pending(watch))
        self.cluster.kill(1)
        self.until(lambda: self.storage.trouble() is not None, "trouble", 10)
        calls: list[Deferred[Any]] = [
            self.storage.publish(self.records(topic), "all"),
            self.storage.publish(self.records(topic), "1"),
            self.storage.commit(group, {place: Commit(2, OURS)}),
        ]
        refusals = [self.wait(call) for call in calls]
        for refusal in (refusals[0][0], refusals[1][0], refusals[2][place]):
            self.assertIsInstance(refusal, StorageUnavailable)
        for call in (
            self.storage.read(topic, 0, 1, 1, 100),
            self.storage.bounds(topic),
            self.storage.committed(group),
            self.storage.describe([topic]),
            self.storage.create_topic(TopicSpec(self.name())),
        ):
            with self.assertRaises(StorageUnavailable):
                self.wait(call)
        self.until(lambda: watch.called, "a word to who waited")
        self.cluster.restart(1)
        self.until(lambda: self.storage.trouble() is None, "the end of the trouble")
        watch = self.storage.watch(topic, 0, 1)
        self.assertIsInstance(self.wait(self.storage.publish(self.records(topic), "all"))[0], Position)
        self.wait(watch)
        self.assertEqual({}, self.wait(self.storage.commit(group, {place: Commit(3, OURS)})))
        self.assertEqual(2, len(self.wait(self.storage.read(topic, 0, 0, 10, 100)).messages))

    def test_what_may_be_stored_is_told_so(self) -> None:
        """Kafka hangs with a record on its way: StorageTimeout, not StorageUnavailable, and the next one is stored when it is back."""
        self.cluster.start()
        self.storage = self.another()
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name()))).name
        self.hangs(topic, "all")
        self.hangs(topic, "1")

    def hangs(self, topic: str, acks: Acks) -> None:
        self.wait(self.storage.publish(self.records(topic), acks))
        self.cluster.pause(1)
        (refusal,) = self.wait(self.storage.publish(self.records(topic), acks))
        self.assertIsInstance(refusal, StorageTimeout, acks)
        self.cluster.resume(1)
        self.until(lambda: self.storage.trouble() is None, "the end of the trouble")
        self.until(lambda: isinstance(self.wait(self.storage.publish(self.records(topic), acks))[0], Position), "a record stored")

    def test_start_with_kafka_away(self) -> None:
        """start fires, trouble says so, calls are refused; when Kafka comes all works without another start."""
        self.storage = self.another()
        self.assertIsNotNone(self.storage.trouble())
        with self.assertRaises(StorageUnavailable):
            self.wait(self.storage.describe(["t"]))
        with self.assertRaises(StorageUnavailable):
            self.wait(self.storage.publish(self.records("t"), "all"))
        self.cluster.start()
        self.until(lambda: self.storage.trouble() is None, "the end of the trouble")
        topic = self.wait(self.storage.create_topic(TopicSpec(self.name()))).name
        self.assertIsInstance(self.wait(self.storage.publish(self.records(topic), "all"))[0], Position)

    def test_stop_does_not_hold_the_reactor(self) -> None:
        """With Kafka away and records waiting, stop answers within its time, the records are told, and timers go on meanwhile."""
        self.cluster.start()
        storage = self.another()
        topic = self.wait(storage.create_topic(TopicSpec(self.name()))).name
        self.cluster.kill(1)
        call = storage.publish(self.records(topic), "all")
        ticks: list[int] = []
        from twisted.internet import reactor, task

        ticking = task.LoopingCall(lambda: ticks.append(len(ticks)))
        ticking.clock = reactor
        ticking.start(0.05)
        self.wait(storage.stop())
        ticking.stop()
        self.assertGreater(len(ticks), 10)
        self.assertIsInstance(self.wait(call)[0], self.cut_off)

    def test_stop_ends_what_waits_behind_a_dead_broker(self) -> None:
        """Calls of one group, one behind the other, with Kafka away: each ends within its own time and not after those before it; stop fires, and
        what was cut off is told."""
        self.cluster.start()
        storage = self.another()
        topic = self.wait(storage.create_topic(TopicSpec(self.name()))).name
        group, place = self.name(), TopicPartition(topic, 0)
        self.assertEqual({}, self.wait(storage.commit(group, {place: Commit(1, OURS)})))
        self.cluster.kill(1)
        self.until(lambda: storage.trouble() is not None, "trouble", 10)

        def commits(count: int) -> list[Deferred[Any]]:
            return [storage.commit(group, {place: Commit(number, OURS)}).addErrback(lambda failure: failure.value) for number in range(count)]

        calls = commits(20)
        self.wait(calls[-1], 12)  # 20 times storage_timeout_ms are a minute
        self.assertTrue(all(call.called for call in calls))
        last = commits(5)
        self.pause(1)
        looks = [storage.describe([topic]).addErrback(lambda failure: failure.value) for _ in range(2)]
        self.wait(storage.stop(), 30)
        for call in last + looks:
            refusal = self.wait(call)
            refusal = refusal[place] if isinstance(refusal, dict) else refusal
            self.assertIsInstance(refusal, StorageUnavailable | StorageTimeout)

    def test_nothing_is_left_behind(self) -> None:
        """After stop no thread of the storage's runs and no connection stands, also where Kafka never was."""
        from twisted.internet import reactor

        before = {thread.name for thread in threading.enumerate()}
        storage = KafkaStorage(
            [f"127.0.0.1:{free_port()}"], SystemClock(reactor), reactor, {**self.settings, "client_id": "leaks"}, CollectorRegistry()
        )
        self.wait(storage.start())
        self.assertTrue(any("leaks" in thread.name for thread in threading.enumerate()))
        self.wait(storage.stop())
        self.assertEqual([], [thread.name for thread in threading.enumerate() if "leaks" in thread.name and thread.name not in before])
        self.assertEqual(0, storage.status()["connections"])
