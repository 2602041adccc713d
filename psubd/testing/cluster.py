"""Several psubd nodes on one ZooKeeper and one Kafka, as processes of this host: for tests, and for a person to try (``make cluster``).

Each node reaches ZooKeeper through a `psubd.testing.zookeeper.Wire` of its own, which a test cuts, and has a wall clock that a test sets.
"""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from psubd.testing.daemon import ADMIN_TOKEN, Daemon, takes_traffic, together
from psubd.testing.kafka import Cluster, die_with_parent, state
from psubd.testing.wall_clock import set_clock
from psubd.testing.zookeeper import Ensemble, Wire

LOOPBACK = "tcp:{}:interface=127.0.0.1"

SESSION_MS = 3_000
"""What a test's nodes ask ZooKeeper for: short, so that a takeover is soon, and long enough for a busy machine's pauses."""

DRAIN_DELAY_MS = 1_000
"""How long a node that is stopping takes requests from a load balancer that has not noticed: on a busy machine, that too."""

FIRST_PORT = 9090
"""Of the nodes for a person: 9090 to 9092, 9190 to 9192, ... where they are free."""

SPAWNER = ThreadPoolExecutor(1, "spawner")
"""Starts processes that end with this one (`die_with_parent`). The kernel ends them with the *thread* that started them: this one lasts."""


class Node(Daemon):
    """One node, with a state folder of its own below ``folder``.

    :param ports: data, manager and peer port; 0: any. :ivar wire: what leads to ZooKeeper. :ivar out: a load balancer leaves it out, since it
        does not answer or is not ready yet.
    """

    def __init__(
        self, name: str, folder: str, ensemble: Ensemble, chroot: str, storage: str, settings: str, ports: Sequence[int] = (0, 0, 0)
    ) -> None:
        self.name = name
        self.out = False
        self.wire = Wire(ensemble.ports[1])
        self.clock = os.path.join(folder, f"{name}.clock")
        config = os.path.join(folder, f"{name}.toml")
        Path(config).write_text(settings)
        set_clock(self.clock, 0)
        listen, manager, peer = (LOOPBACK.format(port) for port in ports)
        registry = f"zk://127.0.0.1:{self.wire.port}{chroot}"
        super().__init__(
            os.path.join(folder, name),
            ("--registry", registry, "--storage", storage, "--peer", peer, "--config", config),
            prepare=die_with_parent,
            twistd=(sys.executable, "-m", "psubd.testing.wall_clock", self.clock),
            endpoints=("--listen", listen, "--manager", manager),
        )

    @property
    def id(self) -> str:
        """Its node id, made at its first start."""
        return Path(self.file("node-id")).read_text().strip()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        """As any daemon; see `SPAWNER`."""
        SPAWNER.submit(super().spawn).result()

    def freeze(self) -> None:
        """SIGSTOP, and wait until no thread runs any more."""
        self.out = True
        self.signal(signal.SIGSTOP)
        tasks, deadline = Path(f"/proc/{self.pid}/task"), time.monotonic() + 10
        while any(state(task) != "T" for task in tasks.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.001)

    def thaw(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)
        self.out = False

    def set_clock(self, ahead_ms: int) -> None:
        """Set its wall clock so far ahead of the host's."""
        set_clock(self.clock, ahead_ms)

    def ready(self) -> bool:
        """Whether it takes traffic."""
        return takes_traffic(self.ports.data)


