"""The ledger of one partition of one group: which message is whose. Sans-I/O: events in, leases out; time is an argument.

Rules
1. Messages are leased for the first time in offset order. What comes back goes before newer ones, in offset order.
2. A message has one lease at a time. Each lease has a serial, never used twice by a ledger; a message leased again has another one.
3. The committed offset is the first message's that is not done. What is done past it is kept (`Ledger.place`), and is never leased again.
4. An offset without a message (compaction, transaction markers) is done: the ledger follows `Slice.next_offset`, not the numbers.
5. At most ``max_in_flight`` messages are leased at a time.
6. A message is leased only if, whatever becomes of those that are out, the place still fits into the commit's metadata
   (`psubd.delivery.cursor.fits`). The first that is not done may always be leased: doing it only makes the place smaller.
7. Illegal input raises `IllegalEvent` and changes nothing.

What may happen to a message, and what it then is (`TRANSITIONS`); anything else is illegal:

    FRESH      lease      LEASED     attempt 1
    LEASED     done       DONE       for good
    LEASED     give_back  RETURNED   not wholly handed over: to the front, the attempt does not count
    RETURNED   lease      LEASED     the same attempt again

Cost: a lease, a done and a give-back are O(1) amortised (a returned message costs a heap step among those that are returned), however many are
leased; `place` is linear in what is between the first hole and the newest lease, once a commit.
"""

import enum
import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from psubd.delivery.cursor import Ranges, check_ranges, fits
from psubd.model import Message, Slice


class IllegalEvent(Exception):
    """The ledger was told something that cannot be: a bug of the caller's. Nothing was changed."""


class State(enum.Enum):
    FRESH = "fresh"
    LEASED = "leased"
    RETURNED = "returned"
    DONE = "done"


class Event(enum.Enum):
    LEASE = "lease"
    DONE = "done"
    GIVE_BACK = "give_back"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.FRESH, Event.LEASE): State.LEASED,
    (State.LEASED, Event.DONE): State.DONE,
    (State.LEASED, Event.GIVE_BACK): State.RETURNED,
    (State.RETURNED, Event.LEASE): State.LEASED,
}


class Lease(NamedTuple):
    """One message, handed out.

    :ivar serial: what `Ledger.done` and `Ledger.give_back` are told. :ivar attempt: which delivery of the message this is, from 1.
    :ivar since: the ``now`` of the lease, in ms.
    """

    serial: int
    message: Message
    attempt: int
    since: int


class Entry:
    """A message that was leased at least once, until the committed offset is past it."""

    __slots__ = ("attempt", "message", "offset", "state")

    def __init__(self, message: Message) -> None:
        self.offset = message.offset
        self.message: Message | None = message
        self.state = State.FRESH
        self.attempt = 1

    def __lt__(self, other: "Entry") -> bool:
        return self.offset < other.offset

    def become(self, event: Event) -> None:
        """:raises IllegalEvent: where `TRANSITIONS` has no such step."""
        after = TRANSITIONS.get((self.state, event))
        if after is None:
            raise IllegalEvent(f"{event.value} of offset {self.offset}, which is {self.state.value}")
        self.state = after


