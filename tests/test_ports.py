"""Ports, opened and told to people."""

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ServerFactory
from twisted.internet.testing import MemoryReactor, RaisingMemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import ConfigError
from psubd.ports import Reached, listen, place


class PortTests(SynchronousTestCase):
    def test_listen(self) -> None:
        """The description's port, on its interface."""
        reactor = MemoryReactor()
        port = self.successResultOf(Deferred.fromCoroutine(listen(reactor, "listen", "tcp:8:interface=127.0.0.1", ServerFactory())))
        self.assertEqual(place(port), 8)
        self.assertEqual(reactor.tcpServers[0][3], "127.0.0.1")

    def test_refused(self) -> None:
        """Whatever the system refuses is told with the setting and the description."""
        taken = CannotListenError("127.0.0.1", 8, OSError(98, "Address already in use"))
        for failure, why in ((taken, "Address already in use"), (OSError(13, "Permission denied"), "Permission denied")):
            deferred = Deferred.fromCoroutine(listen(RaisingMemoryReactor(listenException=failure), "manager", "tcp:8", ServerFactory()))
            refused = self.failureResultOf(deferred, ConfigError).value
            self.assertEqual(refused.mistakes, [f"manager: 'tcp:8': cannot listen: {why}"])

    def test_reached(self) -> None:
        """How a client on this host reaches each kind of port."""
        for description, address, url, options in (
            ("tcp:8", IPv4Address("TCP", "0.0.0.0", 8), "http://127.0.0.1:8", []),
            ("tcp:8:interface=10.0.0.5", IPv4Address("TCP", "10.0.0.5", 8), "http://10.0.0.5:8", []),
            ("tcp6:8", IPv6Address("TCP", "::", 8), "http://[::1]:8", []),
            ("tcp6:8", IPv6Address("TCP", "fd00::5", 8), "http://[fd00::5]:8", []),
            ("ssl:8:privateKey=x", IPv4Address("TCP", "0.0.0.0", 8), "https://127.0.0.1:8", ["--insecure"]),
            ("haproxy:tcp:8", IPv4Address("TCP", "0.0.0.0", 8), "http://127.0.0.1:8", ["--haproxy-protocol"]),
            ("unix:/run/x", UNIXAddress("/run/x"), "http://localhost", ["--unix-socket", "/run/x"]),
        ):
            self.assertEqual(Reached.at(description, address), Reached(url, options))
