"""What is registered through one node holds on all of them."""

import subprocess
import threading
import time
from typing import Any

from psubd.testing.cluster import Node, words
from psubd.testing.daemon import Client, Reply, Tenant, bind, make_topic, register
from tests.integration.cluster.case import NOT_NOW, NodesCase, end_nodes, persist

WITHIN_S = 30
"""The contract has a second for a change to be enforced on every node; a machine that others use too may take longer."""


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
        self.reply = persist(lambda: self.client.request("GET", target))

    def answered(self) -> Reply:
        self.thread.join(60)
        assert self.reply is not None, "the poll was never answered"
        return self.reply


class RegistrationTests(NodesCase):
    def test_binding(self) -> None:
        """A binding that is made through one node's manager serves on every node; one that is revoked ends every poll that waits on any node, 403,
        and every node goes by that. How long it took is shown."""
        first, second, third = self.nodes.all
        tenant = register(first.manager(), self.shop)
        make_topic(first.manager(), self.orders, self.shop)
        for node in self.nodes.all:
            self.assertEqual(self.poll(node.data(**tenant.subscribe)).json["code"], "topic_not_bound")
        bind(second.manager(), self.shop, self.orders, pub=True, sub=True, start="earliest")
        print(f"\nbound: polls are taken {self.follow(tenant, 204)}")
        for node in self.nodes.all:
            published = node.data(**tenant.publish).request("POST", f"/v1/pub/{self.orders}", b"x")
            self.assertEqual(published.status, 200, published)
            client = node.data(**tenant.subscribe)
            read = persist(lambda client=client: client.request("GET", f"/v1/sub?topic={self.orders}&batchSize=1&timeout=30000"))
            self.assertEqual(read.status, 200, read)
        waiting = [Waiting(node, tenant, f"topic={self.orders}") for node in self.nodes.all]
        time.sleep(1)
        self.assertEqual([one.reply for one in waiting], [None] * 3)
        self.assertEqual(third.manager().request("DELETE", f"/api/v1/bindings/{self.shop}/{self.orders}").status, 204)
        print(f"revoked: polls are refused {self.follow(tenant, 403)}")
        for node in self.nodes.all:
            published = node.data(**tenant.publish).request("POST", f"/v1/pub/{self.orders}", b"x")
            self.assertEqual((published.status, published.json["code"]), (403, "topic_not_bound"), published)
        for one in waiting:
            reply = one.answered()
            self.assertEqual((reply.status, reply.json["code"]), (403, "topic_not_bound"), reply)

    def follow(self, tenant: Tenant, status: int) -> str:
        """Wait until every node answers a poll with it; how long that took on each."""
        begun, took = time.monotonic(), {}
        for node in self.nodes.all:
            client = node.data(**tenant.subscribe)
            self.until(lambda client=client: self.poll(client).status == status, f"{status} on {node.name}", WITHIN_S)
            took[node.name] = f"{time.monotonic() - begun:.2f} s"
        return str(took)

    def poll(self, client: Client) -> Reply:
        """One that does not wait."""
        reply = client.request("GET", f"/v1/sub?topic={self.orders}&timeout=0")
        self.assertIn(reply.status, (204, 403, *NOT_NOW), reply)
        return reply

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
            self.until(lambda other=other: other.request("GET", "/api/v1/topics").status == 200, "the token", WITHIN_S)
        self.assertEqual(self.nodes["b"].manager().request("DELETE", f"/api/v1/tokens/{self.shop}").status, 204)
        for other in others:
            self.until(lambda other=other: other.request("GET", "/api/v1/topics").status == 401, "its end", WITHIN_S)


class WordsTests(NodesCase):
    def test_commands(self) -> None:
        """What ``make cluster`` tells a person to type works: what is published through one node is read through another and acknowledged through a
        third, and goes on when a node is killed."""
        told = words(self.nodes)
        commands = [line for line in told.splitlines() if line.startswith("  ") and not line.startswith(("  a:", "  b:", "  c:", "  ZooKeeper:"))]
        ended = subprocess.run(["bash", "-e"], input="\n".join(map(unhurried, commands)), capture_output=True, text=True, timeout=200)
        said = ended.stdout
        self.assertEqual((ended.returncode, ended.stderr), (0, ""), said)
        places = [said.find(word) for word in ("a first order", '"acked":1', '"eligible":true', "a second order")]
        self.assertEqual(places, sorted(places), said)
        self.assertNotIn(-1, places, said)
        self.nodes["a"].wait()
        self.assertEqual([node.name for node in self.nodes.running], ["b", "c"])


def unhurried(command: str) -> str:
    """The same for who types faster than a person, on a machine that may be slow: a change takes up to a second to reach all nodes, and what was
    acknowledged just before a kill comes again."""
    command = command.strip()
    if command.startswith("publish http") and "a first order" in command:
        node = command.split("/pub/")[0].removeprefix("publish ")
        return f"until read_on {node}/topics/orders | grep -q pub; do sleep 0.1; done\n{command}"
    if command.startswith("kill"):
        return f"sleep 1.5\n{command}"
    if command.startswith("read_on") and "timeout=60000" in command:
        return f'answer=$({command})\nuntil grep -q "a second order" <<< "$answer"; do answer=$({command}); done\necho "$answer"'
    return command
