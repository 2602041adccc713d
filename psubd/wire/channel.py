"""One connection: finds requests in what comes in, and sees each answer out.

Twisted's own `HTTPChannel` answers what it refuses with a bare 400, joins folded lines, takes two ``Host``, sends 100 Continue before anybody
judged the request, and pauses a connection whose request waits; its parser's state is private. So this is a protocol of psubd's own; its
requests are Twisted's (`twisted.web.server.Request`), rendered by Klein.

Reading goes through these states:

    HEAD    between or within heads
    BODY    the request's body comes in and is taken
    DONE    the whole request is in, its answer is not out: bytes behind it are kept
    SPILL   the request was refused before its body was in: the rest is read and dropped, so that the connection can go on
    LINGER  nothing that comes can be read: it is dropped until the client has read its answer and closes
    CLOSED  the transport was told to close

The transport is read on while a request waits, since one that is paused does not see its client go away. Only behind a client that has sent
a lot more than the request that waits it is paused, and the channel looks by itself from time to time whether the client is still there.
"""

from enum import Enum, auto
from math import inf
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from psubd.errors import OverBudget, PsubdError, RequestTimeout
from psubd.model import Answer
from psubd.wire.framing import Chunked, Sized
from psubd.wire.handover import Handover, Line, Pump, settled
from psubd.wire.head import Head, head_end, parse_head
from psubd.wire.intake import Intake
from psubd.wire.outlet import Outlet
from psubd.wire.port import Port
from psubd.wire.problem import problem
from psubd.wire.replies import BODILESS, reply_head
from psubd.wire.request import Request

log = Logger()


class Reading(Enum):
    """What happens with the bytes that come in; see the module."""

    HEAD = auto()
    BODY = auto()
    DONE = auto()
    SPILL = auto()
    LINGER = auto()
    CLOSED = auto()


