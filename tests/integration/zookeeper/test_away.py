"""The registry where ZooKeeper, or the network to it, goes away and comes back."""

from twisted.internet.defer import CancelledError

from psubd.errors import RegistryUnavailable
from psubd.interfaces import Change, Delete, Entry, ISnapshot, Plan, Put
from psubd.registry.zookeeper.client import Set
from psubd.registry.zookeeper.layout import Head, encode_head
from psubd.registry.zookeeper.registry import ZooKeeperRegistry
from psubd.testing.zookeeper import Wire
from tests.integration.zookeeper.hosts import ZooKeeperCase


class Away(ZooKeeperCase):
    """No server answers."""

    def bring_back(self) -> None:
        if not self.ensemble.servers[1].running:
            self.ensemble.restart(1)

    def test_while_it_is_away(self) -> None:
        """What was read is there, nothing can be written, and it says so; all goes on by itself."""
        node = self.node()
        self.wait(self.put(node, Put("/topics/t", b"1")))
        self.addCleanup(self.bring_back)
        self.ensemble.kill(1)
        self.until(lambda: node.trouble() is not None, "the trouble")
        seen = node.seen_ms
        self.assertIn(self.ensemble.hosts, str(node.trouble()))
        self.assertEqual(node.snapshot().get("/topics/t"), Entry(b"1", 1, 1))
        for refused in (self.put(node, Put("/topics/t", b"2")), node.sync()):
            with self.assertRaises(RegistryUnavailable):
                self.wait(refused)
        self.pause(0.3)
        self.assertEqual(node.seen_ms, seen)
        self.ensemble.restart(1)
        self.until(lambda: node.trouble() is None, "the connection")
        self.assertEqual(self.wait(self.put(node, Put("/topics/t", b"2"))).serial, 2)
        self.until(lambda: node.seen_ms > seen, "a snapshot that is known to be current")

    def test_start_while_it_is_away(self) -> None:
        """A start waits, says why, and goes on when there is a server; it can be given up."""
        self.addCleanup(self.bring_back)
        self.ensemble.kill(1)
        node, given_up = self.build(), self.build()
        started, stopped = node.start(), given_up.start()
        self.pause(0.3)
        self.assertFalse(started.called)
        self.assertIn("does not answer yet", str(node.trouble()))
        with self.assertRaises(RegistryUnavailable):
            self.wait(self.put(node, Put("/topics/t", b"2")))
        stopped.cancel()
        with self.assertRaises(CancelledError):
            self.wait(stopped)
        self.ensemble.restart(1)
        self.wait(started)
        self.assertIsNone(node.trouble())

    def test_stopped_while_it_is_away(self) -> None:
        """A stop does not wait for a server."""
        node = self.node()
        self.addCleanup(self.bring_back)
        self.ensemble.kill(1)
        self.wait(node.stop(), timeout=15)
        self.assertEqual(node.trouble(), "the registry is stopped")


class Others(ZooKeeperCase):
    """Another registry in the place of the one that was read."""

    def test_replaced(self) -> None:
        """A node that has read one does not mix the two: it serves what it knows, and says that it wants a restart."""
        node = self.node()
        self.wait(self.put(node, Put("/topics/t", b"1")))
        self.wait(node.session.ask(Set("/", b'{"format": 1, "id": "another", "slots": 256}')))
        node.session.client._line.cut()
        self.until(lambda: "restart psubd" in str(node.trouble()), "the word of it")
        self.assertEqual(node.snapshot().get("/topics/t"), Entry(b"1", 1, 1))
        with self.assertRaises(RegistryUnavailable):
            self.wait(self.put(node, Put("/topics/t", b"2")))

    def test_set_back(self) -> None:
        """A log with a smaller serial than was read (a backup) is not followed either."""
        node = self.node()
        for n in range(3):
            self.wait(self.put(node, Put("/topics/t", b"%d" % n)))
        self.wait(node.session.ask(Set("/log", encode_head(Head()))))
        self.until(lambda: "restart psubd" in str(node.trouble()), "the word of it")
        self.assertEqual(node.snapshot().serial, 3)
        self.flushLoggedErrors()


