"""What stands where, and how it is written."""

from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import TooLarge
from psubd.interfaces import Change, Delete, Entry, Put
from psubd.registry.tree import ROOTS, Step, Tree, steps_of
from psubd.registry.zookeeper import layout
from psubd.registry.zookeeper.client import Create, Set
from psubd.registry.zookeeper.client import Delete as Remove
from psubd.registry.zookeeper.layout import SEGMENT, SEGMENTS, Head, Logged, Ref, Value
from psubd.registry.zookeeper.parcel import PACKET, Parcel, pack, size


class Values(SynchronousTestCase):
    """What a path's znode holds."""

    def test_there_and_back(self) -> None:
        """Any bytes, and references."""
        for value in (Value(1, b""), Value(17, b"7 {}"), Value(1 << 60, bytes(range(256))), Value(3, Ref("ab", 5, 9))):
            self.assertEqual(layout.decode(value.encode()), value)
        self.assertEqual(Value(17, b"{}").encode(), b"17 {}")

    def test_what_psubd_did_not_write(self) -> None:
        """It is refused."""
        for stored in (b"", b"{}", b" 1", b"x" * 100, b"7@one two", b"7@a b c"):
            with self.assertRaises(ValueError):
                layout.decode(stored)

    def test_versions(self) -> None:
        """ZooKeeper counts from 0, psubd from 1."""
        self.assertEqual(Value(9, b"x").entry(0), Entry(b"x", 1, 9))


class Refs(SynchronousTestCase):
    """Where large values stand."""

    def test_pieces(self) -> None:
        """The znodes that hold the bytes, and the bytes in them."""
        blob = bytes(range(256)) * 4096
        cut = [blob[at : at + layout.PIECE] for at in range(0, len(blob), layout.PIECE)]
        for at, length in ((0, 10), (0, len(blob)), (layout.PIECE - 1, 2), (layout.PIECE, 1), (3 * layout.PIECE + 5, 70)):
            ref = Ref("b", at, length)
            numbers = [int(path.rpartition("-")[2]) for path in ref.pieces]
            self.assertEqual(ref.cut(cut[number] for number in numbers), blob[at : at + length])
        self.assertEqual(Ref("b", layout.PIECE, 1).pieces, ["/blobs/b-1"])


class Logs(SynchronousTestCase):
    """``/log`` and its segments."""

    def entry(self, serial: int) -> Logged:
        return Logged(serial, 0, "a", "w", f"t{serial}", ("+/topics/x",))

    def test_any_gap(self) -> None:
        """Whatever a node has missed up to a thousand changes, it finds them all, in order; more than that it is told."""
        head, segments = Head(), dict.fromkeys(range(SEGMENTS), ())
        for serial in range(1, 2_500):
            head, full = head.with_next(self.entry(serial))
            if full is not None:
                segments[full[0]] = full[1]
            self.assertLess(len(head.entries), 2 * SEGMENT)
            for missed in (0, 1, SEGMENT - 1, SEGMENT, 2 * SEGMENT, 777, 1_000):
                after = max(0, serial - missed)
                needed = head.needs(after)
                assert needed is not None
                found = [each.serial for number in needed for each in segments[number]] + [each.serial for each in head.entries]
                self.assertEqual([each for each in found if each > after], list(range(after + 1, serial + 1)))
        self.assertIsNone(head.needs(serial - 1_000 - 2 * SEGMENT))
        self.assertEqual(layout.decode_head(layout.encode_head(head)), head)

    def test_a_node_that_is_near_needs_no_segment(self) -> None:
        """The fifty newest changes are always in the head."""
        head = Head()
        for serial in range(1, 400):
            head, _ = head.with_next(self.entry(serial))
            self.assertEqual(head.needs(max(0, serial - SEGMENT)), [])

    def test_last(self) -> None:
        """The newest change of each path counts."""
        entries = [Logged(1, 0, "", "", "", ("+/topics/a", "+/topics/b")), Logged(2, 0, "", "", "", ("-/topics/a",))]
        self.assertEqual(layout.last_of(entries), {"/topics/a": (False, 2), "/topics/b": (True, 1)})

    def test_parents(self) -> None:
        """All that is made once; a parent before what is in it."""
        made = layout.parents()
        self.assertTrue(set(made) >= ROOTS)
        self.assertLess(made.index("/log"), made.index("/log/0"))


