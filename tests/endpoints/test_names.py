"""Header lines: twins, single values, record headers, keys."""

import base64

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from psubd.endpoints import names
from psubd.endpoints.coding import strict_base64
from psubd.errors import BadHeader, ConflictingHeaders, ReservedHeader
from psubd.model import Headers


def headers_of(*lines: tuple[bytes, bytes]) -> Headers:
    return names.record_headers(names.read(lines))


class TwinTests(SynchronousTestCase):
    def test_either_spelling(self) -> None:
        """Each dotted name is understood with hyphens too."""
        for name in ("topic.id", "key.encoding", "headers.encoding", "deliver.at"):
            for spelling in (name, name.replace(".", "-")):
                self.assertEqual(names.read([(spelling.encode(), b"x")]).singles, {name: b"x"})

    def test_both_alike(self) -> None:
        """Both spellings with one value are one header."""
        self.assertEqual(names.read([(b"topic.id", b"t"), (b"topic-id", b"t")]).singles, {"topic.id": b"t"})

    def test_both_different(self) -> None:
        """Both spellings with different values conflict, whichever comes first."""
        lines = [(b"topic.id", b"t"), (b"topic-id", b"u")]
        self.assertRaises(ConflictingHeaders, names.read, lines)
        self.assertRaises(ConflictingHeaders, names.read, lines[::-1])

    def test_sent_twice(self) -> None:
        """A single-valued header sent twice is refused, even with one value, and beside its twin."""
        for lines in ([(b"key", b"a"), (b"key", b"a")], [(b"topic.id", b"t"), (b"topic-id", b"t"), (b"topic-id", b"t")], [(b"acks", b"1")] * 2):
            self.assertRaises(BadHeader, names.read, lines)

    def test_record_header_twins(self) -> None:
        """``header.<name>`` and ``header-<name>`` that say alike count once, others are put together, different ones conflict."""
        both = [(b"header.a", b"1"), (b"header.a", b"2"), (b"header-a", b"1"), (b"header-a", b"2")]
        self.assertEqual(headers_of(*both, (b"header-b", b"3")), (("a", b"1"), ("a", b"2"), ("b", b"3")))
        self.assertRaises(ConflictingHeaders, names.read, [*both, (b"header-a", b"3")])
        self.assertRaises(ConflictingHeaders, names.read, [(b"header.a", b"1"), (b"header-a", b"2")])

    def test_others_left_alone(self) -> None:
        """Names that the contract does not know say nothing."""
        lines = names.read([(b"user-agent", b"x"), (b"headerless", b"x"), (b"x-key", b"x"), (b"accept", b"x"), (b"accept", b"y")])
        self.assertEqual((lines.singles, lines.named, lines.tracestate), ({}, [], None))


