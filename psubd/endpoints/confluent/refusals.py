"""Errors as Confluent's REST Proxy tells them: ``{"error_code", "message"}`` with its numbers."""

from psubd.endpoints.confluent import media
from psubd.endpoints.confluent.media import Lines
from psubd.errors import (
    BadCredentials,
    Forbidden,
    InstanceExists,
    InstanceMissing,
    InUse,
    PartitionMissing,
    PsubdError,
    RateLimited,
    Retryable,
    StorageTimeout,
    TooManyGroups,
    TopicMissing,
    TopicNotBound,
    UnsupportedMediaType,
)
from psubd.fields import json_bytes
from psubd.model import Answer

NUMBERS: tuple[tuple[type[PsubdError], int], ...] = (
    (BadCredentials, 40101),
    (Forbidden, 40301),
    (TopicNotBound, 40401),
    (TopicMissing, 40401),
    (PartitionMissing, 40402),
    (InstanceMissing, 40403),
    (InstanceExists, 40902),
    (InUse, 40903),
    (RateLimited, 42901),
    (TooManyGroups, 42901),
    (StorageTimeout, 50002),
    (Retryable, 50003),
)
"""By class, the first that fits. Errors that only these routes have know their own (`psubd.endpoints.confluent.faults`); the others' number is their
status."""

NOT_FOUND = (TopicNotBound,)
"""Told as 404: a topic of somebody else is not there."""


def number_of(error: PsubdError) -> int:
    """Confluent's number."""
    own: int | None = getattr(error, "error_code", None)
    if own is not None:
        return own
    return next((number for kind, number in NUMBERS if isinstance(error, kind)), error.status)


def refuse(error: PsubdError, lines: Lines) -> Answer:
    """The answer that tells ``error``; in the first version's media type where the request speaks it. :param lines: the request's field lines."""
    headers = [media.line(media.plain(media.spoken(lines)))]
    headers += [(name.encode("ascii"), value.encode("latin-1")) for name, value in error.headers.items()]
    if isinstance(error, UnsupportedMediaType):
        headers.append((b"accept-encoding", b"gzip, identity"))  # RFC 9110, section 15.5.16
    status = 404 if isinstance(error, NOT_FOUND) else error.status
    return Answer(status=status, body=json_bytes({"error_code": number_of(error), "message": error.detail}), headers=headers)
