"""Slots on their way from one node to another: what either keeps until the other has it."""

from collections.abc import Iterable
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred, succeed

from psubd.errors import BadBody
from psubd.interfaces import Claim, IClock
from psubd.services.rounds import Job

RECALL_MS = 1_000
"""How long answers that other nodes are writing may go on when their slot leaves: what is not written by then they give back. Less than the
seats wait."""

KEEP_MS = 20_000
"""How long a packed slot waits to be fetched, from when it was last asked for."""

FRESH_MS = 8_000
"""How long a parcel counts whose release was not confirmed: the other node may take the slot back after `KEEP_MS`."""


class SlotAsked(msgspec.Struct, frozen=True, array_like=True):
    """What the verbs "take" and "release" say: a slot, and the epoch of the claim that the other node has on it."""

    slot: int
    epoch: int

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)


def read_slot(body: bytes) -> SlotAsked:
    """:raises BadBody:"""
    try:
        return msgspec.msgpack.decode(body, type=SlotAsked)
    except msgspec.MsgspecError as wrong:
        raise BadBody(f"a node of another version asks for a slot: {wrong}") from None


class Guests(Protocol):
    """Answers with messages of this node's groups that other nodes are writing."""

    def recall(self, slot: int) -> None:
        """Have those of the slot that would be given back broken off."""

    def gone(self, slot: int) -> Deferred[None]:
        """Fires once nobody writes such an answer of the slot any more, for sure."""


class Nobody:
    """There are none."""

    def recall(self, slot: int) -> None:
        pass

    def gone(self, slot: int) -> Deferred[None]:
        return succeed(None)


nobody: Guests = Nobody()


class Parting:
    """A slot that this node serves no more and still has the claim of.

    :param epoch: of the claim. :param to: the member that asked for it last. :param asked_ms: when. :ivar ready: the parcel is there.
    :ivar releasing: the claim is being given back.
    """

    def __init__(self, epoch: int, to: str, asked_ms: int) -> None:
        self.epoch, self.to, self.asked_ms = epoch, to, asked_ms
        self.ready = self.releasing = False
        self.parcel = b""
        self._waiting: list[Deferred[None]] = []

    async def pack(self, handing: "Deferred[bytes]", slot: int, guests: Guests, clock: IClock) -> None:
        """Carried through, whoever asked for it. ``handing``: the seats' parcel."""
        recall = clock.call_later(RECALL_MS, guests.recall, slot)
        try:
            self.parcel = await handing
        finally:
            if recall.active():
                recall.cancel()
            guests.recall(slot)
            await guests.gone(slot)
            self.ready = True
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(None)

    def packed(self) -> "Deferred[None]":
        """Fires once the parcel is there. Cancel to wait no longer."""
        if self.ready:
            return succeed(None)
        waiter: Deferred[None] = Deferred(lambda waiter: self._waiting.remove(waiter))
        self._waiting.append(waiter)
        return waiter

    def forsaken(self, members: Iterable[str], now: int) -> bool:
        """Whether nobody comes for it any more."""
        return self.to not in members or now - self.asked_ms >= KEEP_MS


class Received:
    """A parcel that came and was not used yet. :param claim: whose it was. :ivar sure: the other node has given its claim back for it."""

    def __init__(self, claim: Claim, parcel: bytes, now: int) -> None:
        self.claim, self.parcel, self._since = claim, parcel, now
        self.sure = False

    def counts(self, former: Claim | None, now: int) -> bool:
        """Whether the slot has come to nobody else since. ``former``: the last claim that was seen on it."""
        return former == self.claim and (self.sure or now - self._since < FRESH_MS)


Coming = Job[None]
"""A slot's way here."""


def pause(clock: IClock, ms: int) -> "Deferred[None]":
    """Fires in so many ms. May be cancelled."""
    waited: Deferred[None] = Deferred(lambda _: timer.cancel())
    timer = clock.call_later(ms, waited.callback, None)
    return waited
