"""The rooms around a real Kafka: registry in memory, gate, registrar, subscriber, publisher."""

from typing import Any, TypeVar

from kafka import KafkaConsumer
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred

from psubd.access.gate import Gate
from psubd.model import Binding, Credentials, Delivery, Elastic, Grant, Poll, Record, Topic, TopicSpec
from psubd.services.clock import SystemClock
from psubd.services.publisher import Publisher
from psubd.services.registrar import Registrar
from psubd.services.subscriber import Subscriber
from psubd.testing.registry import MemoryRegistry
from tests.integration.kafka.hosts import KafkaCase

T = TypeVar("T")


class KafkaHouse(KafkaCase):
    """An application of its own for each test."""

    def setUp(self) -> None:
        super().setUp()
        from twisted.internet import reactor

        self.clock = SystemClock(reactor)
        self.registry = MemoryRegistry(self.clock)
        self.wait(self.registry.start())
        self.addCleanup(lambda: self.wait(self.registry.stop()))
        self.gate = Gate(self.registry, self.clock)
        self.gate.start()
        self.addCleanup(self.gate.stop)
        self.registrar = Registrar(self.registry, self.storage, self.clock, 1_048_576)
        self.publisher = Publisher(self.storage, self.clock)
        self.app = self.name()
        _, self.keys = self.wait(self.registrar.create_application(self.app, "of a test", "test"))
        self.begin()

    def begin(self) -> None:
        """A subscriber, started."""
        self.metrics = CollectorRegistry()
        self.subscriber = Subscriber(self.storage, self.registry, self.gate, self.registry, self.clock, 100, self.metrics, patience_ms=0)
        self.told: list[str] = []
        self.subscriber.listen(self.told.append)
        self.wait(self.subscriber.start())
        subscriber = self.subscriber
        self.addCleanup(lambda: self.wait(subscriber.stop()))

    def restart(self) -> None:
        """Another process of psubd's: nothing is remembered but what registry and Kafka hold."""
        self.wait(self.subscriber.stop())
        self.storage = self.another()
        self.begin()

    def make(self, name: str | None = None, given: bool = True, elastic: Elastic | None = None, **settings: Any) -> Topic:
        return self.wait(self.registrar.create_topic(TopicSpec(name or self.name(), **settings), self.app, elastic, given, "test"))

    def bind(self, topic: str, **settings: Any) -> Binding:
        binding = Binding(self.app, topic, 0, **{"pub": True, "sub": True, "start": "earliest", **settings})
        return self.wait(self.registrar.put_binding(binding, "test", None))[0]

    def grant(self) -> Grant:
        return self.gate.subscriber(Credentials(subkey=self.keys["subkey"]))

    def publish(self, topic: str, *values: bytes, partition: int = 0) -> list[int]:
        found = self.wait(self.storage.publish([Record(topic, value, partition=partition) for value in values], "all"))
        return [position.offset for position in found]

    def poll(self, group: str | None = None, batch: int = 1, timeout: int = 10_000) -> "Deferred[Delivery]":
        return self.subscriber.poll(self.grant(), Poll(group or self.app, batch_size=batch, timeout_ms=timeout))

    def take(self, group: str | None = None, batch: int = 1, timeout: int = 10_000) -> list[bytes]:
        """What a poll got; all of it was handed over."""
        delivery = self.wait(self.poll(group, batch, timeout))
        delivery.settle(len(delivery.messages))
        return [each.message.value or b"" for each in delivery.messages]

    def metric(self, name: str) -> float | None:
        return self.metrics.get_sample_value(name)

    def member(self, group: str, topic: str, **settings: Any) -> KafkaConsumer:
        """A consumer of Kafka's own in psubd's Kafka group, which has its partitions."""
        made = KafkaConsumer(bootstrap_servers=self.cluster.bootstrap, group_id=f"psubd.{group}", **{"enable_auto_commit": False, **settings})
        made.partitions_for_topic(topic)  # a leader that does not know the topic yet gives itself none of its partitions
        made.subscribe([topic])
        self.addCleanup(made.close)
        for _ in range(200):
            made.poll(50)
            self.pause()
            if made.assignment():
                return made
        self.fail("the consumer got no partition")
