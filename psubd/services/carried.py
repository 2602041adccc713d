"""What one node leaves for its own next start: the leases, delays and attempts of its ledgers, so that a restart on SIGTERM loses none.

Time goes on while the node is down: each ledger is kept with the wall clock of that moment. What was kept is taken in once; a crash after that
finds nothing, and what was leased comes again.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec
from twisted.logger import Logger

from psubd.delivery.ledger import Ledger, Rules
from psubd.delivery.snapshot import Snapshot
from psubd.interfaces import ICarryover, IClock, IRegistry
from psubd.model import Group, GroupTopic, TopicPartition
from psubd.services.group_records import group_of
from psubd.services.places import Place

log = Logger()


class Parcel(msgspec.Struct, frozen=True):
    """One ledger. ``made``: serial of the group's record, since one that was deleted and made again is another; ``since``: of the channel;
    ``at_ms``: when it was kept, ms since the epoch."""

    group: str
    made: int
    at: TopicPartition
    record: GroupTopic
    since: int
    at_ms: int
    ledger: Snapshot


class Held(Protocol):
    """A channel that is to be kept."""

    group: str
    at: TopicPartition
    since: int
    dirty: bool
    ledger: Ledger


class Carried:
    """:param carryover: None: nothing outlives this node."""

    def __init__(self, carryover: ICarryover | None, registry: IRegistry, clock: IClock) -> None:
        self._carryover, self._registry, self._clock = carryover, registry, clock
        self._parcels: dict[tuple[str, TopicPartition], tuple[Parcel, int]] = {}  # with the moment, on the elapsed clock, when it was kept

    def open(self) -> None:
        """Take in what the former start left."""
        if self._carryover is None:
            return
        try:
            data = self._carryover.take()
            parcels = [] if data is None else msgspec.json.decode(data, type=list[Parcel])
        except (OSError, ValueError) as unreadable:
            log.error("the leases of before the restart cannot be read, their messages come again: {why}", why=str(unreadable))
            return
        now, wall = self._clock.elapsed_ms(), self._clock.epoch_ms()
        for parcel in parcels:
            self._parcels[parcel.group, parcel.at] = (parcel, now - max(0, wall - parcel.at_ms))

    def left(self) -> dict[str, set[str]]:
        """The groups, with the topics, that something was left of and that stand as they did."""
        found: dict[str, set[str]] = {}
        for parcel, _ in self._todays():
            found.setdefault(parcel.group, set()).add(parcel.at.topic)
        return found

    def reach(self, group: str, at: TopicPartition) -> int:
        """The offset behind the last message that the leases left of the partition are of, or that was done there; 0: nothing was left, or it is
        used by now."""
        parcel, _ = self._parcels.get((group, at), (None, 0))
        if parcel is None:
            return 0
        return max(parcel.ledger.reach, parcel.ledger.done[-1][1] if parcel.ledger.done else 0)

    def take(
        self, group: str, at: TopicPartition, record: GroupTopic, place: Place, *, rules: Rules, room: int, serials: Iterator[int]
    ) -> Ledger | None:
        """The ledger that was kept of the partition, if the group stands there as it did: its leases go on. None: there is none of today's."""
        parcel, kept_ms = self._parcels.pop((group, at), (None, 0))
        if parcel is None or parcel.made != self._made(group) or not same_log(parcel.record, record) or parcel.since != place.since:
            return None
        if not place.offset <= parcel.ledger.committed <= place.end:  # retention was faster, or the log is another one
            return None
        ledger = Ledger.restore(parcel.ledger, kept_ms, rules=rules, room=room, serials=serials)
        ledger.tick(self._clock.elapsed_ms())
        return ledger

    def keep(self, channels: Iterable[tuple[GroupTopic, Held]]) -> None:
        """Leave all that is not idle, or is not committed, each with what its commits carry, and what was taken in, never used, and is of today."""
        if self._carryover is None:
            return
        now, wall = self._clock.elapsed_ms(), self._clock.epoch_ms()
        used = [(record, channel) for record, channel in channels if channel.dirty or not channel.ledger.idle]
        made = {name: self._made(name) for name in {channel.group for _, channel in used}}
        parcels = [
            Parcel(channel.group, made[channel.group], channel.at, record, channel.since, wall, channel.ledger.snapshot(now))
            for record, channel in used
        ]
        parcels += [msgspec.structs.replace(parcel, at_ms=wall - (now - kept_ms)) for parcel, kept_ms in self._todays()]
        if not parcels:
            return
        try:
            self._carryover.keep(msgspec.json.encode(parcels))
        except OSError as refused:
            log.error("leases cannot be kept over the restart, their messages come again: {why}", why=str(refused))

    def _made(self, name: str) -> int:
        """The serial of the group's record; 0: there is none."""
        group = group_of(self._registry.snapshot(), name)
        return 0 if group is None else group.serial

    def _todays(self) -> list[tuple[Parcel, int]]:
        """What was not taken in yet, of groups that stand as they did."""
        snapshot = self._registry.snapshot()
        groups = {name: group_of(snapshot, name) for name, _ in self._parcels}
        return [(parcel, kept_ms) for parcel, kept_ms in self._parcels.values() if is_of(parcel, groups[parcel.group])]


def is_of(parcel: Parcel, group: Group | None) -> bool:
    """Whether the group is the one that the parcel was kept of, on the same topic by the same binding."""
    record = None if group is None or group.serial != parcel.made else group.topics.get(parcel.at.topic)
    return record is not None and same_log(parcel.record, record)


def same_log(one: GroupTopic, other: GroupTopic) -> bool:
    """Whether they are of the same topic and binding. A reset of other partitions changes the record, and not where this one stands: ``since`` tells
    that."""
    return (one.uid, one.mark) == (other.uid, other.mark)
