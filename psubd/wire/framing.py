"""Where a body ends: by length, or in chunks (RFC 9112, section 7.1). Knows no connection.

Both are fed the connection's buffer, take from its front what is theirs, and leave what comes behind.
"""

import re

from psubd.errors import BadBody

SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;([\t\x20-\x7e\x80-\xff]*))?")
TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")

MAX_LINE = 1024
"""Of a chunk's size line or a trailer: Twisted's own bound (`twisted.web.http.maxChunkSizeLineLength`)."""
MAX_EXTENSIONS = 16_384
"""All chunk extensions of a body together: Node's bound since CVE-2024-22019."""
MAX_TRAILERS = 8192
"""The whole trailer section, which is dropped."""


class Sized:
    """A body of a known length. :ivar left: bytes that have not come yet."""

    def __init__(self, length: int) -> None:
        self.left = length

    @property
    def ended(self) -> bool:
        return self.left == 0

    def feed(self, buffer: bytearray) -> bytes:
        """Take what is there."""
        piece = bytes(memoryview(buffer)[: self.left])
        del buffer[: len(piece)]
        self.left -= len(piece)
        return piece


class Chunked:
    """A body in chunks. ``left`` is of the present chunk."""

    def __init__(self) -> None:
        self.left = 0
        self.ended = False
        self.extensions = 0
        self.trailers = 0
        self.step = self.size

    def feed(self, buffer: bytearray) -> bytes:
        """Take what is there. :raises BadBody: for framing that is not valid; nothing behind it can be read."""
        payload = bytearray()
        while not self.ended and self.step(buffer, payload):
            pass
        return bytes(payload)

    def size(self, buffer: bytearray, payload: bytearray) -> bool:
        """The line that begins a chunk."""
        line = take_line(buffer)
        if line is None:
            return False
        found = SIZE_LINE.fullmatch(line)
        if found is None:
            raise BadBody("the chunked body is broken: a chunk does not begin with its size in hexadecimal digits")
        self.extensions += len(found[2] or b"")
        if self.extensions > MAX_EXTENSIONS:
            raise BadBody(f"more than {MAX_EXTENSIONS} bytes of chunk extensions")
        self.left = int(found[1], 16)
        self.step = self.data if self.left else self.trailer
        return True

    def data(self, buffer: bytearray, payload: bytearray) -> bool:
        """The bytes of a chunk."""
        piece = memoryview(buffer)[: self.left]
        size = len(piece)
        payload += piece
        piece.release()
        del buffer[:size]
        self.left -= size
        if self.left:
            return False
        self.step = self.data_end
        return True

    def data_end(self, buffer: bytearray, payload: bytearray) -> bool:
        """The line end behind a chunk's bytes."""
        if not b"\r\n".startswith(bytes(buffer[:2])):
            raise BadBody("the chunked body is broken: a chunk is longer than it said")
        if len(buffer) < 2:
            return False
        del buffer[:2]
        self.step = self.size
        return True

    def trailer(self, buffer: bytearray, payload: bytearray) -> bool:
        """A line of the trailer section, which is checked (it hides no other request) and dropped."""
        line = take_line(buffer)
        if line is None:
            return False
        self.trailers += len(line)
        if line and TRAILER_LINE.fullmatch(line) is None:
            raise BadBody("a trailer line is not valid")
        if self.trailers > MAX_TRAILERS:
            raise BadBody(f"more than {MAX_TRAILERS} bytes of trailers")
        self.ended = not line
        return True


def take_line(buffer: bytearray) -> bytes | None:
    """The line at the front of ``buffer``, or None while it is not whole. :raises BadBody: for one that is too long or has a bare CR or LF."""
    end = buffer.find(b"\r\n", 0, MAX_LINE)
    line = bytes(buffer[: end if end >= 0 else MAX_LINE])
    if b"\n" in line or b"\r" in (line if end >= 0 else line[:-1]):
        raise BadBody("the chunked body is broken: a bare CR or LF in its framing")
    if end >= 0:
        del buffer[: end + 2]
        return line
    if len(buffer) >= MAX_LINE:
        raise BadBody(f"the chunked body is broken: a line of its framing is longer than {MAX_LINE} bytes")
    return None
