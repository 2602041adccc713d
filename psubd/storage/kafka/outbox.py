"""Publishing: records on their way to Kafka.

For each level of acks an `Outbox`; in it a `Lane` for each partition. While a broker works on a request, what comes in meanwhile gathers, and goes
as one request when the broker has answered: no timer is needed to make large batches under load, and none delays a lone record.

One batch of a partition is on its way at a time, so that order holds, also through retries. With ``acks: all`` batches carry a producer id and a
sequence (Kafka's idempotent protocol, KIP-98): one that had no answer is sent again as it is, and a broker that has it already says where. Once its
time is up nobody can tell whether it is stored; the lane goes on with another producer id then, since the broker's view of the sequence is unknown.
A batch that the broker refuses was not stored at all: the culprits that it names fail, the others are sent again without them. Where it names none,
the batch is halved until the culprit is alone.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, repeat
from typing import Any

import msgspec
from kafka import errors
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest

from psubd.errors import BadRecord, PsubdError, StorageTimeout, StorageUnavailable
from psubd.model import Acks, Position, Record
from psubd.storage.kafka.atlas import Atlas, Chart
from psubd.storage.kafka.faults import GONE, MAY_BE_STORED, REFUSED, RETRIABLE, WHILE_IT_WAITS, WRONG_IDENTITY, Lost, Unsent, maybe_stored, of_record
from psubd.storage.kafka.line import Line
from psubd.storage.kafka.records import NO_PRODUCER, pack
from psubd.storage.kafka.settings import KafkaSettings

Told = Callable[[Position | PsubdError], None]
ToldAll = Callable[[Sequence[int], Sequence[Position | PsubdError]], None]

WIRE_ACKS: dict[Acks, int] = {"0": 0, "1": 1, "all": -1}
REQUEST_BYTES = 8 * 1024 * 1024
"""Batches in one request, about; Kafka takes 100 MiB (socket.request.max.bytes)."""

RECORD_OVERHEAD = 64
LEAST_MS = 100
GRACE_MS = 300
"""A broker that waits for its replicas answers when our time is up; its answer needs a moment to come here."""

SWEEP_S = 0.25
PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Between the tries of one batch."""


class Entry:
    """One record on its way. ``told`` is called with what came of it, on the reactor's thread. ``deadline`` is one of `time.monotonic`.

    ``lane``, ``arrived`` and ``answered`` belong to `RdOutbox`.
    """

    __slots__ = ("answered", "arrived", "deadline", "lane", "record", "size", "told")
    count = 1
    lane: Any
    answered: bool
    arrived: list[tuple["Entry", Any, Any]]

    def __init__(self, record: Record, size: int, deadline: float, told: Callable[[Any], None]) -> None:
        self.record = record
        self.size = size
        self.deadline = deadline
        self.told = told

    def delivered(self, error: Any, message: Any) -> None:
        """librdkafka's callback."""
        self.arrived.append((self, error, message))


class Bundle(Entry):
    """Records of one call and of one partition, which go the way as one: what is done for each of them is little then. Cut where a batch has no room
    for all of them.

    :param numbers: which of the call's records they are. :param whole: called with some of these numbers and what came of each.
    """

    __slots__ = ("count", "numbers", "records", "whole")

    def __init__(self, records: Sequence[Record], numbers: Sequence[int], size: int, deadline: float, whole: ToldAll) -> None:
        super().__init__(records[0], size, deadline, partial(whole, numbers))
        self.records, self.numbers, self.whole, self.count = records, numbers, whole, len(records)
        self.lane = None

    def cut(self, count: int) -> "tuple[Bundle, Bundle]":
        """The first ``count`` records, less than all, and the others."""
        head = self._piece(0, count)
        rest = Bundle(self.records[count:], self.numbers[count:], self.size - head.size, self.deadline, self.whole)
        rest.lane = self.lane
        return head, rest

    def each(self) -> "list[Entry]":
        """Each record for itself."""
        return [self._piece(at, at + 1) for at in range(self.count)]

    def _piece(self, begin: int, end: int) -> "Bundle":
        records = self.records[begin:end]
        piece = Bundle(records, self.numbers[begin:end], sum(map(size_of, records)), self.deadline, self.whole)
        piece.lane = self.lane
        return piece


