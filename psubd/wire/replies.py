"""The head of an answer, and what psubd never lets out in one."""

import re
from collections.abc import Callable

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
    for name, value in answer.headers:
        if NAME.fullmatch(name) is None:
            raise BadAnswer(f"the answer's header name {name[:40]!r} is no token in lower case")
        if name in OURS:
            raise BadAnswer(f"the answer's header {name.decode()} is the wire's to send")
        if VALUE.fullmatch(value) is None:
            raise BadAnswer(f"the value of the answer's header {name.decode()} has a control character")


def reply_head(answer: Answer, request_id: str, date: bytes, length: int | None, chunked: bool, close: bool) -> bytes:
    """The head of a checked answer.

    :param length: of the body; None: it is a stream.
    """
    bodiless = answer.status in BODILESS
    reason = RESPONSES.get(answer.status, b"")
    lines = [b"HTTP/1.1 %d %s\r\n" % (answer.status, reason), b"x-request-id: %s\r\n" % request_id.encode("ascii"), FIXED, b"date: %s\r\n" % date]
    for name, value in answer.headers:
        if name not in REPLACED and not (bodiless and name == b"content-type"):
            lines.append(b"%s: %s\r\n" % (name, value))
    if length is not None and not bodiless:
        lines.append(b"content-length: %d\r\n" % length)
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    if close:
        lines.append(b"connection: close\r\n")
    return b"".join((*lines, b"\r\n"))


def date_of(clock: IClock) -> Callable[[], bytes]:
    """What tells the date as HTTP writes it, made once a second."""
    told, second = b"", -1

    def date() -> bytes:
        nonlocal told, second
        now = clock.epoch_ms() // 1000
        if now != second:
            told, second = datetimeToString(now), now
        return told

    return date
