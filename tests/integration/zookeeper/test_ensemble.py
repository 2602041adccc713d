"""Three servers, of which one is killed or cut off while nodes work."""

from twisted.internet.defer import Deferred

from psubd.errors import RegistryUnavailable
from psubd.interfaces import Change, ISnapshot, Plan, Put
from psubd.registry.zookeeper.registry import ZooKeeperRegistry
from psubd.testing.zookeeper import release
from tests.integration.zookeeper.hosts import ZooKeeperCase


def counted(snapshot: ISnapshot, serial: int) -> Plan:
    """One more."""
    present = snapshot.get("/topics/count")
    return Plan("x", (Put("/topics/count", b"%d" % (1 if present is None else int(present.data) + 1)),))


class Ensembles(ZooKeeperCase):
    """Each begins with three that serve."""

    servers = 3
    settings = {"session_timeout_ms": 6_000}

    def setUp(self) -> None:
        super().setUp()
        for number, server in self.ensemble.servers.items():
            if not server.running:
                self.ensemble.restart(number)
        self.nodes = [self.node() for _ in range(3)]

    def count(self, node: ZooKeeperRegistry) -> "Deferred[Change]":
        return node.change("a", counted)

    def work(self, disturb: int) -> int:
        """Change on all nodes in turn, with the leader killed after ``disturb`` rounds; how many were made."""
        made = 0
        for n in range(disturb * 3):
            if n == disturb:
                self.ensemble.kill(self.ensemble.leader())
            for node in self.nodes:
                try:
                    self.wait(self.count(node))
                except RegistryUnavailable:
                    self.pause(0.1)
                else:
                    made += 1
        return made

    def test_the_leader_is_killed(self) -> None:
        """Under changes: what was answered is there, once; sessions, claims and epochs outlive it, and every node goes on by itself."""
        keys = [node.membership.key for node in self.nodes]
        epochs = [self.wait(node.membership.claim(slot)) for slot, node in enumerate(self.nodes)]
        made = self.work(10)
        for node in self.nodes:
            self.until(lambda node=node: node.trouble() is None, "the connection")
            self.wait(node.sync())
            self.assertEqual(int(node.snapshot().get("/topics/count").data), made)
            self.assertEqual(node.snapshot().serial, made)
        self.assertEqual([node.membership.key for node in self.nodes], keys)
        self.assertEqual([node.membership.epoch_of(slot) for slot, node in enumerate(self.nodes)], epochs)

    def test_no_majority(self) -> None:
        """With two of three gone nothing is written and the lease ends; with one back all goes on."""
        leader = self.ensemble.leader()
        for number in [leader, next(number for number in self.ensemble.ports if number != leader)]:
            self.ensemble.kill(number)
        for node in self.nodes:
            self.until(lambda node=node: node.trouble() is not None, "the trouble")
            with self.assertRaises(RegistryUnavailable):
                self.wait(self.count(node))
        self.ensemble.restart(leader, wait=False)
        for node in self.nodes:
            self.until(lambda node=node: node.trouble() is None, "the connection")
        self.assertEqual(self.wait(self.count(self.nodes[0])).serial, 1)

    def test_a_follower_that_lost_its_leader(self) -> None:
        """A server that goes on answering reads and pings without a leader confirms no lease: only what the leader answers does. The node leaves it
        for another server within its session."""
        leader = self.ensemble.leader()
        follower = next(number for number in self.ensemble.ports if number != leader)
        node = self.node(hosts=f"127.0.0.1:{self.ensemble.ports[follower]}")
        confirmed = node.session.lease.confirmed_ms
        self.until(lambda: node.session.lease.confirmed_ms > confirmed, "a confirmation")
        self.addCleanup(release)
        for number in self.ensemble.ports:
            if number != follower:
                self.ensemble.pause(number)
        self.pause(0.2)
        confirmed = node.session.lease.confirmed_ms
        self.assertEqual(self.ensemble.role(follower), "follower")  # it still thinks so
        self.pause(1.2)
        self.assertEqual(node.session.lease.confirmed_ms, confirmed)
        for number in self.ensemble.ports:
            if number != follower:
                self.ensemble.resume(number)
        self.until(lambda: node.session.lease is not None and node.session.lease.confirmed_ms > confirmed, "the next confirmation")
