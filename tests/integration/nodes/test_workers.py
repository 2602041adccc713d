"""Several workers on one data port, on a real ZooKeeper and a real Kafka."""

import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted.trial.unittest import SynchronousTestCase

from psubd.testing import kafka, zookeeper
from psubd.testing.cluster import SPAWNER
from psubd.testing.daemon import ADMIN_TOKEN, Client, Daemon, Reply, Tenant, bind, make_topic, register, whole_log
from psubd.testing.kafka import die_with_parent
from tests.integration.process.case import with_pytest

LOOPBACK = "tcp:0:interface=127.0.0.1"
SETTINGS = "drain_delay_ms = 300\n[registry.zk]\nsession_timeout_ms = 3000\n"


class Crew(Daemon):
    """psubd with two workers."""

    def spawn(self) -> None:
        SPAWNER.submit(super().spawn).result()

    @property
    def told(self) -> Any:
        """What ports.json says."""
        return json.loads(Path(self.file("ports.json")).read_text())

    def worker(self, number: int, name: str) -> str:
        """A file of the worker's folder."""
        return Path(self.state, f"worker-{number}", name).read_text().strip()

    def worker_pid(self, number: int) -> int:
        """0: it is at its start, and has not written it yet."""
        return int(self.worker(number, "lock") or 0)

    def manager_of(self, number: int) -> Client:
        return Client(self.told["workers"][number]["manager"], {"authorization": f"Bearer {ADMIN_TOKEN}"})

    def once(self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        """A request on a connection of its own: the kernel chooses the worker."""
        with closing(Client(self.ports.data)) as client:
            return client.request(method, target, body, headers)


class Publishing(threading.Thread):
    """One message after another, each on a connection of its own, until `finish`.

    :ivar acked: values that were answered 200. :ivar others: what befell the other ones, and how often.
    """

    def __init__(self, crew: Crew, tenant: Tenant, topic: str) -> None:
        super().__init__()
        self.acked: list[str] = []
        self.others: Counter[str] = Counter()
        self._crew, self._tenant, self._topic = crew, tenant, topic
        self._port = crew.ports.data
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            value = uuid4().hex
            try:
                with closing(Client(self._port)) as client:
                    reply = client.request("POST", f"/v1/pub/{self._topic}", value.encode(), self._tenant.publish)
            except ConnectionRefusedError:
                self.others["refused"] += 1
                time.sleep(0.01)
            except Exception as broken:
                self.others[type(broken).__name__] += 1
            else:
                if reply.status == 200:
                    self.acked.append(value)
                else:
                    self.others[str(reply.status)] += 1

    def finish(self) -> None:
        self._over.set()
        self.join()


@with_pytest
class WorkersTests(SynchronousTestCase):
    timeout = 300

    def setUp(self) -> None:
        zookeeper.need()
        kafka.need()
        name = uuid4().hex[:8]
        self.shop, self.orders = f"shop-{name}", f"orders-{name}"
        self.folder = tempfile.mkdtemp(prefix="psubd-workers-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def crew(self, manager: str = LOOPBACK) -> Crew:
        """Not started."""
        config = Path(self.folder, "psubd.toml")
        config.write_text(SETTINGS)
        where = ("--registry", zookeeper.shared(1).url(f"/{self.shop}"), "--storage", kafka.shared(1).url, "--peer", LOOPBACK)
        endpoints = ("--listen", LOOPBACK, "--manager", manager)
        made = Crew(f"{self.folder}/state", (*where, "--workers", "2", "--config", str(config)), prepare=die_with_parent, endpoints=endpoints)
        self.addCleanup(made.kill)
        return made

    def ready(self, crew: Crew) -> Crew:
        crew.start().wait_for(crew.ready, "it is not ready")
        return crew

    def tenant(self, crew: Crew, **settings: Any) -> Tenant:
        """Registered through one worker, bound through the other."""
        made = register(crew.manager_of(0), self.shop)
        make_topic(crew.manager_of(0), self.orders, self.shop, partitions=2)
        bind(crew.manager_of(1), self.shop, self.orders, pub=True, sub=True, start="earliest", **settings)
        for number in range(2):
            self.assertEqual(crew.manager_of(number).request("GET", "/api/v1/bindings").status, 200)
        return made

    def until(self, holds: Callable[[], object], what: str, seconds: float = 60) -> None:
        begun = time.monotonic()
        while not holds():
            self.assertLess(time.monotonic() - begun, seconds, f"never came: {what}")
            time.sleep(0.05)

    def test_one_port(self) -> None:
        """Both take connections on the one port, each is a node with ports and a folder of its own, and what one gave out the other settles. Ctrl-C,
        which the terminal sends to all of them, ends all as once."""
        crew = self.ready(self.crew())
        servers = {crew.once("GET", "/alive").headers["x-request-id"].partition("-")[0] for _ in range(64)}
        self.assertEqual(len(servers), 2)
        nodes = crew.manager_of(1).request("GET", "/api/v1/nodes").json["items"]
        self.assertEqual({node["id"] for node in nodes}, {crew.worker(number, "node-id") for number in range(2)})
        told = crew.told
        self.assertEqual((len(told["data"]), told["manager"], told["peer"]), (1, *told["workers"][0].values()))
        self.assertEqual(len({*told["workers"][0].values(), *told["workers"][1].values()}), 4)
        tenant = self.tenant(crew, ack="explicit")
        servers.clear()
        for _ in range(24):
            for method, target, body, keys in (
                ("POST", f"/v1/pub/{self.orders}", b"an order", tenant.publish),
                ("GET", "/v1/sub?timeout=30000", None, tenant.subscribe),
            ):
                reply = crew.once(method, target, body, keys)
                self.assertEqual(reply.status, 200, reply)
            tokens = json.dumps({"tokens": [message["ack"] for message in reply.json["messages"]]}).encode()
            acked = crew.once("POST", "/v1/ack", tokens, {**tenant.subscribe, "content-type": "application/json"})
            self.assertEqual((acked.status, acked.json), (200, {"acked": 1}), acked)
            servers.add(acked.headers["x-request-id"].partition("-")[0])
        self.assertEqual(len(servers), 2)
        self.assertEqual(crew.once("GET", "/v1/sub?timeout=0", None, tenant.subscribe).status, 204)
        output = crew.output()
        for number in range(2):
            self.assertIn(f"[worker-{number} psubd.daemon#info] psubd", output)
        os.killpg(crew.process.pid, signal.SIGINT)
        self.assertEqual(crew.wait(), -signal.SIGINT)
        self.assertNotIn("Traceback", crew.output())

    def test_killed(self) -> None:
        """kill -9 of one: the port goes on, the worker comes back as the same node, and nothing that was answered is lost."""
        crew = self.ready(self.crew())
        tenant = self.tenant(crew)
        traffic = Publishing(crew, tenant, self.orders)
        traffic.start()
        self.addCleanup(traffic.finish)
        self.until(lambda: len(traffic.acked) > 20, "some messages")
        node, pid = crew.worker(1, "node-id"), crew.worker_pid(1)
        os.kill(pid, signal.SIGKILL)
        seen = len(traffic.acked)
        self.until(lambda: len(traffic.acked) > seen + 20, "messages after it")
        self.until(lambda: crew.worker_pid(1) not in (0, pid) and crew.ready(), "the worker is back")
        seen = len(traffic.acked)
        self.until(lambda: len(traffic.acked) > seen + 20, "messages with both")
        traffic.finish()
        print(f"\n{len(traffic.acked)} published; others: {dict(traffic.others)}")
        self.assertLessEqual(set(traffic.others), {"ConnectionResetError", "RemoteDisconnected"}, traffic.others)
        self.assertEqual(crew.worker(1, "node-id"), node)
        self.assertIn("worker 1 (process", crew.output())
        kept = {message["value"] for message in whole_log(crew.data(**tenant.subscribe), self.orders)}
        self.assertEqual(set(traffic.acked) - kept, set())

    def test_stop(self) -> None:
        """SIGTERM: all end, by that signal as one process does; each connection that began is answered, later ones are refused."""
        crew = self.ready(self.crew())
        tenant = self.tenant(crew)
        traffic = [Publishing(crew, tenant, self.orders) for _ in range(3)]
        for one in traffic:
            one.start()
            self.addCleanup(one.finish)
        self.until(lambda: all(len(one.acked) > 10 for one in traffic), "some messages")
        pids = [crew.worker_pid(number) for number in range(2)]
        begun = time.monotonic()
        self.assertEqual(crew.stop(), -signal.SIGTERM)
        print(f"\nended in {time.monotonic() - begun:.1f} s")
        self.until(lambda: all(one.others["refused"] for one in traffic), "connections are refused")
        for one in traffic:
            one.finish()
            self.assertEqual(set(one.others), {"refused"}, one.others)
        self.assertFalse(any(map(alive, pids)))
        self.assertFalse(os.path.exists(crew.file("ports.json")))
        self.assertIn("with all of its workers", crew.output())
        self.assertNotIn("Traceback", crew.output())

    def test_parent_killed(self) -> None:
        """kill -9 of the process that started them: they drain and end, and the next start on the same folder waits for that."""
        crew = self.ready(self.crew())
        pids = [crew.worker_pid(number) for number in range(2)]
        crew.signal(signal.SIGKILL)
        crew.wait()
        self.ready(crew)
        self.assertFalse(any(map(alive, pids)))
        self.assertEqual(crew.once("GET", "/alive").status, 200)

    def test_cannot_start(self) -> None:
        """A port that one of them cannot have ends all, with the status of that one, and says which."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1] - 1
            crew = self.crew(manager=f"tcp:{port}:interface=127.0.0.1")
            crew.spawn()
            self.assertEqual(crew.wait(), 1)
        self.assertIn(f"manager: 'tcp:{port + 1}:interface=127.0.0.1': cannot listen: Address already in use", crew.output())
        self.assertFalse(alive(crew.worker_pid(0)))
        self.assertFalse(os.path.exists(crew.file("ports.json")))


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
