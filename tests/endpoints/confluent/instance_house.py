"""The routes of consumer instances on the double, which reads the house's storage."""

import json
from typing import Any

from psubd.endpoints.confluent.consumers import instance_routes
from psubd.endpoints.credentials import Callers
from psubd.errors import PsubdError
from psubd.model import Grant, Record
from psubd.testing.consumers import MemoryConsumers
from tests.endpoints.house import DataCase, Reply

V2 = "application/vnd.kafka.v2+json"
V1 = "application/vnd.kafka.v1+json"
ONE = "/consumers/g/instances/a"


class InstanceCase(DataCase):
    """``shop`` reads ``orders``, three partitions, with instances of group ``g``."""

    def setUp(self) -> None:
        super().setUp()
        self.consumers = MemoryConsumers(self.storage, self.gate, self.clock)
        admit = Callers(self.gate).subscriber
        self.routes = instance_routes(admit, self.consumers, lambda exchange: "http://proxy", timeout_ms=1_000, max_bytes=64 << 20)

    def call(self, method: str, path: str, body: Any = None, type: str | None = V2, accept: str | None = None, query: str = "", **more: Any) -> Reply:
        """A request of the shop's, at once. :param body: JSON, or bytes as they are."""
        headers: list[tuple[bytes | str, bytes | str]] = [*self.shop.sub]
        headers += [("content-type", type)] if type is not None else []
        headers += [("accept", accept)] if accept is not None else []
        sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self.ask(method, path, headers, sent, query, **more)

    def made(self, id: str = "a", *topics: str, type: str = V2, **settings: Any) -> None:
        """A new instance, subscribed to the topics if any are named."""
        members = {"auto.offset.reset": "earliest", "name": id, **{name.replace("_", "."): value for name, value in settings.items()}}
        self.assertEqual(self.call("POST", "/consumers/g", members, type).status, 200)
        if topics:
            self.assertEqual(self.call("POST", f"/consumers/g/instances/{id}/subscription", {"topics": topics}).status, 204)

    def shown(self) -> Grant:
        """The shop's, to subscribe."""
        grant = self.gate.grant_of("shop")
        assert grant is not None
        return grant

    def records(self, query: str = "timeout=0", accept: str | None = None, **more: Any) -> Any:
        """What a read gives at once."""
        reply = self.call("GET", f"{ONE}/records", None, None, accept, query, **more)
        self.assertEqual(reply.status, 200, reply.body)
        return reply.json

    def stores(self, *values: bytes | None, partition: int = 0, key: bytes | None = None, headers: Any = ()) -> None:
        """These are in ``orders``."""
        records = [Record("orders", value, key, headers, partition, self.clock.epoch_ms()) for value in values]
        self.wait(self.storage.publish(records, "all"))

    def fails(self, error: type[PsubdError], reply: Reply) -> None:
        """The refusal is of that class, by its status and title."""
        self.assertEqual((reply.status, reply.json["title"]), (error.status, error.title), reply.body)
