"""Consumer instances through several nodes, another one for every single request."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable

from psubd.testing.cluster import Node
from psubd.testing.daemon import Client, Reply, Tenant
from psubd.testing.instance_client import InstanceClient, Read
from psubd.testing.ring import RoundClient
from tests.integration.cluster.case import LONG, end_nodes
from tests.integration.cluster.test_ownership import PATIENCE_S, OwnershipCase, tried

MESSAGES = 300 if LONG else 60
ROUNDS = 6 if LONG else 1
QUIET = 3
"""Reads in a row that give nothing, by all instances: then nothing is left."""


def tearDownModule() -> None:
    end_nodes()


class InstancesTests(OwnershipCase):
    group = "readers"

    def setUp(self) -> None:
        super().setUp()
        self.tenant: Tenant = self.bound()

    @property
    def full_name(self) -> str:
        return f"{self.shop}.{self.group}"

    def instance(self, name: str, **settings: str) -> InstanceClient:
        """A new one, asked through the nodes in turn, that reads from the first message and commits itself."""
        made = InstanceClient(tried, RoundClient(self.nodes, self.tenant.subscribe), self.group, name)
        reply = made.create(**{"auto.offset.reset": "earliest", "auto.commit.enable": "false", **settings})
        if reply.status != 409:  # the answer to the first try was lost with its node
            self.done(reply)
            self.assertEqual(reply.json["instance_id"], name)
        self.done(made.subscribe(self.orders), 204)
        return made

    def done(self, reply: Reply, status: int = 200) -> None:
        broken = "\n".join(node.output().partition("Traceback")[2][:3000] for node in self.nodes.all)
        self.assertEqual(reply.status, status, f"{reply}\n{broken}")

    def at(self, node: Node) -> Client:
        return node.data(**self.tenant.subscribe)

    def publish(self, count: int, since: int = 0) -> list[str]:
        values = [f"m{number}" for number in range(since, since + count)]
        self.published(self.tenant, values)
        return values

    def rest(self, instances: Iterable[InstanceClient], commits: bool = False) -> list[Read]:
        """All that comes, until nothing does."""
        found, instances, quiet = list[Read](), list(instances), 0
        until = time.monotonic() + PATIENCE_S
        while quiet < QUIET and time.monotonic() < until:
            came = [read for instance in instances for read in instance.read(300)]
            found += came
            quiet = 0 if came else quiet + 1
            if commits:
                for instance in instances:
                    self.done(instance.commit())
        return found

    def test_round_robin(self) -> None:
        """Made at one node, subscribed at the next, read at the one after and committed at the first: each message comes once, and each commit is in
        Kafka when it is answered."""
        values = self.publish(MESSAGES)
        instance = self.instance("one")
        turns = itertools.cycle(self.nodes.all)
        found: list[Read] = []
        while len(found) < MESSAGES:
            read = instance.through(self.at(next(turns))).read(5_000, max_bytes=60)
            self.assertTrue(read, f"{len(found)} of {MESSAGES} came")
            found += read
            self.done(instance.through(self.at(next(turns))).commit())
            self.assertEqual(self.kept(self.full_name), len(found))
        self.assertEqual(sorted(read.value for read in found), sorted(values))
        self.done(instance.through(self.at(next(turns))).delete(), 204)
        self.assertEqual(instance.through(self.at(next(turns))).commit().json["error_code"], 40403)

    def test_killed(self) -> None:
        """``kill -9`` of the node that serves the group, between two reads: what was committed does not come again, all else does, and the instances
        go on under their ids."""
        values, found = list[str](), list[Read]()
        instances = [self.instance("one"), self.instance("two")]
        for _ in range(ROUNDS):
            values += self.publish(MESSAGES, len(values))
            for instance in instances:
                committed = instance.read(5_000, max_bytes=60)
                self.done(instance.commit())
                found += committed
            begun = [read for instance in instances for read in instance.read(5_000, max_bytes=60)]
            self.assertTrue(found and begun)
            node = self.owner(self.full_name)
            node.kill()
            self.taken_from(self.full_name, node)
            came = self.rest(instances)
            self.assertEqual([read for read in came if read in found], [], "it was committed")
            self.assertEqual([read for read in begun if read not in came], [], "it was not committed")
            for instance in instances:
                self.done(instance.commit())
            found += came
            self.assertEqual(sorted(read.value for read in found), sorted(values))
            self.assertEqual(sorted(partition for instance in instances for partition in instance.partitions()), [0, 1, 2])
            node.start()
        self.assertEqual(self.kept(self.full_name), len(values))

    def test_terminated(self) -> None:
        """SIGTERM of the node that serves the group: positions go along, so that nothing comes twice, and what was read before is committed after."""
        values = self.publish(MESSAGES)
        instance = self.instance("one")
        found = instance.read(5_000, max_bytes=60)
        node = self.owner(self.full_name)
        self.assertEqual(node.stop(), -15)
        found += self.rest([instance])
        self.assertEqual(Counter(read.value for read in found), Counter(values))
        self.done(instance.commit())
        self.assertEqual(self.kept(self.full_name), MESSAGES)

    def test_traffic(self) -> None:
        """Instances that come and go, each committing what it read, while nodes are killed and come back: nothing that was published is left out, and
        nothing comes after its commit was answered."""
        values: list[str] = []
        stop, faults = threading.Event(), list[str]()
        committed: dict[Read, float] = {}
        perhaps: set[str] = set()  # the commit was done, and its answer lost with its node: then it is refused when it is asked for again
        lock = threading.Lock()

        def reader(number: int) -> None:
            try:
                while not stop.is_set():
                    instance = self.instance(f"i{number}-{time.monotonic_ns()}")
                    for _ in range(8):
                        asked = time.monotonic()
                        read = instance.read(500, max_bytes=200)
                        again = [each for each in read if committed.get(each, asked) < asked]
                        faults.extend(f"{each} came after its commit" for each in again)
                        reply = instance.commit()
                        if reply.status == 200:
                            with lock:
                                committed.update((each, time.monotonic()) for each in read if each not in committed)
                        elif reply.json["error_code"] in (40403, 40903):
                            perhaps.update(each.value for each in read)
                        else:
                            faults.append(str(reply))
                    instance.delete()
            except Exception as broke:
                faults.append(repr(broke))

        threads = [threading.Thread(target=reader, args=(number,), daemon=True) for number in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(ROUNDS):
            values += self.publish(MESSAGES, len(values))
            node = self.owner(self.full_name)
            node.kill()
            values += self.publish(MESSAGES // 3, len(values))
            node.start()
        self.until(lambda: faults or {read.value for read in committed} | perhaps == set(values), "all of it committed", PATIENCE_S)
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        self.assertEqual(faults, [])
        self.assertEqual(self.rest([self.instance("last")]), [])
        self.assertLess(len(perhaps), len(values) // 2)
        print(f"\n{len(values)} messages, {len(committed)} places committed, {len(perhaps)} perhaps")
