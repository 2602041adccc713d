"""Publishing through librdkafka.

As in `Outbox` what comes in while a broker works gathers, and is given to librdkafka together once it has told of all before. So batches are as large
as the load makes them, where librdkafka by itself would need to wait for others (``linger.ms``) with each, and what waits can be told that it was
surely not sent. With ``acks: all`` librdkafka stores no record twice.

It does less than `Outbox` in three points, and what they touch goes through an `Outbox`, which is always there beside it. So does what comes as a
batch (`Bundle`), with all that waits in the partition: for each record librdkafka is called, and calls, where the `Outbox` writes many as one.

- where a broker refuses a batch, librdkafka fails all of its records, and does not say which was the culprit. They are handed to the `Outbox`, which
  finds it and stores the others;
- it makes batches without regard to what a topic takes. A topic that takes less than a batch (``max.message.bytes``) is served by the `Outbox`;
- a record that timed out may have been sent or not, and nobody can tell. While Kafka is away as a whole, records wait in the `Outbox`, which can.

A partition changes from one to the other only once all is answered that it has in the first, so that its order holds. But librdkafka may make several
batches of what it is given together: where a broker refuses one of them for a reason that nobody could foresee (a limit that was lowered within the
last 30 s, say), those behind it are stored before its innocent records. What can be foreseen goes to the `Outbox` before.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from kafka import errors

from psubd.errors import BadRecord, PsubdError, StorageTimeout, StorageUnavailable, TopicMissing
from psubd.model import Acks
from psubd.storage.kafka.atlas import NO_LEADER, Atlas, Chart
from psubd.storage.kafka.faults import GONE, REFUSED, of_record
from psubd.storage.kafka.outbox import WIRE_ACKS, Entry, Outbox, Settled, count_of
from psubd.storage.kafka.settings import RdKafkaSettings

DRIVER = "librdkafka"
"""Its logger."""

FEW = 40
"""So many records of a partition go by a producer that sends at once, more by one that lingers. At once librdkafka makes several batches of them
while they are still being given to it: 57 us of processor each where the lingering one took 37, at 128 outstanding beside a busy reactor. But any
``linger.ms``, however short, takes 1.2 ms: a lone record took 1.6 ms instead of 0.35, and 32 outstanding went at half the rate."""

POLL_S = 0.2
"""How soon the thread sees that it shall end. What librdkafka has to tell wakes it at once."""

PURGED_S = 2.0
"""For what librdkafka was told to give up to be reported."""

SWEEP_S = 0.25
BATCH_OVERHEAD = 200
LOG_APPEND_TIME = 2

Arrived = list[tuple[Entry, Any, Any]]
"""Records with librdkafka's error, or None, and its message."""


class Hand:
    """One of librdkafka's producers, and what it told."""

    def __init__(self, producer: Any) -> None:
        self.producer = producer
        self.arrived: Arrived = []


class RdLane:
    """One partition. ``queue``: what waits; ``wave``: what librdkafka was given together, of which ``out`` are not told of; ``leader``: the broker
    that it went to; ``back``: what of it was refused; ``isolate``: the queue begins with what librdkafka cannot store. ``plain``: records that the
    `Outbox` has; ``bundles``: how many are in the queue."""

    __slots__ = ("back", "bundles", "isolate", "leader", "out", "partition", "plain", "queue", "topic", "wave")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic, self.partition = topic, partition
        self.queue: deque[Entry] = deque()
        self.wave: list[Entry] = []
        self.back: list[Entry] = []
        self.out = self.plain = self.bundles = 0
        self.leader = NO_LEADER
        self.isolate = False


