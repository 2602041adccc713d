"""Two single nodes, each with a registry of its own, on one Kafka."""

from psubd.access.gate import Gate
from psubd.errors import OwnershipInDoubt
from psubd.model import Binding, Credentials, Poll, TopicSpec
from psubd.services.registrar import Registrar
from psubd.services.subscriber import Subscriber
from psubd.testing.registry import MemoryRegistry
from tests.integration.kafka.house import KafkaHouse


class Rivals(KafkaHouse):
    def other(self, topic: str) -> tuple[Subscriber, Gate, dict[str, str]]:
        """Another node, which knows the same application and topic."""
        storage, registry = self.another(), MemoryRegistry(self.clock)
        self.wait(registry.start())
        gate = Gate(registry, self.clock)
        gate.start()
        self.addCleanup(gate.stop)
        registrar = Registrar(registry, storage, self.clock, 1_048_576)
        _, keys = self.wait(registrar.create_application(self.app, "the same", "test"))
        self.wait(registrar.create_topic(TopicSpec(topic), self.app, None, True, "test"))
        subscriber = Subscriber(storage, registry, gate, registry, self.clock, 100, patience_ms=0)
        self.wait(subscriber.start())
        self.addCleanup(lambda: self.wait(subscriber.stop()))
        self.wait(registrar.put_binding(Binding(self.app, topic, 0, pub=True, sub=True, start="earliest"), "test", None))
        return subscriber, gate, keys

    def reads(self, subscriber: Subscriber, gate: Gate, keys: dict[str, str]) -> bool:
        """Whether a poll there is not told that somebody else has the group."""
        grant = gate.subscriber(Credentials(subkey=keys["subkey"]))
        try:
            delivery = self.wait(subscriber.poll(grant, Poll(self.app, timeout_ms=50)))
        except OwnershipInDoubt as doubt:
            self.assertIn("another psubd", doubt.detail)
            return False
        delivery.settle(len(delivery.messages))
        return True

    def test_one_of_them_stops(self) -> None:
        """Their marks differ in the commits that Kafka keeps: one notices, and serves the group no more while the other one goes on."""
        topic = self.make().id
        self.bind(topic)
        sides = [(self.subscriber, self.gate, self.keys), self.other(topic)]
        stopped: list[int] = []

        def noticed() -> bool:
            self.publish(topic, b"a", b"b")
            stopped[:] = [number for number, side in enumerate(sides) if not self.reads(*side)]
            return bool(stopped)

        self.until(noticed, "that one of them stops")
        for _ in range(20):
            self.publish(topic, b"a", b"b")
            self.assertEqual([self.reads(*side) for side in sides], [number not in stopped for number in range(2)])
        self.assertEqual(len(stopped), 1)
