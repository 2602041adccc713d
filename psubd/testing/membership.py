"""Membership without ZooKeeper: several nodes of one process, whose sessions, leases and views the test has in its hands."""

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from psubd import __version__
from psubd.errors import InUse, PsubdError, RegistryUnavailable
from psubd.interfaces import Claim, IClock, IMembership, Member

SESSION_MS = 10_000
MARGIN_MS = 1000


class Ensemble:
    """What all of them share: the znodes. :ivar zxid: rises with each change."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.zxid = 0
        self.members: dict[str, Member] = {}
        self.claims: dict[int, Claim] = {}
        self.nodes: list[MemoryMembership] = []

    def next(self) -> int:
        self.zxid += 1
        return self.zxid

    def end(self, key: str) -> None:
        """The session's znodes are gone."""
        self.members.pop(key, None)
        for slot in [slot for slot, claim in self.claims.items() if claim.member == key]:
            del self.claims[slot]
        self.next()
        self.show()

    def show(self) -> None:
        """Every node sees what there is, unless the test keeps it from that."""
        for node in list(self.nodes):
            node.look()


@implementer(IMembership)
class MemoryMembership:
    """One node's view. It has joined when it is made, and its lease goes on by itself: as though ZooKeeper had just answered, at any moment.

    :param beside: another node of the same ensemble. :param slots: of a new ensemble; a node beside takes the other's.
    :ivar refuse: set it, and `claim`, `release`, `declare` and `locate` fail with it and change no znode.
    :ivar calls: what was asked of it, in order: ("claim", slot), ("release", slot), ("declare", eligible, load), ("locate", address).
    """

    def __init__(
        self,
        clock: IClock,
        beside: "MemoryMembership | None" = None,
        *,
        id: str | None = None,
        address: str | None = None,
        slots: int = 256,
        mode: str = "pubsub",
        eligible: bool = True,
        session_ms: int = SESSION_MS,
    ) -> None:
        self._clock = clock
        self._ensemble: Ensemble = Ensemble(slots) if beside is None else beside._ensemble
        self._ensemble.nodes.append(self)
        self.slots = self._ensemble.slots
        self.id = id or f"node{len(self._ensemble.nodes)}"
        self.key = ""
        self.refuse: PsubdError | None = None
        self.calls: list[tuple[Any, ...]] = []
        self._address, self._mode, self._eligible, self._load = address, mode, eligible, 0
        self._started_ms = clock.epoch_ms()
        self._session_ms = session_ms
        self._members: dict[str, Member] = {}
        self._claims: dict[int, Claim] = {}
        self._listeners: list[Callable[[], None]] = []
        self._blind = False
        self._lease_ends: int | None = None
        self._timer: IDelayedCall | None = None
        self.join()

    # --- IMembership

    def members(self) -> Mapping[str, Member]:
        return self._members

    def claims(self) -> Mapping[int, Claim]:
        return self._claims

    def epoch_of(self, slot: int) -> int | None:
        claim = self._claims.get(slot)
        stands = claim is not None and claim.member == self.key and self._clock.elapsed_ms() < self.lease_ends_ms()
        return claim.epoch if stands and claim is not None else None

    def lease_ends_ms(self) -> int:
        if self._lease_ends is not None:
            return self._lease_ends
        return self._clock.elapsed_ms() + self._session_ms - MARGIN_MS

    def session_ms(self) -> int:
        return self._session_ms

    def claim(self, slot: int) -> Deferred[int]:
        self.calls.append(("claim", slot))
        refused = self._refused()
        if refused is not None:
            return fail(refused)
        holder = self._ensemble.claims.get(slot)
        if holder is not None:
            return succeed(holder.epoch) if holder.member == self.key else fail(InUse(f"slot {slot} is claimed by {holder.member}"))
        epoch = self._ensemble.next()
        self._ensemble.claims[slot] = Claim(self.key, epoch)
        self._ensemble.show()
        return succeed(epoch)

    def release(self, slot: int) -> Deferred[None]:
        self.calls.append(("release", slot))
        refused = self._refused()
        if refused is not None:
            return fail(refused)
        holder = self._ensemble.claims.get(slot)
        if holder is not None and holder.member == self.key:
            del self._ensemble.claims[slot]
            self._ensemble.next()
            self._ensemble.show()
        return succeed(None)

    def declare(self, eligible: bool, load: int) -> Deferred[None]:
        self.calls.append(("declare", eligible, load))
        refused = self._refused()
        if refused is not None:
            return fail(refused)
        self._eligible, self._load = eligible, load
        self._write()
        return succeed(None)

    def locate(self, address: str | None) -> Deferred[None]:
        self.calls.append(("locate", address))
        refused = self._refused()
        self._address = address
        if refused is not None:
            return fail(refused)
        self._write()
        return succeed(None)

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    # --- what the test does to the node

    def join(self) -> None:
        """Begin a session: another key than before. A session that stands is ended first."""
        if self.key:
            self.leave()
        self.key = f"{self.id}-{self._ensemble.next():x}"
        self._lease_ends = None
        self._blind = False
        self._write()

    def leave(self) -> None:
        """End the session in good order: its znodes are gone, its lease has ended. Its key stays what it was until `join`."""
        self.end_lease()
        self._ensemble.end(self.key)

    def expire(self) -> None:
        """ZooKeeper ends the session, and all others see it; the node itself hears of nothing until `join`, and its lease is what it was."""
        self._blind = True
        self._ensemble.end(self.key)

    def end_lease(self) -> None:
        """The lease ends now; the znodes stand."""
        self._stop_timer()
        self._lease_ends = self._clock.elapsed_ms()
        self._tell()

    def silence(self) -> None:
        """No answer from ZooKeeper from now on: the lease ends one session less a second from here, and listeners hear of that when it does."""
        self._stop_timer()
        self._lease_ends = self.lease_ends_ms()
        self._timer = self._clock.call_later(self._lease_ends - self._clock.elapsed_ms(), self._tell)

    def answered(self) -> None:
        """ZooKeeper answers again: the lease goes on. Whether the session still stands is another matter (`expire`)."""
        self._stop_timer()
        self._lease_ends = None
        self._tell()

    def close_eyes(self) -> None:
        """This node sees no change of members and claims until `open_eyes`."""
        self._blind = True

    def open_eyes(self) -> None:
        """It sees what there is."""
        self._blind = False
        self.look()

    # --- the ensemble's

    def look(self) -> None:
        """Take over what there is, and tell the listeners."""
        if self._blind:
            return
        self._members = {key: mine(member, key == self.key) for key, member in self._ensemble.members.items()}
        self._claims = dict(self._ensemble.claims)
        self._tell()

    def _write(self) -> None:
        self._ensemble.members[self.key] = Member(
            key=self.key,
            id=self.id,
            address=self._address,
            version=__version__,
            mode=self._mode,
            started_ms=self._started_ms,
            eligible=self._eligible,
            load=self._load,
            self=False,
        )
        self._ensemble.next()
        self._ensemble.show()

    def _refused(self) -> PsubdError | None:
        if self.refuse is not None:
            return self.refuse
        if self.key not in self._ensemble.members:
            return RegistryUnavailable(f"the session of {self.key} has ended")
        return None

    def _tell(self) -> None:
        for changed in list(self._listeners):
            changed()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


def mine(member: Member, own: bool) -> Member:
    """The member as the node sees it that it is, or is not."""
    return Member(member.key, member.id, member.address, member.version, member.mode, member.started_ms, member.eligible, member.load, own)
