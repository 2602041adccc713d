"""Polls: who gets which message, and when an empty answer is given."""

from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from psubd.errors import BadParameter, Internal, OverBudget, RateLimited, StorageUnavailable, TopicNotBound
from psubd.interfaces import IStorage, ISubscriber
from psubd.model import Rate
from psubd.services import handouts
from psubd.services.looking import Lookout
from tests.services.house import SubscriberTestCase, places


class PollTests(SubscriberTestCase):
    def test_what_is_there(self):
        """A message that is there is answered at once, with what it is."""
        [offset] = self.publish(partition=1)
        delivery = self.wait(self.poll())
        self.assertEqual(places(delivery), [("orders", 1, offset)])
        self.assertEqual(delivery.messages[0].attempt, 1)
        self.assertIsNone(delivery.messages[0].token)
        self.assertIsNone(delivery.next)

    def test_what_comes(self):
        """A poll waits, and is answered as soon as there is one message; it does not wait for a full batch."""
        waiting = self.poll(batch=10)
        self.assertNoResult(waiting)
        self.assertEqual(self.metric("psubd_polls_waiting"), 1)
        self.publish(partition=2)
        self.assertEqual(self.got(waiting), [("orders", 2, 0)])
        self.assertEqual(self.metric("psubd_polls_waiting"), 0)

    def test_timeout(self):
        """After its timeout a poll is answered empty, not before."""
        waiting = self.poll(timeout=5000)
        self.clock.advance(4999)
        self.assertNoResult(waiting)
        self.clock.advance(1)
        self.assertEqual(self.got(waiting), [])
        self.publish()
        self.assertEqual(self.take(), [("orders", 0, 0)])

    def test_no_timeout_finds_what_is_there(self):
        """A poll that does not wait finds a message that is there: in a group that is not loaded, in a loaded one, and in a new group."""
        self.publish()
        self.assertEqual(self.take(), [("orders", 0, 0)])
        self.publish(partition=2)
        self.assertEqual(self.take(), [("orders", 2, 0)])
        self.assertEqual(self.take(), [])
        self.assertEqual(len(self.drain(group="shop.new")), 2)

    def test_no_timeout_looks_before_it_says_no(self):
        """While the storage takes its time, a poll that does not wait is not answered empty."""
        self.take()
        for method in ("bounds", "read", "describe", "committed"):
            self.storage.held.add(method)
        self.publish()
        cold = self.poll(group="shop.cold", timeout=0)
        self.clock.advance(1000)
        self.assertNoResult(cold)
        for method in ("describe", "bounds", "committed", "bounds", "read"):
            self.storage.release(method)
        self.assertEqual(self.got(cold), [("orders", 0, 0)])

    def test_one_message_two_polls(self):
        """A message goes to one poll only, the one that has waited longest."""
        first, second = self.poll(), self.poll()
        self.publish()
        self.assertEqual(self.got(first), [("orders", 0, 0)])
        self.assertNoResult(second)
        self.publish()
        self.assertEqual(self.got(second), [("orders", 0, 1)])

    def test_two_groups(self):
        """Each group gets every message."""
        one, other = self.poll(), self.poll(group="shop.other")
        self.publish()
        self.assertEqual(self.got(one), [("orders", 0, 0)])
        self.assertEqual(self.got(other), [("orders", 0, 0)])

    def test_batch(self):
        """An answer has at most batchSize messages, and takes what is at hand up to it."""
        self.take()
        self.publish(count=5)
        self.publish(partition=1, count=5)
        self.assertEqual(len(self.take(7)), 7)
        self.assertEqual(len(self.take(7)), 3)

    def test_bytes(self):
        """An answer keeps to maxBytes; one message always fits."""
        self.publish(count=3, size=1000)
        self.publish(count=1, size=5000)
        self.assertEqual(len(self.wait(self.poll(batch=10, max_bytes=2500)).messages), 2)
        self.assertEqual([offset for _, _, offset in self.got(self.poll(batch=10, max_bytes=2500))], [2])
        self.assertEqual([offset for _, _, offset in self.got(self.poll(batch=10, max_bytes=1024))], [3])

    def test_offsets_rise(self):
        """Over many answers each partition's offsets rise, and every message comes once."""
        for partition in range(3):
            self.publish(partition=partition, count=50)
        found = []
        while taken := self.take(7):
            found += taken
        self.assertEqual(len(found), 150)
        for partition in range(3):
            self.assertEqual([offset for _, at, offset in found if at == partition], list(range(50)))

    def test_more_than_one_read(self):
        """A backlog larger than what is read ahead comes whole and in order."""
        self.publish(count=7000)
        found = []
        while taken := self.take(1500):
            found += [offset for _, _, offset in taken]
        self.assertEqual(found, list(range(7000)))

    def test_counted(self):
        """What was delivered is counted by topic."""
        self.publish(count=4)
        self.take()
        self.assertEqual(self.metric("psubd_delivered_messages_total", topic="orders"), 4)
        self.assertEqual(self.metric("psubd_groups_loaded"), 1)

    def test_explicit(self):
        """Explicit leases where the ask says so, or else the binding: each message has a token and an epoch, in auto mode none has."""
        self.publish(count=4)
        [asked] = self.wait(self.poll(ack="explicit")).messages
        self.bind("shop", "orders", ack="explicit")
        [bound] = self.wait(self.poll()).messages
        [auto] = self.wait(self.poll(ack="auto")).messages
        self.assertEqual(len({asked.token, bound.token, None}), 3)
        self.assertEqual({asked.epoch, bound.epoch}, {self.registry.epoch})
        self.assertEqual((auto.token, auto.epoch, auto.message.offset), (None, None, 2))

    def test_bound_explicit_while_it_waits(self):
        """A poll that leaves the mode to its binding gets what the binding says at the moment of the answer."""
        waiting = self.poll()
        self.bind("shop", "orders", ack="explicit")
        self.publish()
        self.assertIsNotNone(self.wait(waiting).messages[0].token)

    def test_anothers_group(self):
        """A group of another application is refused, and is not made."""
        self.failureResultOf(self.poll(group="owner.x", grant=self.grant("shop")), BadParameter)
        self.failureResultOf(self.poll(group="shop./", grant=self.grant("shop")), BadParameter)
        self.assertEqual(self.metric("psubd_groups_loaded"), 0)

    def test_unbound(self):
        """A topic that is not bound is refused."""
        self.create_topic("secrets")
        self.failureResultOf(self.poll(topics=("secrets",)), TopicNotBound)
        self.failureResultOf(self.poll(topics=("orders", "secrets")), TopicNotBound)
        self.failureResultOf(self.poll(group="owner", grant=self.grant("owner")), TopicNotBound)


