"""Groups: how they come to be, where they begin, what is committed, what a restart finds."""

import msgspec
from twisted.internet.defer import CancelledError, fail

from psubd.delivery.cursor import decode
from psubd.errors import RegistryUnavailable, StorageUnavailable, TooManyGroups, TopicNotBound
from psubd.interfaces import Plan, Put
from psubd.model import Group, TopicPartition
from psubd.services.group_records import group_of, names_of
from tests.services.house import SubscriberTestCase, places


class BeginTests(SubscriberTestCase):
    def test_own_group_latest(self):
        """The application's own group begins at the grant, not at its first read: `latest` loses nothing published after it."""
        self.create_topic("news", 2)
        self.publish("news", 0, count=3)
        self.bind("shop", "news", start="latest")
        self.publish("news", 0, count=2)
        self.assertEqual(self.drain(topics=("news",)), [("news", 0, 3), ("news", 0, 4)])

    def test_named_group_latest(self):
        """A named group begins at its first read, where the binding's start says."""
        self.create_topic("news", 2)
        self.bind("shop", "news", start="latest")
        self.publish("news", 0, count=3)
        waiting = self.poll(group="shop.g", topics=("news",))
        self.publish("news", 0)
        self.assertEqual(self.got(waiting), [("news", 0, 3)])

    def test_registered_before_it_waits(self):
        """The group's place is in the storage, and its record in the registry, before the first read waits or answers."""
        self.storage.held.add("commit")
        self.publish()
        waiting = self.poll(group="shop.g")
        self.assertNoResult(waiting)
        self.assertIsNone(group_of(self.registry.snapshot(), "shop.g"))
        self.registry.held = True
        self.storage.release("commit")
        self.assertEqual(self.committed("shop.g"), {("orders", 0): 0, ("orders", 1): 0, ("orders", 2): 0})
        self.assertNoResult(waiting)
        self.registry.release()
        self.assertEqual(self.got(waiting), [("orders", 0, 0)])
        group = group_of(self.registry.snapshot(), "shop.g")
        self.assertEqual((group.name, group.application, list(group.topics)), ("shop.g", "shop", ["orders"]))

    def test_cannot_be_registered(self):
        """Where the registry cannot be written, a new group's read fails, and the group is not there; a group that is goes on."""
        self.registry.refuse = RegistryUnavailable("away")
        self.publish()
        self.failureResultOf(self.poll(group="shop.g"), RegistryUnavailable)
        self.assertEqual(len(self.drain()), 1)
        self.registry.refuse = None
        self.assertEqual(len(self.drain(group="shop.g")), 1)

    def test_joins_a_topic_later(self):
        """A group joins a topic that was bound to later at its first read of it, as the binding says, and keeps its place on the others."""
        self.publish(count=2)
        self.drain(group="shop.g")
        self.create_topic("news")
        self.publish("news", count=2)
        self.bind("shop", "news", start="latest")
        self.assertEqual(self.drain(group="shop.g"), [])
        self.publish("news")
        self.publish("orders")
        self.assertEqual(sorted(self.drain(group="shop.g")), [("news", 0, 2), ("orders", 0, 2)])

    def test_bound_while_it_waits(self):
        """A poll over all topics reads one that is bound while it waits."""
        self.create_topic("news")
        self.publish("news")
        waiting = self.poll()
        self.bind("shop", "news")
        self.assertEqual(self.got(waiting), [("news", 0, 0)])

    def test_one_change_for_many_topics(self):
        """A new group's topics are registered in one change."""
        for number in range(5):
            self.create_topic(f"t{number}")
            self.bind("shop", f"t{number}")
        before = self.registry.snapshot().serial
        self.drain(group="shop.g")
        self.assertEqual(self.registry.snapshot().serial, before + 1)

    def test_two_polls_one_load(self):
        """Polls that come while a group loads share the load."""
        self.storage.held.add("describe")
        waiting = [self.poll(), self.poll(), self.poll()]
        self.storage.release("describe")
        self.publish(count=3)
        self.assertEqual([deferred.called for deferred in waiting], [True] * 3)
        self.assertEqual(self.storage.calls["committed"], 1)


