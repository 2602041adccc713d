"""POST /v1/ack, /v1/nack, /v1/extend: what became of messages that were leased (contract, section 3)."""

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta
from twisted.internet.defer import Deferred

from psubd.endpoints import asks, media
from psubd.endpoints.answers import json_answer
from psubd.endpoints.credentials import Callers, challenged
from psubd.endpoints.pub import refuse_query
from psubd.errors import BadBody, LeaseLost
from psubd.interfaces import IExchange, ISubscriber
from psubd.model import Answer, Grant, Verdict

T = TypeVar("T")
F = TypeVar("F", bound="Acks")

DELAY = (0, 43_200_000)
"""How long a nacked message may be held back, in ms: half a day."""


class Acks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``tokens``: any texts. Each is judged alone, so that one that nobody made does not hold up the others: it is lost."""

    tokens: Annotated[list[str], Meta(min_length=1, max_length=asks.MAX_TOKENS)]


class Nacks(Acks, frozen=True):
    """``delay``: before they come again, in ms. ``dead``: to the dead-letter topic at once."""

    delay: Annotated[int, Meta(ge=DELAY[0], le=DELAY[1])] = 0
    dead: bool = False

    def __post_init__(self) -> None:
        if self.dead and self.delay:
            raise ValueError("delay: does not go with dead, which takes the messages out of the group at once; leave one of them out")


class Extensions(Acks, frozen=True, kw_only=True):
    """``ackTimeout``: how long the leases last from now on, in ms."""

    ack_timeout: Annotated[int, Meta(ge=asks.ACK_TIMEOUT[0], le=asks.ACK_TIMEOUT[1])]


class Acking:
    """The three routes. What of it took effect stays, whatever is answered and though the client be gone."""

    def __init__(self, callers: Callers, subscriber: ISubscriber) -> None:
        self._callers = callers
        self._subscriber = subscriber

    def ack(self, exchange: IExchange) -> Deferred[Answer]:
        """The messages are done. Fails with LeaseLost."""
        grant, form = self._read(exchange, Acks)
        return answered(self._subscriber.ack(grant, form.tokens), "acked")

    def nack(self, exchange: IExchange) -> Deferred[Answer]:
        """Back to the group, or to the dead-letter topic. Fails with LeaseLost, NoDeadLetter."""
        grant, form = self._read(exchange, Nacks)
        return answered(self._subscriber.nack(grant, form.tokens, form.delay, form.dead), "nacked")

    def extend(self, exchange: IExchange) -> Deferred[Answer]:
        """The leases last longer, or shorter. Fails with LeaseLost."""
        grant, form = self._read(exchange, Extensions)
        return answered(self._subscriber.extend(grant, form.tokens, form.ack_timeout), "extended")

    def _read(self, exchange: IExchange, shape: type[F]) -> tuple[Grant, F]:
        grant = self._callers.subscriber(exchange)
        refuse_query(exchange)
        media.require_json(exchange)
        if not exchange.body:
            raise BadBody('the body is empty; send {"tokens": [...]} as JSON')
        return grant, asks.once_each(exchange.body, shape)


def answered(judged: Deferred[Verdict], word: str) -> Deferred[Answer]:
    """The answer to a call: how many took effect, under ``word``, or which are lost beside."""
    return unhurt(judged).addCallbacks(told, challenged, (word,))


def unhurt(judged: Deferred[T]) -> Deferred[T]:
    """``judged`` for a client that may go away: what was begun goes on then, and nobody is told."""
    answer: Deferred[T] = Deferred()
    judged.chainDeferred(answer)
    return answer


def told(verdict: Verdict, word: str) -> Answer:
    """:raises LeaseLost: where any is."""
    if verdict.lost:
        lost = list(verdict.lost)
        raise LeaseLost(
            f"{len(lost)} of {len(lost) + verdict.count} are not this application's leases (any more), and took no effect; the others did. Do not "
            "repeat them: a message that is not done comes again by itself",
            **{"lost": lost, word: verdict.count},
        )
    return json_answer({word: verdict.count})
