"""Shares of a profile."""

from twisted.trial.unittest import SynchronousTestCase

from bench.profiles import OUTSIDE, innermost, markdown, ours, room, shares, stacks, weighed
from tests.bench.made import document

RAW = """\
thread (7): MainThread;run (twisted/base.py:1);dataReceived (psubd/wire/channel.py:1);feed (psubd/wire/intake.py:5) 30
thread (7): MainThread;run (twisted/base.py:1);dataReceived (psubd/wire/channel.py:2);publish (psubd/endpoints/pub.py:9);dumps (json.py:1) 10
thread (7): MainThread;run (twisted/base.py:1);poll (twisted/internet/epollreactor.py:3) 10
thread (8): psubd-storage-write;run (psubd/storage/sqlite/database.py:3) 50
py-spy says something else
"""


class Reading(SynchronousTestCase):
    def setUp(self) -> None:
        self.stacks = stacks(RAW)

    def test_each_line_is_a_stack(self) -> None:
        self.assertEqual(
            [(one.tid, one.thread, one.weight) for one in self.stacks],
            [(7, "MainThread", w) for w in (30, 10, 10)] + [(8, "psubd-storage-write", 50)],
        )

    def test_a_library_s_time_is_the_room_s_that_called_it(self) -> None:
        """json, called by an endpoint, counts for the endpoints; what nobody of psubd called for nobody."""
        self.assertEqual([room(one) for one in self.stacks], ["wire", "endpoints", OUTSIDE, "storage/sqlite"])

    def test_functions_have_no_lines(self) -> None:
        """One function is one function, wherever in it a sample was taken."""
        self.assertEqual(innermost(self.stacks[0]), "feed (psubd/wire/intake.py)")
        self.assertEqual(ours(self.stacks[1]), {"dataReceived (psubd/wire/channel.py)", "publish (psubd/endpoints/pub.py)"})


class Weighing(SynchronousTestCase):
    def test_threads_weigh_what_they_took_of_the_processor(self) -> None:
        """A thread that waited for the disk in most of its samples counts for what it computed."""
        found = weighed(stacks(RAW), {7: 900.0, 8: 100.0})
        self.assertEqual(shares(found, lambda one: [one.thread]), [("MainThread", 0.9), ("psubd-storage-write", 0.1)])
        self.assertEqual([round(share, 3) for _, share in shares(found, lambda one: [room(one)])], [0.54, 0.18, 0.18, 0.1])

    def test_a_function_counts_once_a_sample(self) -> None:
        """Within: a function's share is of the samples that it is in, at most all of them."""
        found = dict(shares(stacks(RAW), ours))
        self.assertEqual(found["dataReceived (psubd/wire/channel.py)"], 0.4)

    def test_nothing_has_no_shares(self) -> None:
        self.assertEqual(shares([], ours), [])


class Page(SynchronousTestCase):
    def test_shares_and_microseconds(self) -> None:
        """Microseconds are the share of a message's processor time."""
        found = {"name": "publish", "connections": 128, "rate": 1000.0, "cpu_us": 200.0, "threads": [("MainThread", 1.0)], "rooms": [("wire", 0.25)]}
        text = markdown({**document(), "profiles": [{**found, "functions": [], "within": []}, {"name": "other", "missing": "no Java"}]})
        self.assertIn("| `wire` | 25.0% | 50 |", text)
        self.assertIn("Not measured: no Java", text)
