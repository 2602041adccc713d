"""One connection between two nodes: bytes, time, and how fast the line takes what is said."""

from collections.abc import Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from psubd.errors import PsubdError
from psubd.interfaces import IClock
from psubd.peers.auth import BYTES_BEFORE, Answering, Dialling, Refused
from psubd.peers.course import Effects, begin_course
from psubd.peers.frames import LARGEST, IllegalFrame, Parser
from psubd.peers.link import Handler, Link

log = Logger()

PROOF_MS = 5000
"""From the connection to the link: the handshake, and what the listener's membership needs to show the dialler."""
PING_MS = 1000
SILENCE_MS = 5000
"""A line on which nothing comes for so long is broken: five pings were not answered."""
FINISH_MS = 2000
"""What the other end may take for the last of what was said to it, when this node stops."""


class Home(Protocol):
    """What a connection asks of the mesh that it belongs to."""

    @property
    def verbs(self) -> Mapping[str, Handler]:
        """Who serves what."""

    def arrived(self, connection: "Connection") -> bool:
        """It stands, and is not proven. False: this node is not running."""

    def knows(self, member: str) -> bool:
        """Whether the membership shows it."""

    def joined(self, connection: "Connection") -> None:
        """Frames are carried now."""

    def parted(self, connection: "Connection", why: str) -> None:
        """They are no more; the calls on it have ended."""

    def gone(self, connection: "Connection") -> None:
        """It is closed, whether it was linked or not."""


@implementer(IProtocol, IPushProducer)
class Connection(TwistedProtocol, Effects):
    """:param handshake: this node's part of it. :param name: whom it is with, as far as known, for the log.

    :ivar incoming: the other end dialled.
    :ivar link: None until both ends are proven; then for good.
    :ivar closed: fires when the operating system has closed it.
    """

    def __init__(self, home: Home, handshake: Dialling | Answering, clock: IClock, name: str) -> None:
        self.link: Link | None = None
        self.closed: Deferred[None] = Deferred()
        self.name = name
        self.incoming = isinstance(handshake, Answering)
        self._home = home
        self._handshake = handshake
        self._clock = clock
        self._course = begin_course(self)
        self._parser = Parser(BYTES_BEFORE)
        self._before = 0
        self._paused = self._up = self._over = False
        self._timer: IDelayedCall | None = None
        self._heard = False
        self._silent_since = self._ticked = 0

    @property
    def proven(self) -> bool:
        """Whether the other end has shown which member it is."""
        return self._handshake.member is not None

    # --- the transport

    def connectionMade(self) -> None:
        self._up = True
        transport = self._line()
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        if not self._home.arrived(self):
            return self.end("this node is not running")
        self._timer = self._clock.call_later(PROOF_MS, self.end, f"not proven, or not known here as a member, within {PROOF_MS} ms")
        transport.registerProducer(self, True)
        return self._shake(self._handshake.begin)

    def dataReceived(self, data: bytes) -> None:
        self._heard = True
        if self._over:
            return
        self._parser.feed(data)
        try:
            self._read()
        except (IllegalFrame, Refused) as refused:
            self.end(str(refused))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._up = False
        self.end(reason.getErrorMessage())
        self._home.gone(self)
        self.closed.callback(None)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self.pump()

    def stopProducing(self) -> None:
        self._paused = True

    def pump(self) -> None:
        """Write what waits, as far as the transport takes it."""
        if self.link is None or not self._up:
            return
        while not self._paused:
            data = self.link.outbox.take()
            if data is None:
                break
            self._line().write(data)
        if not self.link.up and not self.link.outbox.waiting:
            self._close()

    # --- what befalls it

    def end(self, why: str) -> None:
        """Close it now."""
        self._course.broke(why)

    def finish(self, why: str) -> None:
        """Close it once what waits has been written."""
        self._course.finish(why)

    def admit(self) -> None:
        """The membership shows the member now."""
        self._course.admitted()

    def tick(self) -> None:
        """Once a `PING_MS`: keep the line alive, and see whether it is. A tick that comes late says that this process stood still, and then
        the silence is its own: the other end knows whether it heard anything."""
        now = self._clock.elapsed_ms()
        if self._heard or now - self._ticked > 2 * PING_MS:
            self._silent_since = now
        self._ticked = now
        self._heard = False
        if now - self._silent_since >= SILENCE_MS:
            return self.end(f"nothing came from it for {now - self._silent_since} ms")
        if self.link is not None:
            self.link.ping()
        return None

    # --- what the course has it do (`psubd.peers.course.Effects`)

    def ask_admission(self, member: str) -> None:
        self.name = member
        if self._home.knows(member):
            self.admit()

    def open_link(self) -> None:
        member = self._handshake.member
        assert member is not None
        self._disarm()
        self._parser.largest = LARGEST
        self._silent_since = self._ticked = self._clock.elapsed_ms()
        welcome = self._handshake.welcome()
        self.link = Link(member, self._home.verbs, self._clock, self.pump)
        self._line().write(welcome)
        self._home.joined(self)
        self.link.ping()

    def close_link(self, why: str) -> None:
        assert self.link is not None
        self._over = True
        self.link.lost(why)
        self._home.parted(self, why)

    def flush(self) -> None:
        self._timer = self._clock.call_later(FINISH_MS, self.end, f"it did not take the last of what was said within {FINISH_MS} ms")
        self.pump()

    def cut(self, why: str) -> None:
        self._over = True
        self._disarm()
        if self.link is None:
            log.info("connection with {name} ended before it was proven: {why}", name=self.name, why=why)
        if self._up:
            self._line().abortConnection()

    # --- before the link

    def _read(self) -> None:
        while not self._over:
            held = self._parser.pending
            frame = self._parser.next()
            if frame is None:
                break
            if self.link is not None:
                self.link.received(frame)
                continue
            self._before += held - self._parser.pending
            self._shake(self._handshake.received, frame)
        if self.link is None and self._before + self._parser.pending > BYTES_BEFORE:
            raise Refused(f"it sent more than {BYTES_BEFORE} bytes before it was proven")

    def _shake(self, step: Any, *args: object) -> None:
        """One step of the handshake."""
        try:
            answer = step(*args)
        except Refused as refused:
            return self.end(str(refused))
        except PsubdError as failed:  # the secret cannot be told now
            return self.end(failed.detail)
        if answer:
            self._line().write(answer)
        if self._handshake.member is not None:
            self._course.proven(self._handshake.member)
        return None

    def _disarm(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _close(self) -> None:
        self._line().unregisterProducer()
        self._line().loseConnection()

    def _line(self) -> Any:
        return self.transport
