"""One loaded group: who waits, who gets what, what became of it.

Polls wait in one queue by age; topics take turns, and so do the partitions of a topic. An empty answer is only given after the storage was
looked at once since the poll came, so that it is true. A poll fails when nothing of what it asks for can be read; while something can, it goes
on with that, and at its end tells what could not be looked at instead of answering empty.
"""

from collections.abc import Callable, Iterable, Mapping

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from psubd.delivery.ledger import Lease
from psubd.errors import InUse, NotFound, PsubdError, RateLimited, TopicMissing
from psubd.interfaces import IClock, IGate, IRegistry, IStorage
from psubd.model import Binding, Delivered, Delivery, GroupTopic
from psubd.services.channels import RETRY_MS, Channel, Windows
from psubd.services.commits import Committer
from psubd.services.contests import Contest
from psubd.services.group_records import application_of, group_of
from psubd.services.joins import Joined, Joiner, refusal
from psubd.services.live_topics import LiveTopic
from psubd.services.notices import Notices
from psubd.services.places import Place
from psubd.services.polls import Handout, WaitingPoll, check_mode, nothing
from psubd.services.rounds import Rounds
from psubd.services.tallies import Tallies

LOOKS = 5
"""How often a poll comes to its topics again where they are voided under it while it looks (revoked and bound again, cut, made again)."""

RATE_MS = 1_000
"""How often polls that wait on a topic with a rate look whether they may read it again: the rate's own grain is a second."""

log = Logger()

Taken = list[tuple[LiveTopic, Channel, Lease]]


