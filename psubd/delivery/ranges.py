"""What is known of offsets beyond the messages that a ledger has taken up: ranges that are done, and deliveries of others."""

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from psubd.delivery.cursor import Attempts, Ranges


class Beyond:
    """Rising ranges that do not touch: loaded from a commit, or acked with a lease of an earlier ledger."""

    def __init__(self, ranges: Ranges) -> None:
        self.starts = [start for start, _ in ranges]
        self.ends = [end for _, end in ranges]

    def __len__(self) -> int:
        return len(self.ends)

    def __contains__(self, offset: int) -> bool:
        return self.past(offset) != offset

    @property
    def last(self) -> int:
        """Where the last one ends; 0: there is none."""
        return self.ends[-1] if self.ends else 0

    def past(self, offset: int) -> int:
        """``offset``, or the end of the range that it lies in."""
        index = bisect_right(self.starts, offset) - 1
        return max(offset, self.ends[index]) if index >= 0 else offset

    def next_start(self, offset: int) -> int | None:
        """Where the first range past ``offset`` begins."""
        index = bisect_right(self.starts, offset)
        return self.starts[index] if index < len(self.starts) else None

    def add(self, offset: int) -> None:
        """One more offset, that lies in none of them."""
        index = bisect_left(self.starts, offset)
        after = index < len(self.starts) and self.starts[index] == offset + 1
        if index and self.ends[index - 1] == offset:
            self.ends[index - 1] = offset + 1
            if after:
                del self.starts[index], self.ends[index - 1]
        elif after:
            self.starts[index] = offset
        else:
            self.starts.insert(index, offset)
            self.ends.insert(index, offset + 1)

    def forget(self, before: int) -> None:
        """Drop the ranges that end at ``before`` or earlier."""
        if self.ends and self.ends[0] <= before:
            passed = bisect_right(self.ends, before)
            del self.starts[:passed], self.ends[:passed]

    def past_of(self, offset: int) -> list[tuple[int, int]]:
        """The ranges that begin past ``offset``."""
        index = bisect_right(self.starts, offset)
        return list(zip(self.starts[index:], self.ends[index:], strict=True))


class Tried:
    """How often messages were delivered, as a commit said."""

    def __init__(self, attempts: Attempts) -> None:
        self._counts = dict(attempts)
        self._offsets = [at for at, _ in attempts]

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __contains__(self, offset: int) -> bool:
        return offset in self._counts

    def of(self, offset: int) -> int:
        return self._counts.get(offset, 0)

    def take(self, offset: int) -> int:
        """The same, and forget it."""
        return self._counts.pop(offset, 0)

    def next(self, offset: int) -> int | None:
        """The first message past ``offset`` that was delivered."""
        index = bisect_right(self._offsets, offset)
        return self._offsets[index] if index < len(self._offsets) else None

    def since(self, start: int) -> list[tuple[int, int]]:
        """Of the messages from ``start`` on."""
        index = bisect_left(self._offsets, start)
        return [(at, self._counts[at]) for at in self._offsets[index:] if at in self._counts]

    def forget(self, before: int) -> None:
        """Drop those before that offset."""
        passed = bisect_left(self._offsets, before)
        for at in self._offsets[:passed]:
            self._counts.pop(at, None)
        del self._offsets[:passed]


def join_ranges(one: Iterable[tuple[int, int]], other: Iterable[tuple[int, int]]) -> Ranges:
    """Both, as rising ranges that do not touch."""
    joined: list[tuple[int, int]] = []
    for start, end in heapq.merge(one, other):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)