def records_of(entries: Iterable[Entry]) -> Iterator[Record]:
    """All records, in order."""
    for entry in entries:
        if isinstance(entry, Bundle):
            yield from entry.records
        else:
            yield entry.record


def take(queue: deque[Entry], count: int) -> list[Entry]:
    """Remove the first ``count`` records, which there are."""
    taken = []
    while count > 0:
        entry = queue.popleft()
        if isinstance(entry, Bundle) and entry.count > count:
            entry, rest = entry.cut(count)
            queue.appendleft(rest)
        taken.append(entry)
        count -= entry.count
    return taken


def one_by_one(entries: Sequence[Entry]) -> list[Entry]:
    """The same, each record for itself."""
    return [each for entry in entries for each in (entry.each() if isinstance(entry, Bundle) else [entry])]


def count_of(entries: Iterable[Entry]) -> int:
    """How many records."""
    return sum([entry.count for entry in entries])


class Settled:
    """Records that one answer of Kafka's, or the time, finished, for whom the outbox hands them to. Made on the line's thread; the records are told
    on the reactor's, where a position is made for each.

    :ivar error: what befell all of them; None: they are stored, the first at the offset ``base`` (-1: Kafka did not say).
    """

    __slots__ = ("base", "entries", "error", "partition", "timestamps", "topic")

    def __init__(
        self, entries: list[Entry], error: PsubdError | None, topic: str = "", partition: int = 0, base: int = -1, timestamps: Sequence[int] = ()
    ) -> None:
        self.entries, self.error, self.topic, self.partition, self.base, self.timestamps = entries, error, topic, partition, base, timestamps

    def results(self) -> Iterator[tuple[Entry, Any]]:
        """Each entry with what to tell: a position or an error, of a bundle a list of them."""
        if self.error is not None:
            for entry in self.entries:
                yield entry, [self.error] * entry.count if isinstance(entry, Bundle) else self.error
            return
        topic, partition, offset, step, at = self.topic, self.partition, self.base, 0 if self.base < 0 else 1, 0
        for entry in self.entries:
            if isinstance(entry, Bundle):
                offsets = range(offset, offset + entry.count) if step else repeat(offset)
                stamps = self.timestamps[at : at + entry.count]
                yield entry, list(map(Position, repeat(topic), repeat(partition), offsets, stamps))
            else:
                yield entry, Position(topic, partition, offset, self.timestamps[at])
            offset += step * entry.count
            at += entry.count


def size_of(record: Record) -> int:
    """Bytes that a record takes on its way, about."""
    return record.size + RECORD_OVERHEAD


class Identity(msgspec.Struct, frozen=True):
    """A producer id that Kafka gave. ``generation`` tells it from those before."""

    producer: int
    epoch: int
    generation: int


class Batch:
    """Records of one partition as they are sent, as many as ``timestamps``. ``maybe_stored``: a try had no answer, or one that leaves it open."""

    __slots__ = ("data", "deadline", "entries", "identity", "maybe_stored", "timestamps", "tries", "why")

    def __init__(self, entries: list[Entry], timestamps: list[int], data: bytes, identity: Identity | None) -> None:
        self.entries, self.timestamps, self.data, self.identity = entries, timestamps, data, identity
        self.deadline = min([entry.deadline for entry in entries])
        self.maybe_stored, self.tries = False, 0
        self.why: BaseException = Unsent("it waited for its turn")


