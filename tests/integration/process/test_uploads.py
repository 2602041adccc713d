"""A large upload costs neither memory nor disk, on any route."""

import os
import socket

from psubd.testing.daemon import Daemon
from tests.integration.process.case import ProcessCase

MEGABYTE = 1 << 20
UPLOAD = 256 * MEGABYTE
GROWTH = 48 * MEGABYTE
"""More than a request's budget on the way, far less than the upload."""


def peak(daemon: Daemon) -> int:
    """The most memory that the process had resident, in bytes."""
    with open(f"/proc/{daemon.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


class UploadTests(ProcessCase):
    def upload(self, daemon: Daemon, head: str, chunk: bytes) -> bytes:
        """Send 256 MB, or as much as is taken. What was answered."""
        with socket.create_connection(("127.0.0.1", daemon.ports.data), timeout=60) as connection:
            sent = 0
            try:
                connection.sendall(head.encode())
                while sent < UPLOAD:
                    connection.sendall(chunk)
                    sent += len(chunk)
                connection.sendall(b"0\r\n\r\n")
            except (BrokenPipeError, ConnectionResetError):
                pass
            try:
                return connection.recv(65536)
            except ConnectionResetError:
                return b""

    def test_neither_memory_nor_disk(self) -> None:
        """256 MB in chunks to a route that is not there, to one that takes no body, and as a form to one that publishes: refused, with the
        daemon's memory as it was, and no file made."""
        with self.daemon() as daemon:
            tenant = self.bound(daemon)
            data = daemon.data(**tenant.publish)
            self.assertEqual(data.request("POST", "/v1/pub/orders", b"x" * MEGABYTE).status, 200)
            before, files = peak(daemon), self.open_files(daemon)
            chunk = b"%x\r\n" % MEGABYTE + b"x" * MEGABYTE + b"\r\n"
            keys = "".join(f"{name}: {value}\r\n" for name, value in tenant.publish.items())
            coded = "Host: localhost\r\nTransfer-Encoding: chunked\r\n"
            for start, status in (
                ("POST /no/such/route HTTP/1.1\r\n", b"404"),
                ("DELETE /v1/groups/x HTTP/1.1\r\n", b"4"),
                (f"POST /v1/pub/orders HTTP/1.1\r\n{keys}Content-Type: multipart/form-data; boundary=x\r\n", b"413"),
                (f"POST /v1/pub/orders HTTP/1.1\r\n{keys}", b"413"),
            ):
                answer = self.upload(daemon, f"{start}{coded}\r\n", chunk)
                self.assertTrue(answer == b"" or answer.startswith(b"HTTP/1.1 " + status), answer)
                self.assertLess(peak(daemon) - before, GROWTH, start)
            self.assertEqual(data.request("GET", "/ready").status, 200)
            self.assertLessEqual(self.open_files(daemon) - files, set())

    def open_files(self, daemon: Daemon) -> set[str]:
        """Regular files that the daemon holds open, deleted ones too."""
        folder = f"/proc/{daemon.pid}/fd"
        named = set()
        for number in os.listdir(folder):
            try:
                named.add(os.readlink(f"{folder}/{number}"))
            except FileNotFoundError:
                continue
        return {name for name in named if name.startswith("/") and not name.startswith(("/dev/", self.state))}
