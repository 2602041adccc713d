"""Errors as RFC 9457 ``application/problem+json``: the only writer of a status >= 400."""

from twisted.logger import Logger
from twisted.python.failure import Failure

from psubd.errors import Internal, PsubdError, UnsupportedMediaType
from psubd.fields import json_bytes
from psubd.model import Answer

log = Logger()

CONTENT_TYPE = b"application/problem+json"


def problem(error: PsubdError) -> Answer:
    """The answer that tells ``error``."""
    headers = [(b"content-type", CONTENT_TYPE)]
    headers += [(name.encode("ascii"), value.encode("latin-1")) for name, value in error.headers.items()]
    if isinstance(error, UnsupportedMediaType):
        headers.append((b"accept-encoding", b"gzip, identity"))  # RFC 9110, section 15.5.16
    return Answer(status=error.status, body=json_bytes(error.document()), headers=headers)


def internal(failure: Failure, request_id: str, route: str) -> Answer:
    """The answer to a bug of ours; the traceback goes to the log, with the request's id and nothing that the client sent."""
    log.failure("{route}: a bug; request {request_id}", failure, route=route, request_id=request_id)
    return problem(Internal(f"a bug of psubd, which is logged; name the request {request_id} when you report it"))
