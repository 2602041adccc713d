"""The contract of consumer instances on the subscriber, with the log in memory."""

from uuid import uuid4

from psubd.testing.consumers_contract import ClockedConsumersContract, ConsumersContract, SharingContract
from tests.services.house import SubscriberTestCase
from tests.testing.consumers_host import ClockedHost


class SubscriberConsumersTests(ClockedHost, ConsumersContract, ClockedConsumersContract, SharingContract, SubscriberTestCase):
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

    def pending(self, deferred):
        self.clock.advance(1)
        return not deferred.called
