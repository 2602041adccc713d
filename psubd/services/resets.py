"""Moving a group's cursor and deleting a group, in use or not. The registry is written first: what was committed before counts no more."""

from collections.abc import Callable, Mapping, Sequence

import msgspec
from twisted.logger import Logger

from psubd.delivery.cursor import written_here
from psubd.errors import InUse, NotFound, OwnershipInDoubt, PsubdError, TopicMissing, TopicNotBound
from psubd.interfaces import Delete, IClock, IGate, IRegistry, ISnapshot, IStorage, Plan
from psubd.model import Binding, Bounds, Commit, GroupTopic, ResetTo, StoredTopic, TopicPartition
from psubd.services.channels import Channel
from psubd.services.commits import Committer
from psubd.services.contests import with_members
from psubd.services.group_records import application_of, check_name, check_room, group_of, path_of
from psubd.services.groups import LiveGroup
from psubd.services.instance_records import gone_with as instances_gone_with
from psubd.services.live_topics import LiveTopic
from psubd.services.notices import Notices
from psubd.services.places import Place, aim, commit_of, cut_below, fresh, reached, settled
from psubd.services.redrive_records import gone_with
from psubd.services.rounds import Locks
from psubd.services.tenures import Tenure, Tenures, under
from psubd.services.truncation import ACTOR, CUT, ends_of, keep, nothing_kept, places_on, register, stamped, take_back
from psubd.services.views import LiveGroups

log = Logger()

RESET = "group.reset"

Failed = dict[TopicPartition, PsubdError]
Movement = Callable[[GroupTopic], dict[int, Place]]
"""The record that was written -> where the moved partitions stand under it."""