class Parcels(SynchronousTestCase):
    """A change as what is sent."""

    def pack(self, *writes: Put | Delete, tree: Tree | None = None, head: Head | None = None) -> Parcel:
        tree, head = tree or Tree(), head or Head()
        serial = head.serial + 1
        steps = steps_of(tree, writes, serial)
        change = Change(serial, 5, "tester", "thing.made x", tuple(step.path for step in steps))
        return pack(change, steps, head, 7, "token", "blob", "/psubd")

    def stored(self, parcel: Parcel, path: str) -> bytes:
        """The value that the parcel leaves at the path."""
        operation = next(each for each in parcel.together.operations if each.path == path)
        data = layout.decode(operation.data).data
        if not isinstance(data, Ref):
            return data
        pieces = {piece.path: piece.data for piece in parcel.pieces}
        return data.cut(pieces[path] for path in data.pieces)

    def test_small(self) -> None:
        """One transaction: the log if nobody has set it since, then each path."""
        tree = Tree()
        tree.put("/topics/old", Entry(b"x", 4, 1))
        tree.put("/topics/gone", Entry(b"x", 1, 1))
        parcel = self.pack(Put("/topics/new", b"1"), Put("/topics/old", b"2"), Delete("/topics/gone"), tree=tree)
        log, *paths = parcel.together.operations
        self.assertEqual((log.path, log.version, parcel.pieces), ("/log", 7, ()))
        self.assertEqual(paths, [Create("/topics/new", b"1 1"), Set("/topics/old", b"1 2"), Remove("/topics/gone")])
        self.assertEqual(layout.decode_head(log.data), parcel.head)
        self.assertEqual(parcel.head.entries[0].paths, ("+/topics/new", "+/topics/old", "-/topics/gone"))
        self.assertEqual(parcel.head.entries[0].change().paths, ("/topics/new", "/topics/old", "/topics/gone"))

    def test_large_values(self) -> None:
        """They go to pieces; small ones beside them stay."""
        large = bytes(range(256)) * 4096
        parcel = self.pack(Put("/bindings/a", large), Put("/bindings/b", b"small"), Put("/bindings/c", large[1:]))
        self.assertEqual([self.stored(parcel, f"/bindings/{name}") for name in "abc"], [large, b"small", large[1:]])
        self.assertEqual(set(parcel.refs), {"/bindings/a", "/bindings/c"})
        self.assertTrue(all(len(piece.data) <= layout.PIECE for piece in parcel.pieces))

    def test_many_values(self) -> None:
        """Where all together are too much for a transaction, those go to pieces too, packed; and so does the list of paths."""
        parcel = self.pack(*(Put(f"/groups/{n}", b"%d" % n * 200) for n in range(3_000)))
        self.assertEqual([self.stored(parcel, f"/groups/{n}") for n in range(3_000)], [b"%d" % n * 200 for n in range(3_000)])
        self.assertLess(sum(size(each, "/psubd") for each in parcel.together.operations), PACKET)
        paths = parcel.head.entries[0].paths
        assert isinstance(paths, str)
        pieces = {piece.path: piece.data for piece in parcel.pieces}
        written = Ref.of(paths).cut(pieces[path] for path in Ref.of(paths).pieces)
        self.assertEqual(layout.decode_paths(written), tuple(f"+/groups/{n}" for n in range(3_000)))

    def test_too_many(self) -> None:
        """More than one transaction takes is refused."""
        with self.assertRaises(TooLarge):
            self.pack(*(Put(f"/groups/{'g' * 250}{n}", b"") for n in range(3_000)))

    def test_the_log_stays_small(self) -> None:
        """A thousand changes of the longest kind that stands in the log itself."""
        head = Head()
        for _ in range(300):
            writes = [Put(f"/groups/{'g' * 299}", b""), Put(f"/topics/{'t' * 299}", b""), Put(f"/topics/{'u' * 299}", b"")]
            head = self.pack(*writes, head=head).head
            self.assertIsInstance(head.entries[-1].paths, tuple)
        self.assertLess(len(layout.encode_head(head)), 131_072)

    def test_a_full_head(self) -> None:
        """The change that fills it moves the older half to its segment, in the same transaction."""
        head = Head()
        for serial in range(1, 2 * SEGMENT + 1):
            parcel = self.pack(Put(f"/topics/{serial}", b""), head=head)
            head = parcel.head
            moved = [each for each in parcel.together.operations if each.path.startswith("/log/")]
            self.assertEqual(len(moved), 1 if serial == 2 * SEGMENT else 0)
        [segment] = moved
        self.assertEqual((segment.path, [each.serial for each in layout.decode_segment(segment.data)]), ("/log/0", list(range(1, SEGMENT + 1))))


class Steps(SynchronousTestCase):
    """`psubd.registry.tree.Step` is what a parcel is made of."""

    def test_a_path_made_again_is_created(self) -> None:
        """Version 1 is a path that was not there."""
        tree = Tree()
        self.assertEqual(steps_of(tree, [Put("/topics/t", b"")], 5), [Step("/topics/t", Entry(b"", 1, 5))])
