"""One loaded group: who waits, what it stands on, what became of what is out.

Polls wait in one queue by age (`psubd.services.queues`); who gets what is `psubd.services.dealing`, when one ends without a message
`psubd.services.looking`. Here is what joins them, and what happens to the group as a whole.
"""

from collections.abc import Callable, Iterable, Mapping

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from psubd.errors import Internal, InUse, NotFound, PsubdError
from psubd.interfaces import IGate, IRegistry
from psubd.model import Binding, Delivered, Delivery, Grant, GroupTopic, Poll, TopicPartition
from psubd.services.channels import RETRY_MS, Channel
from psubd.services.cohort import Cohort
from psubd.services.commits import Committer
from psubd.services.contests import Contest
from psubd.services.dealing import Dealer
from psubd.services.group_records import application_of, group_of
from psubd.services.handouts import Hand, Handout, Taken
from psubd.services.instance_records import path_of as instances_at
from psubd.services.joins import Joined, Joiner, Starts
from psubd.services.live_topics import LiveTopic
from psubd.services.looking import Lookout
from psubd.services.places import Place
from psubd.services.polls import WaitingPoll, is_rated, nothing
from psubd.services.queues import Queue
from psubd.services.rounds import Rounds
from psubd.services.visits import Visits
from psubd.services.workshop import Workshop

log = Logger()


