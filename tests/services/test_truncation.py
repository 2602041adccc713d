"""Logs that change under groups: cut, made again, taken by retention. What is gone does not count, what is there is neither skipped nor lost."""

import msgspec

from psubd.delivery.cursor import decode
from psubd.errors import RegistryUnavailable, StorageTimeout, StorageUnavailable
from psubd.model import Bounds, TopicPartition, TopicSpec
from psubd.services.group_records import group_of
from tests.services.house import SubscriberTestCase, places
from tests.services.test_carried import Drawer


class LogTestCase(SubscriberTestCase):
    """Explicit leases on ``orders``, and a log that can be cut."""

    def setUp(self):
        self.told = []
        super().setUp()

    def built(self, subscriber):
        subscriber.listen(self.told.append)

    def lease(self, count=1, group="shop"):
        """Tokens by partition and offset."""
        found = {}
        while len(found) < count:
            delivery = self.wait(self.poll(group=group, batch=count - len(found), ack="explicit", ack_timeout_ms=3_600_000))
            delivery.settle(len(delivery.messages))
            found |= {(each.partition, each.message.offset): each.token for each in delivery.messages}
        return found

    def ack(self, *tokens):
        """How many took effect, and which did not."""
        verdict = self.wait(self.subscriber.ack(self.grant(), tokens))
        return verdict.count, list(verdict.lost)

    def truncate(self, end, partition=0, behind=0):
        """The log is cut, and has ``behind`` new messages when anybody looks."""
        held, self.storage.beneath._watches.changed = self.storage.beneath._watches.changed, lambda topic: None
        self.storage.beneath.truncate("orders", partition, end)
        self.storage.beneath._watches.changed = held
        self.publish(partition=partition, count=behind)
        self.storage.beneath._watches.changed("orders")

    def cursor(self, partition=0, group="shop"):
        return decode(self.wait(self.storage.committed(group))[TopicPartition("orders", partition)])

    def record(self, group="shop"):
        return group_of(self.registry.snapshot(), group).topics["orders"]

    def offsets(self, **settings):
        return [(partition, offset) for _, partition, offset in self.drain(**settings)]

    def cuts(self):
        return [line for line in self.told if line.startswith("group.log_truncated")]


