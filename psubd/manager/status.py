"""How it goes: ``/api/v1/status`` and ``/api/v1/nodes``. They read what this node knows, so they answer with storage and registry away, too."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from psubd.interfaces import IClock, INodes, IRegistry, IStorage, Route
from psubd.manager.doc import Doc, Reply
from psubd.manager.guard import Guard
from psubd.manager.visit import Visit, answer
from psubd.model import Answer

TAG = "status"


class NodeView(msgspec.Struct, frozen=True):
    """``address``: where other nodes reach it. ``eligible``: whether it serves groups. ``self``: whether it is the one that answers."""

    id: str
    version: str
    mode: str
    started_ms: int
    address: str | None
    eligible: bool
    self: bool


class NodeList(msgspec.Struct, frozen=True):
    items: list[NodeView]
    next: str | None


class StorageView(msgspec.Struct, frozen=True):
    """``trouble``: why it cannot serve now; null: it can. ``status``: what the storage says of itself."""

    trouble: str | None
    status: dict[str, Any]


class RegistryView(msgspec.Struct, frozen=True):
    """``serial``: of the last change that this node knows."""

    trouble: str | None
    serial: int


class Status(msgspec.Struct, frozen=True):
    """``trouble``: why this node is not ready; null: it is. ``config``: every setting in effect, credentials taken out."""

    version: str
    node: str
    started_ms: int
    uptime_ms: int
    ready: bool
    trouble: str | None
    storage: StorageView
    registry: RegistryView
    config: dict[str, Any]


class StatusDesk:
    """
    :param trouble: why this node cannot serve now; None: it can.
    :param config: the settings in effect, redacted.
    """

    def __init__(
        self,
        guard: Guard,
        storage: IStorage,
        registry: IRegistry,
        nodes: INodes,
        clock: IClock,
        trouble: Callable[[], str | None],
        version: str,
        config: Mapping[str, Any],
    ) -> None:
        self._guard, self._storage, self._registry, self._nodes, self._clock = guard, storage, registry, nodes, clock
        self._trouble, self._version, self._config = trouble, version, config
        self._started_ms, self._began_ms = clock.epoch_ms(), clock.elapsed_ms()

    def routes(self) -> list[Route]:
        status = Doc(TAG, "This node's state and settings", {200: Reply("The state.", Status)}, fresh=False)
        nodes = Doc(TAG, "The nodes that serve together", {200: Reply("All of them.", NodeList)}, fresh=False)
        return [
            self._guard.route("GET", "/api/v1/status", self.status, "getStatus", status),
            self._guard.route("GET", "/api/v1/nodes", self.nodes, "listNodes", nodes),
        ]

    async def status(self, visit: Visit) -> Answer:
        trouble = self._trouble()
        return answer(
            Status(
                version=self._version,
                node=self._nodes.node_id,
                started_ms=self._started_ms,
                uptime_ms=self._clock.elapsed_ms() - self._began_ms,
                ready=trouble is None,
                trouble=trouble,
                storage=StorageView(self._storage.trouble(), dict(self._storage.status())),
                registry=RegistryView(self._registry.trouble(), self._registry.snapshot().serial),
                config=dict(self._config),
            )
        )

    async def nodes(self, visit: Visit) -> Answer:
        return answer(NodeList([msgspec.convert(dict(node), NodeView) for node in self._nodes.nodes()], None))
