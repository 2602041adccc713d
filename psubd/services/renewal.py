"""The daily sweep: places are committed again before the storage lets them expire (`StorageLimits.places_expire`).

Kafka drops the place of a group without members 7 days after its last commit (``offsets.retention.minutes``), partition by partition: a group
in use loses the places of partitions where nothing happens. Once a day each known group's places are committed as they are, whoever reads it.
"""

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from psubd.errors import InUse, Moved, OwnershipInDoubt, PsubdError
from psubd.interfaces import IClock, IRegistry, IStorage
from psubd.model import Commit, TopicPartition
from psubd.services.group_records import group_of, names_of
from psubd.services.places import todays
from psubd.services.rounds import Locks, all_of
from psubd.services.tallies import Tallies
from psubd.services.tenures import Tenures
from psubd.services.views import LiveGroups

FIRST_MS = 60_000
"""From the start to the first round: a node that starts anew every day must renew too, but not while its clients come back."""

ROUND_MS = 3_600_000
DAY_MS = 86_400_000
AT_ONCE = 4
PAUSE_MS = 1_000
"""Between so many groups and the next ones, or shorter where a round would last longer than `SPREAD_MS` otherwise."""

SPREAD_MS = 2_700_000

log = Logger()


class Renewal:
    """:param locks: held while a group's places are read and committed, so that nobody comes to them or resets them meanwhile.
    :param tenure_of: of a group's slot: each node renews what it serves. :param live: the groups that are loaded, by name."""

    def __init__(
        self, storage: IStorage, registry: IRegistry, clock: IClock, *, locks: Locks, live: LiveGroups, tenure_of: Tenures, tallies: Tallies
    ) -> None:
        self._storage, self._registry, self._clock, self._tenure_of = storage, registry, clock, tenure_of
        self._locks, self._live, self._tallies = locks, live, tallies
        self._renewed_ms: dict[str, int] = {}
        self._due: list[str] = []
        self._pause_ms = PAUSE_MS
        self._failed: list[str] = []
        self._timer: IDelayedCall | None = None
        self._running = False

    def start(self) -> None:
        """Begin, where places expire at all."""
        self._running = self._storage.limits.places_expire
        if self._running:
            self._timer = self._clock.call_later(FIRST_MS, self._round)

    def stop(self) -> None:
        """Commit nothing more; what is on its way is finished."""
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _round(self) -> None:
        now = self._clock.elapsed_ms()
        names = [name for name in names_of(self._registry.snapshot(), None) if self._grants(name)]
        self._renewed_ms = {name: self._renewed_ms[name] for name in names if name in self._renewed_ms}
        self._due = [name for name in names if name not in self._renewed_ms or now - self._renewed_ms[name] >= DAY_MS]
        self._pause_ms = min(PAUSE_MS, SPREAD_MS * AT_ONCE // max(1, len(self._due)))
        self._failed = []
        self._step()

    def _step(self) -> None:
        """The next few; behind the last of them a rest until the next round."""
        now, self._due = self._due[:AT_ONCE], self._due[AT_ONCE:]
        Deferred.fromCoroutine(all_of([self._renew(name) for name in now])).addBoth(self._stepped)

    def _stepped(self, _: object) -> None:
        if not self._running:
            return
        if self._due:
            self._timer = self._clock.call_later(self._pause_ms, self._step)
            return
        if self._failed:
            log.warn(
                "places of {count} groups could not be renewed, as of {first}; tried again later", count=len(self._failed), first=self._failed[0]
            )
        self._timer = self._clock.call_later(ROUND_MS, self._round)

    async def _renew(self, name: str) -> None:
        """Never fails; a group that could not be renewed is due in the next round."""
        try:
            async with self._locks.of(name):
                done = (
                    self._running
                    and self._grants(name)
                    and await self._keep_loaded(name)
                    and (self._is_loaded(name) or await self._keep_others(name))
                )
        except (InUse, OwnershipInDoubt):
            done = False  # somebody else has it: told to who polls, and by the contest of one that is loaded
        except PsubdError as failed:
            done = False
            self._failed.append(f"{name}: {failed.detail}")
        except Exception:  # noqa: BLE001 - a bug of ours or of a storage: told, and the sweep goes on
            done = False
            log.failure("{group}: renewing its places broke", group=name)
        if done:
            self._renewed_ms[name] = self._clock.elapsed_ms()
            self._tallies.renewed.inc()

    def _grants(self, name: str) -> bool:
        """Whether it is this node's to renew."""
        try:
            return self._tenure_of(name).grants
        except Moved:
            return False

    async def _keep_all(self, name: str) -> bool:
        return await self._keep_loaded(name) and (self._is_loaded(name) or await self._keep_others(name))

    async def _keep_loaded(self, name: str) -> bool:
        """What is in memory, from the ledgers."""
        loaded = self._live.get(name)
        return loaded is None or await loaded.keep()

    def _is_loaded(self, name: str) -> bool:
        """Whether all that it stands on is in memory."""
        group, loaded = group_of(self._registry.snapshot(), name), self._live.get(name)
        return group is None or (loaded is not None and group.topics.keys() <= loaded.topics.keys())

    async def _keep_others(self, name: str) -> bool:
        """What is in the storage only, as it is there; only what still counts: the rest may expire. :raises PsubdError:"""
        kept: dict[TopicPartition, Commit] = await self._storage.committed(name)
        places = {at: commit for at, commit in kept.items() if self._counts(name, at, commit)}
        if not places or not self._running:
            return self._running
        self._tenure_of(name).confirm()
        failed: dict[TopicPartition, PsubdError] = await self._storage.commit(name, places)
        for error in failed.values():
            raise error
        return True

    def _counts(self, name: str, at: TopicPartition, commit: Commit) -> bool:
        """Whether it is today's place on a topic that is not loaded. Looked at after the storage has answered, at the moment of the commit: what
        is revoked or reset later is committed or forgotten after it."""
        group, loaded = group_of(self._registry.snapshot(), name), self._live.get(name)
        record = None if group is None else group.topics.get(at.topic)
        return record is not None and todays(commit, record) is not None and (loaded is None or at.topic not in loaded.topics)