class LoadedTests(LogTestCase):
    def test_cut_and_grown_over(self):
        """A group in use whose log was cut goes on where that ended, though there are more messages now than it had read; and it is told."""
        self.publish(count=5)
        self.drain()
        self.truncate(2, behind=6)
        self.assertEqual(self.offsets(), [(0, offset) for offset in range(2, 8)])
        self.assertEqual(self.cuts(), ["group.log_truncated shop orders partition 0: the log was cut below offset 5; goes on at 2"])
        self.assertEqual(self.offsets(), [])
        self.clock.advance(500)
        self.restart()
        self.assertEqual(self.offsets(), [])
        self.assertEqual(len(self.cuts()), 1)

    def test_cut_and_not_grown(self):
        """The same where nothing came yet: the next message is delivered, a poll that waits gets it."""
        self.publish(count=5)
        self.drain()
        waiting = self.poll()
        self.truncate(2)
        self.assertNoResult(waiting)
        self.publish()
        self.assertEqual(self.got(waiting), [("orders", 0, 2)])

    def test_leases_and_acks_of_the_old_log(self):
        """They count no more, be the message gone or not; what was not done before the cut comes again. The topic's other partitions go on."""
        self.publish(count=6)
        self.publish(partition=1, count=2)
        tokens = self.lease(8)
        self.assertEqual(self.ack(*[tokens[0, offset] for offset in (1, 4, 5)], tokens[1, 0]), (4, []))
        self.truncate(3, behind=9)
        self.assertEqual(self.offsets(), [(0, offset) for offset in (0, 2, *range(3, 12))])
        self.assertEqual(self.ack(tokens[0, 0], tokens[0, 3], tokens[0, 5]), (0, [tokens[0, 0], tokens[0, 3], tokens[0, 5]]))
        self.assertEqual(self.ack(tokens[1, 1]), (1, []))
        self.clock.advance(500)
        self.assertEqual((self.cursor(0).offset, self.cursor(1).offset), (12, 2))
        self.assertEqual((self.cursor(0).since, self.cursor(1).since), (self.record().reset, 0))

    def test_new_leases_count(self):
        """Of what comes after the cut, though the offsets were leased before."""
        self.publish(count=5)
        old = self.lease(5)
        self.truncate(2, behind=3)
        new = self.lease(5)
        self.assertEqual(sorted(new), sorted(old))
        self.assertEqual(self.ack(*new.values()), (5, []))
        self.clock.advance(500)
        self.crash()
        self.assertEqual(self.offsets(), [])

    def test_another_leader_with_all_that_was_read(self):
        """A term that ended behind what was read cuts nothing: no lease is lost, nothing comes again, nobody is told."""
        self.publish(count=5)
        tokens = self.lease(5)
        reset = self.record().reset
        self.truncate(5, behind=2)
        self.assertEqual(self.offsets(), [(0, 5), (0, 6)])
        self.assertEqual(self.ack(*tokens.values()), (5, []))
        self.assertEqual((self.cuts(), self.record().reset), ([], reset))

    def test_leases_while_it_is_looked(self):
        """While it is looked whether the log was cut nobody can tell of its leases: the call fails, the others take effect, and it may be repeated;
        where the log was not cut they go on."""
        self.publish(count=5)
        self.publish(partition=1, count=1)
        tokens = self.lease(6)
        self.storage.held.add("log_ends")
        bounds, lower = self.storage.beneath.bounds, [Bounds(0, 3, 0)]
        self.patch(self.storage.beneath, "bounds", lambda topic: bounds(topic).addCallback(lambda found: found | ({0: lower.pop()} if lower else {})))
        waiting = self.poll(timeout=0)
        self.failureResultOf(self.subscriber.ack(self.grant(), [*tokens.values()]), StorageUnavailable)
        self.assertEqual(self.metric("psubd_acked_total"), 1)
        self.storage.release("log_ends")
        self.assertEqual(self.got(waiting), [])
        self.assertEqual((self.ack(*tokens.values()), self.cuts()), ((6, []), []))

    def test_older_memory(self):
        """A read that is answered from memory which is older than what the group has read (on another node, before it came here) is no sign of a cut:
        its leases are not in doubt."""
        self.publish(count=5)
        tokens = self.lease(5)
        read, older = self.storage.beneath.read, [3]

        def from_memory(topic, partition, offset, *most):
            found = read(topic, partition, offset, *most)
            return found.addCallback(msgspec.structs.replace, messages=(), next_offset=offset, end=older.pop()) if older else found

        self.patch(self.storage.beneath, "read", from_memory)
        self.storage.held.add("log_ends")
        self.publish()
        self.assertEqual(older, [])
        self.assertEqual(self.ack(*tokens.values()), (5, []))
        self.assertEqual((self.offsets(), self.cuts()), ([(0, 5)], []))

    def test_registry_away(self):
        """Until the cut is registered nothing of the partition is delivered; the others are, and it is tried again."""
        self.publish(count=5)
        self.publish(partition=1)
        self.drain()
        self.registry.refuse = RegistryUnavailable("away")
        self.truncate(2, behind=4)
        self.publish(partition=1)
        self.assertEqual(self.got(self.poll()), [("orders", 1, 1)])
        self.registry.refuse = None
        self.clock.advance(2000)
        self.assertEqual([at for at in self.offsets() if at[0] == 0], [(0, offset) for offset in range(2, 6)])

    def test_storage_takes_no_commit(self):
        """The group goes on at the cut all the same, and is committed when that can be."""
        self.publish(count=5)
        self.drain()
        self.clock.advance(500)
        self.storage.failing["commit"] = StorageUnavailable("away")
        self.truncate(2, behind=4)
        self.assertEqual(self.offsets(), [(0, offset) for offset in range(2, 6)])
        self.storage.failing.clear()
        self.clock.advance(1000)
        self.crash()
        self.assertEqual(self.offsets(), [])

    def test_where_the_end_is_not_known(self):
        """From the log's start, or from its end, as the binding's start says."""
        for start, expected in (("earliest", [(0, 0), (0, 1), (0, 2)]), ("latest", [(0, 2)])):
            self.bind("shop", "orders", start=start)
            self.publish(count=5)
            self.drain()
            self.storage.beneath._shelves["orders"].logs[0].end_of = lambda epoch: None
            self.truncate(2)
            self.publish()
            self.assertEqual(self.offsets(), expected)
            self.truncate(0)
            self.drain()

    def test_with_attempts(self):
        """What was tried before the cut keeps its count, what is new begins at one."""
        self.publish(count=3)
        tokens = self.lease(3)
        self.assertEqual(self.wait(self.subscriber.nack(self.grant(), list(tokens.values()), 0, False)).count, 3)
        self.lease(3)
        self.truncate(2, behind=1)
        delivery = self.wait(self.poll(batch=10, timeout=0))
        self.assertEqual([(each.message.offset, each.attempt) for each in delivery.messages], [(0, 3), (1, 3), (2, 1)])
        delivery.settle(3)


