"""Ranges of offsets."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from psubd.delivery.ranges import Beyond, join_ranges


class JoinTests(SynchronousTestCase):
    def test_join(self):
        """Two sets of ranges become one; what touches or overlaps is one range."""
        self.assertEqual(join_ranges([(1, 3), (8, 9)], [(3, 5), (6, 7), (20, 30)]), ((1, 5), (6, 7), (8, 9), (20, 30)))
        self.assertEqual(join_ranges([(1, 9)], [(2, 3)]), ((1, 9),))


class BeyondTests(SynchronousTestCase):
    @given(st.lists(st.integers(0, 30), max_size=40), st.integers(0, 32))
    @settings(max_examples=200, deadline=None)
    def test_as_a_set(self, offsets, at):
        """Ranges answer as the set of their offsets would, and never touch."""
        beyond, plain = Beyond(()), set()
        for offset in offsets:
            self.assertEqual(offset in beyond, offset in plain)
            if offset not in plain:
                beyond.add(offset)
                plain.add(offset)
        ranges = beyond.past_of(-1)
        self.assertEqual({offset for start, end in ranges for offset in range(start, end)}, plain)
        self.assertTrue(all(one[1] < other[0] for one, other in itertools.pairwise(ranges)))
        self.assertEqual(beyond.last, max(plain, default=-1) + 1)
        self.assertEqual(beyond.past(at), next(offset for offset in range(at, 99) if offset not in plain))
        self.assertEqual(beyond.next_start(at), min((start for start, _ in ranges if start > at), default=None))
        beyond.forget(at)
        self.assertEqual(beyond.past_of(-1), [(start, end) for start, end in ranges if end > at])
