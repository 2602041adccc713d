"""One timer for all polls that wait: when the time of each is over."""

import heapq
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from psubd.interfaces import IClock

log = Logger()


class Waiter(Protocol):
    """Who waits for a time. :ivar due: when that is over, on `IClock.elapsed_ms`; `Patience` sets it."""

    due: int

    def expire(self) -> None:
        """It is over."""


class Patience:
    """Waiters by the millisecond when their time is over. To begin and to end costs an entry in a dictionary; the heap holds each millisecond of the
    next minute once at most, however many come and go."""

    def __init__(self, clock: IClock) -> None:
        self._clock = clock
        self._lines: dict[int, dict[Waiter, None]] = {}
        self._moments: list[int] = []  # a heap of what is in `_queued`
        self._queued: set[int] = set()
        self._timer: IDelayedCall | None = None
        self._timer_ms = 0

    def begin(self, waiter: Waiter, ms: int) -> None:
        """`Waiter.expire` is called in ``ms``, in the order of beginning where that is the same moment, unless it ends before."""
        waiter.due = due = self._clock.elapsed_ms() + ms
        line = self._lines.get(due)
        if line is None:
            self._lines[due] = {waiter: None}
            if due not in self._queued:
                self._queued.add(due)
                heapq.heappush(self._moments, due)
            if self._timer is None or due < self._timer_ms:
                self._wind()
        else:
            line[waiter] = None

    def end(self, waiter: Waiter) -> None:
        """It waits no longer; one that did not: nothing happens."""
        line = self._lines.get(waiter.due)
        if line is not None:
            line.pop(waiter, None)
            if not line:
                del self._lines[waiter.due]

    def stop(self) -> None:
        """Nobody's time is over any more."""
        self._lines.clear()
        self._moments.clear()
        self._queued.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wind(self) -> None:
        """Have the timer stand at the first moment that somebody waits for."""
        while self._moments and self._moments[0] not in self._lines:
            self._next_moment()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._moments:
            self._timer_ms = self._moments[0]
            self._timer = self._clock.call_later(max(0, self._timer_ms - self._clock.elapsed_ms()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._clock.elapsed_ms()
        while self._moments and self._moments[0] <= now:
            line = self._lines.get(self._next_moment(), {})
            while line:
                waiter = next(iter(line))
                self.end(waiter)
                try:
                    waiter.expire()
                except Exception:  # noqa: BLE001 - a bug of ours in a timer: told, and the others' time is over too
                    log.failure("ending a poll broke")
        self._wind()

    def _next_moment(self) -> int:
        """Take it off."""
        moment = heapq.heappop(self._moments)
        self._queued.discard(moment)
        return moment
