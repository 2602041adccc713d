"""What psubd refuses and what fails: one class per ``code`` word of the HTTP contract.

An error knows its wire form (status, code, title, extra headers), so that a status code of 400 or more is written in one place only
(`psubd.wire.problem`). Raise the class that names the case; the ``detail`` says what was wrong with *this* request and what to do.
A detail never holds a secret: what a client sent as a credential is not echoed.
"""

from collections.abc import Mapping
from typing import ClassVar


class PsubdError(Exception):
    """A refusal or a failure that a client is told about, as RFC 9457 ``application/problem+json``.

    :param detail: what was wrong with this request, and what to do about it.
    :param members: further members of the problem document (``record``, ``lost``, ...). JSON values only.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, **members: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members: dict[str, object] = members

    @property
    def headers(self) -> Mapping[str, str]:
        """Response headers that belong to this error (``Allow``, ``Retry-After``, ...); names in lower case."""
        return {}

    def document(self) -> dict[str, object]:
        """The RFC 9457 problem document, without the request id."""
        return {
            "type": f"urn:psubd:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.members,
        }


class Internal(PsubdError):
    """A bug of ours. The detail carries the request id, never the traceback."""


class BadHeader(PsubdError):
    status, code, title = 400, "bad_header", "A header is not valid"


class BadParameter(PsubdError):
    status, code, title = 400, "bad_parameter", "A parameter is not valid"


class BadBody(PsubdError):
    status, code, title = 400, "bad_body", "The body is not valid"


class BadRecord(PsubdError):
    """One record of a batch is wrong; ``record`` is its index, from 0. Nothing was published."""

    status, code, title = 400, "bad_record", "A record is not valid"


class ConflictingHeaders(PsubdError):
    """The same thing was said twice, differently (dotted and hyphen name, path and header)."""

    status, code, title = 400, "conflicting_headers", "Two headers disagree"


class ReservedHeader(PsubdError):
    status, code, title = 400, "reserved_header", "The record header's name is reserved"


class NotSupported(PsubdError):
    """Belongs to a later version of psubd; never ignored silently."""

    status, code, title = 400, "not_supported", "Not supported yet"


class BadCredentials(PsubdError):
    """No credentials, unknown ones, ended ones, or a kind that the route does not take: one answer for all.

    :param challenge: the value of ``WWW-Authenticate``.
    """

    status, code, title = 401, "bad_credentials", "Credentials are missing or not valid"

    def __init__(self, detail: str, challenge: str = 'Basic realm="psubd", charset="UTF-8"', **members: object) -> None:
        super().__init__(detail, **members)
        self.challenge = challenge

    @property
    def headers(self) -> Mapping[str, str]:
        return {"www-authenticate": self.challenge}


class TopicNotBound(PsubdError):
    """The application is not bound to the topic for this, whether the topic exists or not."""

    status, code, title = 403, "topic_not_bound", "The application is not bound to the topic"


class Forbidden(PsubdError):
    """A known token whose role does not allow this (manager port). The contract's list of codes has no word of its own for it."""

    status, code, title = 403, "bad_credentials", "The token's role does not allow this"


class ForeignOrigin(PsubdError):
    """The manager was asked under a name that is not its own, or from another site's page: DNS rebinding, a forged cross-site request."""

    status, code, title = 403, "bad_header", "The request comes from a foreign host or origin"


class NoSuchRoute(PsubdError):
    status, code, title = 404, "no_such_route", "No such route"


class NotFound(PsubdError):
    """The thing that a manager's route names is not registered: that path has nothing behind it."""

    status, code, title = 404, "no_such_route", "Not registered"


class InstanceMissing(NotFound):
    """No consumer instance of that id in the group: it never was, left, or was discarded since nobody used it."""

    title = "No such consumer instance"


class PartitionMissing(NotFound):
    """The topic has no such partition."""

    title = "No such partition"


class TopicMissing(PsubdError):
    """Bound, but gone from the storage."""

    status, code, title = 404, "topic_missing", "The topic is gone from the storage"


class MethodNotAllowed(PsubdError):
    """:param allowed: the methods that the route has."""

    status, code, title = 405, "method_not_allowed", "The route does not have this method"

    def __init__(self, detail: str, allowed: tuple[str, ...], **members: object) -> None:
        super().__init__(detail, **members)
        self.allowed = allowed

    @property
    def headers(self) -> Mapping[str, str]:
        return {"allow": ", ".join(self.allowed)}


class NotAcceptable(PsubdError):
    status, code, title = 406, "not_acceptable", "No representation that the client accepts"


class RequestTimeout(PsubdError):
    """The client did not send its whole request in time."""

    status, code, title = 408, "bad_body", "The request did not arrive in time"


