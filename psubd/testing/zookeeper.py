"""A real ZooKeeper for tests: servers as processes of the test's own, on loopback ports, gone when the test process is.

The jars come from Maven Central once, into ``~/.cache/psubd-tests/zookeeper-<version>/`` (`psubd.testing.kafka.CACHE_VARIABLE` names another
folder). Needs Java 17 and Maven; where one is missing the tests that ask for an ensemble are skipped with the reason, with ``CI=true`` that is
an error. `Wire` is the network between psubd and a server: it can be cut.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from unittest import SkipTest

from psubd.testing.certificates import loopback_certificate
from psubd.testing.kafka import CACHE_VARIABLE, SMALL_JVM, Node, die_with_parent, free_port

VERSION = "3.9.5"
START_S = 60
"""Seconds that a server may take to start: 2 on an idle machine, far more on one that others share."""

TICK_MS = 500
"""ZooKeeper's unit of time in tests. It grants sessions of `MIN_SESSION_MS` to `MAX_SESSION_MS`, and looks for ended ones once a tick."""

MIN_SESSION_MS, MAX_SESSION_MS = 1_000, 60_000

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>psubd</groupId><artifactId>zookeeper-jars</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>
<dependency><groupId>org.apache.zookeeper</groupId><artifactId>zookeeper</artifactId><version>{VERSION}</version></dependency>
<dependency><groupId>io.dropwizard.metrics</groupId><artifactId>metrics-core</artifactId><version>4.1.12.1</version></dependency>
<dependency><groupId>org.xerial.snappy</groupId><artifactId>snappy-java</artifactId><version>1.1.10.5</version></dependency>
</dependencies></project>
"""
"""The last two are not among ZooKeeper's own dependencies, and without them the server does not start."""


class ZooKeeperFailed(Exception):
    """A server ended, or did not start in time; the message holds the end of what it wrote."""


def missing() -> str | None:
    """Why no ZooKeeper can be started here; None: it can."""
    for program, package in (("java", "a Java 17 runtime"), ("mvn", "Maven")):
        if shutil.which(program) is None and not (program == "mvn" and _fetched(cache()).exists()):
            return f"real ZooKeeper needs {package} on the PATH"
    return None


def need() -> None:
    """Skip the test where no ZooKeeper can be started; with ``CI=true`` fail it."""
    reason = missing()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        raise ZooKeeperFailed(f"{reason}; CI runs these tests")
    raise SkipTest(reason)


def cache() -> Path:
    """The folder of the jars, whether it is there yet or not."""
    home = os.environ.get(CACHE_VARIABLE)
    return (Path(home) if home else Path.home() / ".cache" / "psubd-tests") / f"zookeeper-{VERSION}"


def _fetched(folder: Path) -> Path:
    return folder / "lib" / f"zookeeper-{VERSION}.jar"


def jars() -> Path:
    """The folder with ZooKeeper's jars, fetched first where they are not there. Safe for processes that ask at the same time."""
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
        raise ZooKeeperFailed(f"maven could not fetch ZooKeeper {VERSION}: {(ended.stdout + ended.stderr)[-2000:]}")
    shutil.rmtree(folder / "lib", ignore_errors=True)
    fresh.rename(folder / "lib")


class Server(Node):
    """One ZooKeeper process. ``settings`` is its whole ``zoo.cfg``; ``jvm`` are further arguments of Java's."""

    def __init__(self, folder: Path, settings: Mapping[str, str], jvm: tuple[str, ...] = (), heap_mb: int = 256) -> None:
        super().__init__(folder, settings, heap_mb)
        self.jvm = jvm

    def start(self) -> None:
        config = self.folder / "zoo.cfg"
        config.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                ["java", f"-Xmx{self.heap_mb}m", *SMALL_JVM, *self.jvm, "-cp", f"{jars()}/*", main, str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )

    def check(self) -> None:
        if self.process is not None and not self.running:
            raise ZooKeeperFailed(f"ZooKeeper ended with {self.process.returncode}: {self.tail()}")


