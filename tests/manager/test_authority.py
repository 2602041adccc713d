from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import ForeignOrigin
from psubd.manager.authority import Doors
from psubd.testing.exchange import FakeExchange


class DoorsTests(SynchronousTestCase):
    def passes(self, host: str | None, origin: str | None = None, secure: bool = False) -> bool:
        headers = [(name, value) for name, value in (("host", host), ("origin", origin)) if value is not None]
        try:
            Doors(["psubd.example", "192.0.2.7:9091", "2001:db8::1"]).check(FakeExchange(headers=headers, secure=secure))
        except ForeignOrigin:
            return False
        return True

    def test_own_names(self) -> None:
        """Loopback and configured names pass, in any case and with any port."""
        for host in (
            "localhost",
            "LocalHost:1",
            "127.0.0.1",
            "127.8.9.1:9091",
            "[::1]:9091",
            "[::1]",
            "psubd.example",
            "PSUBD.example.:443",
            "192.0.2.7",
            "192.0.2.7:80",
            "[2001:db8::1]:9091",
        ):
            self.assertTrue(self.passes(host), host)

    def test_foreign_names(self) -> None:
        """Everything else is refused: DNS rebinding shows the attacker's name."""
        for host in (
            None,
            "",
            "evil.example",
            "psubd.example.evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example:127.0.0.1",
            "psubd.example@evil.example",
            "psubd.example/evil",
            "psubd.example evil",
            "psubd.example:",
            "0.0.0.0",
            "127.1",
            "2130706433",
            "[::1",
            "::1",
            "\xe9vil.example",
        ):
            self.assertFalse(self.passes(host), host)

    def test_same_origin(self) -> None:
        """A page of the manager's own may call it, also through a proxy that speaks TLS; default ports count as named."""
        for host, origin, secure in (
            ("psubd.example:9091", "http://psubd.example:9091", False),
            ("psubd.example", "https://psubd.example", False),
            ("psubd.example", "http://psubd.example:80", False),
            ("psubd.example:443", "https://psubd.example", True),
            ("[::1]:9091", "http://[::1]:9091", False),
        ):
            self.assertTrue(self.passes(host, origin, secure), origin)

    def test_cross_origin(self) -> None:
        """Another site, another port, a sandboxed page or what is no origin: refused."""
        for host, origin, secure in (
            ("psubd.example", "https://evil.example", False),
            ("psubd.example:9091", "http://psubd.example:8080", False),
            ("psubd.example:9091", "http://psubd.example", False),
            ("psubd.example", "null", False),
            ("psubd.example", "", False),
            ("psubd.example", "psubd.example", False),
            ("psubd.example", "file://psubd.example", False),
            ("psubd.example:80", "http://psubd.example", True),
            ("127.0.0.1", "http://localhost", False),
            ("psubd.example", "https://psubd.example/", False),
        ):
            self.assertFalse(self.passes(host, origin, secure), origin)
