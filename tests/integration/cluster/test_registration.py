"""What is registered through one node holds on all of them."""

import subprocess
import threading
import time
from typing import Any

from psubd.testing.cluster import Node, words
from psubd.testing.daemon import Client, Reply, Tenant, bind, make_topic, register
from tests.integration.cluster.case import NodesCase, end_nodes, persist

WITHIN_S = 1.0
"""The contract's bound for a change to be enforced on every node."""


def tearDownModule() -> None:
    end_nodes()


class Waiting:
    """A long poll on one node, in a thread of its own."""

    def __init__(self, node: Node, tenant: Tenant, query: str) -> None:
        self.reply: Reply | None = None
        self.client = node.data(**tenant.subscribe)
        self.thread = threading.Thread(target=self._ask, args=(f"/v1/sub?timeout=60000&{query}",), daemon=True)
        self.thread.start()

    def _ask(self, target: str) -> None:
        self.reply = self.client.request("GET", target)

    def answered(self) -> Reply:
        self.thread.join(60)
        assert self.reply is not None, "the poll was never answered"
        return self.reply


class RegistrationTests(NodesCase):
    def test_binding(self) -> None:
        """A binding that is made through one node's manager serves on every node; one that is revoked ends every poll that waits on any node,
        403, and is enforced within a second."""
        first, second, third = self.nodes.all
        tenant = register(first.manager(), self.shop)
        make_topic(first.manager(), self.orders, self.shop)
        for node in self.nodes.all:
            reply = node.data(**tenant.subscribe).request("GET", f"/v1/sub?topic={self.orders}&timeout=0")
            self.assertEqual((reply.status, reply.json["code"]), (403, "topic_not_bound"), reply)
        bind(second.manager(), self.shop, self.orders, pub=True, sub=True, start="earliest")
        made = time.monotonic()
        for node in self.nodes.all:
            self.until_served(node, tenant, made)
        waiting = [Waiting(node, tenant, f"topic={self.orders}") for node in self.nodes.all]
        time.sleep(1)
        self.assertEqual([one.reply for one in waiting], [None] * 3)
        self.assertEqual(third.manager().request("DELETE", f"/api/v1/bindings/{self.shop}/{self.orders}").status, 204)
        revoked = time.monotonic()
        for one in waiting:
            reply = one.answered()
            self.assertEqual((reply.status, reply.json["code"]), (403, "topic_not_bound"), reply)
        print(f"\nrevoked on every node within {time.monotonic() - revoked:.2f} s")
        for node in self.nodes.all:
            reply = node.data(**tenant.publish).request("POST", f"/v1/pub/{self.orders}", b"x")
            self.assertEqual(reply.status, 403, reply)

    def until_served(self, node: Node, tenant: Tenant, made: float) -> None:
        """The node takes a publish, at the latest a second after the binding was made (and is asked once more then)."""
        client = node.data(**tenant.publish)
        while True:
            late = time.monotonic() - made > WITHIN_S
            reply = client.request("POST", f"/v1/pub/{self.orders}", b"x")
            if reply.status == 200 or late:
                break
            time.sleep(0.02)
        self.assertEqual(reply.status, 200, reply)
        sub = node.data(**tenant.subscribe)
        read = persist(lambda: sub.request("GET", f"/v1/sub?topic={self.orders}&timeout=30000"))
        self.assertEqual(read.status, 200, read)

    def test_next_read(self) -> None:
        """What is written on one node's manager port is in the next read on any other's, for every kind of thing."""
        for n in range(20):
            writer, readers = self.nodes.all[n % 3].manager(), [node.manager() for node in self.nodes.all]
            name = f"{self.shop}-{n}"
            register(writer, name)
            for reader in readers:
                self.assertEqual(reader.request("GET", f"/api/v1/applications/{name}").status, 200)
            self.assertEqual(writer.request("DELETE", f"/api/v1/applications/{name}").status, 204)
            for reader in readers:
                self.assertEqual(reader.request("GET", f"/api/v1/applications/{name}").status, 404)

    def test_nodes(self) -> None:
        """Every node shows all nodes, with itself named, and every status that it takes traffic."""
        for node in self.nodes.all:
            shown = node.manager().request("GET", "/api/v1/nodes").json["items"]
            self.assertEqual({item["id"] for item in shown}, {other.id for other in self.nodes.all})
            self.assertEqual([item["id"] for item in shown if item["self"]], [node.id])
            self.assertTrue(all(item["eligible"] for item in shown), shown)

    def test_tokens(self) -> None:
        """A manager's token that one node makes is taken by the others, and no more once it has ended."""
        made = self.nodes["a"].manager().send("POST", "/api/v1/tokens", {"name": self.shop, "role": "viewer"})
        self.assertEqual(made.status, 201, made)
        token: Any = made.json["token"]
        others = [Client(node.ports.manager, {"authorization": f"Bearer {token}"}) for node in self.nodes.all]
        for other in others:
            self.until(lambda other=other: other.request("GET", "/api/v1/topics").status == 200, "the token", WITHIN_S * 5)
        self.assertEqual(self.nodes["b"].manager().request("DELETE", f"/api/v1/tokens/{self.shop}").status, 204)
        for other in others:
            self.until(lambda other=other: other.request("GET", "/api/v1/topics").status == 401, "its end", WITHIN_S * 5)


class WordsTests(NodesCase):
    def test_commands(self) -> None:
        """What ``make cluster`` tells a person to type works: what is published through one node is read through another and acknowledged through a
        third, and goes on when a node is killed."""
        told = words(self.nodes)
        commands = [line for line in told.splitlines() if line.startswith("  ") and not line.startswith(("  a:", "  b:", "  c:", "  ZooKeeper:"))]
        typed = "\n".join(f"sleep 1.5\n{command}" if "kill" in command else command for command in commands)
        ended = subprocess.run(["bash", "-e"], input=typed, capture_output=True, text=True, timeout=120)
        said = ended.stdout
        self.assertEqual((ended.returncode, ended.stderr), (0, ""), said)
        places = [said.find(word) for word in ("a first order", '"acked":1', '"eligible":true', "a second order")]
        self.assertEqual(places, sorted(places), said)
        self.assertNotIn(-1, places, said)
        self.nodes["a"].wait()
        self.assertEqual([node.name for node in self.nodes.running], ["b", "c"])
