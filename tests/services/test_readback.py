"""Late commits of a node that lost its slot: they repeat, never skip, and are overwritten."""

from psubd.delivery.cursor import decode
from psubd.errors import StorageUnavailable
from psubd.services.group_records import group_of
from psubd.services.readback import AGAIN_MS
from psubd.services.subscriber import IDLE_MS, SWEEP_MS
from psubd.slots import slot_of
from psubd.testing.membership import SESSION_MS
from tests.services.several import LOOK_MS, SLOTS, NodesCase


class LateCase(NodesCase):
    def leave_late(self, done=2):
        """Node ``a`` has ``done`` messages done, and stands still while its commit of that is on its way; ``b`` goes on from the place before."""
        self.take(done)
        self.a.storage.held.add("commit")
        self.clock.advance(500)
        self.a.expire()
        self.on(self.b).take()

    def commit_late(self):
        """It arrives."""
        self.a.storage.release("commit")

    def crash(self):
        """Node ``b`` dies; another one goes on."""
        self.clock.advance(500)
        self.b.expire()
        self.on(self.add("c")).take()


class LateTests(LateCase):
    def test_found_and_overwritten(self):
        """The place that it moved back is what the new owner says again within two session timeouts, though nobody reads or acks."""
        self.publish(count=6)
        self.leave_late()
        self.assertEqual(len(self.drain()), 6)
        self.clock.advance(500)
        own = self.place()
        self.assertEqual(own, (6, self.b.subscriber.seated()[self.b.slot]))
        self.commit_late()
        self.assertEqual(self.place()[0], 2)
        self.clock.advance(LOOK_MS)
        self.assertEqual(self.place(), own)

    def test_granted(self):
        """The session timeout is the one that was granted, shorter than what was asked for or not."""
        self.b.membership._session_ms = SESSION_MS // 4
        self.publish(count=6)
        self.leave_late()
        self.drain()
        self.clock.advance(500)
        self.commit_late()
        self.clock.advance(SESSION_MS // 4 + 1000)
        self.assertEqual(self.place()[0], 6)

    def test_after_the_first_look(self):
        """One that comes between the two looks is found by the second."""
        self.publish(count=6)
        self.leave_late()
        self.drain()
        self.clock.advance(LOOK_MS)
        self.commit_late()
        self.assertEqual(self.place()[0], 2)
        self.clock.advance(SESSION_MS)
        self.assertEqual(self.place()[0], 6)

    def test_a_node_that_stood_still_for_long(self):
        """Its commit arrives when it wakes, long after both looks; its joining again has the places looked at again."""
        self.publish(count=6)
        self.leave_late()
        self.drain()
        self.clock.advance(10 * LOOK_MS)
        waiting = self.poll(timeout=600_000)  # the group is in use
        self.a.wake()
        self.commit_late()
        self.assertEqual(self.place()[0], 2)
        self.clock.advance(LOOK_MS)
        self.assertEqual(self.place()[0], 6)
        waiting.addErrback(lambda failure: None).cancel()

    def test_it_stays_doubted_when_it_is_handed_on(self):
        """The next owner looks too, for groups that nobody used there as well."""
        self.publish(count=6)
        self.leave_late()
        self.drain()
        self.hand(self.b, self.add("c"))
        self.commit_late()
        self.assertEqual(self.place()[0], 2)
        self.clock.advance(LOOK_MS)
        self.assertEqual(self.place(), (6, self.subscriber.seated()[self.a.slot]))

    def test_handed_over_in_good_order(self):
        """Nobody's commit can be late then: nothing is read back."""
        self.publish(count=3)
        self.clock.advance(3 * LOOK_MS)
        self.a.subscriber.drop(self.a.slot)
        self.wait(self.a.membership.release(self.a.slot))
        self.publish()
        seat = self.a.subscriber._seats.sit(self.a.slot, self.wait(self.a.membership.claim(self.a.slot)))
        self.assertFalse(self.a.subscriber._readback.doubts(seat))
        self.drain()
        self.hand(self.a, self.b)
        self.drain()
        before = self.b.storage.calls["committed"]
        self.clock.advance(3 * LOOK_MS)
        self.add("c")
        self.clock.advance(3 * LOOK_MS)
        self.assertEqual(self.b.storage.calls["committed"], before)

    def test_a_hand_over_whose_commit_hangs(self):
        """That commit may be late: it is looked for."""
        self.publish(count=6)
        self.take(2)
        self.a.storage.held.add("commit")
        handed = self.a.subscriber.hand_over(self.a.slot)
        self.clock.advance(5000)
        self.wait(self.a.membership.release(self.a.slot))
        self.on(self.b).take(self.wait(handed))
        self.assertEqual(len(self.drain()), 4)
        self.clock.advance(500)
        self.commit_late()
        self.assertEqual(self.place()[0], 2)
        self.clock.advance(LOOK_MS)
        self.assertEqual(self.place()[0], 6)

    def test_it_can_only_repeat(self):
        """Where the new owner dies before it found it, the next one repeats what was done since, and skips nothing."""
        self.publish(count=6)
        self.leave_late()
        self.assertEqual(self.take(4), [("orders", 0, offset) for offset in range(4)])
        self.clock.advance(500)
        self.commit_late()
        self.crash()
        self.assertEqual(self.drain(), [("orders", 0, offset) for offset in range(2, 6)])

    def test_a_reset_meanwhile(self):
        """A commit of before the reset is none of today's: the group goes on where it was reset to, and after a crash from its first message."""
        self.publish(count=6)
        self.leave_late(5)
        self.wait(self.subscriber.reset("shop", "orders", None, {0: 1, 1: 0, 2: 0}, False, "test"))
        self.commit_late()
        self.assertEqual(self.wait(self.subscriber.group("shop")).items[0].committed, 1)
        self.assertEqual(self.take(1), [("orders", 0, 1)])
        self.crash_before_the_next_commit()
        self.assertEqual(self.drain(), [("orders", 0, offset) for offset in range(6)])

    def crash_before_the_next_commit(self):
        self.b.storage.held.add("commit")
        self.crash()

    def test_a_reset_meanwhile_is_restored(self):
        """The looks find it."""
        self.publish(count=6)
        self.leave_late(5)
        self.wait(self.subscriber.reset("shop", "orders", None, {0: 1, 1: 0, 2: 0}, False, "test"))
        self.commit_late()
        self.assertEqual(self.place()[0], 5)
        self.clock.advance(LOOK_MS)
        self.assertEqual(self.place()[0], 1)

    def test_a_group_that_began_meanwhile(self):
        """Where the former owner was about to let the group begin at the log's end: what was published since the new owner did is not skipped."""
        self.bind("shop", "orders", start="latest")
        self.publish(count=2)
        slot = slot_of("shop.g", SLOTS)
        self.a.storage.held.add("commit")
        polled = self.poll(group="shop.g", timeout=0)
        self.a.expire()
        self.on(self.b).take(slot=slot)
        self.assertEqual(self.take(group="shop.g"), [])
        self.publish(count=3)
        self.lease(3, group="shop.g", ack_timeout_ms=600_000)
        record = group_of(self.registry.snapshot(), "shop.g")
        self.wait(self.storage.beneath.commit("shop.g", self.late_begin()))
        self.commit_late()
        polled.addErrback(lambda failure: None)
        self.assertEqual(group_of(self.registry.snapshot(), "shop.g"), record)
        self.b.storage.held.add("commit")
        self.b.expire()
        self.on(self.add("c")).take(slot=slot)
        self.assertEqual([place for place in self.drain(group="shop.g") if place[2] >= 2], [("orders", 0, 2), ("orders", 0, 3), ("orders", 0, 4)])

    def late_begin(self):
        """What node ``a`` would commit if it looked at the log's end only now."""
        from psubd.services.places import commit_of, fresh

        record = group_of(self.registry.snapshot(), "shop.g").topics["orders"]
        epochs = {node: node.subscriber.seated()[slot_of("shop.g", SLOTS)] for node in (self.a, self.b)}
        self.assertEqual(record.reset, epochs[self.b])
        bounds = self.wait(self.storage.bounds("orders"))
        former = type(record)(record.uid, record.mark, epochs[self.a])
        from psubd.model import TopicPartition

        return {TopicPartition("orders", at): commit_of(former, 0, fresh(bound.end, bound, former.reset), 4096) for at, bound in bounds.items()}


class LookTests(LateCase):
    def test_a_storage_that_is_away(self):
        """It is tried again until the places were read."""
        self.publish(count=6)
        self.leave_late()
        self.drain()
        self.clock.advance(500)
        self.commit_late()
        self.b.storage.failing["committed"] = StorageUnavailable("away")
        self.clock.advance(3 * LOOK_MS)
        self.b.storage.failing.clear()
        self.clock.advance(AGAIN_MS)
        self.assertEqual(self.place()[0], 6)

    def test_a_lease_that_is_over(self):
        """Nothing is committed meanwhile; the look is made when the lease is back."""
        self.publish(count=6)
        self.leave_late()
        self.drain()
        self.clock.advance(500)
        self.commit_late()
        self.b.membership.end_lease()
        self.clock.advance(3 * LOOK_MS)
        self.assertEqual(self.place()[0], 2)
        self.b.membership.answered()
        self.clock.advance(AGAIN_MS)
        self.assertEqual(self.place()[0], 6)

    def test_groups_stay(self):
        """An idle group is not forgotten before its places were read back, and is afterwards."""
        self.limit = IDLE_MS + 2 * SWEEP_MS
        self.publish(count=6)
        self.leave_late()
        self.b.storage.failing["committed shop"] = StorageUnavailable("away")
        self.b.storage.failing.clear()
        self.drain()
        self.b.storage.held.add("committed")
        self.clock.advance(LOOK_MS)
        for _ in range(self.limit // 1000):
            self.clock.advance(1000)
        self.assertEqual(self.b.subscriber.loaded(), 1)
        self.b.storage.release("committed")
        for _ in range(self.limit // 1000):
            self.clock.advance(1000)
        self.assertEqual(self.b.subscriber.loaded(), 0)

    def test_own_places(self):
        """What the owner wrote itself is not written again."""
        self.publish(count=3)
        self.leave_late()
        self.drain()
        self.publish(count=1, partition=1)
        self.publish(count=1, partition=2)
        self.drain()
        self.clock.advance(500)
        kept = self.wait(self.storage.beneath.committed("shop"))
        self.assertEqual({decode(commit).epoch for commit in kept.values()}, {self.b.subscriber.seated()[self.b.slot]})
        before = self.b.storage.calls["commit"]
        self.clock.advance(3 * LOOK_MS)
        self.assertEqual(self.b.storage.calls["commit"], before)

    def test_places_that_did_not_move(self):
        """What the former owner wrote and still is so is not written again: of a group in use most partitions may be idle."""
        self.publish(count=3)
        self.leave_late()
        self.drain()
        self.clock.advance(500)
        before = self.b.storage.calls["commit"]
        self.clock.advance(3 * LOOK_MS)
        self.assertEqual(self.b.storage.calls["commit"], before)
        self.assertNotEqual(self.place(partition=1)[1], self.b.subscriber.seated()[self.b.slot])

    def test_dropped(self):
        """A slot that is lost is not looked at any more."""
        self.publish(count=3)
        self.leave_late()
        self.drain()
        self.clock.advance(500)
        before = dict(self.b.storage.calls)
        self.b.subscriber.drop(self.b.slot)
        self.clock.advance(3 * LOOK_MS)
        self.assertEqual(self.b.storage.calls, before)
