"""Which slot a group falls into, and which node should have a slot."""

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from psubd.slots import id_of, rendezvous, slot_of


class SlotOf(SynchronousTestCase):
    def test_never_changes(self) -> None:
        """Nodes of different versions must agree: these are what the first version said."""
        self.assertEqual([slot_of(name, 256) for name in ("shop", "shop.mail", "", "a" * 500)], KNOWN)
        self.assertEqual(slot_of("shop", 1), 0)

    def test_even(self) -> None:
        """Groups spread over all slots."""
        counts = Counter(slot_of(f"application-{n}.group", 256) for n in range(25_600))
        self.assertEqual(len(counts), 256)
        self.assertLess(max(counts.values()), 200)


class Rendezvous(SynchronousTestCase):
    KEYS = [f"node-{n}-{n:016x}" for n in range(3)]

    def plan(self, keys: list[str]) -> list[str]:
        return [rendezvous(slot, keys) or "" for slot in range(256)]

    def test_nobody(self) -> None:
        """No node: nobody."""
        self.assertIsNone(rendezvous(0, []))

    def test_order_does_not_matter(self) -> None:
        """Every node comes to the same, however it lists the others."""
        self.assertEqual(self.plan(self.KEYS), self.plan(self.KEYS[::-1]))

    def test_even(self) -> None:
        """Each of three gets about a third."""
        counts = Counter(self.plan(self.KEYS))
        self.assertEqual(sum(counts.values()), 256)
        self.assertTrue(all(60 <= counts[key] <= 110 for key in self.KEYS), counts)

    def test_a_third_node(self) -> None:
        """It takes its own slots, and no other moves."""
        before, after = self.plan(self.KEYS[:2]), self.plan(self.KEYS)
        for old, new in zip(before, after, strict=True):
            self.assertIn(new, (old, self.KEYS[2]))
        self.assertTrue(60 <= sum(old != new for old, new in zip(before, after, strict=True)) <= 110)

    def test_a_node_started_again(self) -> None:
        """It gets its slots back: its id counts, not its session."""
        again = [*self.KEYS[:2], f"{id_of(self.KEYS[2])}-{99:016x}"]
        swap = dict(zip(self.KEYS, again, strict=True))
        self.assertEqual([swap[key] for key in self.plan(self.KEYS)], self.plan(again))

    def test_two_sessions_of_one_node(self) -> None:
        """The greater key: all nodes choose the same."""
        former, present = "node-0-0000000000000001", "node-0-0000000000000002"
        self.assertEqual(set(self.plan([former, present])), {present})


KNOWN = [6, 131, 180, 195]