class LimitTests(SubscriberTestCase):
    def fill(self, count):
        def plan(snapshot, serial):
            names = [f"shop.g{number}" for number in range(count)] + ["shop-2.x", "shop2", "shopx.y"]
            return Plan("test", tuple(Put(f"/groups/{name}", msgspec.json.encode(Group(name, "shop", serial, 0))) for name in names))

        self.wait(self.registry.change("test", plan))

    def test_a_thousand(self):
        """An application has at most 1000 groups, its own one among them; one more is refused with 429 and not made. Others' do not count."""
        self.fill(998)
        self.assertEqual(self.take(group="shop.last"), [])
        self.failureResultOf(self.poll(group="shop.more"), TooManyGroups)
        self.assertIsNone(group_of(self.registry.snapshot(), "shop.more"))
        self.assertEqual(len(names_of(self.registry.snapshot(), "shop")), 1000)
        self.assertEqual(self.take(group="shop.g5"), [])
        self.wait(self.subscriber.forget_group("shop.g6", "test"))
        self.assertEqual(self.take(group="shop.more"), [])

    def test_refused_groups_leave_the_storage(self):
        """Nothing is kept in the storage for groups that are refused: names are cheap, and a tenant could fill the disk with them."""
        self.fill(999)
        for number in range(3):
            self.failureResultOf(self.poll(group=f"shop.more{number}"), TooManyGroups)
            self.assertEqual(self.committed(f"shop.more{number}"), {})

    def test_dry_run(self):
        """A dry run of a reset that would make one more is refused as the reset is; of a group that is there it is not."""
        self.fill(999)
        for dry_run in (True, False):
            self.failureResultOf(self.subscriber.reset("shop.more", "orders", None, "latest", dry_run, "test"), TooManyGroups)
            self.wait(self.subscriber.reset("shop.g5", "orders", None, "latest", dry_run, "test"))

    def test_refused_groups_leave_memory(self):
        """Groups that were refused do not stay in memory."""
        self.fill(999)
        for number in range(10):
            self.failureResultOf(self.poll(group=f"shop.more{number}"), TooManyGroups)
        self.clock.advance(15_000)
        self.assertEqual(self.metric("psubd_groups_loaded"), 0)


class ForgetTests(SubscriberTestCase):
    def test_while_a_topic_is_granted(self):
        """The application's own group, deleted while it is granted another topic: its place there stays where the grant put it."""
        self.create_topic("news")
        self.publish("news", count=3)
        self.take()
        self.storage.held.add("forget")
        forgotten = self.subscriber.forget_group("shop", "test")
        self.bind("shop", "news", start="latest")
        self.storage.release("forget")
        self.wait(forgotten)
        self.assertEqual(self.committed(), {("news", 0): 3})
        self.publish("news")
        self.assertEqual(self.drain(topics=("news",)), [("news", 0, 3)])

    def test_a_client_that_leaves(self):
        """A deletion whose client goes away is carried through."""
        self.take(group="shop.g")
        self.registry.held = True
        forgotten = self.subscriber.forget_group("shop.g", "test")
        forgotten.cancel()
        self.failureResultOf(forgotten, CancelledError)
        self.registry.release()
        self.assertIsNone(group_of(self.registry.snapshot(), "shop.g"))
        self.assertEqual(self.committed("shop.g"), {})


class NoticeTests(SubscriberTestCase):
    def setUp(self):
        super().setUp()
        self.told = []
        self.end = self.subscriber.listen(self.told.append)

    def test_partitions_added(self):
        """Partitions that were added are read from their first message, and the listeners are told, once for each group."""
        self.take()
        self.take(group="shop.g")
        self.wait(self.registrar.alter_topic("orders", {"partitions": 6}, "test", None))
        lines = [
            f"group.places_missing {group} orders partitions 3-5: no place was kept, read from the first message" for group in ("shop", "shop.g")
        ]
        self.assertEqual(sorted(self.told), lines)
        self.publish(partition=4)
        self.assertEqual(self.drain(), [("orders", 4, 0)])
        self.clock.advance(500)
        self.restart()
        self.subscriber.listen(self.told.append)
        self.drain()
        self.assertEqual(len(self.told), 2)

    def test_expired(self):
        """So with places that the storage lost."""
        self.publish(count=2)
        self.drain()
        self.restart()
        self.wait(self.storage.forget("shop", None))
        self.subscriber.listen(self.told.append)
        self.assertEqual(len(self.drain()), 2)
        self.assertEqual(self.told, ["group.places_missing shop orders partitions 0-2: no place was kept, read from the first message"])

    def test_nothing_to_tell(self):
        """A new group, one that is reset, and one whose binding is made again miss nothing."""
        self.publish(count=2)
        self.drain(group="shop.g")
        self.wait(self.subscriber.reset("shop.g", "orders", [0], "earliest", False, "test"))
        self.drain(group="shop.g")
        self.unbind("shop", "orders")
        self.bind("shop", "orders")
        self.drain(group="shop.g")
        self.drain()
        self.assertEqual(self.told, [])

    def test_revoked_while_it_is_loaded(self):
        """A place that goes because the binding, or the group, does is not missing."""
        self.publish()
        self.storage.held.add("committed")
        waiting = self.poll()
        self.unbind("shop", "orders")
        self.storage.release("committed")
        self.failureResultOf(waiting, TopicNotBound)
        self.assertEqual(self.told, [])

    def test_ended(self):
        """Who ended it hears no more."""
        self.end()
        self.take()
        self.wait(self.registrar.alter_topic("orders", {"partitions": 6}, "test", None))
        self.drain()
        self.assertEqual(self.told, [])


