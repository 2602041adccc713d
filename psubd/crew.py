"""The workers of one psubd: processes that share its data port, each a node of its own with a manager port and a peer port beside it.

Worker ``i`` of them, from 0, has the manager and peer ports that are given plus ``i``; a port 0 stays 0, any free one.
"""

import re
from collections.abc import Iterator, Sequence

import msgspec

SHARED = frozenset(("tcp", "tcp6", "ssl"))
"""Endpoints that several processes can listen on (SO_REUSEPORT), and that have a port to count from."""

ANY = frozenset(("", "0.0.0.0", "::"))  # noqa: S104 - compared with, not bound to

LAST_PORT = 65535


class Spot(msgspec.Struct, frozen=True):
    """An endpoint description, taken apart. ``at``: which of the parts names the port; None: none does, or it is no TCP endpoint."""

    parts: tuple[str, ...]
    kind: str
    port: int | None
    interface: str
    at: int | None

    @classmethod
    def of(cls, description: str) -> "Spot":
        parts = re.split(r"(?<!\\):", description)
        first = 0
        while parts[first] == "haproxy" and first + 1 < len(parts):
            first += 1
        kind = parts[first]
        positional = [at for at in range(first + 1, len(parts)) if "=" not in parts[at]]
        named = {parts[at].partition("=")[0]: at for at in range(first + 1, len(parts)) if "=" in parts[at]}
        at = named.get("port", positional[0] if positional else None) if kind in SHARED else None
        interface = named.get("interface", positional[1] if len(positional) > 1 else None)
        port = value(parts, at)
        return cls(tuple(parts), kind, int(port) if port.isascii() and port.isdecimal() else None, value(parts, interface), at)

    def on(self, port: int) -> str:
        """The description with another port."""
        if self.at is None:
            return ":".join(self.parts)
        named = "port=" if "=" in self.parts[self.at] else ""
        return ":".join((*self.parts[: self.at], f"{named}{port}", *self.parts[self.at + 1 :]))

    def plus(self, number: int) -> str:
        """The description with the port of the worker ``number``."""
        return self.on(self.port + number) if self.port else ":".join(self.parts)


def value(parts: Sequence[str], at: int | None) -> str:
    """What the part says, without its name and without what only escapes."""
    if at is None:
        return ""
    text = parts[at].partition("=")[2] if "=" in parts[at] else parts[at]
    return re.sub(r"\\(.)", r"\1", text)


class Worker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is one worker's own, as the process that starts it tells it.

    :ivar number: from 0. :ivar folder: the state folder of all of them.
    :ivar listen: endpoint descriptions, without a port 0: it is the same for all.
    """

    number: int
    folder: str
    listen: tuple[str, ...]
    manager: tuple[str, ...]
    peer: tuple[str, ...]
    peer_address: str

    @property
    def state(self) -> str:
        """Its own state folder."""
        return f"{self.folder}/worker-{self.number}"


class Crew(msgspec.Struct, frozen=True):
    """All of them, by what was given."""

    size: int
    folder: str
    listen: tuple[str, ...]
    manager: tuple[str, ...]
    peer: tuple[str, ...]
    peer_address: str

    def worker(self, number: int, listen: Sequence[str] | None = None) -> Worker:
        """:param listen: the data port's endpoints where they are known more exactly than they were given."""
        return Worker(
            number,
            self.folder,
            tuple(self.listen if listen is None else listen),
            tuple(Spot.of(description).plus(number) for description in self.manager),
            tuple(Spot.of(description).plus(number) for description in self.peer),
            address_plus(self.peer_address, number),
        )

    def mistakes(self) -> list[str]:
        """Why they cannot have their ports; the first reason of each kind, since one wrong number makes as many as there are workers."""
        return [*self._kinds(), *self._clash()]

    def _kinds(self) -> Iterator[str]:
        for name, needs in (("listen", "the workers share"), ("manager", "each worker has one of its own, counted from")):
            for description in getattr(self, name):
                if Spot.of(description).kind not in SHARED:
                    yield f"{name}: {description!r}: {needs} a port of tcp:, tcp6: or ssl:; name such an endpoint, or write workers 1"

    def _clash(self) -> Iterator[str]:
        taken: dict[int, list[tuple[str, str]]] = {}
        for owner, spot in self._spots():
            if not spot.port:
                continue
            if spot.port > LAST_PORT:
                yield f"workers: {owner} would be {spot.port}; a port is 0 to {LAST_PORT}: give a lower one, or fewer workers"
                return
            others = [other for interface, other in taken.get(spot.port, ()) if overlap(interface, spot.interface)]
            if others:
                yield (
                    f"workers: {owner} would be {spot.port}, which is {others[0]} too; "
                    f"a worker's ports are those that are given plus its number: leave {self.size} free from each, or write port 0"
                )
                return
            taken.setdefault(spot.port, []).append((spot.interface, owner))

    def _spots(self) -> Iterator[tuple[str, Spot]]:
        yield from (("the data port", Spot.of(description)) for description in self.listen)
        for worker in map(self.worker, range(self.size)):
            for name in ("manager", "peer"):
                yield from ((f"the {name} port of worker {worker.number}", Spot.of(description)) for description in getattr(worker, name))


def address_plus(address: str, number: int) -> str:
    """``host:port`` with the port of the worker ``number``; what is no such thing stays as it is."""
    host, colon, port = address.rpartition(":")
    return f"{host}:{int(port) + number}" if colon and port.isascii() and port.isdecimal() else address


def overlap(one: str, other: str) -> bool:
    """Whether listening on both interfaces with one port is the same thing twice, as far as can be told."""
    return one == other or one in ANY or other in ANY
