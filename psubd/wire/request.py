"""One request: what Klein's tree works on, and what an endpoint sees of it."""

import re
from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.web import server
from zope.interface import implementer

from psubd.errors import BadHeader, LengthRequired, NoSuchRoute, PsubdError
from psubd.fields import decode_component
from psubd.interfaces import IExchange, Route
from psubd.model import Answer
from psubd.wire.coding import Gunzip, body_coding
from psubd.wire.handover import settled
from psubd.wire.head import Head
from psubd.wire.intake import Intake, too_large
from psubd.wire.port import Port
from psubd.wire.problem import internal, problem
from psubd.wire.replies import BadAnswer, check

SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
ENCODED_BAD = re.compile(rb"%(?:2f|00)", re.IGNORECASE)
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
NO_ROUTE = "none"
SLASHED = b"/consumers/"
"""Below it one trailing slash is accepted (contract, section 4)."""


@implementer(IExchange)
class Exchange:
    """A request whose body has arrived."""

    __slots__ = ("body", "client", "headers", "method", "path", "raw_query", "request_id", "secure")

    def __init__(self, request: "Request", head: Head, body: bytes) -> None:
        self.method = head.method
        self.path = head.path.decode("ascii")
        self.raw_query = head.query
        self.headers: Sequence[tuple[bytes, bytes]] = head.fields
        self.body = body
        self.request_id = request.id
        self.client = peer_host(request.client)
        self.secure = request.carrier.isSecure()

    def header(self, name: bytes) -> bytes | None:
        found = None
        for sent, value in self.headers:
            if sent == name:
                if found is not None:
                    raise BadHeader(f"{name.decode('latin-1')}: sent twice; send it once")
                found = value
        return found


class Carrier(Protocol):
    """What a request asks of its connection."""

    def isSecure(self) -> bool:
        """Whether it is TLS."""

    def take_body(self, intake: Intake) -> "Deferred[bytes]":
        """Let the body come, into ``intake``."""

    def send(self, request: "Request", answer: Answer) -> None:
        """Hand the checked answer over."""


