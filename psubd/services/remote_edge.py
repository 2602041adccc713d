"""The edge: what this node, which holds the client's connection, asks of the node that serves the group.

An answer with another node's messages may be written while that node is surely there, and this one (`Borrowed.stands`):

- the link over which it came has not broken since, and the owner has not called the answer back (its claim or lease ended, or the slot left);
- the owner said within the last seconds that it may (`psubd.services.remote_holds`). It stopped, or the line did: then it gives back after a while
  what is done by being written, and its slots go to others. By then this node has broken the answer off, though it may have noticed nothing;
- this node's own lease stands.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, count
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure

from psubd.errors import Moved, OwnershipInDoubt, PeerLost
from psubd.interfaces import IClock, IMembership, IPeers, IRegistry
from psubd.model import Delivered, Delivery, Grant, GroupView, Poll, Redriven, ResetTo, Verdict
from psubd.services.polls import nothing
from psubd.services.remote_codec import (
    AskedInstance,
    AskedLeases,
    AskedName,
    AskedPoll,
    AskedRedrive,
    AskedReset,
    Caller,
    InstanceCall,
    Settled,
    T,
    Verb,
    decode,
    decode_messages,
    encode,
)
from psubd.services.remote_holds import Holds
from psubd.services.remote_settles import Settles
from psubd.services.tenures import moved

JUDGE_MS = 30_000
"""How long leases are waited for: the owner may have to load their groups from the storage, and to try to bury."""

VIEW_MS = 10_000
FLUSH_MS = 2_000
"""How long a node that stops waits to tell the last of what became of answers."""


class Asked:
    """A poll that waits at another node. :ivar recalled: its answer, which is on its way, must not be used. :ivar ended: what it ends with when it is
    cancelled here."""

    __slots__ = ("call", "ended", "member", "recalled")

    def __init__(self, member: str) -> None:
        self.member = member
        self.recalled = False
        self.ended: Delivery | OwnershipInDoubt | None = None
        self.call: Deferred[Delivery] | None = None


class Borrowed:
    """An answer with another node's messages.

    :ivar fallen: it may not be written any more. :ivar auto: all of it is done by being written whole, so that it is not until it is settled.
    """

    def __init__(self, edge: "Edge", member: str, number: int, messages: Sequence[Delivered]) -> None:
        self.member, self.number = member, number
        self.auto = all(delivered.token is None for delivered in messages)
        self.fallen = False
        self._edge = edge

    def stands(self) -> bool:
        return not self.fallen and self._edge.may_use(self.member)

    def settle(self, count: int) -> None:
        self._edge.settled(self, count)


class Edge:
    """To be stopped before the peers.

    :ivar waiting: polls that wait at other nodes, by number.
    """

    def __init__(self, peers: IPeers, membership: IMembership, registry: IRegistry, clock: IClock) -> None:
        self.waiting: dict[int, Asked] = {}
        self._peers, self._membership, self._registry, self._clock = peers, membership, registry, clock
        self._borrowed: dict[int, Borrowed] = {}
        self._numbers = count(1)
        self._settles = Settles(peers, clock)
        self._holds = Holds(peers, clock, self._has, self._lapsed)
        peers.on_lost(self._lost)
        self._end_listening = membership.listen(self._see_lease)

    def serve(self) -> None:
        """Take the owner's verb."""
        self._peers.serve("recall", self._recall)

    def stop(self) -> Deferred[None]:
        """Polls that wait end empty; answers that are being written go on while their links are there. Fires when owners know what became of their
        messages, or after `FLUSH_MS`."""
        self._end_listening()
        self._end_polls(nothing())
        quiet = self._settles.quiet()
        timer = self._clock.call_later(FLUSH_MS, self._settles.stop)

        def flushed(_: object) -> None:
            if timer.active():
                timer.cancel()
            self._settles.stop()

        return quiet.addBoth(flushed)

    @property
    def open(self) -> int:
        """Answers with other nodes' messages that are being written."""
        return len(self._borrowed)

    # --- polls

    def poll(self, member: str, grant: Grant, ask: Poll) -> "Deferred[Delivery]":
        """As `psubd.interfaces.ISubscriber.poll`, at ``member``. Fails with Moved where it does not serve the group, PeerLost where the link is not
        there or broke."""
        if not self._peers.linked(member):
            return fail(PeerLost(f"there is no connection to node {member} now"))
        number = next(self._numbers)
        asked = self.waiting[number] = Asked(member)
        self._holds.want(member)
        call = self._peers.call(member, "poll", encode(AskedPoll(number, self._caller(grant), ask)), None)
        asked.call = call.addCallbacks(self._granted, self._refused, (number, member), errbackArgs=(number, member))
        return asked.call

    def _granted(self, body: bytes, number: int, member: str) -> Delivery:
        asked = self.waiting.pop(number)
        try:
            messages = decode_messages(body)
            if not messages:
                return nothing()
            if asked.recalled:
                raise moved()
            if not self.may_use(member):
                raise OwnershipInDoubt("this node cannot tell now whether what it got for the group may be used; ask again in a moment")
        except BaseException:
            self._settles.tell(member, number, 0)
            raise
        borrowed = self._borrowed[number] = Borrowed(self, member, number, messages)
        return Delivery(messages, borrowed.settle, None, borrowed.stands)

    def _refused(self, failure: Failure, number: int, member: str) -> "Delivery | Failure":
        """Cancelled, refused or lost. The owner may have granted something, and its answer is on its way or went with the link: nothing of it was
        handed over."""
        asked = self.waiting.pop(number)
        if failure.check(Moved) is None:
            self._settles.tell(member, number, 0)
        if failure.check(CancelledError) is None or asked.ended is None:
            return failure
        if isinstance(asked.ended, Delivery):
            return asked.ended
        raise asked.ended

    def settled(self, borrowed: Borrowed, count: int) -> None:
        """The first ``count`` messages of it were handed over. Only the first call counts."""
        if self._borrowed.pop(borrowed.number, None) is not None:
            self._settles.tell(borrowed.member, borrowed.number, count)

    def may_use(self, member: str) -> bool:
        """Whether the member is surely there, and this node."""
        return self._holds.stands(member) and self._clock.elapsed_ms() < self._membership.lease_ends_ms()

    def _has(self, member: str) -> bool:
        kept: Iterable[Asked | Borrowed] = chain(self._borrowed.values(), self.waiting.values())
        return any(each.member == member for each in kept)

    def _caller(self, grant: Grant) -> Caller:
        return Caller(grant.application.id, grant.application.serial, grant.digests, grant.until_ms, self._seen())

    def _seen(self) -> int:
        return self._registry.snapshot().serial

    # --- what befalls them

    def _lost(self, member: str) -> None:
        self._holds.lost(member)
        for borrowed in self._borrowed.values():
            if borrowed.member == member:
                borrowed.fallen = True

    def _lapsed(self, member: str) -> None:
        """The owner may have thought for a while that this node is gone. Polls ask anew: an answer of before that is still on its way must not be
        used either, and large ones are overtaken by what is said after them."""
        for borrowed in self._borrowed.values():
            if borrowed.member == member:
                borrowed.fallen = True
        self._end_polls(moved(), member)

    def _recall(self, member: str, body: bytes) -> bytes:
        """The owner's verb. What is done by being written whole is told at once: it was not, or it would be settled."""
        settled: list[Settled] = []
        numbers: list[int] = decode(body, list[int])
        for number in numbers:
            asked, borrowed = self.waiting.get(number), self._borrowed.get(number)
            if asked is not None and asked.member == member:
                asked.recalled = True
            if borrowed is not None and borrowed.member == member:
                borrowed.fallen = True
                if borrowed.auto:
                    del self._borrowed[number]
                    settled.append((number, 0))
        return encode(settled)

    def _see_lease(self) -> None:
        if self._clock.elapsed_ms() >= self._membership.lease_ends_ms():
            self._end_polls(OwnershipInDoubt("this node does not reach the registry, and cannot tell now who serves the group; ask another one", 1))

    def _end_polls(self, ended: Delivery | OwnershipInDoubt, member: str | None = None) -> None:
        """``member``: those that wait there; None: all."""
        for asked in list(self.waiting.values()):
            if asked.call is not None and member in (None, asked.member):
                asked.ended = ended
                asked.call.cancel()

    # --- what else is asked

    async def judge(self, member: str, verb: Verb, grant: Grant, slot: int, tokens: Sequence[str], ms: int = 0, dead: bool = False) -> Verdict:
        """An ack, nack or extend."""
        body = encode(AskedLeases(self._caller(grant), slot, tuple(tokens), ms, dead))
        return decode(await self._peers.call(member, verb, body, JUDGE_MS), Verdict)

    async def group(self, member: str, name: str) -> GroupView:
        return decode(await self._peers.call(member, "group", encode(AskedName(name, self._seen())), VIEW_MS), GroupView)

    async def groups(self, member: str, application: str | None) -> list[GroupView]:
        """Of those that it serves."""
        return decode(await self._peers.call(member, "groups", encode(AskedName(application, self._seen())), VIEW_MS), list[GroupView])

    async def reset(
        self, member: str, group: str, topic: str, partitions: Sequence[int] | None, to: ResetTo, dry_run: bool, actor: str
    ) -> dict[int, int]:
        chosen = None if partitions is None else tuple(partitions)
        body = encode(AskedReset(group, topic, chosen, to, dry_run, actor, self._seen()))
        return decode(await self._peers.call(member, "reset", body, None), dict[int, int])

    async def instance(self, member: str, grant: Grant, group: str, instance: str, call: InstanceCall, kind: type[T] | Any) -> T:
        """What is asked of a consumer instance. :param kind: of what that gives."""
        body = encode(AskedInstance(self._caller(grant), group, instance, call))
        told: T = decode(await self._peers.call(member, "instance", body, None), kind)
        return told

    async def forget(self, member: str, group: str, actor: str) -> None:
        await self._peers.call(member, "forget", encode(AskedName(group, self._seen(), actor)), None)

    async def redrive(self, member: str, group: str, topic: str, limit: int, actor: str) -> Redriven:
        body = encode(AskedRedrive(group, topic, limit, actor, self._seen()))
        return decode(await self._peers.call(member, "redrive", body, None), Redriven)