class Resetter:
    """:param locks: held meanwhile, so that nobody comes to the group's places half way. :param live: the groups that are loaded, by name.
    :param tenure_of: of a group's slot; what it does not cover is not done."""

    def __init__(
        self,
        storage: IStorage,
        registry: IRegistry,
        gate: IGate,
        clock: IClock,
        *,
        locks: Locks,
        committer: Committer,
        live: LiveGroups,
        tenure_of: Tenures,
        notices: Notices | None = None,
    ) -> None:
        self._storage, self._registry, self._gate, self._clock = storage, registry, gate, clock
        self._locks, self._committer, self._live, self._notices = locks, committer, live, notices or Notices()
        self._tenure_of = tenure_of

    async def reset(self, name: str, topic: str, partitions: Sequence[int] | None, to: ResetTo, dry_run: bool, actor: str) -> dict[int, int]:
        """As `ISubscriber.reset`. Partitions that are not moved keep their place, what is leased of them stays leased. A group that somebody
        else had in the storage is psubd's afterwards, wholly."""
        check_name(name)
        self._bound(name, topic)
        self._tenure_of(name).check()
        if dry_run:
            check_room(self._registry.snapshot(), name)
            return await aim(self._storage, topic, partitions, to)
        async with self._locks.of(name):
            binding = self._bound(name, topic)
            offsets = await aim(self._storage, topic, partitions, to)
            self._tenure_of(name).check()
            others = await self._take(name, topic)
            try:
                await self._move(name, binding, offsets, actor)
            except InUse as taken:
                raise with_members(name, taken) from taken
            for other in others:
                await self._storage.forget(name, other)
        return offsets

    async def rewind(self, name: str, topic: str, offsets: Mapping[int, int]) -> None:
        """A consumer instance puts the group's place on these partitions back. As `reset`, of a group that is psubd's. :raises PsubdError:"""
        async with self._locks.of(name):
            self._tenure_of(name).check()
            await self._move(name, self._bound(name, topic), offsets, f"application {application_of(name)}")

    async def forget(self, name: str, actor: str) -> None:
        """As `ISubscriber.forget_group`."""
        async with self._locks.of(name):
            tenure = self._tenure_of(name)
            tenure.check()
            topics = await self._unregister(name, tenure, actor)
            loaded = self._live.get(name)
            if loaded is not None:
                loaded.end(NotFound(f"group {name!r} was deleted"))
            await self._committer.quiet(name)
            # The registrar begins the application's own group without this lock: a topic that is being granted must keep its place.
            try:
                for topic in topics if name == application_of(name) else [None]:
                    tenure.confirm()
                    await self._storage.forget(name, topic)
            except (InUse, OwnershipInDoubt) as taken:
                log.warn("{group}: deleted; its places stay in the storage, where they count no more: {why}", group=name, why=taken.detail)

    async def _take(self, name: str, topic: str) -> list[str]:
        """Have the group, whoever wrote its places, before anything is changed; on which other topics they are not psubd's.

        Those must go: they would keep psubd from its own group after the next start. :raises InUse: it has members.
        """
        await self._storage.adopt(name)
        loaded = self._live.get(name)
        # Where places expire others may write them: a commit tells whether somebody does.
        if loaded is not None and (loaded.contest.stands or self._storage.limits.places_expire):
            await loaded.keep(on_purpose=True)
            if loaded.contest.error is not None:
                raise with_members(name, loaded.contest.error)
        kept: dict[TopicPartition, Commit] = await self._storage.committed(name)
        return sorted({at.topic for at, commit in kept.items() if not written_here(commit)} - {topic})

    async def _unregister(self, name: str, tenure: Tenure, actor: str) -> list[str]:
        """Delete the group's record; the topics that it stood on. :raises NotFound:"""
        topics: list[str] = []

        def plan(snapshot: ISnapshot, serial: int) -> Plan:
            group, instances = group_of(snapshot, name), instances_gone_with(snapshot, name)
            if group is None and not instances:
                raise NotFound(f"no group {name!r}")
            topics[:] = () if group is None else group.topics
            own = () if group is None else (Delete(path_of(name)), *gone_with(snapshot, name))
            return Plan(f"group.deleted {name}", (*own, *instances))

        await self._registry.change(actor, under(tenure, plan))
        return topics

    def _bound(self, name: str, topic: str) -> Binding:
        application = application_of(name)
        grant = self._gate.grant_of(application)
        binding = None if grant is None else grant.bindings.get(topic)
        if binding is None or not binding.sub:
            raise TopicNotBound(f"application {application!r} is not bound to topic {topic!r} to subscribe")
        return binding

    async def mend(self, name: str, topic: str, partition: int) -> bool:
        """A channel of a loaded group saw signs that the log was cut below what it had read: where that is so in fact, move this partition to where
        the log ended, the registry first. Its leases are lost then; the topic's other partitions go on.

        The channel reads nothing meanwhile. True: it was moved, and another channel has its place. False: the log was not cut below what was read,
        or the group does not stand there any more: the channel, if it lives, goes on.

        :raises PsubdError: it cannot be told, or not be registered; nothing was moved, and it is to be tried again.
        """
        async with self._locks.of(name):
            loaded = self._live.get(name)
            found = None if loaded is None else loaded.topics.get(topic)
            channel = None if found is None else found.channels.get(partition)
            if loaded is None or found is None or channel is None:
                return False
            loaded.tenure.check()
            bounds: dict[int, Bounds] = await self._storage.bounds(topic)
            ends = await ends_of(self._storage, topic, {partition: channel.log_epoch})
            if not channel.live or not found.is_current() or partition not in bounds:
                return False
            if cut_below(bounds[partition], ends.get(partition), came(channel)) is None:
                return False
            await self._mend(loaded, found, channel, bounds[partition], ends.get(partition))
            return True

    async def _mend(self, group: LiveGroup, topic: LiveTopic, channel: Channel, bound: Bounds, log_end: int | None) -> None:
        """The places are committed with the next interval: they stand in memory, and nobody has to wait for the storage."""
        topic.moving = True
        try:
            record = await register(self._registry, self._clock, group.tenure, group.name, topic.name, topic.record, CUT, ACTOR)
            if not channel.live:
                return
            stood = came(channel)  # acks that came while the registry wrote count
            place = settled(channel.place(), topic.binding.start, bound, log_end, stood)
            partition = channel.at.partition
            group.hold(topic, record, [partition])
        finally:
            topic.moving = False
        group.move(topic, {partition: msgspec.structs.replace(place, since=record.reset, kept=False)})
        self._notices.truncated(group.name, topic.name, partition, stood, place.offset)
        if place.skipped is not None:
            self._notices.skipped(group.name, topic.name, partition, *place.skipped)

    async def _move(self, name: str, binding: Binding, offsets: Mapping[int, int], actor: str) -> None:
        bounds: dict[int, Bounds] = await self._storage.bounds(binding.topic)
        stored: dict[str, StoredTopic] = await self._storage.describe([binding.topic])
        if binding.topic not in stored:
            raise TopicMissing(f"topic {binding.topic!r} is gone from the storage")
        aimed = GroupTopic(stored[binding.topic].uid, binding.mark)
        before = await self._before(name, binding, aimed.uid, bounds)
        rest = {partition: place for partition, place in before.items() if partition not in offsets}

        def moved(record: GroupTopic) -> dict[int, Place]:
            return {
                partition: Place(offset, (), bounds[partition].end, False, since=record.reset, log_epoch=bounds[partition].log_epoch)
                for partition, offset in offsets.items()
            }

        loaded = self._live.get(name)
        topic = None if loaded is None else loaded.topics.get(binding.topic)
        if loaded is None or topic is None:
            refuse(await self._move_kept(name, binding.topic, aimed, moved, rest, actor))
        else:
            refuse(await self._move_loaded(loaded, topic, aimed, moved, rest, actor))

    async def _move_kept(self, name: str, topic: str, aimed: GroupTopic, moved: Movement, rest: Mapping[int, Place], actor: str) -> Failed:
        """Of a group that is not loaded. Where surely nothing was kept, the reset is taken back: the partitions that were not to be moved would
        lose their places too."""
        group = group_of(self._registry.snapshot(), name)
        former = None if group is None else group.topics.get(topic)
        tenure = self._tenure_of(name)
        record = await register(self._registry, self._clock, tenure, name, topic, aimed, RESET, actor)
        places = {**stamped(rest, record), **moved(record)}
        failed = await self._store(name, tenure, topic, record, places, None)
        if nothing_kept(failed, places):
            await take_back(self._registry, name, topic, record, former, actor)
            return failed
        for partition, place in rest.items():
            if place.stood is not None:
                self._notices.truncated(name, topic, partition, place.stood, place.offset)
        return failed

    async def _move_loaded(
        self, group: LiveGroup, topic: LiveTopic, aimed: GroupTopic, moved: Movement, rest: Mapping[int, Place], actor: str
    ) -> Failed:
        """What is moved is void from the registry's change on, and there again once it is kept. The rest goes on all the time."""
        topic.moving = True
        places: dict[int, Place] | None = None
        kept = False
        try:
            former = topic.record
            record = await register(self._registry, self._clock, group.tenure, group.name, topic.name, aimed, RESET, actor)
            places = moved(record)
            group.hold(topic, record, places)
            kept_places = {**stamped(rest, record), **places}
            failed = await self._store(group.name, group.tenure, topic.name, record, kept_places, topic)
            kept = not failed
            if group.tenure.ended and nothing_kept(failed, kept_places):  # whoever serves it now finds no place of the new record
                await take_back(self._registry, group.name, topic.name, record, former, actor)
            return failed
        finally:
            # Where the storage failed, the new place stands in memory, and is committed as soon as that can be.
            topic.moving = False
            if places is not None:
                group.move(topic, {partition: msgspec.structs.replace(place, kept=kept) for partition, place in places.items()})

    async def _before(self, name: str, binding: Binding, uid: str, bounds: Mapping[int, Bounds]) -> dict[int, Place]:
        """Where the storage says that the group stands; one that is new begins as the binding says, on a topic made again at its first messages."""
        group = group_of(self._registry.snapshot(), name)
        record = None if group is None else group.topics.get(binding.topic)
        if record is not None and record.mark == binding.mark and record.uid == uid:
            return await places_on(self._storage, binding.topic, record, binding.start, await self._storage.committed(name))
        latest = binding.start == "latest" and (record is None or record.mark != binding.mark)
        return {partition: fresh(bound.end if latest else bound.first, bound) for partition, bound in bounds.items()}

    async def _store(self, name: str, tenure: Tenure, topic: str, record: GroupTopic, places: Mapping[int, Place], live: LiveTopic | None) -> Failed:
        """Keep all the topic's places under the new record; those of channels that go on as they are at this moment. The failed ones, with why."""
        await self._committer.quiet(name)
        limit = self._storage.limits.max_metadata
        commits = {TopicPartition(topic, partition): commit_of(record, tenure.epoch, place, limit) for partition, place in places.items()}
        channels = [] if live is None or not live.live else list(live.channels.values())
        commits |= {channel.at: channel.commit(limit) for channel in channels}
        failed = await keep(self._storage, tenure, name, commits)
        for channel in channels:
            if channel.at not in failed:
                channel.keeps(commits[channel.at])
        if failed:
            why = next(iter(failed.values())).detail
            log.warn("{group}: the move on {topic} is registered, its places could not be kept: {why}", group=name, topic=topic, why=why)
        return failed


def came(channel: Channel) -> int:
    """How far the group had come: what was read, and what was acked past that by leases of an earlier process."""
    return max(channel.stood, reached(channel.place()))


def refuse(failed: Mapping[TopicPartition, PsubdError]) -> None:
    """:raises PsubdError: the first of them, if any failed."""
    for error in failed.values():
        raise error
