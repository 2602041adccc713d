"""What the metrics say of this node among the nodes."""

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from psubd.services.muster import Muster
from psubd.testing.clock import FakeClock
from psubd.testing.membership import MemoryMembership


class Linked:
    """:ivar members: those that this node has a link with."""

    def __init__(self) -> None:
        self.members: set[str] = set()

    def linked(self, member: str) -> bool:
        return member in self.members


class MusterTests(SynchronousTestCase):
    def test_gauges(self) -> None:
        """Who is there and who may serve, with whom there is a link, how long the lease lasts, how old the snapshot is: as it is at the scrape."""
        clock, metrics, links = FakeClock(), CollectorRegistry(), Linked()
        own = MemoryMembership(clock, id="a")
        other = MemoryMembership(clock, own, id="b")
        seen = clock.elapsed_ms()
        metrics.register(Muster(own, links, lambda: seen, clock))  # type: ignore[arg-type]

        def shown() -> list[float | None]:
            names = ("nodes", "nodes_eligible", "peers_linked", "lease_left_seconds", "snapshot_age_seconds")
            return [metrics.get_sample_value(f"psubd_{name}") for name in names]

        self.assertEqual(shown(), [2, 2, 0, 9, 0])
        links.members.add(other.key)
        self.successResultOf(other.declare(False, 0))
        own.silence()
        clock.advance(5000)
        self.assertEqual(shown(), [2, 1, 1, 4, 5])
        clock.advance(5000)
        self.assertEqual(shown()[3], 0)
