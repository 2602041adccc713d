"""To whom links are kept, and what becomes of calls when they break."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from psubd.errors import LeaseLost, PeerLost, PeerTimeout
from psubd.interfaces import IPeers
from psubd.peers import mesh as module
from psubd.peers.auth import BYTES_BEFORE
from psubd.peers.connection import PROOF_MS, SILENCE_MS
from psubd.peers.frames import HEAD, Kind, encode
from tests.peers.house import SECRET, House, Node


class MeshCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()

    def pair(self) -> tuple[Node, Node]:
        """Two nodes with a link; the first one dialled."""
        a, b = self.house.node("a"), self.house.node("b")
        b.start()
        a.start()
        self.assertEqual((a.linked(b), b.linked(a)), (True, True))
        return a, b


class Calls(MeshCase):
    def test_provides(self) -> None:
        """It is what services expect of peers."""
        verifyObject(IPeers, self.house.node("a").mesh)

    def test_both_ways(self) -> None:
        """Either end calls and tells over the one connection, whoever dialled."""
        a, b = self.pair()
        self.assertEqual(self.successResultOf(a.call(b, "echo", b"1")), b"1")
        self.assertEqual(self.successResultOf(b.call(a, "echo", b"2")), b"2")
        self.assertTrue(b.mesh.tell(a.key, "wait", b"3"))
        self.house.settle()
        self.assertEqual([(member, body) for member, body, _ in a.waiting.asked], [(b.key, b"3")])
        self.assertEqual(len(self.house.wires.wires), 1)

    def test_large(self) -> None:
        """Large bodies pass the line's back-pressure: what waits in the transport stays small, and an ack among them is answered first."""
        a, b = self.pair()
        answers: list[bytes] = []
        large = a.mesh.call(b.key, "echo", bytes(20_000_000))
        large.addCallback(answers.append)
        a.mesh.call(b.key, "echo", b"ack").addCallback(answers.append)
        self.house.settle()
        self.assertEqual([len(answer) for answer in answers], [3, 20_000_000])
        wire = self.house.wire()
        self.assertLess(max(wire.dialler.most, wire.listener.most), 3 * 65_536)

    def test_cancel_and_timeout(self) -> None:
        """Withdrawn here, or not answered in time: cancelled there."""
        a, b = self.pair()
        waits = a.call(b, "wait")
        waits.cancel()
        self.failureResultOf(waits, CancelledError)
        self.house.settle()
        self.assertEqual(b.waiting.cancelled, 1)
        late = a.call(b, "wait", timeout_ms=500)
        self.house.clock.advance(500)
        self.failureResultOf(late, PeerTimeout)
        self.assertEqual(b.waiting.cancelled, 2)

    def test_unlinked(self) -> None:
        """Without a link a call fails at once, and nothing is told: to a node that is not there, is not started, or is this one."""
        a = self.house.node("a").start()
        b = self.house.node("b")
        for member in (b.key, a.key, "nobody"):
            self.failureResultOf(a.mesh.call(member, "echo", b"", None), PeerLost)
            self.assertFalse(a.mesh.tell(member, "echo", b""))
            self.assertFalse(a.mesh.linked(member))

    def test_serve_twice(self) -> None:
        """A verb is one handler's."""
        self.assertRaises(ValueError, self.house.node("a").mesh.serve, "echo", lambda member, body: b"")


