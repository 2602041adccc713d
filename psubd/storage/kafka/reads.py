"""Reads at any place of the log, and where a log begins and ends. Nothing here waits at the end."""

import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from kafka import errors
from kafka.protocol.consumer import FetchRequest, IsolationLevel, ListOffsetsRequest, OffsetForLeaderEpochRequest

from psubd.errors import StorageUnavailable, TopicMissing
from psubd.model import Bounds, Message
from psubd.storage.kafka.atlas import Atlas
from psubd.storage.kafka.faults import GONE, RETRIABLE, Lost, Unsent, of_topic
from psubd.storage.kafka.line import Line
from psubd.storage.kafka.records import NO_EPOCH, OBJECT_BYTES, decode
from psubd.storage.kafka.settings import KafkaSettings

EARLIEST, LATEST = -2, -1
NO_SESSION = -1
NONE_FOUND = -1


class Piece(msgspec.Struct, frozen=True):
    """A piece of the log: every committed record from ``start`` up to ``next``. ``first`` and ``end`` are the log's bounds at that moment.
    ``size``: bytes that it takes in memory. ``full``: the broker had more than it gave. ``log_epoch``: as of `psubd.model.Slice`."""

    start: int
    next: int
    messages: tuple[Message, ...]
    first: int
    end: int
    size: int
    full: bool = False
    log_epoch: int = NO_EPOCH


class Spot(NamedTuple):
    """A place in the log, and the leader epoch there; -1: not told."""

    offset: int
    log_epoch: int


class NotNow(Exception):
    """The broker's answer says to ask again: another leads the partition now, or soon."""


