"""The one timer of all polls that wait."""

import random

from twisted.trial.unittest import SynchronousTestCase

from psubd.services.patience import Patience
from psubd.testing.clock import FakeClock


class Waiter:
    def __init__(self, clock, then=None):
        self.due, self.clock, self.then, self.over = 0, clock, then, []

    def expire(self):
        self.over.append(self.clock.elapsed_ms())
        if self.then is not None:
            self.then()


class PatienceTests(SynchronousTestCase):
    def setUp(self):
        self.clock = FakeClock()
        self.patience = Patience(self.clock)

    def waiter(self, ms, then=None):
        waiter = Waiter(self.clock, then)
        self.patience.begin(waiter, ms)
        return waiter

    def timers(self):
        return len(self.clock.reactor.getDelayedCalls())

    def test_at_its_moment(self):
        """Each time is over once, at its moment and not before; there is one timer for all, and none at the end."""
        waiters = {ms: self.waiter(ms) for ms in (500, 375, 60_000, 125)}
        self.assertEqual(self.timers(), 1)
        for _ in range(500):
            self.clock.advance(125)
        self.assertEqual({ms: waiter.over for ms, waiter in waiters.items()}, {ms: [ms] for ms in waiters})
        self.assertEqual(self.timers(), 0)

    def test_late(self):
        """After a jump all whose time is over are told, the earliest first, and of one moment in the order of beginning."""
        told = []
        for name, ms in (("c", 20), ("a", 10), ("d", 20), ("b", 10), ("e", 5000)):
            self.waiter(ms, lambda name=name: told.append(name))
        self.clock.advance(1000)
        self.assertEqual(told, ["a", "b", "c", "d"])

    def test_ended(self):
        """Who ended is not told, may end again, and may begin again."""
        waiter, other = self.waiter(10), self.waiter(10)
        self.patience.end(waiter)
        self.patience.end(waiter)
        self.clock.advance(10)
        self.assertEqual((waiter.over, other.over), ([], [10]))
        self.patience.begin(waiter, 10)
        self.clock.advance(10)
        self.assertEqual(waiter.over, [20])

    def test_while_it_rings(self):
        """Whoever is told may end others of the same moment, and begin anew; one that breaks keeps nobody from being told."""
        last = Waiter(self.clock)
        self.waiter(10, lambda: 1 / 0)
        ended = Waiter(self.clock)
        self.waiter(10, lambda: (self.patience.end(ended), self.patience.begin(last, 0)))
        self.patience.begin(ended, 10)
        self.clock.advance(10)
        self.clock.advance(0)
        self.assertEqual((ended.over, last.over), ([], [10]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_many_that_come_and_go(self):
        """Nothing is kept of those that ended but a number for each millisecond that is still to come."""
        chance = random.Random(7)
        for _ in range(20_000):
            self.patience.end(self.waiter(chance.randrange(0, 200)))
        self.assertLessEqual(len(self.patience._moments), 200)
        self.assertEqual(self.patience._lines, {})
        self.clock.advance(200)
        self.assertEqual((len(self.patience._moments), len(self.patience._queued), self.timers()), (0, 0, 0))

    def test_stop(self):
        """Nobody is told afterwards."""
        waiter = self.waiter(10)
        self.patience.stop()
        self.clock.advance(100)
        self.assertEqual((waiter.over, self.timers()), ([], 0))
