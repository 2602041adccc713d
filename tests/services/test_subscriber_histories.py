"""Random histories on a slow, failing storage: what holds always, holds."""

import os
import random

from twisted.internet.defer import CancelledError, Deferred

from psubd.errors import PsubdError, StorageTimeout, StorageUnavailable
from psubd.testing.faulty_storage import FaultyStorage
from tests.services.house import SubscriberTestCase, places

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
        self.crashed = False

    def publish(self):
        partition = self.dice.randrange(3)
        for offset in self.case.publish(partition=partition, count=self.dice.choice([1, 1, 2, 30])):
            self.published.add(("orders", partition, offset))

    def poll(self):
        group = self.dice.choice(["shop", "shop.g"])
        deferred = self.case.poll(group=group, batch=self.dice.choice([1, 3, 20]), timeout=self.dice.choice([0, 10, 2000]))
        deferred.addCallbacks(self.answered, self.failed, (group,))
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
            self.done[group] |= set(found[:count])
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
        for group, out in history.out.items():
            while out:
                delivery, found = out.pop()
                delivery.settle(len(found) // 2)
                history.done[group] |= set(found[: len(found) // 2])
        for _ in range(10):
            self.clock.advance(1000)
        self.storage.slow = False
        self.assertEqual(history.out, {"shop": [], "shop.g": []})

    def test_each_message_once(self):
        """While the node lives each message of each group is held by one at a time, and is done once, through whatever the storage does."""
        for seed in range(HISTORIES):
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
        for seed in range(HISTORIES):
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
