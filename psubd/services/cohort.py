"""The consumer instances of one loaded group: which there are, who of them has which partition, and who reads.

The registry says which there are and what they want (`/instances/<group>`); the shares follow from that (`psubd.delivery.shares`). A partition that
any of them wants is reserved for them: nothing of it is leased to the sub endpoint's clients. What those had out before stays theirs.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from psubd.delivery.shares import share
from psubd.errors import InstanceMissing, NotFound, PsubdError
from psubd.interfaces import Entry, IGate, IRegistry
from psubd.model import Binding, Delivery, Grant, InstanceSpec, Poll, Start, TopicPartition
from psubd.services import bookkeeping, portions
from psubd.services.bookkeeping import Bookkeeper
from psubd.services.channels import Channel
from psubd.services.holdings import Holding, Member, Stand
from psubd.services.instance_records import dismiss, instances_of, path_of
from psubd.services.live_topics import LiveTopic
from psubd.services.polls import nothing
from psubd.services.readings import Reading
from psubd.services.tenures import under
from psubd.services.wishes import topics_of
from psubd.services.workshop import Workshop

AGAIN_MS = 1_000
"""Until an instance that nobody uses, and that could not be dismissed, is looked at again."""

ACTOR = "psubd"

log = Logger()


class Home(bookkeeping.Home, portions.Home, Protocol):
    """The group."""

    live: bool

    def use(self) -> None:
        """It is used."""


class Cohort:
    """:param timeout_ms: an instance that nobody called for so long is dismissed.

    :ivar members: by id, in the order in which they were made. :ivar holdings: who has what. :ivar books: what they commit.
    """

    def __init__(self, home: Home, shop: Workshop, registry: IRegistry, gate: IGate, timeout_ms: int) -> None:
        self.home, self.shop, self.gate = home, shop, gate
        self.members: dict[str, Member] = {}
        self.holdings: dict[TopicPartition, Holding] = {}
        self.books = Bookkeeper(self, shop.rewind)
        self._registry, self._clock, self._timeout_ms = registry, shop.clock, timeout_ms
        self._left: dict[TopicPartition, Stand] = shop.carried.stands_of(home.name)
        self._whole: set[str] = set()  # what is wanted: topics, and partitions by hand
        self._single: set[TopicPartition] = set()
        self._readings: dict[Reading, None] = {}
        self._seen: Entry | None = None
        self._wished: dict[str, int] = {}  # by instance: in which order they wished last
        self._sharing = self._again = False
        self._bound_at: int | None = None
        self._bound: dict[str, Binding] = {}
        self._named: dict[str, tuple[str, ...]] = {}  # by pattern

    # --- which there are

    def review(self) -> None:
        """The registry changed, or what the application is bound to."""
        entry = self._registry.snapshot().get(path_of(self.home.name))
        if entry != self._seen:
            self._seen = entry
            self._see(instances_of(self._registry.snapshot(), self.home.name).items)
        self.share()
        self.wake()

    def _see(self, items: Mapping[str, InstanceSpec]) -> None:
        for id, member in list(self.members.items()):
            spec = items.get(id)
            if spec is None or spec.serial != member.spec.serial:
                self._leave(member)
            else:
                member.spec = spec
        for id, spec in sorted(items.items(), key=lambda item: (item[1].serial, item[0])):
            if id not in self.members:
                member = self.members[id] = Member(id, spec, self._clock.elapsed_ms(), self._idle)
                member.unsure = all(stand.instance != id for stand in self._left.values())
                self.shop.patience.begin(member, self._timeout_ms)
        self._wished = {id: number for number, id in enumerate(items)}

    def _leave(self, member: Member) -> None:
        del self.members[member.id]
        self.shop.patience.end(member)
        member.live = False
        for holding in list(member.holdings.values()):
            self._release(holding)
        for reading in [reading for reading in self._readings if reading.member is member]:
            reading.end(self.missing(member.id))

    def member(self, id: str) -> Member:
        """:raises InstanceMissing:"""
        member = self.members.get(id)
        if member is None or member.leaving:
            raise self.missing(id)
        return member

    def missing(self, id: str) -> InstanceMissing:
        return missing(self.home.name, id)

    def _idle(self, member: Member) -> None:
        unused = self._clock.elapsed_ms() - member.used_ms
        if member.busy:
            self.shop.patience.begin(member, self._timeout_ms)
        elif unused < self._timeout_ms:
            self.shop.patience.begin(member, self._timeout_ms - unused)
        else:
            Deferred.fromCoroutine(self._discard(member)).addErrback(lambda failure: log.failure("discarding an instance broke", failure))

    async def _discard(self, member: Member) -> None:
        """Nobody used it. What it read and did not commit comes again."""
        tenure = self.home.tenure
        member.leaving = True
        try:
            tenure.check()
            await self._registry.change(ACTOR, under(tenure, dismiss(self.home.name, member.id, member.spec.serial)))
        except NotFound:
            pass
        except PsubdError as refused:
            log.debug("{group}: instance {id} could not be dismissed: {why}", group=self.home.name, id=member.id, why=refused.detail)
            member.leaving = False
            if member.live:
                self.shop.patience.begin(member, AGAIN_MS)
            return
        self.shop.tallies.instances_discarded.inc()
        log.info("{group}: consumer instance {id} was discarded: nobody used it for {ms} ms", group=self.home.name, id=member.id, ms=self._timeout_ms)

    def end(self, error: PsubdError | None) -> None:
        """The group leaves memory."""
        self.end_reads(error)
        for member in self.members.values():
            self.shop.patience.end(member)
            member.live = False
        for holding in self.holdings.values():
            self.shop.patience.end(holding)
            holding.live = False
        self.members.clear()
        self.holdings.clear()

    # --- what they want

    def reserves(self, at: TopicPartition) -> bool:
        """Whether any of them wants the partition."""
        return at.topic in self._whole or at in self._single

    def starts_of(self, topics: Iterable[str]) -> dict[str, Start | None]:
        """Where the group begins on topics that are new to it, as the first says that reads it and has a say; None: nobody has. Those that none of
        them reads are left out."""
        starts: dict[str, Start | None] = {}
        asked = set(topics)
        for member in self.members.values():
            for topic in asked.intersection(self.topics_of(member)):
                if starts.get(topic) is None:
                    starts[topic] = member.spec.reset
        return starts

    def topics_of(self, member: Member) -> tuple[str, ...]:
        """What it reads, bound or not."""
        bound, wish = self.bound(), member.spec.wish
        if wish.pattern is None:
            return topics_of(wish, bound)
        names = self._named.get(wish.pattern)
        if names is None:
            names = self._named[wish.pattern] = topics_of(wish, bound)
        return names

    def bound(self) -> Mapping[str, Binding]:
        """What the application may read today, by topic."""
        if self._bound_at != self.gate.serial:
            self._bound_at = self.gate.serial
            grant = self.gate.grant_of(self.home.application)
            bindings = {} if grant is None else grant.bindings
            self._bound = {topic: binding for topic, binding in bindings.items() if binding.sub and self.gate.topic(topic) is not None}
            self._named.clear()
        return self._bound

    # --- who has what

    def share(self) -> None:
        """Have each partition be whose it is by what is wanted now. What is called from here may call it again: then it goes round once more."""
        self._again = True
        if self._sharing:
            return
        self._sharing = True
        try:
            while self._again and self.home.live:
                self._again = False
                self._share()
        finally:
            self._sharing = False

    def _share(self) -> None:
        wants = self._wants()
        single = {at for member in self.members.values() for at in member.spec.wish.partitions or ()}
        whole = {topic for member in self.members.values() if member.spec.wish.partitions is None for topic in self.topics_of(member)}
        if (whole, single) != (self._whole, self._single):
            self._whole, self._single = whole, single
            for topic in list(self.home.topics.values()):
                topic.reserve()
        due = self._due(wants)
        for at, holding in list(self.holdings.items()):
            self._see_heir(holding, due.get(at), at in wants.get(holding.member.id, ()))
        for at, id in due.items():
            if at not in self.holdings:
                self._give(at, self.members[id])

    def _wants(self) -> dict[str, frozenset[TopicPartition]]:
        """By instance: the partitions of topics that the group stands on. One set for all that want the same: they may be a thousand."""
        bound, topics = self.bound(), self.home.topics
        moving = [at for at in self.holdings if at.topic in topics and topics[at.topic].moving]  # a reset has taken them out for a moment
        found: dict[str, frozenset[TopicPartition]] = {}
        alike: dict[tuple[str, ...], frozenset[TopicPartition]] = {}
        for id, member in self.members.items():
            wish = member.spec.wish
            if wish.partitions is not None:
                asked: Iterable[TopicPartition] = wish.partitions
                there = frozenset(at for at in asked if at.topic in bound and at.topic in topics and at.partition in topics[at.topic].channels)
                found[id] = there.union(at for at in moving if at in wish.partitions)
                continue
            names = tuple(sorted(name for name in self.topics_of(member) if name in bound and name in topics))
            if names not in alike:
                whole = frozenset(channel.at for name in names for channel in topics[name].channels.values())
                alike[names] = whole.union(at for at in moving if at.topic in names)
            found[id] = alike[names]
        return found

    def _due(self, wants: Mapping[str, frozenset[TopicPartition]]) -> dict[TopicPartition, str]:
        """Whose each partition is. By hand: of the one that asked for it last; the others are shared out."""
        due: dict[TopicPartition, str] = {}
        for id in sorted(self.members, key=lambda id: self._wished[id]):
            if self.members[id].spec.wish.partitions is not None:
                due.update(dict.fromkeys(wants[id], id))
        held = {at: holding.member.id for at, holding in self.holdings.items()}
        for at, stand in self._left.items():
            if at not in held and self._is_of(stand):
                held[at] = stand.instance
        subscribed = {id: wants[id] for id, member in self.members.items() if member.spec.wish.partitions is None}
        if due:
            free = {partitions: frozenset(at for at in partitions if at not in due) for partitions in subscribed.values()}
            subscribed = {id: free[partitions] for id, partitions in subscribed.items()}
        return {**share(subscribed, held), **due}

    def _see_heir(self, holding: Holding, id: str | None, wanted: bool) -> None:
        """``id``: whose it should be. ``wanted``: whether who has it still wants it."""
        if id == holding.member.id:
            holding.heir, holding.overdue = None, False
            self.shop.patience.end(holding)
        elif id is None or not wanted or holding.free:
            if holding.owed is not None and id is not None and wanted:
                holding.member.lost.add(holding.at)
            self._release(holding)
        elif holding.heir is None:
            holding.heir = id
            topic = self.home.topics.get(holding.at.topic)
            self.shop.patience.begin(holding, 0 if topic is None else topic.binding.ack_timeout_ms)
        else:
            holding.heir = id

    def _give(self, at: TopicPartition, member: Member) -> None:
        channel = self.channel(at)
        if channel is None:
            return
        holding = Holding(member, at, channel.ledger.committed, self._waited)
        stand = self._left.pop(at, None)
        topic = self.home.topics[at.topic]
        if stand is not None and stand.instance == member.id and self._is_of(stand) and is_on(stand, topic, channel):
            holding.go_on(stand)
        self.holdings[at] = member.holdings[at] = holding

    def _is_of(self, stand: Stand) -> bool:
        member = self.members.get(stand.instance)
        return member is not None and member.spec.serial == stand.made

    def _release(self, holding: Holding) -> None:
        self.shop.patience.end(holding)
        holding.live = False
        if self.holdings.get(holding.at) is holding:
            del self.holdings[holding.at]
        holding.member.holdings.pop(holding.at, None)

    def _waited(self, holding: Holding) -> None:
        """Its heir has waited for long enough."""
        if holding.live:
            holding.overdue = True
            self.see([holding])

    def see(self, holdings: Iterable[Holding]) -> None:
        """Something of these was settled or committed: they go to who waits for them."""
        if any(holding.live and holding.heir is not None and holding.free for holding in holdings):
            self.share()
            self.wake()

    def stands(self) -> list[Stand]:
        """What goes to the slot's next owner."""
        found = []
        for at, holding in self.holdings.items():
            channel = self.channel(at)
            if channel is not None:
                found.append(holding.stand(self.home.name, self.home.topics[at.topic].record.uid, channel.since))
        return found + [stand for at, stand in self._left.items() if at not in self.holdings and self._is_of(stand)]

    def is_owed(self, member: Member) -> bool:
        """Whether it stands somewhere, by what the slot's last owner handed on, that this node has not come to yet."""
        return any(stand.instance == member.id and self._is_of(stand) for stand in self._left.values())

    # --- what the topics say

    def channel(self, at: TopicPartition) -> Channel | None:
        """The group's, as it is now."""
        topic = self.home.topics.get(at.topic)
        return None if topic is None else topic.channels.get(at.partition)

    def stood_anew(self, topic: LiveTopic, partitions: Iterable[int]) -> None:
        """The group's place on these was moved, or is new."""
        for partition in partitions:
            at = TopicPartition(topic.name, partition)
            holding, channel = self.holdings.get(at), self.channel(at)
            if holding is not None and channel is not None and at not in self.books.moving:
                holding.begin(channel.ledger.committed)
        self.share()
        self.wake()

    def left_topic(self, name: str) -> None:
        """The group does not stand on it any more, or is about to come to it anew."""
        for holding in [holding for holding in self.holdings.values() if holding.at.topic == name]:
            self._release(holding)
        self.wake()

    # --- who reads

    @property
    def waiting(self) -> int:
        """Reads that are not answered."""
        return len(self._readings)

    def read(self, grant: Grant, ask: Poll, member: Member) -> "Deferred[Delivery]":
        """As `psubd.interfaces.IConsumers.read`."""
        reading = Reading(self, member, grant, ask, self.shop, self._read)
        self._readings[reading] = None
        member.calls += 1
        self.use(member)
        reading.start()
        return reading.deferred

    def _read(self, reading: Reading) -> None:
        """It is over."""
        if self._readings.pop(reading, reading) is None:
            reading.member.calls -= 1
            self.use(reading.member)

    def use(self, member: Member) -> None:
        """Somebody called it."""
        member.used_ms = self._clock.elapsed_ms()
        self.home.use()

    def wake(self) -> None:
        """Something happened that reads may wait for."""
        for reading in list(self._readings):
            reading.ring()

    def stir(self) -> None:
        """Something happened to what clients of the sub endpoint have."""
        for reading in list(self._readings):
            if reading.blocked:
                reading.ring()

    def end_reads(self, error: PsubdError | None) -> None:
        """They end with ``error``, or empty."""
        for reading in list(self._readings):
            reading.end(nothing() if error is None else error)


def is_on(stand: Stand, topic: LiveTopic, channel: Channel) -> bool:
    """Whether it is of the log that the group stands on, and the group was not moved since."""
    return (stand.uid, stand.since) == (topic.record.uid, channel.since) and stand.position <= channel.end


def missing(group: str, id: str) -> InstanceMissing:
    """What is told who asks for an instance that is not there."""
    return InstanceMissing(f"group {group!r} has no consumer instance {id!r}: it left, or was discarded since nobody used it; make it again")
