"""The switchboard: who serves a group is asked, be it this node or another. With many nodes it is what endpoints and manager take for the subscriber.

    Switchboard(subscriber, consumers, redriver, ownership, membership, peers, registry, gate, clock, metrics=None)
        provides ISubscriber, IConsumers and IRedriver; `serve` registers the verbs, before the peers start or after; `stop` before subscriber and
        peers stop

A poll goes to the owner of its group's slot, and waits there; where the slot moves, it goes on to the next one with the time that it has left,
and takes its place there by how long it has waited. Tokens are shared out by the slots of their groups. Who cannot find or reach an owner waits for a
change (`PATIENCE_MS`), and is then told OwnershipInDoubt: never that there is nothing.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from psubd.errors import BadParameter, Moved, NoDeadLetter, OwnershipInDoubt, PeerLost, PsubdError
from psubd.interfaces import IClock, IConsumers, IGate, IMembership, IPeers, IRedriver, IRegistry, ISubscriber
from psubd.model import (
    Aim,
    Delivery,
    Grant,
    GroupView,
    InstanceSpec,
    Mark,
    Poll,
    Redriven,
    Replay,
    ResetTo,
    Standing,
    TopicPartition,
    Verdict,
    Wish,
)
from psubd.services.group_records import application_of, check_name
from psubd.services.ownership import HERE, MOVING, Ownership
from psubd.services.polls import nothing
from psubd.services.remote_codec import Dismiss, Enlist, InstanceCall, Look, Marked, Places, Seek, Verb, Wished
from psubd.services.remote_edge import Edge
from psubd.services.remote_instances import called
from psubd.services.remote_owner import Owner
from psubd.services.rounds import Rounds, carried_through, outcomes
from psubd.services.signet import Signet
from psubd.services.switchboard_lobby import Lobby
from psubd.services.tokens import Tokens, Whereabouts
from psubd.slots import id_of, slot_of

PATIENCE_MS, LEAST_PATIENCE_MS = 5_000, 1_000
"""How long a poll waits for an owner: as long as it would for a message, within these bounds. Where the slot moves, and all else: the longer."""

AT_ONCE = 64

T = TypeVar("T")


@implementer(ISubscriber, IConsumers, IRedriver)
class Switchboard:
    """:param subscriber: of the groups that this node serves; likewise ``consumers`` and ``redriver``. :param metrics: where it is counted; None:
    nowhere."""

    def __init__(
        self,
        subscriber: ISubscriber,
        consumers: IConsumers,
        redriver: IRedriver,
        ownership: Ownership,
        membership: IMembership,
        peers: IPeers,
        registry: IRegistry,
        gate: IGate,
        clock: IClock,
        metrics: CollectorRegistry | None = None,
    ) -> None:
        self._subscriber, self._redriver, self._ownership, self._membership = subscriber, redriver, ownership, membership
        self._consumers = consumers
        self._registry, self._gate, self._clock = registry, gate, clock
        self._edge = Edge(peers, membership, registry, clock)
        self._owner = Owner(subscriber, consumers, redriver, ownership, membership, peers, registry, gate, clock)
        self._lobby = Lobby(ownership, peers, clock)
        self._tokens = Tokens(Signet(registry))
        self._whereabouts = Whereabouts(registry)
        self._catching_up = Rounds(self._sync)
        self._stopping = False
        self._passed = Counter("psubd_polls_passed_total", "Polls that were passed on to the node that serves their group", registry=metrics)
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "psubd_polls_passed_waiting": ("Polls of this node's clients that wait at other nodes", lambda: len(self._edge.waiting)),
            "psubd_polls_seeking": ("Polls and tokens whose group's node is not known, or not reached, now", lambda: self._lobby.waiting),
            "psubd_answers_borrowed": ("Answers with other nodes' messages that are being written", lambda: self._edge.open),
            "psubd_answers_lent": ("Answers with this node's messages that other nodes are writing", lambda: len(self._owner.outs)),
        }
        for name, (text, count) in gauges.items():
            Gauge(name, text, registry=metrics).set_function(count)

    def serve(self) -> None:
        """Take the other nodes' verbs."""
        self._edge.serve()
        self._owner.serve()

    def stop(self) -> "Deferred[None]":
        """Polls that wait elsewhere, or for an owner, end empty, and so does one that still comes; tokens that still come go where they belong.
        Fires when other nodes know what became of their messages, or have had their time."""
        self._stopping = True
        self._lobby.stop()
        self._owner.stop()
        self._whereabouts.stop()
        return self._edge.stop()

    # --- polls

    def poll(self, grant: Grant, ask: Poll) -> "Deferred[Delivery]":
        slot = self._slot(ask.group)
        if self._lobby.where(slot) == HERE:
            polling: Deferred[Delivery] = self._subscriber.poll(grant, ask)
            return polling.addErrback(self._poll_on, grant, ask, slot, self._clock.elapsed_ms())
        try:
            self._check(grant, ask)
        except PsubdError as refused:
            return fail(refused)
        return Deferred.fromCoroutine(self._poll(grant, ask, slot, self._clock.elapsed_ms()))

    def at_once(self, grant: Grant, ask: Poll) -> Delivery | None:
        """Of a group that this node serves."""
        return self._subscriber.at_once(grant, ask)

    def _poll_on(self, failure: Failure, grant: Grant, ask: Poll, slot: int, since: int) -> "Deferred[Delivery]":
        """It waited here, and the slot has moved."""
        failure.trap(Moved)
        self._lobby.disbelieve(slot, HERE)
        return Deferred.fromCoroutine(self._poll(grant, ask, slot, since))

    async def _poll(self, grant: Grant, ask: Poll, slot: int, since: int) -> Delivery:
        ends, moving = since + ask.timeout_ms, False
        last = max(ends, since + LEAST_PATIENCE_MS) + PATIENCE_MS
        while not self._ends_polls():
            now = self._clock.elapsed_ms()
            if now > last:
                raise OwnershipInDoubt("the group went from node to node, or was not reached, for too long; ask again in a moment", 1)
            try:
                place = await self._lobby.find(slot, self._patience_ms(slot, moving, ends - now))
            except PsubdError:
                if self._ends_polls():
                    break
                raise
            now = self._clock.elapsed_ms()
            left = msgspec.structs.replace(ask, timeout_ms=max(0, ends - now), waited_ms=now - since)
            try:
                return await self._poll_at(place, grant, left)
            except Moved:
                moving = True
                self._lobby.disbelieve(slot, place)
            except PeerLost:
                continue  # what it may have been given goes back; the link may come again, or another owner
        return nothing()

    def _patience_ms(self, slot: int, moving: bool, left_ms: int) -> int:
        """A slot that goes from one living node to another is there soon: a poll that would not wait for a message waits for that, as an ack does."""
        if moving or self._ownership.seat(slot) == MOVING:
            return PATIENCE_MS
        return min(PATIENCE_MS, max(LEAST_PATIENCE_MS, left_ms))

    def _ends_polls(self) -> bool:
        return self._stopping

    def _poll_at(self, place: str, grant: Grant, ask: Poll) -> "Deferred[Delivery]":
        if place == HERE:
            return self._subscriber.poll(grant, ask)
        self._passed.inc()
        return self._edge.poll(place, grant, ask)

    def _check(self, grant: Grant, ask: Poll) -> None:
        """As the owner will: what this node knows to be wrong goes nowhere."""
        check_name(ask.group)
        if application_of(ask.group) != grant.application.id:
            raise BadParameter("group: it belongs to another application")
        self._gate.may_subscribe(grant, ask.topics)

    def replay(self, grant: Grant, ask: Replay) -> "Deferred[Delivery]":
        return self._subscriber.replay(grant, ask)

    # --- tokens

    def ack(self, grant: Grant, tokens: Sequence[str]) -> "Deferred[Verdict]":
        return carried_through(self._judge("ack", grant, tokens))

    def nack(self, grant: Grant, tokens: Sequence[str], delay_ms: int, dead: bool) -> "Deferred[Verdict]":
        return carried_through(self._judge("nack", grant, tokens, delay_ms, dead))

    def extend(self, grant: Grant, tokens: Sequence[str], ack_timeout_ms: int) -> "Deferred[Verdict]":
        return carried_through(self._judge("extend", grant, tokens, ack_timeout_ms))

    async def _judge(self, verb: Verb, grant: Grant, tokens: Sequence[str], ms: int = 0, dead: bool = False) -> Verdict:
        """Each slot is asked alone: what moves, moves as one. A nack is not said twice: the second would find its lease gone."""
        groups = await self._groups_of(grant, tokens)
        slots = [None if group is None else self._slot(group[0]) for group in groups]
        if dead and len(set(slots)) > 1:
            self._check_dead_letters(grant, {group[1] for group in groups if group is not None})
        shares: dict[int, list[str]] = {}
        for token, slot in zip(tokens, slots, strict=True):
            if slot is not None:
                shares.setdefault(slot, []).append(token)

        async def judged(slot: int) -> Verdict:
            return await self._at_owner(slot, lambda place: self._judge_at(place, verb, grant, slot, shares[slot], ms, dead), verb != "nack")

        return merged(tokens, slots, dict(zip(shares, await outcomes([judged(slot) for slot in shares], AT_ONCE), strict=True)))

    def _judge_at(self, place: str, verb: Verb, grant: Grant, slot: int, tokens: Sequence[str], ms: int, dead: bool) -> Awaitable[Verdict]:
        if place != HERE:
            return self._edge.judge(place, verb, grant, slot, tokens, ms, dead)
        if verb == "ack":
            return self._subscriber.ack(grant, tokens)
        return self._subscriber.nack(grant, tokens, ms, dead) if verb == "nack" else self._subscriber.extend(grant, tokens, ms)

    async def _groups_of(self, grant: Grant, tokens: Sequence[str]) -> list[tuple[str, str] | None]:
        """The group and topic of each; None: of nothing that stands today. A group that this node has not heard of yet is looked for in the
        registry."""
        shown = [self._tokens.read(token) for token in tokens]
        tags = {token.tag for token in shown if token is not None}
        found = self._found(grant, tags)
        if len(found) < len(tags):
            try:
                await self._catching_up.next()
            except PsubdError as refused:
                raise OwnershipInDoubt(f"this node cannot see now what the registry says: {refused.detail}", 1) from refused
            found = self._found(grant, tags)
        return [None if token is None else found.get(token.tag) for token in shown]

    def _found(self, grant: Grant, tags: set[bytes]) -> dict[bytes, tuple[str, str]]:
        places = {tag: self._whereabouts.find(grant.application.id, tag) for tag in tags}
        return {tag: place for tag, place in places.items() if place is not None}

    def _check_dead_letters(self, grant: Grant, topics: set[str]) -> None:
        """With several owners none of them can tell that nothing is to be changed at the others. :raises NoDeadLetter:"""
        standing = self._gate.grant_of(grant.application.id)
        for topic in sorted(topics):
            binding = None if standing is None else standing.bindings.get(topic)
            if binding is not None and binding.sub and binding.dead_letter is None:
                raise NoDeadLetter(f"the binding to topic {topic!r} names no dead-letter topic; nothing was changed. Leave out dead, or have one set")

    async def _sync(self) -> None:
        await self._registry.sync()

    # --- groups

    def groups(self, application: str | None, only: Callable[[str], bool] | None = None) -> "Deferred[list[GroupView]]":
        return Deferred.fromCoroutine(self._groups(application, only))

    def group(self, name: str) -> "Deferred[GroupView]":
        return Deferred.fromCoroutine(self._group(name))

    async def _groups(self, application: str | None, only: Callable[[str], bool] | None) -> list[GroupView]:
        """Each node tells of those that it serves; this one of its own, and of those that nobody told of, as they stand in the storage."""
        members = {place for slot in range(self._membership.slots) if (place := self._lobby.where(slot)) not in (None, HERE)}
        asked = [self._edge.groups(member, application) for member in members if member is not None]
        views: dict[str, GroupView] = {}
        for told in await outcomes(asked, AT_ONCE):
            if not isinstance(told, Failure):
                views.update({view.group: view for view in told if only is None or only(view.group)})
            elif not told.check(OwnershipInDoubt):
                told.raiseException()
        rest: list[GroupView] = await self._subscriber.groups(application, lambda name: name not in views and (only is None or only(name)))
        views.update({view.group: self._seen_from_here(view) for view in rest})
        return [views[name] for name in sorted(views)]

    async def _group(self, name: str) -> GroupView:
        place = self._lobby.where(self._slot(name))
        if place is not None and place != HERE:
            try:
                return await self._edge.group(place, name)
            except OwnershipInDoubt:
                pass  # as it stands in the storage
        return self._seen_from_here(await self._subscriber.group(name))

    def _seen_from_here(self, view: GroupView) -> GroupView:
        """One that is served elsewhere is shown as the storage has it, with whose it is, as far as is known."""
        seat = self._ownership.seat(self._slot(view.group))
        if seat == HERE:
            return view
        node = "" if seat is None or seat == MOVING else id_of(seat)
        return msgspec.structs.replace(view, items=tuple(msgspec.structs.replace(item, node=node) for item in view.items))

    def reset(self, group: str, topic: str, partitions: Sequence[int] | None, to: ResetTo, dry_run: bool, actor: str) -> "Deferred[dict[int, int]]":
        def ask(place: str) -> Awaitable[dict[int, int]]:
            if place == HERE:
                return self._subscriber.reset(group, topic, partitions, to, dry_run, actor)
            return self._edge.reset(place, group, topic, partitions, to, dry_run, actor)

        return carried_through(self._at_owner(self._slot(group), ask))

    def forget_group(self, group: str, actor: str) -> "Deferred[None]":
        def ask(place: str) -> Awaitable[None]:
            return self._subscriber.forget_group(group, actor) if place == HERE else self._edge.forget(place, group, actor)

        return carried_through(self._at_owner(self._slot(group), ask))

    def redrive(self, group: str, topic: str, limit: int, actor: str) -> "Deferred[Redriven]":
        def ask(place: str) -> Awaitable[Redriven]:
            if place == HERE:
                return self._redriver.redrive(group, topic, limit, actor)
            return self._edge.redrive(place, group, topic, limit, actor)

        return carried_through(self._at_owner(self._slot(group), ask))

    # --- consumer instances

    def enlist(self, grant: Grant, group: str, instance: str, spec: InstanceSpec) -> "Deferred[None]":
        return self._instance(grant, group, instance, Enlist(spec), None, again=False)

    def dismiss(self, grant: Grant, group: str, instance: str) -> "Deferred[None]":
        return self._instance(grant, group, instance, Dismiss(), None, again=False)

    def wish(self, grant: Grant, group: str, instance: str, wish: Wish) -> "Deferred[None]":
        return self._instance(grant, group, instance, Wished(wish), None)

    def look(self, grant: Grant, group: str, instance: str) -> "Deferred[Standing]":
        return self._instance(grant, group, instance, Look(), Standing)

    def read(self, grant: Grant, group: str, instance: str, ask: Poll) -> "Deferred[Delivery]":
        return self.poll(grant, msgspec.structs.replace(ask, group=group, instance=instance))

    def seek(self, grant: Grant, group: str, instance: str, aims: Sequence[Aim]) -> "Deferred[None]":
        return self._instance(grant, group, instance, Seek(tuple(aims)), None)

    def commit(self, grant: Grant, group: str, instance: str, marks: Sequence[Mark] | None) -> "Deferred[list[Mark]]":
        """What was read is not committed twice: what the first one had to tell would be lost."""
        said = Marked(None if marks is None else tuple(marks))
        return self._instance(grant, group, instance, said, list[Mark], again=marks is not None)

    def committed(self, grant: Grant, group: str, instance: str, partitions: Sequence[TopicPartition]) -> "Deferred[list[Mark]]":
        return self._instance(grant, group, instance, Places(tuple(partitions)), list[Mark])

    def _instance(self, grant: Grant, group: str, instance: str, call: InstanceCall, kind: "type[T] | Any", again: bool = True) -> "Deferred[T]":
        """:param again: it may be said twice."""

        def ask(place: str) -> Awaitable[T]:
            if place == HERE:
                return called(self._consumers, grant, group, instance, call)
            return self._edge.instance(place, grant, group, instance, call, kind)

        return carried_through(self._at_owner(self._slot(group), ask, again))

    def listen(self, told: Callable[[str], None]) -> Callable[[], None]:
        return self._subscriber.listen(told)

    # --- inside

    def _slot(self, group: str) -> int:
        return slot_of(group, self._membership.slots)

    async def _at_owner(self, slot: int, ask: Callable[[str], Awaitable[T]], again: bool = False) -> T:
        """What the slot's owner says, once there is one. ``again``: it may be asked twice, where the first answer was lost with the link."""
        until = self._clock.elapsed_ms() + PATIENCE_MS
        while True:
            place = await self._lobby.find(slot, max(0, until - self._clock.elapsed_ms()))
            try:
                return await ask(place)
            except Moved:
                self._lobby.disbelieve(slot, place)
            except PeerLost:
                if not again:
                    raise


def merged(tokens: Sequence[str], slots: Sequence[int | None], told: Mapping[int, "Verdict | Failure"]) -> Verdict:
    """One verdict, with what was lost in the order sent. :raises PsubdError: what the first of the slots that failed failed with."""
    verdicts: dict[int, Verdict] = {}
    for asked, outcome in told.items():
        if isinstance(outcome, Failure):
            outcome.raiseException()
        else:
            verdicts[asked] = outcome
    lost = {slot: deque(verdict.lost) for slot, verdict in verdicts.items()}
    names = []
    for token, slot in zip(tokens, slots, strict=True):
        if slot is None:
            names.append(token)
        elif lost[slot] and lost[slot][0] == token:
            names.append(lost[slot].popleft())
    return Verdict(sum(verdict.count for verdict in verdicts.values()), tuple(names))
