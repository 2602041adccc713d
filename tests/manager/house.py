"""A manager on doubles: registry and storage in memory, a clock that stands still, requests made by hand."""

import re
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from psubd import manager
from psubd.access.gate import Gate
from psubd.errors import NoSuchRoute, PsubdError
from psubd.interfaces import IMembership, IPeers, ISeats, Route
from psubd.manager.doc import JSON
from psubd.manager.openapi import document, refusals
from psubd.model import Answer, Redriven
from psubd.registry.alone import Alone
from psubd.services.registrar import Registrar
from psubd.services.subscriber import Subscriber
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.exchange import FakeExchange
from psubd.testing.registry import MemoryRegistry


class Reply(msgspec.Struct, frozen=True):
    """What a request got: an answer, or a refusal as the wire would write it."""

    status: int
    headers: dict[str, str]
    body: bytes
    answer: Answer | None = None

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """The refusal's code word."""
        return str(self.json["code"])


class Outlet:
    """An `IOutlet` that keeps what was written."""

    def __init__(self) -> None:
        self.buffered = 0
        self.written = b""
        self.finished = False
        self.lost: Any = None

    def write(self, data: bytes) -> None:
        self.written += data

    def finish(self) -> None:
        self.finished = True

    def on_lost(self, lost: Any) -> None:
        self.lost = lost

    def events(self) -> list[dict[str, str]]:
        """The events that were sent, each as its fields; comments and the retry hint are left out."""
        blocks = [block for block in self.written.decode().split("\n\n") if block]
        fields = [dict(line.split(": ", 1) for line in block.split("\n") if ": " in line) for block in blocks]
        return [event for event in fields if "event" in event]