class Lane:
    """One partition's records. ``batch``: what was sent last and is not done with (on its way, or to be sent again)."""

    __slots__ = ("batch", "cap", "cap_left", "identity", "least_generation", "not_before", "on_way", "partition", "queue", "sequence", "topic")

    def __init__(self, topic: str, partition: int, least_generation: int = 0) -> None:
        self.topic, self.partition = topic, partition
        self.queue: deque[Entry] = deque()
        self.batch: Batch | None = None
        self.on_way = False
        self.not_before = 0.0
        self.identity: Identity | None = None
        self.sequence, self.least_generation = 0, least_generation
        self.cap = self.cap_left = 0

    def narrow(self, count: int) -> None:
        """The next ``count`` records go in batches of half as many: one among them is refused, and which is not known."""
        self.cap, self.cap_left = max(1, count // 2), count

    def burn(self) -> None:
        """The broker's view of our sequence is unknown: go on as another producer."""
        if self.identity is not None:
            self.least_generation = self.identity.generation + 1
        self.identity, self.sequence = None, 0


class Outbox:
    """The records of one level of acks. All but `post`, `wake`, `queued_bytes` and the counters runs on the line's thread.

    :ivar urgent: something was posted for a broker that is idle: `wake` is due. What is posted for a broker that works on a request goes with its
        next one, and waking the line's thread for it would only have it look and wait.
    :param places: which of the line's connections it may use.
    :param finished: called on the line's thread with what an answer, or the time, finished: all of it at once, since a wake of the reactor's thread
        for each would have the two threads take turns.
    """

    def __init__(
        self, line: Line, places: range, acks: Acks, atlas: Atlas, settings: KafkaSettings, finished: Callable[[list[Settled]], None]
    ) -> None:
        self.line, self.places, self.acks, self.atlas, self.settings, self.finished = line, places, acks, atlas, settings, finished
        self.settled: list[Settled] = []
        self.lanes: dict[tuple[str, int], Lane] = {}
        self.ready: dict[Lane, None] = {}
        self.busy: set[tuple[int, int]] = set()
        self.inbox: deque[Entry] = deque()
        self.awake = self.urgent = False
        self.posted_bytes = self.settled_bytes = 0  # two, since each is changed on one thread only
        self.sent_batches = self.sent_records = self.failed_records = self.retries = 0
        self.idempotent = acks == "all"
        self.identity: Identity | None = None
        self.least_generation = 0
        self._asking_identity = False
        self._pump_at: float | None = None
        self._stopped = False

    @property
    def queued_bytes(self) -> int:
        """Of records that were accepted and are not answered."""
        return self.posted_bytes - self.settled_bytes

    # --- from the reactor's thread ---

    def room(self, size: int) -> None:
        """:raises StorageUnavailable: where too many wait already for ``size`` bytes more."""
        queued = self.posted_bytes - self.settled_bytes
        if queued and queued + size > self.settings.buffer_bytes:
            raise StorageUnavailable("too many messages wait for Kafka already")

    def post(self, entry: Entry, chart: Chart | None) -> None:
        """Accept a record whose partition is set and for which there is `room`; `wake` sends what was accepted on its way.

        :param chart: the topic's.
        """
        self.posted_bytes += entry.size
        self.inbox.append(entry)
        # The inbox first: a broker that is done meanwhile is taken from `busy` before the inbox is emptied.
        if not self.urgent and not self._is_busy(entry.record.topic, entry.record.partition or 0, chart):
            self.urgent = True

    def _is_busy(self, topic: str, partition: int, chart: Chart | None) -> bool:
        """Whether the partition's broker works on a request."""
        if chart is None or partition >= len(chart.leaders):
            return False
        return self._to(topic, partition, chart.leaders[partition]) in self.busy

    def wake(self) -> None:
        """What was accepted is to be sent now. Called once for all that a turn of the reactor brought: woken by the first record of many, the
        line's thread would send it alone, and the others would wait for its answer."""
        if self.urgent:
            self.urgent = False
            if not self.awake:
                self.awake = True
                self.line.net.call_soon_threadsafe(self._woken)

    # --- on the line's thread ---

    async def sweep(self) -> None:
        """Fail what waited too long, until stopped."""
        while not self._stopped:
            await self.line.net.sleep(SWEEP_S)
            self._collect()
            now = time.monotonic()
            for lane in list(self.lanes.values()):
                self._expire(lane, now)
                self._forget(lane)
            self.pump()

    async def flush(self, deadline: float) -> None:
        """Wait until all is sent; what is not by the deadline fails."""
        while (self.queued_bytes or self.inbox) and time.monotonic() < deadline:
            self.pump()
            await self.line.net.sleep(0.01)
        self.end()

    def end(self) -> None:
        """Fail what is left; also from another thread, once the line's has ended."""
        self._stopped = True
        self._collect()
        for lane in self.lanes.values():
            self._abandon(lane)
        self._hand_over()

    def _woken(self) -> None:
        self.awake = False  # before the inbox is emptied: who posts from here on wakes us again
        if self.settings.linger_ms:
            self._collect()
            self._pump_later(self.settings.linger_ms / 1000)
        else:
            self.pump()

    def _collect(self) -> None:
        """What was posted, into its lanes."""
        inbox, lanes, ready = self.inbox, self.lanes, self.ready
        while inbox:
            entry = inbox.popleft()
            record = entry.record
            place = record.topic, record.partition or 0
            lane = lanes.get(place) or self._lane(*place)
            lane.queue.append(entry)
            if not lane.on_way:
                ready[lane] = None

    def _to(self, topic: str, partition: int, leader: int) -> tuple[int, int]:
        """The connection, by place and broker, that the partition's records take."""
        return (self.places[0] if len(self.places) == 1 else self.places[hash((topic, partition)) % len(self.places)]), leader

    def _lane(self, topic: str, partition: int) -> Lane:
        lane = self.lanes.get((topic, partition))
        if lane is None:
            lane = self.lanes[topic, partition] = Lane(topic, partition, self.least_generation)
        return lane

    def pump(self) -> None:
        """Send what can be sent now: for each broker that is idle one request with all that waits for it."""
        self._collect()
        now, later = time.monotonic(), None
        loads: dict[tuple[int, int], list[Lane]] = {}
        for lane in list(self.ready):
            if lane.not_before > now:
                later = lane.not_before if later is None else min(later, lane.not_before)
                continue
            leader = self.atlas.leader(lane.topic, lane.partition)
            if leader is None:
                self._no_leader(lane, now)
                continue
            to = self._to(lane.topic, lane.partition, leader)
            if to not in self.busy:
                loads.setdefault(to, []).append(lane)
        for to, lanes in loads.items():
            self._load(to, lanes)
        if later is not None:
            self._pump_later(later - now)
        self._hand_over()

    def _load(self, to: tuple[int, int], lanes: list[Lane]) -> None:
        sending, size = [], 0
        for lane in lanes:
            if size >= REQUEST_BYTES:
                break
            batch = lane.batch or self._fill(lane)
            if batch is not None:
                size += len(batch.data)
                sending.append((lane, batch))
        for lane, _ in sending:
            lane.on_way = True
            self.ready.pop(lane, None)
        if sending:
            self.busy.add(to)
            self.line.spawn(self._send(to, sending))

    def _fill(self, lane: Lane) -> Batch | None:
        """A batch of what waits in the lane; None: nothing does, or it must wait for a producer id."""
        if not lane.queue:
            self.ready.pop(lane, None)
            return None
        if self.idempotent and lane.identity is None and not self._identify(lane):
            return None
        chart = self.atlas.charts.get(lane.topic)
        room = min(self.settings.batch_bytes, chart.stored.max_message_bytes) if chart else self.settings.batch_bytes
        identity = lane.identity
        producer = NO_PRODUCER if identity is None else (identity.producer, identity.epoch, lane.sequence)
        while lane.queue:
            waiting = records_of(lane.queue)
            packed = pack(islice(waiting, lane.cap) if lane.cap_left else waiting, self.settings.compression, room, producer)
            count = len(packed.timestamps)
            entries = take(lane.queue, count)
            if packed.unfit is not None:  # the others must not wait behind what cannot be written down
                why = BadRecord(f"the record cannot be put into Kafka's form: {type(packed.unfit).__name__}")
                self._settle(take(lane.queue, 1), why)
            if entries:
                lane.cap_left = max(0, lane.cap_left - count)
                lane.batch = Batch(entries, packed.timestamps, packed.data, identity)
                return lane.batch
        self.ready.pop(lane, None)
        return None

    async def _send(self, to: tuple[int, int], sending: list[tuple[Lane, Batch]]) -> None:
        try:
            answers = await self._request(to, sending)
        except Unsent as unsent:
            self.atlas.kick()
            self._again(sending, unsent, maybe=False)
        except Exception as lost:  # noqa: BLE001 - also what nobody foresaw: the records must be answered
            self.atlas.kick()
            self._again(sending, lost, maybe=not isinstance(lost, errors.KafkaError))
        else:
            for lane, batch in sending:
                self._answered(lane, batch, answers.get((lane.topic, lane.partition)))
        finally:
            self.busy.discard(to)
            for lane, _ in sending:
                lane.on_way = False
                if lane.batch is not None or lane.queue:
                    self.ready[lane] = None
            self.pump()

    async def _request(self, to: tuple[int, int], sending: list[tuple[Lane, Batch]]) -> dict[tuple[str, int], Any]:
        place, node = to
        deadline = min(batch.deadline for _, batch in sending)
        connection = await self.line.managers[place].connection(node, self._left_ms(deadline))
        timeout_ms = self._left_ms(deadline)
        self.sent_batches += len(sending)
        response = await self.line.over(connection, produce_request(WIRE_ACKS[self.acks], timeout_ms, sending), timeout_ms + GRACE_MS)
        if response is None:  # acks 0: there is no answer
            return {}
        return {(topic.name, answer.index): answer for topic in response.responses for answer in topic.partition_responses}

    def _left_ms(self, deadline: float) -> int:
        return int(max(LEAST_MS, min(self.settings.request_timeout_ms, (deadline - time.monotonic()) * 1000)))

    def _answered(self, lane: Lane, batch: Batch, answer: Any) -> None:
        if answer is None:
            if self.acks == "0":
                self._stored(lane, batch, -1, -1)
            else:
                self._again([(lane, batch)], Lost("the broker's answer leaves it out"), maybe=True)
            return
        error = errors.for_code(answer.error_code)
        if error is errors.NoError:
            self._stored(lane, batch, answer.base_offset, answer.log_append_time_ms)
        elif error is errors.DuplicateSequenceNumberError:
            lane.burn()
            self._fail(lane, batch, StorageTimeout("the message is stored, but Kafka no longer says where"))
        elif batch.maybe_stored and error in (*REFUSED, *WRONG_IDENTITY):
            self._fail(lane, batch, maybe_stored(error()))  # of this try; of the one before nobody can tell
        elif error in REFUSED:
            self._refused(lane, batch, error, answer)
        elif error in WRONG_IDENTITY:
            lane.burn()
            self._requeue(lane, batch, batch.entries)
        else:
            self._other(lane, batch, error)

    def _other(self, lane: Lane, batch: Batch, error: type[errors.KafkaError]) -> None:
        if error in GONE:
            self.atlas.kick()
            gone = lane.topic not in self.atlas.charts
        else:
            gone = False
        if issubclass(error, errors.InvalidMetadataError):
            self.atlas.kick()
        maybe = error in MAY_BE_STORED or (self.acks == "all" and error in WHILE_IT_WAITS)
        if self.idempotent and not batch.maybe_stored and issubclass(error, errors.ClusterAuthorizationFailedError):
            self.idempotent = False  # no right to idempotent writes: as brokers before 3.0 have it
            lane.burn()
            self._requeue(lane, batch, batch.entries)
        elif issubclass(error, RETRIABLE) and not gone:
            self._again([(lane, batch)], error(), maybe=maybe)
        else:
            batch.maybe_stored |= maybe
            self._fail(lane, batch, maybe_stored(error()) if batch.maybe_stored else of_record(error(), lane.topic))

    def _stored(self, lane: Lane, batch: Batch, base: int, append_time: int) -> None:
        self._advance(lane, batch)
        self.sent_records += len(batch.timestamps)
        timestamps = batch.timestamps if append_time < 0 else [append_time] * len(batch.timestamps)
        self._done(Settled(batch.entries, None, lane.topic, lane.partition, base, timestamps))

    def _advance(self, lane: Lane, batch: Batch) -> None:
        lane.batch, lane.not_before = None, 0.0
        if batch.identity is not None and batch.identity is lane.identity:
            lane.sequence = (lane.sequence + len(batch.timestamps)) & 0x7FFFFFFF

    def _again(self, sending: list[tuple[Lane, Batch]], why: BaseException, *, maybe: bool) -> None:
        """Try the batches once more, unless their time is up, or a second try might store them twice."""
        now = time.monotonic()
        for lane, batch in sending:
            batch.maybe_stored |= maybe
            batch.why = why
            if batch.deadline <= now or (batch.maybe_stored and batch.identity is None):
                self._give_up(lane, batch)
            else:
                self.retries += 1
                lane.not_before = now + PAUSES_S[min(batch.tries, len(PAUSES_S) - 1)]
                batch.tries += 1

    def _give_up(self, lane: Lane, batch: Batch) -> None:
        if batch.maybe_stored:
            self._fail(lane, batch, maybe_stored(batch.why))
            return
        now = time.monotonic()
        self._requeue(lane, batch, [entry for entry in batch.entries if entry.deadline > now])
        self._settle([entry for entry in batch.entries if entry.deadline <= now], of_record(batch.why, lane.topic))

    def _refused(self, lane: Lane, batch: Batch, error: type[errors.KafkaError], answer: Any) -> None:
        culprits = {each.batch_index: each.batch_index_error_message for each in answer.record_errors or ()}
        if not culprits and len(batch.timestamps) > 1:
            lane.narrow(len(batch.timestamps))
            self._requeue(lane, batch, batch.entries)
            return
        culprits = culprits or {0: answer.error_message}
        entries = one_by_one(batch.entries)
        self._requeue(lane, batch, [entry for number, entry in enumerate(entries) if number not in culprits])
        for number, message in culprits.items():
            self._settle([entries[number]], of_record(error(), lane.topic, message or answer.error_message))

    def _requeue(self, lane: Lane, batch: Batch, entries: list[Entry]) -> None:
        """Back to the front of the lane, to be put into other batches: the one that they were in was surely not stored."""
        lane.queue.extendleft(reversed(entries))
        lane.batch = None

    def _fail(self, lane: Lane, batch: Batch, error: PsubdError) -> None:
        lane.batch = None
        if batch.maybe_stored:
            lane.burn()  # the next batch with this sequence would be taken for a repetition of this one: answered, and not stored
        self._settle(batch.entries, error)

    def _settle(self, entries: list[Entry], error: PsubdError) -> None:
        if entries:
            self.failed_records += count_of(entries)
            self._done(Settled(entries, error))

    def _done(self, settled: Settled) -> None:
        self.settled_bytes += sum([entry.size for entry in settled.entries])
        self.settled.append(settled)

    def _hand_over(self) -> None:
        if self.settled:
            settled, self.settled = self.settled, []
            self.finished(settled)

    def _no_leader(self, lane: Lane, now: float) -> None:
        lane.not_before = now + PAUSES_S[2]
        chart = self.atlas.charts.get(lane.topic)
        gone = (chart is None or lane.partition >= len(chart.leaders)) and self.atlas.trouble is None
        if gone and (lane.batch is None or not lane.batch.maybe_stored):
            if lane.batch is not None:
                self._requeue(lane, lane.batch, lane.batch.entries)
            self._settle(list(lane.queue), of_record(errors.UnknownTopicOrPartitionError(), lane.topic))
            lane.queue.clear()
            self.ready.pop(lane, None)
        else:
            self.atlas.kick()
            self._pump_later(PAUSES_S[2])

    def _expire(self, lane: Lane, now: float) -> None:
        if lane.on_way:
            return
        if lane.batch is not None and lane.batch.deadline <= now:
            self._give_up(lane, lane.batch)
        late = 0
        while late < len(lane.queue) and lane.queue[late].deadline <= now:
            late += 1
        if late:
            self._settle([lane.queue.popleft() for _ in range(late)], of_record(self._why(), lane.topic))
        if not lane.queue and lane.batch is None:
            self.ready.pop(lane, None)

    def _forget(self, lane: Lane) -> None:
        """Drop an idle lane of a topic that nobody looks after any more, or that is gone.

        One that comes in its place begins a sequence anew, as another producer: under the same id a broker would take what it sends for a repetition.
        """
        if lane.on_way or lane.queue or lane.batch is not None or lane.topic in self.atlas.charts:
            return
        lane.burn()
        self.least_generation = max(self.least_generation, lane.least_generation)
        del self.lanes[lane.topic, lane.partition]
        self.ready.pop(lane, None)

    def _why(self) -> BaseException:
        return Unsent(self.atlas.trouble or "its broker was busy or away")

    def _abandon(self, lane: Lane) -> None:
        if lane.batch is not None:
            batch = lane.batch
            self._fail(lane, batch, maybe_stored(batch.why) if batch.maybe_stored or lane.on_way else of_record(batch.why, lane.topic))
        self._settle(list(lane.queue), of_record(Unsent("psubd stopped before it could be sent"), lane.topic))
        lane.queue.clear()

    def _pump_later(self, pause_s: float) -> None:
        at = time.monotonic() + max(0.0, pause_s)
        if self._pump_at is None or at < self._pump_at:
            self._pump_at = at
            self.line.net.call_at(at, self._pump_due)

    def _pump_due(self) -> None:
        self._pump_at = None
        self.pump()

    # --- producer ids ---

    def _identify(self, lane: Lane) -> bool:
        if self.identity is not None and self.identity.generation >= lane.least_generation:
            lane.identity, lane.sequence = self.identity, 0
            return True
        if not self._asking_identity:
            self._asking_identity = True
            self.line.spawn(self._ask_identity())
        return False

    async def _ask_identity(self) -> None:
        """A new producer id, for the lanes that need one that the brokers have not heard of."""
        generation = 0 if self.identity is None else self.identity.generation + 1
        try:
            response = await self.line.ask(identity_request(), place=self.places[0])
            error = errors.for_code(response.error_code)
            if error is errors.NoError:
                self.identity = Identity(response.producer_id, response.producer_epoch, generation)
            elif issubclass(error, errors.ClusterAuthorizationFailedError):
                self.idempotent = False
        except (Unsent, Lost, errors.KafkaError):
            pass
        finally:
            self._asking_identity = False
            self._pump_later(0.0 if self.identity is not None and self.identity.generation == generation else PAUSES_S[2])


def identity_request() -> InitProducerIdRequest:
    return InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000, producer_id=-1, producer_epoch=-1, max_version=5)


def produce_request(acks: int, timeout_ms: int, sending: list[tuple[Lane, Batch]]) -> ProduceRequest:
    """By name: version 13 goes by topic id, which a topic made again would turn into an error for what waits in its lane."""
    topics: dict[str, list[Any]] = {}
    data = ProduceRequest.TopicProduceData
    for lane, batch in sending:
        topics.setdefault(lane.topic, []).append(data.PartitionProduceData(index=lane.partition, records=batch.data))
    return ProduceRequest(
        transactional_id=None,
        acks=acks,
        timeout_ms=timeout_ms,
        topic_data=[data(name=name, partition_data=parts) for name, parts in topics.items()],
        min_version=3,
        max_version=12,
    )
