"""Who waits on an application's standing, and when one of its keys ends by the clock alone."""

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from psubd.interfaces import IClock

LONGEST_MS = 10_000
"""A key ends by the wall clock, which may jump; timers run on the other one. So it is looked at again after so long."""


class Watches:
    """Calls by application. An application that somebody watches and one of whose keys has an end has a timer.

    :param ends: the ends (ms since the epoch) of the keys of an application that has any, past ones too.
    """

    log = Logger()

    def __init__(self, clock: IClock, ends: Callable[[str], Iterable[int]]) -> None:
        self._clock, self._ends = clock, ends
        self._calls: dict[str, dict[object, Callable[[], None]]] = {}
        self._timers: dict[str, IDelayedCall] = {}

    def add(self, application: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` at each `tell` of the application and when a key of it ends. Returns what ends that."""
        calls = self._calls.setdefault(application, {})
        mark = object()
        calls[mark] = changed
        if len(calls) == 1:
            self._set_timer(application)

        def end() -> None:
            calls.pop(mark, None)
            if not calls and self._calls.get(application) is calls:
                del self._calls[application]
                self._end_timer(application)

        return end

    def tell(self, application: str) -> None:
        """The application's standing has changed."""
        calls = self._calls.get(application)
        if calls is None:
            return
        self._set_timer(application)
        for mark, changed in list(calls.items()):
            if mark in calls:  # not ended by one before it
                self._call(application, changed)

    def stop(self) -> None:
        for application in list(self._timers):
            self._end_timer(application)
        self._calls.clear()

    def _call(self, application: str, changed: Callable[[], None]) -> None:
        try:
            changed()
        except Exception:  # noqa: BLE001 - one watcher's bug is nobody else's
            self.log.failure("a watcher of application {application} failed", application=application)

    def _set_timer(self, application: str) -> None:
        self._end_timer(application)
        now = self._clock.epoch_ms()
        coming = [end for end in self._ends(application) if end > now]
        if coming:
            end = min(coming)
            self._timers[application] = self._clock.call_later(min(end - now, LONGEST_MS), self._look, application, end)

    def _end_timer(self, application: str) -> None:
        timer = self._timers.pop(application, None)
        if timer is not None and timer.active():
            timer.cancel()

    def _look(self, application: str, end: int) -> None:
        if self._clock.epoch_ms() >= end:
            self.tell(application)
        else:
            self._set_timer(application)
