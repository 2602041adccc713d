"""How a group comes to its places: found in the storage, or begun there and written into the registry, before anybody reads."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeGuard

import msgspec
from twisted.logger import Logger
from twisted.python.failure import Failure

from psubd.errors import Internal, InUse, NoPlace, PsubdError, TopicMissing, TopicNotBound
from psubd.interfaces import IClock, IGate, IRegistry, IStorage
from psubd.model import Binding, Commit, Group, GroupTopic, Start, StoredTopic, TopicPartition
from psubd.services.commits import Committer
from psubd.services.contests import foreign
from psubd.services.group_records import application_of, check_room, enrol, group_of, still_bound
from psubd.services.notices import Notices
from psubd.services.places import Place, begin, commit_of
from psubd.services.rounds import Locks, outcomes
from psubd.services.tenures import Tenures, under
from psubd.services.truncation import ACTOR, CUT, keep, nothing_kept, places_on, register, stamped, take_back

Starts = Mapping[str, Start | None]
"""By topic: where a group begins that is new on it; None: nowhere."""

NO_STARTS: Starts = {}

log = Logger()


class Joined(msgspec.Struct, frozen=True):
    """A group's standing on a topic. ``record`` is what its commits must carry."""

    binding: Binding
    record: GroupTopic
    places: dict[int, Place]


