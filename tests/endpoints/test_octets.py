"""A message as an octet-stream answer: nothing that a publisher chose can break out of its header line."""

import base64
import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from psubd.endpoints import octets
from psubd.model import Delivered, Headers, Message

OWN = {b"content-type", b"topic.id", b"partition", b"offset", b"timestamp", b"attempt", b"ack.token", b"epoch", b"tombstone"}
CHOSEN = {b"key", b"key.encoding", b"key.omitted", b"headers.encoding", b"headers.omitted"}


def head(key: bytes | None = None, headers: Headers = (), value: bytes | None = b"v", **more: object) -> list[tuple[bytes, bytes]]:
    return octets.head(Delivered("t.1", 3, Message(41, 1700, key, value, headers), **more))  # type: ignore[arg-type]


def said(key: bytes | None = None, headers: Headers = ()) -> dict[bytes, bytes]:
    """The lines for what the publisher chose."""
    lines = [(name, value) for name, value in head(key, headers) if name not in OWN]
    assert len(dict(lines)) == len(lines), lines
    return dict(lines)


class PlainTests(SynchronousTestCase):
    def test_own_lines(self) -> None:
        """What psubd says of the message; always as application/octet-stream."""
        lines = dict(head(attempt=2))
        expected = {
            b"content-type": b"application/octet-stream",
            b"topic.id": b"t.1",
            b"partition": b"3",
            b"offset": b"41",
            b"timestamp": b"1700",
            b"attempt": b"2",
        }
        self.assertEqual(lines, expected)

    def test_replay(self) -> None:
        """A replay's message has no attempt."""
        self.assertNotIn(b"attempt", dict(head()))

    def test_tombstone(self) -> None:
        """Null is marked; an empty value is not null."""
        self.assertEqual(dict(head(value=None))[b"tombstone"], b"true")
        self.assertNotIn(b"tombstone", dict(head(value=b"")))

    def test_explicit(self) -> None:
        """A lease's token and its owner's epoch."""
        lines = dict(head(attempt=1, token="abc", epoch=7))
        self.assertEqual((lines[b"ack.token"], lines[b"epoch"]), (b"abc", b"7"))


class KeyTests(SynchronousTestCase):
    def test_raw(self) -> None:
        """Printable ASCII is given as it is, an empty key too; no key is no line."""
        self.assertEqual(said(b"user 1: ~!"), {b"key": b"user 1: ~!"})
        self.assertEqual(said(b""), {b"key": b""})
        self.assertEqual(said(None), {})

    def test_encoded(self) -> None:
        """Blanks at the ends, controls, non-ASCII, bytes: base64, and it says so."""
        for key in (b" a", b"a ", b"\ta", b"a\r\nx-evil: 1", b"a\nb", b"a\0b", b"a\x7f", "\u00e9".encode(), b"\xff", b" "):
            self.assertEqual(said(key), {b"key": base64.b64encode(key), b"key.encoding": b"base64"})

    def test_too_large(self) -> None:
        """A key that does not fit is left out and told, so that it is not taken for no key."""
        self.assertEqual(said(b"k" * 8192), {b"key.omitted": b"true", b"headers.omitted": b"1"})
        self.assertEqual(said(b"k" * 8000), {b"key": b"k" * 8000})


