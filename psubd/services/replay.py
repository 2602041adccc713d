"""Reading from a place, without any group."""

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall

from psubd.errors import BadParameter, OffsetOutOfRange, RateLimited, TopicNotBound
from psubd.interfaces import IClock, IGate, IStorage
from psubd.model import Binding, Bounds, Delivered, Delivery, Grant, Message, Replay, Slice
from psubd.services.polls import nothing
from psubd.services.tallies import Tallies
from psubd.services.views import Views


class Wait:
    """Something to wait for that ends at the first of: a record, the time, a change of the application's standing, the end of the service."""

    def __init__(self, clock: IClock, ms: int) -> None:
        self.fired: Deferred[None] = Deferred()
        self._timer: IDelayedCall = clock.call_later(ms, self.end)

    def end(self, result: object = None) -> None:
        if self._timer.active():
            self._timer.cancel()
        if not self.fired.called:
            self.fired.callback(None)


class Replayer:
    """:param views: where groups stand, for bindings that give no access to what lies before the cursor."""

    def __init__(self, storage: IStorage, gate: IGate, clock: IClock, views: Views, tallies: Tallies) -> None:
        self._storage, self._gate, self._clock, self._views, self._tallies = storage, gate, clock, views, tallies
        self._waits: dict[Wait, None] = {}
        self._stopped = False

    @property
    def waiting(self) -> int:
        return len(self._waits)

    def stop(self) -> None:
        """Those that wait get an empty answer."""
        self._stopped = True
        for wait in list(self._waits):
            wait.end()

    async def replay(self, grant: Grant, ask: Replay) -> Delivery:
        """As `ISubscriber.replay`."""
        deadline = self._clock.elapsed_ms() + max(0, ask.timeout_ms)
        binding = self._gate.may_subscribe(grant, [ask.topic])[ask.topic]
        bounds: dict[int, Bounds] = await self._storage.bounds(ask.topic)
        places = await self._begin(ask, bounds)
        if not binding.replay:
            await self._check_cursor(binding, places, bounds)
        while True:
            before = dict(places)
            messages = await self._read(ask, places)
            self._check_standing(grant, ask.topic)
            if messages:
                self._spent(grant, ask.topic, messages)
                return nothing(messages, places)
            if places != before:
                continue  # only a gap so far
            left = deadline - self._clock.elapsed_ms()
            if left <= 0 or self._stopped:
                return nothing((), places)
            await self._wait(grant.application.id, ask.topic, places, left)
            self._check_standing(grant, ask.topic)
            await self._take_in(ask, places)

    # --- where it begins ---

    async def _begin(self, ask: Replay, bounds: Mapping[int, Bounds]) -> dict[int, int]:
        """The place in each partition that is asked for."""
        chosen = self._chosen(ask, bounds)
        if ask.start == "earliest":
            return {partition: bounds[partition].first for partition in chosen}
        if ask.start == "latest":
            return {partition: bounds[partition].end for partition in chosen}
        if isinstance(ask.start, tuple):
            found: dict[int, int] = await self._storage.offset_at(ask.topic, ask.start[1])
            return {partition: found.get(partition, bounds[partition].end) for partition in chosen}
        return {partition: self._given(ask, partition, bounds[partition], ask.start) for partition in chosen}

    def _chosen(self, ask: Replay, bounds: Mapping[int, Bounds]) -> list[int]:
        asked = set(ask.start) if isinstance(ask.start, dict) else set()
        if ask.partition is not None:
            asked.add(ask.partition)
        for partition in sorted(asked):
            if partition not in bounds:
                raise BadParameter(f"partition: topic {ask.topic!r} has no partition {partition}; it has 0 to {len(bounds) - 1}")
        return sorted(bounds) if ask.partition is None else [ask.partition]

    def _given(self, ask: Replay, partition: int, bound: Bounds, start: Mapping[int, int]) -> int:
        """A partition that ``start`` does not name is one that was added since: it is read from its first message."""
        offset = start.get(partition, bound.first)
        if offset > bound.end:
            raise OffsetOutOfRange(f"offset: {offset} is past the end of partition {partition} of topic {ask.topic!r}, which is {bound.end}")
        return max(offset, bound.first)

    async def _take_in(self, ask: Replay, places: dict[int, int]) -> None:
        """Partitions that were added while it waited are read too, from their first message."""
        stored = self._storage.known(ask.topic)
        if ask.partition is None and stored is not None and stored.partitions > len(places):
            bounds: dict[int, Bounds] = await self._storage.bounds(ask.topic)
            for partition, bound in bounds.items():
                places.setdefault(partition, bound.first)

    async def _check_cursor(self, binding: Binding, places: Mapping[int, int], bounds: Mapping[int, Bounds]) -> None:
        """:raises TopicNotBound: the place lies before the cursor of the application's own group."""
        cursors = await self._views.cursors(binding.application, binding.topic, bounds)
        for partition, offset in places.items():
            cursor = cursors.get(partition, bounds[partition].end)
            if offset < cursor:
                raise TopicNotBound(
                    f"the binding to topic {binding.topic!r} gives no replay: offset {offset} of partition {partition} lies before the cursor of "
                    f"group {binding.application!r}, {cursor}; replay from there on, or ask for a binding with replay"
                )

    # --- reading ---

    async def _read(self, ask: Replay, places: dict[int, int]) -> tuple[Delivered, ...]:
        """What is there now, up to the ask's bounds; ``places`` moves on. Which partition comes first turns with what was read, so that each
        has its turn whatever the others bring."""
        order = sorted(places)
        turn = sum(places.values()) % len(order) if order else 0
        found: list[Delivered] = []
        size = ask.max_bytes
        for partition in order[turn:] + order[:turn]:
            count = ask.batch_size - len(found)
            if count <= 0 or (found and size <= 0):
                break
            read: Slice = await self._storage.read(ask.topic, partition, places[partition], count, max(1, size))
            taken = fitting(read.messages, size, first_fits=not found)
            size -= sum(message.size for message in taken)
            found += [Delivered(ask.topic, partition, message) for message in taken]
            if len(taken) < len(read.messages):
                places[partition] = read.messages[len(taken)].offset
                break
            places[partition] = max(read.next_offset, read.first)
        return tuple(found)

    def _spent(self, grant: Grant, topic: str, messages: Sequence[Delivered]) -> None:
        self._tallies.delivered.labels(topic).value += len(messages)
        self._gate.spent(grant.application.id, topic, len(messages), sum(delivered.message.size for delivered in messages))

    # --- waiting ---

    async def _wait(self, application: str, topic: str, places: Mapping[int, int], ms: int) -> None:
        """Until there may be something new."""
        wait = Wait(self._clock, ms)
        watches: list[Deferred[None]] = [self._storage.watch(topic, partition, offset) for partition, offset in places.items()]
        any_watch = DeferredList(watches, fireOnOneCallback=True, fireOnOneErrback=True, consumeErrors=True)
        any_watch.addBoth(wait.end)
        end_watch: Callable[[], None] = self._gate.watch(application, wait.end)
        self._waits[wait] = None
        try:
            await wait.fired
        finally:
            del self._waits[wait]
            wait.end()
            end_watch()
            for watch in watches:
                watch.cancel()

    def _check_standing(self, grant: Grant, topic: str) -> None:
        """:raises BadCredentials: :raises TopicNotBound: as of now. A rate in debt stops nobody who was let in."""
        try:
            self._gate.may_subscribe(grant, [topic])
        except RateLimited:
            return


def fitting(messages: Sequence[Message], size: int, first_fits: bool) -> list[Message]:
    """Those from the front that fit into ``size`` bytes; with ``first_fits`` at least one."""
    taken: list[Message] = []
    for message in messages:
        size -= message.size
        if size < 0 and not (first_fits and not taken):
            break
        taken.append(message)
    return taken
