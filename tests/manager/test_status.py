from prometheus_client import Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from psubd import __version__
from psubd.errors import RegistryUnavailable
from psubd.testing.membership import MemoryMembership
from tests.manager.house import ManagerCase


class StatusTests(ManagerCase):
    def test_status(self) -> None:
        """The state in one look: version, uptime, storage, registry, settings."""
        self.clock.advance(5000)
        status = self.ok("GET", "/api/v1/status").json
        self.assertEqual((status["version"], status["node"], status["uptime_ms"]), (__version__, "memory", 5000))
        self.assertEqual((status["ready"], status["trouble"]), (True, None))
        self.assertEqual(status["storage"]["trouble"], None)
        self.assertEqual(status["storage"]["status"]["kind"], "memory")
        self.assertEqual(status["registry"], {"trouble": None, "serial": self.registry.snapshot().serial})
        self.assertEqual(status["config"], {"listen": ["tcp:9090"]})
        self.assertEqual(status["groups"], {"slots": 1, "served": 1, "loaded": 0, "lease_ms": None, "linked": []})

    def test_trouble(self) -> None:
        """What is wrong is told to who has a token; the open probe says only that something is."""
        for trouble in ("storage", "registry", "ready"):
            self.storage.trouble = lambda: None  # type: ignore[method-assign]
            self.registry.refuse = self.trouble = None
            if trouble == "storage":
                self.storage.trouble = lambda: "the disk burns"  # type: ignore[method-assign]
            elif trouble == "registry":
                self.registry.refuse = RegistryUnavailable("the disk burns")
            else:
                self.trouble = "the disk burns"
            status = self.ok("GET", "/api/v1/status").json
            self.assertEqual((status["ready"], status["trouble"]), (False, "the disk burns"))
            reply = self.refused(503, "storage_unavailable", "GET", "/ready", token=None)
            self.assertNotIn("burns", reply.json["detail"])
            self.ok("GET", "/alive", token=None)

    def test_nodes(self) -> None:
        """The nodes: alone, one, which is this one."""
        self.wait(self.membership.declare(True, 0))
        listed = self.ok("GET", "/api/v1/nodes").json
        found = [(node["id"], node["self"], node["eligible"], node["load"], node["address"]) for node in listed["items"]]
        self.assertEqual(found, [("memory", True, True, 0, None)])
        self.assertIsNone(listed["next"])


class Seated:
    """Two slots, under the epochs of this node's claims on them, and five groups."""

    def __init__(self, seated: dict[int, int]) -> None:
        self._seated = seated

    def seated(self) -> dict[int, int]:
        return self._seated

    def loaded(self) -> int:
        return 5


class Linked:
    def __init__(self, member: str) -> None:
        self._member = member

    def linked(self, member: str) -> bool:
        return member == self._member


class ManyNodesTests(ManagerCase):
    """The first of three nodes, which is linked with one of the others."""

    def prepare(self) -> None:
        self.own = MemoryMembership(self.clock, id="a", address="10.0.0.1:9092", slots=4)
        second, _ = (MemoryMembership(self.clock, self.own, id=name) for name in ("b", "c"))
        self.wait(second.declare(False, 7))
        self.membership, self.peers = self.own, Linked(second.key)  # type: ignore[assignment]
        self.seats = Seated({slot: self.wait(self.own.claim(slot)) for slot in (1, 3)})  # type: ignore[assignment]

    def test_nodes(self) -> None:
        """All that are there, as they say of themselves; of this one what it is now."""
        listed = self.ok("GET", "/api/v1/nodes").json["items"]
        found = [(node["id"], node["address"], node["eligible"], node["load"], node["self"]) for node in listed]
        self.assertEqual(found, [("a", "10.0.0.1:9092", True, 5, True), ("b", None, False, 7, False), ("c", None, True, 0, False)])

    def test_serving(self) -> None:
        """What this node serves at this moment: once its lease has ended, nothing."""
        groups = self.ok("GET", "/api/v1/status").json["groups"]
        self.assertEqual(groups, {"slots": 4, "served": 2, "loaded": 5, "lease_ms": 9000, "linked": ["b"]})
        self.own.end_lease()
        groups = self.ok("GET", "/api/v1/status").json["groups"]
        self.assertEqual((groups["served"], groups["lease_ms"], groups["loaded"]), (0, 0, 5))


class MetricsTests(ManagerCase):
    def setUp(self) -> None:
        super().setUp()
        Counter("psubd_seen", "Things seen.", registry=self.metrics).inc(3)

    def test_plain(self) -> None:
        """Text for Prometheus, where nothing else is asked for."""
        for headers in ({}, {"accept": "*/*"}, {"accept": "text/plain"}):
            reply = self.ok("GET", "/metrics", token=self.scraper, headers=headers)
            self.assertTrue(reply.headers["content-type"].startswith("text/plain; version=0.0.4"), reply.headers)
            self.assertIn("psubd_seen", {family.name for family in plain(reply.body.decode())})

    def test_openmetrics(self) -> None:
        """OpenMetrics, where that is what the scraper likes most."""
        accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
        reply = self.ok("GET", "/metrics", token=self.scraper, headers={"accept": accept})
        self.assertTrue(reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0"), reply.headers)
        self.assertIn("psubd_seen", {family.name for family in openmetrics(reply.body.decode())})
        self.refused(406, "not_acceptable", "GET", "/metrics", headers={"accept": "application/json"})
