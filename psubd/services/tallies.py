"""What the subscriber counts."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class Tallies:
    """:param metrics: where they show; None: nowhere."""

    def __init__(self, metrics: CollectorRegistry | None) -> None:
        self.delivered = Counter("psubd_delivered_messages_total", "Messages handed to subscribers, replays included", ["topic"], registry=metrics)
        self.given_back = Counter(
            "psubd_given_back_total", "Messages that came back, since their answer was not wholly handed over", registry=metrics
        )
        self.commits = Counter("psubd_commits_total", "Commits of a group's places that the storage has", registry=metrics)
        self.commit_failures = Counter("psubd_commit_failures_total", "Commits that failed in the storage; they are tried again", registry=metrics)
        self._polls_waiting = Gauge("psubd_polls_waiting", "Polls and replays that wait for a message", registry=metrics)
        self.renewed = Counter(
            "psubd_groups_renewed_total", "Groups whose places were committed again so that the storage keeps them", registry=metrics
        )
        self._groups_loaded = Gauge("psubd_groups_loaded", "Groups whose ledgers are in memory", registry=metrics)
        self._groups_contested = Gauge("psubd_groups_contested", "Loaded groups that somebody else has in the storage: not served", registry=metrics)

    def show(self, polls: Callable[[], int], groups: Callable[[], int], contested: Callable[[], int]) -> None:
        """Where the gauges look."""
        self._polls_waiting.set_function(polls)
        self._groups_loaded.set_function(groups)
        self._groups_contested.set_function(contested)
