"""Binary frames: what docs/http.md specifies, byte for byte."""

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from psubd.endpoints import frames
from psubd.errors import BadBody, BadRecord, PsubdError, ReservedHeader
from psubd.model import Delivered, Message, Record

DOCS = Path(__file__).parents[2] / "docs" / "http.md"

VECTOR = Delivered("orders", 2, Message(41, 1_700_000_000_000, b"k1", b"hello", (("content-type", b"text/plain"), ("x", None))), 1, "tok", 7)
VALUES = st.none() | st.binary(max_size=40)
NAMES = st.text(max_size=8).filter(lambda name: name[:5].lower() != "psubd" and name.isprintable())
RECORDS = st.builds(
    Record,
    st.just("t"),
    VALUES,
    VALUES,
    st.lists(st.tuples(NAMES, VALUES), max_size=3).map(tuple),
    st.none() | st.integers(0, 2**31 - 1),
    st.none() | st.integers(0, 2**63 - 1),
)


def framed(record: Record) -> bytes:
    """A record as a client would write it: a message whose absent numbers are -1."""
    place, at = -1 if record.partition is None else record.partition, -1 if record.timestamp is None else record.timestamp
    return frames.encode([Delivered("", place, Message(0, at, record.key, record.value, record.headers))])


def read(body: bytes) -> list[Record]:
    return [frames.read("t", frame) for frame in frames.cut(body, 10_000)]


class VectorTests(SynchronousTestCase):
    def test_documented(self) -> None:
        """The frame that docs/http.md shows is the one that is sent for the message that it shows."""
        shown = DOCS.read_text().partition("### Test vector")[2].partition("```")[2].partition("```")[0]
        self.assertEqual(bytes.fromhex(re.sub(r"#[^\n]*", "", shown)), frames.encode([VECTOR]))

    def test_read_back(self) -> None:
        """What was read can be posted back: topic, offset, attempt, token and epoch are ignored."""
        (record,) = read(frames.encode([VECTOR]))
        message = VECTOR.message
        self.assertEqual(record, Record("t", message.value, message.key, message.headers, 2, message.timestamp))


class RoundTripTests(SynchronousTestCase):
    @given(st.lists(RECORDS, max_size=5))
    def test_records(self, records: list[Record]) -> None:
        """Any records, null and empty told apart, come out as they went in, in order."""
        self.assertEqual(read(b"".join(map(framed, records))), records)

    def test_whole(self) -> None:
        """How many messages a broken connection took is known to the byte."""
        body = frames.encode([VECTOR, VECTOR])
        half = len(body) // 2
        told = [frames.whole(body, handed) for handed in (-1, 0, 1, half - 1, half, half + 1, len(body) - 1, len(body))]
        self.assertEqual(told, [0, 0, 0, 0, 1, 1, 1, 2])
        self.assertEqual((frames.encode([]), frames.whole(b"", 0)), (b"", 0))


class AllTests(SynchronousTestCase):
    """Many frames at once are read as one by one, or not at all."""

    @given(st.lists(RECORDS, max_size=5))
    def test_records(self, records: list[Record]) -> None:
        body = b"".join(map(framed, records))
        self.assertEqual(frames.read_all("t", body, 5), records)
        self.assertEqual(frames.read_all("t", body, max(0, len(records) - 1)), None if records else [])

    @given(st.binary(max_size=200) | st.integers(0, 103).flatmap(lambda at: st.tuples(st.just(at), st.binary(max_size=2))))
    def test_any_bytes(self, what: bytes | tuple[int, bytes]) -> None:
        """What one by one is refused is not taken, and what is taken is the same."""
        if isinstance(what, bytes):
            body = what
        else:
            at, put = what
            sound = frames.encode([VECTOR, VECTOR])
            body = sound[:at] + put + sound[at + 1 :]
        try:
            one_by_one: list[Record] | None = read(body)
        except PsubdError:
            one_by_one = None
        try:
            at_once = frames.read_all("t", body, 10_000)
        except PsubdError:
            at_once = None
        self.assertEqual(at_once, one_by_one)


class RefusalTests(SynchronousTestCase):
    @given(st.binary(max_size=200))
    def test_any_bytes(self, body: bytes) -> None:
        """Whatever is sent as frames is read or refused, never a bug."""
        try:
            read(body)
        except PsubdError as refused:
            self.assertEqual(refused.status, 400)

    @given(st.data())
    def test_changed(self, data: st.DataObject) -> None:
        """A sound frame with a byte changed, taken out or put in is read or refused."""
        body = bytearray(frames.encode([VECTOR, VECTOR]))
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 1))] = data.draw(st.binary(max_size=1))
        self.test_any_bytes.hypothesis.inner_test(self, bytes(body))

    def test_cut_short(self) -> None:
        """A body that ends within a frame, or within its size, is refused as a whole."""
        whole = frames.encode([VECTOR])
        for size in (1, 3, len(whole) - 1):
            with self.assertRaises(BadBody):
                frames.cut(whole + whole[:size], 10)

    def test_too_many(self) -> None:
        """Counting stops one above the bound: a body of millions of tiny frames costs nothing."""
        self.assertEqual(len(frames.cut(b"\0\0\0\0" * 100, 10)), 11)

    def test_names_the_fault(self) -> None:
        """What is wrong within a frame is named."""
        for changes, words in (
            ({4: 2}, "version"),
            ({5: 0x80}, "partition"),
            ({17: 0x80}, "timestamp"),
            ({41: 0x80}, "length"),
            ({45: 0x70}, "longer than the frame"),
            ({49: 0x70}, "headers"),
            ({52: 1}, "left"),
        ):
            body = bytearray(frames.encode([VECTOR]))
            for at, value in changes.items():
                body[at] = value
            with self.assertRaises(BadRecord) as refused:
                read(bytes(body))
            self.assertIn(words, refused.exception.detail)
        with self.assertRaises(BadRecord):
            read(b"\0\0\0\1\1")

    def test_reserved(self) -> None:
        """A header of psubd's own is refused here as everywhere."""
        with self.assertRaises(ReservedHeader):
            read(framed(Record("t", b"", None, (("psubd-x", b""),))))
