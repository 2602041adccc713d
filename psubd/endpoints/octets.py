"""One message as its payload, the rest in headers (contract, section 3, ``application/octet-stream``).

What publishers chose (key, header names and values) ends in the head of a response here, so nothing of it is written as it came
unless it is printable ASCII; a name must be a token.
"""

import re
from collections.abc import Iterator

from psubd.model import Delivered, Headers
from psubd.shown import base64_text

MAX_LINES = 60
MAX_BYTES = 8192
"""The contract's bounds of what the publisher chose: key and record headers, counted as ``name: value`` with the line's end."""
LINE_OVERHEAD = len(b": \r\n")

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
RAW = re.compile(rb"(?:[!-~](?:[ -~]*[!-~])?)?")

Line = tuple[bytes, bytes]


def head(delivered: Delivered) -> list[Line]:
    """The header lines of an answer that carries this one message."""
    message = delivered.message
    lines = [
        (b"content-type", b"application/octet-stream"),
        (b"topic.id", delivered.topic.encode("ascii")),
        (b"partition", b"%d" % delivered.partition),
        (b"offset", b"%d" % message.offset),
        (b"timestamp", b"%d" % message.timestamp),
    ]
    if delivered.attempt is not None:
        lines.append((b"attempt", b"%d" % delivered.attempt))
    if delivered.token is not None:
        lines.append((b"ack.token", delivered.token.encode("ascii")))
    if delivered.epoch is not None:
        lines.append((b"epoch", b"%d" % delivered.epoch))
    if message.value is None:
        lines.append((b"tombstone", b"true"))
    lines += chosen(message.key, message.headers)
    return lines


def chosen(key: bytes | None, headers: Headers) -> list[Line]:
    """The lines for what the publisher chose, within the bounds; ``headers.omitted`` counts what was left out."""
    budget = Budget()
    lines: list[Line] = []
    if key is not None:
        lines += key_lines(key, budget)
    candidates = list(presentable(headers))
    encoded = not all(RAW.fullmatch(value) for _, value in candidates)
    named: list[Line] = []
    for name, value in candidates:
        line = (b"header." + name, base64_text(value).encode() if encoded else value)
        if budget.takes(line):
            named.append(line)
    if named and encoded:
        lines.append((b"headers.encoding", b"base64"))
    lines += named
    omitted = len(headers) - len(named) + budget.keys_omitted
    if omitted:
        lines.append((b"headers.omitted", b"%d" % omitted))
    return lines


class Budget:
    """How much of what the publisher chose still fits.

    :ivar keys_omitted: 1 where the key did not fit.
    """

    def __init__(self) -> None:
        self._lines, self._bytes = MAX_LINES, MAX_BYTES
        self.keys_omitted = 0

    def takes(self, line: Line) -> bool:
        """Whether the line fits; it is counted then."""
        weight = len(line[0]) + len(line[1]) + LINE_OVERHEAD
        if not self._lines or weight > self._bytes:
            return False
        self._lines -= 1
        self._bytes -= weight
        return True


def key_lines(key: bytes, budget: Budget) -> list[Line]:
    """The key, raw or in base64; one that does not fit is told by ``key.omitted``, so that it is not taken for no key."""
    encoded = RAW.fullmatch(key) is None
    line = (b"key", base64_text(key).encode() if encoded else key)
    if not budget.takes(line):
        budget.keys_omitted = 1
        return [(b"key.omitted", b"true")]
    return [line, (b"key.encoding", b"base64")] if encoded else [line]


def presentable(headers: Headers) -> Iterator[Line]:
    """Record headers that a header line can say: a token for a name, the first of its name whatever the case, not null."""
    seen: set[str] = set()
    for name, value in headers:
        lowered = name.lower()
        if value is None or lowered in seen or NAME.fullmatch(name) is None:
            continue
        seen.add(lowered)
        yield lowered.encode("ascii"), value
