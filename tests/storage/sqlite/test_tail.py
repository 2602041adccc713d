import weakref

from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from psubd.model import Message
from psubd.storage.sqlite.tail import OVERHEAD, Tail


def extend(tail: Tail, place: tuple[str, int], found: list[Message]) -> None:
    tail.extend(place, found, sum(message.size for message in found))


class Name(str):
    """A header's name that a test can see being let go."""


def messages(first: int, *sizes: int) -> list[Message]:
    return [Message(first + number, 0, None, b"x" * size, ()) for number, size in enumerate(sizes)]


class TailTests(SynchronousTestCase):
    def offsets(self, found: list[Message] | None) -> list[int] | None:
        return None if found is None else [message.offset for message in found]

    def test_keeps_the_newest_within_its_budget(self) -> None:
        """What is over the budget goes from the oldest on, over all partitions; what is not here is for the file."""
        tail = Tail(4 * (100 + OVERHEAD))
        extend(tail, ("t", 0), messages(0, 100, 100))
        extend(tail, ("t", 1), messages(7, 100, 100))
        extend(tail, ("t", 0), messages(2, 100))
        self.assertIsNone(tail.read(("t", 0), 1, 10, 1000))
        self.assertEqual([2], self.offsets(tail.read(("t", 0), 2, 10, 1000)))
        self.assertEqual([7, 8], self.offsets(tail.read(("t", 1), 7, 10, 1000)))
        self.assertIsNone(tail.read(("t", 1), 9, 10, 1000))
        self.assertEqual(3 * (100 + OVERHEAD), tail.held)

    def test_what_is_shed_is_let_go(self) -> None:
        """The budget is what is really held: a message that was shed is not kept by anybody, however few there are."""
        tail = Tail(4 * (101 + OVERHEAD))
        kept = []
        for number in range(50):
            name = Name("h")
            kept.append(weakref.ref(name))
            extend(tail, ("t", 0), [Message(number, 0, None, b"x" * 100, ((name, None),))])
            del name
        self.assertEqual([46, 47, 48, 49], [number for number, ref in enumerate(kept) if ref() is not None])

    def test_reads_keep_to_their_bounds(self) -> None:
        """At most so many records and bytes, but one at least."""
        tail = Tail(1 << 20)
        extend(tail, ("t", 0), messages(0, 10, 10, 500, 10))
        self.assertEqual([1, 2], self.offsets(tail.read(("t", 0), 1, 2, 1000)))
        self.assertEqual([0, 1], self.offsets(tail.read(("t", 0), 0, 10, 519)))
        self.assertEqual([2], self.offsets(tail.read(("t", 0), 2, 10, 1)))

    def test_nothing_is_kept_across_a_hole(self) -> None:
        """Messages that do not follow on what is there begin anew."""
        tail = Tail(1 << 20)
        extend(tail, ("t", 0), messages(0, 1, 1))
        extend(tail, ("t", 0), messages(5, 1))
        self.assertIsNone(tail.read(("t", 0), 0, 10, 10))
        self.assertEqual([5], self.offsets(tail.read(("t", 0), 5, 10, 10)))

    def test_a_message_larger_than_the_budget(self) -> None:
        """It is not kept, and the budget is whole again."""
        tail = Tail(100)
        extend(tail, ("t", 0), messages(0, 1000))
        self.assertEqual((None, 0), (tail.read(("t", 0), 0, 1, 10), tail.held))

    @settings(deadline=None)
    @given(some.lists(some.tuples(some.integers(0, 2), some.lists(some.integers(0, 300), min_size=1, max_size=40), some.booleans()), max_size=60))
    def test_what_is_read_is_what_was_given(self, blocks: list[tuple[int, list[int], bool]]) -> None:
        """Over any run of appends and drops: a read is None or exactly the log's messages from there, and never more is held than the budget."""
        tail = Tail(20_000)
        logs: dict[int, list[Message]] = {0: [], 1: [], 2: []}
        for partition, sizes, drop in blocks:
            log = logs[partition]
            if drop:
                tail.thin(("t", partition))
            block = messages(len(log), *sizes)
            log += block
            extend(tail, ("t", partition), block)
            self.assertLessEqual(tail.held, 20_000)
            for offset in {0, len(log) // 2, max(0, len(log) - 3), len(log) - 1, len(log)}:
                found = tail.read(("t", partition), offset, 7, 1 << 20)
                self.assertIn(found, (None, log[offset : offset + 7]))
                self.assertTrue(found is None or found)
