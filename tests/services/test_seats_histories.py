"""Random histories of slots that move between nodes, on slow, failing storages: what holds always, holds."""

import os
import random

from psubd.slots import slot_of
from psubd.testing.faulty_storage import FaultyStorage
from tests.services.several import LOOK_MS, SLOTS, NodesCase
from tests.services.test_subscriber_histories import LeaseHistory, SlowStorage

HISTORIES = 300 if os.environ.get("PSUBD_LONG") else 20
STEPS = 250
GROUPS = ("shop", "shop.g")


class MovingHistory(LeaseHistory):
    """What the clients of the groups saw, each of which goes to the node that it believes to be the owner.

    :ivar owners: by slot. :ivar asleep: nodes that stand still, and whose session has ended.
    """

    def __init__(self, case, dice):
        super().__init__(case, dice, ordered=False)
        self.owners = dict.fromkeys(range(SLOTS), case.a)
        self.asleep = []
        self.moving = set()

    def go_to(self, group):
        self.case.on(self.owners[slot_of(group, SLOTS)])

    def poll(self):
        group, ms = self.dice.choice(GROUPS), self.dice.choice([1000, 3000])
        self.go_to(group)
        settings = {"batch": self.dice.choice([1, 3, 20]), "timeout": self.dice.choice([0, 10, 2000])}
        if self.dice.random() < 0.3:
            deferred = self.case.poll(group=group, ack="auto", **settings)
            deferred.addCallbacks(self.given, self.failed, (group,)).addErrback(self.broken.append)
        else:
            deferred = self.case.poll(group=group, ack="explicit", ack_timeout_ms=ms, **settings)
            deferred.addCallbacks(self.leased, self.failed, (group, ms)).addErrback(self.broken.append)
        self.waiting.append(deferred)

    def given(self, delivery, group):
        """In auto mode: its messages are held until the answer is settled."""
        self.leased(delivery, group, 1 << 40)

    def leased(self, delivery, group, ms):
        for former, found in self.out[group]:
            if not former.stands():
                self.withdraw(group, former, found)
        super().leased(delivery, group, ms)

    def withdraw(self, group, delivery, found, count=0):
        """Its connection is aborted after ``count`` messages: nobody has the others."""
        for place, delivered in list(zip(found, delivery.messages, strict=True))[count:]:
            for held in self.leases[group][place]:
                held.ended = held.ended or held.token == delivered.token

    def settle(self):
        """Some answer is written, as far as it may be."""
        group = self.dice.choice(GROUPS)
        if self.out[group]:
            delivery, found = self.out[group].pop(self.dice.randrange(len(self.out[group])))
            self.write(group, delivery, found, self.dice.choice([0, 1, len(found), len(found), len(found)]))

    def write(self, group, delivery, found, count):
        explicit = delivery.messages[0].token is not None
        count = min(count, len(found)) if delivery.stands() else 0
        self.withdraw(group, delivery, found, count if explicit else 0)
        if count == len(found) and not explicit:
            self.done[group] |= set(found)
        delivery.settle(count)

    def some(self):
        group, leases = super().some()
        self.go_to(group)
        return group, [held for held in leases if held.token is not None]

    # --- what happens to the nodes

    def awake(self):
        return [node for node in self.case.nodes if node not in self.asleep]

    def hand_over(self):
        """In good order, between two that live, as far as they know."""
        slot = slot_of(self.dice.choice(GROUPS), SLOTS)
        former = self.owners[slot]
        others = [node for node in self.awake() if node is not former]
        if slot in self.moving or former in self.asleep or not others:
            return
        self.moving.add(slot)
        handed = former.subscriber.hand_over(slot)
        handed.addCallback(self.handed, slot, former, self.dice.choice(others)).addErrback(self.broken.append)

    def handed(self, parcel, slot, former, node):
        self.moving.discard(slot)
        if self.owners[slot] is not former:
            return  # it was lost meanwhile
        if not parcel:
            self.forget_leases()
        if node in self.asleep:
            node = self.dice.choice(self.awake())
        self.case.wait(former.membership.release(slot))
        node.take(parcel, slot)
        self.owners[slot] = node

    def blink(self):
        """A node's lease is over, and back before anybody took its slots."""
        node = self.dice.choice(self.awake())
        node.membership.end_lease()
        self.case.clock.call_later(self.dice.choice([1, 50, 900]), self.see_again, node)

    def see_again(self, node):
        if node not in self.asleep:
            node.membership.answered()

    def stand_still(self):
        """A node stops for longer than its session; others take its slots, from nobody."""
        awake = self.awake()
        if len(awake) < 2:
            return
        node = self.dice.choice(awake)
        self.asleep.append(node)
        node.expire()
        for slot, owner in self.owners.items():
            if owner is node:
                self.forget_leases()
                taker = self.dice.choice([other for other in awake if other is not node])
                taker.membership.answered()
                taker.take(slot=slot)
                self.owners[slot] = taker
        self.case.clock.call_later(self.dice.choice([10, 2000, 30_000]), self.wake, node)

    def wake(self, node):
        if node in self.asleep:
            self.asleep.remove(node)
            node.wake()

    def forget_leases(self):
        """What is out is nobody's any more; what was done last may come again."""
        self.crashed = True
        for of_place in [held for leases in self.leases.values() for held in leases.values()]:
            for held in of_place:
                held.ended = True


