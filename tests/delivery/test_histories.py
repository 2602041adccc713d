"""Random histories of a ledger against the naive model in `world`; and ledgers with a fault each, which they have to find."""

import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from psubd.delivery.ledger import Ledger
from tests.delivery.broken import ForgetsAcks, PassesOut, PastAHole, TwiceAtTheInstant
from tests.delivery.world import ALWAYS, STEPS, World, run_history

LONG = "PSUBD_LONG" in os.environ
TRIAL = "PYTEST_VERSION" not in os.environ
"""Run by trial, which only has to show that they run there: all of them run under pytest."""
HISTORIES = 50 if TRIAL else 2_000
PLAIN_HISTORIES = 98_000 if LONG else 50 if TRIAL else 1_000
BYTES = st.integers(0, 255)


def step(name):
    """A rule that does one of `STEPS`, and the promises after it."""

    @rule(a=BYTES, b=BYTES)
    def run(self, a, b):
        getattr(self.world, name)(a, b)

    return run


def promise(name):
    @invariant()
    def ask(self):
        getattr(self.world, name)()

    return ask


class Histories(RuleBasedStateMachine):
    """What can happen to a group on a partition, in any order. What happens often is there more than once."""

    make = Ledger

    def __init__(self):
        super().__init__()
        self.world = None

    @initialize(kind=BYTES)
    def begin(self, kind):
        self.world = World(self.make, kind)

    for name, weight in STEPS.items():
        for number in range((weight + 1) // 2):
            locals()[f"{name}_{number}" if number else name] = step(name)
    for name in ALWAYS:
        locals()[name] = promise(name)
    del name, weight, number

    def teardown(self):
        if self.world is not None and sys.exc_info()[0] is None:
            self.world.nothing_is_lost_at_the_end()


class HistoryTests(SynchronousTestCase):
    def test_two_thousand_histories(self):
        """Publishes, gaps, leases, acks out of order, lapses, nacks, deaths, resets, handovers, crashes: each promise holds after each step."""
        run_state_machine_as_test(Histories, settings=settings(max_examples=HISTORIES, stateful_step_count=30, deadline=None))

    @pytest.mark.timeout(900)
    def test_many_more(self):
        """Longer histories by plain dice: 100,000 of both kinds together in the long run."""
        if not LONG:
            for number in range(PLAIN_HISTORIES):
                run_history(number)
            return
        half = PLAIN_HISTORIES // 2
        runs = [
            subprocess.Popen([sys.executable, "-m", "tests.delivery.world", str(first), str(first + half)], stderr=subprocess.PIPE, text=True)
            for first in (0, half)
        ]
        said = [run.communicate()[1] for run in runs]
        self.assertEqual([run.returncode for run in runs], [0, 0], "\n".join(said))


class BrokenTests(SynchronousTestCase):
    """The histories are worth something only if they find what is wrong."""

    def found(self, broken, *promises):
        """One of the promises is what did not hold."""
        machine = type(broken.__name__, (Histories,), {"make": broken})
        once = settings(
            max_examples=1000,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        with self.assertRaises(AssertionError) as caught:
            run_state_machine_as_test(machine, settings=once)
        names = []
        trace = caught.exception.__traceback__
        while trace is not None:
            names.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        self.assertTrue(set(promises) & set(names), names)

    def test_commit_past_a_hole(self):
        """A commit past a message that is not done is found."""
        self.found(PastAHole, "nothing_is_skipped")

    def test_double_lease_at_the_instant_of_lapse(self):
        """A message that goes out again one instant before its lease is over, or dies then, is found: by dice, since Hypothesis meets the instant in
        some runs only."""
        with self.assertRaises(AssertionError):
            for number in range(PLAIN_HISTORIES):
                run_history(number, make=TwiceAtTheInstant)

    def test_acks_lost_on_reload(self):
        """A ledger that takes up a commit without what was acked past the offset is found: by dice, since an ack past a
        hole, a commit and a crash seldom meet."""
        with self.assertRaisesRegex(AssertionError, "loses"):
            for number in range(PLAIN_HISTORIES):
                run_history(number, make=ForgetsAcks)

    def test_reading_past_what_is_out(self):
        """A ledger that lets a consumer instance read past what a client of the sub endpoint has is found."""
        self.found(PassesOut, "the_barrier_is_the_first_that_is_elsewhere")
