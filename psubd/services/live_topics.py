"""One topic of a loaded group: its channels, and which of them have something to lease."""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from psubd.delivery.cursor import room
from psubd.delivery.ledger import Ledger, Rules
from psubd.errors import PsubdError, TopicMissing
from psubd.model import Binding, Bounds, Group, GroupTopic, Poll, StoredTopic, TopicPartition
from psubd.services.channels import Channel
from psubd.services.handouts import Hand, Taken
from psubd.services.places import Place
from psubd.services.rounds import Rounds
from psubd.services.tokens import Token, tag_of
from psubd.services.workshop import Workshop

log = Logger()

Finder = Callable[[str, str, GroupTopic, Binding], Deferred[dict[int, Place]]]
"""Group, topic, record, binding -> where the group stands on each partition."""


class Home(Protocol):
    """The group's side of a topic.

    :ivar appetite: the most messages that were asked for at a time. :ivar restless: the topics of which not every partition is read to its end and
        watched there.
    """

    name: str
    appetite: int
    restless: set[str]

    def topic_filled(self, topic: "LiveTopic") -> None:
        """A channel of it may have something to lease."""

    def topic_dirty(self) -> None:
        """A channel of it has something to commit."""

    def topic_troubled(self, topic: "LiveTopic") -> None:
        """The storage failed for one of its channels."""

    def topic_voided(self, topic: "LiveTopic", error: PsubdError | None) -> None:
        """It was voided by itself. Without an error it is to be come to anew."""

    def topic_cut(self, topic: "LiveTopic", channel: Channel) -> None:
        """There are signs that the log of the channel was cut; it has halted."""

    def wants(self, topic: str) -> bool:
        """Whether a poll waits that reads it."""

    def reserves(self, at: TopicPartition) -> bool:
        """Whether the partition is for the group's consumer instances."""

    def stood_anew(self, topic: "LiveTopic", partitions: Iterable[int]) -> None:
        """The topic stands on these anew, wherever it stood on them before."""


