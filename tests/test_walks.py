"""The three walks through the house, on doubles of storage and registry: bytes in at one end, bytes out at the other (docs/architecture.md)."""

from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from psubd import endpoints, manager
from psubd.access.gate import Gate
from psubd.model import Message
from psubd.registry.alone import Alone
from psubd.services.publisher import Publisher
from psubd.services.redrive import Redriver
from psubd.services.registrar import Registrar
from psubd.services.subscriber import Subscriber
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.registry import MemoryRegistry
from psubd.wire.limits import WireSettings
from psubd.wire.site import Site
from tests.wire.peer import Peer, Response, get, post

TOKEN = "pt_" + "t" * 43


class WalkCase(SynchronousTestCase):
    """Both ports over one house, as `psubd.compose` puts it together; application ``shop`` owns topic ``orders``."""

    def setUp(self) -> None:
        self.clock, metrics = FakeClock(), CollectorRegistry()
        self.registry, self.storage = MemoryRegistry(self.clock), MemoryStorage(self.clock)
        self.successResultOf(self.registry.start())
        self.successResultOf(self.storage.start())
        gate = Gate(self.registry, self.clock)
        gate.start()
        registrar = Registrar(self.registry, self.storage, self.clock, 1_048_576)
        publisher = Publisher(self.storage, self.clock, 1_048_576, metrics)
        self.subscriber = Subscriber(self.storage, self.registry, gate, self.registry, self.clock, 500, metrics)
        self.successResultOf(self.subscriber.start())
        self.successResultOf(registrar.ensure_admin(TOKEN))
        data = endpoints.routes(gate, publisher, self.subscriber, self.storage, self.clock)
        desk = manager.routes(
            registrar=registrar,
            registry=self.registry,
            gate=gate,
            storage=self.storage,
            subscriber=self.subscriber,
            redriver=Redriver(self.storage, self.registry, gate, publisher, self.clock, metrics),
            nodes=self.registry,
            membership=Alone(self.registry, self.clock),
            seats=self.subscriber,
            clock=self.clock,
            metrics=metrics,
            hosts=("psubd.test",),
        )
        self.data = Site(data, self.clock, port="data", settings=WireSettings(), metrics=metrics)
        self.desk = Site(desk, self.clock, port="manager", settings=WireSettings(), metrics=metrics)
        self.keys = self.manage("POST", "/api/v1/applications", {"id": "shop", "name": "Shop"})
        self.manage("POST", "/api/v1/topics", {"id": "orders", "owner": "shop"})

    def manage(self, method: str, path: str, body: Any) -> dict[str, Any]:
        """A write on the manager port, which must be taken."""
        request = post(msgspec.json.encode(body), path, f"Authorization: Bearer {TOKEN}", "Content-Type: application/json", method=method)
        response = Peer(self.desk).send(request).response()
        self.assertIn(response.status, (200, 201), response.body)
        return dict(msgspec.json.decode(response.body))

    def bind(self, **settings: Any) -> None:
        self.manage("PUT", "/api/v1/bindings/shop/orders", settings)

    def publish(self, body: bytes) -> Response:
        credentials = (f"pubkey: {self.keys['pubkey']}", f"secret: {self.keys['secret']}")
        peer = Peer(self.data).send(post(body, "/v1/pub/orders", *credentials))
        self.clock.advance(0)  # the storage answers what was posted in its next turn
        return peer.response()

    def ask(self, query: str = "timeout=1000") -> Peer:
        """A poll of the application's group, on a connection of its own."""
        return Peer(self.data).send(get(f"/v1/sub?{query}", f"subkey: {self.keys['subkey']}"))

    def stored(self) -> tuple[Message, ...]:
        return self.successResultOf(self.storage.read("orders", 0, 0, 100, 1 << 20)).messages


class Walks(WalkCase):
    def test_publish(self) -> None:
        """Publish: what is answered 200 stands in the storage, at the place that the answer names."""
        self.assertEqual(self.publish(b"one").status, 200)
        response = self.publish(b"two")
        answer = msgspec.json.decode(response.body)
        self.assertEqual((response.status, answer["topic"], answer["partition"], answer["offset"]), (200, "orders", 0, 1))
        self.assertEqual([message.value for message in self.stored()], [b"one", b"two"])

    def test_subscribe(self) -> None:
        """Subscribe: a poll waits, gets the message, and once the answer was taken the group's place is past it; broken, it is not."""
        self.bind(pub=True, sub=True)
        broken = self.ask()
        broken.transport.taking = False
        self.publish(b"one")
        self.assertIn(b"one", broken.raw)
        broken.lose()
        whole = self.ask().response()
        (message,) = msgspec.json.decode(whole.body)["messages"]
        self.assertEqual((message["value"], message["offset"], message["attempt"]), ("one", 0, 1))
        self.clock.advance(500)
        (place,) = self.successResultOf(self.storage.committed("shop")).values()
        self.assertEqual(place.offset, 1)

    def test_bind(self) -> None:
        """Bind: a binding that is registered is what the next request sees; one that is revoked ends the poll that waits on it."""
        refused = self.ask().response()
        self.assertEqual((refused.status, refused.problem["code"]), (403, "topic_not_bound"))
        self.bind(pub=True, sub=True)
        waiting = self.ask("topic=orders")
        self.assertEqual(waiting.responses(), [])
        self.bind(pub=True, sub=False)
        ended = waiting.response()
        self.assertEqual((ended.status, ended.problem["code"]), (403, "topic_not_bound"))
