"""The outbox against a broker that does to requests what a script says."""

import random
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kafka import errors
from kafka.future import Future
from kafka.net.selector import NetworkSelector
from kafka.protocol.producer import InitProducerIdRequest, ProduceResponse
from kafka.record.memory_records import MemoryRecords
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import BadRecord, PsubdError, StorageTimeout, StorageUnavailable, TooLarge, TopicMissing
from psubd.model import Acks, Position, Record, StoredTopic
from psubd.storage.kafka.atlas import Chart
from psubd.storage.kafka.faults import Lost, Unsent
from psubd.storage.kafka.outbox import Bundle, Entry, Outbox, Settled, size_of
from psubd.storage.kafka.settings import KafkaSettings

TOPIC = "t"
FIELDS = ProduceResponse.TopicProduceResponse
ANSWER = FIELDS.PartitionProduceResponse


class Log:
    """One partition as a broker keeps it, with what it remembers of producers (KIP-98)."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.producers: dict[int, tuple[int, int, int]] = {}

    def append(self, batch: Any, values: list[bytes]) -> tuple[int, int]:
        """Error code and base offset."""
        if batch.producer_id >= 0:
            known = self.producers.get(batch.producer_id)
            if known is not None and (batch.base_sequence, len(values)) == (known[0], known[1]):
                return 0, known[2]
            if known is not None and batch.base_sequence != known[0] + known[1]:
                return errors.OutOfOrderSequenceNumberError.errno, -1
            self.producers[batch.producer_id] = (batch.base_sequence, len(values), len(self.values))
        self.values += values
        return 0, len(self.values) - len(values)


class Broker:
    """Answers produce requests. ``script`` holds what to do to the next ones; after it, all goes well.

    ``unsent``: no connection; ``lost``: stored, no answer; ``dropped``: not stored, no answer; a `KafkaError` class: the answer for every partition.
    ``refuses``: values that it never takes; ``names``: whether it says which they were.
    """

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.logs: dict[int, Log] = {}
        self.refuses: dict[bytes, type[errors.KafkaError]] = {}
        self.names = True
        self.requests: list[dict[int, list[bytes]]] = []
        self.ids = 100

    def produce(self, request: Any) -> ProduceResponse:
        act = self.script.pop(0) if self.script else "well"
        if act == "dropped":
            raise Lost("dropped")
        parts = {part.index: self.taken_apart(part.records) for topic in request.topic_data for part in topic.partition_data}
        self.requests.append({index: values for index, (_, values) in parts.items()})
        if isinstance(act, type):
            answers = [
                ANSWER(index=index, error_code=act.errno, base_offset=-1, log_append_time_ms=-1, record_errors=[], version=9) for index in parts
            ]
        else:
            answers = [self.take(index, batch, values) for index, (batch, values) in parts.items()]
        if act == "lost":
            raise Lost("lost")
        return ProduceResponse(responses=[FIELDS(name=TOPIC, partition_responses=answers, version=9)], version=9)

    @staticmethod
    def taken_apart(records: bytes) -> tuple[Any, list[bytes]]:
        (batch,) = MemoryRecords(bytes(records))
        return batch, [record.value for record in batch]

    def take(self, index: int, batch: Any, values: list[bytes]) -> Any:
        culprits = [number for number, value in enumerate(values) if value in self.refuses]
        if culprits:
            error = self.refuses[values[culprits[0]]]
            named = [ANSWER.BatchIndexAndErrorMessage(batch_index=number, batch_index_error_message="bad", version=9) for number in culprits]
            return ANSWER(
                index=index, error_code=error.errno, base_offset=-1, log_append_time_ms=-1, record_errors=named if self.names else [], version=9
            )
        code, base = self.logs.setdefault(index, Log()).append(batch, values)
        return ANSWER(index=index, error_code=code, base_offset=base, log_append_time_ms=-1, record_errors=[], version=9)


class Manager:
    """Connections to the one broker."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    async def connection(self, node: int | None, timeout_ms: float | None = None) -> "Manager":
        if self.broker.script and self.broker.script[0] == "unsent":
            self.broker.script.pop(0)
            raise Unsent("scripted")
        return self


