"""The parts, put together."""

import re
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from psubd import compose
from psubd.config import Config, PeerTls
from psubd.errors import ConfigError
from psubd.folder import StateFolder
from psubd.interfaces import IMembership, INodes, IRedriver, IRegistry, IStorage, ISubscriber
from psubd.registry.alone import Alone
from psubd.services.switchboard import Switchboard
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.membership import MemoryMembership
from psubd.wire.limits import WireSettings
from psubd.wire.site import Site


class SchemesTests(SynchronousTestCase):
    def test_own(self) -> None:
        """psubd's own plugins are found as anybody's."""
        found = compose.schemes()
        self.assertLessEqual({"sqlite", "memory"}, set(found.storages))
        self.assertLessEqual({"sqlite", "zk"}, set(found.registries))

    def test_two_of_one(self) -> None:
        """Two plugins with one scheme are refused, and both are named."""

        class Acme:
            scheme = "sqlite"

        class Other:
            scheme = "sqlite"

        with mock.patch("psubd.compose.getPlugins", side_effect=lambda interface, package: [Acme(), Other(), Other()]):
            refused = self.assertRaises(ConfigError, compose.schemes)
        self.assertEqual(len(refused.mistakes), 4)
        self.assertIn("Acme", refused.mistakes[0])
        self.assertIn("Other", refused.mistakes[0])
        self.assertIn("both provide sqlite:", refused.mistakes[0])


class BuildTests(SynchronousTestCase):
    def build(self, **settings: Any) -> compose.House:
        return compose.build(Config(state="/nowhere", **settings), compose.schemes(), StateFolder("/nowhere"), FakeClock().reactor)

    def test_parts(self) -> None:
        """Every part is what its interface says, and nothing was opened."""
        house = self.build()
        self.assertTrue(IStorage.providedBy(house.storage))
        self.assertTrue(IRegistry.providedBy(house.registry))
        self.assertTrue(INodes.providedBy(house.nodes))
        self.assertIn("process_resident_memory_bytes", {sample.name for family in house.metrics.collect() for sample in family.samples})

    def test_choice(self) -> None:
        """The URL chooses."""
        self.assertIsInstance(self.build(storage="memory:").storage, MemoryStorage)

    def test_registry_without_nodes(self) -> None:
        """A registry plugin that provides no INodes is refused."""
        half = mock.Mock()
        directlyProvides(half, IRegistry)
        with mock.patch("psubd.compose.backends", return_value=(half, mock.Mock())):
            refused = self.assertRaises(ConfigError, self.build)
        self.assertIn("provides no INodes", refused.mistakes[0])

    def test_wire_settings(self) -> None:
        """The ports get what is configured; the defaults are the wire's own."""
        self.assertEqual(compose.wire_settings(Config()), WireSettings())
        got = compose.wire_settings(Config(write_timeout_ms=5, max_connections=7, body_budget_bytes=1 << 25))
        self.assertEqual((got.write_timeout_ms, got.max_connections, got.body_budget_bytes), (5, 7, 1 << 25))


