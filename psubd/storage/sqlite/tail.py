"""The newest messages of each partition, in memory on the reactor's thread: reads near the end need neither thread nor file."""

from collections import deque
from collections.abc import Sequence

from psubd.model import Message

OVERHEAD = 200
"""Bytes that a kept message costs beside its payload (measured: 190 on CPython 3.11)."""

Place = tuple[str, int]

GONE = Message(-1, 0, None, None, ())
"""Stands where a message was until its slot is taken off: the message itself is let go at once."""


class Tail:
    """At most ``budget`` bytes over all partitions; the oldest go first. Within a partition the offsets have no gap."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held = 0
        self._runs: dict[Place, Run] = {}
        self._order: deque[tuple[Run, int, int]] = deque()

    def extend(self, place: Place, messages: Sequence[Message], payload: int) -> None:
        """``messages``, of ``payload`` bytes together, follow what is there; where they do not (something was not told), what was there goes."""
        run = self._runs.get(place)
        if run is None or run.end != messages[0].offset:
            self.thin(place)
            run = self._runs[place] = Run(messages[0].offset)
        size = payload + OVERHEAD * len(messages)
        run.messages.extend(messages)
        self._order.append((run, len(messages), size))
        self._held += size
        while self._held > self._budget:
            oldest, count, freed = self._order.popleft()
            oldest.shed(count)
            self._held -= freed

    def read(self, place: Place, offset: int, max_records: int, max_bytes: int) -> list[Message] | None:
        """Messages from ``offset`` on, at least one; None: it is not here, ask the file."""
        run = self._runs.get(place)
        if run is None or not run.base <= offset < run.end:
            return None
        begin = run.dead + offset - run.base
        taken = run.messages[begin : begin + max_records]
        total = 0
        for count, message in enumerate(taken):
            total += message.size
            if total > max_bytes and count:
                return taken[:count]
        return taken

    def drop(self, topic: str) -> None:
        """The topic's messages are not what they were (deleted, made again)."""
        for place in [place for place in self._runs if place[0] == topic]:
            self.thin(place)

    def thin(self, place: Place) -> None:
        """Compaction took some out of the middle: leave them to the file."""
        run = self._runs.pop(place, None)
        if run is not None:
            run.empty()

    def clear(self) -> None:
        self._runs.clear()
        self._order.clear()
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes, as they are counted against the budget."""
        return self._held


class Run:
    """One partition's: ``messages`` from offset ``base`` on, behind ``dead`` ones that are taken off in lots."""

    __slots__ = ("base", "dead", "messages")

    def __init__(self, base: int) -> None:
        self.base, self.dead = base, 0
        self.messages: list[Message] = []

    @property
    def end(self) -> int:
        return self.base + len(self.messages) - self.dead

    def shed(self, count: int) -> None:
        """The oldest ``count`` go; an emptied run has none."""
        if not self.messages:
            return
        self.messages[self.dead : self.dead + count] = [GONE] * count
        self.base += count
        self.dead += count
        if self.dead > 256 and self.dead * 4 > len(self.messages):
            del self.messages[: self.dead]
            self.dead = 0

    def empty(self) -> None:
        """No longer any partition's; the budget gives its bytes back as if they were still there."""
        self.messages, self.dead = [], 0