class SettleTests(SubscriberTestCase):
    def test_broken_connection(self):
        """What was not handed over comes back at once, in order, before newer ones, at the same attempt."""
        self.publish(count=6)
        delivery = self.wait(self.poll(batch=3))
        self.assertEqual([offset for _, _, offset in places(delivery)], [0, 1, 2])
        delivery.settle(0)
        again = self.wait(self.poll(batch=4))
        self.assertEqual([offset for _, _, offset in places(again)], [0, 1, 2, 3])
        self.assertEqual({delivered.attempt for delivered in again.messages}, {1})
        self.assertEqual(self.metric("psubd_given_back_total"), 3)

    def test_partly_handed_over(self):
        """In auto mode an answer that was not wholly handed over comes back whole."""
        self.publish(count=6)
        self.wait(self.poll(batch=4)).settle(3)
        self.assertEqual([offset for _, _, offset in self.take()], [0, 1, 2, 3, 4, 5])

    def test_wakes_who_waits(self):
        """What comes back goes to the poll that waits, at once."""
        self.publish()
        delivery = self.wait(self.poll())
        waiting = self.poll()
        self.assertNoResult(waiting)
        delivery.settle(0)
        self.assertEqual(self.got(waiting), [("orders", 0, 0)])

    def test_only_once(self):
        """A second settling changes nothing."""
        self.publish(count=2)
        delivery = self.wait(self.poll(batch=2))
        delivery.settle(2)
        delivery.settle(0)
        self.assertEqual(self.take(), [])

    def test_out_of_order(self):
        """Answers are settled in any order; each message that was not handed over comes again, no other."""
        self.publish(count=9)
        first, second, third = (self.wait(self.poll(batch=3)) for _ in range(3))
        third.settle(3)
        first.settle(3)
        second.settle(0)
        self.assertEqual([offset for _, _, offset in self.take()], [3, 4, 5])

    def test_max_in_flight(self):
        """No more than max_in_flight messages of a partition are out at a time."""
        self.bind("shop", "orders", max_in_flight=2)
        self.publish(count=5)
        delivery = self.wait(self.poll(batch=5))
        self.assertEqual(len(delivery.messages), 2)
        waiting = self.poll(batch=5)
        self.assertNoResult(waiting)
        delivery.settle(2)
        self.assertEqual(self.got(waiting), [("orders", 0, 2), ("orders", 0, 3)])

    def test_max_in_flight_changed(self):
        """A new max_in_flight counts for polls that wait already."""
        self.bind("shop", "orders", max_in_flight=1)
        self.publish(count=3)
        self.wait(self.poll(batch=5))
        waiting = self.poll(batch=5)
        self.assertNoResult(waiting)
        self.bind("shop", "orders", max_in_flight=3)
        self.assertEqual(len(self.got(waiting)), 2)


