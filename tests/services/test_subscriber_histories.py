"""Random histories on a slow, failing storage: what holds always, holds."""

import os
import random

from twisted.internet.defer import CancelledError, Deferred

from psubd.errors import PsubdError, StorageTimeout, StorageUnavailable
from psubd.testing.faulty_storage import FaultyStorage
from tests.services.house import SubscriberTestCase, places
from tests.services.test_carried import Drawer

HISTORIES = 400 if os.environ.get("PSUBD_LONG") else 40
STEPS = 150


class SlowStorage(FaultyStorage):
    """Answers come after some milliseconds, in the order of the dice; some calls fail, before or after they were done."""

    def __init__(self, beneath, clock, dice):
        super().__init__(beneath)
        self.clock, self.dice, self.slow, self.fails = clock, dice, False, 0.0

    def _call(self, method, what, call):
        if not self.slow or method in ("start", "stop", "publish", "watch"):
            return super()._call(method, what, call)
        answer = Deferred()
        self.clock.call_later(self.dice.choice([0, 1, 5, 40, 700]), self._answer, method, what, call, answer)
        return answer

    def _answer(self, method, what, call, answer):
        roll = self.dice.random()
        if roll < self.fails:
            answer.errback(StorageUnavailable("the dice"))
            return
        result = super()._call(method, what, call)
        if roll < 1.5 * self.fails:
            result.addCallback(lambda _: self._lost())
        result.chainDeferred(answer)

    def _lost(self):
        raise StorageTimeout("the dice: it was done")


class History:
    """What the clients of the groups saw."""

    def __init__(self, case, dice):
        self.case, self.dice = case, dice
        self.published = set()
        self.done = {"shop": set(), "shop.g": set()}
        self.out = {"shop": [], "shop.g": []}  # answers that are not settled
        self.waiting = []
        self.broken = []  # promises that were
        self.crashed = False

    def publish(self):
        partition = self.dice.randrange(3)
        for offset in self.case.publish(partition=partition, count=self.dice.choice([1, 1, 2, 30])):
            self.published.add(("orders", partition, offset))

    def poll(self):
        group = self.dice.choice(["shop", "shop.g"])
        deferred = self.case.poll(group=group, batch=self.dice.choice([1, 3, 20]), timeout=self.dice.choice([0, 10, 2000]))
        deferred.addCallbacks(self.answered, self.failed, (group,)).addErrback(self.broken.append)
        self.waiting.append(deferred)

    def answered(self, delivery, group):
        found = places(delivery)
        held = {place for _, taken in self.out[group] for place in taken}
        assert not held & set(found), "held by two at a time"
        assert self.crashed or not self.done[group] & set(found), "came again, though done"
        assert len(found) == len(set(found))
        for partition in range(3):
            offsets = [offset for _, at, offset in found if at == partition]
            assert offsets == sorted(offsets), "not in order"
        if found:
            self.out[group].append((delivery, found))

    def failed(self, failure):
        failure.trap(PsubdError, CancelledError)

    def settle(self):
        group = self.dice.choice(["shop", "shop.g"])
        if self.out[group]:
            delivery, found = self.out[group].pop(self.dice.randrange(len(self.out[group])))
            count = self.dice.choice([0, 1, len(found), len(found), len(found)])
            if count == len(found):
                self.done[group] |= set(found)
            delivery.settle(count)

    def cancel(self):
        waiting = [deferred for deferred in self.waiting if not deferred.called]
        if waiting:
            self.dice.choice(waiting).cancel()

    def crash(self):
        """The node ends without a word; what its clients hold is nobody's any more."""
        self.crashed = True
        self.case.crash()
        for out in self.out.values():
            out.clear()


