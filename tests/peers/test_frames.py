"""Bytes <-> frames."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from psubd.peers.frames import (
    AFTER_SIZE,
    BODY_BYTES,
    HEAD,
    LARGEST,
    NAMED,
    PIECE_BYTES,
    START,
    Frame,
    IllegalFrame,
    Kind,
    Parser,
    Start,
    decode_start,
    encode,
    encode_start,
)

EXAMPLES = [
    Frame(Kind.HELLO, 0, b"hello"),
    Frame(Kind.CALL, 1, b"body", "poll"),
    Frame(Kind.CALL, 2**64 - 1, b"", "v" * 64),
    Frame(Kind.TELL, 0, b"\0" * PIECE_BYTES, "v" * 64),
    Frame(Kind.REPLY, 7, b""),
    Frame(Kind.REPLY, 7, b"x" * PIECE_BYTES),
    Frame(Kind.ERROR, 8, b"e"),
    Frame(Kind.CANCEL, 9),
    Frame(Kind.PING, 0),
    Frame(Kind.PONG, 0),
    Frame(Kind.PIECE, 3, b"p"),
    Frame(Kind.DROP, 3),
]
BYTES = b"".join(encode(*frame) for frame in EXAMPLES)


def frames(parser: Parser) -> list[Frame]:
    found = []
    while (frame := parser.next()) is not None:
        found.append(frame)
    return found


class Frames(SynchronousTestCase):
    def test_whole(self) -> None:
        """What is encoded is read as it was, in order."""
        parser = Parser()
        parser.feed(BYTES)
        self.assertEqual(frames(parser), EXAMPLES)
        self.assertEqual(parser.pending, 0)

    def test_portions(self) -> None:
        """However the bytes are cut, the frames are the same."""
        chance = random.Random(1)
        for largest in (3, 40, 30_000, 200_000):
            parser, found, at = Parser(), [], 0
            data = BYTES if largest > 40 else b"".join(encode(*frame) for frame in EXAMPLES if len(frame.body) < 100)
            while at < len(data):
                size = chance.randint(1, largest)
                parser.feed(data[at : at + size])
                found += frames(parser)
                at += size
            self.assertEqual(found, EXAMPLES if largest > 40 else [frame for frame in EXAMPLES if len(frame.body) < 100])

    def test_limit_between_frames(self) -> None:
        """The limit may change between two frames of the same bytes: a small one before, a large one after."""
        parser = Parser(largest=100)
        parser.feed(encode(Kind.WELCOME) + encode(Kind.REPLY, 1, b"x" * 1000))
        self.assertEqual(parser.next(), Frame(Kind.WELCOME, 0))
        parser.largest = LARGEST
        self.assertEqual(parser.next(), Frame(Kind.REPLY, 1, b"x" * 1000))

    def test_illegal(self) -> None:
        """What can be no frame is refused, says why, and nothing after it is read."""
        for data, why in (
            (b"\xff\xff\xff\xff", "not 4294967295"),  # at once: not when 4 GiB have come
            (b"\0\0\0\x08", "not 8"),
            (HEAD.pack(LARGEST + 1, Kind.REPLY, 1), f"not {LARGEST + 1}"),
            (HEAD.pack(AFTER_SIZE, 99, 1), "no frame of kind 99"),
            (HEAD.pack(AFTER_SIZE, 0, 1), "no frame of kind 0"),
            (HEAD.pack(AFTER_SIZE, Kind.CALL, 1), "ends within its verb"),
            (HEAD.pack(AFTER_SIZE + 2, Kind.CALL, 1) + b"\x05v", "ends within its verb"),
            (HEAD.pack(AFTER_SIZE + 1, Kind.CALL, 1) + b"\0", "verb is 1 to 64"),
            (HEAD.pack(AFTER_SIZE + 3, Kind.TELL, 0) + b"\x02\xc3\xa9", "verb is 1 to 64"),
            (HEAD.pack(AFTER_SIZE + 3, Kind.CALL, 1) + b"\x02\r\n", "verb is 1 to 64"),
            (HEAD.pack(AFTER_SIZE + 66, Kind.CALL, 1) + b"\x41" + b"v" * 65, "verb is 1 to 64"),
            (HEAD.pack(AFTER_SIZE + 1, Kind.CANCEL, 1) + b"x", "CANCEL frame has no body"),
            (HEAD.pack(AFTER_SIZE + 1, Kind.PING, 0) + b"x", "PING frame has no body"),
            (HEAD.pack(AFTER_SIZE + 1, Kind.DROP, 0) + b"x", "DROP frame has no body"),
            (HEAD.pack(AFTER_SIZE, Kind.PIECE, 1), "piece is empty"),
            (HEAD.pack(AFTER_SIZE + PIECE_BYTES + 1, Kind.REPLY, 1) + b"x" * (PIECE_BYTES + 1), "more than 65536"),
        ):
            parser = Parser()
            parser.feed(encode(Kind.PING) + data)
            self.assertEqual(parser.next(), Frame(Kind.PING, 0))
            self.assertIn(why, str(self.assertRaises(IllegalFrame, parser.next)))
            parser.feed(encode(Kind.PING))
            self.assertRaises(IllegalFrame, parser.next)

    def test_start(self) -> None:
        """What a LARGE frame announces is read as it was, and judged."""
        for start in (Start(Kind.CALL, 5, BODY_BYTES, "take"), Start(Kind.REPLY, 2**64 - 1, 1, ""), Start(Kind.ERROR, 1, 70_000, "")):
            parser = Parser()
            parser.feed(encode_start(9, start))
            frame = parser.next()
            assert frame is not None
            self.assertEqual((frame.kind, frame.id, decode_start(frame)), (Kind.LARGE, 9, start))
        for body, why in (
            (b"short", "needs 13"),
            (START.pack(Kind.PING, 1, 5), "kind 21, which has no body"),
            (START.pack(Kind.LARGE, 1, 5), "kind 23"),
            (START.pack(99, 1, 5), "kind 99"),
            (START.pack(Kind.REPLY, 1, 0), "announces 0 bytes"),
            (START.pack(Kind.REPLY, 1, BODY_BYTES + 1), f"{BODY_BYTES + 1} bytes"),
            (START.pack(Kind.REPLY, 1, 5) + b"verb", "names a verb"),
            (START.pack(Kind.CALL, 1, 5), "verb is 1 to 64"),
        ):
            self.assertIn(why, str(self.assertRaises(IllegalFrame, decode_start, Frame(Kind.LARGE, 1, body))))

    def test_not_sent(self) -> None:
        """What the other end would refuse is not encoded."""
        for verb in ("", "v" * 65, "é", "a\nb"):
            self.assertRaises(ValueError, encode, Kind.CALL, 1, b"", verb)
        self.assertRaises(ValueError, encode, Kind.REPLY, 1, b"x" * (LARGEST + 1))

    def test_garbage(self) -> None:
        """Whatever comes, in whatever portions: frames, or `IllegalFrame`, and never more kept than came."""

        @settings(max_examples=300, deadline=None, database=None, derandomize=True)
        @given(st.lists(st.binary(max_size=60), max_size=8), st.integers(0, len(EXAMPLES) - 1), st.integers(0, 40), st.integers(0, 255))
        def judge(portions: list[bytes], which: int, place: int, value: int) -> None:
            mutated = bytearray(encode(*EXAMPLES[which])[:200])
            mutated[place % len(mutated)] = value
            parser, came = Parser(), 0
            for portion in [bytes(mutated), *portions]:
                parser.feed(portion)
                came += len(portion)
                try:
                    for frame in frames(parser):
                        assert frame.kind in Kind
                        assert bool(frame.verb) == (frame.kind in NAMED)
                except IllegalFrame:
                    return
                assert parser.pending <= came

        judge()
