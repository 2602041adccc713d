"""Who may call: the one way into every route of the manager.

In this order, so that a stranger learns nothing: host and origin, credentials, role, what is accepted, then the request's own content.
"""

from collections.abc import Coroutine, Iterable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from psubd import accept, fields
from psubd.errors import BadBody, BadCredentials, Forbidden, NotAcceptable, NotSupported, PsubdError, UnsupportedMediaType
from psubd.interfaces import IExchange, IRegistrar, IRegistry, Route
from psubd.manager.authority import Doors
from psubd.manager.doc import JSON, Doc
from psubd.manager.sessions import COOKIE, Sessions
from psubd.manager.visit import Call, Caller, Visit
from psubd.model import Answer, Token

log = Logger()

MAX_BODY = 1_048_576
"""As much as one path of the registry may hold."""

CHALLENGE = 'Bearer realm="psubd manager"'
UNKNOWN = "no valid token: send Authorization: Bearer <token>, or sign in"


class Guard:
    """Wraps what a noun does on a route.

    :param hosts: names that the manager answers to, beside loopback.
    """

    def __init__(self, registrar: IRegistrar, registry: IRegistry, sessions: Sessions, hosts: Iterable[str]) -> None:
        self._registrar, self._registry, self._sessions = registrar, registry, sessions
        self._doors = Doors(hosts)

    def route(self, method: str, path: str, call: Call, name: str, doc: Doc, *, max_body: int = MAX_BODY, head: bool | None = None) -> Route:
        """The route, guarded. ``head``: whether HEAD answers as GET; where it is not said, every GET does."""

        async def visit(exchange: IExchange, parts: dict[str, str]) -> Answer:
            arrived = await self._admit(exchange, doc)
            work = call(arrived, **parts)
            return await (work if method == "GET" else shielded(work))

        def endpoint(exchange: IExchange, **parts: str) -> "Deferred[Answer]":
            return Deferred.fromCoroutine(visit(exchange, parts))

        return Route(
            method=method,
            path=path,
            endpoint=endpoint,
            name=name,
            max_body=max_body if doc.body is not None else 0,
            head=method == "GET" if head is None else head,
            doc=doc,
        )

    async def _admit(self, exchange: IExchange, doc: Doc) -> Visit:
        """The request, if it may be here and says only what the route knows."""
        self._doors.check(exchange)
        caller = await self._caller(exchange, doc) if doc.roles else None
        media = accepted(exchange, doc)
        refuse_conditions(exchange, doc)
        query = {name: values[0] for name, values in fields.query(exchange.raw_query, doc.query).items()}
        return Visit(exchange, caller, query, form(exchange, doc), media)

    async def _caller(self, exchange: IExchange, doc: Doc) -> Caller:
        """:raises BadCredentials: :raises Forbidden: the role does not allow it."""
        caller = self._identify(exchange)
        if doc.fresh or caller is None:
            # a token made, or ended, on another node a moment ago counts here
            await self._registry.sync()
            caller = self._identify(exchange)
        if caller is None:
            raise BadCredentials(UNKNOWN, CHALLENGE)
        if caller.role not in doc.roles:
            raise Forbidden(f"a token of role {caller.role!r} may not do this; it takes {' or '.join(doc.roles)}")
        return caller

    def _identify(self, exchange: IExchange) -> Caller | None:
        """Whose credential it is; None: nobody's. :raises BadCredentials: for none, or more than one."""
        shown = exchange.header(b"authorization")
        cookies = session_cookies(exchange)
        if (shown is not None) + len(cookies) != 1:
            raise BadCredentials(UNKNOWN if shown is None else "two credentials in one request; send one", CHALLENGE)
        if shown is not None:
            return self._bearer(shown, exchange.client)
        return self._visitor(cookies[0], exchange.client)

    def _bearer(self, shown: bytes, client: str) -> Caller | None:
        scheme, _, text = shown.decode("latin-1").partition(" ")
        token = self._registrar.token_of(text.strip()) if scheme.lower() == "bearer" else None
        if token is None:
            return None
        serial = token.serial
        return Caller(token.name, token.role, client, lambda: self._stands(token.name, serial))

    def _visitor(self, cookie: str, client: str) -> Caller | None:
        session = self._sessions.find(cookie)
        if session is None or not self._stands(session.name, session.serial):
            return None
        return Caller(session.name, session.role, client, lambda: self._sessions.stands(session) and self._stands(session.name, session.serial))

    def _stands(self, name: str, serial: int) -> bool:
        """Whether the registry still holds that very token: one made again under the same name has another serial."""
        entry = self._registry.snapshot().get(f"/tokens/{name}")
        return entry is not None and msgspec.json.decode(entry.data, type=Token).serial == serial

    async def token(self, shown: str) -> Token | None:
        """Whose token it is, by the newest state of the registry where this node does not know it yet."""
        token = self._registrar.token_of(shown)
        if token is None:
            await self._registry.sync()
            token = self._registrar.token_of(shown)
        return token


def shielded(work: Coroutine[Any, Any, Answer]) -> "Deferred[Answer]":
    """The work's answer, for whoever waits; to cancel it ends the waiting only.

    A client that goes away in the middle of a write must not leave half of it: a topic in the storage that nobody registered.
    """
    answered: Deferred[Answer] = Deferred(lambda _: None)

    def failed(reason: Failure) -> None:
        if not answered.called:
            answered.errback(reason)
        elif reason.check(PsubdError) is None:
            log.failure("a write whose client had gone away failed", failure=reason)

    Deferred.fromCoroutine(work).addCallbacks(lambda made: None if answered.called else answered.callback(made), failed)
    return answered


def session_cookies(exchange: IExchange) -> list[str]:
    """The session cookies that were sent; other cookies of the host are none of ours."""
    pairs = (pair.strip().partition(b"=") for name, value in exchange.headers if name == b"cookie" for pair in value.split(b";"))
    return [value.decode("latin-1") for name, _, value in pairs if name == COOKIE.encode()]


def accepted(exchange: IExchange, doc: Doc) -> str:
    """The content type to answer with. :raises NotAcceptable: the client takes none that the route has."""
    if not doc.media:
        return ""
    media = accept.best(exchange.headers, doc.media)
    if media is None:
        raise NotAcceptable(f"this route answers {' or '.join(doc.media)}")
    return media


def refuse_conditions(exchange: IExchange, doc: Doc) -> None:
    """A write with a condition that the route does not judge is refused: to ignore it would overwrite what the client wanted to keep.

    :raises NotSupported:
    """
    if exchange.method in ("GET", "HEAD"):
        return
    for name, known in ((b"if-match", doc.conditional), (b"if-none-match", False)):
        if not known and exchange.header(name) is not None:
            raise NotSupported(f"{name.decode()} is not judged on this route; send the request without it")


def form(exchange: IExchange, doc: Doc) -> Any:
    """The body in the route's shape. :raises BadBody: :raises UnsupportedMediaType: it is not said to be JSON."""
    if doc.body is None:
        return None
    if not exchange.body:
        raise BadBody("the body is empty; send a JSON object")
    kind = (exchange.header(b"content-type") or b"").decode("latin-1").partition(";")[0].strip().lower()
    if kind != JSON:
        raise UnsupportedMediaType(f"the body must be {JSON}")
    return fields.json_body(exchange.body, doc.body)
