"""Several whole nodes of one process, on one clock, one log and wires that the test has in its hands."""

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from psubd.access.gate import Gate
from psubd.model import Binding, Credentials, Poll, Record, TopicSpec
from psubd.peers.mesh import Mesh
from psubd.services.ownership import Ownership
from psubd.services.publisher import Publisher
from psubd.services.redrive import Redriver
from psubd.services.registrar import Registrar
from psubd.services.subscriber import Subscriber
from psubd.services.switchboard import Switchboard
from psubd.slots import slot_of
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.faulty_storage import FaultyStorage
from psubd.testing.membership import MemoryMembership
from psubd.testing.registry import MemoryRegistry
from psubd.testing.wires import Wires
from tests.services.house import places, tokens

SECRET = b"s" * 32


class Node:
    """:ivar reaches: whether it says that it reaches the storage. :ivar lost: members whose links it was told to be lost."""

    def __init__(self, house, id, mode="pubsub"):
        first = house.nodes[0] if house.nodes else None
        self.house, self.id = house, id
        self.address = f"{id}:1"
        self.reaches = True
        self.running = False
        clock = house.clock
        self.registry = MemoryRegistry(clock, beside=first.registry if first else None)
        self.registry.node_id = id
        self.membership = MemoryMembership(
            clock, beside=first.membership if first else None, id=id, address=self.address, slots=house.slots, mode=mode, eligible=False
        )
        self.mesh = Mesh(membership=self.membership, secret=lambda: SECRET, clock=clock, dial=house.wires.dial, random=lambda: 0.0)
        self.gate = Gate(self.registry, clock)
        self.metrics = CollectorRegistry()
        self.subscriber = Subscriber(
            house.storage, self.registry, self.gate, self.registry, clock, 500, self.metrics, patience_ms=0, membership=self.membership
        )
        publisher = Publisher(house.storage, clock, 1 << 20, None)
        self.redriver = Redriver(house.storage, self.registry, self.gate, publisher, clock, self.metrics)
        self.ownership = Ownership(
            self.membership, self.mesh, self.subscriber, clock, mode=mode, reachable=lambda: self.reaches, metrics=self.metrics
        )
        self.board = Switchboard(
            self.subscriber, self.subscriber, self.redriver, self.ownership, self.membership, self.mesh, self.registry, self.gate, clock, self.metrics
        )
        self.lost = []
        self.mesh.on_lost(self.lost.append)
        house.nodes.append(self)

    @property
    def key(self):
        return self.membership.key

    def open(self):
        """What has to be there to register things."""
        self.house.wait(self.registry.start())
        self.gate.start()
        return self

    def start(self):
        self.house.wait(self.subscriber.start())
        self.unlisten = self.house.wires.listen(self.address, self.mesh.door)
        self.board.serve()
        self.house.wait(self.ownership.start())
        self.house.wait(self.mesh.start())
        self.running = True
        self.house.settle()
        return self

    def stop(self):
        """In good order, without a drain."""
        if not self.running:
            return
        self.running = False
        self.ownership.stop()
        stopped = [self.board.stop()]
        self.house.settle()
        stopped.append(self.subscriber.stop())
        self.house.settle()
        stopped.append(self.mesh.stop())
        self.house.pass_time(3000)
        for each in stopped:
            self.house.wait(each)
        self.unlisten()
        self.gate.stop()
        self.membership.leave()

    def die(self, expires=True):
        """The process is gone: nothing of it acts any more, its connections break. ``expires``: and its session has ended."""
        self.running = False
        self.unlisten()
        self.membership.close_eyes()
        self.membership._lease_ends = 0  # whatever is left of it in this process may do nothing
        for wire in self.wires():
            wire.cut()
        self.ownership.stop()
        self.board._lobby.stop()
        self.board._owner.stop()
        self.board._whereabouts.stop()
        self.board._edge.stop()
        self.board._edge._settles.stop()
        self.house.drop_timers(self)
        self.mesh.stop()
        if expires:
            self.expire()

    def expire(self):
        """Its session ends."""
        self.membership._ensemble.end(self.membership.key)
        self.house.settle()

    def wires(self):
        """The connections that it has."""
        own = set(self.mesh._open)
        return [wire for wire in self.house.wires.open if wire.dialler.protocol in own or wire.listener.protocol in own]

    def wire(self, other):
        """The connection that carries its link with the other."""
        mine = self.mesh._links[other.key]
        return next(wire for wire in self.house.wires.open if mine in (wire.dialler.protocol, wire.listener.protocol))

    def slots(self):
        """Those that it serves."""
        return sorted(self.subscriber.seated())

    def metric(self, name, **labels):
        return self.metrics.get_sample_value(name, labels)

    # --- what a client does

    def grant(self, application="shop"):
        return self.gate.subscriber(Credentials(subkey=self.house.keys[application]["subkey"]))

    def poll(self, group="shop", topics=None, batch=1, timeout=30_000, **settings) -> Deferred:
        polling = self.board.poll(self.grant(group.partition(".")[0]), Poll(group, topics, batch, timeout_ms=timeout, **settings))
        self.house.settle()
        return polling

    def take(self, count=None, **settings):
        """Poll without waiting, hand all of it over; what it was."""
        delivery = self.house.wait(self.poll(timeout=0, batch=count or 10_000, **settings))
        delivery.settle(len(delivery.messages))
        self.house.settle()
        return places(delivery)

    def lease(self, count=1, **settings):
        """Poll without waiting in explicit mode until so many came, or none is there. The messages."""
        held = []
        while len(held) < count:
            delivery = self.house.wait(self.poll(timeout=0, batch=count - len(held), ack="explicit", **settings))
            delivery.settle(len(delivery.messages))
            self.house.settle()
            if not delivery.messages:
                break
            held += delivery.messages
        return held

    def ack(self, *held):
        return self._verdict(self.board.ack(self.grant(), tokens(held)))

    def nack(self, *held, delay=0, dead=False):
        return self._verdict(self.board.nack(self.grant(), tokens(held), delay, dead))

    def extend(self, *held, timeout=30_000):
        return self._verdict(self.board.extend(self.grant(), tokens(held), timeout))

    def _verdict(self, judging):
        self.house.settle()
        verdict = self.house.wait(judging)
        return verdict.count, list(verdict.lost)