class Reads:
    """Runs on the read line. One try may be lost with its broker; until the deadline another is asked."""

    def __init__(self, line: Line, atlas: Atlas, settings: KafkaSettings) -> None:
        self.line, self.atlas, self.settings = line, atlas, settings
        self.turn = 0

    async def read(self, topic: str, partition: int, offset: int) -> Piece:
        """The log from ``offset`` on, at most a page of it. Before the log's first offset: from there. Past its end: empty.

        :raises TopicMissing: :raises StorageUnavailable:
        """
        deadline = time.monotonic() + self.settings.storage_timeout_s
        try:
            piece: Piece = await self._persist(deadline, topic, lambda left: self._read(topic, partition, offset, left))
        except errors.OffsetOutOfRangeError:
            bounds = (await self.bounds(topic, [partition], deadline))[partition]
            if offset >= bounds.first:
                return Piece(offset, offset, (), bounds.first, bounds.end, 0)
            piece = await self._persist(deadline, topic, lambda left: self._read(topic, partition, bounds.first, left))
        return piece

    async def bounds(self, topic: str, partitions: Iterable[int] | None = None, deadline: float | None = None) -> dict[int, Bounds]:
        """First offset and last stable one (where the next committed record goes) of the partitions. :raises TopicMissing:"""
        first = await self.offsets(topic, EARLIEST, partitions, deadline)
        end = await self.offsets(topic, LATEST, partitions, deadline)
        return {
            partition: Bounds(offset, max(offset, end[partition].offset), end[partition].log_epoch)
            for partition, (offset, _) in first.items()
            if partition in end
        }

    async def offset_at(self, topic: str, timestamp: int) -> dict[int, int]:
        """The first offset of each partition whose record is of ``timestamp`` or later; the end where there is none."""
        found = await self.offsets(topic, max(0, timestamp))
        lacking = [partition for partition, spot in found.items() if spot.offset == NONE_FOUND]
        ends = await self.offsets(topic, LATEST, lacking) if lacking else {}
        return {partition: ends[partition].offset if partition in ends else spot.offset for partition, spot in found.items()}

    async def offsets(self, topic: str, timestamp: int, partitions: Iterable[int] | None = None, deadline: float | None = None) -> dict[int, Spot]:
        """What Kafka's ListOffsets says of each partition; `NONE_FOUND` where no record is so late."""
        deadline = time.monotonic() + self.settings.storage_timeout_s if deadline is None else deadline
        chosen = None if partitions is None else set(partitions)
        found: dict[int, Spot] = await self._persist(deadline, topic, lambda left: self._offsets(topic, timestamp, chosen, left))
        return found

    async def log_ends(self, topic: str, epochs: Mapping[int, int]) -> dict[int, int]:
        """As `IStorage.log_ends`: an epoch that is the leader's own goes on, and needs no question."""
        deadline = time.monotonic() + self.settings.storage_timeout_s
        found: dict[int, int] = await self._persist(deadline, topic, lambda left: self._log_ends(topic, epochs, left))
        return found

    # --- one try each ---

    async def _persist(self, deadline: float, topic: str, attempt: Callable[[float], Coroutine[Any, Any, Any]]) -> Any:
        try:
            return await self.line.persist(deadline, attempt, again=(Unsent, Lost, NotNow))
        except NotNow as late:
            raise StorageUnavailable(f"topic {topic!r} has no leader for a partition now") from late
        except GONE as gone:
            raise of_topic(gone, topic) from gone
        except errors.UnsupportedCodecError as lacking:
            raise StorageUnavailable(f"topic {topic!r} holds records in a compression that is not installed here: {lacking}") from lacking

    def _chart(self, topic: str) -> Any:
        chart = self.atlas.want(topic)
        if chart is None:
            raise TopicMissing(f"topic {topic!r} is not in Kafka")
        return chart

    async def _read(self, topic: str, partition: int, offset: int, left_ms: float) -> Piece:
        chart = self._chart(topic)
        if partition >= len(chart.leaders):
            raise TopicMissing(f"topic {topic!r} has no partition {partition}")
        leader = self._leader(topic, partition)
        request = fetch_request(
            {(topic, chart.id): [fetch_partition(partition, offset, self.settings.page_bytes)]}, max_wait_ms=0, max_bytes=self.settings.page_bytes
        )
        self.turn += 1
        response = await self.line.ask(request, leader, self.turn, left_ms)
        answer = response.responses[0].partitions[0] if response.responses else None
        if answer is None:
            raise NotNow
        self._judge(answer.error_code)
        piece = piece_of(topic, partition, offset, answer, self.settings.page_bytes)
        self.atlas.heard(topic, partition, piece.log_epoch)
        return piece

    async def _offsets(self, topic: str, timestamp: int, chosen: set[int] | None, left_ms: float) -> dict[int, Spot]:
        partitions = range(len(self._chart(topic).leaders)) if chosen is None else sorted(chosen)
        found = {}
        for answer in await self._of_leaders(topic, partitions, left_ms, lambda each: list_request(topic, timestamp, each)):
            epoch = answer.leader_epoch
            found[answer.partition_index] = Spot(answer.offset, NO_EPOCH if epoch is None else epoch)
        return found

    async def _of_leaders(self, topic: str, partitions: Iterable[int], left_ms: float, request: Callable[[list[int]], Any]) -> list[Any]:
        """What the leaders answer of each partition."""
        by_node: dict[int, list[int]] = {}
        for partition in partitions:
            by_node.setdefault(self._leader(topic, partition), []).append(partition)
        asked = [self.line.spawn(self.line.ask(request(each), node, timeout_ms=left_ms)) for node, each in by_node.items()]
        answers = [answer for response in [await each for each in asked] for answer in response.topics[0].partitions]
        for answer in answers:
            self._judge(answer.error_code)
        return answers

    async def _log_ends(self, topic: str, epochs: Mapping[int, int], left_ms: float) -> dict[int, int]:
        chart = self._chart(topic)
        if not epochs.keys() <= set(range(len(chart.leaders))):
            raise TopicMissing(f"topic {topic!r} has no partition {max(epochs)} in Kafka")
        past = {partition: epoch for partition, epoch in epochs.items() if epoch >= 0 and epoch != self.atlas.epoch(topic, partition)}
        answers = await self._of_leaders(topic, past, left_ms, lambda each: epoch_request(topic, {partition: past[partition] for partition in each}))
        return {answer.partition: int(answer.end_offset) for answer in answers if answer.end_offset >= 0}

    def _leader(self, topic: str, partition: int) -> int:
        leader = self.atlas.leader(topic, partition)
        if leader is None:
            self.atlas.kick()
            raise NotNow
        return leader

    def _judge(self, code: int) -> None:
        error = errors.for_code(code)
        if error is errors.NoError:
            return
        if error in GONE or issubclass(error, RETRIABLE):
            self.atlas.kick()
            raise NotNow from error()
        raise error()


