"""A log that was cut below where a group stood, and a record that moves the group: what coming to places and resets share.

A broker that was not in sync is made the leader, or a disk loses its newest writes: the log ends earlier than it did, and the offsets behind get
other messages. A group that had read further goes back to where its log ended (`psubd.services.places.settled`). What was leased or acked of the
lost messages must not count for those that take their offsets, so the partition moves as by a reset: the registry first, then the places.
"""

from collections.abc import Callable, Mapping, Sized

import msgspec
from twisted.logger import Logger

from psubd.errors import InUse, OwnershipInDoubt, PsubdError, StorageUnavailable, TopicNotBound
from psubd.interfaces import Change, Delete, IClock, IRegistry, ISnapshot, IStorage, Plan, Put
from psubd.model import Bounds, Commit, GroupTopic, Start, TopicPartition
from psubd.services.group_records import enrol, group_of, path_of
from psubd.services.places import Place, place_of, todays
from psubd.services.tenures import Tenure, under

ACTOR = "psubd"
"""Who moves a group whose log was cut, for the audit."""

CUT = "group.log_cut"

log = Logger()


async def ends_of(storage: IStorage, topic: str, epochs: Mapping[int, int]) -> dict[int, int]:
    """`IStorage.log_ends`, where there is anything to ask."""
    known = {partition: epoch for partition, epoch in epochs.items() if epoch >= 0}
    if not known:
        return {}
    ends: dict[int, int] = await storage.log_ends(topic, known)
    return ends


async def places_on(
    storage: IStorage,
    topic: str,
    record: GroupTopic,
    start: Start,
    kept: Mapping[TopicPartition, Commit],
    reach: Callable[[TopicPartition], int] = lambda at: 0,
) -> dict[int, Place]:
    """Where a known group goes on, on every partition that the topic has now, given what the storage kept.

    :param reach: how far leases go that are to stand beside that. :raises PsubdError:
    """
    bounds: dict[int, Bounds] = await storage.bounds(topic)
    spots = {partition: TopicPartition(topic, partition) for partition in bounds}
    commits = {partition: kept.get(at) for partition, at in spots.items()}
    epochs = {partition: commit.log_epoch for partition, commit in commits.items() if commit is not None and todays(commit, record) is not None}
    ends = await ends_of(storage, topic, epochs)
    return {
        partition: place_of(commits[partition], record, start, bound, ends.get(partition), reach(spots[partition]))
        for partition, bound in bounds.items()
    }


def stamped(places: Mapping[int, Place], record: GroupTopic) -> dict[int, Place]:
    """The same places under a record that was written just now: the leases of partitions that were cut, or begin anew, are lost with it."""
    return {
        partition: msgspec.structs.replace(place, kept=False, since=record.reset)
        if place.missing or place.stood is not None
        else msgspec.structs.replace(place, kept=False)
        for partition, place in places.items()
    }


async def register(registry: IRegistry, clock: IClock, tenure: Tenure, name: str, topic: str, aimed: GroupTopic, what: str, actor: str) -> GroupTopic:
    """Write that the group's places on the topic are others from now on; the record that their commits must carry. :raises PsubdError:"""
    change: Change = await registry.change(actor, under(tenure, enrol(name, {topic: aimed}, what, clock.epoch_ms(), reset=True)))
    return msgspec.structs.replace(aimed, reset=change.serial)


async def keep(storage: IStorage, tenure: Tenure, name: str, commits: Mapping[TopicPartition, Commit]) -> dict[TopicPartition, PsubdError]:
    """Commit them. Those that could not be, with why; never fails."""
    try:
        tenure.confirm()
        failed: dict[TopicPartition, PsubdError] = await storage.commit(name, commits)
    except PsubdError as error:
        return dict.fromkeys(commits, error)
    return failed


def nothing_kept(failed: Mapping[TopicPartition, PsubdError], places: Sized) -> bool:
    """Whether surely none of the places is in the storage: then the record may be taken back, and the former places count again."""
    return len(failed) == len(places) > 0 and all(isinstance(error, StorageUnavailable | InUse | OwnershipInDoubt) for error in failed.values())


async def take_back(registry: IRegistry, name: str, topic: str, record: GroupTopic, former: GroupTopic | None, actor: str) -> None:
    """Nothing was kept under ``record``: the former places count again. Where the registry does not take that, ``record`` stays. Never fails."""
    try:
        await registry.change(actor, taken_back(name, topic, record, former))
    except PsubdError as error:
        log.warn(
            "{group}: its new places on {topic} stay registered; it goes on at its first messages: {why}", group=name, topic=topic, why=error.detail
        )


def taken_back(name: str, topic: str, record: GroupTopic, former: GroupTopic | None) -> Callable[[ISnapshot, int], Plan]:
    """The change that gives the group its ``former`` record on the topic again instead of ``record``; a group that the reset made goes.

    :raises TopicNotBound: it is not ``record`` that stands there any more.
    """

    def plan(snapshot: ISnapshot, serial: int) -> Plan:
        group = group_of(snapshot, name)
        if group is None or group.topics.get(topic) != record:
            raise TopicNotBound(f"group {name!r} stands on topic {topic!r} no more, or as somebody else put it")
        topics = {other: place for other, place in group.topics.items() if other != topic}
        if former is not None:
            topics[topic] = former
        made_by_it = not topics and group.serial == record.reset
        path = path_of(name)
        write = Delete(path) if made_by_it else Put(path, msgspec.json.encode(msgspec.structs.replace(group, topics=topics)))
        return Plan(f"group.reset_taken_back {name} {topic}", (write,))

    return plan
