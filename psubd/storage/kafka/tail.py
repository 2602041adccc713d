"""Waiting at the ends of partitions for what comes.

One fetch request for each broker stays open there (a long poll of at most `MAIN_WAIT_MS`) with all the partitions that somebody waits on; it is
answered as soon as any of them has something new. A partition is never sought: each answer's place is where its next fetch goes on. A fetch session
(KIP-227) keeps both ways short: only what changed is named.

An open fetch cannot be joined. So a partition that somebody begins to wait on starts on a second connection, where fetches stay open for
`JOIN_WAIT_MS` only, and moves over when the first one's fetch has been answered: what is published in between is not late.
"""

import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from kafka import errors
from kafka.future import Future

from psubd.storage.kafka.atlas import Atlas
from psubd.storage.kafka.faults import GONE, Lost, Unsent
from psubd.storage.kafka.line import Line
from psubd.storage.kafka.reads import EARLIEST, LATEST, NO_SESSION, Piece, fetch_partition, fetch_request, list_request, piece_of
from psubd.storage.kafka.settings import KafkaSettings

MAIN, JOIN = 0, 1
MAIN_WAIT_MS, JOIN_WAIT_MS = 500, 20
ANSWER_MS = 3_000
"""A broker answers an open fetch so much later than it was told to wait, at most; then the connection is given up."""

REQUEST_BYTES = 8 * 1024 * 1024
PARTITION_BYTES = 262_144
PATIENCE = 16
"""Full pieces in a row after which a partition's reader jumps to the end: nobody who waits there is served by what lies further behind than its
window is wide, and who lags reads for himself."""

BACKLOG_BYTES = 16 * 1024 * 1024
"""Read, and not taken over by the reactor's thread yet; more, and reading pauses."""

PAUSE_S = 0.1
LAST_EPOCH = 0x7FFFFFFF
STANDING_S = 0.25
"""How often an answer says which partitions it speaks for."""

Place = tuple[str, int]


class Arrival(msgspec.Struct, frozen=True):
    """What came for one partition. ``piece`` None: nothing to hand over, only that ``next`` is now where the reader stands.

    :ivar uid: the topic's id that it was read from.
    """

    topic: str
    partition: int
    uid: uuid.UUID
    next: int
    end: int
    piece: Piece | None


class Round(msgspec.Struct, frozen=True):
    """One answer: ``standing`` are the partitions that it speaks for; what is not in ``arrivals`` has nothing new."""

    standing: tuple[Place, ...]
    arrivals: tuple[Arrival, ...]
    size: int


class Reader:
    """One partition. ``next``: where its next fetch goes on. ``seat``: which connection has it. ``sent``: the place that the session knows."""

    __slots__ = ("behind", "end", "id", "next", "partition", "seat", "topic")

    def __init__(self, topic: str, partition: int, offset: int, id: uuid.UUID) -> None:
        self.topic, self.partition, self.next, self.id = topic, partition, offset, id
        self.seat, self.behind, self.end = JOIN, 0, -1


class Session:
    """A fetch session: what the broker knows of our partitions, so that a request names only what changed.

    :param kept: False: no session; each request names all.
    """

    def __init__(self, kept: bool) -> None:
        self.kept = kept
        self.id, self.epoch = 0, 0 if kept else NO_SESSION
        self.known: dict[tuple[str, uuid.UUID, int], int] = {}

    def reset(self) -> None:
        """Begin anew with the next request."""
        self.id, self.epoch = 0, 0 if self.kept else NO_SESSION
        self.known = {}

    def request(self, readers: list[Reader], wait_ms: int) -> Any:
        """The fetch for these readers."""
        now = {(each.topic, each.id, each.partition): each.next for each in readers}
        send: dict[tuple[str, uuid.UUID], list[Any]] = {}
        for key, offset in now.items():
            if self.known.get(key) != offset:
                send.setdefault(key[:2], []).append(fetch_partition(key[2], offset, PARTITION_BYTES))
        forget: dict[tuple[str, uuid.UUID], list[int]] = {}
        if self.epoch > 0:
            for key in self.known.keys() - now.keys():
                forget.setdefault(key[:2], []).append(key[2])
        self.known = now
        return fetch_request(send, max_wait_ms=wait_ms, max_bytes=REQUEST_BYTES, session=(self.id, self.epoch), forgotten=forget)

    def answered(self, response: Any) -> bool:
        """Whether the answer counts; if not, the session begins anew."""
        sound: bool = response.error_code == 0
        if not sound or not self.kept or response.session_id == 0:
            self.reset()
        else:
            self.id, self.epoch = response.session_id, self.epoch + 1 if self.epoch < LAST_EPOCH else 1
        return sound