class Lines(ZooKeeperCase):
    """A node whose line is cut, beside one whose line is whole."""

    def setUp(self) -> None:
        super().setUp()
        self.wire = Wire(self.ensemble.ports[1])
        self.addCleanup(self.wire.close)
        self.other = self.node()
        self.registry = self.node(hosts=f"127.0.0.1:{self.wire.port}")
        self.told: list[Change] = []
        self.registry.listen(self.told.append)

    def agree(self) -> None:
        """Both have the same tree and history."""
        self.wait(self.other.sync())
        self.wait(self.registry.sync())
        first, second = (dict(node._follower.mirror.tree.entries()) for node in (self.registry, self.other))
        self.assertEqual(first, second)
        self.assertEqual(self.registry.snapshot().serial, self.other.snapshot().serial)
        self.assertEqual(self.registry.history(0), self.other.history(0))

    def back(self, node: ZooKeeperRegistry) -> None:
        self.until(lambda: node.trouble() is None, "the connection")

    def test_reset(self) -> None:
        """What was missed is read after it, told in order, and nothing twice."""
        self.wait(self.put(self.registry, Put("/topics/a", b"1")))
        self.wire.cut()
        self.until(lambda: self.registry.trouble() is not None, "the trouble")
        made = [self.wait(self.put(self.other, Put("/topics/a", b"%d" % n), Put(f"/topics/b{n}", b""))) for n in range(3)]
        self.wire.heal()
        self.back(self.registry)
        self.assertEqual(self.told[1:], made)
        self.agree()

    def test_silence(self) -> None:
        """A line on which nothing arrives any more is noticed within the session, though kazoo goes on sending; the watch that was lost with it is
        set again."""
        self.wire.swallow()
        self.until(lambda: self.registry.trouble() is not None, "the trouble")
        self.wait(self.put(self.other, Put("/topics/a", b"1")))
        self.wire.heal()
        self.back(self.registry)
        self.assertEqual(len(self.told), 1)
        self.wait(self.put(self.other, Put("/topics/a", b"2")))
        self.until(lambda: len(self.told) == 2, "the change after the cut")
        self.agree()

    def test_an_answer_that_was_lost(self) -> None:
        """The change was made and its answer lost: it is found in the log, and was made once."""
        self.wire.swallow(requests=False)
        asked = self.put(self.registry, Put("/topics/a", b"mine"), Put("/bindings/x", b""))
        self.until(lambda: self.other.snapshot().serial == 1, "the change at the server")
        self.assertFalse(asked.called)
        self.wire.cut()
        self.wire.heal()
        made = self.wait(asked)
        self.assertEqual((made.serial, made.paths), (1, ("/topics/a", "/bindings/x")))
        self.assertEqual(self.told, [made])
        self.agree()

    def test_a_request_that_was_lost(self) -> None:
        """The change did not reach ZooKeeper: it is planned again on what others did meanwhile."""
        self.wire.swallow()
        asked = self.put(self.registry, Put("/topics/a", b"mine"))
        self.pause(0.2)
        self.wait(self.put(self.other, Put("/topics/a", b"theirs")))
        self.wire.cut()
        self.wire.heal()
        self.assertEqual(self.wait(asked).serial, 2)
        self.assertEqual(self.registry.snapshot().get("/topics/a"), Entry(b"mine", 2, 2))
        self.agree()

    def test_a_request_that_comes_late(self) -> None:
        """The network holds it back until the node has given up the connection: it is made once, whichever way it went."""
        self.wire.hold()
        asked = self.put(self.registry, Put("/topics/a", b"mine"))
        self.until(lambda: self.registry.trouble() is not None, "the trouble")
        self.wire.heal()
        made = self.wait(asked)
        self.assertEqual(self.registry.snapshot().get("/topics/a"), Entry(b"mine", 1, made.serial))
        self.agree()
        self.assertEqual(len(self.other.history(0)), 1)

    def test_a_stop_in_the_middle(self) -> None:
        """Queued changes are refused; the one that was sent is told as what it is: in doubt."""
        self.wire.swallow()
        sent, queued = self.put(self.registry, Put("/topics/a", b"")), self.put(self.registry, Put("/topics/b", b""))
        self.pause(0.1)
        self.wire.cut()
        self.until(lambda: queued.called, "the refusal")
        with self.assertRaises(RegistryUnavailable):
            self.wait(queued)
        stopped = self.registry.stop()
        with self.assertRaises(Exception) as told:
            self.wait(sent)
        self.assertEqual(type(told.exception).__name__, "StorageTimeout")
        self.wait(stopped)

    def test_more_than_the_log_keeps(self) -> None:
        """A node that missed over a thousand changes reads all again; listeners hear which paths differ, and then the changes that are kept."""
        self.wait(self.put(self.registry, Put("/topics/same", b""), Put("/topics/gone", b""), Put("/topics/changed", b"1")))
        self.wire.cut()
        self.until(lambda: self.registry.trouble() is not None, "the trouble")
        self.wait(self.put(self.other, *(Put("/topics/changed", b"2"),), what="x"))
        self.wait(self.put(self.other, Delete("/topics/gone"), Put("/topics/new", b"")))
        asked = [self.put(self.other, Put("/groups/g", b"%d" % n)) for n in range(1_150)]
        for each in asked:
            self.wait(each)
        del self.told[:]
        self.wire.heal()
        self.back(self.registry)
        self.agree()
        self.assertEqual(self.told[0].what, "registry.reloaded")
        self.assertEqual(set(self.told[0].paths), {"/topics/changed", "/topics/gone", "/topics/new", "/groups/g"})
        serials = [change.serial for change in self.told]
        self.assertEqual(serials, list(range(serials[0], self.other.snapshot().serial + 1)))

    def test_traffic_over_a_bad_line(self) -> None:
        """Counts made by both nodes while one's line is cut, again and again, add up: no change is lost, none is made twice."""

        def plan(snapshot: ISnapshot, serial: int) -> Plan:
            present = snapshot.get("/topics/count")
            return Plan("x", (Put("/topics/count", b"%d" % (1 if present is None else int(present.data) + 1)),))

        made = 0
        for n in range(30):
            if n % 6 == 3:
                self.wire.cut()
                self.wire.heal()
            for node in (self.registry, self.other):
                try:
                    self.wait(node.change("a", plan))
                except RegistryUnavailable:
                    continue
                made += 1
        self.back(self.registry)
        self.agree()
        self.assertEqual(int(self.other.snapshot().get("/topics/count").data), made)
        self.assertEqual(self.other.snapshot().serial, made)
