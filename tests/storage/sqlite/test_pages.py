"""What was read from the file lately."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from psubd.model import Message
from psubd.storage.sqlite.pages import Pages
from psubd.storage.sqlite.tail import OVERHEAD


def messages(*offsets: int, size: int = 100) -> list[Message]:
    return [Message(offset, 0, None, b"x" * size, ()) for offset in offsets]


class PageTests(SynchronousTestCase):
    def read(self, pages: Pages, no: int, offset: int, records: int = 100, size: int = 1 << 20) -> tuple[list[int], int] | None:
        found = pages.read(no, offset, records, size)
        return None if found is None else ([message.offset for message in found[0]], found[1])

    def test_from_any_place_in_it(self) -> None:
        """From where it was read on, from its middle, from a gap and from the gap at its end; not from before it, nor from where it ends."""
        pages = Pages()
        pages.put(7, 2, messages(3, 4, 8), 10)
        whole = {2: [3, 4, 8], 3: [3, 4, 8], 4: [4, 8], 5: [8], 8: [8], 9: []}
        for offset, expected in whole.items():
            self.assertEqual(self.read(pages, 7, offset), (expected, 10))
        for offset in (0, 1, 10, 11):
            self.assertIsNone(self.read(pages, 7, offset))
        self.assertIsNone(self.read(pages, 6, 3))

    def test_within_bounds(self) -> None:
        """As many as are asked for, at least one; the next read goes on with the next message."""
        pages = Pages()
        pages.put(7, 2, messages(3, 4, 8), 10)
        self.assertEqual(self.read(pages, 7, 2, records=2), ([3, 4], 8))
        self.assertEqual(self.read(pages, 7, 2, size=250), ([3, 4], 8))
        self.assertEqual(self.read(pages, 7, 2, size=1), ([3], 4))
        self.assertEqual(self.read(pages, 7, 8, records=1), ([8], 10))

    def test_budget(self) -> None:
        """What was used longest ago goes first, and no page takes more than a quarter."""
        one = 2 * (100 + OVERHEAD) + OVERHEAD
        pages = Pages(4 * one)
        for no in range(4):
            pages.put(no, 0, messages(0, 1), 2)
        self.assertIsNotNone(self.read(pages, 0, 0))
        pages.put(9, 0, messages(0, 1), 2)
        self.assertEqual([no for no in (0, 1, 2, 3, 9) if self.read(pages, no, 0) is not None], [0, 2, 3, 9])
        self.assertEqual(pages.held, 4 * one)
        pages.put(8, 0, messages(*range(10)), 10)
        self.assertIsNone(self.read(pages, 8, 0))

    def test_dropped(self) -> None:
        """Nothing is left of a log that is dropped, and what was on its way to here is told to stay away."""
        pages = Pages()
        pages.put(7, 0, messages(0, 1), 2)
        pages.put(8, 0, messages(0, 1), 2)
        era = pages.era
        pages.drop(7)
        self.assertNotEqual(pages.era, era)
        self.assertIsNone(self.read(pages, 7, 0))
        self.assertIsNotNone(self.read(pages, 8, 0))
        pages.clear()
        self.assertIsNone(self.read(pages, 8, 0))
        self.assertEqual(pages.held, 0)

    @given(
        st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=12),
        st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=12),
    )
    def test_never_leaves_any_out(self, put: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
        """Whatever pages there are, overlapping too: a read gives the log's messages from its offset on, without a hole."""
        log = [offset for offset in range(60) if offset % 7]
        pages = Pages(20 * (OVERHEAD + 100))
        for start, length in put:
            pages.put(1, start, messages(*[offset for offset in log if start <= offset < start + length]), start + length)
        for offset, records in asked:
            found = self.read(pages, 1, offset, records)
            if found is not None:
                self.assertEqual(found[0], [each for each in log if offset <= each < found[1]])
                self.assertGreater(found[1], offset)
                self.assertLessEqual(len(found[0]), records)