class ScriptedLine:
    """A `Line` whose thread is the test's, and whose requests reach the `Broker` at once."""

    def __init__(self, broker: Broker) -> None:
        self.net = NetworkSelector(slow_task_threshold_secs=0)
        self.broker = broker
        self.managers = [Manager(broker)]

    def spawn(self, work: Any) -> Future:
        return self.net.call_soon_with_future(work)

    async def over(self, connection: Any, request: Any, timeout_ms: float | None = None) -> Any:
        await self.net.sleep(0)
        if request.acks == 0:
            self.broker.produce(request)
            return None
        return self.broker.produce(request)

    async def ask(self, request: Any, node: int | None = None, place: int = 0, timeout_ms: float | None = None) -> Any:
        assert isinstance(request, InitProducerIdRequest)
        self.broker.ids += 1

        class Given:
            error_code, producer_id, producer_epoch = 0, self.broker.ids, 0

        return Given


class Map:
    """An `Atlas` of one topic with one leader."""

    def __init__(self, partitions: int) -> None:
        stored = StoredTopic(TOPIC, "uid", partitions, 1, None, None, "delete", 1_000_000)
        self.charts = {TOPIC: Chart(stored, uuid.uuid4(), (1,) * partitions)}
        self.trouble: str | None = None
        self.kicks = 0

    def leader(self, topic: str, partition: int) -> int | None:
        chart = self.charts.get(topic)
        return None if chart is None or partition >= len(chart.leaders) else chart.leaders[partition]

    def kick(self) -> None:
        self.kicks += 1


class Ticket:
    """Records that were posted together, and what became of them."""

    def __init__(self, count: int) -> None:
        self.results: list[Position | PsubdError | None] = [None] * count
        self.left = count

    def told(self, number: int, result: Position | PsubdError) -> None:
        assert self.results[number] is None, "answered twice"
        self.results[number] = result
        self.left -= 1

    def told_all(self, numbers: Sequence[int], results: Sequence[Position | PsubdError]) -> None:
        assert len(numbers) == len(results)
        for number, result in zip(numbers, results, strict=True):
            self.told(number, result)


def finish(settled: list[Settled]) -> None:
    """As the reactor's thread does."""
    for each in settled:
        for entry, result in each.results():
            entry.told(result)


def post(outbox: Outbox, records: list[Record], deadline: float, bundled: bool = False) -> Ticket:
    """As the storage does with what one turn of the reactor brought.

    :param bundled: those of one partition go as one.
    """
    outbox.room(sum(size_of(record) for record in records))
    ticket = Ticket(len(records))
    entries = [Entry(record, size_of(record), deadline, partial(ticket.told, number)) for number, record in enumerate(records)]
    if bundled:
        places: dict[int, list[int]] = {}
        for number, record in enumerate(records):
            places.setdefault(record.partition or 0, []).append(number)
        entries = [
            Bundle([records[each] for each in those], those, sum(size_of(records[each]) for each in those), deadline, ticket.told_all)
            for those in places.values()
        ]
    for entry in entries:
        outbox.post(entry, outbox.atlas.charts.get(entry.record.topic))
    outbox.wake()
    return ticket


class OutboxCase(SynchronousTestCase):
    """An outbox with its broker.

    :cvar bundled: whether the records of a call go as one.
    """

    bundled = False

    def setUp(self) -> None:
        self.broker, self.map = Broker(), Map(3)

    def outbox(self, acks: Acks = "all", **settings: Any) -> Outbox:
        self.line = ScriptedLine(self.broker)
        made = Outbox(self.line, range(1), acks, self.map, KafkaSettings(**settings), finish)  # type: ignore[arg-type]
        self.line.spawn(made.sweep())
        self.addCleanup(self.line.net.close)
        return made

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            self.assertLess(time.monotonic(), deadline, "never came")
            self.line.net.poll(timeout_ms=10)

    def publish(self, outbox: Outbox, *values: bytes, partition: int = 0, seconds: float = 10) -> list[Position | PsubdError | None]:
        """What became of each of the values, published in one call."""
        return self.publish_records(outbox, [Record(TOPIC, value, None, (), partition, 1) for value in values], seconds)

    def publish_records(self, outbox: Outbox, records: list[Record], seconds: float = 10) -> list[Position | PsubdError | None]:
        ticket = post(outbox, records, time.monotonic() + seconds, self.bundled)
        self.until(lambda: not ticket.left)
        self.assertEqual(0, outbox.queued_bytes)
        return ticket.results

    def offsets(self, results: list[Position | PsubdError | None]) -> list[int | type]:
        return [result.offset if isinstance(result, Position) else type(result) for result in results]

    def stored(self, partition: int = 0) -> list[bytes]:
        return self.broker.logs[partition].values if partition in self.broker.logs else []


