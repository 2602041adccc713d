"""The subscriber: groups, their polls, replays. The rules of who gets which message are in `psubd.delivery`; the parts are beside this module."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import TypeVar

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from psubd.errors import BadParameter, OwnershipInDoubt, PsubdError
from psubd.interfaces import Change, ICarryover, IClock, IConsumers, IGate, IMembership, INodes, IRegistry, ISeats, IStorage, ISubscriber
from psubd.model import (
    Aim,
    Delivery,
    Grant,
    GroupView,
    InstanceSpec,
    Mark,
    Poll,
    Replay,
    ResetTo,
    Standing,
    TopicPartition,
    Verdict,
    Wish,
)
from psubd.services.alarms import Alarms
from psubd.services.burials import Burials
from psubd.services.carried import Carried
from psubd.services.cohort import Cohort
from psubd.services.commits import Committer
from psubd.services.consumers import Consumers
from psubd.services.group_records import ROOT, application_of, check_name
from psubd.services.groups import LiveGroup
from psubd.services.instance_records import ROOT as INSTANCES
from psubd.services.joins import Joiner
from psubd.services.leases import Leases
from psubd.services.live_topics import LiveTopic
from psubd.services.notices import Notices
from psubd.services.patience import Patience
from psubd.services.polls import WaitingPoll, stopping
from psubd.services.readback import Readback
from psubd.services.renewal import Renewal
from psubd.services.replay import Replayer
from psubd.services.resets import Resetter
from psubd.services.rounds import Job, Locks, all_of, carried_through, outcomes
from psubd.services.seats import Seat, Seats
from psubd.services.signet import Signet
from psubd.services.tallies import Tallies
from psubd.services.tenures import Tenure
from psubd.services.tokens import Tokens, Whereabouts
from psubd.services.views import Views
from psubd.services.windows import Windows
from psubd.services.workshop import Workshop, serials_of
from psubd.slots import slot_of

IDLE_MS = 60_000
"""A group that nobody polled for so long leaves memory."""

SWEEP_MS = 15_000
"""How often is looked for such groups."""

PATIENCE_MS = 5_000
"""How long `Subscriber.stop` waits for answers that are being written."""

INSTANCE_TIMEOUT_MS = 300_000
"""A consumer instance that nobody called for so long is dismissed (Confluent's ``consumer.instance.timeout.ms``)."""

WINDOW_BYTES = 256 << 20
"""Payload that all groups together hold read ahead."""

T = TypeVar("T")

log = Logger()


@implementer(ISubscriber, IConsumers, ISeats)
class Subscriber:
    """To be started after storage, registry and gate, and stopped before them.

    :param commit_interval_ms: from a message's being done to its commit, while the storage keeps up.
    :param window_bytes: payload read ahead, over all groups. :param patience_ms: how long `stop` waits for answers that are being written.
    :param carryover: what leases outlive a restart in, where this is the only node; None: they do not.
    :param membership: which slots this node may act for. Whoever claims them tells it here (`ISeats`). None: it is the only node, and serves all.
    :param instance_timeout_ms: a consumer instance that nobody called for so long is dismissed.
    """

    def __init__(
        self,
        storage: IStorage,
        registry: IRegistry,
        gate: IGate,
        nodes: INodes,
        clock: IClock,
        commit_interval_ms: int = 500,
        metrics: CollectorRegistry | None = None,
        *,
        window_bytes: int = WINDOW_BYTES,
        patience_ms: int = PATIENCE_MS,
        carryover: ICarryover | None = None,
        membership: IMembership | None = None,
        instance_timeout_ms: int = INSTANCE_TIMEOUT_MS,
    ) -> None:
        self._registry, self._gate, self._nodes, self._clock = registry, gate, nodes, clock
        self._patience_ms, self._instance_timeout_ms = patience_ms, instance_timeout_ms
        self._carryover, self._membership = carryover, membership
        self._members: frozenset[str] = frozenset()
        self._live: dict[str, LiveGroup] = {}
        self._tallies = tallies = Tallies(metrics)
        self._windows = Windows(window_bytes, self._shed)
        self._committer = committer = Committer(storage, clock, commit_interval_ms, tallies)
        self._notices = Notices()
        self._signet = Signet(registry)
        locks = Locks()
        self._joiner = Joiner(
            storage,
            registry,
            gate,
            clock,
            locks=locks,
            committer=committer,
            notices=self._notices,
            tenure_of=self.tenure_of,
            alone=lambda: committer.alone,
            reach=lambda group, at: self._seats.of(group).carried.reach(group, at),
        )
        self._views = Views(storage, registry, nodes, clock, self._live)
        self._resetter = Resetter(
            storage,
            registry,
            gate,
            clock,
            locks=locks,
            committer=committer,
            live=self._live,
            tenure_of=self.tenure_of,
            notices=self._notices,
        )
        self._replayer = Replayer(storage, gate, clock, self._views, tallies)
        self._renewal = Renewal(storage, registry, clock, locks=locks, live=self._live, tenure_of=self.tenure_of, tallies=tallies)
        nobody = Tenure(-1, 0, lambda slot: None)
        self._shop = Workshop(
            storage=storage,
            clock=clock,
            windows=self._windows,
            alarms=Alarms(clock),
            patience=Patience(clock),
            burials=Burials(storage, clock, self._signet, tallies, self._notices),
            tokens=Tokens(self._signet),
            tenure=nobody,
            carried=Carried(registry, clock),
            serials=serials_of(0, count(1)),
            answers=count(1),
            tallies=tallies,
            notices=self._notices,
            mend=self._resetter.mend,
            rewind=self._resetter.rewind,
        )
        self._consumers = Consumers(storage, registry, gate, clock, committer=committer, group=self._group, tenure_of=self.tenure_of)
        self._readback = Readback(storage, clock, committer, self._session, self._group)
        self._seats = Seats(
            registry,
            clock,
            epoch_of=self._epoch_of,
            shop=self._shop,
            live=self._live,
            locks=locks,
            committer=committer,
            readback=self._readback,
        )
        self._whereabouts = Whereabouts(registry)
        self._leases = Leases(self._shop.tokens, self._whereabouts, gate, clock, tallies, self._group, self._live, self._is_running)
        self._show()
        self._ends: list[Callable[[], None]] = []
        self._sweeping: IDelayedCall | None = None
        self._running = False

    def start(self) -> "Deferred[None]":
        """Take polls from now on. Fails with RegistryUnavailable where the registry has no signet and cannot be written."""
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        await self._signet.open()
        self._settle_in()
        self._running = True
        self._ends.append(self._registry.listen(self._follow))
        self._sweeping = self._clock.call_later(SWEEP_MS, self._sweep)
        self._renewal.start()
        for seat in self._seats.all():
            Deferred.fromCoroutine(self._resume(seat))
        self._muster()

    def _settle_in(self) -> None:
        membership = self._membership
        self._seats.slots = 1 if membership is None else membership.slots
        self._committer.alone = self._seats.slots == 1
        if self._committer.alone:
            epoch = self._epoch_of(0)
            seat = self._seats.sit(0, self._nodes.epoch if epoch is None else epoch)
            if self._carryover is not None:
                seat.carried.open(self._carryover)
        if membership is not None:
            self._members = frozenset(membership.members())
            self._ends.append(membership.listen(self._membership_changed))

    def stop(self) -> "Deferred[None]":
        """Take no more polls; those that wait end empty. Fires when the answers that were being written are settled, or have had their time, and
        what is done is committed."""
        return Deferred.fromCoroutine(self._stop())

    # --- ISubscriber ---

    def poll(self, grant: Grant, ask: Poll) -> "Deferred[Delivery]":
        if ask.instance is not None:
            return self.read(grant, ask.group, ask.instance, ask)
        try:
            return self._poll(grant, ask).deferred
        except PsubdError as error:
            return fail(error)

    def at_once(self, grant: Grant, ask: Poll) -> Delivery | None:
        group = self._live.get(ask.group) if self._running and ask.instance is None else None
        return None if group is None or group.application != grant.application.id else group.at_once(grant, ask)

    def replay(self, grant: Grant, ask: Replay) -> "Deferred[Delivery]":
        if not self._running:
            return fail(stopping())
        return Deferred.fromCoroutine(self._replayer.replay(grant, ask))

    def ack(self, grant: Grant, tokens: Sequence[str]) -> "Deferred[Verdict]":
        return self._judged(lambda: self._leases.ack(grant, tokens))

    def nack(self, grant: Grant, tokens: Sequence[str], delay_ms: int, dead: bool) -> "Deferred[Verdict]":
        return self._judged(lambda: self._leases.nack(grant, tokens, delay_ms, dead))

    def extend(self, grant: Grant, tokens: Sequence[str], ack_timeout_ms: int) -> "Deferred[Verdict]":
        return self._judged(lambda: self._leases.extend(grant, tokens, ack_timeout_ms))

    def groups(self, application: str | None, only: Callable[[str], bool] | None = None) -> "Deferred[list[GroupView]]":
        return Deferred.fromCoroutine(self._views.groups(application, only))

    def group(self, name: str) -> "Deferred[GroupView]":
        return Deferred.fromCoroutine(self._views.group(name))

    def reset(self, group: str, topic: str, partitions: Sequence[int] | None, to: ResetTo, dry_run: bool, actor: str) -> "Deferred[dict[int, int]]":
        return carried_through(self._reset(group, topic, partitions, to, dry_run, actor))

    def forget_group(self, group: str, actor: str) -> "Deferred[None]":
        return carried_through(self._resetter.forget(group, actor))

    def listen(self, told: Callable[[str], None]) -> Callable[[], None]:
        return self._notices.listen(told)

    # --- IConsumers ---

    def enlist(self, grant: Grant, group: str, instance: str, spec: InstanceSpec) -> "Deferred[None]":
        return self._asked(lambda: self._consumers.enlist(grant, group, instance, spec))

    def dismiss(self, grant: Grant, group: str, instance: str) -> "Deferred[None]":
        return self._asked(lambda: self._consumers.dismiss(grant, group, instance))

    def wish(self, grant: Grant, group: str, instance: str, wish: Wish) -> "Deferred[None]":
        return self._asked(lambda: self._consumers.wish(grant, group, instance, wish))

    def look(self, grant: Grant, group: str, instance: str) -> "Deferred[Standing]":
        return self._asked(lambda: self._consumers.look(grant, group, instance))

    def read(self, grant: Grant, group: str, instance: str, ask: Poll) -> "Deferred[Delivery]":
        if not self._running:
            return fail(stopping())
        return Deferred.fromCoroutine(self._consumers.read(grant, group, instance, ask))

    def seek(self, grant: Grant, group: str, instance: str, aims: Sequence[Aim]) -> "Deferred[None]":
        return self._asked(lambda: self._consumers.seek(grant, group, instance, aims))

    def commit(self, grant: Grant, group: str, instance: str, marks: Sequence[Mark] | None) -> "Deferred[list[Mark]]":
        return self._asked(lambda: self._consumers.commit(grant, group, instance, marks))

    def committed(self, grant: Grant, group: str, instance: str, partitions: Sequence[TopicPartition]) -> "Deferred[list[Mark]]":
        return self._asked(lambda: self._consumers.committed(grant, group, instance, partitions))

    # --- ISeats ---

    def take_over(self, slot: int, epoch: int, parcel: bytes | None) -> None:
        if self._running:
            self._seats.take_over(slot, epoch, parcel)
            if parcel:
                Deferred.fromCoroutine(self._resume(self._seats.at(slot)))
            self._muster(slot)

    def hand_over(self, slot: int) -> "Deferred[bytes]":
        return self._seats.hand_over(slot)

    def drop(self, slot: int) -> None:
        self._seats.drop(slot)

    def seated(self) -> Mapping[int, int]:
        return self._seats.seated()

    def loaded(self) -> int:
        return len(self._live)

    # --- for the other services ---

    def tenure_of(self, group: str) -> Tenure:
        """Under which this node acts for the group. :raises Moved: another one does."""
        return self._seats.tenure_of(group)

    # --- inside ---

    def _poll(self, grant: Grant, ask: Poll) -> WaitingPoll:
        if not self._running:
            raise stopping()
        check_name(ask.group)
        if application_of(ask.group) != grant.application.id:
            raise BadParameter("group: it belongs to another application")
        self._seats.of(ask.group).tenure.check()
        bindings = self._gate.may_subscribe(grant, ask.topics)
        group = self._group(ask.group)
        poll = WaitingPoll(grant, ask, bindings, group.is_rated(grant), group, self._clock.elapsed_ms() - ask.waited_ms)
        group.add(poll)
        return poll

    def _asked(self, ask: Callable[[], Job[T]]) -> "Deferred[T]":
        """Carried through, whoever waits for it."""
        return carried_through(ask()) if self._running else fail(stopping())

    def _judged(self, judge: Callable[[], Job[Verdict]]) -> "Deferred[Verdict]":
        """Carried through, whoever waits for it: half of the tokens would be worse than all of them."""
        return carried_through(judge()) if self._running else fail(stopping())

    async def _reset(self, name: str, topic: str, partitions: Sequence[int] | None, to: ResetTo, dry_run: bool, actor: str) -> dict[int, int]:
        offsets = await self._resetter.reset(name, topic, partitions, to, dry_run, actor)
        if not dry_run and self._seats.expects(slot_of(name, self._seats.slots)):
            # In memory, where a late commit of a former owner cannot undo it before it is read back.
            await outcomes([self._bring(name, topic)])
        return offsets

    async def _bring(self, name: str, topic: str) -> None:
        await self._group(name).visits.bring([topic])

    def _is_running(self) -> bool:
        return self._running

    def _group(self, name: str) -> LiveGroup:
        """:raises Moved: another node serves it. :raises OwnershipInDoubt: this node cannot tell now."""
        seat = self._seats.of(name)
        seat.tenure.check()
        group = seat.groups.get(name)
        if group is None:
            group = seat.groups[name] = self._live[name] = LiveGroup(
                name,
                shop=seat.shop,
                registry=self._registry,
                gate=self._gate,
                joiner=self._joiner,
                committer=self._committer,
                ended=lambda group: self._ended(seat, group),
                timeout_ms=self._instance_timeout_ms,
            )
        return group

    def _muster(self, slot: int | None = None) -> None:
        """Load the groups of the slot (None: of all) that have consumer instances: they are dismissed here when nobody uses them."""
        for name in self._registry.snapshot().children(INSTANCES):
            if name not in self._live and slot in (None, slot_of(name, self._seats.slots)):
                self._load(name)

    def _load(self, name: str) -> None:
        with suppress(OwnershipInDoubt):  # another node's, or looked at again with the next sweep
            self._group(name)

    async def _resume(self, seat: Seat) -> None:
        """Come to the groups that left leases: what lapsed, and letters that wait for their topic, must not wait until somebody asks. Where that
        fails, who asks comes to them."""

        async def come(name: str, topics: set[str]) -> None:
            if self._running:
                await self._group(name).visits.bring(topics)

        await outcomes([come(name, topics) for name, topics in seat.carried.left().items()])

    def _ended(self, seat: Seat, group: LiveGroup) -> None:
        for groups in (seat.groups, self._live):
            if groups.get(group.name) is group:
                del groups[group.name]

    def _follow(self, change: Change) -> None:
        for path in change.paths:
            root, _, name = path.rpartition("/")
            group = self._live.get(name)
            if root == ROOT and group is not None:
                group.review()
            elif root == INSTANCES and group is not None:
                group.review_instances()
            elif root == INSTANCES and self._running and self._registry.snapshot().get(path) is not None:
                self._load(name)

    # --- who serves what ---

    def _epoch_of(self, slot: int) -> int | None:
        membership = self._membership
        return self._nodes.epoch if membership is None else membership.epoch_of(slot)

    def _membership_changed(self) -> None:
        assert self._membership is not None
        self._seats.review()
        former, self._members = self._members, frozenset(self._membership.members())
        if not self._members <= former:
            self._readback.joined()

    def _session(self) -> int:
        """The session timeout of the nodes: the servers grant the same to all of them, be it more or less than was asked for."""
        return 0 if self._membership is None else self._membership.session_ms()

    # --- memory ---

    def _shed(self) -> None:
        """Memory for reading ahead has run out: take it from groups that nobody waits on, the longest unused first, down to half."""
        for group in sorted(self._live.values(), key=lambda group: group.used_ms):
            if self._windows.held <= self._windows.budget // 2:
                return
            if not group.queue:
                group.shed()

    def _sweep(self) -> None:
        self._sweeping = self._clock.call_later(SWEEP_MS, self._sweep)
        self._muster()
        for group in list(self._live.values()):
            if self._idle(group):
                Deferred.fromCoroutine(self._retire(group))

    def _idle(self, group: LiveGroup) -> bool:
        unused = self._clock.elapsed_ms() - group.used_ms
        return group.idle and (unused >= IDLE_MS or not group.topics) and not self._seats.expects(group.tenure.slot)

    async def _retire(self, group: LiveGroup) -> None:
        """Commit, then forget; unless somebody came, or it could not be committed: then it stays, and is looked at again."""
        await self._committer.flush(group)
        if group.live and self._idle(group) and not group.is_dirty():
            group.end()

    async def _stop(self) -> None:
        self._running = False
        while self._ends:
            self._ends.pop()()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        self._renewal.stop()
        self._replayer.stop()
        for group in list(self._live.values()):
            group.end_polls()
        await all_of([group.settled(self._patience_ms) for group in list(self._live.values())])
        await self._shop.burials.stop()
        await self._committer.stop()
        self._keep_leases()
        for group in list(self._live.values()):
            group.end()
        self._readback.stop()
        self._shop.alarms.stop()
        self._shop.patience.stop()
        self._whereabouts.stop()

    def _keep_leases(self) -> None:
        """Once nothing is committed any more: they go on with the next start. Where there are other nodes, the leases of a node that stops without
        having handed its slots over have ended."""
        if self._carryover is not None and self._committer.alone:
            for seat in self._seats.all():
                seat.carried.keep(self._carryover, seat.standings(), seat.stands())

    def _topics(self) -> list[LiveTopic]:
        return [topic for group in self._live.values() for topic in group.topics.values()]

    def _show(self) -> None:
        """What the gauges look at."""
        self._tallies.show(
            lambda: self._replayer.waiting + sum(len(group.queue) for group in self._live.values()),
            lambda: len(self._live),
            lambda: sum(group.contest.stands for group in self._live.values()),
            lambda: sum(topic.leased() for topic in self._topics()),
            lambda: sum(topic.delayed() for topic in self._topics()),
        )
        self._tallies.show_instances(
            lambda: sum(len(cohort.members) for cohort in self._cohorts()), lambda: sum(cohort.waiting for cohort in self._cohorts())
        )

    def _cohorts(self) -> list[Cohort]:
        return [group.cohort for group in self._live.values() if group.cohort is not None]
