"""An ask that waits in a group's queue, and what it gets."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from psubd.errors import NotSupported, PsubdError
from psubd.interfaces import IClock
from psubd.model import Binding, Delivered, Delivery, Grant, Poll
from psubd.services.channels import Channel
from psubd.services.live_topics import LiveTopic


def check_mode(ask: Poll, bindings: dict[str, Binding]) -> None:
    """:raises NotSupported: the ask, or a binding that it leaves the choice to, wants explicit leases, or a binding order by key."""
    if ask.ack == "explicit" or ask.ack_timeout_ms is not None:
        raise NotSupported("ack: explicit leases come with a later version; leave out ack and ackTimeout, or send ack=auto")
    for name, binding in bindings.items():
        if ask.ack is None and binding.ack == "explicit":
            raise NotSupported(f"topic {name!r} is bound with ack explicit, which comes with a later version; send ack=auto")
        if binding.ordered:
            raise NotSupported(f"topic {name!r} is bound with ordered, which comes with a later version; ask for a binding without it")


def nothing(messages: tuple[Delivered, ...] = (), next: dict[int, int] | None = None) -> Delivery:
    """A delivery that nothing has to be settled for."""
    return Delivery(messages, lambda count: None, next)


class WaitingPoll:
    """One ask, until it is answered, refused or withdrawn.

    :param bindings: what it may read now, by topic. :param withdrawn: called when the client cancels it.
    :ivar deferred: what the caller of the poll holds. :ivar open: what it may read now. :ivar over: it was answered, refused or withdrawn.
    :ivar looked: the storage was looked at once since it came: only then may the answer be empty.
    :ivar expired: its time is over: it ends as soon as it has looked.
    """

    def __init__(self, grant: Grant, ask: Poll, bindings: dict[str, Binding], withdrawn: "Callable[[WaitingPoll], None]") -> None:
        self.grant, self.ask = grant, ask
        self.open = bindings
        self.looked = False
        self.expired = ask.timeout_ms <= 0
        self.deferred: Deferred[Delivery] = Deferred(self._cancelled)
        self._withdrawn = withdrawn
        self.over = False
        self.rated = any(binding.rate is not None for binding in grant.bindings.values())
        self._timer: IDelayedCall | None = None

    def start(self, clock: IClock, expired: "Callable[[WaitingPoll], None]") -> None:
        """Let its time run."""
        if not self.expired:
            self._timer = clock.call_later(self.ask.timeout_ms, expired, self)

    def answer(self, delivery: Delivery) -> None:
        self._end()
        self.deferred.callback(delivery)

    def fail(self, error: PsubdError) -> None:
        self._end()
        self.deferred.errback(error)

    def _cancelled(self, deferred: "Deferred[Delivery]") -> None:
        self._end()
        self._withdrawn(self)

    def _end(self) -> None:
        self.over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


class Handout:
    """What one answer carries, until it is known how much of it was handed over.

    :param leases: in the order of the answer's messages.
    :param settled: told once, with the topics and channels that the answer drew from and how many messages came back.
    """

    def __init__(self, leases: list[tuple[LiveTopic, Channel, int]], settled: Callable[["dict[Channel, LiveTopic]", int], None]) -> None:
        self._leases, self._settled = leases, settled
        self._open = True

    def settle(self, count: int) -> None:
        """The first ``count`` messages are done, the others go back to the front. Only the first call counts. What was leased from a channel
        that is void by now is nobody's."""
        if not self._open:
            return
        self._open = False
        given_back = 0
        for index, (_, channel, serial) in enumerate(self._leases):
            if channel.live:
                channel.settle(serial, index < count)
                given_back += index >= count
        self._settled({channel: topic for topic, channel, _ in self._leases}, given_back)
