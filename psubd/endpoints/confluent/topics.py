"""What Confluent's routes show of topics and brokers: of the topics that the application is bound to, the others are not there."""

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from psubd import fields
from psubd.endpoints.answers import encode
from psubd.endpoints.confluent import embedded, media
from psubd.endpoints.confluent.callers import Guests
from psubd.endpoints.sub import settled_whole
from psubd.errors import BadParameter, PartitionMissing, TopicMissing, TopicNotBound
from psubd.interfaces import IExchange, IStorage, ISubscriber
from psubd.model import Answer, Bounds, Delivery, Grant, PartitionLayout, Replay, StoredTopic

NO_LEADER = -1
MOST_MESSAGES = 10_000


class Shown:
    """Topics, partitions, brokers; and the first version's reads without an instance."""

    def __init__(self, callers: Guests, subscriber: ISubscriber, storage: IStorage) -> None:
        self._callers, self._subscriber, self._storage = callers, subscriber, storage

    def root(self, exchange: IExchange) -> Answer:
        """``{}``: whoever asks, it is there."""
        return told(exchange, {})

    def brokers(self, exchange: IExchange) -> Deferred[Answer]:
        self._callers.either(exchange)
        return self._storage.brokers().addCallback(lambda found: told(exchange, {"brokers": found}))

    def topics(self, exchange: IExchange) -> Answer:
        return told(exchange, sorted(self._callers.either(exchange).bindings))

    def topic(self, exchange: IExchange, topic: str) -> Deferred[Answer]:
        check_bound(self._callers.either(exchange), topic)
        return Deferred.fromCoroutine(self._topic(exchange, topic))

    def partitions(self, exchange: IExchange, topic: str) -> Deferred[Answer]:
        check_bound(self._callers.either(exchange), topic)
        return self._layout(topic).addCallback(lambda layout: told(exchange, [members(number, layout[number]) for number in sorted(layout)]))

    def partition(self, exchange: IExchange, topic: str, partition: str) -> Deferred[Answer]:
        check_bound(self._callers.either(exchange), topic)
        number = partition_of(topic, partition)
        return self._layout(topic).addCallback(lambda layout: told(exchange, members(number, of_partition(topic, layout, number))))

    def offsets(self, exchange: IExchange, topic: str, partition: str) -> Deferred[Answer]:
        check_bound(self._callers.either(exchange), topic)
        number = partition_of(topic, partition)

        def shown(bounds: Mapping[int, Bounds]) -> Answer:
            bound = of_partition(topic, bounds, number)
            return told(exchange, {"beginning_offset": bound.first, "end_offset": bound.end})

        return self._storage.bounds(topic).addCallback(shown)

    def messages(self, exchange: IExchange, topic: str, partition: str) -> Deferred[Answer]:
        """The first version's read of a partition from an offset or a time on, by nobody's group. Kept by its successor's users, who ask for it."""
        grant = self._callers.subscriber(exchange)
        check_bound(grant, topic)
        number = partition_of(topic, partition)
        sent = fields.query(exchange.raw_query, {"offset": False, "timestamp": False, "count": False})
        if ("offset" in sent) == ("timestamp" in sent):
            raise BadParameter("offset, timestamp: send exactly one of them")
        count = fields.integer(sent["count"][0], "count", 1, MOST_MESSAGES) if "count" in sent else 1
        start: tuple[str, int] | dict[int, int]
        if "offset" in sent:
            start = {number: fields.integer(sent["offset"][0], "offset", 0, fields.INT64)}
        else:
            start = ("time", fields.integer(sent["timestamp"][0], "timestamp", 0, fields.INT64))
        format, kind = media.free_type(exchange)
        return Deferred.fromCoroutine(self._messages(grant, Replay(topic, start, number, count, timeout_ms=0), format, kind))  # type: ignore[arg-type]

    async def _messages(self, grant: Grant, ask: Replay, format: embedded.Format, kind: str) -> Answer:
        assert ask.partition is not None
        of_partition(ask.topic, await self._storage.bounds(ask.topic), ask.partition)
        delivery: Delivery = await self._subscriber.replay(grant, ask)
        try:
            body = embedded.records(delivery.messages, format, 1)
        except BaseException:
            delivery.settle(0)
            raise
        return settled_whole(Answer(body=body, headers=[media.line(kind)]), delivery)

    async def _topic(self, exchange: IExchange, topic: str) -> Answer:
        stored: StoredTopic | None = (await self._storage.describe([topic])).get(topic)
        if stored is None:
            raise TopicMissing(f"topic {topic!r} is bound, but it is gone from the storage")
        layout: dict[int, PartitionLayout] = await self._layout(topic)
        partitions = [members(number, layout[number]) for number in sorted(layout)]
        return told(exchange, {"name": topic, "configs": configs(stored), "partitions": partitions})

    def _layout(self, topic: str) -> "Deferred[dict[int, PartitionLayout]]":
        return self._storage.layout(topic)


def told(exchange: IExchange, value: Any) -> Answer:
    """JSON in the version that the request speaks."""
    return Answer(body=encode(value), headers=[media.line(media.answer_type(exchange, media.spoken(exchange.headers)))])


def check_bound(grant: Grant, topic: str) -> None:
    """:raises TopicNotBound: whether it exists or not."""
    if topic not in grant.bindings:
        raise TopicNotBound(f"topic {topic[:200]!r} not found")


def partition_of(topic: str, text: str) -> int:
    """A path's partition. :raises PartitionMissing: what can be none."""
    if not text.isascii() or not text.isdecimal() or len(text) > 10:
        raise PartitionMissing(f"topic {topic} has no partition {text[:20]!r}")
    return int(text)


def of_partition(topic: str, found: Mapping[int, Any], partition: int) -> Any:
    """What is told of the partition. :raises PartitionMissing:"""
    if partition not in found:
        raise no_partition(topic, partition, len(found))
    return found[partition]


def no_partition(topic: str, partition: int, count: int) -> PartitionMissing:
    return PartitionMissing(f"topic {topic} has no partition {partition}; it has {count}")


def members(partition: int, layout: PartitionLayout) -> Mapping[str, Any]:
    """A partition as Confluent shows it."""
    leader = NO_LEADER if layout.leader is None else layout.leader
    replicas = [{"broker": broker, "leader": broker == layout.leader, "in_sync": broker in layout.in_sync} for broker in layout.replicas]
    return {"partition": partition, "leader": leader, "replicas": replicas}


def configs(stored: StoredTopic) -> Mapping[str, str]:
    """The topic's settings by Kafka's names: those that psubd knows of each topic, and those that were set on this one."""
    known = {
        "cleanup.policy": stored.cleanup,
        "max.message.bytes": str(stored.max_message_bytes),
        "retention.bytes": str(-1 if stored.retention_bytes is None else stored.retention_bytes),
        "retention.ms": str(-1 if stored.retention_ms is None else stored.retention_ms),
    }
    return {**known, **stored.config}
