"""Hot routes: every promise of the other files once more on the short way, and that it makes no difference which way a request goes."""

import random
import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from psubd.errors import BadCredentials, TopicNotBound
from psubd.interfaces import IExchange, Route
from psubd.model import Answer
from psubd.wire.memo import KnownLines
from psubd.wire.site import Site
from tests.wire import test_bodies, test_channel, test_garbage, test_head, test_site
from tests.wire.peer import Endpoint, Peer, Waiting, WireCase, chunked, get, post


class HotAnswers(test_site.Answers):
    hot = True


class HotErrors(test_site.Errors):
    hot = True


class HotMethods(test_site.Methods):
    hot = True


class HotPaths(test_site.Paths):
    hot = True


class HotLimits(test_bodies.Limits):
    hot = True


class HotAdmission(test_bodies.Admission):
    hot = True


class HotGzip(test_bodies.Gzip):
    hot = True


class HotTimeouts(test_channel.Timeouts):
    hot = True


class HotLost(test_channel.Lost):
    hot = True


class HotSettle(test_channel.Settle):
    hot = True


class HotStands(test_channel.Stands):
    hot = True


class HotStreams(test_channel.Streams):
    hot = True


class HotDrain(test_channel.Drain):
    hot = True


class HotConnections(test_channel.Connections):
    hot = True


class HotGarbage(test_garbage.Garbage):
    hot = True


class HotInterfaces(test_garbage.Interfaces):
    hot = True


class HotBadHeads(test_head.BadHeads):
    hot = True