class Refusals(OutboxCase):
    """What a broker will never take."""

    def test_named_culprits_fail_alone(self) -> None:
        """The others are stored, in their order, by the next request."""
        outbox = self.outbox()
        self.broker.refuses = {b"c": errors.InvalidTimestampError, b"e": errors.InvalidRecordError}
        self.assertEqual([0, 1, BadRecord, 2, BadRecord, 3], self.offsets(self.publish(outbox, b"a", b"b", b"c", b"d", b"e", b"f")))
        self.assertEqual([b"a", b"b", b"d", b"f"], self.stored())
        self.assertEqual(2, len(self.broker.requests))

    def test_what_cannot_be_written_down_fails_alone(self) -> None:
        """A record that the driver cannot put into a batch (a header's name that is no UTF-8): BadRecord; the others, and other partitions, go on."""
        for before in ((), (b"a",)):
            outbox = self.outbox()
            records = [Record(TOPIC, value, None, (), 0, 1) for value in before]
            records += [Record(TOPIC, b"x", None, (("\ud800", b""),), 0, 1), Record(TOPIC, b"c", None, (), 0, 1), Record(TOPIC, b"d", None, (), 1, 1)]
            results = self.publish_records(outbox, records)
            self.assertEqual([Position] * len(before) + [BadRecord, Position, Position], [type(each) for each in results])

    def test_an_unsent_batch_of_a_topic_that_is_gone(self) -> None:
        """Its records are TopicMissing as soon as the map has lost the topic, not when their time is up."""
        outbox = self.outbox()
        self.broker.script = ["unsent"] * 1000
        self.line.net.call_later(0.2, lambda: self.map.charts.clear())
        self.assertEqual([TopicMissing], self.offsets(self.publish(outbox, b"b", seconds=600)))

    def test_an_unnamed_culprit_is_found(self) -> None:
        """By halving; order holds, and all others are stored."""
        outbox = self.outbox()
        self.broker.names = False
        self.broker.refuses = {b"7": errors.MessageSizeTooLargeError}
        values = [b"%d" % number for number in range(40)]
        results = self.publish(outbox, *values)
        self.assertEqual([TooLarge], [kind for kind in self.offsets(results) if isinstance(kind, type)])
        self.assertIsInstance(results[7], TooLarge)
        self.assertEqual([value for value in values if value != b"7"], self.stored())

    def test_after_a_refusal_batches_are_whole_again(self) -> None:
        """What comes later is not cut into small batches."""
        outbox = self.outbox()
        self.broker.names = False
        self.broker.refuses = {b"0": errors.InvalidRecordError}
        self.publish(outbox, *[b"%d" % number for number in range(16)])
        self.broker.requests.clear()
        self.publish(outbox, *[b"x%d" % number for number in range(100)])
        self.assertEqual(1, len(self.broker.requests))

    def test_a_topic_that_is_gone(self) -> None:
        """UNKNOWN_TOPIC_OR_PARTITION is tried again while the map has the topic; once it has not, the records are TopicMissing."""
        outbox = self.outbox()
        self.broker.script = [errors.UnknownTopicOrPartitionError]
        self.assertEqual([0], self.offsets(self.publish(outbox, b"a")))
        self.map.charts.clear()
        self.assertEqual([TopicMissing], self.offsets(self.publish(outbox, b"b")))


