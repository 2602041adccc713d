"""A clock that a test turns by hand."""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from zope.interface import implementer

from psubd.interfaces import IClock


@implementer(IClock)
class FakeClock:
    """Both clocks stand still until `advance`; ``epoch`` is where the wall clock begins, in ms.

    :ivar reactor: the `twisted.internet.task.Clock` beneath, for what takes an IReactorTime.
    """

    def __init__(self, epoch: int = 1_700_000_000_000) -> None:
        self.reactor = Clock()
        self.epoch = epoch

    def epoch_ms(self) -> int:
        return self.epoch + self.elapsed_ms()

    def elapsed_ms(self) -> int:
        return round(self.reactor.seconds() * 1000)

    def call_later(self, ms: float, call: Callable[..., Any], *args: Any) -> IDelayedCall:
        return self.reactor.callLater(ms / 1000, call, *args)

    def advance(self, ms: float) -> None:
        """Let ``ms`` milliseconds pass; what is due is called."""
        self.reactor.advance(ms / 1000)
