"""What psubd's storages give alone, with no HTTP: floors that are no server. Each runs as a process of its own and prints one sample as JSON.

    python -m bench.drivers batches|roundtrip|keyed|consume|fill kafka-python|confluent|sqlite --seconds 2 [--kafka HOST:PORT --topic T]

- batches: 16 batches of 100 records of 100 bytes on their way at a time, each followed by another one as soon as it is stored, which is what 16
  connections do; where each record was stored is taken from the driver, as an answer needs it. Counted in records.
- roundtrip: one record of 100 bytes after another.
- keyed: 128 records of 100 bytes with keys on their way at a time, each with the next key.
- consume: the topic's first partition from its beginning, up to 1,000 records at a time, each with all that psubd's answer has of it.
  Counted in records.
- fill: so many records into the topic's first partition, for what reads.
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from bench.samples import Sample
from psubd.daemon import SWITCH_INTERVAL_S
from psubd.model import Record, TopicSpec
from psubd.services.clock import SystemClock
from psubd.storage.sqlite import SqliteStorage

SLOTS, SIZE, BATCH = 16, 100, 100
"""Batches at a time, their records, bytes of a record."""

LONE = 128
"""Records at a time where each is alone."""

PAYLOAD = b"x" * BATCH

TOPIC = "t"
SQLITE_FILL = 200_000
"""Records that are read where `consume` reads SQLite."""


class Course:
    """A run that lasts so many seconds: what was done, and how long each took."""

    def __init__(self, seconds: float) -> None:
        self.took: list[float] = []
        self.done = 0
        self._begun = self._last = time.perf_counter()
        self._until = self._begun + seconds
        self._cpu = cpu_s()

    @property
    def over(self) -> bool:
        return time.perf_counter() >= self._until

    def ended(self, begun: float, count: int = 1) -> None:
        """``count`` more are done, which were begun at that moment (`time.perf_counter`)."""
        self._last = time.perf_counter()
        self.took.append(self._last - begun)
        self.done += count

    def sample(self) -> Sample:
        took = sorted(self.took)
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rate = self.done / (self._last - self._begun)
        return Sample(rate, at(took, 0.5) * 1e6, at(took, 0.99) * 1e6, (cpu_s() - self._cpu) / self.done * 1e6, rss)


def at(ordered: list[float], share: float) -> float:
    """That quantile of what is in order."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# --- kafka-python ---------------------------------------------------------------------------------------------------------------


def kafka_python_producer(kafka: str, topic: str) -> Any:
    """Set as it is fastest: no timer, large batches."""
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=kafka, acks="all", linger_ms=0, batch_size=512 * 1024)
    producer.partitions_for(topic)
    return producer


def kafka_python_flow(kafka: str, topic: str, seconds: float, slots: int, size: int, keyed: bool = False) -> Sample:
    """So many batches on their way; the oldest is waited for. It is the first to be done, where there is one partition."""
    producer = kafka_python_producer(kafka, topic)
    on_their_way: deque[tuple[float, list[Any]]] = deque()
    number = 0

    def begin() -> None:
        nonlocal number
        begun, sent = time.perf_counter(), []
        for _ in range(size):
            number += 1
            sent.append(producer.send(topic, PAYLOAD, b"k%d" % number if keyed else None))
        on_their_way.append((begun, sent))

    def end(course: Course) -> None:
        begun, sent = on_their_way.popleft()
        places = [(meta.partition, meta.offset) for meta in (one.get(timeout=30) for one in sent)]
        course.ended(begun, len(places))

    begin()
    end(Course(1))  # the connections stand
    course = Course(seconds)
    for _ in range(slots):
        begin()
    while not course.over:
        end(course)
        begin()
    sample = course.sample()
    producer.close(timeout=5)
    return sample


def kafka_python_consume(kafka: str, topic: str, seconds: float) -> Sample:
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=kafka, group_id=None, enable_auto_commit=False, max_poll_records=1000)
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    consumer.seek_to_beginning()

    def take() -> int:
        return sum(map(len, consumer.poll(timeout_ms=500).values()))

    return consumed(seconds, take, consumer.end_offsets([place])[place] - consumer.beginning_offsets([place])[place])


# --- confluent-kafka ------------------------------------------------------------------------------------------------------------


def confluent_flow(kafka: str, topic: str, seconds: float, slots: int, size: int, keyed: bool = False, linger_ms: int = 1) -> Sample:
    from confluent_kafka import Producer

    settings = {"bootstrap.servers": kafka, "acks": "all", "linger.ms": linger_ms, "partitioner": "murmur2_random"}
    producer = Producer(settings)
    course = Course(seconds)
    number = free = 0

    def begin() -> None:
        nonlocal number
        begun = time.perf_counter()
        places: list[tuple[int, int]] = []

        def delivered(error: Any, message: Any) -> None:
            nonlocal free
            if error is not None:
                raise SystemExit(f"confluent-kafka: {error}")
            places.append((message.partition(), message.offset()))
            if len(places) == size:
                course.ended(begun, size)
                free += 1

        for _ in range(size):
            number += 1
            producer.produce(topic, PAYLOAD, b"k%d" % number if keyed else None, on_delivery=delivered)

    begin()
    producer.flush(30)  # the connections stand
    course, free = Course(seconds), 0
    for _ in range(slots):
        begin()
    while not course.over:
        producer.poll(0.05)
        while free:
            free -= 1
            begin()
    sample = course.sample()
    producer.flush(5)
    return sample