class ManyNodesTests(SynchronousTestCase):
    """With a registry that nodes share."""

    SETTINGS = {"registry": "zk://127.0.0.1:1", "storage": "kafka://127.0.0.1:1", "peer": ("tcp:0:interface=127.0.0.1",)}

    def build(self, **settings: Any) -> compose.House:
        config = Config(state="/nowhere", **{**self.SETTINGS, **settings})
        return compose.build(config, compose.schemes(), StateFolder("/nowhere"), FakeClock().reactor)

    def test_parts(self) -> None:
        """What endpoints and manager take for the subscriber and the redriver is the switchboard; the membership is the registry's."""
        house = self.build()
        assert house.cluster is not None
        self.assertIs(house.groups, house.cluster.switchboard)
        self.assertIs(house.redriver, house.cluster.switchboard)
        self.assertTrue(ISubscriber.providedBy(house.groups) and IRedriver.providedBy(house.redriver))
        self.assertTrue(IMembership.providedBy(house.membership))
        self.assertNotIsInstance(house.membership, Alone)

    def test_alone(self) -> None:
        """With a registry of one node there is none of it."""
        house = self.build(registry="sqlite:", storage="memory:", peer=())
        self.assertIsNone(house.cluster)
        self.assertIs(house.groups, house.subscriber)
        self.assertNotIsInstance(house.redriver, Switchboard)
        self.assertIsInstance(house.membership, Alone)

    def test_metrics(self) -> None:
        """What the metrics say of a node among nodes is there before the registry is."""
        house = self.build()
        self.assertEqual(house.metrics.get_sample_value("psubd_nodes"), 0)
        self.assertEqual(house.metrics.get_sample_value("psubd_slots_served"), 0)
        self.assertEqual(house.metrics.get_sample_value("psubd_lease_left_seconds"), 0)

    def test_tls(self) -> None:
        """Files that cannot be used any more are a mistake in the configuration, told without a traceback."""
        refused = self.assertRaises(ConfigError, self.build, peer_tls=PeerTls("/no/c.pem", "/no/k.pem", "/no/a.pem"))
        self.assertIn("peer_tls: ", refused.mistakes[0])
        self.assertEqual(
            compose.peer_mistakes(("tcp:9092",), "node:9092", PeerTls("/no/c.pem", "/no/k.pem", "/no/a.pem")),
            ["peer_tls: /no/c.pem: No such file or directory"],
        )
        self.assertEqual(compose.peer_mistakes(("tcp:9092:interface=127.0.0.1",), "", PeerTls()), [])

    def test_registry_without_membership(self) -> None:
        """A registry plugin that says that nodes share it, and has no membership, is refused."""
        half = mock.Mock(spec=["trouble"])
        directlyProvides(half, IRegistry, INodes)
        with mock.patch("psubd.compose.backends", return_value=(half, mock.Mock())):
            refused = self.assertRaises(ConfigError, self.build)
        self.assertIn("provides no membership", refused.mistakes[0])


class MetricsTests(SynchronousTestCase):
    SETTINGS: tuple[dict[str, Any], ...] = ({}, ManyNodesTests.SETTINGS, {"storage": "memory:"}, {"storage": "kafka://127.0.0.1:1"})

    def test_documented(self) -> None:
        """Every metric of psubd's is in the handbook by its name, and no other."""
        handbook = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
        self.assertEqual(set(re.findall(r"`(psubd_\w+)", handbook)), {name for settings in self.SETTINGS for name in self.names(settings)})

    def names(self, settings: dict[str, Any]) -> set[str]:
        """As a scrape shows them."""
        house = compose.build(Config(state="/nowhere", **settings), compose.schemes(), StateFolder("/nowhere"), FakeClock().reactor)
        Site([], house.clock, port="data", settings=WireSettings(), metrics=house.metrics)
        families = [*house.metrics.collect(), *house.monitor.collect()]
        return {family.name + ("_total" if family.type == "counter" else "") for family in families if family.name.startswith("psubd_")}


class SnapshotTests(SynchronousTestCase):
    """How long a node goes by what it has read of a registry that is away."""

    def setUp(self) -> None:
        self.clock = FakeClock()
        self.membership = MemoryMembership(self.clock)
        self.away: str | None = None
        self.registry = mock.Mock(membership=self.membership, seen_ms=self.clock.elapsed_ms(), trouble=lambda: self.away)

    def snapshot(self, mode: Any = "pubsub") -> compose.Snapshot:
        return compose.Snapshot(self.registry, Config(registry="zk://a", mode=mode, snapshot_max_age_s=60), self.clock)

    def leave(self) -> None:
        self.away = "ZooKeeper cannot be reached"
        self.membership.silence()

    def test_fit(self) -> None:
        """While the registry is away the node is fit for traffic, and lets in whom it knows, until the snapshot is too old."""
        snapshot = self.snapshot()
        self.assertEqual((snapshot.unfit(), snapshot.stale()), (None, None))
        self.leave()
        self.clock.advance(60_000)
        self.assertEqual((snapshot.unfit(), snapshot.stale()), (None, None))
        self.clock.advance(1)
        self.assertIn("60 s", snapshot.stale() or "")
        self.assertEqual(snapshot.unfit(), snapshot.stale())

    def test_serves_groups_only(self) -> None:
        """A node that does not publish has nothing left once its lease has ended."""
        snapshot = self.snapshot("sub")
        self.leave()
        self.assertIsNone(snapshot.unfit())
        self.clock.advance(10_000)
        self.assertEqual(snapshot.unfit(), self.away)

    def test_displaced(self) -> None:
        """A node whose id another one has is not fit, though the registry is there."""
        snapshot = self.snapshot()
        self.away = "another process runs with this node's id"
        self.membership.displaced = True  # type: ignore[attr-defined]
        self.assertEqual(snapshot.unfit(), self.away)
