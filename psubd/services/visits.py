"""Who comes to a group for leases rather than messages: the topics are brought into memory first, if they are not there."""

from collections.abc import Callable, Iterable
from typing import Protocol

from psubd.errors import PsubdError
from psubd.services.contests import Contest, in_doubt
from psubd.services.live_topics import LiveTopic
from psubd.services.looking import LOOKS
from psubd.services.rounds import Rounds
from psubd.services.tenures import Tenure

Brought = dict[str, LiveTopic | PsubdError]
"""Topics by name, or why they could not be come to."""


class Visited(Protocol):
    """The group."""

    name: str
    live: bool
    tenure: Tenure
    contest: Contest
    topics: dict[str, LiveTopic]
    troubles: dict[str, PsubdError]
    joins: Rounds


class Visits:
    """:param used: called when somebody comes. :ivar wanted: what those want that are here now."""

    def __init__(self, group: Visited, used: Callable[[], None]) -> None:
        self._group, self._used = group, used
        self.wanted: list[set[str]] = []

    def at_hand(self, names: Iterable[str]) -> Brought | None:
        """These topics, where the group stands on all of them and nobody contests it; None: they have to be brought."""
        group = self._group
        if group.contest.stands or not all(name in group.topics for name in names):
            return None
        self._used()
        return {name: group.topics[name] for name in names}

    async def bring(self, names: Iterable[str]) -> Brought:
        """Come to these topics. Left out is what changed again and again, or all where the group came to its end.

        :raises OwnershipInDoubt: somebody else has the group; Moved where that is another node.
        """
        group, wanted = self._group, set(names)
        self._used()
        self.wanted.append(wanted)
        try:
            for _ in range(LOOKS):
                if group.contest.stands:
                    raise group.contest.refusal()
                if not group.live or wanted <= group.topics.keys():
                    break
                await group.joins.next()
                if wanted <= group.topics.keys() | group.troubles.keys():
                    break
        finally:
            self.wanted.remove(wanted)
        group.tenure.check()
        found: Brought = {name: in_doubt(group.name, group.troubles[name]) for name in wanted if name in group.troubles}
        return {**found, **{name: group.topics[name] for name in wanted if name in group.topics}}
