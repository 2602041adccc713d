from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import BadParameter
from psubd.manager.listing import cut, keyed, write_cursor


class CutTests(SynchronousTestCase):
    def test_all_pages(self) -> None:
        """Pages of any size give every key once, in order, and the last one has no cursor."""
        keys = keyed([f"k{n:03}" for n in range(250)])
        for limit in (1, 7, 100, 250, 251):
            seen, cursor = [], None
            while True:
                page, cursor = cut(keys, limit, cursor, "things")
                seen.extend(page)
                if cursor is None:
                    break
                self.assertEqual(len(page), limit)
            self.assertEqual(seen, keys, limit)

    def test_changes_between_pages(self) -> None:
        """What is made or deleted between two pages neither repeats nor hides another key; the cursor's own key may be gone."""
        page, cursor = cut(keyed(["b", "d", "f", "h"]), 2, None, "things")
        self.assertEqual(page, keyed(["b", "d"]))
        page, cursor = cut(keyed(["a", "b", "e", "f", "h"]), 2, cursor, "things")
        self.assertEqual(page, keyed(["e", "f"]))
        self.assertEqual(cut(keyed([]), 2, cursor, "things"), ([], None))

    def test_foreign_cursors(self) -> None:
        """A cursor that is not this list's is refused."""
        for cursor in ("", "x", "!!!!", "AAAA", "W10", write_cursor(("a",), "others"), write_cursor(("a",), "things")[:-3], "\xe9"):
            with self.assertRaises(BadParameter):
                cut(keyed(["a", "b"]), 1, cursor, "things")
