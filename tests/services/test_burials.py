"""Burials: stored in the dead-letter topic first, done after; what cannot be stored stays."""

import msgspec
from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from psubd.delivery.ledger import Death
from psubd.errors import StorageTimeout, StorageUnavailable, TooLarge, TopicMissing
from psubd.model import Record, TopicPartition, TopicSpec
from psubd.services import burials
from psubd.services.burials import Burials
from psubd.services.letters import verify
from psubd.services.notices import Notices
from psubd.services.signet import Signet
from psubd.services.tallies import Tallies
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.faulty_storage import FaultyStorage
from psubd.testing.registry import MemoryRegistry


class FakeGrave:
    """A partition of a group, and what it was told."""

    def __init__(self, group="shop", partition=0, dead_letter="dead"):
        self.group = group
        self.at = TopicPartition("orders", partition)
        self.live = self.grants = True
        self.named = dead_letter
        self.done = []
        self.back = []

    def dead_letter(self):
        return self.named

    def buried(self, offset):
        self.done.append(offset)

    def revived(self, offset):
        self.back.append(offset)


class BurialsTestCase(SynchronousTestCase):
    def setUp(self):
        self.clock = FakeClock()
        self.storage = FaultyStorage(MemoryStorage(self.clock))
        self.registry = MemoryRegistry(self.clock)
        for started in (self.storage.start(), self.registry.start()):
            self.successResultOf(started)
        self.signet = Signet(self.registry)
        self.successResultOf(self.signet.open())
        self.create("orders", 3)
        self.create("dead", 2)
        self.metrics = CollectorRegistry()
        notices = Notices()
        self.lines = []
        notices.listen(self.lines.append)
        self.burials = Burials(self.storage, self.clock, self.signet, Tallies(self.metrics), notices)
        self.grave = FakeGrave()

    def tearDown(self):
        self.successResultOf(self.burials.stop())
        calls = [call for call in self.clock.reactor.getDelayedCalls() if "psubd.storage" not in repr(call.func.__module__)]
        self.assertEqual(calls, [])

    def create(self, name, partitions, **settings):
        self.successResultOf(self.storage.create_topic(TopicSpec(name, partitions, **settings)))

    def publish(self, count, partition=0, key=None, value=None, **more):
        records = [Record("orders", value or b"%d" % place, key, partition=partition, **more) for place in range(count)]
        self.successResultOf(self.storage.publish(records, "all"))

    def bury(self, *offsets, grave=None, reason="max_attempts"):
        return self.burials.bury(grave or self.grave, [Death(offset, 3, reason) for offset in offsets])

    def letters(self, topic="dead"):
        """(partition, origin, message) of all that lie in the topic."""
        bounds = self.successResultOf(self.storage.bounds(topic))
        found = []
        for partition in bounds:
            read = self.successResultOf(self.storage.beneath.read(topic, partition, 0, 100_000, 1 << 30))
            found += [(partition, verify(message, self.signet), message) for message in read.messages]
        return found

    def metric(self, name, **labels):
        return self.metrics.get_sample_value(name, labels)


