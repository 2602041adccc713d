"""Several nodes of one registry, whose slots are moved by hand: each with a storage of its own that can be made to fail, on the same log."""

from prometheus_client import CollectorRegistry

from psubd.delivery.cursor import decode
from psubd.model import TopicPartition
from psubd.services.subscriber import Subscriber
from psubd.slots import slot_of
from psubd.testing.faulty_storage import FaultyStorage
from psubd.testing.membership import SESSION_MS, MemoryMembership
from tests.services.house import SubscriberTestCase

SLOTS = 4
LOOK_MS = SESSION_MS + 1_000
"""From an unclean takeover to the first reading back."""


class Node:
    """One of them. ``slot`` is that of group ``shop``."""

    def __init__(self, test, name, beside=None, limits=None):
        self.test, self.name = test, name
        self.storage = test.make_storage()
        if limits is not None:
            self.storage.limits = limits
        self.membership = MemoryMembership(test.clock, beside and beside.membership, id=name, slots=SLOTS, session_ms=SESSION_MS)
        self.metrics = CollectorRegistry()
        self.subscriber = Subscriber(
            self.storage,
            test.registry,
            test.gate,
            test.registry,
            test.clock,
            commit_interval_ms=500,
            metrics=self.metrics,
            patience_ms=0,
            membership=self.membership,
        )
        test.wait(self.subscriber.start())

    @property
    def slot(self):
        return slot_of("shop", SLOTS)

    def take(self, parcel=None, slot=None):
        """Claim the slot and take it over; the epoch."""
        slot = self.slot if slot is None else slot
        epoch = self.test.wait(self.membership.claim(slot))
        self.subscriber.take_over(slot, epoch, parcel)
        return epoch

    def take_all(self):
        for slot in range(SLOTS):
            self.take(slot=slot)

    def expire(self):
        """It stands still, and its session ends: everybody but itself knows."""
        self.membership.end_lease()
        self.membership.expire()

    def wake(self):
        """It finds out, and joins again."""
        for slot in self.subscriber.seated():
            self.subscriber.drop(slot)
        self.membership.join()

    def stop(self):
        self.storage.failing.clear()
        for method in list(self.storage.held):
            self.storage.release(method)
        self.test.clock.advance(0)
        self.test.wait(self.subscriber.stop())


class NodesCase(SubscriberTestCase):
    """Nodes ``a`` and ``b``; ``a`` serves all slots, and is the one that polls and acks go to, unless `on` says otherwise."""

    limits = None

    def setUp(self):
        self.nodes = []
        super().setUp()
        self.b = self.add("b")

    def make_subscriber(self):
        self.a = self.add("a")
        self.a.take_all()
        return self.a.subscriber

    def make_storage(self):
        return FaultyStorage(self.storage.beneath)

    def add(self, name):
        node = Node(self, name, self.nodes[0] if self.nodes else None, self.limits)
        self.nodes.append(node)
        return node

    def tearDown(self):
        for node in self.nodes:
            node.stop()
        super().tearDown()

    def on(self, node):
        """What follows goes to that node."""
        self.subscriber = node.subscriber
        return node

    def hand(self, former, node, slot=None):
        """Hand the slot over, and let the next calls go to its new owner."""
        slot = former.slot if slot is None else slot
        parcel = self.wait(former.subscriber.hand_over(slot))
        self.wait(former.membership.release(slot))
        node.take(parcel, slot)
        self.on(node)
        return parcel

    def place(self, group="shop", partition=0, topic="orders"):
        """Offset and epoch of the place that the storage has."""
        commit = self.wait(self.storage.beneath.committed(group))[TopicPartition(topic, partition)]
        return commit.offset, decode(commit).epoch
