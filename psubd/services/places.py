"""Where groups stand: where one begins on a topic, which of the stored commits are today's, where a reset goes.

Nothing here keeps anything: the storage has the places, the registry says what a commit must carry to count (`GroupTopic`).
"""

from collections.abc import Iterable, Mapping

import msgspec
from twisted.logger import Logger

from psubd.delivery.cursor import Cursor, Ranges, decode, encode
from psubd.errors import BadParameter, TopicMissing
from psubd.interfaces import IStorage
from psubd.model import Binding, Bounds, Commit, GroupTopic, ResetTo, Start, Topic, TopicPartition

log = Logger()


class Place(msgspec.Struct, frozen=True):
    """Where a group stands on a partition.

    :ivar done: what is done past ``offset``. :ivar end: the log's end of that moment. :ivar kept: whether the storage's commit says just this.
    :ivar missing: the storage had no place of today's at all.
    """

    offset: int
    done: Ranges
    end: int
    kept: bool
    missing: bool = False


async def begin(storage: IStorage, group: str, topic: Topic, binding: Binding, reset: int = 0) -> dict[int, int]:
    """Where ``group`` begins on ``topic``, kept durably when this returns: each partition's first offset, or its end, as ``binding.start`` says.

    :param reset: the serial that the group's record will carry (`GroupTopic.reset`).
    :returns: the offset by partition.
    :raises PsubdError: TopicMissing, or what the commit of a partition failed with; some partitions may be kept then, which does no harm:
        the group's record is not written yet, and the next try commits all of them again.
    """
    bounds: dict[int, Bounds] = await storage.bounds(topic.id)
    offsets = {partition: bound.first if binding.start == "earliest" else bound.end for partition, bound in bounds.items()}
    await put(storage, group, topic.id, GroupTopic(topic.uid, binding.mark, reset), offsets)
    return offsets


async def put(storage: IStorage, group: str, topic: str, record: GroupTopic, offsets: Mapping[int, int], epoch: int = 0) -> None:
    """Keep the group's places on the topic, nothing done past them. :raises PsubdError: what the first that failed failed with."""
    limit = storage.limits.max_metadata
    places = {
        TopicPartition(topic, partition): encode(Cursor(record.uid, record.mark, record.reset, epoch, offset), limit)
        for partition, offset in offsets.items()
    }
    failed = await storage.commit(group, places)
    for error in failed.values():
        raise error


def todays(commit: Commit | None, record: GroupTopic) -> Cursor | None:
    """The cursor of a stored commit, if it is of the topic, the binding and the reset that ``record`` names; else None.

    None for a known group means: from the partition's first message. Repeated, never skipped (contract, section 5).
    """
    cursor = None if commit is None else decode(commit)
    if cursor is None or (cursor.uid, cursor.mark, cursor.reset) != (record.uid, record.mark, record.reset):
        return None
    return cursor


def place_of(who: str, commit: Commit | None, record: GroupTopic, start: Start, bound: Bounds) -> Place:
    """Where a known group goes on, given what the storage kept for it and how the log lies now. What differs is logged, but for a place that is
    missing: repeated from the first message, never skipped.

    :param who: group, topic and partition, for the log.
    """
    cursor = todays(commit, record)
    if cursor is None:
        return Place(bound.first, (), bound.end, False, missing=True)
    if cursor.offset > bound.end:
        offset = bound.first if start == "earliest" else bound.end
        log.warn(
            "{who}: offset {old} is past the end of the log; it goes on at {offset}, as a new group would", who=who, old=cursor.offset, offset=offset
        )
        return Place(offset, (), bound.end, False)
    offset, done = cut(cursor.offset, cursor.done, bound)
    if offset > cursor.offset:
        log.warn("{who}: retention took offsets {old} to {last}; they are skipped", who=who, old=cursor.offset, last=bound.first - 1)
    if done and done[-1][1] > bound.end:
        log.warn("{who}: offsets past the end of the log, {end}, count as not done", who=who, end=bound.end)
        done = tuple((begin, min(end, bound.end)) for begin, end in done if begin < bound.end)
    return Place(offset, done, bound.end, (offset, done) == (cursor.offset, cursor.done))


def cut(offset: int, done: Ranges, bound: Bounds) -> tuple[int, Ranges]:
    """The same place in a log that begins at ``bound.first``: what lies before it is done, as is what was done there."""
    if offset >= bound.first:
        return offset, done
    offset = bound.first
    for begin, end in done:
        if begin <= offset < end:
            offset = end
    return offset, tuple(span for span in done if span[0] > offset)


async def aim(storage: IStorage, topic: str, partitions: Iterable[int] | None, to: ResetTo) -> dict[int, int]:
    """Where a reset to ``to`` puts each partition.

    :param partitions: None: all of the topic's, or those that ``to`` names.
    :raises BadParameter: a partition that the topic does not have, one in ``to`` and not in ``partitions`` or the other way, an offset
        outside of the log. :raises TopicMissing:
    """
    bounds: dict[int, Bounds] = await storage.bounds(topic)
    if isinstance(to, dict):
        return _given(topic, bounds, partitions, to)
    chosen = sorted(bounds) if partitions is None else sorted(set(partitions))
    _check_partitions(topic, bounds, chosen, "partitions")
    if to == "earliest":
        return {partition: bounds[partition].first for partition in chosen}
    if to == "latest":
        return {partition: bounds[partition].end for partition in chosen}
    found: dict[int, int] = await storage.offset_at(topic, to[1])
    return {partition: found.get(partition, bounds[partition].end) for partition in chosen}


def _given(topic: str, bounds: Mapping[int, Bounds], partitions: Iterable[int] | None, offsets: Mapping[int, int]) -> dict[int, int]:
    _check_partitions(topic, bounds, offsets, "to.offsets")
    if partitions is not None:
        chosen = set(partitions)
        _check_partitions(topic, bounds, chosen, "partitions")
        if chosen != set(offsets):
            raise BadParameter("to.offsets: names other partitions than the member partitions; leave partitions out, or name the same")
    for partition, offset in offsets.items():
        bound = bounds[partition]
        if not bound.first <= offset <= bound.end:
            raise BadParameter(f"to.offsets: {offset} is outside of partition {partition}, which has {bound.first} to {bound.end}")
    return dict(sorted(offsets.items()))


def _check_partitions(topic: str, bounds: Mapping[int, Bounds], partitions: Iterable[int], field: str) -> None:
    if not bounds:
        raise TopicMissing(f"topic {topic!r} has no partition")
    for partition in sorted(partitions):
        if partition not in bounds:
            raise BadParameter(f"{field}: topic {topic!r} has no partition {partition}; it has 0 to {max(bounds)}")
