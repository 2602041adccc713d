"""For load balancers and orchestrators: ``/alive`` and ``/ready``. Open, so they tell no more than yes or no."""

from collections.abc import Callable

import msgspec

from psubd.errors import StorageUnavailable
from psubd.interfaces import Route
from psubd.manager.doc import Doc, Reply
from psubd.manager.guard import Guard
from psubd.manager.visit import Visit, answer
from psubd.model import Answer


class Alive(msgspec.Struct, frozen=True):
    alive: bool


class Ready(msgspec.Struct, frozen=True):
    ready: bool


class Probes:
    """:param trouble: why this node cannot serve now; None: it can."""

    def __init__(self, guard: Guard, trouble: Callable[[], str | None]) -> None:
        self._guard, self._trouble = guard, trouble

    def routes(self) -> list[Route]:
        alive = Doc("probes", "Whether the process answers", {200: Reply("It does.", Alive)}, roles=(), fresh=False)
        ready = Doc(
            "probes",
            "Whether this node can serve now; 503 where it cannot",
            {200: Reply("It can.", Ready)},
            roles=(),
            refusals=(StorageUnavailable,),
            fresh=False,
        )
        return [
            self._guard.route("GET", "/alive", self.alive, "alive", alive),
            self._guard.route("GET", "/ready", self.ready, "ready", ready),
        ]

    async def alive(self, visit: Visit) -> Answer:
        return answer(Alive(True))

    async def ready(self, visit: Visit) -> Answer:
        if self._trouble() is not None:
            raise StorageUnavailable("this node cannot serve now; GET /api/v1/status, with a token, says why")
        return answer(Ready(True))
