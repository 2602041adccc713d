"""Groups that somebody else has in the storage: refused, taken over on purpose, lost and had back."""

from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import InUse, NotFound, OwnershipInDoubt, StorageUnavailable
from psubd.model import Commit, StorageLimits, TopicPartition
from psubd.services.contests import LONGEST_PAUSE_MS, Contest
from psubd.services.group_records import group_of
from psubd.services.notices import Notices
from psubd.testing.clock import FakeClock
from tests.services.house import SubscriberTestCase


class ContestCase(SubscriberTestCase):
    """A storage where others may have groups."""

    def setUp(self):
        super().setUp()
        self.storage.limits = StorageLimits(places_expire=True)
        self.listen()

    def listen(self):
        self.told = []
        self.subscriber.listen(self.told.append)

    def tearDown(self):
        self.storage.members.clear()
        self.storage.strangers.clear()
        super().tearDown()

    def refused(self, error, deferred):
        return self.failureResultOf(deferred, error).value

    def tree(self):
        return dict(self.registry._mirror.tree.entries())

    def kept(self, group="shop"):
        return dict(self.wait(self.storage.beneath.committed(group)))

    def reset(self, to, partitions=None, group="shop", topic="orders", dry_run=False):
        return self.subscriber.reset(group, topic, partitions, to, dry_run, "test")


class TakingTests(ContestCase):
    """Before it is psubd's."""

    def test_a_first_read(self):
        """Of a group with members, or with places of somebody else: 409, saying what to do; nothing is registered, theirs stays."""
        self.publish()
        for others in (self.storage.members, self.storage.strangers):
            others.add("shop.g")
            before, theirs = self.tree(), {TopicPartition("orders", 0): Commit(7, "theirs")}
            self.wait(self.storage.beneath.commit("shop.g", theirs))
            refused = self.refused(InUse, self.poll(group="shop.g"))
            self.assertIn("PUT .../groups/shop.g/offsets", refused.detail)
            self.assertEqual((refused.status, refused.code), (409, "in_use"))
            self.assertEqual((self.tree(), self.kept("shop.g")), (before, theirs))
            others.clear()
        self.assertEqual(self.told, [])

    def test_the_next_read_after_they_left(self):
        """Once the members left a read takes the group; no restart, no reset."""
        self.publish()
        self.storage.members.add("shop.g")
        self.refused(InUse, self.poll(group="shop.g"))
        self.storage.members.clear()
        self.assertEqual(self.take(group="shop.g"), [("orders", 0, 0)])

    def test_a_known_group_at_its_load(self):
        """Of a group that psubd knows and somebody else wrote to while psubd was away: 409, and its record stays."""
        self.take()
        self.restart()
        self.storage.strangers.add("shop")
        before = self.tree()
        self.refused(InUse, self.poll())
        self.assertEqual(self.tree(), before)

    def test_a_binding(self):
        """That would begin the application's own group: 409, no binding, no group, no place; theirs is not touched."""
        self.create_application("bank")
        self.storage.members.add("bank")
        before = self.tree()
        with self.assertRaises(InUse) as caught:
            self.failureResultOf(self.registrar.put_binding(self.binding("bank"), "test", None)).raiseException()
        self.assertIn("nothing was changed", caught.exception.detail)
        self.assertEqual((self.tree(), self.kept("bank"), self.storage.calls.get("forget", 0)), (before, {}, 0))
        self.storage.members.clear()
        self.bind("bank", "orders")

    def binding(self, application):
        from psubd.model import Binding

        return Binding(application, "orders", 0, sub=True)

    def test_the_lists_go_on(self):
        """One group of somebody else's shows no places, and keeps the other groups from nothing."""
        self.publish()
        self.bind("owner", "orders", pub=True)
        self.storage.strangers.add("owner")
        views = {view.group: view for view in self.wait(self.subscriber.groups(None))}
        self.assertEqual(views["owner"].items, ())
        self.assertEqual([item.lag for item in views["shop"].items], [1, 0, 0])
        self.assertEqual(self.wait(self.subscriber.group("owner")).items, ())

    def test_deleting(self):
        """The record goes; what is not psubd's stays in the storage."""
        self.wait(self.reset("latest", group="shop.g"))
        self.storage.members.add("shop.g")
        self.wait(self.subscriber.forget_group("shop.g", "test"))
        self.refused(NotFound, self.subscriber.group("shop.g"))
        self.assertEqual(len(self.kept("shop.g")), 3)


