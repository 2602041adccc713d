"""The messages of a ledger that are not done: which, in what state, and which of them came back."""

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

from psubd.delivery.deadlines import SLACK
from psubd.delivery.states import AFTER, Entry, Event, IllegalEvent, State
from psubd.delivery.window import portion
from psubd.model import Message

UNKNOWN = -1
"""The timestamp of a message that is to be read again before anything is known of it."""


class Book:
    """Open entries, by start. Its heaps forget lazily, and are made anew when they are more than twice as long as what is open.

    :param keep: payload bytes of returned messages that may be kept.
    :ivar tally: messages by state. :ivar open: messages. :ivar kept: payload bytes that entries keep.
    """

    def __init__(self, keep: int) -> None:
        self.entries: dict[int, Entry] = {}
        self.tally = [0] * len(State)
        self.open = 0
        self.keep_bytes = keep
        self.kept = 0
        self.ready: list[int] = []  # heap of the starts of what is READY
        self._starts: list[int] = []  # heap of all starts
        self._blocks: list[int] = []  # starts of entries of several messages, rising

    # --- one entry ---

    def step(self, entry: Entry, event: Event) -> None:
        """:raises IllegalEvent: where `TRANSITIONS` has no such step. Nothing was changed."""
        before = entry.state
        after = AFTER[before][event]
        if after is None:
            raise IllegalEvent(f"{event.name.lower()} of offset {entry.start}, which is {before.name.lower()}")
        entry.state = after
        tally, count = self.tally, entry.count
        tally[before] -= count
        tally[after] += count

    def enter(self, entry: Entry) -> None:
        self._enter(entry)
        count = entry.count
        self.open += count
        self.tally[entry.state] += count

    def remove(self, entry: Entry) -> None:
        """It is done, or others take its place."""
        if entry.messages is not None:
            self.drop(entry)
        count = entry.count
        del self.entries[entry.start]
        self.open -= count
        self.tally[entry.state] -= count
        if count > 1:
            del self._blocks[bisect_left(self._blocks, entry.start)]

    def give(self, entry: Entry) -> None:
        """It is READY: it may go out again."""
        heapq.heappush(self.ready, entry.start)
        if len(self.ready) > 2 * len(self.entries) + SLACK:
            self.sort_ready()

    # --- all of them ---

    @property
    def first(self) -> int | None:
        """The first start."""
        starts = self._starts
        while starts:
            if starts[0] in self.entries:
                return starts[0]
            heapq.heappop(starts)
        return None

    def front(self) -> Entry | None:
        """The first that is READY."""
        ready = self.ready
        while ready:
            entry = self.entries.get(ready[0])
            if entry is not None and entry.state is State.READY:
                return entry
            heapq.heappop(ready)
        return None

    def sorted(self) -> list[Entry]:
        return [self.entries[start] for start in sorted(self.entries)]

    def sort_ready(self) -> None:
        self.ready = sorted(start for start, entry in self.entries.items() if entry.state is State.READY)

    def lacking(self, start: int, end: int) -> list[Entry]:
        """Those from ``start`` to before ``end`` that came back or are held, and have no payload.

        Goes through the offsets or through all that is open, whichever is less.
        """
        entries = self.entries
        starts = range(start, end) if end - start < len(entries) else sorted(at for at in entries if start <= at < end)
        between = [entries[at] for at in starts if at in entries]
        return [entry for entry in between if entry.messages is None and entry.state in (State.READY, State.HELD)]

    def below(self, offset: int) -> list[Entry]:
        """Those that begin below ``offset``, in order."""
        return [self.entries[start] for start in sorted(start for start in self.entries if start < offset)]

    def block_at(self, offset: int) -> bool:
        """Whether ``offset`` lies in an entry of several messages."""
        index = bisect_right(self._blocks, offset) - 1
        return index >= 0 and offset < self.entries[self._blocks[index]].end

    def blocks(self) -> list[Entry]:
        return [self.entries[start] for start in self._blocks]

    # --- payload ---

    def keep(self, entry: Entry, messages: Sequence[Message], size: int, most: int) -> bool:
        """Keep the payload, if all that is kept is within ``most`` bytes then, or it is one message and nothing else is kept."""
        if self.kept + size > most and (self.kept or entry.count > 1):
            return False
        entry.messages = messages
        entry.size = size
        self.kept += size
        return True

    def keep_returned(self, entry: Entry, messages: Sequence[Message], size: int) -> None:
        """Keep the payload as far as there is room: where a block's is too large, its first messages'; the others are another block."""
        if self.keep(entry, messages, size, self.keep_bytes) or entry.count == 1:
            return
        goes, taken = portion(messages, len(messages), self.keep_bytes - self.kept, not self.kept)
        if goes:
            self.split(entry, messages, goes)
            self.keep(entry, messages[:goes], taken, self.kept + taken)

    def drop(self, entry: Entry) -> None:
        """Let the payload go."""
        if entry.messages is not None:
            self.kept -= entry.size
            entry.messages = None
            entry.size = 0

    # --- blocks ---

    def split(self, entry: Entry, messages: Sequence[Message], goes: int) -> Entry:
        """Leave the first ``goes`` of its messages in the block; the others are another one, in the same state."""
        first = messages[goes]
        rest = Entry(first.offset, entry.end, entry.count - goes, first.timestamp, None, entry.attempt, entry.state, entry.serial)
        if entry.messages is not None:
            rest.messages = messages[goes : entry.count]
            rest.size = sum(message.size for message in rest.messages)
            entry.messages = messages[:goes]
            entry.size -= rest.size
        entry.end = rest.start
        entry.count = goes
        if goes == 1:
            del self._blocks[bisect_left(self._blocks, entry.start)]
        self._enter(rest)
        if rest.state is State.READY:
            self.give(rest)
        return rest

    def shatter(self, entry: Entry, messages: Sequence[Message]) -> list[Entry]:
        """Each of its messages by itself."""
        kept = entry.messages is not None
        entry.messages = None  # each cut would copy what is left of them
        pieces = [self.split(entry, messages, entry.count - 1) for _ in range(entry.count - 1)]
        whole = [entry, *reversed(pieces)]
        if kept:
            for piece, message in zip(whole, messages, strict=True):
                piece.messages, piece.size = (message,), message.size
        return whole

    def refill_block(self, entry: Entry, messages: Sequence[Message], upto: int, first: bool) -> tuple[Entry | None, bool]:
        """The messages of a block that lacks them, as they were read up to ``upto``.

        What may be kept of them (one in any case, if it is the ``first``) is one entry then, and the others, or what was not read, another.

        :returns: the entry with payload, and whether anything changed.
        """
        goes, taken = portion(messages, len(messages), self.keep_bytes - self.kept, first or not self.kept)
        if messages and not goes:
            return None, False
        self.remove(entry)
        filled = None
        if goes:
            end = messages[goes].offset if goes < len(messages) else min(entry.end, upto)
            filled = self._piece(entry, messages[0].offset, end, goes, messages[0].timestamp)
            self.keep(filled, messages[:goes], taken, self.kept + taken)
        if goes < len(messages):
            self._piece(entry, messages[goes].offset, entry.end, max(1, entry.count - goes), messages[goes].timestamp)
        elif upto < entry.end:
            # Where its first message lies is not known: a block, even of one.
            self._piece(entry, max(upto, entry.start), entry.end, max(2, entry.count - goes), UNKNOWN)
        return filled, True

    def cut(self, entry: Entry, start: int) -> None:
        """A block without payload, that came back, begins at ``start`` from now on; how many messages it has left is known when it is read."""
        self.remove(entry)
        self._piece(entry, start, entry.end, max(2, entry.count - 1), UNKNOWN)

    def _piece(self, block: Entry, start: int, end: int, count: int, timestamp: int) -> Entry:
        piece = Entry(start, end, count, timestamp, None, block.attempt, block.state, block.serial)
        self.enter(piece)
        self.give(piece)
        return piece

    def _enter(self, entry: Entry) -> None:
        entries, starts = self.entries, self._starts
        entries[entry.start] = entry
        heapq.heappush(starts, entry.start)
        if entry.count > 1:
            insort(self._blocks, entry.start)
        if len(starts) > 2 * len(entries) + SLACK:
            self._starts = sorted(entries)
