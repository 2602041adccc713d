"""What follows from the claims that were seen, and what was done to the nodes."""

from twisted.trial.unittest import SynchronousTestCase

from psubd.testing.claims import HANDOVER_MS, Trouble, Turn, changes, unseen
from psubd.testing.lease_log import Delivered, Down, Log

A, B, C = (f"{name}-{number:016x}" for number, name in enumerate("abc"))
TURNS = [Turn(A, 10, 0, 10_000), Turn(B, 20, 13_000, 30_000), Turn(A, 30, 30_100, 60_000)]
HANDED = [Down(10_000 - HANDOVER_MS, 13_000, False, 20), Down(30_000 - HANDOVER_MS, 30_100, False, 30)]


class ChangesTests(SynchronousTestCase):
    def test_handovers(self) -> None:
        """Nothing was done to anybody: both were handed over."""
        self.assertEqual(changes(TURNS, []), HANDED)

    def test_killed(self) -> None:
        """The owner was killed; the way back was a handover."""
        self.assertEqual(changes(TURNS, [Trouble("a", 9_990, 9_995, 9_995, 9_995)]), [Down(9_990, 13_000, True, 20, 9_995), HANDED[1]])

    def test_cut_off(self) -> None:
        """It was cut off, and may have answered until the next one's claim."""
        trouble = Trouble("a", 9_000, None, 15_000, 22_000)
        self.assertEqual(changes(TURNS, [trouble]), [Down(9_000, 13_000, True, 20, 13_000), HANDED[1]])

    def test_another_was_killed(self) -> None:
        """Somebody else, in the middle of a handover: it may have been one or not. Long before or after it, nothing."""
        doubt = Down(9_000, 13_000, True, 20, 13_000, False)
        self.assertEqual(changes(TURNS, [Trouble("c", 9_000, 9_001, 9_001, 9_001)]), [doubt._replace(at=10_000 - HANDOVER_MS), HANDED[1]])
        self.assertEqual(changes(TURNS, [Trouble("c", 20_000, 20_001, 20_001, 20_001)]), HANDED)


class UnseenTests(SynchronousTestCase):
    def test_blind(self) -> None:
        """A claim that came and went while nobody looked is found where a client read something of it; answers in auto mode name none."""
        log = Log()
        for number, epoch in enumerate((10, 20, None, 25, 30)):
            log.delivered.append(Delivered(0, 0, 1, f"m{number}", None, (0, number), 1, "token", epoch, 1000))
        self.assertEqual(unseen(TURNS, [log]), [25])
        self.assertEqual(unseen(TURNS, [Log()]), [])
