"""The ledger's rules, one by one, and against a naive model."""

import os
import sys

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from psubd.delivery.cursor import Cursor, encode
from psubd.delivery.ledger import TRANSITIONS, Entry, Event, IllegalEvent, Ledger, State, join_ranges
from psubd.model import Message, Slice


def message(offset, size=10):
    return Message(offset, 1000 + offset, None, b"v" * size, ())


def portion(start, offsets, next_offset=None, first=0, end=None):
    """The answer to a read at ``start`` that found ``offsets``."""
    offsets = list(offsets)
    after = next_offset if next_offset is not None else (offsets[-1] + 1 if offsets else start)
    return Slice(tuple(message(offset) for offset in offsets), after, first, end if end is not None else after)


def fed(count=10, **settings_):
    ledger = Ledger(0, **settings_)
    ledger.feed(0, portion(0, range(count)))
    return ledger


def offsets_of(leases):
    return [lease.message.offset for lease in leases]


class LeaseTests(SynchronousTestCase):
    def test_offset_order(self):
        """Messages are leased for the first time in offset order, each with a serial of its own."""
        ledger = fed()
        leases = ledger.lease(5, 4, 10**6) + ledger.lease(6, 4, 10**6)
        self.assertEqual(offsets_of(leases), list(range(8)))
        self.assertEqual(len({lease.serial for lease in leases}), 8)
        self.assertEqual([lease.since for lease in leases], [5] * 4 + [6] * 4)
        self.assertEqual({lease.attempt for lease in leases}, {1})

    def test_size(self):
        """An answer keeps to its bytes, but one message always fits."""
        ledger = fed()
        self.assertEqual(offsets_of(ledger.lease(0, 10, 25)), [0, 1])
        self.assertEqual(offsets_of(ledger.lease(0, 10, 3)), [2])
        self.assertEqual(ledger.lease(0, 10, 3, first_fits=False), [])
        self.assertEqual(offsets_of(ledger.lease(0, 1, 10)), [3])

    def test_given_back_comes_first_in_order(self):
        """What was given back goes before newer ones, in offset order, at the same attempt, and with a new serial."""
        ledger = fed()
        leases = ledger.lease(0, 5, 10**6)
        for lease in (leases[3], leases[1], leases[2]):
            ledger.give_back(lease.serial)
        again = ledger.lease(1, 5, 10**6)
        self.assertEqual(offsets_of(again), [1, 2, 3, 5, 6])
        self.assertEqual({lease.attempt for lease in again}, {1})
        self.assertTrue({lease.serial for lease in again}.isdisjoint({lease.serial for lease in leases}))

    def test_max_in_flight(self):
        """No more are out than max_in_flight, at each moment; it can be set anew."""
        ledger = fed(max_in_flight=3)
        leases = ledger.lease(0, 10, 10**6)
        self.assertEqual(len(leases), 3)
        self.assertFalse(ledger.ready)
        ledger.give_back(leases[0].serial)
        self.assertTrue(ledger.ready)
        self.assertEqual(offsets_of(ledger.lease(0, 10, 10**6)), [0])
        ledger.max_in_flight = 5
        self.assertEqual(offsets_of(ledger.lease(0, 10, 10**6)), [3, 4])


class CommittedTests(SynchronousTestCase):
    def test_never_past_a_hole(self):
        """The committed offset stays at the first message that is not done; what is done past it is kept beside it."""
        ledger = fed()
        leases = ledger.lease(0, 6, 10**6)
        for lease in (leases[1], leases[2], leases[4]):
            ledger.done(lease.serial)
        self.assertEqual(ledger.place(), (0, ((1, 3), (4, 5))))
        ledger.done(leases[0].serial)
        self.assertEqual(ledger.place(), (3, ((4, 5),)))
        ledger.give_back(leases[3].serial)
        self.assertEqual(ledger.place(), (3, ((4, 5),)))

    def test_a_fresh_message_is_a_hole(self):
        """What was read and not leased is not done."""
        ledger = fed()
        [lease] = ledger.lease(0, 1, 10**6)
        ledger.done(lease.serial)
        self.assertEqual(ledger.place(), (1, ()))

    def test_gaps_are_done(self):
        """An offset without a message holds nothing up, before, between and after messages."""
        ledger = Ledger(0)
        ledger.feed(0, portion(0, [3, 4, 9], next_offset=20))
        self.assertEqual(ledger.committed, 3)
        leases = ledger.lease(0, 10, 10**6)
        self.assertEqual(offsets_of(leases), [3, 4, 9])
        ledger.done(leases[0].serial)
        ledger.done(leases[1].serial)
        self.assertEqual(ledger.committed, 9)
        ledger.done(leases[2].serial)
        self.assertEqual(ledger.place(), (20, ()))
        self.assertEqual(ledger.position, 20)

    def test_a_gap_alone(self):
        """A read that found only a gap moves the place on."""
        ledger = Ledger(5)
        ledger.feed(5, portion(5, [], next_offset=50))
        self.assertEqual(ledger.place(), (50, ()))

    def test_the_log_began_later(self):
        """Where retention took the messages at the position, the ledger goes on at the log's start."""
        ledger = Ledger(5)
        ledger.feed(5, portion(5, [], next_offset=5, first=30))
        self.assertEqual((ledger.position, ledger.committed), (30, 30))


