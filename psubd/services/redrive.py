"""Redrive: dead letters are published to their origin again, for the group that they were dead for.

Per dead-letter topic the registry keeps which letters a group is done with (`psubd.services.redrive_records`): those that were moved, and those
that never can be. It is written after a portion was published: a crash between the two moves that portion again, and loses nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, Counter
from twisted.internet.defer import Deferred
from zope.interface import implementer

from psubd.errors import NotFound, PsubdError, RegistryUnavailable, TopicMissing
from psubd.interfaces import IClock, IGate, IPublisher, IRedriver, IRegistry, ISnapshot, IStorage, Plan, Put
from psubd.model import Bounds, Group, Left, Message, Position, Record, Redriven, Slice, StoredTopic, Topic
from psubd.services.group_records import binding_of, group_of
from psubd.services.letters import REDRIVE_GROUP, Origin, own_headers, verify
from psubd.services.redrive_records import MAX_RANGES, Letters, Passed, Redrives, path_of, redrives_of
from psubd.services.rounds import Locks, carried_through
from psubd.services.signet import Signet
from psubd.services.tenures import Tenure, Tenures, under

PORTION_RECORDS, PORTION_BYTES = 100, 1 << 20
"""What is read and published in one go, and at the worst repeated after a crash."""

SCANNED, LONGEST_MS = 10_000, 30_000
"""Letters that one call looks at, and how long it goes on, so that it ends. The next one goes on there."""

TOLD = 1_000
"""Lines of `Redriven.left`; one more counts the others."""


class Kept(NamedTuple):
    """Why a letter is not moved. ``for_good``: nothing that an operator can do would help it."""

    why: str
    for_good: bool = False


class Account:
    """What one call did so far.

    :ivar room: how many letters it may still move.
    """

    def __init__(self, limit: int, clock: IClock) -> None:
        self.room = limit
        self.moved = self.scanned = self.untold = 0
        self._clock, self._latest = clock, clock.elapsed_ms() + LONGEST_MS
        self._left: list[Left] = []
        self._more: list[Left] = []
        self._ends: list[Left] = []

    @property
    def over(self) -> bool:
        return self.room <= 0 or self.tired

    @property
    def tired(self) -> bool:
        """It went on for long enough, whatever its limit."""
        return self.scanned >= SCANNED or self._clock.elapsed_ms() >= self._latest

    @property
    def left(self) -> int:
        return len(self._left) + self.untold

    def move(self, count: int) -> None:
        self.moved += count
        self.room -= count

    def leave(self, partition: int, offset: int, why: str) -> None:
        if len(self._left) < TOLD:
            self._left.append(Left(partition, offset, why))
        else:
            self.untold += 1
            self._more = [Left(partition, offset, f"with this one {self.untold} more are left; this one: {why}")]

    def end(self, partition: int, offset: int, why: str) -> None:
        """What stands at the end of the answer."""
        self._ends.append(Left(partition, offset, why))

    def told(self) -> Redriven:
        return Redriven(self.moved, (*self._left, *self._more, *self._ends))


class Judge:
    """Which letters of the dead-letter topic ``topic`` may go back, for ``group``."""

    def __init__(self, storage: IStorage, registry: IRegistry, gate: IGate, publisher: IPublisher, signet: Signet, group: Group, topic: str) -> None:
        self._storage, self._registry, self._gate, self._publisher, self._signet = storage, registry, gate, publisher, signet
        self._group, self._topic = group, topic

    async def of(self, message: Message) -> Record | Kept:
        """The judged record that goes to the origin, or why none does. Fails with StorageUnavailable, StorageTimeout, RegistryUnavailable."""
        origin = verify(message, self._signet)
        if origin is None:
            return Kept("it is not sealed by psubd, or was altered", True)
        if origin.group != self._group.name:
            return Kept(f"it is a letter of group {origin.group}", True)
        standing = self._gate.grant_of(self._group.application)
        if standing is not None and origin.time < standing.application.created_ms:
            return Kept("it is a letter of a former application of that id", True)
        topic = self._gate.topic(origin.topic)
        if topic is None:
            return Kept(f"its origin, topic {origin.topic}, is not registered")
        return self._refusal(origin) or await self._record(message, origin, topic)

    def _refusal(self, origin: Origin) -> Kept | None:
        snapshot = self._registry.snapshot()
        binding = binding_of(snapshot, self._group.application, origin.topic)
        if binding is None:
            return Kept(f"application {self._group.application} is not bound to its origin, topic {origin.topic}, to subscribe")
        if binding.dead_letter != self._topic:
            return Kept(f"the binding to its origin, topic {origin.topic}, names {binding.dead_letter or 'no topic'} as its dead-letter topic")
        group = group_of(snapshot, self._group.name)
        place = None if group is None else group.topics.get(origin.topic)
        if place is None or place.mark != binding.mark:
            # A group that begins later, at the log's end, would pass it over.
            return Kept(f"the group has no place on its origin, topic {origin.topic}: let it read from it once")
        return None

    async def _record(self, message: Message, origin: Origin, topic: Topic) -> Record | Kept:
        asked = self._publisher.ready(topic)
        if asked is not None:
            await asked
        stored = self._storage.known(origin.topic)
        there = message.key is None and stored is not None and origin.partition < stored.partitions
        headers = (*own_headers(message.headers), (REDRIVE_GROUP, self._group.name.encode()))
        record = Record(origin.topic, message.value, message.key, headers, origin.partition if there else None)
        try:
            return self._publisher.judge(topic, record)
        except PsubdError as refused:
            return Kept(refused.detail)


class Places:
    """What the group is done with in one dead-letter topic: as it is to be, and as the registry has it."""

    def __init__(
        self, registry: IRegistry, tenure: Tenure | None, group: Group, stored: StoredTopic, bounds: Mapping[int, Bounds], actor: str
    ) -> None:
        self._registry, self._tenure, self._group, self._topic, self._actor = registry, tenure, group, stored, actor
        self._kept = redrives_of(registry.snapshot(), group.name)
        letters = self._kept.topics.get(stored.name)
        known = letters.partitions if letters is not None and letters.uid == stored.uid else {}
        self._passed = {partition: standing(known.get(partition, Passed()), bound) for partition, bound in bounds.items()}
        self._changed = False

    def of(self, partition: int) -> Passed:
        return self._passed[partition]

    def pass_over(self, partition: int, first: int, end: int, kept: Sequence[int]) -> None:
        """From ``first`` up to ``end`` the group is done, but for ``kept``."""
        passed = self._passed[partition].with_passed(first, end, kept)
        self._changed = self._changed or passed != self._passed[partition]
        self._passed[partition] = passed

    def room(self, partition: int, offset: int) -> int:
        """How many records from ``offset`` on may be looked at now. Where the registry can note no more, those before what was passed last: to
        pass them takes no room, and makes some."""
        letters = Letters(self._topic.uid, self._passed)
        ranges = letters.ranges + self._kept.ranges_beside(self._topic.name)
        return PORTION_RECORDS if ranges < MAX_RANGES else min(PORTION_RECORDS, self._passed[partition].end - offset)

    async def keep(self, moved: int) -> None:
        """Have it in the registry, where it changed. :raises NotFound: the group is gone. :raises RegistryUnavailable: also where another node
        redrives the group."""
        if not self._changed:
            return
        snapshot = self._registry.snapshot()
        topics = {topic: letters for topic, letters in self._kept.topics.items() if snapshot.get(f"/topics/{topic}") is not None}
        topics[self._topic.name] = Letters(self._topic.uid, {partition: passed for partition, passed in self._passed.items() if passed.end})
        wanted = Redrives(topics)
        plan = self._plan(wanted, moved)
        await self._registry.change(self._actor, plan if self._tenure is None else under(self._tenure, plan))
        self._kept, self._changed = wanted, False

    def _plan(self, wanted: Redrives, moved: int) -> Callable[[ISnapshot, int], Plan]:
        name, before = self._group.name, self._kept

        def plan(snapshot: ISnapshot, serial: int) -> Plan:
            group = group_of(snapshot, name)
            if group is None or group.serial != self._group.serial:
                raise NotFound(f"group {name!r} was deleted meanwhile")
            if redrives_of(snapshot, name) != before:
                raise RegistryUnavailable(f"another node redrives letters of group {name!r}; some may be moved twice. Ask again when it is through")
            return Plan(f"group.redriven {name} {self._topic.name} {moved}", (Put(path_of(name), msgspec.json.encode(wanted)),))

        return plan


def standing(passed: Passed, bound: Bounds) -> Passed:
    """What was passed, in a log with these bounds. One that was cut is gone through again: moved twice rather than never."""
    return passed.from_first(bound.first) if passed.end <= bound.end else Passed(bound.first)


class Run:
    """One call: letter after letter, portion by portion."""

    def __init__(
        self, storage: IStorage, publisher: IPublisher, tenure: Tenure | None, judge: Judge, places: Places, account: Account, topic: str
    ) -> None:
        self._storage, self._publisher, self._tenure = storage, publisher, tenure
        self._judge, self._places, self._account, self._topic = judge, places, account, topic
        self._full = False
        self._away: PsubdError | None = None

    async def go(self, bounds: Mapping[int, Bounds], begin: tuple[int, int] | None) -> tuple[int, int] | None:
        """All partitions, from ``begin`` (partition and offset) once round. Where the next call goes on; None: at the front."""
        ended = None
        for partition, first, end in stretches(bounds, begin):
            reached = await self._stretch(partition, first, end)
            if self._account.over or self._full:
                ended = (partition, reached)
                break
        await self._places.keep(0)
        if ended is not None and self._full:
            self._account.end(*ended, "from here on nothing was looked at: the registry cannot note more letters behind so many that are left")
            return None  # the next call begins at the front, where room is made
        if ended is not None and self._account.tired:
            self._account.end(*ended, "from here on nothing was looked at yet: ask again")
        return ended

    async def _stretch(self, partition: int, at: int, end: int) -> int:
        """From ``at`` to ``end``; how far it came."""
        while not self._account.over:
            at = self._places.of(partition).following(at)
            if at >= end:
                break
            count = self._places.room(partition, at)
            if count <= 0:
                self._full = True
                break
            found: Slice = await self._storage.read(self._topic, partition, at, count, PORTION_BYTES)
            reached = max(found.next_offset, found.first)
            if reached <= at:
                break
            at = await self._portion(partition, at, reached, found.messages)
        return at

    async def _portion(self, partition: int, first: int, reached: int, messages: Sequence[Message]) -> int:
        """What was read from ``first`` on; where the next one begins."""
        moves, kept, reached = await self._judged(partition, messages, reached)
        failed = await self._publish(moves)
        kept.update({offset: error.detail for offset, error in failed.items()})
        for offset in sorted(kept):
            self._account.leave(partition, offset, kept[offset])
        self._places.pass_over(partition, first, reached, sorted(kept))
        moved = len(moves) - len(failed)
        if moved:
            self._account.move(moved)
            await self._places.keep(moved)
        if self._away is not None:
            raise self._away
        return reached

    async def _judged(self, partition: int, messages: Sequence[Message], reached: int) -> tuple[dict[int, Record], dict[int, str], int]:
        """What is to be moved and what is kept, by offset, and where that ends: as much as may still be moved."""
        passed = self._places.of(partition)
        moves: dict[int, Record] = {}
        kept: dict[int, str] = {}
        for message in messages:
            if passed.holds(message.offset):
                continue
            if len(moves) >= self._account.room:
                return moves, kept, message.offset
            self._account.scanned += 1
            verdict = await self._judge.of(message)
            if isinstance(verdict, Record):
                moves[message.offset] = verdict
            elif verdict.for_good:
                self._account.leave(partition, message.offset, verdict.why)
            else:
                kept[message.offset] = verdict.why
        return moves, kept, reached

    async def _publish(self, moves: Mapping[int, Record]) -> dict[int, PsubdError]:
        """By offset in the dead-letter topic, why it was not stored at its origin."""
        failed: dict[int, PsubdError] = {}
        for topic in dict.fromkeys(record.topic for record in moves.values()):
            due = {offset: record for offset, record in moves.items() if record.topic == topic}
            try:
                if self._tenure is not None:
                    self._tenure.check()
                results: list[Position | PsubdError] = await self._publisher.publish(list(due.values()), "all")
            except PsubdError as error:
                self._away = error
                results = [error] * len(due)
            failed.update({offset: result for offset, result in zip(due, results, strict=True) if isinstance(result, PsubdError)})
        return failed


def stretches(bounds: Mapping[int, Bounds], begin: tuple[int, int] | None) -> Iterator[tuple[int, int, int]]:
    """Partition, first offset and end of what is gone through, in order: once round from ``begin``."""
    order = sorted(bounds)
    if begin is None or begin[0] not in bounds:
        yield from ((partition, bounds[partition].first, bounds[partition].end) for partition in order)
        return
    partition, offset = begin
    turn = order.index(partition)
    yield partition, offset, bounds[partition].end
    yield from ((other, bounds[other].first, bounds[other].end) for other in order[turn + 1 :] + order[:turn])
    yield partition, bounds[partition].first, min(offset, bounds[partition].end)


@implementer(IRedriver)
class Redriver:
    """One redrive of a group at a time. To be used once storage, registry, gate and publisher have started.

    :param metrics: where the counters go; None: nowhere.
    :param tenure_of: of a group's slot (`Subscriber.tenure_of`): a group is redriven by the node that serves it. None: there is one node.
    """

    def __init__(
        self,
        storage: IStorage,
        registry: IRegistry,
        gate: IGate,
        publisher: IPublisher,
        clock: IClock,
        metrics: CollectorRegistry | None = None,
        *,
        tenure_of: Tenures | None = None,
    ) -> None:
        self._storage, self._registry, self._gate, self._publisher, self._clock = storage, registry, gate, publisher, clock
        self._tenure_of = tenure_of
        self._signet = Signet(registry)
        self._locks = Locks()
        self._ended: dict[tuple[str, str], tuple[int, int]] = {}
        """By group and topic, where a call ended before it was through: the next one goes on there. What is left at the front hides nothing."""
        self._moved = Counter("psubd_redriven_messages_total", "Dead letters that were published to their origin again", registry=metrics)
        self._left = Counter("psubd_redrive_left_total", "Dead letters that a redrive came to and did not move", registry=metrics)

    def redrive(self, group: str, topic: str, limit: int, actor: str) -> "Deferred[Redriven]":
        return carried_through(self._redrive(group, topic, limit, actor))

    async def _redrive(self, name: str, topic: str, limit: int, actor: str) -> Redriven:
        tenure = None if self._tenure_of is None else self._tenure_of(name)
        await self._signet.open()
        account = Account(limit, self._clock)
        async with self._locks.of(name):
            try:
                if tenure is not None:
                    tenure.check()
                await self._run(self._group(name, topic), tenure, topic, account, actor)
            finally:
                self._moved.inc(account.moved)
                self._left.inc(account.left)
        return account.told()

    def _group(self, name: str, topic: str) -> Group:
        group = group_of(self._registry.snapshot(), name)
        if group is None:
            raise NotFound(f"no group {name!r}")
        if self._gate.topic(topic) is None:
            raise NotFound(f"topic {topic!r} is not registered")
        return group

    async def _run(self, group: Group, tenure: Tenure | None, topic: str, account: Account, actor: str) -> None:
        described: dict[str, StoredTopic] = await self._storage.describe([topic])
        if topic not in described:
            raise TopicMissing(f"topic {topic!r} is gone from the storage")
        bounds: dict[int, Bounds] = await self._storage.bounds(topic)
        judge = Judge(self._storage, self._registry, self._gate, self._publisher, self._signet, group, topic)
        places = Places(self._registry, tenure, group, described[topic], bounds, actor)
        run = Run(self._storage, self._publisher, tenure, judge, places, account, topic)
        ended = await run.go(bounds, self._ended.pop((group.name, topic), None))
        if ended is not None:
            self._ended[group.name, topic] = ended