class LoadingTests(LogTestCase):
    def test_cut_and_grown_over(self):
        """A group that comes to its places goes on where the log ended, acks past that do not count, and its leases of before are lost."""
        self.publish(count=6)
        self.publish(partition=1, count=2)
        tokens = self.lease(8)
        self.assertEqual(self.ack(tokens[0, 1], tokens[0, 4], tokens[1, 0])[0], 3)
        self.clock.advance(500)
        self.crash()
        self.truncate(3, behind=9)
        self.assertEqual(self.ack(tokens[0, 0], tokens[0, 5]), (0, [tokens[0, 0], tokens[0, 5]]))
        self.assertEqual(self.ack(tokens[1, 1]), (1, []))
        self.assertEqual(self.offsets(), [(0, offset) for offset in (0, 2, *range(3, 12))])
        self.assertEqual(self.cuts(), ["group.log_truncated shop orders partition 0: the log was cut below offset 5; goes on at 0"])
        self.assertEqual((self.cursor(0).since, self.cursor(1).since), (self.record().reset, 0))

    def test_it_is_kept_at_once(self):
        """A crash right after finds the group where it was moved to, the other partitions where they were."""
        for partition in range(2):
            self.publish(partition=partition, count=5)
        self.drain()
        self.restart()
        self.truncate(2, behind=6)
        self.wait(self.poll(timeout=0)).settle(0)
        self.crash()
        self.assertEqual(self.offsets(), [(0, offset) for offset in range(2, 8)])
        self.assertEqual(len(self.cuts()), 1)

    def test_registry_away(self):
        """The poll is told, and nothing changed; when the registry is there again it goes on at the cut."""
        self.publish(count=5)
        self.drain()
        self.restart()
        self.truncate(2, behind=6)
        self.registry.refuse = RegistryUnavailable("away")
        self.failureResultOf(self.poll(), RegistryUnavailable)
        self.assertEqual(self.cuts(), [])
        self.registry.refuse = None
        self.assertEqual(self.offsets(), [(0, offset) for offset in range(2, 8)])

    def test_storage_away(self):
        """Where surely nothing could be kept nothing is moved: the other partitions do not lose their places to a crash."""
        for partition in range(2):
            self.publish(partition=partition, count=5)
        self.drain()
        self.restart()
        self.truncate(2, behind=6)
        before = self.record()
        self.storage.failing["commit"] = StorageUnavailable("away")
        self.failureResultOf(self.poll(), StorageUnavailable)
        self.assertEqual(self.record(), before)
        self.crash()
        self.storage.failing.clear()
        self.assertEqual(self.offsets(), [(0, offset) for offset in range(2, 8)])

    def test_storage_in_doubt(self):
        """Where that cannot be told it stands where the log was cut, in memory, and is committed as soon as it can be."""
        self.publish(count=5)
        self.drain()
        self.restart()
        self.truncate(2, behind=6)
        self.storage.failing["commit"] = StorageTimeout("no answer")
        self.assertEqual(self.offsets(), [(0, offset) for offset in range(2, 8)])
        self.storage.failing.clear()
        self.clock.advance(1000)
        self.crash()
        self.assertEqual(self.offsets(), [])

    def test_storage_tells_no_ends(self):
        """A storage that cannot tell now is no cut log: the poll fails and nothing is moved."""
        self.publish(count=5)
        self.drain()
        self.restart()
        self.storage.failing["log_ends"] = StorageUnavailable("away")
        self.failureResultOf(self.poll(), StorageUnavailable)
        self.storage.failing.clear()
        self.assertEqual(self.offsets(), [])

    def test_a_group_at_the_end_that_read_nothing(self):
        """One that begins at the end, and whose log is cut and grows over that before it reads: what is new is not skipped."""
        self.publish(count=5)
        self.bind("owner", "orders", start="latest")
        self.truncate(2, behind=6)
        found = self.wait(self.poll(group="owner", batch=10, timeout=0))
        self.assertEqual([each.message.offset for each in found.messages], list(range(2, 8)))
        found.settle(6)

    def test_cut_between_loading_and_reading(self):
        """What was done past the first hole counts as far as the log reaches that it was done in, though nothing was read since the group came to
        its places."""
        self.publish(count=6)
        tokens = self.lease(6)
        self.ack(*[tokens[0, offset] for offset in range(2, 6)])
        self.clock.advance(500)
        self.crash()
        self.storage.held.add("read")
        waiting = self.poll()
        self.truncate(3, behind=9)
        self.storage.release("read")
        delivery = self.wait(waiting)
        self.assertEqual(places(delivery), [("orders", 0, 0)])
        delivery.settle(1)
        self.assertEqual(self.offsets(), [(0, 1), *[(0, offset) for offset in range(3, 12)]])
        self.assertEqual(len(self.cuts()), 1)

    def test_a_late_commit_of_before(self):
        """One of the old log, written by whoever did not hear of the cut, counts no more."""
        self.publish(count=5)
        self.drain()
        self.restart()
        late = self.wait(self.storage.committed("shop"))
        self.truncate(2, behind=6)
        self.take(1)
        self.crash()
        self.wait(self.storage.commit("shop", late))
        self.assertEqual(self.offsets()[-6:], [(0, offset) for offset in range(2, 8)])


