"""Daemons on a real ZooKeeper and a real Kafka: that they come up, serve as one, and stop. What failures do to them is in ../cluster."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted.trial.unittest import SynchronousTestCase

from psubd.testing import kafka, zookeeper
from psubd.testing.certificates import loopback_certificate
from psubd.testing.cluster import Node, Nodes
from psubd.testing.daemon import Client, Reply, Tenant, bind, make_topic, reads, register, together
from psubd.testing.wall_clock import set_clock
from tests.integration.process.case import with_pytest

NOT_NOW = (503, 504)


class NodesCase(SynchronousTestCase):
    timeout = 300

    def setUp(self) -> None:
        zookeeper.need()
        kafka.need()
        zookeeper.shared(1), kafka.shared(1)  # on this thread: they end with the one that starts them
        name = uuid4().hex[:8]
        self.shop, self.orders = f"shop-{name}", f"orders-{name}"

    def nodes(self, count: int = 2, **more: Any) -> Nodes:
        """Nodes on a registry of their own, not started."""
        made = Nodes(zookeeper.shared(1), kafka.shared(1).url, count, **more)
        self.addCleanup(made.stop)
        return made

    def until(self, holds: Callable[[], object], what: str, seconds: float = 60) -> None:
        begun = time.monotonic()
        while not holds():
            self.assertLess(time.monotonic() - begun, seconds, f"never came: {what}")
            time.sleep(0.02)

    def tenant(self, first: Node, second: Node, **settings: Any) -> Tenant:
        """Registered through one node, bound through the other; both go by it by then, which they have a second for."""
        made = register(first.manager(), self.shop)
        make_topic(first.manager(), self.orders, self.shop, partitions=3)
        bind(second.manager(), self.shop, self.orders, pub=True, sub=True, start="earliest", **settings)
        for node in (first, second):
            client = node.data(**made.subscribe)
            self.until(lambda client=client: reads(client, self.orders), f"the binding on {node.name}")
        return made


@with_pytest
class TwoNodesTests(NodesCase):
    def test_as_one(self) -> None:
        """Publish on one node, read on the other, ack on the first; whichever of them has the group. Each shows both, and slots are shared out."""
        nodes = self.nodes().start()
        first, second = nodes.all
        tenant = self.tenant(first, second, ack="explicit")
        for reader, acker in ((first, second), (second, first)):
            sent = acker.data(**tenant.publish).request("POST", f"/v1/pub/{self.orders}", b"an order")
            self.assertEqual(sent.status, 200, sent)
            read = reader.data(**tenant.subscribe).request("GET", "/v1/sub?timeout=30000")
            self.assertEqual(read.status, 200, read)
            self.assertEqual((read.status, [message["value"] for message in read.json["messages"]]), (200, ["an order"]))
            acked = acker.data(**tenant.subscribe).send("POST", "/v1/ack", {"tokens": [read.json["messages"][0]["ack"]]})
            self.assertEqual((acked.status, acked.json), (200, {"acked": 1}))
        for node in nodes.all:
            shown = node.manager().request("GET", "/api/v1/nodes").json["items"]
            self.assertEqual({(one["id"], one["eligible"]) for one in shown}, {(one.id, True) for one in nodes.all})
            self.assertEqual([one["id"] for one in shown if one["self"]], [node.id])
        self.until(lambda: self.served(nodes) == 256, "all slots are served")
        linked = [node.manager().request("GET", "/api/v1/status").json["groups"]["linked"] for node in nodes.all]
        self.assertEqual(linked, [[second.id], [first.id]])
        metrics = first.manager().request("GET", "/metrics").body.decode()
        for sample in ("psubd_nodes 2.0", "psubd_nodes_eligible 2.0", "psubd_peers_linked 1.0"):
            self.assertIn(f"\n{sample}\n", metrics)

    def served(self, nodes: Nodes) -> int:
        shares = [node.manager().request("GET", "/api/v1/status").json["groups"]["served"] for node in nodes.all]
        return sum(shares) if all(shares) else 0

    def test_stop_under_polls(self) -> None:
        """SIGTERM of a node with clients: a lease that is out is acked on the other with 200, a poll that waits is answered there or here, never
        with an error; /ready fails while it still serves."""
        nodes = self.nodes(settings="").start()
        first, second = nodes.all
        tenant = self.tenant(first, second, ack="explicit")
        groups = [f"g{number}" for number in range(8)]
        first.data(**tenant.publish).request("POST", f"/v1/pub/{self.orders}", b"leased")
        leased: list[str] = []
        for group in groups:
            read = second.data(**tenant.subscribe).request("GET", f"/v1/sub?group={group}&timeout=30000&ackTimeout=60000")
            self.assertEqual(read.status, 200, read)
            leased.append(read.json["messages"][0]["ack"])
        with ThreadPoolExecutor(len(groups)) as threads:
            polls = [threads.submit(self.polled, first, tenant, group) for group in groups]
            time.sleep(0.3)
            first.signal(signal.SIGTERM)
            self.until(lambda: first.data().request("GET", "/ready").status == 503, "it is not ready any more")
            self.assertEqual(first.data(**tenant.publish).request("POST", f"/v1/pub/{self.orders}", b"while it stops").status, 200)
            answers = [poll.result() for poll in polls]
        self.assertEqual({answer.status for answer in answers} - {200, 204}, set(), answers)
        self.assertEqual(first.wait(), -signal.SIGTERM)
        acked = second.data(**tenant.subscribe).send("POST", "/v1/ack", {"tokens": leased})
        self.assertEqual((acked.status, acked.json), (200, {"acked": len(leased)}), acked)
        self.assertEqual(second.manager().request("GET", "/api/v1/status").json["groups"]["served"], 256)
        self.assertNotIn("Traceback", first.output() + second.output())

    def test_stop_under_new_connections(self) -> None:
        """Clients that connect anew for each request, to a node that stops: each is answered, or refused before it has sent anything."""
        nodes = self.nodes().start()
        first, second = nodes.all
        tenant = self.tenant(first, second)
        self.until(lambda: second.data(**tenant.subscribe).request("GET", "/v1/sub?timeout=0").status < 300, "the binding is known")
        self.until(lambda: first.data(**tenant.subscribe).request("GET", "/v1/sub?timeout=0").status < 300, "the binding is known")
        port, ended = first.ports.data, list[str]()
        over = threading.Event()

        def come(number: int) -> None:
            while not over.is_set():
                number += 1
                client = Client(port, tenant.publish if number % 2 else tenant.subscribe)
                try:
                    if number % 2:
                        reply = client.request("POST", f"/v1/pub/{self.orders}", b"x")
                    else:
                        reply = client.request("GET", f"/v1/sub?group=g{number % 5}&timeout=200&batchSize=10")
                    ended.append(f"{reply.status}" if reply.status < 300 else str(reply))
                except ConnectionRefusedError:
                    ended.append("refused")
                    time.sleep(0.05)
                except Exception as broken:
                    ended.append(repr(broken))
                client.close()

        with ThreadPoolExecutor(8) as threads:
            coming = [threads.submit(come, number) for number in range(8)]
            self.until(lambda: ended.count("200") > 50, "it serves")
            self.assertEqual(first.stop(), -signal.SIGTERM)
            self.until(lambda: ended.count("refused") > 8, "it has gone")
            over.set()
        for one in coming:
            one.result()
        self.assertEqual(set(ended) - {"200", "204", "refused"}, set())

    def polled(self, node: Node, tenant: Tenant, group: str) -> Reply:
        return node.data(**tenant.subscribe).request("GET", f"/v1/sub?group={group}&timeout=20000")

    def test_admin_tokens(self) -> None:
        """Two nodes that start at once on an empty registry: whatever each wrote into its folder works on both. A third one writes nothing."""
        nodes = self.nodes(3)
        for node in nodes.all:
            node._environ.pop("PSUBD_ADMIN_TOKEN")
        together(nodes.all[:2], Node.start)
        for node in nodes.all[:2]:
            node.wait_for(node.ready, "it is not ready")
        nodes.all[2].start()
        nodes.all[2].wait_for(nodes.all[2].ready, "it is not ready")
        self.assertFalse(os.path.exists(nodes.all[2].file("admin-token")))
        written = [node.file("admin-token") for node in nodes.all if os.path.exists(node.file("admin-token"))]
        self.assertTrue(written)
        for path in written:
            token = Path(path).read_text().strip()
            for node in nodes.all:
                self.assertEqual(node.manager(token).request("GET", "/api/v1/nodes").status, 200)

    def test_demo(self) -> None:
        """``--demo`` on two nodes that start at once: both show the same keys, and they work on both."""
        nodes = self.nodes()
        for node in nodes.all:
            node._command.append("--demo")
        nodes.start()
        shown = [json.loads(Path(node.file("demo.json")).read_text()) for node in nodes.all]
        self.assertEqual(shown[0], shown[1])
        keys = shown[0]
        for node in nodes.all:
            publish = {"pubkey": keys["pubkey"], "secret": keys["secret"]}
            self.assertEqual(node.data(**publish).request("POST", "/v1/pub/demo", b"hello").status, 200)
        read = nodes.all[1].data(subkey=keys["subkey"]).request("GET", "/v1/sub?topic=demo&batchSize=10&timeout=30000")
        self.assertEqual(read.status, 200, read)


@with_pytest
class EnsembleAwayTests(NodesCase):
    def test_start(self) -> None:
        """A start without ZooKeeper: the ports listen, /alive is 200, /ready is 503 and says what it waits for, all else is 503 with Retry-After;
        it goes on by itself when ZooKeeper is there."""
        (node,) = self.nodes(1).all
        node.wire.cut()
        node.start()
        for client in (node.data(), node.manager()):
            self.assertEqual(client.request("GET", "/alive").status, 200)
            ready = client.request("GET", "/ready")
            self.assertEqual((ready.status, "waits for its registry" in ready.json["detail"]), (503, True), ready)
        asked = [node.data().request("POST", "/v1/pub/orders", b"x"), node.data().request("GET", "/v1/sub?timeout=0")]
        asked += [node.manager().request("GET", path) for path in ("/api/v1/nodes", "/metrics", "/openapi.json")]
        asked.append(node.manager().send("POST", "/api/v1/applications", {"id": "shop", "name": "Shop"}))
        self.assertEqual({(reply.status, reply.headers.get("retry-after")) for reply in asked}, {(503, "1")})
        node.wire.heal()
        node.wait_for(node.ready, "it did not go on")
        self.assertEqual(node.manager().request("GET", "/api/v1/status").json["trouble"], None)

    def test_stop(self) -> None:
        """One that waits is stopped at once, and ends as any other."""
        (node,) = self.nodes(1).all
        node.wire.cut()
        node.start()
        self.assertEqual(node.stop(), -signal.SIGTERM)
        self.assertFalse(os.path.exists(node.file("ports.json")))
        self.assertNotIn("Traceback", node.output())

    def test_later(self) -> None:
        """ZooKeeper away later: publishing goes on by what was read, and /ready says that it does; group reads end 503 ownership_in_doubt once
        the lease has ended; the manager's writes are 503; all goes on by itself. After `snapshot_max_age_s` nothing goes by it any more."""
        (node,) = self.nodes(1, settings="snapshot_max_age_s = 8").start().all
        tenant = self.tenant(node, node)
        publish, subscribe = node.data(**tenant.publish), node.data(**tenant.subscribe)
        node.wire.cut()
        self.assertEqual(publish.request("POST", f"/v1/pub/{self.orders}", b"by the snapshot").status, 200)
        self.assertEqual(node.data().request("GET", "/ready").status, 200)
        self.until(lambda: subscribe.request("GET", "/v1/sub?timeout=0").status == 503, "the lease ends")
        doubt = subscribe.request("GET", "/v1/sub?timeout=0")
        self.assertEqual((doubt.status, doubt.json["code"], "retry-after" in doubt.headers), (503, "ownership_in_doubt", True))
        write = node.manager().send("POST", "/api/v1/applications", {"id": "late", "name": "Late"})
        self.assertEqual(write.status, 503)
        self.until(lambda: publish.request("POST", f"/v1/pub/{self.orders}", b"too old").status == 503, "the snapshot is too old")
        self.assertEqual(node.data().request("GET", "/ready").status, 503)
        self.assertIn("8 s", node.manager().request("GET", "/api/v1/status").json["trouble"])
        node.wire.heal()
        node.wait_for(node.ready, "it did not go on")
        self.until(lambda: publish.request("POST", f"/v1/pub/{self.orders}", b"again").status == 200, "publishing goes on")
        self.until(lambda: subscribe.request("GET", "/v1/sub?timeout=5000").status == 200, "reading goes on")