class RdOutbox:
    """The records of one level of acks, as `Outbox` (whose names it has). All but `start`, `sweep`, `flush` and `end` runs on the reactor's thread.

    :param plain: makes the `Outbox` beside it. :param hand_over: from any thread: have a call made on the reactor's.
    :param finished: called on the reactor's thread with what is answered.
    """

    def __init__(
        self,
        acks: Acks,
        options: dict[str, Any],
        atlas: Atlas,
        settings: RdKafkaSettings,
        plain: Callable[[Callable[[list[Settled]], None]], Outbox],
        hand_over: Callable[..., None],
        finished: Callable[[list[Settled]], None],
    ) -> None:
        self.acks, self.atlas, self.settings, self.hand_over, self.finished = acks, atlas, settings, hand_over, finished
        self.plain = plain(lambda settled: hand_over(self._plain_finished, settled))
        self.options = {**options, **of_acks(acks)}
        self.lanes: dict[tuple[str, int], RdLane] = {}
        self.due: dict[RdLane, None] = {}
        self.busy: dict[int, int] = {}
        """Records that each broker has."""
        self.least_room = settings.batch_bytes + BATCH_OVERHEAD
        self.posted_bytes = self.settled_bytes = 0
        self._sent = self._failed = self._again = 0
        self._hands: list[Hand] = []
        self._threads: list[threading.Thread] = []
        self._stopped = self._ended = False

    # --- what is counted ---

    @property
    def queued_bytes(self) -> int:
        return self.posted_bytes - self.settled_bytes

    @property
    def idempotent(self) -> bool:
        return self.acks == "all"

    @property
    def sent_batches(self) -> int:
        """Of the `Outbox`; librdkafka does not say how many it made."""
        return self.plain.sent_batches

    @property
    def sent_records(self) -> int:
        return self._sent + self.plain.sent_records

    @property
    def failed_records(self) -> int:
        return self._failed + self.plain.failed_records

    @property
    def retries(self) -> int:
        """Of the `Outbox`, and the records that went to it after a refusal."""
        return self._again + self.plain.retries

    # --- on the reactor's thread ---

    def room(self, size: int) -> None:
        """:raises StorageUnavailable: where too many wait already for ``size`` bytes more."""
        queued = self.posted_bytes - self.settled_bytes
        if queued and queued + size > self.settings.buffer_bytes:
            raise StorageUnavailable("too many messages wait for Kafka already")

    def post(self, entry: Entry, chart: Chart | None) -> None:
        """Accept a record whose partition is set and for which there is `room`; `wake` sends what was accepted on its way."""
        record = entry.record
        place = record.topic, record.partition or 0
        lane = self.lanes.get(place)
        if lane is None:
            lane = self.lanes[place] = RdLane(*place)
        entry.lane = lane
        lane.queue.append(entry)
        if entry.count > 1:
            lane.bundles += 1
        self.due[lane] = None
        self.posted_bytes += entry.size

    def wake(self) -> None:
        """What was accepted is to be sent now, as far as its brokers are idle."""
        settled: list[Settled] = []
        now, taken = time.monotonic(), set()
        for lane in list(self.due):
            if lane.out:
                del self.due[lane]  # it comes back once librdkafka has told of the wave
                continue
            chart = self.atlas.charts.get(lane.topic)
            if chart is None or lane.isolate or lane.bundles or self._is_for_plain(chart):
                del self.due[lane]
                self._divert(lane)
                continue
            leader = chart.leaders[lane.partition] if lane.partition < len(chart.leaders) else NO_LEADER
            if not lane.plain and (leader in taken or not self.busy.get(leader)):
                taken.add(leader)
                self._send(lane, chart, leader, now, settled)
        self.plain.wake()
        self._settle(settled)

    def _is_for_plain(self, chart: Chart) -> bool:
        return chart.stored.max_message_bytes < self.least_room or self.atlas.trouble is not None

    def _divert(self, lane: RdLane) -> None:
        """What waits goes to the `Outbox`."""
        chart, lane.isolate, lane.bundles = self.atlas.charts.get(lane.topic), False, 0
        if not lane.queue:
            return
        if self._stopped:
            self._settle([Settled(list(lane.queue), StorageUnavailable("psubd stopped before the record could be sent"))])
        else:
            lane.plain += count_of(lane.queue)
            for entry in lane.queue:
                self.plain.post(entry, chart)
        lane.queue.clear()

    def _send(self, lane: RdLane, chart: Chart, leader: int, now: float, settled: list[Settled]) -> None:
        """Give librdkafka a wave: one batch, as much as that takes."""
        wave: list[Entry] = []
        lane.wave, lane.leader, size = wave, leader, 0
        hand = self._hands[len(lane.queue) > FEW]
        produce, arrived, queue, topic, partition = hand.producer.produce, hand.arrived, lane.queue, lane.topic, lane.partition
        latest, keyed = time.time_ns() // 1_000_000 + chart.stored.timestamp_ahead_ms, chart.stored.cleanup == "compact"
        while queue and size < self.settings.batch_bytes:
            entry = queue.popleft()
            record = entry.record
            if entry.deadline <= now:
                settled.append(Settled([entry], StorageUnavailable("Kafka cannot take the record now: its broker was busy or away")))
                continue
            entry.arrived, entry.answered = arrived, False
            timestamp = record.timestamp
            if timestamp == 0 or (timestamp is not None and timestamp > latest) or (keyed and record.key is None):
                lane.isolate = True  # librdkafka takes a timestamp of 0 for none, and Kafka would refuse the others
                queue.appendleft(entry)
                break
            try:
                if record.headers:
                    produce(topic, record.value, record.key, partition, entry.delivered, None, timestamp or 0, list(record.headers))
                else:
                    produce(topic, record.value, record.key, partition, entry.delivered, None, timestamp or 0)
            except Exception as refused:  # noqa: BLE001 - whatever the driver cannot write down
                if self._is_behind(lane, refused):
                    lane.isolate = True
                    queue.appendleft(entry)
                    break
                settled.append(Settled([entry], self._not_taken(entry, refused)))
                continue
            wave.append(entry)
            size += entry.size
        lane.out = len(wave)
        if wave:
            self.busy[leader] = self.busy.get(leader, 0) + len(wave)
        if not queue or wave:
            self.due.pop(lane, None)
        if lane.isolate and not wave:
            self._divert(lane)

    def _is_behind(self, lane: RdLane, refused: Any) -> bool:
        """Whether librdkafka has not heard yet of a topic or partition that is there."""
        if not isinstance(refused, self._error):
            refused = refused.args[0] if isinstance(refused, self._refusal) else None
        chart = self.atlas.charts.get(lane.topic)
        return refused is not None and refused.code() in self._codes["gone"] and chart is not None and lane.partition < len(chart.leaders)

    def _not_taken(self, entry: Entry, refused: Exception) -> PsubdError:
        """librdkafka did not take it: surely not stored."""
        if isinstance(refused, BufferError):
            return StorageUnavailable("too many messages wait for Kafka already")
        if not isinstance(refused, self._refusal):
            return BadRecord(f"the record cannot be put into Kafka's form: {type(refused).__name__}")
        error = refused.args[0]
        self._renew_after(entry, error)
        return self._told(entry, error, sent=False)

    def _came(self, arrived: Arrived) -> None:
        """What librdkafka told."""
        settled: list[Settled] = []
        entries: list[Entry] = []
        timestamps: list[int] = []
        run, next_offset = None, -1
        back: list[RdLane] = []
        for entry, error, message in arrived:
            lane = entry.lane
            lane.out -= 1
            self.busy[lane.leader] -= 1
            if not lane.out:
                back.append(lane)
            if entry.answered:
                continue  # its time was up before
            entry.answered = True
            if error is not None:
                self._went_wrong(lane, entry, error, settled)
                continue
            offset = message.offset()
            offset = -1 if offset is None else offset  # acks 0
            if lane is not run or offset != next_offset:
                entries, timestamps, run = [], [], lane
                settled.append(Settled(entries, None, lane.topic, lane.partition, offset, timestamps))
                stamped = message.timestamp()[0] == LOG_APPEND_TIME
            entries.append(entry)
            timestamps.append(message.timestamp()[1] if stamped else entry.record.timestamp or message.timestamp()[1])
            next_offset = offset if offset < 0 else offset + 1
        for lane in back:
            self._is_back(lane)
        self.wake()  # before anybody is told: the brokers work meanwhile
        self._settle(settled)

    def _is_back(self, lane: RdLane) -> None:
        """All of the lane's wave is told of."""
        lane.wave = []
        if lane.back:  # what was refused goes before what came later
            lane.queue.extendleft(reversed(lane.back))
            lane.back, lane.isolate = [], True
        if lane.queue:
            self.due[lane] = None

    def _went_wrong(self, lane: RdLane, entry: Entry, error: Any, settled: list[Settled]) -> None:
        code = error.code()
        self._renew_after(entry, error)
        if (self._is_behind(lane, error) or (code > 0 and errors.for_code(code) in REFUSED)) and not self._stopped:
            self._again += 1
            lane.back.append(entry)
        else:
            settled.append(Settled([entry], self._told(entry, error, sent=True)))

    def _settle(self, settled: list[Settled]) -> None:
        for each in settled:
            self.settled_bytes += sum([entry.size for entry in each.entries])
            if each.error is None:
                self._sent += count_of(each.entries)
            else:
                self._failed += count_of(each.entries)
        if settled:
            self.finished(settled)

    def _plain_finished(self, settled: list[Settled]) -> None:
        for each in settled:
            for entry in each.entries:
                lane = entry.lane
                lane.plain -= entry.count
                self.settled_bytes += entry.size
                if not lane.plain and lane.queue:
                    self.due[lane] = None
        if self.due:
            self.wake()
        self.finished(settled)

    def _told(self, entry: Entry, error: Any, *, sent: bool) -> PsubdError:
        """What to say of a record that librdkafka failed."""
        code, topic = error.code(), entry.record.topic
        known = errors.for_code(code) if code > 0 else None
        if code in self._codes["gone"] or known in GONE or topic not in self.atlas.charts:
            return TopicMissing(f"topic {topic!r} or its partition {entry.record.partition or 0} is gone from Kafka")
        if known is not None and (known in REFUSED or issubclass(known, errors.AuthorizationError)):
            return of_record(known(), topic)
        if not sent or code in self._codes["unsent"]:
            return StorageUnavailable(f"Kafka cannot take the record now: {error.name()}")
        return StorageTimeout(f"Kafka did not answer in time ({error.name()}): the message may be stored or not")

    def _expire(self) -> None:
        """Answer whose time is up, and drop idle partitions of topics that nobody looks after any more."""
        now = time.monotonic()
        settled: list[Settled] = []
        for place, lane in list(self.lanes.items()):
            while lane.queue and lane.queue[0].deadline <= now:
                late = lane.queue.popleft()
                lane.bundles -= late.count > 1
                settled.append(Settled([late], StorageUnavailable("Kafka cannot take the record now: its broker was busy or away")))
            if lane.wave and lane.wave[0].deadline <= now:
                unheard = [entry for entry in lane.wave if not entry.answered and entry.deadline <= now]
                for entry in unheard:
                    entry.answered = True
                if unheard:
                    settled.append(Settled(unheard, StorageTimeout("Kafka did not answer in time: the message may be stored or not")))
            if not (lane.out or lane.plain or lane.queue) and place[0] not in self.atlas.charts:
                self.due.pop(lane, None)
                del self.lanes[place]
        self.wake()
        self._settle(settled)

    # --- life ---

    def start(self) -> None:
        """From any thread, once, before anything is posted. :raises Exception: what librdkafka does not like of the options."""
        from confluent_kafka import KafkaError, KafkaException

        self._refusal, self._error = KafkaException, KafkaError
        self._codes: dict[str, Any] = {
            "fatal": KafkaError._FATAL,
            "gone": {KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION},
            "unsent": {KafkaError._QUEUE_FULL, KafkaError._INVALID_ARG},
        }
        self._renew()

    def _renew_after(self, entry: Entry, error: Any) -> None:
        """Once for all that an error took along."""
        fatal = error.fatal() or error.code() == self._codes["fatal"]
        if fatal and any(hand.arrived is entry.arrived for hand in self._hands):
            self._renew()

    def _renew(self) -> None:
        """Other producers; what those before have is still told by their threads. librdkafka's are of no use after an error that it calls fatal."""
        if self._stopped:
            return
        from confluent_kafka import Producer

        logger = logging.getLogger(DRIVER)
        options = [{**self.options, "linger.ms": 0}, self.options]
        self._hands = [Hand(Producer(each, logger=logger)) for each in options]
        self._threads = [each for each in self._threads if each.is_alive()]
        for number, hand in enumerate(self._hands):
            name = f"{self.settings.client_id}-librdkafka-{self.acks}-{number}"
            self._threads.append(threading.Thread(target=self._listen, args=(hand,), name=name, daemon=True))
            self._threads[-1].start()

    def _listen(self, hand: "Hand") -> None:
        """A thread: what librdkafka tells, which it does only while it is asked, goes to the reactor's thread in one piece."""
        producer, arrived = hand.producer, hand.arrived
        while not self._ended and (hand in self._hands or len(producer)):
            producer.poll(POLL_S)
            if arrived:
                told = arrived[:]
                arrived.clear()
                self.hand_over(self._came, told)

    async def sweep(self) -> None:
        """On the `Outbox`'s line, until stopped."""
        line = self.plain.line
        line.spawn(self.plain.sweep())
        while not self._stopped:
            await line.net.sleep(SWEEP_S)
            self.hand_over(self._expire)

    async def flush(self, deadline: float) -> None:
        """On the `Outbox`'s line: wait until all is answered; what is not by the deadline fails."""
        net = self.plain.line.net
        while self.queued_bytes and time.monotonic() < deadline:
            self.plain.pump()
            await net.sleep(0.01)
        self._stopped = True
        self.plain.end()
        for hand in self._hands:
            hand.producer.purge(blocking=False)
        self.hand_over(self._abandon)
        patience = time.monotonic() + PURGED_S
        while self.queued_bytes and time.monotonic() < patience:
            await net.sleep(0.01)

    def _abandon(self) -> None:
        """What was not given to librdkafka is not stored."""
        for lane in self.lanes.values():
            self._divert(lane)

    def end(self) -> None:
        """From any thread, once the line's has ended."""
        self._stopped = self._ended = True
        for thread in self._threads:
            thread.join()
        self._hands = []
        self.plain.end()


def of_acks(acks: Acks) -> dict[str, Any]:
    """What a level of acks asks of librdkafka. Without its idempotent protocol a second try might store a record twice, or behind a later one."""
    if acks == "all":
        return {"acks": "all", "enable.idempotence": True}
    return {"acks": WIRE_ACKS[acks], "enable.idempotence": False, "retries": 0}
