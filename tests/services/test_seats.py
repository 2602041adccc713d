"""Slots that are taken over, handed over, lost, and in doubt."""

from psubd.errors import Moved, NotFound, OwnershipInDoubt, StorageUnavailable
from psubd.interfaces import ISeats
from psubd.model import Backoff, StorageLimits
from psubd.services.group_records import group_of
from psubd.services.publisher import Publisher
from psubd.services.redrive import Redriver
from psubd.services.seats import CLOSE_MS, SETTLE_MS
from psubd.slots import slot_of
from psubd.testing.membership import SESSION_MS
from tests.services.house import SubscriberTestCase, offsets
from tests.services.several import SLOTS, NodesCase


class HandoverTests(NodesCase):
    def test_leases_go_on(self):
        """Nobody else gets a leased message at the new owner while the lease lasts; its token acks, extends and nacks there."""
        self.publish(count=5)
        held = self.lease(4)
        self.ack(held[1])
        self.hand(self.a, self.b)
        self.assertEqual(self.drain(), [("orders", 0, 4)])
        self.assertEqual(self.extend(held[0]), (1, []))
        self.assertEqual(self.nack(held[2]), (1, []))
        self.assertEqual([(each.message.offset, each.attempt) for each in self.lease(2)], [(2, 2)])
        self.assertEqual(self.ack(held[0], held[1], held[2], held[3]), (3, [held[2].token]))

    def test_time_goes_on(self):
        """A lease lasts at the new owner for what was left of it, whatever the wall clock says there."""
        self.publish(count=2)
        self.lease(1)
        self.lease(1, ack_timeout_ms=60_000)
        self.clock.advance(10_000)
        parcel = self.wait(self.a.subscriber.hand_over(self.a.slot))
        self.clock.epoch += 3_600_000
        self.wait(self.a.membership.release(self.a.slot))
        self.on(self.b).take(parcel)
        self.clock.advance(19_999)
        self.assertEqual(self.lease(2), [])
        self.clock.epoch -= 7_200_000
        self.clock.advance(1)
        self.assertEqual([(each.message.offset, each.attempt) for each in self.lease(2)], [(0, 2)])
        self.clock.advance(30_000)
        self.assertEqual(offsets(self.lease(2)), [0, 1])

    def test_delays_and_attempts_go_on(self):
        """So do delays, and what was tried; a third node gets what the second one never used."""
        self.bind("shop", "orders", backoff=Backoff(20_000, 20_000))
        self.publish()
        self.nack(*self.lease())
        self.hand(self.a, self.b)
        self.clock.advance(10_000)
        self.hand(self.b, self.add("c"))
        self.assertEqual(self.lease(), [])
        self.clock.advance(10_000)
        self.assertEqual([each.attempt for each in self.lease()], [2])

    def test_letters_go_on(self):
        """A message that was due for the dead-letter topic is stored there by the new owner, once."""
        self.create_topic("dead")
        self.bind("shop", "orders", max_attempts=3, dead_letter="dead")
        self.publish()
        self.a.storage.failing["publish"] = StorageUnavailable("away")
        self.nack(*self.lease(), dead=True)
        self.hand(self.a, self.b)
        self.a.storage.failing.clear()
        self.clock.advance(60_000)
        self.assertEqual(self.take(), [])
        self.assertEqual(len(self.wait(self.storage.read("dead", 0, 0, 10, 1 << 20)).messages), 1)

    def test_a_letter_that_is_being_stored(self):
        """It is waited for: the new owner stores no second one."""
        self.create_topic("dead")
        self.bind("shop", "orders", max_attempts=3, dead_letter="dead")
        self.publish()
        [held] = self.lease()
        self.a.storage.held.add("publish")
        nacked = self.subscriber.nack(self.grant(), [held.token], 0, True)
        handed = self.a.subscriber.hand_over(self.a.slot)
        self.assertNoResult(handed)
        self.a.storage.release("publish")
        self.wait(nacked)
        self.wait(self.a.membership.release(self.a.slot))
        self.on(self.b).take(self.wait(handed))
        self.assertEqual(self.take(), [])
        self.assertEqual(len(self.wait(self.storage.read("dead", 0, 0, 10, 1 << 20)).messages), 1)

    def test_what_is_done_is_committed(self):
        """Before the parcel is given; the new owner begins there though it got no parcel."""
        self.publish(count=3)
        self.take(2)
        self.wait(self.a.subscriber.hand_over(self.a.slot))
        self.assertEqual(self.place()[0], 2)
        self.wait(self.a.membership.release(self.a.slot))
        self.on(self.b).take()
        self.assertEqual(self.drain(), [("orders", 0, 2)])

    def test_answers_that_are_being_written(self):
        """Auto answers have a moment to be settled; the others come again at the new owner, no attempt counted, and stand no more."""
        self.publish(count=3)
        settled, slow = self.wait(self.poll()), self.wait(self.poll())
        handed = self.a.subscriber.hand_over(self.a.slot)
        self.assertTrue(settled.stands() and slow.stands())
        self.clock.advance(SETTLE_MS - 1)
        settled.settle(1)
        self.assertNoResult(handed)
        self.clock.advance(1)
        parcel = self.wait(handed)
        self.assertFalse(slow.stands())
        slow.settle(1)
        self.assertEqual(self.place()[0], 1)
        self.wait(self.a.membership.release(self.a.slot))
        self.on(self.b).take(parcel)
        self.assertEqual([(each.message.offset, each.attempt) for each in self.lease(3)], [(1, 1), (2, 1)])

    def test_nothing_to_wait_for(self):
        """With all answers settled the parcel is there at once."""
        self.publish()
        self.take()
        self.wait(self.a.subscriber.hand_over(self.a.slot))

    def test_an_explicit_answer_that_is_being_written(self):
        """Its leases go on at the new owner, so it may be written on for as long as they surely last."""
        self.publish()
        slow = self.wait(self.poll(ack="explicit", ack_timeout_ms=10_000))
        handed = self.a.subscriber.hand_over(self.a.slot)
        self.clock.advance(SETTLE_MS)
        self.wait(self.a.membership.release(self.a.slot))
        self.on(self.b).take(self.wait(handed))
        self.assertTrue(slow.stands())
        self.clock.advance(10_000 - SETTLE_MS - 1)
        self.assertTrue(slow.stands())
        self.assertEqual(self.lease(), [])
        self.clock.advance(2)
        self.assertFalse(slow.stands())
        slow.settle(1)
        self.clock.advance(1)  # the alarm's own grain
        self.assertEqual(offsets(self.lease()), [0])

    def test_who_comes_meanwhile(self):
        """Polls that wait, and all that comes for the slot from the call on, is told that it moved; nothing is granted, other slots go on."""
        self.publish()
        out, waiting = self.wait(self.poll(ack="explicit")), self.poll(batch=9)
        handed = self.a.subscriber.hand_over(self.a.slot)
        for told in (
            waiting,
            self.poll(),
            self.subscriber.ack(self.grant(), [out.messages[0].token]),
            self.subscriber.reset("shop", "orders", None, "latest", False, "test"),
            self.subscriber.forget_group("shop", "test"),
        ):
            self.failureResultOf(told, Moved)
        self.assertNotIn(self.a.slot, self.a.subscriber.seated())
        self.assertEqual(len(self.a.subscriber.seated()), SLOTS - 1)
        self.publish()
        out.settle(1)
        self.wait(handed)
        self.assertEqual(self.a.subscriber.loaded(), 0)

    def test_a_reset_under_way(self):
        """It is finished first: the new owner begins where it went."""
        self.publish(count=4)
        self.take(1)
        self.a.storage.held.add("adopt")
        reset = self.subscriber.reset("shop", "orders", [0], {0: 3}, False, "test")
        handed = self.a.subscriber.hand_over(self.a.slot)
        self.assertNoResult(handed)
        self.a.storage.release("adopt")
        self.assertEqual(self.wait(reset), {0: 3})
        self.wait(self.a.membership.release(self.a.slot))
        self.on(self.b).take(self.wait(handed))
        self.assertEqual(self.drain(), [("orders", 0, 3)])

    def test_a_storage_that_hangs(self):
        """The last commit is not waited for longer than a moment: the parcel says what is done, so that it does not come again."""
        self.publish(count=3)
        self.take(2)
        self.a.storage.held.add("commit")
        handed = self.a.subscriber.hand_over(self.a.slot)
        self.clock.advance(CLOSE_MS)
        self.wait(self.a.membership.release(self.a.slot))
        self.on(self.b).take(self.wait(handed))
        self.assertEqual(self.drain(), [("orders", 0, 2)])

    def test_the_lease_ends_meanwhile(self):
        """Whoever can no longer tell whether others acted has nothing to hand over."""
        self.publish()
        self.lease()
        self.a.membership.end_lease()
        self.assertEqual(self.wait(self.a.subscriber.hand_over(self.a.slot)), b"")

    def test_dropped_meanwhile(self):
        """A claim that is lost while the slot is handed over: nothing is handed over, nothing committed."""
        self.publish()
        self.wait(self.poll())
        handed = self.a.subscriber.hand_over(self.a.slot)
        self.wait(self.a.membership.release(self.a.slot))
        self.a.subscriber.drop(self.a.slot)
        self.clock.advance(SETTLE_MS + CLOSE_MS)
        self.assertEqual(self.wait(handed), b"")
        self.assertEqual(self.place()[0], 0)

    def test_a_slot_that_is_not_served(self):
        self.assertEqual(self.wait(self.b.subscriber.hand_over(2)), b"")

    def test_a_parcel_that_cannot_be_read(self):
        """Is as none: the storage's places count."""
        self.publish(count=2)
        self.take(1)
        self.lease()
        parcel = self.wait(self.a.subscriber.hand_over(self.a.slot))
        self.wait(self.a.membership.release(self.a.slot))
        self.on(self.b).take(parcel[:-1])
        self.assertEqual(self.drain(), [("orders", 0, 1)])

    def test_a_group_that_was_deleted_and_began_again(self):
        """The leases that were handed over are not those of the new group."""
        self.publish(count=2)
        [held] = self.lease()
        self.hand(self.a, self.b)
        self.wait(self.subscriber.forget_group("shop", "test"))
        self.assertEqual(self.drain(), [("orders", 0, 0), ("orders", 0, 1)])
        self.assertEqual(self.extend(held), (0, [held.token]))

    def test_serials(self):
        """Leases say under which claim they were granted; no two have the same serial, whatever is handed back and forth."""
        self.publish(count=6)
        held, epochs = [], []
        for former, node in ((self.a, self.b), (self.b, self.a), (self.a, self.b)):
            held += self.lease(2)
            epochs.append(former.subscriber.seated()[former.slot])
            self.hand(former, node)
        self.assertEqual([each.epoch for each in held], [epoch for epoch in epochs for _ in range(2)])
        self.assertEqual(len({each.token for each in held}), 6)
        self.assertEqual(self.ack(*held), (6, []))
        self.clock.advance(500)
        self.assertEqual(self.place(), (6, self.b.subscriber.seated()[self.b.slot]))