class Kept(MeshCase):
    def test_one_a_pair(self) -> None:
        """Four nodes: six connections, the smaller key dials, whatever the order in which they start."""
        nodes = {id: self.house.node(id) for id in "cadb"}
        for node in nodes.values():
            node.start()
        self.house.pass_time(3000)
        self.assertEqual(
            sorted((wire.listener.protocol.name, wire.address) for wire in self.house.wires.open),
            sorted((nodes[small].key, nodes[great].address) for small in "abcd" for great in "abcd" if small < great),
        )
        for one in nodes.values():
            for other in nodes.values():
                self.assertEqual(one.linked(other), one is not other)

    def test_redial(self) -> None:
        """A node that is not reached is dialled again after 100 ms, doubling to 2 s; and from 100 ms again after a link stood."""
        a, b = self.house.node("a").start(), self.house.node("b")
        self.house.pass_time(10_000, 10)
        gaps = [100, 200, 400, 800, 1600, 2000, 2000, 2000]
        self.assertEqual(len(self.house.wires.tries), 1 + sum(sum(gaps[:n]) <= 10_000 for n in range(1, 9)))
        b.start()
        self.house.pass_time(2000)
        self.assertTrue(a.linked(b))
        tries = len(self.house.wires.tries)
        self.house.wire().cut()
        self.house.clock.advance(0)
        self.assertFalse(a.linked(b))
        self.house.clock.advance(100)
        self.assertTrue(a.linked(b))
        self.assertEqual(len(self.house.wires.tries), tries + 1)

    def test_jitter(self) -> None:
        """Chance takes up to a half off the wait."""
        house = self.house
        a = house.node("a")
        a.mesh._random = lambda: 1.0
        a.start()
        house.node("b")
        house.clock.advance(49)
        self.assertEqual(len(house.wires.tries), 1)
        house.clock.advance(1)
        self.assertEqual(len(house.wires.tries), 2)

    def test_gone(self) -> None:
        """A member that is gone has no link any more, though it still speaks; and is not dialled."""
        a, b = self.pair()
        waits = a.call(b, "wait")
        b.membership.expire()
        self.house.settle()
        self.failureResultOf(waits, PeerLost)
        self.assertEqual((a.linked(b), a.lost, b.lost), (False, [b.key], [a.key]))
        tries = len(self.house.wires.tries)
        self.house.pass_time(5000)
        self.assertEqual(len(self.house.wires.tries), tries)

    def test_gone_dialler(self) -> None:
        """A node whose session ended and that does not know it dials on and is never linked."""
        a, b = self.pair()
        a.membership.expire()
        for _ in range(8):
            self.house.pass_time(1000)
            self.assertEqual((a.linked(b), b.linked(a)), (False, False))
        self.assertGreater(len(self.house.wires.wires), 1)

    def test_new_session(self) -> None:
        """A node whose session ended is another member: its links end on both sides, and it is linked anew under its new key."""
        for which in (0, 1):
            self.house = House()
            nodes = self.pair()
            node, other = nodes[which], nodes[1 - which]
            former = node.key
            waits, theirs = node.call(other, "wait"), other.call(node, "wait")
            node.membership.join()
            self.house.settle()
            for lost in (waits, theirs):
                self.failureResultOf(lost, PeerLost)
            self.assertEqual((node.waiting.cancelled, other.waiting.cancelled), (1, 1))
            self.house.pass_time(3000)
            self.assertEqual((node.linked(other), other.linked(node), other.mesh.linked(former)), (True, True, False))

    def test_no_session(self) -> None:
        """A node without a session yet has no key to show: it dials nobody and lets nobody in, until it has one."""
        a, b = self.house.node("a"), self.house.node("b")
        b.start()
        key, a.membership.key = a.key, ""
        a.start()
        self.house.pass_time(1000)
        self.assertEqual(self.house.wires.tries, [])
        a.membership.key = key
        a.mesh.review()
        self.house.settle()
        self.assertTrue(a.linked(b))

    def test_heard_of_later(self) -> None:
        """A node that has not heard of a new one yet lets it in once it has; nothing is served before."""
        a, b = self.house.node("a"), self.house.node("b")
        b.start()
        b.membership.close_eyes()
        b.membership._members = {b.key: b.membership.members()[b.key]}
        a.start()
        self.house.pass_time(2000)
        self.assertEqual((a.linked(b), b.linked(a), len(self.house.wires.wires)), (False, False, 1))
        b.membership.open_eyes()
        self.house.settle()
        self.assertEqual((a.linked(b), b.linked(a), len(self.house.wires.wires)), (True, True, 1))

    def test_never_heard_of(self) -> None:
        """One that is proven and that the membership does not show is closed after 5 s, and dials again."""
        a, b = self.house.node("a"), self.house.node("b")
        b.start()
        b.membership.close_eyes()
        b.membership._members = {b.key: b.membership.members()[b.key]}
        a.start()
        self.house.pass_time(PROOF_MS - 100)
        self.assertEqual([wire.open for wire in self.house.wires.wires], [True])
        self.house.pass_time(400)
        self.assertEqual([wire.open for wire in self.house.wires.wires], [False, True])

    def test_moved(self) -> None:
        """A member that is reached elsewhere is dialled there."""
        a, b = self.house.node("a").start(), self.house.node("b")
        self.house.wires.listen("elsewhere:1", b.mesh.door)
        b.mesh.start()
        b.membership.locate("elsewhere:1")
        self.house.pass_time(200)
        self.assertTrue(a.linked(b))

    def test_no_address(self) -> None:
        """A member without an address is not dialled."""
        a, b = self.house.node("a"), self.house.node("b")
        b.membership.locate(None)
        a.start()
        self.house.pass_time(1000)
        self.assertEqual(self.house.wires.tries, [])

    def test_bad_address(self) -> None:
        """An address that is none is tried again, and harms nothing."""
        a, _ = self.house.node("a"), self.house.node("b")

        def refuse(address: str) -> None:
            self.house.wires.tries.append(address)
            raise ValueError("no address")

        a.mesh._dial = refuse  # type: ignore[assignment]
        a.start()
        self.house.pass_time(1000)
        self.assertEqual(len(self.house.wires.tries), 4)

    def test_took_its_place(self) -> None:
        """A dialler that lost its connection comes again before the listener has noticed: the former one ends first, with its calls."""
        a, b = self.pair()
        waits = a.call(b, "wait")
        wire = self.house.wire()
        wire.listener.closed = True  # whatever happens there is not heard of
        wire.cut()
        self.house.settle()
        self.failureResultOf(waits, PeerLost)
        self.assertEqual((b.waiting.cancelled, b.lost, b.linked(a)), (0, [], True))
        self.house.clock.advance(100)
        self.assertEqual((b.waiting.cancelled, b.lost, b.linked(a), a.linked(b)), (1, [a.key], True, True))
        self.assertEqual(self.successResultOf(a.call(b, "echo", b"x")), b"x")