class CancelTests(SubscriberTestCase):
    def test_withdrawn(self):
        """A cancelled poll takes nothing; the message goes to the next."""
        gone, waiting = self.poll(), self.poll()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.publish()
        self.assertEqual(self.got(waiting), [("orders", 0, 0)])

    def test_withdrawn_while_loading(self):
        """A poll cancelled while its group loads takes nothing, and the others that share the load go on."""
        self.storage.held.add("committed")
        self.publish()
        gone, waiting = self.poll(), self.poll()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.storage.release("committed")
        self.assertEqual(self.got(waiting), [("orders", 0, 0)])
        self.assertEqual(self.storage.calls["committed"], 1)

    def test_cancelled_as_it_is_granted(self):
        """A poll that is cancelled by what another's answer sets off, in the very moment in which both are granted, loses nothing."""
        first, second = self.poll(), self.poll()
        first.addCallback(lambda delivery: second.cancel() or delivery)
        third = self.poll()
        self.publish(count=2)
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.got(first), [("orders", 0, 0)])
        self.assertEqual(self.got(third), [("orders", 0, 1)])

    def test_polls_again_from_its_answer(self):
        """A client that polls again in the moment of its answer is served in its turn."""
        found = []

        def again(delivery):
            found.extend(places(delivery))
            delivery.settle(len(delivery.messages))
            if len(found) < 2000:
                self.poll().addCallback(again)

        self.poll().addCallback(again)
        self.publish(count=1000)
        self.publish(partition=1, count=1000)
        self.assertEqual(len(set(found)), 2000)


class BrokenTests(SubscriberTestCase):
    def test_an_answer_cannot_be_made(self):
        """A bug that keeps one answer from being made ends that poll; its messages and everybody else's are given to the next ones, and the group
        goes on."""
        waiting = [self.poll(ack="explicit"), self.poll()]
        whole = handouts.shown

        def broken(channel, lease):
            self.patch(handouts, "shown", whole)
            raise ValueError("a bug")

        self.patch(handouts, "shown", broken)
        self.publish()
        self.failureResultOf(waiting[0], Internal)
        self.assertEqual([error.value.args for error in self.flushLoggedErrors(ValueError)], [("a bug",)])
        delivery = self.wait(waiting[1])
        self.assertEqual(places(delivery), [("orders", 0, 0)])
        delivery.settle(0)
        self.publish()
        self.assertEqual(self.drain(), [("orders", 0, 0), ("orders", 0, 1)])


class FairnessTests(SubscriberTestCase):
    def test_partitions_take_turns(self):
        """A partition with a long backlog starves no other."""
        self.take()
        self.publish(partition=0, count=1000)
        self.publish(partition=1, count=2)
        self.publish(partition=2, count=2)
        seen = [self.take(1)[0][1] for _ in range(6)]
        self.assertEqual(sorted(seen), [0, 0, 1, 1, 2, 2])

    def test_topics_take_turns(self):
        """A topic of many partitions starves no other."""
        self.take()
        self.create_topic("busy", 8)
        self.bind("shop", "busy")
        for partition in range(8):
            self.publish("busy", partition, count=50)
        self.take(1, topics=("busy",))
        self.publish("orders", 0, count=4)
        seen = [self.take(1)[0][0] for _ in range(8)]
        self.assertEqual(seen.count("orders"), 4)

    def test_polls_by_age(self):
        """The oldest poll is served first, whatever topics others ask for."""
        self.create_topic("other")
        self.bind("shop", "other")
        waiting = [self.poll(topics=("other",)), self.poll(), self.poll(topics=("orders",)), self.poll()]
        self.publish("orders", count=1)
        self.assertEqual([deferred.called for deferred in waiting], [False, True, False, False])
        self.publish("other", count=1)
        self.assertEqual([deferred.called for deferred in waiting], [True, True, False, False])
        self.publish("other", count=1)
        self.assertEqual([deferred.called for deferred in waiting], [True, True, False, True])
        self.publish("orders", count=1)
        self.assertEqual([deferred.called for deferred in waiting], [True] * 4)

    def test_a_large_message_is_not_passed_over(self):
        """A message that does not fit into the rest of an answer is the next answer's first of its partition."""
        self.publish(partition=0, count=1, size=900)
        self.publish(partition=1, count=1, size=900)
        first = self.got(self.poll(batch=10, max_bytes=1024))
        second = self.got(self.poll(batch=10, max_bytes=1024))
        self.assertEqual({first[0][1], second[0][1]}, {0, 1})


