from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from psubd.storage.watches import Watches


class WatchesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.watches = Watches()

    def test_growth_fires_those_below_the_end(self) -> None:
        """Who waits for an offset below the new end hears; who waits for a later one, or elsewhere, does not."""
        here, later = self.watches.wait("t", 0, 5), self.watches.wait("t", 0, 6)
        other = self.watches.wait("t", 1, 5)
        self.watches.grew("t", 0, 6)
        self.successResultOf(here)
        self.assertNoResult(later)
        self.assertNoResult(other)
        self.assertEqual(2, len(self.watches))

    def test_cancelling_leaves_nothing_behind(self) -> None:
        """A withdrawn watch is forgotten, with its partition and topic."""
        waiting = [self.watches.wait("t", partition, 0) for partition in range(3)]
        for watch in waiting:
            watch.cancel()
            self.failureResultOf(watch, CancelledError)
        self.assertEqual(0, len(self.watches))
        self.watches.grew("t", 0, 1)

    def test_one_that_hears_may_withdraw_another(self) -> None:
        """A waiter cancelled by the one fired before it is not fired again; one that waits anew waits."""
        first, second = self.watches.wait("t", 0, 0), self.watches.wait("t", 0, 0)
        again = []
        first.addCallback(lambda _: (second.cancel(), again.append(self.watches.wait("t", 0, 1))))
        self.watches.grew("t", 0, 1)
        self.failureResultOf(second, CancelledError)
        self.assertNoResult(again[0])

    def test_a_change_fires_all_of_the_topic(self) -> None:
        """Every partition's waiters, no other topic's."""
        waiting = [self.watches.wait("t", partition, 99) for partition in range(3)]
        other = self.watches.wait("u", 0, 99)
        self.watches.changed("t")
        for watch in waiting:
            self.successResultOf(watch)
        self.assertNoResult(other)
        self.watches.close()
        self.successResultOf(other)
