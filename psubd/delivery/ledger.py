"""The ledger of one partition of one group: which message is whose. Sans-I/O: events in, leases out; time is an argument.

Rules
1. Messages are leased for the first time in offset order. What comes back goes before newer ones, in offset order.
2. A message has one lease at a time: from ``now`` to before ``until``. Each lease has a serial, never used twice; a message leased again
   has another one.
3. The committed offset is the first message's that is not done. What is done past it is kept (`Ledger.place`), and is never leased again.
4. An offset without a message (compaction, transaction markers) is done: the ledger follows `Slice.next_offset`, not the numbers.
5. At most ``max_in_flight`` messages are leased at a time.
6. A message is taken up (leased, held) only if, whatever becomes of those that are not done, the place still fits into the commit's metadata
   (`psubd.delivery.cursor.fits`). The first that is not done may always be leased: doing it only makes the place smaller.
7. An ack by the message's last lease makes it done, as long as it was not leased again, whatever became of that lease. A lease of an
   earlier ledger acks what this one never leased, where the place has room. Only a lease that stands can be let go, buried or extended.
8. A lease that lapses or is let go counts as an attempt, and one that is given back (not wholly handed over) does not. After
   ``max_attempts`` the message is dead; before, it waits for its backoff. A dead one is done when it is told to be `buried`.
9. ``ordered``: a message is leased only when every earlier one of its key (those without: one key) is done, or out in the same answer.
10. Illegal input raises `IllegalEvent` and changes nothing.
11. A consumer instance commits as Kafka's clients do: all below an offset is done (`Ledger.done_below`), whoever has it. An answer in auto mode that
   carries some of it may still end in any way; what lies further up in it is not touched.

What may happen to a message, and what it then is (`psubd.delivery.states.TRANSITIONS`); anything else is illegal:

    FRESH    lease      LEASED
    FRESH    hold       HELD      its key is out, or waits
    FRESH    die        DEAD      ``max_attempts`` deliveries were counted before this ledger began
    FRESH    ack        DONE      with a lease of an earlier ledger
    HELD     lease      LEASED    into the answer that holds the others of its key
    HELD     free       READY     the earlier ones of its key are done
    HELD     die        DEAD
    HELD     ack        DONE
    HELD     vanish     DONE      the log does not have it any more
    READY    lease      LEASED
    READY    hold       HELD      it came back while an earlier one of its key is not done
    READY    delay      WAITING   backoff, or what the nack asked for
    READY    die        DEAD      ``max_attempts``
    READY    ack        DONE
    READY    vanish     DONE
    LEASED   done       DONE      auto: wholly handed over
    LEASED   ack        DONE
    LEASED   give_back  READY     not wholly handed over: the attempt does not count
    LEASED   lapse      READY
    LEASED   nack       READY
    LEASED   bury       DEAD      a nack with ``dead``
    WAITING  wake       READY     the delay is over
    WAITING  ack        DONE
    DEAD     buried     DONE      stored in the dead-letter topic
    DEAD     ack        DONE
    DEAD     revive     READY     the binding names no dead-letter topic any more

Nothing is kept of what is done: it is what lies between the open messages (`Entry`), and the ranges `Beyond` them. A run of fresh messages
that is leased in auto mode is one entry with one serial (a block), that comes back as one and is split where less of it is leased.

Cost: a lease, an ack, a lapse and a give-back take O(log n) steps of a heap, a block as many as a message. `Ledger.place` sorts what is open,
once a commit. Between the rooms: `Window` is what was read and not taken up, `Book` what is open, `Deadlines` when it lapses, `Lanes` the order
within keys.
"""

import heapq
import itertools
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from psubd.delivery.book import UNKNOWN, Book
from psubd.delivery.cursor import Attempts, Ranges, bitmap_span, check_attempts, check_ranges, fits
from psubd.delivery.deadlines import Deadlines
from psubd.delivery.lanes import Lanes, lane_of
from psubd.delivery.ranges import Beyond, Tried, join_ranges
from psubd.delivery.snapshot import Snapshot, entries_of, item_of
from psubd.delivery.states import Ending, Entry, Event, IllegalEvent, State
from psubd.delivery.terms import PLAIN, Death, Lease, Place, Rules
from psubd.delivery.window import OFFSET, Window, check_slice, portion
from psubd.model import Message, Slice

