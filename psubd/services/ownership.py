"""Which slots this node should serve, and how it comes by them and gives them up.

    Ownership(membership, peers, seats, clock, *, mode, reachable: Callable[[], bool], metrics=None)
        start() -> Deferred[None]    after the registry, the seats (`Subscriber`) and, or before, the peers
        drain() -> Deferred[None]    give all slots to other nodes; new ones are not taken any more
        stop() -> None               before the seats
        seat(slot) -> "here" | "moving" | a member's key | None

Looked at after each change of the membership and every second (`Ownership.review`). A slot is due to one of the eligible members
(`psubd.slots.rendezvous`), on every node to the same one as soon as all see the same members. It comes to where it is due so:

    nobody has it, and who had it is gone    claim, take over with nothing
    a living node has it                     take (verb): the other hands the groups over, and keeps its claim and the parcel
                                             release (verb): the other gives its claim back
                                             claim, take over with the parcel

Two steps, so that the parcel is safe on one of the two at any moment: where the link breaks, either can be repeated. The other takes the slot back,
with the parcel, where nobody comes for it any more. Where a claim has gone and its node still lives, it was given back for somebody who is
about to claim it: others wait (`GRACE_MS`), or they would go on without its parcel.
"""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from psubd.errors import InUse, OwnershipInDoubt, PsubdError
from psubd.interfaces import Claim, IClock, IMembership, IPeers, ISeats, Member
from psubd.services.ownership_duty import Duty
from psubd.services.ownership_parcels import Coming, Guests, Parting, Received, SlotAsked, nobody, pause, read_slot
from psubd.services.rounds import carried_through
from psubd.services.tenures import moved
from psubd.slots import slot_of

HERE = "here"
MOVING = "moving"

REVIEW_MS = 1_000
SOON_MS = 100
"""How soon it is looked again while a slot that is due here is not: its node may get linked, which nobody tells."""

AT_ONCE = 16
"""Slots that come here at a time."""

REST_MS = 1_000
"""After a slot could not be had."""

GRACE_MS = 2_000
"""How long a slot that a living node gave back is left to whom it was given back for."""

UNREACHABLE_MS = 10_000
"""A node that did not reach the storage for so long leaves its slots to others."""

STAGGER_MS = 2_000
"""One after another of them, so that the last one stays."""

TAKE_MS, RELEASE_MS = 60_000, 10_000
"""How long another node is waited for: its last commit may have to wait for the storage; its release for ZooKeeper."""

PATIENCE_MS = 1_000
"""How long one that asks for a slot waits for this node to see that it is due there."""

DRAIN_MS = 20_000
LOAD_MS = 10_000
"""How often the others are told of a load that has changed."""

log = Logger()


