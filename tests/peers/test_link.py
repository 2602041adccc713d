"""One link's state, with the frames carried by hand."""

import gc
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import Internal, LeaseLost, OverBudget, OwnershipInDoubt, PeerLost, PeerTimeout, TooLarge
from psubd.peers import link as module
from psubd.peers.frames import BODY_BYTES, PIECE_BYTES, Frame, IllegalFrame, Kind, Parser
from psubd.peers.link import Handler, Link
from psubd.peers.outbox import Outbox
from psubd.testing.clock import FakeClock


class Ends:
    """Two links that are each other's other end; `move` carries what waits."""

    def __init__(self, **outbox: int) -> None:
        self.clock = FakeClock()
        self.verbs: dict[str, Handler] = {}
        self.a = Link("b", {}, self.clock, lambda: None, Outbox(**outbox))
        self.b = Link("a", self.verbs, self.clock, lambda: None, Outbox(**outbox))
        self.parsers = {self.a: Parser(), self.b: Parser()}
        self.seen: list[tuple[str, Kind]] = []

    def carry(self, source: Link, target: Link, takes: int = 1_000_000) -> int:
        moved = 0
        while moved < takes and (data := source.outbox.take()) is not None:
            moved += 1
            parser = self.parsers[target]
            parser.feed(data)
            while (frame := parser.next()) is not None:
                self.seen.append((target.member, frame.kind))
                target.received(frame)
        return moved

    def move(self) -> None:
        while self.carry(self.a, self.b) + self.carry(self.b, self.a):
            pass


