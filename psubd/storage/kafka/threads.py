"""From the driver's threads to the reactor's: in batches, never a hop for each message."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

log = Logger()


class Mailbox:
    """Calls that threads leave for the reactor's thread. It is woken once for all that gathered until it comes to them; they are made in the
    order in which they were left.

    :ivar wakes: how often it was woken.
    """

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._lock = threading.Lock()
        self._woken = False
        self.wakes = 0

    def put(self, call: Callable[..., object], *given: Any) -> None:
        """From any thread: have ``call`` made on the reactor's."""
        with self._lock:
            self._calls.append((call, given))
            wake, self._woken = not self._woken, True
        if wake:
            self.wakes += 1
            self._reactor.callFromThread(self._empty)

    def _empty(self) -> None:
        with self._lock:
            calls, self._calls, self._woken = self._calls, deque(), False
        for call, given in calls:
            try:
                call(*given)
            except Exception:  # noqa: BLE001 - one call's bug must not take the others' answers along
                log.failure("A result from Kafka's threads could not be handed over")
