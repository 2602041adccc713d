"""One partition of one loaded group: its ledger, what keeps the ledger's window filled, and what follows from what happens in the ledger.

A channel is always doing one of these: reading (there is more than was read, or what came back has to be read again), watching (it is at the
end), resting (enough is at hand, or no memory is left for reading ahead), waiting for a log that was cut to be mended, or in trouble (the storage
failed; it tries again). A channel that was voided does nothing ever again: what was leased from it is nobody's, and settling it has no effect.
"""

from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from psubd.delivery.ledger import Lease, Ledger
from psubd.errors import Internal, PsubdError, StorageUnavailable, TopicMissing
from psubd.model import Binding, Commit, GroupTopic, Slice, TopicPartition
from psubd.services.places import Place, commit_of, reached
from psubd.services.redriven import own
from psubd.services.truncation import ends_of
from psubd.services.waits import Waits
from psubd.services.workshop import Workshop

PORTION_RECORDS, PORTION_BYTES = 2_000, 1 << 20
"""The largest read. A message that alone is larger comes all the same."""

FIRST_RECORDS = 64
"""The first read, unless more is asked for at a time. Each that comes full doubles the next, so that who reads little holds little: a thousand
groups of one topic, say."""

RETRY_MS = 1_000
"""How long a channel in trouble waits before it tries again by itself; a new poll makes it try at once."""

PAUSE_MS = 100
"""How long one waits that was woken for nothing twice in a row."""

GIVEN = 3
"""Commits whose outcome is not known that are recognised as one's own."""

log = Logger()


class Owner(Protocol):
    """The group's side of a channel."""

    record: GroupTopic
    binding: Binding
    tag: bytes

    def filled(self, channel: "Channel") -> None:
        """There may be something to lease, or to commit."""

    def rests(self, channel: "Channel") -> None:
        """All was read, and what comes is watched for: until `stirs` there is nothing to look at. A new channel does not rest."""

    def stirs(self, channel: "Channel") -> None:
        """Not so any more."""

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

    def truncated(self, channel: "Channel") -> None:
        """There are signs that the log was cut below what was read: `Channel.halted` until it is moved, or goes on (`Channel.go_on`)."""

    def wanted(self) -> bool:
        """Whether somebody waits for this topic."""

    def appetite(self) -> int:
        """The most messages that were asked for at a time."""


