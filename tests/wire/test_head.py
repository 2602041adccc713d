"""What a head must be; every refusal closes the connection, and nothing was called."""

from psubd.wire.head import Head, parse_head
from psubd.wire.limits import WireSettings
from tests.wire.peer import WireCase, get

SMUGGLED = get("/get")


class BadHeads(WireCase):
    def refuse(self, raw: bytes, status: int = 400, code: str = "bad_header") -> str:
        """Sent at once and byte by byte, with a request behind it that must not be run; the problem's detail."""
        for piece in (None, 1):
            peer = self.peer().send(raw + SMUGGLED, piece)
            detail: str = self.refused(peer, status, code).problem["detail"]
        return detail

    def lines(self, *lines: str) -> bytes:
        return "\r\n".join(("POST /post HTTP/1.1", "Host: psubd.test", *lines, "", "")).encode("latin-1")

    def test_lengths(self) -> None:
        """A length with Transfer-Encoding, two lengths (equal ones too), a list, and what is no number."""
        self.refuse(self.lines("Content-Length: 5", "Transfer-Encoding: chunked"))
        self.refuse(self.lines("Transfer-Encoding: chunked", "Content-Length: 5"))
        for lengths in (["5", "5"], ["5", "6"], ["5, 5"], ["+5"], ["-5"], ["0x5"], ["5 5"], [""], ["1" * 20], ["5\xb2"]):
            self.refuse(self.lines(*(f"Content-Length: {length}" for length in lengths)))

    def test_transfer_encodings(self) -> None:
        """Any coding but chunked, chunked twice, and any on HTTP/1.0."""
        for coding in ("gzip", "gzip, chunked", "chunked, chunked", "identity", "chunked;q=1", "", "xchunked", "chunked\x0b"):
            self.refuse(self.lines(f"Transfer-Encoding: {coding}"))
        self.refuse(self.lines("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"))
        self.refuse(b"POST /post HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")

    def test_hosts(self) -> None:
        """None, two, empty and what is no host."""
        self.refuse(b"GET /get HTTP/1.1\r\n\r\n")
        for hosts in (
            "Host: a\r\nHost: a",
            "Host: a\r\nhost: b",
            "Host:",
            "Host: a b",
            "Host: a/b",
            "Host: a@b",
            "Host: a:b",
            "Host: a,\tb",
            "Host: [::1",
        ):
            self.refuse(f"GET /get HTTP/1.1\r\n{hosts}\r\n\r\n".encode())
        self.refuse(b"GET /get HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n")

    def test_lines(self) -> None:
        """A bare CR or LF, a folded line, a blank before the colon, NUL, control characters, no colon, names that are no tokens."""
        for line in (
            "X: a\nY: b",
            "X: a\rY: b",
            "X: a\r\r\nY: b",
            "\nX: a",
            "X: a\r\n folded",
            "X: a\r\n\tfolded",
            "X : a",
            "X\t: a",
            " X: a",
            "X: a\0",
            "X\0: a",
            "X: a\x01",
            "X: a\x7f",
            "X: \x1b[0m",
            "X",
            ": a",
            "X(: a",
            "X\xe4: a",
            "Content-Length\x0b: 5",
        ):
            self.refuse(b"GET /get HTTP/1.1\r\nHost: a\r\n" + line.encode("latin-1") + b"\r\n\r\n")

    def test_no_value_is_quoted(self) -> None:
        """A refusal does not repeat what may be a credential."""
        detail = self.refuse(b"GET /get HTTP/1.1\r\nHost: a\r\nSecret : ps_abc\r\n\r\n")
        self.assertNotIn("ps_abc", detail)

    def test_request_lines(self) -> None:
        """What is no request line: HTTP/0.9, the HTTP/2 preface, other versions, blanks, fragments, bytes that are not ASCII."""
        for line in (
            b"GET /get",
            b"PRI * HTTP/2.0",
            b"GET /get HTTP/1.2",
            b"GET /get HTTP/3",
            b"GET /get http/1.1",
            b"GET  /get HTTP/1.1",
            b"GET /get  HTTP/1.1",
            b"GET /get HTTP/1.1 ",
            b" GET /get HTTP/1.1",
            b"GET\t/get HTTP/1.1",
            b"GET /a b HTTP/1.1",
            b"GET /get#x HTTP/1.1",
            b"GET /\xc3\xa4 HTTP/1.1",
            b"GET get HTTP/1.1",
            b"G(T /get HTTP/1.1",
            b"GET /\0 HTTP/1.1",
            b"\r\nGET /get HTTP/1.1",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
        ):
            self.refuse(b"\r\n" + line + b"\r\nHost: a\r\n\r\n")

    def test_told_at_once(self) -> None:
        """A head that can only end badly is refused before its client waits for an answer that does not come."""
        for start in (b"GET /\r\n", b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\rHost: a", b"PRI * HTTP/2.0\r\n", b"SSH-2.0-x\r\n"):
            self.refused(self.peer().send(start), 400, "bad_header")

    def test_head_size(self) -> None:
        """32 KiB and 100 lines pass, one more is 431."""
        room = 32_768 - len(get("/get", "A: "))
        self.assertEqual(self.peer().send(get("/get", "A: " + "a" * room)).response().status, 200)
        self.assertEqual(self.peer().send(get("/get", *["A: b"] * 99)).response().status, 200)
        self.endpoint.calls.clear()
        self.refuse(get("/get", "A: " + "a" * (room + 1)), 431, "head_too_large")
        self.refuse(get("/get", *["A: b"] * 100), 431, "head_too_large")
        self.refused(self.peer().send(b"GET /get HTTP/1.1\r\nA: " + b"a" * 40_000), 431, "head_too_large")

    def test_target_size(self) -> None:
        """8 KiB of target pass, one more byte is 414; an endless one too."""
        self.assertEqual(self.peer().send(get("/get?" + "a" * (8192 - 5))).response().status, 200)
        self.endpoint.calls.clear()
        self.refuse(get("/get?" + "a" * (8192 - 4)), 414, "too_large")
        self.refuse(b"GET /" + b"a" * 50_000, 414, "too_large")

    def test_counted_as_none(self) -> None:
        """What could not be read is counted under route `none`."""
        self.refuse(b"nonsense\r\n\r\n")
        self.assertEqual(self.metric("psubd_http_requests_total", route="none", method="other", status="400"), 2)


class Heads(WireCase):
    def parse(self, raw: bytes) -> Head:
        return parse_head(raw, WireSettings())

    def test_hosts(self) -> None:
        """Names, addresses and ports are hosts."""
        for host in ("a", "a.b:80", "127.0.0.1", "[::1]:8080", "a_b", "a:"):
            self.assertEqual(self.parse(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).values(b"host"), [host.encode()])

    def test_persistence(self) -> None:
        """Close is found among other connection options and on further lines."""
        self.assertFalse(self.parse(get("/", "Connection: closed, keep-alive")).close)
        self.assertTrue(self.parse(get("/", "Connection: a", "connection: b ,CLOSE")).close)
        self.assertTrue(self.parse(get("/", "Connection: keep-alive", version="1.0")).close)

    def test_values(self) -> None:
        """Names are lowered, values stripped of blanks; bytes over 0x7f stay as they are."""
        head = self.parse(get("/", "X-A:\t a\xe4 b \t", "x-a:"))
        self.assertEqual(head.values(b"x-a"), [b"a\xe4 b", b""])