class HistoryTests(SubscriberTestCase):
    histories = HISTORIES

    def setUp(self):
        super().setUp()
        self.former, self.fast = self.storage, self.subscriber
        self.wait(self.fast.stop())

    def history(self, seed, crashes=False):
        dice = random.Random(seed)
        history = History(self, dice)
        self.storage = SlowStorage(self.former.beneath, self.clock, dice)
        self.subscriber = self.make_subscriber()
        self.storage.slow = True
        self.storage.fails = dice.choice([0.0, 0.0, 0.1, 0.3])
        steps = [history.publish, history.poll, history.poll, history.poll, history.settle, history.settle, history.cancel]
        if crashes:
            steps = 5 * steps + [history.crash]
        for _ in range(STEPS):
            dice.choice(steps)()
            if dice.random() < 0.5:
                self.clock.advance(dice.choice([1, 10, 100, 900]))
        self.settle_down(history)
        return history

    def settle_down(self, history):
        """All that is out is given back, the storage is well, and what is left is drained."""
        self.storage.fails = 0.0
        for deferred in history.waiting:
            deferred.cancel()
        for out in history.out.values():
            while out:
                delivery, found = out.pop()
                delivery.settle(len(found) // 2)
        for _ in range(10):
            self.clock.advance(1000)
        self.storage.slow = False
        self.assertEqual(history.out, {"shop": [], "shop.g": []})
        for failure in history.broken:
            failure.raiseException()

    def test_each_message_once(self):
        """While the node lives each message of each group is held by one at a time, and is done once, through whatever the storage does."""
        for seed in range(self.histories):
            try:
                history = self.history(seed)
                for group, done in history.done.items():
                    rest = self.drain(group=group)
                    self.assertFalse(done & set(rest))
                    self.assertEqual(len(rest), len(set(rest)))
                    self.assertEqual(done | set(rest), self.everything(), f"{group}: lost or made up")
                self.wait(self.subscriber.stop())
                self.subscriber = self.make_subscriber()
                self.assertEqual([self.drain(group=group) for group in history.done], [[], []])
                self.wait(self.subscriber.stop())
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
            self.start_over()

    def test_nothing_is_lost(self):
        """Over crashes of the node at any moment every message comes, again perhaps, and none is skipped."""
        for seed in range(self.histories):
            try:
                history = self.history(1000 + seed, crashes=True)
                for group, done in history.done.items():
                    rest = self.drain(group=group)
                    self.assertEqual(len(rest), len(set(rest)))
                    self.assertEqual(done | set(rest), self.everything(), f"{group}: lost or made up")
                self.wait(self.subscriber.stop())
            except BaseException as error:
                error.add_note(f"seed {1000 + seed}")
                raise
            self.start_over()

    def everything(self):
        bounds = self.wait(self.storage.bounds("orders"))
        return {("orders", partition, offset) for partition, bound in bounds.items() for offset in range(bound.end)}

    def start_over(self):
        """A new topic and groups for the next history."""
        self.storage = self.former
        self.wait(self.registrar.delete_topic("orders", True, True, "test", None))
        self.create_topic("orders", 3)
        self.bind("shop", "orders", start="earliest")


class Held:
    """A lease that a client was given: ``until`` on the elapsed clock, ``ended`` once it was acked, nacked or came back."""

    def __init__(self, place, delivered, until):
        self.place, self.token, self.attempt, self.until = place, delivered.token, delivered.attempt, until
        self.ended = self.nacked = False


class LeaseHistory(History):
    """The same with explicit leases."""

    def __init__(self, case, dice, ordered):
        super().__init__(case, dice)
        self.ordered = ordered
        self.leases = {"shop": {}, "shop.g": {}}  # place -> its leases, the newest last
        self.keys = {}
        self.acking = set()

    def publish(self):
        partition, key = self.dice.randrange(3), self.dice.choice([None, b"a", b"b"])
        for offset in self.case.publish(partition=partition, count=self.dice.choice([1, 1, 2, 30]), key=key):
            self.published.add(("orders", partition, offset))
            self.keys["orders", partition, offset] = key

    def poll(self):
        group, ms = self.dice.choice(["shop", "shop.g"]), self.dice.choice([1000, 3000])
        settings = {"batch": self.dice.choice([1, 3, 20]), "timeout": self.dice.choice([0, 10, 2000])}
        deferred = self.case.poll(group=group, ack="explicit", ack_timeout_ms=ms, **settings)
        deferred.addCallbacks(self.leased, self.failed, (group, ms)).addErrback(self.broken.append)
        self.waiting.append(deferred)

    def leased(self, delivery, group, ms):
        now = self.case.clock.elapsed_ms()
        for place, delivered in zip(places(delivery), delivery.messages, strict=True):
            former = self.leases[group].setdefault(place, [])
            assert not former or former[-1].ended or former[-1].until <= now, "held by two at a time"
            assert self.crashed or place not in self.done[group], "came again, though done"
            if self.ordered:
                self.check_order(group, place)
            former.append(Held(place, delivered, now + ms))
        if delivery.messages:
            self.out[group].append((delivery, places(delivery)))

    def check_order(self, group, place):
        topic, partition, offset = place
        for earlier in range(offset):
            if self.keys.get((topic, partition, earlier)) == self.keys[place]:
                assert (topic, partition, earlier) in self.done[group] | self.acking, "its key was not done so far"

    def settle(self):
        group = self.dice.choice(["shop", "shop.g"])
        if self.out[group]:
            delivery, found = self.out[group].pop(self.dice.randrange(len(self.out[group])))
            count = self.dice.choice([0, 1, len(found), len(found), len(found)])
            for place, delivered in zip(found[count:], delivery.messages[count:], strict=True):
                for held in self.leases[group][place]:
                    held.ended = held.ended or held.token == delivered.token
            delivery.settle(count)

    def some(self):
        """A group, and some of its leases, those that were handed over long ago too."""
        group = self.dice.choice(["shop", "shop.g"])
        leases = [held for of_place in self.leases[group].values() for held in of_place]
        return group, self.dice.sample(leases, min(len(leases), self.dice.choice([1, 3, 10])))

    def ack(self):
        group, chosen = self.some()
        self.acking |= {held.place for held in chosen}  # they may take effect before they are answered
        deferred = self.case.subscriber.ack(self.case.grant(), [held.token for held in chosen])
        deferred.addCallbacks(self.acked, self.failed, (group, chosen)).addErrback(self.broken.append)

    def acked(self, verdict, group, chosen):
        for held in chosen:
            if held.token in verdict.lost:
                assert self.leases[group][held.place][-1] is not held, "lost, and nobody else was given it"
            else:
                held.ended = True
                self.done[group].add(held.place)

    def nack(self):
        _, chosen = self.some()
        deferred = self.case.subscriber.nack(self.case.grant(), [held.token for held in chosen], self.dice.choice([0, 0, 500]), False)
        for held in chosen:
            held.ended = held.nacked = True  # it may take effect before it is answered
        deferred.addErrback(self.failed)

    def extend(self):
        group, chosen = self.some()
        deferred = self.case.subscriber.extend(self.case.grant(), [held.token for held in chosen], 2000)
        deferred.addCallbacks(self.extended, self.failed, (group, chosen)).addErrback(self.broken.append)

    def extended(self, verdict, group, chosen):
        for held in chosen:
            if held.token not in verdict.lost:
                assert self.leases[group][held.place][-1] is held, "extended, though somebody else was given it"
                assert self.crashed or held.place not in self.done[group], "extended, though done"
                held.until, held.ended = self.case.clock.elapsed_ms() + 2000, held.nacked

    def crash(self):
        for of_place in [*self.leases["shop"].values(), *self.leases["shop.g"].values()]:
            for held in of_place:
                held.ended = True
        super().crash()

    def restart(self):
        """The node stops well: leases go on."""
        stopped = self.case.subscriber.stop()
        while not stopped.called:
            self.case.clock.advance(50)
        self.case.wait(stopped)
        self.case.subscriber = self.case.make_subscriber()


class LeaseHistoryTests(HistoryTests):
    histories = HISTORIES // 3

    def setUp(self):
        super().setUp()
        self.carryover = Drawer()

    def history(self, seed, crashes=False):
        dice = random.Random(seed)
        ordered = dice.random() < 0.5
        self.bind("shop", "orders", start="earliest", ordered=ordered)
        history = LeaseHistory(self, dice, ordered)
        self.storage = SlowStorage(self.former.beneath, self.clock, dice)
        self.subscriber = self.make_subscriber()
        self.storage.slow = True
        self.storage.fails = dice.choice([0.0, 0.0, 0.1, 0.3])
        steps = 3 * [history.publish, history.poll, history.poll, history.settle, history.ack, history.nack, history.extend] + [history.restart]
        if crashes:
            steps = 2 * steps + [history.crash]
        for _ in range(STEPS):
            dice.choice(steps)()
            if dice.random() < 0.5:
                self.clock.advance(dice.choice([1, 10, 100, 900]))
        self.settle_down(history)
        self.clock.advance(5000)
        return history

    def drain(self, group="shop"):
        """Until all is acked."""
        found = []
        while held := self.lease(1000, group=group):
            found += [(each.topic, each.partition, each.message.offset) for each in held]
            self.assertEqual(self.ack(*held), (len(held), []))
        return found