class Ownership:
    """:param mode: what this node serves; one that only publishes serves no group. :param reachable: whether the storage can be reached now."""

    def __init__(
        self,
        membership: IMembership,
        peers: IPeers,
        seats: ISeats,
        clock: IClock,
        *,
        mode: str,
        reachable: Callable[[], bool],
        metrics: CollectorRegistry | None = None,
    ) -> None:
        self._membership, self._peers, self._seats, self._clock = membership, peers, seats, clock
        self._mode, self._reachable = mode, reachable
        self._guests: Guests = nobody
        self._duty = Duty(membership)
        self._served: dict[int, int] = {}
        """The seats', as this node has made them: it is asked for each poll."""
        self._away_since: int | None = None
        self._declared: tuple[bool, int] | None = None
        self._declared_ms = 0
        self._holders: dict[int, Claim] = {}
        """Who had each slot when it was seen claimed last."""
        self._free_since: dict[int, int] = {}
        self._coming: set[int] = set()
        self._rests: dict[int, int] = {}
        self._received: dict[int, Received] = {}
        self._parting: dict[int, Parting] = {}
        self._listeners: list[Callable[[], None]] = []
        self._draining: list[Deferred[None]] = []
        self._drains = self._running = self._reviewing = self._again = False
        self._timer: IDelayedCall | None = None
        self._due_ms = 0
        self._bound: IDelayedCall | None = None
        self._end_listening: Callable[[], None] | None = None
        self._moves = Counter("psubd_slot_moves_total", "Slots that came to this node and left it", ["how"], registry=metrics)
        self._failures = Counter("psubd_slot_failures_total", "Slots that are due here and could not be had, at one try", registry=metrics)
        Gauge("psubd_slots_served", "Slots that this node serves", registry=metrics).set_function(lambda: len(self._served))

    # --- for compose

    def start(self) -> Deferred[None]:
        """Take what is due here, from now on. Fires at once."""
        self._running = True
        self._peers.serve("take", self._asked)
        self._peers.serve("release", self._released)
        self._end_listening = self._membership.listen(self.review)
        self.review()
        return succeed(None)

    def drain(self) -> Deferred[None]:
        """Leave all slots to other nodes. Fires when none is left, when there is nobody who takes them, or after `DRAIN_MS`."""
        done: Deferred[None] = Deferred()
        self._draining.append(done)
        if not self._drains:
            self._drains = True
            log.info("handing over {count} slots", count=len(self._served))
            self._bound = self._clock.call_later(DRAIN_MS, self._drained)
        self.review()
        return done

    def stop(self) -> None:
        """Nothing comes or goes any more."""
        self._running = False
        if self._end_listening is not None:
            self._end_listening()
            self._end_listening = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._drained()

    # --- for the switchboard

    def attend(self, guests: Guests) -> None:
        """Whom to ask back what other nodes are writing of a slot that leaves here."""
        self._guests = guests

    def seat(self, slot: int) -> str | None:
        """Where the slot is served: ``"here"``; a member's key; ``"moving"``: nowhere now, soon somewhere; None: there is no node that may."""
        if slot in self._served:
            return HERE
        claim = self._membership.claims().get(slot)
        if claim is None:
            return MOVING if self._duty.of(slot, self._drains) is not None else None
        return MOVING if claim.member == self._membership.key else claim.member

    def serves(self, group: str) -> bool:
        """Whether this node serves the group of that full name."""
        return slot_of(group, self._membership.slots) in self._served

    def lease_stands(self) -> bool:
        """Whether this node's own lease does: without it, it cannot tell who serves what."""
        return self._clock.elapsed_ms() < self._membership.lease_ends_ms()

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` when a seat may have changed. Returns what ends it."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    # --- looking

    def review(self) -> None:
        """See what follows from how things are now. What is called from here may call it again: then it goes round once more."""
        self._again = True
        if self._reviewing or not self._running:
            return
        self._reviewing = True
        try:
            while self._again:
                self._again = False
                self._look()
        finally:
            self._reviewing = False
        self._arm(SOON_MS if self._lacks() else REVIEW_MS)
        for changed in list(self._listeners):
            changed()

    def _look(self) -> None:
        now = self._clock.elapsed_ms()
        self._follow_claims(now)
        self._drop_lost()
        self._declare(now)
        self._take_back(now)
        if self.lease_stands():
            self._fetch(now)
        self._see_drained()

    def _arm(self, ms: int) -> None:
        """Look again in so many ms, or before."""
        due = self._clock.elapsed_ms() + ms
        if self._timer is not None and self._timer.active():
            if self._due_ms <= due:
                return
            self._timer.cancel()
        self._due_ms = due
        self._timer = self._clock.call_later(ms, self.review)

    def _lacks(self) -> bool:
        key = self._membership.key
        return any(slot not in self._served and slot not in self._coming for slot in self._duty.slots(key, self._drains))

    def _follow_claims(self, now: int) -> None:
        claims = self._membership.claims()
        for slot in range(self._membership.slots):
            claim = claims.get(slot)
            if claim is None:
                self._free_since.setdefault(slot, now)
            else:
                self._holders[slot] = claim
                self._free_since.pop(slot, None)

    def _drop_lost(self) -> None:
        claims, key = self._membership.claims(), self._membership.key
        for slot, epoch in list(self._served.items()):
            if claims.get(slot) != Claim(key, epoch):
                log.info("slot {slot} is not this node's any more", slot=slot)
                self._moves.labels("dropped").inc()
                self._seats.drop(slot)
                self._see_seats()
        for slot, parting in list(self._parting.items()):
            if claims.get(slot) != Claim(key, parting.epoch) and not parting.releasing:
                del self._parting[slot]

    # --- what the others are told

    def _declare(self, now: int) -> None:
        eligible, load = self._eligible(now), self._seats.loaded()
        said = None if self._declared is None else self._declared[0]
        if said == eligible and (self._declared == (eligible, load) or now - self._declared_ms < LOAD_MS):
            return
        if said != eligible:
            log.info("this node {does} serve groups", does="may" if eligible else "does not")
        self._declared, self._declared_ms = (eligible, load), now
        # a membership that cannot say it now says it as soon as it can
        self._membership.declare(eligible, load).addErrback(lambda failure: failure.trap(PsubdError) and None)

    def _eligible(self, now: int) -> bool:
        if self._reachable():
            self._away_since = None
        elif self._away_since is None:
            self._away_since = now
        if self._mode == "pub" or self._drains:
            return False
        return self._away_since is None or not self._gives_way(now - self._away_since)

    def _gives_way(self, away_ms: int) -> bool:
        """Whether it leaves its slots to others since it did not reach the storage for so long. They go one after another, so that where nobody
        reaches it the last one stays, and all that have left stay away for its sake."""
        members, key = self._membership.members(), self._membership.key
        if not any(member.eligible for member in members.values() if member.key != key):
            return False
        return away_ms >= UNREACHABLE_MS + STAGGER_MS * sorted(members).index(key) if key in members else False

    # --- coming

    def _fetch(self, now: int) -> None:
        """Begin to get what is due here and is not, and what is claimed for this node and not served."""
        claims, members, key = self._membership.claims(), self._membership.members(), self._membership.key
        due = self._duty.slots(key, self._drains)
        own = [slot for slot, claim in claims.items() if claim.member == key]
        for slot in dict.fromkeys([*due, *own]):
            if len(self._coming) >= AT_ONCE:
                return
            if slot in self._served or slot in self._coming or slot in self._parting or self._rests.get(slot, 0) > now:
                continue
            claim = claims.get(slot)
            if self._is_free(slot, members, now) if claim is None else claim.member == key:
                self._come(slot, self._claim(slot))
            elif claim is not None and claim.member in members and self._peers.linked(claim.member):
                self._come(slot, self._take(slot, claim))

    def _is_free(self, slot: int, members: Mapping[str, Member], now: int) -> bool:
        """Whether nobody is about to claim it with a parcel that this node has not."""
        former, received = self._holders.get(slot), self._received.get(slot)
        if not self._membership.claims() or (received is not None and received.claim == former):
            return True
        if former is not None and former.member not in members:
            return True  # it died, or its session did
        others = any(member.key != self._membership.key for member in members.values())
        return not others or now - self._free_since.get(slot, now) >= GRACE_MS

    def _come(self, slot: int, coming: Coming) -> None:
        self._coming.add(slot)
        Deferred.fromCoroutine(self._carry(slot, coming))

    async def _carry(self, slot: int, coming: Coming) -> None:
        try:
            await coming
        except PsubdError as refused:
            self._failed(slot, refused.detail)
        except Exception:  # noqa: BLE001 - a bug of ours: told, and tried again
            log.failure("slot {slot} could not be had", slot=slot)
            self._failed(slot, "see above")
        finally:
            self._coming.discard(slot)
        self.review()

    def _failed(self, slot: int, why: str) -> None:
        self._failures.inc()
        self._rests[slot] = self._clock.elapsed_ms() + REST_MS
        log.debug("slot {slot} could not be had, trying again: {why}", slot=slot, why=why)

    async def _take(self, slot: int, claim: Claim) -> None:
        """From a living node."""
        asked = SlotAsked(slot, claim.epoch).encode()
        parcel: bytes = await self._peers.call(claim.member, "take", asked, TAKE_MS)
        self._received[slot] = received = Received(claim, parcel, self._clock.elapsed_ms())
        await self._peers.call(claim.member, "release", asked, RELEASE_MS)
        received.sure = True
        await self._claim(slot)

    async def _claim(self, slot: int) -> None:
        """Nobody has it, or this node has and does not serve it."""
        key, former = self._membership.key, self._holders.get(slot)
        received = self._received.get(slot)
        try:
            epoch: int = await self._membership.claim(slot)
        except InUse:
            self._received.pop(slot, None)
            raise
        self._received.pop(slot, None)
        self._rests.pop(slot, None)
        if self._membership.key != key or not self._running or slot in self._served:
            return
        parcel = received.parcel if received is not None and received.counts(former, self._clock.elapsed_ms()) else b""
        self._moves.labels("taken" if parcel else "claimed").inc()
        self._seats.take_over(slot, epoch, parcel or None)
        self._see_seats()

    # --- going

    def _asked(self, member: str, body: bytes) -> Deferred[bytes]:
        """The verb "take": another node wants a slot that this one serves. Said again it gets the same parcel, until it has released it."""
        asked = read_slot(body)
        return Deferred.fromCoroutine(self._hand_over(member, asked))

    async def _hand_over(self, member: str, asked: SlotAsked) -> bytes:
        slot, epoch = asked.slot, asked.epoch
        if slot not in self._parting:
            await self._see_due(member, slot)
        parting = self._parting.get(slot)
        if parting is None:
            if not self._running or self._served.get(slot) != epoch or self._membership.epoch_of(slot) != epoch:
                raise moved()
            parting = self._part(slot, epoch, member)
        if parting.epoch != epoch or parting.releasing:
            raise moved()
        parting.to, parting.asked_ms = member, self._clock.elapsed_ms()
        await parting.packed()
        parting.asked_ms = self._clock.elapsed_ms()
        return parting.parcel

    async def _see_due(self, member: str, slot: int) -> None:
        """This node may hear later than the other who is there. :raises OwnershipInDoubt: the slot is not due to it, as far as this node sees."""
        until = self._clock.elapsed_ms() + PATIENCE_MS
        while self._duty.of(slot, self._drains) != member:
            if self._clock.elapsed_ms() >= until or not self._running:
                raise OwnershipInDoubt(f"slot {slot} is not due to node {member}, as this node sees it")
            await pause(self._clock, SOON_MS)

    def _part(self, slot: int, epoch: int, to: str) -> Parting:
        parting = self._parting[slot] = Parting(epoch, to, self._clock.elapsed_ms())
        self._moves.labels("handed_over").inc()
        handing = self._seats.hand_over(slot)
        self._see_seats()
        packing = Deferred.fromCoroutine(parting.pack(handing, slot, self._guests, self._clock))
        packing.addErrback(lambda failure: log.failure("slot {slot} could not be handed over whole", failure, slot=slot))
        packing.addCallback(lambda _: self.review())
        return parting

    def _released(self, member: str, body: bytes) -> Deferred[bytes]:
        """The verb "release": the other node has the parcel."""
        return carried_through(self._release(read_slot(body)))

    async def _release(self, asked: SlotAsked) -> bytes:
        slot = asked.slot
        parting = self._parting.get(slot)
        if parting is None or parting.epoch != asked.epoch:
            if self._membership.claims().get(slot) == Claim(self._membership.key, asked.epoch):
                raise OwnershipInDoubt(f"slot {slot} was taken back")
            return b""
        parting.releasing = True
        try:
            await self._membership.release(slot)
        except PsubdError:
            parting.releasing = False
            raise
        if self._parting.get(slot) is parting:
            del self._parting[slot]
        self.review()
        return b""

    def _take_back(self, now: int) -> None:
        """What nobody comes for any more is served here again: the claim stood all the time."""
        members = self._membership.members()
        for slot, parting in list(self._parting.items()):
            if parting.ready and not parting.releasing and parting.forsaken(members, now) and self._membership.epoch_of(slot) == parting.epoch:
                del self._parting[slot]
                log.info("slot {slot} was not fetched, and is served here again", slot=slot)
                self._moves.labels("taken_back").inc()
                self._seats.take_over(slot, parting.epoch, parting.parcel or None)
                self._see_seats()

    def _see_seats(self) -> None:
        self._served = dict(self._seats.seated())

    # --- the end

    def _see_drained(self) -> None:
        if not self._drains:
            return
        left = self._served or self._parting or self._coming
        if not left or not self._duty.anybody(self._drains):
            self._drained()

    def _drained(self) -> None:
        if self._bound is not None and self._bound.active():
            self._bound.cancel()
        waiting, self._draining = self._draining, []
        for done in waiting:
            done.callback(None)
