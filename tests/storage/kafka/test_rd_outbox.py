"""The outbox on librdkafka, with a librdkafka that does what a script says and an `Outbox` that keeps what it is given."""

import time
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from psubd.errors import BadRecord, PsubdError, StorageTimeout, StorageUnavailable, TooLarge, TopicMissing
from psubd.model import Position, Record, StoredTopic
from psubd.storage.kafka.atlas import Chart
from psubd.storage.kafka.outbox import Bundle, Entry, Settled, count_of, records_of, size_of
from psubd.storage.kafka.rd_outbox import FEW, Hand, RdOutbox, of_acks
from psubd.storage.kafka.settings import RdKafkaSettings

try:
    from confluent_kafka import KafkaError, KafkaException
except ImportError:
    KafkaError = None

TOPIC, SMALL = "t", "small"
Result = Position | PsubdError | None


class Told:
    """librdkafka's message, as a delivery report has it."""

    def __init__(self, offset: int | None, kind: int = 1, stamp: int = 7) -> None:
        self.offset, self.timestamp = lambda: offset, lambda: (kind, stamp)


class Producer:
    """Keeps what it was given until `tell`."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, ...]] = []
        self.refuses: Exception | None = None
        self.next: dict[int, int] = {}

    def produce(self, *given: Any) -> None:
        if self.refuses is not None:
            raise self.refuses
        if given[1] == b"unfit":
            raise TypeError("unfit")
        self.given.append(given)

    def tell(self, error: Any = None, count: int = 1000, kind: int = 1) -> None:
        """Report the oldest ones."""
        told, self.given = self.given[:count], self.given[count:]
        for _, _, _, partition, delivered, *_ in told:
            offset = self.next.get(partition, 0)
            if error is None:
                self.next[partition] = offset + 1
            delivered(error, Told(offset, kind))

    def values(self) -> list[bytes]:
        return [given[1] for given in self.given]


class Plain:
    """An `Outbox` that keeps what it is given until `tell`."""

    sent_batches = sent_records = failed_records = retries = 0

    def __init__(self, finished: Callable[[list[Settled]], None]) -> None:
        self.finished, self.given = finished, []

    def post(self, entry: Entry, chart: Chart | None) -> None:
        self.given.append(entry)

    def wake(self) -> None:
        pass

    def values(self) -> list[bytes | None]:
        return [entry.record.value for entry in self.given]

    def tell(self) -> None:
        """All are stored but those of value ``bad``."""
        given, self.given = self.given, []
        bad = [entry for entry in given if entry.record.value == b"bad"]
        good = [entry for entry in given if entry not in bad]
        self.finished([Settled(bad, BadRecord("bad")), Settled(good, None, TOPIC, 0, 100, [1] * count_of(good))])


class Map:
    """An `Atlas` of two topics; the second takes small batches only."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.charts = {TOPIC: self.chart(TOPIC, 1_048_588, (1, 1, 2)), SMALL: self.chart(SMALL, 2_000, (1,))}

    @staticmethod
    def chart(name: str, most: int, leaders: tuple[int, ...]) -> Chart:
        return Chart(StoredTopic(name, "uid", len(leaders), 1, None, None, "delete", most), uuid.uuid4(), leaders)


class RdOutboxCase(SynchronousTestCase):
    def setUp(self) -> None:
        if KafkaError is None:
            raise SkipTest("needs confluent-kafka")
        self.map, self.producer = Map(), Producer()
        self.outbox = RdOutbox(
            "all", {"bootstrap.servers": "127.0.0.1:1"}, self.map, RdKafkaSettings(buffer_bytes=10_000), self.plain_one, self.hand_over, self.finished
        )  # type: ignore[arg-type]
        self.outbox.start()
        self.addCleanup(self.end)
        self.outbox._hands[:] = [Hand(self.producer), Hand(self.producer)]
        self.outbox._hands[1].arrived = self.outbox._hands[0].arrived
        self.renewed: list[bool] = []
        self.outbox._renew = lambda: self.renewed.append(True)  # type: ignore[method-assign]
        self.told: dict[bytes | None, Result] = {}

    def plain_one(self, finished: Callable[[list[Settled]], None]) -> Any:
        self.plain = Plain(finished)
        return self.plain

    def end(self) -> None:
        self.outbox._ended = True
        for thread in self.outbox._threads:
            thread.join()

    def hand_over(self, call: Callable[..., object], *given: Any) -> None:
        call(*given)

    def finished(self, settled: list[Settled]) -> None:
        for each in settled:
            for entry, result in each.results():
                values = [record.value for record in records_of([entry])]
                self.assertFalse(self.told.keys() & set(values), "told twice")
                entry.told(result)
                self.told.update(zip(values, result if isinstance(entry, Bundle) else [result], strict=True))

    def post(self, *values: bytes, partition: int = 0, topic: str = TOPIC, seconds: float = 10, stamp: int | None = 5) -> None:
        for value in values:
            record = Record(topic, value, None, (), partition, stamp)
            self.outbox.post(Entry(record, size_of(record), time.monotonic() + seconds, lambda result: None), self.map.charts.get(topic))

    def bundle(self, *values: bytes, seconds: float = 10) -> None:
        """They come as a batch."""
        records = [Record(TOPIC, value, None, (), 0, 5) for value in values]
        size = sum(map(size_of, records))
        bundle = Bundle(records, range(len(records)), size, time.monotonic() + seconds, lambda numbers, results: None)
        self.outbox.post(bundle, self.map.charts[TOPIC])

    def tell(self, *given: Any, **named: Any) -> None:
        """librdkafka's thread."""
        self.producer.tell(*given, **named)
        arrived = self.outbox._hands[0].arrived[:]
        self.outbox._hands[0].arrived.clear()
        self.outbox._came(arrived)

    def offsets(self) -> dict[bytes | None, int | type]:
        return {value: result.offset if isinstance(result, Position) else type(result) for value, result in self.told.items()}


