"""How it goes: ``/api/v1/status`` and ``/api/v1/nodes``. They read what this node knows, so they answer with storage and registry away, too."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from psubd.interfaces import IClock, IMembership, INodes, IPeers, IRegistry, ISeats, IStorage, Member, Route
from psubd.manager.doc import Doc, Reply
from psubd.manager.guard import Guard
from psubd.manager.visit import Visit, answer
from psubd.model import Answer

TAG = "status"


class NodeView(msgspec.Struct, frozen=True):
    """``address``: where other nodes reach it. ``eligible``: whether it may serve groups: not while it drains or cannot reach the storage, and not
    where it publishes only. ``load``: groups that it has in memory. ``self``: whether it is the one that answers."""

    id: str
    version: str
    mode: str
    started_ms: int
    address: str | None
    eligible: bool
    load: int
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


class ServingView(msgspec.Struct, frozen=True):
    """Which groups this node serves.

    :ivar slots: how many there are in all; each group falls into one. :ivar served: those that this node may act for at this moment.
    :ivar loaded: its groups in memory. :ivar lease_ms: how long it may go on serving without hearing from the registry; null: alone it may always.
    :ivar linked: the other nodes that it has a connection with.
    """

    slots: int
    served: int
    loaded: int
    lease_ms: int | None
    linked: list[str]


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
    groups: ServingView
    config: dict[str, Any]


class Staff:
    """This node among the nodes, as far as the manager shows it. :param peers: None: a node that serves all has none."""

    def __init__(self, nodes: INodes, membership: IMembership, seats: ISeats, peers: IPeers | None, clock: IClock) -> None:
        self._nodes, self._membership, self._seats, self._peers, self._clock = nodes, membership, seats, peers, clock

    @property
    def node_id(self) -> str:
        return self._nodes.node_id

    def serving(self) -> ServingView:
        seated = self._seats.seated()
        members = self._membership.members()
        left = max(0, self._membership.lease_ends_ms() - self._clock.elapsed_ms())
        return ServingView(
            slots=self._membership.slots,
            served=sum(self._membership.epoch_of(slot) == epoch for slot, epoch in seated.items()),
            loaded=self._seats.loaded(),
            lease_ms=None if self._peers is None else left,
            linked=[] if self._peers is None else sorted(member.id for key, member in members.items() if self._peers.linked(key)),
        )

    def all(self) -> list[NodeView]:
        """Each node; of this one what it is now, of the others what they have told."""
        return [self._view(member) for member in sorted(self._membership.members().values(), key=lambda member: member.key)]

    def _view(self, member: Member) -> NodeView:
        shown = {name: getattr(member, name) for name in NodeView.__struct_fields__}
        return NodeView(**{**shown, "load": self._seats.loaded() if member.self else member.load})


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
        staff: Staff,
        clock: IClock,
        trouble: Callable[[], str | None],
        version: str,
        config: Mapping[str, Any],
    ) -> None:
        self._guard, self._storage, self._registry, self._staff, self._clock = guard, storage, registry, staff, clock
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
                node=self._staff.node_id,
                started_ms=self._started_ms,
                uptime_ms=self._clock.elapsed_ms() - self._began_ms,
                ready=trouble is None,
                trouble=trouble,
                storage=StorageView(self._storage.trouble(), dict(self._storage.status())),
                registry=RegistryView(self._registry.trouble(), self._registry.snapshot().serial),
                groups=self._staff.serving(),
                config=dict(self._config),
            )
        )

    async def nodes(self, visit: Visit) -> Answer:
        return answer(NodeList(self._staff.all(), None))
