"""Time, connections that go away, the last answers."""

from typing import Any

from psubd.interfaces import IOutlet, Route
from psubd.model import Answer
from tests.wire.peer import Peer, Waiting, WireCase, Wireline, chunked, get, post


class Timeouts(WireCase):
    def test_head(self) -> None:
        """A head that does not arrive within 10 s of its first byte is 408, however busily it comes; the connection is closed."""
        peer = self.peer().send(b"GET /get HTTP/1.1\r\n")
        for _ in range(9):
            self.clock.advance(1000)
            peer.send(b"X-A: b\r\n")
        self.assertEqual(peer.responses(), [])
        self.clock.advance(2000)
        self.refused(peer, 408, "bad_body")

    def test_body(self) -> None:
        """A body that makes no progress for 30 s is 408; one that goes on may take longer."""
        peer = self.peer().send(get("/post", "Content-Length: 10", method="POST"))
        for _ in range(4):
            self.clock.advance(25_000)
            peer.send(b"x")
        self.assertEqual(peer.responses(), [])
        self.clock.advance(31_000)
        self.refused(peer, 408, "bad_body")

    def test_idle(self) -> None:
        """A connection without a request is closed after 75 s, without an answer; before its first and after each."""
        for sent in (b"", get()):
            peer = self.peer().send(sent)
            peer.responses()
            self.clock.advance(74_000)
            self.assertFalse(peer.closed)
            self.clock.advance(2000)
            self.assertTrue(peer.transport.disconnecting)
            self.assertEqual(peer.responses(), [])
            peer.lose()

    def test_waiting_has_no_end(self) -> None:
        """A request that waits for its answer is not timed out by the wire."""
        waiting = Waiting()
        self.site = self.serve(Route("GET", "/get", waiting, "get"))
        peer = self.peer().send(get())
        self.clock.advance(600_000)
        self.assertFalse(peer.closed or waiting.cancelled)
        waiting.waits[0].callback(Answer())
        self.assertEqual(peer.response().status, 200)

    def test_close_by_force(self) -> None:
        """A connection that does not close when told is broken after 5 s."""
        peer = self.peer().send(get("/get", "Connection: close"))
        self.assertFalse(peer.transport.disconnected)
        self.clock.advance(6000)
        self.assertTrue(peer.transport.disconnected)

    def test_linger(self) -> None:
        """After a refusal that ends the connection, a client that does not close is given 5 s."""
        peer = self.peer().send(b"nonsense\r\n\r\n")
        self.assertTrue(peer.transport.half_closed)
        self.assertFalse(peer.transport.disconnecting)
        self.clock.advance(6000)
        self.assertTrue(peer.transport.disconnecting)

    def test_no_timer_without_connections(self) -> None:
        """The port's timer runs only while there are connections."""
        self.assertEqual(self.clock.reactor.getDelayedCalls(), [])
        peer = self.peer()
        self.assertEqual(len(self.clock.reactor.getDelayedCalls()), 1)
        peer.lose()
        self.assertEqual(self.clock.reactor.getDelayedCalls(), [])


