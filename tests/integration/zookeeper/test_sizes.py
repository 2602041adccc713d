"""Large trees, large values, large changes; what each costs."""

import os
import time
from typing import Any

import msgspec

from psubd.errors import TooLarge
from psubd.interfaces import Delete, Entry, ISnapshot, Plan, Put
from psubd.model import Binding, Bindings
from psubd.registry.zookeeper import layout
from psubd.registry.zookeeper.client import Children, Exists, Get
from psubd.registry.zookeeper.registry import ZooKeeperRegistry
from tests.integration.zookeeper.hosts import ZooKeeperCase

LONG = os.environ.get("PSUBD_LONG") == "1"


class Sizes(ZooKeeperCase):
    def znodes(self, node: ZooKeeperRegistry, below: str) -> dict[str, Any]:
        """The stats of the znodes right below."""
        names, _ = self.wait(node.session.ask(Children(below)))
        paths = [f"{below}/{name}" for name in names]
        return dict(zip(paths, self.wait(node.session.batch(*map(Exists, paths))), strict=True)) if paths else {}

    def test_calls(self) -> None:
        """A change costs a node that hears of it one call for the log and one for each path; making it costs two."""
        a, b = self.node(), self.node()
        self.wait(self.put(a, Put("/topics/t", b"1")))
        self.until(lambda: b.snapshot().serial == 1, "the change")
        self.pause(0.2)
        before = a.session.client.calls, b.session.client.calls
        self.wait(self.put(a, Put("/bindings/x", b"1"), Put("/groups/x", b"1"), Delete("/topics/t")))
        self.until(lambda: b.snapshot().serial == 2, "the change")
        self.pause(0.2)
        self.assertEqual(a.session.client.calls - before[0], 2)
        self.assertEqual(b.session.client.calls - before[1], 3)

    def test_large_values(self) -> None:
        """A value of 1 MiB stands in pieces, none near ZooKeeper's limit; they go when it is written again, and with it."""
        a, b = self.node(), self.node()
        large = [os.urandom(1 << 20) for _ in range(2)]
        for data in large:
            made = self.wait(self.put(a, Put("/bindings/x", data), Put("/bindings/y", data[:100_000])))
            self.until(lambda made=made: b.snapshot().serial == made.serial, "the change", 30)
            self.assertEqual(b.snapshot().get("/bindings/x"), Entry(data, made.serial, made.serial))
            self.assertEqual(b.snapshot().get("/bindings/y").data, data[:100_000])
        self.until(lambda: len(self.znodes(a, layout.BLOBS)) == 5, "the first value's end")
        self.assertLess(max(stat.dataLength for stat in self.znodes(a, layout.BLOBS).values()), 300_000)
        self.assertEqual(self.node().snapshot().get("/bindings/x").data, large[1])
        self.wait(self.put(b, Delete("/bindings/x"), Put("/bindings/y", b"small")))
        self.until(lambda: not self.znodes(a, layout.BLOBS), "the pieces' end")
        self.wait(a.sync())
        self.assertIsNone(a.snapshot().get("/bindings/x"))

    def test_a_change_of_many_paths(self) -> None:
        """Thousands of paths in one change, all or none; past what a transaction takes it is refused, and nothing is written."""
        a, b = self.node(), self.node()
        names = [f"/groups/application-{n}.group" for n in range(3_000)]
        self.wait(self.put(a, *(Put(name, b"{}" * 400) for name in names)))
        self.wait(b.sync())
        self.assertEqual(len(b.snapshot().children("/groups")), 3_000)
        self.assertEqual(b.history(0)[0].paths, tuple(names))
        self.assertEqual(self.node().history(0), b.history(0))
        with self.assertRaises(TooLarge):
            self.wait(self.put(a, *(Put(f"/topics/{'t' * 200}{n}", b"") for n in range(4_000))))
        self.assertEqual(self.wait(self.put(b, *map(Delete, names))).serial, 2)
        self.wait(a.sync())
        self.assertEqual(list(a.snapshot().children("/groups")), [])

    def test_sweep(self) -> None:
        """Pieces that nothing refers to are removed at a start, once they are old enough not to be somebody's next change."""
        from psubd.registry.zookeeper import sweep
        from psubd.registry.zookeeper.client import Create

        node = self.node()
        self.wait(self.put(node, Put("/bindings/x", bytes(100_000))))
        self.wait(node.session.ask(Create(layout.piece("abandoned", 0), b"x")))
        self.pause(0.05)
        self.node()
        self.assertEqual(len(self.znodes(node, layout.BLOBS)), 2)
        self.patch(sweep, "AGE_MS", 10)
        self.assertEqual(len(self.node().snapshot().get("/bindings/x").data), 100_000)
        self.assertEqual(len(self.znodes(node, layout.BLOBS)), 1)

    def test_edited_by_hand(self) -> None:
        """A path that somebody removed with another tool fails the change that meets it; then the tree is read again, and the next one is made."""
        from psubd.errors import RegistryUnavailable
        from psubd.registry.zookeeper.client import Delete as Remove

        node = self.node()
        told = []
        node.listen(told.append)
        self.wait(self.put(node, Put("/topics/t", b"1"), Put("/topics/u", b"1")))
        self.wait(node.session.ask(Remove("/topics/t")))
        with self.assertRaises(RegistryUnavailable):
            self.wait(self.put(node, Put("/topics/t", b"2")))
        self.until(lambda: node.trouble() is None, "the tree")
        self.assertIsNone(node.snapshot().get("/topics/t"))
        self.assertEqual((told[-1].what, told[-1].paths), ("registry.reloaded", ("/topics/t",)))
        self.assertEqual(self.wait(self.put(node, Put("/topics/t", b"3"))).serial, 2)
        self.assertEqual([change.serial for change in node.history(0)], [1, 2])
        self.flushLoggedErrors()

    def test_a_large_tree(self) -> None:
        """10,000 applications with 100,000 bindings (long; else a tenth) are read at a start."""
        count = 10_000 if LONG else 1_000
        writer = self.node()
        self.fill(writer, count)
        begun = time.monotonic()
        reader = self.node()
        print(f"{count} applications, {count * 10} bindings: read in {time.monotonic() - begun:.2f} s, {reader.session.client.calls} calls")
        for root in ("/applications", "/bindings", "/topics", "/groups"):
            self.assertEqual(len(reader.snapshot().children(root)), count if root != "/topics" else count // 10)
        self.assertEqual(sum(len(self.bindings(reader, n).items) for n in range(count)), count * 10)
        self.assertEqual(dict(reader._follower.mirror.tree.entries()), dict(writer._follower.mirror.tree.entries()))
        self.assertIsNotNone(reader.trouble() is None)
        largest = max(stat.dataLength for below in ("/applications", "/bindings", "/log") for stat in self.znodes(reader, below).values())
        self.assertLess(largest, 300_000)
        self.assertLess(len(self.wait(reader.session.ask(Get(layout.LOG)))[0]), 300_000)

    def bindings(self, node: ZooKeeperRegistry, n: int) -> Bindings:
        return msgspec.json.decode(node.snapshot().get(f"/bindings/application-{n}").data, type=Bindings)

    def fill(self, node: ZooKeeperRegistry, count: int) -> None:
        application = msgspec.json.encode({"id": "x" * 20, "keys": ["0" * 64] * 3})
        topics = [f"topic-{n}" for n in range(count // 10)]
        for start in range(0, len(topics), 500):
            self.wait(self.put(node, *(Put(f"/topics/{topic}", b"{}" * 150) for topic in topics[start : start + 500])))
        for start in range(0, count, 250):

            def plan(snapshot: ISnapshot, serial: int, start: int = start) -> Plan:
                writes = []
                for n in range(start, start + 250):
                    name = f"application-{n}"
                    bound = {
                        topic: Binding(name, topic, serial, sub=True, mark="m" * 12) for topic in (topics[(n + k) % len(topics)] for k in range(10))
                    }
                    writes += [
                        Put(f"/applications/{name}", application),
                        Put(f"/bindings/{name}", msgspec.json.encode(Bindings(bound))),
                        Put(f"/groups/{name}", b"{}" * 100),
                    ]
                return Plan("filled", tuple(writes))

            self.wait(node.change("a", plan))
