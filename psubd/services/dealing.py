"""Who gets what of a group, so that nobody starves.

Of several polls that wait each gets one message before anybody gets a second, the oldest first; then they grow together. An answer takes from the
topics that have something, and from their partitions, in shares, round after round; whoever gave something goes to the end, so that the next answer
begins with another.
"""

from collections.abc import Container, Iterator, Mapping
from itertools import chain, islice
from typing import Protocol

from psubd.interfaces import IClock
from psubd.model import Poll
from psubd.services.handouts import Hand, Taken
from psubd.services.live_topics import LiveTopic
from psubd.services.polls import WaitingPoll
from psubd.services.queues import Queue


class Counter(Protocol):
    """Where the group's rate and the metrics are told."""

    def spent(self, topic: LiveTopic, messages: int, size: int) -> None:
        """So many messages of together ``size`` payload bytes were leased."""

    def reopen(self, poll: WaitingPoll) -> None:
        """See what the poll may read now; it may be over then."""


class Dealer:
    """:param queue: who waits. :param topics: what the group stands on. :param numbers: of answers.

    :ivar ready: the topics that have something to lease, by name, the next one first.
    """

    def __init__(self, counter: Counter, queue: Queue, topics: Mapping[str, LiveTopic], clock: IClock, numbers: Iterator[int]) -> None:
        self.ready: dict[str, LiveTopic] = {}
        self._counter, self._queue, self._topics, self._clock, self._numbers = counter, queue, topics, clock, numbers

    def refresh(self, topic: LiveTopic) -> None:
        """Look again whether the topic has something to lease."""
        if topic.live and topic.ready:
            self.ready.setdefault(topic.name, topic)
        else:
            self.drop(topic)

    def drop(self, topic: LiveTopic) -> None:
        """It has nothing."""
        if self.ready.get(topic.name) is topic:
            del self.ready[topic.name]

    def deal(self) -> "list[tuple[Hand, WaitingPoll]]":
        """What each gets now. Those that get something have left the queue."""
        hands = self._one_each()
        growing = [hand for hand, _ in hands if hand.wants]
        share = 1
        while growing and (self.ready or any(hand.lanes for hand in growing)):
            if len(growing) == 1:
                share = growing[0].count
            growing = [hand for hand in growing if self._take(hand, min(share, hand.count)) and hand.wants]
            share *= 2
        for hand, _ in hands:
            hand.arrange()
        return hands

    def next(self, ask: Poll, open: Container[str], now: int) -> Taken | None:
        """As `serve` of one message, in few steps, where nothing is out of the ordinary. None: something is, or nothing is at hand."""
        topic = None
        for name in self.ready:
            if name in open:
                topic = self.ready[name]
                break
        taken = None if topic is None else topic.lease_next(ask, now)
        if topic is not None and taken is not None and (len(self.ready) > 1 or not topic.ready):
            self.drop(topic)  # to the end, if it has more
            self.refresh(topic)
        return taken

    def serve(self, ask: Poll, open: Container[str]) -> Hand | None:
        """What an ask gets that did not have to wait, since nobody waits who may have it; None: nothing is at hand.

        :param open: what it may read."""
        hand = Hand(ask, open, next(self._numbers), self._clock.elapsed_ms())
        if not self._take(hand, 1):
            return None
        while hand.wants and self._take(hand, hand.count):
            pass
        hand.arrange()
        return hand

    def _one_each(self) -> "list[tuple[Hand, WaitingPoll]]":
        """One message for each that waits, the oldest first, while there are any."""
        hands: list[tuple[Hand, WaitingPoll]] = []
        while self.ready and (poll := self._queue.oldest(self.ready.keys())) is not None:
            if poll.rated:
                self._counter.reopen(poll)
                if poll.over or poll.open.keys().isdisjoint(self.ready):
                    continue
            hand = Hand(poll.ask, poll.open, next(self._numbers), self._clock.elapsed_ms())
            if self._take(hand, 1):
                self._queue.drop(poll)
                hands.append((hand, poll))
            else:  # what it may read was not ready after all
                for name in poll.open:
                    self.ready.pop(name, None)
        return hands

    def _take(self, hand: Hand, count: int) -> int:
        """Give up to ``count`` messages more; how many it were."""
        if count == 1 and not hand.lanes:
            for name in self.ready:
                if name in hand.open:
                    return self._take_from(name, hand, 1)
            return 0
        left = count
        while left > 0 and hand.wants:
            lanes = (name for name in hand.lanes if name not in self.ready)
            names = list(islice(chain((name for name in self.ready if name in hand.open), lanes), left))
            share = max(1, left // len(names)) if names else 0
            taken = 0
            for name in names:
                if left - taken > 0 and not hand.full:
                    taken += self._take_from(name, hand, min(share, left - taken))
            if not taken:
                break
            left -= taken
        return count - left

    def _take_from(self, name: str, hand: Hand, count: int) -> int:
        topic = self._topics.get(name)
        if topic is None:
            return 0
        size = hand.size
        taken = topic.lease(hand, count)
        if taken:
            self._counter.spent(topic, taken, size - hand.size)
            self.drop(topic)  # to the end, if it has more
        self.refresh(topic)
        return taken