class Both(Endpoint):
    """Remembers all that an exchange says; answers with the body."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[Any] = []

    def __call__(self, exchange: IExchange, **parts: str) -> Any:
        if exchange.header(b"x-stranger"):
            raise BadCredentials("no")  # as `Route.admit` does before: all endpoints judge again
        lines = list(exchange.headers)
        self.said.append((exchange.method, exchange.path, exchange.raw_query, lines, exchange.body, exchange.client, exchange.secure, parts))
        if (b"x-fail", b"1") in lines:
            raise TopicNotBound("no")
        return Answer(body=exchange.body)


class NoDifference(WireCase):
    """The same bytes, in the same pieces, to a port with hot routes and to one without."""

    def setUp(self) -> None:
        super().setUp()
        self.called = Both(), Both()
        self.sites = self.port(self.called[0], True), self.port(self.called[1], False)

    def port(self, called: Both, hot: bool) -> Site:
        self.hot = hot

        def admit(exchange: IExchange) -> None:
            if exchange.header(b"x-stranger"):
                raise BadCredentials("no")

        return self.serve(
            Route("GET", "/get", called, "get"),
            Route("POST", "/get", called, "post", max_body=1000, gzip=True, admit=admit),
            Route("POST", "/to/{topic}", called, "to", max_body=1000, needs_length=True),
            Route("POST", "/to/fixed", called, "fixed", max_body=10),
        )

    def same(self, raw: bytes, pieces: list[int]) -> bytes:
        """Both answer alike, and call their endpoints alike; the answers."""
        told = []
        for site in self.sites:
            peer, start = Peer(site), 0
            for piece in pieces:
                peer.send(raw[start : start + piece])
                start += piece
            peer.send(raw[start:]).take()
            told.append((re.sub(rb"x-request-id: [0-9a-f]{16}-[0-9a-f]+\r", b"x-request-id: -\r", peer.raw), peer.closed))
            peer.lose()
        self.assertEqual(told[0], told[1], (raw, pieces))
        self.assertEqual(self.called[0].said, self.called[1].said, raw)
        return told[0][0]

    REQUESTS = (
        get(),
        get("/get?a=b"),
        get("/get", "X-Request-Id: mine", "X-Fail: 1"),
        post(b"hello", "/get"),
        post(b"hello world", "/get", "X-Stranger: 1"),
        post(b"hello", "/to/a%2Eb"),
        post(b"hello", "/to/fixed"),
        post(b"hello" * 3, "/to/fixed"),
        post(b"hello", "/to/a/"),
        post(b"x" * 1000, "/to/c"),
        post(b"x" * 1001, "/to/c"),
        post(b"", "/to/c"),
        post(b"abc", "/to/c", "Expect: 100-continue"),
        post(b"abc", "/to/c", "Expect: 200-ok"),
        post(b"abc", "/to/c", "Content-Encoding: gzip"),
        post(b"abc", "/get", "Content-Encoding: gzip"),
        post(b"abc", "/to/c", "Connection: close"),
        get("/to/c", method="POST"),
        chunked(b"hello" * 20, "/get", piece=7),
        b"POST /to/c HTTP/1.1\r\nHost: a\r\ncontent-length: 3\r\n\r\nabc",
        b"POST /to/c HTTP/1.1\r\nHost: a\r\nCONTENT-LENGTH: 3\r\n\r\nabc",
        b"POST /to/c HTTP/1.1\r\nHost: a\r\nContent-Length:3\r\n\r\nabc",
        b"POST /to/c HTTP/1.1\r\nHost: a\r\nContent-Length: 03\r\n\r\nabc",
        b"POST /to/c HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\nabc",
        b"POST /to/c HTTP/1.1\r\nHost: a\r\nContent-Length: 3 \r\n\r\nabc",
        b"POST /to/c HTTP/1.1\r\nHost: a\r\nX: Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /to/c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\ncontent-length: 3\r\n\r\nabc",
        b"POST /to/c HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
        b"POST http://a/to/c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"GET /get HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"GET /get HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        b"\r\nGET /get HTTP/1.1\r\nHost: a\r\n\r\n",
    )

    def test_whole_and_in_pieces(self) -> None:
        """Each kind of request, unknown, known, and known with other lengths; whole, in two pieces, in many, two at once."""
        for raw in self.REQUESTS:
            end = raw.index(b"\r\n\r\n", 1) + 4
            for pieces in ([], [], [], [end], [end - 2], [5], [1] * len(raw), [end + 1], [end, 1]):
                self.same(raw, pieces)
            self.same(raw + get() + raw, [])
            self.same(raw + raw, [len(raw) + 3])

    def test_lengths(self) -> None:
        """One head with many lengths of its body, once it is known: what is sent is what arrives, and the header says so."""
        for size in (3, 3, 3, 0, 1, 9, 10, 11, 99, 100, 999, 1000, 1001, 5):
            raw = post(b"y" * size, "/to/c")
            for pieces in ([], [len(raw) // 2], [len(raw) - size]):
                self.same(raw + get(), pieces)

    def test_dice(self) -> None:
        """Requests with pieces cut out, doubled or put in, after the same ones unharmed: none is taken for one that it is not."""
        chance = random.Random(20260714)
        spoil = test_garbage.Garbage.spoil
        answers = set()
        for _ in range(1200):
            raw = b"".join(chance.choices(self.REQUESTS, k=chance.randint(1, 2)))
            self.same(raw, [])
            spoiled = spoil(self, chance, raw)  # type: ignore[arg-type]
            told = self.same(spoiled, chance.choice(([], [], [chance.randrange(len(spoiled) + 1)], [chance.choice((1, 7, 60))] * 20)))
            answers |= set(re.findall(rb"HTTP/1.1 (\d+)", told))
            for called in self.called:
                called.said.clear()
        self.assertLessEqual({b"200", b"400", b"401", b"403", b"404", b"405", b"411", b"413"}, answers)

    def test_counted_alike(self) -> None:
        """Both ports count the same."""
        raw = get() + post(b"hello", "/get") + post(b"hello", "/to/c") + get("/none")
        before = self.counted()
        Peer(self.sites[0]).send(raw).take()
        middle = self.counted()
        Peer(self.sites[1]).send(raw).take()
        after = self.counted()
        self.assertEqual([b - a for a, b in zip(before, middle, strict=True)], [b - a for a, b in zip(middle, after, strict=True)])
        self.assertEqual(sum(middle) - sum(before), len(raw) + 10 + len(self.none()) + 4 + 4)

    def none(self) -> bytes:
        return Peer(self.sites[0]).send(get("/none")).response().body

    def counted(self) -> list[float]:
        named = [("get", "GET", "200"), ("post", "POST", "200"), ("to", "POST", "200"), ("none", "GET", "404")]
        requests = [self.metric("psubd_http_requests_total", route=r, method=m, status=s) for r, m, s in named]
        seconds = [self.metric("psubd_http_request_seconds_count", route=route) for route, _, _ in named]
        return [*requests, *seconds, self.metric("psubd_http_received_bytes_total"), self.metric("psubd_http_answered_bytes_total")]


class Waits(WireCase):
    """Endpoints that answer later."""

    hot = True

    def setUp(self) -> None:
        super().setUp()
        self.waiting = Waiting()
        self.site = self.serve(Route("POST", "/post", self.waiting, "post", max_body=1000), Route("GET", "/get", self.endpoint, "get"))

    def test_budget(self) -> None:
        """A body counts against the port's budget while its request waits, whole or not, and no longer."""
        for raw, piece in ((post(b"x" * 100), None), (post(b"x" * 100), 40)):
            for end in (lambda peer: self.waiting.waits[-1].callback(Answer()), Peer.lose):
                peer = self.peer().send(raw, piece)
                self.assertEqual(self.metric("psubd_http_body_bytes"), 100)
                end(peer)
                peer.take()
                self.assertEqual(self.metric("psubd_http_body_bytes"), 0)

    def test_over_budget(self) -> None:
        """A body that is here already, and does not fit, is 503 as any other."""
        self.site = self.serve(Route("POST", "/post", self.waiting, "post", max_body=1000), body_budget_bytes=150)
        raw = post(b"x" * 100)
        peers = [self.peer().send(raw) for _ in range(3)]
        self.assertEqual(len(self.waiting.calls), 1)
        self.assertEqual([len(peer.responses()) for peer in peers], [0, 1, 1])
        self.waiting.waits[0].callback(Answer())
        peers[0].take()
        self.peer().send(raw)
        self.assertEqual(len(self.waiting.calls), 2)

    def test_deep(self) -> None:
        """Thousands of pipelined requests that are answered at once need no depth of stack; those behind one that waits neither."""
        self.assertEqual(len(self.peer().send(get() * 3000).responses()), 3000)
        peer = self.peer().send(post(b"x"))
        peer.send(get() * 1000)
        self.assertEqual(peer.responses(), [])
        self.waiting.waits[-1].callback(Answer())
        self.assertEqual(len(peer.responses()), 1001)

    def test_coroutine(self) -> None:
        """An endpoint may be a coroutine; it is cancelled as well."""
        waits: list[Deferred[None]] = []

        async def slow(exchange: IExchange) -> Answer:
            waits.append(Deferred())
            await waits[-1]
            return Answer(body=b"slow")

        self.site = self.serve(Route("GET", "/get", slow, "get"))  # type: ignore[arg-type]
        peer = self.peer().send(get())
        waits[0].callback(None)
        self.assertEqual(peer.response().body, b"slow")
        peer.send(get()).lose()
        self.assertTrue(waits[1].called)
        self.assertEqual(self.flushLoggedErrors(), [])


