"""Errors as RFC 9457 ``application/problem+json``, or in their route's dialect (`Route.refusal`): the only place that turns one into an answer."""

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure

from psubd.errors import Internal, PsubdError, UnsupportedMediaType
from psubd.fields import json_bytes
from psubd.model import Answer
from psubd.wire.handover import settled
from psubd.wire.replies import check

log = Logger()

CONTENT_TYPE = b"application/problem+json"


Refusal = Callable[[PsubdError, Sequence[tuple[bytes, bytes]]], Answer]
"""`psubd.interfaces.Route.refusal`."""


def problem(error: PsubdError, refusal: Refusal | None = None, lines: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
    """The answer that tells ``error``. :param refusal: the route's own dialect. :param lines: the request's field lines."""
    if refusal is not None:
        return refusal(error, lines)
    headers = [(b"content-type", CONTENT_TYPE)]
    headers += [(name.encode("ascii"), value.encode("latin-1")) for name, value in error.headers.items()]
    if isinstance(error, UnsupportedMediaType):
        headers.append((b"accept-encoding", b"gzip, identity"))  # RFC 9110, section 15.5.16
    return Answer(status=error.status, body=json_bytes(error.document()), headers=headers)


class Named(Protocol):
    """A request, as far as the log and its client are told of it."""

    @property
    def request_id(self) -> str:
        """Its id."""

    @property
    def route(self) -> str:
        """The route's name."""

    def told(self, error: PsubdError) -> Answer:
        """The answer that tells an error, in its route's dialect."""


def internal(failure: Failure, request: Named) -> Answer:
    """The answer to a bug of ours; the traceback goes to the log, with the request's id and nothing that the client sent."""
    log.failure("{route}: a bug; request {request_id}", failure, route=request.route, request_id=request.request_id)
    return request.told(Internal(f"a bug of psubd, which is logged; name the request {request.request_id} when you report it"))


def fit(answer: Answer, request: Named) -> Answer:
    """The answer, if it can be sent; else, whatever an endpoint returned, it settles, and what the client is told instead."""
    try:
        check(answer)
    except Exception:  # noqa: BLE001  it may be anything
        settled(getattr(answer, "settle", None), -1)
        return internal(Failure(), request)
    return answer