class DropTests(NodesCase):
    def test_it_ends_at_once(self):
        """Polls are sent on, answers that are being written stand no more, and nothing is committed."""
        self.publish(count=3)
        self.take(1)
        out, waiting = self.wait(self.poll()), self.poll(topics=("orders",), batch=5, group="shop.g")
        waiting.addErrback(lambda failure: None)
        explicit = self.wait(self.poll(ack="explicit"))
        self.assertTrue(out.stands() and explicit.stands())
        polled = self.poll()
        self.a.subscriber.drop(self.a.slot)
        self.failureResultOf(polled, Moved)
        self.assertFalse(out.stands() or explicit.stands())
        out.settle(1)
        explicit.settle(1)
        self.clock.advance(60_000)
        self.assertEqual(self.place()[0], 0)
        self.failureResultOf(self.poll(), Moved)

    def test_again(self):
        """The slot may be had back, with another epoch: the group begins from what is committed."""
        self.publish(count=2)
        self.take(1)
        self.clock.advance(500)
        self.take(1)
        self.a.subscriber.drop(self.a.slot)
        self.wait(self.a.membership.release(self.a.slot))
        self.a.take()
        self.assertEqual(self.drain(), [("orders", 0, 1)])

    def test_taken_over_again(self):
        """With the same epoch nothing happens; with another one the former tenure has ended."""
        self.publish()
        out = self.wait(self.poll())
        epoch = self.a.subscriber.seated()[self.a.slot]
        self.a.subscriber.take_over(self.a.slot, epoch, None)
        self.assertTrue(out.stands())
        self.wait(self.a.membership.release(self.a.slot))
        self.assertGreater(self.a.take(), epoch)
        self.assertFalse(out.stands())
        out.settle(1)
        self.assertEqual(self.drain(), [("orders", 0, 0)])

    def test_not_served(self):
        self.b.subscriber.drop(1)
        self.assertEqual(self.b.subscriber.seated(), {})

    def test_a_commit_that_waits(self):
        """What was done and not yet committed is not committed afterwards, whoever asks for it."""
        self.publish()
        self.take(1)
        self.a.subscriber.drop(self.a.slot)
        self.wait(self.a.subscriber.stop())
        self.assertEqual(self.place()[0], 0)


