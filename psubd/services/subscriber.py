"""The subscriber: groups, their polls, replays. The rules of who gets which message are in `psubd.delivery`; the parts are beside this module."""

from collections.abc import Callable, Sequence
from itertools import count

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from psubd.errors import BadParameter, PsubdError
from psubd.interfaces import Change, ICarryover, IClock, IGate, INodes, IRegistry, IStorage, ISubscriber
from psubd.model import Delivery, Grant, GroupView, Poll, Replay, ResetTo, Verdict
from psubd.services.alarms import Alarms
from psubd.services.burials import Burials
from psubd.services.carried import Carried
from psubd.services.commits import Committer
from psubd.services.group_records import ROOT, application_of, check_name
from psubd.services.groups import LiveGroup
from psubd.services.joins import Joiner
from psubd.services.leases import Leases
from psubd.services.live_topics import LiveTopic
from psubd.services.notices import Notices
from psubd.services.polls import WaitingPoll, stopping
from psubd.services.renewal import Renewal
from psubd.services.replay import Replayer
from psubd.services.resets import Resetter
from psubd.services.rounds import Job, Locks, all_of, carried_through, outcomes
from psubd.services.signet import Signet
from psubd.services.tallies import Tallies
from psubd.services.tokens import Tokens, Whereabouts
from psubd.services.views import Views
from psubd.services.windows import Windows
from psubd.services.workshop import Workshop, serials_of

IDLE_MS = 60_000
"""A group that nobody polled for so long leaves memory."""

SWEEP_MS = 15_000
"""How often is looked for such groups."""

PATIENCE_MS = 5_000
"""How long `Subscriber.stop` waits for answers that are being written."""

WINDOW_BYTES = 256 << 20
"""Payload that all groups together hold read ahead."""

log = Logger()


