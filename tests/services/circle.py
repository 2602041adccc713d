"""A client of consumer instances."""

import msgspec

from psubd.model import Aim, InstanceSpec, Mark, Poll, TopicPartition, Wish
from tests.services.house import offsets, places

SPEC = InstanceSpec(2, reset="earliest", auto_commit=False)


def at(partition, topic="orders"):
    return TopicPartition(topic, partition)


class Circle:
    """What a client of instances of group ``shop.g`` does; mixed into a test case with ``grant`` and ``wait``. ``consumers``: who it asks.

    They begin at the first message, and commit nothing by themselves."""

    group = "shop.g"

    @property
    def consumers(self):
        return self.subscriber

    def enlist(self, id="c1", group=None, **settings):
        return self.consumers.enlist(self.grant(), group or self.group, id, msgspec.structs.replace(SPEC, **settings))

    def wish(self, id="c1", group=None, **wish):
        return self.consumers.wish(self.grant(), group or self.group, id, Wish(**wish))

    def assign(self, id="c1", *partitions):
        return self.wait(self.wish(id, partitions=tuple(at(partition) for partition in partitions)))

    def subscribed(self, id="c1", topics=("orders",), group=None, **settings):
        """A new instance that is subscribed."""
        self.wait(self.enlist(id, group, **settings))
        self.wait(self.wish(id, group, topics=topics))

    def dismiss(self, id="c1"):
        return self.consumers.dismiss(self.grant(), self.group, id)

    def read(self, id="c1", timeout=0, batch=10_000, group=None, topics=None, **settings):
        group = group or self.group
        return self.consumers.read(self.grant(), group, id, Poll(group, topics, batch, timeout_ms=timeout, **settings))

    def gives(self, reading, *expected):
        """The read ends with the messages of these offsets, and they are wholly written."""
        delivery = self.wait(reading)
        self.assertEqual(offsets(delivery.messages), list(expected))
        delivery.settle(len(expected))

    def fetch(self, id="c1", **settings):
        """Read without waiting, wholly written; what it was, as (topic, partition, offset)."""
        delivery = self.wait(self.read(id, **settings))
        delivery.settle(len(delivery.messages))
        return places(delivery)

    def fetched(self, id="c1", **settings):
        """The same, as offsets."""
        return [offset for _, _, offset in self.fetch(id, **settings)]

    def commit(self, id="c1", metadata="", **offsets):
        """What was read, or ``p0=5``: of partition 0 all below 5."""
        marks = [Mark(at(int(name[1:])), offset, metadata) for name, offset in offsets.items()] or None
        return self.consumers.commit(self.grant(), self.group, id, marks)

    def committed_of(self, id="c1", partition=0):
        """The mark of the group's place."""
        [mark] = self.wait(self.consumers.committed(self.grant(), self.group, id, [at(partition)]))
        return mark

    def look(self, id="c1"):
        return self.wait(self.consumers.look(self.grant(), self.group, id))

    def partitions(self, id="c1"):
        return [each.partition for each in self.look(id).partitions]

    def seek(self, to, partition=0, id="c1"):
        return self.consumers.seek(self.grant(), self.group, id, [Aim(at(partition), to)])

    def place(self, partition=0, group=None):
        """What the storage has."""
        return self.committed(group or self.group)["orders", partition]
