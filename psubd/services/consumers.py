"""What is asked of consumer instances of the groups that this node serves (`psubd.interfaces.IConsumers`); each group's are in its `Cohort`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import msgspec
from twisted.internet.defer import CancelledError

from psubd.errors import (
    BadParameter,
    IllegalState,
    InstanceMissing,
    InUse,
    Moved,
    NoPlace,
    OffsetOutOfRange,
    OwnershipInDoubt,
    PartitionMissing,
    PsubdError,
    RateLimited,
    StorageUnavailable,
    TopicMissing,
    TopicNotBound,
)
from psubd.interfaces import IClock, IGate, IRegistry, IStorage
from psubd.model import Aim, Bounds, Delivery, Grant, InstanceSpec, Mark, Poll, Standing, StoredTopic, TopicPartition, Wish
from psubd.services.bookkeeping import named
from psubd.services.channels import Channel
from psubd.services.cohort import Cohort, missing
from psubd.services.commits import Committer
from psubd.services.group_records import application_of, check_name, group_of
from psubd.services.groups import LiveGroup
from psubd.services.holdings import Member
from psubd.services.instance_records import dismiss, enlist, path_of, wish
from psubd.services.joins import no_place
from psubd.services.rounds import Rounds
from psubd.services.tenures import Tenures, under
from psubd.services.wishes import check_change, tidied, topics_of

SETTLE_MS = 5_000
"""How long a commit of what was read waits until it is known what became of the answer that is out. The client has it, and the news of that is on its
way from another node, or it is not wholly written."""

MOST_METADATA = 256
"""Characters of a client's own in a mark (contract, section 4)."""


