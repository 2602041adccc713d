"""The place of a group as a commit's metadata."""

import base64
import itertools
import random
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from psubd.delivery.cursor import MAX_OFFSET, MAX_SPAN, MOST_ATTEMPTS, Cursor, CursorTooLong, decode, encode, fits, room
from psubd.model import Commit

serials = st.integers(0, 2**63 - 1)
NEAR = st.integers(1, 5000)


@st.composite
def done_past(draw, offset, steps=NEAR):
    """Ranges that do not touch, past the offset."""
    ranges = []
    last = offset
    for gap, length in draw(st.lists(st.tuples(steps, steps), max_size=60)):
        start = last + gap
        last = start + length
        if last > MAX_OFFSET:
            break
        ranges.append((start, last))
    return tuple(ranges)


@st.composite
def attempts_from(draw, offset):
    """Counts of messages that are not done."""
    attempts = []
    for gap, count in draw(st.lists(st.tuples(st.integers(0, 5000), st.integers(2, MOST_ATTEMPTS)), max_size=30)):
        if offset + gap > MAX_OFFSET:
            break
        attempts.append((offset + gap, count))
        offset += gap + 1
    return tuple(attempts)


@st.composite
def cursors(draw, steps=NEAR):
    offset = draw(st.one_of(st.integers(0, 1000), st.integers(0, MAX_OFFSET)))
    uid, mark = draw(st.text(max_size=40)), draw(st.text(max_size=20))
    done, attempts = draw(done_past(offset, steps)), draw(attempts_from(offset))
    return Cursor(uid, mark, draw(serials), draw(serials), offset, done, draw(serials), attempts, draw(st.text(max_size=256)))


class EncodeTests(SynchronousTestCase):
    @given(cursors())
    @settings(max_examples=300, deadline=None)
    def test_what_was_written_is_read(self, cursor):
        """A cursor comes back as it was written, whatever the ids of a foreign storage hold."""
        commit = encode(cursor, 1_000_000)
        self.assertEqual(decode(commit), cursor)
        self.assertEqual(commit.offset, cursor.offset)
        self.assertTrue(commit.metadata.isascii())

    def test_a_note_gives_way(self):
        """A client's own metadata is kept where there is room for it beside what is done; then it goes, and what is done stays. A commit without one
        reads as those of versions that knew none."""
        done = tuple((at, at + 1) for at in range(2, 400, 2))
        cursor = Cursor("t", "m", 1, 2, 0, done, 0, (), "ü" * 256)
        whole = encode(cursor, 4096)
        self.assertEqual(decode(whole), cursor)
        self.assertEqual(decode(encode(cursor, len(whole.metadata) - 1)), cursor._replace(note=""))
        self.assertEqual(encode(cursor._replace(note="")).metadata.count(";"), 8)

    @given(cursors(st.integers(1, 2**40)))
    @settings(max_examples=200, deadline=None)
    def test_wide_gaps(self, cursor):
        """Ranges far apart (a compacted topic) are kept too."""
        self.assertEqual(decode(encode(cursor, 1_000_000)), cursor)

    @given(cursors(), st.integers(0, 600))
    @settings(max_examples=300, deadline=None)
    def test_never_longer_than_the_limit(self, cursor, limit):
        """The metadata keeps to the limit, or the cursor is refused plainly."""
        try:
            commit = encode(cursor, limit)
        except CursorTooLong as refused:
            self.assertIn(f"{limit} fit", str(refused))
            self.assertGreater(len(encode(cursor._replace(attempts=(), note=""), 1_000_000).metadata), limit)
        else:
            self.assertLessEqual(len(commit.metadata), limit)
            found = decode(commit)
            self.assertEqual(found._replace(attempts=(), note=""), cursor._replace(attempts=(), note=""))
            self.assertIn(found.note, ("", cursor.note))
            self.assertEqual(found.attempts, cursor.attempts[: len(found.attempts)])

    def test_attempts_take_what_is_left(self):
        """Attempts never push out what is done: those that find no room are left out, from the end."""
        cursor = Cursor("u", "m", 0, 0, 10, ((12, 13),), 3, ((10, 2), (11, 10), (15, 3), (900, 2)))
        whole = encode(cursor).metadata
        self.assertEqual(whole, "psubd2;u;m;0;0;3;r;2;0,2.1,a.4,3.375,2")
        bare = len(whole) - len("0,2.1,a.4,3.375,2")
        kept = [len(decode(encode(cursor, limit)).attempts) for limit in range(bare, len(whole) + 1)]
        self.assertEqual(kept, [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 4])
        with self.assertRaises(CursorTooLong):
            encode(cursor, bare - 1)

    def test_attempts_that_cannot_be(self):
        """Attempts out of order, before the offset, or below two are refused."""
        for attempts in [((4, 2),), ((9, 2), (9, 2)), ((9, 2), (8, 2)), ((9, 1),), ((9, MOST_ATTEMPTS + 1),), ((MAX_OFFSET + 1, 2),)]:
            with self.assertRaises(ValueError, msg=attempts):
                encode(Cursor("u", "m", 0, 0, 5, (), 0, attempts))

    def test_the_shorter_form(self):
        """Few long runs are written as ranges, a dense pattern as a bitmap: never the longer one."""
        sparse = encode(Cursor("uid", "mark", 0, 1, 10, ((11, 5000), (6000, 7000))))
        self.assertTrue(sparse.metadata.endswith(";r;1,137d.3e8,3e8;"), sparse.metadata)
        dense = tuple((at, at + 1) for at in range(12, 4000, 2))
        self.assertIn(";b;", encode(Cursor("uid", "mark", 0, 1, 10, dense)).metadata)

    def test_nothing_past_the_offset(self):
        """A plain place is short and can be read by a person."""
        self.assertEqual(encode(Cursor("u1", "m1", 7, 2, 41)), Commit(41, "psubd2;u1;m1;7;2;0;-;;"))

    def test_a_cursor_that_cannot_be(self):
        """Ranges out of order, touching, empty or at the offset itself are refused."""
        for done in [((5, 6),), ((4, 6),), ((8, 8),), ((8, 9), (9, 10)), ((20, 30), (10, 12)), ((8, MAX_OFFSET + 2),)]:
            with self.assertRaises(ValueError, msg=done):
                encode(Cursor("u", "m", 0, 0, 5, done))