class Station:
    """One broker: its readers, and the two open fetches."""

    def __init__(self, node: int) -> None:
        self.node = node
        self.readers: dict[Place, Reader] = {}
        self.running = [False, False]
        self.said_at = 0.0
        self.joined: Future | None = None
        """Done when the open fetch of the newcomers is answered; None: none is open."""


class Tail:
    """Runs on the tail line; `join`, `leave` and `taken` are for other threads.

    :param came: called with each `Round`, on the line's thread.
    """

    def __init__(self, line: Line, atlas: Atlas, settings: KafkaSettings, came: Callable[[Round], None]) -> None:
        self.line, self.atlas, self.settings, self.came = line, atlas, settings, came
        self.readers: dict[Place, Reader] = {}
        self.stations: dict[int, Station] = {}
        self.stopped = False
        self.fetches = 0
        self._inbox: deque[tuple[Place, int | None]] = deque()
        self._awake = self._reseating = False
        self._posted = self._taken = 0

    # --- from any thread ---

    def join(self, topic: str, partition: int, offset: int) -> None:
        """Read the partition's end from ``offset`` on."""
        self._post((topic, partition), offset)

    def leave(self, topic: str, partition: int) -> None:
        self._post((topic, partition), None)

    def taken(self, size: int) -> None:
        """So much of what came was taken over."""
        self._taken += size

    def reroute(self) -> None:
        """The atlas changed: partitions may have other leaders, or be gone."""
        if not self.stopped:
            self.line.submit(self._reroute)

    def stop(self) -> None:
        self.stopped = True

    def _post(self, place: Place, offset: int | None) -> None:
        self._inbox.append((place, offset))
        if not self._awake and not self.stopped:
            self._awake = True
            self.line.net.call_soon_threadsafe(self._collect)

    # --- on the line's thread ---

    def _collect(self) -> None:
        self._awake = False
        while self._inbox:
            place, offset = self._inbox.popleft()
            if offset is None:
                self._drop(place)
            elif place not in self.readers:
                self._add(place, offset)

    def _add(self, place: Place, offset: int) -> None:
        chart = self.atlas.charts.get(place[0])
        if chart is None:
            return
        self.readers[place] = Reader(place[0], place[1], offset, chart.id)
        self._seat(place)

    def _drop(self, place: Place) -> None:
        if self.readers.pop(place, None) is not None:
            for station in self.stations.values():
                station.readers.pop(place, None)

    def _seat(self, place: Place) -> None:
        """Put a reader to the broker that leads its partition now, as a newcomer."""
        reader = self.readers[place]
        node = self.atlas.leader(*place)
        for station in self.stations.values():
            if station.node != node:
                station.readers.pop(place, None)
        if node is None:
            self.atlas.kick()
            return
        station = self.stations.setdefault(node, Station(node))
        if place not in station.readers:
            reader.seat = JOIN
            station.readers[place] = reader
        self._run(station, JOIN)

    def _reroute(self) -> None:
        for place, reader in list(self.readers.items()):
            chart = self.atlas.charts.get(place[0])
            if chart is None or chart.id != reader.id:
                self._drop(place)
            else:
                self._seat(place)

    def _run(self, station: Station, seat: int) -> None:
        if not station.running[seat] and not self.stopped:
            station.running[seat] = True
            self.line.submit(self._main if seat == MAIN else self._newcomers, station)

    async def _main(self, station: Station) -> None:
        session = Session(kept=True)
        try:
            while not self.stopped:
                if station.joined is not None:
                    await station.joined
                readers = list(station.readers.values())
                for reader in readers:
                    reader.seat = MAIN
                if not readers:
                    return
                await self._fetch(station, readers, session, MAIN, MAIN_WAIT_MS)
        finally:
            station.running[MAIN] = False

    async def _newcomers(self, station: Station) -> None:
        session = Session(kept=False)
        try:
            while not self.stopped:
                readers = [reader for reader in station.readers.values() if reader.seat == JOIN]
                if not readers:
                    return
                station.joined = Future()
                try:
                    await self._fetch(station, readers, session, JOIN, JOIN_WAIT_MS)
                finally:
                    done, station.joined = station.joined, None
                    done.success(None)
                self._run(station, MAIN)
                await self.line.net.sleep(0)  # the main fetch takes them over here, if it waits for that
        finally:
            station.running[JOIN] = False

    async def _fetch(self, station: Station, readers: list[Reader], session: Session, seat: int, wait_ms: int) -> None:
        while self._posted - self._taken > BACKLOG_BYTES and not self.stopped:
            await self.line.net.sleep(0.005)
        self.fetches += 1
        try:
            response = await self.line.ask(session.request(readers, wait_ms), station.node, seat, wait_ms + ANSWER_MS)
        except (Unsent, Lost, errors.KafkaError):
            session.reset()
            self.atlas.kick()
            await self.line.net.sleep(PAUSE_S)
            self._reroute()
            return
        if session.answered(response):
            self._take(station, readers, response)
        else:
            await self.line.net.sleep(0)

    def _take(self, station: Station, readers: list[Reader], response: Any) -> None:
        arrivals = []
        if response.responses:
            by_id = {(each.id, each.partition): each for each in readers}
            by_name = {(each.topic, each.partition): each for each in readers}
            for topic in response.responses:
                for answer in topic.partitions:
                    reader = by_id.get((topic.topic_id, answer.partition_index)) or by_name.get((topic.topic, answer.partition_index))
                    if reader is None or station.readers.get((reader.topic, reader.partition)) is not reader:
                        continue
                    arrival = self._arrival(reader, answer)
                    if arrival is not None:
                        arrivals.append(arrival)
        size = sum(arrival.piece.size for arrival in arrivals if arrival.piece is not None)
        now = time.monotonic()
        standing: tuple[Place, ...] = ()
        if now - station.said_at > STANDING_S or arrivals:
            station.said_at = now
            standing = tuple((each.topic, each.partition) for each in readers if each.end >= 0)
        if standing or arrivals:
            self._posted += size
            self.came(Round(standing, tuple(arrivals), size))

    def _arrival(self, reader: Reader, answer: Any) -> Arrival | None:
        error = errors.for_code(answer.error_code)
        if error is not errors.NoError:
            self._failed(reader, error)
            return None
        try:
            piece = piece_of(reader.topic, reader.partition, reader.next, answer, PARTITION_BYTES)
            self.atlas.heard(reader.topic, reader.partition, piece.log_epoch)
        except errors.KafkaError:
            # Broken, or in a compression that is not installed: who waits reads, and is told so there.
            reader.next = reader.end = max(reader.next, answer.last_stable_offset)
            return Arrival(reader.topic, reader.partition, reader.id, reader.next, reader.end, None)
        reader.behind = reader.behind + 1 if piece.full and piece.next < piece.end else 0
        moved, news = piece.next > reader.next, piece.end != reader.end
        reader.next, reader.end = piece.next, piece.end
        if reader.behind > PATIENCE:
            reader.next, reader.behind = piece.end, 0
            return Arrival(reader.topic, reader.partition, reader.id, piece.end, piece.end, None)
        return Arrival(reader.topic, reader.partition, reader.id, piece.next, piece.end, piece) if moved or news else None

    def _failed(self, reader: Reader, error: type[errors.KafkaError]) -> None:
        if self.stopped:  # the line takes nothing any more
            return
        reader.end = -1  # what it says no longer counts, until an answer says otherwise
        for station in self.stations.values():
            station.readers.pop((reader.topic, reader.partition), None)  # a broker answers a fetch with an error in it at once: again and again
        if error is errors.OffsetOutOfRangeError:
            self.line.submit(self._recover, reader)
            return
        if error in GONE or issubclass(error, errors.InvalidMetadataError):
            self.atlas.kick()
        self._reseat()

    def _reseat(self) -> None:
        """Give the readers that have no seat one, after a pause."""
        if not self._reseating and not self.stopped:
            self._reseating = True
            self.line.submit(self._reseat_later)  # not a coroutine that is made here: where the line has ended nobody would await it

    async def _reseat_later(self) -> None:
        await self.line.net.sleep(PAUSE_S)
        self._reseating = False
        self._reroute()

    async def _recover(self, reader: Reader) -> None:
        """The place is not in the log: go to its end, or to its beginning where that is past the place."""
        place = (reader.topic, reader.partition)
        try:
            first = await self._offset(reader, EARLIEST)
            end = await self._offset(reader, LATEST)
        except (Unsent, Lost, errors.KafkaError):
            self._reseat()
            return
        if self.readers.get(place) is reader:
            reader.next = first if reader.next < first else end
            reader.end = end
            self._seat(place)
            self.came(Round((place,), (Arrival(reader.topic, reader.partition, reader.id, reader.next, end, None),), 0))

    async def _offset(self, reader: Reader, which: int) -> int:
        node = self.atlas.leader(reader.topic, reader.partition)
        if node is None:
            raise Unsent("no leader")
        response = await self.line.ask(list_request(reader.topic, which, [reader.partition]), node, JOIN, ANSWER_MS)
        answer = response.topics[0].partitions[0]
        error = errors.for_code(answer.error_code)
        if error is not errors.NoError:
            raise error()
        return int(answer.offset)