class BuryTests(BurialsTestCase):
    def test_stored_then_done(self):
        """The letter is in the dead-letter topic when the grave hears of it, sealed, with its origin, the attempts and the reason."""
        self.publish(3, key=b"k", headers=(("a", b"1"),))
        self.storage.held.add("publish")
        tried = self.bury(1, reason="nack")
        self.assertEqual(self.grave.done, [])
        self.assertNoResult(tried)
        self.storage.release("publish")
        self.successResultOf(tried)
        self.assertEqual(self.grave.done, [1])
        ((_, origin, message),) = self.letters()
        self.assertEqual(origin[:3] + origin[4:], ("orders", 0, 1, "shop", 3, "nack", self.clock.epoch_ms()))
        self.assertEqual((message.key, message.value, message.headers[0]), (b"k", b"1", ("a", b"1")))
        self.assertEqual(self.metric("psubd_dead_letters_total", reason="nack"), 1)
        self.assertEqual(self.metric("psubd_dead_letters_waiting"), 0)

    def test_many_in_order(self):
        """Many are read and stored some at a time, in offset order, each once, whatever lies between."""
        self.publish(3000)
        offsets = [*range(1200), *range(1300, 1900, 7), 2500, 2999]
        self.successResultOf(self.bury(*reversed(offsets)))
        self.assertEqual(self.grave.done, offsets)
        self.assertEqual(sorted(origin.offset for _, origin, _ in self.letters()), offsets)
        self.assertLess(self.storage.calls["read"], 60)

    def test_only_what_is_near(self):
        """What lies between two that are far apart is not read along; letters are stored with acks all."""
        self.publish(2000)
        read, publish, asked = self.storage.beneath.read, self.storage.beneath.publish, []
        self.patch(self.storage.beneath, "read", lambda *args: [asked.append(args[2:4]), read(*args)][1])
        self.patch(self.storage.beneath, "publish", lambda records, acks: [asked.append(acks), publish(records, acks)][1])
        self.successResultOf(self.bury(3, 5, 1999))
        self.assertEqual(asked, [(3, 3), "all", (1999, 1), "all"])

    def test_large_messages(self):
        """Not more than a portion is in memory at once: large messages are stored one or few at a time."""
        self.publish(12, value=b"x" * 400_000)
        self.successResultOf(self.bury(*range(12)))
        self.assertEqual((self.grave.done, self.storage.calls["publish"] - 1), (list(range(12)), 6))

    def test_not_too_many_at_once(self):
        """Over all groups only some portions are on their way at a time; the others have their turn."""
        self.publish(1)
        graves = [FakeGrave(f"g{place}") for place in range(30)]
        self.storage.held.add("read")
        tried = [self.bury(0, grave=grave) for grave in graves]
        self.assertEqual(self.storage.calls["read"], burials.AT_ONCE)
        self.storage.release("read")
        for each, grave in zip(tried, graves, strict=True):
            self.successResultOf(each)
            self.assertEqual(grave.done, [0])

    def test_gone_from_the_log(self):
        """What retention or compaction took has nothing to be kept of: done, and no letter."""
        self.publish(5)
        self.storage.hidden[TopicPartition("orders", 0)] = {1, 2}
        self.successResultOf(self.bury(1, 2, 3))
        self.assertEqual(self.grave.done, [1, 2, 3])
        self.assertEqual([origin.offset for _, origin, _ in self.letters()], [3])

    def test_no_dead_letter_topic(self):
        """Where the binding names none any more, they go back to the group."""
        self.publish(3)
        self.grave.named = None
        self.successResultOf(self.bury(0, 2))
        self.assertEqual((self.grave.back, self.grave.done, self.letters(), self.burials.waiting()), ([0, 2], [], [], 0))

    def test_too_large(self):
        """A message that does not fit there stays; its neighbours are stored."""
        self.create("small", 1, max_message_bytes=2000)
        self.grave.named = "small"
        self.publish(1)
        self.publish(1, value=b"x" * 5000)
        self.publish(1)
        self.successResultOf(self.bury(0, 1, 2))
        self.assertEqual((self.grave.done, len(self.letters("small")), self.burials.waiting()), ([0, 2], 2, 1))
        self.assertIn("group.letter_stuck shop orders partition 0 offset 1: topic small takes at most", self.lines[0])

    def test_cancelled(self):
        """Who waits no longer stops nothing."""
        self.publish(1)
        self.storage.held.add("publish")
        tried = self.bury(0)
        tried.cancel()
        self.failureResultOf(tried)
        self.storage.release("publish")
        self.assertEqual(self.grave.done, [0])