class Waves(RdOutboxCase):
    """How records gather."""

    def test_what_comes_meanwhile_waits(self) -> None:
        """While librdkafka has records for a broker, others for it wait, of all its partitions; another broker's go. They go once all are told."""
        self.post(b"a", b"b")
        self.outbox.wake()
        self.post(b"c")
        self.post(b"d", partition=1)
        self.post(b"e", partition=2)
        self.outbox.wake()
        self.assertEqual([b"a", b"b", b"e"], self.producer.values())
        self.tell(count=1)
        self.assertEqual([b"b", b"e"], self.producer.values())
        self.tell(count=1)
        self.assertEqual({b"e", b"c", b"d"}, set(self.producer.values()))
        self.tell()
        self.assertEqual({b"a": 0, b"b": 1, b"c": 2, b"d": 0, b"e": 0}, self.offsets())
        self.assertEqual(0, self.outbox.queued_bytes)

    def test_a_batch_goes_the_other_way(self) -> None:
        """Through the `Outbox`, with what waits before and behind it, once librdkafka has told of all before; what comes later goes through
        librdkafka again, once the `Outbox` has told. Other partitions are not touched."""
        self.post(b"a")
        self.outbox.wake()
        self.post(b"b")
        self.bundle(b"c", b"d", b"e")
        self.post(b"f")
        self.outbox.wake()
        self.assertEqual([], self.plain.given, "it would overtake a")
        self.tell()
        self.assertEqual([b"b", b"c", b"f"], self.plain.values())
        self.post(b"g")
        self.post(b"h", partition=2)
        self.outbox.wake()
        self.assertEqual([b"h"], self.producer.values(), "g would overtake f")
        self.plain.tell()
        self.assertEqual([b"h", b"g"], self.producer.values())
        self.tell()
        self.assertEqual({b"a": 0, b"b": 100, b"c": 101, b"d": 102, b"e": 103, b"f": 104, b"g": 1, b"h": 0}, self.offsets())
        self.assertEqual(0, self.outbox.queued_bytes)

    def test_batches_without_end_keep_nobody_waiting(self) -> None:
        """What is posted alone goes with the next batch, though the `Outbox` is never empty."""
        self.bundle(b"a", b"b")
        self.outbox.wake()
        self.post(b"c")
        self.bundle(b"d", b"e")
        self.outbox.wake()
        self.assertEqual([b"a", b"c", b"d"], self.plain.values())
        self.assertEqual([], self.producer.values())

    def test_a_batch_that_waits_too_long(self) -> None:
        """All of it is unavailable, once its time is up; what is posted then goes through librdkafka."""
        self.post(b"a")
        self.outbox.wake()
        self.bundle(b"b", b"c", seconds=-1)
        self.outbox._expire()
        self.assertEqual({b"b": StorageUnavailable, b"c": StorageUnavailable}, self.offsets())
        self.assertEqual(2, self.outbox.failed_records)
        self.post(b"d")
        self.tell()
        self.assertEqual([b"d"], self.producer.values())

    def test_offsets_with_others_between(self) -> None:
        """Each record is told its own offset, where somebody else wrote between two batches too."""
        self.post(b"a", b"b")
        self.outbox.wake()
        self.producer.tell(count=1)
        self.producer.next[0] = 9
        self.tell()
        self.assertEqual({b"a": 0, b"b": 9}, self.offsets())

    def test_timestamps(self) -> None:
        """The record's own; the log's where that stamps its own; librdkafka's where the record has none."""
        for value, stamp, kind, told in ((b"a", 5, 1, 5), (b"b", 5, 2, 7), (b"c", None, 1, 7)):
            self.post(value, stamp=stamp)
            self.outbox.wake()
            self.tell(kind=kind)
            result = self.told[value]
            assert isinstance(result, Position)
            self.assertEqual(told, result.timestamp)

    def test_few_and_many(self) -> None:
        """Few records go by the producer that does not linger; many by the other, and no two waves of a partition at once."""
        quick, bulk = Producer(), Producer()
        self.outbox._hands[0].producer, self.outbox._hands[1].producer = quick, bulk
        self.post(*(b"%d" % number for number in range(FEW)))
        self.outbox.wake()
        self.post(*(b"x%d" % number for number in range(FEW + 1)))
        self.outbox.wake()
        self.assertEqual((FEW, 0), (len(quick.given), len(bulk.given)))
        self.producer = quick
        self.tell()
        self.assertEqual((0, FEW + 1), (len(quick.given), len(bulk.given)))

    def test_a_wave_keeps_to_a_batch(self) -> None:
        """No more of a partition than one batch takes, so that what becomes of one is known before the next is sent."""
        self.outbox.settings = RdKafkaSettings(batch_bytes=150)
        self.post(b"a", b"b", b"c", b"d", b"e")
        self.outbox.wake()
        self.assertEqual([b"a", b"b", b"c"], self.producer.values())
        self.tell()
        self.assertEqual([b"d", b"e"], self.producer.values())


