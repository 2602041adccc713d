"""What the rows are measured on: psubd's daemon, the floors and Kafka, as processes of this run on free loopback ports, started where a row first
asks for them and ended by their ids."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psubd
from bench import bodies
from bench.load import LoadFailed, Request, run
from bench.samples import Sample
from psubd.testing import kafka, zookeeper
from psubd.testing.daemon import Client, Daemon, Reply, Tenant, bind, register

ROOT = Path(__file__).resolve().parent.parent
TREE = Path(psubd.__file__).resolve().parent.parent
"""The psubd that is measured: the one that this process imports."""

KAFKA_JVM = ("-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35", "-Xms1G", "-Xmx1G")
"""What Kafka's own start script gives it (kafka-run-class.sh, kafka-server-start.sh)."""

WARM_UP_S = 5.0
"""Twice so long a Kafka that was started here is published to before anything is measured: its Java compiles what is used often."""

PATIENCE_S = 60

BATCH = 5_000
"""Records in a request that fills a topic."""


class NotHere(Exception):
    """A row cannot be measured on this machine, or with this version; the message says why."""


class Served:
    """One running psubd with an application that may publish and subscribe.

    :param fill: a quicker way than psubd to put so many messages of 100 bytes into a topic.
    """

    def __init__(self, daemon: Daemon, name: str, fill: Callable[[str, int], object] | None = None) -> None:
        self.daemon, self.name = daemon, name
        self._fill = fill
        self.tenant = self.registered()
        self.topics: set[str] = set()
        self.contents: dict[str, int] = {}

    def end(self) -> None:
        """End it; its state goes too."""
        self.daemon.kill()
        shutil.rmtree(self.daemon.state, ignore_errors=True)

    @property
    def pid(self) -> int:
        return self.daemon.pid

    @property
    def port(self) -> int:
        return self.daemon.ports.data

    def topic(self, name: str, shared: bool = False, bound: bool = True, **settings: Any) -> str:
        """The topic ``<name>-<storage>`` (``shared``: ``<name>``, which the storages on Kafka have in common), made at the first call, adopted where
        Kafka has it. The application may publish, and subscribe where it is ``bound``. For any thread."""
        full = name if shared else f"{name}-{self.name}"
        if full not in self.topics:
            with closing(self.daemon.manager()) as manager:
                made(manager, {"id": full, "owner": self.tenant.id, **settings})
                if bound:
                    bind(manager, self.tenant.id, full, pub=True, sub=True, start="earliest")
            self.topics.add(full)
        return full

    def another(self, topic: str) -> Tenant:
        """One more application, which may subscribe to the topic."""
        made = self.registered()
        with closing(self.daemon.manager()) as manager:
            bind(manager, made.id, topic, sub=True, start="earliest")
        return made

    def registered(self) -> Tenant:
        """A new application."""
        with closing(self.daemon.manager()) as manager:
            return register(manager, f"bench-{uuid.uuid4().hex[:8]}")

    def publishing(self, topic: str, size: int = 100, **headers: str) -> Request:
        """One message of so many bytes."""
        return Request("POST", "/v1/pub", {"topic.id": topic, **self.tenant.publish, "acks": "all", **headers}, b"x" * size)

    def ask(self, request: Request) -> Reply:
        """Send it once. :raises NotHere: with the answer, where this version does not have it. :raises LoadFailed: where it is refused."""
        with closing(self.daemon.data()) as client:
            reply = client.request(request.method, request.target, request.body or None, request.headers)
        if reply.status in (400, 406) and (reply.status == 406 or reply.json.get("code") == "not_supported"):
            raise NotHere(reply.json.get("detail", "this version does not have it"))
        if reply.status >= 300:
            raise LoadFailed(f"{request.method} {request.target}: {reply.status} {reply.body[:300]!r}")
        return reply

    def filled(self, name: str, messages: int, shared: bool = False) -> str:
        """A topic as of `topic`, with at least so many messages of 100 bytes."""
        topic = self.topic(name, shared)
        if self.contents.get(topic, 0) < messages:
            (self._fill or self.fill)(topic, messages)
            self.contents[topic] = messages
        return topic

    def fill(self, topic: str, messages: int) -> None:
        """Publish so many messages."""
        batch = bodies.batch(bodies.JSON, BATCH)
        request = Request("POST", f"/v1/pub/{topic}/batch", {**self.tenant.publish, "content-type": "application/json"}, batch)
        for _ in range(-(-messages // BATCH)):
            self.ask(request)

    def rewind(self, topic: str) -> None:
        """The application's own group goes back to the topic's first message."""
        with closing(self.daemon.manager()) as manager:
            reply = manager.send("PUT", f"/api/v1/groups/{self.tenant.id}/offsets", {"topic": topic, "to": "earliest"})
        if reply.status != 200:
            raise LoadFailed(f"the group was not reset: {reply}")

    def metric(self, name: str) -> float:
        """The sum of a metric's series."""
        with closing(self.daemon.manager()) as manager:
            lines = manager.request("GET", "/metrics").body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def load(self, script: str, connections: int, seconds: float) -> Sample:
        return run(script, self.port, connections, seconds, self.pid)


def made(manager: Client, topic: dict[str, Any]) -> None:
    """Make the topic, or adopt it. A broker that has to make a thousand partitions may be late with its answer. :raises LoadFailed: it does not."""
    for _ in range(PATIENCE_S):
        reply = manager.send("POST", "/api/v1/topics", topic)
        if reply.status == 201:
            return
        if reply.status not in (409, 503, 504):
            break
        time.sleep(1)
    raise LoadFailed(f"topic {topic['id']}: {reply.status} {reply.json.get('detail')}")


class Floor:
    """A server of `bench.floor`."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "bench.floor", *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=kafka.die_with_parent)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if not said:
            raise NotHere(f"the floor {arguments[0]} does not start; try: {' '.join(command)}")
        self.port = int(said)

    def load(self, script: str, connections: int, seconds: float) -> Sample:
        return run(script, self.port, connections, seconds, self.process.pid)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class House:
    """A context manager: all that it started ends with it.

    :param folder: where state folders go: on a disk, since what is fsynced into memory costs nothing.
    :param bootstrap: a Kafka that is there already; None: one is started.
    """

    def __init__(self, folder: Path, bootstrap: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix="state-", dir=folder)
        self._bootstrap = bootstrap
        self._cluster: kafka.Cluster | None = None
        self._served: Served | None = None
        self._ensemble: zookeeper.Ensemble | None = None
        self._floors: dict[Sequence[str], Floor] = {}
        self._kept: dict[Sequence[str], Served] = {}
        self._warm = False
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None) -> None:
        self.clear()
        self.leave()
        for floor in self._floors.values():
            floor.stop()
        for servers in (self._cluster, self._ensemble):
            if servers is not None:
                servers.stop()
        self._folder.cleanup()

    @property
    def bootstrap(self) -> str:
        """``host:port`` of Kafka. :raises NotHere: where none can be started."""
        if self._bootstrap is None:
            reason = kafka.missing()
            if reason is not None:
                raise NotHere(reason)
            self._cluster = kafka.Cluster(jvm=KAFKA_JVM)
            self._bootstrap = self._cluster.start().bootstrap
        return self._bootstrap

    def psubd(self, storage: str) -> Served:
        """psubd on that storage (``sqlite``, ``memory``, ``kafka``, ``rdkafka``); that of another storage ends."""
        if self._served is None or self._served.name != storage:
            self.leave()
            self._served = self.fresh(storage)
            if self._cluster is not None and not self._warm:
                self._warm = True
                for what in ("roundtrip", "batches"):
                    self.driver(what, "kafka-python", WARM_UP_S)
        return self._served

    def fresh(self, storage: str, options: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Served:
        """One of its own, that the caller ends. :raises NotHere: where it does not start."""
        url = f"{storage}:" if storage in ("sqlite", "memory") else f"{storage}://{self.bootstrap}"
        state = os.path.join(self._folder.name, str(self.number()))
        os.mkdir(state, 0o700)
        daemon = Daemon(state, ["--storage", url, *options], {"PYTHONPATH": str(TREE), **(environ or {})})
        try:
            daemon.start()
            daemon.wait_for(daemon.ready, "it is not ready")
        except AssertionError as refused:
            daemon.kill()
            raise NotHere(f"psubd does not start: {str(refused).strip().splitlines()[-1]}") from None
        return Served(daemon, storage, self._fill if storage in ("kafka", "rdkafka") else None)

    def _fill(self, topic: str, messages: int) -> None:
        self.driver("fill", "confluent", topic=topic, count=messages)

    def kept(self, key: Sequence[str], make: Callable[[], Served]) -> Served:
        """One of a row's own, that lasts through its rounds."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def clear(self) -> None:
        """A row is done: what was kept for it ends."""
        while self._kept:
            self._kept.popitem()[1].end()

    def registry(self) -> str:
        """A fresh registry that nodes share, on ZooKeeper. :raises NotHere: where none can be started."""
        reason = zookeeper.missing()
        if reason is not None:
            raise NotHere(reason)
        if self._ensemble is None:
            self._ensemble = zookeeper.Ensemble().start()
        return self._ensemble.url(f"/bench-{uuid.uuid4().hex[:8]}")

    def number(self) -> int:
        """Another one each time."""
        self._started += 1
        return self._started

    def leave(self) -> None:
        """End the present psubd."""
        if self._served is not None:
            self._served.end()
            self._served = None

    def floor(self, kind: str) -> Floor:
        """``none``, or a Kafka driver: then psubd's topic of the same kind is published to."""
        arguments = (kind,) if kind == "none" else (kind, "--kafka", self.bootstrap, "--topic", self._floor_topic())
        if arguments not in self._floors:
            self._floors[arguments] = Floor(*arguments)
        return self._floors[arguments]

    def driver(self, what: str, driver: str, seconds: float = 0, topic: str = "", partitions: int = 1, count: int = 0) -> Sample:
        """What a driver gives alone (`bench.drivers`). :raises LoadFailed: with its words."""
        command = [sys.executable, "-m", "bench.drivers", what, driver, "--seconds", str(seconds), "--folder", self._folder.name]
        command += ["--partitions", str(partitions), "--count", str(count)]
        if driver != "sqlite":
            command += ["--kafka", self.bootstrap, "--topic", topic or self._floor_topic()]
        ended = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(TREE)}, capture_output=True, text=True, timeout=300)
        if ended.returncode != 0:
            raise LoadFailed(f"{driver} alone: {ended.stderr.strip()[-300:]}")
        return Sample(**json.loads(ended.stdout.splitlines()[-1]))

    def _floor_topic(self) -> str:
        assert self._served is not None, "psubd makes the topic"
        return self._served.topic("floor")
