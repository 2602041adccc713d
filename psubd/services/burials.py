"""Burials: dead messages are stored in the dead-letter topic, and only then are done. What cannot be stored stays, and is tried again."""

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from psubd.delivery.ledger import Death
from psubd.errors import Internal, PsubdError, StorageUnavailable, TopicMissing
from psubd.interfaces import IClock, IStorage
from psubd.model import Message, Position, Record, Slice, StoredTopic, TopicPartition
from psubd.services.letters import Origin, letter
from psubd.services.notices import Notices
from psubd.services.signet import Signet
from psubd.services.tallies import Tallies

AGAIN_MS, LATEST_MS = 1_000, 30_000
"""From a failure to the next try of a partition's messages, doubling up to the latter."""

PORTION_BYTES, PORTION_RECORDS = 1 << 20, 500
"""What is read, and stored as letters, in one go; a message larger than that goes alone."""

AT_ONCE = 8
"""Portions on their way at a time, over all groups: with `PORTION_BYTES`, or the largest message, what burials hold in memory."""

NEAR = 8
"""Messages whose offsets are no further apart are read together, with what lies between."""

TOLD = 10
"""Stuck messages of a partition that are told one by one; a storage that is away would fill the log. The metrics count them all."""

log = Logger()


class Grave(Protocol):
    """Whose dead messages they are: one partition of one group, as long as it is served as it is."""

    @property
    def group(self) -> str:
        """The full name."""

    @property
    def at(self) -> TopicPartition: ...

    @property
    def live(self) -> bool:
        """False from the moment that what happens here counts no more; for good."""

    @property
    def grants(self) -> bool:
        """Whether something may be stored for it at this instant. False may pass."""

    def dead_letter(self) -> str | None:
        """The topic that the binding names now."""

    def buried(self, offset: int) -> None:
        """The message is in the dead-letter topic, or nowhere any more."""

    def revived(self, offset: int) -> None:
        """The binding names no dead-letter topic any more."""


