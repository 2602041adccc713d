"""Places that consumer instances take: what is below is done, also where somebody else has it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from twisted.internet.defer import DeferredLock

from psubd.errors import IllegalState, OwnershipInDoubt, StorageUnavailable
from psubd.model import Mark, TopicPartition
from psubd.services.channels import Channel
from psubd.services.holdings import Holding, Member
from psubd.services.tenures import Tenure
from psubd.services.workshop import Rewinder


class Home(Protocol):
    """The group."""

    name: str
    tenure: Tenure

    def topic_dirty(self) -> None:
        """There is something to commit."""


class Hands(Protocol):
    """Who of the group's instances has what."""

    holdings: dict[TopicPartition, Holding]

    @property
    def home(self) -> Home:
        """Whose they are."""

    def channel(self, at: TopicPartition) -> Channel | None:
        """The group's, as it is now."""

    def see(self, holdings: Iterable[Holding]) -> None:
        """Something of these was committed."""


class Bookkeeper:
    """Of one group; one thing at a time.

    :ivar moving: partitions whose place is being put back: who has them stays where it is.
    """

    def __init__(self, hands: Hands, rewind: Rewinder) -> None:
        self.moving: set[TopicPartition] = set()
        self._hands, self._rewind = hands, rewind
        self._lock = DeferredLock()

    async def keep(self, member: Member) -> dict[TopicPartition, int]:
        """What was wholly written to the client is done, in memory. Up to where, by partition; some may have gone to who waits for them by then.
        :raises PsubdError:"""
        async with self._lock:
            owed = {at: offset for at, holding in member.holdings.items() if (offset := holding.owed) is not None}
            await self._take({at: Mark(at, offset) for at, offset in owed.items()}, member)
            return owed

    async def take(self, marks: Sequence[Mark], member: Member) -> list[Channel]:
        """All below these is done, in memory; the group's place goes back where more was done. The channels that changed.

        :raises IllegalState: another instance has one of them. :raises PsubdError: one cannot be looked at now, or not be put back."""
        async with self._lock:
            return await self._take({mark.at: mark for mark in marks}, member)

    def settled(self, at: TopicPartition) -> Channel:
        """The channel, where it can be gone by. :raises OwnershipInDoubt: StorageUnavailable:"""
        channel = self._hands.channel(at)
        if channel is None:
            raise OwnershipInDoubt(f"the group's place on partition {at.partition} of topic {at.topic!r} is being moved; ask again in a moment", 1)
        if channel.halted:
            raise StorageUnavailable(f"whether the log of partition {at.partition} of topic {at.topic!r} was cut is being looked at; ask again", 1)
        return channel

    async def _take(self, marks: Mapping[TopicPartition, Mark], member: Member) -> list[Channel]:
        self._hands.home.tenure.check()
        own = self._own(marks, member)
        back: dict[str, dict[int, int]] = {}
        for at, channel in [(at, self.settled(at)) for at in marks]:  # all of them, before anything is done to one
            holding, offset = self._hands.holdings.get(at), marks[at].offset
            if offset >= channel.ledger.committed:
                channel.done_below(offset)
            elif holding is None or holding.kept != offset:
                back.setdefault(at.topic, {})[at.partition] = offset
        self._hands.home.topic_dirty()
        for topic, places in back.items():
            await self._put_back(topic, places)
        for holding in own:
            holding.kept = marks[holding.at].offset
        channels = [self.settled(at) for at in marks]
        for channel in channels:
            channel.annotate(marks[channel.at].metadata)
        self._hands.see(own)
        return channels

    def _own(self, partitions: Iterable[TopicPartition], member: Member) -> list[Holding]:
        """Those of them that it has. :raises IllegalState: another one has some."""
        held = [holding for at in partitions if (holding := self._hands.holdings.get(at)) is not None]
        others = [holding.at for holding in held if holding.member is not member]
        if others:
            raise IllegalState(f"{named(others)} went to another instance of the group; nothing was committed")
        return held

    async def _put_back(self, topic: str, places: Mapping[int, int]) -> None:
        """The registry first, as any reset."""
        moved = {TopicPartition(topic, partition) for partition in places}
        self.moving |= moved
        try:
            await self._rewind(self._hands.home.name, topic, places)
        finally:
            self.moving -= moved


def named(partitions: Iterable[TopicPartition]) -> str:
    """For a message."""
    return ", ".join(f"partition {at.partition} of topic {at.topic!r}" for at in sorted(partitions))