class LiveGroup:
    """:param shop: of the group's slot. :param ended: called when the group is at its end. :param timeout_ms: of its consumer instances.

    :ivar tenure: of its slot: while it does not stand nobody gets anything, and nothing is committed.
    :ivar queue: the polls that wait. :ivar out: answers that are not settled. :ivar used_ms: when it was last used.
    :ivar appetite: the most messages that were asked for at a time.
    :ivar contest: whether somebody else has it in the storage: then nobody gets anything, and answers that are out may still be settled.
    :ivar visits: those that come with leases. :ivar topics: those that it stands on.
    :ivar restless: those of which not every partition is read to its end and watched there.
    :ivar troubles: why it could not come to others, at the last try. :ivar cohort: its consumer instances; None: it has none.
    """

    def __init__(
        self,
        name: str,
        *,
        shop: Workshop,
        registry: IRegistry,
        gate: IGate,
        joiner: Joiner,
        committer: Committer,
        ended: "Callable[[LiveGroup], None]",
        timeout_ms: int,
    ) -> None:
        self.name, self.application = name, application_of(name)
        self.tenure = shop.tenure
        self.queue = Queue()
        self.topics: dict[str, LiveTopic] = {}
        self.restless: set[str] = set()
        self.troubles: dict[str, PsubdError] = {}
        self.out = 0
        self.appetite = 1
        self.used_ms = shop.clock.elapsed_ms()
        self.live = True
        self.contest = Contest(name, shop.clock, shop.notices)
        self.joins = Rounds(self._join)
        self.visits = Visits(self, self.use)
        self._shop, self._clock, self._registry, self._gate = shop, shop.clock, registry, gate
        self._joiner, self._committer, self._ended = joiner, committer, ended
        self._lookout = Lookout(self, gate, shop.clock)
        self._dealer = Dealer(self, self.queue, self.topics, shop.clock, shop.answers)
        self._serving = self._again = False
        self._bound: Mapping[str, Binding] | None = None  # the bindings that were looked at last, and whether any has a rate
        self._rated = False
        self._all_settled: Deferred[None] | None = None
        self._retry: IDelayedCall | None = None
        self.cohort: Cohort | None = None
        self._timeout_ms = timeout_ms
        self._end_watch = gate.watch(self.application, self.review)
        self.review_instances()

    # --- polls ---

    def add(self, poll: WaitingPoll) -> None:
        """Let it wait; what is at hand it gets at once."""
        self.use()
        self.appetite = max(self.appetite, poll.ask.batch_size)
        refusal = self.contest.refusal() if self.contest.stands else None if self.tenure.grants else self.tenure.refusal()
        if refusal is not None:
            poll.fail(refusal)
            return
        self.queue.add(poll)
        poll.start(self._shop.patience)
        self.serve()
        if not poll.over:
            self._lookout.begin(poll)

    def at_once(self, grant: Grant, ask: Poll) -> Delivery | None:
        """As `ISubscriber.at_once`."""
        ready = self._dealer.ready
        if not ready or self._serving or self.contest.stands or not self.tenure.grants:
            return None
        try:
            bindings = self._gate.may_subscribe(grant, ask.topics)
        except PsubdError:
            return None
        if self.queue and self.queue.oldest(ready.keys()) is not None:
            return None
        if ask.batch_size == 1:
            self.used_ms = now = self._clock.elapsed_ms()
            taken = self._dealer.next(ask, bindings, now)
            if taken is not None:
                return self._deliver_one(taken)
        if ask.batch_size > self.appetite:
            self.appetite = ask.batch_size
        self._serving, self._again = True, False
        try:
            hand = self._dealer.serve(ask, bindings)
            if hand is not None:
                self.used_ms = hand.now
                delivery = self._deliver(hand)
                self._read_on(hand)
        finally:
            self._serving = False
        if self._again and self.queue:
            self.serve()
        return None if hand is None else delivery

    def withdraw(self, poll: WaitingPoll) -> None:
        """Its client is gone."""
        self.queue.drop(poll)

    def expired(self, poll: WaitingPoll) -> None:
        """Its time is over."""
        self._lookout.expired(poll)

    def review_instances(self) -> None:
        """The registry may have others than before."""
        if self.cohort is None and self.live and self._registry.snapshot().get(instances_at(self.name)) is not None:
            self.cohort = Cohort(self, self._shop, self._registry, self._gate, self._timeout_ms)
        if self.cohort is not None:
            self.cohort.review()

    def reserves(self, at: TopicPartition) -> bool:
        return self.cohort is not None and self.cohort.reserves(at)

    def stood_anew(self, topic: LiveTopic, partitions: Iterable[int]) -> None:
        if self.cohort is not None:
            self.cohort.stood_anew(topic, partitions)

    def lend(self) -> None:
        """An answer to an instance goes out."""
        self.out += 1

    def returned(self) -> None:
        """It is settled."""
        self.out -= 1
        if not self.out:
            self._tell_settled()

    def is_rated(self, grant: Grant) -> bool:
        """Whether the grant's bindings have a rate, any of them."""
        if self._bound is not grant.bindings:
            self._bound, self._rated = grant.bindings, is_rated(grant.bindings.values())
        return self._rated

    def wants(self, topic: str) -> bool:
        return self.queue.wants(topic)

    def end_polls(self, error: PsubdError | None = None) -> None:
        """Answer all that wait: with ``error``, or empty."""
        self._lookout.answer_all(nothing() if error is None else error)
        if self.cohort is not None:
            self.cohort.end_reads(error)

    def serve(self) -> None:
        """Give what is at hand to those that wait. What is called from here may call it again: then it goes round once more."""
        self._again = True
        if self._serving:
            return
        self._serving = True
        try:
            while self._again and self.queue and self.live and not self.contest.stands and self.tenure.grants:
                self._again = False
                for hand, poll in self._dealer.deal():
                    self._grant(hand, poll)
        finally:
            self._serving = False

    def spent(self, topic: LiveTopic, messages: int, size: int) -> None:
        if topic.binding.rate is not None:
            self._gate.spent(self.application, topic.name, messages, size)

    def reopen(self, poll: WaitingPoll) -> None:
        self._lookout.reopen(poll)

    def use(self) -> None:
        """It is used."""
        self.used_ms = self._clock.elapsed_ms()

    # --- leases ---

    def stirred(self, channels: Iterable[Channel]) -> None:
        """Something happened to leases of these: who waits gets what follows from it."""
        self.use()
        for channel in channels:
            self._refresh(channel)
        self.serve()
        self._stir_cohort()

    def _stir_cohort(self) -> None:
        if self.cohort is not None:
            self.cohort.stir()

    @property
    def idle(self) -> bool:
        """Whether it may leave memory, as far as nobody waits for it: nothing is out, delayed, or on its way to a dead-letter topic, and it has no
        consumer instances."""
        if self.cohort is not None and self.cohort.members:
            return False
        return not self.queue and not self.out and not self.visits.wanted and all(topic.idle for topic in self.topics.values())

    # --- what the manager does ---

    def review(self) -> None:
        """The registry changed: what is revoked, reset or made again ends here and now; those that wait see what they may read."""
        if not self.live:
            return
        group = group_of(self._registry.snapshot(), self.name)
        gone = group is None and bool(self.topics)
        voided = self._void_outdated({} if group is None else group.topics)
        self.review_instances()
        for poll in list(self.queue):
            if not poll.over:
                self._lookout.reopen(poll)
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
                topic.bind(binding, self._clock.elapsed_ms())
                self._dealer.refresh(topic)
        return voided

    def hold(self, topic: LiveTopic, record: GroupTopic, partitions: Iterable[int]) -> None:
        """A reset is registered: what is out of ``partitions`` is void, the topic's others go on under the new record."""
        topic.record = record
        topic.take_out(partitions)
        self._dealer.refresh(topic)
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
        self._lookout.stop()
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        if self.cohort is not None:
            self.cohort.end(error)
        for topic in list(self.topics.values()):
            self._void(topic)
        self._lookout.answer_all(nothing() if error is None else error)
        self._ended(self)

    def shed(self) -> None:
        """Give back the memory of what was read ahead."""
        for channel in self.channels():
            channel.drop_window()

    def take_dirty(self) -> list[Channel]:
        everything = self.contest.stands  # places that stood still may be the other's by now
        dirty = [channel for channel in self.channels() if channel.dirty or everything]
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
                    self._lookout.answer(poll, self.contest.refusal())
            if self.cohort is not None:
                self.cohort.end_reads(self.contest.refusal())

    def regained(self) -> None:
        """It goes on as the ledgers stand."""
        if self.live and self.contest.won():
            self.serve()

    async def keep(self, on_purpose: bool = False) -> bool:
        """Commit all places as they are now, whether they changed or not. False: some could not be.

        :param on_purpose: another psubd's places are overwritten."""
        for channel in self.channels():
            channel.dirty = True
        return await self._committer.flush(self, on_purpose)

    def is_dirty(self) -> bool:
        return any(channel.dirty for channel in self.channels())

    async def settled(self, patience_ms: int) -> None:
        """Wait until every answer is settled, at most so long."""
        if self.out and patience_ms > 0:
            self._all_settled = Deferred()
            timer = self._clock.call_later(patience_ms, self._tell_settled)
            await self._all_settled
            if timer.active():
                timer.cancel()
        if self.out:
            log.warn("{group}: {count} answers were still being written; what is not leased explicitly comes again", group=self.name, count=self.out)

    # --- what the topics say ---

    def topic_filled(self, topic: LiveTopic) -> None:
        if self.topics.get(topic.name) is topic:
            self._dealer.refresh(topic)
            if topic.ready:
                self.serve()
            self._stir_cohort()

    def topic_dirty(self) -> None:
        self._committer.touch(self)

    def topic_troubled(self, topic: LiveTopic) -> None:
        self._lookout.troubled(topic.name)

    def topic_voided(self, topic: LiveTopic, error: PsubdError | None) -> None:
        if self.topics.get(topic.name) is topic:
            self._void(topic)
            if error is not None:
                self.troubles[topic.name] = error
                self._lookout.judge_all(topic.name)
                self._retry_later()
            elif self.wants(topic.name):
                self._seek()

    def topic_cut(self, topic: LiveTopic, channel: Channel) -> None:
        self._dealer.refresh(topic)
        Deferred.fromCoroutine(self._mend(topic, channel))

    async def _mend(self, topic: LiveTopic, channel: Channel) -> None:
        """Never fails: tried again, as long as the channel lives."""
        try:
            await self._shop.mend(self.name, topic.name, channel.at.partition)
        except PsubdError as error:
            channel.go_on(error)
        except Exception:  # noqa: BLE001 - a bug of ours or of a storage: told, and tried again
            log.failure("{group}: mending {topic} broke", group=self.name, topic=topic.name)
            channel.go_on(Internal(f"partition {channel.at.partition} of topic {topic.name!r} could not be mended; see the log"))
        else:
            channel.go_on(None)

    # --- giving ---

    def _grant(self, hand: Hand, poll: WaitingPoll) -> None:
        try:
            delivery = self._deliver(hand)
        except Exception:  # noqa: BLE001 - a bug of ours in one answer must not keep the others from theirs
            log.failure("{group}: an answer could not be made", group=self.name)
            poll.fail(Internal("the answer could not be made; see the log"))
        else:
            if poll.over:  # cancelled by what the answer before it set off
                delivery.settle(0)
            else:
                poll.answer(delivery)
        self._read_on(hand)

    def _deliver_one(self, taken: Taken) -> Delivery:
        channel, lease = taken
        handout = Handout([taken], self.tenure, self._clock, self._settled)
        self.out += 1
        if channel.low:
            channel.pull()
        at = channel.at
        return Delivery((Delivered(at.topic, at.partition, lease.messages[0], lease.attempt),), handout.settle, None, handout.stands)

    def _deliver(self, hand: Hand) -> Delivery:
        """What a hand was given, as an answer. Whatever fails here gives all of it back."""
        handout = Handout(hand.taken, self.tenure, self._clock, self._settled)
        self.out += 1
        try:
            return Delivery(hand.messages(), handout.settle, stands=handout.stands)
        except BaseException:
            handout.settle(0)
            raise

    def _read_on(self, hand: Hand) -> None:
        """What was taken has to be replaced, and, where it was tried before, to be committed."""
        for channel in hand.channels():
            if channel.dirty:
                self._committer.touch(self)
            channel.pull()

    def _settled(self, channels: Iterable[Channel], given_back: int) -> None:
        self.out -= 1
        self.use()
        if given_back:
            self._shop.tallies.given_back.inc(given_back)
        for channel in channels:
            topic = self.topics.get(channel.at.topic)
            if given_back or topic is None or channel not in topic.ready or topic.binding.ordered:
                channel.stir()
                self._refresh(channel)
            else:  # what is done lets nothing more go than what may go anyhow
                self._committer.touch(self)
        if not self.out:
            self._tell_settled()
        if self.queue:
            self.serve()
        self._stir_cohort()

    def _refresh(self, channel: Channel) -> None:
        """Something happened in its ledger: it may have something to lease, or to commit."""
        topic = self.topics.get(channel.at.topic)
        if topic is not None and channel.live:
            topic.refresh_ready(channel)
            self._dealer.refresh(topic)
            if channel.dirty:
                self._committer.touch(self)

    def _tell_settled(self) -> None:
        waiting, self._all_settled = self._all_settled, None
        if waiting is not None:
            waiting.callback(None)

    # --- coming to topics ---

    def _seek(self) -> None:
        """Come to what polls wait for and is not there."""
        self.joins.next().addErrback(lambda failure: log.failure("{group}: coming to its topics broke", failure, group=self.name))

    async def _join(self) -> None:
        names = self.queue.topics().union(*self.visits.wanted) - self.topics.keys()
        if not names or not self.live:
            return
        found = await self._joiner.join(self.name, names, self._starts_of(names))
        for name, outcome in found.items():
            if self.live:
                self._install(name, outcome)
        for name in found:
            if name in self.troubles:
                self._lookout.judge_all(name)
        self._retry_later()

    def _starts_of(self, names: Iterable[str]) -> Starts:
        """Where instances say that it begins. A poll begins where the binding says, though they may not begin at all."""
        starts = {} if self.cohort is None else self.cohort.starts_of(names)
        return {name: start for name, start in starts.items() if start is not None or not self.queue.wants(name)}

    def _install(self, name: str, outcome: Joined | PsubdError) -> None:
        if isinstance(outcome, PsubdError):
            self.troubles[name] = outcome
            return
        self.troubles.pop(name, None)
        group = group_of(self._registry.snapshot(), self.name)
        grant = self._gate.grant_of(self.application)
        binding = None if grant is None else grant.bindings.get(name)
        record = None if group is None else group.topics.get(name)
        if group is None or binding is None or not binding.sub or binding.mark != outcome.record.mark or record != outcome.record:
            return  # changed while it was loaded: those that still want it come to it again
        topic = LiveTopic(self, self._shop, self._find, group, binding, outcome.record)
        self.topics[name] = topic
        topic.put(outcome.places)

    def _find(self, name: str, topic: str, record: GroupTopic, binding: Binding) -> "Deferred[dict[int, Place]]":
        return Deferred.fromCoroutine(self._joiner.places(name, topic, record, binding))

    def _void(self, topic: LiveTopic) -> None:
        self.topics.pop(topic.name, None)
        self._dealer.drop(topic)
        self._lookout.left()
        topic.void()
        self.restless.discard(topic.name)
        if self.cohort is not None:
            self.cohort.left_topic(topic.name)

    def _retry_later(self) -> None:
        if self.live and (self._retry is None or not self._retry.active()) and any(self.wants(name) for name in self.troubles):
            self._retry = self._clock.call_later(RETRY_MS, self._seek)

    def channels(self) -> list[Channel]:
        """All that it stands on."""
        return [channel for topic in self.topics.values() for channel in topic.channels.values()]


def stands(topic: LiveTopic, binding: Binding, record: GroupTopic | None) -> bool:
    """Whether a loaded topic is still what the registry says."""
    if not binding.sub or binding.mark != topic.record.mark or record is None:
        return False
    if topic.moving:
        return (record.uid, record.mark) == (topic.record.uid, topic.record.mark)
    return record == topic.record
