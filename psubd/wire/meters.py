"""What the wire counts, for ``/metrics``."""

from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Bounds of the histogram, up to the longest poll (contract, section 3)."""


class Meters:
    """The wire's metrics in one registry. Both ports count into the same ones, with their names as a label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "psubd_http_requests",
            "Requests answered; route 'none': no such route, or no request.",
            ["port", "route", "method", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "psubd_http_request_seconds",
            "From a request's head to its answer in the operating system's hands; long polls included.",
            ["port", "route"],
            registry=registry,
            buckets=SECONDS,
        )
        self.connections = Gauge("psubd_http_connections", "Connections that are open.", ["port"], registry=registry)
        self.turned_away = Counter("psubd_http_connections_turned_away", "Connections over max_connections.", ["port"], registry=registry)
        self.broken = Counter(
            "psubd_http_answers_broken", "Answers whose connection went away before all was handed over.", ["port"], registry=registry
        )
        self.received = Counter("psubd_http_received_bytes", "Bytes of heads and bodies that came in.", ["port"], registry=registry)
        self.answered = Counter("psubd_http_answered_bytes", "Bytes of answers' bodies; streams not included.", ["port"], registry=registry)
        self.bodies = Gauge("psubd_http_body_bytes", "Bytes of request bodies in memory.", ["port"], registry=registry)


MADE: WeakKeyDictionary[CollectorRegistry, Meters] = WeakKeyDictionary()


def meters_of(registry: CollectorRegistry) -> Meters:
    """The registry's `Meters`, made once: a registry refuses a second metric of the same name."""
    made = MADE.get(registry)
    if made is None:
        made = MADE[registry] = Meters(registry)
    return made


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
        self.known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one. A method that a client made up is counted as ``other``: labels stay few."""
        key = (route, method if method in METHODS else "other", status)
        children = self.known.get(key)
        if children is None:
            children = (self.meters.requests.labels(self.port, route, key[1], str(status)), self.meters.seconds.labels(self.port, route))
            self.known[key] = children
        children[0].inc()
        children[1].observe(seconds)