class Consumers:
    """:param group: a group by its full name, loaded where it was not. Raises Moved, OwnershipInDoubt. :param tenure_of: of a group's slot."""

    def __init__(
        self,
        storage: IStorage,
        registry: IRegistry,
        gate: IGate,
        clock: IClock,
        *,
        committer: Committer,
        group: Callable[[str], LiveGroup],
        tenure_of: Tenures,
    ) -> None:
        self._storage, self._registry, self._gate, self._clock = storage, registry, gate, clock
        self._committer, self._group, self._tenure_of = committer, group, tenure_of
        self._catching_up = Rounds(self._sync)

    # --- which there are

    async def enlist(self, grant: Grant, name: str, id: str, spec: InstanceSpec) -> None:
        """As `psubd.interfaces.IConsumers.enlist`; likewise the others."""
        self._admit(grant, name)
        group = self._group(name)
        wished = tidied(spec.wish)
        check_change(Wish(), wished)
        await self._check_wish(grant, name, wished, spec)
        plan = enlist(name, id, msgspec.structs.replace(spec, wish=wished), self._clock.epoch_ms())
        await self._registry.change(f"application {application_of(name)}", under(group.tenure, plan))
        try:
            group, member = self._found(name, id)
            member.unsure = False
            if wished != Wish():
                await self._come(group, member)
        except (Moved, InstanceMissing) as left:  # not to be said again: it is made
            if wished != Wish():
                raise OwnershipInDoubt(f"the instance is made; where its group begins on its topics is not kept yet: {left.detail}", 1) from left

    async def dismiss(self, grant: Grant, name: str, id: str) -> None:
        group, member = await self._member(grant, name, id)
        with called(group, member) as cohort:
            if member.spec.auto_commit:
                await self._settled(member)
                await self._regain(group, cohort, member)
                await cohort.books.keep(member)
            plan = under(group.tenure, dismiss(name, id, member.spec.serial))
            await self._registry.change(f"application {application_of(name)}", plan)

    async def wish(self, grant: Grant, name: str, id: str, wished: Wish) -> None:
        group, member = await self._member(grant, name, id)
        with called(group, member) as cohort:
            wished = tidied(wished)
            check_change(member.spec.wish, wished)
            await self._check_wish(grant, name, wished, member.spec)
            if member.spec.auto_commit:
                await self._regain(group, cohort, member)
                await cohort.books.keep(member)
            plan = under(group.tenure, wish(name, id, member.spec.serial, wished))
            await self._registry.change(f"application {application_of(name)}", plan)
            if wished != Wish():
                await self._come(group, member)

    async def look(self, grant: Grant, name: str, id: str) -> Standing:
        group, member = await self._member(grant, name, id)
        with called(group, member) as cohort:
            await self._come_where_it_can(group, member)
            return Standing(member.spec, cohort.topics_of(member), tuple(sorted(member.holdings)))

    # --- reading

    async def read(self, grant: Grant, name: str, id: str, ask: Poll) -> Delivery:
        group, member = await self._member(grant, name, id)
        return await cohort_of(group, id).read(grant, ask, member)

    async def seek(self, grant: Grant, name: str, id: str, aims: Sequence[Aim]) -> None:
        group, member = await self._member(grant, name, id)
        with called(group, member) as cohort:
            await self._come(group, member)
            bounds = await self._bounds(grant, [aim.at for aim in aims])
            times = {(aim.at.topic, aim.to[1]) for aim in aims if isinstance(aim.to, tuple)}
            moments = {(topic, ms): await self._storage.offset_at(topic, ms) for topic, ms in sorted(times)}
            goals = {aim.at: goal_of(aim, bounds[aim.at], moments) for aim in aims}
            group.tenure.check()
            strange = [at for at in goals if at not in member.holdings or member.holdings[at].heir is not None]
            if strange:
                raise IllegalState(f"{named(strange)}: the instance does not have it; nothing was moved")
            for at, goal in goals.items():
                member.holdings[at].seek(goal)
            cohort.wake()

    # --- places

    async def commit(self, grant: Grant, name: str, id: str, marks: Sequence[Mark] | None) -> list[Mark]:
        group, member = await self._member(grant, name, id)
        with called(group, member) as cohort:
            if marks is None:
                return await self._commit_read(group, cohort, member)
            await self._check_marks(grant, group, marks)
            await self._keep(group, await cohort.books.take(marks, member))
            return [msgspec.structs.replace(mark, consumed=consumed(member, mark.at)) for mark in marks]

    async def committed(self, grant: Grant, name: str, id: str, partitions: Sequence[TopicPartition]) -> list[Mark]:
        group, member = await self._member(grant, name, id)
        with called(group, member) as cohort:
            await self._check_partitions(grant, partitions)
            record = group_of(self._registry.snapshot(), name)
            known = {at.topic for at in partitions if record is not None and at.topic in record.topics}
            await self._bring(group, known)
            return [mark_of(cohort, member, at) if at.topic in known else Mark(at, -1) for at in partitions]

    async def _commit_read(self, group: LiveGroup, cohort: Cohort, member: Member) -> list[Mark]:
        """What was wholly written."""
        await self._settled(member)
        await self._regain(group, cohort, member)
        taken = await cohort.books.keep(member)
        await self._keep(group, [channel for at in {**taken, **member.holdings} if (channel := cohort.channel(at)) is not None])
        lost, member.lost, unsure, member.unsure = member.lost, set(), member.unsure, False
        if unsure:
            raise IllegalState(
                "the node that served the instance is gone: what it was given there and did not commit comes again; read on before you commit"
            )
        if lost:
            raise IllegalState(
                f"{named(lost)} went to another instance of the group before what was read of it was committed, and comes again there; "
                "the rest is committed"
            )
        others = [at for at, holding in member.holdings.items() if holding.handed is not None and at not in taken]
        marks = [Mark(at, offset, "", offset - 1) for at, offset in taken.items()] + [mark_of(cohort, member, at) for at in others]
        return sorted(marks, key=lambda mark: mark.at)

    async def _keep(self, group: LiveGroup, channels: Iterable[Channel]) -> None:
        """Have these places in the storage. :raises PsubdError:"""
        channels = list(channels)
        if not any(channel.dirty for channel in channels):
            await self._committer.quiet(group.name)
        if any(channel.dirty and channel.live for channel in channels):
            await self._committer.flush(group)
        if group.contest.stands:
            raise group.contest.refusal()
        for channel in channels:
            if channel.dirty and channel.live:
                group.tenure.check()
                raise channel.refusal or StorageUnavailable(f"the place on partition {channel.at.partition} of {channel.at.topic!r} is not kept yet")

    async def _settled(self, member: Member) -> None:
        """Wait until it is known what became of the answer that is out, at most so long."""
        if member.out:
            passed = member.turn.passed()
            timer = self._clock.call_later(SETTLE_MS, passed.cancel)
            try:
                await passed
            except CancelledError:
                pass
            finally:
                if timer.active():
                    timer.cancel()

    # --- who asks, for what

    def _admit(self, grant: Grant, name: str) -> None:
        """:raises BadCredentials: BadParameter: RegistryUnavailable:"""
        check_name(name)
        if application_of(name) != grant.application.id:
            raise BadParameter("group: it belongs to another application")
        with suppress(TopicNotBound, RateLimited):  # judged where topics are asked for
            self._gate.may_subscribe(grant, None)

    def _check_bound(self, grant: Grant, topics: Iterable[str]) -> None:
        """:raises TopicNotBound: a rate in debt is no matter."""
        names = sorted(set(topics))
        if names:
            with suppress(RateLimited):
                self._gate.may_subscribe(grant, names)

    async def _member(self, grant: Grant, name: str, id: str) -> tuple[LiveGroup, Member]:
        """:raises InstanceMissing: it is not registered, as far as anybody knows."""
        self._admit(grant, name)
        try:
            return self._found(name, id)
        except InstanceMissing:
            await self._catching_up.next()  # made at a node that served the group before, perhaps
        return self._found(name, id)

    def _found(self, name: str, id: str) -> tuple[LiveGroup, Member]:
        """A group that has no instances is not loaded for that. :raises InstanceMissing: Moved: OwnershipInDoubt:"""
        self._tenure_of(name).check()
        if self._registry.snapshot().get(path_of(name)) is None:
            raise missing(name, id)
        group = self._group(name)
        return group, cohort_of(group, id).member(id)

    async def _sync(self) -> None:
        await self._registry.sync()

    # --- topics

    async def _check_wish(self, grant: Grant, name: str, wished: Wish, spec: InstanceSpec) -> None:
        """:raises TopicNotBound: TopicMissing: PartitionMissing: NoPlace:"""
        if wished.partitions is not None:
            await self._check_partitions(grant, wished.partitions)
        elif wished.topics is not None:
            self._check_bound(grant, wished.topics)
            await self._described(wished.topics)
        if spec.reset is None:
            standing = self._gate.grant_of(application_of(name))
            bound = {} if standing is None else {topic: binding for topic, binding in standing.bindings.items() if binding.sub}
            record = group_of(self._registry.snapshot(), name)
            known = {} if record is None else record.topics
            for topic in topics_of(wished, bound):
                if topic in bound and (topic not in known or known[topic].mark != bound[topic].mark):
                    raise no_place(name, topic)

    async def _check_partitions(self, grant: Grant, partitions: Iterable[TopicPartition]) -> None:
        self._check_bound(grant, {at.topic for at in partitions})
        stored = await self._described({at.topic for at in partitions})
        for at in partitions:
            if not 0 <= at.partition < stored[at.topic].partitions:
                raise no_partition(at, stored[at.topic].partitions)

    async def _described(self, topics: Iterable[str]) -> Mapping[str, StoredTopic]:
        names = sorted(set(topics))
        known = {topic: stored for topic in names if (stored := self._storage.known(topic)) is not None}
        if len(known) < len(names):
            known = await self._storage.describe(names)
        for topic in names:
            if topic not in known:
                raise TopicMissing(f"topic {topic!r} is gone from the storage; ask its owner")
        return known

    async def _come(self, group: LiveGroup, member: Member) -> None:
        """Have the group stand on what the instance reads. :raises PsubdError: why it cannot."""
        cohort = cohort_of(group, member.id)
        bound = cohort.bound()
        await self._bring(group, [topic for topic in cohort.topics_of(member) if topic in bound])

    async def _come_where_it_can(self, group: LiveGroup, member: Member) -> None:
        """It has the rest; a read tells what it has not."""
        with suppress(TopicMissing, TopicNotBound, NoPlace):
            await self._come(group, member)

    async def _regain(self, group: LiveGroup, cohort: Cohort, member: Member) -> None:
        """What it was given at another node is its own before what it was given is committed: this may be the first call here."""
        if cohort.is_owed(member):
            await self._come_where_it_can(group, member)

    async def _bring(self, group: LiveGroup, topics: Iterable[str]) -> None:
        wanted = set(topics)
        if wanted <= group.topics.keys():
            if group.contest.stands:
                raise group.contest.refusal()
            return
        for name, outcome in (await group.visits.bring(wanted)).items():
            if isinstance(outcome, PsubdError):
                error = group.troubles.get(name)
                raise error if isinstance(error, InUse) else outcome
        if not wanted <= group.topics.keys():
            raise OwnershipInDoubt(f"group {group.name!r} is being changed; ask again in a moment", 1)

    async def _check_marks(self, grant: Grant, group: LiveGroup, marks: Sequence[Mark]) -> None:
        """:raises PsubdError:"""
        for mark in marks:
            if mark.offset < 0 or len(mark.metadata) > MOST_METADATA:
                raise BadParameter(f"offsets: an offset is 0 or more, its metadata has at most {MOST_METADATA} characters")
        partitions = [mark.at for mark in marks]
        await self._check_partitions(grant, partitions)
        await self._bring(group, {at.topic for at in partitions})
        behind = [mark for mark in marks if mark.offset > self._known_end(group, mark.at)]
        bounds = await self._bounds(grant, [mark.at for mark in behind])
        for mark in behind:
            if mark.offset > bounds[mark.at].end:
                raise past_the_end(mark.at, mark.offset, bounds[mark.at].end)

    def _known_end(self, group: LiveGroup, at: TopicPartition) -> int:
        topic = group.topics.get(at.topic)
        channel = None if topic is None else topic.channels.get(at.partition)
        return -1 if channel is None else channel.end

    async def _bounds(self, grant: Grant, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """:raises TopicNotBound: PartitionMissing:"""
        asked = list(partitions)
        self._check_bound(grant, {at.topic for at in asked})
        found: dict[TopicPartition, Bounds] = {}
        for topic in sorted({at.topic for at in asked}):
            bounds: dict[int, Bounds] = await self._storage.bounds(topic)
            for at in asked:
                if at.topic == topic:
                    if at.partition not in bounds:
                        raise no_partition(at, len(bounds))
                    found[at] = bounds[at.partition]
        return found


@contextmanager
def called(group: LiveGroup, member: Member) -> Iterator[Cohort]:
    """The instance is used meanwhile."""
    cohort = cohort_of(group, member.id)
    member.calls += 1
    cohort.use(member)
    try:
        yield cohort
    finally:
        member.calls -= 1
        cohort.use(member)


def cohort_of(group: LiveGroup, id: str) -> Cohort:
    """The group's instances. :raises InstanceMissing: it has none."""
    if group.cohort is None:
        raise missing(group.name, id)
    return group.cohort


def goal_of(aim: Aim, bound: Bounds, moments: Mapping[tuple[str, int], Mapping[int, int]]) -> int:
    """:param moments: by topic and time, the offsets by partition. :raises OffsetOutOfRange:"""
    if aim.to == "earliest":
        return bound.first
    if aim.to == "latest":
        return bound.end
    if isinstance(aim.to, tuple):
        return moments[aim.at.topic, aim.to[1]].get(aim.at.partition, bound.end)
    assert isinstance(aim.to, int)
    if not 0 <= aim.to <= bound.end:
        raise past_the_end(aim.at, aim.to, bound.end)
    return max(aim.to, bound.first)


def mark_of(cohort: Cohort, member: Member, at: TopicPartition) -> Mark:
    """The group's place of now."""
    channel, holding = cohort.books.settled(at), member.holdings.get(at)
    offset = channel.ledger.committed if holding is None or holding.kept is None else holding.kept
    return Mark(at, offset, channel.note, consumed(member, at))


def consumed(member: Member, at: TopicPartition) -> int | None:
    """As `Mark.consumed`."""
    holding = member.holdings.get(at)
    return None if holding is None or holding.handed is None else holding.handed - 1


def no_partition(at: TopicPartition, partitions: int) -> PartitionMissing:
    return PartitionMissing(f"topic {at.topic!r} has no partition {at.partition}; it has 0 to {partitions - 1}")


def past_the_end(at: TopicPartition, offset: int, end: int) -> OffsetOutOfRange:
    return OffsetOutOfRange(f"offset {offset} is outside of partition {at.partition} of topic {at.topic!r}, which ends at {end}")