class RestartTests(LogTestCase):
    """Leases that outlive a restart."""

    def setUp(self):
        super().setUp()
        self.carryover = Drawer()
        self.restart()

    def test_cut_while_the_node_was_down(self):
        """Leases that reach past the cut are lost, though nothing was done there; those of partitions that were not cut go on, as does their time."""
        for partition in range(2):
            self.publish(partition=partition, count=5)
        tokens = self.lease(10)
        self.wait(self.subscriber.stop())
        self.truncate(3, behind=4)
        self.subscriber = self.make_subscriber()
        self.assertEqual(self.offsets(), [(0, offset) for offset in range(7)])
        self.assertEqual(self.ack(tokens[0, 0], tokens[0, 4], tokens[1, 4]), (1, [tokens[0, 0], tokens[0, 4]]))
        self.assertEqual(self.cuts(), ["group.log_truncated shop orders partition 0: the log was cut below offset 5; goes on at 0"])

    def test_a_reset_before_it_is_loaded_again(self):
        """A reset of one partition, of a group that could not be loaded since the restart, leaves the others their leases."""
        for partition in range(2):
            self.publish(partition=partition, count=2)
        tokens = self.lease(4)
        self.wait(self.subscriber.stop())
        self.storage.failing["committed"] = StorageUnavailable("away")
        self.subscriber = self.make_subscriber()
        self.storage.failing.clear()
        self.wait(self.subscriber.reset("shop", "orders", [0], {0: 1}, False, "test"))
        self.assertEqual(self.offsets(), [(0, 1)])
        self.assertEqual(self.ack(tokens[1, 0], tokens[1, 1], tokens[0, 1]), (2, [tokens[0, 1]]))