class AgainTests(BurialsTestCase):
    def test_fails_and_goes_on(self):
        """Whatever fails in the storage, the message stays and is tried again, after 1 s, doubling to 30 s, until it is stored."""
        for method, error in (
            ("read orders", StorageUnavailable("away")),
            ("publish dead", StorageUnavailable("away")),
            ("publish dead", TooLarge("no")),
            ("read", TopicMissing("gone")),
        ):
            grave = FakeGrave()
            self.publish(1)
            self.storage.failing[method] = error
            before = self.metric("psubd_dead_letter_failures_total")
            self.successResultOf(self.bury(0, grave=grave))
            for tries, wait in enumerate((1000, 2000, 4000, 8000, 16000, 30000, 30000), 2):
                self.clock.advance(wait - 1)
                self.assertEqual(self.metric("psubd_dead_letter_failures_total") - before, tries - 1)
                self.clock.advance(1)
                self.assertEqual(self.metric("psubd_dead_letter_failures_total") - before, tries)
            self.assertEqual((grave.done, self.burials.waiting(), self.metric("psubd_dead_letters_waiting")), ([], 1, 1))
            self.storage.failing.clear()
            self.clock.advance(30_000)
            self.assertEqual((grave.done, self.burials.waiting()), ([0], 0))
            self.clock.advance(60_000)
            self.assertEqual(grave.done, [0])

    def test_told_once(self):
        """A stuck message is told once, not at each try; of very many only some, so that a log is not filled."""
        self.publish(100)
        self.storage.failing["publish"] = StorageUnavailable("away")
        self.successResultOf(self.bury(7))
        self.clock.advance(1000)
        self.clock.advance(2000)
        self.assertEqual(self.lines, ["group.letter_stuck shop orders partition 0 offset 7: away"])
        self.successResultOf(self.bury(*range(20, 80)))
        self.assertEqual((len(self.lines), self.burials.waiting()), (burials.TOLD, 61))

    def test_in_doubt(self):
        """A letter that may be stored or not is tried again: there twice rather than not at all."""
        self.publish(1)
        publish = self.storage.beneath.publish
        fails = [StorageTimeout("may be there")]

        def doubtful(records, acks):
            stored = publish(records, acks)
            return stored.addCallback(lambda results: [fails.pop()] if fails else results)

        self.patch(self.storage.beneath, "publish", doubtful)
        self.successResultOf(self.bury(0))
        self.assertEqual((self.grave.done, len(self.letters())), ([], 1))
        self.clock.advance(1000)
        self.assertEqual((self.grave.done, len(self.letters())), ([0], 2))

    def test_never_twice_at_once(self):
        """A message that is told again while it is tried, or stuck, is not tried beside; what is new waits for the try that is on its way."""
        self.publish(2)
        self.storage.held.add("publish")
        tried = [self.bury(0), self.bury(0), self.bury(0, 1)]
        self.assertEqual(self.storage.calls["publish"] - 1, 1)
        self.storage.failing["publish"] = StorageUnavailable("away")
        self.storage.release("publish")
        for each in tried:
            self.successResultOf(each)
        calls = self.storage.calls["publish"]
        self.successResultOf(self.bury(0, 1))
        self.assertEqual(self.storage.calls["publish"], calls)
        self.storage.failing.clear()
        self.clock.advance(1000)
        self.assertEqual((self.grave.done, len(self.letters())), ([0, 1], 2))

    def test_new_ones_do_not_wait(self):
        """What dies while others are stuck is tried at once."""
        self.publish(2)
        self.storage.failing["publish"] = StorageUnavailable("away")
        self.successResultOf(self.bury(0))
        self.storage.failing.clear()
        self.successResultOf(self.bury(1))
        self.assertEqual(self.grave.done, [1])
        self.clock.advance(1000)
        self.assertEqual(self.grave.done, [1, 0])

    def test_the_topic_is_asked_for_again(self):
        """A dead-letter topic that is missing, or named anew, is looked for at each try."""
        self.publish(2)
        self.grave.named = "later"
        self.successResultOf(self.bury(0))
        self.assertIn("later is not in the storage", self.lines[0])
        self.create("later", 1)
        self.clock.advance(1000)
        self.assertEqual((self.grave.done, len(self.letters("later"))), ([0], 1))
        self.storage.failing["publish later"] = StorageUnavailable("away")
        self.successResultOf(self.bury(1))
        self.grave.named = "dead"
        self.clock.advance(1000)
        self.assertEqual((self.grave.done, len(self.letters())), ([0, 1], 1))

    def test_what_is_known_is_doubted(self):
        """After a failure the dead-letter topic is asked for afresh: its limit may have been raised meanwhile."""
        self.publish(1, value=b"x" * 500)
        stale = msgspec.structs.replace(self.storage.known("dead"), max_message_bytes=100)
        self.patch(self.storage.beneath, "known", lambda topic: stale)
        self.successResultOf(self.bury(0))
        self.assertEqual(self.grave.done, [])
        self.clock.advance(1000)
        self.assertEqual(self.grave.done, [0])

    def test_the_log_ends_before_it(self):
        """A message past the end of the log is not taken for gone: the log may be short for a moment."""
        self.publish(1)
        self.successResultOf(self.bury(5))
        self.assertEqual(self.grave.done, [])
        self.publish(8)
        self.clock.advance(1000)
        self.assertEqual(self.grave.done, [5])

    def test_no_signet(self):
        """Without the secret nothing is written that could not be told from a forgery; it goes on when it is there."""
        registry = MemoryRegistry(self.clock)
        self.successResultOf(registry.start())
        signet = Signet(registry)
        other = Burials(self.storage, self.clock, signet, Tallies(None), Notices())
        self.publish(1)
        self.successResultOf(other.bury(self.grave, [Death(0, 1, "nack")]))
        self.assertEqual(self.letters(), [])
        self.successResultOf(signet.open())
        self.clock.advance(1000)
        self.assertEqual((self.grave.done, len(self.letters())), ([0], 1))

    def test_a_bug_loses_nothing(self):
        """Where something breaks that should not, the message stays all the same, and the log has the traceback."""
        self.publish(1)
        self.patch(self.storage.beneath, "read", lambda *_: 1 / 0)
        self.successResultOf(self.bury(0))
        self.assertEqual((len(self.flushLoggedErrors(ZeroDivisionError)), self.burials.waiting()), (1, 1))
        del self.storage.beneath.read
        self.clock.advance(1000)
        self.assertEqual(self.grave.done, [0])


