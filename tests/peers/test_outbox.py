"""What waits to be said, in what order it goes, and large messages put together again."""

import random

from twisted.trial.unittest import SynchronousTestCase

from psubd.peers.frames import Frame, IllegalFrame, Kind, Parser, Start, encode_start
from psubd.peers.outbox import Outbox
from psubd.peers.pieces import Pieces


def drain(outbox: Outbox, takes: int | None = None) -> list[Frame]:
    """The frames that go next."""
    parser, found = Parser(), []
    while takes is None or takes > 0:
        data = outbox.take()
        if data is None:
            break
        parser.feed(data)
        while (frame := parser.next()) is not None:
            found.append(frame)
        takes = None if takes is None else takes - 1
    return found


def start(stream: int, size: int, kind: Kind = Kind.REPLY, id: int = 1) -> Frame:
    parser = Parser()
    parser.feed(encode_start(stream, Start(kind, id, size, "v")))
    frame = parser.next()
    assert frame is not None
    return frame


class Outboxes(SynchronousTestCase):
    def test_short(self) -> None:
        """Short messages go in the order given, many in one write."""
        outbox = Outbox()
        for number in range(1000):
            outbox.put(Kind.CALL, number, b"x", "poll")
        self.assertEqual([frame.id for frame in drain(outbox, 1)], list(range(1000)))
        self.assertEqual((outbox.take(), outbox.waiting), (None, 0))

    def test_large_does_not_hold_up(self) -> None:
        """A short message waits for one piece of a large one at most, and the large one goes on between short ones."""
        outbox = Outbox(piece=100)
        outbox.put(Kind.REPLY, 1, b"x" * 1000)
        drain(outbox, 3)
        outbox.put(Kind.REPLY, 2, b"ack")
        self.assertIn((Kind.REPLY, 2), [(frame.kind, frame.id) for frame in drain(outbox, 2)])
        for _ in range(50):
            outbox.put(Kind.REPLY, 3, b"y" * 90)
        self.assertEqual([frame.kind for frame in drain(outbox, 6)].count(Kind.PIECE), 3)

    def test_turns(self) -> None:
        """Large messages go piece by piece in turns: a small one among them is whole long before the others."""
        outbox = Outbox(piece=100)
        for id, size in ((1, 10_000), (2, 10_000), (3, 150)):
            outbox.put(Kind.REPLY, id, b"x" * size)
        streams = [frame.id for frame in drain(outbox) if frame.kind is Kind.PIECE]
        self.assertEqual(streams[:6], [1, 2, 3, 1, 2, 3])
        self.assertEqual(len(streams), 202)

    def test_urgent(self) -> None:
        """A ping goes before everything."""
        outbox = Outbox(piece=100)
        outbox.put(Kind.REPLY, 1, b"x" * 1000)
        outbox.put(Kind.REPLY, 2, b"x")
        outbox.hasten(Kind.PING)
        self.assertEqual(drain(outbox, 1), [Frame(Kind.PING, 0)])

    def test_withdrawn(self) -> None:
        """A large message is taken back: not begun, it never goes; begun, its end is told at once and no piece follows; gone or short: False."""
        outbox = Outbox(piece=100)
        outbox.put(Kind.REPLY, 1, b"x" * 1000)
        self.assertTrue(outbox.withdraw(Kind.REPLY, 1))
        self.assertEqual((drain(outbox), outbox.waiting), ([], 0))
        outbox.put(Kind.REPLY, 2, b"x" * 1000)
        begun = drain(outbox, 2)
        self.assertTrue(outbox.withdraw(Kind.REPLY, 2))
        self.assertEqual(drain(outbox), [Frame(Kind.DROP, begun[0].id)])
        self.assertEqual(outbox.waiting, 0)
        outbox.put(Kind.REPLY, 3, b"x" * 1000)
        outbox.put(Kind.REPLY, 4, b"x")
        drain(outbox)
        self.assertEqual([outbox.withdraw(Kind.REPLY, id) for id in (2, 3, 4)], [False, False, False])

    def test_window(self) -> None:
        """Large messages begin only as far as the other end may hold them; one that is larger than all goes alone."""
        outbox = Outbox(piece=10, window=100)
        for id in (1, 2, 3):
            outbox.put(Kind.REPLY, id, b"x" * 60)
        outbox.put(Kind.REPLY, 4, b"x" * 200)
        pieces, held = Pieces(window=100), []
        for frame in drain(outbox):
            pieces.received(frame)
            held.append(pieces.held)
        self.assertEqual(max(held), 200)
        self.assertEqual(sorted(set(held)), [0, 60, 200])

    def test_room(self) -> None:
        """What may wait is bounded; an empty outbox has room for anything."""
        outbox = Outbox(piece=10, most=100)
        self.assertTrue(outbox.room(1000))
        outbox.put(Kind.REPLY, 1, b"x" * 90)
        self.assertTrue(outbox.room(10))
        self.assertFalse(outbox.room(11))
        drain(outbox)
        self.assertTrue(outbox.room(1000))

    def test_histories(self) -> None:
        """Whatever is said and taken back in whatever order: each message that was not taken back arrives whole and once, and nothing is illegal."""
        for seed in range(30):
            self.history(random.Random(seed))

    def history(self, chance: random.Random) -> None:
        outbox, pieces, parser = Outbox(piece=20, window=150), Pieces(window=150), Parser()
        said: dict[int, bytes] = {}
        came: dict[int, bytes] = {}

        def move(takes: int) -> None:
            for _ in range(takes):
                parser.feed(outbox.take() or b"")
                while (frame := parser.next()) is not None:
                    whole = pieces.received(frame) if frame.kind in (Kind.LARGE, Kind.PIECE, Kind.DROP) else frame
                    if whole is not None and whole.kind is Kind.REPLY:
                        self.assertNotIn(whole.id, came)
                        came[whole.id] = whole.body

        for id in range(1, 120):
            said[id] = chance.randbytes(chance.choice((0, 5, 20, 21, 60, 140)))
            outbox.put(Kind.REPLY, id, said[id])
            if chance.random() < 0.3:
                taken = chance.randint(1, id)
                if outbox.withdraw(Kind.REPLY, taken):
                    del said[taken]
            move(chance.randint(0, 4))
        move(2000)
        self.assertEqual(came, said)
        self.assertEqual((outbox.waiting, pieces.held), (0, 0))


class PiecesTests(SynchronousTestCase):
    def test_illegal(self) -> None:
        """A sender that does not keep to the rules is told apart: twice begun, never begun, too much, more than may be on its way."""
        pieces = Pieces(window=100)
        pieces.received(start(1, 60))
        for frame, why in (
            (start(1, 10), "begun twice"),
            (start(2, 41), "60 are on their way already"),
            (Frame(Kind.PIECE, 3, b"x"), "was not begun"),
            (Frame(Kind.DROP, 3), "was not begun"),
            (Frame(Kind.PIECE, 1, b"x" * 61), "more than the 60"),
        ):
            self.assertIn(why, str(self.assertRaises(IllegalFrame, pieces.received, frame)))
