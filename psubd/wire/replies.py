"""The head of an answer, and what psubd never lets out in one."""

import re

from twisted.web.http import RESPONSES, datetimeToString

from psubd.interfaces import IClock
from psubd.model import Answer

NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

OURS = frozenset((b"content-length", b"transfer-encoding", b"connection", b"date", b"x-request-id"))
"""The wire's to say: an endpoint that sends one of them would break the framing or lie about it."""
FIXED = b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n"
REPLACED = frozenset((b"cache-control", b"x-content-type-options"))
"""Said in `FIXED` on every answer; an endpoint's own are dropped."""

BODILESS = frozenset((204, 304))

USUAL: dict[tuple[bytes, bytes], bytes] = {}
"""Lines that were checked, as they are written: those of ``content-type``, of which there are few."""
MOST_USUAL = 64
LONGEST_USUAL = 128


class BadAnswer(Exception):
    """An endpoint's answer cannot be sent as it is: a bug of ours."""


def check(answer: Answer) -> None:
    """:raises BadAnswer: for a header that would split the answer or break its framing, or a status that is none.

    The message names the header, never its value, which a client may have chosen.
    """
    if not isinstance(answer, Answer):
        raise BadAnswer(f"an endpoint answered with {type(answer).__name__}, not with an Answer")
    if not 200 <= answer.status <= 599:
        raise BadAnswer(f"an endpoint answered with status {answer.status!r}")
    for header in answer.headers:
        if header not in USUAL:
            check_header(*header)


def check_header(name: bytes, value: bytes) -> None:
    """:raises BadAnswer:"""
    if NAME.fullmatch(name) is None:
        raise BadAnswer(f"the answer's header name {name[:40]!r} is no token in lower case")
    if name in OURS:
        raise BadAnswer(f"the answer's header {name.decode()} is the wire's to send")
    if VALUE.fullmatch(value) is None:
        raise BadAnswer(f"the value of the answer's header {name.decode()} has a control character")
    if name == b"content-type" and len(value) <= LONGEST_USUAL:
        if len(USUAL) >= MOST_USUAL:
            USUAL.clear()
        USUAL[name, value] = header_line(name, value)


def header_line(name: bytes, value: bytes) -> bytes:
    return b"%b: %b\r\n" % (name, value)


class Replies:
    """Writes the heads of checked answers. What all have in common is made once a second, with its date."""

    def __init__(self, clock: IClock) -> None:
        self.clock = clock
        self.starts: dict[int, bytes] = {}
        self.until_ms = -1

    def start(self, status: int, now: int) -> bytes:
        """The head's beginning, up to the request's id. :param now: `IClock.elapsed_ms`."""
        if now >= self.until_ms:
            epoch = self.clock.epoch_ms()
            self.starts.clear()
            self.until_ms = now + 1000 - epoch % 1000
            self.date = datetimeToString(epoch // 1000)
        start = self.starts.get(status)
        if start is None:
            reason = RESPONSES.get(status, b"")
            start = self.starts[status] = b"HTTP/1.1 %d %b\r\n%bdate: %b\r\nx-request-id: " % (status, reason, FIXED, self.date)
        return start

    def head(self, answer: Answer, tag: bytes, now: int, length: int | None, chunked: bool, close: bool) -> bytes:
        """The head.

        :param tag: the request's id. :param length: of the body; None: it is a stream.
        """
        headers, bodiless = answer.headers, answer.status in BODILESS
        own = USUAL.get(headers[0]) if len(headers) == 1 and not bodiless else None
        if own is None:
            own = own_lines(headers, bodiless)
        start = self.starts.get(answer.status) if now < self.until_ms else None
        if start is None:
            start = self.start(answer.status, now)
        if length is not None and not bodiless and not close:
            return b"%b%b\r\n%bcontent-length: %d\r\n\r\n" % (start, tag, own, length)
        ends = b"content-length: %d\r\n" % length if length is not None and not bodiless else b"transfer-encoding: chunked\r\n" if chunked else b""
        return b"".join((start, tag, b"\r\n", own, ends, b"connection: close\r\n\r\n" if close else b"\r\n"))


def own_lines(headers: list[tuple[bytes, bytes]], bodiless: bool) -> bytes:
    """What the endpoint says."""
    return b"".join([header_line(*line) for line in headers if line[0] not in REPLACED and not (bodiless and line[0] == b"content-type")])
