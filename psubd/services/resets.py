"""Moving a group's cursor and deleting a group, in use or not. The registry is written first: what was committed before counts no more."""

from collections.abc import Callable, Mapping, Sequence

import msgspec
from twisted.logger import Logger

from psubd.delivery.cursor import Cursor, CursorTooLong, encode, written_here
from psubd.errors import InUse, NotFound, PsubdError, StorageUnavailable, TopicMissing, TopicNotBound
from psubd.interfaces import Change, Delete, IClock, IGate, INodes, IRegistry, ISnapshot, IStorage, Plan, Put
from psubd.model import Binding, Bounds, Commit, GroupTopic, ResetTo, StoredTopic, TopicPartition
from psubd.services.commits import Committer
from psubd.services.contests import with_members
from psubd.services.group_records import application_of, check_name, check_room, enrol, group_of, path_of
from psubd.services.groups import LiveGroup
from psubd.services.live_topics import LiveTopic
from psubd.services.places import Place, aim
from psubd.services.rounds import Locks
from psubd.services.views import LiveGroups, Standing, standings

log = Logger()


class Resetter:
    """:param locks: held meanwhile, so that nobody comes to the group's places half way. :param live: the groups that are loaded, by name."""

    def __init__(
        self,
        storage: IStorage,
        registry: IRegistry,
        gate: IGate,
        nodes: INodes,
        clock: IClock,
        *,
        locks: Locks,
        committer: Committer,
        live: LiveGroups,
    ) -> None:
        self._storage, self._registry, self._gate, self._nodes, self._clock = storage, registry, gate, nodes, clock
        self._locks, self._committer, self._live = locks, committer, live

    async def reset(self, name: str, topic: str, partitions: Sequence[int] | None, to: ResetTo, dry_run: bool, actor: str) -> dict[int, int]:
        """As `ISubscriber.reset`. Partitions that are not moved keep their place, what is leased of them stays leased. A group that somebody
        else had in the storage is psubd's afterwards, wholly."""
        check_name(name)
        self._bound(name, topic)
        if dry_run:
            check_room(self._registry.snapshot(), name)
            return await aim(self._storage, topic, partitions, to)
        async with self._locks.of(name):
            binding = self._bound(name, topic)
            offsets = await aim(self._storage, topic, partitions, to)
            others = await self._take(name, topic)
            try:
                await self._move(name, binding, offsets, actor)
            except InUse as taken:
                raise with_members(name, taken) from taken
            for other in others:
                await self._storage.forget(name, other)
        return offsets

    async def forget(self, name: str, actor: str) -> None:
        """As `ISubscriber.forget_group`."""
        async with self._locks.of(name):
            topics = await self._unregister(name, actor)
            loaded = self._live.get(name)
            if loaded is not None:
                loaded.end(NotFound(f"group {name!r} was deleted"))
            await self._committer.quiet(name)
            # The registrar begins the application's own group without this lock: a topic that is being granted must keep its place.
            try:
                for topic in topics if name == application_of(name) else [None]:
                    await self._storage.forget(name, topic)
            except InUse as taken:
                log.warn("{group}: deleted; its places stay in the storage, where they count no more: {why}", group=name, why=taken.detail)

    async def _take(self, name: str, topic: str) -> list[str]:
        """Have the group, whoever wrote its places, before anything is changed; on which other topics they are not psubd's.

        Those must go: they would keep psubd from its own group after the next start. :raises InUse: it has members.
        """
        await self._storage.adopt(name)
        loaded = self._live.get(name)
        # Where places expire others may write them: a commit tells whether somebody does.
        if loaded is not None and (loaded.contest.stands or self._storage.limits.places_expire):
            await loaded.keep()
            if loaded.contest.error is not None:
                raise with_members(name, loaded.contest.error)
        kept: dict[TopicPartition, Commit] = await self._storage.committed(name)
        return sorted({at.topic for at, commit in kept.items() if not written_here(commit)} - {topic})

    async def _unregister(self, name: str, actor: str) -> list[str]:
        """Delete the group's record; the topics that it stood on. :raises NotFound:"""
        topics: list[str] = []

        def plan(snapshot: ISnapshot, serial: int) -> Plan:
            group = group_of(snapshot, name)
            if group is None:
                raise NotFound(f"no group {name!r}")
            topics[:] = group.topics
            return Plan(f"group.deleted {name}", (Delete(path_of(name)),))

        await self._registry.change(actor, plan)
        return topics

    def _bound(self, name: str, topic: str) -> Binding:
        application = application_of(name)
        grant = self._gate.grant_of(application)
        binding = None if grant is None else grant.bindings.get(topic)
        if binding is None or not binding.sub:
            raise TopicNotBound(f"application {application!r} is not bound to topic {topic!r} to subscribe")
        return binding

    async def _move(self, name: str, binding: Binding, offsets: Mapping[int, int], actor: str) -> None:
        bounds: dict[int, Bounds] = await self._storage.bounds(binding.topic)
        stored: dict[str, StoredTopic] = await self._storage.describe([binding.topic])
        if binding.topic not in stored:
            raise TopicMissing(f"topic {binding.topic!r} is gone from the storage")
        aimed = GroupTopic(stored[binding.topic].uid, binding.mark)
        before = await self._standings(name, binding, aimed.uid, bounds)
        places = {
            partition: Place(offsets[partition], (), bound.end, True)
            if partition in offsets
            else Place(before[partition].offset, before[partition].done, bound.end, True)
            for partition, bound in bounds.items()
        }
        loaded = self._live.get(name)
        topic = None if loaded is None else loaded.topics.get(binding.topic)
        if loaded is None or topic is None:
            await self._move_kept(name, binding.topic, aimed, places, actor)
        else:
            await self._move_loaded(loaded, topic, aimed, places, offsets, actor)

    async def _move_kept(self, name: str, topic: str, aimed: GroupTopic, places: Mapping[int, Place], actor: str) -> None:
        """Of a group that is not loaded. Where surely nothing was kept, the reset is taken back: the partitions that were not to be moved would
        lose their places too."""
        group = group_of(self._registry.snapshot(), name)
        former = None if group is None else group.topics.get(topic)
        record = await self._write(name, topic, aimed, actor)
        failed = await self._store(name, topic, record, places, None)
        if len(failed) == len(places) and all(isinstance(error, StorageUnavailable | InUse) for error in failed.values()):
            await self._take_back(name, topic, record, former, actor)
        refuse(failed)

    async def _take_back(self, name: str, topic: str, record: GroupTopic, former: GroupTopic | None, actor: str) -> None:
        try:
            await self._registry.change(actor, taken_back(name, topic, record, former))
        except PsubdError as error:
            log.warn("{group}: reset of {topic} stays registered; it goes on at its first messages: {why}", group=name, topic=topic, why=error.detail)

    async def _move_loaded(
        self, group: LiveGroup, topic: LiveTopic, aimed: GroupTopic, places: Mapping[int, Place], moved: Mapping[int, int], actor: str
    ) -> None:
        """What is moved is void from the registry's change on, and there again once it is kept. The rest goes on all the time."""
        topic.moving = True
        held = kept = False
        try:
            record = await self._write(group.name, topic.name, aimed, actor)
            group.hold(topic, record, moved)
            held = True
            refuse(await self._store(group.name, topic.name, record, places, topic))
            kept = True
        finally:
            # Where the storage failed, the new place stands in memory, and is committed as soon as that can be.
            topic.moving = False
            if held:
                group.move(topic, {partition: msgspec.structs.replace(places[partition], kept=kept) for partition in moved})

    async def _standings(self, name: str, binding: Binding, uid: str, bounds: Mapping[int, Bounds]) -> dict[int, Standing]:
        """Where the group stands now; one that is new begins as the binding says, on a topic made again at its first messages."""
        group = group_of(self._registry.snapshot(), name)
        record = None if group is None else group.topics.get(binding.topic)
        if group is None or record is None or record.mark != binding.mark:
            return {partition: Standing(bound.first if binding.start == "earliest" else bound.end) for partition, bound in bounds.items()}
        if record.uid != uid:
            return {partition: Standing(bound.first) for partition, bound in bounds.items()}
        found = await standings(self._storage, self._live, group, {binding.topic: bounds})
        return {at.partition: standing for at, standing in found.items()}

    async def _write(self, name: str, topic: str, aimed: GroupTopic, actor: str) -> GroupTopic:
        change: Change = await self._registry.change(actor, enrol(name, {topic: aimed}, "group.reset", self._clock.epoch_ms(), reset=True))
        return msgspec.structs.replace(aimed, reset=change.serial)

    async def _store(
        self, name: str, topic: str, record: GroupTopic, places: Mapping[int, Place], live: LiveTopic | None
    ) -> dict[TopicPartition, PsubdError]:
        """Keep all the topic's places under the new record; those of channels that go on as they are at this moment. The failed ones, with why."""
        await self._committer.quiet(name)
        channels = live.channels if live is not None and live.live else {}
        commits = {
            TopicPartition(topic, partition): channels[partition].commit(self._nodes.epoch, self._storage.limits.max_metadata)
            if partition in channels
            else self._commit(record, place)
            for partition, place in places.items()
        }
        try:
            failed: dict[TopicPartition, PsubdError] = await self._storage.commit(name, commits)
        except PsubdError as error:
            failed = dict.fromkeys(commits, error)
        if failed:
            why = next(iter(failed.values())).detail
            log.warn("{group}: reset of {topic} is registered, its places could not be kept: {why}", group=name, topic=topic, why=why)
        return failed

    def _commit(self, record: GroupTopic, place: Place) -> Commit:
        cursor = Cursor(record.uid, record.mark, record.reset, self._nodes.epoch, place.offset, place.done)
        try:
            return encode(cursor, self._storage.limits.max_metadata)
        except CursorTooLong:
            return encode(cursor._replace(done=()), self._storage.limits.max_metadata)


def refuse(failed: Mapping[TopicPartition, PsubdError]) -> None:
    """:raises PsubdError: the first of them, if any failed."""
    for error in failed.values():
        raise error


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