class Channel(Protocol):
    """A connection.

    :param port: its port.
    :param full: the port has too many connections: this one is told and closed.
    :ivar request: the one whose answer is not out yet.
    :ivar close_after: the present answer is the connection's last.
    :ivar fresh: no request has come on it. :ivar unasked: the client waits for 100 Continue before it sends the body.
    :ivar expecting: bytes of a request wait in the kernel. :ivar held: enough has come behind a request that waits: the transport is paused.
    :ivar read_deadline: when what is awaited from the client must be there, in ms of the clock that never jumps. :ivar write_deadline: when to
        look next whether the client takes its answer.
    """

    def __init__(self, port: Port, full: bool) -> None:
        self.port = port
        self.settings = port.settings
        self.full = full
        self.buffer = bytearray()
        self.reading = Reading.HEAD
        self.framing: Sized | Chunked = Sized(0)
        self.intake: Intake | None = None
        self.request: Request | None = None
        self.sending: Handover | Outlet | None = None
        self.close_after = False
        self.fresh = True
        self.unasked = False
        self.expecting = False
        self.partial = False
        self.advancing = False
        self.held = False
        self.dropped = 0
        self.read_deadline: float = inf
        self.write_deadline: float = inf

    # the connection

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.line = Line(self.transport, self.isSecure())
        self.pump = Pump(self.line, self.port.clock, self.settings.write_timeout_ms, self.abort)
        self.port.joined(self)
        if self.full:
            self.dropped = self.settings.drain_bytes + 1
            self.give_up(OverBudget("too many connections; connect again later"))
        else:
            self.await_bytes(self.settings.idle_timeout_ms)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reading, self.read_deadline, self.write_deadline = Reading.CLOSED, inf, inf
        self.intake = None
        self.buffer.clear()
        sending, self.sending = self.sending, None
        request, self.request = self.request, None
        if sending is not None:
            sending.lost()
        if request is not None:
            self.port.meters.broken.inc()
            request.connectionLost(reason)
        self.port.left(self)

    def isSecure(self) -> bool:
        return ISSLTransport(self.transport, None) is not None

    def getPeer(self) -> Any:
        return self.line.transport.getPeer()

    def getHost(self) -> Any:
        return self.line.transport.getHost()

    @property
    def busy(self) -> bool:
        return self.request is not None or (self.reading is Reading.HEAD and (bool(self.buffer) or self.expecting))

    def drain(self) -> None:
        if isinstance(self.sending, Outlet):
            self.sending.stop()
        elif self.reading is Reading.HEAD and not self.buffer:
            waits = self.line.peek()
            if waits or (self.fresh and waits is None):
                self.expecting = True
                self.await_bytes(self.settings.head_timeout_ms if waits else self.settings.fresh_ms)
            else:
                self.lose()

    # what comes in

    def dataReceived(self, data: bytes) -> None:
        self.expecting = False
        self.port.meters.received.inc(len(data))
        if self.reading is Reading.LINGER:
            self.drop(len(data))
        elif self.reading is not Reading.CLOSED:
            self.buffer += data
            self.advance()

    def advance(self) -> None:
        """Read on as far as can be."""
        if self.advancing:
            return
        self.advancing = True
        try:
            while self.buffer and self.step():
                pass
        finally:
            self.advancing = False
        if len(self.buffer) <= self.settings.pipelined_bytes:
            self.let_go()

    def step(self) -> bool:
        """Do the next thing with what is in the buffer. False: nothing can be done now."""
        if self.reading is Reading.HEAD:
            return self.read_head()
        if self.reading is Reading.BODY:
            return self.read_body()
        if self.reading is Reading.SPILL:
            return self.read_spill()
        if self.reading is Reading.DONE and len(self.buffer) > self.settings.pipelined_bytes:
            self.hold()
        return False

    def hold(self) -> None:
        """Take no more behind a request that waits: its client finds the line full until the answer is out."""
        if not self.held:
            self.held = True
            self.line.transport.pauseProducing()
        if self.read_deadline == inf:
            self.await_bytes(self.settings.sweep_ms)

    def let_go(self) -> None:
        """Take on what comes."""
        if self.held:
            self.held = False
            self.line.transport.resumeProducing()

    def read_head(self) -> bool:
        """Begin the next request."""
        if not self.partial:
            if self.buffer == b"\r":
                return False
            if self.buffer.startswith(b"\r\n"):
                del self.buffer[:2]  # RFC 9112, section 2.2: one empty line before a request is ignored
        self.begin_head()
        try:
            end = head_end(self.buffer, self.settings)
            if end is None:
                return False
            head = parse_head(bytes(self.buffer[:end]), self.settings)
        except PsubdError as refusal:
            self.give_up(refusal)
            return False
        del self.buffer[:end]
        self.begin(head)
        return True

    def begin_head(self) -> None:
        """The first bytes of a head are there: the rest must come in time."""
        if not self.partial:
            self.partial = True
            self.await_bytes(self.settings.head_timeout_ms)

    def begin(self, head: Head) -> None:
        """A head is whole: judge it, and run it as far as it goes without its body."""
        self.partial = self.fresh = False
        self.read_deadline = inf
        self.framing = Chunked() if head.chunked else Sized(head.length or 0)
        self.reading = Reading.BODY if head.has_body else Reading.DONE
        self.unasked = head.has_body and head.expect == "continue"
        self.close_after = head.close
        self.request = Request(self, head, self.port)
        self.request.process()

    def take_body(self, intake: Intake) -> Deferred[bytes]:
        """The request wants its body: into ``intake``."""
        self.intake = intake
        if self.unasked and not self.buffer:
            self.line.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.unasked = False
        self.await_bytes(self.settings.body_timeout_ms)
        return intake.whole

    def read_body(self) -> bool:
        """Take some of the body."""
        intake = self.intake
        if intake is None:
            return False
        try:
            piece = self.framing.feed(self.buffer)
        except PsubdError as refusal:
            self.stop_reading()
            self.refuse_body(refusal)
            return False
        try:
            intake.add(piece)
            if not self.framing.ended:
                self.await_bytes(self.settings.body_timeout_ms)
                return False
            self.intake, self.reading, self.read_deadline = None, Reading.DONE, inf
            intake.end()
        except PsubdError as refusal:
            self.intake = intake
            self.refuse_body(refusal)
        return True

    def refuse_body(self, refusal: PsubdError) -> None:
        """Tell the request that it does not get its body."""
        intake, self.intake = self.intake, None
        if intake is not None:
            intake.fail(refusal)

    def spill(self) -> None:
        """The request is answered before its body is in: what is left of it is of no use."""
        if self.framing.ended:
            self.reading = Reading.DONE
            return
        self.reading, self.intake = Reading.SPILL, None
        self.await_bytes(self.settings.drain_ms)
        if self.unasked:
            self.stop_reading()  # whether a body or a request comes next, nobody can tell
        elif self.framing.left > self.settings.drain_bytes:
            self.close_after = True

    def read_spill(self) -> bool:
        """Drop some of a body that nobody wants."""
        before = len(self.buffer)
        try:
            self.framing.feed(self.buffer)
        except PsubdError:
            self.stop_reading()
            return False
        self.drop(before - len(self.buffer))
        if self.reading is not Reading.SPILL or not self.framing.ended:
            return False
        self.read_deadline = inf
        self.reading = Reading.DONE
        if self.request is None:
            self.next_request()
        return True

    def stop_reading(self) -> None:
        """Nothing that comes can be read: the present answer is the last."""
        self.reading, self.close_after = Reading.LINGER, True
        self.drop(len(self.buffer))
        self.buffer.clear()
        self.await_bytes(self.settings.drain_ms)
        if self.request is None:
            self.close()

    def drop(self, size: int) -> None:
        """Count what is read for nothing; too much of it ends the connection, after its answer."""
        self.dropped += size
        if self.dropped > self.settings.drain_bytes:
            self.enough()

    def enough(self) -> None:
        """No more is read for nothing."""
        self.dropped = max(self.dropped, self.settings.drain_bytes + 1)
        self.reading, self.close_after, self.read_deadline = Reading.LINGER, True, inf
        self.buffer.clear()
        if self.request is None:
            self.lose()

    def give_up(self, refusal: PsubdError) -> None:
        """Answer what cannot be read; nothing comes after it."""
        self.request = Request(self, None, self.port)
        self.stop_reading()
        self.request.respond(problem(refusal))

    # what goes out

    def send(self, request: Request, answer: Answer) -> None:
        """Hand the request's answer over."""
        if self.reading is Reading.BODY:
            self.spill()
        if (answer.settle is not None and self.line.gone()) or (answer.stands is not None and not answer.stands()):
            settled(answer.settle, -1)
            self.abort()
            return
        old, silent = request.clientproto == b"HTTP/1.0", request.method == b"HEAD" or answer.status in BODILESS
        streams = answer.stream is not None
        self.close_after = self.close_after or self.port.retiring or (streams and old)
        chunked = streams and not old and not silent
        length = None if streams else len(answer.body)
        head = reply_head(answer, request.id, self.port.date(), length, chunked, self.close_after)
        self.write_deadline = self.port.clock.elapsed_ms() + self.settings.sweep_ms
        if answer.stream is None or silent:
            body = b"" if silent else answer.body
            self.sending = Handover(self.pump, head, body, self.settings.portion_bytes, answer.settle, self.handed_over, answer.stands)
        else:
            self.sending = outlet = Outlet(self.pump, head, chunked, self.handed_over, answer.stands)
            try:
                answer.stream(outlet)
            except Exception:  # noqa: BLE001  the head is out: all that is left is to end the body
                log.failure("{route}: a stream failed; request {request_id}", route=request.route, request_id=request.id)
                outlet.finish()

    def handed_over(self) -> None:
        """The operating system has all of the answer."""
        request, self.request = self.request, None
        self.sending, self.write_deadline = None, inf
        assert request is not None
        self.count(request)
        request.answered()
        if self.close_after or self.port.draining:  # it may have begun to drain since the head was written
            self.close()
        elif self.reading is Reading.DONE:
            self.next_request()
            self.advance()
        self.port.quieted()

    def count(self, request: Request) -> None:
        """Into the metrics."""
        assert request.answer is not None
        seconds = (self.port.clock.elapsed_ms() - request.began_ms) / 1000
        self.port.meters.request(request.route, request.method.decode("ascii"), request.answer.status, seconds)
        self.port.meters.answered.inc(len(request.answer.body))

    def next_request(self) -> None:
        """The connection goes on."""
        self.reading, self.dropped = Reading.HEAD, 0
        self.await_bytes(self.settings.idle_timeout_ms)

    # the end

    def close(self) -> None:
        """The last answer is out. A client that is still sending would lose it to a reset, if the socket was closed at once."""
        unread = self.reading in (Reading.SPILL, Reading.LINGER) or bool(self.buffer or self.line.peek())
        if not unread or self.dropped > self.settings.drain_bytes:
            self.lose()
            return
        if self.read_deadline == inf or self.held:
            self.await_bytes(self.settings.drain_ms)
        self.reading = Reading.LINGER
        self.drop(len(self.buffer))
        self.buffer.clear()
        if self.reading is not Reading.LINGER:
            return
        self.let_go()
        if ITCPTransport.providedBy(self.transport) and not self.line.layered:
            self.line.transport.loseWriteConnection()

    def lose(self) -> None:
        """Close the connection once all that was written is out; by force, where the client does not let it."""
        if self.reading is Reading.CLOSED:
            return
        self.reading = Reading.CLOSED
        self.await_bytes(self.settings.drain_ms)
        self.line.transport.loseConnection()

    def abort(self) -> None:
        """Break the connection."""
        self.reading, self.read_deadline, self.write_deadline = Reading.CLOSED, inf, inf
        self.buffer.clear()
        self.line.transport.abortConnection()

    # time

    def await_bytes(self, ms: int) -> None:
        """Expect something of the client within ``ms``."""
        self.read_deadline = self.port.clock.elapsed_ms() + ms

    def overdue(self, now: int) -> None:
        if self.write_deadline <= now:
            self.write_deadline = now + self.settings.sweep_ms
            if self.pump.busy and self.pump.stalled():
                log.debug("a client takes no byte of its answer, or must not have it any more: broken")
                self.abort()
                return
        if self.read_deadline <= now:
            self.read_deadline = inf
            self.late()

    def late(self) -> None:
        """What was awaited did not come in time."""
        if self.reading is Reading.HEAD:
            if self.buffer:
                self.give_up(RequestTimeout(f"the head did not arrive within {self.settings.head_timeout_ms} ms"))
            else:
                self.lose()
        elif self.reading is Reading.BODY:
            self.stop_reading()
            self.refuse_body(RequestTimeout(f"nothing of the body arrived for {self.settings.body_timeout_ms} ms"))
        elif self.reading in (Reading.SPILL, Reading.LINGER):
            self.enough()
        elif self.reading is Reading.CLOSED or self.line.gone():
            self.abort()
        elif self.held:
            self.await_bytes(self.settings.sweep_ms)
