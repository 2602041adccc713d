"""Moving a cursor, in use or not; how groups stand."""

from twisted.internet.defer import CancelledError

from psubd.errors import BadParameter, NotFound, RegistryUnavailable, StorageTimeout, StorageUnavailable, TopicMissing, TopicNotBound
from psubd.services.group_records import group_of
from tests.services.house import SubscriberTestCase


class ResetTests(SubscriberTestCase):
    def reset(self, to, partitions=None, group="shop", topic="orders", dry_run=False):
        return self.subscriber.reset(group, topic, partitions, to, dry_run, "test")

    def offsets(self):
        return [(partition, offset) for _, partition, offset in self.drain()]

    def test_not_in_use(self):
        """A group that is not loaded goes on where it was put."""
        self.publish(count=5)
        self.assertEqual(self.wait(self.reset({0: 3})), {0: 3})
        self.assertEqual(self.committed()["orders", 0], 3)
        self.assertEqual(self.offsets(), [(0, 3), (0, 4)])

    def test_in_use(self):
        """A group in use goes on there at once, a poll that waits too; what was out of the old place is void."""
        self.publish(count=5)
        self.drain()
        waiting = self.poll()
        self.assertEqual(self.wait(self.reset("earliest")), {0: 0, 1: 0, 2: 0})
        out = self.wait(waiting)
        self.wait(self.reset({0: 4}))
        out.settle(1)
        self.assertEqual(self.offsets(), [(0, 4)])
        self.clock.advance(500)
        self.restart()
        self.assertEqual(self.offsets(), [])

    def test_ends_and_time(self):
        """To either end of the log, or to a time."""
        for hour in range(5):
            self.publish(timestamp=1000 + hour)
        self.assertEqual(self.wait(self.reset("latest")), {0: 5, 1: 0, 2: 0})
        self.assertEqual(self.offsets(), [])
        self.assertEqual(self.wait(self.reset(("timestamp", 1003))), {0: 3, 1: 0, 2: 0})
        self.assertEqual(self.offsets(), [(0, 3), (0, 4)])

    def test_the_other_partitions_stay(self):
        """Partitions that are not named keep their place, what is done past it and what is out, in memory and in the storage."""
        for partition in range(2):
            self.publish(partition=partition, count=4)
        self.drain()
        self.publish(partition=1, count=4)
        out = [self.wait(self.poll()) for _ in range(3)]
        out[1].settle(1)
        self.assertEqual(self.wait(self.reset("earliest", [0])), {0: 0})
        out[0].settle(1)
        self.assertEqual(sorted(self.offsets()), [(0, 0), (0, 1), (0, 2), (0, 3), (1, 7)])
        self.clock.advance(500)
        self.crash()
        self.assertEqual(self.offsets(), [(1, 6)])

    def test_the_other_partitions_stay_when_not_loaded(self):
        """The same for a group that is not loaded."""
        for partition in range(2):
            self.publish(partition=partition, count=4)
        self.drain()
        self.restart()
        self.wait(self.reset("earliest", [0]))
        self.assertEqual(self.offsets(), [(0, 0), (0, 1), (0, 2), (0, 3)])

    def test_dry_run(self):
        """A dry run says where it would go, and changes nothing."""
        self.publish(count=5)
        self.take(2)
        serial = self.registry.snapshot().serial
        self.assertEqual(self.wait(self.reset("latest", dry_run=True)), {0: 5, 1: 0, 2: 0})
        self.assertEqual(self.registry.snapshot().serial, serial)
        self.assertEqual(self.offsets(), [(0, 2), (0, 3), (0, 4)])

    def test_a_new_named_group(self):
        """A named group that was never read is made there; its other partitions begin as the binding says."""
        self.publish(count=5)
        self.publish(partition=1, count=5)
        self.wait(self.reset({0: 4}, group="shop.g"))
        self.assertIsNotNone(group_of(self.registry.snapshot(), "shop.g"))
        self.assertEqual(len(self.drain(group="shop.g")), 6)

    def test_refused(self):
        """What does not lie in the log, or is no partition, is refused, the field is named, and nothing changes."""
        self.publish(count=5)
        serial = self.registry.snapshot().serial
        cases = [({0: 6}, None, "to.offsets"), ({0: -1}, None, "to.offsets"), ({3: 0}, None, "to.offsets"), ("earliest", [0, 9], "partitions")]
        cases += [({0: 1}, [0, 1], "to.offsets"), ({0: 1, 1: 0}, [0], "to.offsets")]
        for to, partitions, field in cases:
            error = self.failureResultOf(self.reset(to, partitions), BadParameter).value
            self.assertIn(field, error.detail)
        self.failureResultOf(self.reset("earliest", topic="secrets"), TopicNotBound)
        self.failureResultOf(self.reset("earliest", group="owner"), TopicNotBound)
        self.failureResultOf(self.reset("earliest", group="../x"), BadParameter)
        self.assertEqual(self.registry.snapshot().serial, serial)
        self.assertEqual(len(self.drain()), 5)

    def test_topic_gone(self):
        """A topic that is gone from the storage is 404."""
        self.wait(self.storage.delete_topic("orders"))
        self.failureResultOf(self.reset("earliest"), TopicMissing)

    def test_registry_away(self):
        """Where the registry cannot be written nothing is moved, and what is out stays out."""
        self.publish(count=5)
        out = self.wait(self.poll(batch=2))
        self.registry.refuse = RegistryUnavailable("away")
        self.failureResultOf(self.reset("latest"), RegistryUnavailable)
        out.settle(2)
        self.assertEqual(self.offsets(), [(0, 2), (0, 3), (0, 4)])
        self.registry.refuse = None

    def test_storage_away(self):
        """Where the place cannot be kept the caller is told; a group in use stands there all the same and is committed later."""
        self.publish(count=5)
        self.drain()
        self.clock.advance(500)
        self.storage.failing["commit"] = StorageUnavailable("away")
        self.failureResultOf(self.reset({0: 3}), StorageUnavailable)
        self.storage.failing.clear()
        self.clock.advance(500)
        self.crash()
        self.assertEqual(self.offsets(), [(0, 3), (0, 4)])

    def test_a_commit_on_its_way(self):
        """A commit of the old place that was on its way does not undo a reset."""
        self.publish(count=5)
        self.take(4)
        self.storage.held.add("commit")
        self.clock.advance(500)
        reset = self.reset({0: 1})
        self.assertNoResult(reset)
        self.storage.release("commit")
        self.wait(reset)
        self.crash()
        self.assertEqual([offset for _, offset in self.offsets()], [1, 2, 3, 4])

    def test_while_it_runs(self):
        """While a reset runs nothing is delivered from the place that was left, and a poll that waits gets the new place's message."""
        self.publish(count=5)
        self.drain()
        waiting = self.poll()
        self.storage.held.add("commit")
        reset = self.reset({0: 2})
        self.publish()
        self.assertNoResult(waiting)
        self.storage.release("commit")
        self.wait(reset)
        self.assertEqual(self.got(waiting), [("orders", 0, 2)])

    def test_a_poll_that_comes_meanwhile(self):
        """A group that is not loaded is not loaded half way through its reset."""
        self.publish(count=5)
        self.storage.held.add("commit")
        reset = self.reset({0: 4})
        waiting = self.poll()
        self.assertNoResult(waiting)
        self.storage.release("commit")
        self.wait(reset)
        self.assertEqual(self.got(waiting), [("orders", 0, 4)])

    def test_a_client_that_leaves(self):
        """A reset whose client goes away in the middle is carried through: the named partition is moved, the others keep their places."""
        for partition in range(2):
            self.publish(partition=partition, count=5)
        self.drain()
        self.restart()
        self.storage.held.add("commit")
        reset = self.reset({0: 4})
        reset.cancel()
        self.failureResultOf(reset, CancelledError)
        self.storage.release("commit")
        self.assertEqual(self.offsets(), [(0, 4)])

    def test_a_client_that_leaves_before_the_registry_has_it(self):
        """The same where it goes away while the registry writes, of a group in use."""
        for partition in range(2):
            self.publish(partition=partition, count=5)
        self.drain()
        self.registry.held = True
        reset = self.reset({0: 4})
        reset.cancel()
        self.failureResultOf(reset, CancelledError)
        self.registry.release()
        self.assertEqual(self.offsets(), [(0, 4)])

    def test_storage_away_not_loaded(self):
        """Where nothing could be kept for a group that is not loaded, nothing is moved: neither what was named nor what was not."""
        for partition in range(2):
            self.publish(partition=partition, count=5)
        self.drain()
        self.publish()
        self.restart()
        self.storage.failing["commit"] = StorageUnavailable("away")
        self.failureResultOf(self.reset({0: 3}), StorageUnavailable)
        self.storage.failing.clear()
        self.assertEqual(self.offsets(), [(0, 5)])
        self.wait(self.reset({0: 3}))
        self.assertEqual(self.offsets(), [(0, 3), (0, 4), (0, 5)])

    def test_storage_away_new_group(self):
        """Where the place of a new group could not be kept, there is no such group."""
        self.storage.failing["commit"] = StorageUnavailable("away")
        self.failureResultOf(self.reset("latest", group="shop.g"), StorageUnavailable)
        self.assertIsNone(group_of(self.registry.snapshot(), "shop.g"))
        self.storage.failing.clear()

    def test_storage_away_new_topic(self):
        """A group that stood on another topic stands on that one only."""
        self.create_topic("news")
        self.bind("shop", "news")
        self.wait(self.reset("latest", group="shop.g"))
        self.storage.failing["commit"] = StorageUnavailable("away")
        self.failureResultOf(self.reset("latest", group="shop.g", topic="news"), StorageUnavailable)
        self.storage.failing.clear()
        self.assertEqual(list(group_of(self.registry.snapshot(), "shop.g").topics), ["orders"])

    def test_storage_in_doubt(self):
        """Where it cannot be told whether the place was kept, the reset stands: what it left counts no more."""
        self.publish(count=5)
        self.wait(self.reset({0: 2}))
        self.storage.failing["commit"] = StorageTimeout("no answer")
        self.failureResultOf(self.reset({0: 4}), StorageTimeout)
        self.storage.failing.clear()
        self.assertEqual([offset for _, offset in self.offsets()], [0, 1, 2, 3, 4])

    def test_revoked_meanwhile(self):
        """A binding that goes while the storage fails: the reset's own failure is told, and the group does not stand on the topic again."""
        self.storage.held.add("commit")
        reset = self.reset("latest")
        self.unbind("shop", "orders")
        self.storage.failing["commit"] = StorageUnavailable("away")
        self.storage.release("commit")
        self.failureResultOf(reset, StorageUnavailable)
        self.storage.failing.clear()
        self.assertEqual(group_of(self.registry.snapshot(), "shop").topics, {})


