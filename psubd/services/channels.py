"""One partition of one loaded group: its ledger, and what keeps the ledger's window filled.

A channel is always doing one of these: reading (there is more than was read), watching (it is at the end), resting (enough is at hand, or no
memory is left for reading ahead), or in trouble (the storage failed; it tries again). A channel that was voided does nothing ever again: what
was leased from it is nobody's, and settling it has no effect.
"""

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from psubd.delivery.cursor import Cursor, CursorTooLong, encode
from psubd.delivery.ledger import Lease, Ledger
from psubd.errors import Internal, PsubdError, TopicMissing
from psubd.interfaces import IClock, IStorage
from psubd.model import Commit, GroupTopic, Slice, TopicPartition

PORTION_RECORDS = 2_000
PORTION_BYTES = 1 << 20
"""One read. A message that alone is larger comes all the same."""

ENOUGH_RECORDS = 500
ENOUGH_BYTES = 256 << 10
"""With so much at hand, nothing more is read ahead."""

RETRY_MS = 1_000
"""How long a channel in trouble waits before it tries again by itself; a new poll makes it try at once."""

PAUSE_MS = 100
"""How long one waits that was woken for nothing twice in a row."""

log = Logger()


class Windows:
    """Payload bytes that were read ahead and not leased yet, over all groups of this node.

    :param budget: with so many, nobody reads ahead, and ``shed`` is called to give back what nobody waits for.
    """

    def __init__(self, budget: int, shed: Callable[[], None]) -> None:
        self.budget = budget
        self.held = 0
        self._shed = shed

    @property
    def full(self) -> bool:
        return self.held >= self.budget

    def add(self, size: int) -> None:
        """``size`` bytes more are held; negative: fewer."""
        self.held += size
        if size > 0 and self.full:
            self._shed()


class Owner(Protocol):
    """The group's side of a channel."""

    record: GroupTopic

    def filled(self, channel: "Channel") -> None:
        """There may be something to lease."""

    def troubled(self, channel: "Channel", error: PsubdError) -> None:
        """The storage failed."""

    def doubtful(self) -> None:
        """The topic may have grown, or be another one: look."""

    def look_for_more(self) -> None:
        """See whether the topic has grown, as far as is known here. It costs nothing."""

    def is_current(self) -> bool:
        """Whether the storage's topic is still the one that this channel is of."""

    def recreated(self) -> None:
        """It is not. Every channel of it is void after the call."""

    def truncated(self, channel: "Channel", end: int) -> None:
        """The log ends before what was read. The channel is void after the call."""

    def wanted(self) -> bool:
        """Whether somebody waits for this topic."""


