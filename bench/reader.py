"""A client that reads in large batches over a few connections, each the next batch as soon as it has the former, until the time is up or nothing
more comes. (wrk cannot tell an answer with a thousand messages from one with ten.)"""

import select
import socket
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.load import LoadFailed, Request

PATIENCE_S = 30.0


class Read(NamedTuple):
    """:ivar seconds: from the first request to the last answer that held something. :ivar took: seconds that each of these took, in order of length.
    :ivar size: bytes of their bodies. :ivar marks: how often the mark stands in them."""

    seconds: float
    took: list[float]
    size: int
    marks: int


class Line:
    """One connection, with one request out at a time: always the same bytes."""

    def __init__(self, port: int, request: bytes, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = request
        self.pieces: list[bytes] = []
        self.missing: int | None = None
        self.status = self.length = 0
        self.sent = 0.0
        self.waits = False

    def ask(self) -> None:
        self.sent, self.waits = time.perf_counter(), True
        self.pieces, self.missing = [], None
        self.socket.sendall(self.request)

    def take(self) -> int | None:
        """Read what came. The body's size, once the answer is whole."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise LoadFailed("psubd closed the connection")
        self.pieces.append(data)
        if self.missing is None:
            whole = b"".join(self.pieces)
            end = whole.find(b"\r\n\r\n")
            if end < 0:
                return None
            self.status = int(whole[9:12])
            self.length = length_of(whole[:end])
            self.missing = self.length - (len(whole) - end - 4)
        else:
            self.missing -= len(data)
        self.waits = self.missing > 0
        return None if self.waits else self.length


def length_of(head: bytes) -> int:
    """What its content-length says; 0: it has none."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


def bytes_of(request: Request, port: int) -> bytes:
    """The request as it goes over the line."""
    lines = [f"{request.method} {request.target} HTTP/1.1", f"host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    if request.body:
        lines.append(f"content-length: {len(request.body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + request.body


def read(request: Request, port: int, connections: int, seconds: float, mark: bytes = b"", host: str = "127.0.0.1") -> Read:
    """Ends when the time is up, or with the first answers that hold nothing (204).

    :raises LoadFailed: where an answer is neither 200 nor 204, or none comes.
    """
    lines = [Line(port, bytes_of(request, port), host) for _ in range(connections)]
    took, size, marks = [], 0, 0
    begun = last = time.perf_counter()
    for line in lines:
        line.ask()
    for line, length in answers(lines):
        now = time.perf_counter()
        if line.status == 204:
            continue
        took.append(now - line.sent)
        last, size = now, size + length
        if mark:
            marks += b"".join(line.pieces).count(mark)
        if now - begun < seconds:
            line.ask()
    for line in lines:
        line.socket.close()
    return Read(last - begun, sorted(took), size, marks)


def answers(lines: Sequence[Line]) -> Iterator[tuple[Line, int]]:
    """Each line that has its answer, and the body's size; as long as one of them waits for one."""
    by_number = {line.socket.fileno(): line for line in lines}
    with select.epoll() as ready:
        for line in lines:
            ready.register(line.socket, select.EPOLLIN)
        while any(line.waits for line in lines):
            events = ready.poll(PATIENCE_S)
            if not events:
                raise LoadFailed("no answer comes")
            for number, _ in events:
                line = by_number[number]
                length = line.take()
                if length is not None:
                    if line.status not in (200, 204):
                        raise LoadFailed(f"{line.status}: {b''.join(line.pieces)[-300:]!r}")
                    yield line, length
