"""/consumers: instances are made, choose what they read, seek, and leave. The first version of Confluent's API makes and ends them only."""

from collections.abc import Callable, Sequence
from urllib.parse import quote
from uuid import uuid4

import msgspec
from twisted.internet.defer import Deferred

from psubd.endpoints.acks import unhurt
from psubd.endpoints.answers import encode
from psubd.endpoints.asks import read_group
from psubd.endpoints.confluent import bodies, media
from psubd.endpoints.confluent.faults import Incomplete
from psubd.errors import IllegalState
from psubd.interfaces import IConsumers, IExchange
from psubd.model import Aim, Answer, Grant, InstanceSpec, Standing, TopicPartition, Wish

Admit = Callable[[IExchange], Grant]

MAX_BODY = 4 * 1024 * 1024
"""Of one call: tens of thousands of partitions."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks, and for which instance. ``group``: its full name."""

    grant: Grant
    group: str
    instance: str


def called(admit: Admit, exchange: IExchange, group: str, instance: str) -> Caller:
    """:raises BadCredentials: :raises BadParameter:"""
    grant = admit(exchange)
    return Caller(grant, read_group(group, grant.application.id), instance)


def told(exchange: IExchange, value: object, dialect: media.Dialect = 2) -> Answer:
    """``value`` as JSON."""
    return Answer(200, encode(value), [media.line(media.answer_type(exchange, dialect))])


def no_content(_: object) -> Answer:
    return Answer(204, headers=[])


class Instances:
    """:param admit: who subscribes. :param base: the URL that a client reached us by, without a slash at its end. :param timeout_ms: how long a read
    waits where its instance does not say."""

    def __init__(self, admit: Admit, consumers: IConsumers, base: Callable[[IExchange], str], timeout_ms: int) -> None:
        self._admit, self._consumers = admit, consumers
        self._base, self._timeout_ms = base, timeout_ms

    def create(self, exchange: IExchange, group: str) -> Deferred[Answer]:
        """Make one. Fails with InstanceExists, TooManyGroups."""
        caller = called(self._admit, exchange, group, "")
        kind = media.sent(exchange)
        dialect = (kind.dialect if kind is not None else None) or media.spoken(exchange.headers)
        id, spec = bodies.instance_of(exchange.body, dialect, self._timeout_ms)
        return Deferred.fromCoroutine(self._create(exchange, caller, group, id or f"rest-consumer-{uuid4()}", spec))

    async def _create(self, exchange: IExchange, caller: Caller, group: str, id: str, spec: InstanceSpec) -> Answer:
        uri = f"{self._base(exchange)}/consumers/{quote(group, safe='')}/instances/{quote(id, safe='')}"
        answer = told(exchange, {"instance_id": id, "base_uri": uri}, spec.dialect)
        await unhurt(self._consumers.enlist(caller.grant, caller.group, id, spec))
        return answer

    def delete(self, exchange: IExchange, group: str, instance: str) -> Deferred[Answer]:
        """It leaves."""
        caller = called(self._admit, exchange, group, instance)
        return unhurt(self._consumers.dismiss(caller.grant, caller.group, instance)).addCallback(no_content)

    # --- what it reads

    def subscribe(self, exchange: IExchange, group: str, instance: str) -> Deferred[Answer]:
        """Topics by name, or by a pattern, instead of what was subscribed before. Fails with IllegalState, TopicNotBound."""
        caller = called(self._admit, exchange, group, instance)
        media.sent(exchange)
        said = bodies.body_of(exchange.body, bodies.Subscription)
        if said.topics is not None and said.topic_pattern is not None:
            raise IllegalState("topics and topic_pattern exclude each other; send one of them")
        if said.topics is None and said.topic_pattern is None:
            raise Incomplete("topics: missing; send topics, or topic_pattern")
        return self._wish(caller, Wish(None if said.topics is None else tuple(said.topics), said.topic_pattern))

    def subscription(self, exchange: IExchange, group: str, instance: str) -> Deferred[Answer]:
        """The topics that it subscribed to, or that its pattern matches now."""
        return self._look(exchange, group, instance, lambda standing: {"topics": topics_of(standing)})

    def unsubscribe(self, exchange: IExchange, group: str, instance: str) -> Deferred[Answer]:
        """It reads nothing from now on, by hand neither, as Kafka's consumers."""
        return self._wish(called(self._admit, exchange, group, instance), Wish())

    def assign(self, exchange: IExchange, group: str, instance: str) -> Deferred[Answer]:
        """Partitions by hand. Fails with IllegalState, TopicNotBound, PartitionMissing."""
        caller = called(self._admit, exchange, group, instance)
        media.sent(exchange)
        return self._wish(caller, Wish(partitions=tuple(bodies.places_of(exchange.body))))

    def assignments(self, exchange: IExchange, group: str, instance: str) -> Deferred[Answer]:
        """The partitions that it has now, by hand or as its share."""
        return self._look(exchange, group, instance, lambda standing: {"partitions": standing.partitions})

    def _wish(self, caller: Caller, wish: Wish) -> Deferred[Answer]:
        return unhurt(self._consumers.wish(caller.grant, caller.group, caller.instance, wish)).addCallback(no_content)

    def _look(self, exchange: IExchange, group: str, instance: str, shown: Callable[[Standing], object]) -> Deferred[Answer]:
        caller = called(self._admit, exchange, group, instance)
        looked = self._consumers.look(caller.grant, caller.group, instance)
        return looked.addCallback(lambda standing: told(exchange, shown(standing)))

    # --- where it reads on

    def seek(self, exchange: IExchange, group: str, instance: str) -> Deferred[Answer]:
        """To offsets and times. Fails with IllegalState for a partition that it does not have, PartitionMissing, OffsetOutOfRange."""
        caller = called(self._admit, exchange, group, instance)
        media.sent(exchange)
        return self._seek(caller, bodies.aims_of(exchange.body))

    def to_beginning(self, exchange: IExchange, group: str, instance: str) -> Deferred[Answer]:
        """To the first messages that are there."""
        caller, places = self._places(exchange, group, instance)
        return self._seek(caller, [Aim(at, "earliest") for at in places])

    def to_end(self, exchange: IExchange, group: str, instance: str) -> Deferred[Answer]:
        """Behind the last messages that are there."""
        caller, places = self._places(exchange, group, instance)
        return self._seek(caller, [Aim(at, "latest") for at in places])

    def _places(self, exchange: IExchange, group: str, instance: str) -> tuple[Caller, list[TopicPartition]]:
        caller = called(self._admit, exchange, group, instance)
        media.sent(exchange)
        return caller, bodies.places_of(exchange.body)

    def _seek(self, caller: Caller, aims: Sequence[Aim]) -> Deferred[Answer]:
        return unhurt(self._consumers.seek(caller.grant, caller.group, caller.instance, aims)).addCallback(no_content)


def topics_of(standing: Standing) -> Sequence[str]:
    """What is assigned by hand is no subscription."""
    return () if standing.spec.wish.partitions is not None else standing.topics
