"""Bringing the groups' places into the storage: every interval, all that a group has to say in one call, one call at a time for each group."""

from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from psubd.errors import Internal, InUse, PsubdError
from psubd.interfaces import IClock, IStorage
from psubd.model import TopicPartition
from psubd.services.channels import Channel
from psubd.services.rivals import Rivals, Watched
from psubd.services.rounds import all_of
from psubd.services.tallies import Tallies

log = Logger()


class Committed(Watched, Protocol):
    """A group, as the committer sees it."""

    def take_dirty(self) -> list[Channel]:
        """The channels whose place changed since they were last taken; all of them, where somebody else had the group."""

    def due(self) -> bool:
        """Whether it may be committed now: one that somebody else has rests between two tries."""

    def contested(self, error: InUse) -> None:
        """Somebody else has it: its places are not kept."""

    def regained(self) -> None:
        """Its places are kept."""


class Committer:
    """A group's places are committed while its tenure stands, and stay as they are in memory while it does not.

    :param interval_ms: from the first change of a group's place to its commit, at most, while the storage keeps up.
    :ivar alone: whether other psubds that serve the same groups are none of ours, and have to be looked for.
    """

    def __init__(self, storage: IStorage, clock: IClock, interval_ms: int, tallies: Tallies) -> None:
        self._storage, self._clock, self._interval_ms, self._tallies = storage, clock, interval_ms, tallies
        self.alone = True
        self._rivals = Rivals(storage, clock)
        self._dirty: dict[Committed, None] = {}
        self._under_way: dict[str, list[Deferred[None]]] = {}
        self._failing: set[str] = set()
        self._timer: IDelayedCall | None = None
        self._stopping = False

    def touch(self, group: Committed) -> None:
        """The group has something to commit."""
        self._dirty[group] = None
        if self._timer is None and not self._stopping:
            self._timer = self._clock.call_later(self._interval_ms, self._tick)

    async def quiet(self, name: str) -> None:
        """Wait until no commit of the group is on its way."""
        while name in self._under_way:
            waiter: Deferred[None] = Deferred()
            self._under_way[name].append(waiter)
            await waiter

    async def flush(self, group: Committed, on_purpose: bool = False) -> bool:
        """Commit what the group has to say now. What fails is kept as dirty, and tried again at the next interval. True: nothing failed.

        :param on_purpose: another psubd's places are overwritten."""
        await self.quiet(group.name)
        self._dirty.pop(group, None)
        return await self._commit(group, on_purpose)

    async def stop(self) -> None:
        """Commit all that is dirty, once, after what is on its way. Nothing is committed afterwards."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await all_of([self.quiet(name) for name in self._under_way])
        await all_of([self.flush(group) for group in self._dirty])
        if self._dirty:
            log.error("places of {count} groups are not in the storage; what was done last there comes again", count=len(self._dirty))

    def _tick(self) -> None:
        self._timer = None
        for group in list(self._dirty):
            if group.name not in self._under_way and group.due():
                del self._dirty[group]
                Deferred.fromCoroutine(self._commit(group))
        for group in list(self._dirty):
            self.touch(group)

    async def _commit(self, group: Committed, on_purpose: bool = False) -> bool:
        """Never fails. True: all of it is kept."""
        waiters = self._under_way[group.name] = []
        try:
            return await self._keep(group, on_purpose)
        finally:
            del self._under_way[group.name]
            for waiter in waiters:
                waiter.callback(None)

    async def _keep(self, group: Committed, on_purpose: bool) -> bool:
        if self.alone and self._storage.limits.places_expire and not on_purpose:
            rival = await self._rivals.look(group)
            if rival is not None:
                self._tallies.commit_failures.inc()
                group.contested(rival)
                self.touch(group)
                return False
        if not group.tenure.stands:
            return self._leave(group)
        channels = group.take_dirty()
        if not channels:
            group.regained()
            return True
        failed = await self._store(group.name, channels)
        self._judge(group, channels, failed)
        return not failed

    def _leave(self, group: Committed) -> bool:
        """It may not be committed now, perhaps later."""
        dirty = any(channel.dirty for channel in group.channels())
        if dirty and not group.tenure.ended:
            self.touch(group)
        return not dirty

    async def _store(self, name: str, channels: list[Channel]) -> dict[TopicPartition, PsubdError]:
        try:
            places = {channel.at: channel.commit(self._storage.limits.max_metadata) for channel in channels}
            failed: dict[TopicPartition, PsubdError] = await self._storage.commit(name, places)
            for channel in channels:
                if channel.at not in failed:
                    channel.keeps(places[channel.at])
        except PsubdError as error:
            return {channel.at: error for channel in channels}
        except Exception:  # noqa: BLE001 - a bug of ours or of a storage: told, and tried again
            log.failure("{group}: committing broke", group=name)
            return {channel.at: Internal("committing broke; see the log") for channel in channels}
        return failed

    def _judge(self, group: Committed, channels: list[Channel], failed: dict[TopicPartition, PsubdError]) -> None:
        again = [channel for channel in channels if channel.at in failed and channel.live]
        for channel in again:
            channel.dirty, channel.refusal = True, failed[channel.at]
        taken = next((error for error in failed.values() if isinstance(error, InUse)), None)
        if taken is not None:
            self._tallies.commit_failures.inc()
            group.contested(taken)
            self.touch(group)
            return
        if len(failed) < len(channels):
            group.regained()
        if again:
            self._tallies.commit_failures.inc()
            if group.name not in self._failing:
                log.warn("{group}: places could not be committed, going on trying: {why}", group=group.name, why=failed[again[0].at].detail)
            self._failing.add(group.name)
            self.touch(group)
            return
        self._tallies.commits.inc()
        if group.name in self._failing:
            self._failing.discard(group.name)
            log.info("{group}: places are committed again", group=group.name)
