"""What base_uri begins with."""

from twisted.trial.unittest import SynchronousTestCase

from psubd.endpoints.confluent.base import Base
from psubd.endpoints.confluent.settings import ConfluentSettings
from psubd.errors import BadHeader
from psubd.testing.exchange import FakeExchange

PROXY = ConfluentSettings(trusted_proxies=("10.0.0.0/8", "fd00::1"))


def of(settings=PROXY, client="10.1.2.3", host="psubd:9090", path="/consumers/g", secure=False, **lines):
    headers = [("host", host)] if host else []
    headers += [(name.replace("_", "-"), value) for name, value in lines.items()]
    return Base(settings).of(FakeExchange("POST", path, b"", headers, b"", client, secure))


class BaseTests(SynchronousTestCase):
    def test_by_the_request(self) -> None:
        """Without a proxy: how the request came, and the host that it names."""
        self.assertEqual(of(client="192.0.2.1"), "http://psubd:9090")
        self.assertEqual(of(client="192.0.2.1", secure=True, host="[::1]:9443"), "https://[::1]:9443")

    def test_strangers_are_not_believed(self) -> None:
        """What says that it is a proxy and is not trusted changes nothing; a peer without an address (a UNIX socket) is not trusted."""
        lines = {"forwarded": "proto=https;host=evil", "x_forwarded_host": "evil", "x_forwarded_path": "/evil"}
        for client in ("192.0.2.1", "", "unix"):
            self.assertEqual(of(client=client, **lines), "http://psubd:9090")
        self.assertEqual(of(ConfluentSettings(), **lines), "http://psubd:9090")

    def test_x_forwarded(self) -> None:
        """A trusted proxy says scheme, host, port and what it has in front of our paths; of several values the last one is its own."""
        self.assertEqual(of(x_forwarded_proto="https", x_forwarded_host="api.example.com"), "https://api.example.com")
        self.assertEqual(
            of(x_forwarded_proto="HTTPS", x_forwarded_host="evil, api.example.com", x_forwarded_port="8443"), "https://api.example.com:8443"
        )
        self.assertEqual(of(x_forwarded_host="api.example.com:81", x_forwarded_port="82"), "http://api.example.com:81")
        self.assertEqual(of(x_forwarded_proto="https", x_forwarded_host="a", x_forwarded_port="443"), "https://a")
        self.assertEqual(of(client="fd00::1", x_forwarded_host="a"), "http://a")

    def test_path(self) -> None:
        """The prefix by itself, or the whole path that the proxy was asked for."""
        for said in ("/psubd", "/psubd/", "/psubd/consumers/g", "/psubd/consumers/g/"):
            self.assertEqual(of(x_forwarded_path=said), "http://psubd:9090/psubd")
        self.assertEqual(of(x_forwarded_prefix="/p"), "http://psubd:9090/p")
        self.assertEqual(of(x_forwarded_path="/consumers/g"), "http://psubd:9090")

    def test_forwarded(self) -> None:
        """RFC 7239, quoted and not, in any case of letters; it goes before X-Forwarded-*; of several elements the last that says something."""
        self.assertEqual(of(forwarded='for=192.0.2.43;Proto=https;HOST="api.example.com:8443"'), "https://api.example.com:8443")
        self.assertEqual(of(forwarded="proto=http;host=evil, for=x;proto=https;host=real"), "https://real")
        self.assertEqual(of(forwarded="proto=https;host=real, for=10.0.0.9"), "https://real")
        self.assertEqual(of(forwarded="host=new", x_forwarded_host="old", x_forwarded_proto="https"), "https://new")

    def test_nonsense(self) -> None:
        """What cannot be a scheme, host, port or path is passed over: nothing of it gets into the answer."""
        self.assertEqual(of(x_forwarded_proto="gopher", x_forwarded_host="a b", x_forwarded_port="x", x_forwarded_path="p"), "http://psubd:9090")
        self.assertEqual(of(x_forwarded_host='a"/><script>', x_forwarded_path="/a b", x_forwarded_port="99999"), "http://psubd:9090")
        for port in ("99999", "9" * 5000, "\u00b2", "-1"):
            self.assertEqual(of(host="psubd", x_forwarded_port=port), "http://psubd")
        for said in ('host="open', ";;;", "host", "=", "host=a b"):
            self.assertIn(of(forwarded=said), ("http://psubd:9090", "http://a"))

    def test_configured(self) -> None:
        """A configured base goes before everything."""
        settings = ConfluentSettings(base_url="https://kafka.example.com/psubd/", trusted_proxies=("0.0.0.0/0",))
        self.assertEqual(of(settings, host="", x_forwarded_host="other"), "https://kafka.example.com/psubd")

    def test_no_host(self) -> None:
        """HTTP/1.0 may name no host: that is told, nothing is invented."""
        self.assertRaises(BadHeader, of, host="")