class LoadedTests(SynchronousTestCase):
    def test_done_is_not_leased_again(self):
        """What a commit said is done past its offset is never leased, and said again by the next commit."""
        ledger = Ledger(0, ((2, 4), (6, 7)))
        ledger.feed(0, portion(0, range(5)))
        self.assertEqual(ledger.place(), (0, ((2, 4), (6, 7))))
        leases = ledger.lease(0, 10, 10**6)
        self.assertEqual(offsets_of(leases), [0, 1, 4])
        ledger.feed(5, portion(5, range(5, 9)))
        leases += ledger.lease(0, 10, 10**6)
        self.assertEqual(offsets_of(leases), [0, 1, 4, 5, 7, 8])
        ledger.done(leases[2].serial)
        self.assertEqual(ledger.place(), (0, ((2, 5), (6, 7))))
        ledger.done(leases[0].serial)
        ledger.done(leases[1].serial)
        self.assertEqual(ledger.place(), (5, ((6, 7),)))

    def test_done_is_not_read_again(self):
        """A position inside of what is done goes on past it."""
        ledger = Ledger(0, ((2, 400),))
        ledger.feed(0, portion(0, [0, 1]))
        self.assertEqual(ledger.position, 400)
        for lease in ledger.lease(0, 2, 10**6):
            ledger.done(lease.serial)
        self.assertEqual(ledger.place(), (400, ()))

    def test_loaded_holes_that_are_gaps(self):
        """A hole of the commit that compaction emptied since is done."""
        ledger = Ledger(0, ((5, 8), (10, 12)))
        ledger.feed(0, portion(0, [20], next_offset=21))
        self.assertEqual(ledger.place(), (20, ()))

    def test_more_is_loaded_than_fits(self):
        """Where a commit says more than fits today, the group goes on message by message: it never stands still."""
        many = tuple((at, at + 1) for at in range(2, 4000, 2))
        ledger = Ledger(0, many, room=20)
        ledger.feed(0, portion(0, range(4000)))
        for expected in range(1, 400, 2):
            leases = ledger.lease(0, 10, 10**6)
            if expected == 1:
                self.assertEqual(offsets_of(leases), [0])
                ledger.done(leases[0].serial)
                leases = ledger.lease(0, 10, 10**6)
            self.assertEqual(offsets_of(leases), [expected])
            ledger.done(leases[0].serial)


class RoomTests(SynchronousTestCase):
    def test_leases_keep_to_what_can_be_written(self):
        """No further message is leased than a commit can tell of, and the rest comes when the first is done."""
        ledger = Ledger(0, room=40)
        ledger.feed(0, portion(0, range(1000)))
        leases = ledger.lease(0, 1000, 10**6)
        self.assertTrue(10 < len(leases) < 1000, len(leases))
        for lease in leases[1::2]:
            ledger.done(lease.serial)
        self.assertEqual(ledger.lease(0, 1000, 10**6), [])
        for lease in leases[0:20:2]:
            ledger.done(lease.serial)
        self.assertTrue(ledger.ready)

    def test_wide_gaps_do_not_stop_it(self):
        """On a compacted topic, where offsets lie millions apart, many may be out at a time."""
        ledger = Ledger(0)
        ledger.feed(0, portion(0, range(0, 10**9, 10**7)))
        self.assertEqual(len(ledger.lease(0, 1000, 10**6)), 100)


