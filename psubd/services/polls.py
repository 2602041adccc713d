"""An ask that waits in a group's queue."""

from collections.abc import Iterable
from typing import Protocol

from twisted.internet.defer import Deferred

from psubd.errors import OverBudget, PsubdError
from psubd.model import Binding, Delivered, Delivery, Grant, Poll
from psubd.services.patience import Patience


def nothing(messages: tuple[Delivered, ...] = (), next: dict[int, int] | None = None) -> Delivery:
    """A delivery that nothing has to be settled for."""
    return Delivery(messages, lambda count: None, next)


def stopping() -> OverBudget:
    """What is told who comes while psubd stops."""
    return OverBudget("psubd is stopping; ask another node, or again in a moment", 1)


class Home(Protocol):
    """The group's side of a poll."""

    def withdraw(self, poll: "WaitingPoll") -> None:
        """Its client is gone."""

    def expired(self, poll: "WaitingPoll") -> None:
        """Its time is over."""


class WaitingPoll:
    """One ask, until it is answered, refused or withdrawn. Ten thousand may wait: it is kept small.

    :param bindings: what it may read now, by topic. :param rated: whether a rate may keep it from some of its topics.
    :ivar deferred: what the caller of the poll holds. :ivar open: what it may read now. :ivar over: it was answered, refused or withdrawn.
    :param since_ms: when it came, here or at the node that its client asked, on this node's clock.
    :ivar age: in its group's queue: since when it waits, and who came first of those that wait equally long; the oldest has the least.
    :ivar looked: the storage was looked at once since it came: only then may the answer be empty.
    :ivar expired: its time is over: it ends as soon as it has looked. :ivar due: `psubd.services.patience.Waiter`.
    """

    __slots__ = ("_home", "_patience", "age", "ask", "deferred", "due", "expired", "grant", "looked", "open", "over", "rated")

    def __init__(self, grant: Grant, ask: Poll, bindings: dict[str, Binding], rated: bool, home: Home, since_ms: int = 0) -> None:
        self.grant, self.ask = grant, ask
        self.open, self.rated = bindings, rated
        self.age = (since_ms, 0)
        self.due = 0
        self.looked = self.over = False
        self.expired = ask.timeout_ms <= 0
        self.deferred: Deferred[Delivery] = Deferred(self._cancelled)
        self._home = home
        self._patience: Patience | None = None

    def start(self, patience: Patience) -> None:
        """Let its time run."""
        if not self.expired:
            self._patience = patience
            patience.begin(self, self.ask.timeout_ms)

    def expire(self) -> None:
        self._home.expired(self)

    def answer(self, delivery: Delivery) -> None:
        self._end()
        self.deferred.callback(delivery)

    def fail(self, error: PsubdError) -> None:
        self._end()
        self.deferred.errback(error)

    def _cancelled(self, deferred: "Deferred[Delivery]") -> None:
        self._end()
        self._home.withdraw(self)

    def _end(self) -> None:
        self.over = True
        if self._patience is not None:
            self._patience.end(self)


def is_rated(bindings: Iterable[Binding]) -> bool:
    """Whether any of them has a rate."""
    return any(binding.rate is not None for binding in bindings)