class Plot:
    """What is to be buried of one grave.

    :ivar waiting: not stored yet, by offset; those that are being tried too. :ivar stuck: of them, those that wait for the next try.
    :ivar due: to be tried as soon as what is being tried ended, each with whom to tell. :ivar busy: whether something is being tried.
    :ivar doubted: what is known of the dead-letter topic may be old.
    """

    def __init__(self, grave: Grave) -> None:
        self.grave = grave
        self.waiting: dict[int, Death] = {}
        self.stuck: set[int] = set()
        self.due: list[tuple[list[int], Deferred[None]]] = []
        self.busy = False
        self.doubted = False
        self.told: set[int] = set()
        self.wait_ms = AGAIN_MS
        self.timer: IDelayedCall | None = None

    def end(self, offset: int) -> None:
        """It waits no more."""
        self.waiting.pop(offset, None)
        self.told.discard(offset)

    def rest(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Burials:
    """Buries for all groups of a node, some at a time, the partition's own one try after another, each in offset order. To be stopped.

    A letter is never tried twice at once, but it may be stored twice: where storing it was in doubt, or where the node crashed before its
    message's end was committed.
    """

    def __init__(self, storage: IStorage, clock: IClock, signet: Signet, tallies: Tallies, notices: Notices) -> None:
        self._storage, self._clock, self._signet, self._tallies, self._notices = storage, clock, signet, tallies, notices
        self._plots: dict[Grave, Plot] = {}
        self._turn = DeferredSemaphore(AT_ONCE)
        self._tries: dict[Deferred[None], Grave] = {}
        self._stopped = False
        tallies.show_letters(self.waiting)

    def waiting(self) -> int:
        """Messages that are due for a dead-letter topic and not stored there yet."""
        return sum(len(plot.waiting) for plot in self._plots.values() if plot.grave.live)

    def bury(self, grave: Grave, deaths: Sequence[Death]) -> "Deferred[None]":
        """Fires once each was tried, whatever came of it; never fails. Cancelling only waits no longer. What is stored, or is gone from the log,
        is told to `Grave.buried`; the rest is tried again until it is, or the grave lives no more."""
        tried: Deferred[None] = Deferred()
        if self._stopped or not grave.live:
            tried.callback(None)
            return tried
        plot = self._plots.setdefault(grave, Plot(grave))
        new = sorted(death.offset for death in deaths if death.offset not in plot.waiting)
        plot.waiting.update({death.offset: death for death in deaths if death.offset not in plot.waiting})
        self._begin(plot, new, tried)
        return tried

    def stop(self) -> "Deferred[None]":
        """No further tries. Fires once those on their way have ended."""
        self._stopped = True
        for plot in self._plots.values():
            plot.rest()
        return self.quiet(lambda grave: True)

    def quiet(self, whose: Callable[[Grave], bool]) -> "Deferred[None]":
        """Fires once the tries that are on their way for those graves have ended."""
        waited: Deferred[None] = Deferred()
        tries = [tried for tried, grave in self._tries.items() if whose(grave)]
        DeferredList(tries).addCallback(lambda _: None if waited.called else waited.callback(None))
        return waited

    # --- trying

    def _begin(self, plot: Plot, offsets: list[int], tried: "Deferred[None]") -> None:
        """Try them, and tell ``tried``. What is told of one end may bring the next: a try never runs within another one of its plot."""
        plot.due.append((offsets, tried))
        if not plot.busy:
            tries = Deferred.fromCoroutine(self._go(plot))
            self._tries[tries] = plot.grave
            tries.addCallback(lambda _: self._tries.pop(tries, None))

    async def _go(self, plot: Plot) -> None:
        plot.busy = True
        try:
            while plot.due:
                due, plot.due = plot.due, []
                again, plot.doubted = plot.doubted, False
                await self._try(plot, sorted(offset for offsets, _ in due for offset in offsets), again)
                for _, tried in due:
                    if not tried.called:
                        tried.callback(None)
        finally:
            plot.busy = False

    async def _try(self, plot: Plot, offsets: list[int], again: bool) -> None:
        """:param again: whether what is known of the dead-letter topic is doubted."""
        left = offsets
        try:
            while left:
                async with self._turn:
                    left = await self._try_some(plot, left, again)
        except Exception as error:  # noqa: BLE001 - a message is kept whatever failed
            self._keep(plot, [offset for offset in offsets if offset in plot.waiting], error)
        self._settle(plot)

    async def _try_some(self, plot: Plot, offsets: list[int], again: bool) -> list[int]:
        """Try a portion from the front; what is left."""
        if self._stopped or not plot.grave.live:
            return []
        if not plot.grave.grants:
            self._wait(plot, offsets)
            return []
        topic = plot.grave.dead_letter()
        if topic is None:
            self._revive(plot, offsets)
            return []
        at = plot.grave.at
        try:
            stored = await self._described(topic, again)
            found = await self._exhume(at, offsets)
        except PsubdError as error:
            self._keep(plot, offsets, error)
            return []
        reached = max(found.next_offset, found.first)
        here = {message.offset: message for message in found.messages}
        gone = [offset for offset in offsets if offset < reached and offset not in here]
        self._gone(plot, gone)
        await self._store(plot, [here[offset] for offset in offsets if offset in here], stored)
        return [offset for offset in offsets if offset >= reached]

    async def _described(self, topic: str, again: bool) -> StoredTopic:
        stored = None if again else self._storage.known(topic)
        if stored is None:
            described: dict[str, StoredTopic] = await self._storage.describe([topic])
            stored = described.get(topic)
        if stored is None:
            raise TopicMissing(f"dead-letter topic {topic} is not in the storage")
        return stored

    async def _exhume(self, at: TopicPartition, offsets: Sequence[int]) -> Slice:
        """Read from the first of ``offsets``, as far as the others are near."""
        last = offsets[0]
        for offset in offsets[1:]:
            if offset - last > NEAR:
                break
            last = offset
        count = min(last - offsets[0] + 1, PORTION_RECORDS)
        found: Slice = await self._storage.read(at.topic, at.partition, offsets[0], count, PORTION_BYTES)
        if max(found.next_offset, found.first) <= offsets[0]:
            raise StorageUnavailable(f"offset {offsets[0]} of {at.topic} {at.partition} cannot be read: the log ends at {found.end} now")
        return found

    async def _store(self, plot: Plot, messages: Sequence[Message], stored: StoredTopic) -> None:
        letters: list[Record] = []
        offsets: list[int] = []
        for message in messages:
            try:
                letters.append(self._letter(plot, message, stored))
                offsets.append(message.offset)
            except PsubdError as error:
                self._keep(plot, [message.offset], error)
        if not letters:
            return
        if not plot.grave.grants:
            self._wait(plot, offsets)
            return
        try:
            results: list[Position | PsubdError] = await self._storage.publish(letters, "all")
        except PsubdError as error:
            self._keep(plot, offsets, error)
            return
        for offset, result in zip(offsets, results, strict=True):
            if isinstance(result, PsubdError):
                self._keep(plot, [offset], result)
            else:
                self._tallies.dead_letters.labels(plot.waiting[offset].reason).inc()
                self._end(plot, offset)

    def _letter(self, plot: Plot, message: Message, stored: StoredTopic) -> Record:
        death = plot.waiting[message.offset]
        at = plot.grave.at
        now = self._clock.epoch_ms()
        origin = Origin(at.topic, at.partition, message.offset, message.timestamp, plot.grave.group, death.attempts, death.reason, now)
        return letter(message, origin, stored, self._signet)

    # --- what comes of it

    def _end(self, plot: Plot, offset: int) -> None:
        plot.end(offset)
        if plot.grave.live:
            plot.grave.buried(offset)

    def _gone(self, plot: Plot, offsets: Sequence[int]) -> None:
        if offsets:
            log.info("{group}: {count} dead messages of {at} are gone from the log", group=plot.grave.group, count=len(offsets), at=plot.grave.at)
        for offset in offsets:
            self._end(plot, offset)

    def _revive(self, plot: Plot, offsets: Sequence[int]) -> None:
        for offset in offsets:
            plot.end(offset)
            if plot.grave.live:  # the one before may have ended it
                plot.grave.revived(offset)

    def _keep(self, plot: Plot, offsets: Sequence[int], error: Exception) -> None:
        """They stay, for the next try."""
        if not isinstance(error, PsubdError):
            log.failure("{group}: dead messages could not be tried", group=plot.grave.group)
            error = Internal(f"a bug of psubd's, see its log ({type(error).__name__})")
        at = plot.grave.at
        self._tallies.dead_letter_failures.inc(len(offsets))
        plot.stuck.update(offsets)
        for offset in offsets if plot.grave.live else ():
            if offset not in plot.told and len(plot.told) < TOLD:
                plot.told.add(offset)
                self._notices.letter_stuck(plot.grave.group, at.topic, at.partition, offset, error.detail)

    def _wait(self, plot: Plot, offsets: Sequence[int]) -> None:
        """It is not this node's to store them, as far as it knows now."""
        plot.stuck.update(offsets)
        plot.wait_ms = AGAIN_MS

    # --- again

    def _settle(self, plot: Plot) -> None:
        """After a try: what is stuck waits for the next one; a plot with nothing left is given up."""
        if self._stopped or not plot.waiting or not plot.grave.live:
            plot.rest()
            if self._plots.get(plot.grave) is plot:
                del self._plots[plot.grave]
        elif not plot.stuck:
            plot.wait_ms = AGAIN_MS
        elif plot.timer is None:
            plot.timer = self._clock.call_later(plot.wait_ms, self._again, plot)
            plot.wait_ms = min(plot.wait_ms * 2, LATEST_MS)

    def _again(self, plot: Plot) -> None:
        plot.timer = None
        offsets, plot.stuck = sorted(plot.stuck), set()
        plot.doubted = True
        self._begin(plot, offsets, Deferred())