class DoubtTests(NodesCase):
    """The node's lease is over, its claim may stand."""

    def test_nothing_is_done(self):
        """No message goes out, no ack takes effect, nothing is committed; who asks is told that it is not known, not that there is nothing."""
        self.publish(count=3)
        [held] = self.lease()
        self.take(1)
        out, before = self.wait(self.poll()), self.a.storage.calls.get("commit", 0)
        self.a.membership.end_lease()
        self.assertFalse(out.stands())
        for told in (
            self.poll(timeout=0),
            self.subscriber.ack(self.grant(), [held.token]),
            self.subscriber.nack(self.grant(), [held.token], 0, False),
        ):
            refused = self.failureResultOf(told, OwnershipInDoubt).value
            self.assertEqual((type(refused), refused.status, refused.headers), (OwnershipInDoubt, 503, {"retry-after": "1"}))
        self.failureResultOf(self.subscriber.reset("shop", "orders", None, "latest", False, "test"), OwnershipInDoubt)
        self.failureResultOf(self.subscriber.forget_group("shop", "test"), OwnershipInDoubt)
        self.clock.advance(5000)
        self.assertEqual(self.a.storage.calls.get("commit", 0), before)

    def test_it_comes_back(self):
        """With the same claim all goes on: the same leases by the same tokens, what was done is committed, who waits gets messages."""
        self.publish(count=4)
        held = self.lease(2)
        out = self.wait(self.poll())
        self.a.membership.end_lease()
        self.assertFalse(out.stands())
        out.settle(0)
        self.clock.advance(2000)
        self.a.membership.answered()
        self.assertEqual([(each.message.offset, each.attempt) for each in self.lease(2)], [(2, 1), (3, 1)])
        self.assertEqual(self.ack(*held), (2, []))
        self.clock.advance(500)
        self.assertEqual(self.place()[0], 2)

    def test_polls_that_wait(self):
        """They are told when the lease ends, though nobody asks."""
        polled = self.poll()
        self.a.membership.silence()
        self.assertNoResult(polled)
        self.clock.advance(SESSION_MS)
        self.assertIs(self.failureResultOf(polled).type, OwnershipInDoubt)

    def test_no_empty_answer(self):
        """A poll whose time is over just then, before anybody noticed the end of the lease, is not told that there is nothing."""
        polled = self.poll(timeout=5000)
        self.a.membership._stop_timer()
        self.a.membership._lease_ends = self.clock.elapsed_ms() + 4000  # it ends in silence, as while the process stands still
        self.clock.advance(5000)
        self.failureResultOf(polled, OwnershipInDoubt)

    def test_messages_that_come(self):
        """A message that is published then goes to nobody until the lease is back."""
        polled = self.poll()
        self.a.membership._lease_ends = self.clock.elapsed_ms()
        self.publish()
        self.clock.advance(1000)
        self.assertNoResult(polled)
        self.a.membership._tell()
        self.failureResultOf(polled, OwnershipInDoubt)
        self.a.membership.answered()
        self.assertEqual(self.take(1), [("orders", 0, 0)])

    def test_acks_while_a_group_is_loaded(self):
        """The lease is looked at when the ack takes effect, not when it came."""
        self.publish()
        [held] = self.lease()
        self.b.storage.held.add("committed")
        self.hand(self.a, self.b)
        acked = self.subscriber.ack(self.grant(), [held.token])
        self.b.membership._lease_ends = self.clock.elapsed_ms()
        self.b.storage.release("committed")
        self.failureResultOf(acked, OwnershipInDoubt)
        self.b.membership.answered()
        self.assertEqual(self.ack(held), (1, []))

    def test_acks_of_two_groups(self):
        """Of which one had to be loaded meanwhile: the other one's does not take effect either."""
        self.publish()
        [held] = self.lease()
        [named] = self.lease(group="shop.g")
        self.hand(self.a, self.b, slot_of("shop.g", SLOTS))
        if slot_of("shop.g", SLOTS) != self.a.slot:
            self.hand(self.a, self.b)
        self.assertEqual(self.extend(held), (1, []))
        self.b.subscriber._live["shop.g"].end()
        self.b.storage.held.add("committed")
        acked = self.subscriber.ack(self.grant(), [held.token, named.token])
        self.b.membership._lease_ends = self.clock.elapsed_ms()
        self.b.storage.release("committed")
        self.failureResultOf(acked, OwnershipInDoubt)
        self.assertEqual(self.b.subscriber._live["shop"].topics["orders"].leased(), 1)

    def test_a_reset_under_way(self):
        """Nothing is registered once the lease has ended."""
        self.publish()
        self.take()
        self.clock.advance(500)
        before = group_of(self.registry.snapshot(), "shop")
        for name in ("shop", "shop.g"):
            self.a.storage.held.add("describe")
            reset = self.subscriber.reset(name, "orders", None, "earliest", False, "test")
            self.a.membership.end_lease()
            self.a.storage.release("describe")
            self.failureResultOf(reset, OwnershipInDoubt)
            self.a.membership.answered()
        self.assertEqual(group_of(self.registry.snapshot(), "shop"), before)
        self.assertIsNone(group_of(self.registry.snapshot(), "shop.g"))

    def test_deleting_a_group(self):
        """Its places stay where the lease ends before they are forgotten: another node may have begun it again."""
        self.take()
        ended = self.registry.listen(lambda change: self.a.membership.end_lease() if change.what.startswith("group.deleted") else None)
        self.wait(self.subscriber.forget_group("shop", "test"))
        ended()
        self.assertIsNone(group_of(self.registry.snapshot(), "shop"))
        self.assertEqual(self.a.storage.calls.get("forget", 0), 0)

    def test_letters(self):
        """None is stored; they are when the lease is back."""
        self.create_topic("dead")
        self.bind("shop", "orders", max_attempts=1, dead_letter="dead")
        self.publish()
        self.lease(ack_timeout_ms=1000)
        self.a.membership.end_lease()
        self.clock.advance(10_000)
        self.assertEqual(self.wait(self.storage.bounds("dead"))[0].end, 0)
        self.a.membership.answered()
        self.clock.advance(1000)
        self.assertEqual(self.wait(self.storage.bounds("dead"))[0].end, 1)
        self.clock.advance(500)
        self.assertEqual(self.place()[0], 1)

    def test_a_letter_that_was_read(self):
        """The lease is looked at again right before a letter is stored."""
        self.create_topic("dead")
        self.bind("shop", "orders", max_attempts=1, dead_letter="dead")
        self.publish()
        self.lease(ack_timeout_ms=1000)
        self.a.storage.held.add("read")
        self.clock.advance(1000)
        self.a.membership.end_lease()
        self.a.storage.release("read")
        self.clock.advance(5000)
        self.assertEqual(self.wait(self.storage.bounds("dead"))[0].end, 0)

    def test_a_reset_that_was_registered(self):
        """The lease ends for good between registry and storage: the record is taken back, so that no place is lost but what was to be moved."""
        self.publish(count=3)
        self.publish(partition=1, count=3)
        self.drain()
        self.clock.advance(500)
        before = group_of(self.registry.snapshot(), "shop").topics["orders"]
        listening = self.registry.listen(lambda change: self.a.subscriber.drop(self.a.slot) if change.what.startswith("group.reset ") else None)
        self.failureResultOf(self.subscriber.reset("shop", "orders", [0], "earliest", False, "test"), OwnershipInDoubt)
        listening()
        self.assertEqual(group_of(self.registry.snapshot(), "shop").topics["orders"], before)
        self.wait(self.a.membership.release(self.a.slot))
        self.on(self.b).take()
        self.assertEqual(self.drain(), [])

    def test_a_group_that_begins(self):
        """Is neither placed nor registered by a node that lost its lease while it looked at the topic."""
        self.a.storage.held.add("describe")
        polled = self.poll(group="shop.g")
        polled.addErrback(lambda failure: None)
        for slot in range(SLOTS):
            self.a.subscriber.drop(slot)
        self.a.storage.release("describe")
        self.clock.advance(5000)
        self.assertIsNone(group_of(self.registry.snapshot(), "shop.g"))
        self.assertEqual(self.wait(self.storage.beneath.committed("shop.g")), {})


