"""The head of a request: bytes to a `Head`, or the refusal. Knows no connection.

Stricter than RFC 9112 where proxies disagree about where a message ends, since whoever disagrees smuggles: see the contract, section 6.
No refusal quotes a header's value: it may be a credential.
"""

import re
from collections.abc import Sequence
from itertools import count
from typing import Literal, NamedTuple

import msgspec

from psubd.errors import BadHeader, HeadTooLarge, PsubdError, TargetTooLong
from psubd.wire.limits import WireSettings

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb"{1,32}) ([\x21-\x7e]+) HTTP/1\.([01])")
FIELD_LINE = re.compile(rb"(" + TOKEN + rb"+):([\t\x20-\x7e\x80-\xff]*)")
HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
LENGTH = re.compile(rb"[0-9]{1,19}")

REQUEST_LINE_SLACK = 64
"""What a request line has besides its target: a method of 32 bytes, two blanks, the version; then rounded up."""

TELLING = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"content-encoding", b"x-request-id"))
"""The headers that the wire itself goes by."""

Expectation = Literal["continue", "other"]


class Start(NamedTuple):
    """What a request line says. :ivar authority: of a target in absolute form."""

    method: str
    path: bytes
    query: bytes
    authority: bytes | None
    old: bool


class Told(NamedTuple):
    """What the fields that the wire goes by say; as in `Head`."""

    length: int | None
    chunked: bool
    close: bool
    expect: Expectation | None


class Head(msgspec.Struct, frozen=True):
    """A request's head.

    :ivar path: as sent, without the query; ``*`` for the whole server.
    :ivar query: as sent, without the question mark.
    :ivar fields: name in lower case, value without outer blanks, in order.
    :ivar old: HTTP/1.0.
    :ivar length: of the body; None: none was said.
    :ivar close: the client will not go on with the connection, or cannot.
    :ivar expect: what ``Expect`` says: ``continue``, or ``other`` for anything that nobody can meet.
    :ivar telling: those of the fields that the wire goes by.
    """

    method: str
    path: bytes
    query: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    old: bool
    length: int | None
    chunked: bool
    close: bool
    expect: Expectation | None
    telling: tuple[tuple[bytes, bytes], ...]

    def values(self, name: bytes) -> list[bytes]:
        """All values of the header ``name`` (lower case), in order."""
        return [value for sent, value in (self.telling if name in TELLING else self.fields) if sent == name]

    @property
    def has_body(self) -> bool:
        """Whether any byte of framing or body follows the head."""
        return self.chunked or bool(self.length)


def head_end(buffer: bytearray, limits: WireSettings) -> int | None:
    """Where the head at the front of ``buffer`` ends, or None while it is not whole.

    :raises PsubdError: as soon as it can be told that it will not be taken: the connection has no next request then.
    """
    end = buffer.find(b"\r\n\r\n", 0, limits.max_head_bytes)
    if end >= 0:
        return end + 4
    check_start(buffer, limits)
    return None


def check_start(buffer: bytearray, limits: WireSettings) -> None:
    """Refuse the beginning of a head that can only end badly, before its client waits for an answer that does not come."""
    line_end = buffer.find(b"\r\n")
    if (line_end if line_end >= 0 else len(buffer)) > limits.max_target_bytes + REQUEST_LINE_SLACK:
        raise target_too_long(limits)
    if len(buffer) >= limits.max_head_bytes:
        raise head_too_large(limits)
    ends = buffer.count(b"\r\n")
    if buffer.count(b"\n") != ends or buffer.count(b"\r") - buffer.endswith(b"\r") != ends:
        raise BadHeader("a bare CR or LF in the head; lines end with CRLF")
    if line_end >= 0:
        request_line(bytes(buffer[:line_end]), limits)


def parse_head(raw: bytes, limits: WireSettings, lines: "Lines | None" = None) -> Head:
    """The head in ``raw``, which ends with its empty line.

    :param lines: what reads them; None: afresh.
    :raises PsubdError: BadHeader, TargetTooLong, HeadTooLarge; the connection has no next request then.
    """
    first, *rest = raw[:-4].split(b"\r\n")
    read = lines or FRESH
    method, path, query, authority, old = read.start(first, limits)
    if len(rest) > limits.max_header_lines:
        raise HeadTooLarge(f"more than {limits.max_header_lines} header lines")
    fields = read.fields(rest)
    telling = tuple([line for line in fields if line[0] in TELLING])
    length, chunked, close, expect = read.told(telling, old, authority)
    return Head(method, path, query, fields, old, length, chunked, close, expect, telling)


class Lines:
    """Reads the lines of a head."""

    def start(self, line: bytes, limits: WireSettings) -> Start:
        """The request line."""
        return parse_start(line, limits)

    def fields(self, lines: list[bytes]) -> tuple[tuple[bytes, bytes], ...]:
        """Names in lower case, and values."""
        return tuple(map(parse_field, lines, count(1)))

    def told(self, telling: tuple[tuple[bytes, bytes], ...], old: bool, authority: bytes | None) -> "Told":
        """What the fields that the wire goes by say together."""
        host(telling, old, authority)
        return Told(*body_framing(telling, old), closes(telling, old), expectation(telling, old))