class AdoptingTests(ContestCase):
    """PUT .../offsets."""

    def test_adopted(self):
        """The group is psubd's, where it was put; places of theirs on other topics go, so that it still is psubd's after a restart."""
        self.create_topic("news")
        self.publish(count=3)
        theirs = {TopicPartition("orders", 1): Commit(9, ""), TopicPartition("news", 0): Commit(4, "theirs")}
        self.wait(self.storage.beneath.commit("shop.g", theirs))
        self.storage.strangers.add("shop.g")
        self.refused(InUse, self.poll(group="shop.g"))
        self.assertEqual(self.wait(self.reset({0: 1}, group="shop.g")), {0: 1})
        self.assertEqual(set(self.committed("shop.g")), {("orders", 0), ("orders", 1), ("orders", 2)})
        self.assertEqual(self.drain(group="shop.g"), [("orders", 0, 1), ("orders", 0, 2)])

    def test_a_dry_run_adopts_nothing(self):
        """It says where it would go, and the group is still theirs."""
        self.storage.strangers.add("shop.g")
        self.wait(self.reset("latest", group="shop.g", dry_run=True))
        self.assertEqual(self.storage.calls.get("adopt", 0), 0)
        self.refused(InUse, self.poll(group="shop.g"))

    def test_with_members(self):
        """A group with members is not to be had: 409, and no record of it stays; afterwards it is."""
        self.storage.members.add("shop.g")
        self.assertIn("when they are gone", self.refused(InUse, self.reset("latest", group="shop.g")).detail)
        self.assertIsNone(group_of(self.registry.snapshot(), "shop.g"))
        self.storage.members.clear()
        self.wait(self.reset("latest", group="shop.g"))

    def test_a_known_group_with_members(self):
        """Of a group that is not loaded its former record counts again: it keeps the place that it had."""
        self.publish(count=4)
        self.take(2)
        self.restart()
        before = group_of(self.registry.snapshot(), "shop").topics
        self.storage.members.add("shop")
        self.refused(InUse, self.reset("earliest"))
        self.assertEqual(group_of(self.registry.snapshot(), "shop").topics, before)
        self.storage.members.clear()
        self.assertEqual(self.drain(), [("orders", 0, 2), ("orders", 0, 3)])

    def test_a_loaded_group_with_members(self):
        """Of a group that is loaded nothing is moved, neither in the registry nor in memory."""
        self.publish(count=4)
        self.take(2)
        before = self.tree()
        self.storage.members.add("shop")
        self.refused(InUse, self.reset("earliest"))
        self.assertEqual(self.tree(), before)
        self.storage.members.clear()
        self.clock.advance(1_500)
        self.assertEqual(self.drain(), [("orders", 0, 2), ("orders", 0, 3)])

    def test_a_contested_group_of_strangers(self):
        """A reset takes a loaded group back from who wrote its places, and it is served at once."""
        self.publish(count=4)
        self.take(2)
        self.storage.strangers.add("shop")
        self.clock.advance(500)
        self.refused(OwnershipInDoubt, self.poll())
        self.wait(self.reset({0: 1}))
        self.assertEqual(self.told[-1], "group.regained shop")
        self.assertEqual(self.drain(), [("orders", 0, 1), ("orders", 0, 2), ("orders", 0, 3)])

    def test_strange_places_that_cannot_be_dropped(self):
        """The reset is told as failed, so that it is sent again; sent again it does the rest."""
        self.create_topic("news")
        self.wait(self.storage.beneath.commit("shop.g", {TopicPartition("news", 0): Commit(4, "theirs")}))
        self.storage.strangers.add("shop.g")
        self.storage.failing["forget"] = StorageUnavailable("away")
        self.refused(StorageUnavailable, self.reset("latest", group="shop.g"))
        self.storage.failing.clear()
        self.wait(self.reset("latest", group="shop.g"))
        self.assertNotIn(("news", 0), self.committed("shop.g"))


