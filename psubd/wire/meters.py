"""What the wire counts, for ``/metrics``."""

from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Gauge

from psubd.counts import Count, Counts, Spreads

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Bounds of the histogram, up to the longest poll (contract, section 3)."""


class Meters:
    """The wire's metrics in one registry. Both ports count into the same ones, with their names as a label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counts(
            "psubd_http_requests",
            "Requests answered; route 'none': no such route, or no request.",
            ["port", "route", "method", "status"],
            registry,
        )
        self.seconds = Spreads(
            "psubd_http_request_seconds",
            "From a request's head to its answer in the operating system's hands; long polls included.",
            ["port", "route"],
            registry,
            bounds=SECONDS,
        )
        self.connections = Gauge("psubd_http_connections", "Connections that are open.", ["port"], registry=registry)
        self.turned_away = Counts("psubd_http_connections_turned_away", "Connections over max_connections.", ["port"], registry)
        self.broken = Counts("psubd_http_answers_broken", "Answers whose connection went away before all was handed over.", ["port"], registry)
        self.received = Counts("psubd_http_received_bytes", "Bytes of heads and bodies that came in.", ["port"], registry)
        self.answered = Counts("psubd_http_answered_bytes", "Bytes of answers' bodies; streams not included.", ["port"], registry)
        self.bodies = Gauge("psubd_http_body_bytes", "Bytes of request bodies in memory.", ["port"], registry=registry)


MADE: WeakKeyDictionary[CollectorRegistry, Meters] = WeakKeyDictionary()


def meters_of(registry: CollectorRegistry) -> Meters:
    """The registry's `Meters`, made once: a registry refuses a second metric of the same name."""
    made = MADE.get(registry)
    if made is None:
        made = MADE[registry] = Meters(registry)
    return made


class RouteMeter:
    """Counts the requests of one route and method."""

    __slots__ = ("counts", "labels", "meters", "spread")

    def __init__(self, meters: Meters, port: str, route: str, method: str) -> None:
        self.meters = meters
        self.labels = port, route, method
        self.counts: dict[int, Count] = {}
        self.spread = meters.seconds.labels(port, route)

    def request(self, status: int, seconds: float) -> None:
        """Count one."""
        count = self.counts.get(status)
        if count is None:
            count = self.counts[status] = self.meters.requests.labels(*self.labels, status)
        count.value += 1
        self.spread.observe(seconds)


class PortMeters:
    """One port's share of `Meters`, with its label filled in.

    :param port: the port's name: ``data`` or ``manager``.
    """

    def __init__(self, registry: CollectorRegistry, port: str) -> None:
        self.port = port
        self.meters = meters_of(registry)
        self.connections = self.meters.connections.labels(port)
        self.turned_away = self.meters.turned_away.labels(port)
        self.broken = self.meters.broken.labels(port)
        self.received = self.meters.received.labels(port)
        self.answered = self.meters.answered.labels(port)
        self.bodies = self.meters.bodies.labels(port)
        self.routes: dict[tuple[str, str], RouteMeter] = {}

    def route(self, route: str, method: str) -> RouteMeter:
        """What counts that route's requests. A method that a client made up is counted as ``other``: labels stay few."""
        key = route, method if method in METHODS else "other"
        meter = self.routes.get(key)
        if meter is None:
            meter = self.routes[key] = RouteMeter(self.meters, self.port, *key)
        return meter
