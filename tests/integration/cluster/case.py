"""What the tests of several nodes share."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from twisted.trial.unittest import SynchronousTestCase

from psubd.slots import id_of
from psubd.testing import kafka, zookeeper
from psubd.testing.claims import Claims, Turn
from psubd.testing.claims import told as told_of
from psubd.testing.cluster import SESSION_MS, Node, Nodes
from psubd.testing.daemon import Tenant, bind, make_topic, reads, register
from psubd.testing.lease_checker import faults
from psubd.testing.lease_log import Promises
from psubd.testing.nodes_traffic import NodesTraffic
from psubd.testing.readers import HABITS, Habit, Load
from psubd.testing.ring import RoundClient
from tests.integration.process.case import LONG, with_pytest
from tests.integration.process.test_delivery import ATTEMPTS, BACKOFF, KEYS, SHOWN, told

__all__ = ["LONG", "NodesCase", "Story", "end_nodes"]

BROKERS = 3
NOT_NOW = (503, 504)
SHOWN_LOG = 6_000

HASTY = (
    Habit(5, 1000, acks="one"),
    Habit(50, 1500),
    Habit(10, 1000, lines=True),
    Habit(20, 1500, acks="next", nacks=0.05),
    Habit(30, 1000, lines=True, drops=0.2),
    Habit(8, 1000, nacks=0.1, extends=0.1, holds=0.1),
)
"""Subscribers of each topic; all of `HABITS` at full length."""

Story = Callable[[NodesTraffic], Awaitable[None]]

SHARED: list[Nodes] = []
"""The nodes of the module that runs; its ``tearDownModule`` ends them with `end_nodes`."""


def end_nodes() -> None:
    """End the module's nodes. ZooKeeper and Kafka go on, for the next module."""
    while SHARED:
        SHARED.pop().stop()


@with_pytest
@pytest.mark.timeout(1800 if LONG else 600)
class NodesCase(SynchronousTestCase):
    """Three nodes that a module's tests share, as far as they ask for the same. What a test did to them is undone before the next; names are new for
    each test.

    :cvar session_ms: what the nodes ask ZooKeeper for.
    """

    session_ms = SESSION_MS

    def setUp(self) -> None:
        zookeeper.need()
        kafka.need()
        if SHARED and SHARED[0].session_ms != self.session_ms:
            end_nodes()
        if not SHARED:
            begun = time.monotonic()
            SHARED.append(Nodes(zookeeper.shared(1), kafka.shared(BROKERS).url, session_ms=self.session_ms).start())
            print(f"\nZooKeeper, {BROKERS} brokers and three nodes have started in {time.monotonic() - begun:.1f} s")
        self.nodes = SHARED.pop()
        self.nodes.start()
        SHARED.append(self.nodes)
        name = uuid4().hex[:8]
        self.shop, self.orders = f"shop-{name}", f"orders-{name}"

    def bound(self, **settings: Any) -> Tenant:
        """An application with one topic of three partitions, registered through one node and bound through another."""
        first, second, third = (node.manager() for node in self.nodes.all[:3])
        tenant = register(first, self.shop)
        make_topic(second, self.orders, self.shop, partitions=3)
        bind(third, self.shop, self.orders, pub=True, sub=True, start="earliest", **settings)
        self.known_everywhere(tenant, self.orders)
        return tenant

    def known_everywhere(self, tenant: Tenant, *topics: str) -> None:
        """Wait until every node's data port goes by the application's bindings for sub to the topics."""
        for node in self.nodes.running:
            client = node.data(**tenant.subscribe)
            for topic in topics:
                self.until(lambda client=client, topic=topic: reads(client, topic), f"{topic} on {node.name}")
            client.close()

    def until(self, holds: Callable[[], object], what: str, seconds: float = 60) -> float:
        """Wait until ``holds``; how long it took, in seconds."""
        begun = time.monotonic()
        while not holds():
            self.assertLess(time.monotonic() - begun, seconds, f"never came: {what}")
            time.sleep(0.02)
        return time.monotonic() - begun

    def published(self, tenant: Tenant, values: Sequence[str]) -> None:
        """Publish them, each through the next node; a key for each, so that they are spread over the partitions."""
        client = RoundClient(self.nodes, tenant.publish)
        for value in values:
            reply = persist(lambda value=value: client.request("POST", f"/v1/pub/{self.orders}", value.encode(), {"key": value}))
            self.assertEqual(reply.status, 200, reply)

    def names(self) -> dict[str, str]:
        """The nodes' names by id."""
        return {node.id: node.name for node in self.nodes.all if node.running}


