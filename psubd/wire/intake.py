"""One request's body on its way in: counted, inflated, kept in memory and nowhere else."""

from twisted.internet.defer import Deferred

from psubd.errors import BadHeader, LengthRequired, PsubdError, TooLarge
from psubd.interfaces import Route
from psubd.wire.coding import Gunzip, body_coding, packed_limit
from psubd.wire.head import Head
from psubd.wire.limits import Budget, WireSettings


class Intake:
    """Takes a body's bytes until it is whole or refused.

    :param limit: bytes that the body may have, once gzip is undone.
    :param keep: False: the body is counted and dropped.
    :ivar whole: fires with the body, or fails with the refusal (`PsubdError`).
    """

    def __init__(self, limit: int, budget: Budget, gunzip: Gunzip | None = None, keep: bool = True) -> None:
        self.limit = limit
        self.most = limit if gunzip is None else packed_limit(limit)
        self.budget = budget
        self.gunzip = gunzip
        self.keep = keep
        self.came = 0
        self.held = 0
        self.body = bytearray()
        self.whole: Deferred[bytes] = Deferred()

    def add(self, piece: bytes) -> None:
        """Take some. :raises PsubdError: TooLarge, BadBody or OverBudget."""
        self.came += len(piece)
        if self.came > self.most:
            raise too_large(self.limit, self.keep)
        if self.gunzip is not None:
            piece = self.gunzip.add(piece)
        if self.keep:
            self.budget.take(len(piece))
            self.held += len(piece)
            self.body += piece

    def end(self) -> None:
        """It is whole. :raises BadBody: where gzip is not."""
        if self.gunzip is not None:
            self.gunzip.end()
        body, self.body = bytes(self.body), bytearray()
        self.whole.callback(body)

    def fail(self, refusal: PsubdError) -> None:
        """It is refused; what came is let go."""
        self.release()
        self.whole.errback(refusal)

    def release(self) -> None:
        """The body is no longer in memory."""
        self.body = bytearray()
        self.budget.give(self.held)
        self.held = 0


def too_large(limit: int, keep: bool) -> TooLarge:
    """The refusal of a body over ``limit`` bytes."""
    return TooLarge(f"the body is larger than {limit} bytes" if keep else "this route takes no body")


def intake_for(head: Head, route: Route, budget: Budget, settings: WireSettings) -> Intake:
    """What takes the body that ``head`` announces to ``route``.

    :raises PsubdError: the refusal that the head alone can tell, so that nothing of the body needs to come."""
    gzip = body_coding(head.values(b"content-encoding"), route.gzip)
    if head.expect == "other":
        raise BadHeader("expect: only 100-continue can be met")
    if route.needs_length and head.length is None and not head.chunked:
        raise LengthRequired("send content-length, or the body chunked")
    limit, keep = (route.max_body, True) if route.max_body else (settings.stray_body_bytes, False)
    intake = Intake(limit, budget, Gunzip(limit) if gzip and keep else None, keep)
    if (head.length or 0) > intake.most:
        raise too_large(limit, keep)
    budget.check(head.length or 0)
    return intake


def simple(head: Head, route: Route) -> bool:
    """Whether a body of ``head`` that is here already, and within the route's bound and the budget, is the endpoint's as it stands: `intake_for`
    would refuse nothing and change nothing."""
    if head.chunked or head.expect == "other" or (head.length is None and route.needs_length):
        return False
    return (bool(route.max_body) or not head.length) and not head.values(b"content-encoding")