class ViewTests(SubscriberTestCase):
    def items(self, group="shop"):
        view = self.wait(self.subscriber.group(group))
        return {(item.topic, item.partition): item for item in view.items}

    def test_not_loaded(self):
        """A group that is not loaded stands where the storage says; the oldest message's age is read from the log."""
        self.publish(count=5, timestamp=self.clock.epoch_ms())
        self.clock.advance(2000)
        item = self.items()["orders", 0]
        self.assertEqual((item.committed, item.end, item.lag, item.leased, item.oldest_ms, item.node), (0, 5, 5, 0, 2000, "memory"))
        item = self.items()["orders", 1]
        self.assertEqual((item.committed, item.end, item.lag, item.oldest_ms), (0, 0, 0, None))

    def test_loaded(self):
        """A loaded group stands where it stands now, not where it was last committed; what is done past a hole is no lag."""
        self.publish(count=6)
        self.take(1)
        out = [self.wait(self.poll()) for _ in range(3)]
        out[1].settle(1)
        item = self.items()["orders", 0]
        self.assertEqual((item.committed, item.end, item.lag, item.leased, item.oldest_ms), (1, 6, 4, 2, 0))
        self.clock.advance(500)
        self.restart()
        item = self.items()["orders", 0]
        self.assertEqual((item.committed, item.end, item.lag, item.leased), (1, 6, 4, 0))

    def test_unknown(self):
        """A group that is not there is 404."""
        self.failureResultOf(self.subscriber.group("shop.none"), NotFound)

    def test_list(self):
        """All of an application's groups by name, no other's; or everybody's."""
        self.create_application("shop-2")
        self.bind("shop-2", "orders")
        for group in ("shop.b", "shop.a", "shop-2.x"):
            self.take(group=group)
        views = self.wait(self.subscriber.groups("shop"))
        self.assertEqual([(view.group, view.application) for view in views], [("shop", "shop"), ("shop.a", "shop"), ("shop.b", "shop")])
        self.assertEqual([view.group for view in self.wait(self.subscriber.groups(None))], ["shop", "shop-2", "shop-2.x", "shop.a", "shop.b"])
        self.assertEqual(self.wait(self.subscriber.groups("none")), [])

    def test_a_list_asks_little(self):
        """A list of many groups asks for each topic's bounds once, and reads one message for all that stand at the same place."""
        self.publish(count=5)
        for number in range(50):
            self.take(1, group=f"shop.g{number}")
        self.restart()
        self.storage.calls.clear()
        views = self.wait(self.subscriber.groups("shop"))
        self.assertEqual(len(views), 51)
        self.assertEqual(self.storage.calls["bounds"], 1)
        self.assertEqual(self.storage.calls["committed"], 51)
        self.assertEqual(self.storage.calls["read"], 2)

    def test_topic_gone(self):
        """A topic that is gone from the storage has no items; the others are told."""
        self.create_topic("news")
        self.bind("shop", "news")
        self.wait(self.storage.delete_topic("orders"))
        self.assertEqual(list(self.items()), [("news", 0)])

    def test_topic_goes_meanwhile(self):
        """One that goes while it is looked at does not spoil the list."""
        self.publish()
        self.storage.failing["read orders"] = TopicMissing("gone")
        [view] = self.wait(self.subscriber.groups(None))
        self.assertEqual([(item.lag, item.oldest_ms) for item in view.items], [(1, None), (0, None), (0, None)])

    def test_storage_away(self):
        """A storage that is away is told as it is."""
        self.storage.failing["bounds"] = StorageUnavailable("away")
        self.failureResultOf(self.subscriber.group("shop"), StorageUnavailable)
        self.failureResultOf(self.subscriber.groups(None), StorageUnavailable)
