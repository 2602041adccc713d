"""Explicit leases: acked, lapsed, given back early, extended, lost."""

from psubd.errors import BadCredentials, InUse, OverBudget, OwnershipInDoubt, StorageUnavailable
from psubd.model import Backoff, Rate
from psubd.services.workshop import EPOCH_BITS
from tests.services.house import SubscriberTestCase, offsets, places


class AckTests(SubscriberTestCase):
    def test_acked(self):
        """An acked message is done: it is in the storage within the commit interval, and comes no more."""
        self.publish(count=3)
        held = self.lease(3)
        self.assertEqual(self.ack(held[0], held[2]), (2, []))
        self.clock.advance(500)
        self.assertEqual(self.committed()["orders", 0], 1)
        self.crash()
        self.assertEqual(self.drain(), [("orders", 0, 1)])

    def test_nothing_but_acks(self):
        """What is handed over and not acked stays leased: nobody else gets it, and it is not committed."""
        self.publish(count=2)
        self.lease(2)
        self.assertEqual(self.take(), [])
        self.clock.advance(29_000)
        self.assertEqual(self.take(), [])
        self.assertEqual(self.committed()["orders", 0], 0)

    def test_repeated(self):
        """An ack that is repeated is safe, also after a crash, and where its message is done in another way."""
        self.publish(count=2)
        held = self.lease(2)
        self.assertEqual(self.ack(*held, held[0]), (3, []))
        self.clock.advance(500)
        self.crash()
        self.assertEqual(self.ack(*held), (2, []))
        self.assertEqual(self.drain(), [])

    def test_serials(self):
        """A message says the epoch of the node that leased it; no two leases share a serial, also after a crash."""
        self.publish(count=2)
        [one] = self.lease()
        self.crash()
        [other] = self.lease()
        self.assertEqual(other.epoch, one.epoch + 1)
        serials = [self.subscriber._shop.tokens.read(held.token).serial for held in (one, other)]
        self.assertEqual([serial >> EPOCH_BITS for serial in serials], [one.epoch, other.epoch])

    def test_not_wholly_handed_over(self):
        """Messages that were handed over keep their leases, the others come back at once, at the same attempt."""
        self.publish(count=4)
        delivery = self.wait(self.poll(batch=4, ack="explicit"))
        delivery.settle(2)
        again = self.lease(4)
        self.assertEqual(offsets(again), [2, 3])
        self.assertEqual({each.attempt for each in again}, {1})
        self.assertEqual(self.ack(*delivery.messages), (2, [each.token for each in delivery.messages[2:]]))

    def test_both_modes_in_one_answer(self):
        """One answer may hold messages of both: those in auto mode are done if all of it was handed over, the others keep their leases."""
        self.create_topic("news")
        self.bind("shop", "news", ack="explicit")
        self.take()
        self.publish(count=2)
        self.publish("news", count=2)
        delivery = self.wait(self.poll(batch=4))
        self.assertEqual(sorted((each.topic, each.token is None) for each in delivery.messages), [("news", False)] * 2 + [("orders", True)] * 2)
        delivery.settle(3)
        back = {(each.topic, each.message.offset) for each in self.wait(self.poll(batch=4)).messages}
        self.assertLessEqual({("orders", 0), ("orders", 1)}, back)
        self.assertEqual(len(back), 2 + sum(each.topic == "news" for each in delivery.messages[3:]))

    def test_in_flight(self):
        """max_in_flight bounds what is leased; an ack lets the next go, to a poll that waits."""
        self.bind("shop", "orders", max_in_flight=2)
        self.publish(count=3)
        held = self.lease(3)
        self.assertEqual(len(held), 2)
        waiting = self.poll()
        self.ack(held[1])
        self.assertEqual(self.got(waiting), [("orders", 0, 2)])

    def test_payloads_are_read_again(self):
        """What was leased is not kept in memory: what comes back is read again, many messages at a time."""
        self.publish(count=400, size=4000)
        held = self.lease(400)
        self.assertLess(self.subscriber._windows.held, 1 << 20)
        reads = self.storage.calls["read"]
        self.nack(*held)
        again = self.lease(400)
        self.assertEqual(offsets(again), list(range(400)))
        self.assertLess(self.storage.calls["read"] - reads, 20)
        self.assertEqual({each.message.value for each in again}, {b"v" * 4000})

    def test_many_at_once(self):
        """Ten thousand in one call."""
        self.publish(count=10_000)
        held = self.lease(10_000)
        self.assertEqual(self.ack(*held), (10_000, []))
        self.clock.advance(500)
        self.assertEqual(self.committed()["orders", 0], 10_000)

    def test_counted(self):
        """Leases that are out, acked, lapsed, nacked, extended and delayed messages show in the metrics."""
        self.bind("shop", "orders", backoff=Backoff(60_000, 60_000))
        self.publish(count=5)
        held = self.lease(4)
        self.assertEqual(self.metric("psubd_leases_out"), 4)
        self.ack(held[0])
        self.nack(held[1])
        self.extend(held[2])
        self.clock.advance(30_000)
        names = ("psubd_acked_total", "psubd_nacked_total", "psubd_extended_total", "psubd_lapsed_total", "psubd_messages_delayed")
        self.assertEqual([self.metric(name) for name in names], [1, 1, 1, 2, 3])
        self.assertEqual(self.metric("psubd_leases_out"), 0)


