"""The double of consumer instances holds their contract."""

from collections import Counter
from uuid import uuid4

from twisted.trial.unittest import SynchronousTestCase

from psubd.access.gate import Gate
from psubd.model import Binding, Credentials, TopicSpec
from psubd.services.registrar import Registrar
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.consumers import MemoryConsumers
from psubd.testing.consumers_contract import ClockedConsumersContract, ConsumersContract, SharingContract
from psubd.testing.registry import MemoryRegistry
from tests.testing.consumers_host import ClockedHost


class MemoryConsumersTests(ClockedHost, ConsumersContract, ClockedConsumersContract, SynchronousTestCase):
    application = "shop"

    def setUp(self):
        self.clock = FakeClock()
        self.registry, self.storage = MemoryRegistry(self.clock), MemoryStorage(self.clock)
        self.wait(self.storage.start())
        self.wait(self.registry.start())
        self.gate = Gate(self.registry, self.clock)
        self.gate.start()
        self.registrar = Registrar(self.registry, self.storage, self.clock, 1 << 20)
        self.keys = self.wait(self.registrar.create_application("shop", "Shop", "test"))[1]
        self.wait(self.registrar.create_application("owner", "Owner", "test"))
        self.consumers = MemoryConsumers(self.storage, self.gate, self.clock, self.idle_ms)

    def grant(self):
        return self.gate.subscriber(Credentials(subkey=self.keys["subkey"]))

    def topic(self, partitions=1, prefix="topic", bound=True):
        name = f"{prefix}-{uuid4().hex[:12]}"
        self.wait(self.registrar.create_topic(TopicSpec(name, partitions), "owner", None, True, "test"))
        if bound:
            self.bind(name)
        return name

    def bind(self, topic, **settings):
        self.wait(self.registrar.put_binding(Binding("shop", topic, 0, **{"sub": True, "start": "earliest", **settings}), "test", None))

    def unbind(self, topic):
        self.wait(self.registrar.delete_binding("shop", topic, "test", None))

    def grow(self, topic, partitions):
        self.wait(self.registrar.alter_topic(topic, {"partitions": partitions}, "test", None))

    def pending(self, deferred):
        for _ in range(3):
            self.clock.advance(1)
        return not deferred.called


class SuiteTests(SynchronousTestCase):
    def test_no_case_hides_another(self):
        """Two of the mixed classes that name a case, or a step, alike would run one of them only."""
        suites = (ConsumersContract, ClockedConsumersContract, SharingContract)
        parts = {part for suite in suites for part in suite.__mro__} - {object}
        named = Counter(name for part in parts for name, member in vars(part).items() if callable(member) and not name.startswith("__"))
        self.assertGreater(sum(name.startswith("test_") for name in named), 50)
        self.assertEqual([name for name, count in named.items() if count > 1], [])
