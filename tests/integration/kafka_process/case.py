"""What the tests of the daemon on Kafka share."""

import http.client
import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from psubd.testing.daemon import Client, Daemon, Tenant
from psubd.testing.kafka import Cluster, need, shared
from tests.integration.process.case import ProcessCase

Place = tuple[int, int]
Messages = list[dict[str, Any]]

NOT_NOW = (503, 504)
PAUSE_S = 0.05


class KafkaProcessCase(ProcessCase):
    """The daemon on the cluster that the tests share. Names are new for each test, since what one leaves in Kafka the next would find.

    :cvar brokers: of the cluster. :cvar settings: of ``[storage.kafka]``. :cvar scheme: of the storage.
    """

    brokers = 1
    settings: Mapping[str, Any] = {}
    scheme = "kafka"

    def setUp(self) -> None:
        super().setUp()
        self.cluster = self.a_cluster()
        self.shop, self.orders = f"shop-{uuid4().hex[:8]}", f"orders-{uuid4().hex[:8]}"

    def a_cluster(self) -> Cluster:
        return shared(self.brokers)

    def own_cluster(self) -> Cluster:
        """One broker that only this test has, not started."""
        from psubd.testing.kafka import release

        need()
        release()
        cluster = Cluster(1)
        self.addCleanup(cluster.stop)
        return cluster

    def kafka_daemon(self, **more: Any) -> Daemon:
        """A daemon on the cluster, not started."""
        path = os.path.join(self.folder, "psubd.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"[storage.{self.scheme}]\n" + "".join(f"{name} = {value!r}\n" for name, value in self.settings.items()))
        return self.daemon("--storage", f"{self.scheme}://{self.cluster.bootstrap}", "--config", path, **more)

    def until(self, holds: Callable[[], object], what: str, seconds: float = 60) -> float:
        """Wait until ``holds``; how long it took, in seconds."""
        begun = time.monotonic()
        while not holds():
            self.assertLess(time.monotonic() - begun, seconds, f"never came: {what}")
            time.sleep(0.02)
        return time.monotonic() - begun

    def in_sync(self) -> bool:
        """Whether Kafka's own tool names no partition whose replicas lag."""
        return not self.cluster.topics("--describe", "--under-replicated-partitions").strip()

    def log(self, daemon: Daemon, tenant: Tenant, topic: str | None = None) -> Messages:
        """The whole topic, read as a replay."""
        client, place, found = daemon.data(**tenant.subscribe), "earliest", []
        while True:
            reply = persist(client, "/v1/sub?" + urlencode({"topic": topic or self.orders, "offset": place, "batchSize": 2000, "timeout": 0}))
            self.assertIn(reply.status, (200, 204), reply)
            if reply.status == 204 or not reply.json["messages"]:
                return found
            found += reply.json["messages"]
            place = reply.json["next"]

    def assert_kept(self, publishing: "Publishing", messages: Messages) -> int:
        """What was answered 200 lies where the answer said; what was answered 503 is not there; nothing else is there but what was answered 504 or
        lost its connection: how many of those."""
        self.assertEqual(publishing.strange, [])
        values = {(message["partition"], message["offset"]): message["value"] for message in messages}
        self.assertEqual(len(values), len(messages), "an offset came twice")
        self.assertEqual(len(set(values.values())), len(values), "a message is there twice")
        missing = {place: value[:40] for place, value in publishing.stored.items() if values.get(place) != value}
        self.assertEqual(missing, {}, "acknowledged, and not there")
        others = set(values.values()) - set(publishing.stored.values())
        self.assertEqual({value[:40] for value in others & publishing.refused}, set(), "refused, and there")
        self.assertLessEqual(others, publishing.unsure, "nobody published that")
        return len(others)

    def assert_order_per_key(self, publishing: "Publishing", messages: Messages) -> None:
        """The acknowledged messages of a key come in the order in which its one publisher sent them."""
        last: dict[str, int] = defaultdict(lambda: -1)
        for message in messages:
            if publishing.stored.get((message["partition"], message["offset"])) == message["value"]:
                number = int(message["value"].partition("#")[0].split("-")[1])
                self.assertGreater(number, last[message["key"]], message["key"])
                last[message["key"]] = number


def persist(client: Client, target: str, told: list[int] | None = None) -> Any:
    """A GET, again and again as long as it is answered 503 or 504, which go into ``told``; for a minute at most."""
    until = time.monotonic() + 60
    while True:
        reply = client.request("GET", target)
        if reply.status not in NOT_NOW or time.monotonic() > until:
            return reply
        if told is not None:
            told.append(reply.status)
        time.sleep(PAUSE_S)


class Publishing:
    """Publishes over several connections at once, a thread each, and keeps what was answered. A message that is answered 503 or 504 is sent again,
    with another value, so that each attempt can be told from the others.

    :param each: messages of a connection; None: until `stop`.

    :ivar stored: what each place was answered to hold. :ivar unsure: values that were answered 504, or not at all. :ivar refused: those answered
        503. :ivar strange: other answers. :ivar slowest: of all answers, in seconds. :ivar broken: connections that ended without an answer.
    """

    def __init__(self, daemon: Daemon, tenant: Tenant, topic: str, connections: int = 8, each: int | None = None, size: int = 1024) -> None:
        self.stored: dict[Place, str] = {}
        self.unsure: set[str] = set()
        self.refused: set[str] = set()
        self.strange: list[Any] = []
        self.slowest = 0.0
        self.broken = 0
        self._daemon, self._tenant, self._topic, self._each, self._size = daemon, tenant, topic, each, size
        self._goes_on = True
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._connection, args=(number,), daemon=True) for number in range(connections)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> "Publishing":
        self._goes_on = False
        return self.wait()

    def wait(self) -> "Publishing":
        """Until each connection has sent all, and every answer is there."""
        for thread in self._threads:
            thread.join(180)
            assert not thread.is_alive(), "a publish was never answered"
        return self

    def _connection(self, number: int) -> None:
        client, n, attempt = self._daemon.data(**self._tenant.publish), 0, 0
        while self._goes_on and (self._each is None or n < self._each):
            value = f"{number}-{n}#{attempt}".ljust(self._size, ".")
            status = self._publish(client, value, f"{number}-{n % 25}")
            if status is None:
                return
            if status in NOT_NOW:
                attempt += 1
                time.sleep(PAUSE_S)
            else:
                n, attempt = n + 1, 0

    def _publish(self, client: Client, value: str, key: str) -> int | None:
        begun = time.monotonic()
        try:
            reply = client.request("POST", f"/v1/pub/{self._topic}", value.encode(), {"key": key})
        except (OSError, http.client.HTTPException):
            with self._lock:
                self.unsure.add(value)
                self.broken += 1
            return None
        with self._lock:
            self.slowest = max(self.slowest, time.monotonic() - begun)
            self._note(reply, value)
        return reply.status

    def _note(self, reply: Any, value: str) -> None:
        if reply.status == 200:
            place = reply.json["partition"], reply.json["offset"]
            if place in self.stored:
                self.strange.append(("answered twice", place))
            self.stored[place] = value
        elif reply.status == 503:
            self.refused.add(value)
        elif reply.status == 504:
            self.unsure.add(value)
        else:
            self.strange.append(reply)

    def __str__(self) -> str:
        return f"200: {len(self.stored)}, 503: {len(self.refused)}, 504 or none: {len(self.unsure)}, slowest answer {self.slowest:.2f} s"