class ElsewhereTests(NodesCase):
    def test_groups_of_others(self):
        """A node does nothing for groups that it does not serve, and says so."""
        self.publish()
        [held] = self.lease()
        self.on(self.b)
        for told in (
            self.poll(),
            self.subscriber.ack(self.grant(), [held.token]),
            self.subscriber.reset("shop", "orders", None, "latest", True, "test"),
            self.subscriber.forget_group("shop", "test"),
        ):
            self.failureResultOf(told, Moved)
        self.assertEqual(self.b.subscriber.loaded(), 0)

    def test_what_does_not_need_the_group(self):
        """Replays and views go on anywhere."""
        self.publish()
        self.take()
        self.clock.advance(500)
        self.on(self.b)
        self.assertEqual(len(self.wait(self.replay(batch=10)).messages), 1)
        self.assertEqual([item.lag for item in self.wait(self.subscriber.group("shop")).items], [0, 0, 0])
        self.failureResultOf(self.subscriber.group("shop.x"), NotFound)


class RedriveTests(NodesCase):
    def setUp(self):
        super().setUp()
        self.create_topic("dead")
        self.bind("shop", "orders", max_attempts=3, dead_letter="dead")
        self.publish(count=2)
        self.nack(*self.lease(2), dead=True)
        self.clock.advance(500)

    def redrive(self, node):
        publisher = Publisher(node.storage, self.clock)
        redriver = Redriver(node.storage, self.registry, self.gate, publisher, self.clock, tenure_of=node.subscriber.tenure_of)
        return redriver.redrive("shop", "dead", 10, "test")

    def moved(self):
        """How many letters are at their origin again, and whether the registry has noted it."""
        noted = self.registry.snapshot().get("/redrives/shop")
        return self.wait(self.storage.bounds("orders"))[0].end - 2, noted is not None

    def test_by_its_node_only(self):
        self.failureResultOf(self.redrive(self.b), Moved)
        self.assertEqual(self.moved(), (0, False))
        self.assertEqual(self.wait(self.redrive(self.a)).moved, 2)
        self.assertEqual(self.moved(), (2, True))

    def test_the_lease_ends(self):
        """Before a letter is published: none is."""
        self.a.storage.held.add("read")
        redriven = self.redrive(self.a)
        self.a.membership.end_lease()
        self.a.storage.release("read")
        self.failureResultOf(redriven, OwnershipInDoubt)
        self.assertEqual(self.moved(), (0, False))

    def test_the_lease_ends_later(self):
        """Before the registry notes what was published: as after a crash there, it is moved again, and none is lost."""
        self.a.storage.held.add("publish")
        redriven = self.redrive(self.a)
        self.a.membership.end_lease()
        self.a.storage.release("publish")
        self.failureResultOf(redriven, OwnershipInDoubt)
        self.assertEqual(self.moved(), (2, False))
        self.a.membership.answered()
        self.assertEqual(self.wait(self.redrive(self.a)).moved, 2)