class Losses(OutboxCase):
    """Requests that have no answer."""

    def test_no_answer_is_tried_again_and_stored_once(self) -> None:
        """acks all: whether the first try was stored or not, the record is there once and its offset told."""
        outbox = self.outbox()
        for act in ("lost", "dropped", "unsent", errors.NotEnoughReplicasAfterAppendError, errors.NotLeaderForPartitionError):
            self.broker.script = [act, act]
            results = self.publish(outbox, b"a", b"b")
            self.assertEqual([Position, Position], [type(result) for result in results], act)
        self.assertEqual([b"a", b"b"] * 5, self.stored())
        self.assertGreater(self.map.kicks, 0)

    def test_never_sent_is_unavailable(self) -> None:
        """No connection until its time is up: StorageUnavailable, and nothing is stored later."""
        outbox = self.outbox()
        self.broker.script = ["unsent"] * 1000
        self.assertEqual([StorageUnavailable], self.offsets(self.publish(outbox, b"a", seconds=0.5)))
        self.broker.script = []
        self.assertEqual([0], self.offsets(self.publish(outbox, b"b")))
        self.assertEqual([b"b"], self.stored())

    def test_refused_until_the_end_is_unavailable(self) -> None:
        """Too few replicas until its time is up: the broker said each time that it did not store it."""
        outbox = self.outbox()
        self.broker.script = [errors.NotEnoughReplicasError] * 1000
        self.assertEqual([StorageUnavailable], self.offsets(self.publish(outbox, b"a", seconds=0.5)))
        self.assertEqual([], self.stored())

    def test_no_answer_until_the_end_is_a_timeout(self) -> None:
        """Nobody can tell whether it is stored. What follows goes on as another producer, so that no broker mistakes its sequence."""
        outbox = self.outbox()
        self.assertEqual([0], self.offsets(self.publish(outbox, b"a")))
        for act in ("lost", "dropped"):
            self.broker.script = [act] * 1000
            self.assertEqual([StorageTimeout], self.offsets(self.publish(outbox, b"?", seconds=0.5)))
            self.broker.script = []
            self.assertIsInstance(self.publish(outbox, b"b")[0], Position)
        self.assertEqual([b"a", b"?", b"b", b"b"], self.stored())
        self.assertEqual(3, len(self.broker.logs[0].producers))

    def test_what_may_be_stored_is_never_taken_for_what_follows(self) -> None:
        """A batch that was stored without an answer, and whose next try is refused for good, is a timeout; what comes next, as many records, is
        stored and told its own place. Under the same producer id and sequence a broker would answer for the first batch and store nothing."""
        for refusal in (errors.TopicAuthorizationFailedError, errors.UnknownError, errors.InvalidRecordError, errors.OutOfOrderSequenceNumberError):
            self.broker = Broker()
            outbox = self.outbox()
            self.broker.script = ["lost", refusal]
            self.assertEqual([StorageTimeout], self.offsets(self.publish(outbox, b"?")), refusal)
            self.assertEqual([1], self.offsets(self.publish(outbox, b"b")), refusal)
            self.assertEqual([b"?", b"b"], self.stored())

    def test_errors_that_leave_it_open_are_timeouts(self) -> None:
        """UNKNOWN_SERVER_ERROR, a failing disk, and a leader that is deposed while it waits for its replicas: the records may be in the log."""
        for error in (errors.UnknownError, errors.KafkaStorageError, errors.NotLeaderForPartitionError):
            outbox = self.outbox()
            self.broker.script = [error] * 1000
            self.assertEqual([StorageTimeout], self.offsets(self.publish(outbox, b"?", seconds=0.5)), error)
            self.broker.script = []
            self.assertIsInstance(self.publish(outbox, b"b")[0], Position)

    def test_what_nobody_foresaw_is_answered(self) -> None:
        """An exception that is not the driver's, from a request: it may have been sent; tried again, and not without a pause."""
        outbox = self.outbox()
        produce, tries = self.broker.produce, [0]

        def broken(request: Any) -> Any:
            tries[0] += 1
            raise OSError("unforeseen")

        self.broker.produce = broken  # type: ignore[method-assign]
        self.assertEqual([StorageTimeout], self.offsets(self.publish(outbox, b"?", seconds=1)))
        self.assertLess(tries[0], 20)
        self.broker.produce = produce  # type: ignore[method-assign]
        self.assertEqual([0], self.offsets(self.publish(outbox, b"b")))

    def test_lanes_of_topics_that_are_gone_are_forgotten(self) -> None:
        """And when the topic is back its records are stored, not taken for a repetition of those that the lane before sent."""
        outbox = self.outbox()
        self.publish(outbox, b"a", b"b")
        charts = dict(self.map.charts)
        self.map.charts.clear()
        self.until(lambda: not outbox.lanes)
        self.map.charts.update(charts)
        self.assertEqual([2, 3], self.offsets(self.publish(outbox, b"c", b"d")))
        self.assertEqual([b"a", b"b", b"c", b"d"], self.stored())

    def test_without_a_sequence_nothing_is_sent_twice(self) -> None:
        """acks 1: no answer is a timeout at once; never sent is tried again."""
        outbox = self.outbox("1")
        self.broker.script = ["lost"]
        self.assertEqual([StorageTimeout], self.offsets(self.publish(outbox, b"a")))
        self.broker.script = ["unsent", "unsent"]
        self.assertEqual([1], self.offsets(self.publish(outbox, b"b")))
        self.assertEqual([b"a", b"b"], self.stored())

    def test_a_broker_that_forgot_the_producer(self) -> None:
        """OUT_OF_ORDER_SEQUENCE and UNKNOWN_PRODUCER_ID: another id, and the record is stored."""
        outbox = self.outbox()
        self.publish(outbox, b"a")
        for error in (errors.OutOfOrderSequenceNumberError, errors.UnknownProducerIdError, errors.InvalidProducerEpochError):
            self.broker.script = [error]
            self.assertIsInstance(self.publish(outbox, b"b")[0], Position)
        self.assertEqual([b"a", b"b", b"b", b"b"], self.stored())

    def test_a_partition_without_a_leader(self) -> None:
        """Its records wait, those of others do not; they are unavailable when their time is up."""
        outbox = self.outbox()
        chart = self.map.charts[TOPIC]
        self.map.charts[TOPIC] = Chart(chart.stored, chart.id, (-1, 1, 1))
        self.map.leader = lambda topic, partition: None if partition == 0 else 1  # type: ignore[method-assign]
        waits = post(outbox, [Record(TOPIC, b"waits", None, (), 0, 1)], time.monotonic() + 0.5)
        self.assertEqual([0], self.offsets(self.publish_beside(outbox, b"goes", partition=1)))
        self.until(lambda: not waits.left)
        self.assertIsInstance(waits.results[0], StorageUnavailable)

    def publish_beside(self, outbox: Outbox, value: bytes, partition: int) -> list[Position | PsubdError | None]:
        ticket = post(outbox, [Record(TOPIC, value, None, (), partition, 1)], time.monotonic() + 10)
        self.until(lambda: not ticket.left)
        return ticket.results

    def test_whatever_happens(self) -> None:
        """A thousand calls through random faults: each answer is there; what has a position is stored there; what was surely not stored is not there;
        nothing is stored twice; each partition has its records in the order of the calls."""
        for seed in range(6):
            self.broker, self.map = Broker(), Map(3)
            tickets = self.through_faults(random.Random(seed))
            for number, ticket in enumerate(tickets):
                (result,) = ticket.results
                value, log = b"%d" % number, self.stored(number % 3)
                if isinstance(result, Position):
                    self.assertEqual(value, log[result.offset])
                elif not isinstance(result, StorageTimeout):
                    self.assertIsInstance(result, BadRecord)
                    self.assertNotIn(value, log)
            for partition in range(3):
                numbers = [int(value) for value in self.stored(partition)]
                self.assertEqual(sorted(set(numbers)), numbers, seed)

    def test_bundles_whatever_happens(self) -> None:
        """The same of calls with many records, which go as one: each record has its own answer, and the answers are of the records."""
        for seed in range(4):
            self.broker, self.map = Broker(), Map(3)
            outbox, chosen = self.faulty(random.Random(seed))
            calls: list[tuple[list[int], Ticket]] = []
            number = 0
            while number < 1000:
                numbers = list(range(number, number + chosen.randint(1, 40)))
                number = numbers[-1] + 1
                records = [Record(TOPIC, b"%d" % each, None, (), each % 3, 1) for each in numbers]
                calls.append((numbers, post(outbox, records, time.monotonic() + 10, bundled=len(calls) % 3 > 0)))
                if chosen.random() < 0.3:
                    self.line.net.poll(timeout_ms=0)
            self.until(lambda calls=calls: not any(ticket.left for _, ticket in calls))  # type: ignore[misc]
            self.assertEqual(0, outbox.queued_bytes)
            found = [(each, result) for numbers, ticket in calls for each, result in zip(numbers, ticket.results, strict=True)]
            for each, result in found:
                value, log = b"%d" % each, self.stored(each % 3)
                if isinstance(result, Position):
                    self.assertEqual((value, each % 3), (log[result.offset], result.partition))
                elif not isinstance(result, StorageTimeout):
                    self.assertIsInstance(result, BadRecord)
                    self.assertNotIn(value, log)
            for partition in range(3):
                stored = [int(value) for value in self.stored(partition)]
                self.assertEqual(sorted(set(stored)), stored, seed)
            counted = outbox.sent_records, outbox.failed_records
            positions = sum(isinstance(result, Position) for _, result in found)
            self.assertEqual((positions, len(found) - positions), counted)

    def through_faults(self, chosen: random.Random) -> list[Ticket]:
        outbox, chosen = self.faulty(chosen)
        tickets: list[Ticket] = []
        for number in range(1000):
            tickets.append(post(outbox, [Record(TOPIC, b"%d" % number, None, (), number % 3, 1)], time.monotonic() + 10))
            if chosen.random() < 0.1:
                self.line.net.poll(timeout_ms=0)
        self.until(lambda: not any(ticket.left for ticket in tickets))
        return tickets

    def faulty(self, chosen: random.Random) -> tuple[Outbox, random.Random]:
        """An outbox whose broker fails in many ways."""
        outbox = self.outbox()
        acts: list[Any] = ["well"] * 6 + ["lost", "dropped", "unsent", errors.NotLeaderForPartitionError, errors.OutOfOrderSequenceNumberError]
        self.broker.script = [chosen.choice(acts) for _ in range(300)]
        self.broker.refuses = {b"%d" % number: errors.InvalidRecordError for number in range(0, 1000, 97)}
        self.broker.names = chosen.random() < 0.5
        return outbox, chosen