class LapseTests(SubscriberTestCase):
    def test_lapses(self):
        """A lease lapses after the ask's ackTimeout, else the binding's, not before; its message goes to a poll that waits, at the next attempt."""
        self.bind("shop", "orders", ack_timeout_ms=7000)
        self.publish(count=1)
        for settings, ms in (({}, 7000), ({"ack_timeout_ms": 2000}, 2000)):
            [held] = self.lease(**settings)
            waiting = self.poll(ack="explicit", ack_timeout_ms=1000)
            self.clock.advance(ms - 1)
            self.assertNoResult(waiting)
            self.clock.advance(1)
            [again] = self.wait(waiting).messages
            self.assertEqual((again.message.offset, again.attempt), (held.message.offset, held.attempt + 1))
            self.clock.advance(1000)

    def test_counts_from_the_answer(self):
        """In explicit mode the lease's time runs from the answer, also while that is written."""
        self.publish()
        delivery = self.wait(self.poll(ack="explicit", ack_timeout_ms=1000))
        self.clock.advance(1000)
        self.assertEqual(self.take(), [("orders", 0, 0)])
        delivery.settle(1)
        self.assertEqual(self.take(), [])

    def test_given_back_after_it_lapsed(self):
        """What was not handed over, and lapsed meanwhile, comes back once."""
        self.publish()
        delivery = self.wait(self.poll(ack="explicit", ack_timeout_ms=1000))
        self.clock.advance(1000)
        [again] = self.lease()
        delivery.settle(0)
        self.assertEqual(self.take(), [])
        self.assertEqual(self.ack(again), (1, []))

    def test_late_ack(self):
        """A lease that lapsed still acks its message while nobody else was given it, and not afterwards; it nacks and extends nothing."""
        self.publish(count=2)
        held = self.lease(2)
        self.clock.advance(30_000)
        lost = [each.token for each in held]
        self.assertEqual(self.nack(*held), (0, lost))
        self.assertEqual(self.extend(*held), (0, lost))
        self.assertEqual(self.ack(held[1]), (1, []))
        [again] = self.lease(2)
        self.assertEqual(again.message.offset, 0)
        self.assertEqual(self.ack(*held), (1, [held[0].token]))
        self.assertEqual(self.ack(again), (1, []))
        self.assertEqual(self.drain(), [])

    def test_stopped_process(self):
        """Of a process that stood still the leases lapse late, never early: who comes first after it, an ack or a poll, has the message."""
        self.publish(count=2)
        one, other = self.lease(2)
        self.clock.reactor.rightNow += 3600  # no timer ran
        self.assertEqual(self.ack(one), (1, []))
        self.assertEqual(self.nack(other), (0, [other.token]))
        [again] = self.lease(2)
        self.assertEqual((again.message.offset, again.attempt), (1, 2))
        self.assertEqual(self.ack(other), (0, [other.token]))
        self.clock.advance(0)
        self.assertEqual(self.ack(again), (1, []))

    def test_not_forgotten(self):
        """A group with leases out stays in memory as long as they last, whoever polls; then it goes."""
        self.publish()
        [held] = self.lease(ack_timeout_ms=3_600_000)
        for _ in range(20):
            self.clock.advance(60_000)
        self.assertEqual(self.metric("psubd_groups_loaded"), 1)
        self.assertEqual(self.take(), [])
        self.assertEqual(self.ack(held), (1, []))
        self.clock.advance(90_000)
        self.assertEqual(self.metric("psubd_groups_loaded"), 0)

    def test_attempts_outlive_a_crash(self):
        """From the second delivery on they are in the storage."""
        self.publish()
        for _ in range(3):
            [held] = self.lease()
            self.nack(held)
        self.clock.advance(500)
        self.crash()
        self.assertEqual(self.lease()[0].attempt, 4)

    def test_attempts_that_did_not_count(self):
        """A commit that counted a delivery which was not handed over is set right: a crash never sets attempts forward."""
        self.publish()
        for _ in range(2):
            self.nack(*self.lease())
        delivery = self.wait(self.poll(timeout=0, ack="explicit"))
        self.clock.advance(500)
        delivery.settle(0)
        self.clock.advance(500)
        self.crash()
        self.assertEqual(self.lease()[0].attempt, 3)