def confluent_consume(kafka: str, topic: str, seconds: float) -> Sample:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    settings = {"bootstrap.servers": kafka, "group.id": "bench-floor", "enable.auto.commit": False}
    consumer = Consumer({**settings, "fetch.queue.backoff.ms": 5})  # its default of a second lets a quick reader wait
    place = TopicPartition(topic, 0, OFFSET_BEGINNING)
    consumer.assign([place])
    first, end = consumer.get_watermark_offsets(place, timeout=30)

    def take() -> int:
        return len([seen(message) for message in consumer.consume(1000, 0.5) if message.error() is None])

    return consumed(seconds, take, end - first)


def seen(message: Any) -> tuple[Any, ...]:
    """What an answer of psubd holds of each message: kafka-python makes all of it by itself, confluent-kafka where it is asked for."""
    return message.offset(), message.timestamp(), message.key(), message.value(), message.headers()


def consumed(seconds: float, take: Callable[[], int], size: int) -> Sample:
    """Take until the time is up, or the last of so many records is near, where a driver would wait for more. Counted from the first records on."""
    until, left = time.perf_counter() + 30, size
    while not (taken := take()):
        if time.perf_counter() > until:
            raise SystemExit("the topic is empty")
    course = Course(seconds)
    while not course.over and (left := left - taken) > 1000:
        begun = time.perf_counter()
        taken = take()
        course.ended(begun, taken)
    return course.sample()


def confluent_fill(kafka: str, topic: str, count: int) -> Sample:
    """So many records into its first partition."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": kafka, "acks": "all", "linger.ms": 5})
    course = Course(0)
    for _ in range(count):
        while True:
            try:
                producer.produce(topic, PAYLOAD, partition=0)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(60):
        raise SystemExit("not all was stored")
    course.ended(time.perf_counter(), count)
    return course.sample()


# --- SqliteStorage --------------------------------------------------------------------------------------------------------------


async def sqlite_flow(storage: Any, seconds: float, slots: int, size: int, partitions: int) -> Sample:
    """So many batches on their way, each slot's next one as soon as its last is stored."""
    now = int(time.time() * 1000)
    batches = [[Record(TOPIC, PAYLOAD, partition=partition, timestamp=now)] * size for partition in range(partitions)]
    course = Course(seconds)

    async def slot() -> None:
        while not course.over:
            begun = time.perf_counter()
            await storage.publish(batches[course.done // size % partitions], "all")
            course.ended(begun, size)

    await gatherResults([Deferred.fromCoroutine(slot()) for _ in range(slots)])
    return course.sample()


async def sqlite_consume(storage: Any, seconds: float) -> Sample:
    records = [Record(TOPIC, PAYLOAD, partition=0, timestamp=int(time.time() * 1000)) for _ in range(1000)]
    for _ in range(SQLITE_FILL // len(records)):
        await storage.publish(records, "all")
    course, place = Course(seconds), 0
    while not course.over:
        begun = time.perf_counter()
        found = await storage.read(TOPIC, 0, place, 1000, 8 * 1024 * 1024)
        if found.messages:
            course.ended(begun, len(found.messages))
        place = found.next_offset if found.next_offset < found.end else 0
    return course.sample()


async def on_sqlite(reactor: Any, what: str, seconds: float, folder: str | None, partitions: int) -> Sample:
    """On a fresh database with one topic, gone at the end."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    state = tempfile.mkdtemp(prefix="sqlite-", dir=folder)
    storage = SqliteStorage(f"{state}/bench.db", SystemClock(reactor), reactor, {}, CollectorRegistry())
    try:
        await storage.start()
        await storage.create_topic(TopicSpec(TOPIC, partitions))
        if what == "consume":
            return await sqlite_consume(storage, seconds)
        return await sqlite_flow(storage, seconds, *FLOWS[what], partitions)
    finally:
        await storage.stop()
        shutil.rmtree(state, ignore_errors=True)


# --- the command ----------------------------------------------------------------------------------------------------------------

FLOWS = {"batches": (SLOTS, BATCH), "roundtrip": (1, 1), "keyed": (LONE, 1)}
"""At a time, and the records of each."""


def measured(what: str, driver: str, seconds: float, kafka: str, topic: str, count: int = 0) -> Sample:
    if what == "fill":
        return confluent_fill(kafka, topic, count)
    if what == "consume":
        return {"kafka-python": kafka_python_consume, "confluent": confluent_consume}[driver](kafka, topic, seconds)
    slots, size = FLOWS[what]
    if driver == "kafka-python":
        return kafka_python_flow(kafka, topic, seconds, slots, size, what == "keyed")
    return confluent_flow(kafka, topic, seconds, slots, size, what == "keyed", linger_ms=0 if what == "roundtrip" else 1)


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m bench.drivers", description=(__doc__ or "").splitlines()[0])
    options.add_argument("what", choices=[*FLOWS, "consume", "fill"])
    options.add_argument("driver", choices=["kafka-python", "confluent", "sqlite"])
    options.add_argument("--kafka", default="127.0.0.1:9092")
    options.add_argument("--topic", default="floor")
    options.add_argument("--seconds", type=float, default=2.0)
    options.add_argument("--partitions", type=int, default=1, help="of the topic in SQLite")
    options.add_argument("--count", type=int, default=0, help="records to fill a topic with")
    options.add_argument("--folder", help="where a database may be made")
    args = options.parse_args()

    def say(sample: Sample) -> None:
        print(json.dumps(sample._asdict()), flush=True)

    if args.driver == "sqlite":
        react(lambda reactor: Deferred.fromCoroutine(on_sqlite(reactor, args.what, args.seconds, args.folder, args.partitions)).addCallback(say))
    else:
        say(measured(args.what, args.driver, args.seconds, args.kafka, args.topic, args.count))


if __name__ == "__main__":
    main()