@implementer(ISubscriber)
class Subscriber:
    """To be started after storage, registry and gate, and stopped before them.

    :param commit_interval_ms: from a message's being done to its commit, while the storage keeps up.
    :param window_bytes: payload read ahead, over all groups. :param patience_ms: how long `stop` waits for answers that are being written.
    :param carryover: what leases outlive a restart in; None: they do not.
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
    ) -> None:
        self._registry, self._gate, self._clock = registry, gate, clock
        self._patience_ms = patience_ms
        self._live: dict[str, LiveGroup] = {}
        self._tallies = tallies = Tallies(metrics)
        self._windows = Windows(window_bytes, self._shed)
        self._committer = Committer(storage, nodes, clock, commit_interval_ms, tallies)
        self._notices = Notices()
        locks = Locks()
        self._joiner = Joiner(
            storage,
            registry,
            gate,
            clock,
            locks=locks,
            committer=self._committer,
            notices=self._notices,
            reach=lambda group, at: self._shop.carried.reach(group, at),
        )
        self._views = Views(storage, registry, nodes, clock, self._live)
        self._resetter = Resetter(
            storage, registry, gate, nodes, clock, locks=locks, committer=self._committer, live=self._live, notices=self._notices
        )
        self._replayer = Replayer(storage, gate, clock, self._views, tallies)
        self._renewal = Renewal(storage, registry, clock, locks=locks, live=self._live, tallies=tallies)
        self._signet = Signet(registry)
        self._shop = Workshop(
            storage=storage,
            clock=clock,
            windows=self._windows,
            alarms=Alarms(clock),
            burials=Burials(storage, clock, self._signet, tallies, self._notices),
            tokens=Tokens(self._signet),
            carried=Carried(carryover, registry, clock),
            serials=serials_of(nodes),
            answers=count(1),
            tallies=tallies,
            notices=self._notices,
            mend=self._resetter.mend,
        )
        self._whereabouts = Whereabouts(registry)
        self._leases = Leases(self._shop.tokens, self._whereabouts, gate, clock, tallies, self._group, self._is_running)
        self._show()
        self._end_listening: Callable[[], None] | None = None
        self._sweeping: IDelayedCall | None = None
        self._running = False

    def start(self) -> "Deferred[None]":
        """Take polls from now on. Fails with RegistryUnavailable where the registry has no signet and cannot be written."""
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        await self._signet.open()
        self._shop.carried.open()
        self._running = True
        self._end_listening = self._registry.listen(self._follow)
        self._sweeping = self._clock.call_later(SWEEP_MS, self._sweep)
        self._renewal.start()
        Deferred.fromCoroutine(self._resume())

    def stop(self) -> "Deferred[None]":
        """Take no more polls; those that wait end empty. Fires when the answers that were being written are settled, or have had their time, and
        what is done is committed."""
        return Deferred.fromCoroutine(self._stop())

    # --- ISubscriber ---

    def poll(self, grant: Grant, ask: Poll) -> "Deferred[Delivery]":
        try:
            return self._poll(grant, ask).deferred
        except PsubdError as error:
            return fail(error)

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

    def groups(self, application: str | None) -> "Deferred[list[GroupView]]":
        return Deferred.fromCoroutine(self._views.groups(application))

    def group(self, name: str) -> "Deferred[GroupView]":
        return Deferred.fromCoroutine(self._views.group(name))

    def reset(self, group: str, topic: str, partitions: Sequence[int] | None, to: ResetTo, dry_run: bool, actor: str) -> "Deferred[dict[int, int]]":
        return carried_through(self._resetter.reset(group, topic, partitions, to, dry_run, actor))

    def forget_group(self, group: str, actor: str) -> "Deferred[None]":
        return carried_through(self._resetter.forget(group, actor))

    def listen(self, told: Callable[[str], None]) -> Callable[[], None]:
        return self._notices.listen(told)

    # --- inside ---

    def _poll(self, grant: Grant, ask: Poll) -> WaitingPoll:
        if not self._running:
            raise stopping()
        check_name(ask.group)
        if application_of(ask.group) != grant.application.id:
            raise BadParameter("group: it belongs to another application")
        bindings = self._gate.may_subscribe(grant, ask.topics)
        group = self._group(ask.group)
        poll = WaitingPoll(grant, ask, bindings, group.withdraw)
        group.add(poll)
        return poll

    def _judged(self, judge: Callable[[], Job[Verdict]]) -> "Deferred[Verdict]":
        """Carried through, whoever waits for it: half of the tokens would be worse than all of them."""
        return carried_through(judge()) if self._running else fail(stopping())

    def _is_running(self) -> bool:
        return self._running

    def _group(self, name: str) -> LiveGroup:
        group = self._live.get(name)
        if group is None:
            group = self._live[name] = LiveGroup(
                name,
                shop=self._shop,
                registry=self._registry,
                gate=self._gate,
                joiner=self._joiner,
                committer=self._committer,
                ended=self._ended,
            )
        return group

    async def _resume(self) -> None:
        """Come to the groups that left leases: what lapsed, and letters that wait for their topic, must not wait until somebody asks. Where that
        fails, who asks comes to them."""

        async def come(name: str, topics: set[str]) -> None:
            if self._running:
                await self._group(name).visits.bring(topics)

        await outcomes([come(name, topics) for name, topics in self._shop.carried.left().items()])

    def _ended(self, group: LiveGroup) -> None:
        if self._live.get(group.name) is group:
            del self._live[group.name]

    def _follow(self, change: Change) -> None:
        for path in change.paths:
            group = self._live.get(path.removeprefix(f"{ROOT}/")) if path.startswith(ROOT) else None
            if group is not None:
                group.review()

    def _shed(self) -> None:
        """Memory for reading ahead has run out: take it from groups that nobody waits on, the longest unused first, down to half."""
        for group in sorted(self._live.values(), key=lambda group: group.used_ms):
            if self._windows.held <= self._windows.budget // 2:
                return
            if not group.queue:
                group.shed()

    def _sweep(self) -> None:
        self._sweeping = self._clock.call_later(SWEEP_MS, self._sweep)
        for group in list(self._live.values()):
            if self._idle(group):
                Deferred.fromCoroutine(self._retire(group))

    def _idle(self, group: LiveGroup) -> bool:
        unused = self._clock.elapsed_ms() - group.used_ms
        return group.idle and (unused >= IDLE_MS or not group.topics)

    async def _retire(self, group: LiveGroup) -> None:
        """Commit, then forget; unless somebody came, or it could not be committed: then it stays, and is looked at again."""
        await self._committer.flush(group)
        if group.live and self._idle(group) and not group.is_dirty():
            group.end()

    async def _stop(self) -> None:
        self._running = False
        if self._end_listening is not None:
            self._end_listening()
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
        self._shop.alarms.stop()
        self._whereabouts.stop()

    def _keep_leases(self) -> None:
        """Once nothing is committed any more: they go on with the next start."""
        self._shop.carried.keep((topic.record, channel) for topic in self._topics() for channel in topic.channels.values())

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
