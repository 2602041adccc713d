"""What one measurement gives, and what several of them give together."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple, Self


class Sample(NamedTuple):
    """One measurement, or the medians of several.

    :ivar rate: requests (or messages, where a row says so) a second. :ivar p50_us: :ivar p99_us: microseconds that a request took; None: not told.
    :ivar cpu_us: microseconds of processor time that the process under test spent for each. :ivar rss_kib: its resident memory at the end.
    :ivar each_kib: resident memory that each of many (polls, groups) added. :ivar connections: that it has to Kafka.
    """

    rate: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    cpu_us: float | None = None
    rss_kib: float | None = None
    each_kib: float | None = None
    connections: float | None = None

    def times(self, messages: int) -> Self:
        """The same, counted in messages where each request carries so many."""
        return self._replace(rate=scaled(self.rate, messages), cpu_us=scaled(self.cpu_us, 1 / messages))


def scaled(figure: float | None, by: float) -> float | None:
    return None if figure is None else figure * by


def middle(figures: Iterable[float | None]) -> float | None:
    """The median of those that were taken; None: none was."""
    taken = [figure for figure in figures if figure is not None]
    return median(taken) if taken else None


def medians(samples: Sequence[Sample]) -> Sample:
    """Each figure's own median."""
    return Sample(*(middle(column) for column in zip(*samples, strict=True)))


def spread(figures: Sequence[float]) -> float:
    """How far apart the smallest and the largest are, as a share of the median: what the machine's unrest did to a figure."""
    return (max(figures) - min(figures)) / median(figures) if figures and median(figures) else 0.0


Round = Mapping[str, Sample]
"""One round of a row: what each part of it (``psubd``, ``floor``, ...) gave."""


def ratio(above: float | None, below: float | None) -> float | None:
    """None where one of them was not taken."""
    return above / below if above is not None and below else None
