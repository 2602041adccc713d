"""One timer for all that have something to do at a moment: ledgers whose leases lapse, or whose delays end.

A moment is on `IClock.elapsed_ms`. It is never early; after a stop of the process, or where the reactor's own clock jumped, it is late.
"""

import heapq
from itertools import count
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from psubd.interfaces import IClock

log = Logger()


class Sleeper(Protocol):
    """Who is woken."""

    def wake(self, now: int) -> None:
        """It is ``now`` (ms), and the moment has come."""


SLACK = 64
"""Forgotten moments that the heap may hold beside twice as many as count."""


class Alarms:
    """A heap of moments; a sleeper's newest word counts, and setting the same moment again, or a later one, costs next to nothing.

    It forgets lazily, and is made anew where most of it is forgotten; a sleeper that is dropped is not held.
    """

    def __init__(self, clock: IClock) -> None:
        self._clock = clock
        self._due: dict[Sleeper, int] = {}
        self._queued: dict[Sleeper, tuple[int, int]] = {}  # the entry of the heap that counts: moment and number
        self._sleepers: dict[int, Sleeper] = {}  # by the number of that entry
        self._heap: list[tuple[int, int]] = []
        self._numbers = count()
        self._timer: IDelayedCall | None = None
        self._timer_ms = 0

    def at(self, sleeper: Sleeper, due_ms: int | None) -> None:
        """Wake ``sleeper`` at ``due_ms``, and not at the moment that it named before. None: not at all."""
        if due_ms is None:
            self._due.pop(sleeper, None)
            return
        self._due[sleeper] = due_ms
        queued = self._queued.get(sleeper)
        if queued is None or due_ms < queued[0]:
            self._push(sleeper, due_ms)
            self._wind()

    def drop(self, sleeper: Sleeper) -> None:
        """Never wake it again, nor hold it."""
        self._due.pop(sleeper, None)
        queued = self._queued.pop(sleeper, None)
        if queued is not None:
            del self._sleepers[queued[1]]

    def stop(self) -> None:
        """Wake nobody any more."""
        self._due.clear()
        self._queued.clear()
        self._sleepers.clear()
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _push(self, sleeper: Sleeper, due_ms: int) -> None:
        former = self._queued.get(sleeper)
        if former is not None:
            del self._sleepers[former[1]]
        queued = self._queued[sleeper] = (due_ms, next(self._numbers))
        self._sleepers[queued[1]] = sleeper
        heapq.heappush(self._heap, queued)
        if len(self._heap) > 2 * len(self._queued) + SLACK:
            self._heap = sorted(self._queued.values())

    def _wind(self) -> None:
        """Have the timer stand at the first moment of the heap."""
        if not self._heap:
            return
        first = self._heap[0][0]
        if self._timer is not None:
            if self._timer_ms <= first:
                return
            self._timer.cancel()
        self._timer_ms = first
        self._timer = self._clock.call_later(max(0, first - self._clock.elapsed_ms()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._clock.elapsed_ms()
        for sleeper in self._awake(now):
            if self._due.get(sleeper, now + 1) > now:
                continue  # somebody before it in this round set it to another moment
            del self._due[sleeper]
            try:
                sleeper.wake(now)
            except Exception:  # noqa: BLE001 - a bug of ours in a timer: told, and the others are woken
                log.failure("waking broke")
        self._wind()

    def _awake(self, now: int) -> list[Sleeper]:
        """Those whose moment has come; the entries of those that named a later one since go to that."""
        found: list[Sleeper] = []
        while self._heap and self._heap[0][0] <= now:
            sleeper = self._sleepers.pop(heapq.heappop(self._heap)[1], None)
            if sleeper is None:
                continue
            del self._queued[sleeper]
            due = self._due.get(sleeper)
            if due is not None and due > now:
                self._push(sleeper, due)
            elif due is not None:
                found.append(sleeper)
        return found