def persist(ask: Callable[[], Any], seconds: float = 60) -> Any:
    """An answer that is none of "try again later", or the last that is."""
    until = time.monotonic() + seconds
    while True:
        reply = ask()
        if reply.status not in NOT_NOW or time.monotonic() > until:
            return reply
        time.sleep(0.05)


class TrafficCase(NodesCase):
    """Rough traffic while something happens, and the checker."""

    def loads(self, messages: int) -> tuple[Tenant, Sequence[Load], dict[str, Promises]]:
        """Two topics, ``plain`` and ``strict``, which is ordered and has dead letters: so many messages each, half of them."""
        plain, strict, graves = (f"{name}-{self.shop}" for name in ("plain", "strict", "graves"))
        first, second, third = (node.manager() for node in self.nodes.all[:3])
        tenant = register(first, self.shop)
        for name in (plain, strict, graves):
            make_topic(second, name, self.shop, partitions=3)
        bind(third, self.shop, plain, pub=True, sub=True, start="earliest")
        bind(first, self.shop, graves, sub=True, start="earliest")
        ordering = {"ordered": True, "max_attempts": ATTEMPTS, "dead_letter": graves, "backoff": BACKOFF}
        bind(second, self.shop, strict, pub=True, sub=True, start="earliest", **ordering)
        self.known_everywhere(tenant, plain, strict, graves)
        loads = (Load(plain, messages // 2, KEYS), Load(strict, messages // 2, KEYS, graves, poison=0.005))
        ordered = Promises(ordered=True, max_attempts=ATTEMPTS, backoff_min=BACKOFF["min"], backoff_max=BACKOFF["max"])
        return tenant, loads, {plain: Promises(), strict: ordered}

    def story(self, what: Story, messages: int, seconds: float, seed: int, habits: Sequence[Habit] = HABITS if LONG else HASTY) -> NodesTraffic:
        """Run it, and hold what was seen against the promises."""
        self.at_home()
        tenant, loads, promises = self.loads(messages)
        seen = [len(node.output()) for node in self.nodes.all]
        begun = time.monotonic()
        try:
            with ThreadPoolExecutor(1) as thread:
                traffic = thread.submit(NodesTraffic(self.nodes, tenant, loads, what, seconds, seed, habits).run).result()
        except BaseException:
            self.show_ends()
            raise
        self.report(traffic, time.monotonic() - begun)
        found = []
        for (group, topic), log in traffic.logs.items():
            print(f"  {topic} in {group}: {told(log)}")
            found += [f"{group} {topic} {fault}" for fault in faults(log, promises[topic])]
        broken = "\n".join(node.output()[at:].partition("Traceback")[2][:2000] for node, at in zip(self.nodes.all, seen, strict=False))
        self.assertEqual(traffic.stage.strange[:3], [], broken)
        self.assertFalse(found, f"{len(found)} faults:\n" + "\n".join(found[:SHOWN]) + f"\n{self.turns(traffic)}")
        self.assertFalse(any(traffic.lag.values()), traffic.lag)
        self.assertEqual(broken.strip(), "")
        return traffic

    def at_home(self) -> None:
        """Wait until no slot is on its way any more after what was before."""
        with Claims(self.nodes.ensemble.hosts, self.nodes.chroot) as claims:
            claims.wait_home([node.id for node in self.nodes.running])

    def show_ends(self) -> None:
        """The ends of what the nodes have written, for whoever has to find out what happened."""
        for node in self.nodes.all:
            print(f"\n--- {node.name}, {node.id}, {'running' if node.running else 'ended'}:\n{node.output()[-SHOWN_LOG:]}")

    def report(self, traffic: NodesTraffic, lasted: float) -> None:
        print(f"\n{self.id().rpartition('.')[2]}: {lasted:.1f} s; {dict(traffic.ring.statuses)}; {dict(traffic.stage.figures)}")
        print(f"  {self.turns(traffic)}")
        for node in self.nodes.all:
            answers = [
                (answer.method, answer.target[:30], answer.status, answer.body[:80]) for answer in traffic.ring.unserved if answer.node == node.name
            ]
            print(f"  {node.name}: {len(answers)} not served: {answers[:2]}")

    def turns(self, traffic: NodesTraffic) -> str:
        names: Mapping[str, str] = self.names()
        return "; ".join(f"{group}: {told_of(traffic.claims.turns(group), names)}" for group in traffic.groups)


def owners(turns: Sequence[Turn]) -> list[str]:
    """The node ids that had it, one after another."""
    return [id_of(turn.key) for turn in turns]


def other_than(nodes: Nodes, *out: Node) -> Node:
    """A node that runs and is none of those."""
    return next(node for node in nodes.running if node not in out)
