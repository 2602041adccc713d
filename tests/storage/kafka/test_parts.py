"""Small parts: sessions, requests cut to size, the mailbox, errors."""

import threading
import time
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from kafka import errors
from kafka.future import Future
from kafka.net.selector import NetworkSelector
from kafka.protocol.consumer import OffsetCommitRequest
from kafka.protocol.metadata import MetadataRequest
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import BadBody, InUse, StorageTimeout, StorageUnavailable, TopicMissing
from psubd.model import Commit, TopicPartition
from psubd.storage.kafka import faults
from psubd.storage.kafka.atlas import Atlas, Chart, befallen, stored_topic, uid
from psubd.storage.kafka.groups import OURS, REQUEST_BYTES, Groups, check_ours, parts
from psubd.storage.kafka.line import Line
from psubd.storage.kafka.reads import Reads
from psubd.storage.kafka.settings import KafkaSettings
from psubd.storage.kafka.tail import Reader, Round, Session, Tail
from psubd.storage.kafka.threads import Mailbox


class Sessions(SynchronousTestCase):
    """Fetch sessions."""

    ID = uuid.uuid4()

    def readers(self, *places: tuple[int, int]) -> list[Reader]:
        return [Reader("t", partition, offset, self.ID) for partition, offset in places]

    def named(self, request: Any) -> tuple[dict[int, int], list[int]]:
        """Partitions sent with their places, and those forgotten."""
        sent = {part.partition: part.fetch_offset for topic in request.topics for part in topic.partitions}
        return sent, [partition for topic in request.forgotten_topics_data for partition in topic.partitions]

    def answer(self, session_id: int, error_code: int = 0) -> Any:
        class Answer:
            pass

        given = Answer()
        given.session_id, given.error_code = session_id, error_code  # type: ignore[attr-defined]
        return given

    def test_only_what_changed_is_named(self) -> None:
        """All at first; then what moved or came, and what left is forgotten; epochs rise."""
        session = Session(kept=True)
        request = session.request(self.readers((0, 5), (1, 7)), 500)
        self.assertEqual((({0: 5, 1: 7}, []), (0, 0)), (self.named(request), (request.session_id, request.session_epoch)))
        self.assertTrue(session.answered(self.answer(99)))
        request = session.request(self.readers((0, 6), (1, 7), (2, 0)), 500)
        self.assertEqual((({0: 6, 2: 0}, []), (99, 1)), (self.named(request), (request.session_id, request.session_epoch)))
        session.answered(self.answer(99))
        request = session.request(self.readers((2, 0)), 500)
        self.assertEqual(
            (({}, [0, 1]), (99, 2)), ((self.named(request)[0], sorted(self.named(request)[1])), (request.session_id, request.session_epoch))
        )

    def test_a_session_that_the_broker_lost_begins_anew(self) -> None:
        """An error names all again; the answer does not count."""
        session = Session(kept=True)
        session.request(self.readers((0, 5)), 500)
        session.answered(self.answer(99))
        session.request(self.readers((0, 5)), 500)
        self.assertFalse(session.answered(self.answer(0, errors.FetchSessionIdNotFoundError.errno)))
        request = session.request(self.readers((0, 5)), 500)
        self.assertEqual(({0: 5}, 0), (self.named(request)[0], request.session_epoch))

    def test_no_session(self) -> None:
        """A broker that keeps none, or a request that wants none, names all each time."""
        for session, session_id in ((Session(kept=True), 0), (Session(kept=False), 0)):
            for _ in range(2):
                self.assertEqual({0: 5}, self.named(session.request(self.readers((0, 5)), 500))[0])
                self.assertTrue(session.answered(self.answer(session_id)))


class Commits(SynchronousTestCase):
    """Groups' places."""

    def test_cut_into_requests(self) -> None:
        """Each within the bound, all of them together, in order."""
        places = {TopicPartition("t", number): Commit(number, "m" * 4096) for number in range(1000)}
        cut = parts("g", places)
        self.assertTrue(all(sum(len(commit.metadata) for commit in part.values()) <= REQUEST_BYTES for part in cut))
        self.assertEqual(list(places.items()), [item for part in cut for item in part.items()])
        self.assertEqual([], parts("g", {}))

    def test_whose_commits(self) -> None:
        """Today's format and those to come are psubd's; an empty group is anybody's."""
        for metadata in ("psubd1;x", "psubd12;"):
            check_ours("g", {TopicPartition("t", 0): Commit(1, metadata)})
        check_ours("g", {})
        for metadata in ("", "theirs", "psubd", "psubdx;"):
            self.assertIsNone(OURS.match(metadata))
            with self.assertRaises(InUse):
                check_ours("g", {TopicPartition("t", 1): Commit(1, "psubd1;"), TopicPartition("t", 0): Commit(1, metadata)})