class Nodes:
    """psubd nodes ``a``, ``b``, ... that share a registry and a storage. A context manager: all are ended at its exit.

    :param storage: ``kafka://...``. :param settings: further lines of the nodes' configuration file, before its tables.
    :param ports: of each node by its number; as of `Node`. :ivar turn: whose turn it is, for all clients that go round.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        storage: str,
        count: int = 3,
        session_ms: int = SESSION_MS,
        settings: str = "",
        tables: str = "",
        ports: Callable[[int], Sequence[int]] = lambda number: (0, 0, 0),
        chroot: str | None = None,
    ) -> None:
        self.ensemble, self.storage, self.session_ms = ensemble, storage, session_ms
        self.chroot = chroot or f"/cluster-{uuid4().hex[:8]}"
        self.folder = tempfile.mkdtemp(prefix="psubd-cluster-")
        self._settings = f"drain_delay_ms = {DRAIN_DELAY_MS}\n{settings}\n[registry.zk]\nsession_timeout_ms = {session_ms}\n{tables}"
        self._ports = ports
        self.all: list[Node] = []
        self.turn = itertools.count()
        for _ in range(count):
            self.new()

    def __enter__(self) -> "Nodes":
        return self.start()

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def new(self) -> Node:
        """One more, not started."""
        number = len(self.all)
        node = Node("abcdefgh"[number], self.folder, self.ensemble, self.chroot, self.storage, self._settings, self._ports(number))
        self.all.append(node)
        return node

    def start(self) -> "Nodes":
        """Start those that do not run, at the same time, and wait until each takes traffic."""
        waiting = [node for node in self.all if not node.running]
        try:
            if waiting:
                together(waiting, Node.start)
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def wait_ready(self) -> None:
        """Wait until each node that runs says that it is ready."""
        for node in self.running:
            node.wait_for(node.ready, "it is not ready")

    def stop(self) -> None:
        """Kill all of them; their folders go."""
        for node in self.all:
            with contextlib.suppress(OSError, ValueError):
                node.thaw()
            node.kill()
            node.wire.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.all if node.name == name)

    @property
    def running(self) -> list[Node]:
        return [node for node in self.all if node.running]

    @property
    def taking(self) -> list[Node]:
        """Those that a load balancer gives requests to."""
        return [node for node in self.running if not node.out]

    def by_key(self, member: str) -> Node:
        """The node with that member key (or that id)."""
        return next(node for node in self.all if member in (node.id, member) and member.startswith(node.id))


def ports_of(number: int) -> tuple[int, int, int]:
    """The ports of a person's node: the usual ones where they are free."""
    wanted = [FIRST_PORT + 100 * number + kind for kind in range(3)]
    return (wanted[0], wanted[1], wanted[2]) if all(map(is_free, wanted)) else (0, 0, 0)


def is_free(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def words(nodes: Nodes) -> str:
    """What a person may type into a shell: register, publish through one node, read through another, kill one."""
    first, second, third = nodes.all
    shown = (f"  {node.name}: data port {node.ports.data}, manager port {node.ports.manager}, process {node.pid}" for node in nodes.all)
    manager, other = (f"http://127.0.0.1:{node.ports.manager}/api/v1" for node in (first, second))
    one, two, three = (f"http://127.0.0.1:{node.ports.data}/v1" for node in nodes.all)
    keep = """python3 -c 'import json, sys; print("\\n".join(f"{name}={key}" for name, key in json.load(sys.stdin).items() if name in KEYS))'"""
    keep = keep.replace("KEYS", '("pubkey", "secret", "subkey")')
    token = """$(python3 -c 'import json; print(json.load(open("/tmp/message.json"))["messages"][0]["ack"])')"""
    return f"""
Three psubd nodes run on one ZooKeeper and one Kafka, until Ctrl-C:
{chr(10).join(shown)}
  ZooKeeper: {nodes.ensemble.url(nodes.chroot)}, Kafka: {nodes.storage}

Register an application and its topic on node {first.name}, bind them on node {second.name}:

  admin() {{ curl -sS -H "Authorization: Bearer {ADMIN_TOKEN}" -H "Content-Type: application/json" "$@"; echo; }}
  eval "$(admin {manager}/applications -d '{{"id": "shop", "name": "Shop"}}' | {keep})"
  admin {manager}/topics -d '{{"id": "orders", "owner": "shop", "partitions": 3}}'
  admin -X PUT {other}/bindings/shop/orders -d '{{"pub": true, "sub": true, "start": "earliest"}}'

Publish through node {first.name}, read through node {second.name}, acknowledge through node {third.name}:

  publish() {{ curl -sS -H "pubkey: $pubkey" -H "secret: $secret" "$@"; echo; }}
  read_on() {{ curl -sS -H "subkey: $subkey" "$@"; echo; }}
  publish {one}/pub/orders -d "a first order"
  read_on "{two}/sub?ack=explicit" | tee /tmp/message.json
  read_on {three}/ack -H "content-type: application/json" -d '{{"tokens": ["'"{token}"'"]}}'

See the nodes, kill one, and go on through the others (what was acknowledged less than half a second before that comes again):

  admin {other}/nodes
  kill -9 {first.pid}
  publish {two}/pub/orders -d "a second order"
  read_on "{three}/sub?timeout=60000"
"""


def main() -> None:
    """ZooKeeper, Kafka and three nodes, until Ctrl-C: ``python -m psubd.testing.cluster``. Their data goes with them."""
    from psubd.testing import kafka, zookeeper

    for reason in (zookeeper.missing(), kafka.missing()):
        if reason is not None:
            raise SystemExit(reason)
    print("ZooKeeper, Kafka and three psubd nodes are starting ...", flush=True)
    ensemble, brokers = Ensemble(), Cluster()
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        stack.callback(ensemble.stop)
        stack.callback(brokers.stop)
        ensemble.start()
        brokers.start()
        nodes = stack.enter_context(Nodes(ensemble, brokers.url, ports=ports_of, chroot="/psubd"))
        print(words(nodes), flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