def piece_of(topic: str, partition: int, offset: int, answer: Any, asked_bytes: int) -> Piece:
    """One partition's part of a fetch's answer."""
    data = answer.records
    messages, following, log_epoch = decode(topic, partition, offset, data, answer.aborted_transactions)
    size = len(data or b"")
    return Piece(
        start=offset,
        next=following,
        messages=tuple(messages),
        first=max(0, answer.log_start_offset),
        end=max(answer.last_stable_offset, following, answer.log_start_offset),
        size=size + OBJECT_BYTES * len(messages),
        full=size * 10 >= asked_bytes * 9,
        log_epoch=log_epoch,
    )


def fetch_partition(partition: int, offset: int, max_bytes: int) -> Any:
    return FetchRequest.FetchTopic.FetchPartition(
        partition=partition,
        current_leader_epoch=-1,
        fetch_offset=offset,
        last_fetched_epoch=-1,
        log_start_offset=-1,
        partition_max_bytes=max_bytes,
    )


def fetch_request(
    wanted: Mapping[tuple[str, uuid.UUID], list[Any]],
    *,
    max_wait_ms: int,
    max_bytes: int,
    session: tuple[int, int] = (0, NO_SESSION),
    forgotten: Mapping[tuple[str, uuid.UUID], list[int]] | None = None,
) -> FetchRequest:
    """A fetch of committed records. Topics go by name and id: what the broker's version takes is sent, and by id a topic that was made again is
    told from the one it was."""
    topic, forget = FetchRequest.FetchTopic, FetchRequest.ForgottenTopic
    return FetchRequest(
        max_wait_ms=max_wait_ms,
        min_bytes=1,
        max_bytes=max_bytes,
        isolation_level=IsolationLevel.READ_COMMITTED,
        session_id=session[0],
        session_epoch=session[1],
        topics=[topic(topic=name, topic_id=id, partitions=parts) for (name, id), parts in wanted.items()],
        forgotten_topics_data=[forget(topic=name, topic_id=id, partitions=parts) for (name, id), parts in (forgotten or {}).items()],
        rack_id="",
        min_version=7,
    )


def list_request(topic: str, timestamp: int, partitions: list[int]) -> ListOffsetsRequest:
    wanted = ListOffsetsRequest.ListOffsetsTopic
    each = wanted.ListOffsetsPartition
    parts = [each(partition_index=number, current_leader_epoch=-1, timestamp=timestamp) for number in partitions]
    return ListOffsetsRequest(
        replica_id=-1, isolation_level=IsolationLevel.READ_COMMITTED, topics=[wanted(name=topic, partitions=parts)], timeout_ms=4000, min_version=2
    )


def epoch_request(topic: str, epochs: Mapping[int, int]) -> OffsetForLeaderEpochRequest:
    """Asks where the logs of these epochs ended."""
    wanted = OffsetForLeaderEpochRequest.OffsetForLeaderTopic
    each = wanted.OffsetForLeaderPartition
    parts = [each(partition=partition, current_leader_epoch=-1, leader_epoch=epoch) for partition, epoch in epochs.items()]
    return OffsetForLeaderEpochRequest(replica_id=-1, topics=[wanted(topic=topic, partitions=parts)], min_version=2, max_version=4)