class NackTests(SubscriberTestCase):
    def test_at_once(self):
        """What is given back comes at once, before newer ones, at the next attempt, to a poll that waits."""
        self.publish(count=3)
        held = self.lease(2)
        self.assertEqual(self.nack(held[1]), (1, []))
        self.assertEqual([(each.message.offset, each.attempt) for each in self.lease(2)], [(1, 2), (2, 1)])
        waiting = self.poll()
        self.nack(held[0])
        self.assertEqual(self.got(waiting), [("orders", 0, 0)])

    def test_repeated(self):
        """Repeated before the message was leased again it is safe; afterwards it is lost."""
        self.publish()
        [held] = self.lease()
        self.assertEqual(self.nack(held, held), (2, []))
        self.lease()
        self.assertEqual(self.nack(held), (0, [held.token]))

    def test_delay(self):
        """With a delay it comes after that, not before, unless it is acked meanwhile."""
        self.publish(count=2)
        held = self.lease(2)
        self.nack(*held, delay=10_000)
        self.ack(held[1])
        waiting = self.poll(batch=2)
        self.clock.advance(9999)
        self.assertNoResult(waiting)
        self.clock.advance(1)
        self.assertEqual(self.got(waiting), [("orders", 0, 0)])

    def test_backoff(self):
        """The binding's backoff doubles with the attempts up to its bound; a longer delay counts instead."""
        self.bind("shop", "orders", backoff=Backoff(1000, 3000))
        self.publish()
        for wait, delay in ((1000, 0), (2000, 0), (3000, 0), (3000, 10), (9000, 9000)):
            [held] = self.lease()
            self.nack(held, delay=delay)
            self.clock.advance(wait - 1)
            self.assertEqual(self.lease(), [])
            self.clock.advance(1)

    def test_extend(self):
        """An extended lease lasts so long from now on, longer or shorter."""
        self.publish(count=2)
        held = self.lease(2)
        self.clock.advance(20_000)
        self.assertEqual(self.extend(held[0], timeout=60_000), (1, []))
        self.assertEqual(self.extend(held[1], timeout=1000), (1, []))
        self.clock.advance(1000)
        self.assertEqual(offsets(self.lease(2, ack_timeout_ms=1000)), [1])
        self.clock.advance(58_999)
        self.assertEqual(self.extend(held[0]), (1, []))
        self.clock.advance(30_000)
        self.assertEqual(offsets(self.lease(2)), [0, 1])


