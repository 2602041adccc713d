"""The executable index: who provides which interface."""

from twisted.internet.interfaces import IProtocolFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface
from zope.interface.verify import verifyClass

from psubd.access.gate import Gate
from psubd.folder import FolderCarryover
from psubd.interfaces import (
    ICarryover,
    IClock,
    IExchange,
    IGate,
    INodes,
    IOutlet,
    IPublisher,
    IRedriver,
    IRegistrar,
    IRegistry,
    IRegistryFactory,
    ISnapshot,
    IStorage,
    IStorageFactory,
    ISubscriber,
)
from psubd.registry.local import LocalFactory, LocalRegistry
from psubd.registry.tree import Tree
from psubd.services.clock import SystemClock
from psubd.services.publisher import Publisher
from psubd.services.redrive import Redriver
from psubd.services.registrar import Registrar
from psubd.services.subscriber import Subscriber
from psubd.storage.kafka.backend import KafkaStorage
from psubd.storage.kafka.factory import KafkaFactory
from psubd.storage.memory import MemoryFactory, MemoryStorage
from psubd.storage.sqlite import SqliteFactory, SqliteStorage
from psubd.testing.clock import FakeClock
from psubd.testing.exchange import FakeExchange
from psubd.testing.registry import MemoryRegistry
from psubd.wire.outlet import Outlet
from psubd.wire.request import Exchange
from psubd.wire.site import Site

PROVIDERS: list[tuple[type[Interface], type]] = [
    (IClock, SystemClock),
    (IClock, FakeClock),
    (IExchange, Exchange),
    (IExchange, FakeExchange),
    (IOutlet, Outlet),
    (IProtocolFactory, Site),
    (IGate, Gate),
    (IPublisher, Publisher),
    (ISubscriber, Subscriber),
    (ICarryover, FolderCarryover),
    (IRedriver, Redriver),
    (IRegistrar, Registrar),
    (ISnapshot, Tree),
    (IRegistry, LocalRegistry),
    (IRegistry, MemoryRegistry),
    (INodes, LocalRegistry),
    (INodes, MemoryRegistry),
    (IRegistryFactory, LocalFactory),
    (IStorage, MemoryStorage),
    (IStorage, SqliteStorage),
    (IStorage, KafkaStorage),
    (IStorageFactory, KafkaFactory),
    (IStorageFactory, MemoryFactory),
    (IStorageFactory, SqliteFactory),
]


class Providers(SynchronousTestCase):
    def test_all(self) -> None:
        """Each class has what its interface names, with those parameters."""
        for interface, provider in PROVIDERS:
            verifyClass(interface, provider, tentative=False)