class RecordHeaderTests(SynchronousTestCase):
    def test_lines(self) -> None:
        """One record header a field line, in order, repeats kept, never split at commas, empty values too."""
        found = headers_of((b"header.b", b"1, 2"), (b"header.a", b""), (b"header.b", "\u00e9".encode()))
        self.assertEqual(found, (("b", b"1, 2"), ("a", b""), ("b", "\u00e9".encode())))

    def test_dots_in_the_name(self) -> None:
        """Only the first dot belongs to the prefix."""
        self.assertEqual(headers_of((b"header.a.b", b"1"), (b"header-c-d", b"2")), (("a.b", b"1"), ("c-d", b"2")))

    def test_not_utf8(self) -> None:
        """A value that is not UTF-8 is refused."""
        self.assertRaises(BadHeader, headers_of, (b"header.a", b"\xff"))

    def test_base64(self) -> None:
        """With ``headers.encoding: base64`` all values are base64, strict and padded."""
        self.assertEqual(headers_of((b"headers.encoding", b"base64"), (b"header.a", b"/wA="), (b"header.b", b"")), (("a", b"\xff\0"), ("b", b"")))
        for wrong in (b"/wA", b"_wA=", b"/w A=", b"/wA==", b"/wB=", b"a", b"/wA=\xff", b"===="):
            self.assertRaises(BadHeader, headers_of, (b"headers.encoding", b"base64"), (b"header.a", wrong))

    def test_unknown_encoding(self) -> None:
        """Another encoding is refused."""
        for said in (b"", b"BASE64", b"hex", b"utf-8"):
            self.assertRaises(BadHeader, headers_of, (b"headers.encoding", said), (b"header.a", b"x"))

    def test_reserved(self) -> None:
        """Names that begin with psubd are psubd's own."""
        for name in (b"header.psubd.origin-topic", b"header-psubd", b"header.psubdx"):
            self.assertRaises(ReservedHeader, headers_of, (name, b"x"))
        self.assertEqual(headers_of((b"header.xpsubd", b"x")), (("xpsubd", b"x"),))

    def test_nameless(self) -> None:
        """A prefix without a name, or a name that is not ASCII, is refused."""
        for name in (b"header.", b"header-", b"header.\xe9"):
            self.assertRaises(BadHeader, headers_of, (name, b"x"))

    def test_kept_lines(self) -> None:
        """``content-type``, ``traceparent`` and ``tracestate`` become record headers, unparsed; the state's lines are joined, as W3C says."""
        found = headers_of((b"content-type", b"a \xff;;"), (b"traceparent", b"00-1"), (b"tracestate", b"a=1"), (b"tracestate", b"b=2"))
        self.assertEqual(found, (("content-type", b"a \xff;;"), ("traceparent", b"00-1"), ("tracestate", b"a=1,b=2")))

    def test_kept_beside_named(self) -> None:
        """``header.content-type`` beside ``content-type``: once if alike, a conflict if not; alone it may be anything."""
        self.assertEqual(headers_of((b"content-type", b"x"), (b"header.content-type", b"x")), (("content-type", b"x"),))
        self.assertRaises(ConflictingHeaders, headers_of, (b"content-type", b"x"), (b"header.content-type", b"y"))
        self.assertEqual(headers_of((b"header.content-type", b"y")), (("content-type", b"y"),))
        self.assertRaises(ConflictingHeaders, headers_of, (b"tracestate", b"x"), (b"header-tracestate", b"y"))


class KeyTests(SynchronousTestCase):
    def key(self, *lines: tuple[bytes, bytes]) -> bytes | None:
        return names.record_key(names.read(lines))

    def test_key(self) -> None:
        """The value's bytes; empty is an empty key, absent is none."""
        self.assertEqual(self.key((b"key", "\u00e9".encode())), "\u00e9".encode())
        self.assertEqual(self.key((b"key", b"")), b"")
        self.assertIsNone(self.key())

    def test_base64(self) -> None:
        """``key.encoding: base64`` is any bytes; empty base64 is an empty key."""
        self.assertEqual(self.key((b"key", b"/w=="), (b"key-encoding", b"base64")), b"\xff")
        self.assertEqual(self.key((b"key", b""), (b"key.encoding", b"base64")), b"")

    def test_refused(self) -> None:
        """Bytes that are not UTF-8, bad base64, an unknown encoding."""
        self.assertRaises(BadHeader, self.key, (b"key", b"caf\xe9"))
        self.assertRaises(BadHeader, self.key, (b"key", b"/w"), (b"key.encoding", b"base64"))
        self.assertRaises(BadHeader, self.key, (b"key", b"ff"), (b"key.encoding", b"hex"))


class Base64Tests(SynchronousTestCase):
    @given(st.binary(max_size=40))
    def test_round_trip(self, data: bytes) -> None:
        """What Python encodes is read, as text and as bytes."""
        self.assertEqual(strict_base64(base64.b64encode(data)), data)
        self.assertEqual(strict_base64(base64.b64encode(data).decode()), data)

    @given(st.text(alphabet="AQgw/+=_- \n", max_size=8))
    def test_one_text_for_each_bytes(self, text: str) -> None:
        """Whatever is accepted is what the encoder would have written: nothing else stands for the same bytes."""
        try:
            data = strict_base64(text)
        except ValueError:
            return
        self.assertEqual(base64.b64encode(data).decode(), text)
