"""Connections between protocols of one process, for tests of what nodes say to each other: bytes, back-pressure and breaks, without sockets.

Bytes move when the clock does: after ``clock.advance(0)`` all that was written has arrived, and so has what was answered.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from psubd.interfaces import IClock

CHUNK = 65_536


@implementer(IAddress)
class Host:
    """An address."""

    def __init__(self, host: str) -> None:
        self.host = host


@implementer(ITransport)
class End:
    """One end of a wire. Its producer is paused while more than `CHUNK` bytes have not arrived, as a socket's transport does it.

    :ivar wrote: bytes written here so far. :ivar most: the most that had not arrived at a time.
    """

    def __init__(self, wire: "Wire", peer: str) -> None:
        self.wire = wire
        self.other: End
        self.protocol: Any = None
        self.host = Host(peer)
        self.waiting = bytearray()
        self.producer: Any = None
        self.paused = self.closing = self.closed = self.scheduled = False
        self.wrote = self.most = 0

    def write(self, data: bytes) -> None:
        if self.closed or self.closing or not data:
            return
        self.waiting += data
        self.wrote += len(data)
        self.most = max(self.most, len(self.waiting))
        if self.producer is not None and not self.paused and len(self.waiting) > CHUNK:
            self.paused = True
            self.producer.pauseProducing()
        self.schedule()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def loseConnection(self) -> None:
        self.closing = True
        self.schedule()

    def abortConnection(self) -> None:
        self.wire.close(self, ConnectionAborted(), ConnectionLost())

    def getPeer(self) -> Any:
        return self.host

    def getHost(self) -> Any:
        return self.other.host

    def schedule(self) -> None:
        """Let what waits arrive soon."""
        if not self.scheduled:
            self.scheduled = True
            self.wire.clock.call_later(0, self.move)

    def move(self) -> None:
        """Let some of it arrive."""
        self.scheduled = False
        if self.closed or self.wire.held:
            return
        data = bytes(self.waiting[:CHUNK])
        del self.waiting[:CHUNK]
        if data:
            self.other.protocol.dataReceived(data)
        if self.waiting:
            return self.schedule()
        if self.paused and self.producer is not None:
            self.paused = False
            self.producer.resumeProducing()
        if self.closing and not self.waiting:
            self.wire.close(self, ConnectionDone(), ConnectionDone())
        return None


class Wire:
    """A connection. :ivar held: nothing arrives while it is True: a network that swallows bytes, or a process that was stopped."""

    def __init__(self, clock: IClock, dialled: str) -> None:
        self.clock = clock
        self.address = dialled
        self.held = False
        self.dialler, self.listener = End(self, dialled), End(self, "127.0.0.1")
        self.dialler.other, self.listener.other = self.listener, self.dialler

    @property
    def open(self) -> bool:
        return not self.dialler.closed or not self.listener.closed

    def go_on(self) -> None:
        """Nothing is held any more."""
        self.held = False
        self.dialler.schedule()
        self.listener.schedule()

    def cut(self) -> None:
        """The network breaks it; both ends hear of it."""
        self.close(self.dialler, ConnectionLost(), ConnectionLost())

    def close(self, end: End, own: Exception, others: Exception) -> None:
        """Both ends are told soon."""
        for closed, why in ((end, own), (end.other, others)):
            if not closed.closed:
                closed.closed = True
                self.clock.call_later(0, closed.protocol.connectionLost, Failure(why))


@implementer(IStreamClientEndpoint)
class Endpoint:
    """The way to an address of the wires."""

    def __init__(self, wires: "Wires", address: str) -> None:
        self._wires, self._address = wires, address

    def connect(self, protocolFactory: IProtocolFactory) -> "Deferred[IProtocol]":
        return self._wires.connect(self._address, protocolFactory)


class Wires:
    """All connections. :ivar wires: those that were made, in order. :ivar tries: addresses that were dialled, in order."""

    def __init__(self, clock: IClock) -> None:
        self._clock = clock
        self._factories: dict[str, IProtocolFactory] = {}
        self.wires: list[Wire] = []
        self.tries: list[str] = []

    def listen(self, address: str, factory: IProtocolFactory) -> Callable[[], None]:
        """Connections to ``address`` are ``factory``'s. Returns what ends that."""
        self._factories[address] = factory

        def end() -> None:
            self._factories.pop(address, None)

        return end

    def dial(self, address: str) -> IStreamClientEndpoint:
        """As `psubd.peers.line.Line.dial`."""
        return Endpoint(self, address)

    def connect(self, address: str, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        self.tries.append(address)
        if address not in self._factories:
            return fail(ConnectionRefusedError())
        wire = Wire(self._clock, address)
        self.wires.append(wire)
        protocols: list[Any] = [self._factories[address].buildProtocol(wire.listener.host), factory.buildProtocol(wire.dialler.host)]
        wire.listener.protocol, wire.dialler.protocol = protocols
        for end in (wire.listener, wire.dialler):
            end.protocol.makeConnection(end)
        return succeed(wire.dialler.protocol)

    @property
    def open(self) -> list[Wire]:
        """Connections that stand."""
        return [wire for wire in self.wires if wire.open]
