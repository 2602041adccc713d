"""Routes that answer before what stands behind them can serve."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from psubd.errors import RegistryUnavailable
from psubd.interfaces import Endpoint, IExchange, Route

ALWAYS = frozenset(("alive",))
"""The names of the routes that need nothing of what stands behind."""


class Entrance:
    """Keeps routes closed: each request is 503 with `Retry-After` before anything of it is judged, until `open`.

    :param why: what is told meanwhile. Strangers read it.
    """

    def __init__(self, why: Callable[[], str]) -> None:
        self._why = why
        self._open = False

    def open(self) -> None:
        """Let requests in, from now on."""
        self._open = True

    def hold(self, routes: Iterable[Route]) -> list[Route]:
        """The routes, kept closed."""
        return [route if route.name in ALWAYS else self._held(route) for route in routes]

    def _held(self, route: Route) -> Route:
        def endpoint(exchange: IExchange, **parts: str) -> Any:
            self._check()
            return route.endpoint(exchange, **parts)

        def admit(exchange: IExchange) -> None:
            self._check()
            if route.admit is not None:
                route.admit(exchange)

        held: Endpoint = endpoint
        return msgspec.structs.replace(route, endpoint=held, admit=admit)

    def _check(self) -> None:
        if not self._open:
            raise RegistryUnavailable(self._why())
