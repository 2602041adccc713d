"""The demonstration registers what is missing of it, and nothing else."""

import json
import shlex
import shutil
import tempfile

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from psubd.access.gate import Gate
from psubd.demo import AGAIN_MS, FILE, PATIENCE_MS, Demo, curl_lines
from psubd.errors import BadCredentials
from psubd.folder import StateFolder
from psubd.model import Credentials
from psubd.services.registrar import Registrar
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.registry import MemoryRegistry


class DemoTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = clock = FakeClock()
        self.storage, self.registry = MemoryStorage(clock), MemoryRegistry(clock)
        self.gate = Gate(self.registry, clock)
        self.successResultOf(self.storage.start())
        self.successResultOf(self.registry.start())
        self.gate.start()
        self.registrar = Registrar(self.registry, self.storage, clock, 1 << 20)
        self.folder = StateFolder(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder.path)

    def keys(self) -> dict[str, str]:
        return self.successResultOf(Deferred.fromCoroutine(Demo(self.folder, self.registrar, self.gate, self.clock).keys()))

    def assert_work(self, keys: dict[str, str]) -> None:
        publisher = self.gate.publisher(Credentials(identity=keys["pubkey"], secret=keys["secret"]))
        self.assertTrue(publisher.bindings["demo"].pub)
        bound = self.gate.may_subscribe(self.gate.subscriber(Credentials(subkey=keys["subkey"])), ["demo"])
        self.assertEqual(bound["demo"].start, "earliest")

    def test_first(self) -> None:
        """The application, the topic, the binding and the file."""
        keys = self.keys()
        self.assert_work(keys)
        self.assertEqual(json.loads(self.folder.read(FILE) or ""), {"application": "demo", "topic": "demo", **keys})

    def test_again(self) -> None:
        """At the next start nothing changes."""
        keys, serial = self.keys(), self.registry.snapshot().serial
        self.assertEqual(self.keys(), keys)
        self.assertEqual(self.registry.snapshot().serial, serial)

    def test_lost(self) -> None:
        """A lost file: new keys, and the former ones end."""
        former = self.keys()
        self.folder.remove(FILE)
        self.assert_work(self.keys())
        self.assertRaises(BadCredentials, self.gate.subscriber, Credentials(subkey=former["subkey"]))

    def test_not_whole(self) -> None:
        """A file that is no JSON, no object, or of another shape is as good as lost; one that lacks a key loses that one only."""
        former = self.keys()
        for text in ('{"pubkey": "pk', "[]", "3", '{"secret": 3}', ""):
            self.folder.write(FILE, text)
            self.assert_work(self.keys())
        kept = self.keys()
        self.folder.write(FILE, json.dumps({kind: key for kind, key in kept.items() if kind != "subkey"}))
        keys = self.keys()
        self.assert_work(keys)
        self.assertEqual((keys["pubkey"], keys["secret"]), (kept["pubkey"], kept["secret"]))
        self.assertNotIn(keys["subkey"], (kept["subkey"], former["subkey"]))

    def test_topic_and_binding_gone(self) -> None:
        """What somebody deleted is made again."""
        keys = self.keys()
        self.successResultOf(self.registrar.delete_topic("demo", True, True, "test", None))
        self.assertEqual(self.keys(), keys)
        self.assert_work(keys)
        self.successResultOf(self.registrar.delete_binding("demo", "demo", "test", None))
        self.keys()
        self.assert_work(keys)

    def test_lines(self) -> None:
        """What is typed into a shell; a mode leaves out what it does not serve."""
        keys = {"pubkey": "pk_1", "secret": "ps_2", "subkey": "sk_3"}
        publish, read = (shlex.split(line) for line in curl_lines("http://h:1", ["--insecure"], keys, "pubsub"))
        self.assertEqual((publish[-1], publish[1]), ("http://h:1/v1/pub/demo", "--insecure"))
        self.assertEqual(read, ["curl", "--insecure", "-H", "subkey: sk_3", "http://h:1/v1/sub?topic=demo"])
        self.assertEqual([len(curl_lines("http://h:1", [], keys, mode)) for mode in ("pub", "sub")], [1, 1])
        self.assertIn("/v1/sub", curl_lines("http://h:1", [], keys, "sub")[0])


class ManyNodesTests(SynchronousTestCase):
    """The demonstration on nodes that share a registry: one application, whose keys all of them know."""

    def setUp(self) -> None:
        self.clock = FakeClock()
        self.storage = MemoryStorage(self.clock)
        self.successResultOf(self.storage.start())
        self.registries = [MemoryRegistry(self.clock)]
        self.registries.append(MemoryRegistry(self.clock, beside=self.registries[0]))
        self.nodes = [self.node(registry) for registry in self.registries]

    def node(self, registry: MemoryRegistry) -> Demo:
        self.successResultOf(registry.start())
        gate = Gate(registry, self.clock)
        gate.start()
        folder = StateFolder(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder.path)
        return Demo(folder, Registrar(registry, self.storage, self.clock, 1 << 20), gate, self.clock, registry)

    def begin(self, node: Demo) -> "Deferred[dict[str, str]]":
        return Deferred.fromCoroutine(node.keys())

    def assert_work(self, keys: dict[str, str]) -> None:
        for node in self.nodes:
            publisher = node.gate.publisher(Credentials(identity=keys["pubkey"], secret=keys["secret"]))
            self.assertTrue(publisher.bindings["demo"].pub)
            self.assertIn("demo", node.gate.may_subscribe(node.gate.subscriber(Credentials(subkey=keys["subkey"])), ["demo"]))

    def test_one_after_another(self) -> None:
        """The second node shows the first one's keys, and both go on with them at their next starts."""
        first, second = (self.successResultOf(self.begin(node)) for node in self.nodes)
        self.assertEqual(first, second)
        self.assertEqual([self.successResultOf(self.begin(node)) for node in self.nodes], [first, first])
        self.assert_work(first)
        self.assertEqual(json.loads(self.nodes[1].folder.read(FILE) or "")["secret"], first["secret"])

    def test_at_once(self) -> None:
        """Two that find nothing at the same moment: one makes it, the other waits for its keys."""
        for registry in self.registries:
            registry.held = True
        begun = [self.begin(node) for node in self.nodes]
        for registry in self.registries:
            registry.release()
        for _ in range(4):
            self.clock.advance(AGAIN_MS)
        first, second = map(self.successResultOf, begun)
        self.assertEqual(first, second)
        self.assert_work(first)

    def test_nobody_wrote_them_down(self) -> None:
        """Where the node that made it died before it wrote the keys down, they are made anew after a while."""
        self.successResultOf(self.nodes[0].registrar.create_application("demo", "demo", "test"))
        begun = self.begin(self.nodes[1])
        self.assertNoResult(begun)
        for _ in range(PATIENCE_MS // AGAIN_MS + 1):
            self.clock.advance(AGAIN_MS)
        self.assert_work(self.successResultOf(begun))

    def test_ended(self) -> None:
        """Keys that somebody rotated are made anew by the next start, and the other node takes those."""
        former = self.successResultOf(self.begin(self.nodes[0]))
        self.successResultOf(self.nodes[0].registrar.rotate("demo", "subkey", 0, "test", None))
        begun = self.begin(self.nodes[0])
        for _ in range(PATIENCE_MS // AGAIN_MS + 1):
            self.clock.advance(AGAIN_MS)
        keys = self.successResultOf(begun)
        self.assertNotEqual(keys["subkey"], former["subkey"])
        self.assertEqual(self.successResultOf(self.begin(self.nodes[1])), keys)
        self.assert_work(keys)
