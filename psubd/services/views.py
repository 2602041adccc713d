"""How groups stand, for the manager and the tenants: loaded or not, with as few questions to the storage as there are topics and groups."""

from collections.abc import Callable, Iterable, Mapping

import msgspec
from twisted.python.failure import Failure

from psubd.delivery.cursor import Ranges
from psubd.errors import InUse, NotFound, TopicMissing
from psubd.interfaces import IClock, INodes, IRegistry, IStorage
from psubd.model import Bounds, Commit, Group, GroupItem, GroupTopic, GroupView, Message, Slice, TopicPartition
from psubd.services.group_records import group_of, names_of
from psubd.services.groups import LiveGroup
from psubd.services.places import cut, todays
from psubd.services.rounds import all_of, outcomes

LiveGroups = Mapping[str, LiveGroup]


class Standing(msgspec.Struct, frozen=True):
    """Where a group stands on a partition now; ``oldest``: the first message that is not done, where it is in memory."""

    offset: int
    done: Ranges = ()
    leased: int = 0
    oldest: Message | None = None


class Survey:
    """One look at some groups: what was asked once is not asked again."""

    def __init__(self, storage: IStorage, clock: IClock, node: str, live: LiveGroups) -> None:
        self._storage, self._clock, self._node, self._live = storage, clock, node, live
        self._bounds: dict[str, dict[int, Bounds]] = {}
        self._timestamps: dict[tuple[TopicPartition, int], int | None] = {}

    async def views(self, groups: Iterable[Group]) -> list[GroupView]:
        """How each stands. :raises PsubdError: what the storage failed with."""
        groups = list(groups)
        await self._look(sorted({topic for group in groups for topic in group.topics}))
        return await all_of([self._view(group) for group in groups])

    async def _look(self, topics: list[str]) -> None:
        """The bounds of the topics that are there, each asked once."""

        async def ask(topic: str) -> dict[int, Bounds]:
            bounds: dict[int, Bounds] = await self._storage.bounds(topic)
            return bounds

        for topic, outcome in zip(topics, await outcomes([ask(topic) for topic in topics]), strict=True):
            if not isinstance(outcome, Failure):
                self._bounds[topic] = outcome
            elif not outcome.check(TopicMissing):
                outcome.raiseException()

    async def _view(self, group: Group) -> GroupView:
        """One that is somebody else's in the storage stands nowhere: it must not keep the others from being shown."""
        try:
            places = await standings(self._storage, self._live, group, self._bounds)
        except InUse:
            places = {}
        items = [await self._item(at, place, self._bounds[at.topic][at.partition]) for at, place in sorted(places.items())]
        return GroupView(group.name, group.application, tuple(items))

    async def _item(self, at: TopicPartition, place: Standing, bound: Bounds) -> GroupItem:
        end = max(bound.end, place.offset)
        lag = end - place.offset - sum(min(stop, end) - start for start, stop in place.done if start < end)
        oldest = await self._timestamp(at, place) if lag > 0 else None
        age = None if oldest is None else max(0, self._clock.epoch_ms() - oldest)
        return GroupItem(at.topic, at.partition, place.offset, end, lag, place.leased, age, self._node)

    async def _timestamp(self, at: TopicPartition, place: Standing) -> int | None:
        """When the first message that is not done was published; None: there is only a gap, or the topic went away since its bounds were asked."""
        if place.oldest is not None:
            return place.oldest.timestamp
        if (at, place.offset) not in self._timestamps:
            self._timestamps[at, place.offset] = await self._published(at, place.offset)
        return self._timestamps[at, place.offset]

    async def _published(self, at: TopicPartition, offset: int) -> int | None:
        try:
            found: Slice = await self._storage.read(at.topic, at.partition, offset, 1, 1)
        except TopicMissing:
            return None
        return found.messages[0].timestamp if found.messages else None


async def standings(storage: IStorage, live: LiveGroups, group: Group, bounds: Mapping[str, Mapping[int, Bounds]]) -> dict[TopicPartition, Standing]:
    """Where the group stands on every partition in ``bounds`` of its topics: from memory where it is loaded, else from the storage."""
    loaded = live.get(group.name)
    kept: dict[TopicPartition, Commit] | None = None
    found: dict[TopicPartition, Standing] = {}
    for topic in sorted(group.topics.keys() & bounds.keys()):
        for partition, bound in bounds[topic].items():
            at = TopicPartition(topic, partition)
            standing = in_memory(loaded, group.topics[topic], at)
            if standing is None:
                if kept is None:
                    kept = await storage.committed(group.name)
                standing = in_storage(kept.get(at), group.topics[topic], bound)
            found[at] = standing
    return found


def in_memory(loaded: LiveGroup | None, record: GroupTopic, at: TopicPartition) -> Standing | None:
    topic = None if loaded is None else loaded.topics.get(at.topic)
    if topic is None or topic.record != record or at.partition not in topic.channels:
        return None
    ledger = topic.channels[at.partition].ledger
    place = ledger.place()
    return Standing(place.offset, place.done, ledger.leased, ledger.oldest())


def in_storage(commit: Commit | None, record: GroupTopic, bound: Bounds) -> Standing:
    cursor = todays(commit, record)
    return Standing(bound.first) if cursor is None else Standing(*cut(cursor.offset, cursor.done, bound))


class Views:
    """:param live: the groups that are loaded, by name."""

    def __init__(self, storage: IStorage, registry: IRegistry, nodes: INodes, clock: IClock, live: LiveGroups) -> None:
        self._storage, self._registry, self._nodes, self._clock, self._live = storage, registry, nodes, clock, live

    async def groups(self, application: str | None, only: Callable[[str], bool] | None = None) -> list[GroupView]:
        snapshot = self._registry.snapshot()
        found = [group_of(snapshot, name) for name in names_of(snapshot, application) if only is None or only(name)]
        return await self._survey().views(group for group in found if group is not None)

    async def group(self, name: str) -> GroupView:
        """:raises NotFound:"""
        group = group_of(self._registry.snapshot(), name)
        if group is None:
            raise NotFound(f"no group {name!r}; it is made by its first read, or by a reset")
        [view] = await self._survey().views([group])
        return view

    async def cursors(self, name: str, topic: str, bounds: Mapping[int, Bounds]) -> dict[int, int]:
        """The group's first offset that is not done, for each partition; empty: it has no place on the topic."""
        group = group_of(self._registry.snapshot(), name)
        if group is None or topic not in group.topics:
            return {}
        places = await standings(self._storage, self._live, group, {topic: bounds})
        return {at.partition: place.offset for at, place in places.items()}

    def _survey(self) -> Survey:
        return Survey(self._storage, self._clock, self._nodes.node_id, self._live)
