"""Twisted's epoll reactor, without a context for the log around each event.

Twisted sets its old log's context anew for every event of every connection, so that its messages can tell whose event it was; psubd's log does not
ask for it. It was a tenth of the processor time of a publish (measured: 3 us of 35).
"""

import errno
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.logger import Logger

log = Logger()


def without_log_context(reactor: Any) -> None:
    """Let the reactor see to its events straight. Any other than Twisted's own epoll reactor, or one of a Twisted that is made differently, stays as
    it is."""
    needed = ("_poller", "_selectables", "_doReadOrWrite")
    if not own(reactor) or not all(hasattr(reactor, name) for name in needed):
        return
    poll, selectables, read_or_write = reactor._poller.poll, reactor._selectables, reactor._doReadOrWrite

    def turn(timeout: float | None) -> None:
        try:
            events = poll(-1 if timeout is None else timeout, max(1, len(selectables)))
        except OSError as error:
            if error.errno == errno.EINTR:
                return
            raise
        for descriptor, event in events:
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue  # it went while others' events were seen to
            try:
                read_or_write(selectable, descriptor, event)
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001  as Twisted does: one connection's end ends nothing else
                log.failure("a connection's end failed")

    reactor.doIteration = turn


def own(reactor: object) -> bool:
    """Whether it is Twisted's own, and nobody's that was made from it."""
    return type(reactor) is EPollReactor
