"""When a poll ends without a message, and what it may read.

An empty answer is only given after the storage was looked at once since the poll came, so that it is true. A poll fails when nothing of what it
asks for can be read; while something can, it goes on with that, and at its end tells what could not be looked at instead of answering empty.
"""

from collections.abc import Mapping
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from psubd.errors import PsubdError, RateLimited, TopicMissing
from psubd.interfaces import IClock, IGate
from psubd.model import Binding, Delivery
from psubd.services.joins import refusal
from psubd.services.live_topics import LiveTopic
from psubd.services.polls import WaitingPoll, is_rated, nothing
from psubd.services.queues import Queue
from psubd.services.rounds import Rounds
from psubd.services.tenures import Tenure

LOOKS = 5
"""How often a poll comes to its topics again where they are voided under it while it looks (revoked and bound again, cut, made again)."""

RATE_MS = 1_000
"""How often polls that wait on a topic with a rate look whether they may read it again: the rate's own grain is a second."""


class Ground(Protocol):
    """The group, as a look sees it.

    :ivar restless: the topics of which not every partition is read to its end and watched there.
    :ivar tenure: of its slot: an empty answer is only true while it stands. :ivar topics: those that it stands on, by name.
    :ivar troubles: why it could not come to others, at the last try. :ivar joins: its tries.
    """

    topics: dict[str, LiveTopic]
    restless: set[str]
    troubles: dict[str, PsubdError]
    queue: Queue
    joins: Rounds
    tenure: Tenure

    def serve(self) -> None:
        """Give what is at hand."""


class Lookout:
    """Looks for the polls of one group, and judges them."""

    def __init__(self, ground: Ground, gate: IGate, clock: IClock) -> None:
        self._ground, self._gate, self._clock = ground, gate, clock
        self._rate_look: IDelayedCall | None = None
        self._stood_on: Mapping[str, Binding] | None = None

    def left(self) -> None:
        """The group does not stand on a topic any more."""
        self._stood_on = None

    def begin(self, poll: WaitingPoll) -> None:
        """See to it that everything is read or watched that ``poll`` asks for, and that what is there now was found."""
        if poll.rated:
            self._look_at_rates()
        if not poll.expired and self._at_rest(poll.open):
            poll.looked = True
            return
        poll.looked = False
        Deferred.fromCoroutine(self._look(poll)).addErrback(self._broke, poll)

    def expired(self, poll: WaitingPoll) -> None:
        """Its time is over."""
        poll.expired = True
        self.judge(poll)

    def reopen(self, poll: WaitingPoll) -> None:
        """What may it read now? It ends where that is nothing, and looks again where it is more than before."""
        try:
            bindings = self._gate.may_subscribe(poll.grant, poll.ask.topics)
        except RateLimited:
            bindings = {}
        except PsubdError as error:
            self.answer(poll, error)
            return
        more = not bindings.keys() <= poll.open.keys()
        poll.open = bindings
        poll.rated = poll.rated or is_rated(bindings.values())
        self._ground.queue.moved(poll)
        if more:
            self.begin(poll)

    def judge(self, poll: WaitingPoll) -> None:
        """Whether it has to end without a message."""
        if poll.over:
            return
        errors = self._errors(poll)
        named = poll.ask.topics is not None
        missing = next((error for error in errors if isinstance(error, TopicMissing)), None)
        if errors and not any(topic.healthy() for topic in self._open_topics(poll)):
            self.answer(poll, missing or errors[0])
        elif named and missing is not None:
            self.answer(poll, missing)
        elif poll.expired and poll.looked:
            unseen = [error for error in errors if error is not missing]
            self.answer(poll, unseen[0] if unseen else nothing())

    def judge_all(self, topic: str) -> None:
        """All that may read the topic."""
        for poll in [poll for poll in self._ground.queue if topic in poll.open]:
            self.judge(poll)

    def troubled(self, topic: str) -> None:
        """A partition of the topic cannot be read, again perhaps. That ends polls only where nothing is left that they can read: looked at once for
        all that read the same, since in an outage each partition says so every second."""
        if any(not any(open.healthy() for open in self._open_topics(poll)) for poll in self._ground.queue.heads(topic)):
            self.judge_all(topic)

    def answer(self, poll: WaitingPoll, outcome: Delivery | PsubdError) -> None:
        """It ends with that."""
        self._ground.queue.drop(poll)
        tenure = self._ground.tenure
        if not isinstance(outcome, PsubdError) and not tenure.stands:
            outcome = tenure.refusal()
        if isinstance(outcome, PsubdError):
            poll.fail(outcome)
        else:
            poll.answer(outcome)

    def answer_all(self, outcome: Delivery | PsubdError) -> None:
        """All that wait end with that."""
        for poll in list(self._ground.queue):
            if not poll.over:
                self.answer(poll, outcome)

    def stop(self) -> None:
        if self._rate_look is not None and self._rate_look.active():
            self._rate_look.cancel()

    # --- inside ---

    def _at_rest(self, open: Mapping[str, Binding]) -> bool:
        """Whether all of these were read to their ends, and whoever waits there is told of what comes: there is nothing to look at. However many
        they are, those who ask for the same ones again cost next to nothing."""
        ground = self._ground
        if self._stood_on is not open:
            if not open.keys() <= ground.topics.keys():
                return False
            self._stood_on = open
        return not any(name in open for name in ground.restless)

    async def _look(self, poll: WaitingPoll) -> None:
        ground = self._ground
        if poll.ask.timeout_ms <= 0:
            for refresh in [topic.refreshes.next() for topic in self._open_topics(poll)]:
                await refresh
        absent = [name for name in poll.open if name not in ground.topics]
        for _ in range(LOOKS):
            if absent and not poll.over:
                await ground.joins.next()
            if poll.over:
                return
            await self._read_open(poll)
            absent = [name for name in poll.open if name not in ground.topics and name not in ground.troubles]
            if not absent:
                break
        poll.looked = True
        self.judge(poll)

    async def _read_open(self, poll: WaitingPoll) -> None:
        """Read what is there; again where a partition was moved meanwhile, and so is read by another channel."""
        for _ in range(LOOKS):
            topics = self._open_topics(poll)
            for topic in topics:
                topic.pull()
            quiets = [quiet for topic in topics for quiet in topic.quiets()]
            for quiet in quiets:
                await quiet
            if not quiets or poll.over:
                return

    def _broke(self, failure: Failure, poll: WaitingPoll) -> None:
        error = refusal(failure)
        if not poll.over:
            self.answer(poll, error)

    def _open_topics(self, poll: WaitingPoll) -> list[LiveTopic]:
        return [self._ground.topics[name] for name in poll.open if name in self._ground.topics]

    def _errors(self, poll: WaitingPoll) -> list[PsubdError]:
        ground = self._ground
        found = [ground.troubles[name] for name in poll.open if name not in ground.topics and name in ground.troubles]
        return found + [error for topic in self._open_topics(poll) if (error := topic.trouble()) is not None]

    def _look_at_rates(self) -> None:
        if self._rate_look is None or not self._rate_look.active():
            self._rate_look = self._clock.call_later(RATE_MS, self._rates_looked)

    def _rates_looked(self) -> None:
        rated = [poll for poll in self._ground.queue if poll.rated]
        if rated:
            self._look_at_rates()
        for poll in rated:
            if not poll.over:
                self.reopen(poll)
        self._ground.serve()