class Maps(SynchronousTestCase):
    """Topics as Kafka tells of them."""

    def test_settings(self) -> None:
        """-1 is no bound; compaction with deletion needs keys too; own settings are told from defaults."""
        settings = {
            "retention.ms": ("-1", 5),
            "cleanup.policy": ("compact,delete", 1),
            "max.message.bytes": ("5", 5),
            "message.timestamp.after.max.ms": ("7", 5),
        }
        topic = stored_topic("t", "u", 2, 3, settings)
        self.assertEqual(
            (None, None, "compact", 5, 7),
            (topic.retention_ms, topic.retention_bytes, topic.cleanup, topic.max_message_bytes, topic.timestamp_ahead_ms),
        )
        self.assertEqual({"cleanup.policy": "compact,delete"}, topic.config)

    def test_what_befell(self) -> None:
        """Gone, another one, more partitions; a new leader is nothing that anybody must hear of."""
        one, other = uuid.uuid4(), uuid.uuid4()
        stored = stored_topic("t", uid(one), 1, 1, {})
        before = Chart(stored, one, (1,))
        for now, expected in (
            (None, "gone"),
            (Chart(stored, other, (1,)), "other"),
            (Chart(stored, one, (1, 1)), "grown"),
            (Chart(stored, one, (2,)), None),
        ):
            self.assertEqual(expected, befallen(before, now))
        self.assertIsNone(befallen(None, before))

    def test_ids_are_written_as_kafka_writes_them(self) -> None:
        """URL-safe base64 of the sixteen bytes, no padding."""
        self.assertEqual("AAAAAAAAAAAAAAAAAAAAAA", uid(uuid.UUID(int=0)))


