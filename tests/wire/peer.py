"""A client's end of an in-memory connection to a `Site`, and endpoints that remember what they were called with."""

from typing import Any, NamedTuple

import msgspec
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from psubd.interfaces import IExchange, Route
from psubd.model import Answer
from psubd.testing.clock import FakeClock
from psubd.wire.limits import WireSettings
from psubd.wire.site import Site


class Response(NamedTuple):
    status: int
    headers: dict[str, list[str]]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == ["application/problem+json"], self.headers
        return msgspec.json.decode(self.body)

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == ["close"]


@implementer(ITCPTransport)
class Wireline(StringTransport):
    """:ivar taking: whether the operating system takes what is written, at once."""

    taking = True
    half_closed = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def getTcpKeepAlive(self) -> bool:
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass


class Peer:
    """A client. What is sent reaches the server at once; answers are taken at once unless `taking` is off."""

    def __init__(self, site: Site, transport: Wireline | None = None) -> None:
        self.transport = transport or Wireline()
        self.channel = site.buildProtocol(None)
        self.channel.makeConnection(self.transport)
        self.read = 0

    def send(self, data: bytes, piece: int | None = None) -> "Peer":
        """Send ``data``, in pieces of ``piece`` bytes."""
        for start in range(0, len(data), piece or max(1, len(data))):
            self.channel.dataReceived(data[start : start + (piece or len(data))])
            self.take()
        return self

    def take(self) -> None:
        """The operating system takes all there is."""
        while self.transport.taking and self.transport.producer is not None and self.channel.pump.busy:
            self.transport.producer.resumeProducing()

    def take_once(self) -> None:
        """The operating system takes what was written so far."""
        self.transport.producer.resumeProducing()

    def lose(self) -> None:
        """The connection goes away."""
        producer = self.transport.producer
        if producer is not None:
            producer.stopProducing()
        self.channel.connectionLost(Failure(ConnectionLost()))

    @property
    def raw(self) -> bytes:
        return self.transport.value()

    @property
    def closed(self) -> bool:
        """Whether the server closes or has closed its side, wholly or for writing."""
        return self.transport.disconnecting or self.transport.half_closed

    def responses(self, method: str = "GET") -> list[Response]:
        """The whole answers that came since the last call; 100 Continue is one with no body."""
        self.take()
        found = []
        while (end := self.raw.find(b"\r\n\r\n", self.read)) >= 0:
            response, after = parse(self.raw, self.read, end, method)
            if response is None:
                break
            found.append(response)
            self.read = after
        return found

    def response(self, method: str = "GET") -> Response:
        """The one answer that came since the last call."""
        found = self.responses(method)
        assert len(found) == 1, (found, self.raw[self.read :])
        return found[0]


def parse(raw: bytes, start: int, end: int, method: str) -> tuple[Response | None, int]:
    """One answer out of ``raw``, and where the next begins."""
    first, *lines = raw[start:end].split(b"\r\n")
    assert first.startswith(b"HTTP/1.1 "), first
    status = int(first.split(b" ")[1])
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.decode("latin-1").partition(": ")
        headers.setdefault(name.lower(), []).append(value)
    after = end + 4
    if status in (100, 204, 304) or method == "HEAD":
        return Response(status, headers, b""), after
    if headers.get("transfer-encoding") == ["chunked"]:
        return unchunk(raw, after, status, headers)
    size = int(headers["content-length"][0])
    if len(raw) < after + size:
        return None, start
    return Response(status, headers, raw[after : after + size]), after + size


def unchunk(raw: bytes, after: int, status: int, headers: dict[str, list[str]]) -> tuple[Response | None, int]:
    body = b""
    while (end := raw.find(b"\r\n", after)) >= 0:
        size = int(raw[after:end], 16)
        body += raw[end + 2 : end + 2 + size]
        after = end + 2 + size + 2
        if size == 0:
            return Response(status, headers, body), after
    return None, after


class Endpoint:
    """Remembers what it was called with; answers ``answer``, or raises it where it is an exception."""

    def __init__(self, answer: Any = None) -> None:
        self.calls: list[tuple[IExchange, dict[str, str]]] = []
        self.answer = Answer(body=b"ok", headers=[(b"content-type", b"text/plain")]) if answer is None else answer

    def __call__(self, exchange: IExchange, **parts: str) -> Any:
        self.calls.append((exchange, parts))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    @property
    def exchange(self) -> IExchange:
        assert len(self.calls) == 1, self.calls
        return self.calls[0][0]


class Waiting(Endpoint):
    """Waits with each answer. :ivar waits: the Deferreds, in order. :ivar cancelled: how many of them the wire cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Deferred[Answer]] = []
        self.cancelled = 0

    def __call__(self, exchange: IExchange, **parts: str) -> Any:
        super().__call__(exchange, **parts)
        wait: Deferred[Answer] = Deferred(self.cancel)
        self.waits.append(wait)
        return wait

    def cancel(self, _: Deferred[Answer]) -> None:
        self.cancelled += 1


def get(path: str = "/get", *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A request without a body."""
    lines = [f"{method} {path} HTTP/{version}", "Host: psubd.test", *headers]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def post(body: bytes, path: str = "/post", *headers: str, method: str = "POST") -> bytes:
    """A request with a body of a known length."""
    return get(path, f"Content-Length: {len(body)}", *headers, method=method) + body


def chunked(body: bytes, path: str = "/post", *headers: str, piece: int = 1000) -> bytes:
    """A request with a chunked body."""
    head = get(path, "Transfer-Encoding: chunked", *headers, method="POST")
    chunks = [body[start : start + piece] for start in range(0, len(body), piece)]
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


class WireCase(SynchronousTestCase):
    """A port with ``/get`` (GET, no body), ``/post`` (POST, at most 1000 bytes) and what a test adds.

    :cvar hot: whether all routes are hot, so that the short way serves them.
    """

    hot = False

    def setUp(self) -> None:
        self.clock = FakeClock()
        self.metrics = CollectorRegistry()
        self.endpoint = Endpoint()
        self.site = self.serve()

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/get", self.endpoint, "get"),
            Route("POST", "/post", self.endpoint, "post", max_body=1000),
        ]

    def serve(self, *routes: Route, **settings: int) -> Site:
        """A port with those routes instead of the usual ones."""
        table = [msgspec.structs.replace(route, hot=self.hot) for route in routes or self.routes()]
        return Site(table, self.clock, port="data", settings=WireSettings(**settings), metrics=self.metrics)

    def peer(self) -> Peer:
        return Peer(self.site)

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.get_sample_value(name, {"port": "data", **labels}) or 0

    def refused(self, peer: Peer, status: int, code: str, closes: bool = True) -> Response:
        """The one answer, which must be that refusal; nothing was called."""
        response = peer.response()
        self.assertEqual((response.status, response.problem["code"], response.problem["status"]), (status, code, status))
        self.assertEqual(response.headers["cache-control"], ["no-store"])
        self.assertEqual(response.headers["x-content-type-options"], ["nosniff"])
        self.assertEqual(len(response.headers["x-request-id"]), 1)
        self.assertEqual((response.closes, peer.closed), (closes, closes))
        self.assertEqual(self.endpoint.calls, [])
        return response