class Faults(RdOutboxCase):
    """What goes wrong."""

    def test_a_refused_batch_goes_to_the_other_outbox(self) -> None:
        """Before what came later, which waits for it; then librdkafka goes on."""
        self.post(b"a", b"bad", b"c")
        self.outbox.wake()
        self.post(b"later")
        self.tell(KafkaError(KafkaError.INVALID_TIMESTAMP))
        self.assertEqual([b"a", b"bad", b"c", b"later"], self.plain.values())
        self.post(b"last")
        self.outbox.wake()
        self.assertEqual([], self.producer.values())
        self.plain.tell()
        self.assertEqual({b"a": 100, b"bad": BadRecord, b"c": 101, b"later": 102}, self.offsets())
        self.assertEqual([b"last"], self.producer.values())
        self.tell()
        self.assertEqual(0, self.outbox.queued_bytes)

    def test_only_once_the_wave_is_back(self) -> None:
        """A part of a wave that was refused waits until all of it is told."""
        self.post(b"a", b"bad", b"c")
        self.outbox.wake()
        self.tell(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), count=2)
        self.assertEqual([], self.plain.values())
        self.tell()
        self.assertEqual([b"a", b"bad"], self.plain.values())
        self.assertEqual({b"c": 0}, self.offsets())

    def test_small_topics_and_kafka_away(self) -> None:
        """Go to the other outbox, the latter once librdkafka has told of what it has."""
        self.post(b"s", topic=SMALL)
        self.post(b"a")
        self.outbox.wake()
        self.assertEqual(([b"s"], [b"a"]), (self.plain.values(), self.producer.values()))
        self.map.trouble = "away"
        self.post(b"b")
        self.outbox.wake()
        self.assertEqual([b"s"], self.plain.values())
        self.tell()
        self.assertEqual([b"s", b"b"], self.plain.values())

    def test_errors(self) -> None:
        """Each becomes what it says of the record."""
        expected = {
            KafkaError._MSG_TIMED_OUT: StorageTimeout,
            KafkaError._PURGE_QUEUE: StorageTimeout,
            KafkaError._TRANSPORT: StorageTimeout,
            KafkaError.REQUEST_TIMED_OUT: StorageTimeout,
            KafkaError.TOPIC_AUTHORIZATION_FAILED: StorageUnavailable,
            KafkaError.UNKNOWN_TOPIC_OR_PART: TopicMissing,
        }
        for number, (code, kind) in enumerate(expected.items()):
            value = b"%d" % number
            self.post(value)
            self.outbox.wake()
            self.tell(KafkaError(code))
            self.assertIsInstance(self.told[value], kind, code)
        self.post(b"gone")
        self.outbox.wake()
        self.map.charts.clear()
        self.tell(KafkaError(KafkaError._MSG_TIMED_OUT))
        self.assertIsInstance(self.told[b"gone"], TopicMissing)

    def test_what_librdkafka_does_not_take(self) -> None:
        """Surely not stored, and told so; the others of the turn are not touched."""
        self.post(b"a", b"unfit", b"c")
        self.outbox.wake()
        self.assertEqual(([b"a", b"c"], {b"unfit": BadRecord}), (self.producer.values(), self.offsets()))
        self.tell()
        cases = ((BufferError(), StorageUnavailable), (KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)), TooLarge))
        for number, (refusal, kind) in enumerate(cases):
            value = b"%d" % number
            self.producer.refuses = refusal
            self.post(value)
            self.outbox.wake()
            self.assertIsInstance(self.told[value], kind)
        self.producer.refuses = None
        self.post(b"z")
        self.outbox.wake()
        self.tell()
        self.assertEqual(2, self.offsets()[b"z"])

    def test_a_partition_that_it_has_not_heard_of(self) -> None:
        """Goes to the other outbox meanwhile."""
        self.producer.refuses = KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
        self.post(b"a", b"b", partition=2)
        self.outbox.wake()
        self.assertEqual([b"a", b"b"], self.plain.values())

    def test_the_epoch(self) -> None:
        """A timestamp of 0, which librdkafka takes for none, goes to the other outbox: behind what came before it, also where that is refused."""
        self.post(b"a")
        self.post(b"epoch", stamp=0)
        self.post(b"b")
        self.outbox.wake()
        self.assertEqual(([b"a"], []), (self.producer.values(), self.plain.values()))
        self.tell()
        self.assertEqual(([], [b"epoch", b"b"]), (self.producer.values(), self.plain.values()))
        self.plain.tell()
        self.post(b"c")
        self.post(b"epoch 2", stamp=0)
        self.outbox.wake()
        self.tell(KafkaError(KafkaError.INVALID_TIMESTAMP))
        self.assertEqual([b"c", b"epoch 2"], self.plain.values())

    def test_what_kafka_would_refuse(self) -> None:
        """A timestamp past what the topic takes, no key on a compacted topic: to the other outbox, which stores what is beside it."""
        ahead = int(time.time() * 1000) + 2 * 3_600_000
        self.post(b"ahead", stamp=ahead)
        self.post(b"a")
        self.outbox.wake()
        self.assertEqual(([], [b"ahead", b"a"]), (self.producer.values(), self.plain.values()))
        self.plain.tell()
        chart = self.map.charts[TOPIC]
        self.map.charts[TOPIC] = Chart(msgspec.structs.replace(chart.stored, cleanup="compact"), chart.id, chart.leaders)
        self.post(b"no key")
        self.outbox.wake()
        self.assertEqual(([], [b"no key"]), (self.producer.values(), self.plain.values()))

    def test_a_fatal_error(self) -> None:
        """The producer is replaced."""
        for raised in (True, False):
            self.renewed.clear()
            error = KafkaError(KafkaError._FATAL, "fatal", True)
            self.producer.refuses = KafkaException(error) if raised else None
            self.post(b"%d" % raised)
            self.outbox.wake()
            self.tell(error)
            self.assertTrue(self.renewed)
            self.assertIsInstance(self.told[b"%d" % raised], StorageUnavailable if raised else StorageTimeout)

    def test_deadlines(self) -> None:
        """Who waits behind others is unavailable; what librdkafka has is a timeout, told once; what it tells later changes nothing."""
        self.post(b"a", seconds=-1)
        self.outbox.wake()
        self.post(b"b")
        self.outbox.wake()
        self.post(b"c", seconds=-1)
        self.outbox._expire()
        self.assertEqual({b"a": StorageUnavailable, b"c": StorageUnavailable}, self.offsets())
        (lane,) = self.outbox.lanes.values()
        lane.wave[0].deadline = 0.0
        self.outbox._expire()
        self.outbox._expire()
        self.assertIs(StorageTimeout, self.offsets()[b"b"])
        self.post(b"d")
        self.tell()
        self.assertEqual([b"d"], self.producer.values())
        self.tell()
        self.assertEqual(1, self.offsets()[b"d"])
        self.assertEqual(0, self.outbox.queued_bytes)

    def test_a_full_buffer(self) -> None:
        """More than buffer_bytes is refused, though never the only one."""
        self.outbox.room(1 << 30)
        self.post(b"x" * 9_000)
        with self.assertRaises(StorageUnavailable):
            self.outbox.room(2_000)

    def test_idle_lanes_are_dropped(self) -> None:
        """Of topics that are gone."""
        self.post(b"a")
        self.outbox.wake()
        self.tell()
        self.outbox._expire()
        self.assertEqual(1, len(self.outbox.lanes))
        self.map.charts.clear()
        self.outbox._expire()
        self.assertEqual({}, self.outbox.lanes)

    def test_without_sequences_nothing_is_sent_twice(self) -> None:
        """acks 1 and 0: librdkafka has no retries. acks all: its idempotent protocol."""
        self.assertEqual((0, 0, True), (of_acks("1")["retries"], of_acks("0")["retries"], of_acks("all")["enable.idempotence"]))
