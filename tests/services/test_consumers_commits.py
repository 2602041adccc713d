"""Consumer instances: what a commit does, and what auto-commit does."""

from psubd.errors import BadParameter, IllegalState, InUse, OffsetOutOfRange, OwnershipInDoubt, PartitionMissing, StorageUnavailable, TopicNotBound
from psubd.model import Mark
from tests.services.circle import Circle, at
from tests.services.house import SubscriberTestCase


class CommitTests(Circle, SubscriberTestCase):
    def test_all_read(self):
        """Without marks: what was wholly written, and no more; durable when it fires, with what the client saw last."""
        self.publish(count=5)
        self.subscribed()
        self.fetch(batch=2)
        delivery = self.wait(self.read(batch=2))
        delivery.settle(1)
        self.assertEqual(self.wait(self.commit()), [Mark(at(0), 2, "", 1)])
        self.assertEqual(self.place(), 2)

    def test_marks(self):
        """A mark takes the group's place there: all below is done."""
        self.publish(count=5)
        self.subscribed()
        self.fetch()
        self.assertEqual(self.wait(self.commit(p0=3)), [Mark(at(0), 3, "", 4)])
        self.assertEqual(self.place(), 3)
        self.wait(self.dismiss())
        self.assertEqual(self.take(group="shop.g"), [("orders", 0, 3), ("orders", 0, 4)])

    def test_never_read(self):
        """A mark past what was read counts too, up to the end."""
        self.publish(count=5)
        self.subscribed()
        self.wait(self.commit(p0=5))
        self.assertEqual(self.place(), 5)
        self.assertEqual(self.fetched(), [0, 1, 2, 3, 4])

    def test_waits_for_the_answer(self):
        """A commit of what was read waits until it is known what became of the answer that is out: the news may come from another node."""
        self.publish(count=3)
        self.subscribed()
        delivery = self.wait(self.read())
        committing = self.commit()
        self.assertNoResult(committing)
        delivery.settle(3)
        self.assertEqual(self.wait(committing), [Mark(at(0), 3, "", 2)])

    def test_waits_no_longer(self):
        """It does not wait for ever."""
        self.publish(count=3)
        self.subscribed()
        delivery = self.wait(self.read())
        committing = self.commit()
        self.clock.advance(5_001)
        self.assertEqual(self.wait(committing), [])
        delivery.settle(3)
        self.wait(self.commit())
        self.assertEqual(self.place(), 3)

    def test_fails(self):
        """A commit that the storage refuses is told, and is tried on."""
        self.publish(count=3)
        self.subscribed()
        self.fetch()
        self.storage.failing["commit"] = StorageUnavailable("away")
        self.failureResultOf(self.commit(), StorageUnavailable)
        self.failureResultOf(self.commit(), StorageUnavailable)
        self.storage.failing.clear()
        self.clock.advance(501)
        self.assertEqual(self.place(), 3)
        self.wait(self.commit())

    def test_somebody_elses(self):
        """Where somebody else has the group in the storage it is refused."""
        self.publish(count=3)
        self.subscribed()
        self.fetch()
        self.storage.members.add("shop.g")
        self.failureResultOf(self.commit(), OwnershipInDoubt)
        self.failureResultOf(self.read(), OwnershipInDoubt)
        self.failureResultOf(self.look_later(), OwnershipInDoubt)

    def look_later(self):
        return self.subscriber.look(self.grant(), self.group, "c1")

    def test_taken_from_the_start(self):
        """A group that somebody else has from the start cannot be subscribed to."""
        self.storage.members.add("shop.g")
        self.wait(self.enlist())
        self.failureResultOf(self.wish(topics=["orders"]), InUse)

    def test_back(self):
        """A mark below what is done is a reset of that partition; who has it reads on where it was."""
        self.publish(count=5)
        self.publish(partition=1, count=2)
        self.subscribed()
        self.fetch()
        self.wait(self.commit())
        self.wait(self.commit(p0=2))
        self.assertEqual(self.place(), 2)
        self.assertEqual(self.place(1), 2)
        self.assertEqual(self.fetched(), [])
        self.publish()
        self.assertEqual(self.fetched(), [5])
        self.wait(self.dismiss())
        self.assertEqual(self.drain(group="shop.g"), [("orders", 0, 2), ("orders", 0, 3), ("orders", 0, 4), ("orders", 0, 5)])

    def test_back_fails(self):
        """A reset that the storage does not keep is told."""
        self.publish(count=5)
        self.subscribed()
        self.fetch()
        self.wait(self.commit())
        self.storage.failing["commit"] = StorageUnavailable("away")
        self.failureResultOf(self.commit(p0=2), StorageUnavailable)
        self.storage.failing.clear()
        self.wait(self.commit(p0=2))
        self.assertEqual(self.place(), 2)
        self.assertEqual(self.fetched(), [])

    def test_said_again(self):
        """The same marks again are no reset, though more is done by now."""
        self.publish(count=3)
        held = self.lease(group="shop.g", count=2)
        self.subscribed()
        self.ack(held[1])
        self.wait(self.commit(p0=1))
        serial = self.registry.snapshot().serial
        self.wait(self.commit(p0=1))
        self.assertEqual((self.place(), self.registry.snapshot().serial), (2, serial))

    def test_after_a_seek_back(self):
        """Who went back and read on from there commits that, as Kafka's clients do."""
        self.publish(count=5)
        self.subscribed()
        self.fetch()
        self.wait(self.commit())
        self.wait(self.seek(0))
        self.fetch(batch=2)
        self.assertEqual(self.wait(self.commit()), [Mark(at(0), 2, "", 1)])
        self.assertEqual(self.place(), 2)

    def test_seek_owes_nothing(self):
        """A seek alone commits nothing, and takes nothing back."""
        self.publish(count=5)
        self.subscribed()
        self.fetch(batch=3)
        self.wait(self.seek("latest"))
        self.wait(self.commit())
        self.assertEqual(self.place(), 3)
        self.wait(self.seek(0))
        self.wait(self.commit())
        self.assertEqual(self.place(), 3)

    def test_refused(self):
        """A mark past the end, of a partition or topic that is not there, or one that is too long, changes nothing."""
        self.publish(count=2)
        self.subscribed()
        self.failureResultOf(self.commit(p0=2, p1=1), OffsetOutOfRange)
        self.failureResultOf(self.commit(p0=2, p7=0), PartitionMissing)
        self.failureResultOf(self.commit(p0=2, metadata="x" * 257), BadParameter)
        self.failureResultOf(self.subscriber.commit(self.grant(), self.group, "c1", [Mark(at(0, "bills"), 0)]), TopicNotBound)
        self.assertEqual(self.place(), 0)

    def test_anothers(self):
        """A mark for a partition that another instance has is refused; nobody's is taken."""
        self.publish(count=2)
        self.subscribed()
        self.enlist_idle("c2")
        self.failureResultOf(self.commit("c2", p0=1), IllegalState)
        self.wait(self.wish("c1"))
        self.wait(self.commit("c2", p0=1))
        self.assertEqual(self.place(), 1)

    def enlist_idle(self, id):
        self.wait(self.enlist(id))

    def test_metadata(self):
        """What the client puts to a place is handed back alone, from the storage too."""
        self.publish(count=2)
        self.subscribed()
        self.wait(self.commit(p0=1, metadata='{"host": "a;b", "ü": 1}'))
        self.assertEqual(self.committed_of(), Mark(at(0), 1, '{"host": "a;b", "ü": 1}', None))
        self.restart()
        self.assertEqual(self.committed_of(), Mark(at(0), 1, '{"host": "a;b", "ü": 1}', None))

    def test_committed(self):
        """The group's place; -1 where it has none."""
        self.create_topic("bills")
        self.bind("shop", "bills")
        self.publish(count=3)
        self.subscribed()
        self.fetch(batch=2)
        self.wait(self.commit())
        [bills] = self.wait(self.subscriber.committed(self.grant(), self.group, "c1", [at(0, "bills")]))
        self.assertEqual((self.committed_of(), bills), (Mark(at(0), 2, "", 1), Mark(at(0, "bills"), -1)))
        self.assertNotIn(("bills", 0), self.committed(self.group))
        self.failureResultOf(self.subscriber.committed(self.grant(), self.group, "c1", [at(5)]), PartitionMissing)