class HeaderTests(SynchronousTestCase):
    def test_raw(self) -> None:
        """Tokens for names, printable values: as they are, in lower case as HTTP has it."""
        self.assertEqual(said(headers=(("a", b"1"), ("X-B", b""))), {b"header.a": b"1", b"header.x-b": b""})

    def test_one_makes_all_base64(self) -> None:
        """One value that cannot be raw makes all of them base64; the key's encoding is its own."""
        found = said(b"k", (("a", b"1"), ("b", b"\xff")))
        self.assertEqual(found, {b"key": b"k", b"headers.encoding": b"base64", b"header.a": b"MQ==", b"header.b": b"/w=="})

    def test_injection_in_values(self) -> None:
        """CR, LF, NUL and blanks at the ends never stand in a line."""
        for value in (b"a\r\nset-cookie: x", b"\nx", b"\r", b"\0", b"a\x0bb", b" a", b"\x85"):
            found = said(headers=(("a", value),))
            self.assertEqual(found, {b"headers.encoding": b"base64", b"header.a": base64.b64encode(value)})

    def test_injection_in_names(self) -> None:
        """A name that is no token is left out and counted: line ends, colons, blanks, NUL, non-ASCII, the empty name, a trailing line feed."""
        for name in ("a\r\nx: 1", "a\n", "a:b", "a b", "a\0", "\u00e9", "", "a/b", "(a)", "a\x7f", "\u212a"):
            self.assertEqual(said(headers=((name, b"x"), ("ok", b"1"))), {b"header.ok": b"1", b"headers.omitted": b"1"})

    def test_content_type(self) -> None:
        """A publisher's content type is a record header and nothing else, wherever ``text/html`` stands."""
        lines = head(b"text/html", (("content-type", b"text/html"), ("text/html", b"text/html")))
        self.assertEqual([value for name, value in lines if name == b"content-type"], [b"application/octet-stream"])
        found = dict(lines)
        self.assertEqual((found[b"header.content-type"], found[b"key"], found[b"headers.omitted"]), (b"text/html", b"text/html", b"1"))

    def test_repeats(self) -> None:
        """The first of a name is given, whatever the case of its letters; the others are counted."""
        self.assertEqual(said(headers=(("a", b"1"), ("A", b"2"), ("a", b"3"))), {b"header.a": b"1", b"headers.omitted": b"2"})

    def test_null(self) -> None:
        """A header line cannot say null: it is left out and counted, and a later one of its name may be given."""
        self.assertEqual(said(headers=(("a", None), ("a", b"2"))), {b"header.a": b"2", b"headers.omitted": b"1"})

    def test_sixty_lines(self) -> None:
        """Of 300 headers 60 lines are given, the key's among them, and the others counted."""
        headers = tuple((f"h{number}", b"1") for number in range(300))
        self.assertEqual(len([name for name in said(headers=headers) if name.startswith(b"header.")]), 60)
        found = said(b"k", headers)
        self.assertEqual(len([name for name in found if name.startswith(b"header.")]), 59)
        self.assertEqual(found[b"headers.omitted"], b"241")

    def test_8_kib(self) -> None:
        """What exceeds 8 KiB is left out; what comes after it and fits is given."""
        found = said(headers=(("a", b"x" * 5000), ("b", b"x" * 5000), ("c", b"x" * 3000)))
        self.assertEqual(sorted(found), [b"header.a", b"header.c", b"headers.omitted"])
        self.assertEqual(found[b"headers.omitted"], b"1")

    def test_encoded_size_counts(self) -> None:
        """Base64 counts as it is sent: 7,000 bytes do not fit when they are encoded."""
        self.assertEqual(said(headers=(("a", b"\xff" * 7000),)), {b"headers.omitted": b"1"})


names = st.text(max_size=6) | st.sampled_from(["content-type", "psubd.group", "a\r\nb", "set-cookie", "headers.omitted"])
values = st.none() | st.binary(max_size=12) | st.sampled_from([b"\r\n\r\n<html>", b"text/html", b" "])


class AnyTests(SynchronousTestCase):
    @given(st.none() | st.binary(max_size=30), st.lists(st.tuples(names, values), max_size=8).map(tuple))
    def test_lines_stay_lines(self, key: bytes | None, headers: Headers) -> None:
        """Whatever was published: names are tokens of the contract, values printable ASCII without blanks at the ends, nothing is lost untold, and
        key and headers can be read back."""
        lines = head(key, headers)
        for name, value in lines:
            self.assertTrue(name in OWN | CHOSEN or name.startswith(b"header."), name)
            self.assertIsNotNone(re.fullmatch(rb"[!#$%&'*+.^_`|~0-9a-z-]+", name))
            self.assertIsNotNone(re.fullmatch(rb"([\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)?", value))
        found = dict(lines)
        self.assertEqual(len(found), len(lines))
        given_headers = [name for name in found if name.startswith(b"header.")]
        self.assertEqual(len(given_headers) + int(found.get(b"headers.omitted", b"0")), len(headers))
        self.assertEqual(unread(found, b"key", b"key.encoding"), key)
        for name in given_headers:
            shown = unread(found, name, b"headers.encoding")
            self.assertIn((name[7:].decode(), shown), [(name.lower(), value) for name, value in headers])


def unread(found: dict[bytes, bytes], name: bytes, encoding: bytes) -> bytes | None:
    """What a client makes of a line."""
    value = found.get(name)
    return base64.b64decode(value) if value is not None and encoding in found else value