class CommitTests(SubscriberTestCase):
    def test_every_interval(self):
        """What is done is in the storage within the interval, and not written again while nothing changes."""
        self.publish(count=5)
        self.take(3)
        self.assertEqual(self.committed()["orders", 0], 0)
        self.clock.advance(500)
        self.assertEqual(self.committed()["orders", 0], 3)
        self.assertEqual(self.metric("psubd_commits_total"), 1)
        calls = self.storage.calls["commit"]
        self.clock.advance(5000)
        self.assertEqual(self.storage.calls["commit"], calls)

    def test_one_call_for_all_partitions(self):
        """A group's partitions are committed together."""
        for partition in range(3):
            self.publish(partition=partition)
        calls = self.storage.calls["commit"]
        self.drain()
        self.clock.advance(500)
        self.assertEqual(self.storage.calls["commit"], calls + 1)
        self.assertEqual(set(self.committed().values()), {1})

    def test_never_past_a_hole(self):
        """The committed offset stops at the first message that is not done; what is done past it stands beside it, and does not come again."""
        self.publish(count=6)
        deliveries = [self.wait(self.poll()) for _ in range(6)]
        for index in (1, 3, 4):
            deliveries[index].settle(1)
        self.clock.advance(500)
        commit = self.wait(self.storage.committed("shop"))[TopicPartition("orders", 0)]
        self.assertEqual(commit.offset, 0)
        self.assertEqual(decode(commit).done, ((1, 2), (3, 5)))
        self.crash()
        self.assertEqual([offset for _, _, offset in self.drain()], [0, 2, 5])

    def test_restart(self):
        """After a restart exactly what was not done comes again."""
        self.publish(count=10)
        self.take(4)
        self.wait(self.poll()).settle(1)
        lost = self.wait(self.poll(batch=2))
        self.restart()
        lost.settle(2)
        self.assertEqual([offset for _, _, offset in self.drain()], [5, 6, 7, 8, 9])
        self.assertEqual(self.drain(), [])
        self.restart()
        self.assertEqual(self.drain(), [])

    def test_crash(self):
        """After a crash what was not committed comes again too; nothing is skipped."""
        self.publish(count=10)
        self.take(4)
        self.clock.advance(500)
        self.take(3)
        self.crash()
        self.assertEqual([offset for _, _, offset in self.drain()], [4, 5, 6, 7, 8, 9])

    def test_gaps(self):
        """Offsets that compaction took are done: the committed offset passes them, and nobody waits for them."""
        self.publish(count=10)
        self.storage.hidden[TopicPartition("orders", 0)] = {0, 1, 4, 5, 9}
        self.assertEqual([offset for _, _, offset in self.drain()], [2, 3, 6, 7, 8])
        self.clock.advance(500)
        self.assertEqual(self.committed()["orders", 0], 10)

    def test_a_gap_alone(self):
        """Where only a gap is left, the group's place passes it and the lag is 0."""
        self.publish(count=5000)
        self.storage.hidden[TopicPartition("orders", 0)] = set(range(5000))
        self.assertEqual(self.take(), [])
        self.clock.advance(500)
        self.assertEqual(self.committed()["orders", 0], 5000)

    def test_storage_fails_for_a_while(self):
        """Commits that fail are tried again every interval, with the newest state; the failures are counted."""
        self.publish(count=6)
        self.take(2)
        self.storage.failing["commit"] = StorageUnavailable("away")
        self.clock.advance(500)
        self.take(2)
        self.clock.advance(500)
        self.assertEqual(self.committed()["orders", 0], 0)
        self.assertEqual(self.metric("psubd_commit_failures_total"), 2)
        del self.storage.failing["commit"]
        self.clock.advance(500)
        self.assertEqual(self.committed()["orders", 0], 4)

    def test_one_commit_at_a_time(self):
        """While a commit is on its way no other of the group is sent; what was done meanwhile goes with the next."""
        self.publish(count=6)
        self.take(2)
        self.storage.held.add("commit")
        calls = self.storage.calls["commit"]
        self.clock.advance(500)
        self.take(2)
        self.clock.advance(2000)
        self.assertEqual(self.storage.calls["commit"], calls + 1)
        self.storage.release("commit")
        self.assertEqual(self.committed()["orders", 0], 2)
        self.clock.advance(500)
        self.assertEqual(self.committed()["orders", 0], 4)

    def test_stop_with_a_commit_on_its_way(self):
        """The stop waits for the commit that is on its way, and commits what came after it."""
        self.publish(count=6)
        self.take(2)
        self.storage.held.add("commit")
        self.clock.advance(500)
        self.take(2)
        stopped = self.subscriber.stop()
        self.assertNoResult(stopped)
        self.storage.release("commit")
        self.wait(stopped)
        self.assertEqual(self.committed()["orders", 0], 4)

    def test_stop_with_a_commit_on_its_way_that_fails(self):
        """What a commit that fails during the stop had to say is committed once more."""
        self.publish(count=6)
        self.take(2)
        self.storage.held.add("commit")
        self.clock.advance(500)
        stopped = self.subscriber.stop()
        commit = self.storage.beneath.commit
        answers = [fail(StorageUnavailable("away"))]
        self.storage.beneath.commit = lambda group, places: answers.pop() if answers else commit(group, places)
        self.storage.release("commit")
        self.wait(stopped)
        self.assertEqual(self.committed()["orders", 0], 2)

    def test_stop_while_the_storage_is_away(self):
        """A storage that is away does not hold the stop; what was not committed comes again."""
        self.publish(count=3)
        self.take(2)
        self.storage.failing["commit"] = StorageUnavailable("away")
        self.wait(self.subscriber.stop())
        self.storage.failing.clear()
        self.subscriber = self.make_subscriber()
        self.assertEqual(len(self.drain()), 3)