class Exists(PsubdError):
    status, code, title = 409, "exists", "It exists already"


class InstanceExists(Exists):
    """The group has a consumer instance of that id."""

    title = "The consumer instance exists"


class InUse(PsubdError):
    status, code, title = 409, "in_use", "It is in use"


class IllegalState(InUse):
    """What is asked of a consumer instance does not go with what it reads: topics, pattern and partitions exclude each other, and it works on
    partitions that it has."""

    title = "Not in this state"


class NoPlace(InUse):
    """The instance's group has no place on a partition, and ``auto.offset.reset`` is ``none``."""

    title = "No place to begin"


class LeaseLost(PsubdError):
    """``lost`` lists the tokens that took no effect; the others did."""

    status, code, title = 409, "lease_lost", "Leases were lost"


class NoDeadLetter(PsubdError):
    status, code, title = 409, "no_dead_letter", "The binding names no dead-letter topic"


class OffsetOutOfRange(PsubdError):
    status, code, title = 400, "offset_out_of_range", "The offset is past the end of the log"


class LengthRequired(PsubdError):
    status, code, title = 411, "length_required", "The request needs a length or chunked encoding"


class VersionMismatch(PsubdError):
    """Somebody wrote in between: ``If-Match`` names a version that is no longer the current one."""

    status, code, title = 412, "version_mismatch", "The version is not the current one"


class TooLarge(PsubdError):
    status, code, title = 413, "too_large", "Too large"


class TargetTooLong(PsubdError):
    status, code, title = 414, "too_large", "The request target is too long"


class UnsupportedMediaType(PsubdError):
    status, code, title = 415, "unsupported_media_type", "The body's type or coding is not supported"


class IdempotencyMismatch(PsubdError):
    status, code, title = 422, "idempotency_mismatch", "The idempotency key was used with another body"


class Retryable(PsubdError):
    """A failure that may pass.

    :param retry_after: seconds to wait before the next try, at least 1 (RFC 9110 section 10.2.3 has whole seconds).
    """

    retry_default: ClassVar[int] = 1

    def __init__(self, detail: str, retry_after: int | None = None, **members: object) -> None:
        super().__init__(detail, **members)
        self.retry_after = self.retry_default if retry_after is None else max(1, retry_after)

    @property
    def headers(self) -> Mapping[str, str]:
        return {"retry-after": str(self.retry_after)}


class RateLimited(Retryable):
    """Over the binding's rate.

    :param limit: what the rate allows a second, of the unit that ran out.
    :param remaining: what is left now. :param reset: seconds until it is whole again.
    """

    status, code, title = 429, "rate_limited", "Over the rate"

    def __init__(self, detail: str, retry_after: int | None = None, *, limit: int = 0, remaining: int = 0, reset: int = 1, **members: object) -> None:
        super().__init__(detail, retry_after, **members)
        self.limit, self.remaining, self.reset = limit, remaining, reset

    @property
    def headers(self) -> Mapping[str, str]:
        return {
            **super().headers,
            "ratelimit-limit": str(self.limit),
            "ratelimit-remaining": str(self.remaining),
            "ratelimit-reset": str(self.reset),
        }


class TooManyGroups(Retryable):
    status, code, title = 429, "too_many_groups", "The application has too many groups"
    retry_default = 60


class HeadTooLarge(PsubdError):
    status, code, title = 431, "head_too_large", "The request's head is too large"


class StorageUnavailable(Retryable):
    """The storage refused or could not be reached, and surely has not stored what it was given."""

    status, code, title = 503, "storage_unavailable", "The storage cannot take it now"


class RegistryUnavailable(Retryable):
    """The registry cannot be written now; nothing was changed."""

    status, code, title = 503, "storage_unavailable", "The registry cannot be written now"


class OwnershipInDoubt(Retryable):
    status, code, title = 503, "ownership_in_doubt", "The group's owner is not known now"


class Moved(OwnershipInDoubt):
    """The group is served by another node now, or is about to be. Nothing of it was done here."""


class PeerLost(OwnershipInDoubt):
    """No connection to the node that was asked, or it broke before the answer came: it may have done it or not."""


class PeerTimeout(OwnershipInDoubt):
    """The node that was asked did not answer in time: it may have done it or not."""


class OverBudget(Retryable):
    """psubd's own memory budget, or it is about to stop."""

    status, code, title = 503, "over_budget", "Busy"


class StorageTimeout(PsubdError):
    """No answer from the storage in time: the message may be there or not, and the detail says so."""

    status, code, title = 504, "storage_timeout", "No answer from the storage in time"


class ConfigError(Exception):
    """The configuration cannot be used.

    :param mistakes: every mistake found, each one line that names the setting and says what to do.
    """

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes
