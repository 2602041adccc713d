"""What a node leaves for whoever serves the groups next: the leases, delays and attempts of its ledgers.

Alone that is its own next start, after a SIGTERM, by a file; each ledger is kept with the wall clock of that moment, since time goes on while the
node is down. Among many nodes it is the next owner of the slot, by the answer of the former one; there only how long something was kept counts,
since no two hosts' clocks are the same. What was left is taken up when the group is used again. A crash after that finds nothing, and what was
leased comes again.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec
from twisted.logger import Logger

from psubd.delivery.ledger import Ledger, Rules
from psubd.delivery.snapshot import Snapshot
from psubd.interfaces import ICarryover, IClock, IRegistry
from psubd.model import Group, GroupTopic, TopicPartition
from psubd.services.group_records import group_of
from psubd.services.holdings import Stand
from psubd.services.places import Place

MOST_BYTES = 96 << 20
"""What one slot's ledgers may take on the line (`psubd.interfaces.IPeers` carries 128 MiB): the leases of those behind are lost."""

MOST_STANDS = 100_000
"""Partitions of consumer instances that go along with a slot: the instances of those behind go on at what was committed."""

log = Logger()


class Parcel(msgspec.Struct, frozen=True):
    """One ledger. ``made``: serial of the group's record, since one that was deleted and made again is another; ``since``: of the channel;
    ``at_ms``: when it was kept, ms since the epoch; ``age_ms``: how long it had been kept when it was handed over."""

    group: str
    made: int
    at: TopicPartition
    record: GroupTopic
    since: int
    at_ms: int
    ledger: Snapshot
    age_ms: int = 0


class Handed(msgspec.Struct, frozen=True):
    """What one node hands to the next about a slot.

    :ivar doubted: whether commits of somebody who served the slot before may still come in late. :ivar ledgers: each a `Parcel`.
    :ivar stands: where consumer instances stood.
    """

    doubted: bool
    ledgers: list[msgspec.Raw]
    stands: list[Stand] = []


class Kept(msgspec.Struct, frozen=True):
    """What a node leaves for its own next start. One without instances leaves the parcels alone, as versions before did."""

    ledgers: list[Parcel]
    stands: list[Stand] = []


class Held(Protocol):
    """A channel that is to be kept."""

    group: str
    at: TopicPartition
    since: int
    dirty: bool
    ledger: Ledger


Standing = tuple[GroupTopic, Held]
"""A channel, with what its commits carry."""


class Carried:
    """What was left of the groups of one slot, and not used yet."""

    def __init__(self, registry: IRegistry, clock: IClock) -> None:
        self._registry, self._clock = registry, clock
        self._parcels: dict[tuple[str, TopicPartition], tuple[Parcel, int]] = {}  # with the moment, on the elapsed clock, when it was kept
        self._stands: dict[str, dict[TopicPartition, Stand]] = {}  # by group

    # --- taken in

    def open(self, carryover: ICarryover) -> None:
        """Take in what the former start left."""
        try:
            data = carryover.take()
            kept = [] if data is None else msgspec.json.decode(data, type=list[Parcel] | Kept)
        except (OSError, ValueError) as unreadable:
            log.error("the leases of before the restart cannot be read, their messages come again: {why}", why=str(unreadable))
            return
        now, wall = self._clock.elapsed_ms(), self._clock.epoch_ms()
        if isinstance(kept, Kept):
            self._take_in(kept.stands)
            kept = kept.ledgers
        for parcel in kept:
            self._parcels[parcel.group, parcel.at] = (parcel, now - max(0, wall - parcel.at_ms))

    def unpack(self, data: bytes) -> bool:
        """Take in what another node handed over; `Handed.doubted`, also where it cannot be read."""
        try:
            handed = msgspec.msgpack.decode(data, type=Handed)
            parcels = [msgspec.msgpack.decode(ledger, type=Parcel) for ledger in handed.ledgers]
        except ValueError as unreadable:
            log.error("what another node handed over cannot be read, what was leased there comes again: {why}", why=str(unreadable))
            return True
        now = self._clock.elapsed_ms()
        for parcel in parcels:
            self._parcels[parcel.group, parcel.at] = (parcel, now - parcel.age_ms)
        self._take_in(handed.stands)
        return handed.doubted

    def _take_in(self, stands: Iterable[Stand]) -> None:
        for stand in stands:
            self._stands.setdefault(stand.group, {})[stand.at] = stand

    def left(self) -> dict[str, set[str]]:
        """The groups, with the topics, that something was left of and that stand as they did."""
        found: dict[str, set[str]] = {}
        for parcel, _ in self._todays():
            found.setdefault(parcel.group, set()).add(parcel.at.topic)
        return found

    # --- used

    def stands_of(self, group: str) -> dict[TopicPartition, Stand]:
        """Where the group's consumer instances stood, as far as that is not used yet."""
        return self._stands.pop(group, {})

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
        try:
            ledger = Ledger.restore(parcel.ledger, kept_ms, rules=rules, room=room, serials=serials)
        except ValueError as wrong:
            log.error("{group}: what was leased of {at} comes again, its ledger was kept wrong: {why}", group=group, at=at, why=str(wrong))
            return None
        ledger.tick(self._clock.elapsed_ms())
        return ledger

    # --- left

    def keep(self, carryover: ICarryover, channels: Iterable[Standing], stands: Iterable[Stand] = ()) -> None:
        """Leave all that is not idle, or is not committed, each with what its commits carry, and what was taken in, never used, and is of today.
        ``stands``: of consumer instances."""
        parcels, standing = self._all(channels), self._all_stands(stands)
        if not parcels and not standing:
            return
        try:
            carryover.keep(msgspec.json.encode(Kept(list(parcels), standing) if standing else parcels))
        except OSError as refused:
            log.error("leases cannot be kept over the restart, their messages come again: {why}", why=str(refused))

    def pack(self, channels: Iterable[Standing], doubted: bool, idle: bool, stands: Iterable[Stand] = ()) -> bytes:
        """The same for another node. :param doubted: as `Handed`. :param idle: those that are idle too."""
        ledgers: list[msgspec.Raw] = []
        size = 0
        parcels = self._all(channels, idle)
        for parcel in parcels:
            ledgers.append(msgspec.Raw(msgspec.msgpack.encode(parcel)))
            size += len(ledgers[-1])
            if size > MOST_BYTES:
                left = len(parcels) - len(ledgers)
                log.error("{count} partitions' leases are too much to hand over, their messages come again", count=left)
                break
        return msgspec.msgpack.encode(Handed(doubted, ledgers, self._all_stands(stands)))

    def _all_stands(self, stands: Iterable[Stand]) -> list[Stand]:
        return [*stands, *(stand for group in self._stands.values() for stand in group.values())][:MOST_STANDS]

    def _all(self, channels: Iterable[Standing], idle: bool = False) -> Sequence[Parcel]:
        now, wall = self._clock.elapsed_ms(), self._clock.epoch_ms()
        used = [(record, channel) for record, channel in channels if idle or channel.dirty or not channel.ledger.idle]
        made = {name: self._made(name) for name in {channel.group for _, channel in used}}
        parcels = [
            Parcel(channel.group, made[channel.group], channel.at, record, channel.since, wall, channel.ledger.snapshot(now))
            for record, channel in used
        ]
        parcels += [msgspec.structs.replace(parcel, at_ms=wall - (now - kept_ms), age_ms=now - kept_ms) for parcel, kept_ms in self._todays()]
        return parcels

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
