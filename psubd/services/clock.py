"""The real clock."""

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from psubd.interfaces import IClock


@implementer(IClock)
class SystemClock:
    """Time of the host; timers of the reactor.

    :param reactor: its ``callLater`` runs the timers. Its ``seconds`` is the wall clock and jumps, so nothing here is measured with it.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor

    def epoch_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def elapsed_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def call_later(self, ms: float, call: Callable[..., Any], *args: Any) -> IDelayedCall:
        return self._reactor.callLater(ms / 1000, call, *args)
