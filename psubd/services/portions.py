"""What one read of a consumer instance gathers, by partition, and what becomes of it once the answer was written, or was not."""

from collections.abc import Mapping
from typing import Protocol

from psubd.errors import PsubdError
from psubd.interfaces import IGate
from psubd.model import Binding, Message, Slice, TopicPartition
from psubd.services.bookkeeping import Bookkeeper
from psubd.services.channels import Channel
from psubd.services.contests import Contest
from psubd.services.holdings import Holding, Member
from psubd.services.live_topics import LiveTopic
from psubd.services.tenures import Tenure
from psubd.services.visits import Visits
from psubd.services.workshop import Workshop


class Home(Protocol):
    """The group."""

    name: str
    application: str
    topics: dict[str, LiveTopic]
    troubles: dict[str, PsubdError]
    contest: Contest
    tenure: Tenure
    visits: Visits

    def lend(self) -> None:
        """An answer goes out."""

    def returned(self) -> None:
        """It is settled."""


class Circle(Protocol):
    """The group's instances."""

    gate: IGate
    books: Bookkeeper

    @property
    def home(self) -> Home:
        """Whose they are."""

    def channel(self, at: TopicPartition) -> Channel | None:
        """The group's, as it is now."""

    def topics_of(self, member: Member) -> tuple[str, ...]:
        """What it reads, bound or not."""

    def bound(self) -> Mapping[str, Binding]:
        """What the application may read today."""

    def see(self, holdings: list[Holding]) -> None:
        """Something of these was settled."""

    def use(self, member: Member) -> None:
        """Somebody called it."""


class Portion:
    """What was read of one partition. :ivar following: where to read on. :ivar more: there is more than there was room for.
    :ivar blocked: the next message is out, or on its way to a dead-letter topic: nothing is to be watched."""

    __slots__ = ("blocked", "following", "holding", "messages", "more", "size", "version")

    def __init__(self, holding: Holding) -> None:
        self.holding, self.version, self.following = holding, holding.version, holding.position
        self.messages: list[Message] = []
        self.size = 0
        self.blocked = self.more = False

    @property
    def counts(self) -> bool:
        """Whether the instance still has the partition, and stands where it stood."""
        holding = self.holding
        return holding.live and holding.version == self.version and holding.heir is None

    def sift(self, channel: Channel, found: Slice, count: int, size: int, empty: bool) -> None:
        """Take what may be given and fits. ``empty``: the answer has nothing yet: its first message always fits."""
        ledger, holding = channel.ledger, self.holding
        following = max(found.next_offset, found.first)
        barrier = ledger.barrier(self.following)
        stop = following if barrier is None else min(following, barrier)
        self.blocked, self.more = barrier is not None and barrier <= following, False
        for message in found.messages:
            if message.offset >= stop:
                break
            if not holding.given_anyhow(message.offset) and ledger.is_done(message.offset):
                continue
            if (message.size > size and not empty) or count <= 0:
                self.following, self.more, self.blocked = message.offset, True, False
                return
            self.messages.append(message)
            self.size += message.size
            count, size, empty = count - 1, size - message.size, False
        self.following = max(self.following, stop)
        holding.at_end = not self.blocked and self.following >= found.end


class Lent:
    """An answer that is being written."""

    def __init__(self, circle: Circle, member: Member, shop: Workshop, portions: list[Portion]) -> None:
        self._circle, self._member, self._shop, self._portions = circle, member, shop, portions
        self._open = True
        member.out += 1
        circle.home.lend()
        for portion in portions:
            portion.holding.out = True

    def stands(self) -> bool:
        return self._circle.home.tenure.stands and all(portion.holding.live for portion in self._portions)

    def settle(self, count: int) -> None:
        """It counts as a whole: where the last message was not handed over, all of it comes again."""
        if not self._open:
            return
        self._open = False
        total = sum(len(portion.messages) for portion in self._portions)
        for portion in self._portions:
            holding = portion.holding
            holding.out = False
            if holding.live and count >= total:
                self._member.unsure = False
                holding.settle(portion.version, portion.messages[-1].offset + 1, portion.following)
        if count < total:
            self._shop.tallies.given_back.inc(total)
        self._member.out -= 1
        try:
            self._circle.use(self._member)
            self._circle.home.returned()
            self._circle.see([portion.holding for portion in self._portions])
        finally:
            self._member.turn.give()