class Lost(MeshCase):
    def test_order(self) -> None:
        """Who hears of a lost link finds its handlers cancelled, its calls failed, and no link; one's fault is not the others'."""
        a, b = self.pair()
        told: list[object] = []

        def lost(member: str) -> None:
            told.append((member, b.waiting.cancelled, b.linked(a), theirs.called))

        def bug(member: str) -> None:
            raise ZeroDivisionError

        b.mesh.on_lost(bug)
        b.mesh.on_lost(lost)
        a.call(b, "wait").addErrback(lambda _: None)
        theirs = b.call(a, "wait")
        theirs.addErrback(lambda failure: told.append((failure.type, b.waiting.cancelled, b.linked(a), b.mesh.tell(a.key, "wait", b""))))
        self.house.wire().cut()
        self.house.settle()
        self.assertEqual(told, [(PeerLost, 1, False, False), (a.key, 1, False, True)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unlistened(self) -> None:
        """A listener may end."""
        a, b = self.pair()
        told: list[str] = []
        a.mesh.on_lost(told.append)()
        self.house.wire().cut()
        self.house.settle()
        self.assertEqual((told, a.lost), ([], [b.key]))

    def test_cut_at_any_byte(self) -> None:
        """The line breaks after any number of bytes of the handshake or of the link: nobody is left waiting, and all is linked anew."""
        for limit in range(0, 330, 7):
            self.house = House()
            a, b = self.house.node("a"), self.house.node("b")
            moved = [0]

            def write(end, data, before=self.house, limit=limit, moved=moved):  # type: ignore[no-untyped-def]
                moved[0] += len(data)
                end.waiting += data
                end.schedule()
                if moved[0] > limit:
                    end.wire.cut()

            b.start()
            a.mesh.start()
            wire = self.house.wires.wires[0]
            for end in (wire.dialler, wire.listener):
                end.write = lambda data, end=end: write(end, data)  # type: ignore[method-assign]
            self.house.settle()
            calls = [a.call(b, "wait"), b.call(a, "wait")]
            if wire.open:
                wire.cut()
            self.house.settle()
            for call in calls:
                self.failureResultOf(call, PeerLost)
            self.assertEqual((a.waiting.cancelled, b.waiting.cancelled), (len(a.waiting.asked), len(b.waiting.asked)))
            self.house.pass_time(3000)
            self.assertEqual((a.linked(b), b.linked(a)), (True, True))

    def test_silence(self) -> None:
        """A line that swallows everything is broken after 5 s, on both sides; an idle one stands for ever."""
        a, b = self.pair()
        self.house.pass_time(60_000, 1000)
        self.assertEqual((a.linked(b), a.lost), (True, []))
        waits = a.call(b, "wait")
        self.house.wire().held = True
        self.house.pass_time(SILENCE_MS - 1000)
        self.assertTrue(a.linked(b))
        self.house.pass_time(3000)
        self.failureResultOf(waits, PeerLost)
        self.assertEqual((b.waiting.cancelled, a.lost, b.lost), (1, [b.key], [a.key]))
        self.house.pass_time(1000)
        self.assertTrue(a.linked(b))

    def test_stopped(self) -> None:
        """A process that stood still does not take its own silence for the other end's: what came meanwhile decides, though timers run first."""
        a, b = self.pair()
        self.house.pass_time(2000)
        self.house.wire().held = True
        self.house.pass_time(1000)
        for node in (a, b):
            self.assertFalse(node.mesh._links[(b if node is a else a).key]._heard)
            node.mesh._timer.delay(60)  # type: ignore[union-attr]
        self.house.clock.advance(61_000)
        self.house.wire().go_on()
        self.house.pass_time(10_000)
        self.assertEqual((a.linked(b), b.linked(a), a.lost, b.lost), (True, True, [], []))

    def test_wall_clock(self) -> None:
        """The wall clock may jump: nothing is measured with it."""
        a, b = self.pair()
        for jump in (-86_400_000, 86_400_000):
            self.house.clock.epoch += jump
            self.house.pass_time(3000, 1000)
        self.assertEqual((a.linked(b), a.lost, b.lost), (True, [], []))

    def test_illegal(self) -> None:
        """A link on which something illegal comes is broken."""
        a, b = self.pair()
        self.house.wire().dialler.write(encode(Kind.REPLY, 5, b"unasked"))
        self.house.settle()
        self.assertEqual((a.lost, b.lost), ([b.key], [a.key]))


class Strangers(MeshCase):
    def stranger(self, node: Node, data: bytes = b"") -> "Stranger":
        return Stranger(self.house, node, data)

    def test_silent(self) -> None:
        """Who says nothing is closed after 5 s."""
        b = self.house.node("b").start()
        stranger = self.stranger(b)
        self.house.pass_time(PROOF_MS - 100)
        self.assertFalse(stranger.lost)
        self.house.pass_time(200)
        self.assertTrue(stranger.lost)
        self.assertEqual((stranger.came, b.mesh._open, b.mesh._strangers), (b"", set(), {}))

    def test_garbage(self) -> None:
        """Who says anything but a hello is closed at once, and gets not a byte; nothing of it is served."""
        b = self.house.node("b").start()
        for data in (
            b"GET / HTTP/1.1\r\n\r\n",
            encode(Kind.CALL, 1, b"", "wait"),
            encode(Kind.TELL, 0, b"", "wait"),
            b"\0\0\x04\x01",
            b"\x16\x03\x01",
        ):
            stranger = self.stranger(b, data)
            self.house.settle()
            if len(data) < 4:
                self.house.pass_time(PROOF_MS + 100)
            self.assertEqual((stranger.lost, stranger.came), (True, b""))
        self.assertEqual(b.waiting.asked, [])

    def test_too_much(self) -> None:
        """Nobody unproven may send more than 1 KiB, in however many frames or portions."""
        a, b = self.house.node("a"), self.house.node("b").start()
        hello = self.hello(a, b)
        half = HEAD.pack(BYTES_BEFORE, Kind.PROOF, 0) + b"x" * (BYTES_BEFORE + 1 - HEAD.size - len(hello))
        for data in (hello + half, hello + encode(Kind.PROOF, 0, b"")):
            stranger = self.stranger(b)
            for at in range(0, len(data), 100):
                stranger.transport.write(data[at : at + 100])
                self.house.settle()
            self.assertTrue(stranger.lost)

    def hello(self, a: Node, b: Node) -> bytes:
        a.mesh._key = a.key
        return a.mesh._ask(b.key)._handshake.begin()

    def test_many(self) -> None:
        """64 may be unproven at a time; for the next the oldest is closed. Nodes are let in, and dialled, all the same."""
        a, b = self.pair()
        strangers = [self.stranger(b) for _ in range(module.MOST_STRANGERS)]
        self.house.settle()
        self.assertFalse(any(stranger.lost for stranger in strangers))
        strangers += [self.stranger(b) for _ in range(2)]
        self.house.settle()
        self.assertEqual([stranger.lost for stranger in strangers], [True] * 2 + [False] * module.MOST_STRANGERS)
        c = self.house.node("c").start()
        self.house.wire_of(a, b).cut()
        self.house.pass_time(500)
        self.assertEqual((a.linked(b), b.linked(c)), (True, True))
        self.assertEqual([stranger.lost for stranger in strangers].count(True), 3)

    def test_many_wait(self) -> None:
        """A node that is proven and waits to be heard of is not closed for strangers."""
        a, b = self.house.node("a"), self.house.node("b")
        b.start()
        b.membership.close_eyes()
        b.membership._members = {}
        a.start()
        strangers = [self.stranger(b) for _ in range(module.MOST_STRANGERS + 1)]
        self.house.settle()
        self.assertEqual([stranger.lost for stranger in strangers].count(True), 1)
        b.membership.open_eyes()
        self.house.settle()
        self.assertTrue(a.linked(b))

    def test_wrong_secret(self) -> None:
        """A node with another secret is never linked, and dials ever more slowly."""
        a, b = self.house.node("a", b"x" * 32).start(), self.house.node("b").start()
        self.house.pass_time(10_000)
        self.assertEqual((a.linked(b), b.linked(a), self.house.wires.open), (False, False, []))
        self.assertLess(len(self.house.wires.wires), 12)

    def test_speaks_too_early(self) -> None:
        """One that is proven and not yet let in may not speak."""
        a, b = self.house.node("a"), self.house.node("b")
        b.start()
        b.membership.close_eyes()
        b.membership._members = {}
        a.start()
        self.house.wire().dialler.write(encode(Kind.CALL, 1, b"", "wait"))
        self.house.settle()
        b.membership.open_eyes()
        self.house.settle()
        self.assertEqual((b.waiting.asked, self.house.wires.wires[0].open), ([], False))

    def test_secret_not_told(self) -> None:
        """While the registry cannot tell the secret nobody is linked; then they are."""
        a, b = self.house.node("a"), self.house.node("b")

        def away() -> bytes:
            raise LeaseLost("away")

        a.mesh._secret = away
        a.start()
        b.start()
        self.house.pass_time(1000)
        self.assertFalse(a.linked(b))
        a.mesh._secret = lambda: SECRET
        self.house.pass_time(3000)
        self.assertTrue(a.linked(b))


class Stranger:
    """Somebody who connects to a node."""

    def __init__(self, house: House, node: Node, data: bytes) -> None:
        self.came, self.lost = b"", False
        house.wires.connect(node.address, self)  # type: ignore[arg-type]
        if data:
            self.transport.write(data)

    def buildProtocol(self, addr: object) -> "Stranger":
        return self

    def makeConnection(self, transport: object) -> None:
        self.transport: object = transport

    def dataReceived(self, data: bytes) -> None:
        self.came += data

    def connectionLost(self, reason: object) -> None:
        self.lost = True


class Stopping(MeshCase):
    def test_stop(self) -> None:
        """What was answered before goes out, calls end on both sides, the connections close, and nothing is dialled or let in any more."""
        a, b = self.pair()
        self.house.node("c").start()
        large = a.mesh.call(b.key, "echo", bytes(3_000_000))
        waits, theirs = a.call(b, "wait"), b.call(a, "wait")
        self.successResultOf(large)
        answered: Deferred[bytes] = a.call(b, "wait")
        b.waiting.asked[-1][2].callback(bytes(3_000_000))
        stopped = b.mesh.stop()
        self.failureResultOf(theirs, PeerLost)
        self.house.settle()
        self.assertEqual(len(self.successResultOf(answered)), 3_000_000)
        self.failureResultOf(waits, PeerLost)
        self.successResultOf(stopped)
        self.assertEqual((b.waiting.cancelled, a.waiting.cancelled, a.lost), (1, 1, [b.key]))
        self.house.pass_time(5000)
        self.assertFalse(a.linked(b))
        self.assertEqual({wire.address for wire in self.house.wires.open}, {"c:1"})
        self.assertEqual(b.mesh._open, set())

    def test_stop_serves_no_more(self) -> None:
        """What arrives while a node stops is not served: neither behind the call that made it stop, nor while its last words go out."""
        a, b = self.pair()

        def stop(member: str, body: bytes) -> bytes:
            b.mesh.stop()
            return b""

        b.mesh.serve("stop", stop)
        b.mesh.tell(a.key, "wait", bytes(3_000_000))
        calls = [a.mesh.call(b.key, verb, b"", None) for verb in ("stop", "wait")]
        self.house.clock.call_later(0, lambda: calls.append(a.mesh.call(b.key, "wait", b"", None)))
        self.house.settle()
        self.assertEqual(self.successResultOf(calls.pop(0)), b"")
        for call in calls:
            self.failureResultOf(call, PeerLost)
        self.assertEqual((b.waiting.asked, len(a.waiting.asked)), ([], 1))

    def test_stop_slow(self) -> None:
        """Another node that takes nothing more does not hold up the stop."""
        a, b = self.pair()
        self.house.wire().held = True
        b.mesh.tell(a.key, "wait", bytes(1_000_000))
        stopped = b.mesh.stop()
        self.house.pass_time(1900)
        self.assertNoResult(stopped)
        self.house.pass_time(200)
        self.successResultOf(stopped)

    def test_stop_while_dialling(self) -> None:
        """A node that dials, or waits for the next try, stops at once and leaves no timer."""
        for started in (False, True):
            self.house = House()
            a, b = self.house.node("a"), self.house.node("b")
            if started:
                b.start()
                self.house.wires.connect = lambda address, factory: Deferred()  # type: ignore[method-assign,assignment]
            a.mesh.start()
            self.house.clock.advance(30)
            self.successResultOf(a.mesh.stop())
            b.mesh.stop()
            self.assertEqual(self.house.clock.reactor.getDelayedCalls(), [])

    def test_start_again(self) -> None:
        """A mesh that was stopped can be started again."""
        a, b = self.pair()
        a.mesh.stop()
        self.house.settle()
        a.mesh.start()
        self.house.settle()
        self.assertTrue(a.linked(b))
