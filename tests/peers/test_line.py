"""What lies beneath, and what the configuration may say of it."""

from pathlib import Path

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import ServerFactory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from psubd.peers.line import Line, Tls, advertised, peer_mistakes, place_of
from psubd.testing.certificates import loopback_certificate


class Lines(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)

    def tls(self) -> Tls:
        made = loopback_certificate(self.folder)
        return Tls(str(made.certificate), str(made.both), str(made.certificate))

    def test_plain_stays_here(self) -> None:
        """Without TLS only this host is dialled, whatever a znode says."""
        line = Line(MemoryReactorClock())
        for address in ("127.0.0.1:9", "[::1]:9", "localhost:9", "127.8.0.1:9"):
            self.assertIsInstance(line.dial(address), HostnameEndpoint)
        for address in ("10.0.0.5:9", "[fd00::5]:9", "db.example:9", "0.0.0.0:9"):
            self.assertIn("over TLS only", str(self.assertRaises(ValueError, line.dial, address)))
        factory = ServerFactory()
        self.assertIs(line.guard(factory), factory)

    def test_tls(self) -> None:
        """With TLS any host is dialled, through TLS, and the listener is wrapped."""
        line = Line(MemoryReactorClock(), self.tls())
        for address in ("10.0.0.5:9", "127.0.0.1:9", "db.example:9"):
            self.assertNotIsInstance(line.dial(address), HostnameEndpoint)
        factory = ServerFactory()
        self.assertIsNot(line.guard(factory), factory)

    def test_addresses(self) -> None:
        """Host and port, or why not."""
        for address, place in (("h:1", ("h", 1)), ("127.0.0.1:65535", ("127.0.0.1", 65535)), ("[fd00::5]:9", ("fd00::5", 9))):
            self.assertEqual(place_of(address), place)
        for address in ("", "h", ":1", "h:", "h:0", "h:65536", "h:x", "h:-1", "h:\u0661", "fd00::5:9", "[]:9", "h:1 "):
            self.assertIn("is no address", str(self.assertRaises(ValueError, place_of, address)))

    def test_advertised(self) -> None:
        """What a node says of where it is: as set, else its interface with the port that it got."""
        self.assertEqual(advertised("tcp:0", 4711, "db1:9092"), "db1:9092")
        self.assertEqual(advertised("tcp:0:interface=127.0.0.1", 4711, ""), "127.0.0.1:4711")
        self.assertEqual(advertised(r"tcp6:0:interface=\:\:1", 4711, ""), "[::1]:4711")
        for description in ("tcp:9092", "tcp:9092:interface=0.0.0.0", r"tcp6:9092:interface=\:\:"):
            self.assertIn("peer_address", str(self.assertRaises(ValueError, advertised, description, 9092, "")))

    def test_config(self) -> None:
        """Every mistake is named with its setting; in the clear a peer port is this host's only."""
        tls = self.tls()
        self.assertEqual(peer_mistakes([], "", None), [])
        self.assertEqual(peer_mistakes(["tcp:0:interface=127.0.0.1"], "", None), [])
        self.assertEqual(peer_mistakes(["tcp:9092"], "db1:9092", tls), [])
        for peer, address, secured, mistakes in (
            (["tcp:9092"], "127.0.0.1:9092", None, ["peer: 'tcp:9092' takes nodes of other hosts in the clear"]),
            (["tcp:9092:interface=10.0.0.5"], "", None, ["peer: 'tcp:9092:interface=10.0.0.5' takes nodes"]),
            (["tcp:9092"], "", tls, ["peer_address: 'tcp:9092' names no interface"]),
            (["ssl:9092:privateKey=k"], "db1:9092", tls, ["peer: 'ssl:9092:privateKey=k': nodes reach each other over tcp"]),
            (["unix:/run/x"], "127.0.0.1:1", None, ["peer: 'unix:/run/x'"]),
            (["haproxy:tcp:9092"], "db1:9092", tls, ["peer: 'haproxy:tcp:9092'"]),
            (["tcp:0:interface=127.0.0.1"], "db1", None, ["peer_address: 'db1' is no address"]),
            (["tcp:0:interface=127.0.0.1"], "db1:9092", None, ["peer_address: 'db1:9092' lies on another host"]),
            ([], "db1:9092", None, ["peer_address: there is no peer port"]),
        ):
            found = peer_mistakes(peer, address, secured)
            self.assertEqual([said[: len(wanted)] for said, wanted in zip(found, mistakes, strict=True)], mistakes)

    def test_files(self) -> None:
        """TLS files that cannot serve are named, and no key is shown."""
        tls, other = self.tls(), self.folder / "other"
        other.mkdir()
        stranger = loopback_certificate(other)
        key = self.folder / "key.pem"
        key.write_bytes(stranger.both.read_bytes().split(b"-----BEGIN CERTIFICATE")[0])
        empty = self.folder / "empty.pem"
        empty.write_bytes(b"")
        for wrong, why in (
            (Tls(tls.certificate, "/nowhere/key.pem", tls.authority), "/nowhere/key.pem: No such file"),
            (Tls(str(empty), tls.key, tls.authority), f"{empty} holds no certificate"),
            (Tls(tls.certificate, tls.key, str(empty)), f"{empty} holds no certificate"),
            (Tls(tls.certificate, str(empty), tls.authority), f"{empty} does not hold the private key"),
            (Tls(tls.certificate, str(key), tls.authority), f"{key} does not hold the private key"),
        ):
            (mistake,) = peer_mistakes([], "", wrong)
            self.assertTrue(mistake.startswith("peer_tls: "))
            self.assertIn(why, mistake)
            self.assertNotIn("PRIVATE", mistake)
