"""Handing an answer to the operating system, and knowing how much of it has it.

A pull producer is asked for more exactly when its transport holds nothing any more (`twisted.internet.abstract.FileDescriptor.doWrite`), so
what was written before has been taken. Every answer goes this way, in portions: memory holds one portion a slow client, besides the body.

With TLS the layer above the socket's transport gathers small writes until the reactor's next turn, and asks a pull producer for more long
before anything is taken. So the producer is registered with the socket's transport beneath, and after each portion it waits for two turns
(all is ciphertext below then) and for the socket's transport to be empty: bytes of the body are counted when their ciphertext is taken.
"""

import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IPullProducer, ISystemHandle
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer

from psubd.interfaces import IClock

log = Logger()

GONE = frozenset((7, 8))
"""TCP_CLOSE and TCP_CLOSE_WAIT (``linux/net/tcp_states.h``): the client sent RST, or FIN."""


class Line:
    """A connection's transport, from its outside down to the socket.

    :param transport: what the connection was made with: a socket's transport, or wrappers (TLS, haproxy) around one.
    :ivar layered: TLS lies between.
    :ivar straight: what `send` calls; None: there is no straight way.
    """

    def __init__(self, transport: Any, layered: bool) -> None:
        self.transport = transport
        self.layered = layered
        self.bottom = transport
        while isinstance(self.bottom, ProtocolWrapper):
            self.bottom = self.bottom.transport
        handle = self.bottom.getHandle() if ISystemHandle.providedBy(self.bottom) else None
        self.socket = handle if isinstance(handle, socket.socket) else None
        self.straight: Callable[[bytes], int] | None = None if layered or self.socket is None else self.socket.send

    def handle(self) -> socket.socket | None:
        """The socket; None: not made of one (tests), or closed."""
        return self.socket if self.socket is not None and self.socket.fileno() >= 0 else None

    def send(self, data: bytes) -> int:
        """Hand bytes to the operating system at once. Only where it has all that was written to the transport, and as the last thing after what
        tells whether they may go out. How many it took; 0 also where the connection is broken, which the transport will find out."""
        if self.straight is None:
            return 0
        try:
            return self.straight(data)
        except OSError:
            return 0

    def outstanding(self) -> int | None:
        """Bytes that the kernel holds and the client has not acknowledged (Linux: SIOCOUTQ, tcp(7)); None: cannot be told."""
        handle = self.handle()
        if handle is None:
            return None
        try:
            return int(struct.unpack("i", fcntl.ioctl(handle.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
        except OSError:
            return None

    def peek(self) -> bytes | None:
        """A byte that waits to be read; b"": the client has closed or broken the connection; None: neither."""
        handle = self.handle()
        if handle is None:
            return None
        try:
            return handle.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def gone(self) -> bool:
        """Whether the client has closed or broken the connection, as far as the kernel knows. Where the socket is TCP's, bytes that wait to be read
        do not hide it (Linux: TCP_INFO, tcp(7); its first byte is the state)."""
        handle = self.handle()
        if handle is None:
            return False
        try:
            return handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in GONE
        except OSError:
            return self.peek() == b""


class Guard:
    """Stands where a socket's transport hands bytes to the operating system, while an answer is written that may cease to stand. Between a write
    and that moment lie a turn of the reactor at least, a slow client, or a process that was stopped.

    :param socket: the transport. :param stands: `psubd.model.Answer.stands`. :param broken: called where it does not: breaks the connection.
    """

    def __init__(self, socket: FileDescriptor, stands: Callable[[], bool], broken: Callable[[], None]) -> None:
        self.socket, self.usual = socket, socket.writeSomeData
        self.stands, self.broken = stands, broken
        socket.writeSomeData = self  # type: ignore[method-assign]

    def __call__(self, data: bytes) -> int | BaseException:
        if self.stands():
            return self.usual(data)
        self.broken()
        return 0

    def leave(self) -> None:
        """The answer is over."""
        self.socket.writeSomeData = self.usual  # type: ignore[method-assign]


class Feeder(Protocol):
    """What a `Pump` asks for more."""

    def emptied(self) -> None:
        """All that was written has been taken."""

    def lost(self) -> None:
        """The connection went away before that."""


@implementer(IPullProducer)
class Pump:
    """Writes one answer's portions, one after another.

    :param patience_ms: how long the client may take no byte.
    :param broken: breaks the connection: nothing more of what was written goes out.
    :ivar busy: a portion has not been taken yet.
    """

    def __init__(self, line: Line, clock: IClock, patience_ms: int, broken: Callable[[], None]) -> None:
        self.line = line
        self.clock = clock
        self.patience_ms = patience_ms
        self.broken = broken
        self.stands: Callable[[], bool] | None = None
        self.guard: Guard | None = None
        self.feeder: Feeder | None = None
        self.busy = False
        self.flushing = False
        self.progress_ms = 0
        self.sample: int | None = None

    def start(self, feeder: Feeder, stands: Callable[[], bool] | None = None) -> None:
        """Begin an answer; ``feeder`` writes its first portion itself. ``stands``: `psubd.model.Answer.stands`."""
        self.stands = stands
        if stands is not None and isinstance(self.line.bottom, FileDescriptor):
            self.guard = Guard(self.line.bottom, stands, self.broken)
        self.line.bottom.registerProducer(self, False)
        self.feeder = feeder  # after the registration, which asks for more at once

    def stop(self) -> None:
        """End the answer."""
        if self.feeder is not None:
            self.feeder, self.busy, self.flushing, self.stands = None, False, False, None
            self.line.bottom.unregisterProducer()
            if self.guard is not None:
                self.guard.leave()
                self.guard = None

    def write(self, portion: bytes) -> None:
        """Write the next portion; not while `busy`. Of an answer that does not stand any more: break the connection."""
        self.busy = True
        if self.stands is not None and not self.stands():
            self.broken()
            return
        self.progress_ms, self.sample = self.clock.elapsed_ms(), None
        self.line.transport.write(portion)
        if self.line.layered:
            self.flushing = True
            self.clock.call_later(0, self.clock.call_later, 0, self.flushed, self.feeder)

    def flushed(self, feeder: Feeder | None) -> None:
        """Two turns after a write: what the layers gathered lies with the socket's transport."""
        if feeder is not self.feeder or not self.flushing:
            return
        self.flushing = False
        if isinstance(self.line.bottom, FileDescriptor):
            self.line.bottom.startWriting()  # asks for more once it is empty, also where it is already
        else:
            self.resumeProducing()

    def resumeProducing(self) -> None:
        if self.feeder is None or self.flushing or not self.busy:
            return
        self.busy = False
        self.feeder.emptied()

    def stopProducing(self) -> None:
        """The transport is gone; the connection says so to everybody."""

    def stalled(self) -> bool:
        """Whether the client has taken no byte for too long, or may not have what is left. Called again and again while `busy`."""
        if self.stands is not None and not self.stands():
            return True
        now, outstanding = self.clock.elapsed_ms(), self.line.outstanding()
        if outstanding is not None and self.sample is not None and outstanding < self.sample:
            self.progress_ms = now
        self.sample = outstanding
        return now - self.progress_ms >= self.patience_ms


class Handover:
    """An answer whose body is known.

    :param head: goes with the first portion.
    :param sent: bytes of the first portion that went out already.
    :param settle: `psubd.model.Answer.settle`. :param stands: `psubd.model.Answer.stands`.
    :param done: called once all was taken; not when the connection is lost.
    """

    def __init__(
        self,
        pump: Pump,
        head: bytes,
        body: bytes,
        portion_bytes: int,
        settle: Callable[[int], None] | None,
        done: Callable[[], None],
        stands: Callable[[], bool] | None = None,
        sent: int = 0,
    ) -> None:
        self.pump = pump
        self.body = body
        self.portion_bytes = portion_bytes
        self.settle = settle
        self.done = done
        self.written = 0
        self.taken = -1  # the head has not been taken either
        pump.start(self, stands)
        self.write(head, sent)

    def write(self, head: bytes = b"", sent: int = 0) -> None:
        """Write the next portion."""
        start, self.written = self.written, min(len(self.body), self.written + self.portion_bytes)
        portion = head + self.body[start : self.written]
        self.pump.write(portion[sent:] if sent else portion)

    def emptied(self) -> None:
        self.taken = self.written
        if self.written < len(self.body):
            self.write()
            return
        self.pump.stop()
        self.tell()
        self.done()

    def lost(self) -> None:
        self.pump.stop()
        self.tell()

    def tell(self) -> None:
        """Settle, once."""
        settle, self.settle = self.settle, None
        settled(settle, self.taken)


def settled(settle: Callable[[int], None] | None, taken: int) -> None:
    """Call ``settle``; its failure is ours, and costs nobody an answer."""
    if settle is None:
        return
    try:
        settle(taken)
    except Exception:  # noqa: BLE001  the answer is out, nobody is left to tell
        log.failure("an answer's settle failed")
