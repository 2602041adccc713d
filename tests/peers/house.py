"""Nodes of one process, on wires and a clock that the test has in its hands."""

from twisted.internet.defer import Deferred

from psubd.peers.mesh import Mesh
from psubd.testing.clock import FakeClock
from psubd.testing.membership import MemoryMembership
from psubd.testing.wires import Wire, Wires
from tests.peers.test_link import Waiting

SECRET = b"s" * 32


class Node:
    """One node: membership, mesh, its listener. :ivar lost: members whose links it was told to be lost."""

    def __init__(self, house: "House", id: str, secret: bytes = SECRET) -> None:
        self.house = house
        self.address = f"{id}:1"
        self.membership = MemoryMembership(house.clock, beside=house.nodes[0].membership if house.nodes else None, id=id, address=self.address)
        self.mesh = Mesh(membership=self.membership, secret=lambda: secret, clock=house.clock, dial=house.wires.dial, random=lambda: 0.0)
        self.waiting = Waiting()
        self.lost: list[str] = []
        self.mesh.serve("wait", self.waiting)
        self.mesh.serve("echo", lambda member, body: body)
        self.mesh.on_lost(self.lost.append)
        house.nodes.append(self)

    @property
    def key(self) -> str:
        return self.membership.key

    def start(self) -> "Node":
        self.house.wires.listen(self.address, self.mesh.door)
        self.mesh.start()
        self.house.settle()
        return self

    def call(self, other: "Node", verb: str, body: bytes = b"", timeout_ms: int | None = None) -> "Deferred[bytes]":
        answer = self.mesh.call(other.key, verb, body, timeout_ms)
        self.house.settle()
        return answer

    def linked(self, other: "Node") -> bool:
        return self.mesh.linked(other.key)


class House:
    """:ivar nodes: in the order made."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.wires = Wires(self.clock)
        self.nodes: list[Node] = []

    def node(self, id: str, secret: bytes = SECRET) -> Node:
        """Made, not started."""
        return Node(self, id, secret)

    def settle(self) -> None:
        """Let all that was written arrive."""
        self.clock.advance(0)

    def pass_time(self, ms: int, step: int = 100) -> None:
        """So many ms, a few at a time."""
        for _ in range(0, ms, step):
            self.clock.advance(step)

    def wire_of(self, dialler: Node, listener: Node) -> Wire:
        """The connection that carries their link."""
        return next(wire for wire in self.wires.open if wire.dialler.protocol is dialler.mesh._links[listener.key])

    def wire(self) -> Wire:
        """The one connection that stands."""
        (wire,) = self.wires.open
        return wire