class Lost(WireCase):
    def setUp(self) -> None:
        super().setUp()
        self.waiting = Waiting()
        self.site = self.serve(Route("GET", "/get", self.waiting, "get"), Route("POST", "/post", self.endpoint, "post", max_body=100))

    def test_cancelled(self) -> None:
        """The endpoint's Deferred is cancelled when its client goes away, without a line in the log."""
        peer = self.peer().send(get())
        peer.lose()
        self.assertEqual(self.waiting.cancelled, 1)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.metric("psubd_http_answers_broken_total"), 1)

    def test_answer_all_the_same(self) -> None:
        """An endpoint that answers although it was cancelled is told that nothing was handed over."""
        settled: list[int] = []
        self.waiting.cancel = lambda wait: wait.callback(Answer(body=b"abc", settle=settled.append))  # type: ignore[method-assign]
        self.peer().send(get()).lose()
        self.assertEqual(settled, [-1])

    def test_in_the_middle_of_a_body(self) -> None:
        """A request whose body never came whole is not run."""
        peer = self.peer().send(get("/post", "Content-Length: 10", method="POST") + b"123")
        peer.lose()
        self.assertEqual((self.endpoint.calls, self.flushLoggedErrors()), ([], []))

    def test_pipelined_are_not_run(self) -> None:
        """What waited behind a request whose client went away is not run."""
        peer = self.peer().send(get() + get())
        peer.lose()
        self.assertEqual(len(self.waiting.calls), 1)

    def test_held(self) -> None:
        """With more than 64 KiB behind a request that waits the transport is paused, until all that was sent before is answered; nothing is lost."""
        peer = self.peer().send(get() + post(b"x" * 100) * 400)
        self.assertEqual(peer.transport.producerState, "producing")
        peer.send(post(b"x" * 100) * 400)
        self.assertEqual(peer.transport.producerState, "paused")
        self.clock.advance(600_000)
        self.assertEqual((peer.closed, self.endpoint.calls), (False, []))
        self.waiting.waits[0].callback(Answer())
        self.assertEqual([response.status for response in peer.responses()], [200] * 801)
        self.assertEqual(peer.transport.producerState, "producing")
        self.clock.advance(74_000)
        self.assertFalse(peer.closed)
        self.clock.advance(2000)
        self.assertTrue(peer.closed)

    def test_held_behind_the_last(self) -> None:
        """Where the answer is the connection's last, the line is taken on only to see its end: for 5 s."""
        peer = self.peer().send(get("/get", "Connection: close") + b"x" * 70_000)
        self.waiting.waits[0].callback(Answer(body=b"done"))
        self.assertEqual(peer.response().body, b"done")
        self.assertEqual(peer.transport.producerState, "producing")
        self.clock.advance(4000)
        self.assertFalse(peer.transport.disconnecting)
        self.clock.advance(2000)
        self.assertTrue(peer.transport.disconnecting)

    def test_not_paused(self) -> None:
        """The transport is not paused for less, whether a request waits or an answer is on its way."""
        peer = self.peer().send(get() + get())
        peer.transport.taking = False
        self.waiting.waits[0].callback(Answer(body=b"x" * 1_000_000))
        peer.send(b"x" * 1000)
        self.assertEqual(peer.transport.producerState, "producing")


