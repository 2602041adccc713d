"""GET /alive and /ready on the data port: the status only, for load balancers."""

from collections.abc import Callable

from psubd.errors import StorageUnavailable
from psubd.interfaces import IExchange
from psubd.model import Answer


class Probes:
    """:param ready: why this node cannot serve now, or None. What it says is not for strangers: the manager port tells it."""

    def __init__(self, ready: Callable[[], str | None]) -> None:
        self._ready = ready

    def alive(self, exchange: IExchange) -> Answer:
        """200 as long as the process answers."""
        return Answer(headers=[])

    def ready(self, exchange: IExchange) -> Answer:
        """200. :raises StorageUnavailable: this node should get no traffic now."""
        if self._ready() is not None:
            raise StorageUnavailable("not ready; /ready on the manager port says why")
        return Answer(headers=[])