class LiveGroup:
    """:param ended: called when the group is at its end by itself: deleted, or its application is gone.

    :ivar queue: the polls that wait, the oldest first. :ivar out: answers that are not settled. :ivar used_ms: when it was last used.
    :ivar contest: whether somebody else has it in the storage: then nobody gets anything, and what is out may still be settled.
    """

    def __init__(
        self,
        name: str,
        *,
        storage: IStorage,
        registry: IRegistry,
        gate: IGate,
        clock: IClock,
        joiner: Joiner,
        committer: Committer,
        windows: Windows,
        tallies: Tallies,
        notices: Notices,
        ended: "Callable[[LiveGroup], None]",
    ) -> None:
        self.name, self.application = name, application_of(name)
        self.queue: dict[WaitingPoll, None] = {}
        self.topics: dict[str, LiveTopic] = {}
        self.out = 0
        self.used_ms = clock.elapsed_ms()
        self.live = True
        self.contest = Contest(name, clock, notices)
        self._storage, self._registry, self._gate, self._clock = storage, registry, gate, clock
        self._joiner, self._committer, self._windows, self._tallies, self._ended = joiner, committer, windows, tallies, ended
        self._ready: dict[LiveTopic, None] = {}
        self._trouble: dict[str, PsubdError] = {}  # topics that could not be come to, at the last try
        self._joins = Rounds(self._join)
        self._serving = self._again = False
        self._all_settled: Deferred[None] | None = None
        self._retry: IDelayedCall | None = None
        self._rate_look: IDelayedCall | None = None
        self._end_watch = gate.watch(self.application, self.review)

    # --- polls ---

    def add(self, poll: WaitingPoll) -> None:
        """Let it wait; what is at hand it gets at once."""
        self.used_ms = self._clock.elapsed_ms()
        if self.contest.stands:
            poll.fail(self.contest.refusal())
            return
        self.queue[poll] = None
        poll.start(self._clock, self._expired)
        self.serve()
        if poll.over:
            return
        if poll.rated:
            self._look_at_rates()
        self._begin_look(poll)

    def withdraw(self, poll: WaitingPoll) -> None:
        """Its client is gone."""
        self.queue.pop(poll, None)

    def wants(self, topic: str) -> bool:
        return any(topic in poll.open for poll in self.queue)

    def end_polls(self) -> None:
        """Answer all that wait, empty."""
        for poll in list(self.queue):
            if not poll.over:
                self._answer(poll, nothing())

    def serve(self) -> None:
        """Give what is at hand to those that wait, the oldest first. What is called from here may call it again: then it goes round once more."""
        self._again = True
        if self._serving:
            return
        self._serving = True
        try:
            while self._again and self.live and not self.contest.stands:
                self._again = False
                for poll, taken in self._deal():
                    self._grant(poll, taken)
        finally:
            self._serving = False

    # --- what the manager does ---

    def review(self) -> None:
        """The registry changed: what is revoked, reset or made again ends here and now; those that wait see what they may read."""
        if not self.live:
            return
        group = group_of(self._registry.snapshot(), self.name)
        gone = group is None and bool(self.topics)
        voided = self._void_outdated({} if group is None else group.topics)
        for poll in list(self.queue):
            if not poll.over:
                self._reopen(poll)
        if gone:
            self.end(NotFound(f"group {self.name!r} was deleted"))
            return
        if any(self.wants(name) for name in voided):
            self._seek()
        self.serve()

    def _void_outdated(self, records: Mapping[str, GroupTopic]) -> list[str]:
        """Void the topics that are not what the registry says any more; their names."""
        grant = self._gate.grant_of(self.application)
        voided: list[str] = []
        for topic in list(self.topics.values()):
            binding = None if grant is None else grant.bindings.get(topic.name)
            if binding is None or not stands(topic, binding, records.get(topic.name)):
                self._void(topic)
                voided.append(topic.name)
            elif binding != topic.binding:
                topic.bind(binding)
                if topic.ready:
                    self._ready.setdefault(topic, None)
        return voided

    def hold(self, topic: LiveTopic, record: GroupTopic, partitions: Iterable[int]) -> None:
        """A reset is registered: what is out of ``partitions`` is void, the topic's others go on under the new record."""
        topic.record = record
        topic.take_out(partitions)
        for channel in topic.channels.values():
            channel.dirty = True
        self._committer.touch(self)

    def move(self, topic: LiveTopic, places: Mapping[int, Place]) -> None:
        """Stand at ``places``: what was held goes on there."""
        if topic.live:
            topic.put(places)

    def end(self, error: PsubdError | None = None) -> None:
        """Out of memory with it. Those that wait fail with ``error``, or get an empty answer."""
        if not self.live:
            return
        self.live = False
        self._end_watch()
        for timer in (self._retry, self._rate_look):
            if timer is not None and timer.active():
                timer.cancel()
        for topic in list(self.topics.values()):
            self._void(topic)
        for poll in list(self.queue):
            if not poll.over:
                self._answer(poll, nothing() if error is None else error)
        self._ended(self)

    def shed(self) -> None:
        """Give back the memory of what was read ahead."""
        for topic in self.topics.values():
            for channel in topic.channels.values():
                channel.drop_window()

    def take_dirty(self) -> list[Channel]:
        everything = self.contest.stands  # places that stood still may be the other's by now
        dirty = [channel for topic in self.topics.values() for channel in topic.channels.values() if channel.dirty or everything]
        for channel in dirty:
            channel.dirty = False
        return dirty

    def due(self) -> bool:
        return not self.live or self.contest.due

    def contested(self, error: InUse) -> None:
        """Those that wait are told; nobody gets anything until `regained`."""
        if self.live and self.contest.lost(error):
            for poll in list(self.queue):
                if not poll.over:
                    self._answer(poll, self.contest.refusal())

    def regained(self) -> None:
        """It goes on as the ledgers stand."""
        if self.live and self.contest.won():
            self.serve()

    async def keep(self) -> bool:
        """Commit all places as they are now, whether they changed or not. False: some could not be."""
        for topic in self.topics.values():
            for channel in topic.channels.values():
                channel.dirty = True
        return await self._committer.flush(self)

    def is_dirty(self) -> bool:
        return any(channel.dirty for topic in self.topics.values() for channel in topic.channels.values())

    async def settled(self, patience_ms: int) -> None:
        """Wait until every answer is settled, at most so long."""
        if self.out and patience_ms > 0:
            self._all_settled = Deferred()
            timer = self._clock.call_later(patience_ms, self._tell_settled)
            await self._all_settled
            if timer.active():
                timer.cancel()
        if self.out:
            log.warn("{group}: {count} answers were still being written; their messages come again", group=self.name, count=self.out)

    # --- what the topics say ---

    def topic_filled(self, topic: LiveTopic) -> None:
        if topic.ready and self.topics.get(topic.name) is topic:
            self._ready.setdefault(topic, None)
            self.serve()

    def topic_dirty(self) -> None:
        self._committer.touch(self)

    def topic_troubled(self, topic: LiveTopic) -> None:
        self._judge_all(topic.name)

    def topic_voided(self, topic: LiveTopic, error: PsubdError | None) -> None:
        if self.topics.get(topic.name) is topic:
            self._void(topic)
            if error is not None:
                self._trouble[topic.name] = error
                self._judge_all(topic.name)
                self._retry_later()
            elif self.wants(topic.name):
                self._seek()

    # --- giving ---

    def _deal(self) -> list[tuple[WaitingPoll, Taken]]:
        """Who gets what now. Those that get something have left the queue."""
        dealt: list[tuple[WaitingPoll, Taken]] = []
        for poll in list(self.queue):
            if not self._ready:
                break
            if not poll.over and (taken := self._take(poll)):
                del self.queue[poll]
                dealt.append((poll, taken))
        return dealt

    def _take(self, poll: WaitingPoll) -> Taken:
        if poll.rated:
            self._reopen(poll)
            if poll.over:
                return []
        taken: Taken = []
        count, size = poll.ask.batch_size, poll.ask.max_bytes
        for topic in [topic for topic in self._ready if topic.name in poll.open]:
            leases = topic.lease(count, size, not taken)
            if leases or not topic.ready:
                del self._ready[topic]
            if topic.ready:
                self._ready[topic] = None
            taken += [(topic, channel, lease) for channel, lease in leases]
            bytes_taken = sum(lease.message.size for _, lease in leases)
            self._spent(topic.name, len(leases), bytes_taken)
            count, size = count - len(leases), size - bytes_taken
            if count <= 0 or topic.ready:
                break
        return taken

    def _spent(self, topic: str, messages: int, size: int) -> None:
        if messages:
            self._tallies.delivered.labels(topic).inc(messages)
            self._gate.spent(self.application, topic, messages, size)

    def _grant(self, poll: WaitingPoll, taken: Taken) -> None:
        handout = Handout([(topic, channel, lease.serial) for topic, channel, lease in taken], self._settled)
        self.out += 1
        if poll.over:  # cancelled by what the answer before it set off
            handout.settle(0)
        else:
            messages = tuple(Delivered(channel.at.topic, channel.at.partition, lease.message, lease.attempt) for _, channel, lease in taken)
            poll.answer(Delivery(messages, handout.settle))
        for channel in {channel: None for _, channel, _ in taken}:
            channel.pull()

    def _settled(self, channels: dict[Channel, LiveTopic], given_back: int) -> None:
        self.out -= 1
        self.used_ms = self._clock.elapsed_ms()
        self._tallies.given_back.inc(given_back)
        for channel, topic in channels.items():
            if channel.live:
                topic.refresh_ready(channel)
                if topic.ready:
                    self._ready.setdefault(topic, None)
                if channel.dirty:
                    self._committer.touch(self)
        if not self.out:
            self._tell_settled()
        self.serve()

    def _tell_settled(self) -> None:
        waiting, self._all_settled = self._all_settled, None
        if waiting is not None:
            waiting.callback(None)

    # --- looking ---

    def _begin_look(self, poll: WaitingPoll) -> None:
        poll.looked = False
        Deferred.fromCoroutine(self._look(poll)).addErrback(self._look_broke, poll)

    async def _look(self, poll: WaitingPoll) -> None:
        """See to it that everything is read or watched that ``poll`` asks for, and that what is there now was found."""
        if poll.ask.timeout_ms <= 0:
            for refresh in [topic.refreshes.next() for topic in self._open_topics(poll)]:
                await refresh
        absent = [name for name in poll.open if name not in self.topics]
        for _ in range(LOOKS):
            if absent and not poll.over:
                await self._joins.next()
            if poll.over:
                return
            await self._read_open(poll)
            absent = [name for name in poll.open if name not in self.topics and name not in self._trouble]
            if not absent:
                break
        poll.looked = True
        self._judge(poll)

    async def _read_open(self, poll: WaitingPoll) -> None:
        topics = self._open_topics(poll)
        for topic in topics:
            topic.pull()
        for quiet in [quiet for topic in topics for quiet in topic.quiets()]:
            await quiet

    def _look_broke(self, failure: Failure, poll: WaitingPoll) -> None:
        error = refusal(failure)
        if not poll.over:
            self._answer(poll, error)

    def _open_topics(self, poll: WaitingPoll) -> list[LiveTopic]:
        return [self.topics[name] for name in poll.open if name in self.topics]

    def _reopen(self, poll: WaitingPoll) -> None:
        """What may it read now? It ends where that is nothing, and looks again where it is more than before."""
        try:
            bindings = self._gate.may_subscribe(poll.grant, poll.ask.topics)
            check_mode(poll.ask, bindings)
        except RateLimited:
            bindings = {}
        except PsubdError as error:
            self._answer(poll, error)
            return
        more = not bindings.keys() <= poll.open.keys()
        poll.open = bindings
        poll.rated = poll.rated or any(binding.rate is not None for binding in bindings.values())
        if more:
            self._begin_look(poll)

    def _look_at_rates(self) -> None:
        if self._rate_look is None or not self._rate_look.active():
            self._rate_look = self._clock.call_later(RATE_MS, self._rates_looked)

    def _rates_looked(self) -> None:
        rated = [poll for poll in self.queue if poll.rated]
        if rated:
            self._look_at_rates()
        for poll in rated:
            if not poll.over:
                self._reopen(poll)
        self.serve()

    # --- judging ---

    def _expired(self, poll: WaitingPoll) -> None:
        poll.expired = True
        self._judge(poll)

    def _judge_all(self, topic: str) -> None:
        for poll in list(self.queue):
            if topic in poll.open:
                self._judge(poll)

    def _judge(self, poll: WaitingPoll) -> None:
        """Whether it has to end without a message."""
        if poll.over:
            return
        errors = self._errors(poll)
        named = poll.ask.topics is not None
        missing = next((error for error in errors if isinstance(error, TopicMissing)), None)
        if errors and not any(topic.healthy() for topic in self._open_topics(poll)):
            self._answer(poll, missing or errors[0])
        elif named and missing is not None:
            self._answer(poll, missing)
        elif poll.expired and poll.looked:
            unseen = [error for error in errors if error is not missing]
            self._answer(poll, unseen[0] if unseen else nothing())

    def _errors(self, poll: WaitingPoll) -> list[PsubdError]:
        found = [self._trouble[name] for name in poll.open if name not in self.topics and name in self._trouble]
        return found + [error for topic in self._open_topics(poll) if (error := topic.trouble()) is not None]

    def _answer(self, poll: WaitingPoll, outcome: Delivery | PsubdError) -> None:
        self.queue.pop(poll, None)
        if isinstance(outcome, PsubdError):
            poll.fail(outcome)
        else:
            poll.answer(outcome)

    # --- coming to topics ---

    def _seek(self) -> None:
        """Come to what polls wait for and is not there."""
        self._joins.next().addErrback(lambda failure: log.failure("{group}: coming to its topics broke", failure, group=self.name))

    async def _join(self) -> None:
        names = {name for poll in self.queue for name in poll.open} - self.topics.keys()
        if not names or not self.live:
            return
        found = await self._joiner.join(self.name, names)
        for name, outcome in found.items():
            if self.live:
                self._install(name, outcome)
        for name in found:
            if name in self._trouble:
                self._judge_all(name)
        self._retry_later()

    def _install(self, name: str, outcome: Joined | PsubdError) -> None:
        if isinstance(outcome, PsubdError):
            self._trouble[name] = outcome
            return
        self._trouble.pop(name, None)
        group = group_of(self._registry.snapshot(), self.name)
        grant = self._gate.grant_of(self.application)
        binding = None if grant is None else grant.bindings.get(name)
        record = None if group is None else group.topics.get(name)
        if binding is None or not binding.sub or binding.mark != outcome.record.mark or record != outcome.record:
            return  # changed while it was loaded: those that still want it come to it again
        topic = LiveTopic(self, self._storage, self._clock, self._windows, self._find, binding, outcome.record)
        self.topics[name] = topic
        topic.put(outcome.places)

    def _find(self, name: str, topic: str, record: GroupTopic, binding: Binding) -> "Deferred[dict[int, Place]]":
        return Deferred.fromCoroutine(self._joiner.places(name, topic, record, binding))

    def _void(self, topic: LiveTopic) -> None:
        self.topics.pop(topic.name, None)
        self._ready.pop(topic, None)
        topic.void()

    def _retry_later(self) -> None:
        if self.live and (self._retry is None or not self._retry.active()) and any(self.wants(name) for name in self._trouble):
            self._retry = self._clock.call_later(RETRY_MS, self._seek)


def stands(topic: LiveTopic, binding: Binding, record: GroupTopic | None) -> bool:
    """Whether a loaded topic is still what the registry says."""
    if not binding.sub or binding.mark != topic.record.mark or record is None:
        return False
    if topic.moving:
        return (record.uid, record.mark) == (topic.record.uid, topic.record.mark)
    return record == topic.record
