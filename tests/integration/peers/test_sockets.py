"""Two nodes on real sockets, in the clear and over TLS."""

import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import LeaseLost, PeerLost, PeerTimeout
from psubd.peers.line import Line, Tls, advertised
from psubd.peers.mesh import Mesh
from psubd.services.clock import SystemClock
from psubd.testing.certificates import loopback_certificate
from psubd.testing.clock import FakeClock
from psubd.testing.membership import MemoryMembership
from psubd.testing.waiting import blockon
from tests.peers.test_link import Waiting

PEER = "tcp:0:interface=127.0.0.1"


class Node:
    """One node with its port."""

    def __init__(self, id: str, line: Line, reactor: Any, beside: "Node | None" = None, secret: bytes = b"s" * 32) -> None:
        self.membership = MemoryMembership(FakeClock(), beside=None if beside is None else beside.membership, id=id)
        self.mesh = Mesh(membership=self.membership, secret=lambda: secret, clock=SystemClock(reactor), dial=line.dial)
        self.port = blockon(serverFromString(reactor, PEER).listen(line.guard(self.mesh.door)))
        self.address = advertised(PEER, self.port.getHost().port, "")
        self.waiting = Waiting()
        self.mesh.serve("echo", lambda member, body: body)
        self.mesh.serve("wait", self.waiting)
        blockon(self.membership.locate(self.address))
        blockon(self.mesh.start())

    @property
    def key(self) -> str:
        return self.membership.key

    def end(self) -> None:
        blockon(self.mesh.stop())
        blockon(self.port.stopListening())