class Settle(WireCase):
    def start(self, body: bytes = b"x" * 150_000) -> Peer:
        self.settled: list[int] = []
        self.endpoint.answer = Answer(body=body, settle=self.settled.append)
        peer = self.peer()
        peer.transport.taking = False
        return peer.send(get())

    def test_all(self) -> None:
        """Settled once, with the body's length, when the operating system has all of it; not before."""
        peer = self.start()
        for _ in range(3):
            self.assertEqual(self.settled, [])
            peer.take_once()
        self.assertEqual(self.settled, [150_000])
        peer.lose()
        self.assertEqual(self.settled, [150_000])

    def test_portions(self) -> None:
        """Memory of the transport never holds more than a portion."""
        peer = self.start()
        self.assertLess(len(peer.raw), 65_536 + 1000)
        peer.take_once()
        self.assertLess(len(peer.raw), 2 * 65_536 + 1000)

    def test_broken(self) -> None:
        """A connection that breaks settles with what was taken of the body, in whole portions; -1 where not even the head was."""
        for taken in (0, 1, 2):
            peer = self.start()
            for _ in range(taken):
                peer.take_once()
            peer.lose()
            self.assertEqual(self.settled, [taken * 65_536 if taken else -1])

    def test_empty(self) -> None:
        """An empty body is settled with 0, once its head was taken."""
        peer = self.start(b"")
        self.assertEqual(self.settled, [])
        peer.take_once()
        self.assertEqual(self.settled, [0])

    def test_stalled(self) -> None:
        """A client that takes no byte for 30 s is broken, whether or not anybody is to be told."""
        peer = self.start()
        self.clock.advance(20_000)
        peer.take_once()
        self.clock.advance(29_000)
        self.assertFalse(peer.transport.disconnected)
        self.clock.advance(2000)
        self.assertTrue(peer.transport.disconnected)
        peer.lose()
        self.assertEqual(self.settled, [65_536])
        self.endpoint.answer = Answer(body=b"plain")
        plain = self.peer()
        plain.transport.taking = False
        plain.send(get())
        self.clock.advance(31_000)
        self.assertTrue(plain.transport.disconnected)

    def test_failing_settle(self) -> None:
        """A settle that fails is logged and costs nobody the connection."""
        self.endpoint.answer = Answer(settle=lambda _: 1 // 0)
        peer = self.peer().send(get() + get())
        self.assertEqual(len(peer.responses()), 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


class Stands(WireCase):
    """An answer that this node must not give to anybody any more."""

    def start(self, standing: list[int], **more: Any) -> Peer:
        self.settled: list[int] = []
        self.endpoint.answer = Answer(body=b"x" * 150_000, settle=self.settled.append, stands=lambda: bool(standing), **more)
        peer = self.peer()
        peer.transport.taking = False
        return peer.send(get())

    def test_never(self) -> None:
        """Where it does not stand when it comes: nothing is written, the connection is reset, and it is settled with -1."""
        peer = self.start([])
        self.assertEqual((peer.raw, peer.transport.disconnected, self.settled), (b"", True, [-1]))
        peer.lose()
        self.assertEqual(self.settled, [-1])

    def test_between_portions(self) -> None:
        """Where it falls in the middle: no further portion is written, and it is settled with those that were taken."""
        standing = [1]
        peer = self.start(standing)
        peer.take_once()
        written = len(peer.raw)
        standing.clear()
        peer.take_once()
        self.assertEqual((len(peer.raw), peer.transport.disconnected), (written, True))
        peer.lose()
        self.assertEqual(self.settled, [2 * 65_536])
        self.assertEqual(self.metric("psubd_http_answers_broken_total"), 1)

    def test_slow_client(self) -> None:
        """A client that takes nothing is not kept until it does."""
        standing = [1]
        peer = self.start(standing)
        self.clock.advance(3000)
        self.assertFalse(peer.transport.disconnected)
        standing.clear()
        self.clock.advance(3000)
        self.assertTrue(peer.transport.disconnected)
        peer.lose()
        self.assertEqual(self.settled, [-1])

    def test_to_the_end(self) -> None:
        """One that stands is an answer like any other, and its connection goes on."""
        peer = self.start([1])
        peer.transport.taking = True
        self.assertEqual(peer.response().status, 200)
        self.assertEqual(self.settled, [150_000])
        self.endpoint.answer = Answer(body=b"next")
        self.assertEqual(peer.send(get()).response().body, b"next")

    def test_stream(self) -> None:
        """A stream that falls is broken too, and its writer hears of it."""
        standing, outlets, lost = [1], list[IOutlet](), list[int]()
        self.endpoint.answer = Answer(stream=outlets.append, stands=lambda: bool(standing))
        peer = self.peer().send(get())
        outlets[0].on_lost(lambda: lost.append(1))
        outlets[0].write(b"first")
        peer.take()
        standing.clear()
        outlets[0].write(b"second")
        self.assertTrue(peer.transport.disconnected)
        peer.lose()
        self.assertEqual((b"first" in peer.raw, b"second" in peer.raw, lost), (True, False, [1]))


class Streams(WireCase):
    def stream(self, raw: bytes = b"", taking: bool = True) -> Peer:
        self.outlets: list[IOutlet] = []
        self.endpoint.answer = Answer(headers=[(b"content-type", b"text/event-stream")], stream=self.outlets.append)
        peer = self.peer()
        peer.transport.taking = taking
        return peer.send(raw or get())

    def test_chunks(self) -> None:
        """The head goes out at once, each write as a chunk; after finish the connection goes on."""
        peer = self.stream()
        self.assertIn(b"transfer-encoding: chunked\r\n", peer.raw)
        self.assertNotIn(b"content-length", peer.raw)
        outlet = self.outlets[0]
        outlet.write(b"one")
        outlet.write(b"")
        peer.take()
        self.assertTrue(peer.raw.endswith(b"3\r\none\r\n"))
        outlet.write(b"two")
        outlet.finish()
        self.assertEqual(peer.response().body, b"onetwo")
        outlet.write(b"late")
        self.endpoint.answer = Answer()
        self.assertEqual(peer.send(get()).response().body, b"")

    def test_at_once(self) -> None:
        """A stream that is ended before anything was taken comes whole."""

        def all_of_it(outlet: IOutlet) -> None:
            outlet.write(b"a")
            outlet.finish()

        self.endpoint.answer = Answer(stream=all_of_it)
        self.assertEqual(self.peer().send(get()).response().body, b"a")

    def test_buffered(self) -> None:
        """`buffered` counts what the operating system has not taken."""
        peer = self.stream(taking=False)
        outlet = self.outlets[0]
        self.assertEqual(outlet.buffered, 0)
        outlet.write(b"12345")
        outlet.write(b"123")
        self.assertEqual(outlet.buffered, 8)
        peer.take_once()
        self.assertEqual(outlet.buffered, 8)
        peer.take_once()
        self.assertEqual(outlet.buffered, 0)

    def test_old(self) -> None:
        """An HTTP/1.0 client gets the bare body, which ends with the connection."""
        peer = self.stream(b"GET /get HTTP/1.0\r\n\r\n")
        self.outlets[0].write(b"abc")
        self.outlets[0].finish()
        peer.take()
        self.assertTrue(peer.raw.endswith(b"connection: close\r\n\r\nabc"))
        self.assertTrue(peer.closed)

    def test_lost(self) -> None:
        """on_lost is called once when the client goes away, also for who asks later; writes do nothing then."""
        lost: list[str] = []
        peer = self.stream(taking=False)
        outlet = self.outlets[0]
        outlet.write(b"abc")
        outlet.on_lost(lambda: lost.append("first"))
        peer.lose()
        outlet.on_lost(lambda: lost.append("later"))
        outlet.write(b"abc")
        outlet.finish()
        self.assertEqual((lost, outlet.buffered), (["first", "later"], 0))

    def test_not_lost(self) -> None:
        """After finish, on_lost is not called."""
        lost: list[int] = []
        peer = self.stream()
        self.outlets[0].on_lost(lambda: lost.append(1))
        self.outlets[0].finish()
        peer.lose()
        self.assertEqual(lost, [])

    def test_stalled(self) -> None:
        """A stream with nothing to say may stay for ever; one whose client takes nothing for 30 s is broken."""
        peer = self.stream()
        self.clock.advance(600_000)
        self.assertFalse(peer.closed)
        peer.transport.taking = False
        self.outlets[0].write(b"abc")
        self.clock.advance(31_000)
        self.assertTrue(peer.transport.disconnected)

    def test_failing(self) -> None:
        """A stream that fails ends its body, and is logged."""

        def fail(outlet: IOutlet) -> None:
            raise ZeroDivisionError

        self.endpoint.answer = Answer(stream=fail)
        self.assertEqual(self.peer().send(get()).response().body, b"")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Drain(WireCase):
    def setUp(self) -> None:
        super().setUp()
        self.waiting = Waiting()
        self.site = self.serve(
            Route("GET", "/wait", self.waiting, "wait"),
            Route("POST", "/post", self.endpoint, "post", max_body=100),
            Route("GET", "/get", self.endpoint, "get"),
        )

    def test_idle(self) -> None:
        """Idle connections are closed at once; with none in flight it fires at once, and again for who asks again."""
        used = self.peer().send(get())
        used.responses()
        self.successResultOf(self.site.drain())
        self.assertTrue(used.closed)
        self.successResultOf(self.site.drain())

    def test_fresh(self) -> None:
        """One on which no request came yet gets its first one answered, if that comes soon."""
        quick, slow = self.peer(), self.peer()
        drained = self.site.drain()
        self.assertFalse(quick.closed or slow.closed)
        response = quick.send(get()).response()
        self.assertEqual((response.status, response.closes, quick.closed), (200, True, True))
        self.assertNoResult(drained)
        self.clock.advance(1000)
        self.assertTrue(slow.closed)
        slow.lose()
        self.successResultOf(drained)

    def test_retire(self) -> None:
        """Before that a port may retire: each answer is its connection's last, and connections that are idle are left."""
        self.site.retire()
        idle, waits = self.peer(), self.peer().send(get("/wait"))
        self.assertTrue(self.peer().send(get()).response().closes)
        self.waiting.waits[0].callback(Answer(body=b"done"))
        self.assertTrue(waits.response().closes and waits.closed)
        self.clock.advance(10_000)
        self.assertFalse(idle.closed)
        self.assertTrue(idle.send(get()).response().closes)

    def test_in_flight(self) -> None:
        """Requests that were accepted get their answers, with close; it fires after the last one was handed over."""
        waits, body, head = self.peer().send(get("/wait")), self.peer(), self.peer().send(b"GET /get HT")
        body.send(get("/post", "Content-Length: 3", method="POST"))
        drained, again = self.site.drain(), self.site.drain()
        self.assertFalse(waits.closed or body.closed or head.closed)
        waits.transport.taking = False
        self.waiting.waits[0].callback(Answer(body=b"done"))
        head.send(b"TP/1.1\r\nHost: a\r\n\r\n")
        body.send(b"abc")
        self.assertNoResult(drained)
        waits.take_once()
        self.successResultOf(drained)
        self.successResultOf(again)
        for peer in (waits, body, head):
            self.assertTrue(peer.response().closes and peer.closed)

    def test_lost(self) -> None:
        """A request whose client goes away is no longer in flight."""
        peer = self.peer().send(get("/wait"))
        drained = self.site.drain()
        self.assertNoResult(drained)
        peer.lose()
        self.successResultOf(drained)

    def test_streams(self) -> None:
        """Streams are told, and end properly."""
        outlets: list[IOutlet] = []
        lost: list[int] = []
        self.endpoint.answer = Answer(stream=outlets.append)
        peer = self.peer().send(get())
        outlets[0].on_lost(lambda: lost.append(1))
        drained = self.site.drain()
        peer.take()
        self.assertEqual(lost, [1])
        self.successResultOf(drained)
        self.assertTrue(peer.raw.endswith(b"\r\n\r\n0\r\n\r\n") and peer.closed)


class Connections(WireCase):
    def test_full(self) -> None:
        """Connections over the bound are told 503 with Retry-After and closed; once others went, new ones are served."""
        self.site = self.serve(max_connections=2)
        first, second = self.peer(), self.peer()
        third = Peer(self.site)
        response = self.refused(third, 503, "over_budget")
        self.assertIn("retry-after", response.headers)
        self.assertTrue(third.transport.disconnecting)
        third.send(get())
        self.assertEqual(self.endpoint.calls, [])
        self.assertEqual(self.metric("psubd_http_connections_turned_away_total"), 1)
        third.lose()
        first.lose()
        self.assertEqual(self.peer().send(get()).response().status, 200)
        self.assertEqual(second.send(get()).response().status, 200)

    def test_full_although_not_read(self) -> None:
        """One that is turned away and takes nothing is broken in the end."""
        self.site = self.serve(max_connections=0)
        transport = Wireline()
        transport.taking = False
        peer = Peer(self.site, transport)
        self.clock.advance(31_000)
        self.assertTrue(peer.transport.disconnected)

    def test_bytes_are_counted(self) -> None:
        """Bytes in and bytes of answers are counted."""
        raw = post(b"abc") + chunked(b"abc")
        self.peer().send(raw).responses()
        self.assertEqual(self.metric("psubd_http_received_bytes_total"), len(raw))
        self.assertEqual(self.metric("psubd_http_answered_bytes_total"), 4)
