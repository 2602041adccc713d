"""The demonstration registers what is missing of it, and nothing else."""

import json
import shlex
import shutil
import tempfile

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from psubd.access.gate import Gate
from psubd.demo import FILE, Demo, curl_lines
from psubd.errors import BadCredentials
from psubd.folder import StateFolder
from psubd.model import Credentials
from psubd.services.registrar import Registrar
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.registry import MemoryRegistry


class DemoTests(SynchronousTestCase):
    def setUp(self) -> None:
        clock = FakeClock()
        self.storage, self.registry = MemoryStorage(clock), MemoryRegistry(clock)
        self.gate = Gate(self.registry, clock)
        self.successResultOf(self.storage.start())
        self.successResultOf(self.registry.start())
        self.gate.start()
        self.registrar = Registrar(self.registry, self.storage, clock, 1 << 20)
        self.folder = StateFolder(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder.path)

    def keys(self) -> dict[str, str]:
        return self.successResultOf(Deferred.fromCoroutine(Demo(self.folder, self.registrar, self.gate).keys()))

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