class SocketCase(SynchronousTestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.line = self.make_line()

    def make_line(self) -> Line:
        return Line(self.reactor)

    def node(self, id: str, beside: Node | None = None, **options: Any) -> Node:
        node = Node(id, options.pop("line", self.line), self.reactor, beside, **options)
        self.addCleanup(node.end)
        return node

    def pair(self) -> tuple[Node, Node]:
        a = self.node("a")
        b = self.node("b", a)
        self.until(lambda: a.mesh.linked(b.key) and b.mesh.linked(a.key))
        return a, b

    def until(self, holds: Any, seconds: float = 15) -> None:
        """Let the reactor run until something holds."""
        for _ in range(int(seconds / 0.01)):
            if holds():
                return
            self.turn(0.01)
        self.fail("did not come to hold")

    def turn(self, seconds: float) -> None:
        blockon(deferLater(self.reactor, seconds))


class Plain(SocketCase):
    def test_calls(self) -> None:
        """Calls both ways, small and large, at once; failures with their class; what is cancelled or late is cancelled there."""
        a, b = self.pair()
        b.mesh.serve("lose", lambda member, body: self.lose())
        answers = [a.mesh.call(b.key, "echo", bytes(size), 20_000) for size in (0, 1, 65_536, 65_537, 20_000_000)]
        answers += [b.mesh.call(a.key, "echo", bytes(size), 20_000) for size in (3, 5_000_000)]
        self.assertEqual([len(blockon(answer)) for answer in answers], [0, 1, 65_536, 65_537, 20_000_000, 3, 5_000_000])
        with self.assertRaises(LeaseLost) as lost:
            blockon(a.mesh.call(b.key, "lose", b"", None))
        self.assertEqual(lost.exception.members, {"lost": ["t"]})
        waits = a.mesh.call(b.key, "wait", b"", None)
        self.until(lambda: b.waiting.asked)
        waits.cancel()
        self.failureResultOf(waits, CancelledError)
        self.until(lambda: b.waiting.cancelled == 1)
        with self.assertRaises(PeerTimeout):
            blockon(a.mesh.call(b.key, "wait", b"", 20))
        self.until(lambda: b.waiting.cancelled == 2)

    def lose(self) -> bytes:
        raise LeaseLost("lost", lost=["t"])

    def test_many_wait(self) -> None:
        """10,000 calls wait on one connection; then all are answered, or all end with it."""
        a, b = self.pair()
        calls = [a.mesh.call(b.key, "wait", b"%d" % number, None) for number in range(10_000)]
        self.until(lambda: len(b.waiting.asked) == 10_000)
        for _, body, answer in b.waiting.asked[:5000]:
            answer.callback(body)
        self.assertEqual([blockon(call) for call in calls[:5000]], [b"%d" % number for number in range(5000)])
        lost = DeferredList(calls[5000:], consumeErrors=True)
        a.mesh._links[b.key].end("the test")
        self.assertEqual({failure.type for _, failure in blockon(lost)}, {PeerLost})
        self.until(lambda: b.waiting.cancelled == 5000)
        self.until(lambda: a.mesh.linked(b.key) and b.mesh.linked(a.key))
        self.assertEqual(blockon(a.mesh.call(b.key, "echo", b"again", 5000)), b"again")

    def test_ack_among_answers(self) -> None:
        """A small call is answered while large answers are on their way."""
        a, b = self.pair()
        b.mesh.serve("large", lambda member, body: bytes(64_000_000))
        order: list[str] = []
        large = a.mesh.call(b.key, "large", b"", None).addCallback(lambda _: order.append("large"))
        small = a.mesh.call(b.key, "echo", b"", None).addCallback(lambda _: order.append("small"))
        blockon(DeferredList([large, small]))
        self.assertEqual(order, ["small", "large"])

    def test_does_not_read(self) -> None:
        """To a node that takes nothing, what is sent waits here, in the outbox, and goes when it takes again."""
        a, b = self.pair()
        connection = b.mesh._links[a.key]
        connection._line().pauseProducing()
        call = a.mesh.call(b.key, "echo", bytes(30_000_000), None)
        self.turn(0.3)
        link = a.mesh._links[b.key].link
        assert link is not None
        self.assertGreater(link.outbox.waiting, 10_000_000)
        connection._line().resumeProducing()
        self.assertEqual(len(blockon(call)), 30_000_000)

    def test_strangers(self) -> None:
        """Anybody else is closed without a byte, and the nodes go on."""
        a, b = self.pair()
        port = b.port.getHost().port
        for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00" * 300, b"\0" * 5000):
            came = blockon(deferToThread(self.say, port, data))
            self.assertNotIn(b"psubd", came)
        self.until(lambda: not b.mesh._strangers)
        self.assertEqual(blockon(a.mesh.call(b.key, "echo", b"on", 5000)), b"on")

    def say(self, port: int, data: bytes) -> bytes:
        """What comes back, up to the end."""
        came = b""
        with socket.create_connection(("127.0.0.1", port), 10) as stranger:
            try:
                stranger.sendall(data)
                while got := stranger.recv(65_536):
                    came += got
            except ConnectionError:
                pass
        return came

    def test_wrong_secret(self) -> None:
        """A node of another cluster is not linked, from either side."""
        b = self.node("b")
        a, c = self.node("a", b, secret=b"x" * 32), self.node("c", b, secret=b"x" * 32)
        self.until(lambda: a.mesh.linked(c.key))
        self.turn(0.3)
        self.assertEqual([node.mesh.linked(b.key) for node in (a, c)], [False, False])
        self.assertEqual(set(b.mesh._links), set())

    def test_stop(self) -> None:
        """A node that stops says the last of what it has to say, and is missed at once."""
        a, b = self.pair()
        answered, waits = a.mesh.call(b.key, "wait", b"", None), a.mesh.call(b.key, "wait", b"", None)
        self.until(lambda: len(b.waiting.asked) == 2)
        b.waiting.asked[0][2].callback(bytes(20_000_000))
        lost: Deferred[str] = Deferred()
        a.mesh.on_lost(lost.callback)
        blockon(b.mesh.stop())
        self.assertEqual(len(blockon(answered)), 20_000_000)
        with self.assertRaises(PeerLost):
            blockon(waits)
        self.assertEqual(blockon(lost), b.key)


class Tlsed(Plain):
    """The same over TLS."""

    def make_line(self) -> Line:
        return Line(self.reactor, self.papers("own"))

    def papers(self, name: str) -> Tls:
        folder = Path(self.mktemp()) / name
        folder.mkdir(parents=True)
        made = loopback_certificate(folder)
        return Tls(str(made.certificate), str(made.both), str(made.certificate))

    def test_foreign_certificate(self) -> None:
        """A node whose certificate another authority signed is not linked, though it knows the secret; dialled or dialling."""
        b = self.node("b")
        foreign = Line(self.reactor, self.papers("foreign"))
        a, c = self.node("a", b, line=foreign), self.node("c", b, line=foreign)
        self.until(lambda: a.mesh.linked(c.key))
        self.turn(0.5)
        self.assertEqual([node.mesh.linked(b.key) for node in (a, c)], [False, False])

    def test_no_certificate(self) -> None:
        """A node that shows none, or speaks in the clear, is not linked."""
        b = self.node("b")
        a = self.node("a", b, line=Line(self.reactor))
        self.turn(0.5)
        self.assertEqual((a.mesh.linked(b.key), b.mesh.linked(a.key)), (False, False))
