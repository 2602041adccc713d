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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from kafka import errors
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest

from psubd.errors import BadRecord, PsubdError, StorageTimeout, StorageUnavailable
from psubd.model import Acks, Position, Record
from psubd.storage.kafka.atlas import Atlas
from psubd.storage.kafka.faults import GONE, MAY_BE_STORED, REFUSED, RETRIABLE, WHILE_IT_WAITS, WRONG_IDENTITY, Lost, Unsent, maybe_stored, of_record
from psubd.storage.kafka.line import Line
from psubd.storage.kafka.records import NO_PRODUCER, BatchBuilder
from psubd.storage.kafka.settings import KafkaSettings

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


class Ticket:
    """One call of publish: its results in the order of its records. ``done`` is for whom the outbox hands finished tickets to."""

    __slots__ = ("deadline", "done", "left", "results")

    def __init__(self, count: int, deadline: float, done: Callable[["Ticket"], None]) -> None:
        self.results: list[Position | PsubdError | None] = [None] * count
        self.left, self.deadline, self.done = count, deadline, done

    def settle(self, number: int, result: Position | PsubdError) -> bool:
        """Whether it was the last one."""
        self.results[number] = result
        self.left -= 1
        return not self.left


class Entry(NamedTuple):
    """One record and whose it is."""

    ticket: Ticket
    number: int
    record: Record
    size: int


def size_of(record: Record) -> int:
    """Bytes that a record takes on its way, about."""
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.value or b"") + len(record.key or b"") + headers + RECORD_OVERHEAD


class Identity(msgspec.Struct, frozen=True):
    """A producer id that Kafka gave. ``generation`` tells it from those before."""

    producer: int
    epoch: int
    generation: int