class RefusalsOfBundles(Refusals):
    """The same where the records of a call go as one."""

    bundled = True


class Flow(OutboxCase):
    """How records gather."""

    def test_what_comes_in_meanwhile_gathers(self) -> None:
        """While a request is on its way the others wait, and go as one, all partitions together."""
        outbox = self.outbox()
        tickets = [post(outbox, [Record(TOPIC, b"first", None, (), 0, 1)], time.monotonic() + 10)]
        self.until(lambda: bool(outbox.busy))
        tickets += [post(outbox, [Record(TOPIC, b"%d" % number, None, (), number % 3, 1)], time.monotonic() + 10) for number in range(50)]
        self.assertFalse(outbox.awake, "the thread is not woken for what it cannot send yet")
        self.until(lambda: not any(ticket.left for ticket in tickets))
        self.assertEqual([1, 3], [len(request) for request in self.broker.requests])

    def test_batches_keep_to_the_topics_limit(self) -> None:
        """Never more than max.message.bytes in a batch of several."""
        chart = self.map.charts[TOPIC]
        stored = StoredTopic(TOPIC, "uid", 3, 1, None, None, "delete", 1_000)
        self.map.charts[TOPIC] = Chart(stored, chart.id, chart.leaders)
        self.publish(self.outbox(), *[b"x" * 100] * 50)
        self.assertLessEqual(max(len(values) for request in self.broker.requests for values in request.values()), 9)

    def test_a_bundle_is_cut_where_a_batch_is_full(self) -> None:
        """What has no room goes with the next batch; each record has its own place."""
        self.bundled = True
        values = [b"%03d" % number + b"x" * 97 for number in range(50)]
        outbox = self.outbox(batch_bytes=1_000)
        self.assertEqual(list(range(50)), self.offsets(self.publish(outbox, *values)))
        self.assertEqual(values, self.stored())
        self.assertEqual(0, outbox.queued_bytes)
        self.assertGreater(len(self.broker.requests), 5)

    def test_acks_0_has_no_answer(self) -> None:
        """It is settled when it was written."""
        self.assertEqual([-1], self.offsets(self.publish(self.outbox("0"), b"a")))
        self.assertEqual([b"a"], self.stored())

    def test_a_full_buffer(self) -> None:
        """More than buffer_bytes is refused whole; a single large record into an empty one is not."""
        outbox = self.outbox(buffer_bytes=1_000)
        large = post(outbox, [Record(TOPIC, b"x" * 5_000, None, (), 0, 1)], time.monotonic() + 10)
        with self.assertRaises(StorageUnavailable):
            post(outbox, [Record(TOPIC, b"y", None, (), 0, 1)], time.monotonic() + 10)
        self.until(lambda: not large.left)
        self.assertEqual([1], self.offsets(self.publish(outbox, b"z")))

    def flushed(self) -> list[int | type]:
        """What becomes of two records when the outbox is flushed while they wait."""
        self.broker.logs = {}
        outbox = self.outbox()
        ticket = post(outbox, [Record(TOPIC, b"a", None, (), 0, 1), Record(TOPIC, b"b", None, (), 0, 1)], time.monotonic() + 60)
        self.line.spawn(outbox.flush(time.monotonic() + 0.3))
        self.until(lambda: not ticket.left)
        return self.offsets(ticket.results)

    def test_flush_sends_what_waits_and_fails_the_rest(self) -> None:
        """With a broker that answers: stored. With one that is away: unavailable, though their own time is not up."""
        self.assertEqual([0, 1], self.flushed())
        self.broker.script = ["unsent"] * 1000
        self.assertEqual([StorageUnavailable, StorageUnavailable], self.flushed())