class LostTests(SubscriberTestCase):
    def test_each_alone(self):
        """Each token is judged alone; the lost ones are told as they were sent, in their order."""
        self.publish(count=4)
        held = self.lease(4)
        self.clock.advance(30_000)
        self.lease(2)
        forged = held[2].token[:-2] + ("AA" if held[2].token[-2:] != "AA" else "BB")
        shown = [forged, held[3].token, "", held[1].token, "x" * 200, held[2].token, held[0].token]
        self.assertEqual(self.ack(*shown), (2, [forged, "", held[1].token, "x" * 200, held[0].token]))

    def test_anothers(self):
        """Another application's tokens are lost, whatever they stand for."""
        self.bind("owner", "orders")
        self.publish()
        [held] = self.lease()
        for call in (self.ack, self.nack, self.extend):
            self.assertEqual(call(held, application="owner"), (0, [held.token]))
        self.assertEqual(self.ack(held), (1, []))

    def test_many_groups(self):
        """One call may settle leases of several groups and topics."""
        self.create_topic("news")
        self.bind("shop", "news")
        self.publish()
        self.publish("news")
        held = [*self.lease(2), *self.lease(2, group="shop.g")]
        self.assertEqual(self.ack(*held), (4, []))
        self.clock.advance(500)
        self.assertEqual(self.committed()["news", 0] + self.committed("shop.g")["orders", 0], 2)

    def test_revoked(self):
        """With the binding its leases go; bound again they stay lost."""
        self.publish(count=2)
        [held] = self.lease()
        self.unbind("shop", "orders")
        self.assertEqual(self.ack(held), (0, [held.token]))
        self.bind("shop", "orders")
        self.assertEqual(self.ack(held), (0, [held.token]))
        self.assertEqual(len(self.drain()), 2)

    def test_group_made_again(self):
        """So with the group."""
        self.publish()
        [held] = self.lease(group="shop.g")
        self.wait(self.subscriber.forget_group("shop.g", "test"))
        self.assertEqual(self.ack(held), (0, [held.token]))
        self.lease(group="shop.g")
        self.assertEqual(self.ack(held), (0, [held.token]))

    def test_reset(self):
        """What is out of a partition that is moved is lost, in memory and after a crash; what is out of the others is not. Nothing before the new
        position comes afterwards, and nothing behind it is skipped."""
        self.publish(count=5)
        self.publish(partition=1, count=2)
        held = {(each.partition, each.message.offset): each for each in self.lease(7)}
        self.ack(held[0, 4], held[1, 1])
        self.wait(self.subscriber.reset("shop", "orders", [0], {0: 3}, False, "test"))
        self.assertEqual(self.ack(held[0, 0], held[0, 3]), (0, [held[0, 0].token, held[0, 3].token]))
        self.crash()
        self.assertEqual(self.nack(held[0, 3]), (0, [held[0, 3].token]))
        self.assertEqual(self.ack(held[0, 2], held[1, 0]), (1, [held[0, 2].token]))
        self.assertEqual(self.drain(), [("orders", 0, 3), ("orders", 0, 4)])

    def test_while_a_reset_runs(self):
        """They are lost as soon as the registry has it."""
        self.publish(count=2)
        held = self.lease(2)
        self.storage.held.add("commit")
        reset = self.subscriber.reset("shop", "orders", None, "earliest", False, "test")
        self.assertEqual(self.ack(*held), (0, [each.token for each in held]))
        self.storage.release("commit")
        self.wait(reset)
        self.assertEqual(len(self.drain()), 2)


