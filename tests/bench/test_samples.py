"""Medians and ratios."""

from twisted.trial.unittest import SynchronousTestCase

from bench.samples import Sample, medians, middle, ratio, spread


class Medians(SynchronousTestCase):
    def test_each_figure_has_its_own(self) -> None:
        """The median of a figure is that of this figure alone, whichever round it was taken in."""
        taken = [Sample(10, 1, 9), Sample(30, 3, 7), Sample(20, 2, 8)]
        self.assertEqual(medians(taken), Sample(20, 2, 8))

    def test_what_was_not_taken_is_left_out(self) -> None:
        """A figure that no round has is not told; one that some have is their median."""
        self.assertEqual(medians([Sample(10), Sample(20, cpu_us=4)]), Sample(15, cpu_us=4))
        self.assertIsNone(middle([None, None]))

    def test_an_outlier_moves_nothing(self) -> None:
        """One disturbed round of five does not count."""
        self.assertEqual(middle([5, 5, 5, 5, 5000]), 5)


class Ratios(SynchronousTestCase):
    def test_of_what_was_taken(self) -> None:
        self.assertEqual(ratio(1.0, 4.0), 0.25)

    def test_of_what_was_not(self) -> None:
        """Neither a missing figure nor a nought below gives a ratio."""
        self.assertEqual([ratio(None, 1.0), ratio(1.0, None), ratio(1.0, 0.0)], [None, None, None])

    def test_spread(self) -> None:
        """How far the rounds lie apart, as a share of their median."""
        self.assertEqual(spread([8.0, 10.0, 12.0]), 0.4)
        self.assertEqual(spread([]), 0.0)


class Messages(SynchronousTestCase):
    def test_batches_are_counted_in_messages(self) -> None:
        """A hundred messages a request: a hundred times the rate, a hundredth of the cost; how long a request took stays."""
        self.assertEqual(Sample(10, 5, 6, 300, 7).times(100), Sample(1000, 5, 6, 3, 7))
