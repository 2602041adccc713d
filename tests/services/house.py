"""The rooms that the subscriber lives between, all in memory, on one clock."""

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from psubd.access.gate import Gate
from psubd.model import Binding, Credentials, Poll, Record, Replay, TopicSpec
from psubd.services.registrar import Registrar
from psubd.services.subscriber import Subscriber
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.faulty_storage import FaultyStorage
from psubd.testing.registry import MemoryRegistry


class SubscriberTestCase(SynchronousTestCase):
    """Application ``shop`` is bound to topic ``orders``, three partitions, from its first message."""

    settings: dict = {}

    def setUp(self):
        self.clock = FakeClock()
        self.storage = FaultyStorage(MemoryStorage(self.clock))
        self.registry = MemoryRegistry(self.clock)
        self.gate = Gate(self.registry, self.clock)
        self.wait(self.storage.start())
        self.wait(self.registry.start())
        self.gate.start()
        self.registrar = Registrar(self.registry, self.storage, self.clock, 1 << 20)
        self.carryover = None
        self.keys = {}
        self.create_application("shop")
        self.create_application("owner")
        self.create_topic("orders", 3)
        self.bind("shop", "orders", start="earliest")
        self.subscriber = self.make_subscriber()

    def tearDown(self):
        self.storage.failing.clear()
        self.storage.held.clear()
        self.clock.advance(0)
        self.wait(self.subscriber.stop())
        self.gate.stop()
        self.assertEqual([call for call in self.clock.reactor.getDelayedCalls() if "psubd.storage" not in repr(call.func.__module__)], [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def wait(self, deferred):
        """What it fired with; it has fired."""
        return self.successResultOf(deferred)

    def make_subscriber(self):
        self.metrics = CollectorRegistry()
        self.registry.epoch += 1
        subscriber = Subscriber(
            self.storage,
            self.registry,
            self.gate,
            self.registry,
            self.clock,
            commit_interval_ms=500,
            metrics=self.metrics,
            patience_ms=0,
            carryover=self.carryover,
            **self.settings,
        )
        self.built(subscriber)
        self.wait(subscriber.start())
        return subscriber

    def built(self, subscriber):
        """What a test does to each subscriber before it starts."""

    def restart(self):
        """The node stops well and starts again."""
        self.wait(self.subscriber.stop())
        self.subscriber = self.make_subscriber()

    def crash(self):
        """The node ends without a word; another begins."""
        former, self.subscriber = self.subscriber, self.make_subscriber()
        former._running = False
        for end in former._ends:
            end()
        former._sweeping.cancel()
        former._renewal.stop()
        former._shop.alarms.stop()
        former._shop.patience.stop()
        former._shop.burials.stop()
        former._whereabouts.stop()
        for group in list(former._live.values()):
            group.end()
        if former._committer._timer is not None:
            former._committer._timer.cancel()

    def metric(self, name, **labels):
        return self.metrics.get_sample_value(name, labels)

    # --- registering

    def create_application(self, id):
        _, self.keys[id] = self.wait(self.registrar.create_application(id, id, "test"))

    def create_topic(self, id, partitions=1):
        return self.wait(self.registrar.create_topic(TopicSpec(id, partitions), "owner", None, True, "test"))

    def bind(self, application, topic, **settings):
        binding = Binding(application, topic, 0, **{"sub": True, "start": "earliest", **settings})
        return self.wait(self.registrar.put_binding(binding, "test", None))[0]

    def unbind(self, application, topic):
        self.wait(self.registrar.delete_binding(application, topic, "test", None))

    def grant(self, application="shop"):
        return self.gate.subscriber(Credentials(subkey=self.keys[application]["subkey"]))

    # --- publishing and reading

    def publish(self, topic="orders", partition=0, count=1, size=10, timestamp=None, key=None, headers=()):
        """The offsets of ``count`` new messages."""
        records = [Record(topic, b"v" * size, key, headers, partition, timestamp) for _ in range(count)]
        return [position.offset for position in self.wait(self.storage.publish(records, "all"))]

    def poll(self, group="shop", topics=None, batch=1, timeout=30_000, grant=None, **settings) -> Deferred:
        return self.subscriber.poll(grant or self.grant(group.partition(".")[0]), Poll(group, topics, batch, timeout_ms=timeout, **settings))

    def replay(self, topic="orders", start="earliest", partition=None, batch=1, timeout=0, **settings) -> Deferred:
        return self.subscriber.replay(self.grant(), Replay(topic, start, partition, batch, timeout_ms=timeout, **settings))

    def got(self, deferred):
        """What an answered poll holds, as (topic, partition, offset)."""
        return places(self.wait(deferred))

    def take(self, count=None, **settings):
        """Poll without waiting, hand all of it over; what it was."""
        delivery = self.wait(self.poll(timeout=0, batch=count or 10_000, **settings))
        delivery.settle(len(delivery.messages))
        return places(delivery)

    def lease(self, count=1, grant=None, **settings):
        """Poll without waiting in explicit mode until so many came, or none is there; hand all of it over. The messages."""
        held = []
        while len(held) < count:
            delivery = self.wait(self.poll(timeout=0, batch=count - len(held), ack="explicit", grant=grant, **settings))
            delivery.settle(len(delivery.messages))
            if not delivery.messages:
                break
            held += delivery.messages
        return held

    def ack(self, *held, application="shop"):
        """Ack the tokens, or the messages that have them; how many took effect, and the tokens of those that were lost."""
        return self.verdict(self.subscriber.ack(self.grant(application), tokens(held)))

    def nack(self, *held, delay=0, dead=False, application="shop"):
        return self.verdict(self.subscriber.nack(self.grant(application), tokens(held), delay, dead))

    def extend(self, *held, timeout=30_000, application="shop"):
        return self.verdict(self.subscriber.extend(self.grant(application), tokens(held), timeout))

    def verdict(self, deferred):
        verdict = self.wait(deferred)
        return verdict.count, list(verdict.lost)

    def drain(self, **settings):
        """Poll without waiting until nothing comes; all that came."""
        found = []
        while taken := self.take(**settings):
            found += taken
        return found

    def committed(self, group="shop"):
        """The committed offsets, by topic and partition."""
        kept = self.wait(self.storage.committed(group))
        return {(at.topic, at.partition): commit.offset for at, commit in sorted(kept.items())}


def tokens(held):
    return [each if isinstance(each, str) else each.token for each in held]


def offsets(messages):
    return [delivered.message.offset for delivered in messages]


def places(delivery):
    return [(delivered.topic, delivered.partition, delivered.message.offset) for delivered in delivery.messages]
