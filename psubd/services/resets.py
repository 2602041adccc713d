"""Moving a group's cursor and deleting a group, in use or not. The registry is written first: what was committed before counts no more."""

from collections.abc import Callable, Mapping, Sequence

import msgspec
from twisted.logger import Logger

from psubd.delivery.cursor import Cursor, CursorTooLong, encode
from psubd.errors import NotFound, PsubdError, TopicMissing, TopicNotBound
from psubd.interfaces import Change, Delete, IClock, IGate, INodes, IRegistry, ISnapshot, IStorage, Plan
from psubd.model import Binding, Bounds, Commit, GroupTopic, ResetTo, StoredTopic, TopicPartition
from psubd.services.commits import Committer
from psubd.services.group_records import application_of, check_name, enrol, group_of, path_of
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
        """As `ISubscriber.reset`. Partitions that are not moved keep their place, what is leased of them stays leased."""
        check_name(name)
        self._bound(name, topic)
        if dry_run:
            return await aim(self._storage, topic, partitions, to)
        async with self._locks.of(name):
            binding = self._bound(name, topic)
            offsets = await aim(self._storage, topic, partitions, to)
            await self._move(name, binding, offsets, actor)
        return offsets

    async def forget(self, name: str, actor: str) -> None:
        """As `ISubscriber.forget_group`."""
        async with self._locks.of(name):
            await self._registry.change(actor, forgotten(name))
            loaded = self._live.get(name)
            if loaded is not None:
                loaded.end(NotFound(f"group {name!r} was deleted"))
            await self._committer.quiet(name)
            await self._storage.forget(name, None)

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
            record = await self._write(name, binding.topic, aimed, actor)
            await self._store(name, binding.topic, record, places, None)
        else:
            await self._move_loaded(loaded, topic, aimed, places, offsets, actor)

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
            await self._store(group.name, topic.name, record, places, topic)
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

    async def _store(self, name: str, topic: str, record: GroupTopic, places: Mapping[int, Place], live: LiveTopic | None) -> None:
        """Keep all the topic's places under the new record; those of channels that go on as they are at this moment."""
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
            for error in failed.values():
                raise error
        except PsubdError as error:
            log.warn("{group}: reset of {topic} is registered, its places could not be kept: {why}", group=name, topic=topic, why=error.detail)
            raise

    def _commit(self, record: GroupTopic, place: Place) -> Commit:
        cursor = Cursor(record.uid, record.mark, record.reset, self._nodes.epoch, place.offset, place.done)
        try:
            return encode(cursor, self._storage.limits.max_metadata)
        except CursorTooLong:
            return encode(cursor._replace(done=()), self._storage.limits.max_metadata)


def forgotten(name: str) -> Callable[[ISnapshot, int], Plan]:
    """The change that deletes the group's record. :raises NotFound:"""

    def plan(snapshot: ISnapshot, serial: int) -> Plan:
        if snapshot.get(path_of(name)) is None:
            raise NotFound(f"no group {name!r}")
        return Plan(f"group.deleted {name}", (Delete(path_of(name)),))

    return plan
