"""The owner's side: what other nodes, which hold the clients' connections, ask of the groups that are served here.

A poll of another node waits in the group's queue like any other. What it gets is out until the other node tells what became of it (`settle`), under a
number that the ask gave itself: so that one that was cancelled while its answer was on its way can be told too. Where the link breaks, the other
node has `GIVE_BACK_MS` to come back and tell; after that explicit leases stay as they are, and lapse; what is done by being written is given
back, for the other node has broken it off by then: it writes no longer than it was granted last (`psubd.services.remote_holds`). A slot that is to
move waits for that only (`Owner.gone`): some `HOLD_MS` from when the other node fell silent.
"""

from collections.abc import Callable, Iterable
from functools import partial

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from psubd.errors import BadCredentials, OwnershipInDoubt, PsubdError
from psubd.interfaces import IClock, IConsumers, IGate, IMembership, IPeers, IRedriver, IRegistry, ISubscriber
from psubd.model import Delivery, Grant
from psubd.services.ownership import HERE, Ownership
from psubd.services.remote_codec import (
    AskedInstance,
    AskedLeases,
    AskedName,
    AskedPoll,
    AskedRedrive,
    AskedReset,
    Caller,
    decode,
    decode_poll,
    decode_settled,
    encode,
    encode_messages,
)
from psubd.services.remote_holds import Granted
from psubd.services.remote_instances import called
from psubd.services.rounds import Job, Rounds
from psubd.services.tenures import moved
from psubd.slots import slot_of

GIVE_BACK_MS = 10_000
RECALL_MS = 5_000
"""How long the answer to a recall is waited for: a link that is silent for so long breaks."""

NOTHING = encode_messages(())

log = Logger()


class Out:
    """An answer that another node is writing.

    :ivar auto: some of it is done by being written whole. :ivar recalled: the other node writes nothing of it any more. :ivar doomed: its link
        broke: it is given up in a while. :ivar over_ms: nothing of it is written after that; None: as long as the other node asks.
    """

    __slots__ = ("auto", "delivery", "doomed", "member", "number", "over_ms", "recalled", "slot")

    def __init__(self, member: str, number: int, slot: int, delivery: Delivery) -> None:
        self.member, self.number, self.slot, self.delivery = member, number, slot, delivery
        self.auto = any(delivered.token is None for delivered in delivery.messages)
        self.recalled = self.doomed = False
        self.over_ms: int | None = None

    def stands(self) -> bool:
        return self.delivery.stands is None or self.delivery.stands()

    def falls(self) -> bool:
        """Whether somebody else may get its messages once the slot has left."""
        return self.auto or not self.stands()

    def give_up(self) -> int:
        """How many of its messages count as handed over where nobody tells: all that have explicit leases. In one that has both kinds those come
        first (`psubd.services.handouts.Hand.arrange`), and the auto ones are done only with the last of it."""
        return len(self.delivery.messages) - 1 if self.auto and len(self.delivery.messages) > 1 else 0 if self.auto else len(self.delivery.messages)


def answered(answer: Callable[[bytes], Job[bytes]], member: str, body: bytes) -> "Deferred[bytes]":
    """What the verb gives, whoever asks."""
    return Deferred.fromCoroutine(answer(body))


