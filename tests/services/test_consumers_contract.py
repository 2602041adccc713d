"""The contract of consumer instances on the subscriber, with the log in memory."""

from uuid import uuid4

from twisted.python.failure import Failure

from psubd.model import Record
from psubd.testing.consumers_contract import ClockedConsumersContract, ConsumersContract, SharingContract
from tests.services.house import SubscriberTestCase


class SubscriberConsumersTests(ConsumersContract, ClockedConsumersContract, SharingContract, SubscriberTestCase):
    """One node that is alone."""

    application = "shop"
    settings = {"instance_timeout_ms": ClockedConsumersContract.idle_ms}

    @property
    def consumers(self):
        return self.subscriber

    def topic(self, partitions=1, prefix="topic", bound=True):
        name = f"{prefix}-{uuid4().hex[:12]}"
        self.create_topic(name, partitions)
        if bound:
            self.bind(name)
        return name

    def bind(self, *names, **settings):
        """Of the house with the application, of the contract without."""
        return super().bind(*names[-2:] if len(names) > 1 else ("shop", *names), **settings)

    def unbind(self, topic):
        super().unbind("shop", topic)

    def grow(self, topic, partitions):
        self.wait(self.registrar.alter_topic(topic, {"partitions": partitions}, "test", None))
        self.clock.advance(10_000)

    def put(self, topic, *values, partition=0, timestamp=None):
        records = [Record(topic, value, None, (), partition, timestamp or self.clock.epoch_ms()) for value in values]
        return [position.offset for position in self.wait(self.storage.publish(records, "all"))]

    def wait(self, deferred):
        """In a turn or two: a commit goes out with the reactor's next."""
        self.pending(deferred)
        found = []
        deferred.addBoth(found.append)
        self.assertTrue(found, "it has not fired")
        if isinstance(found[0], Failure):
            found[0].raiseException()
        return found[0]

    def pending(self, deferred):
        self.clock.advance(1)
        return not deferred.called

    def pass_ms(self, ms):
        for _ in range(100):
            self.clock.advance(ms / 100)
