"""The table of routes as a Klein app.

One Klein route a path, with all methods: which method a path has is judged here. Werkzeug would add HEAD to every GET, and Klein run the GET
endpoint for it: a message would be consumed unseen.
"""

from collections.abc import Awaitable, Iterable
from typing import Any, cast

from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException

from psubd.errors import MethodNotAllowed, NoSuchRoute, PsubdError
from psubd.interfaces import Route
from psubd.model import Answer
from psubd.wire.paths import PART, Templates, first_segment
from psubd.wire.problem import Refusal, internal
from psubd.wire.request import Request

OWN = "part_"


class Branch:
    """All methods of one path.

    :ivar slash: the path is served with and without a trailing slash: the template ends in one, or a route says so.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.slash = len(path) > 1 and path.endswith("/")
        self.routes: dict[str, Route] = {}

    def add(self, route: Route) -> None:
        if route.method in self.routes:
            raise ValueError(f"two routes for {route.method} {route.path}")
        self.routes[route.method] = route
        self.slash = self.slash or route.slash

    @property
    def rule(self) -> str:
        """The path as Klein writes it. Parts get names of their own: Klein has some that a part may not have (``instance``)."""
        return PART.sub(rf"<{OWN}\1>", self.path.rstrip("/") or "/")

    @property
    def allowed(self) -> tuple[str, ...]:
        """What ``Allow`` says."""
        heads = ["HEAD"] if "HEAD" not in self.routes and any(route.head for route in self.routes.values()) else []
        return (*sorted({*self.routes, *heads, "OPTIONS"}),)

    def route(self, method: str) -> Route:
        """The route of that method. :raises MethodNotAllowed:"""
        route = self.routes.get(method)
        if route is None and method == "HEAD":
            got = self.routes.get("GET")
            route = got if got is not None and got.head else None
        if route is None:
            raise MethodNotAllowed(f"{method} is none of this route's methods: {', '.join(self.allowed)}", self.allowed)
        return route


class Tree:
    """Finds a request's route and runs it.

    :raises ValueError: for a table with a method of a path twice, or two templates for the same paths.
    :ivar resource: what Twisted renders.
    :ivar templates: what finds a branch without Klein.
    :ivar methods: all methods that any route has, as ``Allow`` says it. :ivar refusals: the dialects, by the first segment of the paths that speak
        one: what is no route below it is told so too.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.branches: dict[str, Branch] = {}
        self.refusals: dict[bytes, Refusal] = {}
        for route in routes:
            self.branches.setdefault(route.path, Branch(route.path)).add(route)
            if route.refusal is not None:
                self.refusals[first_segment(route.path.encode())] = route.refusal
        check_shapes(self.branches)
        self.templates = Templates(self.branches)
        self.app = Klein()
        for branch in self.branches.values():
            self.grow(branch)
        self.app.handle_errors(HTTPException)(cast(Any, unknown))
        self.resource = self.app.resource()
        every = {method for branch in self.branches.values() for method in branch.allowed}
        self.methods = ", ".join(sorted(every)).encode("ascii")

    def grow(self, branch: Branch) -> None:
        """Give Klein the branch. Nothing is redirected: a path is right or it is not there."""

        def serve_branch(request: Request, **parts: str) -> Deferred[None]:
            return Deferred.fromCoroutine(serve(branch, request, {name.removeprefix(OWN): part for name, part in parts.items()}))

        self.app.route(branch.rule, endpoint=branch.path, strict_slashes=True, merge_slashes=False)(serve_branch)


def check_shapes(paths: Iterable[str]) -> None:
    """:raises ValueError: for two templates that match the same paths: one of them would never be found."""
    shapes: dict[str, str] = {}
    for path in paths:
        other = shapes.setdefault(PART.sub("{}", path.rstrip("/")), path)
        if other != path:
            raise ValueError(f"two templates for the same paths: {other} and {path}")


async def serve(branch: Branch, request: Request, parts: dict[str, str]) -> None:
    """Answer the request."""
    await request.respond(await outcome(branch, request, parts))


async def outcome(branch: Branch, request: Request, parts: dict[str, str]) -> Answer:
    """The endpoint's answer, or the one that tells why there is none."""
    try:
        return await run(branch, request, parts)
    except PsubdError as refusal:
        return request.told(refusal)
    except CancelledError:
        if request.gone:
            raise
        return internal(Failure(), request)
    except Exception:  # noqa: BLE001  whatever it is, the client gets a 500 and the log the traceback
        return internal(Failure(), request)


async def run(branch: Branch, request: Request, parts: dict[str, str]) -> Answer:
    """Judge route and method, take the body, call the endpoint."""
    if request.slash and not branch.slash:
        raise NoSuchRoute("no such route; it is there without the trailing slash")
    assert request.head is not None
    method = request.head.method
    if method == "OPTIONS" and method not in branch.routes:
        return Answer(status=204, headers=[(b"allow", ", ".join(branch.allowed).encode("ascii"))])
    route = branch.route(method)
    request.route = route.name
    body = await request.read(route)
    answer: Awaitable[Answer] | Answer = route.endpoint(request.exchange(body), **parts)
    return await answer if isinstance(answer, Awaitable) else answer


def unknown(request: Request, failure: Failure) -> "Deferred[None]":
    """What werkzeug did not find."""
    return request.respond(request.told(NoSuchRoute("no such route; check the path")))
