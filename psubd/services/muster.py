"""What the metrics say of this node among the nodes."""

from collections.abc import Callable, Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from psubd.interfaces import IClock, IMembership, IPeers
from psubd.services.monitor import gauge


class Muster(Collector):
    """Gauges of a node of many. Those of its slots are `psubd.services.ownership.Ownership`'s.

    :param seen_ms: when the registry was last known to be as this node has read it, on `IClock.elapsed_ms`.
    """

    def __init__(self, membership: IMembership, peers: IPeers, seen_ms: Callable[[], int], clock: IClock) -> None:
        self._membership, self._peers, self._seen_ms, self._clock = membership, peers, seen_ms, clock

    def collect(self) -> Iterable[Metric]:
        """Called by a scrape, on the reactor's thread."""
        now, members = self._clock.elapsed_ms(), self._membership.members()
        lease_s = max(0, self._membership.lease_ends_ms() - now) / 1000
        yield gauge("psubd_nodes", "Nodes that this one sees, itself too.", (), [((), len(members))])
        yield gauge(
            "psubd_nodes_eligible", "Nodes that may serve groups, as this one sees it.", (), [((), sum(one.eligible for one in members.values()))]
        )
        yield gauge("psubd_peers_linked", "Other nodes that this one has a connection with.", (), [((), sum(map(self._peers.linked, members)))])
        yield gauge("psubd_lease_left_seconds", "How long this node may go on serving groups without hearing from the registry.", (), [((), lease_s)])
        age_s = (now - self._seen_ms()) / 1000
        yield gauge("psubd_snapshot_age_seconds", "Since when what this node has read of the registry may be outdated.", (), [((), age_s)])