class Channel:
    """:param end: the log's end when the ledger was loaded."""

    def __init__(
        self, owner: Owner, storage: IStorage, clock: IClock, windows: Windows, group: str, at: TopicPartition, ledger: Ledger, end: int
    ) -> None:
        self.group, self.at, self.ledger, self.end = group, at, ledger, end
        self.live = True
        self.dirty = False
        self.trouble: PsubdError | None = None
        self._owner, self._storage, self._clock, self._windows = owner, storage, clock, windows
        self._counted = 0
        self._pumping = False
        self._waiting_on: Deferred[None] | None = None
        self._idle_reads = 0
        self._resting = False
        self._told = False
        self._retry: IDelayedCall | None = None
        self._quiet_waiters: list[Deferred[None]] = []

    # --- leases ---

    def lease(self, count: int, size: int, first_fits: bool) -> list[Lease]:
        """As `Ledger.lease`; what is missing afterwards is read on."""
        leases = self.ledger.lease(self._clock.elapsed_ms(), count, size, first_fits)
        self._count()
        return leases

    def settle(self, serial: int, done: bool) -> None:
        """The answer that carried that lease was handed over, or not."""
        if done:
            self.ledger.done(serial)
            self.dirty = True
        else:
            self.ledger.give_back(serial)

    def commit(self, epoch: int, limit: int) -> Commit:
        """What the storage has to keep for the place of now."""
        offset, done = self.ledger.place()
        record = self._owner.record
        cursor = Cursor(record.uid, record.mark, record.reset, epoch, offset, done)
        try:
            return encode(cursor, limit)
        except CursorTooLong as too_long:
            log.warn("{group} {at}: {why}; what is done past {offset} will come again after a restart", **self._who, why=too_long, offset=offset)
            return encode(cursor._replace(done=()), limit)

    # --- the window ---

    def pull(self) -> None:
        """Go on filling the window, if that is needed and nobody is at it."""
        self._resting = False
        if self.live and not self._pumping and self._hungry():
            self._stop_retry()
            self._pumping = True
            Deferred.fromCoroutine(self._pump()).addErrback(self._broken)

    def quiet(self) -> "Deferred[None] | None":
        """Fires when no read is on its way; None: none is."""
        if not self._pumping or self._waiting_on is not None:
            return None
        waiter: Deferred[None] = Deferred()
        self._quiet_waiters.append(waiter)
        return waiter

    def saw_end(self, end: int, stood: int) -> None:
        """Somebody was told that the log ends at ``end``.

        :param stood: the position when that was asked; what was read since may lie behind the answer.
        """
        if end < stood:
            self._owner.truncated(self, end)
        elif end > self.end:
            self.end = end
            self._wake()
            self.pull()

    def drop_window(self) -> None:
        """Give the memory back, and rest until the next `pull`; nothing is lost."""
        if not self._pumping or self._waiting_on is not None:
            self._resting = True
            self.ledger.drop_window()
            self._count()
            self._wake()

    def void(self) -> None:
        """End for good."""
        self.live = self.dirty = False
        self._windows.add(-self._counted)
        self._counted = 0
        self._stop_retry()
        self._wake()
        self._tell_quiet()

    # --- inside ---

    @property
    def _who(self) -> dict[str, str]:
        return {"group": self.group, "at": f"{self.at.topic}/{self.at.partition}"}

    def _hungry(self) -> bool:
        if self._resting or self.ledger.fresh >= ENOUGH_RECORDS or self.ledger.fresh_bytes >= ENOUGH_BYTES:
            return False
        return not self._windows.full or (not self.ledger.fresh and self._owner.wanted())

    async def _pump(self) -> None:
        try:
            while self.live and self._hungry():
                if self.ledger.position < self.end:
                    await self._read()
                else:
                    await self._watch()
        except PsubdError as error:
            self._fail(error)
        finally:
            self._pumping = False
            self._tell_quiet()

    async def _read(self) -> None:
        asked = self.ledger.position
        found: Slice = await self._storage.read(self.at.topic, self.at.partition, asked, PORTION_RECORDS, PORTION_BYTES)
        if not self.live:
            return
        self.trouble, self._told = None, False
        self.end = found.end
        if not self._owner.is_current():
            self._owner.recreated()
        elif found.end < asked:
            self._owner.truncated(self, found.end)
        else:
            self._take(asked, found)

    def _take(self, asked: int, found: Slice) -> None:
        if found.first > asked:
            log.warn("{group} {at}: retention took offsets {asked} to {last}; they are skipped", **self._who, asked=asked, last=found.first - 1)
        committed = self.ledger.committed
        self.ledger.feed(asked, found)
        self._count()
        self.dirty = self.dirty or self.ledger.committed != committed
        if self.ledger.position > asked:
            self._idle_reads = 0
        else:
            self._idle_reads += 1
            self.end = asked
            self._owner.doubtful()
        self._owner.filled(self)
        self._owner.look_for_more()

    async def _watch(self) -> None:
        """Wait at the end. Whatever ends it, the next read tells what is there."""
        try:
            if self._idle_reads > 1:
                await self._held(self._sleep(PAUSE_MS))
            watch = self._storage.watch(self.at.topic, self.at.partition, self.ledger.position)
            self._owner.look_for_more()  # growing wakes those that wait: who comes to wait only now missed it
            self.trouble = None  # as far as is known: a watch says nothing until it fires or fails
            await self._held(watch)
        except CancelledError:
            return
        self.end = max(self.end, self.ledger.position + 1)

    async def _held(self, waiting: "Deferred[None]") -> None:
        if not self.live:
            waiting.cancel()
        self._waiting_on = waiting
        self._tell_quiet()
        try:
            await waiting
        finally:
            self._waiting_on = None

    def _sleep(self, ms: int) -> "Deferred[None]":
        waiter: Deferred[None] = Deferred(lambda cancelled: timer.cancel())
        timer = self._clock.call_later(ms, waiter.callback, None)
        return waiter

    def _wake(self) -> None:
        waiting, self._waiting_on = self._waiting_on, None
        if waiting is not None:
            waiting.cancel()

    def _fail(self, error: PsubdError) -> None:
        if not self.live:
            return
        if not self._told:
            log.warn("{group} {at}: cannot be read: {why}", **self._who, why=error.detail)
        self.trouble, self._told = error, True
        if not isinstance(error, TopicMissing):
            self._retry = self._clock.call_later(RETRY_MS, self.pull)
        self._owner.troubled(self, error)

    def _broken(self, failure: Failure) -> None:
        log.failure("{where}: reading broke", failure=failure, where=f"{self.group} {self.at}")
        self._fail(Internal(f"reading partition {self.at.partition} of topic {self.at.topic!r} broke; see the log"))

    def _stop_retry(self) -> None:
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._retry = None

    def _tell_quiet(self) -> None:
        waiters, self._quiet_waiters = self._quiet_waiters, []
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)

    def _count(self) -> None:
        if self.live:
            counted, self._counted = self._counted, self.ledger.fresh_bytes
            self._windows.add(self._counted - counted)
