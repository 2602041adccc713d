"""What the metrics say of the node as a whole: how far groups are behind, whether storage and registry serve.

A scrape reads what the last round found and never asks the storage itself: scraping cannot slow anybody down. Rounds are made only while
somebody scrapes.
"""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from psubd.errors import PsubdError
from psubd.interfaces import IClock, IRegistry, IStorage, ISubscriber
from psubd.model import GroupView

log = Logger()

ROUND_MS = 10_000
WANTED_MS = 300_000
"""Rounds go on for so long after a scrape: longer than any usual scrape interval."""

MOST_SERIES = 10_000
"""Pairs of group and topic that are shown; the others are counted. A Prometheus server chokes on more long before psubd does."""

Place = tuple[str, str]


class Monitor(Collector):
    """Metrics that are gathered rather than counted.

    :param metrics: where it registers itself at `start`.
    :param version: for ``psubd_build_info``.
    :param own: which groups are looked at, by their full names: of many nodes each shows those that it serves, so that none is shown, or asked for in
        the storage, twice. None: all.
    """

    def __init__(
        self,
        subscriber: ISubscriber,
        storage: IStorage,
        registry: IRegistry,
        clock: IClock,
        metrics: CollectorRegistry,
        version: str,
        own: Callable[[str], bool] | None = None,
    ) -> None:
        self._subscriber, self._storage, self._registry, self._own = subscriber, storage, registry, own
        self._clock, self._metrics, self._version = clock, metrics, version
        self._lags: dict[Place, tuple[int, int]] = {}
        self._left_out = self._failures = 0
        self._scraped_ms: int | None = None
        self._next: IDelayedCall | None = None
        self._round: Deferred[None] | None = None

    def start(self) -> None:
        """Begin, after the subscriber did. The first round is at once, so that the first scrape has something."""
        self._metrics.register(self)
        self._scraped_ms = self._clock.elapsed_ms()
        self._turn()

    def stop(self) -> None:
        """End; a round that is under way is left. One that was never started: nothing happens."""
        if self._next is None:
            return
        self._metrics.unregister(self)
        if self._next.active():
            self._next.cancel()
        self._next = None
        if self._round is not None:
            self._round.cancel()

    def collect(self) -> Iterable[Metric]:
        """Called by a scrape, on the reactor's thread."""
        self._scraped_ms = self._clock.elapsed_ms()
        yield gauge("psubd_build_info", "Which psubd this is; always 1.", ("version",), [((self._version,), 1)])
        yield gauge("psubd_storage_up", "Whether the storage can serve now.", (), [((), self._storage.trouble() is None)])
        yield gauge("psubd_registry_up", "Whether the registry can be written now.", (), [((), self._registry.trouble() is None)])
        lags = [(place, lag) for place, (lag, _) in self._lags.items()]
        ages = [(place, oldest / 1000) for place, (_, oldest) in self._lags.items()]
        yield gauge("psubd_group_lag", "Messages of the topic that the group has not done.", ("group", "topic"), lags)
        yield gauge("psubd_group_oldest_seconds", "Age of the oldest message that the group has not done; 0: none.", ("group", "topic"), ages)
        yield gauge("psubd_group_series_omitted", f"Pairs of group and topic beyond the first {MOST_SERIES}, not shown.", (), [((), self._left_out)])
        yield CounterMetricFamily("psubd_group_lag_failures", "Rounds in which the lags could not be told.", value=self._failures)

    def _turn(self) -> None:
        """A round, if it is wanted and the last one is over; then again in a while."""
        self._next = self._clock.call_later(ROUND_MS, self._turn)
        wanted = self._scraped_ms is not None and self._clock.elapsed_ms() - self._scraped_ms < WANTED_MS
        if wanted and self._round is None:
            self._round = Deferred.fromCoroutine(self._gather())
            self._round.addBoth(self._over)
        elif not wanted:
            self._show([])

    def _over(self, _: object) -> None:
        self._round = None

    async def _gather(self) -> None:
        """One round. Where it fails, nothing is shown rather than what was."""
        try:
            groups: list[GroupView] = await self._subscriber.groups(None, self._own)
            self._show(groups)
        except CancelledError:
            return
        except PsubdError as refused:
            self._failed()
            log.warn("the groups' lags cannot be told: {why}", why=refused.detail)
        except Exception:  # noqa: BLE001 - a bug of ours in a timer: told in the log, and the rounds go on
            self._failed()
            log.failure("gathering the groups' lags failed")

    def _failed(self) -> None:
        self._failures += 1
        self._show([])

    def _show(self, groups: Sequence[GroupView]) -> None:
        lags: dict[Place, tuple[int, int]] = {}
        for group in groups:
            for item in group.items:
                lag, oldest = lags.get((group.group, item.topic), (0, 0))
                lags[group.group, item.topic] = (lag + item.lag, max(oldest, item.oldest_ms or 0))
        self._left_out = max(0, len(lags) - MOST_SERIES)
        self._lags = dict(list(lags.items())[:MOST_SERIES])


def gauge(name: str, text: str, labels: Sequence[str], samples: Iterable[tuple[tuple[str, ...], float]]) -> GaugeMetricFamily:
    """A gauge with its samples: label values and value."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, float(value))
    return family
