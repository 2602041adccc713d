"""Consumer instances in memory: the double for tests of what asks them.

It reads a storage and goes by a gate, as the real ones do, and keeps places and instances itself: there is no registry, no other node, and no sub
endpoint beside it. `psubd.testing.consumers_contract` holds it to the interface.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import count
from typing import Any

import msgspec
import re2
from twisted.internet.defer import Deferred
from zope.interface import implementer

from psubd.delivery.shares import share
from psubd.errors import (
    BadParameter,
    IllegalState,
    InstanceExists,
    InstanceMissing,
    NoPlace,
    OffsetOutOfRange,
    PartitionMissing,
    RateLimited,
    TopicNotBound,
)
from psubd.interfaces import IClock, IConsumers, IGate, IStorage
from psubd.model import Aim, Bounds, Delivered, Delivery, Grant, InstanceSpec, Mark, Poll, Standing, TopicPartition, Wish

TICK_MS = 1
"""How often a read that waits looks again, on a clock that a test turns."""

Partitions = Collection[TopicPartition]


class Holding:
    """A partition that an instance has. Members as in the contract: ``handed`` is behind the last message that was wholly written."""

    def __init__(self, member: "Member", position: int) -> None:
        self.member, self.position = member, position
        self.handed: int | None = None
        self.kept: int | None = None
        self.since: int | None = None  # somebody waits for it
        self.out, self.version = False, 0

    @property
    def owed(self) -> bool:
        return self.handed is not None and (self.kept is None or self.handed > self.kept)


class Member:
    """An instance. ``wished``: a number that rises with each wish. ``reading``: a read of it is under way, or its answer is not settled."""

    def __init__(self, id: str, spec: InstanceSpec, now: int) -> None:
        self.id, self.spec, self.used_ms, self.wished, self.calls = id, spec, now, 0, 0
        self.reading = False
        self.lost: set[TopicPartition] = set()


class Circle:
    """A group. ``places``: by partition, offset and the client's metadata."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.holdings: dict[TopicPartition, Holding] = {}
        self.places: dict[TopicPartition, tuple[int, str]] = {}

    def of(self, member: Member) -> dict[TopicPartition, Holding]:
        """What it has."""
        return {at: holding for at, holding in sorted(self.holdings.items()) if holding.member is member}


