"""One request as Klein's tree works on it."""

import re
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.web import server

from psubd.errors import PsubdError
from psubd.interfaces import Route
from psubd.model import Answer
from psubd.wire.exchange import Exchange
from psubd.wire.handover import Line, settled
from psubd.wire.head import Head
from psubd.wire.intake import Intake, intake_for
from psubd.wire.meters import RouteMeter
from psubd.wire.paths import first_segment, segments
from psubd.wire.port import Port
from psubd.wire.problem import fit, internal, problem
from psubd.wire.replies import BadAnswer

SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
NO_ROUTE = "none"


class Carrier(Protocol):
    """What a request asks of its connection."""

    line: Line

    def take_body(self, intake: Intake) -> "Deferred[bytes]":
        """Let the body come, into ``intake``."""

    def send(self, request: "Asked", answer: Answer) -> None:
        """Hand the checked answer over."""


class Asked(Protocol):
    """What a connection asks of its request.

    :ivar tag: its id. :ivar silent: its answer has no body, whatever it says. :ivar began_ms: when its head was whole.
    :ivar answer: the one that is being sent.
    """

    tag: bytes
    silent: bool
    began_ms: int
    answer: Answer | None

    @property
    def old(self) -> bool:
        """HTTP/1.0."""

    @property
    def request_id(self) -> str:
        """Its id, as text."""

    @property
    def route(self) -> str:
        """The route's name, once it is known."""

    @property
    def meter(self) -> RouteMeter:
        """Where it is counted."""

    def process(self) -> None:
        """Run it as far as it goes without its body."""

    def answered(self) -> None:
        """All of the answer was handed over."""

    def lost(self, reason: Failure) -> None:
        """The connection went away before that."""


class Request(server.Request):
    """Twisted's request, without its parsing of queries, forms and cookies, its spooling to disk, its pages and its log.

    :param channel: the `psubd.wire.channel.Channel` that it came on.
    :param head: None: there is none that could be read.
    :param port: the connection's.
    :ivar tag: the request's id.
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
        self.tag = own_id(head) or port.next_id()
        self.began_ms = port.clock.elapsed_ms()
        self.route = NO_ROUTE
        self.slash = False
        self.gone = False
        self.answer: Answer | None = None
        self.intake: Intake | None = None
        self.over: Deferred[None] = Deferred()
        self.args = {}
        self.old = self.silent = False
        if head is not None:
            self.method, self.uri, self.path = head.method.encode("ascii"), head.path, head.path
            self.clientproto = b"HTTP/1.0" if head.old else b"HTTP/1.1"
            self.old, self.silent = head.old, head.method == "HEAD"

    def __repr__(self) -> str:
        return f"<Request {self.request_id} {self.route}>"

    @property
    def request_id(self) -> str:
        return self.tag.decode("ascii")

    @property
    def meter(self) -> RouteMeter:
        return self.port.meters.route(self.route, self.method.decode("ascii"))

    def exchange(self, body: bytes) -> Exchange:
        """What an endpoint sees."""
        assert self.head is not None
        return Exchange(self.head, body, self.tag, self.carrier.line)

    # what Twisted and Klein call

    def process(self) -> None:
        """Let Klein find the route and run it."""
        assert self.head is not None
        if self.head.path == b"*":
            self.respond(Answer(status=204, headers=[(b"allow", self.port.methods)]))
            return
        try:
            parts, self.slash = segments(self.head.path)
        except PsubdError as refusal:
            self.respond(self.told(refusal))
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

    def lost(self, reason: Failure) -> None:
        """The client is gone: who listens is told, Klein cancels the endpoint."""
        self.gone = True
        self.release()
        self.end()
        self.connectionLost(reason)  # type: ignore[no-untyped-call]

    def told(self, error: PsubdError) -> Answer:
        """The answer that tells an error, in the dialect of what the path begins with."""
        head = self.head
        if head is None:
            return problem(error)
        return problem(error, self.port.refusals.get(first_segment(head.path)), head.fields)

    # the body

    def read(self, route: Route) -> "Deferred[bytes]":
        """The body, within the route's limits. :raises PsubdError: or fails with it; nothing of the body was read then, or not all."""
        head = self.head
        assert head is not None
        self.intake = intake_for(head, route, self.port.budget, self.port.settings)
        if head.has_body:
            if route.admit is not None:
                route.admit(self.exchange(b""))
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
        self.answer = fit(answer, self)
        self.carrier.send(self, self.answer)
        return self.over

    def fail(self, reason: Failure) -> "Deferred[None]":
        """Answer with 500: a bug of ours."""
        return self.respond(internal(reason, self))

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


def own_id(head: Head | None) -> bytes | None:
    """The client's own ``x-request-id``, if it sent one that is sane."""
    sent = head.values(b"x-request-id") if head is not None else []
    if len(sent) == 1 and SANE_ID.fullmatch(sent[0]):
        return sent[0]
    return None
