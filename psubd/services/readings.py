"""One read of a consumer instance: until its turn has come, there is enough, or its time is over.

It reads the storage itself, from where the instance stands, partition after partition; who was the last to give comes last at the next read. It stops
before the first message that a client of the sub endpoint has out, and skips what is done.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from psubd.errors import IllegalState, Internal, InUse, PsubdError, RateLimited, TopicNotBound
from psubd.model import Binding, Delivered, Delivery, Grant, Poll, TopicPartition, Wish
from psubd.services.holdings import Holding, Member
from psubd.services.joins import refusal
from psubd.services.looking import RATE_MS
from psubd.services.polls import is_rated, nothing
from psubd.services.portions import Circle, Lent, Portion
from psubd.services.redriven import own
from psubd.services.rounds import all_of, carried_through
from psubd.services.workshop import Workshop

PORTION_RECORDS, PORTION_BYTES = 2_000, 1 << 20
"""The largest read of the storage. A message that alone is larger comes all the same."""

AT_ONCE = 16
"""Partitions that had nothing at the last look and are looked at together."""

PAUSE_MS = 100
"""How long one waits that was woken for nothing twice in a row."""

log = Logger()


class Reading:
    """:param over: called once, when it is over.

    :ivar deferred: what the caller holds. :ivar due: `psubd.services.patience.Waiter`.
    """

    def __init__(self, circle: Circle, member: Member, grant: Grant, ask: Poll, shop: Workshop, over: "Callable[[Reading], None]") -> None:
        self.member = member
        self.due = 0
        self.deferred: Deferred[Delivery] = Deferred(self._cancelled)
        self._circle, self._home, self._grant, self._ask, self._shop = circle, circle.home, grant, ask, shop
        self._told = over
        self._over = False
        self._expired = ask.timeout_ms <= 0
        self._portions: dict[TopicPartition, Portion] = {}
        self._count = self._size = 0  # messages and payload bytes of all of them
        self._open: Mapping[str, Binding] = {}
        self._error: PsubdError | None = None
        self._queued: Deferred[None] | None = None
        self._bell: Deferred[None] | None = None
        self._rung = False
        self._spins = self._held = 0
        self._watching: dict[Holding, Deferred[None]] = {}
        self._job: Deferred[None] | None = None

    def start(self) -> None:
        """Let its time run."""
        if not self._expired:
            self._shop.patience.begin(self, self._ask.timeout_ms)
        self._job = Deferred.fromCoroutine(self._run()).addCallbacks(self.end, self._failed)

    def expire(self) -> None:
        """Its time is over."""
        self._expired = True
        if self._queued is not None:
            self._queued.cancel()
        else:
            self.ring()

    @property
    def blocked(self) -> bool:
        """Whether it waits for what somebody else has."""
        return any(portion.blocked for portion in self._portions.values())

    def ring(self) -> None:
        """Something happened that it may wait for."""
        bell, self._bell = self._bell, None
        if bell is None:
            self._rung = True
        elif not bell.called:
            bell.callback(None)

    def end(self, outcome: Delivery | PsubdError) -> None:
        """It ends with that."""
        if self._over:
            if isinstance(outcome, Delivery):
                outcome.settle(0)
            return
        self._finish()
        if isinstance(outcome, PsubdError):
            self.deferred.errback(outcome)
        else:
            self.deferred.callback(outcome)

    # --- inside: its end

    def _failed(self, failure: Failure) -> None:
        if not self._over:
            self.end(Internal("reading broke; see the log") if failure.check(CancelledError) else refusal(failure))
        elif failure.check(CancelledError, PsubdError) is None:
            log.failure("a read that was over broke", failure)

    def _cancelled(self, deferred: "Deferred[Delivery]") -> None:
        """Its client is gone."""
        self._finish()

    def _finish(self) -> None:
        self._over = True
        self._shop.patience.end(self)
        self._told(self)
        if self._job is not None and not self._job.called:
            self._job.cancel()

    # --- inside: its course

    async def _run(self) -> Delivery:
        if not await self._turn():
            return nothing()
        given = False
        try:
            delivery = await self._read()
            given = bool(delivery.messages)
            return delivery
        finally:
            self._hold(0)
            self._watch_no_more()
            if not given:
                self.member.turn.give()

    async def _turn(self) -> bool:
        """Wait until what became of the read before is known. False: its time was over first."""
        mine = self.member.turn.take()
        if mine.called:
            return True
        self._queued = mine
        if self._expired:
            mine.cancel()
        try:
            await mine
        except CancelledError:
            if self._over:
                raise
            return False
        finally:
            self._queued = None
        return True

    async def _read(self) -> Delivery:
        self._judge(True)
        if self.member.spec.auto_commit and any(holding.owed is not None for holding in self.member.holdings.values()):
            await carried_through(self._circle.books.keep(self.member))
        while True:
            self._rung = False
            self._judge(False)
            await self._bring()
            new = await self._gather()
            self._judge(False)
            self._prune()
            self._hold(self._size)
            if self._is_enough() or self._expired:
                return self._deliver()
            if self._error is not None and not self._count:
                raise self._error
            self._spins = 0 if new else self._spins
            await self._wait()

    def _judge(self, first: bool) -> None:
        """What it may read now. :raises PsubdError:"""
        home, member = self._home, self.member
        home.tenure.check()
        if home.contest.stands:
            raise home.contest.refusal()
        if member.spec.wish == Wish():
            raise IllegalState("the instance neither has a subscription nor partitions that were assigned to it; give it one before it reads")
        names = self._circle.topics_of(member)
        if self._ask.topics is not None:
            names = tuple(name for name in names if name in self._ask.topics)
        bound = self._circle.bound()
        known = [name for name in names if name in bound]
        if names and not known:
            raise TopicNotBound(f"application {home.application!r} is bound to none of the instance's topics to subscribe any more")
        try:
            self._open = self._circle.gate.may_subscribe(self._grant, known) if known else {}
        except RateLimited:
            if first:
                raise
            self._open = {}

    async def _bring(self) -> None:
        """Have the group come to the topics. What cannot be come to is told where there is nothing else."""
        self._error = None
        if all(name in self._home.topics for name in self._open):
            return
        found = await self._home.visits.bring(self._open)
        for name, outcome in found.items():
            if isinstance(outcome, PsubdError):
                error = self._home.troubles.get(name)
                self._error = error if isinstance(error, InUse) else outcome

    async def _gather(self) -> bool:
        """Read on in each partition in turn. Those where there was nothing before are looked at together. True: something came of it."""
        new = False
        for batch in in_turn(self._due()):
            if not self._has_room():
                break
            for found in [await self._read_on(batch[0])] if len(batch) == 1 else await all_of([self._read_on(holding) for holding in batch]):
                new = new or found
        return new

    def _due(self) -> list[Holding]:
        """Where to look: not where it is waited for something to come."""
        due: list[Holding] = []
        for holding in self.member.holdings.values():
            portion = self._portions.get(holding.at)
            if holding in self._watching and (portion is None or portion.holding is not holding or not portion.counts):
                self._watching.pop(holding).cancel()
            if holding.heir is None and holding.at.topic in self._open and holding not in self._watching:
                due.append(holding)
        return due

    async def _read_on(self, holding: Holding) -> bool:
        portion = self._portions.get(holding.at)
        if portion is None or portion.holding is not holding or not portion.counts:
            stale = portion is not None and bool(portion.messages)
            portion = self._portions[holding.at] = Portion(holding)
            if stale:
                self._recount()
        began = portion.following
        try:
            while portion.counts and self._has_room():
                asked = portion.following
                if not await self._take(portion) or portion.following == asked or portion.more or portion.blocked:
                    break
        except PsubdError as error:
            self._error = error
        if not portion.messages and portion.counts:
            holding.position = portion.following
        return portion.following != began

    async def _take(self, portion: Portion) -> bool:
        """False: there is nothing more now."""
        channel = self._circle.channel(portion.holding.at)
        if channel is None or channel.halted:
            portion.blocked = True
            return False
        asked, (count, size) = portion.following, self._room()
        found = await channel.read_for(asked, min(PORTION_RECORDS, count), max(1, min(PORTION_BYTES, size)))
        if found is None or not channel.live or not portion.counts or asked != portion.following:
            portion.blocked = True
            return False
        if not portion.holding.sought:
            self._shop.notices.skipped(self._home.name, channel.at.topic, channel.at.partition, asked, found.first - 1)
        (count, size), former = self._room(), (len(portion.messages), portion.size)
        portion.sift(channel, own(found, self._home.name), count, size, not self._count)
        self._count += len(portion.messages) - former[0]
        self._size += portion.size - former[1]
        return found.end > portion.following

    # --- inside: what there is

    def _recount(self) -> None:
        """Portions came or went."""
        self._count = sum(len(portion.messages) for portion in self._portions.values())
        self._size = sum(portion.size for portion in self._portions.values())

    def _room(self) -> tuple[int, int]:
        """Messages and bytes that still fit."""
        return self._ask.batch_size - self._count, self._ask.max_bytes - self._size

    def _has_room(self) -> bool:
        return self._count < self._ask.batch_size and (not self._count or self._size < self._ask.max_bytes)

    def _is_enough(self) -> bool:
        if not self._count:
            return False
        full = not self._has_room() or any(portion.more for portion in self._portions.values())
        return full or self._size >= self._ask.min_bytes or self._shop.windows.full

    def _hold(self, size: int) -> None:
        """What it holds counts as read ahead."""
        if size != self._held:
            self._shop.windows.add(size - self._held)
            self._held = size

    def _prune(self) -> None:
        """What it may not be given any more."""
        gone = [at for at, portion in self._portions.items() if not portion.counts or at.topic not in self._open or self._circle.channel(at) is None]
        for at in gone:
            del self._portions[at]
        if gone:
            self._recount()

    def _deliver(self) -> Delivery:
        """:raises PsubdError: there is nothing, and not all of it could be looked at."""
        portions = [portion for portion in self._portions.values() if portion.messages]
        if not portions:
            self.member.unsure = self.member.unsure and self._error is not None
            if self._error is not None:
                raise self._error
            return nothing()
        lent = Lent(self._circle, self.member, self._shop, portions)
        try:
            messages = tuple(
                Delivered(portion.holding.at.topic, portion.holding.at.partition, message) for portion in portions for message in portion.messages
            )
            for portion in portions:
                self._spend(portion)
            return Delivery(messages, lent.settle, stands=lent.stands)
        except BaseException:
            lent.settle(0)
            raise

    def _spend(self, portion: Portion) -> None:
        at, holdings = portion.holding.at, self.member.holdings
        holdings[at] = holdings.pop(at)  # the others' turn comes first
        self._shop.tallies.delivered.labels(at.topic).value += len(portion.messages)
        if self._open[at.topic].rate is not None:
            self._circle.gate.spent(self._home.application, at.topic, len(portion.messages), portion.size)

    # --- inside: waiting

    async def _wait(self) -> None:
        """Until there may be something new."""
        if self._rung:
            self._spins += 1
            if self._spins <= 1:
                return
        bell = self._bell = Deferred()
        timer: IDelayedCall | None = None
        try:
            if self._spins > 1:
                timer = self._shop.clock.call_later(PAUSE_MS, self.ring)
            else:
                if is_rated(self._circle.bound().values()):
                    timer = self._shop.clock.call_later(RATE_MS, self.ring)
                self._watch()
                self._spins = self._spins + 1 if bell.called else 0
            await bell
            self._spins = min(self._spins, 1)
        finally:
            self._bell = None
            if timer is not None and timer.active():
                timer.cancel()

    def _watch(self) -> None:
        """Each partition of which all was read that may be."""
        for holding in self.member.holdings.values():
            portion = self._portions.get(holding.at)
            if portion is not None and portion.holding is holding and not portion.blocked and holding not in self._watching:
                watch: Deferred[None] = self._shop.storage.watch(holding.at.topic, holding.at.partition, portion.following)
                self._watching[holding] = watch
                watch.addBoth(self._fired, holding, watch)

    def _fired(self, _: object, holding: Holding, watch: "Deferred[None]") -> None:
        if self._watching.get(holding) is watch:
            del self._watching[holding]
        self.ring()

    def _watch_no_more(self) -> None:
        watching, self._watching = self._watching, {}
        for watch in watching.values():
            watch.cancel()


def in_turn(holdings: Iterable[Holding]) -> Iterator[list[Holding]]:
    """One at a time; of those that had nothing at last, neighbours together."""
    batch: list[Holding] = []
    for holding in holdings:
        if not holding.at_end or len(batch) == AT_ONCE:
            if batch:
                yield batch
            batch = []
        if holding.at_end:
            batch.append(holding)
        else:
            yield [holding]
    if batch:
        yield batch