class Batch:
    """Records of one partition as they are sent. ``maybe_stored``: a try had no answer, or one that leaves it open."""

    __slots__ = ("data", "deadline", "entries", "identity", "maybe_stored", "timestamps", "tries", "why")

    def __init__(self, entries: list[Entry], timestamps: list[int], data: bytes, identity: Identity | None) -> None:
        self.entries, self.timestamps, self.data, self.identity = entries, timestamps, data, identity
        self.deadline = min(entry.ticket.deadline for entry in entries)
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
    """The records of one level of acks. All but `post`, `queued_bytes` and the counters runs on the line's thread.

    :param places: which of the line's connections it may use.
    :param finished: called on the line's thread with the tickets that an answer, or the time, finished: all of them at once, since a wake of the
        reactor's thread for each would have the two threads take turns.
    """

    def __init__(
        self, line: Line, places: range, acks: Acks, atlas: Atlas, settings: KafkaSettings, finished: Callable[[list[Ticket]], None]
    ) -> None:
        self.line, self.places, self.acks, self.atlas, self.settings, self.finished = line, places, acks, atlas, settings, finished
        self.tickets: list[Ticket] = []
        self.lanes: dict[tuple[str, int], Lane] = {}
        self.ready: dict[Lane, None] = {}
        self.busy: set[tuple[int, int]] = set()
        self.inbox: deque[list[Entry]] = deque()
        self.awake = False
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

    def post(self, records: Sequence[Record], deadline: float, done: Callable[[Ticket], None]) -> None:
        """Accept records whose partition is set; `wake` sends them on their way. :raises StorageUnavailable: where too many wait already; none of
        them is accepted."""
        ticket = Ticket(len(records), deadline, done)
        entries = [Entry(ticket, number, record, size_of(record)) for number, record in enumerate(records)]
        size = sum(entry.size for entry in entries)
        if self.queued_bytes and self.queued_bytes + size > self.settings.buffer_bytes:
            raise StorageUnavailable("too many messages wait for Kafka already")
        self.posted_bytes += size
        self.inbox.append(entries)

    def wake(self) -> None:
        """What was accepted is to be sent now. Called once for all that a turn of the reactor brought: woken by the first record of many, the
        line's thread would send it alone, and the others would wait for its answer."""
        if not self.awake:
            self.awake = True
            self.line.net.call_soon_threadsafe(self._collect)

    # --- on the line's thread ---

    async def sweep(self) -> None:
        """Fail what waited too long, until stopped."""
        while not self._stopped:
            await self.line.net.sleep(SWEEP_S)
            now = time.monotonic()
            for lane in list(self.lanes.values()):
                self._expire(lane, now)
                self._forget(lane)
            self.pump()

    async def flush(self, deadline: float) -> None:
        """Wait until all is sent; what is not by the deadline fails."""
        while (self.queued_bytes or self.inbox) and time.monotonic() < deadline:
            await self.line.net.sleep(0.01)
        self._stopped = True
        for lane in self.lanes.values():
            self._abandon(lane)
        self._hand_over()

    def _collect(self) -> None:
        self.awake = False  # before the inbox is emptied: who posts from here on wakes us again
        while self.inbox:
            for entry in self.inbox.popleft():
                lane = self._lane(entry.record.topic, entry.record.partition or 0)
                lane.queue.append(entry)
                if not lane.on_way:
                    self.ready[lane] = None
        if self.settings.linger_ms:
            self._pump_later(self.settings.linger_ms / 1000)
        else:
            self.pump()

    def _lane(self, topic: str, partition: int) -> Lane:
        lane = self.lanes.get((topic, partition))
        if lane is None:
            lane = self.lanes[topic, partition] = Lane(topic, partition, self.least_generation)
        return lane

    def pump(self) -> None:
        """Send what can be sent now: for each broker that is idle one request with all that waits for it."""
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
            to = (self.places[hash((lane.topic, lane.partition)) % len(self.places)], leader)
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
        builder = BatchBuilder(self.settings.compression, room, producer)
        entries: list[Entry] = []
        timestamps: list[int] = []
        while lane.queue and (not lane.cap_left or len(entries) < lane.cap):
            try:
                timestamp = builder.add(lane.queue[0].record)
            except Exception as unfit:  # noqa: BLE001 - whatever the driver cannot write down: the others must not wait behind it
                self._settle(lane.queue.popleft(), BadRecord(f"the record cannot be put into Kafka's form: {type(unfit).__name__}"))
                if entries:
                    break
                builder = BatchBuilder(self.settings.compression, room, producer)
                continue
            if timestamp is None:
                break
            entries.append(lane.queue.popleft())
            timestamps.append(timestamp)
        if not entries:
            self.ready.pop(lane, None)
            return None
        if lane.cap_left:
            lane.cap_left = max(0, lane.cap_left - len(entries))
        lane.batch = Batch(entries, timestamps, builder.close(), identity)
        return lane.batch

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
        self.sent_records += len(batch.entries)
        for number, (entry, timestamp) in enumerate(zip(batch.entries, batch.timestamps, strict=True)):
            at = timestamp if append_time < 0 else append_time
            self._settle(entry, Position(lane.topic, lane.partition, -1 if base < 0 else base + number, at))

    def _advance(self, lane: Lane, batch: Batch) -> None:
        lane.batch, lane.not_before = None, 0.0
        if batch.identity is not None and batch.identity is lane.identity:
            lane.sequence = (lane.sequence + len(batch.entries)) & 0x7FFFFFFF

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
        self._requeue(lane, batch, [entry for entry in batch.entries if entry.ticket.deadline > now])
        for entry in batch.entries:
            if entry.ticket.deadline <= now:
                self._settle(entry, of_record(batch.why, lane.topic))

    def _refused(self, lane: Lane, batch: Batch, error: type[errors.KafkaError], answer: Any) -> None:
        culprits = {each.batch_index: each.batch_index_error_message for each in answer.record_errors or ()}
        if not culprits and len(batch.entries) > 1:
            lane.narrow(len(batch.entries))
            self._requeue(lane, batch, batch.entries)
            return
        culprits = culprits or {0: answer.error_message}
        self._requeue(lane, batch, [entry for number, entry in enumerate(batch.entries) if number not in culprits])
        for number, message in culprits.items():
            self._settle(batch.entries[number], of_record(error(), lane.topic, message or answer.error_message))

    def _requeue(self, lane: Lane, batch: Batch, entries: list[Entry]) -> None:
        """Back to the front of the lane, to be put into other batches: the one that they were in was surely not stored."""
        lane.queue.extendleft(reversed(entries))
        lane.batch = None

    def _fail(self, lane: Lane, batch: Batch, error: PsubdError) -> None:
        lane.batch = None
        if batch.maybe_stored:
            lane.burn()  # the next batch with this sequence would be taken for a repetition of this one: answered, and not stored
        for entry in batch.entries:
            self._settle(entry, error)

    def _settle(self, entry: Entry, result: Position | PsubdError) -> None:
        self.settled_bytes += entry.size
        if isinstance(result, PsubdError):
            self.failed_records += 1
        if entry.ticket.settle(entry.number, result):
            self.tickets.append(entry.ticket)

    def _hand_over(self) -> None:
        if self.tickets:
            tickets, self.tickets = self.tickets, []
            self.finished(tickets)

    def _no_leader(self, lane: Lane, now: float) -> None:
        lane.not_before = now + PAUSES_S[2]
        chart = self.atlas.charts.get(lane.topic)
        gone = (chart is None or lane.partition >= len(chart.leaders)) and self.atlas.trouble is None
        if gone and (lane.batch is None or not lane.batch.maybe_stored):
            if lane.batch is not None:
                self._requeue(lane, lane.batch, lane.batch.entries)
            while lane.queue:
                self._settle(lane.queue.popleft(), of_record(errors.UnknownTopicOrPartitionError(), lane.topic))
            self.ready.pop(lane, None)
        else:
            self.atlas.kick()
            self._pump_later(PAUSES_S[2])

    def _expire(self, lane: Lane, now: float) -> None:
        if lane.on_way:
            return
        if lane.batch is not None and lane.batch.deadline <= now:
            self._give_up(lane, lane.batch)
        while lane.queue and lane.queue[0].ticket.deadline <= now:
            self._settle(lane.queue.popleft(), of_record(self._why(), lane.topic))
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
        while lane.queue:
            self._settle(lane.queue.popleft(), of_record(Unsent("psubd stopped before it could be sent"), lane.topic))

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
