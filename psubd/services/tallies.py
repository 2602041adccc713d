"""What the subscriber counts."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from psubd.counts import Counts


class Tallies:
    """:param metrics: where they show; None: nowhere."""

    def __init__(self, metrics: CollectorRegistry | None) -> None:
        self.delivered = Counts("psubd_delivered_messages", "Messages handed to subscribers, replays included", ["topic"], metrics)
        self.given_back = Counter(
            "psubd_given_back_total", "Messages that came back, since their answer was not wholly handed over", registry=metrics
        )
        self.acked = Counter("psubd_acked_total", "Leases that were acked by their token, done before or not", registry=metrics)
        self.nacked = Counter("psubd_nacked_total", "Leases that were given back by their token, to the dead-letter topic too", registry=metrics)
        self.extended = Counter("psubd_extended_total", "Leases that were extended", registry=metrics)
        self.lapsed = Counter("psubd_lapsed_total", "Explicit leases that lapsed", registry=metrics)
        self.commits = Counter("psubd_commits_total", "Commits of a group's places that the storage has", registry=metrics)
        self.commit_failures = Counter("psubd_commit_failures_total", "Commits that failed in the storage; they are tried again", registry=metrics)
        self._polls_waiting = Gauge("psubd_polls_waiting", "Polls and replays that wait for a message", registry=metrics)
        self.renewed = Counter(
            "psubd_groups_renewed_total", "Groups whose places were committed again so that the storage keeps them", registry=metrics
        )
        self._groups_loaded = Gauge("psubd_groups_loaded", "Groups whose ledgers are in memory", registry=metrics)
        self._groups_contested = Gauge("psubd_groups_contested", "Loaded groups that somebody else has in the storage: not served", registry=metrics)
        self._leases_out = Gauge("psubd_leases_out", "Messages that are leased, in answers that are being written too", registry=metrics)
        self._delayed = Gauge("psubd_messages_delayed", "Messages that wait after a lapse or a nack before they come again", registry=metrics)
        self.instances_discarded = Counter(
            "psubd_instances_discarded_total", "Consumer instances that were dismissed since nobody used them", registry=metrics
        )
        self._instances = Gauge("psubd_instances", "Consumer instances of the groups that this node serves", registry=metrics)
        self._instances_reading = Gauge("psubd_instances_reading", "Reads of consumer instances that wait for a message", registry=metrics)
        self.dead_letters = Counter("psubd_dead_letters_total", "Messages that are stored in their dead-letter topic", ["reason"], registry=metrics)
        self.dead_letter_failures = Counter(
            "psubd_dead_letter_failures_total", "Tries to store a dead letter that failed; they are repeated", registry=metrics
        )
        self._letters_waiting = Gauge(
            "psubd_dead_letters_waiting", "Messages that are due for a dead-letter topic and not stored yet", registry=metrics
        )

    def lapse(self, count: int) -> None:
        """So many leases lapsed."""
        if count:
            self.lapsed.inc(count)

    def show_letters(self, waiting: Callable[[], int]) -> None:
        """Where the gauge of dead letters looks."""
        self._letters_waiting.set_function(waiting)

    def show_instances(self, there: Callable[[], int], reading: Callable[[], int]) -> None:
        """Where the gauges of consumer instances look."""
        self._instances.set_function(there)
        self._instances_reading.set_function(reading)

    def show(
        self, polls: Callable[[], int], groups: Callable[[], int], contested: Callable[[], int], leases: Callable[[], int], delayed: Callable[[], int]
    ) -> None:
        """Where the gauges look."""
        self._polls_waiting.set_function(polls)
        self._groups_loaded.set_function(groups)
        self._groups_contested.set_function(contested)
        self._leases_out.set_function(leases)
        self._delayed.set_function(delayed)
