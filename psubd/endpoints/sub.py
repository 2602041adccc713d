"""GET and POST /v1/sub: what a group, or a replay, has to give (contract, section 3)."""

from bisect import bisect_right
from collections.abc import Sequence

from msgspec import UNSET
from twisted.internet.defer import Deferred

from psubd import accept
from psubd.endpoints import asks, frames, media, octets, places
from psubd.endpoints.acks import unhurt
from psubd.endpoints.answers import JSON_LINE, encode
from psubd.endpoints.credentials import Callers, challenged
from psubd.endpoints.formats import Messages, as_read, json_lines
from psubd.endpoints.pub import refuse_query
from psubd.errors import BadBody, BadParameter, NotAcceptable
from psubd.interfaces import IExchange, ISubscriber
from psubd.model import Answer, Delivery, Grant, Poll, Replay, Verdict

OCTETS = "application/octet-stream"
LINES = "application/x-ndjson"
OFFERS = ("application/json", LINES, OCTETS, frames.TYPE)
"""What a client gets, the first where it takes all alike."""
ALWAYS_JSON = OFFERS[:1]
LINES_LINE, FRAMES_LINE = (b"content-type", LINES.encode()), (b"content-type", frames.TYPE.encode())

Kept = tuple[str, Poll | Replay, str]
"""What follows from the head of a GET: of which application, what is asked for, and the type to answer with."""


class Subscribing:
    """Polls and replays."""

    def __init__(self, callers: Callers, subscriber: ISubscriber) -> None:
        self._callers = callers
        self._subscriber = subscriber

    def get(self, exchange: IExchange) -> Deferred[Answer] | Answer:
        """Parameters in the query. What is at hand is answered at once."""
        grant = self._callers.subscriber(exchange)
        kept: Kept | None = exchange.kept.get("sub")
        if kept is None or kept[0] != grant.application.id:
            asked, liked = read_ask(exchange, grant, asks.from_query(exchange.raw_query), OFFERS)
            exchange.kept["sub"] = (grant.application.id, asked, liked)
        else:
            _, asked, liked = kept
        if isinstance(asked, Poll):
            delivery = self._subscriber.at_once(grant, asked)
            if delivery is not None:
                return told(delivery, asked, liked)
        return self._got(grant, asked).addCallbacks(told, challenged, (asked, liked))

    def post(self, exchange: IExchange) -> Deferred[Answer]:
        """Parameters in a JSON object, and tokens that are acked first: with them the answer is always 200."""
        grant = self._callers.subscriber(exchange)
        refuse_query(exchange)
        media.require_json(exchange)
        if not exchange.body:
            raise BadBody("the body is empty; send the parameters as a JSON object, {} for none")
        form = asks.from_json(exchange.body)
        asked, liked = read_ask(exchange, grant, form, OFFERS if form.tokens is None else ALWAYS_JSON)
        if form.tokens is None:
            return self._got(grant, asked).addCallbacks(told, challenged, (asked, liked))
        return Deferred.fromCoroutine(self._ack_and_get(grant, form.tokens, asked)).addErrback(challenged)

    async def _ack_and_get(self, grant: Grant, tokens: Sequence[str], asked: Poll | Replay) -> Answer:
        """A poll that fails leaves the acks as they are: they may be repeated. A client that goes away meanwhile withdraws the poll only."""
        verdict = await unhurt(self._subscriber.ack(grant, tokens)) if tokens else Verdict(0)
        return told(await self._got(grant, asked), asked, ALWAYS_JSON[0], verdict)

    def _got(self, grant: Grant, asked: Poll | Replay) -> Deferred[Delivery]:
        return self._subscriber.replay(grant, asked) if isinstance(asked, Replay) else self._subscriber.poll(grant, asked)


def read_ask(exchange: IExchange, grant: Grant, form: asks.Form, offers: tuple[str, ...]) -> tuple[Poll | Replay, str]:
    """What is asked for, and the type to answer with. :raises BadParameter: :raises NotAcceptable:"""
    asked = asks.ask(form, grant.application.id)
    liked = accepted(exchange, offers)
    if liked == OCTETS and asked.batch_size != 1:
        raise BadParameter("batchSize: application/octet-stream carries one message; send batchSize=1, or accept application/json")
    return asked, liked


def accepted(exchange: IExchange, offers: tuple[str, ...]) -> str:
    """:raises NotAcceptable:"""
    liked = accept.best(exchange.headers, offers)
    if liked is None:
        raise NotAcceptable(f"accept: none of it is given here (text/event-stream is not built yet); accept {', '.join(offers)}")
    return liked


def told(delivery: Delivery, asked: Poll | Replay, liked: str, verdict: Verdict | None = None) -> Answer:
    """The answer with a delivery. Whatever fails here gives all its messages back.

    :param verdict: what became of the tokens that were sent with the ask; None: none were.
    """
    try:
        answer = built(delivery, asked, liked, verdict)
    except BaseException:
        delivery.settle(0)
        raise
    if delivery.messages:
        answer.stands = delivery.stands
    else:
        delivery.settle(0)
    return answer


def built(delivery: Delivery, asked: Poll | Replay, liked: str, verdict: Verdict | None) -> Answer:
    """The answer. A replay's ``next`` is in the JSON, and a header of every other answer, 204 too."""
    place = None
    if isinstance(asked, Replay) and delivery.next is not None:
        place = places.write(places.Place(asked.topic, asked.partition, delivery.next))
    if liked == ALWAYS_JSON[0] and (delivery.messages or verdict is not None):
        return as_json(delivery, place, verdict)
    answer = plain(delivery, liked)
    if place is not None:
        answer.headers.append((b"next", place.encode("ascii")))
    return answer


def as_json(delivery: Delivery, place: str | None, verdict: Verdict | None) -> Answer:
    """``{"messages": [...]}``."""
    messages = [as_read(delivered) for delivered in delivery.messages]
    body = Messages(messages, UNSET if place is None else place)
    if verdict is not None:
        body = Messages(messages, UNSET, verdict.count, list(verdict.lost))
    return settled_whole(Answer(body=encode(body), headers=[JSON_LINE]), delivery)


def plain(delivery: Delivery, liked: str) -> Answer:
    """204, lines, frames, or the payload itself."""
    if not delivery.messages:
        return Answer(status=204, headers=[])
    if liked == frames.TYPE:
        body, count = frames.encode(delivery.messages), len(delivery.messages)
        return Answer(
            body=body,
            headers=[FRAMES_LINE],
            settle=lambda handed: delivery.settle(count if handed >= len(body) else frames.whole(body, handed)),
        )
    if liked == LINES:
        lines, ends = json_lines(delivery.messages)
        return Answer(body=lines, headers=[LINES_LINE], settle=lambda handed: delivery.settle(bisect_right(ends, handed)))
    (delivered,) = delivery.messages
    return settled_whole(Answer(body=delivered.message.value or b"", headers=octets.head(delivered)), delivery)


def settled_whole(answer: Answer, delivery: Delivery) -> Answer:
    """All or nothing: half a JSON document says nothing to its reader."""
    count, size = len(delivery.messages), len(answer.body)
    if count:
        answer.settle = lambda handed: delivery.settle(count if handed >= size else 0)
    return answer