class Waiting:
    """A handler that answers when the test says. :ivar cancelled: how many were cancelled."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes, Deferred[bytes]]] = []
        self.cancelled = 0

    def __call__(self, member: str, body: bytes) -> "Deferred[bytes]":
        answer: Deferred[bytes] = Deferred(self.cancel)
        self.asked.append((member, body, answer))
        return answer

    def cancel(self, answer: "Deferred[bytes]") -> None:
        self.cancelled += 1


class LinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ends = Ends()
        self.waiting = Waiting()
        self.ends.verbs["wait"] = self.waiting
        self.ends.verbs["echo"] = lambda member, body: member.encode() + b":" + body

    def call(self, verb: str, body: bytes = b"", timeout_ms: int | None = None) -> "Deferred[bytes]":
        answer = self.ends.a.call(verb, body, timeout_ms)
        self.ends.move()
        return answer

    def fault(self, raised: Callable[[str, bytes], Any]) -> Exception:
        self.ends.verbs["fault"] = raised
        return self.failureResultOf(self.call("fault")).value  # type: ignore[no-any-return]

    def test_call(self) -> None:
        """A call is answered, at once or later, with the member that asks told; empty bodies and answers are bodies and answers."""
        self.assertEqual(self.successResultOf(self.call("echo", b"body")), b"a:body")
        later = self.call("wait", b"")
        self.assertNoResult(later)
        self.assertEqual((self.ends.a.asked, self.ends.b.served), (1, 1))
        self.waiting.asked[0][2].callback(b"")
        self.ends.move()
        self.assertEqual(self.successResultOf(later), b"")
        self.assertEqual((self.ends.a.asked, self.ends.b.served), (0, 0))

    def test_many(self) -> None:
        """10,000 calls wait, and are answered in any order, each with its own answer."""
        answers = [self.ends.a.call("wait", b"%d" % number) for number in range(10_000)]
        self.ends.move()
        self.assertEqual((self.ends.a.asked, self.ends.b.served), (10_000, 10_000))
        for _, body, answer in reversed(self.waiting.asked):
            answer.callback(body)
        self.ends.move()
        self.assertEqual([self.successResultOf(answer) for answer in answers], [b"%d" % number for number in range(10_000)])
        self.assertEqual((self.ends.a.asked, self.ends.b.served), (0, 0))

    def test_both_ways(self) -> None:
        """Both ends call with the same numbers, and neither takes the other's answer for its own."""
        verbs: dict[str, Handler] = {"wait": lambda member, body: succeed(b"from a")}
        self.ends.a._verbs = verbs
        mine, theirs = self.ends.a.call("wait", b""), self.ends.b.call("wait", b"")
        self.ends.move()
        self.assertEqual(self.successResultOf(theirs), b"from a")
        self.assertNoResult(mine)

    def test_cancel(self) -> None:
        """A call that the caller cancels is cancelled at the other end; what was answered meanwhile is dropped."""
        waits = self.call("wait")
        waits.cancel()
        self.failureResultOf(waits, CancelledError)
        self.ends.move()
        self.assertEqual((self.waiting.cancelled, self.ends.a.asked, self.ends.b.served), (1, 0, 0))
        crossed = self.call("wait")
        self.waiting.asked[1][2].callback(b"late")
        crossed.cancel()
        self.failureResultOf(crossed, CancelledError)
        self.ends.move()
        self.assertEqual(self.waiting.cancelled, 1)
        self.assertEqual(self.successResultOf(self.call("echo", b"on")), b"a:on")

    def test_cancel_unsent(self) -> None:
        """A call that is cancelled before it went out is never served for longer than it takes to say so."""
        waits = self.ends.a.call("wait", b"")
        waits.cancel()
        self.failureResultOf(waits, CancelledError)
        self.ends.move()
        self.assertEqual(self.waiting.cancelled, len(self.waiting.asked))
        large = self.ends.a.call("wait", b"x" * 500_000)
        self.ends.carry(self.ends.a, self.ends.b, 3)
        large.cancel()
        self.failureResultOf(large, CancelledError)
        self.ends.move()
        self.assertEqual([len(body) for _, body, _ in self.waiting.asked], [0])
        self.assertEqual(self.ends.b._pieces.held, 0)

    def test_cancel_large_answer(self) -> None:
        """A large answer that nobody waits for any more stops half way."""
        self.ends.verbs["large"] = lambda member, body: b"x" * 10_000_000
        waits = self.ends.a.call("large", b"")
        self.ends.carry(self.ends.a, self.ends.b)
        self.ends.carry(self.ends.b, self.ends.a, 5)
        waits.cancel()
        self.failureResultOf(waits, CancelledError)
        self.ends.carry(self.ends.a, self.ends.b)
        self.assertEqual(self.ends.carry(self.ends.b, self.ends.a), 1)
        self.assertEqual((self.ends.seen[-1], self.ends.a._pieces.held), (("b", Kind.DROP), 0))

    def test_handler_after_cancel(self) -> None:
        """A handler that answers or fails though it was cancelled: nothing is sent; a failure that is nobody's answer is logged."""
        for end in (
            lambda answer: answer.callback(b"x"),
            lambda answer: answer.errback(LeaseLost("x")),
            lambda answer: answer.errback(ZeroDivisionError()),
        ):
            self.ends.verbs["stubborn"] = lambda member, body, end=end: Deferred(end)
            waits = self.call("stubborn")
            waits.cancel()
            self.failureResultOf(waits, CancelledError)
            self.ends.seen.clear()
            self.ends.move()
            self.assertEqual(self.ends.seen, [("a", Kind.CANCEL)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_timeout(self) -> None:
        """No answer in time: PeerTimeout here, cancelled there. An answer in time leaves no timer."""
        waits = self.call("wait", timeout_ms=500)
        self.ends.clock.advance(499)
        self.assertNoResult(waits)
        self.ends.clock.advance(1)
        self.failureResultOf(waits, PeerTimeout)
        self.ends.move()
        self.assertEqual(self.waiting.cancelled, 1)
        self.successResultOf(self.call("echo", timeout_ms=500))
        cancelled = self.call("wait", timeout_ms=500)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.assertEqual(self.ends.clock.reactor.getDelayedCalls(), [])

    def test_faults(self) -> None:
        """What the other end fails with arrives with class and members; what is no PsubdError is logged there and told as Internal, no more."""

        def refuse(member: str, body: bytes) -> bytes:
            raise LeaseLost("lost", lost=["t"], acked=2)

        def bug(member: str, body: bytes) -> bytes:
            raise ZeroDivisionError("secret")

        raised = self.fault(refuse)
        assert isinstance(raised, LeaseLost)
        self.assertEqual(raised.members, {"lost": ["t"], "acked": 2})
        self.assertIsInstance(self.fault(lambda member, body: fail(LeaseLost("lost"))), LeaseLost)
        for told in (bug, lambda member, body: fail(ZeroDivisionError("secret")), lambda member, body: None, lambda member, body: succeed("text")):
            raised = self.fault(told)
            self.assertIsInstance(raised, Internal)
            self.assertNotIn("secret", str(raised))
        self.assertEqual([len(self.flushLoggedErrors(ZeroDivisionError)), len(self.flushLoggedErrors(TypeError))], [2, 2])

    def test_large_fault(self) -> None:
        """A failure that names 10,000 tokens arrives whole."""
        lost = ["t" * 100 + str(number) for number in range(10_000)]
        raised = self.fault(lambda member, body: fail(LeaseLost("lost", lost=lost)))
        assert isinstance(raised, LeaseLost)
        self.assertEqual(raised.members["lost"], lost)

    def test_unknown_verb(self) -> None:
        """A verb that a node of another version does not know is in doubt there: a client tries again, elsewhere."""
        self.failureResultOf(self.call("unheard"), OwnershipInDoubt)

    def test_tell(self) -> None:
        """What is told arrives, in order with short calls; nothing comes back, and a failure is logged there."""
        came: list[tuple[str, bytes]] = []
        self.ends.verbs["note"] = lambda member, body: came.append((member, body)) or b"ignored"
        for number in range(3):
            self.assertTrue(self.ends.a.tell("note", b"%d" % number))
        self.assertTrue(self.ends.a.tell("note", b"x" * 200_000))
        self.ends.seen.clear()
        self.ends.move()
        self.assertEqual([body[:1] for _, body in came], [b"0", b"1", b"2", b"x"])
        self.assertNotIn("b", [member for member, _ in self.ends.seen])
        for handler in (lambda member, body: 1 / 0, lambda member, body: fail(ZeroDivisionError())):
            self.ends.verbs["note"] = handler
            self.ends.a.tell("note", b"")
            self.ends.move()
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.ends.a.tell("unheard", b"")
        self.ends.move()
        self.assertEqual(len(self.flushLoggedErrors(OwnershipInDoubt)), 1)

    def test_interleaved(self) -> None:
        """An ack among answers of 8 MiB is answered after one piece of each, not after the answers."""
        self.ends.verbs["large"] = lambda member, body: b"x" * 8_388_608
        larges = [self.ends.a.call("large", b"") for _ in range(3)]
        self.ends.carry(self.ends.a, self.ends.b)
        self.ends.carry(self.ends.b, self.ends.a, 20)
        ack = self.ends.a.call("echo", b"ack")
        self.ends.carry(self.ends.a, self.ends.b)
        self.ends.carry(self.ends.b, self.ends.a, 2)
        self.assertEqual(self.successResultOf(ack), b"a:ack")
        for large in larges:
            self.assertNoResult(large)
        self.ends.move()
        self.assertEqual([len(self.successResultOf(large)) for large in larges], [8_388_608] * 3)

    def test_largest(self) -> None:
        """A body of 128 MiB goes both ways; one more is refused before anything is sent, as a call and as an answer."""
        body = bytes(BODY_BYTES)
        self.ends.verbs["mirror"] = lambda member, body: body
        self.assertEqual(len(self.successResultOf(self.call("mirror", body))), BODY_BYTES)
        self.ends.seen.clear()
        self.failureResultOf(self.call("mirror", body + b"x"), TooLarge)
        self.assertFalse(self.ends.a.tell("mirror", body + b"x"))
        self.assertEqual(self.ends.seen, [])
        del self.ends.verbs["mirror"]
        gc.collect()
        self.assertIsInstance(self.fault(lambda member, asked: body + b"x"), TooLarge)

    def test_full(self) -> None:
        """What may wait to be sent is bounded: a call is refused, what is told too, and an answer becomes a failure that says so."""
        self.ends = Ends(most=200_000)
        self.ends.verbs["large"] = lambda member, body: b"x" * 150_000
        first = self.ends.a.call("large", b"y" * 150_000)
        self.failureResultOf(self.ends.a.call("large", b"y" * 60_000), OverBudget)
        self.assertFalse(self.ends.a.tell("large", b"y" * 60_000))
        second = self.ends.a.call("large", b"")
        self.ends.carry(self.ends.a, self.ends.b)
        self.ends.move()
        self.assertEqual(len(self.successResultOf(second)), 150_000)
        self.failureResultOf(first, OverBudget)
        self.assertEqual(len(self.successResultOf(self.call("large"))), 150_000)

    def test_too_many(self) -> None:
        """More calls than may wait here are refused, and those that wait go on."""
        self.patch(module, "MOST_SERVED", 2)
        answers = [self.call("wait") for _ in range(3)]
        self.failureResultOf(answers.pop(), OverBudget)
        for _, _, answer in self.waiting.asked:
            answer.callback(b"")
        self.ends.move()
        self.assertEqual([self.successResultOf(answer) for answer in answers], [b"", b""])

    def test_lost(self) -> None:
        """A lost link: what it served is cancelled, then what it asked fails with PeerLost, and nothing more can be said."""
        order: list[str] = []
        self.ends.a._verbs = {"wait": lambda member, body: Deferred(lambda _: order.append("cancelled"))}
        asked, timed, _ = self.ends.a.call("wait", b""), self.ends.a.call("wait", b"", 500), self.ends.b.call("wait", b"")
        self.ends.move()
        asked.addErrback(lambda failure: order.append(failure.type.__name__))
        self.ends.a.lost("the line broke")
        self.assertEqual(order, ["cancelled", "PeerLost"])
        self.assertIn("the line broke", str(self.failureResultOf(timed, PeerLost).value))
        self.failureResultOf(self.ends.a.call("wait", b""), PeerLost)
        self.assertFalse(self.ends.a.tell("wait", b""))
        self.assertEqual((self.ends.a.asked, self.ends.a.served, self.ends.clock.reactor.getDelayedCalls()), (0, 0, []))

    def test_lost_in_a_callback(self) -> None:
        """Who hears of a lost call and asks again at once is refused, and does not come between the others."""
        again: list[Deferred[bytes]] = []
        for _ in range(3):
            self.ends.a.call("wait", b"").addErrback(lambda _: again.append(self.ends.a.call("wait", b"")))
        self.ends.a.lost("x")
        for answer in again:
            self.failureResultOf(answer, PeerLost)
        self.assertEqual(len(again), 3)

    def test_illegal(self) -> None:
        """What no link sends breaks it: answers to calls that were never made, a call made twice, what belongs before the link."""
        self.ends.a.call("wait", b"")
        for frame in (
            Frame(Kind.REPLY, 2),
            Frame(Kind.ERROR, 0),
            Frame(Kind.HELLO, 0, b""),
            Frame(Kind.WELCOME, 0, b""),
            Frame(Kind.PIECE, 1, b"x"),
        ):
            self.assertRaises(IllegalFrame, self.ends.a.received, frame)
        self.ends.b.received(Frame(Kind.CALL, 1, b"", "wait"))
        self.assertRaises(IllegalFrame, self.ends.b.received, Frame(Kind.CALL, 1, b"", "wait"))
        self.ends.b.received(Frame(Kind.CANCEL, 77))  # its answer crossed it

    def test_bad_verb(self) -> None:
        """A verb that cannot be sent is the caller's mistake, at once, and leaves nothing behind; also where the body is large."""
        for body in (b"", b"x" * (PIECE_BYTES + 1)):
            self.assertRaises(ValueError, self.ends.a.call, "é", body)
        self.assertEqual((self.ends.a.asked, self.ends.a.outbox.waiting), (0, 0))

    def test_ping(self) -> None:
        """A ping is answered."""
        self.ends.a.ping()
        self.ends.a.ping()
        self.ends.move()
        self.assertEqual(self.ends.seen, [("a", Kind.PING)] * 2 + [("b", Kind.PONG)] * 2)

    def test_pings_unanswered(self) -> None:
        """A line that takes nothing does not gather pings; an answer that nobody asked for is nothing."""
        for _ in range(100):
            self.ends.a.ping()
        self.ends.move()
        self.assertEqual(len(self.ends.seen), 2 * module.MOST_PINGS)
        self.ends.a.received(Frame(Kind.PONG, 0))
        for _ in range(100):
            self.ends.a.ping()
        self.ends.move()
        self.assertEqual(len(self.ends.seen), 4 * module.MOST_PINGS)