class IllegalTests(SynchronousTestCase):
    def refused(self, ledger, call, *arguments):
        before = (ledger.place(), ledger.position, ledger.leased, ledger.fresh, ledger.fresh_bytes)
        with self.assertRaises(IllegalEvent):
            call(*arguments)
        self.assertEqual(before, (ledger.place(), ledger.position, ledger.leased, ledger.fresh, ledger.fresh_bytes))

    def test_a_lease_that_is_not_there(self):
        """A lease that never was, is done or was given back takes no event, and nothing changes."""
        ledger = fed()
        first, second = ledger.lease(0, 2, 10**6)
        ledger.done(first.serial)
        ledger.give_back(second.serial)
        for serial in (first.serial, second.serial, 0, 99):
            self.refused(ledger, ledger.done, serial)
            self.refused(ledger, ledger.give_back, serial)

    def test_a_read_that_was_not_due(self):
        """An answer to another read than the one that was due, or one that does not rise, is refused."""
        ledger = fed()
        self.refused(ledger, ledger.feed, 9, portion(9, [9]))
        self.refused(ledger, ledger.feed, 10, portion(10, [9, 10]))
        self.refused(ledger, ledger.feed, 10, portion(10, [11, 11]))
        self.refused(ledger, ledger.feed, 10, portion(10, [10, 11], next_offset=11))
        self.refused(ledger, ledger.feed, 10, portion(10, [], next_offset=9))

    def test_a_place_that_cannot_be(self):
        """A ledger does not begin with ranges that are out of order or at its own offset."""
        for done in [((0, 2),), ((3, 3),), ((5, 6), (2, 3))]:
            with self.assertRaises(ValueError):
                Ledger(0, done)

    def test_the_table(self):
        """Every step that the table does not name is illegal, and leaves the message as it was."""
        for state in State:
            for event in Event:
                entry = Entry(message(1))
                entry.state = state
                if (state, event) in TRANSITIONS:
                    entry.become(event)
                    self.assertEqual(entry.state, TRANSITIONS[state, event])
                else:
                    with self.assertRaises(IllegalEvent):
                        entry.become(event)
                    self.assertEqual(entry.state, state)


class WindowTests(SynchronousTestCase):
    def test_forgotten_and_read_again(self):
        """A window that was forgotten is read again from where it began; nothing is skipped or leased twice."""
        ledger = fed()
        out = ledger.lease(0, 3, 10**6)
        self.assertEqual((ledger.fresh, ledger.fresh_bytes), (7, 70))
        ledger.drop_window()
        self.assertEqual((ledger.fresh, ledger.fresh_bytes, ledger.position), (0, 0, 3))
        ledger.feed(3, portion(3, range(3, 6)))
        self.assertEqual(offsets_of(ledger.lease(0, 10, 10**6)), [3, 4, 5])
        self.assertEqual(ledger.committed, out[0].message.offset)

    def test_oldest(self):
        """The oldest message that is not done is known while it is in memory."""
        ledger = fed(3)
        self.assertEqual(ledger.oldest().offset, 0)
        first, second, third = ledger.lease(0, 3, 10**6)
        ledger.done(first.serial)
        self.assertEqual(ledger.oldest().offset, 1)
        ledger.done(third.serial)
        ledger.done(second.serial)
        self.assertIsNone(ledger.oldest())


class CostTests(SynchronousTestCase):
    def test_cost_does_not_grow_with_what_is_out(self):
        """Leasing, doing and giving back take as many steps with 200 messages out as with 20,000."""
        self.assertLess(self.steps(20_000), 3 * self.steps(200))

    def steps(self, out):
        """Lines run by a hundred rounds of lease, done and give back while ``out`` messages are leased."""
        ledger = Ledger(0, max_in_flight=10**6)
        ledger.feed(0, portion(0, range(out + 1000)))
        ledger.lease(0, out, 10**9)
        lines = 0

        def count(frame, event, argument):
            nonlocal lines
            lines += 1
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            for _ in range(100):
                first, second = ledger.lease(0, 2, 10**6)
                ledger.done(first.serial)
                ledger.give_back(second.serial)
        finally:
            sys.settrace(before)
        return lines


class JoinTests(SynchronousTestCase):
    def test_join(self):
        """Two sets of ranges become one; what touches or overlaps is one range."""
        self.assertEqual(join_ranges([(1, 3), (8, 9)], [(3, 5), (6, 7), (20, 30)]), ((1, 5), (6, 7), (8, 9), (20, 30)))
        self.assertEqual(join_ranges([(1, 9)], [(2, 3)]), ((1, 9),))


class Naive:
    """The rules, written as plainly as they can be: a set of what exists, of what is done, a dict of who holds what."""

    def __init__(self):
        self.log = {}  # offset -> message, what the storage has now
        self.end = 0
        self.done = set()
        self.out = {}  # serial -> offset
        self.returned = set()
        self.begun = set()  # leased at least once by this ledger

    def committed(self, known_to):
        holes = [offset for offset in self.log if offset not in self.done and offset < known_to]
        return min(holes) if holes else known_to


