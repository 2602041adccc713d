"""Where those wait whose group's owner is not known, or not reached, now."""

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall

from psubd.errors import OwnershipInDoubt
from psubd.interfaces import IClock, IPeers
from psubd.services.ownership import HERE, MOVING, Ownership
from psubd.services.polls import stopping

LOOK_MS = 100
"""How often is looked while somebody waits: nobody tells when a link comes about."""

DISBELIEF_MS = 200
"""How long nobody is sent to a place that said it does not serve the slot, unless the slot's seat changes: what this node sees of the claims comes
late."""


class Waiter:
    """:ivar found: fires with the place.

    :param left: called with it when it is cancelled.
    """

    __slots__ = ("found", "timer")

    def __init__(self, left: "Callable[[Waiter], None]") -> None:
        self.found: Deferred[str] = Deferred(lambda _: left(self))
        self.timer: IDelayedCall | None = None

    def end_timer(self) -> None:
        if self.timer is not None and self.timer.active():
            self.timer.cancel()


class Lobby:
    """Places are ``"here"`` and keys of members that are linked. Those who wait for one slot go in the order in which they came."""

    def __init__(self, ownership: Ownership, peers: IPeers, clock: IClock) -> None:
        self._ownership, self._peers, self._clock = ownership, peers, clock
        self._waiting: dict[int, dict[Waiter, None]] = {}
        self._disbelieved: dict[int, tuple[str, int]] = {}
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._end_listening: Callable[[], None] = ownership.listen(self._look)

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def where(self, slot: int) -> str | None:
        """Where the slot is served, if that can be asked now."""
        seat = self._ownership.seat(slot)
        if seat is None or seat == MOVING:
            return None
        if self._disbelieved and self._is_disbelieved(slot, seat):
            return None
        return seat if seat == HERE or self._peers.linked(seat) else None

    def find(self, slot: int, patience_ms: float) -> "Deferred[str]":
        """The place, as soon as there is one. Fails with OwnershipInDoubt after ``patience_ms``, at once where this node's lease has ended. May be
        cancelled."""
        place = self.where(slot)
        if place is not None and (place == HERE or self._ownership.lease_stands()):
            return succeed(place)
        if self._stopped:
            return fail(stopping())
        if not self._ownership.lease_stands():
            return fail(OwnershipInDoubt("this node does not reach the registry, and cannot tell now who serves the group; ask another one", 1))
        waiter = Waiter(partial(self._leave, slot))
        waiter.timer = self._clock.call_later(patience_ms, self._give_up, slot, waiter)
        self._waiting.setdefault(slot, {})[waiter] = None
        self._keep_looking()
        return waiter.found

    def disbelieve(self, slot: int, place: str) -> None:
        """``place`` said that it does not serve the slot."""
        self._disbelieved[slot] = (place, self._clock.elapsed_ms() + DISBELIEF_MS)

    def stop(self) -> None:
        """Nobody waits any more: they fail. Who comes later is still sent to a place that is there."""
        self._stopped = True
        self._end_listening()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for slot in list(self._waiting):
            for waiter in self._waiting.pop(slot):
                waiter.end_timer()
                waiter.found.errback(stopping())

    def _is_disbelieved(self, slot: int, seat: str) -> bool:
        place, until = self._disbelieved.get(slot, ("", 0))
        if place == seat and self._clock.elapsed_ms() < until:
            return True
        self._disbelieved.pop(slot, None)
        return False

    def _look(self) -> None:
        """Send those on who wait for a slot that has a place now."""
        stands = self._ownership.lease_stands() if self._waiting else True
        for slot in list(self._waiting):
            place = self.where(slot)
            if not stands and place != HERE:
                place = None
            if place is not None:
                self._send(slot, place)
            elif not stands:
                self._refuse(slot)

    def _send(self, slot: int, place: str) -> None:
        waiting = self._waiting.pop(slot)
        for waiter in waiting:
            waiter.end_timer()
        for waiter in waiting:
            if not waiter.found.called:
                waiter.found.callback(place)

    def _refuse(self, slot: int) -> None:
        for waiter in self._waiting.pop(slot, {}):
            waiter.end_timer()
            waiter.found.errback(OwnershipInDoubt("this node lost the registry, and cannot tell now who serves the group; ask another one", 1))

    def _leave(self, slot: int, waiter: Waiter) -> None:
        waiter.end_timer()
        own = self._waiting.get(slot, {})
        own.pop(waiter, None)
        if not own:
            self._waiting.pop(slot, None)

    def _give_up(self, slot: int, waiter: Waiter) -> None:
        self._leave(slot, waiter)
        seat = self._ownership.seat(slot)
        if seat is None or seat in (HERE, MOVING):
            waiter.found.errback(OwnershipInDoubt("no node serves the group now; ask again in a moment", 1))
        else:
            waiter.found.errback(OwnershipInDoubt(f"node {seat} serves the group, and this node does not reach it now; ask another one", 1))

    def _keep_looking(self) -> None:
        if self._timer is None or not self._timer.active():
            self._timer = self._clock.call_later(LOOK_MS, self._tick)

    def _tick(self) -> None:
        self._look()
        if self._waiting and not self._stopped:
            self._keep_looking()