class LiveTopic:
    """:param find: asks the storage where the group stands. :param group: the group's record in the registry.

    :ivar record: what commits must carry. :ivar binding: as it is now. :ivar ready: the channels with something to lease, the next one first.
    :ivar tag: what leases say of the group and the topic (`psubd.services.tokens.tag_of`). :ivar tenure: of the group's slot.
    :ivar moving: a reset is under way: the registry's record may be ahead of this one, and some channels are taken out.
    """

    def __init__(self, home: Home, shop: Workshop, find: Finder, group: Group, binding: Binding, record: GroupTopic) -> None:
        self.name, self.binding, self.record = binding.topic, binding, record
        self.tag = tag_of(group, self.name, record)
        self.tenure = shop.tenure
        self.live = True
        self.moving = False
        self.channels: dict[int, Channel] = {}
        self.ready: dict[Channel, None] = {}
        self._restless: set[Channel] = set()
        self.refreshes = Rounds(self._refresh)
        self._home, self._shop, self._storage, self._find = home, shop, shop.storage, find
        self._delivered = shop.tallies.delivered.labels(self.name)

    def put(self, places: Mapping[int, Place]) -> None:
        """Let the group stand at ``places`` from now on; what was leased there before is void."""
        self.take_out(places)
        for partition, place in places.items():
            self.channels[partition] = channel = self._channel(partition, place)
            self.stirs(channel)
            channel.reserve(self._home.reserves(channel.at))
        self._home.stood_anew(self, places)
        for partition in places:
            if partition in self.channels:
                self.channels[partition].stir()
                self.channels[partition].pull()
                self.refresh_ready(self.channels[partition])
        if any(channel.dirty for channel in self.channels.values()):
            self._home.topic_dirty()
        self._home.topic_filled(self)

    def take_out(self, partitions: Iterable[int]) -> None:
        """Nothing of these is delivered or committed any more; what is out is nobody's."""
        for partition in partitions:
            channel = self.channels.pop(partition, None)
            if channel is not None:
                self.ready.pop(channel, None)
                channel.void()
                self.rests(channel)

    def lease(self, hand: Hand, count: int) -> int:
        """Lease from the ready channels in shares, up to ``count`` messages; how many it were.

        Whoever gave something goes to the end. An answer ends at the first message that is too large for what is left of it: that channel keeps
        its turn.
        """
        left, until = count, hand.until(self.binding)
        while left > 0 and hand.wants and (channels := self._open_to(hand, left)):
            share, size = max(1, left // len(channels)), hand.size // len(channels)
            for channel in channels:
                if left > 0 and hand.wants:
                    left -= self._lease(channel, hand, min(share, left), size, until)
        self._delivered.value += count - left
        return count - left

    def lease_next(self, ask: Poll, now: int) -> Taken | None:
        """As `lease` of one message, in auto mode and in few steps, where nothing is out of the ordinary. None: something is, or nothing may go out
        now: `lease` tells."""
        binding, ready = self.binding, self.ready
        if not ready or binding.ordered or binding.rate is not None or (ask.ack or binding.ack) != "auto":
            return None
        channel = next(iter(ready))
        lease = channel.lease_next(now)
        if lease is None:
            return None
        if len(ready) > 1 or not channel.ready:
            del ready[channel]
            if channel.ready:
                ready[channel] = None
        self._delivered.value += 1
        return channel, lease

    def _open_to(self, hand: Hand, count: int) -> list[Channel]:
        """The first ``count`` channels that have something for the hand."""
        if count == 1 and self.ready:
            return [next(iter(self.ready))]
        lanes = (channel for channel in hand.lanes.get(self.name, ()) if channel not in self.ready)
        return list(islice(chain(self.ready, lanes), count))

    def _lease(self, channel: Channel, hand: Hand, count: int, size: int, until: int | None) -> int:
        taken = hand.take(channel, count, size, until)
        if self.binding.ordered or hand.lanes:
            hand.keep_lane(channel, taken > 0 and until is None)
        if not taken and channel.ready:
            hand.full = True
            return 0
        self.ready.pop(channel, None)
        self.refresh_ready(channel)
        return taken

    def bind(self, binding: Binding, now: int) -> None:
        """The binding changed; what is out stays out."""
        self.binding = binding
        channels = list(self.channels.values())
        for channel in channels:  # all of them, before anything follows from it for one
            channel.ledger.bind(rules_of(binding), now)
        for channel in channels:
            channel.stir()
            self.refresh_ready(channel)

    def reserve(self) -> None:
        """The group's consumer instances may read other partitions than before."""
        for channel in list(self.channels.values()):
            channel.reserve(self._home.reserves(channel.at))

    def channel_of(self, token: Token) -> Channel | None:
        """Whose lease the token is of, if it is of today: of a partition that was not moved since."""
        channel = self.channels.get(token.partition)
        if not self.live or token.tag != self.tag or channel is None or channel.since != token.since:
            return None
        return channel

    @property
    def idle(self) -> bool:
        """Whether nothing of it is out, waits, or is on its way to the dead-letter topic."""
        return all(channel.ledger.idle for channel in self.channels.values())

    def refresh_ready(self, channel: Channel) -> None:
        """Look again whether the channel has something to lease."""
        if channel.ready:
            self.ready.setdefault(channel, None)
        else:
            self.ready.pop(channel, None)

    def pull(self) -> None:
        """See to it that every channel reads, watches or has enough."""
        for channel in list(self.channels.values()):
            channel.pull()

    def quiets(self) -> "list[Deferred[None]]":
        """What fires when the reads that are on their way have ended."""
        return [quiet for channel in self.channels.values() if (quiet := channel.quiet()) is not None]

    def trouble(self) -> PsubdError | None:
        """Why one of its partitions cannot be read now."""
        return next((channel.trouble for channel in self.channels.values() if channel.trouble is not None), None)

    def healthy(self) -> bool:
        """Whether at least one of its partitions can be read."""
        return any(channel.trouble is None for channel in self.channels.values())

    def leased(self) -> int:
        return sum(channel.ledger.leased for channel in self.channels.values())

    def delayed(self) -> int:
        return sum(channel.ledger.waiting for channel in self.channels.values())

    def void(self) -> None:
        """End for good: nothing of it is committed, and what is out is nobody's."""
        self.live = False
        self.ready.clear()
        for channel in list(self.channels.values()):
            channel.void()

    # --- what the channels say ---

    def filled(self, channel: Channel) -> None:
        self.refresh_ready(channel)
        if channel.dirty:
            self._home.topic_dirty()
        self._home.topic_filled(self)

    def rests(self, channel: Channel) -> None:
        self._restless.discard(channel)
        if not self._restless:
            self._home.restless.discard(self.name)

    def stirs(self, channel: Channel) -> None:
        if self.live and channel.live:
            self._restless.add(channel)
            self._home.restless.add(self.name)

    def troubled(self, channel: Channel, error: PsubdError) -> None:
        if isinstance(error, TopicMissing):
            self._gone(error)
        else:
            self._home.topic_troubled(self)

    def doubtful(self) -> None:
        self.refreshes.next().addErrback(lambda failure: None)

    def look_for_more(self) -> None:
        known: StoredTopic | None = self._storage.known(self.name)
        if known is not None and known.partitions > len(self.channels) and self.live and not self.moving:
            self.doubtful()

    def is_current(self) -> bool:
        known: StoredTopic | None = self._storage.known(self.name)
        return known is None or known.uid == self.record.uid

    def recreated(self) -> None:
        self._gone(None)

    def truncated(self, channel: Channel) -> None:
        if channel.live:
            self.ready.pop(channel, None)
            self._home.topic_cut(self, channel)

    def wanted(self) -> bool:
        return self._home.wants(self.name)

    def appetite(self) -> int:
        return self._home.appetite

    # --- inside ---

    def _channel(self, partition: int, place: Place) -> Channel:
        at, shop = TopicPartition(self.name, partition), self._shop
        space = room(self.record.uid, self.record.mark, self._storage.limits.max_metadata)
        rules = rules_of(self.binding)
        ledger = shop.carried.take(self._home.name, at, self.record, place, rules=rules, room=space, serials=shop.serials)
        restored = ledger is not None
        if ledger is None:
            ledger = Ledger(place.offset, place.done, place.attempts, rules=rules, room=space, serials=shop.serials)
        channel = Channel(self, shop, self._home.name, at, ledger, place)
        channel.dirty = restored or not place.kept
        return channel

    def _gone(self, error: PsubdError | None) -> None:
        if self.live:
            self.void()
            self._home.topic_voided(self, error)

    async def _refresh(self) -> None:
        """Ask the storage how far each partition goes, and whether there are more of them. :raises PsubdError:"""
        stood = {channel: channel.ledger.position for channel in self.channels.values()}
        try:
            bounds: dict[int, Bounds] = await self._storage.bounds(self.name)
        except TopicMissing as missing:
            self._gone(missing)
            return
        if not self.live:
            return
        if not self.is_current():
            self.recreated()
            return
        for channel, position in stood.items():
            if self.live and channel.live and channel.at.partition in bounds:
                channel.saw_end(bounds[channel.at.partition].end, position)
        if self.live and not self.moving and not bounds.keys() <= self.channels.keys():
            await self._grow()

    async def _grow(self) -> None:
        places = await self._find(self._home.name, self.name, self.record, self.binding)
        new = {partition: place for partition, place in places.items() if partition not in self.channels}
        if self.live and not self.moving and new:
            log.info("{group}: topic {topic} has partitions {new} now", group=self._home.name, topic=self.name, new=sorted(new))
            self.put(new)


def rules_of(binding: Binding) -> Rules:
    """What the binding says of delivery, as a ledger takes it."""
    most = binding.max_attempts if binding.dead_letter is not None else None
    return Rules(binding.max_in_flight, binding.ordered, most, binding.backoff.min, binding.backoff.max)
