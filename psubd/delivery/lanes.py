"""The order within a key: which open messages wait for which (`Rules.ordered`)."""

import heapq
from collections import deque
from zlib import crc32

from psubd.delivery.book import Book
from psubd.delivery.states import Entry, Event, State

KEYLESS = -1
"""The lane of messages without a key: one for the whole partition."""


def lane_of(key: bytes | None) -> int:
    """The same in every process, since lanes move with a snapshot. Two keys that share a lane wait for each other now and then, no more."""
    return KEYLESS if key is None else crc32(key)


class Lane:
    """The messages of a key that are not done, in offset order. DONE ones leave when they come to the front."""

    __slots__ = ("_answer", "_entries", "_out")

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._answer = 0
        self._out = 0  # so many at the front are out in `_answer`, or done

    def append(self, entry: Entry) -> None:
        self._entries.append(entry)

    def front(self) -> Entry | None:
        entries = self._entries
        while entries and entries[0].state is State.DONE:
            entries.popleft()
            self._out = max(0, self._out - 1)
        return entries[0] if entries else None

    def changed(self) -> None:
        """One of them came back."""
        self._out = 0

    def next_of(self, answer: int) -> Entry | None:
        """The first that is not out in that answer; None: all of them are."""
        front = self.front()
        if front is None or front.state is not State.LEASED or front.answer != answer:
            return front
        if self._answer != answer:
            self._answer = answer
            self._out = 0
        entries = self._entries
        out = self._out
        while out < len(entries) and (entries[out].state is State.DONE or (entries[out].state is State.LEASED and entries[out].answer == answer)):
            out += 1
        self._out = out
        return entries[out] if out < len(entries) else None


class Lanes:
    """All lanes of a ledger, while it keeps order.

    A message that is not the first open one of its lane is HELD when it might go out. Entries whose key is not known were leased before order was
    asked for: nothing past them goes out until they are done, or back with their messages.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self._lanes: dict[int, Lane] = {}
        self._unknown: list[int] = []  # starts, rising
        self._answers: dict[int, dict[int, int]] = {}  # answer -> lane -> messages of it that are out in it
        self.arrange()

    def arrange(self) -> None:
        """Lay all lanes out anew."""
        self._lanes = {}
        entries = self._book.sorted()
        self._unknown = [entry.start for entry in entries if entry.lane is None]
        known = [entry for entry in entries if entry.lane is not None]
        for entry in known:
            self.append(entry)
        for entry in known:
            first = self.leads(entry)
            if first and entry.state is State.HELD:
                self._book.step(entry, Event.FREE)
            elif not first and entry.state is State.READY:
                self._book.step(entry, Event.HOLD)
        self._book.sort_ready()

    def append(self, entry: Entry) -> None:
        """One past all others."""
        assert entry.lane is not None
        lane = self._lanes.get(entry.lane)
        if lane is None:
            lane = self._lanes[entry.lane] = Lane()
        lane.append(entry)

    def veils(self, offset: int) -> bool:
        """Whether such an entry lies before ``offset``."""
        return bool(self._unknown) and offset > self._unknown[0]

    def leads(self, entry: Entry) -> bool:
        """Whether it is the first open one of its lane."""
        return entry.lane is None or self._lanes[entry.lane].front() is entry

    def waits(self, lane_number: int, answer: int) -> bool:
        """Whether a fresh message of that lane has to wait: one is open, and not out in that answer (0: none)."""
        lane = self._lanes.get(lane_number)
        return lane is not None and lane.front() is not None and not (answer and lane.next_of(answer) is None)

    # --- events ---

    def went_out(self, entry: Entry, answer: int) -> None:
        assert entry.lane is not None
        entry.answer = answer
        lanes = self._answers.setdefault(answer, {})
        lanes[entry.lane] = lanes.get(entry.lane, 0) + 1

    def came_back(self, entry: Entry) -> None:
        """It is out no more."""
        self._left(entry)
        if entry.lane is not None:
            self._lanes[entry.lane].changed()

    def closed(self, entry: Entry) -> None:
        """It is done: the next of its lane may go."""
        self._left(entry)
        if entry.lane is None:
            self._unknown.remove(entry.start)
            return
        front = self._lanes[entry.lane].front()
        if front is None:
            del self._lanes[entry.lane]
        elif front.state is State.HELD:
            self._book.step(front, Event.FREE)
            self._book.give(front)

    def _left(self, entry: Entry) -> None:
        """It is in no answer any more."""
        answer, entry.answer = entry.answer, 0
        lanes = self._answers.get(answer) if answer else None
        if lanes is not None and entry.lane is not None:
            lanes[entry.lane] -= 1
            if not lanes[entry.lane]:
                del lanes[entry.lane]
            if not lanes:
                del self._answers[answer]

    # --- answers ---

    def own(self, answer: int) -> list[int]:
        """The held messages that may go into that answer: a heap of their offsets."""
        own: list[int] = []
        for lane in self._answers.get(answer, ()):
            self.push_own(own, lane, answer)
        return own

    def push_own(self, own: list[int], lane: int | None, answer: int) -> None:
        """The next of that lane, behind those that are out in that answer."""
        held = None if lane is None else self._lanes[lane].next_of(answer)
        if held is not None and held.state is State.HELD:
            heapq.heappush(own, held.start)
