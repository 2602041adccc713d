"""kazoo's connection, with what kazoo does not show: the session as granted, and the moments of requests that the leader answered.

No Twisted, no zope.
"""

import contextlib
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kazoo.client import KazooClient
from kazoo.exceptions import SessionExpiredError, SessionMovedError
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.connection import ConnectionHandler
from kazoo.protocol.serialization import Connect, Create, Create2, Delete, SetData, Sync, Transaction

MARGIN_MS = 1_000
"""Taken off a session's end: what clocks of two hosts, and the leader's own coarse clock, may differ by within one session."""

LED = frozenset({Create.type, Create2.type, Delete.type, SetData.type, Sync.type, Transaction.type})
"""Requests that only the leader answers. A follower that lost its leader goes on answering pings and reads for its whole syncLimit, while the
leader may have ended the session: so those prove nothing."""

REFUSED = frozenset({SessionExpiredError.code, SessionMovedError.code})


class Lease(NamedTuple):
    """What is known of the session, in ms of the clock that was handed in.

    :ivar session: its id. :ivar timeout_ms: as the server granted it; kazoo keeps the one that was asked for.
    :ivar confirmed_ms: just before the newest request was sent that the leader has answered.
    """

    session: int
    timeout_ms: int
    confirmed_ms: int

    @property
    def ends_ms(self) -> int:
        """Nobody else can have what the session holds before that."""
        return self.confirmed_ms + self.timeout_ms - MARGIN_MS


class Threads(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's threads, with a bound on how long one server is tried.

    :param least_s: at the first try. :param most_s: at the last ones: servers that are slow, and no more than that, must be reached at last.
    :ivar patience_s: seconds for a connection to come about, and again for the server's first word, which it says once the new session is on its
        disk. kazoo's own is the whole session: a server that is down without a word would cost the session, though another one is there. Doubled
        with each try that fails: giving up too soon each time would never end, and leave sessions behind that make servers slower.
    """

    def __init__(self, least_s: float, most_s: float) -> None:
        super().__init__()
        self.least_s, self.most_s = least_s, most_s
        self.patience_s = least_s

    def tried(self, well: bool) -> None:
        """A server was tried, and took us, or did not within that time."""
        self.patience_s = self.least_s if well else min(self.most_s, 2 * self.patience_s)

    def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().create_connection(*args, **{**kwargs, "timeout": self.patience_s})
        except (self.timeout_exception, TimeoutError):
            self.tried(False)
            raise

    def select(self, readers: Sequence[Any], writers: Sequence[Any], others: Sequence[Any], timeout: float | None = None) -> Any:
        """As select(2). kazoo's own makes an epoll for each call, which is half of what a request costs it."""
        poll = select.poll()
        for each in readers:
            poll.register(each, select.POLLIN)
        for each in writers:
            poll.register(each, select.POLLOUT)
        ready = dict(poll.poll(None if timeout is None else timeout * 1000))
        found = {each: ready.get(each.fileno(), 0) for each in (*readers, *writers)}
        # an error or a hang-up wakes both kinds, which then find out
        return [each for each in readers if found[each] & ~select.POLLOUT], [each for each in writers if found[each] & ~select.POLLIN], []


class Line(ConnectionHandler):  # type: ignore[misc]
    """The connection of one kazoo client. All of it runs on kazoo's thread but `lease`, which is read anywhere, and `cut`.

    :param now_ms: a clock that counts a suspended host's sleep; called on kazoo's thread.
    :param renewed: called when a lease that had ended stands again, or stands for another session.
    """

    def __init__(self, kazoo: KazooClient, sasl: dict[str, Any] | None, now_ms: Callable[[], int], renewed: Callable[[], None]) -> None:
        super().__init__(kazoo, kazoo._conn_retry.copy(), logger=kazoo.logger, sasl_options=sasl)
        self._now_ms, self._renewed = now_ms, renewed
        self._sent: dict[int, int] = {}
        self.lease: Lease | None = None

    @property
    def ended(self) -> bool:
        """Whether kazoo has given up for good: it stops where credentials are refused, and at answers that cannot be."""
        return self._connection_routine is not None and not self._connection_routine.is_alive()

    def cut(self) -> None:
        """From any thread: break the connection, so that kazoo looks for another server."""
        line = self._socket
        if line is not None:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:
        if not isinstance(request, Connect):
            return super()._invoke(timeout, request, xid)
        before = self._now_ms()
        self._sent.clear()
        try:
            answer = super()._invoke(self.handler.patience_s, request, xid)
        except (self.handler.timeout_exception, TimeoutError):
            self.handler.tried(False)
            raise
        self.handler.tried(True)
        granted = answer[0]
        if granted.time_out > 0:
            self._confirm(granted.session_id, granted.time_out, before)
        else:
            self.lease = None  # before anybody hears of it: what the session held is somebody else's
        return answer

    def _submit(self, request: Any, timeout: float, xid: int | None = None) -> None:
        if xid and request.type in LED:
            self._sent[xid] = self._now_ms()
        super()._submit(request, timeout, xid)

    def _read_response(self, header: Any, buffer: Any, offset: int) -> Any:
        sent = self._sent.pop(header.xid, None)
        if header.err in REFUSED:
            self.lease = None
        elif sent is not None and self.lease is not None:
            self._confirm(self.lease.session, self.lease.timeout_ms, sent)
        return super()._read_response(header, buffer, offset)

    def _confirm(self, session: int, timeout_ms: int, sent_ms: int) -> None:
        before = self.lease
        if before is not None and before.session == session and before.confirmed_ms >= sent_ms and before.timeout_ms == timeout_ms:
            return
        self.lease = Lease(session, timeout_ms, sent_ms)
        if before is None or before.session != session or before.ends_ms <= self._now_ms():
            self._renewed()