class Joiner:
    """:param locks: held while a group comes to its places, so that nobody resets or forgets it meanwhile. :param tenure_of: of a group's slot.
    :param alone: whether no other node could begin the group at the same time. :param notices: told of places that are missing, and of logs that
    changed. :param reach: how far the leases go that were left of a group and partition, by whoever served it before."""

    def __init__(
        self,
        storage: IStorage,
        registry: IRegistry,
        gate: IGate,
        clock: IClock,
        *,
        locks: Locks,
        committer: Committer,
        notices: Notices,
        tenure_of: Tenures,
        alone: Callable[[], bool],
        reach: Callable[[str, TopicPartition], int],
    ) -> None:
        self._storage, self._registry, self._gate, self._clock = storage, registry, gate, clock
        self._locks, self._committer, self._notices, self._reach = locks, committer, notices, reach
        self._tenure_of, self._alone = tenure_of, alone

    async def join(self, name: str, topics: Iterable[str], starts: Starts = NO_STARTS) -> dict[str, Joined | PsubdError]:
        """The group's standing on each of ``topics``, or why there is none. Never fails. ``starts``: where it begins on topics that are new to it,
        where that is not where the binding says; None: it has to have a place."""
        asked = sorted(topics)
        try:
            async with self._locks.of(name):
                await self._committer.quiet(name)
                self._tenure_of(name).check()
                found = await self._join(name, asked, starts)
                return {topic: foreign(name, outcome) if is_foreign(outcome) else outcome for topic, outcome in found.items()}
        except InUse as taken:
            return dict.fromkeys(asked, foreign(name, taken))
        except PsubdError as error:
            return dict.fromkeys(asked, error)
        except Exception:  # noqa: BLE001 - a bug of ours or of a storage: told, and tried again
            log.failure("{group}: coming to its places broke", group=name)
            return dict.fromkeys(asked, Internal(f"the places of group {name!r} could not be loaded; see the log"))

    async def places(self, name: str, topic: str, record: GroupTopic, binding: Binding) -> dict[int, Place]:
        """Where the group stands on every partition that the topic has now, for those that are new to it. :raises PsubdError:"""
        kept: dict[TopicPartition, Commit] = await self._storage.committed(name)
        places = await places_on(self._storage, topic, record, binding.start, kept)
        self._tell_missing(name, topic, record, places)
        return places

    async def _join(self, name: str, topics: list[str], starts: Starts) -> dict[str, Joined | PsubdError]:
        stored: dict[str, StoredTopic] = await self._storage.describe(topics)
        found: dict[str, Joined | PsubdError] = {}
        bound: dict[str, Binding] = {}
        grant = self._gate.grant_of(application_of(name))
        for topic in topics:
            binding = None if grant is None else grant.bindings.get(topic)
            if binding is None or not binding.sub:
                found[topic] = TopicNotBound(f"application {application_of(name)!r} is not bound to topic {topic!r} to subscribe")
            elif topic not in stored:
                found[topic] = TopicMissing(f"topic {topic!r} is gone from the storage; ask its owner")
            else:
                bound[topic] = binding
        again: set[str] = set()
        records = await self._records(name, bound, stored, starts, found, again)
        if records:
            await self._load(name, bound, records, found, again)
        return found

    async def _records(
        self,
        name: str,
        bound: Mapping[str, Binding],
        stored: Mapping[str, StoredTopic],
        starts: Starts,
        found: dict[str, Joined | PsubdError],
        again: set[str],
    ) -> dict[str, GroupTopic]:
        """The record of each topic, written now where the group is new on it; those that could not begin are told in ``found``, those that were
        made again in ``again``."""
        group = group_of(self._registry.snapshot(), name)
        known = group.topics if group is not None else {}
        records: dict[str, GroupTopic] = {}
        new: dict[str, GroupTopic] = {}
        starting: list[str] = []
        for topic, binding in bound.items():
            record, uid = known.get(topic), stored[topic].uid
            if record is None or record.mark != binding.mark:
                if topic in starts and starts[topic] is None:
                    found[topic] = no_place(name, topic)
                else:
                    starting.append(topic)
            elif record.uid != uid:
                again.add(topic)
                new[topic] = msgspec.structs.replace(record, uid=uid)
            else:
                records[topic] = record
        if starting:
            check_room(self._registry.snapshot(), name)  # before anything is kept in the storage for a group that may not be
        begun = await outcomes([self._begin(name, started(bound[topic], starts.get(topic)), stored[topic].uid) for topic in starting])
        for topic, outcome in zip(starting, begun, strict=True):
            if isinstance(outcome, Failure):
                found[topic] = refusal(outcome)
            else:
                new[topic] = outcome
        if new:
            await self._enrol(name, group, new)
            for topic in [topic for topic, record in new.items() if not still_bound(self._registry.snapshot(), application_of(name), topic, record)]:
                del new[topic]
                again.discard(topic)
                found[topic] = TopicNotBound(f"application {application_of(name)!r} was unbound from topic {topic!r} meanwhile")
            for topic in again:
                self._notices.recreated(name, topic)
        return {**records, **new}

    async def _begin(self, name: str, binding: Binding, uid: str) -> GroupTopic:
        """With the claim's epoch in the record: a commit of it that comes late, from a node that served the group before, must not be taken for a
        place of today's. It says where the log ended at that time; taken up later it would skip what was published in between."""
        topic = self._gate.topic(binding.topic)
        if topic is None:
            raise TopicMissing(f"topic {binding.topic!r} is not registered any more")
        tenure = self._tenure_of(name)
        tenure.confirm()
        reset = 0 if self._alone() else tenure.epoch
        await begin(self._storage, name, msgspec.structs.replace(topic, uid=uid), binding, reset)
        return GroupTopic(uid, binding.mark, reset)

    async def _enrol(self, name: str, group: Group | None, topics: Mapping[str, GroupTopic]) -> None:
        what = "group.created" if group is None else "group.joined"
        plan = under(self._tenure_of(name), enrol(name, topics, what, self._clock.epoch_ms()))
        await self._registry.change(f"application {application_of(name)}", plan)

    async def _load(
        self,
        name: str,
        bound: Mapping[str, Binding],
        records: Mapping[str, GroupTopic],
        found: dict[str, Joined | PsubdError],
        again: set[str],
    ) -> None:
        kept: dict[TopicPartition, Commit] = await self._storage.committed(name)
        loaded = await outcomes([self._stand(name, bound[topic], records[topic], kept, topic in again) for topic in records])
        for topic, outcome in zip(records, loaded, strict=True):
            found[topic] = refusal(outcome) if isinstance(outcome, Failure) else outcome

    async def _stand(self, name: str, binding: Binding, record: GroupTopic, kept: Mapping[TopicPartition, Commit], again: bool) -> Joined:
        places = await places_on(self._storage, binding.topic, record, binding.start, kept, lambda at: self._reach(name, at))
        if not again:
            self._tell_missing(name, binding.topic, record, places)
        if any(place.stood is not None for place in places.values()):
            record, places = await self._move(name, binding.topic, record, places)
        for partition, place in places.items():
            if place.stood is not None:
                self._notices.truncated(name, binding.topic, partition, place.stood, place.offset)
            if place.skipped is not None:
                self._notices.skipped(name, binding.topic, partition, *place.skipped)
        return Joined(binding, record, places)

    async def _move(self, name: str, topic: str, former: GroupTopic, places: Mapping[int, Place]) -> tuple[GroupTopic, dict[int, Place]]:
        """The log was cut: leases and acks of what is gone are void from the registry's change on. :raises PsubdError: nothing was moved then."""
        tenure = self._tenure_of(name)
        record = await register(self._registry, self._clock, tenure, name, topic, former, CUT, ACTOR)
        moved = stamped(places, record)
        limit = self._storage.limits.max_metadata
        commits = {TopicPartition(topic, partition): commit_of(record, 0, place, limit) for partition, place in moved.items()}
        failed = await keep(self._storage, tenure, name, commits)
        if nothing_kept(failed, moved):
            await take_back(self._registry, name, topic, record, former, ACTOR)
            raise next(iter(failed.values()))
        return record, {
            partition: msgspec.structs.replace(place, kept=TopicPartition(topic, partition) not in failed) for partition, place in moved.items()
        }

    def _tell_missing(self, name: str, topic: str, record: GroupTopic, places: Mapping[int, Place]) -> None:
        missing = [partition for partition, place in places.items() if place.missing]
        if missing and self._stands(name, topic, record):
            self._notices.places_missing(name, topic, missing)

    def _stands(self, name: str, topic: str, record: GroupTopic) -> bool:
        """Whether that is still the group's record: who takes it away forgets the places then."""
        group = group_of(self._registry.snapshot(), name)
        return group is not None and group.topics.get(topic) == record


def is_foreign(outcome: object) -> TypeGuard[InUse]:
    """Whether the storage said that the group is somebody else's."""
    return isinstance(outcome, InUse) and not isinstance(outcome, NoPlace)


def started(binding: Binding, start: Start | None) -> Binding:
    """The same, with another start; None: with its own."""
    return binding if start is None else msgspec.structs.replace(binding, start=start)


def no_place(group: str, topic: str) -> NoPlace:
    """What an instance is told whose ``auto.offset.reset`` is ``none``."""
    return NoPlace(
        f"group {group!r} has no place on topic {topic!r}, and auto.offset.reset is none: set one with PUT .../offsets, or say where to begin"
    )


def refusal(failure: Failure) -> PsubdError:
    """What a client is told of ``failure``; what is a bug goes to the log."""
    if isinstance(failure.value, PsubdError):
        return failure.value
    log.failure("unexpected", failure=failure)
    return Internal("something broke that should not have; see the log")