class Reading:
    """One subscriber in a thread of its own, which reads until `stop` and then until two answers in a row were empty.

    :ivar messages: in the order in which they came. :ivar told: the answers that were 503 or 504.
    """

    def __init__(self, daemon: Daemon, tenant: Tenant, query: str) -> None:
        self.messages: Messages = []
        self.told: list[int] = []
        self.strange: list[Any] = []
        self._goes_on = True
        self._client, self._target = daemon.data(**tenant.subscribe), f"/v1/sub?{query}"
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def stop(self) -> Messages:
        """All that it got."""
        self._goes_on = False
        self._thread.join(180)
        assert not self._thread.is_alive(), "a poll was never answered"
        assert not self.strange, self.strange
        return self.messages

    def _read(self) -> None:
        empty = 0
        while self._goes_on or empty < 2:
            try:
                reply = persist(self._client, self._target, self.told)
            except (OSError, http.client.HTTPException) as broken:
                self.strange.append(broken)
                return
            if reply.status not in (200, 204):
                self.strange.append(reply)
                return
            empty = empty + 1 if reply.status == 204 else 0
            if reply.status == 200:
                self.messages += reply.json["messages"]


def connections_of(pid: int, ports: set[int]) -> int:
    """TCP connections of a process to these loopback ports, as the kernel has them."""
    own = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            found = re.fullmatch(r"socket:\[([0-9]+)\]", os.readlink(f"/proc/{pid}/fd/{descriptor}"))
        except OSError:
            continue
        if found:
            own.add(found.group(1))
    with open(f"/proc/{pid}/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return sum(1 for row in rows if row[9] in own and row[3] == "01" and int(row[2].rpartition(":")[2], 16) in ports)
