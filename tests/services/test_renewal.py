"""The daily sweep that keeps places from expiring."""

from psubd.errors import StorageUnavailable
from psubd.model import Commit, StorageLimits, TopicPartition
from psubd.services.renewal import AT_ONCE, DAY_MS, FIRST_MS, PAUSE_MS, ROUND_MS, SPREAD_MS
from psubd.testing.faulty_storage import FaultyStorage
from tests.services.house import SubscriberTestCase


class Kept(FaultyStorage):
    """Notes what is committed: group and places."""

    def __init__(self, beneath):
        super().__init__(beneath)
        self.limits = StorageLimits(places_expire=True)
        self.commits = []

    def commit(self, group, places):
        self.commits.append((group, dict(places)))
        return super().commit(group, places)


class RenewalCase(SubscriberTestCase):
    def setUp(self):
        super().setUp()
        self.use(Kept(self.storage.beneath))

    def use(self, storage):
        """The same house with another storage."""
        self.wait(self.subscriber.stop())
        self.storage = storage
        self.registrar = type(self.registrar)(self.registry, storage, self.clock, 1 << 20)
        self.subscriber = self.make_subscriber()

    def groups(self, count):
        """So many named groups, none of them loaded."""
        for number in range(count):
            self.wait(self.subscriber.reset(f"shop.g{number:03}", "orders", None, "latest", False, "test"))
        self.storage.commits.clear()

    def pass_by(self, ms, step=1_000):
        """Let time pass; for each step with commits: when, and the groups."""
        found = []
        for at in range(step, ms + 1, step):
            self.storage.commits.clear()
            self.clock.advance(step)
            if self.storage.commits:
                found.append((at, [group for group, _ in self.storage.commits]))
        return found