__all__ = ["Death", "IllegalEvent", "Lease", "Ledger", "Place", "Rules", "Snapshot"]

LEASED = int(State.LEASED)

KEEP_BYTES = 262_144
"""Payload of returned messages that stays in memory; the rest is read again. Held ones get half of it, so that what may be leased finds room."""


class Ledger:
    """One partition of one group.

    :param offset: the first offset that is not done. :param done: what is done past it. :param attempts: deliveries so far; as a commit said.
    :param room: characters that what is done may take in a commit (rule 6).
    :param serials: rising, never used twice by anybody.
    :param keep: payload bytes of returned messages that stay in memory.
    :ivar position: the offset that the next read has to ask for.
    """

    def __init__(
        self,
        offset: int,
        done: Ranges = (),
        attempts: Attempts = (),
        *,
        rules: Rules = PLAIN,
        room: int = 3_900,
        serials: Iterator[int] | None = None,
        keep: int = KEEP_BYTES,
    ) -> None:
        check_ranges(offset, done)
        check_attempts(offset, attempts)
        self.rules = rules
        self.position = offset
        self._room = room
        self._bitmap_span = bitmap_span(room)
        self._sure = offset  # messages below it may be taken up whatever is open (rule 6)
        self._serials = itertools.count(1) if serials is None else serials
        self._newest = 0  # serial
        self._window = Window()
        self._beyond = Beyond(done)
        self._tried = Tried(attempts)  # of messages that were not taken up yet
        self._reach = offset  # past the last message that was taken up: below, what is not open is done
        self._book = Book(keep)
        self._deadlines = Deadlines(self._book.entries)
        self._auto: dict[int, Entry] = {}  # what is leased in auto mode, by serial
        self._runs: dict[int, Sequence[Message]] = {}  # the messages of those of several
        self._overtaken: set[int] = set()  # leases in auto mode that `done_below` closed, and that are not settled yet
        self._deaths: list[int] = []  # not yet told
        self._lanes = Lanes(self._book) if rules.ordered else None

    # --- the window ---

    @property
    def fresh(self) -> int:
        """Messages that were read and never taken up."""
        return self._window.count

    @property
    def window_bytes(self) -> int:
        """Payload bytes that are kept: of those, and of held and returned ones."""
        return self._window.bytes + self._book.kept

    def feed(self, asked: int, found: Slice) -> None:
        """Take in the answer to a read at ``asked``.

        Messages before the log's start are gone: the ledger goes on at `Slice.first`, as after any other gap.

        :raises IllegalEvent: for another offset than `position`, or messages that do not rise from it.
        """
        if asked != self.position:
            raise IllegalEvent(f"a read at {asked}, where {self.position} was due")
        check_slice(asked, found)
        messages: Sequence[Message] = found.messages
        if self._beyond and messages and messages[0].offset < self._beyond.last:
            messages = [message for message in messages if message.offset not in self._beyond]
        self._window.extend(messages)
        self.position = self._beyond.past(max(found.next_offset, found.first))
        self._forget()

    def drop_window(self) -> None:
        """Forget what was read and is not out: it will be read again."""
        self.position = self._next_fresh
        self._window.clear()
        for entry in self._book.entries.values():
            self._book.drop(entry)

    def missing(self) -> int | None:
        """The first offset of a message that may be leased next, but whose payload is not in memory: to be read for `refill`."""
        if not self._book.ready or self.leased >= self.rules.max_in_flight:
            return None
        entry = self._front()
        return None if entry is None or entry.messages is not None else entry.start

    def refill(self, asked: int, found: Slice) -> None:
        """Take in the answer to a read at `missing`.

        Returned and held messages from ``asked`` up to `Slice.next_offset` get their payload, as far as it may be kept, the first of them in
        any case; those that are not in the log any more are done.

        :raises IllegalEvent: for messages that do not rise from ``asked``.
        """
        check_slice(asked, found)
        upto = max(found.next_offset, found.first)
        learned = False
        for index, entry in enumerate(self._book.lacking(asked, upto)):
            learned = self._refill_entry(entry, found.messages, upto, first=not index) or learned
        if learned and self._lanes is not None:
            self._lanes.arrange()

    # --- leases ---

    @property
    def leased(self) -> int:
        """Messages that are out."""
        return self._book.tally[LEASED]

    @property
    def returned(self) -> bool:
        """Whether anything may have come back that is not out again: without it nothing is `missing`."""
        return bool(self._book.ready)

    @property
    def died(self) -> bool:
        """Whether `take_deaths` has some to tell."""
        return bool(self._deaths)

    @property
    def waiting(self) -> int:
        """Messages that are delayed."""
        return self._book.tally[State.WAITING]

    @property
    def dead(self) -> int:
        """Messages on their way to the dead-letter topic."""
        return self._book.tally[State.DEAD]

    @property
    def idle(self) -> bool:
        """Whether nothing is out, waits or is dead: `place` says all that is to be kept."""
        return not (self.leased or self.waiting or self.dead)

    @property
    def ready(self) -> bool:
        """Whether a lease would be granted now. Like `lease` it may find dead messages (`take_deaths`)."""
        if self._book.tally[LEASED] >= self.rules.max_in_flight:
            return False
        entry = self._front() if self._book.ready else None
        if entry is not None:
            return entry.messages is not None and not self._veils(entry.start)
        return self._window.first is not None and self._fresh_front(0) is not None

    def lease(self, now: int, count: int, size: int, first_fits: bool = True, *, until: int | None = None, answer: int = 0) -> list[Lease]:
        """Hand out up to ``count`` messages of together ``size`` payload bytes: first what came back, then fresh ones, in offset order.

        What is due at ``now`` lapses first.

        :param now: ms, on the clock that leases are measured with.
        :param first_fits: the first message is handed out even if it alone is larger.
        :param until: ms; None: in auto mode.
        :param answer: the number of the answer it goes into: in auto mode, where order is kept, one may hold several messages of a key.
        """
        if self._deadlines.past(now):
            self.tick(now)
        count = min(count, self.rules.max_in_flight - self._book.tally[LEASED])
        lanes = self._lanes
        own = lanes.own(answer) if lanes is not None and until is None else []
        leases: list[Lease] = []
        while count > 0:
            lease = self._grant(count, size, first_fits, until, answer, own)
            if lease is None:
                break
            leases.append(lease)
            count -= len(lease.messages)
            size -= lease.size
            first_fits = False
        return leases

    def lease_next(self, now: int) -> Lease | None:
        """As ``lease(now, 1, ...)`` in auto mode, in few steps, where nothing is out of the ordinary. None: something is, or nothing may go out now:
        `lease` tells."""
        window, book = self._window, self._book
        message = window.first
        if message is None or book.ready or self._lanes is not None or message.offset >= self._sure or self._beyond.ends or self._tried:
            return None
        if book.tally[LEASED] >= self.rules.max_in_flight or self._deadlines.past(now):
            return None
        size = window.take_first()
        offset = message.offset
        serial = self._newest = next(self._serials)
        entry = Entry(offset, self._next_fresh, 1, message.timestamp, None, 1, State.LEASED, serial)
        self._reach = offset + 1
        book.enter(entry)
        self._auto[serial] = entry
        return Lease(serial, (message,), 1, None, size)

    def done(self, serial: int) -> None:
        """Auto: the messages of that lease were wholly handed over. :raises IllegalEvent: unless it stands."""
        entry = self._auto.get(serial)
        if entry is not None:
            self._close(entry, Event.DONE)
        elif serial in self._overtaken:
            self._overtaken.remove(serial)
        else:
            raise IllegalEvent(f"no lease {serial} in auto mode stands")

    def give_back(self, lease: Lease) -> None:
        """The messages of that lease were not wholly handed over: to the front again, the attempt does not count.

        Nothing happens where the lease ended in another way meanwhile.

        :raises IllegalEvent: for a lease that never was.
        """
        messages, size = lease.messages, lease.size
        entry = self._book.entries.get(messages[0].offset)
        if entry is None and lease.serial in self._runs:  # its first messages were done below it
            entry, messages = self._auto[lease.serial], self._runs[lease.serial]
            size = sum(message.size for message in messages)
        if entry is None or entry.serial != lease.serial or entry.state is not State.LEASED:
            if lease.serial > self._newest or messages[-1].offset >= self._reach:
                raise IllegalEvent(f"no lease {lease.serial} of offset {messages[0].offset}")
            self._overtaken.discard(lease.serial)
            return
        self._end(entry, Event.GIVE_BACK)
        entry.attempt -= 1
        if self._lanes is not None and entry.lane is None:
            for piece, message in zip(self._book.shatter(entry, messages), messages, strict=True):
                piece.lane = lane_of(message.key)
                self._book.keep(piece, (message,), message.size, self._book.keep_bytes)
            self._lanes.arrange()
        else:
            self._book.keep_returned(entry, messages, size)
            self._come_back(entry)

    def ack(self, offset: int, serial: int) -> bool:
        """The holder of that lease has done the message (rule 7). False: it lost it.

        A message that compaction took and that lies within a run which is out in auto mode cannot be told from those of the run: False.
        """
        entry = self._book.entries.get(offset)
        if entry is None:
            return self._ack_unknown(offset)
        if entry.serial and (entry.serial != serial or (entry.due is None and entry.state is State.LEASED)):
            return False
        self._close(entry, Event.ACK)
        return True

    def nack(self, offset: int, serial: int, now: int, delay: int = 0) -> bool:
        """The holder lets the message go: it comes again after its backoff, at least after ``delay`` ms. False: it lost it.

        Said again, before the message was leased again, it changes nothing and is True.
        """
        entry = self._last_lease(offset, serial, now)
        if entry is None or not self._stands(entry):
            return entry is not None and entry.ending is not Ending.NONE
        self._end(entry, Event.NACK)
        entry.ending = Ending.NACKED
        self._return(entry, now, delay)
        return True

    def bury(self, offset: int, serial: int, now: int) -> bool:
        """The holder lets the message go, to the dead-letter topic. False: it lost it. Said again it is True."""
        entry = self._last_lease(offset, serial, now)
        if entry is None or not self._stands(entry):
            return entry is not None and entry.ending is Ending.BURIED
        self._end(entry, Event.BURY)
        entry.ending = Ending.BURIED
        self._deaths.append(offset)
        return True

    def extend(self, offset: int, serial: int, now: int, until: int) -> bool:
        """The lease lasts until ``until``. False: it does not stand."""
        entry = self._last_lease(offset, serial, now)
        if entry is None or not self._stands(entry):
            return False
        self._deadlines.set(entry, until)
        return True

    def done_below(self, offset: int) -> None:
        """All messages below ``offset`` are done (rule 11). Where all of them are, nothing happens.

        ``position`` may move: a read that was asked for before is not to be fed any more where it did."""
        if offset <= self.committed:
            return
        cut = False
        for entry in self._book.below(offset):
            cut = self._pass(entry, offset) or cut
        self._window.drop_below(offset)
        self.position = max(self.position, self._beyond.past(offset))
        self._reach = max(self._reach, offset)
        if cut and self._lanes is not None:
            self._lanes.arrange()
        self._forget()

    def barrier(self, offset: int) -> int | None:
        """The first offset from ``offset`` on of what is out, waits, or is on its way to the dead-letter topic: who reads past it would skip a
        message that is somebody else's. None: there is none."""
        tally = self._book.tally
        if not (tally[LEASED] or tally[State.WAITING] or tally[State.DEAD]):
            return None
        entries = self._book.entries.values()
        held = (entry for entry in entries if entry.end > offset and entry.state in (State.LEASED, State.WAITING, State.DEAD))
        return min((max(entry.start, offset) for entry in held if entry.count > 1 or entry.start >= offset), default=None)

    def is_done(self, offset: int) -> bool:
        """Whether the message at ``offset`` is done, as far as it is known here: one that was not read yet is not."""
        if offset < self.committed or offset in self._beyond:
            return True
        return offset < self._reach and offset not in self._book.entries and not self._book.block_at(offset)

    def tick(self, now: int) -> bool:
        """Lapse the leases and end the delays that are due. True: there were some."""
        found = False
        while (entry := self._deadlines.pop(now)) is not None:
            found = True
            due, entry.due = entry.due or 0, None
            if entry.state is State.LEASED:
                self._end(entry, Event.LAPSE)
                self._return(entry, due, 0)
            else:
                self._book.step(entry, Event.WAKE)
                self._come_back(entry)
        return found

    @property
    def due(self) -> int | None:
        """When `tick` has something to do next."""
        return self._deadlines.next

    def take_deaths(self) -> list[Death]:
        """The messages that died since the last call."""
        if not self._deaths:
            return []
        offsets, self._deaths = self._deaths, []
        entries = map(self._book.entries.get, offsets)
        dead = [entry for entry in entries if entry is not None and entry.state is State.DEAD]
        return [Death(entry.start, entry.attempt, "nack" if entry.ending is Ending.BURIED else "max_attempts") for entry in dead]

    def buried(self, offset: int) -> None:
        """The dead message is stored in the dead-letter topic: it is done. Nothing where it is done already.

        :raises IllegalEvent: for one that is not dead.
        """
        entry = self._dead(offset)
        if entry is not None:
            self._close(entry, Event.BURIED)

    def revive(self, offset: int) -> None:
        """The dead message has no dead-letter topic to go to: to the front again. Otherwise like `buried`."""
        entry = self._dead(offset)
        if entry is not None:
            self._book.step(entry, Event.REVIVE)
            entry.ending = Ending.NONE
            self._come_back(entry)

    def bind(self, rules: Rules, now: int) -> None:
        """Go by other rules from now on. What is out or waits stays so."""
        self.tick(now)
        self.rules = rules
        if rules.ordered and self._lanes is None:
            self._keep_order()
        elif not rules.ordered and self._lanes is not None:
            self._lanes = None
            for entry in self._book.entries.values():
                entry.answer = 0
                if entry.state is State.HELD:
                    self._book.step(entry, Event.FREE)
            self._book.sort_ready()

    # --- the place ---

    @property
    def committed(self) -> int:
        """The first offset that is not done (rule 3)."""
        first = self._book.first
        return self._beyond.past(self._next_fresh) if first is None else first

    def place(self) -> Place:
        """What a commit has to say."""
        committed = self.committed
        entries = self._book.sorted()
        ends = [entry.end for entry in entries]
        starts = [entry.start for entry in entries[1:]] + [self._reach]
        runs = [(end, start) for end, start in zip(ends, starts, strict=False) if end < start]
        return Place(committed, join_ranges(runs, self._beyond.past_of(committed)), self._attempts(committed, entries))

    def oldest(self) -> Message | None:
        """The first message that is not done, if it is known; without key, value and headers where they are not in memory."""
        first = self._book.first
        if first is None:
            return self._window.first
        entry = self._book.entries[first]
        if entry.messages is not None:
            return entry.messages[0]
        return None if entry.timestamp == UNKNOWN else Message(entry.start, entry.timestamp, None, None, ())

    def snapshot(self, now: int) -> Snapshot:
        """All that another ledger needs to go on. What is out in auto mode is in it as given back."""
        items = tuple(item_of(entry, now) for entry in self._book.sorted())
        position = self._beyond.past(self._next_fresh)
        done = tuple(self._beyond.past_of(self.committed))
        return Snapshot(position, self.committed, self._reach, self._newest, done, tuple(self._pending(self._reach)), items)

    @classmethod
    def restore(
        cls,
        snapshot: Snapshot,
        now: int,
        *,
        rules: Rules = PLAIN,
        room: int = 3_900,
        serials: Iterator[int] | None = None,
        keep: int = KEEP_BYTES,
    ) -> "Ledger":
        """The ledger that goes on from ``snapshot``: the leases keep their serials; what was left of their time counts from ``now``.

        :raises ValueError: for one that no ledger can have made.
        """
        ledger = cls(snapshot.reach, rules=rules, room=room, serials=serials, keep=keep)
        ledger._load(snapshot, now)
        return ledger

    # --- inside: leases ---

    def _grant(self, count: int, size: int, first_fits: bool, until: int | None, answer: int, own: list[int]) -> Lease | None:
        """The next lease, of at most ``count`` messages; None: nothing can go out now, or nothing that fits."""
        front = self._front() if self._book.ready else None
        entry = self._next_own(own) if own else None
        if entry is None or (front is not None and front.start < entry.start):
            entry = front
        if entry is not None:
            return self._grant_again(entry, count, size, first_fits, until, answer, own)
        if until is None and self._lanes is None:
            return self._grant_run(count, size, first_fits)
        message = self._fresh_front(0 if until is not None else answer)
        if message is None:
            return None
        taken = self._window.size(1)
        if taken > size and not first_fits:
            return None
        messages = self._window.take(1)
        return self._hand_out(self._take_up(message, lane_of(message.key)), messages, taken, until, answer)

    def _grant_again(self, entry: Entry, count: int, size: int, first_fits: bool, until: int | None, answer: int, own: list[int]) -> Lease | None:
        """What came back, or is held and may go into this answer."""
        messages = entry.messages
        if messages is None or self._veils(entry.start):
            return None
        if entry.count > 1 and until is not None:
            for piece, message in zip(self._book.shatter(entry, messages), messages, strict=True):
                piece.lane = lane_of(message.key)
            messages = messages[:1]
        goes, taken = (1, entry.size) if entry.count == 1 else portion(messages, count, size, first_fits)
        if goes == 0 or (taken > size and not first_fits):
            return None
        if goes < entry.count:
            self._book.split(entry, messages, goes)
            messages = messages[:goes]
        heapq.heappop(self._book.ready if entry.state is State.READY else own)
        lease = self._hand_out(entry, messages, taken, until, answer)
        if entry.answer and self._lanes is not None:
            self._lanes.push_own(own, entry.lane, answer)
        return lease

    def _grant_run(self, count: int, size: int, first_fits: bool) -> Lease | None:
        """A run of fresh messages, as one block in auto mode."""
        first = self._fresh_front(0)
        if first is None:
            return None
        below = None
        if self._beyond.ends or self._tried:
            bounds = [bound for bound in (self._beyond.next_start(first.offset), self._tried.next(first.offset)) if bound is not None]
            below = min(bounds, default=None)
            if first.offset in self._tried:
                count = 1
        count = self._fitting(self._window.run(count, size, first_fits, below))
        if count == 0:
            return None
        taken = self._window.size(count)
        messages = self._window.take(count)
        return self._hand_out(self._take_up(first, None, messages), messages, taken, None, 0)

    def _hand_out(self, entry: Entry, messages: Sequence[Message], size: int, until: int | None, answer: int) -> Lease:
        if entry.messages is not None:
            self._book.drop(entry)
        self._book.step(entry, Event.LEASE)
        serial = self._newest = entry.serial = next(self._serials)
        entry.ending = Ending.NONE
        entry.attempt += 1
        if until is None:
            self._auto[serial] = entry
            if entry.count > 1:
                self._runs[serial] = messages
            if answer and self._lanes is not None:
                self._lanes.went_out(entry, answer)
        else:
            if entry.lane is None:
                entry.lane = lane_of(messages[0].key)
            self._deadlines.set(entry, until)
        return Lease(serial, messages, entry.attempt, until, size)

    def _front(self) -> Entry | None:
        """The first that came back; those that were tried too often die on the way."""
        most = self.rules.max_attempts
        entry = self._book.front()
        while entry is not None and most is not None and entry.attempt >= most:
            self._die(entry)
            entry = self._book.front()
        return entry

    def _next_own(self, own: list[int]) -> Entry | None:
        """The first of those heaped that may go out."""
        most = self.rules.max_attempts
        while own:
            entry = self._book.entries[own[0]]
            if entry.messages is not None and (most is None or entry.attempt < most):
                return entry
            heapq.heappop(own)
        return None

    def _fresh_front(self, answer: int) -> Message | None:
        """The first fresh message, if the rules let it go now, into that answer.

        On the way those that were tried too often die, and those whose key waits are held.
        """
        most = self.rules.max_attempts
        lanes = self._lanes
        while (message := self._window.first) is not None:
            if (message.offset >= self._sure and not self._fits(message.offset)) or self._veils(message.offset):
                return None
            if most is not None and self._tried.of(message.offset) >= most:
                self._window.take(1)
                self._die(self._take_up(message, lane_of(message.key)))
            elif lanes is not None and lanes.waits(lane_of(message.key), answer):
                self._hold(message)
            else:
                return message
        return None

    def _hold(self, message: Message) -> None:
        """The first fresh message has to wait for another one of its key."""
        size = self._window.size(1)
        messages = self._window.take(1)
        entry = self._take_up(message, lane_of(message.key))
        self._book.step(entry, Event.HOLD)
        self._book.keep(entry, messages, size, self._book.keep_bytes // 2)

    def _fits(self, offset: int, more: int = 1) -> bool:
        """Rule 6, for ``more`` messages up to ``offset``.

        Each that is not done may end a run of done ones, so there are never more runs than that, and those beyond.
        """
        first = self.committed
        span = max(offset + 1, self._beyond.last) - first
        if span <= self._bitmap_span:
            self._sure = first + self._bitmap_span
            return True
        return offset == first or fits(span, self._book.open + more + len(self._beyond), self._room)

    def _fitting(self, count: int) -> int:
        """Rule 6, for a run: how many of the first ``count`` fresh messages, of which the first was asked before."""
        if count <= 1 or self._window.offset(count - 1) < self._sure or self._fits(self._window.offset(count - 1), count):
            return count
        return 1 + bisect_left(range(2, count), True, key=lambda number: not self._fits(self._window.offset(number - 1), number))

    # --- inside: what comes back ---

    def _last_lease(self, offset: int, serial: int, now: int) -> Entry | None:
        """The entry whose last lease has that serial, after what is due at ``now`` lapsed."""
        self.tick(now)
        entry = self._book.entries.get(offset)
        return entry if entry is not None and entry.serial == serial else None

    def _stands(self, entry: Entry) -> bool:
        """Whether it is out, explicitly."""
        return entry.state is State.LEASED and entry.due is not None

    def _end(self, entry: Entry, event: Event) -> None:
        """The lease of that entry ends, and it is not done."""
        self._book.step(entry, event)
        self._auto.pop(entry.serial, None)
        self._runs.pop(entry.serial, None)
        entry.due = None
        if self._lanes is not None:
            self._lanes.came_back(entry)

    def _return(self, entry: Entry, at: int, delay: int) -> None:
        """A lease lapsed or was let go at ``at``: the message is dead, waits, or may go out again (rule 8)."""
        most = self.rules.max_attempts
        delay = max(delay, self.rules.backoff(entry.attempt))
        if most is not None and entry.attempt >= most:
            self._die(entry)
        elif delay > 0:
            self._book.step(entry, Event.DELAY)
            self._deadlines.set(entry, at + delay)
        else:
            self._come_back(entry)

    def _come_back(self, entry: Entry) -> None:
        """It is READY: to the front, or held where an earlier one of its key is not done."""
        if self._lanes is not None and not self._lanes.leads(entry):
            self._book.step(entry, Event.HOLD)
        else:
            self._book.give(entry)

    def _die(self, entry: Entry) -> None:
        self._book.drop(entry)
        self._book.step(entry, Event.DIE)
        self._deaths.append(entry.start)

    def _dead(self, offset: int) -> Entry | None:
        """None: it is done."""
        entry = self._book.entries.get(offset)
        if entry is not None and entry.state is not State.DEAD:
            raise IllegalEvent(f"offset {offset} is not dead but {entry.state.name.lower()}")
        if entry is None and (offset >= self._reach or self._book.block_at(offset)):
            raise IllegalEvent(f"offset {offset} never died")
        return entry

    def _ack_unknown(self, offset: int) -> bool:
        """An ack by a lease of an earlier ledger, of what has no entry."""
        if offset < self._reach:
            return not self._book.block_at(offset)
        here = self._window.holds(offset)
        if offset in self._beyond or (offset < self.position and not here):
            return True
        if not self._fits(offset):
            return False
        self._beyond.add(offset)
        self._sure = 0
        if here:
            self._window.strike(offset)
        self._forget()
        return True

    # --- inside: entries ---

    def _take_up(self, message: Message, lane: int | None, run: Sequence[Message] = ()) -> Entry:
        """The entry of a message, or of a run that begins with it, that has just left the window."""
        offset = message.offset
        last = run[-1].offset if run else offset
        end = self._next_fresh
        if self._beyond.ends:
            end = min(end, self._beyond.next_start(last) or end)
            self._beyond.forget(last + 1)
        entry = Entry(offset, end, len(run) or 1, message.timestamp, lane, self._tried.take(offset) if self._tried else 0)
        self._reach = last + 1
        self._book.enter(entry)
        if self._lanes is not None:
            self._lanes.append(entry)
        return entry

    def _close(self, entry: Entry, event: Event) -> None:
        """It is done: nothing is kept of it."""
        self._book.step(entry, event)
        self._book.remove(entry)
        if entry.due is None:
            self._auto.pop(entry.serial, None)
            if self._runs:
                self._runs.pop(entry.serial, None)
        if self._lanes is not None:
            self._lanes.closed(entry)
        if not self._book.entries and (self._beyond.ends or self._tried):
            self._forget()

    def _pass(self, entry: Entry, offset: int) -> bool:
        """An entry that begins below ``offset``: what lies below is done. True: a part of it stays, and begins elsewhere."""
        out = entry.state is State.LEASED and entry.due is None
        messages = self._runs.get(entry.serial) if out else entry.messages
        goes = entry.count
        if entry.count > 1 and entry.end > offset:
            if messages is None:
                self._book.cut(entry, offset)
                return True
            goes = bisect_left(messages, offset, key=OFFSET)
        if goes == entry.count:
            if out:
                self._overtaken.add(entry.serial)
            self._close(entry, Event.ACK)
            return False
        assert messages is not None
        rest = self._book.split(entry, messages, goes)
        self._close(entry, Event.ACK)
        if out:
            self._auto[rest.serial] = rest
            self._runs[rest.serial] = messages[goes:]
        return True

    def _refill_entry(self, entry: Entry, found: Sequence[Message], upto: int, first: bool) -> bool:
        """The messages of an entry as far as they were read, up to ``upto``. True: its key is known now."""
        at = bisect_left(found, entry.start, key=OFFSET)
        messages = found[at : bisect_left(found, min(entry.end, upto), at, key=OFFSET)]
        if not (messages or upto < entry.end) or (entry.count == 1 and not (messages and messages[0].offset == entry.start)):
            self._close(entry, Event.VANISH)
            return False
        known = entry.lane is not None
        if entry.count > 1:
            return self._refill_block(entry, messages, upto, first)
        size = messages[0].size
        most = self._book.keep_bytes // (1 if entry.state is State.READY else 2)
        self._book.keep(entry, messages, size, self._book.kept + size if first else most)
        entry.lane = lane_of(messages[0].key)
        return not known

    def _refill_block(self, entry: Entry, messages: Sequence[Message], upto: int, first: bool) -> bool:
        filled, changed = self._book.refill_block(entry, messages, upto, first)
        if filled is not None and self._lanes is not None and filled.messages is not None:
            messages = filled.messages
            for piece, message in zip(self._book.shatter(filled, messages), messages, strict=True):
                piece.lane = lane_of(message.key)
        return changed

    def _keep_order(self) -> None:
        """From now on within each key."""
        for block in self._book.blocks():
            if block.messages is not None:
                self._book.shatter(block, block.messages)
        for entry in self._book.entries.values():
            if entry.lane is None and entry.messages is not None:
                entry.lane = lane_of(entry.messages[0].key)
        self._lanes = Lanes(self._book)

    # --- inside: what lies beyond ---

    @property
    def _next_fresh(self) -> int:
        """The first offset of which nothing was taken up."""
        first = self._window.first
        return self.position if first is None else first.offset

    def _veils(self, offset: int) -> bool:
        return self._lanes is not None and self._lanes.veils(offset)

    def _forget(self) -> None:
        """What lies below what was taken up, or where nothing is open, before what is fresh."""
        limit = self._reach if self._book.entries else max(self._reach, self._next_fresh)
        self._beyond.forget(limit)
        if self._tried:
            self._tried.forget(limit)

    def _pending(self, start: int) -> list[tuple[int, int]]:
        """The attempts of messages from ``start`` on that were not taken up."""
        return [(at, count) for at, count in self._tried.since(start) if at not in self._beyond]

    def _attempts(self, committed: int, entries: Sequence[Entry]) -> Attempts:
        counted = [(entry.start, entry.counted) for entry in entries if entry.attempt > 1]
        return tuple((at, count) for at, count in counted + self._pending(max(committed, self._reach)) if count > 1)

    def _load(self, snapshot: Snapshot, now: int) -> None:
        check_ranges(snapshot.reach - 1, snapshot.done)
        self.position = snapshot.position
        self._newest = snapshot.newest
        self._beyond = Beyond(snapshot.done)
        self._tried = Tried(snapshot.attempts)
        for entry, left in entries_of(snapshot.items):
            self._book.enter(entry)
            if left is not None:
                self._deadlines.set(entry, now + left)
            elif entry.state is State.READY:
                self._book.give(entry)
            else:
                self._deaths.append(entry.start)
        if self.rules.ordered:
            self._lanes = Lanes(self._book)