class StopTests(SubscriberTestCase):
    def test_stop(self):
        """At the stop waiting polls end empty, new ones are refused with 503, and what is done is committed."""
        self.publish(count=3)
        self.take(2)
        waiting = self.poll(topics=("orders",), batch=1)
        self.wait(waiting).settle(0)
        waiting = self.poll(group="shop.other", timeout=60_000)
        self.wait(waiting).settle(0)
        last = self.wait(self.poll(batch=5))
        empty = self.poll(timeout=60_000)
        self.wait(self.subscriber.stop())
        self.assertEqual(self.got(empty), [])
        self.failureResultOf(self.poll(), OverBudget)
        self.assertEqual(self.committed()[("orders", 0)], 2)
        last.settle(1)
        self.assertEqual(self.committed()[("orders", 0)], 2)

    def test_stop_waits_for_answers_that_are_written(self):
        """What was being written at the stop is committed too, if it is handed over within the patience."""
        self.subscriber._patience_ms = 5000
        self.publish(count=2)
        delivery = self.wait(self.poll(batch=2))
        stopped = self.subscriber.stop()
        self.clock.advance(4000)
        self.assertNoResult(stopped)
        delivery.settle(2)
        self.wait(stopped)
        self.assertEqual(self.committed()[("orders", 0)], 2)

    def test_stop_waits_no_longer(self):
        """An answer that is never settled does not hold the stop."""
        self.subscriber._patience_ms = 5000
        self.publish()
        self.wait(self.poll())
        stopped = self.subscriber.stop()
        self.assertNoResult(stopped)
        self.clock.advance(5000)
        self.wait(stopped)
        self.assertEqual(self.committed()[("orders", 0)], 0)


class RateTests(SubscriberTestCase):
    def test_debt(self):
        """A poll that waits on a topic with a rate is held back while the rate is in debt, and gets its message afterwards."""
        self.bind("shop", "orders", rate=Rate(messages_per_s=1))
        waiting = [self.poll(), self.poll()]
        self.publish(count=2)
        self.assertEqual([deferred.called for deferred in waiting], [True, False])
        self.failureResultOf(self.poll(), RateLimited)
        for _ in range(2):
            self.clock.advance(1000)
        self.assertEqual(self.got(waiting[1]), [("orders", 0, 1)])

    def test_the_other_topics_go_on(self):
        """Topics that are not in debt are read meanwhile, also by a poll that came while one was, and that one joins when its debt is over."""
        self.create_topic("free")
        self.bind("shop", "free")
        self.bind("shop", "orders", rate=Rate(messages_per_s=1))
        self.publish(count=30)
        self.take(30, topics=("orders",))
        self.publish(count=1)
        self.publish("free", count=1)
        self.assertEqual(self.take(), [("free", 0, 0)])
        waiting = self.poll(timeout=60_000)
        self.clock.advance(10_000)
        self.assertNoResult(waiting)
        for _ in range(30):
            self.clock.advance(1000)
        self.assertEqual(self.got(waiting), [("orders", 0, 30)])


class OutageTests(SubscriberTestCase):
    def test_many_wait(self):
        """While one topic cannot be read, again and again, who waits for another too is not judged anew each time; once nothing is left all are
        told."""
        self.create_topic("news")
        self.bind("shop", "news")
        polls = [self.poll(topics=("news", "orders")) for _ in range(20)]
        judged = []
        judge = Lookout.judge
        self.patch(Lookout, "judge", lambda lookout, poll: judged.append(poll) or judge(lookout, poll))
        self.storage.failing["watch orders"] = StorageUnavailable("away")
        self.storage.beneath._watches.changed("orders")
        for _ in range(5):
            self.clock.advance(1000)
        self.assertIsNotNone(self.subscriber._live["shop"].topics["orders"].trouble())
        self.assertEqual(judged, [])
        self.storage.failing["watch news"] = StorageUnavailable("away")
        self.storage.beneath._watches.changed("news")
        for each in polls:
            self.failureResultOf(each, StorageUnavailable)


class InterfaceTests(SubscriberTestCase):
    def test_provides(self):
        """The subscriber, and the storage that fails on demand, are what they say they are."""
        self.assertTrue(verifyObject(ISubscriber, self.subscriber))
        self.assertTrue(verifyObject(IStorage, self.storage))
