"""Where a session stands."""

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import psubd
from psubd.registry.zookeeper.client import Batch, Lost, Unsent
from psubd.registry.zookeeper.session import Crossing, Standing, machine, only, settle

DOCS = Path(psubd.__file__).parent.parent / "docs" / "zookeeper.md"
WAY = {
    "connecting": [],
    "connected": ["established"],
    "suspended": ["established", "lost"],
    "expired": ["established", "lost", "expired"],
    "closed": ["stopped"],
}
"""How each state is come to."""


class Machine(SynchronousTestCase):
    """The states of a session."""

    def at(self, state: str) -> tuple[Standing, object]:
        standing = Standing()
        events = machine(standing)
        for event in WAY[state]:
            self.befall(events, event)
        self.assertEqual(standing.state, state)
        return standing, events

    def befall(self, events: object, event: str, session: int = 5) -> None:
        getattr(events, event)(*([session] if event == "established" else []))

    def test_the_diagram(self) -> None:
        """docs/zookeeper.md draws each change of state that there is, and no other."""
        drawn = set(re.findall(r"(\w+) --(\w+)--> (\w+)", DOCS.read_text()))
        found = set()
        for state in WAY:
            for event in ("established", "lost", "expired", "stopped"):
                standing, events = self.at(state)
                self.befall(events, event)
                if standing.state != state:
                    found.add((state, event, standing.state))
        self.assertEqual(drawn, found)

    def test_fresh(self) -> None:
        """A connection says whether the session is another one than before."""
        standing, events = self.at("connected")
        self.assertTrue(standing.fresh)
        for way, session, fresh in ((["lost"], 5, False), (["lost", "expired"], 6, True), ([], 7, True)):
            for event in way:
                self.befall(events, event)
            self.befall(events, "established", session)
            self.assertEqual((standing.session, standing.fresh), (session, fresh))

    def test_a_listener_that_raises(self) -> None:
        """It harms neither the session nor the others."""
        standing, events = self.at("connecting")
        heard: list[str] = []
        standing.listeners += [lambda _: 1 / 0, heard.append]
        self.befall(events, "established")
        self.assertEqual((standing.state, heard), ("connected", ["connected"]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Reactor:
    """Keeps what threads hand over."""

    def __init__(self) -> None:
        self.calls = []

    def callFromThread(self, call, *given) -> None:
        self.calls.append(lambda: call(*given))

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Crossings(SynchronousTestCase):
    """From threads to the reactor."""

    def test_in_order_and_woken_once(self) -> None:
        """All that gathered takes one wake; one that raises does not take the others along."""
        reactor, made = Reactor(), []
        crossing = Crossing(reactor)
        for n in range(3):
            crossing.put(lambda n=n: made.append(n))
        crossing.put(lambda: 1 / 0)
        crossing.put(lambda: made.append("last"))
        self.assertEqual(len(reactor.calls), 1)
        reactor.turn()
        self.assertEqual(made, [0, 1, 2, "last"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        crossing.put(lambda: made.append("again"))
        reactor.turn()
        self.assertEqual(made[-1], "again")


class Results(SynchronousTestCase):
    """Answers of ZooKeeper."""

    def test_batch(self) -> None:
        """All results at once, each in its place."""
        told: list[list[object]] = []
        batch = Batch(3, told.append)
        for place, result in ((2, "c"), (0, "a"), (1, "b")):
            self.assertEqual(told, [])
            batch.put(place, result)
        self.assertEqual(told, [["a", "b", "c"]])

    def test_no_answer(self) -> None:
        """One without an answer fails all; what may have been done counts more than what surely was not."""
        from twisted.internet.defer import Deferred

        for results, error in (([1, Unsent()], Unsent), ([Unsent(), Lost(), 1], Lost)):
            answered: Deferred[list[object]] = Deferred()
            settle(answered, results)
            self.failureResultOf(answered, error)
        answered = Deferred()
        settle(answered, [KeyError(), 1])
        self.assertEqual(len(self.successResultOf(answered)), 2)

    def test_only(self) -> None:
        """A refusal is raised."""
        self.assertEqual(only([1]), 1)
        with self.assertRaises(KeyError):
            only([KeyError()])