class Owner:
    """:ivar outs: answers that other nodes are writing, by the member and its poll's number."""

    def __init__(
        self,
        subscriber: ISubscriber,
        consumers: IConsumers,
        redriver: IRedriver,
        ownership: Ownership,
        membership: IMembership,
        peers: IPeers,
        registry: IRegistry,
        gate: IGate,
        clock: IClock,
    ) -> None:
        self.outs: dict[tuple[str, int], Out] = {}
        self._subscriber, self._redriver, self._ownership, self._membership = subscriber, redriver, ownership, membership
        self._consumers = consumers
        self._peers, self._registry, self._gate, self._clock = peers, registry, gate, clock
        self._by_slot: dict[int, dict[tuple[str, int], Out]] = {}
        self._going: dict[int, list[Deferred[None]]] = {}
        self._catching_up = Rounds(self._sync)
        self._granted_holds = Granted(membership, clock)
        self._looking: IDelayedCall | None = None
        self._timers: set[IDelayedCall] = set()
        self._ends = [peers.on_lost(self._lost), membership.listen(self._look_soon)]

    def serve(self) -> None:
        """Take the verbs of the other nodes, and the ownership's recalls."""
        self._peers.serve("poll", self._poll)
        self._peers.serve("settle", self._settle)
        self._peers.serve("hold", self._granted_holds.hold)
        answers: dict[str, Callable[[bytes], Job[bytes]]] = {
            "ack": self._ack,
            "nack": self._nack,
            "extend": self._extend,
            "group": self._group,
            "groups": self._groups,
            "reset": self._reset,
            "forget": self._forget,
            "redrive": self._redrive,
            "instance": self._instance,
        }
        for verb, answer in answers.items():
            self._peers.serve(verb, partial(answered, answer))
        self._ownership.attend(self)

    def stop(self) -> None:
        """What is out is left as it is."""
        for end in self._ends:
            end()
        for timer in [*self._timers, *([] if self._looking is None else [self._looking])]:
            if timer.active():
                timer.cancel()
        self._timers.clear()
        self.outs.clear()
        self._by_slot.clear()
        for slot in list(self._going):
            self._see_gone(slot)

    # --- polls

    def _poll(self, member: str, body: bytes) -> "Deferred[bytes]":
        asked = decode_poll(body)
        if asked.caller.seen > self._registry.snapshot().serial:
            return Deferred.fromCoroutine(self._poll_later(member, asked))
        return self._begin(member, asked)

    async def _poll_later(self, member: str, asked: AskedPoll) -> bytes:
        await self._catch_up(asked.caller.seen)
        return await self._begin(member, asked)

    def _begin(self, member: str, asked: AskedPoll) -> "Deferred[bytes]":
        slot = self._here(slot_of(asked.ask.group, self._membership.slots))
        polling: Deferred[Delivery] = self._subscriber.poll(self._grant(asked.caller), asked.ask)
        return polling.addCallback(self._granted, Out, member, asked.number, slot)

    def _granted(self, delivery: Delivery, kind: type[Out], member: str, number: int, slot: int) -> bytes:
        if not delivery.messages:
            delivery.settle(0)
            return NOTHING
        try:
            answer = encode_messages(delivery.messages)
        except BaseException:
            delivery.settle(0)
            raise
        out = self.outs[member, number] = kind(member, number, slot, delivery)
        self._by_slot.setdefault(slot, {})[member, number] = out
        return answer

    def _settle(self, member: str, body: bytes) -> bytes:
        for number, count in decode_settled(body):
            self._settle_one(member, number, count)
        return b""

    def _settle_one(self, member: str, number: int, count: int) -> None:
        """One that is not out: it was settled before, and the answer to that was lost; or it got nothing."""
        out = self.outs.pop((member, number), None)
        if out is None:
            return
        own = self._by_slot[out.slot]
        del own[member, number]
        if not own:
            del self._by_slot[out.slot]
        try:
            out.delivery.settle(max(0, count))
        except Exception:  # noqa: BLE001 - the others of the same message must be settled too
            log.failure("settling an answer of node {member} broke", member=member)
        self._see_gone(out.slot)

    def _grant(self, caller: Caller) -> Grant:
        """As the gate here sees it. :raises BadCredentials: the application is another one now; the rest is judged by who takes the grant."""
        found = self._gate.grant_of(caller.application)
        if found is None or found.application.serial != caller.serial:
            raise BadCredentials("the credentials are not valid any more")
        return Grant(found.application, "subscribe", caller.until_ms, found.bindings, caller.digests)

    def _here(self, slot: int) -> int:
        """:raises Moved: it is not served here."""
        if self._ownership.seat(slot) != HERE:
            raise moved()
        return slot

    async def _catch_up(self, seen: int) -> None:
        """See what the other node had seen. :raises OwnershipInDoubt: it cannot be seen now."""
        if seen > self._registry.snapshot().serial:
            try:
                await self._catching_up.next()
            except PsubdError as refused:
                raise OwnershipInDoubt(f"the group's node cannot see now what the registry says: {refused.detail}", 1) from refused

    async def _sync(self) -> None:
        await self._registry.sync()

    # --- what befalls those that are out

    def _lost(self, member: str) -> None:
        over = self._granted_holds.lost(member)
        own = [out for out in self.outs.values() if out.member == member]
        for out in own:
            out.over_ms = over if out.over_ms is None else out.over_ms
        self._doom([out for out in own if not out.doomed])

    def _doom(self, outs: list[Out]) -> None:
        """Give them up, unless the other node tells before."""
        if not outs:
            return
        for out in outs:
            out.doomed = True

        def over() -> None:
            for out in outs:
                if self.outs.get((out.member, out.number)) is out:
                    self._settle_one(out.member, out.number, out.give_up())

        self._later(GIVE_BACK_MS, over)

    def _later(self, ms: int, act: Callable[[], None]) -> None:
        def due() -> None:
            self._timers.discard(timer)
            act()

        timer = self._clock.call_later(ms, due)
        self._timers.add(timer)

    def _look_soon(self) -> None:
        if self._looking is None and self.outs:
            self._looking = self._clock.call_later(0, self._look)

    def _look(self) -> None:
        """Call back what must not be given to anybody any more."""
        self._looking = None
        self._call_back(out for out in self.outs.values() if not out.stands())

    def _call_back(self, outs: Iterable[Out]) -> None:
        members: dict[str, list[Out]] = {}
        for out in outs:
            if not out.recalled and not out.doomed:
                members.setdefault(out.member, []).append(out)
        for member, own in members.items():
            calling: Deferred[bytes] = self._peers.call(member, "recall", encode([out.number for out in own]), RECALL_MS)
            calling.addCallback(self._recalled, member, own)
            calling.addErrback(self._unrecalled, member, own)

    def _recalled(self, body: bytes, member: str, outs: list[Out]) -> None:
        for number, count in decode_settled(body):
            self._settle_one(member, number, count)
        for out in outs:
            out.recalled = True
            self._see_gone(out.slot)

    def _unrecalled(self, failure: Failure, member: str, outs: list[Out]) -> None:
        """As though the link had broken, which it does, or has. Where it does not, the other node is granted nothing more until they are given up:
        what it has falls before."""
        if failure.check(PsubdError) is None:
            log.failure("calling answers back broke", failure)
        if self._peers.linked(member):
            over = self._granted_holds.refuse(member)
            self._later(GIVE_BACK_MS, lambda: self._granted_holds.relent(member))
            for out in outs:
                out.over_ms = over if out.over_ms is None else out.over_ms
        self._doom([out for out in outs if not out.doomed and self.outs.get((out.member, out.number)) is out])

    # --- for the ownership (`psubd.services.ownership_parcels.Guests`)

    def recall(self, slot: int) -> None:
        """Those with explicit leases only may go on while these go with the slot."""
        self._call_back(out for out in list(self._by_slot.get(slot, {}).values()) if out.falls())

    def gone(self, slot: int) -> "Deferred[None]":
        if not self._writing(slot):
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._going.setdefault(slot, []).append(waiting)
        self._watch(slot)
        return waiting

    def _writing(self, slot: int) -> list[Out]:
        return [out for out in self._by_slot.get(slot, {}).values() if out.falls() and not out.recalled]

    def _watch(self, slot: int) -> None:
        """Wait for no node longer than it can write: one that does not answer has broken off what it has once what it was granted is over."""
        now = self._clock.elapsed_ms()
        for out in self._writing(slot):
            out.recalled = now >= self._over_ms(out)
        self._see_gone(slot)
        if slot in self._going:
            self._later(max(1, min(map(self._over_ms, self._writing(slot))) - now), lambda: self._watch(slot))

    def _over_ms(self, out: Out) -> int:
        return self._granted_holds.over_ms(out.member) if out.over_ms is None else out.over_ms

    def _see_gone(self, slot: int) -> None:
        if slot in self._going and not self._writing(slot):
            for waiting in self._going.pop(slot):
                waiting.callback(None)

    # --- what else is asked

    async def _ack(self, body: bytes) -> bytes:
        asked, grant = await self._leases(body)
        return encode(await self._subscriber.ack(grant, asked.tokens))

    async def _nack(self, body: bytes) -> bytes:
        asked, grant = await self._leases(body)
        return encode(await self._subscriber.nack(grant, asked.tokens, asked.ms, asked.dead))

    async def _extend(self, body: bytes) -> bytes:
        asked, grant = await self._leases(body)
        return encode(await self._subscriber.extend(grant, asked.tokens, asked.ms))

    async def _leases(self, body: bytes) -> tuple[AskedLeases, Grant]:
        asked: AskedLeases = decode(body, AskedLeases)
        await self._catch_up(asked.caller.seen)
        self._here(asked.slot)
        return asked, self._grant(asked.caller)

    async def _group(self, body: bytes) -> bytes:
        asked: AskedName = decode(body, AskedName)
        await self._for(asked.name, asked.seen)
        return encode(await self._subscriber.group(asked.name or ""))

    async def _groups(self, body: bytes) -> bytes:
        asked: AskedName = decode(body, AskedName)
        await self._catch_up(asked.seen)
        return encode(await self._subscriber.groups(asked.name, self._ownership.serves))

    async def _reset(self, body: bytes) -> bytes:
        asked: AskedReset = decode(body, AskedReset)
        await self._for(asked.group, asked.seen)
        return encode(await self._subscriber.reset(asked.group, asked.topic, asked.partitions, asked.to, asked.dry_run, asked.actor))

    async def _forget(self, body: bytes) -> bytes:
        asked: AskedName = decode(body, AskedName)
        await self._for(asked.name, asked.seen)
        await self._subscriber.forget_group(asked.name or "", asked.actor)
        return b""

    async def _redrive(self, body: bytes) -> bytes:
        asked: AskedRedrive = decode(body, AskedRedrive)
        await self._for(asked.group, asked.seen)
        return encode(await self._redriver.redrive(asked.group, asked.topic, asked.limit, asked.actor))

    async def _instance(self, body: bytes) -> bytes:
        asked: AskedInstance = decode(body, AskedInstance)
        await self._for(asked.group, asked.caller.seen)
        return encode(await called(self._consumers, self._grant(asked.caller), asked.group, asked.instance, asked.call))

    async def _for(self, group: str | None, seen: int) -> None:
        """:raises Moved:"""
        await self._catch_up(seen)
        self._here(slot_of(group or "", self._membership.slots))
