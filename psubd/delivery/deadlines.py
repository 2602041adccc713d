"""When leases lapse and delays end."""

import heapq

from psubd.delivery.states import Entry

_OFFSET_BITS = 64
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1

SLACK = 64
"""Forgotten items that a heap may hold beside twice as many as messages are open."""


class Deadlines:
    """A heap of (due, start), each as one number, of the entries that have a ``due``.

    It forgets lazily: an item counts only while its entry is open and says the same. Where more than twice as many items as open entries
    are in it, it is made anew: the leases of twelve hours that are acked at once take no memory.
    """

    def __init__(self, entries: dict[int, Entry]) -> None:
        self._entries = entries
        self._heap: list[int] = []

    def set(self, entry: Entry, due: int) -> None:
        entry.due = due
        heapq.heappush(self._heap, due << _OFFSET_BITS | entry.start)
        if len(self._heap) > 2 * len(self._entries) + SLACK:
            self._heap = [entry.due << _OFFSET_BITS | start for start, entry in self._entries.items() if entry.due is not None]
            heapq.heapify(self._heap)

    def past(self, now: int) -> bool:
        """Whether there may be some that are due."""
        return bool(self._heap) and self._heap[0] >> _OFFSET_BITS <= now

    def pop(self, now: int) -> Entry | None:
        """The next entry that is due at ``now``; its ``due`` stands still."""
        entry = self._first()
        if entry is None or entry.due is None or entry.due > now:
            return None
        heapq.heappop(self._heap)
        return entry

    @property
    def next(self) -> int | None:
        entry = self._first() if self._heap else None
        return None if entry is None else entry.due

    def _first(self) -> Entry | None:
        heap = self._heap
        while heap:
            entry = self._entries.get(heap[0] & _OFFSET_MASK)
            if entry is not None and entry.due == heap[0] >> _OFFSET_BITS:
                return entry
            heapq.heappop(heap)
        return None
