"""Bodies: counted while they come in, never on disk, refused at once."""

import gzip
import random
import tempfile
import zlib
from unittest import mock

from psubd.errors import BadCredentials
from psubd.interfaces import IExchange, Route
from tests.wire.peer import Peer, WireCase, chunked, get, post

MIB = 1_048_576


class Limits(WireCase):
    def routes(self) -> list[Route]:
        return [
            *super().routes(),
            Route("POST", "/sized", self.endpoint, "sized", max_body=1000, needs_length=True),
            Route("POST", "/big", self.endpoint, "big", max_body=16 * MIB),
        ]

    def test_length_over(self) -> None:
        """A length over the limit is 413 at once, before the body came; the body is dropped, and the connection goes on."""
        peer = self.peer().send(get("/post", "Content-Length: 1001", method="POST"))
        self.refused(peer, 413, "too_large", closes=False)
        peer.send(b"x" * 1001 + get())
        self.assertEqual(peer.response().status, 200)
        self.assertEqual(self.endpoint.exchange.method, "GET")

    def test_chunks_over(self) -> None:
        """A chunked body is 413 the moment the count passes the limit; the rest is dropped, and the connection goes on."""
        raw = chunked(b"x" * 5000, piece=500)
        peer = self.peer().send(raw[:1650], 10)
        self.refused(peer, 413, "too_large", closes=False)
        peer.send(raw[1650:] + get())
        self.assertEqual(peer.response().status, 200)

    def test_far_over(self) -> None:
        """Where more would have to be read than is read for nothing, the answer says close, and so it ends: after 8 MiB."""
        peer = self.peer().send(get("/post", "Content-Length: 99999999", method="POST"))
        self.refused(peer, 413, "too_large")
        self.assertTrue(peer.transport.half_closed)
        self.assertFalse(peer.transport.disconnecting)
        for _ in range(8):
            peer.send(b"x" * MIB)
        self.assertFalse(peer.transport.disconnecting)
        peer.send(b"x")
        self.assertTrue(peer.transport.disconnecting)

    def test_far_over_in_chunks(self) -> None:
        """A chunked body is dropped up to 8 MiB, then the connection is closed."""
        chunk = b"100000\r\n" + b"x" * MIB + b"\r\n"
        peer = self.peer().send(get("/post", "Transfer-Encoding: chunked", method="POST") + chunk[:2000])
        self.refused(peer, 413, "too_large", closes=False)
        peer.send(chunk[2000:])
        for _ in range(7):
            peer.send(chunk)
        self.assertFalse(peer.closed)
        peer.send(chunk)
        self.assertTrue(peer.transport.disconnecting)

    def test_far_over_in_one_chunk(self) -> None:
        """A chunk that says itself that it is too much to be dropped: the answer says close."""
        peer = self.peer().send(get("/post", "Transfer-Encoding: chunked", method="POST") + b"2000000\r\n" + b"x" * 2000)
        self.refused(peer, 413, "too_large")

    def test_drop_takes_too_long(self) -> None:
        """What is dropped must come within 5 s; then the connection is closed."""
        peer = self.peer().send(get("/post", "Content-Length: 5000", method="POST"))
        self.refused(peer, 413, "too_large", closes=False)
        for _ in range(4):
            self.clock.advance(1000)
            peer.send(b"x")
        self.assertFalse(peer.closed)
        self.clock.advance(2000)
        self.assertTrue(peer.transport.disconnecting)

    def test_expect(self) -> None:
        """100 Continue is sent when the body is wanted, and only then."""
        peer = self.peer().send(get("/post", "Content-Length: 3", "Expect: 100-Continue", method="POST"))
        self.assertEqual(peer.response().status, 100)
        self.assertEqual(peer.send(b"abc").response().status, 200)
        self.assertEqual(self.endpoint.exchange.body, b"abc")
        peer = self.peer().send(get("/post", "Content-Length: 3", "Expect: 100-continue", method="POST") + b"abc")
        self.assertEqual(peer.response().status, 200)
        peer = self.peer().send(get("/post", "Content-Length: 0", "Expect: 100-continue", method="POST"))
        self.assertEqual(peer.response().status, 200)

    def test_expect_old(self) -> None:
        """An HTTP/1.0 client's expectation is none."""
        peer = self.peer().send(b"POST /post HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc")
        self.assertEqual(peer.response().status, 200)

    def test_expect_refused(self) -> None:
        """Over the limit, or with no such route, nothing is asked for and nothing is read: the answer closes the connection."""
        for path, length, status, code in (
            ("/post", 1001, 413, "too_large"),
            ("/none", 3, 404, "no_such_route"),
            ("/get", 3, 405, "method_not_allowed"),
        ):
            peer = self.peer().send(get(path, f"Content-Length: {length}", "Expect: 100-continue", method="POST"))
            self.refused(peer, status, code)
            peer.send(get())
            self.assertEqual((peer.responses(), self.endpoint.calls), ([], []))

    def test_other_expectation(self) -> None:
        """Any other expectation cannot be met, and is not ignored: 400."""
        for expectation in ("200-ok", "100-continue, x", ""):
            self.refused(self.peer().send(get("/get", f"Expect: {expectation}")), 400, "bad_header", closes=False)

    def test_stray_body(self) -> None:
        """A route that takes no body drops a small one; a larger one is 413."""
        peer = self.peer().send(post(b"{}", "/get", method="GET"))
        self.assertEqual(peer.response().status, 200)
        self.assertEqual(self.endpoint.exchange.body, b"")
        self.endpoint.calls.clear()
        self.refused(peer.send(post(b"x" * 8193, "/get", method="GET")), 413, "too_large", closes=False)
        self.refused(self.peer().send(get("/get", "Transfer-Encoding: chunked") + b"3000\r\n" + b"x" * 0x3000), 413, "too_large", closes=False)

    def test_length_required(self) -> None:
        """Neither a length nor chunks where the route needs one: 411."""
        self.refused(self.peer().send(get("/sized", method="POST")), 411, "length_required", closes=False)
        for raw in (post(b"", "/sized"), chunked(b"a", "/sized")):
            self.assertEqual(self.peer().send(raw).response().status, 200)

    def test_broken_chunks(self) -> None:
        """Chunked framing that is not valid is 400, and the connection is closed: what follows is not run."""
        for broken in (
            b"x\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\na",
            b" 1\r\na",
            b"1 \r\na",
            b"\r\n",
            b"1\na\n",
            b"1\ra",
            b"1\r\nab\r\n",
            b"1\r\na0\r\n",
            b"1\r\na\n",
            b"1;\0\r\n",
            b"1;a\n\r\n",
            b"f" * 17 + b"\r\n",
            b"1;" + b"a" * 2000,
            b"0\r\nX: a\nY: b\r\n",
            b"0\r\n folded\r\n",
            b"0\r\nno colon\r\n",
            b"0\r\n" + b"X: aaaaaaa\r\n" * 1000,
            b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\na\r\n" * 500,
        ):
            for piece in (None, 1):
                peer = self.peer().send(get("/post", "Transfer-Encoding: chunked", method="POST") + broken + b"\r\n" + get(), piece)
                self.refused(peer, 400, "bad_body")

    def test_trailers(self) -> None:
        """Chunk extensions and trailers are dropped."""
        head = get("/post", "Transfer-Encoding: chunked", method="POST")
        peer = self.peer().send(head + b"3;a=b;c\r\nabc\r\n1 ;d\r\nd\r\n0;e\r\nSecret: x\r\nHost: b\r\n\r\n" + get())
        self.assertEqual(len(peer.responses()), 2)
        exchange, _ = self.endpoint.calls[0]
        self.assertEqual((exchange.body, [name for name, _ in exchange.headers]), (b"abcd", [b"host", b"transfer-encoding"]))

    def test_broken_while_dropped(self) -> None:
        """Chunks that break after the answer was given end the connection."""
        peer = self.peer().send(get("/none", "Transfer-Encoding: chunked", method="POST"))
        self.refused(peer, 404, "no_such_route", closes=False)
        peer.send(b"zz\r\n" + get())
        self.assertTrue(peer.closed)
        self.assertEqual((peer.responses(), self.endpoint.calls), ([], []))

    def test_no_disk(self) -> None:
        """A large body, chunked or with a length, makes no file."""
        body = b"x" * (2 * MIB)
        for raw in (chunked(body, "/big", piece=60_000), post(body, "/big")):
            self.endpoint.calls.clear()
            with mock.patch.object(tempfile, "TemporaryFile", side_effect=AssertionError("a file was made")):
                self.assertEqual(self.peer().send(raw, 65_536).response().status, 200)
            self.assertEqual(self.endpoint.exchange.body, body)

    def test_budget(self) -> None:
        """Bodies over the port's budget are 503 with Retry-After, at once by length and while they come; what is answered is given back."""
        self.site = self.serve(*self.routes(), body_budget_bytes=1500)
        held = self.peer().send(get("/post", "Content-Length: 1000", method="POST") + b"x" * 900)
        self.assertEqual(self.metric("psubd_http_body_bytes"), 900)
        response = self.refused(self.peer().send(get("/post", "Content-Length: 601", method="POST")), 503, "over_budget", closes=False)
        self.assertEqual(response.headers["retry-after"], ["1"])
        self.refused(self.peer().send(chunked(b"x" * 700)), 503, "over_budget", closes=False)
        held.send(b"x" * 100)
        self.assertEqual(held.response().status, 200)
        self.assertEqual(self.metric("psubd_http_body_bytes"), 0)
        self.assertEqual(self.peer().send(post(b"x" * 1000)).response().status, 200)

    def test_budget_of_the_lost(self) -> None:
        """A client that goes away in the middle of its body gives back what it held."""
        peer = self.peer().send(get("/post", "Content-Length: 1000", method="POST") + b"x" * 900)
        peer.lose()
        self.assertEqual((self.metric("psubd_http_body_bytes"), self.endpoint.calls), (0, []))


