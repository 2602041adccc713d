"""HTTP connections for clients that do what well-behaved ones do not: drop an answer in its middle, and go on while the daemon is down."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from psubd.testing.daemon import Daemon, Reply

PATIENCE_S = 60.0


class Broke(Exception):
    """The connection ended before the answer did. ``sent``: the daemon may have seen the request."""

    def __init__(self, sent: bool) -> None:
        super().__init__(f"sent: {sent}")
        self.sent = sent


class Door:
    """Where the daemon listens now; its port may be another one at each start.

    :cvar back_ms: how long messages in auto mode may stay away after an answer with them broke.
    """

    back_ms = 0.0

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    @property
    def port(self) -> int:
        """:raises Broke: it does not listen."""
        try:
            return self.daemon.ports.data
        except (OSError, ValueError, KeyError):
            raise Broke(False) from None

    def line(self, always: Mapping[str, str]) -> "Line":
        """A client's connection, with headers of every request."""
        return Line(self, always)


class Line:
    """One connection, opened at need, for one request at a time.

    :param always: headers of every request.
    """

    def __init__(self, door: Door, always: Mapping[str, str]) -> None:
        self._door = door
        self._always = always
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, cut: int | None = None
    ) -> Reply:
        """One request and its whole answer. ``cut``: after so many bytes of the body, and before its end, the connection is dropped; the answer is
        what came until then. :raises Broke:"""
        reader, writer = await self._open()
        try:
            async with asyncio.timeout(PATIENCE_S):
                writer.write(self._request(method, target, body, headers or {}))
                return await self._answer(reader, cut)
        except (OSError, EOFError, TimeoutError):
            self.close()
            raise Broke(True) from None

    async def send(self, target: str, document: Any, cut: int | None = None) -> Reply:
        """A POST with a JSON body. :raises Broke:"""
        return await self.ask("POST", target, json.dumps(document).encode(), {"content-type": "application/json"}, cut)

    def close(self) -> None:
        """Drop the connection, with what was not read of it."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None and (self._streams[0].at_eof() or self._streams[1].is_closing()):
            self.close()
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection("127.0.0.1", self._door.port)
            except OSError:
                raise Broke(False) from None
        return self._streams

    def _request(self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        length = {} if body is None else {"content-length": str(len(body))}
        fields = {"host": "localhost", **self._always, **length, **headers}
        head = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        return "\r\n".join(head).encode() + (body or b"")

    async def _answer(self, reader: asyncio.StreamReader, cut: int | None) -> Reply:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        length, body = int(headers.get("content-length", "0")), b""
        if cut is None or not length:
            body = await reader.readexactly(length)
        else:
            with suppress(asyncio.IncompleteReadError):
                body = await reader.readexactly(min(cut, length - 1))
        if cut is not None or headers.get("connection") == "close":
            self.close()
        return Reply(int(first.split()[1]), headers, body)