FRESH = Lines()


def parse_start(line: bytes, limits: WireSettings) -> Start:
    """A request line, taken apart."""
    method, target, old = request_line(line, limits)
    path, query, authority = split_target(target, method)
    return Start(method, path, query, authority, old)


def request_line(line: bytes, limits: WireSettings) -> tuple[str, bytes, bool]:
    """Method, target, and whether it is HTTP/1.0."""
    found = REQUEST_LINE.fullmatch(line)
    if found is None:
        raise BadHeader("the request line is not `METHOD target HTTP/1.1` (HTTP/1.0 and 1.1 are spoken here)")
    method, target, minor = found.groups()
    if len(target) > limits.max_target_bytes:
        raise target_too_long(limits)
    return method.decode("ascii"), target, minor == b"0"


def parse_field(line: bytes, number: int) -> tuple[bytes, bytes]:
    """Name in lower case and value of one field line."""
    found = FIELD_LINE.fullmatch(line)
    if found is None:
        raise BadHeader(f"header line {number}: {field_fault(line)}")
    name, value = found.groups()
    return name.lower(), value.strip(b" \t")


def field_fault(line: bytes) -> str:
    """What is wrong with the line, without quoting it."""
    if line[:1] in (b" ", b"\t"):
        return "a folded line; send each header on one line"
    name, colon, _ = line.partition(b":")
    if not colon:
        return "no colon"
    if name.endswith((b" ", b"\t")):
        return "a blank before the colon"
    if re.fullmatch(TOKEN + b"+", name) is None:
        return "the name is not a token"
    return "a control character, NUL, or a bare CR or LF in the value"


def split_target(target: bytes, method: str) -> tuple[bytes, bytes, bytes | None]:
    """Path, query, and the authority of a target in absolute form (RFC 9112, section 3.2.2)."""
    authority = None
    absolute = ABSOLUTE.fullmatch(target)
    if absolute is not None:
        authority, target = absolute.groups()
        if not target.startswith(b"/"):
            target = b"/" + target
    if target == b"*" and method == "OPTIONS":
        return b"*", b"", None
    if not target.startswith(b"/") or b"#" in target:
        raise BadHeader("the request target is no path; send one that begins with /")
    path, _, query = target.partition(b"?")
    return path, query, authority


def host(fields: Sequence[tuple[bytes, bytes]], old: bool, authority: bytes | None) -> None:
    """Refuse a request whose ``Host`` is not there once, is not a host, or is another one than the target names."""
    sent = [value for name, value in fields if name == b"host"]
    if len(sent) > 1:
        raise BadHeader("host: sent twice; send it once")
    if not sent:
        if not old:
            raise BadHeader("host: missing; HTTP/1.1 needs it")
        return
    if HOST.fullmatch(sent[0]) is None:
        raise BadHeader("host: not a host name or address with an optional port")
    if authority is not None and authority.lower() != sent[0].lower():
        raise BadHeader("host: not the host of the request target")


def body_framing(fields: Sequence[tuple[bytes, bytes]], old: bool) -> tuple[int | None, bool]:
    """Length of the body, and whether it comes in chunks."""
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if codings:
        if old:
            raise BadHeader("transfer-encoding: not with HTTP/1.0")
        if lengths:
            raise BadHeader("content-length together with transfer-encoding; send one of them")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise BadHeader("transfer-encoding: chunked, once, is the only one that is taken")
        return None, True
    if not lengths:
        return None, False
    if len(lengths) > 1:
        raise BadHeader("content-length: sent twice; send it once")
    if LENGTH.fullmatch(lengths[0]) is None:
        raise BadHeader("content-length: not a number of at most 19 digits")
    return int(lengths[0]), False


def closes(fields: Sequence[tuple[bytes, bytes]], old: bool) -> bool:
    """Whether this is the connection's last request. An HTTP/1.0 client's always is: keep-alive there was never a standard."""
    if old:
        return True
    options = b",".join(value for name, value in fields if name == b"connection")
    return b"close" in [option.strip(b" \t").lower() for option in options.split(b",")]


def expectation(fields: Sequence[tuple[bytes, bytes]], old: bool) -> Expectation | None:
    """What the client expects. An HTTP/1.0 client's expectation is not one (RFC 9110, section 10.1.1)."""
    sent = [value.lower() for name, value in fields if name == b"expect"]
    if old or not sent:
        return None
    return "continue" if sent == [b"100-continue"] else "other"


def target_too_long(limits: WireSettings) -> PsubdError:
    return TargetTooLong(f"the request target is longer than {limits.max_target_bytes} bytes")


def head_too_large(limits: WireSettings) -> PsubdError:
    return HeadTooLarge(f"the head is larger than {limits.max_head_bytes} bytes")
