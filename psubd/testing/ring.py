"""Clients of several nodes behind a plain load balancer: another node for every single request, no affinity, and one that refuses a connection is
passed by."""

import asyncio
import http.client
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from psubd.testing.cluster import Node, Nodes
from psubd.testing.daemon import Client, Reply
from psubd.testing.lines import Broke, Door, Line

BACK_MS = 16_000.0
"""A node that serves a group takes back, 10 s after it lost another one, what that one was handing over; it may notice the loss 5 s late."""


class Answered(NamedTuple):
    """One request of the traffic. ``status`` None: the connection broke."""

    node: str
    at: float
    method: str
    target: str
    status: int | None
    body: bytes


class Ring(Door):
    """The nodes in turn.

    :ivar statuses: of all answers, counted. :ivar unserved: what was refused with 5xx or got no answer.
    """

    def __init__(self, nodes: Nodes) -> None:
        super().__init__(nodes.all[0])
        self.back_ms = BACK_MS
        self.nodes = nodes
        self.statuses: Counter[int] = Counter()
        self.unserved: list[Answered] = []
        self._turn = nodes.turn

    def line(self, always: Mapping[str, str]) -> "RoundLine":
        return RoundLine(self, always)

    def order(self) -> list[Node]:
        """Whom to ask, one after another: the next one first."""
        there, turn = self.nodes.taking, next(self._turn)
        return [there[(turn + step) % len(there)] for step in range(len(there))]


class RoundLine(Line):
    """A client that has no connection between two requests."""

    def __init__(self, ring: Ring, always: Mapping[str, str]) -> None:
        super().__init__(ring, always)
        self._ring = ring
        self._node = ""

    async def ask(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, cut: int | None = None
    ) -> Reply:
        asked, ring = asyncio.get_running_loop().time(), self._ring
        try:
            reply = await super().ask(method, target, body, headers, cut)
        except Broke as broke:
            if broke.sent:
                ring.unserved.append(Answered(self._node, asked, method, target, None, b""))
            raise
        finally:
            self.close()
        ring.statuses[reply.status] += 1
        if reply.status >= 500:
            ring.unserved.append(Answered(self._node, asked, method, target, reply.status, reply.body))
        return reply

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for node in self._ring.order():
            try:
                self._streams = await asyncio.open_connection("127.0.0.1", node.ports.data)
            except (OSError, ValueError, KeyError):
                continue
            self._node = node.name
            return self._streams
        raise Broke(False)


class RoundClient:
    """The same for a test that waits for each answer. For one thread."""

    def __init__(self, nodes: Nodes, always: Mapping[str, str], timeout: float = 60.0) -> None:
        self._nodes, self._always, self._timeout = nodes, dict(always), timeout
        self._turn = nodes.turn

    def request(self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """:raises OSError: :raises http.client.HTTPException: where an accepted connection broke."""
        there, turn = self._nodes.taking, next(self._turn)
        for step in range(len(there)):
            client = Client(there[(turn + step) % len(there)].ports.data, self._always, self._timeout)
            try:
                return client.request(method, target, body, headers)
            except ConnectionRefusedError:
                continue
            finally:
                client.close()
        raise http.client.NotConnected("no node takes a connection")

    def send(self, method: str, target: str, document: Any) -> Reply:
        """A request with a JSON body."""
        import json

        return self.request(method, target, json.dumps(document).encode(), {"content-type": "application/json"})
