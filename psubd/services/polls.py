"""An ask that waits in a group's queue."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from psubd.errors import OverBudget, PsubdError
from psubd.interfaces import IClock
from psubd.model import Binding, Delivered, Delivery, Grant, Poll


def nothing(messages: tuple[Delivered, ...] = (), next: dict[int, int] | None = None) -> Delivery:
    """A delivery that nothing has to be settled for."""
    return Delivery(messages, lambda count: None, next)


def stopping() -> OverBudget:
    """What is told who comes while psubd stops."""
    return OverBudget("psubd is stopping; ask another node, or again in a moment", 1)


class WaitingPoll:
    """One ask, until it is answered, refused or withdrawn.

    :param bindings: what it may read now, by topic. :param withdrawn: called when the client cancels it.
    :param since_ms: when it came, here or at the node that its client asked, on this node's clock.
    :ivar deferred: what the caller of the poll holds. :ivar open: what it may read now. :ivar over: it was answered, refused or withdrawn.
    :ivar age: in its group's queue: since when it waits, and who came first of those that wait equally long; the oldest has the least.
    :ivar looked: the storage was looked at once since it came: only then may the answer be empty.
    :ivar expired: its time is over: it ends as soon as it has looked.
    """

    def __init__(self, grant: Grant, ask: Poll, bindings: dict[str, Binding], withdrawn: "Callable[[WaitingPoll], None]", since_ms: int = 0) -> None:
        self.grant, self.ask = grant, ask
        self.open = bindings
        self.age = (since_ms, 0)
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
