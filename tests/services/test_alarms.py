"""The one timer of all ledgers."""

import gc
import random
import weakref

from twisted.trial.unittest import SynchronousTestCase

from psubd.services.alarms import Alarms
from psubd.testing.clock import FakeClock


class Sleeper:
    def __init__(self, name="", then=None):
        self.woken, self.then, self.name = [], then, name

    def wake(self, now):
        self.woken.append(now)
        if self.then is not None:
            self.then()


class AlarmTests(SynchronousTestCase):
    def setUp(self):
        self.clock = FakeClock()
        self.alarms = Alarms(self.clock)

    def timers(self):
        return len(self.clock.reactor.getDelayedCalls())

    def test_at_its_moment(self):
        """Each is woken once, at its moment, not before; there is one timer."""
        one, other = Sleeper(), Sleeper()
        self.alarms.at(one, 500)
        self.alarms.at(other, 300)
        self.assertEqual(self.timers(), 1)
        self.clock.advance(299)
        self.assertEqual((one.woken, other.woken), ([], []))
        self.clock.advance(1)
        self.clock.advance(1000)
        self.assertEqual((one.woken, other.woken), ([1300], [300]))
        self.assertEqual(self.timers(), 0)

    def test_another_moment(self):
        """A sleeper's newest word counts: earlier, later, or not at all."""
        earlier, later, never = Sleeper(), Sleeper(), Sleeper()
        for sleeper, due in ((earlier, 125), (later, 875), (never, None)):
            self.alarms.at(sleeper, 500)
            self.alarms.at(sleeper, due)
        for _ in range(16):
            self.clock.advance(125)
        self.assertEqual((earlier.woken, later.woken, never.woken), ([125], [875], []))
        self.alarms.at(never, 2500)
        self.clock.advance(500)
        self.assertEqual(never.woken, [2500])

    def test_dropped(self):
        """Who is dropped is not woken, nor held until the moment that it had named; one that was never set may be dropped."""
        never, kept = Sleeper(), Sleeper()
        gone = weakref.ref(never)
        self.alarms.at(never, 43_200_000)
        self.alarms.at(kept, 43_200_000)
        self.alarms.drop(never)
        self.alarms.drop(never)
        del never
        gc.collect()
        self.assertIsNone(gone())
        self.clock.advance(43_200_000)
        self.assertEqual(kept.woken, [43_200_000])

    def test_between_near_and_far(self):
        """A sleeper that goes to and fro between a near moment and a far one leaves nothing behind in the heap."""
        far = 43_200_000
        sleeper = Sleeper(then=lambda: self.alarms.at(sleeper, far))
        for turn in range(1, 1000):
            self.alarms.at(sleeper, far)
            self.alarms.at(sleeper, turn * 125)
            self.clock.advance(125)
        self.assertEqual(len(sleeper.woken), 999)
        self.assertLess(len(self.alarms._heap), 100)

    def test_set_while_it_rings(self):
        """Who is woken may set itself again, or another to another moment; a moment that is over is now."""
        later = Sleeper()
        first = Sleeper(then=lambda: self.alarms.at(later, 400))
        self.alarms.at(first, 100)
        self.alarms.at(later, 100)
        self.clock.advance(100)
        self.assertEqual((first.woken, later.woken), ([100], []))
        self.clock.advance(300)
        self.assertEqual(later.woken, [400])
        self.alarms.at(later, 5)
        self.clock.advance(0)
        self.assertEqual(later.woken, [400, 400])

    def test_one_breaks(self):
        """One that breaks is told in the log, and keeps nobody from being woken."""
        broken, other = Sleeper(then=lambda: 1 / 0), Sleeper()
        self.alarms.at(broken, 100)
        self.alarms.at(other, 100)
        self.clock.advance(100)
        self.assertEqual(other.woken, [100])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_timer_that_is_early(self):
        """A reactor whose own clock jumped wakes nobody early."""
        sleeper = Sleeper()
        self.alarms.at(sleeper, 1000)
        [timer] = self.clock.reactor.getDelayedCalls()
        timer.cancel()
        self.alarms._timer = None
        self.alarms._ring()
        self.assertEqual(sleeper.woken, [])
        self.clock.advance(1000)
        self.assertEqual(sleeper.woken, [1000])

    def test_stop(self):
        """After the stop nobody is woken."""
        sleeper = Sleeper()
        self.alarms.at(sleeper, 1000)
        self.alarms.stop()
        self.assertEqual(self.timers(), 0)

    def test_random(self):
        """Over random settings each is woken at its newest moment and no other, and little is kept."""
        dice = random.Random(7)
        sleepers = [Sleeper() for _ in range(20)]
        due = {}
        for now in range(125, 500_000, 125):  # what a float has exactly, in seconds
            for sleeper in dice.sample(sleepers, 2):
                due[sleeper] = dice.choice([None, now + 125 * dice.randint(0, 300)])
                self.alarms.at(sleeper, due[sleeper])
            expected = [sleeper for sleeper in sleepers if due.get(sleeper) is not None and due[sleeper] <= now]
            before = [len(sleeper.woken) for sleeper in sleepers]
            self.clock.advance(now - self.clock.elapsed_ms())
            woken = [sleeper for sleeper, count in zip(sleepers, before, strict=True) if len(sleeper.woken) > count]
            self.assertEqual(woken, expected)
            for sleeper in woken:
                due[sleeper] = None
        self.assertLess(len(self.alarms._heap), 200)
