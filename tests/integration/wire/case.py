"""A port on real sockets, and blocking clients in threads."""

import socket
import struct
import time
from collections.abc import Callable
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from psubd.interfaces import Route
from psubd.services.clock import SystemClock
from psubd.testing.waiting import blockon
from psubd.wire.limits import WireSettings
from psubd.wire.site import Site
from tests.wire.peer import Endpoint, Waiting

T = TypeVar("T")


class Client:
    """A blocking client; its methods are called in a thread, or do not wait."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(30)
        self.socket.connect(("127.0.0.1", port))
        self.wrapped: Any = self.socket
        self.buffer = b""

    def send(self, data: bytes) -> "Client":
        self.wrapped.sendall(data)
        return self

    def fill(self) -> bool:
        """Receive some more; False: the server has closed."""
        data = self.wrapped.recv(65_536)
        self.buffer += data
        return bool(data)

    def response(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of the next answer."""
        while b"\r\n\r\n" not in self.buffer:
            if not self.fill():
                raise ConnectionError(f"closed within an answer: {self.buffer[:200]!r}")
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        size = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b": ")
            size = int(value) if name == b"content-length" else size
        pieces, have = [self.buffer], len(self.buffer)
        while have < size:
            data = self.wrapped.recv(65_536)
            if not data:
                raise ConnectionError("closed within a body")
            pieces.append(data)
            have += len(data)
        body = b"".join(pieces)
        self.buffer = body[size:]
        return int(head.split(b" ")[1]), head, body[:size]

    def closed(self) -> bool:
        """Wait until the server has closed the connection, orderly or not."""
        try:
            while self.fill():
                pass
        except ConnectionError:
            pass
        return True

    def close(self) -> None:
        self.wrapped.close()

    def reset(self) -> None:
        """Break the connection: RST."""
        self.wrapped.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wrapped.close()


class SocketCase(SynchronousTestCase):
    """A port on 127.0.0.1; ``/get`` answers `endpoint`'s, ``/wait`` waits, ``/post`` takes 1000 bytes.

    :cvar hot: whether all routes are hot, so that the short way serves them.
    """

    hot = False

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.wait(succeed(None))  # skipped here, before a port is opened, where nothing can wait
        self.reactor: Any = reactor
        self.endpoint = Endpoint()
        self.waiting = Waiting()
        self.clients: list[Client] = []
        self.metrics = CollectorRegistry()

    def listen(self, **settings: int) -> Site:
        routes = [
            Route("GET", "/get", self.endpoint, "get", hot=self.hot),
            Route("GET", "/wait", self.waiting, "wait", hot=self.hot),
            Route("POST", "/post", self.endpoint, "post", max_body=1000, hot=self.hot),
        ]
        self.site = Site(routes, SystemClock(self.reactor), port="data", settings=WireSettings(**settings), metrics=self.metrics)
        self.listening = self.open(self.site)
        self.addCleanup(self.end)
        return self.site

    def open(self, site: Site) -> Any:
        return self.reactor.listenTCP(0, site, interface="127.0.0.1")

    def end(self) -> None:
        for client in self.clients:
            client.close()
        self.wait(self.listening.stopListening())
        self.until(lambda: not self.site.port.connections)

    def connect(self, receive_buffer: int | None = None) -> Client:
        """A client, from the reactor's thread: the kernel takes the connection, the server sees it later."""
        client = Client(self.listening.getHost().port, receive_buffer)
        self.clients.append(client)
        return client

    def wait(self, deferred: Deferred[T]) -> T:
        return blockon(deferred)

    def run_client(self, call: Callable[..., T], *args: Any) -> T:
        """The result of ``call``, which blocks, in a thread."""
        return self.wait(deferToThread(call, *args))

    def until(self, true: Callable[[], bool]) -> None:
        """Let the reactor run until ``true()``; AssertionError after 30 s."""
        end = time.monotonic() + 30
        while not true():
            assert time.monotonic() < end, "it did not come true"
            self.turn()

    def turn(self, seconds: float = 0.005) -> None:
        """Let the reactor run for a moment."""
        self.wait(deferLater(self.reactor, seconds, lambda: None))
