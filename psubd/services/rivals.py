"""Another psubd, with a registry of its own, that serves the same group in the same storage.

Each of the two takes the other's commits for old ones of a binding that was made again, and none of them would ever be refused: both would deliver
everything. So a node that is alone looks at what it committed before it commits again, at most every few seconds. Commits that it did not write mean
that somebody else is at the group, who commits it still: the group is contested (`psubd.services.contests`) until the other one's places stand still.
"""

from collections.abc import Mapping
from typing import Protocol
from weakref import WeakKeyDictionary

from psubd.delivery.cursor import decode, written_here
from psubd.errors import InUse, PsubdError
from psubd.interfaces import IClock, IStorage
from psubd.model import Commit, TopicPartition
from psubd.services.channels import Channel
from psubd.services.contests import Contest
from psubd.services.tenures import Tenure

EVERY_MS = 5_000
"""From one look at a group's places to the next, while nothing is wrong."""

STILL_MS = 30_000
"""For so long the other's places must not change before a group is committed again: it was stopped, or nobody uses it there."""


class Watched(Protocol):
    """A group, as it is looked at."""

    name: str
    tenure: Tenure
    contest: Contest

    def channels(self) -> list[Channel]:
        """All that it stands on."""


class Look:
    """What was seen of a group last. :ivar theirs: commits of somebody else; ``since_ms``: how long they have been these."""

    def __init__(self) -> None:
        self.at_ms: int | None = None
        self.theirs: Mapping[TopicPartition, Commit] = {}
        self.since_ms = 0
        self.late = False


class Rivals:
    """Looks for them. Where nobody else can write places, nobody needs to."""

    def __init__(self, storage: IStorage, clock: IClock) -> None:
        self._storage, self._clock = storage, clock
        self._looks: WeakKeyDictionary[Watched, Look] = WeakKeyDictionary()

    async def look(self, group: Watched) -> InUse | None:
        """Before the group is committed: why it must not be; None: it may."""
        look = self._looks.setdefault(group, Look())
        written = [channel for channel in group.channels() if channel.written]
        if not written or not self._is_due(group, look):
            return None
        look.at_ms = self._clock.elapsed_ms()
        try:
            kept: dict[TopicPartition, Commit] = await self._storage.committed(group.name)
        except PsubdError:
            return None  # the commit itself will tell
        theirs = {channel.at: kept[channel.at] for channel in written if channel.at in kept and is_strange(kept[channel.at], channel)}
        if theirs and self._are_late(group, look, written, theirs):
            theirs = {}
        return self._verdict(group, look, theirs)

    def _is_due(self, group: Watched, look: Look) -> bool:
        if look.at_ms is None:
            return True
        return bool(look.theirs) or group.contest.stands or self._clock.elapsed_ms() - look.at_ms >= EVERY_MS

    def _are_late(self, group: Watched, look: Look, written: list[Channel], theirs: Mapping[TopicPartition, Commit]) -> bool:
        """Whether they are of a former process of this node, which may have left some on their way. Once: whoever goes on writing is not that."""
        by_place = {channel.at: channel for channel in written}
        if look.late or not all(is_former(commit, by_place[at], group.tenure.epoch) for at, commit in theirs.items()):
            return False
        look.late = True
        for at in theirs:
            by_place[at].dirty = True
        return True

    def _verdict(self, group: Watched, look: Look, theirs: Mapping[TopicPartition, Commit]) -> InUse | None:
        now = self._clock.elapsed_ms()
        if not theirs:
            look.theirs = {}
            return None
        if theirs != look.theirs:
            look.theirs, look.since_ms = theirs, now
        elif now - look.since_ms >= STILL_MS:
            look.theirs = {}
            return None
        where = ", ".join(f"{at.topic} {at.partition}" for at in sorted(theirs)[:3])
        return InUse(f"another psubd with a registry of its own commits places of group {group.name!r} ({where}); stop one of the two")


def is_strange(commit: Commit, channel: Channel) -> bool:
    """Whether another psubd wrote it. What none did is the storage's to refuse, which knows who is a member."""
    return channel.live and written_here(commit) and not channel.wrote(commit)


def is_former(commit: Commit, channel: Channel, epoch: int) -> bool:
    """Whether an earlier start of this node wrote it, for what the group stands on today."""
    cursor, record = decode(commit), channel.owner.record
    return cursor is not None and (cursor.uid, cursor.mark, cursor.reset) == (record.uid, record.mark, record.reset) and cursor.epoch < epoch
