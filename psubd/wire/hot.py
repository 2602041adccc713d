"""Requests for the few routes that are asked all the time, past Klein and Twisted's request.

The endpoints, the routes and the limits are the ones that the tree has; what becomes of a request does not depend on which way it went. A head
that is known and whose body is here already goes to its endpoint at once (`HotRequest.call`); any other goes by `HotRequest.process`.
"""

from collections.abc import Awaitable, Iterable
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from psubd.errors import NoSuchRoute, PsubdError
from psubd.interfaces import IExchange, Route
from psubd.model import Answer
from psubd.wire.exchange import View
from psubd.wire.handover import Line, settled
from psubd.wire.head import Head
from psubd.wire.intake import Intake, intake_for
from psubd.wire.memo import HotRoute, Known
from psubd.wire.meters import PortMeters, RouteMeter
from psubd.wire.paths import Templates, segments
from psubd.wire.port import Port
from psubd.wire.problem import fit, internal, problem
from psubd.wire.request import Carrier, own_id
from psubd.wire.tree import Branch


class HotTable:
    """Which requests are for a hot route.

    :param templates: of all routes: a path may match a hot template, and be another route's. :param routes: the hot ones.
    """

    def __init__(self, templates: Templates[Branch], routes: Iterable[Route], meters: PortMeters) -> None:
        self.templates = templates
        self.hot = {(route.method, route.path): HotRoute(route, meters.route(route.name, route.method)) for route in routes}
        self.fixed = {(method, path.encode("ascii")): hot for (method, path), hot in self.hot.items() if "{" not in path and path[-1:] != "/"}

    def known(self, head: Head) -> Known | None:
        """The head's route and what follows from it; None: it is the tree's."""
        hot, call = self.fixed.get((head.method, head.path)), None
        if hot is None:
            found = self.find(head) if self.hot else None
            if found is None:
                return None
            hot, parts = found
            call = partial(hot.route.endpoint, **parts)
        return Known(head, hot, call or hot.route.endpoint, own_id(head))

    def find(self, head: Head) -> tuple[HotRoute, dict[str, str]] | None:
        """The hot route and the path's parts, as the tree would find them."""
        try:
            path, slash = segments(head.path)
        except NoSuchRoute:
            return None
        found = self.templates.find(path)
        if found is None or slash:
            return None
        hot = self.hot.get((head.method, found.value.path))
        return None if hot is None else (hot, found.parts)


@implementer(IExchange)
class HotRequest(View):
    """A request for a hot route: what its endpoint sees, and what its connection does with it.

    :param length: that the head says; None: none. :param body: b"" until it is there.
    :ivar waiting: the endpoint's, or that of the body. :ivar held: bytes of the body that count in the port's budget.
    """

    __slots__ = ("answer", "began_ms", "body", "carrier", "gone", "held", "intake", "kept", "known", "length", "port", "tag", "waiting")

    silent = False

    def __init__(self, carrier: Carrier, port: Port, known: Known, length: int | None, body: bytes, now: int) -> None:
        self.carrier = carrier
        self.port = port
        self.known = known
        self.length = length
        self.body = body
        self.kept = known.kept
        self.tag = known.own_id or b"%b%x" % (port.prefix, next(port.numbers))
        self.began_ms = now
        self.gone = False
        self.held = 0
        self.answer: Answer | None = None
        self.intake: Intake | None = None
        self.waiting: Deferred[Any] | None = None

    def __repr__(self) -> str:
        return f"<HotRequest {self.request_id} {self.route}>"

    # what an endpoint sees

    @property
    def head(self) -> Head:  # type: ignore[override]
        return self.known.head_of(self.length)

    @property
    def line(self) -> Line:  # type: ignore[override]
        return self.carrier.line

    # what a connection asks

    @property
    def route(self) -> str:
        return self.known.hot.route.name

    @property
    def old(self) -> bool:
        return self.known.head.old

    @property
    def meter(self) -> RouteMeter:
        return self.known.hot.meter

    def process(self) -> None:
        """Judge the head, take the body, call the endpoint."""
        route, head = self.known.hot.route, self.head
        try:
            self.intake = intake_for(head, route, self.port.budget, self.port.settings)
            if not head.has_body:
                if head.length is not None:
                    self.intake.end()
                self.intake = None
            elif route.admit is not None:
                route.admit(self)
        except PsubdError as refusal:
            self.respond(problem(refusal))
        except Exception:  # noqa: BLE001  a bug of ours
            self.respond(self.bug(Failure()))
        else:
            if self.intake is None:
                self.call()
            else:
                self.carrier.take_body(self.intake).addCallbacks(self.take, self.fail)

    def take(self, body: bytes) -> None:
        """The body is here."""
        self.body = body
        self.call()

    def call(self) -> None:
        """Call the endpoint."""
        try:
            answer = self.known.call(self)
        except PsubdError as refusal:
            answer = problem(refusal)
        except Exception:  # noqa: BLE001  whatever it is, the client gets a 500 and the log the traceback
            answer = self.bug(Failure())
        kind = answer.__class__
        if kind is Deferred or (kind is not Answer and isinstance(answer, Awaitable)):
            self.wait(answer)
        else:
            self.respond(answer)

    def wait(self, answer: Awaitable[Answer]) -> None:
        """The answer comes later."""
        if self.intake is None:
            self.held = len(self.body)
            self.port.budget.used += self.held
        waiting = self.waiting = answer if isinstance(answer, Deferred) else Deferred.fromCoroutine(result_of(answer))
        waiting.addCallbacks(self.respond, self.fail)

    def respond(self, answer: Answer) -> None:
        """Send the answer. Once a request."""
        if self.gone:
            settled(getattr(answer, "settle", None), -1)
            return
        self.waiting = None
        answer = self.answer = fit(answer, self)
        self.carrier.send(self, answer)

    def fail(self, failure: Failure) -> None:
        """The endpoint failed, or the body is refused."""
        error = failure.value
        if isinstance(error, PsubdError):
            self.respond(problem(error))
        elif not (self.gone and isinstance(error, CancelledError)):
            self.respond(self.bug(failure))

    def bug(self, failure: Failure) -> Answer:
        return internal(failure, self)

    def told(self, error: PsubdError) -> Answer:
        """No hot route has a dialect of its own."""
        return problem(error)

    def answered(self) -> None:
        if self.held or self.intake is not None:
            self.release()

    def lost(self, reason: Failure) -> None:
        self.gone = True
        self.release()
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.cancel()

    def release(self) -> None:
        """Let the body go."""
        self.port.budget.used -= self.held
        self.held = 0
        if self.intake is not None:
            self.intake.release()
            self.intake = None


async def result_of(answer: Awaitable[Answer]) -> Answer:
    return await answer
