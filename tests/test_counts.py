"""Plain counting looks from outside as `prometheus_client`'s own does."""

import re

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from twisted.trial.unittest import SynchronousTestCase

from psubd.counts import Counts, Spreads

BOUNDS = (0.001, 0.5, 1, 60)


def told(registry: CollectorRegistry) -> list[str]:
    """Both expositions, without the moments at which things were made."""
    text = generate_latest(registry) + openmetrics(registry)
    return [re.sub(r"(_created.*) [0-9.e+]+$", r"\1 T", line) for line in text.decode().splitlines()]


class CountsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ours, self.theirs = CollectorRegistry(), CollectorRegistry()

    def test_counters(self) -> None:
        """Names, help, types, labels and samples are the library's, with the name's suffix or without; none before the first label."""
        for name in ("psubd_a", "psubd_b_total"):
            counts = Counts(name, "What it is.", ["one", "two"], self.ours)
            counter = Counter(name, "What it is.", ["one", "two"], registry=self.theirs)
            self.assertEqual(told(self.ours), told(self.theirs))
            for one, two, add in (("x", 1, 3), ('q"\\\n', 2, 0.5), ("x", 1, 4)):
                counts.labels(one, two).value += add
                counter.labels(one, two).inc(add)
            self.assertEqual(told(self.ours), told(self.theirs))

    def test_spreads(self) -> None:
        """A value on a bound falls into its bucket, one over all only into +Inf."""
        spreads = Spreads("psubd_seconds", "How long.", ["route"], self.ours, bounds=BOUNDS)
        histogram = Histogram("psubd_seconds", "How long.", ["route"], registry=self.theirs, buckets=BOUNDS)
        for value in (0, 0.001, 0.0010001, 0.5, 1, 3, 60, 61, 1000):
            spreads.labels("a").observe(value)
            histogram.labels("a").observe(value)
        histogram.labels("b")
        spreads.labels("b")
        self.assertEqual(told(self.ours), told(self.theirs))

    def test_many_values(self) -> None:
        """Many at once count as each by itself, in one bucket or in several."""
        for values in ((0.5,), (0.0011, 0.0012), (0.001, 0.5, 1, 3, 60, 61)):
            together, single = (Spreads("psubd_seconds", "How long.", [], None, bounds=BOUNDS).labels() for _ in range(2))
            together.observe_all(values)
            for value in values:
                single.observe(value)
            self.assertEqual(together.buckets, single.buckets)
            self.assertAlmostEqual(together.total, single.total)

    def test_without_labels(self) -> None:
        """What has no labels is there from the start, at nothing."""
        Counts("psubd_a", "A.", [], self.ours)
        Counter("psubd_a", "A.", registry=self.theirs)
        Spreads("psubd_b", "B.", [], self.ours, bounds=BOUNDS)
        Histogram("psubd_b", "B.", registry=self.theirs, buckets=BOUNDS)
        self.assertEqual(told(self.ours), told(self.theirs))

    def test_one_child_a_set(self) -> None:
        """The same labels give the same child; one that is forgotten is not exposed; too few or too many are refused."""
        counts = Counts("psubd_a", "A.", ["one"], self.ours)
        self.assertIs(counts.labels("x"), counts.labels("x"))
        counts.labels("x").value += 1
        counts.forget("x")
        counts.forget("never")
        self.assertIsNone(self.ours.get_sample_value("psubd_a_total", {"one": "x"}))
        for values in ((), ("x", "y")):
            with self.assertRaises(ValueError):
                counts.labels(*values)

    def test_twice(self) -> None:
        """A name is there once in a registry; without a registry it is nowhere."""
        Counts("psubd_a", "A.", [], self.ours)
        with self.assertRaises(ValueError):
            Counts("psubd_a", "A.", [], self.ours)
        Counts("psubd_a", "A.", [], None)
