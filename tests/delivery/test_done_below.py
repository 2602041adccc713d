"""A commit of all below an offset (rule 11), case by case; `test_histories` holds it against the naive model."""

from twisted.trial.unittest import SynchronousTestCase

from psubd.delivery.cursor import MAX_OFFSET
from psubd.delivery.ledger import IllegalEvent, Ledger, Place, Rules
from psubd.delivery.window import Window
from tests.delivery.portions import MUCH, again, fed, message, offsets_of, portion


class LeaseTests(SynchronousTestCase):
    def test_leases_below(self):
        """A lease below is done, for a later ack too; it is neither let go, buried, extended nor lapsed any more. What lies above stays as it was."""
        ledger = fed()
        low, _, high = ledger.lease(0, 3, MUCH, until=50)
        ledger.done_below(2)
        self.assertEqual((ledger.committed, ledger.leased), (2, 1))
        self.assertTrue(ledger.ack(0, low.serial))
        self.assertFalse(ledger.nack(0, low.serial, 1))
        self.assertFalse(ledger.bury(0, low.serial, 1))
        self.assertFalse(ledger.extend(0, low.serial, 1, 99))
        ledger.give_back(low)
        self.assertTrue(ledger.extend(2, high.serial, 1, 60))
        ledger.tick(60)
        again(ledger)
        self.assertEqual(offsets_of(ledger.lease(60, 2, MUCH)), [2, 3])

    def test_nothing_happens_below_what_is_done(self):
        """A commit below the first that is not done changes nothing."""
        ledger = fed()
        ledger.lease(0, 4, MUCH, until=50)
        ledger.done_below(3)
        before = ledger.place(), ledger.leased, ledger.position
        ledger.done_below(1)
        self.assertEqual((ledger.place(), ledger.leased, ledger.position), before)

    def test_what_waits_and_what_is_dead(self):
        """Delays and burials below end; a burial that is on its way may still be told."""
        ledger = fed(4, rules=Rules(10, max_attempts=2))
        first, second = ledger.lease(0, 2, MUCH, until=50)
        ledger.nack(0, first.serial, 1, 10)
        ledger.bury(1, second.serial, 1)
        ledger.done_below(2)
        self.assertTrue(ledger.idle)
        self.assertEqual(ledger.take_deaths(), [])
        ledger.buried(1)
        self.assertFalse(ledger.tick(1_000_000))
        self.assertEqual(ledger.place(), Place(2, (), ()))

    def test_past_what_was_read(self):
        """The read that was on its way is not taken any more; reading goes on where all is done."""
        ledger = fed(5)
        ledger.done_below(12)
        self.assertEqual((ledger.position, ledger.committed, ledger.fresh, ledger.window_bytes), (12, 12, 0, 0))
        self.assertRaises(IllegalEvent, ledger.feed, 5, portion(5, range(5, 20)))
        ledger.feed(12, portion(12, range(12, 20)))
        self.assertEqual(offsets_of(ledger.lease(0, 2, MUCH)), [12, 13])

    def test_into_what_is_done_already(self):
        """What an earlier process had done past the offset is not read again."""
        ledger = Ledger(0, ((4, 9),))
        ledger.done_below(6)
        self.assertEqual((ledger.position, ledger.committed), (9, 9))


