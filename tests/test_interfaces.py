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
    IConsumers,
    IExchange,
    IGate,
    IMembership,
    INodes,
    IOutlet,
    IPeers,
    IPublisher,
    IRedriver,
    IRegistrar,
    IRegistry,
    IRegistryFactory,
    ISeats,
    ISnapshot,
    IStorage,
    IStorageFactory,
    ISubscriber,
)
from psubd.peers.mesh import Mesh
from psubd.registry.alone import Alone
from psubd.registry.local import LocalFactory, LocalRegistry
from psubd.registry.tree import Tree
from psubd.registry.zookeeper.factory import ZooKeeperFactory
from psubd.registry.zookeeper.membership import Membership
from psubd.registry.zookeeper.registry import ZooKeeperRegistry
from psubd.services.clock import SystemClock
from psubd.services.publisher import Publisher
from psubd.services.redrive import Redriver
from psubd.services.registrar import Registrar
from psubd.services.subscriber import Subscriber
from psubd.services.switchboard import Switchboard
from psubd.storage.kafka.backend import KafkaStorage
from psubd.storage.kafka.factory import KafkaFactory
from psubd.storage.memory import MemoryFactory, MemoryStorage
from psubd.storage.sqlite import SqliteFactory, SqliteStorage
from psubd.testing.clock import FakeClock
from psubd.testing.exchange import FakeExchange
from psubd.testing.membership import MemoryMembership
from psubd.testing.registry import MemoryRegistry
from psubd.wire.exchange import Exchange
from psubd.wire.outlet import Outlet
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
    (IConsumers, Subscriber),
    (ICarryover, FolderCarryover),
    (ISubscriber, Switchboard),
    (IConsumers, Switchboard),
    (ISeats, Subscriber),
    (IRedriver, Redriver),
    (IRedriver, Switchboard),
    (IRegistrar, Registrar),
    (ISnapshot, Tree),
    (IRegistry, LocalRegistry),
    (IRegistry, MemoryRegistry),
    (INodes, LocalRegistry),
    (INodes, MemoryRegistry),
    (IRegistry, ZooKeeperRegistry),
    (INodes, ZooKeeperRegistry),
    (IMembership, Membership),
    (IMembership, Alone),
    (IMembership, MemoryMembership),
    (IPeers, Mesh),
    (IRegistryFactory, LocalFactory),
    (IRegistryFactory, ZooKeeperFactory),
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