@implementer(IConsumers)
class MemoryConsumers:
    """:param clock: turned by hand. :param idle_ms: an instance that nobody called for so long goes."""

    def __init__(self, storage: IStorage, gate: IGate, clock: IClock, idle_ms: int = 300_000) -> None:
        self._storage, self._gate, self._clock, self._idle_ms = storage, gate, clock, idle_ms
        self._circles: dict[str, Circle] = {}
        self._numbers = count(1)

    def enlist(self, grant: Grant, group: str, instance: str, spec: InstanceSpec) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._enlist(grant, group, instance, spec))

    def dismiss(self, grant: Grant, group: str, instance: str) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._dismiss(grant, group, instance))

    def wish(self, grant: Grant, group: str, instance: str, wish: Wish) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._wish(grant, group, instance, wish))

    def look(self, grant: Grant, group: str, instance: str) -> "Deferred[Standing]":
        return Deferred.fromCoroutine(self._look(grant, group, instance))

    def read(self, grant: Grant, group: str, instance: str, ask: Poll) -> "Deferred[Delivery]":
        return Deferred.fromCoroutine(self._read(grant, group, instance, ask))

    def seek(self, grant: Grant, group: str, instance: str, aims: Sequence[Aim]) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._seek(grant, group, instance, aims))

    def commit(self, grant: Grant, group: str, instance: str, marks: Sequence[Mark] | None) -> "Deferred[list[Mark]]":
        return Deferred.fromCoroutine(self._commit(grant, group, instance, marks))

    def committed(self, grant: Grant, group: str, instance: str, partitions: Sequence[TopicPartition]) -> "Deferred[list[Mark]]":
        return Deferred.fromCoroutine(self._committed(grant, group, instance, partitions))

    # --- which there are, and what they read

    async def _enlist(self, grant: Grant, group: str, id: str, spec: InstanceSpec) -> None:
        circle = self._circles.setdefault(group, Circle())
        await self._review(group, circle)
        if id in circle.members:
            raise InstanceExists(f"group {group!r} has an instance {id!r}")
        await self._check_wish(grant, circle, spec, Wish(), spec.wish)
        made = msgspec.structs.replace(spec, serial=next(self._numbers), created_ms=self._clock.epoch_ms())
        circle.members[id] = Member(id, made, self._clock.elapsed_ms())
        await self._review(group, circle)

    async def _dismiss(self, grant: Grant, group: str, id: str) -> None:
        circle, member = await self._member(grant, group, id)
        if member.spec.auto_commit:
            self._keep(circle, member)
        del circle.members[id]
        await self._review(group, circle)

    async def _wish(self, grant: Grant, group: str, id: str, wish: Wish) -> None:
        circle, member = await self._member(grant, group, id)
        await self._check_wish(grant, circle, member.spec, member.spec.wish, wish)
        member.spec, member.wished = msgspec.structs.replace(member.spec, wish=wish), next(self._numbers)
        await self._review(group, circle)

    async def _look(self, grant: Grant, group: str, id: str) -> Standing:
        circle, member = await self._member(grant, group, id)
        return Standing(member.spec, self._topics(group, member), tuple(circle.of(member)))

    async def _check_wish(self, grant: Grant, circle: Circle, spec: InstanceSpec, former: Wish, wish: Wish) -> None:
        if wish.pattern is not None:
            check_pattern(wish.pattern)
        if (wish.partitions and (former.topics or former.pattern)) or ((wish.topics or wish.pattern) and former.partitions):
            raise IllegalState("by hand and subscribed exclude each other")
        await self._bounds(grant, wish.partitions or ())
        self._check_bound(grant, wish.topics or ())
        new = {*(wish.topics or ()), *(at.topic for at in wish.partitions or ())} - {at.topic for at in circle.places}
        if new and spec.reset is None:
            raise NoPlace(f"the group has no place on {sorted(new)}")

    # --- reading

    async def _read(self, grant: Grant, group: str, id: str, ask: Poll) -> Delivery:
        circle, member = await self._member(grant, group, id)
        end = self._clock.elapsed_ms() + ask.timeout_ms
        member.calls += 1
        try:
            while member.reading:
                if self._clock.elapsed_ms() >= end:
                    return Delivery((), lambda handed: None)
                await self._pause()
            member.reading = True
            if member.spec.auto_commit:
                self._keep(circle, member)
            found = await self._await_enough(grant, group, member, ask, end)
        finally:
            member.calls -= 1
            member.used_ms = self._clock.elapsed_ms()
        return self._lend(circle, member, found)

    async def _await_enough(self, grant: Grant, group: str, member: Member, ask: Poll, end: int) -> list[Delivered]:
        """What there is when it is enough, or when the time is over. The turn is given back where that is nothing."""
        found: list[Delivered] = []
        try:
            while True:
                circle, _ = await self._member(grant, group, member.id)
                found = await self._gather(grant, group, circle, member, ask)
                size = sum(each.message.size for each in found)
                if (found and size >= min(ask.min_bytes, ask.max_bytes)) or self._clock.elapsed_ms() >= end:
                    return found
                found = []
                await self._pause()
        finally:
            member.reading = bool(found)

    async def _gather(self, grant: Grant, group: str, circle: Circle, member: Member, ask: Poll) -> list[Delivered]:
        topics = self._topics(group, member)
        if not topics and member.spec.wish.pattern is None:
            raise IllegalState("the instance reads nothing")
        self._check_bound(grant, topics)
        found: list[Delivered] = []
        size = 0
        for at, holding in circle.of(member).items():
            if holding.since is not None or len(found) >= ask.batch_size:
                continue
            part = await self._storage.read(at.topic, at.partition, holding.position, ask.batch_size - len(found), ask.max_bytes)
            for message in part.messages:
                size += message.size
                if found and size > ask.max_bytes:
                    break
                found.append(Delivered(at.topic, at.partition, message))
        return found

    def _lend(self, circle: Circle, member: Member, found: list[Delivered]) -> Delivery:
        given = {TopicPartition(each.topic, each.partition): each.message.offset + 1 for each in found}
        lent = {at: (circle.holdings[at], circle.holdings[at].version) for at in given}
        for holding, _ in lent.values():
            holding.out = True

        def settle(handed: int) -> None:
            for at, (holding, version) in lent.items():
                holding.out = False
                if handed >= len(found):
                    holding.handed = given[at]
                    if holding.version == version:
                        holding.position = given[at]
            if found:
                member.reading = False

        return Delivery(tuple(found), settle, stands=lambda: all(circle.holdings.get(at) is holding for at, (holding, _) in lent.items()))

    async def _seek(self, grant: Grant, group: str, id: str, aims: Sequence[Aim]) -> None:
        circle, member = await self._member(grant, group, id)
        bounds = await self._bounds(grant, [aim.at for aim in aims])
        held = circle.of(member)
        goals = {aim.at: await self._goal(aim, bounds[aim.at]) for aim in aims}
        if not held.keys() >= goals.keys():
            raise IllegalState("the instance does not have all of these")
        for at, goal in goals.items():
            holding = held[at]
            holding.handed = holding.handed if holding.owed else None
            holding.position, holding.kept = goal, None
            holding.version += 1

    async def _goal(self, aim: Aim, bounds: Bounds) -> int:
        if isinstance(aim.to, tuple):
            return (await self._storage.offset_at(aim.at.topic, aim.to[1]))[aim.at.partition]
        goal = {"earliest": bounds.first, "latest": bounds.end}.get(aim.to) if isinstance(aim.to, str) else aim.to
        assert isinstance(goal, int)
        if not 0 <= goal <= bounds.end:
            raise OffsetOutOfRange(f"offset {goal} is outside of the log, which ends at {bounds.end}")
        return goal

    # --- places

    async def _commit(self, grant: Grant, group: str, id: str, marks: Sequence[Mark] | None) -> list[Mark]:
        circle, member = await self._member(grant, group, id)
        if marks is None:
            return await self._commit_read(group, circle, member)
        bounds = await self._bounds(grant, [mark.at for mark in marks])
        for mark in marks:
            if mark.offset < 0 or len(mark.metadata) > 256:
                raise BadParameter("an offset is 0 or more, its metadata has at most 256 characters")
            if mark.offset > bounds[mark.at].end:
                raise OffsetOutOfRange("past the end of the log")
            if mark.at in circle.holdings and circle.holdings[mark.at].member is not member:
                raise IllegalState(f"partition {mark.at.partition} is another instance's")
        for mark in marks:
            self._take(circle, mark.at, mark.offset, mark.metadata)
        await self._review(group, circle)
        return [msgspec.structs.replace(mark, consumed=consumed(circle, member, mark.at)) for mark in marks]

    async def _commit_read(self, group: str, circle: Circle, member: Member) -> list[Mark]:
        self._keep(circle, member)
        marks = [Mark(at, *circle.places[at], consumed(circle, member, at)) for at, held in circle.of(member).items() if held.handed is not None]
        await self._review(group, circle)
        lost, member.lost = member.lost, set()
        if lost:
            raise IllegalState("; ".join(f"partition {at.partition} of {at.topic!r} went to another instance" for at in sorted(lost)))
        return marks

    async def _committed(self, grant: Grant, group: str, id: str, partitions: Sequence[TopicPartition]) -> list[Mark]:
        circle, member = await self._member(grant, group, id)
        await self._bounds(grant, partitions)
        return [Mark(at, *circle.places.get(at, (-1, "")), consumed(circle, member, at)) for at in partitions]

    def _keep(self, circle: Circle, member: Member) -> None:
        """What was wholly written is done."""
        for at, holding in circle.of(member).items():
            if holding.owed and holding.handed is not None:
                self._take(circle, at, holding.handed, "")

    def _take(self, circle: Circle, at: TopicPartition, offset: int, metadata: str) -> None:
        circle.places[at] = (offset, metadata)
        if at in circle.holdings:
            circle.holdings[at].kept = offset

    # --- who asks, and who has what

    async def _member(self, grant: Grant, group: str, id: str) -> tuple[Circle, Member]:
        circle = self._circles.setdefault(group, Circle())
        await self._review(group, circle)
        if id not in circle.members:
            raise InstanceMissing(f"group {group!r} has no instance {id!r}")
        member = circle.members[id]
        member.used_ms = self._clock.elapsed_ms()
        return circle, member

    async def _review(self, group: str, circle: Circle) -> None:
        """Those that nobody uses go; the group has a place wherever it reads; partitions are whose they are."""
        now = self._clock.elapsed_ms()
        for id, member in list(circle.members.items()):
            if not member.calls and now - member.used_ms >= self._idle_ms:
                del circle.members[id]
        wants = {id: await self._begin(group, circle, member) for id, member in circle.members.items()}
        hands = sorted((member for member in circle.members.values() if member.spec.wish.partitions), key=lambda member: member.wished)
        due = {at: member.id for member in hands for at in wants[member.id]}
        open_to = {id: [at for at in found if at not in due] for id, found in wants.items() if circle.members[id] not in hands}
        due.update(share(open_to, {at: holding.member.id for at, holding in circle.holdings.items()}))
        for at, holding in list(circle.holdings.items()):
            if due.get(at) != holding.member.id and self._lets_go(group, circle, at, holding, wants, now):
                del circle.holdings[at]
        for at, id in due.items():
            holding = circle.holdings.setdefault(at, Holding(circle.members[id], circle.places[at][0]))
            if holding.member.id == id:
                holding.since = None

    def _lets_go(self, group: str, circle: Circle, at: TopicPartition, holding: Holding, wants: dict[str, Partitions], now: int) -> bool:
        member = holding.member
        if circle.members.get(member.id) is not member or at not in wants[member.id]:
            return True
        holding.since = now if holding.since is None else holding.since
        binding = self._bindings(group)[at.topic]
        if holding.out or (holding.owed and now - holding.since < binding.ack_timeout_ms):
            return False
        if holding.owed:
            member.lost.add(at)
        return True

    async def _begin(self, group: str, circle: Circle, member: Member) -> Partitions:
        """The partitions that it wants; the group has a place on each."""
        wish = member.spec.wish
        wanted = set(wish.partitions or ())
        for topic in self._topics(group, member):
            if topic not in self._bindings(group):
                wanted = {at for at in wanted if at.topic != topic}
                continue
            known = {at.topic for at in circle.places}
            for partition, bounds in (await self._storage.bounds(topic)).items():
                at = TopicPartition(topic, partition)
                start = bounds.end if member.spec.reset == "latest" and topic not in known else bounds.first
                circle.places.setdefault(at, (start, ""))
                if wish.partitions is None:
                    wanted.add(at)
        return sorted(wanted)

    def _topics(self, group: str, member: Member) -> tuple[str, ...]:
        wish = member.spec.wish
        if wish.pattern is not None:
            return tuple(sorted(topic for topic in self._bindings(group) if re2.fullmatch(wish.pattern, topic)))
        return tuple(dict.fromkeys(wish.topics or (at.topic for at in wish.partitions or ())))

    def _bindings(self, group: str) -> dict[str, Any]:
        grant = self._gate.grant_of(group.partition(".")[0])
        return {} if grant is None else {topic: binding for topic, binding in grant.bindings.items() if binding.sub}

    def _check_bound(self, grant: Grant, topics: Iterable[str]) -> None:
        """:raises TopicNotBound:"""
        try:
            self._gate.may_subscribe(grant, sorted(set(topics)) or None)
        except RateLimited:
            pass
        except TopicNotBound:
            if topics:
                raise

    async def _bounds(self, grant: Grant, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """:raises TopicNotBound: :raises PartitionMissing:"""
        asked = list(partitions)
        self._check_bound(grant, [at.topic for at in asked])
        found: dict[TopicPartition, Bounds] = {}
        for at in asked:
            bounds = await self._storage.bounds(at.topic)
            if at.partition not in bounds:
                raise PartitionMissing(f"topic {at.topic!r} has no partition {at.partition}")
            found[at] = bounds[at.partition]
        return found

    def _pause(self) -> "Deferred[None]":
        pause: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self._clock.call_later(TICK_MS, pause.callback, None)
        return pause


def check_pattern(pattern: str) -> None:
    """:raises BadParameter:"""
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error:
        raise BadParameter("topic_pattern: not a regular expression of RE2") from None
    if len(pattern) > 256:
        raise BadParameter("topic_pattern: at most 256 characters")


def consumed(circle: Circle, member: Member, at: TopicPartition) -> int | None:
    """As `Mark.consumed`."""
    holding = circle.of(member).get(at)
    return None if holding is None or holding.handed is None else holding.handed - 1
