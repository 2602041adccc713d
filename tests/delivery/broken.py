"""Ledgers with a fault each, that the random histories have to find."""

from psubd.delivery.ledger import Ledger


class PastAHole(Ledger):
    """Commits what was done past a hole as if there were none."""

    def place(self):
        place = super().place()
        return place._replace(offset=place.done[0][1], done=place.done[1:]) if place.done else place


class TwiceAtTheInstant(Ledger):
    """Leases a message again at the last instant at which a lease of it stands still: for that moment two hold it."""

    def lease(self, now, *arguments, **named):
        self.tick(now + 1)
        return super().lease(now, *arguments, **named)


class ForgetsAcks(Ledger):
    """Takes the committed offset from a commit, and not what was acked past it."""

    def __init__(self, offset, done=(), attempts=(), **named):
        super().__init__(offset, (), attempts, **named)


class PassesOut(Ledger):
    """Looks past what is out, as though it were nobody's."""

    def barrier(self, offset):
        return None