class SeatHistoryTests(NodesCase):
    dice = None

    def make_storage(self):
        return FaultyStorage(self.storage.beneath) if self.dice is None else SlowStorage(self.storage.beneath, self.clock, self.dice)

    def setUp(self):
        super().setUp()
        self.former = self.storage

    def history(self, seed, unclean):
        self.dice = dice = random.Random(seed)
        for node in self.nodes:
            node.stop()
        self.nodes = []
        self.subscriber = self.make_subscriber()
        for name in "bc":
            self.add(name)
        fails = dice.choice([0.0, 0.0, 0.1, 0.3])
        for node in self.nodes:
            node.storage.slow, node.storage.fails = True, fails
        history = MovingHistory(self, dice)
        steps = 3 * [history.publish, history.poll, history.poll, history.settle, history.ack, history.nack, history.extend]
        steps += [history.hand_over, history.hand_over, history.blink]
        if unclean:
            steps += [history.stand_still]
        for _ in range(STEPS):
            dice.choice(steps)()
            if dice.random() < 0.5:
                self.clock.advance(dice.choice([1, 10, 100, 900]))
        self.settle_down(history)
        return history

    def settle_down(self, history):
        """All nodes and storages are well, what is out is given back, and leases lapse."""
        for node in self.nodes:
            node.storage.fails = 0.0
        for _ in range(50):
            self.clock.advance(1000)
        for deferred in history.waiting:
            deferred.cancel()
        for group, out in history.out.items():
            while out:
                delivery, found = out.pop()
                history.write(group, delivery, found, len(found) // 2)
        for _ in range(LOOK_MS // 1000):
            self.clock.advance(1000)
        for node in self.nodes:
            node.storage.slow = False
        self.assertEqual((history.asleep, history.moving), ([], set()))
        for failure in history.broken:
            failure.raiseException()

    def rest(self, history, group):
        """What is left of the group, acked as it comes."""
        history.go_to(group)
        found = []
        while held := self.lease(1000, group=group):
            found += [(each.topic, each.partition, each.message.offset) for each in held]
            self.assertEqual(self.ack(*held), (len(held), []))
        return found

    def everything(self):
        bounds = self.wait(self.former.bounds("orders"))
        return {("orders", partition, offset) for partition, bound in bounds.items() for offset in range(bound.end)}

    def check(self, seeds, unclean):
        for seed in seeds:
            try:
                history = self.history(seed, unclean)
                for group in GROUPS:
                    done, rest = history.done[group], self.rest(history, group)
                    self.assertEqual(len(rest), len(set(rest)))
                    self.assertTrue(history.crashed or not done & set(rest), "came again, though done")
                    self.assertEqual(done | set(rest), self.everything(), f"{group}: lost or made up")
                self.check_places(history)
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
            self.start_over()

    def check_places(self, history):
        """What the storage has in the end is what the owner said last, wherever late commits moved it in between."""
        self.clock.advance(500)
        ends = {partition: bound.end for partition, bound in self.wait(self.former.bounds("orders")).items()}
        for group in GROUPS:
            kept = self.wait(self.former.committed(group))
            self.assertEqual({at.partition: commit.offset for at, commit in kept.items()}, ends)

    def start_over(self):
        for node in self.nodes:
            node.stop()
        self.nodes = []
        self.wait(self.registrar.delete_topic("orders", True, True, "test", None))
        self.create_topic("orders", 3)
        self.bind("shop", "orders", start="earliest")

    def test_moved_in_good_order(self):
        """Over handovers, and leases that were over and came back, each message is held by one at a time, what was acked never comes again, and
        none is skipped."""
        self.check(range(HISTORIES), unclean=False)

    def test_nothing_is_lost(self):
        """Nodes that stand still for longer than their session, whose commits come late, make nobody skip a message; in the end the places are the
        last owner's."""
        self.check(range(1000, 1000 + HISTORIES), unclean=True)