class ContestedTests(ContestCase):
    """While it is served."""

    def lose(self, others=None):
        """Somebody joins; the next commit finds out."""
        (self.storage.members if others is None else others).add("shop")
        self.clock.advance(500)

    def minutes(self, count):
        for _ in range(12 * count):
            self.clock.advance(5_000)

    def test_leasing_stops_and_goes_on(self):
        """A waiting poll and new ones are 503 with Retry-After, an event and the gauge say so; when they left it goes on by itself where the
        ledger stands: what was handed over is kept, and nothing comes twice or is skipped."""
        self.publish(count=3)
        self.take(1)
        waiting = self.poll(topics=("orders",), batch=1)
        self.wait(waiting).settle(1)
        waiting = [self.poll() for _ in range(2)]
        self.wait(waiting.pop(0)).settle(1)
        self.lose()
        for told in (self.refused(OwnershipInDoubt, waiting[0]), self.refused(OwnershipInDoubt, self.poll())):
            self.assertEqual((told.status, told.code, told.headers), (503, "ownership_in_doubt", {"retry-after": "1"}))
        self.assertEqual([line.split()[:2] for line in self.told], [["group.contested", "shop"]])
        self.assertEqual(self.metric("psubd_groups_contested"), 1)
        self.publish()
        self.storage.members.clear()
        self.clock.advance(1_000)
        self.assertEqual(self.told[1:], ["group.regained shop"])
        self.assertEqual(self.metric("psubd_groups_contested"), 0)
        self.assertEqual(self.committed()["orders", 0], 3)
        self.assertEqual(self.drain(), [("orders", 0, 3)])

    def test_answers_that_are_out(self):
        """What was being handed over when it happened is settled as ever: done messages are committed later, the others come again first."""
        self.publish(count=4)
        self.take(1)
        out = [self.wait(self.poll()) for _ in range(2)]
        self.lose()
        out[0].settle(1)
        out[1].settle(0)
        self.assertEqual(self.committed()["orders", 0], 0)
        self.refused(OwnershipInDoubt, self.poll())
        self.storage.members.clear()
        self.clock.advance(1_500)
        self.assertEqual(self.committed()["orders", 0], 2)
        self.assertEqual(self.drain(), [("orders", 0, 2), ("orders", 0, 3)])

    def test_members_that_leave_places(self):
        """Are told anew, as there is something else to do now; theirs stay as they are until a reset takes the group back."""
        self.publish(count=2)
        self.take(1)
        self.lose()
        self.storage.members.clear()
        self.storage.strangers.add("shop")
        self.clock.advance(30_000)
        self.assertEqual([line.split()[0] for line in self.told], ["group.contested"] * 2)
        self.assertIn("places", self.told[1])
        self.assertIn("places", self.refused(OwnershipInDoubt, self.poll()).detail)
        self.wait(self.reset({1: 0}))
        self.assertEqual(self.drain(), [("orders", 0, 1)])

    def test_all_places_are_kept_again(self):
        """Also of partitions where nothing happened: the others may have written there."""
        self.publish()
        self.take()
        self.lose()
        self.wait(self.storage.beneath.commit("shop", {TopicPartition("orders", 2): Commit(99, "theirs")}))
        self.storage.members.clear()
        self.clock.advance(1_500)
        self.assertEqual(self.committed(), {("orders", 0): 1, ("orders", 1): 0, ("orders", 2): 0})

    def test_the_tries(self):
        """They are a second apart, then rarer, never more than five; and never end."""
        self.publish()
        self.take()
        self.lose()
        tries = []
        for second in range(50):
            before = self.storage.calls["commit"]
            self.clock.advance(500)
            self.clock.advance(500)
            if self.storage.calls["commit"] > before:
                tries.append(second)
        gaps = [later - sooner for sooner, later in pairwise(tries)]
        self.assertEqual(tries[0], 0)
        self.assertEqual(gaps, sorted(gaps))
        self.assertEqual(max(gaps), LONGEST_PAUSE_MS // 1000)
        self.assertEqual(len(self.told), 1)

    def test_other_groups_go_on(self):
        """Other groups of the application, and replays, do not notice."""
        self.publish(count=2)
        self.take()
        self.take(group="shop.g")
        self.lose()
        self.assertEqual(self.drain(group="shop.g"), [])
        self.publish()
        self.assertEqual(self.drain(group="shop.g"), [("orders", 0, 2)])
        self.assertEqual(len(self.wait(self.replay(batch=10)).messages), 3)

    def test_a_storage_that_is_away_does_not_give_it_back(self):
        """Only a commit that passes does."""
        self.publish()
        self.take()
        self.lose()
        self.storage.failing["commit"] = StorageUnavailable("away")
        self.storage.members.clear()
        self.clock.advance(10_000)
        self.refused(OwnershipInDoubt, self.poll())
        self.storage.failing.clear()
        self.clock.advance(10_000)
        self.assertEqual(self.told[1:], ["group.regained shop"])

    def test_stop(self):
        """psubd stops at once, with the commit tried once more; after a restart only what could not be kept comes again."""
        self.publish(count=3)
        self.take(2)
        self.clock.advance(500)
        self.take()
        self.lose()
        before = self.storage.calls["commit"]
        self.restart()
        self.assertEqual(self.storage.calls["commit"], before + 1)
        self.storage.members.clear()
        self.assertEqual(self.drain(), [("orders", 0, 2)])

    def test_it_stays_in_memory(self):
        """A group that cannot be committed is not retired: its ledgers are what it goes on from."""
        self.publish(count=2)
        self.take(1)
        self.lose()
        self.minutes(3)
        self.assertEqual(self.metric("psubd_groups_loaded"), 1)
        self.storage.members.clear()
        self.minutes(3)
        self.assertEqual((self.metric("psubd_groups_loaded"), self.committed()["orders", 0]), (0, 1))

    def test_deleted_meanwhile(self):
        """A contested group that is deleted is gone, from the gauge too."""
        self.publish()
        self.take()
        self.lose()
        self.wait(self.subscriber.forget_group("shop", "test"))
        self.assertEqual((self.metric("psubd_groups_contested"), self.metric("psubd_groups_loaded")), (0, 0))
        self.clock.advance(10_000)

    def test_unbound_meanwhile(self):
        """A contested group that stands on nothing any more has nothing to contest: it does not stay 503."""
        self.publish()
        self.take()
        self.lose()
        self.unbind("shop", "orders")
        self.clock.advance(10_000)
        self.assertEqual(self.metric("psubd_groups_contested"), 0)
        self.storage.members.clear()
        self.bind("shop", "orders")
        self.assertEqual(self.drain(), [("orders", 0, 0)])


class PauseTests(SynchronousTestCase):
    def test_retry_after(self):
        """Never less than a second, and no less than until the next try."""
        clock = FakeClock()
        contest = Contest("shop", clock, Notices())
        waits = []
        for _ in range(5):
            contest.lost(InUse("theirs"))
            waits.append(contest.refusal().retry_after)
        clock.advance(60_000)
        self.assertEqual((waits, contest.refusal().retry_after), ([1, 2, 4, 5, 5], 1))
