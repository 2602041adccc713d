"""A real Kafka for tests: brokers as processes of the test's own, on loopback ports, gone when the test process is.

The jars come from Maven Central once, into ``~/.cache/psubd-tests/kafka-<version>/`` (`CACHE_VARIABLE` names another folder). Needs Java 17
and Maven; where one is missing the tests that ask for a cluster are skipped with the reason, with ``CI=true`` that is an error.
"""

import atexit
import base64
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import SkipTest

from psubd.testing.certificates import loopback_certificate

VERSION = "4.3.1"
CACHE_VARIABLE = "PSUBD_TEST_CACHE"
START_S = 120
"""Seconds that a broker may take to start: 5 on an idle machine, far more on one that others share."""

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>psubd</groupId><artifactId>kafka-jars</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{VERSION}</version></dependency>
</dependencies></project>
"""

SMALL_JVM = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xss512k")
"""Quick to start and small, at the price of peak speed, which no test asserts."""

CONTROLLER = 100
"""Node id of the controller of a cluster of three: a process of its own, which no failure story kills."""

PASSWORD = "of-the-kafka-tests"

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


class KafkaFailed(Exception):
    """A broker or a tool of Kafka ended, or did not start in time; the message holds the end of what it wrote."""


def missing() -> str | None:
    """Why no Kafka can be started here; None: it can."""
    for program, package in (("java", "a Java 17 runtime"), ("mvn", "Maven")):
        if shutil.which(program) is None and not (program == "mvn" and _fetched(cache()).exists()):
            return f"real Kafka needs {package} on the PATH"
    return None


def need() -> None:
    """Skip the test where no Kafka can be started; with ``CI=true`` fail it."""
    reason = missing()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        raise KafkaFailed(f"{reason}; CI runs these tests")
    raise SkipTest(reason)


def cache() -> Path:
    """The folder of the jars, whether it is there yet or not."""
    home = os.environ.get(CACHE_VARIABLE)
    root = Path(home) if home else Path.home() / ".cache" / "psubd-tests"
    return root / f"kafka-{VERSION}"


def _fetched(folder: Path) -> Path:
    return folder / "lib" / f"kafka_2.13-{VERSION}.jar"


def jars() -> Path:
    """The folder with Kafka's jars, fetched first where they are not there. Safe for processes that ask at the same time."""
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _fetched(folder).exists():
            _fetch(folder)
    return folder / "lib"


def _fetch(folder: Path) -> None:
    (folder / "pom.xml").write_text(POM)
    fresh = folder / "lib.fetching"
    shutil.rmtree(fresh, ignore_errors=True)
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={fresh}", "-DincludeScope=runtime"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    if ended.returncode != 0:
        raise KafkaFailed(f"maven could not fetch Kafka {VERSION}: {(ended.stdout + ended.stderr)[-2000:]}")
    shutil.rmtree(folder / "lib", ignore_errors=True)
    fresh.rename(folder / "lib")


def die_with_parent() -> None:
    """Runs in the child between fork and exec: the kernel kills it when the test process ends, however that ends."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def java(main: str, *arguments: str, heap_mb: int = 128, jvm: Sequence[str] = SMALL_JVM) -> list[str]:
    """The command that runs a class of Kafka's. Of two options that say the same thing in ``jvm`` and here, that of ``jvm`` holds."""
    return ["java", f"-Xmx{heap_mb}m", *jvm, "-cp", f"{jars()}/*", main, *arguments]


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def state(task: Path) -> str:
    """A thread's state (proc(5)): ``T`` where it is stopped, and where it has ended meanwhile."""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "T"