class ResetTests(LogTestCase):
    def test_leases_of_partitions_that_stay(self):
        """A reset under load: leases of what is moved are lost and say so, the others go on with theirs, and after a crash with their attempts."""
        for partition in range(2):
            self.publish(partition=partition, count=3)
        tokens = self.lease(6)
        self.wait(self.subscriber.nack(self.grant(), [tokens[1, 2]], 0, False))
        self.lease(1)
        self.wait(self.subscriber.reset("shop", "orders", [0], {0: 1}, False, "test"))
        self.assertEqual(self.ack(tokens[0, 0], tokens[0, 2]), (0, [tokens[0, 0], tokens[0, 2]]))
        self.assertEqual(self.ack(tokens[1, 0], tokens[1, 1]), (2, []))
        self.clock.advance(500)
        self.assertEqual((self.cursor(0).since, self.cursor(1).since), (self.record().reset, 0))
        self.crash()
        found = {}
        while (delivery := self.wait(self.poll(timeout=0))).messages:
            delivery.settle(1)
            found |= {(each.partition, each.message.offset): each.attempt for each in delivery.messages}
        self.assertEqual(found, {(0, 1): 1, (0, 2): 1, (1, 2): 3})

    def test_leases_of_partitions_that_stay_when_not_loaded(self):
        """The same for a group that is not loaded."""
        for partition in range(2):
            self.publish(partition=partition, count=3)
        tokens = self.lease(6)
        self.assertEqual(self.ack(tokens[1, 1])[0], 1)
        self.clock.advance(500)
        self.crash()
        self.wait(self.subscriber.reset("shop", "orders", [0], {0: 1}, False, "test"))
        self.assertEqual(self.ack(tokens[0, 0]), (0, [tokens[0, 0]]))
        self.assertEqual(self.ack(tokens[1, 0], tokens[1, 1]), (2, []))
        self.assertEqual(sorted(self.offsets()), [(0, 1), (0, 2), (1, 2)])

    def test_a_cut_partition_that_is_not_named(self):
        """It goes where its log ended in the same change, and is told."""
        for partition in range(2):
            self.publish(partition=partition, count=5)
        self.drain()
        self.restart()
        self.truncate(2, behind=6)
        self.wait(self.subscriber.reset("shop", "orders", [1], {1: 4}, False, "test"))
        self.assertEqual(len(self.cuts()), 1)
        self.assertEqual(sorted(self.offsets()), [*[(0, offset) for offset in range(2, 8)], (1, 4)])
        self.assertEqual(len(self.cuts()), 1)


class RetentionTests(LogTestCase):
    def retire(self):
        """Retention takes all but the two newest."""
        self.wait(self.storage.configure("orders", {"retention_bytes": 20}))
        self.wait(self.storage.configure("orders", {"retention_bytes": None}))

    def skips(self):
        return [line for line in self.told if line.startswith("group.skipped")]

    def test_before_the_logs_start(self):
        """A group that comes to its places goes on at the log's start, and it is told what retention took; an ack of that is an ack."""
        self.publish(count=5)
        token = self.lease(2)[0, 1]
        self.clock.advance(500)
        self.crash()
        self.retire()
        self.assertEqual(self.offsets(), [(0, 3), (0, 4)])
        self.assertEqual(self.skips(), ["group.skipped shop orders partition 0: retention took offsets 0 to 2, which were not done"])
        self.assertEqual(self.ack(token), (1, []))

    def test_before_the_logs_start_in_use(self):
        """One in use that lags does the same where it reads on, and when it reads again what was leased."""
        self.publish(count=5)
        tokens = self.lease(5)
        self.publish(count=5)
        for group in self.subscriber._live.values():
            group.shed()
        self.retire()
        self.assertEqual(self.wait(self.subscriber.nack(self.grant(), [tokens[0, 4]], 0, False)).count, 1)
        self.assertEqual(self.offsets(), [(0, 8), (0, 9)])
        self.assertEqual(self.ack(tokens[0, 1]), (1, []))
        self.assertTrue(self.skips())

    def test_made_again(self):
        """A topic made again begins at its first message whatever the numbers say; the leases of the former one are lost, and it is told once."""
        for loaded in (True, False):
            self.publish(count=5)
            tokens = self.lease(5)
            self.ack(tokens[0, 1])
            if not loaded:
                self.clock.advance(500)
                self.crash()
            self.wait(self.storage.delete_topic("orders"))
            self.wait(self.storage.create_topic(TopicSpec("orders", 3)))
            self.publish(count=9)
            self.assertEqual(self.offsets(), [(0, offset) for offset in range(9)])
            self.assertEqual(self.ack(*tokens.values()), (0, list(tokens.values())))
            told = [line for line in self.told if line.startswith("group.")]
            self.assertEqual(told, ["group.topic_recreated shop orders: the topic was made again"])
            self.told.clear()
            self.wait(self.storage.delete_topic("orders"))
            self.wait(self.storage.create_topic(TopicSpec("orders", 3)))
            self.drain()
            self.told.clear()
