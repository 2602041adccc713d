"""What one poll is being given, and what becomes of it once its answer was written, or was not."""

from collections.abc import Callable, Container, Iterable

from psubd.delivery.ledger import Lease
from psubd.interfaces import IClock
from psubd.model import Binding, Delivered, Poll
from psubd.services.channels import Channel
from psubd.services.tenures import Tenure
from psubd.services.workshop import epoch_of

Taken = tuple[Channel, Lease]


class Hand:
    """What one ask is being given.

    :param open: what it may read. :param number: of the answer, never used twice by a node. :param now: ms; explicit leases last from then on.
    :ivar count: messages that it has room for. :ivar size: payload bytes that it has room for.
    :ivar full: it ends here: the next message does not fit.
    :ivar lanes: by topic, the channels where order is kept and that it took from in auto mode: there it may get more of the same keys, though for
        all others nothing is ready.
    """

    __slots__ = ("_modes", "ask", "count", "full", "lanes", "now", "number", "open", "size", "taken")

    def __init__(self, ask: Poll, open: Container[str], number: int, now: int) -> None:
        self.ask, self.open, self.number, self.now = ask, open, number, now
        self.count, self.size = ask.batch_size, ask.max_bytes
        self.taken: list[Taken] = []
        self.full = False
        self.lanes: dict[str, dict[Channel, None]] = {}
        self._modes: set[bool] = set()

    @property
    def wants(self) -> bool:
        """Whether it has room for more."""
        return self.count > 0 and not self.full

    def until(self, binding: Binding) -> int | None:
        """How long a lease of the binding's topic lasts in it; None: auto."""
        ask = self.ask
        if (ask.ack or binding.ack) == "auto":
            return None
        return self.now + (binding.ack_timeout_ms if ask.ack_timeout_ms is None else ask.ack_timeout_ms)

    def take(self, channel: Channel, count: int, size: int, until: int | None) -> int:
        """Lease up to ``count`` messages from the channel; how many it were. ``size`` bytes are the channel's share, which one message may
        exceed as long as it fits into the whole."""
        leases = channel.lease(self.now, count, size, not self.taken, until, self.number)
        if not leases and size < self.size:
            leases = channel.lease(self.now, 1, self.size, not self.taken, until, self.number)
        before = self.count
        for lease in leases:
            self.add(channel, lease)
        return before - self.count

    def add(self, channel: Channel, lease: Lease) -> None:
        """This is in it."""
        self.taken.append((channel, lease))
        self._modes.add(lease.until is None)
        self.count -= len(lease.messages)
        self.size -= lease.size
        if self.size <= 0:
            self.full = True

    def keep_lane(self, channel: Channel, more: bool) -> None:
        """Whether it may get more of the keys that it has of the channel."""
        if more:
            self.lanes.setdefault(channel.at.topic, {})[channel] = None
        elif channel in (lanes := self.lanes.get(channel.at.topic, {})):
            del lanes[channel]
            if not lanes:
                del self.lanes[channel.at.topic]

    def arrange(self) -> None:
        """Explicit leases first, each kind in the order in which it was taken. What is done by being written is done with the last message of the
        answer: so all explicit leases may be kept, and nothing else done, where nobody tells how far it was written
        (`psubd.services.remote_owner.Out.give_up`)."""
        if len(self._modes) > 1:
            self.taken.sort(key=lambda taken: taken[1].until is None)

    def messages(self) -> tuple[Delivered, ...]:
        """As the answer has them: each partition's in their order."""
        return tuple(delivered for channel, lease in self.taken for delivered in shown(channel, lease))

    def channels(self) -> dict[Channel, None]:
        return {channel: None for channel, _ in self.taken}


def shown(channel: Channel, lease: Lease) -> Iterable[Delivered]:
    """The messages of a lease; an explicit one has a token."""
    topic, partition = channel.at.topic, channel.at.partition
    if lease.until is None:
        return [Delivered(topic, partition, message, lease.attempt) for message in lease.messages]
    [message] = lease.messages
    return [Delivered(topic, partition, message, lease.attempt, channel.token(message.offset, lease.serial), epoch_of(lease.serial))]


class Handout:
    """What one answer carries, until it is known how much of it was handed over.

    :param taken: in the order of the answer's messages. :param tenure: under which it was given.
    :param settled: told once, with the channels whose ledgers changed by it and how many messages came back.
    """

    __slots__ = ("_clock", "_open", "_settled", "_taken", "_tenure")

    def __init__(self, taken: list[Taken], tenure: Tenure, clock: IClock, settled: Callable[[Iterable[Channel], int], None]) -> None:
        self._taken, self._tenure, self._clock, self._settled = taken, tenure, clock, settled
        self._open = True

    def stands(self) -> bool:
        """Whether its messages may still be handed over. Where the slot was handed over in good order, explicit leases go on at the other node for as
        long as they were granted, though this one serves it no more."""
        return self._tenure.stands or (self._tenure.handed and self._clock.elapsed_ms() < self._lasts())

    def _lasts(self) -> int:
        """Until when all its leases surely do, whatever becomes of auto ones."""
        return min(0 if lease.until is None else lease.until for _, lease in self._taken)

    def settle(self, count: int) -> None:
        """The first ``count`` messages were handed over. Auto: done if that is all of the answer; explicit: each of them keeps its lease. The
        others go back to the front. Only the first call counts. What was leased from a channel that is void by now is nobody's."""
        if not self._open:
            return
        self._open = False
        if len(self._taken) == 1:
            channel, lease = self._taken[0]
            if lease.until is None and count >= len(lease.messages) and channel.live:
                channel.done(lease)
                self._settled((channel,), 0)
                return
        total = 0
        for _, lease in self._taken:
            total += len(lease.messages)
        whole = count >= total
        index = given_back = 0
        changed: dict[Channel, None] = {}
        for channel, lease in self._taken:
            kept = whole if lease.until is None else index < count
            index += len(lease.messages)
            if not channel.live:
                continue
            if not kept:
                channel.give_back(lease)
                given_back += len(lease.messages)
            elif lease.until is None:
                channel.done(lease)
            else:
                continue
            changed[channel] = None
        self._settled(changed, given_back)
