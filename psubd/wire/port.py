"""What the connections of one port share."""

import os
from collections.abc import Mapping
from itertools import count
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from psubd.interfaces import IClock
from psubd.wire.limits import Budget, WireSettings
from psubd.wire.memo import Memo
from psubd.wire.meters import PortMeters
from psubd.wire.problem import Refusal
from psubd.wire.replies import Replies


class Connection(Protocol):
    """What a port asks of its connections."""

    read_deadline: float
    write_deadline: float

    @property
    def busy(self) -> bool:
        """A request is on its way in, or its answer is not out."""

    def overdue(self, now: int) -> None:
        """A deadline has passed."""

    def drain(self) -> None:
        """The port drains: end what is idle."""


class Port:
    """Settings, clock, budget and metrics of one port, and its connections.

    :param resource: what Twisted renders. :param methods: all methods that any route has, as ``Allow`` says it.
    :param memo: the heads that it has seen. :param quick_bytes: a request whose head is no longer may go to a hot route at once; 0: there is none.
    :param refusals: the dialects in which errors are told, by the first segment of the path.
    :ivar retiring: every answer closes its connection. :ivar draining: so does every connection that is idle.
    """

    def __init__(
        self,
        resource: Any,
        methods: bytes,
        clock: IClock,
        settings: WireSettings,
        meters: PortMeters,
        memo: Memo,
        quick_bytes: int,
        refusals: Mapping[bytes, Refusal] | None = None,
    ) -> None:
        self.resource = resource
        self.methods = methods
        self.refusals = refusals or {}
        self.clock = clock
        self.settings = settings
        self.meters = meters
        self.budget = Budget(settings.body_budget_bytes)
        meters.bodies.set_function(lambda: self.budget.used)
        self.replies = Replies(clock)
        self.memo = memo
        self.quick_bytes = quick_bytes
        self.connections: set[Connection] = set()
        self.retiring = self.draining = False
        self.drained: Deferred[None] | None = None
        self.sweeping: IDelayedCall | None = None
        self.prefix = os.urandom(8).hex().encode("ascii") + b"-"
        self.numbers = count(1)

    def next_id(self) -> bytes:
        """An id for a request that brought none: unique on all nodes, and in order on this port."""
        return b"%b%x" % (self.prefix, next(self.numbers))

    @property
    def full(self) -> bool:
        """Whether there are as many connections as there may be."""
        return len(self.connections) >= self.settings.max_connections

    def joined(self, connection: Connection) -> None:
        """A connection was made."""
        self.connections.add(connection)
        self.meters.connections.set(len(self.connections))
        if self.sweeping is None:
            self.sweeping = self.clock.call_later(self.settings.sweep_ms, self.sweep)

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        self.meters.connections.set(len(self.connections))
        if not self.connections and self.sweeping is not None:
            self.sweeping.cancel()
            self.sweeping = None
        self.quieted()

    def sweep(self) -> None:
        """Tell every connection whose deadline has passed."""
        now = self.clock.elapsed_ms()
        self.sweeping = self.clock.call_later(self.settings.sweep_ms, self.sweep)
        for connection in list(self.connections):
            if connection.read_deadline <= now or connection.write_deadline <= now:
                connection.overdue(now)

    def drain(self) -> "Deferred[None]":
        """End what is idle, let what was accepted get its answer. Fires when no request is in flight; a second call is told with the first."""
        if not self.draining:
            self.retiring = self.draining = True
            self.drained = Deferred()
            for connection in list(self.connections):
                connection.drain()
            self.quieted()
        if self.drained is None:
            return succeed(None)
        told: Deferred[None] = Deferred()
        self.drained.addCallback(lambda _: told.callback(None))
        return told

    def quieted(self) -> None:
        """A request has ended, or a connection: perhaps it was the last."""
        if self.drained is not None and not any(connection.busy for connection in self.connections):
            drained, self.drained = self.drained, None
            drained.callback(None)