class Ledger:
    """One partition of one group.

    :param offset: the first offset that is not done. :param done: what is done past it, as a commit said.
    :param max_in_flight: rule 5; may be set anew at any time. :param room: characters that `place` may take in a commit (rule 6).
    :ivar position: the offset that the next read has to ask for.
    :ivar leased: how many messages are out.
    """

    def __init__(self, offset: int, done: Ranges = (), *, max_in_flight: int = 10_000, room: int = 3_900) -> None:
        check_ranges(offset, done)
        self.max_in_flight = max_in_flight
        self.room = room
        self.position = offset
        self._fresh: deque[Message] = deque()  # read, never leased; all past every entry
        self._fresh_bytes = 0
        self._entries: deque[Entry] = deque()  # in offset order; the first is not done
        self._returned: list[Entry] = []  # heap by offset
        self._leases: dict[int, Entry] = {}
        self._serial = 0
        self._done_starts = [start for start, _ in done]  # what the commit said; pruned as the committed offset passes it
        self._done_ends = [end for _, end in done]

    # --- the window ---

    @property
    def fresh(self) -> int:
        """Messages that were read and never leased."""
        return len(self._fresh)

    @property
    def fresh_bytes(self) -> int:
        """Their payload bytes."""
        return self._fresh_bytes

    def feed(self, asked: int, found: Slice) -> None:
        """Take in the answer to a read at ``asked``.

        Messages before the log's start are gone: the ledger goes on at `Slice.first`, as after any other gap.

        :raises IllegalEvent: for another offset than `position`, or messages that do not rise from it.
        """
        self._check_slice(asked, found)
        for message in found.messages:
            if not self._done_before(message.offset):
                self._fresh.append(message)
                self._fresh_bytes += message.size
        self.position = self._past_done(max(found.next_offset, found.first))
        self._prune()

    def drop_window(self) -> None:
        """Forget what was read and never leased; it will have to be read again."""
        if self._fresh:
            self.position = self._fresh[0].offset
            self._fresh.clear()
            self._fresh_bytes = 0

    # --- leases ---

    @property
    def leased(self) -> int:
        return len(self._leases)

    @property
    def ready(self) -> bool:
        """Whether a lease would be granted now."""
        return self._next() is not None

    def lease(self, now: int, count: int, size: int, first_fits: bool = True) -> list[Lease]:
        """Hand out up to ``count`` messages of together ``size`` payload bytes, in order.

        :param now: ms, on the clock that leases are measured with.
        :param first_fits: the first message is handed out even if it alone is larger.
        """
        leases: list[Lease] = []
        while len(leases) < count and (message := self._next()) is not None:
            size -= message.size
            if size < 0 and not (first_fits and not leases):
                break
            leases.append(self._grant(now))
        return leases

    def done(self, serial: int) -> None:
        """The message of that lease is done. :raises IllegalEvent: no such lease."""
        entry = self._entry(serial)
        entry.become(Event.DONE)
        entry.message = None
        del self._leases[serial]
        while self._entries and self._entries[0].state is State.DONE:
            self._entries.popleft()
        self._prune()

    def give_back(self, serial: int) -> None:
        """The message of that lease was not wholly handed over: back to the front. :raises IllegalEvent: no such lease."""
        entry = self._entry(serial)
        entry.become(Event.GIVE_BACK)
        del self._leases[serial]
        heapq.heappush(self._returned, entry)

    # --- the place ---

    @property
    def committed(self) -> int:
        """The first offset that is not done (rule 3)."""
        if self._entries:
            return self._entries[0].offset
        return self._fresh[0].offset if self._fresh else self.position

    def place(self) -> tuple[int, Ranges]:
        """What a commit has to say: the committed offset, and what is done past it."""
        loaded = zip(self._done_starts, self._done_ends, strict=True)
        return self.committed, join_ranges(self._runs(), loaded)

    def oldest(self) -> Message | None:
        """The first message that is not done, if it was read."""
        if self._entries:
            return self._entries[0].message
        return self._fresh[0] if self._fresh else None

    # --- inside ---

    def _next(self) -> Message | None:
        """The message that the next lease gets, if the rules let it go now."""
        if len(self._leases) >= self.max_in_flight:
            return None
        if self._returned:
            return self._returned[0].message
        if not self._fresh or not self._place_would_fit(self._fresh[0].offset):
            return None
        return self._fresh[0]

    def _place_would_fit(self, offset: int) -> bool:
        """Rule 6. Each message that is not done can end a run of done ones, so there are never more runs than that, and those of the load."""
        first = self.committed
        if offset == first:
            return True
        last = max(offset + 1, self._done_ends[-1]) if self._done_ends else offset + 1
        return fits(last - first, len(self._leases) + len(self._returned) + 1 + len(self._done_ends), self.room)

    def _grant(self, now: int) -> Lease:
        if self._returned:
            entry = heapq.heappop(self._returned)
        else:
            message = self._fresh.popleft()
            self._fresh_bytes -= message.size
            entry = Entry(message)
            self._entries.append(entry)
        entry.become(Event.LEASE)
        self._serial += 1
        self._leases[self._serial] = entry
        assert entry.message is not None
        return Lease(self._serial, entry.message, entry.attempt, now)

    def _entry(self, serial: int) -> Entry:
        entry = self._leases.get(serial)
        if entry is None:
            raise IllegalEvent(f"no lease {serial}")
        return entry

    def _check_slice(self, asked: int, found: Slice) -> None:
        if asked != self.position:
            raise IllegalEvent(f"a read at {asked}, where {self.position} was due")
        last = asked - 1
        for message in found.messages:
            if message.offset <= last:
                raise IllegalEvent(f"offset {message.offset} after {last}")
            last = message.offset
        if found.next_offset <= last and found.messages:
            raise IllegalEvent(f"goes on at {found.next_offset}, not past {last}")
        if found.next_offset < asked:
            raise IllegalEvent(f"goes back to {found.next_offset} from {asked}")

    def _done_before(self, offset: int) -> bool:
        """Whether the loaded commit said that ``offset`` is done."""
        if not self._done_ends or offset >= self._done_ends[-1]:
            return False
        index = bisect_right(self._done_starts, offset) - 1
        return index >= 0 and offset < self._done_ends[index]

    def _past_done(self, position: int) -> int:
        """``position``, or the end of the loaded range that it lies in: what is done need not be read."""
        index = bisect_right(self._done_starts, position) - 1
        return max(position, self._done_ends[index]) if index >= 0 else position

    def _prune(self) -> None:
        """Forget the loaded ranges that the committed offset has passed."""
        if not self._done_ends:
            return
        passed = bisect_right(self._done_ends, self.committed)
        if passed:
            del self._done_starts[:passed]
            del self._done_ends[:passed]

    def _runs(self) -> list[tuple[int, int]]:
        """The runs of done entries between entries that are not done."""
        runs: list[tuple[int, int]] = []
        open_run = False
        for entry in self._entries:
            if entry.state is not State.DONE:
                open_run = False
            elif open_run:
                runs[-1] = (runs[-1][0], entry.offset + 1)
            else:
                runs.append((entry.offset, entry.offset + 1))
                open_run = True
        return runs


def join_ranges(one: Iterable[tuple[int, int]], other: Iterable[tuple[int, int]]) -> Ranges:
    """Both, as rising ranges that do not touch."""
    joined: list[tuple[int, int]] = []
    for start, end in heapq.merge(one, other):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)
