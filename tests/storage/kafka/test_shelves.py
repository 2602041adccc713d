"""Shelves: what was read, kept for others."""

from twisted.trial.unittest import SynchronousTestCase

from psubd.model import Message
from psubd.storage.kafka.reads import Piece
from psubd.storage.kafka.shelves import FRESH_MS, OLD_MS, QUICK_MS, Budget, Shelf, Shelves


def piece(start: int, next: int, *offsets: int, end: int | None = None, size: int = 100_000, log_epoch: int = -1) -> Piece:
    """A piece with messages at ``offsets`` (none given: at all of them)."""
    at = offsets or tuple(range(start, next))
    messages = tuple(Message(offset, 1, None, b"%d" % offset, ()) for offset in at)
    return Piece(start, next, messages, 0, next if end is None else end, size, log_epoch=log_epoch)


class ShelvesCase(SynchronousTestCase):
    """One shelf of many."""

    def setUp(self) -> None:
        self.shelves = Shelves(Budget(1_000_000, 2_000_000))
        self.shelf = self.shelves.make("t", 0, 0)

    def put(self, *pieces: Piece, now: int = 0) -> None:
        for each in pieces:
            self.shelves.put(self.shelf, each, now)

    def offsets(self, offset: int, max_records: int = 1000, max_bytes: int = 1 << 30) -> tuple[list[int], int] | None:
        found = self.shelves.slice(self.shelf, offset, max_records, max_bytes)
        return None if found is None else ([message.offset for message in found.messages], found.next_offset)

    def test_what_is_not_there(self) -> None:
        """None, before, between and behind the pieces."""
        self.put(piece(10, 20), piece(30, 40))
        self.assertEqual([None] * 4, [self.offsets(offset) for offset in (9, 20, 29, 40)])

    def test_pieces_that_touch_are_one(self) -> None:
        """A read goes over from one to the next, and stops where one is lacking."""
        self.put(piece(10, 20), piece(20, 30), piece(40, 50))
        self.assertEqual((list(range(15, 30)), 30), self.offsets(15))

    def test_limits(self) -> None:
        """max_records and max_bytes are kept, and the place to go on is the next message; one message always fits."""
        self.put(piece(0, 10), piece(10, 20))
        self.assertEqual(([8, 9, 10, 11], 12), self.offsets(8, max_records=4))
        self.assertEqual(([0, 1], 2), self.offsets(0, max_bytes=2))
        self.assertEqual(([12], 13), self.offsets(12, max_bytes=1))

    def test_gaps(self) -> None:
        """Offsets that no message has are passed, at the front, between and at the end; a piece of nothing but gap is passed too."""
        self.put(piece(0, 10, 3, 7), piece(20, 30, 25), piece(10, 20, 12))
        self.assertEqual(([3, 7, 12, 25], 30), self.offsets(0))
        self.assertEqual(([7], 12), self.offsets(4, max_records=1))
        self.put(Piece(30, 40, (), 0, 40, 100))
        self.assertEqual(([], 40), self.offsets(28))

    def test_overlaps_are_kept_once(self) -> None:
        """A piece is cut to what is lacking, up to the next one that is there."""
        self.put(piece(10, 20), piece(30, 40))
        self.put(piece(5, 35))
        self.assertEqual((list(range(5, 20)), 20), self.offsets(5))
        self.put(piece(15, 35))
        self.assertEqual((list(range(5, 40)), 40), self.offsets(5))
        before = self.shelves.size
        self.put(piece(12, 33))
        self.assertEqual(before, self.shelves.size)

    def test_a_window_is_bounded(self) -> None:
        """One partition keeps its newest pieces within the window's bytes."""
        self.put(*[piece(number * 10, number * 10 + 10) for number in range(30)])
        self.assertEqual(1_000_000, self.shelves.size)
        self.assertIsNone(self.offsets(0))
        self.assertEqual((list(range(200, 300)), 300), self.offsets(200))

    def test_who_lags_is_served_from_a_full_window(self) -> None:
        """A page from far behind stays beside a full window until the next but one such page, whatever comes at the end; the end stays too."""
        self.put(*[piece(number * 10, number * 10 + 10) for number in range(100, 110)])
        self.put(piece(0, 10), piece(1100, 1110))
        self.assertEqual((list(range(4, 10)), 10), self.offsets(4))
        self.assertEqual(1_100_000, self.shelves.size)
        self.put(piece(10, 20))
        self.assertEqual((list(range(4, 20)), 20), self.offsets(4))
        self.put(piece(20, 30))
        self.assertEqual((None, (list(range(10, 30)), 30)), (self.offsets(4), self.offsets(10)))
        self.assertEqual((list(range(1015, 1110)), 1110), self.offsets(1015))
        self.assertEqual(1_200_000, self.shelves.size)
        self.shelves.forget("t", 0)
        self.assertEqual((0, ()), (self.shelves.size, self.shelf.passing))

    def test_who_reads_quickly_is_read_ahead_for(self) -> None:
        """Who has come into a page within a second of its coming is due the next one, once, as long as the log has more; what he is in is kept
        beside it, though the window is smaller."""
        self.put(piece(0, 10, end=100, size=1_000_000))
        self.assertEqual(10, self.shelf.due(4, 500))
        self.put(piece(10, 20, end=100, size=1_000_000), now=500)
        self.assertEqual((list(range(4, 20)), 20), self.offsets(4))
        self.assertIsNone(self.shelf.due(8, 600))
        self.assertEqual(20, self.shelf.due(12, 700))
        self.assertEqual(20, self.shelf.due(20, 700))

    def test_who_does_not_is_not(self) -> None:
        """Nothing is due to who reads slowly, at the end of the log, or where nothing was read."""
        self.put(piece(0, 10, end=30), piece(20, 30, end=30))
        self.assertEqual([None] * 3, [self.shelf.due(4, QUICK_MS + 1), self.shelf.due(25, 0), self.shelf.due(15, 0)])

    def test_all_together_are_bounded(self) -> None:
        """What was used longest ago goes first."""
        others = [self.shelves.make("t", number, 0) for number in range(1, 5)]
        for shelf in others:
            for number in range(5):
                self.shelves.put(shelf, piece(number * 10, number * 10 + 10), 0)
        for number in (0, 10, 20, 30, 40):
            self.shelves.slice(others[0], number, 1, 1)
        self.put(*[piece(number * 10, number * 10 + 10) for number in range(5)])
        self.assertEqual(2_000_000, self.shelves.size)
        self.assertIsNotNone(others[0].slice(0, 1, 1))
        self.assertIsNone(others[1].slice(0, 1, 1))

    def test_small_pieces_grow(self) -> None:
        """A trickle of single messages makes few pieces."""
        self.put(*[piece(number, number + 1, size=400) for number in range(1000)])
        self.assertLess(len(self.shelf.parts), 10)
        self.assertEqual((list(range(1000)), 1000), self.offsets(0))
        self.assertEqual(400_000, self.shelves.size)

    def test_old_pieces_go(self) -> None:
        """Retention may have taken what they hold."""
        self.put(piece(0, 10), now=0)
        self.put(piece(10, 20), now=OLD_MS)
        self.shelves.age(OLD_MS + 1)
        self.assertIsNone(self.offsets(0))
        self.assertEqual((list(range(10, 20)), 20), self.offsets(10))

    def test_another_leader(self) -> None:
        """What was read of a former leader's log is not mixed with the new one's: it may have been cut off. A piece of an older term is kept: it
        lies further in front in the same log."""
        self.put(piece(0, 10, log_epoch=3), piece(10, 20, log_epoch=4))
        self.assertIsNone(self.offsets(0))
        self.put(piece(0, 10, log_epoch=3))
        self.assertEqual((list(range(20)), 20), self.offsets(0))
        found = self.shelves.slice(self.shelf, 0, 1000, 1 << 30), self.shelves.slice(self.shelf, 0, 5, 1 << 30)
        self.assertEqual([4, 3], [each.log_epoch for each in found if each is not None])

    def test_a_log_that_was_cut(self) -> None:
        """What reaches past its end is dropped; where the end of a former term's log is known, only what was read of that."""
        self.put(piece(0, 10, log_epoch=3), piece(20, 30, log_epoch=3), piece(40, 50, log_epoch=3))
        self.shelves.cut("t", 0, 25, 2)
        self.shelves.cut("t", 1, 25, 3)
        self.assertIsNotNone(self.offsets(40))
        self.shelves.cut("t", 0, 25, 3)
        self.assertEqual([True, False, False], [self.offsets(offset) is not None for offset in (0, 20, 40)])
        self.shelves.cut("t", 0, 9)
        self.assertEqual((None, 0), (self.offsets(0), self.shelves.size))

    def test_forgotten(self) -> None:
        """A topic, or a partition, leaves nothing behind."""
        self.put(piece(0, 10))
        self.shelves.put(self.shelves.make("t", 1, 0), piece(0, 10), 0)
        self.shelves.forget("t", 1)
        self.assertEqual(100_000, self.shelves.size)
        self.shelves.clear("t")
        self.assertEqual((0, None), (self.shelves.size, self.shelves.get("t", 0)))

    def test_the_end(self) -> None:
        """Known where the tail stands, while it was heard of lately and nothing was published here that it has not seen."""
        shelf = Shelf(0)
        self.assertFalse(shelf.at_end(0, 0))
        shelf.frontier, shelf.heard_at = 10, 1_000
        self.assertTrue(shelf.at_end(10, 1_000))
        self.assertFalse(shelf.at_end(9, 1_000))
        self.assertFalse(shelf.at_end(10, 1_000 + FRESH_MS))
        shelf.written = 11
        self.assertFalse(shelf.at_end(10, 1_000))
        shelf.written, shelf.end = 10, 11
        self.assertFalse(shelf.at_end(10, 1_000), "who was told of the record at 10 by a watch must find it")
