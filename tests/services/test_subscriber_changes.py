"""What changes under a group: bindings, keys, resets by others, the log itself, the storage's health."""

import msgspec

from psubd.errors import BadCredentials, NotFound, StorageTimeout, StorageUnavailable, TopicMissing, TopicNotBound
from psubd.interfaces import Plan, Put
from psubd.model import Commit, TopicPartition, TopicSpec
from psubd.services.group_records import group_of
from tests.services.house import SubscriberTestCase, places


class RevocationTests(SubscriberTestCase):
    def test_named_topic(self):
        """A poll that names a topic ends with 403 the moment it is revoked."""
        waiting = self.poll(topics=("orders",))
        self.unbind("shop", "orders")
        self.failureResultOf(waiting, TopicNotBound)

    def test_the_rest_goes_on(self):
        """A poll over all topics goes on with the rest, and ends when none is left."""
        self.create_topic("news")
        self.bind("shop", "news")
        waiting = self.poll()
        self.unbind("shop", "orders")
        self.assertNoResult(waiting)
        self.publish("orders")
        self.assertNoResult(waiting)
        self.unbind("shop", "news")
        self.failureResultOf(waiting, TopicNotBound)

    def test_sub_taken_away(self):
        """A PUT without sub revokes as a DELETE does."""
        waiting = self.poll()
        self.bind("shop", "orders", sub=False, pub=True)
        self.failureResultOf(waiting, TopicNotBound)

    def test_application_deleted(self):
        """When the application goes, its polls end 401, also those of its named groups, and its groups leave memory."""
        waiting = [self.poll(), self.poll(group="shop.g", topics=("orders",))]
        self.wait(self.registrar.delete_application("shop", True, "test", None))
        for deferred in waiting:
            self.failureResultOf(deferred, BadCredentials)
        self.assertEqual(self.metric("psubd_groups_loaded"), 0)

    def test_key_ends(self):
        """A poll ends 401 when the key that it showed ends, be it by rotation or by its overlap; one with the new key goes on."""
        old = self.poll()
        _, key = self.wait(self.registrar.rotate("shop", "subkey", 5, "test", None))
        self.keys["shop"]["subkey"] = key
        new = self.poll()
        self.clock.advance(4000)
        self.assertNoResult(old)
        self.clock.advance(1500)
        self.failureResultOf(old, BadCredentials)
        self.assertNoResult(new)

    def test_bound_again(self):
        """A binding made again inherits nothing: leases of the former one are void, and the group begins as the new one says."""
        self.publish(count=4)
        self.take(1)
        out = self.wait(self.poll())
        self.unbind("shop", "orders")
        self.bind("shop", "orders", start="latest")
        out.settle(1)
        self.publish()
        self.assertEqual(self.drain(), [("orders", 0, 4)])
        self.clock.advance(500)
        self.assertEqual(self.committed()["orders", 0], 5)

    def test_named_group_bound_again(self):
        """A named group begins anew on a topic that was bound anew."""
        self.publish(count=2)
        self.assertEqual(len(self.drain(group="shop.g")), 2)
        self.clock.advance(500)
        self.unbind("shop", "orders")
        self.assertEqual(self.committed("shop.g"), {})
        self.bind("shop", "orders")
        self.assertEqual(len(self.drain(group="shop.g")), 2)

    def test_revoked_while_it_loads(self):
        """A topic that is revoked while its group loads is not delivered."""
        self.publish()
        self.storage.held.add("committed")
        waiting = self.poll(topics=("orders",))
        self.unbind("shop", "orders")
        self.failureResultOf(waiting, TopicNotBound)
        self.storage.release("committed")

    def test_bound_again_while_it_loads(self):
        """A topic that is revoked and bound again while its group loads is read as the new binding says."""
        self.publish(count=2)
        self.storage.held.add("committed")
        waiting = self.poll()
        self.unbind("shop", "orders")
        self.bind("shop", "orders", start="latest")
        self.failureResultOf(waiting, TopicNotBound)
        waiting = self.poll()
        self.storage.release("committed")
        self.assertNoResult(waiting)
        self.publish()
        self.assertEqual(self.got(waiting), [("orders", 0, 2)])

    def test_reset_by_another_node(self):
        """A reset that another node registered voids what is loaded here; without a place in the storage nothing is skipped."""
        self.publish(count=3)
        out = self.wait(self.poll(batch=2))

        def plan(snapshot, serial):
            group = group_of(snapshot, "shop")
            topics = {name: msgspec.structs.replace(record, reset=serial) for name, record in group.topics.items()}
            return Plan("test", (Put("/groups/shop", msgspec.json.encode(msgspec.structs.replace(group, topics=topics))),))

        self.wait(self.registry.change("test", plan))
        out.settle(2)
        self.assertEqual([offset for _, _, offset in self.drain()], [0, 1, 2])