class ScriptedRedriver:
    """Keeps what was asked for, and answers what the test says.

    :ivar asked: group, topic, limit, actor. :ivar outcome: a `Redriven`, or what it fails with.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int, str]] = []
        self.outcome: Redriven | PsubdError = Redriven(0)

    def redrive(self, group: str, topic: str, limit: int, actor: str) -> "Deferred[Redriven]":
        self.asked.append((group, topic, limit, actor))
        return fail(self.outcome) if isinstance(self.outcome, PsubdError) else succeed(self.outcome)


class ManagerCase(SynchronousTestCase):
    """:ivar admin: a token of role admin, in the clear. :ivar viewer: of role viewer. :ivar scraper: of role metrics."""

    hosts: tuple[str, ...] = ("psubd.example",)

    def setUp(self) -> None:
        self.clock = FakeClock()
        self.registry = MemoryRegistry(self.clock)
        self.storage = MemoryStorage(self.clock)
        self.wait(self.registry.start())
        self.wait(self.storage.start())
        self.gate = Gate(self.registry, self.clock)
        self.gate.start()
        self.registrar = Registrar(self.registry, self.storage, self.clock, 1_048_576)
        self.metrics = CollectorRegistry()
        self.subscriber = Subscriber(self.storage, self.registry, self.gate, self.registry, self.clock, 500, self.metrics)
        started = self.subscriber.start()
        if isinstance(started, Deferred):
            self.wait(started)
        self.trouble: str | None = None
        self.membership: IMembership = Alone(self.registry, self.clock)
        self.seats: ISeats = self.subscriber
        self.peers: IPeers | None = None
        self.prepare()
        self.redriver: Any = ScriptedRedriver()
        self.routes: list[Route] = manager.routes(
            registrar=self.registrar,
            registry=self.registry,
            gate=self.gate,
            storage=self.storage,
            subscriber=self.subscriber,
            redriver=self.redriver,
            nodes=self.registry,
            clock=self.clock,
            metrics=self.metrics,
            hosts=self.hosts,
            config_view={"listen": ["tcp:9090"]},
            membership=self.membership,
            seats=self.seats,
            peers=self.peers,
            trouble=lambda: self.trouble or self.storage.trouble() or self.registry.trouble(),
        )
        self.admin = self.token("root", "admin")
        self.viewer = self.token("watcher", "viewer")
        self.scraper = self.token("scraper", "metrics")

    def prepare(self) -> None:
        """What a case has in place of a part."""

    def wait(self, deferred: Any) -> Any:
        return self.successResultOf(deferred)

    def token(self, name: str, role: str) -> str:
        """A token, made beneath the API."""
        return str(self.wait(self.registrar.create_token(name, role, "test"))[1])

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route and the path's parts, as the wire finds them. :raises NoSuchRoute:"""
        for route in self.routes:
            pattern = re.sub(r"{([a-z_]+)}", r"(?P<\1>[^/]+)", route.path)
            found = re.fullmatch(pattern, path)
            if found and route.method == method:
                return route, found.groupdict()
        raise NoSuchRoute(f"{method} {path}")

    def begin(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "",
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        query: str = "",
        client: str = "10.0.0.7",
        raw: bytes | None = None,
        secure: bool = False,
    ) -> tuple[Route, "Deferred[Answer]"]:
        """A request, begun. ``token`` empty: the admin's; None: none. ``raw``: the body's bytes, without a content type."""
        sent = list(headers.items() if isinstance(headers, dict) else headers or [])
        names = {name.lower() for name, _ in sent}
        if "host" not in names:
            sent.append(("host", "127.0.0.1:9091"))
        if token is not None and "authorization" not in names:
            sent.append(("authorization", f"Bearer {token or self.admin}"))
        if body is not None:
            sent.append(("content-type", JSON))
        data = raw if raw is not None else b"" if body is None else msgspec.json.encode(body)
        route, parts = self.find(method, path)
        exchange = FakeExchange(method=method, path=path, query=query.encode(), headers=sent, body=data, client=client, secure=secure)
        made = route.endpoint(exchange, **parts)
        assert isinstance(made, Deferred)
        return route, made

    def call(self, method: str, path: str, body: Any = None, **how: Any) -> Reply:
        """A request and its reply. Fails where the reply is not as the route's description says."""
        route, made = self.begin(method, path, body, **how)
        kept: list[Any] = []
        made.addBoth(kept.append)
        if not kept:
            self.fail(f"{method} {path} does not answer")
        result = kept[0]
        if isinstance(result, Answer):
            return self.good(route, result)
        error = result.value
        if not isinstance(error, PsubdError):
            result.raiseException()
        self.assertTrue(
            any(isinstance(error, refusal) and error.status == refusal.status for refusal in refusals(route)),
            f"{route.name} does not document {type(error).__name__} ({error})",
        )
        return Reply(error.status, dict(error.headers), msgspec.json.encode(error.document()))

    def good(self, route: Route, answer: Answer) -> Reply:
        """A good answer, held against its description."""
        headers = {name.decode(): value.decode() for name, value in answer.headers}
        described = route.doc.answers.get(answer.status)
        self.assertIsNotNone(described, f"{route.name} does not document {answer.status}")
        for name in described.headers:
            if name != "location":
                self.assertIn(name, headers, route.name)
        media = headers.get("content-type", "").split(";")[0]
        self.assertEqual(media in described.media, bool(described.media), f"{route.name}: {media}")
        if media == JSON and described.shape is not None:
            known = msgspec.json.encode(msgspec.json.decode(answer.body, type=described.shape))
            self.assertEqual(msgspec.json.decode(known), msgspec.json.decode(answer.body), f"{route.name}: more than its shape")
        return Reply(answer.status, headers, answer.body, answer)

    def ok(self, method: str, path: str, body: Any = None, status: int = 200, **how: Any) -> Reply:
        """A request that must be answered so."""
        reply = self.call(method, path, body, **how)
        self.assertEqual(reply.status, status, reply.body)
        return reply

    def refused(self, status: int, code: str, method: str, path: str, body: Any = None, **how: Any) -> Reply:
        """A request that must be refused so, and change nothing in registry or storage."""
        before = self.state()
        reply = self.call(method, path, body, **how)
        self.assertEqual((reply.status, reply.code), (status, code), reply.body) if reply.status >= 400 else self.fail(
            f"{reply.status} {reply.body!r}"
        )
        self.assertEqual(self.state(), before)
        return reply

    def state(self) -> Any:
        """Everything that a request could change."""
        snapshot = self.registry.snapshot()
        kinds = ("applications", "topics", "bindings", "tokens", "groups")
        tree = {f"/{kind}/{name}": snapshot.get(f"/{kind}/{name}") for kind in kinds for name in snapshot.children(f"/{kind}")}
        names = snapshot.children("/topics")
        places = {name: self.wait(self.storage.committed(name)) for name in snapshot.children("/groups")}
        return snapshot.serial, tree, self.wait(self.storage.describe(names)), places

    def stream(self, **how: Any) -> Outlet:
        """An event stream, open."""
        reply = self.ok("GET", "/api/v1/events", **how)
        outlet = Outlet()
        assert reply.answer is not None
        assert reply.answer.stream is not None
        reply.answer.stream(outlet)
        return outlet

    def application(self, id: str = "shop") -> Any:
        return self.ok("POST", "/api/v1/applications", {"id": id, "name": id.title()}, 201).json

    def topic(self, id: str = "orders", owner: str = "shop", **settings: Any) -> Any:
        return self.ok("POST", "/api/v1/topics", {"id": id, "owner": owner, **settings}, 201).json

    def bind(self, application: str, topic: str = "orders", status: int = 201, **settings: Any) -> Any:
        return self.ok("PUT", f"/api/v1/bindings/{application}/{topic}", settings, status).json

    def openapi(self) -> dict[str, Any]:
        return document(self.routes, "1")
