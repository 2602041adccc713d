"""One topic of a loaded group: its channels, and which of them have something to lease."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from psubd.delivery.cursor import room
from psubd.delivery.ledger import Lease, Ledger
from psubd.errors import PsubdError, TopicMissing
from psubd.interfaces import IClock, IStorage
from psubd.model import Binding, Bounds, GroupTopic, StoredTopic, TopicPartition
from psubd.services.channels import Channel, Windows
from psubd.services.places import Place
from psubd.services.rounds import Rounds

log = Logger()

Finder = Callable[[str, str, GroupTopic, Binding], Deferred[dict[int, Place]]]
"""Group, topic, record, binding -> where the group stands on each partition."""


class Home(Protocol):
    """The group's side of a topic."""

    name: str

    def topic_filled(self, topic: "LiveTopic") -> None:
        """A channel of it may have something to lease."""

    def topic_dirty(self) -> None:
        """A channel of it has something to commit."""

    def topic_troubled(self, topic: "LiveTopic") -> None:
        """The storage failed for one of its channels."""

    def topic_voided(self, topic: "LiveTopic", error: PsubdError | None) -> None:
        """It was voided by itself. Without an error it is to be come to anew."""

    def wants(self, topic: str) -> bool:
        """Whether a poll waits that reads it."""


class LiveTopic:
    """:param find: asks the storage where the group stands.

    :ivar record: what commits must carry. :ivar binding: as it is now. :ivar ready: the channels with something to lease, the next one first.
    :ivar moving: a reset is under way: the registry's record may be ahead of this one, and some channels are taken out.
    """

    def __init__(self, home: Home, storage: IStorage, clock: IClock, windows: Windows, find: Finder, binding: Binding, record: GroupTopic) -> None:
        self.name, self.binding, self.record = binding.topic, binding, record
        self.live = True
        self.moving = False
        self.channels: dict[int, Channel] = {}
        self.ready: dict[Channel, None] = {}
        self.refreshes = Rounds(self._refresh)
        self._home, self._storage, self._clock, self._windows, self._find = home, storage, clock, windows, find

    def put(self, places: Mapping[int, Place]) -> None:
        """Let the group stand at ``places`` from now on; what was leased there before is void."""
        self.take_out(places)
        for partition, place in places.items():
            self.channels[partition] = channel = self._channel(partition, place)
            channel.dirty = not place.kept
        for partition in places:
            if partition in self.channels:
                self.channels[partition].pull()
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

    def lease(self, count: int, size: int, first_fits: bool) -> list[tuple[Channel, Lease]]:
        """Lease from the ready channels in turn, up to the bounds.

        An answer ends at the first message that is too large for what is left of it: that channel is the next one's first.
        """
        taken: list[tuple[Channel, Lease]] = []
        while count > 0 and self.ready:
            channel = next(iter(self.ready))
            leases = channel.lease(count, size, first_fits)
            count -= len(leases)
            size -= sum(lease.message.size for lease in leases)
            first_fits = first_fits and not leases
            taken += [(channel, lease) for lease in leases]
            if channel.ledger.ready and count > 0:
                break
            del self.ready[channel]
            self.refresh_ready(channel)
        return taken

    def bind(self, binding: Binding) -> None:
        """The binding changed; what is out stays out."""
        self.binding = binding
        for channel in self.channels.values():
            channel.ledger.max_in_flight = binding.max_in_flight
            self.refresh_ready(channel)

    def refresh_ready(self, channel: Channel) -> None:
        """Look again whether the channel has something to lease."""
        if channel.live and channel.ledger.ready:
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

    def truncated(self, channel: Channel, end: int) -> None:
        log.warn("{group}: the log of {at} was cut: it ends at {end}, before what was read", group=self._home.name, at=str(channel.at), end=end)
        self._gone(None)

    def wanted(self) -> bool:
        return self._home.wants(self.name)

    # --- inside ---

    def _channel(self, partition: int, place: Place) -> Channel:
        space = room(self.record.uid, self.record.mark, self._storage.limits.max_metadata)
        ledger = Ledger(place.offset, place.done, max_in_flight=self.binding.max_in_flight, room=space)
        at = TopicPartition(self.name, partition)
        return Channel(self, self._storage, self._clock, self._windows, self._home.name, at, ledger, place.end)

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
