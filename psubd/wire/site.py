"""One port: a list of routes, served over HTTP/1.1."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory
from twisted.internet.protocol import ServerFactory
from zope.interface import implementer

from psubd.interfaces import IClock, Route
from psubd.wire.channel import Channel
from psubd.wire.hot import HotTable
from psubd.wire.limits import WireSettings
from psubd.wire.memo import LONGEST_HEAD, Memo
from psubd.wire.meters import PortMeters
from psubd.wire.port import Port
from psubd.wire.tree import Tree


@implementer(IProtocolNegotiationFactory)
class Site(ServerFactory):
    """Makes a `Channel` for each connection. No access log: a target may hold what a client should have sent in a header.

    :param routes: the port's table. :raises ValueError: for one that has a method of a path twice.
    :param hot: False: hot routes (`Route.hot`) are served by the tree as all others are. Nothing but the time it takes depends on it.
    :param port: the port's name in metrics: ``data`` or ``manager``.
    :param metrics: where the port counts; ports may share it.
    """

    noisy = False

    def __init__(
        self, routes: Iterable[Route], clock: IClock, *, port: str, settings: WireSettings, metrics: CollectorRegistry, hot: bool = True
    ) -> None:
        table = list(routes)
        tree, meters = Tree(table), PortMeters(metrics, port)
        served = [route for route in table if route.hot and hot]
        memo = Memo(settings, HotTable(tree.templates, served, meters).known)
        if not served:
            memo.close()
        quick = min(LONGEST_HEAD, settings.max_head_bytes) if served else 0
        self.port = Port(tree.resource, tree.methods, clock, settings, meters, memo, quick, tree.refusals)

    def buildProtocol(self, addr: IAddress | None) -> Channel:
        full = self.port.full
        if full:
            self.port.meters.turned_away.value += 1
        return Channel(self.port, full)

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/2 is not spoken."""
        return [b"http/1.1"]

    def stopFactory(self) -> None:
        """Nobody listens any more: what was kept of heads, which hold credentials, is let go."""
        self.port.memo.close()

    def retire(self) -> None:
        """From now on every answer carries ``Connection: close``: clients come to other nodes by and by, each between two requests."""
        self.port.retiring = True

    def drain(self) -> "Deferred[None]":
        """From now on every answer carries ``Connection: close``, idle connections are closed, streams are told and ended; requests that were
        accepted get their answers. Fires when none is in flight. Stop listening before, and let long polls end (`ISubscriber`)."""
        return self.port.drain()
