"""Who of a group's consumer instances has which partition."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from psubd.delivery.shares import share
from psubd.model import TopicPartition

IDS = "abcdefg"


def partitions(topic, count):
    return [TopicPartition(topic, number) for number in range(count)]


@st.composite
def groups(draw, alike=False):
    """What each wants, and who has what."""
    everything = partitions("t", draw(st.integers(0, 12))) + partitions("u", draw(st.integers(0, 8)))
    ids = IDS[: draw(st.integers(0 if not alike else 1, len(IDS)))]
    some = st.just(everything) if alike or not everything else st.lists(st.sampled_from(everything), unique=True)
    wanted = {id: draw(some) for id in ids}
    held = {at: draw(st.sampled_from(IDS)) for at in everything if draw(st.booleans())}
    return wanted, held


def loads(due, wanted):
    return {id: sum(holder == id for holder in due.values()) for id in wanted}


class ShareTests(SynchronousTestCase):
    @given(groups())
    @settings(max_examples=300, deadline=None)
    def test_everything_wanted_goes_to_one_who_wants_it(self, case):
        """Each partition that somebody wants has one instance, one of those that want it; no other is given to anybody."""
        wanted, held = case
        due = share(wanted, held)
        self.assertEqual(set(due), {at for ats in wanted.values() for at in ats})
        for at, id in due.items():
            self.assertIn(at, wanted[id])

    @given(groups())
    @settings(max_examples=300, deadline=None)
    def test_nobody_has_two_more(self, case):
        """Nobody has two more than another one that wants one of its partitions."""
        wanted, held = case
        due = share(wanted, held)
        load = loads(due, wanted)
        for at, id in due.items():
            for other, ats in wanted.items():
                if at in ats:
                    self.assertLess(load[id] - load[other], 2)

    @given(groups(alike=True))
    @settings(max_examples=300, deadline=None)
    def test_as_few_as_possible_move(self, case):
        """Where all want the same: what nobody had goes to those that have least, and of what somebody has no more moves than levels it."""
        wanted, held = case
        due = share(wanted, held)
        kept = {at: id for at, id in held.items() if id in wanted}
        moved = sum(due[at] != id for at, id in kept.items())
        most, more = divmod(len(due), len(wanted))
        had = sorted((sum(id == holder for holder in kept.values()) for id in wanted), reverse=True)
        needed = sum(max(0, count - most - (index < more)) for index, count in enumerate(had))
        self.assertEqual(moved, needed)

    @given(groups())
    @settings(max_examples=100, deadline=None)
    def test_it_rests(self, case):
        """What was shared out is shared out so again: nothing moves while nobody comes or goes."""
        wanted, held = case
        due = share(wanted, held)
        self.assertEqual(share(wanted, due), due)

    def test_the_third_gets_its_share(self):
        """One that joins two that have two each gets one of these."""
        wanted = dict.fromkeys("abc", partitions("t", 4))
        held = dict(zip(partitions("t", 4), "aabb", strict=True))
        self.assertEqual(sorted(loads(share(wanted, held), wanted).values()), [1, 1, 2])