class Admission(WireCase):
    def setUp(self) -> None:
        super().setUp()
        self.shown: list[tuple[bytes | None, bytes]] = []
        self.site = self.serve(
            Route("POST", "/post", self.endpoint, "post", max_body=1000, admit=self.admit),
            Route("GET", "/get", self.endpoint, "get", admit=self.admit),
        )

    def admit(self, exchange: IExchange) -> None:
        self.shown.append((exchange.header(b"secret"), exchange.body))
        if exchange.header(b"secret") is None:
            raise BadCredentials("who are you?")

    def test_a_stranger(self) -> None:
        """Who is not admitted is told before the body comes: nothing of it is held or asked for, and the connection goes on."""
        for framing in ("Content-Length: 900", "Transfer-Encoding: chunked"):
            peer = self.peer().send(get("/post", framing, method="POST"))
            self.refused(peer, 401, "bad_credentials", closes=False)
            peer.send(b"x" * 900 if "Length" in framing else b"384\r\n" + b"x" * 900)
            self.assertEqual(self.metric("psubd_http_body_bytes"), 0)
        self.refused(self.peer().send(get("/post", "Content-Length: 3", "Expect: 100-continue", method="POST")), 401, "bad_credentials")

    def test_admitted(self) -> None:
        """Who is admitted is asked for the body, which the judgement did not see; without a body nobody is judged here."""
        peer = self.peer().send(get("/post", "Secret: a", "Content-Length: 3", "Expect: 100-continue", method="POST"))
        self.assertEqual(peer.response().status, 100)
        self.assertEqual(peer.send(b"abc").response().status, 200)
        self.assertEqual((self.shown, self.endpoint.exchange.body), ([(b"a", b"")], b"abc"))
        self.assertEqual([response.status for response in peer.send(post(b"") + get()).responses()], [200, 200])
        self.assertEqual(len(self.shown), 1)

    def test_the_head_is_judged_first(self) -> None:
        """What the head says of the body comes before: a length over the limit is 413 for everybody."""
        self.refused(self.peer().send(get("/post", "Content-Length: 1001", method="POST")), 413, "too_large", closes=False)
        self.assertEqual(self.shown, [])


