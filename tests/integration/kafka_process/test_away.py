"""Kafka goes, hangs, or was never there: each request is told so, and all goes on when it comes back, without a restart."""

import time
from typing import Any

from psubd.testing.daemon import Client, Daemon, Tenant, bind, make_topic, register
from psubd.testing.kafka import Cluster
from tests.integration.kafka_process.case import KafkaProcessCase, Publishing
from tests.integration.process.case import drained

TIMEOUT_S = 1.2
"""``storage_timeout_ms`` here. The contract of it is a second more; a loaded machine is given `PATIENCE` times as much."""

PATIENCE = 8


class AwayCase(KafkaProcessCase):
    settings = {"storage_timeout_ms": int(TIMEOUT_S * 1000), "request_timeout_ms": 500}

    def timed(self, client: Client, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
        """The answer, which must not have taken much longer than the storage may take."""
        begun = time.monotonic()
        reply = client.request(method, target, body, headers)
        took = time.monotonic() - begun
        self.assertLess(took, TIMEOUT_S * PATIENCE, (method, target))
        self.times.append((f"{method} {target.partition('?')[0]} {reply.status}", round(took, 2)))
        return reply

    def setUp(self) -> None:
        super().setUp()
        self.times: list[tuple[str, float]] = []

    def kill(self) -> None:
        """kill -9 of all there is; whatever comes of the test, others find it running."""

        def leave() -> None:
            if not self.cluster.nodes[1].running:
                self.cluster.restart(1)

        self.addCleanup(leave)
        self.cluster.kill(1)

    def ready(self, daemon: Daemon) -> bool:
        """What `/ready` says, on both ports."""
        told = {client.request("GET", "/ready").status for client in (daemon.manager(), daemon.data())}
        return told == {200}

    def assert_told(self, reply: Any, *statuses: int) -> None:
        self.assertIn(reply.status, statuses, reply)
        self.assertEqual(reply.json["code"], {503: "storage_unavailable", 504: "storage_timeout"}[reply.status])
        if reply.status == 503:
            self.assertIn("retry-after", reply.headers)

    def works(self, daemon: Daemon, tenant: Tenant) -> None:
        value = f"{time.monotonic()}"
        self.assertEqual(daemon.data(**tenant.publish).request("POST", f"/v1/pub/{self.orders}", value.encode()).status, 200)
        reply = daemon.data(**tenant.subscribe).request("GET", "/v1/sub?timeout=10000")
        self.assertEqual([message["value"] for message in reply.json["messages"]], [value])


class AwayTests(AwayCase):
    def test_down_and_back(self) -> None:
        """Killed under load: publishes that may have been sent are 504, later ones 503; polls and replays are not answered as if nothing were there;
        /ready is 503, and the status says why. Back, all works, with the same daemon: what was acknowledged is there, what was refused is not, and
        the group goes on where it was."""
        daemon = self.kafka_daemon().start()
        tenant = self.bound(daemon, self.shop, self.orders, 3)
        publish, read, manager = daemon.data(**tenant.publish), daemon.data(**tenant.subscribe), daemon.manager()
        publishing = Publishing(daemon, tenant, self.orders, 8)
        self.until(lambda: len(publishing.stored) > 300, "three hundred")
        seen = [message["value"] for _ in range(3) for message in read.request("GET", "/v1/sub?batchSize=50").json["messages"]]
        self.kill()
        self.until(lambda: len(publishing.refused) > 16, "refusals")
        self.until(lambda: not self.ready(daemon), "it is not ready")
        status = manager.request("GET", "/api/v1/status").json
        self.assertFalse(status["ready"])
        self.assertIn("Kafka", status["storage"]["trouble"])
        self.assertIn("Kafka", status["trouble"])
        self.assertEqual(manager.request("GET", "/alive").status, 200)
        for acks in ("all", "1"):
            self.assert_told(self.timed(publish, "POST", f"/v1/pub/{self.orders}", acks.encode(), {"acks": acks}), 503)
        self.assert_told(self.timed(read, "GET", f"/v1/sub?topic={self.orders}&offset=earliest&timeout=0"), 503)
        self.assert_told(self.timed(manager, "GET", f"/api/v1/groups/{self.shop}"), 503)
        self.assert_told(self.timed(read, "GET", "/v1/sub?group=never-read&timeout=0"), 503)
        seen += self.what_is_at_hand(read)
        self.cluster.restart(1)
        back = self.until(lambda: self.ready(daemon), "it is ready again")
        before = len(publishing.stored)
        self.until(lambda: len(publishing.stored) > before + 300, "three hundred more")
        publishing.stop()
        left = self.assert_kept(publishing, self.log(daemon, tenant))
        seen += [message["value"] for messages in drained(read, "batchSize=1000&timeout=1000") for message in messages]
        self.assertEqual(len(seen), len(set(seen)), "something came twice")
        self.assertLessEqual(set(publishing.stored.values()), set(seen))
        self.assertNotIn("Traceback", daemon.output())
        print(f"\ndown: {publishing}; of the 504 {left} are there; ready {back:.2f} s after its restart; {self.times}")

    def what_is_at_hand(self, client: Client) -> list[str]:
        """What the group had read before Kafka went is given; then it is told that more cannot be read."""
        found: list[str] = []
        while True:
            reply = self.timed(client, "GET", "/v1/sub?batchSize=1000&timeout=500")
            if reply.status != 200:
                self.assert_told(reply, 503)
                return found
            found += [message["value"] for message in reply.json["messages"]]

    def test_waiting_at_the_end(self) -> None:
        """A group that waits at the end when Kafka goes: the poll that waits is told so, and those that come later never that nothing is there.
        Back, the group gets what comes."""
        daemon = self.kafka_daemon().start()
        tenant = self.bound(daemon, self.shop, self.orders)
        read = daemon.data(**tenant.subscribe)
        self.assertEqual(read.request("GET", "/v1/sub?timeout=200").status, 204)
        self.kill()
        self.assert_told(self.timed(read, "GET", "/v1/sub?timeout=60000"), 503)
        self.assertFalse(self.ready(daemon))
        for timeout in (0, 500, 5_000):
            self.assert_told(self.timed(read, "GET", f"/v1/sub?timeout={timeout}"), 503)
        self.cluster.restart(1)
        self.until(lambda: self.ready(daemon), "it is ready again")
        self.assertEqual(daemon.data(**tenant.publish).request("POST", f"/v1/pub/{self.orders}", b"back").status, 200)
        self.assertEqual([message["value"] for message in read.request("GET", "/v1/sub?timeout=10000").json["messages"]], ["back"])
        print(f"\nat the end: {self.times}")

    def test_a_hang(self) -> None:
        """Kafka stops (SIGSTOP) with a publish on its way: 504, with what that means; the next ones are 503 or 504. It goes on: what was answered
        503 is not there."""
        daemon = self.kafka_daemon().start()
        tenant = self.bound(daemon, self.shop, self.orders)
        publish = daemon.data(**tenant.publish)
        self.assertEqual(publish.request("POST", f"/v1/pub/{self.orders}", b"before").status, 200)
        self.addCleanup(self.cluster.resume, 1)
        self.cluster.pause(1)
        told = self.timed(publish, "POST", f"/v1/pub/{self.orders}", b"sent")
        self.assert_told(told, 504)
        self.assertIn("may be stored", told.json["detail"])
        refused = [f"{n}" for n in range(3) if self.timed(publish, "POST", f"/v1/pub/{self.orders}", f"{n}".encode()).status == 503]
        self.until(lambda: not self.ready(daemon), "it is not ready")
        self.cluster.resume(1)
        self.until(lambda: self.ready(daemon), "it is ready again")
        self.until(lambda: publish.request("POST", f"/v1/pub/{self.orders}", b"after").status == 200, "a message stored")
        values = [message["value"] for message in self.log(daemon, tenant)]
        self.assertEqual((values[0], values[-1]), ("before", "after"))
        self.assertEqual(set(refused) & set(values), set())
        print(f"\nhang of all: {self.times}")

    def test_start_again_with_kafka_away(self) -> None:
        """The same of a daemon whose registry has topics and groups: publishes and polls are 503, and work when Kafka is back."""
        daemon = self.kafka_daemon().start()
        shop = self.bound(daemon, self.shop, self.orders, 2)
        self.works(daemon, shop)
        daemon.stop()
        self.kill()
        daemon.start()
        self.assert_told(self.timed(daemon.data(**shop.publish), "POST", f"/v1/pub/{self.orders}", b"x"), 503)
        self.assert_told(self.timed(daemon.data(**shop.subscribe), "GET", "/v1/sub?timeout=1000"), 503)
        self.cluster.restart(1)
        self.until(lambda: self.ready(daemon), "it is ready")
        self.works(daemon, shop)
        self.assertNotIn("Traceback", daemon.output())
        print(f"\nstart again: {self.times}")


class NeverThereTests(AwayCase):
    def a_cluster(self) -> Cluster:
        return self.own_cluster()

    def test_start_with_kafka_away(self) -> None:
        """It starts, and says on /ready and in the status that Kafka is away; what needs Kafka is 503, what does not works; when Kafka comes, all
        does."""
        daemon = self.kafka_daemon().start()
        manager = daemon.manager()
        self.assertFalse(self.ready(daemon))
        self.assertEqual(manager.request("GET", "/alive").status, 200)
        self.assertIn("Kafka", manager.request("GET", "/api/v1/status").json["storage"]["trouble"])
        shop = register(manager, self.shop)
        self.assert_told(manager.send("POST", "/api/v1/topics", {"id": self.orders, "owner": self.shop}), 503)
        self.cluster.start()
        came = self.until(lambda: self.ready(daemon), "it is ready")
        make_topic(manager, self.orders, self.shop, partitions=2)
        bind(manager, self.shop, self.orders, pub=True, sub=True, start="earliest")
        self.works(daemon, shop)
        self.assertNotIn("Traceback", daemon.output())
        print(f"\nstart without Kafka: ready {came:.2f} s after Kafka was there; {self.times}")
        daemon.stop()