class DecodeTests(SynchronousTestCase):
    def test_not_ours(self):
        """A commit that psubd did not write, or in another format, is nobody's place."""
        head = "psubd2;u;m;0;0;0;"
        foreign = [
            "",
            "psubd3;u;m;0;0;0;-;;",
            "psubd1;u;m;0;0;-;",
            "psubd2;u;m;0;0;0;-;",
            "psubd2;u;m;-1;0;0;-;;",
            "psubd2;u;m;01;0;0;-;;",
            '{"a": 1}',
        ]
        foreign += [head + tail for tail in ("-;x;", "q;;", "r;;", "r;0,1;", "r;1,0;", "r;1_0;", "b;####;", "b;AAAA;")]
        foreign += [head + "r;fffffffffffffff,ffffffffffffffff;", "psubd2;u;m;\u0663;0;0;-;;", "psubd2;u;m;0;0;x;-;;"]
        foreign += [head + "-;;" + tail for tail in ("1", "1,", "1,1", "1,2.", "1,2.0,2", "1,2,3", "g,2", "fffffffffffffff,2.fffffffffffffff0,2")]
        for metadata in foreign:
            self.assertIsNone(decode(Commit(3, metadata)), metadata)
        self.assertIsNone(decode(Commit(-1, "psubd2;u;m;0;0;0;-;;")))

    def test_a_bomb(self):
        """A bitmap that swells past the widest that psubd writes is refused before it takes the memory."""
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = base64.b64encode(deflate.compress(b"\xff" * (MAX_SPAN * 4)) + deflate.flush()).decode()
        self.assertIsNone(decode(Commit(0, f"psubd2;u;m;0;0;0;b;{bomb};")))

    def test_the_widest_bitmap(self):
        """The widest span that is written as a bitmap is read too."""
        done = tuple((at, at + 1) for at in range(1, MAX_SPAN, 2))
        commit = encode(Cursor("u", "m", 0, 0, 0, done))
        self.assertIn(";b;", commit.metadata)
        self.assertEqual(decode(commit).done, done)

    @given(st.text(alphabet="psubd2;rb-,.0123456789abcdefAZ=+/", max_size=60))
    @settings(max_examples=500, deadline=None)
    def test_never_raises(self, text):
        """Whatever stands there, reading it answers a cursor or None."""
        for metadata in (text, f"psubd2;u;m;0;0;0;r;{text};", f"psubd2;u;m;0;0;0;b;{text};", f"psubd2;u;m;0;0;0;-;;{text}"):
            found = decode(Commit(9, metadata))
            self.assertTrue(found is None or found.offset == 9)


class FitsTests(SynchronousTestCase):
    def test_the_bound_is_safe_for_bitmaps(self):
        """What `fits` allows for its span does fit, for patterns that deflate cannot shrink."""
        dice = random.Random(1)
        space = room("u" * 22, "m" * 11, 4096)
        span = max(n for n in range(0, 40_000, 100) if fits(n, 10**9, space))
        self.assertGreater(span, 20_000)
        for _ in range(20):
            undone = [at for at in range(1, span) if dice.random() < 0.5]
            done = tuple((a + 1, b) for a, b in itertools.pairwise(undone) if b > a + 1)
            metadata = encode(Cursor("u" * 22, "m" * 11, 2**63 - 1, 2**63 - 1, 0, done, 2**63 - 1), 4096).metadata
            self.assertLessEqual(len(metadata), 4096)

    def test_the_bound_is_safe_for_ranges(self):
        """What `fits` allows for a number of ranges does fit, however far apart they are."""
        space = room("u" * 22, "m" * 11, 4096)
        for digits in range(6, 15):
            span = 16**digits - 1
            count = max(n for n in range(2000) if fits(span, n, space))
            self.assertGreater(count, 100)
            step = span // count
            done = tuple((at * step + 2, (at + 1) * step) for at in range(count))
            self.assertLessEqual(len(encode(Cursor("u" * 22, "m" * 11, 2**63 - 1, 2**63 - 1, 0, done, 2**63 - 1), 4096).metadata), 4096)
