"""The slots that this node serves, each with its groups: how a slot is taken up, handed over in good order, or lost.

Handing over: nothing more is granted from the call on, and polls that wait are sent on. Answers that are being written have a moment to be wholly
handed to their clients, what was begun (a reset, a letter on its way) is finished, and all that is done is committed. Then the ledgers go to the next
owner, and nothing acts here any more. What takes longer than that is given up, as though the node had died: the next owner is told to doubt the
commits that it finds (`psubd.services.readback`), and what was not settled comes again.
"""

from collections.abc import Callable, Mapping
from itertools import count

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from psubd.interfaces import IClock, IRegistry, ISeats
from psubd.services.carried import Carried, Standing
from psubd.services.commits import Committer
from psubd.services.groups import LiveGroup
from psubd.services.holdings import Stand
from psubd.services.readback import Readback
from psubd.services.rounds import Job, Locks, all_of
from psubd.services.tenures import Tenure, moved
from psubd.services.workshop import Workshop, serials_of
from psubd.slots import slot_of

SETTLE_MS = 2_000
"""Answers that are being written have so long when their slot is handed over."""

CLOSE_MS = 2_000
"""What was begun, and the last commits, have so long after that."""

log = Logger()


class Seat:
    """One slot that is served.

    :ivar groups: its groups that are loaded, by name. :ivar stood: whether its tenure stood when that was looked at last.
    """

    def __init__(self, tenure: Tenure, shop: Workshop) -> None:
        self.tenure, self.shop = tenure, shop
        self.carried = shop.carried
        self.groups: dict[str, LiveGroup] = {}
        self.stood = True

    def stands(self) -> list[Stand]:
        """Where the consumer instances of its groups stand."""
        return [stand for group in self.groups.values() if group.cohort is not None for stand in group.cohort.stands()]

    def standings(self) -> list[Standing]:
        """All channels of its groups, with what their commits carry."""
        topics = [topic for group in self.groups.values() for topic in group.topics.values()]
        return [(topic.record, channel) for topic in topics for channel in topic.channels.values()]


@implementer(ISeats)
class Seats:
    """:param epoch_of: `IMembership.epoch_of`. :param shop: of no slot, what those of the slots are made from.

    :ivar slots: how many there are.
    """

    def __init__(
        self,
        registry: IRegistry,
        clock: IClock,
        *,
        epoch_of: Callable[[int], int | None],
        shop: Workshop,
        live: Mapping[str, LiveGroup],
        locks: Locks,
        committer: Committer,
        readback: Readback,
    ) -> None:
        self.slots = 1
        self._registry, self._clock, self._epoch_of, self._shop, self._live = registry, clock, epoch_of, shop, live
        self._locks, self._committer, self._burials, self._readback = locks, committer, shop.burials, readback
        self._seats: dict[int, Seat] = {}
        self._leaving: dict[int, Seat] = {}
        self._numbers = count(1)

    # --- ISeats

    def take_over(self, slot: int, epoch: int, parcel: bytes | None) -> None:
        present = self._seats.get(slot)
        if present is not None and present.tenure.epoch == epoch:
            return
        self.drop(slot)
        seat = self.sit(slot, epoch)
        if not parcel or seat.carried.unpack(parcel):
            self._readback.doubt(seat)

    def hand_over(self, slot: int) -> "Deferred[bytes]":
        seat = self._seats.pop(slot, None)
        if seat is None:
            return succeed(b"")
        self._leaving[slot] = seat
        seat.tenure.leaving = True
        return Deferred.fromCoroutine(self._hand_over(seat))

    def drop(self, slot: int) -> None:
        for seat in [self._seats.pop(slot, None), self._leaving.pop(slot, None)]:
            if seat is not None:
                self._end(seat)

    def seated(self) -> Mapping[int, int]:
        return {slot: seat.tenure.epoch for slot, seat in self._seats.items()}

    def loaded(self) -> int:
        return len(self._live)

    # --- the subscriber's

    def sit(self, slot: int, epoch: int) -> Seat:
        """Serve the slot from now on."""
        tenure = Tenure(slot, epoch, self._epoch_of)
        carried = Carried(self._registry, self._clock)
        shop = self._shop._replace(tenure=tenure, carried=carried, serials=serials_of(epoch, self._numbers))
        seat = self._seats[slot] = Seat(tenure, shop)
        return seat

    def of(self, group: str) -> Seat:
        """Whose group it is. :raises Moved: another node's."""
        seat = self._seats.get(slot_of(group, self.slots))
        if seat is None:
            raise moved()
        return seat

    def tenure_of(self, group: str) -> Tenure:
        """As `of`; of a slot that is being handed over too, since what was begun under it is finished. :raises Moved:"""
        slot = slot_of(group, self.slots)
        seat = self._seats.get(slot) or self._leaving.get(slot)
        if seat is None:
            raise moved()
        return seat.tenure

    def expects(self, slot: int) -> bool:
        """Whether groups of the slot have to stay in memory."""
        seat = self._seats.get(slot)
        return seat is not None and self._readback.expects(seat)

    def at(self, slot: int) -> Seat:
        """The slot's, which is served. :raises KeyError:"""
        return self._seats[slot]

    def all(self) -> list[Seat]:
        """Those that are served, without those that are being handed over."""
        return list(self._seats.values())

    def review(self) -> None:
        """The membership changed: where a tenure stands no more, those that wait are told; where it stands again, all goes on."""
        for seat in self.all():
            stands = seat.tenure.stands
            if stands != seat.stood:
                seat.stood = stands
                for group in list(seat.groups.values()):
                    if stands:
                        group.serve()
                    else:
                        group.end_polls(seat.tenure.refusal())

    # --- handing over

    async def _hand_over(self, seat: Seat) -> bytes:
        groups = list(seat.groups.values())
        for group in groups:
            group.end_polls(moved())
        await all_of([group.settled(SETTLE_MS) for group in groups], at_once=len(groups) or 1)
        closed = await self._within(CLOSE_MS, self._close(seat))
        parcel = self._parcel(seat, closed) if seat.tenure.stands else b""
        if self._leaving.get(seat.tenure.slot) is seat:
            del self._leaving[seat.tenure.slot]
            seat.tenure.handed = bool(parcel)
            self._end(seat)
        return parcel

    async def _close(self, seat: Seat) -> bool:
        """Finish what was begun, and commit. True: all is committed."""
        slot = seat.tenure.slot
        await self._locks.passed(lambda name: slot_of(name, self.slots) == slot)
        await self._burials.quiet(lambda grave: grave.group in seat.groups)
        return all(await all_of([self._committer.flush(group) for group in list(seat.groups.values())]))

    async def _within(self, ms: int, work: Job[bool]) -> bool:
        """What the work gave; False where it failed, or goes on by then."""
        outcome: Deferred[bool] = Deferred()

        def end(result: object) -> None:
            if not outcome.called:
                outcome.callback(result is True)

        timer = self._clock.call_later(ms, end, False)
        Deferred.fromCoroutine(work).addErrback(lambda failure: log.failure("handing over a slot broke", failure)).addCallback(end)
        ended = await outcome
        if timer.active():
            timer.cancel()
        return ended

    def _parcel(self, seat: Seat, closed: bool) -> bytes:
        """:param closed: no commit of this node's is on its way."""
        idle = self._readback.expects(seat) or not closed
        return seat.carried.pack(seat.standings(), idle or self._readback.doubts(seat), idle, seat.stands())

    def _end(self, seat: Seat) -> None:
        seat.tenure.ended = True
        self._readback.forget(seat)
        for group in list(seat.groups.values()):
            group.end(moved())