class LogTests(SubscriberTestCase):
    def test_partitions_added(self):
        """Partitions that are added are read from their first message, by polls that wait already too."""
        waiting = self.poll()
        self.wait(self.storage.grow("orders", 5))
        self.clock.advance(200)
        self.publish(partition=4)
        self.clock.advance(200)
        self.assertEqual(self.got(waiting), [("orders", 4, 0)])

    def test_partitions_added_found_at_once(self):
        """A poll that does not wait finds the messages of a partition that was added."""
        self.take()
        self.storage.held.add("watch")
        self.wait(self.storage.grow("orders", 4))
        self.publish(partition=3)
        self.assertEqual(self.take(), [("orders", 3, 0)])

    def test_partitions_added_after_a_restart(self):
        """A partition that was added while the group was not loaded is read from its first message."""
        self.publish()
        self.drain()
        self.wait(self.subscriber.stop())
        self.wait(self.storage.grow("orders", 4))
        self.publish(partition=3, count=2)
        self.subscriber = self.make_subscriber()
        self.assertEqual(self.drain(), [("orders", 3, 0), ("orders", 3, 1)])

    def test_retention(self):
        """Where retention took messages before the cursor came to them, the group goes on at the log's start."""
        for hour in range(5):
            self.publish(timestamp=self.clock.epoch_ms() - (10 - hour) * 3_600_000)
        self.take(1)
        self.clock.advance(500)
        self.wait(self.subscriber.stop())
        self.wait(self.storage.configure("orders", {"retention_ms": int(7.5 * 3_600_000)}))
        self.subscriber = self.make_subscriber()
        self.assertEqual([offset for _, _, offset in self.drain()], [3, 4])

    def test_retention_while_loaded(self):
        """The same for a group in use, be the messages unread or on their way back to it; the listeners are told what was skipped."""
        told = []
        self.subscriber.listen(told.append)
        self.publish(count=2, timestamp=self.clock.epoch_ms() - 10 * 3_600_000)
        held = self.lease(2)
        self.publish(count=2, timestamp=self.clock.epoch_ms() - 9 * 3_600_000)
        self.publish()
        self.subscriber._live["shop"].shed()
        self.wait(self.storage.configure("orders", {"retention_ms": int(8.5 * 3_600_000)}))
        self.nack(*held)
        self.assertEqual([offset for _, _, offset in self.drain()], [4])
        skipped = "group.skipped shop orders partition 0: retention took offsets {} to {}, which were not done"
        self.assertEqual(told, [skipped.format(0, 1), skipped.format(2, 3)])
        self.clock.advance(500)
        self.assertEqual(self.committed()["orders", 0], 5)

    def test_topic_gone(self):
        """A topic that is gone from the storage: 404 for a poll that names it, the others go on; back, it is read from its first message."""
        self.create_topic("news")
        self.bind("shop", "news")
        named, every = self.poll(topics=("orders", "news")), self.poll()
        self.wait(self.storage.delete_topic("orders"))
        self.failureResultOf(named, TopicMissing)
        self.assertNoResult(every)
        self.failureResultOf(self.poll(topics=("orders",)), TopicMissing)
        self.publish("news")
        self.assertEqual(self.got(every), [("news", 0, 0)])
        every = self.poll()
        self.wait(self.storage.create_topic(TopicSpec("orders", 1)))
        self.publish("orders")
        self.clock.advance(1000)
        self.assertEqual(self.got(every), [("orders", 0, 0)])

    def test_only_topic_gone(self):
        """A poll over all topics whose only one is gone says so."""
        self.wait(self.storage.delete_topic("orders"))
        self.failureResultOf(self.poll(), TopicMissing)

    def test_made_again(self):
        """A topic that was made again under a loaded group is read from its first message; leases of the old one are void."""
        self.publish(count=5)
        self.take(3)
        out = self.wait(self.poll())
        self.wait(self.storage.delete_topic("orders"))
        self.wait(self.storage.create_topic(TopicSpec("orders", 2)))
        self.publish(count=2)
        self.publish(partition=1)
        out.settle(1)
        self.assertEqual(self.drain(), [("orders", 0, 0), ("orders", 0, 1), ("orders", 1, 0)])
        self.clock.advance(500)
        self.restart()
        self.assertEqual(self.drain(), [])

    def test_made_again_while_it_was_not_loaded(self):
        """The same for a group that was not loaded: commits of the old topic count no more, even where they are left."""
        self.publish(count=5)
        self.drain()
        self.wait(self.subscriber.stop())
        left = self.wait(self.storage.committed("shop"))
        self.wait(self.storage.delete_topic("orders"))
        self.wait(self.storage.create_topic(TopicSpec("orders", 3)))
        self.wait(self.storage.commit("shop", left))
        self.publish(count=6)
        self.subscriber = self.make_subscriber()
        self.assertEqual(len(self.drain()), 6)

    def cut(self, end):
        """The log loses its tail, as after an unclean election."""
        log = self.storage.beneath._shelves["orders"].logs[0]
        del log.messages[end:]
        log.end = end

    def test_log_cut_while_loaded(self):
        """A log that ends before the group's place: it begins as a new group would, and nothing that is there is lost."""
        self.publish(count=5)
        self.drain()
        self.cut(2)
        self.publish()
        self.assertEqual(self.drain(), [("orders", 0, 0), ("orders", 0, 1), ("orders", 0, 2)])

    def test_log_cut_latest(self):
        """With start latest it goes on at the end."""
        self.create_topic("news")
        self.bind("shop", "orders", start="latest")
        self.publish(count=5)
        self.drain()
        self.wait(self.subscriber.stop())
        self.cut(2)
        self.subscriber = self.make_subscriber()
        self.assertEqual(self.drain(), [])
        self.publish()
        self.assertEqual(self.drain(), [("orders", 0, 2)])

    def test_done_past_the_end(self):
        """Where nobody knows where a log was cut, nothing past the first hole counts as done: new messages may have taken those offsets."""
        self.publish(count=6)
        out = [self.wait(self.poll()) for _ in range(6)]
        for delivery in out[2:]:
            delivery.settle(1)
        self.clock.advance(500)
        self.crash()
        self.cut(3)
        self.assertEqual([offset for _, _, offset in self.drain()], [0, 1, 2])
        self.publish(count=2)
        self.assertEqual([offset for _, _, offset in self.drain()], [3, 4])

    def test_foreign_commit(self):
        """A commit that psubd did not write counts for nothing: from the first message, repeated, never skipped."""
        self.publish(count=3)
        self.wait(self.storage.commit("shop", {TopicPartition("orders", 0): Commit(2, "kafka-tool")}))
        self.assertEqual(len(self.drain()), 3)