class StandingTests(SubscriberTestCase):
    def test_after_a_crash(self):
        """A lease of a node that went still acks its message, as long as it was not leased again; it nacks and extends nothing. The group need not
        be loaded."""
        self.publish(count=4)
        held = self.lease(4)
        self.crash()
        self.assertEqual(self.nack(held[3]), (0, [held[3].token]))
        self.assertEqual(self.ack(held[2], held[1]), (2, []))
        self.assertEqual(offsets(self.lease(1)), [0])
        self.assertEqual(self.ack(*held), (3, [held[0].token]))
        self.assertEqual(self.drain(), [])
        self.clock.advance(500)
        self.crash()
        self.assertEqual(self.drain(), [("orders", 0, 0)])

    def test_storage_away(self):
        """Where a group's standing cannot be told the call fails, what took effect stays, and the call may be repeated."""
        self.publish(count=2)
        held = [*self.lease(), *self.lease(group="shop.g")]
        self.crash()
        self.ack(held[0])
        self.storage.failing["committed"] = StorageUnavailable("away")
        self.failureResultOf(self.subscriber.ack(self.grant(), [each.token for each in held]), StorageUnavailable)
        self.storage.failing.clear()
        self.assertEqual(self.ack(*held), (2, []))
        self.assertEqual(len(self.drain(group="shop.g")), 1)

    def test_topic_gone(self):
        """Leases of a topic that is gone from the storage are lost."""
        self.publish()
        [held] = self.lease()
        self.wait(self.storage.delete_topic("orders"))
        self.assertEqual(self.ack(held), (0, [held.token]))

    def test_contested(self):
        """While somebody else has the group in the storage nothing can be told of its leases, loaded or not."""
        self.publish(count=2)
        held = self.lease(2)
        self.ack(held[0])
        self.storage.members.add("shop")
        self.clock.advance(500)
        self.failureResultOf(self.subscriber.ack(self.grant(), [held[1].token]), OwnershipInDoubt)
        self.storage.members.clear()
        self.clock.advance(5000)
        self.assertEqual(self.ack(held[1]), (1, []))
        self.crash()
        self.storage.strangers.add("shop")
        self.assertNotIsInstance(self.failureResultOf(self.subscriber.ack(self.grant(), [held[1].token]), OwnershipInDoubt).value, InUse)
        self.storage.strangers.clear()

    def test_stopping(self):
        """A node that stops refuses them as it refuses polls."""
        self.publish()
        [held] = self.lease()
        self.wait(self.subscriber.stop())
        self.failureResultOf(self.subscriber.ack(self.grant(), [held.token]), OverBudget)

    def test_key_ended(self):
        """A key that ended acks nothing."""
        self.publish()
        [held] = self.lease()
        grant = self.grant()
        self.wait(self.registrar.rotate("shop", "subkey", 0, "test", None))
        self.failureResultOf(self.subscriber.ack(grant, [held.token]), BadCredentials)

    def test_rate(self):
        """A rate in debt stops no ack."""
        self.bind("shop", "orders", rate=Rate(messages_per_s=1))
        self.publish(count=20)
        held = self.lease(20)
        self.assertEqual(self.ack(*held), (len(held), []))

    def test_a_client_that_leaves(self):
        """An ack whose client goes away while the group is loaded takes effect all the same."""
        self.publish(count=2)
        held = self.lease(2)
        self.crash()
        self.storage.held.add("committed")
        gone = self.subscriber.ack(self.grant(), [held[0].token])
        gone.addErrback(lambda failure: None)
        gone.cancel()
        self.clock.advance(15_000)  # the sweep finds a group that nobody waits on, and that has a visitor
        self.storage.release("committed")
        self.assertEqual(places(self.wait(self.poll(batch=5))), [("orders", 0, 1)])


class BindingTests(SubscriberTestCase):
    def test_bound_otherwise_while_in_use(self):
        """New settings count at once for what is leased next; what is out stays out."""
        self.publish(count=4)
        held = self.lease(2)
        self.bind("shop", "orders", max_in_flight=2, ack_timeout_ms=1000, backoff=Backoff(5000, 5000))
        self.assertEqual(self.lease(2), [])
        self.assertEqual(self.ack(held[0]), (1, []))
        self.assertEqual(offsets(self.lease(2)), [2])
        self.assertEqual(self.nack(held[1]), (1, []))
        self.clock.advance(4999)
        self.assertEqual(offsets(self.lease(2)), [3])
        self.clock.advance(1)
        self.assertEqual(offsets(self.lease(4)), [1])

    def test_sub_taken_away_from_another_topic(self):
        """Another topic's binding changes nothing of these leases."""
        self.create_topic("news")
        self.bind("shop", "news")
        self.publish()
        [held] = self.lease()
        self.unbind("shop", "news")
        self.assertEqual(self.ack(held), (1, []))
