"""A connection's states: each input in each of them."""

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from psubd.peers.course import Course, Effects, begin_course

STEPS: dict[str, Callable[[Course], None]] = {
    "proven": lambda course: course.proven("m"),
    "admitted": lambda course: course.admitted(),
    "finish": lambda course: course.finish("end"),
    "broke": lambda course: course.broke("broken"),
}
WAYS = {
    "proving": [],
    "waiting": ["proven"],
    "linked": ["proven", "admitted"],
    "finishing": ["proven", "admitted", "finish"],
    "ended": ["broke"],
}
"""How each state is reached."""
TABLE = {
    ("proving", "proven"): ["ask m"],
    ("proving", "admitted"): [],
    ("proving", "finish"): ["cut end"],
    ("proving", "broke"): ["cut broken"],
    ("waiting", "admitted"): ["open"],
    ("waiting", "finish"): ["cut end"],
    ("waiting", "broke"): ["cut broken"],
    ("linked", "admitted"): [],
    ("linked", "finish"): ["close end", "flush"],
    ("linked", "broke"): ["cut broken", "close broken"],
    ("finishing", "finish"): [],
    ("finishing", "broke"): ["cut broken"],
    ("ended", "proven"): [],
    ("ended", "admitted"): [],
    ("ended", "finish"): [],
    ("ended", "broke"): [],
}


class Seen(Effects):
    """What a connection was told to do."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def ask_admission(self, member: str) -> None:
        self.done.append(f"ask {member}")

    def open_link(self) -> None:
        self.done.append("open")

    def close_link(self, why: str) -> None:
        self.done.append(f"close {why}")

    def flush(self) -> None:
        self.done.append("flush")

    def cut(self, why: str) -> None:
        self.done.append(f"cut {why}")


class Courses(SynchronousTestCase):
    def test_table(self) -> None:
        """Each input has its effects, in that order, in each state in which it may come."""
        for (state, step), effects in TABLE.items():
            seen = Seen()
            course = begin_course(seen)
            for way in WAYS[state]:
                STEPS[way](course)
            seen.done.clear()
            STEPS[step](course)
            self.assertEqual(seen.done, effects, (state, step))

    def test_ends_once(self) -> None:
        """Wherever it ends, it is cut once, a link that stood is closed once, and nothing follows."""
        for state, ways in WAYS.items():
            seen = Seen()
            course = begin_course(seen)
            for step in [*ways, "broke", "broke", "admitted", "finish", "proven"]:
                STEPS[step](course)
            self.assertEqual(len([done for done in seen.done if done.startswith("cut")]), 1, state)
            self.assertEqual(len([done for done in seen.done if done.startswith("close")]), seen.done.count("open"), state)