class TroubleTests(SubscriberTestCase):
    def test_cannot_load(self):
        """While the storage is away polls fail with 503 at once; when it is back the next is served."""
        self.publish()
        for method in ("committed", "describe", "bounds"):
            self.storage.failing[method] = StorageUnavailable("away")
            self.failureResultOf(self.poll(), StorageUnavailable)
            self.failureResultOf(self.poll(timeout=0), StorageUnavailable)
            self.storage.failing.clear()
            self.subscriber._live.get("shop").end()
        self.assertEqual(self.take(), [("orders", 0, 0)])

    def test_in_doubt(self):
        """A storage that does not answer in time is told as it is."""
        self.storage.failing["committed"] = StorageTimeout("no answer")
        self.failureResultOf(self.poll(), StorageTimeout)

    def test_read_fails_while_it_waits(self):
        """A poll that waits fails when nothing of what it asks for can be read any more."""
        waiting = self.poll()
        self.storage.failing["read"] = StorageUnavailable("away")
        self.publish(partition=0)
        self.assertNoResult(waiting)
        self.publish(partition=1)
        self.publish(partition=2)
        self.failureResultOf(waiting, StorageUnavailable)

    def test_one_partition_away(self):
        """While one partition is away the others are read; an answer that could not look at it is never empty, but says so."""
        self.take()
        self.storage.failing["read orders 0"] = StorageUnavailable("no leader")
        waiting = self.poll(timeout=5000)
        self.publish(partition=0)
        self.publish(partition=1)
        self.assertEqual(self.got(waiting), [("orders", 1, 0)])
        waiting = self.poll(timeout=5000)
        self.assertNoResult(waiting)
        for _ in range(5):
            self.clock.advance(1000)
        self.failureResultOf(waiting, StorageUnavailable)
        self.failureResultOf(self.poll(timeout=0), StorageUnavailable)

    def test_comes_back_by_itself(self):
        """A poll that waits gets the message of a partition that comes back, without anybody's help."""
        self.take()
        self.storage.failing["read orders 0"] = StorageUnavailable("no leader")
        waiting = self.poll()
        self.publish(partition=0)
        self.clock.advance(3000)
        self.assertNoResult(waiting)
        self.storage.failing.clear()
        self.clock.advance(1000)
        self.assertEqual(self.got(waiting), [("orders", 0, 0)])

    def test_watch_fails(self):
        """A watch that fails is trouble like any other, and is set again."""
        self.storage.failing["watch"] = StorageUnavailable("away")
        self.failureResultOf(self.poll(), StorageUnavailable)
        self.storage.failing.clear()
        waiting = self.poll()
        self.publish()
        self.assertEqual(self.got(waiting), [("orders", 0, 0)])

    def test_nothing_lost(self):
        """Over trouble of every kind each message comes once."""
        for partition in range(3):
            self.publish(partition=partition, count=40)
        found = []
        for step in range(60):
            method = ("read", "committed", "commit", "bounds", "watch", "describe")[step % 6]
            self.storage.failing = {method: StorageUnavailable("away")} if step % 3 else {}
            deferred = self.poll(batch=5, timeout=0)
            deferred.addErrback(lambda failure: failure.trap(StorageUnavailable) and None)
            delivery = self.wait(deferred)
            if delivery is not None:
                found += places(delivery)
                delivery.settle(len(delivery.messages))
            self.clock.advance(300)
            if step % 20 == 19:
                self.storage.failing = {}
                self.clock.advance(500)
                self.restart()
        self.storage.failing = {}
        found += self.drain()
        self.assertEqual(len(found), 120)
        self.assertEqual(len(set(found)), 120)

    def test_a_watch_that_wakes_for_nothing(self):
        """A storage that wakes who waits again and again for nothing is not asked in a busy loop."""
        self.take()
        waiting = self.poll()
        for _ in range(5):
            self.storage.beneath._watches.changed("orders")
        reads = self.storage.calls["read"]
        self.assertLess(reads, 40)
        self.clock.advance(200)
        self.publish()
        self.clock.advance(200)
        self.assertEqual(self.got(waiting), [("orders", 0, 0)])


class ForgottenTests(SubscriberTestCase):
    def test_polls_end(self):
        """Polls that wait on a group that is deleted end 404; the next makes it anew."""
        self.publish(count=2)
        self.drain(group="shop.g")
        waiting = self.poll(group="shop.g")
        self.wait(self.subscriber.forget_group("shop.g", "test"))
        self.failureResultOf(waiting, NotFound)
        self.assertEqual(self.committed("shop.g"), {})
        self.assertIsNone(group_of(self.registry.snapshot(), "shop.g"))
        self.assertEqual(len(self.drain(group="shop.g")), 2)

    def test_unknown(self):
        """A group that is not there cannot be deleted."""
        self.failureResultOf(self.subscriber.forget_group("shop.none", "test"), NotFound)

    def test_a_commit_on_its_way(self):
        """A commit that was on its way does not outlive the group."""
        self.publish(count=2)
        self.take(group="shop.g")
        self.storage.held.add("commit")
        self.clock.advance(500)
        forgotten = self.subscriber.forget_group("shop.g", "test")
        self.assertNoResult(forgotten)
        self.storage.release("commit")
        self.wait(forgotten)
        self.assertEqual(self.committed("shop.g"), {})