class Mail(SynchronousTestCase):
    """From threads to the reactor."""

    def test_one_wake_for_all_that_gathered(self) -> None:
        """In order, from many threads, and once more for what comes after."""
        wakes: list[Callable[[], None]] = []

        class Reactor:
            def callFromThread(self, call: Callable[[], None]) -> None:
                wakes.append(call)

        mailbox, made = Mailbox(Reactor()), list[int]()  # type: ignore[arg-type]
        threads = [threading.Thread(target=lambda: [mailbox.put(made.append, number) for number in range(100)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(1, len(wakes))
        wakes.pop()()
        self.assertEqual(400, len(made))
        mailbox.put(made.append, 1)
        self.assertEqual(1, len(wakes))

    def test_a_failing_call_takes_no_other_along(self) -> None:
        """It is logged, and the next ones are made."""
        wakes: list[Callable[[], None]] = []

        class Reactor:
            def callFromThread(self, call: Callable[[], None]) -> None:
                wakes.append(call)

        mailbox, made = Mailbox(Reactor()), list[int]()  # type: ignore[arg-type]
        mailbox.put(lambda: 1 / 0)
        mailbox.put(made.append, 1)
        wakes.pop()()
        self.assertEqual([1], made)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))


class Faults(SynchronousTestCase):
    """What clients are told."""

    def test_kinds(self) -> None:
        """Surely not done, maybe done, refused for good."""
        self.assertIsInstance(faults.unavailable(faults.Unsent("x")), StorageUnavailable)
        self.assertIsInstance(faults.timeout(faults.Lost("x")), StorageTimeout)
        self.assertIsInstance(faults.timeout(faults.Unsent("x")), StorageUnavailable)
        self.assertIsInstance(faults.of_topic(errors.InvalidConfigurationError(), "t", "why"), BadBody)
        self.assertIsInstance(faults.of_topic(errors.UnknownTopicOrPartitionError(), "t"), TopicMissing)
        self.assertIsInstance(faults.of_group(errors.UnknownMemberIdError(), "g"), InUse)

    def test_no_address_and_no_secret(self) -> None:
        """The driver's own words stay in the log."""
        told = faults.unavailable(errors.KafkaConnectionError("10.0.0.1:9092 user secret refused")).detail
        self.assertNotIn("secret", told)
        self.assertNotIn("10.0.0.1", told)


class LineOf:
    """A `Line` whose thread is the test's. ``answer`` gives what a request is answered with, or raises."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.net = NetworkSelector(slow_task_threshold_secs=0)
        self.answer = answer
        self.timeout_ms = 1_000.0
        self.asked: list[Any] = []

    def spawn(self, work: Any) -> Future:
        return self.net.call_soon_with_future(work)

    def submit(self, work: Any, *given: Any) -> Future:
        return self.net.call_soon_with_future(work, *given)

    async def ask(self, request: Any, node: int | None = None, place: int = 0, timeout_ms: float | None = None) -> Any:
        await self.net.sleep(0.001)
        self.asked.append(request)
        return self.answer(request)

    async def persist(self, deadline: float, attempt: Any, *, again: Any) -> Any:
        return await Line.persist(self, deadline, attempt, again=again)  # type: ignore[arg-type]

    def until(self, test: SynchronousTestCase, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            test.assertLess(time.monotonic(), deadline, "never came")
            self.net.poll(timeout_ms=10)

    def result(self, test: SynchronousTestCase, work: Any) -> Any:
        """What the coroutine returns, or raises."""
        future = self.spawn(work)
        self.until(test, lambda: bool(future.is_done))
        if future.exception is not None:
            raise future.exception
        return future.value


class Rights(SynchronousTestCase):
    """Topics that Kafka does not let psubd look at."""

    def answer(self, request: Any) -> Any:
        if isinstance(request, MetadataRequest):
            return SimpleNamespace(topics=[self.metadata(topic.name) for topic in request.topics])
        return SimpleNamespace(results=[self.described(each.resource_name) for each in request.resources])

    def metadata(self, name: str) -> Any:
        code = errors.TopicAuthorizationFailedError.errno if name == "denied" else 0
        partition = SimpleNamespace(partition_index=0, leader_id=self.leader, leader_epoch=3, replica_nodes=[1])
        return SimpleNamespace(name=name, error_code=code, topic_id=uuid.UUID(int=7), partitions=[] if code else [partition])

    def described(self, name: str) -> Any:
        code = errors.TopicAuthorizationFailedError.errno if name == "closed" else 0
        return SimpleNamespace(resource_name=name, error_code=code, error_message=None, configs=[])

    def test_one_topic_that_is_denied_is_no_others_trouble(self) -> None:
        """Who asks for it is told why; the others are there, and their leaders are followed, though it is looked at with them."""
        self.leader = 1
        line = LineOf(self.answer)
        self.addCleanup(line.net.close)
        atlas = Atlas(line, KafkaSettings(metadata_interval_ms=1), lambda topic, change: None, lambda: None)  # type: ignore[arg-type]
        for name in ("denied", "closed"):
            with self.assertRaises(errors.TopicAuthorizationFailedError):
                line.result(self, atlas.fresh([name]))
        self.assertEqual(["open"], list(line.result(self, atlas.fresh(["open"]))))
        line.spawn(atlas.watch())
        line.until(self, lambda: atlas.trouble is None)
        self.leader = 2
        line.until(self, lambda: atlas.leader("open", 0) == 2)


class Errors(SynchronousTestCase):
    """A partition whose fetches are answered with an error, at once, as brokers do."""

    def test_a_partition_that_fails_is_not_asked_without_a_pause(self) -> None:
        """It leaves the fetch, and is tried again after a pause; when the error is gone what comes is heard."""
        stored = stored_topic("t", "uid", 2, 1, {})
        chart = Chart(stored, uuid.UUID(int=7), (1, 1))
        atlas = SimpleNamespace(charts={"t": chart}, leader=lambda topic, partition: 1, kick=lambda: None, heard=lambda *batch: None)
        heard: list[Round] = []
        self.broken: type[errors.KafkaError] = errors.NoError
        for error in (errors.TopicAuthorizationFailedError, errors.NotLeaderForPartitionError, errors.UnknownTopicIdError):
            line = LineOf(lambda request: self.fetched(request))
            tail = Tail(line, atlas, KafkaSettings(), heard.append)  # type: ignore[arg-type]
            self.broken = error
            line.net.call_soon_threadsafe(lambda tail=tail: tail.join("t", 0, 5))
            end = time.monotonic() + 1
            while time.monotonic() < end:
                line.net.poll(timeout_ms=10)
            self.assertLess(len(line.asked), 30, error)
            self.assertGreater(len(line.asked), 2, error)
            self.assertEqual([], heard)
            self.broken = errors.NoError
            line.until(self, lambda: bool(heard))
            heard.clear()
            tail.stop()
            line.net.close()

    def fetched(self, request: Any) -> Any:
        part = SimpleNamespace(
            partition_index=0, error_code=self.broken.errno, records=None, aborted_transactions=None, log_start_offset=0, last_stable_offset=5
        )
        topics = [SimpleNamespace(topic_id=uuid.UUID(int=7), topic="", partitions=[part])]
        return SimpleNamespace(error_code=0, session_id=0, responses=topics)


class LogEnds(SynchronousTestCase):
    """Where the logs of former leaders ended."""

    def setUp(self) -> None:
        self.line = LineOf(self.answer)
        self.addCleanup(self.line.net.close)
        self.atlas = Atlas(self.line, KafkaSettings(), lambda topic, change: None, lambda: None)  # type: ignore[arg-type]
        self.atlas.charts["t"] = Chart(stored_topic("t", "uid", 3, 1, {}), uuid.UUID(int=7), (1, 1, 1), (5, 5, -1))
        self.reads = Reads(self.line, self.atlas, KafkaSettings())  # type: ignore[arg-type]
        self.errors = [errors.NoError]

    def answer(self, request: Any) -> Any:
        error = self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]
        (topic,) = request.topics
        ends = [(4, 70) if each.leader_epoch == 5 else (-1, -1) for each in topic.partitions]
        parts = [
            SimpleNamespace(partition=each.partition, error_code=error.errno, leader_epoch=epoch, end_offset=end)
            for each, (epoch, end) in zip(topic.partitions, ends, strict=True)
        ]
        return SimpleNamespace(topics=[SimpleNamespace(topic=topic.topic, partitions=parts)])

    def ends(self, **epochs: int) -> Any:
        return self.line.result(self, self.reads.log_ends("t", {int(number[1:]): epoch for number, epoch in epochs.items()}))

    def test_the_leaders_own_term(self) -> None:
        """That goes on, and no broker is asked; nor is one of a place whose term is not known."""
        self.assertEqual({}, self.ends(p0=5, p1=-1))
        self.assertEqual([], self.line.asked)

    def test_a_term_that_was_heard_of(self) -> None:
        """Records of a newer term tell more than a chart that lags behind: the leader is asked, and what it knows is told."""
        self.atlas.heard("t", 0, 6)
        self.assertEqual({0: 70}, self.ends(p0=5, p1=9))
        (request,) = self.line.asked
        self.assertEqual([(0, 5), (1, 9)], [(each.partition, each.leader_epoch) for each in request.topics[0].partitions])

    def test_another_leader_meanwhile(self) -> None:
        """It is asked again, until the leader answers; a partition that is not there is TopicMissing."""
        self.errors = [errors.NotLeaderForPartitionError, errors.NoError]
        self.assertEqual({2: 70}, self.ends(p2=5))
        self.assertEqual(2, len(self.line.asked))
        with self.assertRaises(TopicMissing):
            self.ends(p3=5)


class LostCommits(SynchronousTestCase):
    """Commits that may have been made."""

    def test_a_lost_try_is_not_forgotten(self) -> None:
        """The first try has no answer, the later ones find no coordinator: a timeout, not unavailable, which says that it was surely not made."""
        line = LineOf(self.answer)
        self.asked = line.asked
        self.addCleanup(line.net.close)
        groups, place = Groups(line), TopicPartition("t", 0)  # type: ignore[arg-type]
        groups.owned.add("g")
        failed = line.result(self, groups.commit("g", {place: Commit(1, "psubd1;")}, time.monotonic() + 0.5))
        self.assertIsInstance(failed[place], StorageTimeout)
        self.assertGreater(len(line.asked), 3)

    def answer(self, request: Any) -> Any:
        if isinstance(request, OffsetCommitRequest):
            raise faults.Lost("no answer")
        if any(isinstance(each, OffsetCommitRequest) for each in self.asked):
            raise faults.Unsent("away")
        return SimpleNamespace(API_VERSION=4, coordinators=[SimpleNamespace(error_code=0, node_id=1)])
