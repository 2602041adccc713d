"""Where groups stand: where one begins on a topic, which of the stored commits are today's, where a reset goes.

Nothing here keeps anything: the storage has the places, the registry says what a commit must carry to count (`GroupTopic`).
"""

from collections.abc import Iterable, Mapping

import msgspec

from psubd.delivery.cursor import Cursor, CursorTooLong, Ranges, decode, encode
from psubd.errors import BadParameter, TopicMissing
from psubd.interfaces import IStorage
from psubd.model import Binding, Bounds, Commit, GroupTopic, ResetTo, Start, Topic, TopicPartition

Attempts = tuple[tuple[int, int], ...]


class Place(msgspec.Struct, frozen=True):
    """Where a group stands on a partition.

    :ivar done: what is done past ``offset``. :ivar end: the log's end of that moment. :ivar kept: whether the storage's commit says just this.
    :ivar missing: the storage had no place of today's at all.
    :ivar since: serial of the last reset, or cut of the log, that moved the partition; 0: none. Leases carry it: those of before are lost.
    :ivar attempts: deliveries so far (two or more), by offset, of messages that are not done.
    :ivar log_epoch: of the log up to which was read (`Commit.log_epoch`); -1: not known.
    :ivar stood: how far the group had come where the log was cut below that; the leases and acks of that log are void. None: it was not cut.
    :ivar skipped: the first and the last offset that retention took though they were not done; None: nothing was skipped.
    :ivar note: the metadata that a client of a consumer instance committed as its own.
    """

    offset: int
    done: Ranges
    end: int
    kept: bool
    missing: bool = False
    since: int = 0
    attempts: Attempts = ()
    log_epoch: int = -1
    stood: int | None = None
    skipped: tuple[int, int] | None = None
    note: str = ""


def fresh(offset: int, bound: Bounds, since: int = 0) -> Place:
    """A place that nothing was kept for: leases of before, whatever they were of, are lost."""
    return Place(offset, (), bound.end, False, missing=True, since=since, log_epoch=bound.log_epoch)


async def begin(storage: IStorage, group: str, topic: Topic, binding: Binding, reset: int = 0) -> dict[int, int]:
    """Where ``group`` begins on ``topic``, kept durably when this returns: each partition's first offset, or its end, as ``binding.start`` says.

    :param reset: the serial that the group's record will carry (`GroupTopic.reset`).
    :returns: the offset by partition.
    :raises PsubdError: TopicMissing, or what the commit of a partition failed with; some partitions may be kept then, which does no harm:
        the group's record is not written yet, and the next try commits all of them again.
    """
    bounds: dict[int, Bounds] = await storage.bounds(topic.id)
    record = GroupTopic(topic.uid, binding.mark, reset)
    places = {partition: fresh(bound.first if binding.start == "earliest" else bound.end, bound, reset) for partition, bound in bounds.items()}
    limit = storage.limits.max_metadata
    failed = await storage.commit(group, {TopicPartition(topic.id, at): commit_of(record, 0, place, limit) for at, place in places.items()})
    for error in failed.values():
        raise error
    return {partition: place.offset for partition, place in places.items()}


def commit_of(record: GroupTopic, epoch: int, place: Place, limit: int) -> Commit:
    """The commit that says ``place``; what is done past the first hole is left out where it does not fit: repeated, never skipped."""
    cursor = Cursor(record.uid, record.mark, record.reset, epoch, place.offset, place.done, place.since, place.attempts, place.note)
    try:
        commit = encode(cursor, limit)
    except CursorTooLong:
        commit = encode(cursor._replace(done=()), limit)
    return msgspec.structs.replace(commit, log_epoch=place.log_epoch)


def todays(commit: Commit | None, record: GroupTopic) -> Cursor | None:
    """The cursor of a stored commit, if it is of the topic, the binding and the reset that ``record`` names; else None.

    None for a known group means: from the partition's first message. Repeated, never skipped (contract, section 5).
    """
    cursor = None if commit is None else decode(commit)
    if cursor is None or (cursor.uid, cursor.mark, cursor.reset) != (record.uid, record.mark, record.reset):
        return None
    return cursor


def place_of(commit: Commit | None, record: GroupTopic, start: Start, bound: Bounds, log_end: int | None = None, reach: int = 0) -> Place:
    """Where a known group goes on, given what the storage kept for it and how the log lies now. A place that is missing: from the first message.

    :param log_end: where the log of the commit's epoch ended (`IStorage.log_ends`), where that is known.
    :param reach: how far leases go that are to stand.
    """
    cursor = todays(commit, record)
    if commit is None or cursor is None:
        return fresh(bound.first, bound, record.reset)
    kept = Place(
        cursor.offset, cursor.done, bound.end, True, since=cursor.since, attempts=cursor.attempts, log_epoch=commit.log_epoch, note=cursor.note
    )
    return settled(kept, start, bound, log_end, max(reached(kept), reach))


def reached(place: Place) -> int:
    """The offset behind the last one that the place tells of."""
    return place.done[-1][1] if place.done else place.offset


def settled(place: Place, start: Start, bound: Bounds, log_end: int | None, stood: int) -> Place:
    """The same place in the log as it lies now.

    :param log_end: as of `place_of`. :param stood: how far the group had come, leases and what was read ahead counted.
    """
    cut_at = cut_below(bound, log_end, stood)
    found = place if cut_at is None else _before_the_cut(place, start, bound, cut_at if log_end is not None else None, stood)
    offset, done = cut(found.offset, found.done, bound)
    skipped = (found.offset, bound.first - 1) if offset > found.offset else None
    attempts = tuple(pair for pair in found.attempts if pair[0] >= offset)
    kept = place.kept and (offset, done, attempts) == (place.offset, place.done, place.attempts)
    return msgspec.structs.replace(found, offset=offset, done=done, end=bound.end, kept=kept, attempts=attempts, skipped=skipped)


def cut_below(bound: Bounds, log_end: int | None, stood: int) -> int | None:
    """Where the log was cut, if that is below how far the group had come; the end of the log as it is now where nothing better is known."""
    if log_end is not None and log_end < stood:
        return log_end
    return bound.end if log_end is None and bound.end < stood else None


def _before_the_cut(place: Place, start: Start, bound: Bounds, cut_at: int | None, stood: int) -> Place:
    """What is left of a place in a log that was cut.

    :param cut_at: None: nobody knows. Whatever is done past the first hole may be of messages that are gone, and a place past the end goes where a
        new group would begin.
    """
    if cut_at is None:
        offset = place.offset if place.offset <= bound.end else bound.first if start == "earliest" else bound.end
        return msgspec.structs.replace(place, offset=offset, done=(), attempts=(), kept=False, log_epoch=-1, stood=stood)
    offset = min(place.offset, cut_at)
    done = tuple((begin, min(end, cut_at)) for begin, end in place.done if begin < cut_at)
    attempts = tuple(pair for pair in place.attempts if pair[0] < cut_at)
    return msgspec.structs.replace(place, offset=offset, done=done, attempts=attempts, kept=False, stood=stood)


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
