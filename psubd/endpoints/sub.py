"""GET and POST /v1/sub: what a group, or a replay, has to give (contract, section 3)."""

from collections.abc import Callable

from msgspec import UNSET
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from psubd import accept
from psubd.endpoints import asks, media, octets, places
from psubd.endpoints.answers import json_answer
from psubd.endpoints.credentials import BASIC_OR_BEARER, Callers
from psubd.endpoints.formats import Messages, as_read, json_lines
from psubd.endpoints.pub import refuse_query
from psubd.errors import BadBody, BadCredentials, BadParameter, NotAcceptable, NotSupported
from psubd.interfaces import IExchange, ISubscriber
from psubd.model import Answer, Delivery, Grant, Poll, Replay

OCTETS = "application/octet-stream"
LINES = "application/x-ndjson"
OFFERS = ("application/json", LINES, OCTETS)
"""What a client gets, the first where it takes all alike."""
ALWAYS_JSON = OFFERS[:1]


class Subscribing:
    """Polls and replays."""

    def __init__(self, callers: Callers, subscriber: ISubscriber) -> None:
        self._callers = callers
        self._subscriber = subscriber

    def get(self, exchange: IExchange) -> Deferred[Answer]:
        """Parameters in the query."""
        grant = self._callers.subscriber(exchange)
        return self._answer(exchange, grant, asks.from_query(exchange.raw_query), tokens=False)

    def post(self, exchange: IExchange) -> Deferred[Answer]:
        """Parameters in a JSON object, and the tokens of explicit acks: with them the answer is always 200."""
        grant = self._callers.subscriber(exchange)
        refuse_query(exchange)
        media.require_json(exchange)
        if not exchange.body:
            raise BadBody("the body is empty; send the parameters as a JSON object, {} for none")
        form = asks.from_json(exchange.body)
        if form.tokens:
            raise NotSupported("tokens: explicit acks are not built yet; leave tokens out")
        return self._answer(exchange, grant, form, tokens=form.tokens is not None)

    def _answer(self, exchange: IExchange, grant: Grant, form: asks.Form, tokens: bool) -> Deferred[Answer]:
        asked = asks.ask(form, grant.application.id)
        liked = accepted(exchange, ALWAYS_JSON if tokens else OFFERS)
        if liked == OCTETS and asked.batch_size != 1:
            raise BadParameter("batchSize: application/octet-stream carries one message; send batchSize=1, or accept application/json")
        got = self._subscriber.replay(grant, asked) if isinstance(asked, Replay) else self._subscriber.poll(grant, asked)
        return got.addCallbacks(told, challenged, (asked, liked, tokens))


def accepted(exchange: IExchange, offers: tuple[str, ...]) -> str:
    """:raises NotAcceptable:"""
    liked = accept.best(exchange.headers, offers)
    if liked is None:
        raise NotAcceptable(f"accept: none of it is given here (text/event-stream and frames are not built yet); accept {', '.join(offers)}")
    return liked


def challenged(failure: Failure) -> Failure:
    """A key that ended while the poll waited: the 401 says what this route takes."""
    if isinstance(failure.value, BadCredentials):
        failure.value.challenge = BASIC_OR_BEARER
    return failure


def told(delivery: Delivery, asked: Poll | Replay, liked: str, tokens: bool) -> Answer:
    """The answer with a delivery. Whatever fails here gives all its messages back."""
    try:
        answer = built(delivery, asked, liked, tokens)
    except BaseException:
        delivery.settle(0)
        raise
    if delivery.messages:
        answer.settle = settled(delivery, len(answer.body))
    else:
        delivery.settle(0)
    return answer


def settled(delivery: Delivery, size: int) -> Callable[[int], None]:
    """All or nothing: auto mode is done once the whole answer was handed over."""

    def settle(handed: int) -> None:
        delivery.settle(len(delivery.messages) if handed >= size else 0)

    return settle


def built(delivery: Delivery, asked: Poll | Replay, liked: str, tokens: bool) -> Answer:
    """The answer, without what settles it. A replay's ``next`` is in the JSON, and a header of every other answer, 204 too."""
    place = None
    if isinstance(asked, Replay) and delivery.next is not None:
        place = places.write(places.Place(asked.topic, asked.partition, delivery.next))
    if liked == ALWAYS_JSON[0] and (delivery.messages or tokens):
        return as_json(delivery, place, tokens)
    answer = plain(delivery, liked)
    if place is not None:
        answer.headers.append((b"next", place.encode("ascii")))
    return answer


def as_json(delivery: Delivery, place: str | None, tokens: bool) -> Answer:
    """``{"messages": [...]}``."""
    messages = [as_read(delivered) for delivered in delivery.messages]
    body = Messages(messages, UNSET if place is None else place, 0 if tokens else UNSET, [] if tokens else UNSET)
    return json_answer(body)


def plain(delivery: Delivery, liked: str) -> Answer:
    """204, lines, or the payload itself."""
    if not delivery.messages:
        return Answer(status=204, headers=[])
    if liked == LINES:
        return Answer(body=json_lines(delivery.messages), headers=[(b"content-type", LINES.encode())])
    (delivered,) = delivery.messages
    return Answer(body=delivered.message.value or b"", headers=octets.head(delivered))
