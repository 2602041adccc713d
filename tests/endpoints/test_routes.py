"""The table of routes: modes, HEAD, limits, probes."""

from psubd import endpoints
from psubd.errors import BadCredentials, BadParameter
from psubd.interfaces import Route
from psubd.testing.exchange import FakeExchange
from tests.endpoints.house import MAX_MESSAGE_BYTES, DataCase

PUB = {"POST /v1/pub", "POST /v1/pub/{topic}", "POST /v1/pub/{topic}/batch"}
SUB = {"GET /v1/sub", "POST /v1/sub", "POST /v1/ack", "POST /v1/nack", "POST /v1/extend"}
TENANT = {
    "GET /v1/whoami",
    "GET /v1/topics",
    "GET /v1/topics/{topic}",
    "GET /v1/groups",
    "GET /v1/groups/{group}",
    "DELETE /v1/groups/{group}",
    "PUT /v1/groups/{group}/offsets",
}
PROBES = {"GET /alive", "GET /ready"}


class TableTests(DataCase):
    def table(self, mode: str = "pubsub") -> dict[str, Route]:
        routes = endpoints.routes(self.gate, self.publisher, self.subscriber, self.storage, self.clock, mode=mode)
        return {f"{route.method} {route.path}": route for route in routes}

    def test_modes(self) -> None:
        """``pub`` leaves out what reads, ``sub`` what publishes; a tenant's own routes and the probes are always there."""
        self.assertEqual(set(self.table()), PUB | SUB | TENANT | PROBES)
        self.assertEqual(set(self.table("pub")), PUB | TENANT | PROBES)
        self.assertEqual(set(self.table("sub")), SUB | TENANT | PROBES)

    def test_names(self) -> None:
        """Each route has a name of its own."""
        names = [route.name for route in self.table().values()]
        self.assertEqual(len(set(names)), len(names))

    def test_head(self) -> None:
        """HEAD is there where GET changes nothing, and never on a read that takes messages."""
        heads = {key for key, route in self.table().items() if route.head}
        self.assertEqual(heads, {key for key in TENANT | PROBES if key.startswith("GET")})

    def test_bodies(self) -> None:
        """A publish needs a length and may be gzipped, up to the limit of a value; a batch up to 16 MiB; elsewhere there is no gzip."""
        for key, route in self.table().items():
            self.assertEqual((route.needs_length, route.gzip), (key in PUB, key in PUB), key)
        self.assertEqual([route.max_body for key, route in self.table().items() if key in PUB], [MAX_MESSAGE_BYTES] * 2 + [16 * 1024 * 1024])
        self.assertEqual({route.max_body for route in self.table().values() if route.method in ("GET", "DELETE")}, {0})

    def test_admission(self) -> None:
        """Every route that takes a body takes it from its own callers only: strangers, and the other kind of key, are told before it comes."""
        for key, route in self.table().items():
            if not route.max_body:
                self.assertIsNone(route.admit, key)
                continue
            assert route.admit is not None, key
            right, wrong = (self.shop.pub, self.shop.sub) if key in PUB else (self.shop.sub, self.shop.pub)
            self.assertEqual(route.admit(FakeExchange(route.method, "/", b"", right)).application.id, "shop")
            for shown in (wrong, []):
                self.assertRaises(BadCredentials, route.admit, FakeExchange(route.method, "/", b"", shown))
            self.assertRaises(BadParameter, route.admit, FakeExchange(route.method, "/", b"secret=x", right))


class ProbeTests(DataCase):
    def test_alive(self) -> None:
        """The status only, without credentials, also when the node is not ready."""
        self.trouble = "the disk of /srv/secret is full"
        reply = self.ask("GET", "/alive")
        self.assertEqual((reply.status, reply.body), (200, b""))

    def test_ready(self) -> None:
        """200 or 503; why is not for strangers."""
        self.assertEqual(self.ask("GET", "/ready").status, 200)
        self.trouble = "the disk of /srv/secret is full"
        reply = self.refuses(self.ask("GET", "/ready"), 503, "storage_unavailable")
        self.assertNotIn("/srv", reply.body.decode())

    def test_ready_by_the_storage(self) -> None:
        """Without a word from above, the storage's trouble is the node's."""
        self.routes = endpoints.routes(self.gate, self.publisher, self.subscriber, self.storage, self.clock)
        self.assertEqual(self.ask("GET", "/ready").status, 200)
        self.wait(self.storage.stop())
        self.refuses(self.ask("GET", "/ready"), 503, "storage_unavailable")