class NodesCase(SynchronousTestCase):
    """Application ``shop`` is bound to topic ``orders``, three partitions, from its first message."""

    slots = 16
    ids = ("a", "b")

    def setUp(self):
        self.clock = FakeClock()
        self.storage = FaultyStorage(MemoryStorage(self.clock))
        self.wires = Wires(self.clock)
        self.nodes = []
        self.keys = {}
        self.wait(self.storage.start())
        first = self.node(self.ids[0]).open()
        self.registrar = Registrar(first.registry, self.storage, self.clock, 1 << 20)
        self.create_application("shop")
        self.create_application("owner")
        self.create_topic("orders", 3)
        self.bind("shop", "orders")
        for id in self.ids[1:]:
            self.node(id).open()
        for node in self.nodes:
            node.start()
        self.pass_time(8000)

    def tearDown(self):
        for node in self.nodes:
            node.stop()
        self.assertEqual(self.left_over(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def left_over(self):
        calls = self.clock.reactor.getDelayedCalls()
        return [call for call in calls if "storage" not in repr(getattr(call.func, "__module__", "")) and not self.is_wire(call)]

    def is_wire(self, call):
        return "wires" in repr(getattr(call.func, "__module__", ""))

    def drop_timers(self, node):
        """Of a process that is gone: whatever it would have done later."""
        subscriber = node.subscriber
        subscriber._running = False
        for end in subscriber._ends:
            end()
        if subscriber._sweeping is not None:
            subscriber._sweeping.cancel()
        subscriber._renewal.stop()
        subscriber._shop.alarms.stop()
        subscriber._shop.patience.stop()
        subscriber._shop.burials.stop()
        subscriber._whereabouts.stop()
        subscriber._readback.stop()
        for slot in list(subscriber.seated()):
            subscriber.drop(slot)
        for group in list(subscriber._live.values()):
            group.end()
        if subscriber._committer._timer is not None and subscriber._committer._timer.active():
            subscriber._committer._timer.cancel()
        node.gate.stop()

    def wait(self, deferred):
        """What it fired with; it has fired."""
        return self.successResultOf(deferred)

    def settle(self):
        """Let all that was written arrive."""
        self.clock.advance(0)

    def pass_time(self, ms, step=100):
        for _ in range(0, ms, step):
            self.clock.advance(step)

    def node(self, id, **settings):
        return Node(self, id, **settings)

    def join(self, id, **settings):
        node = self.node(id, **settings).open().start()
        self.settle()
        return node

    # --- who serves what

    def owner(self, group="shop"):
        """The node that serves the group's slot."""
        slot = slot_of(group, self.slots)
        [node] = [node for node in self.nodes if node.running and slot in node.subscriber.seated()]
        return node

    def other(self, group="shop"):
        """A running node that does not."""
        return next(node for node in self.nodes if node.running and node is not self.owner(group))

    def groups_of(self, node, count=1, stem="shop.g"):
        """Names of groups whose slots the node serves."""
        slots = set(node.slots())
        names = (f"{stem}{number}" for number in range(1000))
        found = [name for name in names if slot_of(name, self.slots) in slots]
        return found[:count]

    # --- registering, publishing

    def create_application(self, id):
        _, self.keys[id] = self.wait(self.registrar.create_application(id, id, "test"))

    def create_topic(self, id, partitions=1):
        return self.wait(self.registrar.create_topic(TopicSpec(id, partitions), "owner", None, True, "test"))

    def bind(self, application, topic, **settings):
        binding = Binding(application, topic, 0, **{"sub": True, "start": "earliest", **settings})
        return self.wait(self.registrar.put_binding(binding, "test", None))[0]

    def unbind(self, application, topic):
        self.wait(self.registrar.delete_binding(application, topic, "test", None))

    def publish(self, topic="orders", partition=0, count=1, size=10, key=None):
        """The offsets of ``count`` new messages; who waits has got them."""
        records = [Record(topic, b"v" * size, key, (), partition, None) for _ in range(count)]
        offsets = [position.offset for position in self.wait(self.storage.publish(records, "all"))]
        self.settle()
        return offsets

    def committed(self, group="shop"):
        kept = self.wait(self.storage.committed(group))
        return {(at.topic, at.partition): commit.offset for at, commit in sorted(kept.items())}
