"""What was redriven, in the registry: ``/redrives/<group's full name>``. It goes with the group."""

from bisect import bisect_right
from collections.abc import Iterable
from operator import itemgetter

import msgspec

from psubd.interfaces import Delete, ISnapshot

ROOT = "/redrives"

MAX_RANGES = 20_000
"""Ranges that a group's record holds over all topics and partitions: with 41 characters each at the most they fit at one path (1 MiB)."""

Range = tuple[int, int]
"""Offsets from the first up to, not including, the second."""


class Passed(msgspec.Struct, frozen=True):
    """Of one partition: every letter before ``offset`` was moved, or never can be; so was what lies in ``beyond``: ranges that rise and do
    not touch."""

    offset: int = 0
    beyond: tuple[Range, ...] = ()

    @property
    def end(self) -> int:
        """Behind all that was passed."""
        return self.beyond[-1][1] if self.beyond else self.offset

    def following(self, offset: int) -> int:
        """The first offset from ``offset`` on that was not passed."""
        offset = max(offset, self.offset)
        index = bisect_right(self.beyond, offset, key=itemgetter(0)) - 1
        return max(offset, self.beyond[index][1]) if index >= 0 else offset

    def holds(self, offset: int) -> bool:
        return self.following(offset) != offset

    def with_passed(self, first: int, end: int, kept: Iterable[int]) -> "Passed":
        """All from ``first`` up to ``end`` passed too, but for ``kept``, which lie in it and rise."""
        added: list[Range] = []
        for offset in kept:
            added.append((first, offset))
            first = offset + 1
        return Passed(*joined(self.offset, [*self.beyond, *added, (first, end)]))

    def from_first(self, first: int) -> "Passed":
        """What lies before the log's start is gone: passed."""
        return self if first <= self.offset else Passed(*joined(first, list(self.beyond)))


def joined(offset: int, ranges: list[Range]) -> tuple[int, tuple[Range, ...]]:
    """The ranges in order, made one where they touch; those that touch what lies before ``offset`` go into it."""
    beyond: list[Range] = []
    for first, end in sorted(ranges):
        if first >= end or end <= offset:
            continue
        if first <= offset:
            offset = end
        elif beyond and first <= beyond[-1][1]:
            beyond[-1] = (beyond[-1][0], max(end, beyond[-1][1]))
        else:
            beyond.append((first, end))
    return offset, tuple(beyond)


class Letters(msgspec.Struct, frozen=True):
    """Of one dead-letter topic: the storage's topic that it is about, and what was passed, by partition."""

    uid: str
    partitions: dict[int, Passed] = {}

    @property
    def ranges(self) -> int:
        """How much room they take."""
        return sum(len(passed.beyond) + 1 for passed in self.partitions.values())


class Redrives(msgspec.Struct, frozen=True):
    """By dead-letter topic: one path of the registry."""

    topics: dict[str, Letters] = {}

    def ranges_beside(self, topic: str) -> int:
        """How much room the other topics' take."""
        return sum(letters.ranges for name, letters in self.topics.items() if name != topic)


def path_of(group: str) -> str:
    return f"{ROOT}/{group}"


def redrives_of(snapshot: ISnapshot, group: str) -> Redrives:
    """What was redriven of the group's letters."""
    entry = snapshot.get(path_of(group))
    return Redrives() if entry is None else msgspec.json.decode(entry.data, type=Redrives)


def gone_with(snapshot: ISnapshot, group: str) -> tuple[Delete, ...]:
    """What a change that deletes the group deletes too."""
    return () if snapshot.get(path_of(group)) is None else (Delete(path_of(group)),)
