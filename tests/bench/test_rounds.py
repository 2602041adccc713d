"""Rounds of a row."""

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from bench.house import House, NotHere
from bench.load import LoadFailed
from bench.rounds import chosen, measure
from bench.rows import at_least
from bench.samples import Sample
from tests.bench.made import FAST, P99, SLOW, result, row


class Empty:
    """A house that no part asks for anything."""

    cleared = 0

    def clear(self) -> None:
        self.cleared += 1


class Measuring(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = Empty()
        self.asked: list[tuple[str, float]] = []

    def part(self, name: str, sample: Sample = SLOW, fails: Exception | None = None, after: int = 0) -> Callable[[House, float], Sample]:
        def measured(house: House, seconds: float) -> Sample:
            self.asked.append((name, seconds))
            if fails is not None and len(self.asked) > after:
                raise fails
            return sample

        return measured

    def test_the_parts_take_turns(self) -> None:
        """Each is warmed up once; then psubd goes first in one round and last in the next."""
        measure(row(parts={"psubd": self.part("psubd"), "floor": self.part("floor")}), self.house, 3, 2.0)  # type: ignore[arg-type]
        names = [name for name, seconds in self.asked if seconds == 2.0]
        self.assertEqual(self.asked[:2], [("psubd", 0.5), ("floor", 0.5)])
        self.assertEqual(names, ["psubd", "floor", "floor", "psubd", "psubd", "floor"])

    def test_what_is_told_only_has_fewer_rounds(self) -> None:
        """A row without a bound has three rounds at most; one with a bound as many as were asked for."""
        counts = []
        for bound in (None, 0.5):
            made = row(parts={"psubd": self.part("psubd"), "floor": self.part("floor", FAST)}, targets=(at_least(bound),), warm=False)
            counts.append(len(measure(made, self.house, 5, 2.0).rounds))  # type: ignore[arg-type]
        self.assertEqual(counts, [3, 5])

    def test_a_row_that_cannot_be_measured(self) -> None:
        """It says why, and what was kept for it ends."""
        parts = {"psubd": self.part("psubd", fails=NotHere("no Java"))}
        found = measure(row(parts=parts), self.house, 2, 2.0)  # type: ignore[arg-type]
        self.assertEqual((found.missing, found.parts, self.house.cleared), ("no Java", {}, 1))

    def test_a_failure_in_the_middle_keeps_what_was_taken(self) -> None:
        """The rounds before it count, and the reason stands beside them."""
        parts = {"psubd": self.part("psubd", fails=LoadFailed("refused"), after=2)}
        found = measure(row(parts=parts, warm=False, targets=(at_least(0.5),)), self.house, 5, 2.0)  # type: ignore[arg-type]
        self.assertEqual((len(found.rounds), found.missing), (2, "refused"))

    def test_a_mistake_of_ours_is_not_hidden(self) -> None:
        parts = {"psubd": self.part("psubd", fails=ZeroDivisionError())}
        self.assertRaises(ZeroDivisionError, measure, row(parts=parts), self.house, 1, 2.0)


class Outcomes(SynchronousTestCase):
    def test_the_median_of_the_ratios(self) -> None:
        """Ratios are taken within each round, then their median: a slow minute hits both parts of its round."""
        rounds = [
            {"psubd": SLOW._replace(rate=rate), "floor": FAST._replace(rate=floor)} for rate, floor in ((500.0, 1000.0), (60.0, 100.0), (40.0, 100.0))
        ]
        [outcome] = result(*rounds).outcomes
        self.assertEqual((outcome.value, outcome.met), (0.5, True))
        self.assertAlmostEqual(outcome.apart, 0.4)

    def test_least_and_most(self) -> None:
        """A bound is met at the bound itself, from above or from below."""
        at_bound = result({"psubd": SLOW._replace(p99_us=3000.0), "floor": FAST}, targets=(P99,))
        above = result({"psubd": SLOW._replace(p99_us=3001.0), "floor": FAST}, targets=(P99,))
        self.assertEqual([at_bound.outcomes[0].met, above.outcomes[0].met], [True, False])

    def test_what_was_not_told_is_neither(self) -> None:
        [outcome] = result({"psubd": Sample(), "floor": FAST}).outcomes
        self.assertEqual((outcome.value, outcome.met), (None, None))


class Choosing(SynchronousTestCase):
    ROWS = [row(name=name) for name in ("publish-sqlite-1", "publish-kafka-1", "batch-kafka-json")]

    def test_by_the_beginnings_of_their_names(self) -> None:
        self.assertEqual([one.name for one in chosen(self.ROWS, "publish-kafka, batch")], ["publish-kafka-1", "batch-kafka-json"])

    def test_all_where_none_is_named(self) -> None:
        self.assertEqual(chosen(self.ROWS, ""), self.ROWS)

    def test_a_word_that_fits_none(self) -> None:
        """A slip of the pen does not run nothing."""
        with self.assertRaisesRegex(ValueError, "publish-sqlite-1"):
            chosen(self.ROWS, "publish-sqllite")