class Channel:
    """:param place: where the group stood when the ledger was made.

    :ivar since: serial of the last reset or cut that moved the partition: leases from before are lost. :ivar log_epoch: of the log up to which was
        read. :ivar halted: the log may have been cut: nothing is read or leased until that is known. :ivar note: what the client of a consumer
        instance has put to the place. :ivar reserved: an instance has it: nothing is leased, and nothing read ahead. :ivar passed: how far that
        instance has read. :ivar refusal: what the last commit that failed failed with.
    """

    def __init__(self, owner: Owner, shop: Workshop, group: str, at: TopicPartition, ledger: Ledger, place: Place) -> None:
        self.group, self.at, self.ledger, self.owner = group, at, ledger, owner
        self.end, self.since, self.log_epoch = place.end, place.since, place.log_epoch
        self._began = reached(place)
        self.live = True
        self.halted = self.reserved = False
        self.passed = 0
        self.refusal: PsubdError | None = None
        self.note = place.note
        self.dirty = False
        self._kept: int | None = None  # what identifies the last commit that the storage took, and the last few that it was given
        self._given: tuple[int, ...] = ()
        self.trouble: PsubdError | None = None
        self._shop, self._storage, self._clock = shop, shop.storage, shop.clock
        self._prefix: bytes | None = None
        self._counted = 0
        self._due: int | None = None  # as it was told to the alarms
        self._pumping = False
        self._portion = FIRST_RECORDS  # of the next read; half of it at hand, and that is begun
        self._idle_reads = 0
        self._resting = False
        self._told = False
        self._retry: IDelayedCall | None = None
        self._waits = Waits(shop.clock)

    # --- leases ---

    @property
    def ready(self) -> bool:
        """Whether there is something to lease now."""
        ready = self.live and not self.halted and not self.reserved and self.ledger.ready
        if self.ledger.died and self._bury() is not None:  # looking found some that were tried too often
            ready = self._serves() and not self.reserved and self.ledger.ready
        return ready

    def lease(self, now: int, count: int, size: int, first_fits: bool, until: int | None, answer: int) -> list[Lease]:
        """As `Ledger.lease`; what is missing afterwards is read on."""
        if not self.live or self.halted or self.reserved:
            return []
        ledger = self.ledger
        out = ledger.leased
        leases = ledger.lease(now, count, size, first_fits, until=until, answer=answer)
        for lease in leases:
            out += len(lease.messages)
            if lease.attempt > 1:
                self.dirty = True
        if out != ledger.leased:
            self._shop.tallies.lapse(out - ledger.leased)
        self.stir()
        return leases

    def lease_next(self, now: int) -> Lease | None:
        """As `Ledger.lease_next`. To be followed by `pull` where it is `low`."""
        if not self.live or self.halted:
            return None
        lease = self.ledger.lease_next(now)
        if lease is not None:
            self._counted -= lease.size
            self._shop.windows.held -= lease.size
        return lease

    @property
    def low(self) -> bool:
        """Whether more should be read, and nobody is at it."""
        return not self._pumping and 2 * self.ledger.fresh < self._portion

    def token(self, offset: int, serial: int) -> str:
        """What the client shows to settle that lease."""
        if self._prefix is None:
            self._prefix = self._shop.tokens.prefix(self.owner.tag, self.at.partition, self.since)
        return self._shop.tokens.write(self._prefix, offset, serial)

    def done(self, lease: Lease) -> None:
        """The answer that carried it was wholly handed over. To be followed by `stir`."""
        self.ledger.done(lease.serial)
        self.dirty = True

    def give_back(self, lease: Lease) -> None:
        """It was not. To be followed by `stir`."""
        self.ledger.give_back(lease)
        self.dirty = self.dirty or lease.attempt > 1  # a commit may have counted it

    def stir(self) -> "Deferred[None] | None":
        """To be called after whatever happened in the ledger: who died is buried, the alarm set, what came back read again. What fires once the
        burials were tried; None: nobody died."""
        ledger = self.ledger
        buried = self._bury() if ledger.died else None
        if self.live:
            due = ledger.due
            if due != self._due:
                self._due = due
                self._shop.alarms.at(self, due)
            held = ledger.window_bytes
            if held != self._counted:
                self._count(held)
            if self.trouble is None and ledger.returned and self._incomplete():
                self._go()
        return buried

    def wake(self, now: int) -> None:
        """A lease lapses, or a delay ends."""
        self._due = None
        if self.live and self.tick(now):
            self.owner.filled(self)

    def tick(self, now: int) -> bool:
        """As `Ledger.tick`."""
        out = self.ledger.leased
        changed = self.ledger.tick(now)
        self._shop.tallies.lapse(out - self.ledger.leased)
        self.stir()
        return changed

    # --- burials (`psubd.services.burials.Grave`) ---

    @property
    def grants(self) -> bool:
        return self._shop.tenure.grants

    def dead_letter(self) -> str | None:
        return self.owner.binding.dead_letter

    def buried(self, offset: int) -> None:
        self.ledger.buried(offset)
        self.dirty = True
        self.stir()
        self.owner.filled(self)

    def revived(self, offset: int) -> None:
        self.ledger.revive(offset)
        self.stir()
        self.owner.filled(self)

    # --- the place ---

    @property
    def stood(self) -> int:
        """The offset behind the last one that was read, or that is done: leases of an earlier process may be acked past what was read."""
        done = self.ledger.place().done
        return max(self.ledger.position, self.passed, done[-1][1] if done else 0)

    def place(self) -> Place:
        """Where it stands now."""
        place = self.ledger.place()
        return Place(
            place.offset, place.done, self.end, not self.dirty, since=self.since, attempts=place.attempts, log_epoch=self.log_epoch, note=self.note
        )

    def commit(self, limit: int) -> Commit:
        """What the storage has to keep for the place of now."""
        commit = commit_of(self.owner.record, self._shop.tenure.epoch, self.place(), limit)
        self._given = (*self._given[1 - GIVEN :], mark_of(commit))
        return commit

    def keeps(self, commit: Commit) -> None:
        """The storage took it."""
        self._kept = mark_of(commit)

    @property
    def written(self) -> bool:
        """Whether anything was committed from here."""
        return self._kept is not None

    def wrote(self, commit: Commit) -> bool:
        """Whether it is the last one that was kept from here, or of those behind: one that failed may be kept all the same."""
        mark = mark_of(commit)
        return mark == self._kept or mark in self._given

    # --- the window ---

    def pull(self) -> None:
        """Go on filling the window, if that is needed and nobody is at it."""
        self._resting = False
        self._go()

    def quiet(self) -> "Deferred[None] | None":
        """Fires when no read is on its way, and the log is not in doubt; None: so it is."""
        busy = (self._pumping and not self._waits) or (self.halted and self.trouble is None)
        return self._waits.quiet() if busy else None

    def saw_end(self, end: int, stood: int) -> None:
        """Somebody was told that the log ends at ``end``.

        :param stood: the position when that was asked; what was read since may lie behind the answer.
        """
        if end < stood:
            self._halt()
        elif end > self.end:
            self.end = end
            self._waits.end()
            self.pull()

    def go_on(self, error: PsubdError | None) -> None:
        """The log was not cut after all; or, with an error, that cannot be told now: it is looked at again in a while."""
        if not self.live or not self.halted:
            return
        if error is None:
            self.halted, self.trouble = False, None
            self._retry = self._clock.call_later(RETRY_MS, self.pull)  # not at once: what it saw may still be so
            self.owner.filled(self)
        else:
            self.trouble = error
            self._retry = self._clock.call_later(RETRY_MS, self.owner.truncated, self)
            self.owner.troubled(self, error)
        self._waits.tell()

    def drop_window(self) -> None:
        """Give the memory back, and rest until the next `pull`; nothing is lost."""
        if not self._pumping or self._waits:
            self._resting, self._portion = True, FIRST_RECORDS
            self.ledger.drop_window()
            self._count(self.ledger.window_bytes)
            self._waits.end()

    # --- consumer instances (`psubd.services.cohort`)

    def reserve(self, reserved: bool) -> None:
        """An instance has it from now on, or has it no more. What is out stays out."""
        if self.reserved is reserved or not self.live:
            return
        self.reserved, self.passed = reserved, 0
        if not reserved:
            self.owner.stirs(self)
            self.pull()
            self.owner.filled(self)
            return
        if self.trouble is not None and not self.halted:
            self.trouble = None  # who has it reads, and finds out
            self._stop_retry()
        self.drop_window()
        self.owner.filled(self)
        self.owner.rests(self)

    def done_below(self, offset: int) -> None:
        """All below is done, whoever has it."""
        self.ledger.done_below(offset)
        self.dirty = True
        self.stir()

    def annotate(self, note: str) -> None:
        """What an instance puts to the place that it commits."""
        if note != self.note:
            self.note, self.dirty = note, True

    async def read_for(self, asked: int, most: int, size: int) -> Slice | None:
        """`IStorage.read` for the instance that has it. None: it is void by now, or its log is in doubt. :raises PsubdError:"""
        self.passed = max(self.passed, asked)
        try:
            found: Slice = await self._storage.read(self.at.topic, self.at.partition, asked, most, size)
            if not await self._is_sound(found):
                return None
        except TopicMissing as missing:
            if self.live:
                self.owner.troubled(self, missing)
            raise
        self.end = found.end
        self.log_epoch = max(self.log_epoch, found.log_epoch)
        self.owner.look_for_more()
        return found if self.live else None

    def void(self) -> None:
        """End for good."""
        self.live = self.dirty = False
        self._shop.alarms.drop(self)
        self._shop.windows.add(-self._counted)
        self._counted = 0
        self._stop_retry()
        self._waits.end()
        self._waits.tell()

    # --- inside ---

    def _bury(self) -> "Deferred[None] | None":
        """Those that died since it was last called. None: nobody did."""
        deaths = self.ledger.take_deaths()
        return self._shop.burials.bury(self, deaths) if deaths else None

    def _serves(self) -> bool:
        return self.live and not self.halted

    def _go(self) -> None:
        if not self.live or self.halted:
            return
        if self._pumping:
            if self.ledger.returned and self._waits and self._incomplete():
                self._waits.end()
        elif self._hungry() or self._incomplete():
            self._stop_retry()
            self._pumping = True
            Deferred.fromCoroutine(self._pump()).addErrback(self._broken)

    def _hungry(self) -> bool:
        """Whether more is to be read ahead."""
        ledger = self.ledger
        if self._resting or self.reserved or 2 * ledger.fresh >= self._portion or 2 * ledger.window_bytes >= PORTION_BYTES:
            return False
        return not self._shop.windows.full or (not self.ledger.fresh and self.owner.wanted())

    def _incomplete(self) -> bool:
        """Whether what came back has to be read again."""
        return not self._resting and not self.reserved and self.ledger.missing() is not None and (not self._shop.windows.full or self.owner.wanted())

    async def _pump(self) -> None:
        try:
            while self._serves():
                if self._incomplete():
                    await self._read_again()
                elif not self._hungry():
                    break
                elif self.ledger.position < self.end:
                    await self._read_on()
                else:
                    await self._watch()
        except PsubdError as error:
            self._fail(error)
        finally:
            self._pumping = False
            if self.reserved:
                self.drop_window()
                self.owner.rests(self)
            self._waits.tell()

    async def _read_on(self) -> None:
        asked = self.ledger.position
        self._portion = most = min(PORTION_RECORDS, max(self._portion, 2 * self.owner.appetite()))
        found = await self._read(asked, most)
        if found is not None:
            if len(found.messages) >= most:
                self._portion = min(PORTION_RECORDS, 2 * most)
            self._take(asked, found)

    async def _read_again(self) -> None:
        asked = self.ledger.missing()
        found = None if asked is None else await self._read(asked)
        if asked is None or found is None:
            return
        committed = self.ledger.committed
        self._shop.notices.skipped(self.group, self.at.topic, self.at.partition, asked, min(found.first, self.ledger.position) - 1)
        self.ledger.refill(asked, own(found, self.group))
        self.dirty = self.dirty or self.ledger.committed != committed
        self.stir()
        if self.ledger.missing() == asked:
            raise StorageUnavailable(f"offset {asked} of {self.at.topic} {self.at.partition} cannot be read again: the log ends at {found.end} now")
        self.owner.filled(self)

    async def _read(self, asked: int, most: int = PORTION_RECORDS) -> Slice | None:
        """None: the channel has nothing to do with it any more."""
        found: Slice = await self._storage.read(self.at.topic, self.at.partition, asked, most, PORTION_BYTES)
        if self.reserved or not await self._is_sound(found):
            return None
        self.trouble, self._told = None, False
        self.end = found.end
        return found

    async def _is_sound(self, found: Slice) -> bool:
        """Whether what was read is of the log that the group stands on."""
        if not self._serves():
            return False
        if not self.owner.is_current():
            self.owner.recreated()
            return False
        cut = await self._was_cut(found)
        if not self._serves():
            return False
        if cut:
            self.trouble, self._told = None, False
            self.end = found.end
            self._halt()
        return not cut

    def _reached(self) -> int:
        """How far the log went, for sure."""
        return max(self.ledger.position, self._began, self.passed)

    async def _was_cut(self, found: Slice) -> bool:
        """Whether the log of what was read before ended below that. Either it is shorter now: that is asked once more, since a read may be served
        from memory that is older than what another node read before the group came here. Or it has grown again: only a new term of the log's
        leader can tell."""
        if found.end < self._reached():
            bounds = (await self._storage.bounds(self.at.topic)).get(self.at.partition)
            if bounds is None or bounds.end < self._reached():
                return True
        if not 0 <= self.log_epoch < found.log_epoch:
            return False
        ends = await ends_of(self._storage, self.at.topic, {self.at.partition: self.log_epoch})
        return ends.get(self.at.partition, self.stood) < self.stood

    def _halt(self) -> None:
        if self._serves():
            self.halted = True
            self._stop_retry()
            self._waits.end()
            self.owner.truncated(self)

    def _take(self, asked: int, found: Slice) -> None:
        if asked != self.ledger.position:  # an instance has committed past it meanwhile
            return
        self._shop.notices.skipped(self.group, self.at.topic, self.at.partition, asked, found.first - 1)
        committed = self.ledger.committed
        self.ledger.feed(asked, own(found, self.group))
        self.log_epoch = max(self.log_epoch, found.log_epoch)
        self.dirty = self.dirty or self.ledger.committed != committed
        self.stir()
        if self.ledger.position > asked:
            self._idle_reads = 0
        else:
            self._idle_reads += 1
            self.end = asked
            self.owner.doubtful()
        self.owner.filled(self)
        self.owner.look_for_more()

    async def _watch(self) -> None:
        """Wait at the end. Whatever ends it, the next read tells what is there."""
        try:
            if self._idle_reads > 1:
                await self._waits.on(self._waits.sleep(PAUSE_MS), self._serves())
            watch = self._storage.watch(self.at.topic, self.at.partition, self.ledger.position)
            self.owner.look_for_more()  # growing wakes those that wait: who comes to wait only now missed it
            self.trouble = None  # as far as is known: a watch says nothing until it fires or fails
            if not watch.called:
                self.owner.rests(self)
            await self._waits.on(watch, self._serves())
        except CancelledError:
            return
        finally:
            self.owner.stirs(self)
        self.end = max(self.end, self.ledger.position + 1)

    def _fail(self, error: PsubdError) -> None:
        if not self.live:
            return
        if not self._told:
            log.warn("{group} {at}: cannot be read: {why}", group=self.group, at=f"{self.at.topic}/{self.at.partition}", why=error.detail)
        self.trouble, self._told = error, True
        if not isinstance(error, TopicMissing):
            self._retry = self._clock.call_later(RETRY_MS, self.pull)
        self.owner.troubled(self, error)

    def _broken(self, failure: Failure) -> None:
        log.failure("{where}: reading broke", failure=failure, where=f"{self.group} {self.at}")
        self._fail(Internal(f"reading partition {self.at.partition} of topic {self.at.topic!r} broke; see the log"))

    def _stop_retry(self) -> None:
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._retry = None

    def _count(self, held: int) -> None:
        counted = self._counted
        if self.live and held != counted:
            self._counted = held
            self._shop.windows.add(held - counted)


def mark_of(commit: Commit) -> int:
    """What identifies the commit, in little room."""
    return hash((commit.offset, commit.metadata))