class Ensemble:
    """ZooKeeper with one server or several. They are numbered 1, 2, ...

    What is written is handed to the operating system and not synced: a server that is killed keeps it, the machine's end would not.

    :param overrides: settings of ``zoo.cfg`` for every server, over the ones here.
    :param secure: one more port with TLS (`secure_hosts`), which takes the certificate of `certificate` from clients too.
    :param jvm: further arguments of Java's.
    """

    def __init__(self, servers: int = 1, overrides: Mapping[str, str] | None = None, secure: bool = False, jvm: tuple[str, ...] = ()) -> None:
        self.count, self.overrides, self.secure = servers, dict(overrides or {}), secure
        self.folder = Path(tempfile.mkdtemp(prefix="psubd-zookeeper-"))
        self.ports = {number: free_port() for number in range(1, servers + 1)}
        self.secure_ports = {number: free_port() for number in self.ports} if secure else {}
        self.certificate = loopback_certificate(self.folder)
        peers = {f"server.{number}": f"127.0.0.1:{free_port()}:{free_port()}" for number in self.ports} if servers > 1 else {}
        self.servers = {number: self._server(number, peers, jvm) for number in self.ports}

    @property
    def hosts(self) -> str:
        """``host:port`` of every server, between commas."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports.values())

    @property
    def secure_hosts(self) -> str:
        """The same of the ports with TLS."""
        return ",".join(f"127.0.0.1:{port}" for port in self.secure_ports.values())

    def url(self, chroot: str = "/psubd") -> str:
        """What ``--registry`` takes."""
        return f"zk://{self.hosts}{chroot}"

    def start(self) -> "Ensemble":
        """Fires up all servers, and returns when all of them serve."""
        atexit.register(self.stop)
        for server in self.servers.values():
            server.start()
        self.wait_ready()
        return self

    def stop(self) -> None:
        """End all servers at once; their data goes too."""
        for server in self.servers.values():
            with contextlib.suppress(Exception):
                server.send(signal.SIGCONT)
            server.end()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.stop)

    def kill(self, number: int) -> None:
        """``kill -9``, and wait until it is gone."""
        self.servers[number].end(signal.SIGKILL)

    def restart(self, number: int, wait: bool = True) -> None:
        """Start a server that was killed, on its port and with its data."""
        self.servers[number].start()
        if wait:
            self.wait_ready()

    def pause(self, number: int) -> None:
        """SIGSTOP: connections stand, nothing answers."""
        self.servers[number].freeze()

    def resume(self, number: int) -> None:
        """SIGCONT."""
        self.servers[number].send(signal.SIGCONT)

    def wait_ready(self, timeout_s: float = START_S) -> None:
        """Wait until every server that runs serves."""
        running = [number for number, server in self.servers.items() if server.running]
        deadline = time.monotonic() + timeout_s
        while not all(self.role(number) for number in running):
            for number in running:
                self.servers[number].check()
            if time.monotonic() > deadline:
                tails = "\n".join(server.tail() for server in self.servers.values())
                raise ZooKeeperFailed(f"not ready after {timeout_s} s: {tails}")
            time.sleep(0.05)

    def role(self, number: int) -> str | None:
        """``standalone``, ``leader`` or ``follower``; None: it does not serve."""
        said = four_letters(self.ports[number], "srvr")
        return next((line.partition(": ")[2] for line in said.splitlines() if line.startswith("Mode:")), None)

    def leader(self) -> int:
        """The number of the server that leads."""
        return next(number for number in self.ports if self.role(number) in ("leader", "standalone"))

    def _server(self, number: int, peers: Mapping[str, str], jvm: tuple[str, ...]) -> Server:
        folder = self.folder / str(number)
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "myid").write_text(f"{number}\n")
        settings = {**self._settings(number, folder), **peers, **self.overrides}
        return Server(folder, settings, ("-Dzookeeper.forceSync=no", "-Dzookeeper.skipACL=no", *jvm))

    def _settings(self, number: int, folder: Path) -> dict[str, str]:
        return {
            "dataDir": str(folder / "data"),
            "clientPort": str(self.ports[number]),
            "clientPortAddress": "127.0.0.1",
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "*",
            "tickTime": str(TICK_MS),
            "initLimit": "20",
            "syncLimit": "4",
            "minSessionTimeout": str(MIN_SESSION_MS),
            "maxSessionTimeout": str(MAX_SESSION_MS),
            "maxClientCnxns": "0",
            "autopurge.purgeInterval": "0",
            **(self._secure_settings(number) if self.secure else {}),
        }

    def _secure_settings(self, number: int) -> dict[str, str]:
        return {
            "secureClientPort": str(self.secure_ports[number]),
            "secureClientPortAddress": "127.0.0.1",
            "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
            "ssl.keyStore.location": str(self.certificate.both),
            "ssl.keyStore.type": "PEM",
            "ssl.trustStore.location": str(self.certificate.certificate),
            "ssl.trustStore.type": "PEM",
            "ssl.hostnameVerification": "false",
        }


def four_letters(port: int, word: str) -> str:
    """What the server says to one of its commands (``srvr``, ``dump``, ``wchs``, ...); nothing where it does not answer."""
    said = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as line:
        line.settimeout(2)
        line.sendall(word.encode())
        while more := line.recv(65536):
            said += more
    return said.decode("utf-8", "replace")


class Wire:
    """A TCP proxy to a port of this machine, on threads of its own: the network that a test cuts.

    As begun it carries bytes. `cut` resets every connection and refuses new ones. `swallow` leaves connections open, and what is sent is
    lost without a word, or only what goes one way. `hold` keeps what is sent, and `heal` lets it arrive late. `heal` carries again; connections
    that lost bytes are reset then, since the stream behind them is broken.

    :ivar port: where to connect to.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._mode = threading.Condition()
        self._lost: frozenset[str] = frozenset()
        self._held = self._refusing = self._closed = False
        self._pairs: set[Pair] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="wire", daemon=True).start()

    def cut(self) -> None:
        """Reset all connections; refuse new ones until `heal`."""
        with self._mode:
            self._refusing = True
            for pair in list(self._pairs):
                pair.reset()

    def swallow(self, *, requests: bool = True, answers: bool = True) -> None:
        """Lose what is sent to the server (``requests``), to the client (``answers``), without closing anything. New connections are lost too."""
        with self._mode:
            self._lost = frozenset((["up"] if requests else []) + (["down"] if answers else []))

    def hold(self) -> None:
        """Keep what is sent until `heal`."""
        with self._mode:
            self._held = True

    def heal(self) -> None:
        """Carry bytes again."""
        with self._mode:
            self._lost, self._held, self._refusing = frozenset(), False, False
            for pair in list(self._pairs):
                if pair.broken:
                    pair.reset()
            self._mode.notify_all()

    def close(self) -> None:
        """End it, with its connections."""
        self.cut()
        with self._mode:
            self._closed, self._held = True, False
            self._mode.notify_all()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def connections(self) -> int:
        """How many stand."""
        return len(self._pairs)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                Pair.end(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                Pair.end(client)
                continue
            server.settimeout(None)
            pair = Pair(client, server)
            with self._mode:
                self._pairs.add(pair)
            for way, source, sink in (("up", client, server), ("down", server, client)):
                threading.Thread(target=self._carry, args=(pair, way, source, sink), name=f"wire-{way}", daemon=True).start()

    def _carry(self, pair: "Pair", way: str, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._mode:
                    self._mode.wait_for(lambda: not self._held)
                    if way in self._lost:
                        pair.broken = True
                        continue
                sink.sendall(data)
        pair.reset()
        with self._mode:
            self._pairs.discard(pair)


class Pair:
    """The two ends of one connection through a `Wire`. ``broken``: bytes of it were lost."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.broken = False

    def reset(self) -> None:
        """Close both ends with a reset. Repeating it does nothing."""
        self.end(self.client)
        self.end(self.server)

    @staticmethod
    def end(line: socket.socket) -> None:
        with contextlib.suppress(OSError):
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RD)  # wakes the thread that reads it
            line.close()


SHARED: dict[int, Ensemble] = {}


def shared(servers: int = 1) -> Ensemble:
    """The ensemble of so many servers that this test process uses again and again; started at the first call, ended with the process.

    Asking for one of another size ends the present one: a small machine runs one at a time. Skips where ZooKeeper cannot run.
    """
    need()
    for size in [size for size in SHARED if size != servers]:
        SHARED.pop(size).stop()
    if servers not in SHARED:
        SHARED[servers] = Ensemble(servers).start()
    return SHARED[servers]


def release() -> None:
    """End the shared ensembles now."""
    while SHARED:
        SHARED.popitem()[1].stop()


def main() -> None:
    """One server for a person to try: ``python -m psubd.testing.zookeeper``. Ends with Ctrl-C, and its data with it."""
    reason = missing()
    if reason is not None:
        raise SystemExit(reason)
    ensemble = Ensemble()
    with contextlib.suppress(KeyboardInterrupt):
        ensemble.start()
        twistd = Path(sys.executable).with_name("twistd")
        print(
            f"ZooKeeper {VERSION} runs, until Ctrl-C. Give it to psubd, with a storage that nodes share (make kafka starts one):\n\n"
            f"  {twistd} -n psubd --registry {ensemble.url()} --storage kafka://127.0.0.1:9092\n",
            flush=True,
        )
        signal.pause()
    ensemble.stop()


if __name__ == "__main__":
    main()