class SweepTests(RenewalCase):
    def test_every_known_group_once_a_day(self):
        """Loaded or not, each is committed soon after the start and once a day from then on, as it is, and not more often."""
        self.groups(3)
        names = ["shop", "shop.g000", "shop.g001", "shop.g002"]
        before = {name: self.kept(name) for name in names}
        self.assertEqual([groups for _, groups in self.pass_by(FIRST_MS + PAUSE_MS)], [names])
        self.assertEqual(self.pass_by(DAY_MS - ROUND_MS, ROUND_MS), [])
        self.assertEqual([groups for _, groups in self.pass_by(2 * ROUND_MS, ROUND_MS)], [names])
        self.assertEqual({name: self.kept(name) for name in names}, before)
        self.assertEqual(self.metric("psubd_groups_renewed_total"), 8)

    def kept(self, group):
        return dict(self.wait(self.storage.beneath.committed(group)))

    def test_partitions_where_nothing_happens(self):
        """A group in use has all its places committed, where its ledgers stand, also those of topics that nobody reads at the moment."""
        self.create_topic("news", 2)
        self.bind("shop", "news", start="latest")
        self.publish(count=3)
        self.assertEqual(len(self.drain(topics=("orders",))), 3)
        self.clock.advance(500)
        self.storage.commits.clear()
        waiting = self.poll(topics=("orders",), timeout=FIRST_MS * 2)
        self.clock.advance(FIRST_MS)
        places = {}
        for _, each in self.storage.commits:
            places |= {(at.topic, at.partition): commit.offset for at, commit in each.items()}
        self.assertEqual(places, {("orders", 0): 3, ("orders", 1): 0, ("orders", 2): 0, ("news", 0): 0, ("news", 1): 0})
        self.assertNoResult(waiting)
        self.publish()
        self.assertEqual(self.got(waiting), [("orders", 0, 3)])

    def test_no_stampede(self):
        """A few groups at a time, with a rest between: never more together, however many there are."""
        self.groups(20)
        rounds = self.pass_by(FIRST_MS + 10_000)
        self.assertEqual([len(groups) for _, groups in rounds], [AT_ONCE] * 5 + [1])
        self.assertEqual([at for at, _ in rounds], [FIRST_MS + number * PAUSE_MS for number in range(6)])

    def test_very_many(self):
        """With very many groups the rests are shorter: a round ends before the next one is due."""
        count = SPREAD_MS // PAUSE_MS * AT_ONCE * 2
        renewal = self.subscriber._renewal
        renewal._registry = Names(count)
        self.clock.advance(FIRST_MS)
        self.assertEqual(renewal._pause_ms, PAUSE_MS // 2)

    def test_what_fails(self):
        """Is tried again in the next round; the others are not."""
        self.groups(2)
        self.storage.failing["committed shop.g000"] = StorageUnavailable("away")
        self.storage.failing["commit shop.g001"] = StorageUnavailable("away")
        self.pass_by(FIRST_MS)
        self.storage.failing.clear()
        self.assertEqual([groups for _, groups in self.pass_by(ROUND_MS + 5_000)], [["shop.g000", "shop.g001"]])

    def test_somebody_elses(self):
        """Nothing of a group that somebody else has is committed; it is had back and renewed later."""
        self.groups(1)
        self.storage.strangers.add("shop.g000")
        self.assertEqual([groups for _, groups in self.pass_by(FIRST_MS)], [["shop"]])
        self.storage.strangers.clear()
        self.assertEqual([groups for _, groups in self.pass_by(ROUND_MS + 5_000)], [["shop.g000"]])

    def test_a_loaded_group_that_fails(self):
        """As a group that is not loaded: the next round tries it again."""
        self.take()
        self.clock.advance(500)
        waiting = self.poll(timeout=2 * ROUND_MS)
        self.storage.members.add("shop")
        self.clock.advance(FIRST_MS - 500)
        self.failureResultOf(waiting)
        self.assertEqual(self.metric("psubd_groups_renewed_total"), 0)
        self.storage.members.clear()
        self.clock.advance(ROUND_MS)
        self.clock.advance(500)
        self.assertEqual(self.metric("psubd_groups_renewed_total"), 1)

    def test_only_what_counts(self):
        """Places of a former binding, of topics that it stands on no more and of somebody else are left to expire."""
        self.groups(1)
        strange = {TopicPartition("orders", 1): Commit(5, "theirs"), TopicPartition("orders", 2): Commit(5, "psubd1;old;mark;0;0;-;")}
        self.wait(self.storage.beneath.commit("shop.g000", strange))
        self.pass_by(FIRST_MS - 1_000)
        self.storage.commits.clear()
        self.clock.advance(1_000)
        self.assertEqual([list(places) for group, places in self.storage.commits if group == "shop.g000"], [[TopicPartition("orders", 0)]])

    def test_a_reset_while_it_reads(self):
        """A reset that comes while the sweep waits for the storage is not undone by what the sweep had read."""
        self.groups(1)
        self.publish(count=5)
        self.storage.held.add("committed")
        self.clock.advance(FIRST_MS)
        reset = self.subscriber.reset("shop.g000", "orders", None, "latest", False, "test")
        self.storage.release("committed")
        self.wait(reset)
        self.assertEqual(self.committed("shop.g000")["orders", 0], 5)

    def test_revoked_while_it_reads(self):
        """A binding that goes while the sweep waits takes its places along: the sweep does not bring them back."""
        self.groups(1)
        self.storage.held.add("committed")
        self.clock.advance(FIRST_MS)
        self.unbind("shop", "orders")
        self.storage.commits.clear()
        self.storage.release("committed")
        self.assertEqual((self.storage.commits, self.committed("shop.g000"), self.committed("shop")), ([], {}, {}))

    def test_stopped_while_it_reads(self):
        """Nothing is committed after the stop."""
        self.groups(1)
        self.storage.held.add("committed")
        self.clock.advance(FIRST_MS)
        self.wait(self.subscriber.stop())
        self.storage.commits.clear()
        self.storage.release("committed")
        self.clock.advance(10_000)
        self.assertEqual(self.storage.commits, [])
        self.subscriber = self.make_subscriber()

    def test_deleted_groups_are_forgotten(self):
        """What the sweep knows of groups goes with them."""
        self.groups(2)
        self.pass_by(FIRST_MS + 1_000)
        self.wait(self.subscriber.forget_group("shop.g001", "test"))
        self.pass_by(ROUND_MS, ROUND_MS)
        self.assertEqual(set(self.subscriber._renewal._renewed_ms), {"shop", "shop.g000"})


class NeedlessTests(SubscriberTestCase):
    def test_embedded(self):
        """Where places do not expire there is no sweep."""
        self.clock.advance(FIRST_MS)
        before = self.storage.calls["commit"]
        self.clock.advance(DAY_MS)
        self.assertEqual(self.storage.calls["commit"], before)


class Names:
    """A registry of so many groups, which are gone when one looks closer."""

    def __init__(self, count):
        self.names = [f"shop.g{number}" for number in range(count)]

    def snapshot(self):
        return self

    def children(self, path):
        return self.names

    def get(self, path):
        return None
