"""The numbers of the wire and where they come from."""

import msgspec

from psubd.errors import OverBudget


class WireSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one port. Contract section 6 is the source where nothing else is said.

    :ivar max_head_bytes: request line, field lines and the empty line together; over it: 431.
    :ivar max_header_lines: field lines; over it: 431.
    :ivar max_target_bytes: the request target; over it: 414.
    :ivar pipelined_bytes: kept of what comes behind a request that waits for its answer; beyond it the transport is paused until the answer is
        out. Our own number.
    :ivar stray_body_bytes: a body of that size is read and dropped on a route that takes none (some clients send ``{}`` with DELETE); over
        it: 413. Our own number.
    :ivar drain_bytes: read of a refused body to keep the connection. :ivar drain_ms: for so long.
    :ivar fresh_ms: when the port drains, a connection on which no request came yet is given so long for its first one: its client has only just
        connected, and would take a close for an error. Our own number.
    :ivar head_timeout_ms: from a head's first byte to its last; over it: 408.
    :ivar body_timeout_ms: between two arrivals of body bytes; over it: 408. nginx's client_body_timeout is 60 s; ours is shorter since
        bodies are small.
    :ivar idle_timeout_ms: a connection without a request is closed; above the 60 s of common load balancers, so that they close first.
    :ivar write_timeout_ms: a connection that takes no byte of its answer for so long is broken.
    :ivar portion_bytes: an answer is handed to the operating system in portions of that size (`abstract.FileDescriptor.bufferSize`).
    :ivar body_budget_bytes: request bodies in memory on the port, also after gzip is undone; over it: 503.
    :ivar max_connections: at a time on the port; further ones are told 503 and closed.
    """

    max_head_bytes: int = 32_768
    max_header_lines: int = 100
    max_target_bytes: int = 8192
    pipelined_bytes: int = 65_536
    stray_body_bytes: int = 8192
    drain_bytes: int = 8_388_608
    drain_ms: int = 5000
    fresh_ms: int = 250
    head_timeout_ms: int = 10_000
    body_timeout_ms: int = 30_000
    idle_timeout_ms: int = 75_000
    write_timeout_ms: int = 30_000
    portion_bytes: int = 65_536
    body_budget_bytes: int = 268_435_456
    max_connections: int = 20_000

    @property
    def sweep_ms(self) -> int:
        """How often deadlines are looked at: one timer for all connections, since a timer each would be moved with every request."""
        shortest = min(self.head_timeout_ms, self.body_timeout_ms, self.idle_timeout_ms, self.write_timeout_ms, self.drain_ms)
        return max(10, min(1000, shortest // 4))


class Budget:
    """Bytes of request bodies that are in memory.

    :param limit: the most.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def check(self, size: int) -> None:
        """:raises OverBudget: where ``size`` more bytes do not fit now."""
        if self.used + size > self.limit:
            raise OverBudget("too many request bodies are in memory; send it again later")

    def take(self, size: int) -> None:
        """Count ``size`` more. :raises OverBudget: and counts nothing then."""
        self.check(size)
        self.used += size

    def give(self, size: int) -> None:
        """Count ``size`` less."""
        self.used -= size