@with_pytest
class CheckTests(NodesCase):
    """``--check`` of a node of many."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = tempfile.mkdtemp(prefix="psubd-nodes-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.own = f"/check-{uuid4().hex[:8]}"

    def check(self, *options: str) -> tuple[int, str]:
        """Status, and all that it wrote."""
        command = [sys.executable, "-m", "psubd.testing.wall_clock", self.clock(), "psubd", "--state", f"{self.folder}/state", "--check"]
        ended = subprocess.run([*command, *options], capture_output=True, text=True, timeout=90)
        return ended.returncode, ended.stdout + ended.stderr

    def clock(self) -> str:
        path = f"{self.folder}/clock"
        set_clock(path, 0)
        return path

    def sound(self, **instead: str) -> list[str]:
        """Options of a node that would start."""
        given = {
            "--registry": zookeeper.shared(1).url(self.own),
            "--storage": kafka.shared(1).url,
            "--peer": "tcp:0:interface=127.0.0.1",
            **{f"--{name.replace('_', '-')}": value for name, value in instead.items()},
        }
        return [word for pair in given.items() for word in pair]

    def test_sound(self) -> None:
        """Registry, storage and peer port are tried, and nothing is left in the state folder."""
        status, said = self.check(*self.sound())
        self.assertEqual(status, 0, said)
        for line in (f"registry {zookeeper.shared(1).url(self.own)} works", "storage kafka://", "other nodes reach it at 127.0.0.1"):
            self.assertIn(line, said)
        self.assertFalse(os.path.exists(f"{self.folder}/state"))

    def test_away(self) -> None:
        """A ZooKeeper that is away, an interface that is not this host's and an address that nobody finds: each is told, and the status is 1."""
        status, said = self.check(
            *self.sound(registry="zk://127.0.0.1:1", peer="tcp:9092:interface=127.0.0.1", peer_address="localhost:9092"),
        )
        self.assertEqual(status, 1, said)
        self.assertIn("registry zk://127.0.0.1:1: ZooKeeper", said)
        self.assertIn("storage kafka://", said)
        self.assertNotIn("Traceback", said)

    def test_nowhere(self) -> None:
        """An interface that is not this host's, and an address that nobody finds."""
        made = loopback_certificate(Path(self.folder))
        file = Path(self.folder) / "psubd.toml"
        file.write_text(f'[peer_tls]\ncertificate = "{made.certificate}"\nkey = "{made.both}"\nauthority = "{made.certificate}"\n')
        options = self.sound(peer="tcp:9092:interface=192.0.2.1", peer_address="nowhere.invalid:9092", config=str(file))
        status, said = self.check(*options)
        self.assertEqual(status, 1, said)
        for line in ("peer: 'tcp:9092:interface=192.0.2.1': cannot listen on 192.0.2.1", "peer_address: 'nowhere.invalid:9092'"):
            self.assertIn(line, said)

    def test_mistakes(self) -> None:
        """All mistakes at once, a line each, without a credential."""
        file = Path(self.folder) / "psubd.toml"
        file.write_text("[registry.zk]\nsession_timeout_ms = 1\nspeed = 2\n")
        registry = "zk://joe:hunter2@127.0.0.1:2181"
        status, said = self.check("--registry", registry, "--storage", "sqlite:", "--peer", "tcp:9092", "--workers", "2", "--config", str(file))
        self.assertEqual(status, 1)
        for line in (
            "psubd: --registry: holds credentials, and everybody on this host can read a command line",
            "session_timeout_ms",
            "registry.zk.speed: there is no such setting",
            "psubd: --storage: each node would have a log of its own",
            "psubd: --peer: 'tcp:9092' takes nodes of other hosts in the clear",
            "psubd: peer_address: 'tcp:9092' names no interface",
            "psubd: --workers: the manager port of worker 1 would be 9092, which is the peer port of worker 0 too",
        ):
            self.assertIn(line, said)
        self.assertNotIn("hunter2", said)
        self.assertNotIn("Traceback", said)
