"""The data port on doubles: registry and storage in memory, a clock that stands still, requests made by hand."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from psubd import endpoints
from psubd.access.gate import Gate
from psubd.errors import PsubdError
from psubd.interfaces import Route
from psubd.model import Answer, Binding, Message, TopicSpec
from psubd.services.publisher import Publisher
from psubd.services.registrar import Registrar
from psubd.services.subscriber import Subscriber
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.exchange import FakeExchange
from psubd.testing.registry import MemoryRegistry

MAX_MESSAGE_BYTES = 1_048_576
Headers = Iterable[tuple[bytes | str, bytes | str]]


class Reply(msgspec.Struct, frozen=True):
    """What a request got: an answer, or a refusal as the wire would write it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    answer: Answer | None = None

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def header(self, name: str) -> str | None:
        """The value of a header that is there once at most."""
        values = [value.decode() for found, value in self.headers if found == name.encode()]
        assert len(values) < 2, values
        return values[0] if values else None


def refused(error: PsubdError) -> Reply:
    """A refusal, as the wire would write it."""
    headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    return Reply(error.status, headers, msgspec.json.encode(error.document()))


class Keys(msgspec.Struct, frozen=True):
    """A tenant's keys, and the headers that show them."""

    id: str
    pubkey: str
    secret: str
    subkey: str

    @property
    def pub(self) -> list[tuple[bytes | str, bytes | str]]:
        return [("pubkey", self.pubkey), ("secret", self.secret)]

    @property
    def sub(self) -> list[tuple[bytes | str, bytes | str]]:
        return [("subkey", self.subkey)]


class DataCase(SynchronousTestCase):
    """Application ``shop`` owns topic ``orders`` (three partitions) and reads it from its start; ``other`` owns ``secrets`` and is bound to
    nothing else.

    :ivar mode: as `psubd.endpoints.routes` has it.
    """

    mode = "pubsub"

    def setUp(self) -> None:
        self.clock = FakeClock()
        self.registry = MemoryRegistry(self.clock)
        self.storage = MemoryStorage(self.clock)
        self.wait(self.registry.start())
        self.wait(self.storage.start())
        self.gate = Gate(self.registry, self.clock)
        self.gate.start()
        self.metrics = CollectorRegistry()
        self.registrar = Registrar(self.registry, self.storage, self.clock, MAX_MESSAGE_BYTES)
        self.publisher = Publisher(self.storage, self.clock, MAX_MESSAGE_BYTES, self.metrics)
        self.subscriber = Subscriber(self.storage, self.registry, self.gate, self.registry, self.clock, 500, self.metrics)
        self.subscriber.start()
        self.trouble: str | None = None
        self.routes = endpoints.routes(
            self.gate,
            self.publisher,
            self.subscriber,
            self.storage,
            self.clock,
            ready=lambda: self.trouble,
            mode=self.mode,
            max_message_bytes=MAX_MESSAGE_BYTES,
        )
        self.shop, self.other = self.application("shop"), self.application("other")
        self.topic("orders", "shop", partitions=3)
        self.topic("secrets", "other")
        self.bind("shop", "orders")
        self.bind("other", "secrets")

    def wait(self, deferred: "Deferred[Any]") -> Any:
        return self.successResultOf(deferred)

    # --- what is registered

    def application(self, id: str) -> Keys:
        return Keys(id, **self.wait(self.registrar.create_application(id, id.title(), "test"))[1])

    def topic(self, name: str, owner: str, **settings: Any) -> None:
        self.wait(self.registrar.create_topic(TopicSpec(name=name, **settings), owner, None, True, "test"))

    def bind(self, application: str, topic: str, **settings: Any) -> None:
        settings = {"pub": True, "sub": True, "start": "earliest", **settings}
        self.wait(self.registrar.put_binding(Binding(application=application, topic=topic, serial=0, **settings), "test", None))

    # --- requests

    def route(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route and the path's parts, as the wire finds them."""
        for route in self.routes:
            pattern = re.sub(r"{([a-z_]+)}", r"(?P<\1>[^/]+)", route.path)
            found = re.fullmatch(pattern, path)
            if found and route.method == method:
                return route, found.groupdict()
        raise AssertionError(f"no route {method} {path}")

    def begin(self, method: str, path: str, headers: Headers = (), body: bytes = b"", query: str = "") -> "Deferred[Answer]":
        """Send a request; its answer may come later."""
        route, parts = self.route(method, path)
        exchange = FakeExchange(method, path, query.encode(), headers, body)
        return maybeDeferred(route.endpoint, exchange, **parts)

    def ask(self, method: str, path: str, headers: Headers = (), body: bytes = b"", query: str = "", handed: int | None = None) -> Reply:
        """Send a request that is answered at once.

        :param handed: bytes of the body that the operating system gets; None: all of it.
        """
        begun = self.begin(method, path, headers, body, query)
        self.clock.advance(0)  # what was posted is told in the next turn
        return self.reply(begun, handed)

    def reply(self, deferred: "Deferred[Answer]", handed: int | None = None) -> Reply:
        """What an answered request got; the answer is settled as the wire would do it."""
        found: list[Any] = []
        deferred.addBoth(found.append)
        assert found, "not answered yet"
        (outcome,) = found
        if not isinstance(outcome, Answer):
            if not isinstance(outcome.value, PsubdError):
                outcome.raiseException()
            return refused(outcome.value)
        if outcome.settle is not None:
            outcome.settle(len(outcome.body) if handed is None else handed)
        return Reply(outcome.status, outcome.headers, outcome.body, outcome)

    def publish(self, *values: bytes | str, topic: str = "orders", key: str | None = "k", **more: str) -> list[int]:
        """Publish each value; the offsets."""
        headers: list[tuple[bytes | str, bytes | str]] = [*self.shop.pub, *more.items()]
        if key is not None:
            headers.append(("key", key))
        bodies = [value.encode() if isinstance(value, str) else value for value in values]
        replies = [self.ask("POST", f"/v1/pub/{topic}", headers, body) for body in bodies]
        self.assertEqual([reply.status for reply in replies], [200] * len(values))
        return [reply.json["offset"] for reply in replies]

    def refuses(self, reply: Reply, status: int, code: str) -> Reply:
        """Holds the reply against what was expected."""
        self.assertEqual((reply.status, reply.json.get("code")), (status, code), reply.body)
        return reply

    # --- what happened

    def stored(self, topic: str = "orders") -> list[Message]:
        """Everything that is in the topic, by partition and offset."""
        found: list[Message] = []
        for partition in sorted(self.wait(self.storage.bounds(topic))):
            found += self.wait(self.storage.read(topic, partition, 0, 100_000, 1 << 40)).messages
        return found

    def committed(self, group: str) -> dict[int, int]:
        """Where the group stands in ``orders`` by what is kept."""
        self.clock.advance(1000)
        return {place.partition: commit.offset for place, commit in self.wait(self.storage.committed(group)).items() if place.topic == "orders"}
