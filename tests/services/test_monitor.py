from collections.abc import Callable

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import StorageUnavailable
from psubd.model import GroupItem, GroupView
from psubd.services.monitor import MOST_SERIES, ROUND_MS, WANTED_MS, Monitor
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.registry import MemoryRegistry


class Groups:
    """A subscriber that tells of groups, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: Deferred[list[GroupView]] = succeed([])

    def groups(self, application: str | None, only: Callable[[str], bool] | None = None) -> "Deferred[list[GroupView]]":
        assert application is None
        self.asked += 1
        if only is None:
            return self.answer
        found: Deferred[list[GroupView]] = Deferred()
        self.answer.addCallback(found.callback)
        return found.addCallback(lambda views: [view for view in views if only(view.group)])


def item(topic: str, partition: int, lag: int, oldest_ms: int | None) -> GroupItem:
    return GroupItem(topic, partition, 0, lag, lag, 0, oldest_ms, "n")


class MonitorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.groups = Groups()
        self.registry, self.storage = MemoryRegistry(self.clock), MemoryStorage(self.clock)
        self.successResultOf(self.registry.start())
        self.successResultOf(self.storage.start())
        self.metrics = CollectorRegistry()
        self.monitor = Monitor(self.groups, self.storage, self.registry, self.clock, self.metrics, "9.9")  # type: ignore[arg-type]

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.get_sample_value(name, labels)

    def test_lags(self) -> None:
        """A group's lag on a topic is the sum over its partitions, its age that of the oldest message."""
        items = (item("a", 0, 3, 500), item("a", 1, 4, 2500), item("b", 0, 0, None))
        self.groups.answer = succeed([GroupView("shop", "shop", items)])
        self.monitor.start()
        self.assertEqual(self.value("psubd_group_lag", group="shop", topic="a"), 7)
        self.assertEqual(self.value("psubd_group_oldest_seconds", group="shop", topic="a"), 2.5)
        self.assertEqual(self.value("psubd_group_lag", group="shop", topic="b"), 0)

    def test_own(self) -> None:
        """Of many nodes each shows the groups that it serves: what the others show is not shown twice."""
        views = [GroupView(name, name, (item("a", 0, 3, 500),)) for name in ("shop", "mailer")]
        self.groups.answer = succeed(views)
        own = {"shop"}
        metrics = CollectorRegistry()
        Monitor(self.groups, self.storage, self.registry, self.clock, metrics, "9.9", own.__contains__).start()  # type: ignore[arg-type]
        shown = [metrics.get_sample_value("psubd_group_lag", {"group": name, "topic": "a"}) for name in ("shop", "mailer")]
        self.assertEqual(shown, [3, None])
        self.groups.answer = succeed(views)
        own.add("mailer")
        self.clock.advance(ROUND_MS)
        self.assertEqual(metrics.get_sample_value("psubd_group_lag", {"group": "mailer", "topic": "a"}), 3)

    def test_scrapes_cost_nothing(self) -> None:
        """However often it is scraped, the storage is asked once a round."""
        self.monitor.start()
        for _ in range(50):
            self.value("psubd_storage_up")
        self.assertEqual(self.groups.asked, 1)
        self.clock.advance(ROUND_MS)
        self.assertEqual(self.groups.asked, 2)

    def test_nobody_scrapes(self) -> None:
        """Where nobody scrapes, nothing is gathered; a scrape begins it anew."""
        self.monitor.start()
        for _ in range(2 * WANTED_MS // ROUND_MS):
            self.clock.advance(ROUND_MS)
        asked = self.groups.asked
        self.assertLessEqual(asked, WANTED_MS // ROUND_MS + 1)
        self.clock.advance(ROUND_MS)
        self.assertEqual(self.groups.asked, asked)
        self.value("psubd_storage_up")
        self.clock.advance(ROUND_MS)
        self.assertEqual(self.groups.asked, asked + 1)

    def test_slow_round(self) -> None:
        """A round that is not over when the next one is due is not overtaken."""
        self.groups.answer = Deferred()
        self.monitor.start()
        for _ in range(5):
            self.clock.advance(ROUND_MS)
        self.assertEqual(self.groups.asked, 1)
        slow, self.groups.answer = self.groups.answer, succeed([])
        slow.callback([GroupView("shop", "shop", (item("a", 0, 3, 1),))])
        self.assertEqual(self.value("psubd_group_lag", group="shop", topic="a"), 3)
        self.clock.advance(ROUND_MS)
        self.assertEqual(self.groups.asked, 2)

    def test_failing_round(self) -> None:
        """A round that fails shows nothing rather than old figures, and is counted; the next one goes on."""
        self.groups.answer = succeed([GroupView("shop", "shop", (item("a", 0, 3, 1),))])
        self.monitor.start()
        self.groups.answer = fail(StorageUnavailable("away"))
        self.clock.advance(ROUND_MS)
        self.assertIsNone(self.value("psubd_group_lag", group="shop", topic="a"))
        self.assertEqual(self.value("psubd_group_lag_failures_total"), 1)
        self.groups.answer = succeed([])
        self.clock.advance(ROUND_MS)
        self.assertEqual(self.value("psubd_group_lag_failures_total"), 1)

    def test_bug(self) -> None:
        """A bug in a round is logged with its traceback, and the rounds go on."""
        self.groups.answer = fail(ZeroDivisionError("bug"))
        self.monitor.start()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.groups.answer = succeed([])
        self.clock.advance(ROUND_MS)
        self.assertEqual(self.groups.asked, 2)

    def test_bound(self) -> None:
        """So many series at most; the rest is counted."""
        self.groups.answer = succeed([GroupView("shop", "shop", tuple(item(f"t{n}", 0, 1, None) for n in range(MOST_SERIES + 7)))])
        self.monitor.start()
        self.assertEqual(self.value("psubd_group_series_omitted"), 7)
        self.assertIsNone(self.value("psubd_group_lag", group="shop", topic=f"t{MOST_SERIES}"))

    def test_health(self) -> None:
        """Whether storage and registry serve, and which version this is."""
        self.monitor.start()
        self.assertEqual((self.value("psubd_storage_up"), self.value("psubd_registry_up")), (1, 1))
        self.registry.refuse = StorageUnavailable("away")
        self.storage.trouble = lambda: "away"  # type: ignore[method-assign]
        self.assertEqual((self.value("psubd_storage_up"), self.value("psubd_registry_up")), (0, 0))
        self.assertEqual(self.value("psubd_build_info", version="9.9"), 1)

    def test_stop(self) -> None:
        """After the stop no timer and no round is left, and the figures are gone."""
        timers = len(self.clock.reactor.getDelayedCalls())
        self.groups.answer = Deferred()
        self.monitor.start()
        self.monitor.stop()
        self.assertEqual(len(self.clock.reactor.getDelayedCalls()), timers)
        self.assertIsNone(self.value("psubd_storage_up"))