class Request(server.Request):
    """Twisted's request, without its parsing of queries, forms and cookies, its spooling to disk, its pages and its log.

    :param channel: the `psubd.wire.channel.Channel` that it came on.
    :param head: None: there is none that could be read.
    :param port: the connection's.
    :ivar id: the request's id.
    :ivar route: the route's name, once it is known.
    :ivar slash: the path was sent with a trailing slash, which was taken off.
    :ivar gone: the connection went away.
    """

    defaultContentType = None

    def __init__(self, channel: Carrier, head: Head | None, port: Port) -> None:
        super().__init__(channel, parsePOSTFormSubmission=False)  # type: ignore[no-untyped-call]
        self.carrier = channel
        self.port = port
        self.head = head
        self.id = request_id(head) or port.next_id()
        self.began_ms = port.clock.elapsed_ms()
        self.route = NO_ROUTE
        self.slash = False
        self.gone = False
        self.answer: Answer | None = None
        self.intake: Intake | None = None
        self.over: Deferred[None] = Deferred()
        self.args = {}
        if head is not None:
            self.method, self.uri, self.path = head.method.encode("ascii"), head.path, head.path
            self.clientproto = b"HTTP/1.0" if head.old else b"HTTP/1.1"

    def __repr__(self) -> str:
        return f"<Request {self.id} {self.route}>"

    # what Twisted and Klein call

    def process(self) -> None:
        """Let Klein find the route and run it."""
        assert self.head is not None
        if self.head.path == b"*":
            self.respond(Answer(status=204, headers=[(b"allow", self.port.methods)]))
            return
        try:
            parts = self.segments(self.head.path)
        except PsubdError as refusal:
            self.respond(problem(refusal))
            return
        self.prepath, self.postpath = [], [part.encode() for part in parts]
        try:
            self.port.resource.render(self)
        except Exception:  # noqa: BLE001  the client must not be left without an answer
            self.fail(Failure())

    def getRequestHostname(self) -> bytes:
        """Klein binds its map to a host, which no route depends on; what a client says is no host name everywhere (IDNA)."""
        return b"localhost"

    def processingFailed(self, reason: Failure) -> Failure:
        self.fail(reason)
        return reason

    def finish(self) -> None:
        """Klein calls it after the endpoint; by then `respond` has ended the request, or the connection is gone."""
        if self.answer is None and not self.gone:
            self.fail(Failure(BadAnswer("the request was ended without an answer")))

    def write(self, data: bytes) -> None:
        raise BadAnswer("endpoints return an Answer, and write nothing themselves")

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone: who listens is told, Klein cancels the endpoint."""
        self.gone = True
        self.release()
        self.end()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    # the path

    def segments(self, path: bytes) -> list[str]:
        """The path's segments, percent-decoded once. :raises NoSuchRoute: for one that no id can be."""
        if len(path) > 1 and path.endswith(b"/"):
            self.slash, path = True, path[:-1]
        raw = path[1:].split(b"/")
        try:
            decoded = [decode_component(part) for part in raw]
        except UnicodeDecodeError:
            raise NoSuchRoute("no such route: the path is not UTF-8") from None
        empty = "" in decoded and path != b"/"
        if empty or ENCODED_BAD.search(path) or any(CONTROL.search(part) for part in decoded):
            raise NoSuchRoute("no such route: the path has an empty part, an encoded slash or a control character")
        return decoded

    @property
    def slash_is_wrong(self) -> bool:
        """Whether the trailing slash is there where none is accepted, but for a route that says otherwise."""
        return self.slash and self.head is not None and not self.head.path.startswith(SLASHED)

    # the body

    def read(self, route: Route) -> "Deferred[bytes]":
        """The body, within the route's limits. :raises PsubdError: or fails with it; nothing of the body was read then, or not all."""
        head = self.head
        assert head is not None
        gzip = body_coding(head.values(b"content-encoding"), route.gzip)
        if head.expect == "other":
            raise BadHeader("expect: only 100-continue can be met")
        if route.needs_length and head.length is None and not head.chunked:
            raise LengthRequired("send content-length, or the body chunked")
        limit, keep = (route.max_body, True) if route.max_body else (self.port.settings.stray_body_bytes, False)
        self.intake = Intake(limit, self.port.budget, Gunzip(limit) if gzip and keep else None, keep)
        if (head.length or 0) > self.intake.most:
            raise too_large(limit, keep)
        self.port.budget.check(head.length or 0)
        if head.has_body:
            if route.admit is not None:
                route.admit(Exchange(self, head, b""))
            return self.carrier.take_body(self.intake)
        if head.length is not None:
            self.intake.end()
        return succeed(b"")

    def release(self) -> None:
        """Let the body go."""
        if self.intake is not None:
            self.intake.release()
            self.intake = None

    # the answer

    def respond(self, answer: Answer) -> "Deferred[None]":
        """Send the answer; fires once all of it was handed over, or the connection is gone. Once a request."""
        if self.gone or self.answer is not None:
            settled(getattr(answer, "settle", None), -1)
            return self.over
        try:
            check(answer)
        except Exception:  # noqa: BLE001  whatever an endpoint returned: it settles, and the client is answered
            settled(getattr(answer, "settle", None), -1)
            answer = internal(Failure(), self.id, self.route)
        self.answer = answer
        self.carrier.send(self, answer)
        return self.over

    def fail(self, reason: Failure) -> "Deferred[None]":
        """Answer with 500: a bug of ours."""
        return self.respond(internal(reason, self.id, self.route))

    def answered(self) -> None:
        """All of the answer was handed over."""
        self.release()
        self.finished = 1
        notifications, self.notifications = self.notifications, []
        for notification in notifications:
            notification.callback(None)
        self.end()

    def end(self) -> None:
        over, self.over = self.over, succeed(None)
        over.callback(None)


def request_id(head: Head | None) -> str | None:
    """The client's own ``x-request-id``, if it sent one that is sane."""
    sent = head.values(b"x-request-id") if head is not None else []
    if len(sent) == 1 and SANE_ID.fullmatch(sent[0]):
        return sent[0].decode("ascii")
    return None


def peer_host(address: Any) -> str:
    """The address's host; a UNIX socket's peer has none."""
    return str(getattr(address, "host", "unix"))
