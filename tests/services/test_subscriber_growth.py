"""Partitions that come while a group is at work, and ends that it is told late."""

from twisted.internet.defer import Deferred

from tests.services.house import SubscriberTestCase


class GrowthTests(SubscriberTestCase):
    def test_who_was_reading_when_it_grew(self):
        """A group that had enough at hand, and so waited nowhere, reads the new partition all the same: by long polls, which never ask for bounds."""
        self.create_topic("one")
        self.bind("shop", "one")
        self.publish("one", count=600)
        first = self.wait(self.poll(topics=("one",)))
        first.settle(1)
        self.wait(self.storage.grow("one", 2))
        self.publish("one", partition=1)
        found = []
        while len(found) < 600:
            delivery = self.wait(self.poll(topics=("one",), batch=100))
            delivery.settle(len(delivery.messages))
            found += [(each.partition, each.message.offset) for each in delivery.messages]
        self.assertEqual(sorted(found), [(0, offset) for offset in range(1, 600)] + [(1, 0)])

    def test_an_end_that_was_told_late(self):
        """An end that was asked before the group read on is no cut of the log: nothing comes again."""
        self.publish(count=3)
        self.assertEqual(len(self.drain()), 3)
        told = self.wait(self.storage.bounds("orders"))
        late: Deferred = Deferred()
        self.storage.bounds = lambda topic: late
        poll = self.poll(timeout=0)
        self.publish()
        self.wait(poll).settle(1)
        late.callback(told)
        del self.storage.bounds
        self.assertEqual(self.drain(), [])
