"""Where groups stand, as pure as it can be told."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from psubd.delivery.cursor import Cursor, encode
from psubd.errors import StorageUnavailable, TopicMissing
from psubd.model import Binding, Bounds, Commit, GroupTopic, Record, Topic, TopicPartition, TopicSpec
from psubd.services.places import begin, place_of, todays
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.faulty_storage import FaultyStorage

RECORD = GroupTopic("uid", "mark", 3)


def commit(offset=5, done=(), uid="uid", mark="mark", reset=3):
    return encode(Cursor(uid, mark, reset, 1, offset, done))


class BeginTests(SynchronousTestCase):
    def setUp(self):
        clock = FakeClock()
        self.storage = FaultyStorage(MemoryStorage(clock))
        self.successResultOf(self.storage.start())
        stored = self.successResultOf(self.storage.create_topic(TopicSpec("t", 2)))
        self.successResultOf(self.storage.publish([Record("t", b"v", partition=0)] * 3, "all"))
        self.topic = Topic("t", "owner", 1, 0, stored.uid, 2, None, None, None, "delete", None, {}, False)

    def begin(self, start, reset=0):
        return Deferred.fromCoroutine(begin(self.storage, "shop", self.topic, Binding("shop", "t", 1, sub=True, start=start, mark="m"), reset))

    def test_earliest(self):
        """From each partition's first message, kept with what it belongs to."""
        self.assertEqual(self.successResultOf(self.begin("earliest", 7)), {0: 0, 1: 0})
        kept = self.successResultOf(self.storage.committed("shop"))
        self.assertEqual(kept[TopicPartition("t", 0)], encode(Cursor(self.topic.uid, "m", 7, 0, 0)))

    def test_latest(self):
        """From each partition's end."""
        self.assertEqual(self.successResultOf(self.begin("latest")), {0: 3, 1: 0})
        self.assertEqual(self.successResultOf(self.storage.committed("shop"))[TopicPartition("t", 0)].offset, 3)

    def test_cannot_be_kept(self):
        """What the storage fails with is raised, be it the whole commit or a partition's."""
        self.storage.failing["commit"] = StorageUnavailable("away")
        self.failureResultOf(self.begin("latest"), StorageUnavailable)
        self.storage.failing = {"bounds": TopicMissing("gone")}
        self.failureResultOf(self.begin("latest"), TopicMissing)
        self.storage.failing = {}
        self.storage.held.add("commit")
        begun = self.begin("latest")
        self.successResultOf(self.storage.delete_topic("t"))
        self.storage.release("commit")
        self.failureResultOf(begun, TopicMissing)


class TodaysTests(SynchronousTestCase):
    def test_today(self):
        """A commit counts if topic, binding and reset are the record's."""
        self.assertEqual(todays(commit(), RECORD).offset, 5)

    def test_not_todays(self):
        """None, a foreign one, and one of another topic, binding or reset do not count."""
        for found in (None, Commit(5, ""), Commit(5, "x"), commit(uid="u2"), commit(mark="m2"), commit(reset=2), commit(reset=0)):
            self.assertIsNone(todays(found, RECORD))


class PlaceTests(SynchronousTestCase):
    def place(self, found, first=0, end=100, start="latest"):
        place = place_of("shop t/0", found, RECORD, start, Bounds(first, end))
        return place.offset, place.done, place.kept

    def test_as_kept(self):
        """A place inside of the log is taken as it is."""
        self.assertEqual(self.place(commit(5, ((7, 9), (20, 30)))), (5, ((7, 9), (20, 30)), True))

    def test_none(self):
        """Without one: the first message, whatever the binding's start: repeated, never skipped."""
        self.assertEqual(self.place(None, first=8), (8, (), False))

    def test_retention(self):
        """What lies before the log's start is done; what was done there is left out."""
        self.assertEqual(self.place(commit(5, ((7, 9), (20, 30))), first=8), (9, ((20, 30),), False))
        self.assertEqual(self.place(commit(5, ((7, 9), (20, 30))), first=10), (10, ((20, 30),), False))
        self.assertEqual(self.place(commit(5, ((7, 9), (20, 30))), first=20), (30, (), False))

    def test_cut(self):
        """Past the end of the log: as a new group would begin; what was done past the end is not done."""
        self.assertEqual(self.place(commit(50), first=2, end=40), (40, (), False))
        self.assertEqual(self.place(commit(50), first=2, end=40, start="earliest"), (2, (), False))
        self.assertEqual(self.place(commit(5, ((7, 9), (20, 30))), end=25), (5, ((7, 9), (20, 25)), False))
        self.assertEqual(self.place(commit(5, ((7, 9), (20, 30))), end=20), (5, ((7, 9),), False))
