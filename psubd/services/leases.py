"""Leases that clients show by their tokens: acked, given back early, extended."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import Counter
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from psubd.errors import NoDeadLetter, OwnershipInDoubt, PsubdError, RateLimited, StorageUnavailable, TopicMissing, TopicNotBound
from psubd.interfaces import IClock, IGate
from psubd.model import Grant, TopicPartition, Verdict
from psubd.services.channels import Channel
from psubd.services.groups import LiveGroup
from psubd.services.live_topics import LiveTopic
from psubd.services.polls import stopping
from psubd.services.rounds import outcomes
from psubd.services.tallies import Tallies
from psubd.services.tokens import Token, Tokens, Whereabouts
from psubd.services.visits import Brought

Act = Callable[[Channel, Token, int], bool]
"""Channel, token, now -> whether it took effect."""

Standing = dict[bytes, "LiveTopic | PsubdError"]
"""By tag: the topic of the group that it stands for, or why that cannot be told now. Left out: nothing of today."""


class Leases:
    """:param group: the loaded group of that full name, loaded where it was not; raises OwnershipInDoubt where it is not this node's.
    :param live: the groups that are loaded, by name. :param running: False: nothing that is told now would be kept."""

    def __init__(
        self,
        tokens: Tokens,
        whereabouts: Whereabouts,
        gate: IGate,
        clock: IClock,
        tallies: Tallies,
        group: Callable[[str], LiveGroup],
        live: Mapping[str, LiveGroup],
        running: Callable[[], bool],
    ) -> None:
        self._tokens, self._whereabouts, self._gate, self._clock = tokens, whereabouts, gate, clock
        self._tallies, self._group, self._live, self._running = tallies, group, live, running

    async def ack(self, grant: Grant, texts: Sequence[str]) -> Verdict:
        """As `ISubscriber.ack`."""

        def act(channel: Channel, token: Token, now: int) -> bool:
            done = channel.ledger.ack(token.offset, token.serial)
            channel.dirty = channel.dirty or done
            return done

        return await self._judge(grant, texts, act, self._tallies.acked)

    async def nack(self, grant: Grant, texts: Sequence[str], delay_ms: int, dead: bool) -> Verdict:
        """As `ISubscriber.nack`."""

        def act(channel: Channel, token: Token, now: int) -> bool:
            if dead:
                return channel.ledger.bury(token.offset, token.serial, now)
            return channel.ledger.nack(token.offset, token.serial, now, delay_ms)

        return await self._judge(grant, texts, act, self._tallies.nacked, dead)

    async def extend(self, grant: Grant, texts: Sequence[str], ack_timeout_ms: int) -> Verdict:
        """As `ISubscriber.extend`."""

        def act(channel: Channel, token: Token, now: int) -> bool:
            return channel.ledger.extend(token.offset, token.serial, now, now + ack_timeout_ms)

        return await self._judge(grant, texts, act, self._tallies.extended)

    async def _judge(self, grant: Grant, texts: Sequence[str], act: Act, tally: Counter, dead: bool = False) -> Verdict:
        shown = [self._tokens.read(text) for text in texts]
        standing = await self._standing(grant, {token.tag for token in shown if token is not None})
        if not self._running():  # it came to its end while the groups were loaded
            raise stopping()
        check_tenures(standing)
        if dead:
            check_dead_letters(shown, standing)
        now, lost, doubts = self._clock.elapsed_ms(), list[str](), list[PsubdError]()
        touched: dict[Channel, None] = {}
        for text, token in zip(texts, shown, strict=True):
            topic = None if token is None else standing.get(token.tag)
            if isinstance(topic, PsubdError):
                doubts.append(topic)
                continue
            channel = None if topic is None or token is None else topic.channel_of(token)
            if channel is not None and channel.halted:
                doubts.append(in_doubt_log(channel.at))
                continue
            if channel is not None and channel not in touched:
                channel.tick(now)  # what has lapsed is counted as that
                touched[channel] = None
            if channel is None or token is None or not act(channel, token, now):
                lost.append(text)
        count = len(texts) - len(lost) - len(doubts)
        tally.inc(count)
        burials = self._stirred(touched)
        if dead:
            await DeferredList(burials)
        if doubts:
            raise doubts[0]
        return Verdict(count, tuple(lost))

    def _stirred(self, channels: Iterable[Channel]) -> list[Deferred[None]]:
        """What follows from it; what fires once those that died of it were tried to be buried."""
        burials = [buried for channel in channels if (buried := channel.stir()) is not None]  # of all, before anybody is served
        groups: dict[str, list[Channel]] = {}
        for channel in channels:
            groups.setdefault(channel.group, []).append(channel)
        for name, touched in groups.items():
            group = self._live.get(name)  # what the one before set off may have ended it
            if group is not None:
                group.stirred(touched)
        return burials

    # --- whose they are ---

    async def _standing(self, grant: Grant, tags: Iterable[bytes]) -> Standing:
        """:raises BadCredentials: the grant holds no longer."""
        places: dict[tuple[str, str], bytes] = {}
        for tag in tags:
            place = self._whereabouts.find(grant.application.id, tag)
            if place is not None:
                places[place] = tag
        bound = self._bound(grant, {topic for _, topic in places})
        groups: dict[str, list[str]] = {}
        for name, topic in places:
            if topic in bound:
                groups.setdefault(name, []).append(topic)
        standing: Standing = {}
        for name, brought in (await self._brought(groups)).items():
            for topic in groups[name]:
                found = brought if isinstance(brought, PsubdError) else brought.get(topic)
                if found is not None and not isinstance(found, TopicNotBound | TopicMissing):
                    standing[places[name, topic]] = found
        return standing

    async def _brought(self, groups: Mapping[str, Sequence[str]]) -> dict[str, Brought | PsubdError]:
        """What each group stands on of its topics, loaded where it was not."""
        found: dict[str, Brought | PsubdError] = {}
        rest: dict[str, LiveGroup] = {}
        for name, topics in groups.items():
            try:
                group = self._group(name)
            except OwnershipInDoubt as error:
                found[name] = error
                continue
            at_hand = group.visits.at_hand(topics)
            if at_hand is not None:
                found[name] = at_hand
            else:
                rest[name] = group
        if rest:
            for name, outcome in zip(rest, await outcomes([group.visits.bring(groups[name]) for name, group in rest.items()]), strict=True):
                found[name] = told(outcome) if isinstance(outcome, Failure) else outcome
        return found

    def _bound(self, grant: Grant, topics: Iterable[str]) -> set[str]:
        """Those that the application may read now; a rate in debt is no matter."""
        bound = set()
        for topic in topics:
            try:
                self._gate.may_subscribe(grant, [topic])
            except TopicNotBound:
                continue
            except RateLimited:
                pass
            bound.add(topic)
        return bound


def check_tenures(standing: Standing) -> None:
    """Right before something is done: what is no longer this node's, as far as it knows at this instant, is in doubt."""
    for tag, topic in standing.items():
        if isinstance(topic, LiveTopic) and not topic.tenure.grants:
            standing[tag] = topic.tenure.refusal()


def in_doubt_log(at: TopicPartition) -> StorageUnavailable:
    """What is told of leases while it is looked whether their log was cut: where it was not, they go on."""
    return StorageUnavailable(
        f"whether the log of partition {at.partition} of topic {at.topic!r} was cut is being looked at; send the tokens again", 1
    )


def check_dead_letters(shown: Iterable[Token | None], standing: Standing) -> None:
    """:raises NoDeadLetter: one of the leases is of a topic whose binding names no dead-letter topic."""
    for token in shown:
        topic = None if token is None else standing.get(token.tag)
        if isinstance(topic, LiveTopic) and token is not None and topic.channel_of(token) is not None and topic.binding.dead_letter is None:
            raise NoDeadLetter(
                f"the binding to topic {topic.name!r} names no dead-letter topic; nothing was changed. Leave out dead, or have one set"
            )


def told(failure: Failure) -> PsubdError:
    """:raises Exception: what is not for a client."""
    if not isinstance(failure.value, PsubdError):
        failure.raiseException()
    assert isinstance(failure.value, PsubdError)
    return failure.value