class IdleTests(SubscriberTestCase):
    def test_leaves_memory(self):
        """A group that nobody polls leaves memory, committed first, and goes on from there."""
        self.publish(count=5)
        self.take(2)
        self.clock.advance(90_000)
        self.assertEqual(self.metric("psubd_groups_loaded"), 0)
        self.assertEqual(self.committed()["orders", 0], 2)
        self.assertEqual([offset for _, _, offset in self.drain()], [2, 3, 4])

    def test_stays_while_something_is_out(self):
        """A group with an answer that is still being written stays."""
        self.publish(count=2)
        delivery = self.wait(self.poll())
        for _ in range(10):
            self.clock.advance(15_000)
        delivery.settle(1)
        self.clock.advance(500)
        self.assertEqual(self.committed()["orders", 0], 1)

    def test_stays_while_it_cannot_be_committed(self):
        """A group whose place cannot be committed stays until it can."""
        self.publish(count=2)
        self.take(1)
        self.storage.failing["commit"] = StorageUnavailable("away")
        for _ in range(10):
            self.clock.advance(15_000)
        self.assertEqual(self.metric("psubd_groups_loaded"), 1)
        self.storage.failing.clear()
        for _ in range(10):
            self.clock.advance(15_000)
        self.assertEqual(self.metric("psubd_groups_loaded"), 0)
        self.assertEqual(self.committed()["orders", 0], 1)


class MemoryTests(SubscriberTestCase):
    settings = {"window_bytes": 1 << 20}

    def test_reading_ahead_is_bounded(self):
        """Groups that nobody waits on give their memory back when it runs out, and lose nothing."""
        for partition in range(3):
            self.publish(partition=partition, count=40, size=20_000)
        for number in range(8):
            self.assertEqual(len(self.take(1, group=f"shop.g{number}")), 1)
        self.assertLess(self.subscriber._windows.held, 3 << 20)
        for number in range(8):
            found = self.drain(group=f"shop.g{number}")
            self.assertEqual(len(found), 119)
            self.assertEqual(len(set(found)), 119)
        self.assertEqual(self.subscriber._windows.held, 0)

    def test_large_messages(self):
        """Messages as large as the budget pass, one after another."""
        self.publish(count=4, size=1 << 20)
        self.assertEqual([len(places(self.wait(self.poll()))) for _ in range(4)], [1] * 4)
