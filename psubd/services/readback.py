"""Late commits of a node that served a slot before: found, and overwritten.

Nothing can keep a commit from arriving late whose sender was stopped between its last look at the lease and the call. It says what it belongs to, so
that it can only repeat messages, but it moves a place back that the new owner had brought forward. So after a takeover that nobody handed over, the
new owner reads the places of its loaded groups back, after one and after two session timeouts, and commits anew what is neither its own nor the same.
A process may stand still for longer than that: when it comes back, its node joins anew, so all such slots are read back again after a node joined.
"""

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from psubd.delivery.cursor import decode
from psubd.errors import InUse, OwnershipInDoubt, PsubdError, StorageTimeout, StorageUnavailable
from psubd.interfaces import IClock, IStorage
from psubd.model import Commit, TopicPartition
from psubd.services.carried import Carried
from psubd.services.channels import Channel
from psubd.services.commits import Committer
from psubd.services.groups import LiveGroup
from psubd.services.rounds import all_of
from psubd.services.tenures import Tenure

LOOKS = 2
"""So many, one session timeout apart."""

GRACE_MS = 1_000
"""After the session timeout: ZooKeeper's own clock has ticks."""

AGAIN_MS = 1_000
"""Until what could not be read, or may not be committed now, is tried again."""

AT_ONCE = 16
"""Groups that are read back at a time, over all slots."""

log = Logger()


class Taken(Protocol):
    """A slot."""

    tenure: Tenure
    carried: Carried
    groups: dict[str, LiveGroup]


class Doubt:
    """What is doubted of one slot. :ivar timers: the looks that are to come. :ivar looking: those under way."""

    def __init__(self) -> None:
        self.timers: list[IDelayedCall] = []
        self.looking = 0


class Readback:
    """:param session_ms: the session timeout of the nodes, as granted. :param load: a group by its full name, loaded where it was not."""

    def __init__(
        self, storage: IStorage, clock: IClock, committer: Committer, session_ms: Callable[[], int], load: Callable[[str], LiveGroup]
    ) -> None:
        self._storage, self._clock, self._committer, self._session_ms, self._load = storage, clock, committer, session_ms, load
        self._doubts: dict[Taken, Doubt] = {}
        self._turn = DeferredSemaphore(AT_ONCE)

    def doubt(self, seat: Taken) -> None:
        """The slot was taken over from nobody, or from one that doubted it."""
        self._doubts[seat] = Doubt()
        self._plan(seat)

    def joined(self) -> None:
        """A node came, perhaps one that stood still."""
        for seat in list(self._doubts):
            self._plan(seat)

    def forget(self, seat: Taken) -> None:
        """It is not served any more."""
        doubt = self._doubts.pop(seat, None)
        for timer in () if doubt is None else doubt.timers:
            if timer.active():
                timer.cancel()

    def stop(self) -> None:
        """No further looks."""
        for seat in list(self._doubts):
            self.forget(seat)

    def doubts(self, seat: Taken) -> bool:
        """Whether somebody who served it before may still come back."""
        return seat in self._doubts

    def expects(self, seat: Taken) -> bool:
        """Whether its groups are to be read back before long: they stay in memory."""
        doubt = self._doubts.get(seat)
        return doubt is not None and (doubt.looking > 0 or any(timer.active() for timer in doubt.timers))

    # --- inside

    def _plan(self, seat: Taken) -> None:
        doubt = self._doubts[seat]
        doubt.timers = [timer for timer in doubt.timers if timer.active()]
        for look in range(1, LOOKS + 1):
            self._look_in(seat, look * self._session_ms() + GRACE_MS)

    def _look_in(self, seat: Taken, ms: int) -> None:
        doubt = self._doubts.get(seat)
        if doubt is not None:
            doubt.timers.append(self._clock.call_later(ms, self._begin, seat))

    def _begin(self, seat: Taken) -> None:
        doubt = self._doubts[seat]
        doubt.looking += 1
        Deferred.fromCoroutine(self._look(seat)).addErrback(self._broke).addCallback(self._looked, seat, doubt)

    def _broke(self, failure: Failure) -> bool:
        log.failure("reading places back broke", failure)
        return False

    def _looked(self, all_read: bool, seat: Taken, doubt: Doubt) -> None:
        doubt.looking -= 1
        if not all_read:
            self._look_in(seat, AGAIN_MS)

    async def _look(self, seat: Taken) -> bool:
        """False: it has to be done again."""
        if not seat.tenure.grants:
            return False
        brought = await all_of([self._bring(name, topics) for name, topics in seat.carried.left().items()])
        read = await all_of([self._read(group) for group in list(seat.groups.values())])
        return all(brought) and all(read)

    async def _bring(self, name: str, topics: set[str]) -> bool:
        """Load what was handed over and is not used: the storage may say less of it by now."""
        try:
            found = await self._load(name).visits.bring(topics)
        except OwnershipInDoubt:
            return True  # contested, or this node's no more
        return not any(isinstance(outcome, StorageUnavailable | StorageTimeout) for outcome in found.values())

    async def _read(self, group: LiveGroup) -> bool:
        async with self._turn:
            await self._committer.quiet(group.name)
            try:
                kept: dict[TopicPartition, Commit] = await self._storage.committed(group.name)
            except InUse:
                return True  # somebody else's, who is no node of ours: its contest goes its own way
            except PsubdError:
                return False
            strange = [channel for channel in group.channels() if not is_right(kept.get(channel.at), channel, group.tenure.epoch)]
            for channel in strange:
                channel.dirty = True
            if strange:
                await self._committer.flush(group)  # what fails stays dirty, and is tried again
            return True


def is_right(commit: Commit | None, channel: Channel, epoch: int) -> bool:
    """Whether it was written under the claim of that epoch, or says what that one would say: most places have not moved since the takeover."""
    cursor = None if commit is None else decode(commit)
    if cursor is None or cursor.epoch == epoch:
        return cursor is not None
    record, place = channel.owner.record, channel.place()
    own = (record.uid, record.mark, record.reset, place.since, place.offset, place.done)
    return (cursor.uid, cursor.mark, cursor.reset, cursor.since, cursor.offset, cursor.done) == own
