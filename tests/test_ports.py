"""Ports, opened and told to people."""

import errno
import select
import socket

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ServerFactory
from twisted.internet.testing import MemoryReactor, RaisingMemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import ConfigError
from psubd.ports import Reached, accept_rest, listen, place, turn_away


class Door:
    """A listening port, as far as its closing goes."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = self.socket.getsockname()
        self.accepted: list[socket.socket] = []

    def doRead(self) -> None:
        self.accepted.append(self.socket.accept()[0])


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

    def test_closing(self) -> None:
        """Once connections are turned away those that the kernel has finished are still there to be accepted, all of them, and those that come later
        are refused when the port closes, not reset."""
        door = Door()
        early = [socket.create_connection(door.address) for _ in range(3)]
        turn_away("haproxy:tcp:0", door)
        late = socket.socket()
        late.setblocking(False)
        late.connect_ex(door.address)
        accept_rest("haproxy:tcp:0", door)
        self.assertEqual(len(door.accepted), 3)
        early[0].sendall(b"request")
        self.assertEqual(door.accepted[0].recv(10), b"request")
        door.accepted[0].sendall(b"answer")
        self.assertEqual(early[0].recv(10), b"answer")
        door.socket.close()
        select.select([], [late], [], 30)
        self.assertEqual(late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), errno.ECONNREFUSED)
        for one in (*early, *door.accepted, late):
            one.close()

    def test_closing_what_is_not_ours(self) -> None:
        """A socket that somebody else holds too is left as it is: what waits there waits for the next psubd."""
        door = Door()
        for description in ("systemd:domain=INET:index=0", "fd:3"):
            turn_away(description, door)
            client = socket.create_connection(door.address)
            accept_rest(description, door)
            self.assertEqual(door.accepted, [])
            client.close()
        door.socket.close()
        for closed in (door, object()):
            turn_away("tcp:0", closed)
            accept_rest("tcp:0", closed)

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