class Straight(WireCase):
    """What is handed to the operating system at once, and what where it does not take all."""

    hot = True

    def start(self, take: Callable[[bytes], int], **more: Any) -> Peer:
        """A client whose socket takes as ``take`` says."""
        self.settled: list[int] = []
        self.endpoint.answer = Answer(body=b"0123456789", settle=self.settled.append, **more)
        peer = self.peer()
        peer.transport.taking = False
        self.took = b""

        def straight(data: bytes) -> int:
            size = take(data)
            self.took += data[:size]
            return size

        peer.channel.line.straight = straight
        return peer

    def test_all(self) -> None:
        """All taken: settled, nothing written to the transport, no producer; the next request comes after it."""
        peer = self.start(len).send(get() + get())
        self.assertEqual((self.settled, peer.raw, peer.transport.producer), ([10, 10], b"", None))
        self.assertEqual(self.took.count(b"HTTP/1.1 200 OK"), 2)
        self.assertEqual(self.metric("psubd_http_answered_bytes_total"), 20)

    def test_some(self) -> None:
        """Part of it taken, or nothing: the rest goes by the transport, byte for byte, and it is settled when that has taken it."""
        for size in (0, 1, 50, -1, -9, -10, -11):
            peer = self.start(lambda data, size=size: size if size >= 0 else len(data) + size).send(get())
            self.assertEqual(self.settled, [])
            peer.take_once()
            self.assertEqual(self.settled, [10])
            whole = self.took + peer.raw
            self.assertTrue(whole.startswith(b"HTTP/1.1 200 OK\r\n") and whole.endswith(b"\r\n\r\n0123456789"), whole)
            self.assertEqual(whole.count(b"HTTP/1.1"), 1)
            peer.lose()

    def test_broken(self) -> None:
        """A socket that cannot take it now, or never will: the transport has it all, and finds out; what breaks then is settled with nothing."""
        for error in (BlockingIOError(), BrokenPipeError(), ConnectionResetError()):

            def refuse(data: bytes, error: OSError = error) -> int:
                raise error

            peer = self.start(refuse).send(get())
            self.assertTrue(peer.raw.endswith(b"0123456789"))
            peer.lose()
            self.assertEqual(self.settled, [-1])

    def test_some_and_lost(self) -> None:
        """A connection that breaks after a part of the body was taken: -1, as for any portion that was not taken whole."""
        self.start(lambda data: len(data) - 3).send(get()).lose()
        self.assertEqual(self.settled, [-1])

    def test_unsent(self) -> None:
        """Nothing goes past bytes that the transport may still have (100 Continue, the answer before); once it has them no more, it does."""
        self.endpoint.answer = Answer(body=b"0123456789")
        peer = self.start(len)
        peer.send(get("/post", "Content-Length: 3", "Expect: 100-continue", method="POST"))
        peer.send(b"abc" + get())
        self.assertEqual((self.took, len(self.endpoint.calls)), (b"", 1))
        peer.take_once()
        self.assertEqual((self.settled, len(self.endpoint.calls)), ([10, 10], 2))
        self.assertTrue(peer.raw.startswith(b"HTTP/1.1 100") and self.took.startswith(b"HTTP/1.1 200"))

    def test_large(self) -> None:
        """A large answer goes in portions, as the client takes it."""
        peer = self.start(len)
        self.endpoint.answer = Answer(body=b"x" * 200_000)
        peer.send(get())
        self.assertEqual(self.took, b"")
        self.assertLess(len(peer.raw), 70_000)

    def test_stands(self) -> None:
        """Asked once, right before; where it does not stand, the connection is reset, nothing goes out, and it is settled with -1."""
        asked: list[bytes] = []
        peer = self.start(len, stands=lambda: not asked.append(self.took)).send(get())
        self.assertEqual((asked, self.settled), ([b""], [10]))
        peer = self.start(len, stands=lambda: False).send(get())
        self.assertEqual((self.took, self.settled, peer.transport.disconnected), (b"", [-1], True))

    def test_aborted(self) -> None:
        """An answer that comes after its connection was broken, before it is told so, does not go out."""
        waiting = Waiting()
        self.site = self.serve(Route("GET", "/get", waiting, "get"))
        peer = self.start(len).send(get())
        peer.channel.abort()
        waiting.waits[0].callback(Answer(body=b"late", settle=self.settled.append))
        peer.lose()
        self.assertEqual((self.took, self.settled), (b"", [-1]))

    def test_last(self) -> None:
        """The connection's last answer goes out at once too, and then it is closed."""
        peer = self.start(len).send(get("/get", "Connection: close"))
        self.assertIn(b"connection: close\r\n", self.took)
        self.assertTrue(peer.closed)

    def test_failing_settle(self) -> None:
        """A settle that fails is logged and costs nobody the connection."""
        peer = self.start(len)
        self.endpoint.answer = Answer(settle=lambda _: 1 // 0)
        peer.send(get() + get())
        self.assertEqual(self.took.count(b"HTTP/1.1 200 OK"), 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


class Kept(WireCase):
    """What endpoints keep with a head."""

    hot = True

    def kept(self, *raws: bytes) -> list[dict[str, Any]]:
        peer, start = self.peer(), len(self.endpoint.calls)
        for raw in raws:
            peer.send(raw)
        return [exchange.kept for exchange, _ in self.endpoint.calls[start:]]

    def test_same_head(self) -> None:
        """The same head finds what was kept from its second time on, on any connection, whatever the length of its body; another one does not."""
        first, second, third = self.kept(*[post(b"a")] * 3)
        self.assertIsNot(first, second)
        self.assertIs(second, third)
        (other, longer) = self.kept(post(b"b"), post(b"bb"))
        self.assertTrue(other is second and longer is second)
        self.assertIsNot(self.kept(post(b"a", "/post", "A: b"))[0], second)
        self.assertIsNot(self.kept(post(b"a", "/post?"))[0], second)

    def test_in_pieces(self) -> None:
        """However it is cut up on its way."""
        _, second = self.kept(post(b"abc"), post(b"abc"))
        peer = self.peer().send(post(b"abcd"), 3)
        self.assertIs(self.endpoint.calls[-1][0].kept, second)
        peer.send(post(b"x") * 2)
        self.assertIs(self.endpoint.calls[-1][0].kept, second)

    def test_large_heads(self) -> None:
        """A head over 2 KiB is not kept."""
        kept = self.kept(*[post(b"a", "/post", "A: " + "a" * 2048)] * 4)
        self.assertEqual(len({id(one) for one in kept}), 4)

    def test_not_hot(self) -> None:
        """Nothing is kept for other routes."""
        self.hot = False
        self.site = self.serve()
        kept = self.kept(*[get()] * 4)
        self.assertEqual(len({id(one) for one in kept}), 4)
        self.assertEqual(self.site.port.memo.heads, {})

    def test_let_go(self) -> None:
        """When nobody listens any more, nothing of any head is held, and nothing more is kept."""
        kept = self.kept(*[post(b"a", "/post", "Secret: ps_x")] * 3)
        memo = self.site.port.memo
        self.assertEqual(len(memo.heads), 1)
        self.site.doStart()
        self.site.doStop()
        for _ in range(3):
            self.assertEqual((memo.heads, memo.once, memo.weight), ({}, set(), 0))
            self.assertIsNot(self.kept(post(b"a", "/post", "Secret: ps_x"))[0], kept[2])
        self.assertNotIsInstance(memo.lines, KnownLines)