class AutoCommitTests(Circle, SubscriberTestCase):
    def test_next_read(self):
        """What one read gave and was wholly written is done with the next read."""
        self.publish(count=4)
        self.subscribed(auto_commit=True)
        self.fetch(batch=2)
        self.clock.advance(501)
        self.assertEqual(self.place(), 0)
        delivery = self.wait(self.read(batch=2))
        self.clock.advance(501)
        self.assertEqual(self.place(), 2)
        delivery.settle(1)
        self.fetch()
        self.clock.advance(501)
        self.assertEqual(self.place(), 2)

    def test_leaving(self):
        """And when the instance leaves, the answer that is out at that moment waited for."""
        self.publish(count=4)
        self.subscribed(auto_commit=True)
        self.fetch(batch=2)
        delivery = self.wait(self.read(batch=1))
        leaving = self.dismiss()
        self.assertNoResult(leaving)
        delivery.settle(1)
        self.wait(leaving)
        self.assertEqual(self.drain(group="shop.g"), [("orders", 0, 3)])

    def test_idle(self):
        """An instance that is discarded since nobody used it commits nothing."""
        self.publish(count=2)
        self.subscribed(auto_commit=True)
        self.fetch()
        self.clock.advance(300_001)
        self.assertEqual(self.drain(group="shop.g"), [("orders", 0, 0), ("orders", 0, 1)])

    def test_other_wish(self):
        """What it does not read any more is done too."""
        self.publish(count=2)
        self.subscribed(auto_commit=True)
        self.fetch()
        self.wait(self.wish())
        self.assertEqual(self.drain(group="shop.g"), [])

    def test_never_back(self):
        """It takes back nothing that others have done."""
        self.publish(count=3)
        held = self.lease(group="shop.g", count=3)
        self.ack(held[1])
        self.nack(held[0])
        self.nack(held[2])
        self.subscribed(auto_commit=True)
        self.assertEqual(self.fetched(batch=1), [0])
        self.assertEqual(self.fetched(batch=1), [2])
        self.clock.advance(501)
        self.assertEqual(self.place(), 2)
        self.fetch()
        self.clock.advance(501)
        self.assertEqual(self.place(), 3)
