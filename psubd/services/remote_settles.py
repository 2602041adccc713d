"""What became of answers with messages of other nodes' groups, on its way to those nodes: said again until it is answered, or of no use any more."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from psubd.errors import PsubdError
from psubd.interfaces import IClock, IPeers
from psubd.services.remote_codec import encode

GIVEN_UP_MS = 10_000
"""How long after its link broke an owner waits to hear what became of an answer."""

AGAIN_MS = 200
TOLD_MS = 5_000

MOST = 2_000
"""Answers that one message tells of."""

log = Logger()


class Settler:
    """To one member. One message at a time: what comes meanwhile goes together with the next.

    :param done: called when nothing is left to say.
    """

    def __init__(self, member: str, peers: IPeers, clock: IClock, done: "Callable[[Settler], None]") -> None:
        self.member = member
        self._peers, self._clock, self._done = peers, clock, done
        self._left: dict[int, tuple[int, int]] = {}
        """By number: how many were handed over, and when that was told here."""
        self._telling = False
        self._timer: IDelayedCall | None = None

    def tell(self, number: int, count: int) -> None:
        """Of poll ``number`` the first ``count`` messages were handed over."""
        self._left[number] = (count, self._clock.elapsed_ms())
        self._go_on()

    def stop(self) -> None:
        """Say nothing more."""
        self._left.clear()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _go_on(self) -> None:
        if self._telling or (self._timer is not None and self._timer.active()):
            return
        if not self._left:
            return self._done(self)
        self._telling = True
        said = [(number, count) for number, (count, _) in list(self._left.items())[:MOST]]
        telling: Deferred[bytes] = self._peers.call(self.member, "settle", encode(said), TOLD_MS)
        telling.addCallbacks(self._told, self._untold, (said,))
        return None

    def _told(self, answer: bytes, said: list[tuple[int, int]]) -> None:
        self._telling = False
        for number, _ in said:
            self._left.pop(number, None)
        self._go_on()

    def _untold(self, failure: Failure) -> None:
        """The link may come back before the owner gives up."""
        self._telling = False
        if failure.check(PsubdError) is None:
            log.failure("telling node {member} what became of answers broke", failure, member=self.member)
        since = self._clock.elapsed_ms() - GIVEN_UP_MS
        self._left = {number: (count, at) for number, (count, at) in self._left.items() if at > since}
        if self._left:
            self._timer = self._clock.call_later(AGAIN_MS, self._go_on)
        else:
            self._done(self)


class Settles:
    """To all members."""

    def __init__(self, peers: IPeers, clock: IClock) -> None:
        self._peers, self._clock = peers, clock
        self._to: dict[str, Settler] = {}
        self._quiet: list[Deferred[None]] = []

    def tell(self, member: str, number: int, count: int) -> None:
        """Of the poll ``number``, which ``member`` answered, the first ``count`` messages were handed over."""
        settler = self._to.get(member)
        if settler is None:
            settler = self._to[member] = Settler(member, self._peers, self._clock, self._said)
        settler.tell(number, count)

    def quiet(self) -> "Deferred[None]":
        """Fires when nothing is left to say. May be cancelled."""
        waiting: Deferred[None] = Deferred(lambda waiting: self._quiet.remove(waiting))
        self._quiet.append(waiting)
        self._see_quiet()
        return waiting

    def stop(self) -> None:
        """Say nothing more."""
        settlers, self._to = self._to, {}
        for settler in settlers.values():
            settler.stop()
        self._see_quiet()

    def _said(self, settler: Settler) -> None:
        if self._to.get(settler.member) is settler:
            del self._to[settler.member]
        self._see_quiet()

    def _see_quiet(self) -> None:
        if not self._to:
            waiting, self._quiet = self._quiet, []
            for waiter in waiting:
                waiter.callback(None)
