"""The polls that wait on a group, by age, so that the oldest that reads a topic is found without looking at those that do not."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Set
from itertools import count

from psubd.services.polls import WaitingPoll


class Line:
    """The polls that may read the same topics, the oldest first."""

    def __init__(self) -> None:
        self._polls: OrderedDict[WaitingPoll, None] = OrderedDict()
        self._in_order = True

    def __bool__(self) -> bool:
        return bool(self._polls)

    def add(self, poll: WaitingPoll) -> None:
        if self._polls and self._in_order:
            self._in_order = next(reversed(self._polls)).age < poll.age
        self._polls[poll] = None

    def drop(self, poll: WaitingPoll) -> None:
        del self._polls[poll]

    def oldest(self) -> WaitingPoll:
        if not self._in_order:  # polls came from other lines, or from another node
            self._polls = OrderedDict.fromkeys(sorted(self._polls, key=age_of))
            self._in_order = True
        return next(iter(self._polls))


def age_of(poll: WaitingPoll) -> tuple[int, int]:
    """What polls are ordered by."""
    return poll.age


class Queue:
    """Iterates over all that wait, the oldest first."""

    def __init__(self) -> None:
        self._polls: dict[WaitingPoll, frozenset[str]] = {}
        self._lines: dict[frozenset[str], Line] = {}
        self._numbers = count(1)
        self._named: tuple[Mapping[str, object], frozenset[str]] = ({}, frozenset())  # what was entered last, and its names
        self._newest = (0, 0)
        self._in_order = True

    def __len__(self) -> int:
        return len(self._polls)

    def __iter__(self) -> Iterator[WaitingPoll]:
        if not self._in_order:
            self._polls = {poll: self._polls[poll] for poll in sorted(self._polls, key=age_of)}
            self._in_order = True
        return iter(self._polls)

    def add(self, poll: WaitingPoll) -> None:
        """Where its age belongs: behind all that wait as long or longer (`WaitingPoll.age`)."""
        poll.age = (poll.age[0], next(self._numbers))
        self._in_order = self._in_order and self._newest < poll.age
        self._newest = max(self._newest, poll.age)
        self._polls[poll] = self._enter(poll)

    def drop(self, poll: WaitingPoll) -> None:
        """It waits no longer; one that did not: nothing happens."""
        line = self._polls.pop(poll, None)
        if line is not None:
            self._leave(poll, line)

    def moved(self, poll: WaitingPoll) -> None:
        """What it may read (`WaitingPoll.open`) is something else now; its age stays."""
        line = self._polls.get(poll)
        if line is not None and line != poll.open.keys():
            self._leave(poll, line)
            self._polls[poll] = self._enter(poll)

    def oldest(self, topics: Set[str]) -> WaitingPoll | None:
        """The oldest that may read one of ``topics``."""
        heads = [line.oldest() for names, line in self._lines.items() if not names.isdisjoint(topics)]
        return min(heads, key=age_of, default=None)

    def heads(self, topic: str) -> list[WaitingPoll]:
        """One of all that may read the same, for each such lot that the topic is of."""
        return [line.oldest() for names, line in self._lines.items() if topic in names]

    def topics(self) -> set[str]:
        """All that somebody waits for."""
        return set().union(*self._lines)

    def wants(self, topic: str) -> bool:
        return any(topic in names for names in self._lines)

    def _enter(self, poll: WaitingPoll) -> frozenset[str]:
        last, names = self._named
        if last is not poll.open:
            names = frozenset(poll.open)
            self._named = (poll.open, names)
        line = self._lines.get(names)
        if line is None:
            line = self._lines[names] = Line()
        line.add(poll)
        return names

    def _leave(self, poll: WaitingPoll, names: frozenset[str]) -> None:
        line = self._lines[names]
        line.drop(poll)
        if not line:
            del self._lines[names]
