"""What a port remembers of heads: that it is bounded, and never takes one for another."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import PsubdError
from psubd.interfaces import Route
from psubd.model import Answer
from psubd.wire import memo as memos
from psubd.wire.head import Head, parse_head
from psubd.wire.hot import HotTable
from psubd.wire.limits import WireSettings
from psubd.wire.memo import Bounded, Known, KnownLines, Memo, cut
from psubd.wire.meters import PortMeters
from psubd.wire.tree import Tree
from tests.wire.peer import get

LIMITS = WireSettings()
PIECES = [
    b"\r\n",
    b"Content-Length: ",
    b"content-length: ",
    b"CONTENT-LENGTH:",
    b"1",
    b"07",
    b"12",
    b" ",
    b"X: ",
    b"\0",
    b"Host: a\r\n",
    b"GET / HTTP/1.1\r\n",
    b"\r",
]


def table() -> HotTable:
    routes = [
        Route("GET", "/get", lambda exchange: Answer(), "get", hot=True),
        Route("POST", "/{to}", lambda exchange, to: Answer(), "to", 9, hot=True),
    ]
    return HotTable(Tree(routes).templates, routes, PortMeters(CollectorRegistry(), "data"))


TABLE = table()


def head_of(raw: bytes) -> Head | None:
    try:
        return parse_head(raw, LIMITS)
    except PsubdError:
        return None


class Cutting(SynchronousTestCase):
    @settings(max_examples=800, deadline=None)
    @given(st.lists(st.sampled_from(PIECES), max_size=12), st.lists(st.sampled_from(PIECES), max_size=12))
    def test_never_another(self, one: list[bytes], other: list[bytes]) -> None:
        """Of two heads with one key, one that is taken stands for the other but for the length: that parses to the same."""
        heads = []
        for pieces in (one, other):
            raw = b"GET /get HTTP/1.1\r\nHost: a\r\n" + b"".join(pieces)
            heads.append(raw[: raw.find(b"\r\n\r\n") + 4] if b"\r\n\r\n" in raw else raw + b"\r\n\r\n")
        self.agree(*heads)

    def test_spoiled(self) -> None:
        """So it is for heads that differ in a few bytes only."""
        chance = random.Random(11)
        good = get("/get", "A: b", "Content-Length: 12", "C: d")
        for _ in range(4000):
            at, size = chance.randrange(len(good)), chance.randint(0, 3)
            spoiled = good[:at] + chance.choice(PIECES) + good[at + size :]
            self.agree(good, spoiled[: spoiled.find(b"\r\n\r\n") + 4] if b"\r\n\r\n" in spoiled else spoiled + b"\r\n\r\n")

    def agree(self, one: bytes, other: bytes) -> None:
        (key, _), (again, length) = cut(one), cut(other)
        known = head_of(one)
        if key != again or known is None:
            return
        hot = TABLE.known(known)
        assert hot is not None
        self.assertEqual(hot.head_of(known.length if length is None else length), head_of(other), (one, other))

    def test_lengths(self) -> None:
        """The length is left out as clients write it; written otherwise it stays in."""
        same = [cut(get("/get", f"{name}: {size}")) for name in ("Content-Length", "content-length") for size in (0, 5, 123_456)]
        self.assertEqual(len({key for key, _ in same}), 2)
        self.assertEqual([length for _, length in same], [0, 5, 123_456] * 2)
        for line in ("Content-Length:5", "CONTENT-LENGTH: 5", "Content-Length: 05", "Content-Length: 5 ", "Content-Length: ", "X-Content-Length: 5"):
            self.assertEqual(cut(get("/get", line)), (get("/get", line), None))


class Remembering(SynchronousTestCase):
    def setUp(self) -> None:
        self.memo = Memo(LIMITS, TABLE.known)

    def come(self, raw: bytes) -> Known | None:
        """What is known of the head when it comes; it is learnt."""
        key, _ = cut(raw)
        known = self.memo.heads.get(key)
        if known is None:
            self.assertIsInstance(self.memo.read(raw, key), Known)
        return known

    def test_second_sight(self) -> None:
        """A head is kept when it comes a second time."""
        self.assertEqual([self.come(get()) is None for _ in range(4)], [True, True, False, False])

    def test_never_the_same(self) -> None:
        """Heads that come once only, however many, leave what is known alone, and themselves behind as numbers, of which there are not too many."""
        for _ in range(2):
            self.come(get())
        for number in range(memos.SIGHTS + 100):
            self.memo.learn(b"%d" % number, TABLE.known(parse_head(get(), LIMITS)))  # type: ignore[arg-type]
        self.assertEqual(len(self.memo.heads), 1)
        self.assertLessEqual(len(self.memo.once), memos.SIGHTS)
        self.assertTrue(all(isinstance(sight, int) for sight in self.memo.once))

    def test_bounded(self) -> None:
        """Many heads that come twice push the oldest out, in lots; never more than the bounds, in number and in weight."""
        for line, most in (("A: b", memos.MOST_HEADS), ("A: " + "a" * 1900, memos.MOST_HEADS), ("A:\r\n" * 90 + "A: b", 1000)):
            self.memo = Memo(LIMITS, TABLE.known)
            for number in range(memos.MOST_HEADS + 700):
                for _ in range(2):
                    self.come(get(f"/get?{number}", line))
            self.assertLessEqual(len(self.memo.heads), most)
            self.assertGreater(len(self.memo.heads), 500)
            self.assertLessEqual(self.memo.weight, memos.MOST_BYTES + 50_000)
            self.assertEqual(self.memo.weight, sum(known.weight for known in self.memo.heads.values()))
            self.assertIsNotNone(self.come(get(f"/get?{memos.MOST_HEADS + 699}", line)))
            self.assertIsNone(self.come(get("/get?0", line)))

    def test_lines(self) -> None:
        """Lines that were read are found; one that is refused is refused again; there are not too many, and none is long."""
        lines = KnownLines()
        self.assertIs(lines.fields([b"A: b"])[0], lines.fields([b"A: b"])[0])
        for _ in range(2):
            with self.assertRaises(PsubdError):
                lines.fields([b"A : b"])
        lines.fields([b"A: " + b"a" * 300])
        self.assertEqual(len(lines.lines.found), 1)
        for number in range(memos.MOST_LINES * 2):
            lines.fields([b"A: %d" % number])
        self.assertLessEqual(len(lines.lines.found), memos.MOST_LINES)

    def test_oldest_first(self) -> None:
        """A table that is full lets an eighth go, what came first."""
        bounded: Bounded[int, int] = Bounded(16)
        for number in range(17):
            bounded.keep(number, number)
        self.assertEqual(list(bounded.found), list(range(2, 17)))

    def test_what_is_told_together(self) -> None:
        """Fields that the wire goes by, told again, say the same as when they were read afresh."""
        for lines in (["Content-Length: 5", "Connection: close"], ["Transfer-Encoding: chunked", "Expect: 100-continue"], ["Expect: x"], []):
            for version in ("1.0", "1.1", "1.0", "1.1"):
                raw = get("/get", *lines, version=version)
                try:
                    afresh = parse_head(raw, LIMITS)
                except PsubdError as refusal:
                    with self.assertRaises(type(refusal)):
                        parse_head(raw, LIMITS, self.memo.lines)
                else:
                    self.assertEqual(parse_head(raw, LIMITS, self.memo.lines), afresh)
