"""What an instance has to give: ``/records``, and ``/topics/{topic}`` of the first version, where the first read is the subscription."""

from twisted.internet.defer import Deferred

from psubd.endpoints.acks import unhurt
from psubd.endpoints.confluent import bodies, embedded, media
from psubd.endpoints.confluent.faults import SecondTopic
from psubd.endpoints.confluent.instances import Admit, Caller, called
from psubd.endpoints.credentials import challenged
from psubd.interfaces import IConsumers, IExchange
from psubd.model import Answer, Delivery, InstanceSpec, Poll, Wish

MOST_RECORDS = 10_000
"""Of an answer, as of ``/v1/sub``."""

USUAL_BYTES = 8_388_608
"""Payload of an answer, unless the client asks for more."""


class Reading:
    """:param max_bytes: payload that an answer may have, whatever the client asks for. A message that is larger comes alone."""

    def __init__(self, admit: Admit, consumers: IConsumers, max_bytes: int) -> None:
        self._admit, self._consumers, self._max_bytes = admit, consumers, max_bytes

    def records(self, exchange: IExchange, group: str, instance: str) -> Deferred[Answer]:
        """Of all that the instance reads. Fails with InstanceMissing, OtherFormat, IllegalState where it reads nothing."""
        return Deferred.fromCoroutine(self._read(exchange, called(self._admit, exchange, group, instance), None)).addErrback(challenged)

    def topic(self, exchange: IExchange, group: str, instance: str, topic: str) -> Deferred[Answer]:
        """Of the topic that the instance reads; of an instance that reads none yet, it is this one from now on. Fails with SecondTopic besides."""
        return Deferred.fromCoroutine(self._read(exchange, called(self._admit, exchange, group, instance), topic)).addErrback(challenged)

    async def _read(self, exchange: IExchange, caller: Caller, topic: str | None) -> Answer:
        said = bodies.query(exchange.raw_query, "timeout", "max_bytes")
        timeout, size = bodies.bound(said, "timeout", bodies.MOST_WAIT_MS), bodies.bound(said, "max_bytes", self._max_bytes)
        spec = (await self._consumers.look(caller.grant, caller.group, caller.instance)).spec
        dialect: media.Dialect = 2 if topic is None else 1
        kind = media.read_type(exchange, dialect, spec.format)
        if topic is not None:
            await self._subscribe(caller, spec.wish, topic)
        ask = Poll(
            caller.group,
            batch_size=MOST_RECORDS,
            max_bytes=min(USUAL_BYTES, self._max_bytes) if size is None else max(1, size),
            timeout_ms=spec.timeout_ms if timeout is None else min(timeout, spec.timeout_ms),
            instance=caller.instance,
            min_bytes=spec.min_bytes,
        )
        delivery = await self._consumers.read(caller.grant, caller.group, caller.instance, ask)
        return told(delivery, spec, dialect, kind)

    async def _subscribe(self, caller: Caller, wish: Wish, topic: str) -> None:
        """:raises SecondTopic:"""
        if wish == Wish(topics=(topic,)):
            return
        if wish != Wish():
            raise SecondTopic("the instance reads something else; an instance of the first version reads one topic, so make another one for this")
        await unhurt(self._consumers.wish(caller.grant, caller.group, caller.instance, Wish(topics=(topic,))))


def told(delivery: Delivery, spec: InstanceSpec, dialect: media.Dialect, kind: str) -> Answer:
    """The answer, which counts as a whole. Whatever fails here gives all its messages back."""
    count = len(delivery.messages)
    try:
        answer = Answer(200, embedded.records(delivery.messages, spec.format, dialect), [media.line(kind)])
    except BaseException:
        delivery.settle(0)
        raise
    size = len(answer.body)
    if count:
        answer.settle = lambda handed: delivery.settle(count if handed >= size else 0)
        answer.stands = delivery.stands
    else:
        delivery.settle(0)
    return answer