class RunTests(SynchronousTestCase):
    def test_a_run_that_is_out(self):
        """The upper part of a run in auto mode stays out, and is done with the whole."""
        ledger = fed()
        [lease] = ledger.lease(0, 6, MUCH)
        ledger.done_below(4)
        self.assertEqual((ledger.committed, ledger.leased), (4, 2))
        ledger.done(lease.serial)
        self.assertEqual(ledger.place(), Place(6, (), ()))

    def test_a_run_that_comes_back(self):
        """Of one that was not wholly handed over only the upper part comes back; no more memory is counted for it than it takes."""
        ledger = fed()
        [lease] = ledger.lease(0, 6, MUCH)
        before = ledger.window_bytes
        ledger.done_below(4)
        ledger.give_back(lease)
        self.assertEqual(ledger.window_bytes, before + 20)
        self.assertEqual(offsets_of(ledger.lease(0, 3, MUCH)), [4, 5, 6])

    def test_a_run_that_is_done_whole(self):
        """Its answer may end either way, once."""
        for end in (lambda ledger, lease: ledger.done(lease.serial), Ledger.give_back):
            ledger = fed()
            [lease] = ledger.lease(0, 3, MUCH)
            ledger.done_below(5)
            end(ledger, lease)
            self.assertEqual(ledger.place(), Place(5, (), ()))
            self.assertRaises(IllegalEvent, ledger.done, lease.serial)

    def test_a_run_without_its_messages(self):
        """One that came back from another process, and was not read again, begins at the offset."""
        ledger = fed()
        ledger.lease(0, 6, MUCH)
        ledger = Ledger.restore(ledger.snapshot(0), 0)
        ledger.done_below(4)
        self.assertEqual((ledger.committed, ledger.missing()), (4, 4))
        again(ledger)
        self.assertEqual(offsets_of(ledger.lease(0, 9, MUCH))[:2], [4, 5])

    def test_order_is_kept(self):
        """Where order is kept, nothing past the part of a run whose keys are not known goes out before that is done."""
        ledger = fed(keys=(b"a", b"b"))
        [lease] = ledger.lease(0, 6, MUCH)
        ledger.bind(Rules(20, ordered=True), 0)
        ledger.done_below(4)
        self.assertEqual(ledger.lease(0, 9, MUCH, until=50), [])
        ledger.done(lease.serial)
        self.assertEqual(offsets_of(ledger.lease(0, 9, MUCH, until=50)), [6, 7])

    def test_the_next_of_a_key(self):
        """Where the first of a key is done so, its next one may go."""
        ledger = fed(4, keys=(b"a",), rules=Rules(20, ordered=True))
        ledger.lease(0, 9, MUCH, until=50)
        self.assertEqual(ledger.lease(0, 9, MUCH, until=50), [])
        ledger.done_below(1)
        again(ledger)
        self.assertEqual(offsets_of(ledger.lease(0, 9, MUCH, until=50)), [1])


class BarrierTests(SynchronousTestCase):
    def test_from_anywhere(self):
        """The first that is somebody else's from an offset on, not the first of all; what came back is nobody's."""
        ledger = fed()
        leases = ledger.lease(0, 6, MUCH, until=50)
        for at in (1, 2, 4):
            ledger.ack(at, leases[at].serial)
        self.assertEqual([ledger.barrier(at) for at in (0, 1, 3, 4, 6)], [0, 3, 3, 5, None])
        ledger.tick(50)
        self.assertIsNone(ledger.barrier(0))

    def test_within_a_run(self):
        """From within a run that is out the next of its messages, and not its first."""
        ledger = fed()
        ledger.lease(0, 6, MUCH)
        self.assertEqual([ledger.barrier(at) for at in (0, 3, 5, 6)], [0, 3, 5, None])

    def test_what_is_done(self):
        """Below the first hole, past it, and beyond what was read; a message of a run that is out is not."""
        ledger = Ledger(0, ((8, 9),))
        ledger.feed(0, portion(0, [*range(8), 9]))
        ledger.lease(0, 3, MUCH)
        _, upper = ledger.lease(0, 2, MUCH, until=50)
        ledger.ack(4, upper.serial)
        self.assertEqual([at for at in range(12) if ledger.is_done(at)], [4, 8])
        ledger.done_below(2)
        self.assertEqual([at for at in range(12) if ledger.is_done(at)], [0, 1, 4, 8])
        self.assertFalse(ledger.is_done(MAX_OFFSET))


class WindowTests(SynchronousTestCase):
    def test_drop_below(self):
        """What was done while it lay in the window, and is dropped, is not counted as missing from the others."""
        window = Window()
        window.extend([message(at) for at in range(6)])
        window.strike(1)
        window.drop_below(3)
        self.assertEqual((window.count, window.bytes, window.first.offset), (3, 30, 3))
        window.strike(4)
        window.drop_below(4)
        self.assertEqual((window.count, window.bytes, window.first.offset), (1, 10, 5))
        window.drop_below(9)
        self.assertEqual((window.count, window.bytes, window.first), (0, 0, None))
