"""Metrics for hot paths: plain numbers that a collector reads when somebody scrapes.

`prometheus_client` takes a lock each time something is counted, and calls several functions. Here counting is ``count.value += 1`` on an object
that was looked up before; names, help, labels and samples come out as that library's own would.

    published = Counts("psubd_published_messages", "Messages that the storage took.", ["topic"], registry)
    count = published.labels("orders")      # once; keep it
    count.value += 1                        # each time

    seconds = Spreads("psubd_publish_seconds", "How long it took.", ["acks"], registry, bounds=(0.001, 0.01, 0.1, 1))
    spread = seconds.labels("all")
    spread.observe(0.0042)

One thread counts on one object: the reactor's, as a rule. Any thread may scrape.
"""

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString


class Count:
    """One set of labels of a `Counts`. :ivar value: add to it, never less than nothing."""

    __slots__ = ("created", "value")

    def __init__(self) -> None:
        self.value: float = 0
        self.created = time.time()


class Spread:
    """One set of labels of a `Spreads`. :ivar buckets: how many fell into each, alone; the last is over all bounds."""

    __slots__ = ("bounds", "buckets", "created", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total: float = 0
        self.created = time.time()

    def observe(self, value: float) -> None:
        """Count one."""
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count each; in few steps where all fall into one bucket, as those do that ended together. One at least."""
        self.total += sum(values)
        least, most = bisect_left(self.bounds, min(values)), bisect_left(self.bounds, max(values))
        if least == most:
            self.buckets[least] += len(values)
        else:
            for value in values:
                self.buckets[bisect_left(self.bounds, value)] += 1


Child = TypeVar("Child", Count, Spread)


class Family(Generic[Child]):
    """What `Counts` and `Spreads` share: one child a set of labels.

    :param registry: where it is exposed; None: nowhere. :raises ValueError: for a name that is there already.
    """

    def __init__(self, name: str, documentation: str, labels: Iterable[str], registry: CollectorRegistry | None) -> None:
        self.name, self.documentation, self.names = name, documentation, tuple(labels)
        self.children: dict[tuple[str, ...], Child] = {}
        if not self.names:
            self.labels()
        if registry is not None:
            registry.register(self)

    def labels(self, *values: object) -> Child:
        """The child with these labels, in the order of the names: made at the first call, and from then on exposed.

        :raises ValueError: for too few or too many."""
        key = tuple(map(str, values))
        child = self.children.get(key)
        if child is None:
            if len(key) != len(self.names):
                raise ValueError(f"{self.name}: {len(key)} labels; it has {len(self.names)}: {', '.join(self.names)}")
            child = self.children[key] = self.make()
        return child

    def forget(self, *values: object) -> None:
        """Expose that child no longer; who still counts on it counts for nobody."""
        self.children.pop(tuple(map(str, values)), None)

    def make(self) -> Child:
        raise NotImplementedError

    def family(self) -> Metric:
        """Without samples."""
        raise NotImplementedError

    def expose(self, family: Metric, labels: tuple[str, ...], child: Child) -> None:
        """Add the child's samples."""
        raise NotImplementedError

    def describe(self) -> list[Metric]:
        return [self.family()]

    def collect(self) -> list[Metric]:
        family = self.family()
        for labels, child in list(self.children.items()):
            self.expose(family, labels, child)
        return [family]


class Counts(Family[Count]):
    """A counter with labels.

    :param name: with or without ``_total``.
    """

    def make(self) -> Count:
        return Count()

    def family(self) -> CounterMetricFamily:
        return CounterMetricFamily(self.name, self.documentation, labels=self.names)

    def expose(self, family: Metric, labels: tuple[str, ...], child: Count) -> None:
        assert isinstance(family, CounterMetricFamily)
        family.add_metric(labels, child.value, created=child.created)


class Spreads(Family[Spread]):
    """A histogram with labels.

    :param bounds: of the buckets, rising, none of them negative; a value that equals one falls into its bucket.
    """

    def __init__(self, name: str, documentation: str, labels: Iterable[str], registry: CollectorRegistry | None, bounds: Sequence[float]) -> None:
        self.bounds = tuple(float(bound) for bound in bounds)
        super().__init__(name, documentation, labels, registry)

    def make(self) -> Spread:
        return Spread(self.bounds)

    def family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self.name, self.documentation, labels=self.names)

    def expose(self, family: Metric, labels: tuple[str, ...], child: Spread) -> None:
        assert isinstance(family, HistogramMetricFamily)
        buckets, under = [], 0
        for bound, count in zip((*self.bounds, float("inf")), child.buckets, strict=True):
            under += count
            buckets.append((floatToGoString(bound), under))  # type: ignore[no-untyped-call]
        family.add_metric(labels, buckets, child.total)
        family.add_sample(f"{self.name}_created", dict(zip(self.names, labels, strict=True)), child.created)
