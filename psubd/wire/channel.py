"""One connection: finds requests in what comes in, and sees each answer out.

Twisted's own `HTTPChannel` answers what it refuses with a bare 400, joins folded lines, takes two ``Host``, sends 100 Continue before anybody
judged the request, and pauses a connection whose request waits; its parser's state is private. So this is a protocol of psubd's own; its
requests are Twisted's (`twisted.web.server.Request`), rendered by Klein, but for those that are asked most (`psubd.wire.hot`).

There are two short cuts, and nothing depends on whether one is taken. A request that comes alone, in one piece, with a head that is known, goes
to its endpoint from `dataReceived`. An answer that is small, while nothing else is unsent, is handed to the operating system from `send`.

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
from psubd.wire.head import Head, head_end
from psubd.wire.hot import HotRequest
from psubd.wire.intake import Intake
from psubd.wire.memo import Known, cut
from psubd.wire.outlet import Outlet
from psubd.wire.paths import begun_segment
from psubd.wire.port import Port
from psubd.wire.problem import problem
from psubd.wire.replies import BODILESS
from psubd.wire.request import Asked, Request

log = Logger()


STRAIGHT = 65_536
"""The largest body that is handed over at once, with its head; `abstract.FileDescriptor.bufferSize`."""


class Reading(Enum):
    """What happens with the bytes that come in; see the module."""

    HEAD = auto()
    BODY = auto()
    DONE = auto()
    SPILL = auto()
    LINGER = auto()
    CLOSED = auto()


HEAD, BODY, DONE, SPILL, LINGER, CLOSED = Reading


class Channel(Protocol):
    """A connection.

    :param port: its port.
    :param full: the port has too many connections: this one is told and closed.
    :ivar request: the one whose answer is not out yet.
    :ivar close_after: the present answer is the connection's last.
    :ivar fresh: no request has come on it. :ivar unasked: the client waits for 100 Continue before it sends the body.
    :ivar unsent: something was written that the operating system may not have taken.
    :ivar expecting: bytes of a request wait in the kernel. :ivar held: enough has come behind a request that waits: the transport is paused.
    :ivar read_deadline: when what is awaited from the client must be there, in ms of the clock that never jumps. :ivar write_deadline: when to
        look next whether the client takes its answer.
    """

    def __init__(self, port: Port, full: bool) -> None:
        self.port = port
        self.settings = port.settings
        self.full = full
        self.buffer = bytearray()
        self.reading = HEAD
        self.framing: Sized | Chunked = Sized(0)
        self.intake: Intake | None = None
        self.request: Asked | None = None
        self.sending: Handover | Outlet | None = None
        self.close_after = False
        self.fresh = True
        self.unasked = False
        self.expecting = False
        self.partial = False
        self.unsent = False
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
        self.reading, self.read_deadline, self.write_deadline = CLOSED, inf, inf
        self.intake = None
        self.buffer.clear()
        sending, self.sending = self.sending, None
        request, self.request = self.request, None
        if sending is not None:
            sending.lost()
        if request is not None:
            self.port.meters.broken.value += 1
            request.lost(reason)
        self.port.left(self)

    def isSecure(self) -> bool:
        return ISSLTransport(self.transport, None) is not None

    def getPeer(self) -> Any:
        return self.line.transport.getPeer()

    def getHost(self) -> Any:
        return self.line.transport.getHost()

    @property
    def busy(self) -> bool:
        return self.request is not None or (self.reading is HEAD and (bool(self.buffer) or self.expecting))

    def drain(self) -> None:
        if isinstance(self.sending, Outlet):
            self.sending.stop()
        elif self.reading is HEAD and not self.buffer:
            waits = self.line.peek()
            if waits or (self.fresh and waits is None):
                self.expecting = True
                self.await_bytes(self.settings.head_timeout_ms if waits else self.settings.fresh_ms)
            else:
                self.lose()

    # what comes in

    def dataReceived(self, data: bytes) -> None:
        self.expecting = False
        port = self.port
        port.meters.received.value += len(data)
        if self.reading is HEAD and not self.buffer and not self.advancing:
            end = data.find(b"\r\n\r\n") + 4
            if 3 < end <= port.quick_bytes and self.begin_at_once(data, end):
                return
        if self.reading is LINGER:
            self.drop(len(data))
        elif self.reading is not CLOSED:
            self.buffer += data
            self.advance()

    def begin_at_once(self, data: bytes, end: int) -> bool:
        """Begin the request that has come, if it is for a hot route. False: see to it as to all others.

        :param end: of its head, which is whole.
        """
        raw, size, budget = data[:end], len(data) - end, self.port.budget
        key, length = cut(raw)
        known = self.port.memo.heads.get(key)
        if known is None:
            try:
                read = self.port.memo.read(raw, key)
            except PsubdError:
                return False
            if isinstance(read, Head):
                return False
            known = read
        if length is None:
            length = known.head.length
        if size == (length or 0) and size <= known.most and budget.used + size <= budget.limit:
            self.call(known, length, data[end:])
            return True
        self.buffer += data[end:]
        self.run(known, length)
        self.advance()
        return True

    def call(self, known: Known, length: int | None, body: bytes) -> None:
        """A whole request for a hot route is here, and nothing of it needs to be judged by the wire."""
        self.fresh = self.partial = False
        self.read_deadline = inf
        self.reading = DONE
        self.request = request = HotRequest(self, self.port, known, length, body, self.port.clock.elapsed_ms())
        request.call()

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
        if self.reading is HEAD:
            return self.read_head()
        if self.reading is BODY:
            return self.read_body()
        if self.reading is SPILL:
            return self.read_spill()
        if self.reading is DONE and len(self.buffer) > self.settings.pipelined_bytes:
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
            raw = bytes(self.buffer[:end])
            key, length = cut(raw)
            read = self.port.memo.heads.get(key) or self.port.memo.read(raw, key)
        except PsubdError as refusal:
            self.give_up(refusal)
            return False
        del self.buffer[:end]
        if isinstance(read, Head):
            self.begin(read, Request(self, read, self.port))
        else:
            self.run(read, read.head.length if length is None else length)
        return True

    def run(self, known: Known, length: int | None) -> None:
        """Begin a request for a hot route, whose body, if any, is in the buffer or comes."""
        size, budget = length or 0, self.port.budget
        if size <= len(self.buffer) and size <= known.most and budget.used + size <= budget.limit:
            body = bytes(self.buffer[:size])
            del self.buffer[:size]
            self.call(known, length, body)
        else:
            self.begin(known.head_of(length), HotRequest(self, self.port, known, length, b"", self.port.clock.elapsed_ms()))

    def begin_head(self) -> None:
        """The first bytes of a head are there: the rest must come in time."""
        if not self.partial:
            self.partial = True
            self.await_bytes(self.settings.head_timeout_ms)

    def begin(self, head: Head, request: Asked) -> None:
        """A head is whole: judge it, and run its request as far as it goes without its body."""
        self.partial = self.fresh = False
        self.read_deadline = inf
        self.framing = Chunked() if head.chunked else Sized(head.length or 0)
        self.reading = BODY if head.has_body else DONE
        self.unasked = head.has_body and head.expect == "continue"
        self.close_after = head.close
        self.request = request
        request.process()

    def take_body(self, intake: Intake) -> Deferred[bytes]:
        """The request wants its body: into ``intake``."""
        self.intake = intake
        if self.unasked and not self.buffer:
            self.unsent = True
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
            self.intake, self.reading, self.read_deadline = None, DONE, inf
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
            self.reading = DONE
            return
        self.reading, self.intake = SPILL, None
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
        if self.reading is not SPILL or not self.framing.ended:
            return False
        self.read_deadline = inf
        self.reading = DONE
        if self.request is None:
            self.next_request()
        return True

    def stop_reading(self) -> None:
        """Nothing that comes can be read: the present answer is the last."""
        self.reading, self.close_after = LINGER, True
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
        self.reading, self.close_after, self.read_deadline = LINGER, True, inf
        self.buffer.clear()
        if self.request is None:
            self.lose()

    def give_up(self, refusal: PsubdError) -> None:
        """Answer what cannot be read, in the dialect of its path as far as that is there; nothing comes after it."""
        self.request = request = Request(self, None, self.port)
        begun = begun_segment(bytes(self.buffer[: self.settings.max_target_bytes]))
        self.stop_reading()
        request.respond(problem(refusal, None if begun is None else self.port.refusals.get(begun)))

    # what goes out

    def send(self, request: Asked, answer: Answer) -> None:
        """Hand the request's answer over."""
        if self.reading is BODY:
            self.spill()
        if answer.settle is not None and self.line.gone():
            self.refuse(answer)
        elif answer.stream is not None:
            self.send_stream(request, answer)
        else:
            self.send_whole(request, answer)

    def refuse(self, answer: Answer) -> None:
        """The answer must not go out, and there is no other."""
        settled(answer.settle, -1)
        self.abort()

    def send_whole(self, request: Asked, answer: Answer) -> None:
        """An answer whose body is known: at once where it can be, else as the client takes it."""
        port, body = self.port, answer.body
        close = self.close_after = self.close_after or port.retiring
        now = port.clock.elapsed_ms()
        head = port.replies.head(answer, request.tag, now, len(body), False, close)
        if request.silent or answer.status in BODILESS:
            body = b""
        if answer.stands is not None and not answer.stands():
            self.refuse(answer)
            return
        sent = 0
        if self.line.straight is not None and not self.unsent and len(body) <= STRAIGHT and self.reading is not CLOSED:
            sent = self.line.send(head + body)
            if sent == len(head) + len(body):
                if answer.settle is not None:
                    settled(answer.settle, sent - len(head))
                self.over(request, answer, now)
                return
        self.unsent = True
        self.write_deadline = now + self.settings.sweep_ms
        self.sending = Handover(self.pump, head, body, self.settings.portion_bytes, answer.settle, self.handed_over, answer.stands, sent)

    def send_stream(self, request: Asked, answer: Answer) -> None:
        """An answer that stays open."""
        if answer.stands is not None and not answer.stands():
            self.refuse(answer)
            return
        chunked = not request.old and not request.silent and answer.status not in BODILESS
        self.close_after = self.close_after or self.port.retiring or request.old
        now = self.port.clock.elapsed_ms()
        head = self.port.replies.head(answer, request.tag, now, None, chunked, self.close_after)
        self.unsent = True
        self.write_deadline = now + self.settings.sweep_ms
        if request.silent or answer.status in BODILESS:
            self.sending = Handover(self.pump, head, b"", self.settings.portion_bytes, answer.settle, self.handed_over, answer.stands)
            return
        assert answer.stream is not None
        self.sending = outlet = Outlet(self.pump, head, chunked, self.handed_over, answer.stands)
        try:
            answer.stream(outlet)
        except Exception:  # noqa: BLE001  the head is out: all that is left is to end the body
            log.failure("{route}: a stream failed; request {request_id}", route=request.route, request_id=request.request_id)
            outlet.finish()

    def handed_over(self) -> None:
        """The operating system has all of the answer, which went there by and by."""
        request = self.request
        assert request is not None
        assert request.answer is not None
        self.sending, self.write_deadline, self.unsent = None, inf, False
        self.over(request, request.answer, self.port.clock.elapsed_ms())

    def over(self, request: Asked, answer: Answer, now: int) -> None:
        """The operating system has all of the answer."""
        port = self.port
        self.request = None
        request.meter.request(answer.status, (now - request.began_ms) / 1000)
        port.meters.answered.value += len(answer.body)
        request.answered()
        if self.close_after or port.draining:  # it may have begun to drain since the head was written
            self.close()
        elif self.reading is DONE:
            self.reading, self.dropped = HEAD, 0
            self.read_deadline = now + self.settings.idle_timeout_ms
            if self.buffer:
                self.advance()
        if port.drained is not None:
            port.quieted()

    def next_request(self) -> None:
        """The connection goes on."""
        self.reading, self.dropped = HEAD, 0
        self.await_bytes(self.settings.idle_timeout_ms)

    # the end

    def close(self) -> None:
        """The last answer is out. A client that is still sending would lose it to a reset, if the socket was closed at once."""
        unread = self.reading in (SPILL, LINGER) or bool(self.buffer or self.line.peek())
        if not unread or self.dropped > self.settings.drain_bytes:
            self.lose()
            return
        if self.read_deadline == inf or self.held:
            self.await_bytes(self.settings.drain_ms)
        self.reading = LINGER
        self.drop(len(self.buffer))
        self.buffer.clear()
        if self.reading is not LINGER:
            return
        self.let_go()
        if ITCPTransport.providedBy(self.transport) and not self.line.layered:
            self.line.transport.loseWriteConnection()

    def lose(self) -> None:
        """Close the connection once all that was written is out; by force, where the client does not let it."""
        if self.reading is CLOSED:
            return
        self.reading = CLOSED
        self.await_bytes(self.settings.drain_ms)
        self.line.transport.loseConnection()

    def abort(self) -> None:
        """Break the connection."""
        self.reading, self.read_deadline, self.write_deadline = CLOSED, inf, inf
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
        if self.reading is HEAD:
            if self.buffer:
                self.give_up(RequestTimeout(f"the head did not arrive within {self.settings.head_timeout_ms} ms"))
            else:
                self.lose()
        elif self.reading is BODY:
            self.stop_reading()
            self.refuse_body(RequestTimeout(f"nothing of the body arrived for {self.settings.body_timeout_ms} ms"))
        elif self.reading in (SPILL, LINGER):
            self.enough()
        elif self.reading is CLOSED or self.line.gone():
            self.abort()
        elif self.held:
            self.await_bytes(self.settings.sweep_ms)