class EndTests(BurialsTestCase):
    def test_void_graves(self):
        """A grave that lives no more hears nothing, and nothing more is tried for it."""
        self.publish(2)
        self.storage.held.add("publish")
        tried = self.bury(0)
        self.grave.live = False
        self.assertEqual(self.metric("psubd_dead_letters_waiting"), 0)
        self.storage.release("publish")
        self.successResultOf(tried)
        self.assertEqual(self.grave.done, [])
        self.successResultOf(self.bury(1))
        self.assertEqual(len(self.letters()), 1)

    def test_void_while_stuck(self):
        """A stuck message of a grave that lives no more is given up."""
        self.publish(1)
        self.storage.failing["publish"] = StorageUnavailable("away")
        self.successResultOf(self.bury(0))
        self.grave.live = False
        self.storage.failing.clear()
        self.clock.advance(60_000)
        self.assertEqual((self.letters(), self.burials._plots), ([], {}))

    def test_nothing_is_kept(self):
        """A partition whose dead are all buried costs nothing any more."""
        self.publish(5)
        self.successResultOf(self.bury(0, 1, 2))
        self.assertEqual((self.burials._plots, self.burials._tries), ({}, {}))

    def test_stop(self):
        """A stop waits for what is on its way, and begins nothing: what is stuck stays in the log, not done."""
        self.publish(3)
        self.storage.failing["publish"] = StorageUnavailable("away")
        self.successResultOf(self.bury(2))
        self.storage.failing.clear()
        self.storage.held.add("publish")
        tried = self.bury(0)
        stopped = self.burials.stop()
        self.assertNoResult(stopped)
        self.storage.release("publish")
        self.successResultOf(stopped)
        self.successResultOf(tried)
        self.successResultOf(self.bury(1))
        self.clock.advance(60_000)
        self.assertEqual(self.grave.done, [0])
        self.assertEqual([origin.offset for _, origin, _ in self.letters()], [0])

    def test_told_while_it_buries(self):
        """A grave may have the next one buried while it is told of one; each is stored once."""
        self.publish(4)

        def buried(offset):
            self.grave.done.append(offset)
            if offset < 3:
                self.bury(offset + 1)

        self.grave.buried = buried
        self.successResultOf(self.bury(0))
        self.assertEqual(self.grave.done, [0, 1, 2, 3])
        self.assertEqual(len(self.letters()), 4)