class Gzip(WireCase):
    def routes(self) -> list[Route]:
        return [Route("POST", "/zip", self.endpoint, "zip", max_body=100_000, gzip=True), *super().routes()]

    def zipped(self, body: bytes, *headers: str) -> Peer:
        return self.peer().send(post(body, "/zip", "Content-Encoding: gzip", *headers))

    def test_undone(self) -> None:
        """gzip is undone, also of several members and in any pieces, by length and in chunks; names are case-insensitive."""
        body = bytes(range(256)) * 300
        packed = gzip.compress(body[:1000]) + gzip.compress(b"") + gzip.compress(body[1000:])
        for raw in (
            post(packed, "/zip", "Content-Encoding: GZIP"),
            chunked(packed, "/zip", "Content-Encoding: x-gzip", piece=10),
            post(packed, "/zip", "Content-Encoding: identity, gzip"),
        ):
            for piece in (None, 1, 100):
                self.endpoint.calls.clear()
                self.assertEqual(self.peer().send(raw, piece).response().status, 200)
                self.assertEqual(self.endpoint.exchange.body, body)

    def test_identity(self) -> None:
        """`identity` is no coding."""
        self.assertEqual(self.peer().send(post(b"a", "/post", "Content-Encoding: identity")).response().status, 200)

    def test_other_codings(self) -> None:
        """Another coding, two, and gzip where the route does not take it: 415, saying what is taken; before the body comes."""
        for path, coding in (("/zip", "br"), ("/zip", "gzip, gzip"), ("/zip", "deflate"), ("/post", "gzip"), ("/zip", "gzip, br")):
            peer = self.peer().send(get(path, "Content-Length: 9", f"Content-Encoding: {coding}", method="POST"))
            response = self.refused(peer, 415, "unsupported_media_type", closes=False)
            self.assertIn("accept-encoding", response.headers)

    def test_bomb(self) -> None:
        """What would inflate over the limit is 413, and is never in memory."""
        bomb = gzip.compress(b"\0" * (64 * MIB), 9)
        self.assertLess(len(bomb), 100_000)
        self.site = self.serve(*self.routes(), body_budget_bytes=200_000)
        self.refused(self.zipped(bomb), 413, "too_large", closes=False)
        self.assertEqual(self.metric("psubd_http_body_bytes"), 0)

    def test_exact(self) -> None:
        """Exactly the limit passes, one byte more does not."""
        self.assertEqual(self.zipped(gzip.compress(b"a" * 100_000)).response().status, 200)
        self.endpoint.calls.clear()
        self.refused(self.zipped(gzip.compress(b"a" * 100_001)), 413, "too_large", closes=False)

    def test_incompressible(self) -> None:
        """What gzip makes larger is measured by what it stands for: the limit is that of the body once gzip is undone."""
        body = random.Random(1).randbytes(100_000)
        for memory in (9, 1):
            packer = zlib.compressobj(9, zlib.DEFLATED, 31, memory)
            packed = packer.compress(body) + packer.flush()
            self.assertGreater(len(packed), 100_000)
            for raw in (post(packed, "/zip", "Content-Encoding: gzip"), chunked(packed, "/zip", "Content-Encoding: gzip")):
                self.endpoint.calls.clear()
                self.assertEqual(self.peer().send(raw).response().status, 200)
                self.assertEqual(self.endpoint.exchange.body, body)

    def test_endless_nothing(self) -> None:
        """gzip that stands for nothing is not read for ever."""
        nothing = gzip.compress(b"") * 6000
        self.refused(self.peer().send(chunked(nothing, "/zip", "Content-Encoding: gzip")), 413, "too_large", closes=False)

    def test_damaged(self) -> None:
        """Cut off, damaged, not gzip, empty, and anything behind the end: 400 bad_body, and the connection goes on."""
        good = gzip.compress(b"hello world" * 10)
        for body in (good[:-1], good[:5], good[:-8] + b"\0" * 8, b"hello", b"", good + b"x", good + b"\0" * 10, good + good[:10]):
            self.refused(self.zipped(body), 400, "bad_body", closes=False)
