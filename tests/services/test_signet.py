"""The secret of tokens and seals: one for all nodes, shown by nothing."""

from base64 import b64decode

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import RegistryUnavailable
from psubd.interfaces import Plan, Put
from psubd.services.signet import PATH, Signet
from psubd.testing.clock import FakeClock
from psubd.testing.registry import MemoryRegistry


class SignetTestCase(SynchronousTestCase):
    def setUp(self):
        self.clock = FakeClock()
        self.registry = MemoryRegistry(self.clock)
        self.successResultOf(self.registry.start())
        self.signet = Signet(self.registry)

    def put(self, data):
        self.successResultOf(self.registry.change("test", lambda snapshot, serial: Plan("test", (Put(PATH, data),))))

    def kept(self):
        return self.registry.snapshot().get(PATH)


class OpenTests(SignetTestCase):
    def test_makes_it_once(self):
        """It is made where it is absent; who opens it again writes nothing."""
        self.successResultOf(self.signet.open())
        self.successResultOf(self.signet.open())
        self.successResultOf(Signet(self.registry).open())
        self.assertEqual((self.kept().version, self.registry.snapshot().serial), (1, 1))
        self.assertEqual(len(b64decode(msgspec.json.decode(self.kept().data))), 32)

    def test_the_first_of_two_nodes_wins(self):
        """Two nodes that make it at once have the same afterwards: that of the first."""
        self.registry.held = True
        other = Signet(self.registry)
        opened = [self.signet.open(), other.open()]
        self.registry.release()
        for each in opened:
            self.successResultOf(each)
        self.assertEqual(self.kept().version, 1)
        self.assertEqual(self.signet.mac(b"p", b"data"), other.mac(b"p", b"data"))

    def test_it_outlives_a_restart(self):
        """What was made with it before the node restarted counts after."""
        self.successResultOf(self.signet.open())
        past = MemoryRegistry(self.clock, past=self.registry)
        again = Signet(past)
        self.successResultOf(past.start())
        self.successResultOf(again.open())
        self.assertEqual(again.mac(b"p", b"data"), self.signet.mac(b"p", b"data"))

    def test_no_registry(self):
        """Where the registry cannot be written it is not made, and that is told; the next try makes it."""
        self.registry.refuse = RegistryUnavailable("away")
        self.failureResultOf(self.signet.open(), RegistryUnavailable)
        self.assertRaises(RegistryUnavailable, self.signet.mac, b"p", b"data")
        self.registry.refuse = None
        self.successResultOf(self.signet.open())
        self.assertEqual(len(self.signet.mac(b"p", b"data")), 16)


class MacTests(SignetTestCase):
    def test_purposes_are_apart(self):
        """What was made for one purpose is nothing for another; the same gives the same; another registry's differs."""
        other = MemoryRegistry(self.clock)
        self.successResultOf(other.start())
        stranger = Signet(other)
        for signet in (self.signet, stranger):
            self.successResultOf(signet.open())
        macs = [self.signet.mac(b"lease", b"x"), self.signet.mac(b"letter", b"x"), self.signet.mac(b"lease", b"y"), stranger.mac(b"lease", b"x")]
        self.assertEqual(len(set(macs)), 4)
        self.assertEqual(self.signet.mac(b"lease", b"x"), macs[0])

    def test_what_is_kept_must_be_one(self):
        """Anything but 32 bytes of base64 is refused: a short or empty secret would be guessed."""
        for data in (b"", b"null", b'""', b'"YQ=="', b"[1]", b'"' + b"A" * 42 + b'!="', b"\xff"):
            self.put(data)
            told = self.assertRaises(RegistryUnavailable, Signet(self.registry).mac, b"p", b"data")
            self.assertNotIn("AAAA", told.detail)
            self.failureResultOf(Signet(self.registry).open(), RegistryUnavailable)


class SecrecyTests(SignetTestCase):
    def test_nothing_shows_it(self):
        """It is not in the signet's repr, in the audit of the change that made it, nor in an error."""
        self.successResultOf(self.signet.open())
        self.signet.mac(b"p", b"data")
        secret = msgspec.json.decode(self.kept().data)
        shown = [repr(self.signet), str(self.signet), repr(self.registry.history(0)), msgspec.json.encode(self.registry.history(0)).decode()]
        for text in shown:
            self.assertNotIn(secret, text)
            self.assertNotIn(repr(b64decode(secret)), text)
        self.assertEqual([(change.what, change.paths) for change in self.registry.history(0)], [("signet.made", (PATH,))])