class Node:
    """One Kafka process: a broker, a controller, or both. ``settings`` is its whole ``server.properties``."""

    def __init__(self, folder: Path, settings: Mapping[str, str], heap_mb: int, jvm: Sequence[str] = SMALL_JVM) -> None:
        self.folder, self.settings, self.heap_mb, self.jvm = folder, dict(settings), heap_mb, jvm
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        properties = self.folder / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                java("kafka.Kafka", str(properties), heap_mb=self.heap_mb, jvm=self.jvm),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )

    def send(self, what: signal.Signals) -> None:
        assert self.process is not None, "not started"
        self.process.send_signal(what)

    def freeze(self) -> None:
        """SIGSTOP, and wait until it holds: it reaches a process's threads one after another, and the last of them may still answer."""
        self.send(signal.SIGSTOP)
        assert self.process is not None
        tasks = Path(f"/proc/{self.process.pid}/task")
        deadline = time.monotonic() + 10
        while any(state(task) != "T" for task in tasks.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.001)

    def end(self, what: signal.Signals = signal.SIGKILL) -> None:
        """Send the signal and wait for the process to be gone."""
        if self.process is not None and self.running:
            self.process.send_signal(what)
            self.process.wait(60)

    def check(self) -> None:
        """:raises KafkaFailed: where the process has ended."""
        if self.process is not None and not self.running:
            raise KafkaFailed(f"Kafka ended with {self.process.returncode}: {self.tail()}")

    def tail(self) -> str:
        return (self.folder / "output").read_text(errors="replace")[-3000:]