class RenewalTests(NodesCase):
    limits = StorageLimits(places_expire=True)

    def test_each_renews_its_own(self):
        """A node's daily round commits the groups that it serves, while its lease stands."""
        names = ["shop", *(f"shop.g{number}" for number in range(6))]
        for name in names[1:]:
            self.wait(self.subscriber.reset(name, "orders", None, "latest", False, "test"))
        slots = sorted({slot_of(name, SLOTS) for name in names})
        self.assertGreater(len(slots), 2)
        self.hand(self.a, self.b, slots[0])
        self.a.membership.end_lease()
        for node in self.nodes:
            self.assertEqual(node.storage.calls.get("commit", 0) > 0, node is self.a)
        before = self.a.storage.calls["commit"]
        for _ in range(100):
            self.clock.advance(1000)
        renewed = self.b.metrics.get_sample_value("psubd_groups_renewed_total")
        self.assertEqual(renewed, len([name for name in names if slot_of(name, SLOTS) == slots[0]]))
        self.assertEqual(self.a.storage.calls["commit"], before)


class AloneTests(SubscriberTestCase):
    def test_seated(self):
        """A single node serves its one slot from the start on, under the epoch of its start."""
        self.assertTrue(ISeats.providedBy(self.subscriber))
        self.assertEqual(self.subscriber.seated(), {0: self.registry.epoch})
        self.publish()
        self.assertTrue(self.wait(self.poll()).stands())
        self.assertEqual(self.subscriber.loaded(), 1)