class LedgerMachine(RuleBasedStateMachine):
    """Histories of one partition: the log grows with gaps, is read, leased, done, given back, compacted, cut; the node restarts."""

    ROOM = 24

    def __init__(self):
        super().__init__()
        self.naive = Naive()
        self.ledger = Ledger(0, max_in_flight=16, room=self.ROOM)
        self.held = []

    @rule(gaps=st.lists(st.sampled_from([0, 0, 0, 1, 3, 1000, 10**6]), min_size=4, max_size=20), count=st.integers(1, 20))
    def publish(self, gaps, count):
        for gap in gaps:
            offset = self.naive.end + gap
            self.naive.log[offset] = message(offset)
            self.naive.end = offset + 1
        self.read(count)
        self.lease(count)

    @rule(trailing=st.integers(1, 5))
    def marker(self, trailing):
        """Offsets at the log's end that never hold a message (transaction markers)."""
        self.naive.end += trailing

    @rule(count=st.integers(1, 10))
    def read(self, count):
        at = self.ledger.position
        there = sorted(offset for offset in self.naive.log if offset >= at)[:count]
        later = [offset for offset in self.naive.log if offset > (there[-1] if there else at - 1)]
        after = min(later) if later else max(self.naive.end, at)
        self.ledger.feed(at, Slice(tuple(self.naive.log[offset] for offset in there), after, 0, self.naive.end))

    @rule(count=st.integers(1, 15))
    def lease(self, count):
        expected = sorted(self.naive.returned)[:count]
        leases = self.ledger.lease(0, count, 10**6)
        got = offsets_of(leases)
        assert got == sorted(got)
        assert got[: len(expected)] == expected[: len(got)], (got, expected)
        for lease in leases:
            offset = lease.message.offset
            assert offset in self.naive.log or offset in self.naive.begun
            assert offset not in self.naive.done
            assert offset not in self.naive.out.values()
            assert lease.serial not in self.naive.out
            if offset not in self.naive.returned:
                assert all(offset > other for other in self.naive.begun), "not in order the first time"
            self.naive.returned.discard(offset)
            self.naive.begun.add(offset)
            self.naive.out[lease.serial] = offset

    @precondition(lambda self: self.naive.out)
    @rule(fates=st.lists(st.sampled_from(["done", "done", "back", "stay"]), min_size=1, max_size=12), backwards=st.booleans())
    def settle(self, fates, backwards):
        """What is out is done, comes back or stays out, as ``fates`` says in turn, from the newest on or from the oldest."""
        for index, serial in enumerate(sorted(self.naive.out, reverse=backwards)):
            fate = fates[index % len(fates)]
            if fate == "done":
                self.ledger.done(serial)
                self.naive.done.add(self.naive.out.pop(serial))
            elif fate == "back":
                self.ledger.give_back(serial)
                self.naive.returned.add(self.naive.out.pop(serial))

    def all_done(self):
        for serial in list(self.naive.out):
            self.ledger.done(serial)
            self.naive.done.add(self.naive.out.pop(serial))

    @rule(serial=st.integers(-1, 200))
    def illegal(self, serial):
        if serial in self.naive.out:
            return
        before = (self.ledger.place(), self.ledger.leased, self.ledger.position)
        for call in (self.ledger.done, self.ledger.give_back):
            try:
                call(serial)
            except IllegalEvent:
                pass
            else:
                raise AssertionError("took an event for a lease that is not there")
        assert before == (self.ledger.place(), self.ledger.leased, self.ledger.position)

    @rule()
    def forget_window(self):
        self.ledger.drop_window()

    @rule()
    def restart(self):
        """Another ledger goes on from the commit: exactly what was not done comes again."""
        offset, done = self.ledger.place()
        self.ledger = Ledger(offset, done, max_in_flight=16, room=self.ROOM)
        self.naive.out.clear()
        self.naive.returned.clear()
        self.naive.begun.clear()

    def teardown(self):
        """In the end everything that is there and not done comes out, once: the ledger never stands still."""
        self.all_done()
        for _ in range(2 * len(self.naive.log) + 2):
            self.read(10)
            self.lease(8)
            self.all_done()
        assert not [offset for offset in self.naive.log if offset not in self.naive.done]
        assert self.ledger.committed == max(self.naive.end, self.ledger.position)

    @invariant()
    def in_flight(self):
        assert self.ledger.leased == len(self.naive.out) <= 16

    @invariant()
    def never_past_a_hole(self):
        committed, done = self.ledger.place()
        holes = [offset for offset in self.naive.log if offset not in self.naive.done]
        assert not holes or committed <= min(holes)
        for hole in holes:
            assert not any(start <= hole < end for start, end in done), (hole, done)
        for offset in self.naive.done & set(self.naive.log):
            assert offset < committed or any(start <= offset < end for start, end in done), "forgot what was done"

    @invariant()
    def can_be_written(self):
        """The place fits into its room."""
        offset, done = self.ledger.place()
        encode(Cursor("", "", 0, 0, offset, done), self.ROOM + len("psubd1;;;0;0;b;"))


LedgerMachine.TestCase.settings = settings(max_examples=2000 if os.environ.get("PSUBD_LONG") else 200, stateful_step_count=60, deadline=None)


class LedgerHistories(LedgerMachine.TestCase, SynchronousTestCase):
    """Some hundred random histories against the naive model."""