class Cluster:
    """Kafka with one broker (which is its own controller) or several (with a controller beside them). Broker ids are 1, 2, ...

    :param overrides: settings of ``server.properties`` for every node, over the ones here.
    :param secure: one more listener, of TLS with SASL (`secure_bootstrap`): PLAIN for the user ``psubd`` with the password `PASSWORD`, and
        SCRAM-SHA-512 for users that a test makes.
    :param jvm: options of each node's Java.
    """

    def __init__(self, brokers: int = 1, overrides: Mapping[str, str] | None = None, secure: bool = False, jvm: Sequence[str] = SMALL_JVM) -> None:
        self.count, self.overrides, self.secure, self.jvm = brokers, dict(overrides or {}), secure, tuple(jvm)
        self.cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self.folder = Path(tempfile.mkdtemp(prefix="psubd-kafka-"))
        self.ports = {number: free_port() for number in range(1, brokers + 1)}
        self.controller_port = free_port()
        self.secure_ports = {number: free_port() for number in self.ports} if secure else {}
        self.certificate = loopback_certificate(self.folder)
        self.nodes = {number: self._node(number) for number in self._ids()}

    @property
    def bootstrap(self) -> str:
        """``host:port`` of every broker, between commas."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports.values())

    @property
    def secure_bootstrap(self) -> str:
        """The same of the listeners with TLS and SASL."""
        return ",".join(f"127.0.0.1:{port}" for port in self.secure_ports.values())

    @property
    def url(self) -> str:
        return f"kafka://{self.bootstrap}"

    def start(self) -> "Cluster":
        """Fires up all nodes and returns when every broker answers and knows all the others."""
        atexit.register(self.stop)
        for node in self.nodes.values():
            node.start()
        self.wait_ready()
        return self

    def stop(self) -> None:
        """End all nodes at once; their data goes too."""
        for node in self.nodes.values():
            with contextlib.suppress(Exception):
                node.send(signal.SIGCONT)
            node.end()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.stop)

    def kill(self, broker: int) -> None:
        """``kill -9``, and wait until it is gone."""
        self.nodes[broker].end(signal.SIGKILL)

    def shut_down(self, broker: int) -> None:
        """SIGTERM: it hands over its leaderships first."""
        self.nodes[broker].end(signal.SIGTERM)

    def restart(self, broker: int, wait: bool = True) -> None:
        """Start a broker that was ended, on its port and with its data."""
        self.nodes[broker].start()
        if wait:
            self.wait_ready()

    def pause(self, broker: int) -> None:
        """SIGSTOP: connections stand, nothing answers."""
        self.nodes[broker].freeze()

    def resume(self, broker: int) -> None:
        self.nodes[broker].send(signal.SIGCONT)

    def wait_ready(self, timeout_s: float = START_S) -> None:
        """Wait until every broker that runs answers, and knows of all that run."""
        running = [number for number, node in self.nodes.items() if node.running and number != CONTROLLER]
        deadline = time.monotonic() + timeout_s
        while not all(known_brokers(self.ports[number]) >= set(running) for number in running):
            for number in running:
                self.nodes[number].check()
            if time.monotonic() > deadline:
                tails = "\n".join(node.tail() for node in self.nodes.values())
                raise KafkaFailed(f"not ready after {timeout_s} s: {tails}")
            time.sleep(0.1)

    def tool(self, main: str, *arguments: str, feed: str | bytes = b"", timeout_s: float = 120) -> str:
        """Run a class of Kafka's tools against the cluster; what it wrote to its standard output.

        ``--bootstrap-server`` is added. :raises KafkaFailed: where it ends with another status than 0.
        """
        command = java(main, "--bootstrap-server", self.bootstrap, *arguments)
        ended = subprocess.run(
            command, input=feed.encode() if isinstance(feed, str) else feed, capture_output=True, timeout=timeout_s, preexec_fn=die_with_parent
        )
        if ended.returncode != 0:
            raise KafkaFailed(f"{main} ended with {ended.returncode}: {ended.stdout[-2000:]!r} {ended.stderr[-2000:]!r}")
        return ended.stdout.decode()

    def topics(self, *arguments: str) -> str:
        """``kafka-topics.sh``."""
        return self.tool("org.apache.kafka.tools.TopicCommand", *arguments)

    def groups(self, *arguments: str) -> str:
        """``kafka-consumer-groups.sh``."""
        return self.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", *arguments)

    def console_producer(self, topic: str, lines: Sequence[str], *arguments: str) -> None:
        """``kafka-console-producer.sh``: one record a line."""
        feed = "".join(f"{line}\n" for line in lines)
        self.tool("org.apache.kafka.tools.ConsoleProducer", "--topic", topic, *arguments, feed=feed)

    def console_consumer(self, topic: str, count: int, *arguments: str) -> list[str]:
        """``kafka-console-consumer.sh`` from the beginning: the lines of ``count`` records."""
        main = "org.apache.kafka.tools.consumer.ConsoleConsumer"
        read = self.tool(main, "--topic", topic, "--from-beginning", "--max-messages", str(count), "--timeout-ms", "60000", *arguments)
        return read.splitlines()

    def _ids(self) -> list[int]:
        brokers = list(self.ports)
        return brokers if self.count == 1 else [CONTROLLER, *brokers]

    def _node(self, number: int) -> Node:
        folder = self.folder / str(number)
        (folder / "data").mkdir(parents=True)
        settings = {**self._shared_settings(), **self._own_settings(number, folder), **self.overrides}
        self._format(folder / "data", number)
        return Node(folder, settings, heap_mb=192 if number == CONTROLLER else 448, jvm=self.jvm)

    def _shared_settings(self) -> dict[str, str]:
        copies, at_least = str(min(3, self.count)), str(min(2, self.count))
        controller = 1 if self.count == 1 else CONTROLLER
        return {
            "controller.quorum.voters": f"{controller}@127.0.0.1:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL",
            "inter.broker.listener.name": "PLAINTEXT",
            "default.replication.factor": copies,
            "min.insync.replicas": at_least,
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": at_least,
            "transaction.state.log.num.partitions": "2",
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": at_least,
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
            "log.cleaner.dedupe.buffer.size": "4194304",
            "log.cleaner.backoff.ms": "200",
            "log.retention.check.interval.ms": "500",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "replica.lag.time.max.ms": "5000",
        }

    def _own_settings(self, number: int, folder: Path) -> dict[str, str]:
        own = {"node.id": str(number), "log.dirs": str(folder / "data")}
        control = f"CONTROLLER://127.0.0.1:{self.controller_port}"
        if number == CONTROLLER:
            return {**own, "process.roles": "controller", "listeners": control}
        plain = f"PLAINTEXT://127.0.0.1:{self.ports[number]}"
        if self.secure:
            plain += f",SECURE://127.0.0.1:{self.secure_ports[number]}"
            own |= self._secure_settings()
        if self.count == 1:
            return {**own, "process.roles": "broker,controller", "listeners": f"{plain},{control}", "advertised.listeners": plain}
        return {**own, "process.roles": "broker", "listeners": plain, "advertised.listeners": plain}

    def _secure_settings(self) -> dict[str, str]:
        modules = "org.apache.kafka.common.security"
        return {
            "listener.name.secure.ssl.keystore.type": "PEM",
            "listener.name.secure.ssl.keystore.location": str(self.certificate.both),
            "listener.name.secure.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.secure.plain.sasl.jaas.config": f'{modules}.plain.PlainLoginModule required user_psubd="{PASSWORD}";',
            "listener.name.secure.scram-sha-512.sasl.jaas.config": f"{modules}.scram.ScramLoginModule required;",
        }

    def _format(self, data: Path, number: int) -> None:
        """What ``kafka-storage format`` leaves behind. The tool runs once for each version; after that its file is copied."""
        directory = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        (data / "meta.properties").write_text(f"cluster.id={self.cluster_id}\ndirectory.id={directory}\nnode.id={number}\nversion=1\n")
        shutil.copy(bootstrap_checkpoint(), data / "bootstrap.checkpoint")


def bootstrap_checkpoint() -> Path:
    """The feature levels that a new cluster begins with, as Kafka's StorageTool writes them; kept in the cache."""
    jars()
    kept = cache() / "bootstrap.checkpoint"
    if kept.exists():
        return kept
    with tempfile.TemporaryDirectory(prefix="psubd-kafka-format-") as folder:
        properties = Path(folder) / "server.properties"
        properties.write_text(
            "node.id=1\nprocess.roles=broker,controller\ncontroller.listener.names=CONTROLLER\n"
            "controller.quorum.voters=1@127.0.0.1:9093\nlisteners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093\n"
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n"
            f"log.dirs={folder}/data\n"
        )
        command = java("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(properties))
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if ended.returncode != 0:
            raise KafkaFailed(f"kafka-storage format: {ended.stdout[-1000:]}{ended.stderr[-1000:]}")
        fresh = cache() / f"bootstrap.checkpoint.{os.getpid()}"
        shutil.copy(Path(folder) / "data" / "bootstrap.checkpoint", fresh)
        fresh.rename(kept)
    return kept


def known_brokers(port: int) -> set[int]:
    """The ids of the brokers that the one at ``port`` knows of; empty where it does not answer. A Metadata request (v1) by hand, so that no
    driver stands between."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as line:
            line.settimeout(5)
            line.sendall(struct.pack(">ihhihi", 14, 3, 1, 1, -1, 0))
            (size,) = struct.unpack(">i", _receive(line, 4))
            body = _receive(line, size)
    except OSError:
        return set()
    (count,) = struct.unpack_from(">i", body, 4)
    at, found = 8, set()
    for _ in range(count):
        number, host = struct.unpack_from(">ih", body, at)
        at += 6 + host + 4
        (rack,) = struct.unpack_from(">h", body, at)
        at += 2 + max(0, rack)
        found.add(number)
    return found


def _receive(line: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = line.recv(count - len(data))
        if not more:
            raise ConnectionError("closed")
        data += more
    return data


SHARED: dict[int, Cluster] = {}


def shared(brokers: int = 1) -> Cluster:
    """The cluster of so many brokers that this test process uses again and again; started at the first call, ended with the process.

    Asking for one of another size ends the present one: a small machine runs one at a time. Skips where Kafka cannot run.
    """
    need()
    for size in [size for size in SHARED if size != brokers]:
        SHARED.pop(size).stop()
    if brokers not in SHARED:
        SHARED[brokers] = Cluster(brokers).start()
    return SHARED[brokers]


def release() -> None:
    """End the shared clusters now."""
    while SHARED:
        SHARED.popitem()[1].stop()


def main() -> None:
    """One broker for a person to try: ``python -m psubd.testing.kafka``. Ends with Ctrl-C, and its data with it."""
    reason = missing()
    if reason is not None:
        raise SystemExit(reason)
    cluster = Cluster()
    with contextlib.suppress(KeyboardInterrupt):
        cluster.start()
        twistd = Path(sys.executable).with_name("twistd")
        print(f"Kafka {VERSION} runs, until Ctrl-C. Give it to psubd:\n\n  {twistd} -n psubd --storage {cluster.url} --demo\n", flush=True)
        signal.pause()
    cluster.stop()


if __name__ == "__main__":
    main()
