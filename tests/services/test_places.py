"""Where groups stand, as pure as it can be told."""

import msgspec
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from psubd.delivery.cursor import Cursor, encode
from psubd.errors import StorageUnavailable, TopicMissing
from psubd.model import Binding, Bounds, Commit, GroupTopic, Record, Topic, TopicPartition, TopicSpec
from psubd.services.places import Place, begin, commit_of, place_of, settled, todays
from psubd.storage.memory import MemoryStorage
from psubd.testing.clock import FakeClock
from psubd.testing.faulty_storage import FaultyStorage

RECORD = GroupTopic("uid", "mark", 3)


def commit(offset=5, done=(), uid="uid", mark="mark", reset=3, since=2, attempts=()):
    return encode(Cursor(uid, mark, reset, 1, offset, done, since, attempts))


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
        self.assertEqual(
            kept[TopicPartition("t", 0)], commit_of(GroupTopic(self.topic.uid, "m", 7), 0, Place(0, (), 3, False, since=7, log_epoch=0), 4096)
        )

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
    def place(self, found, first=0, end=100, start="latest", log_end=None):
        return place_of(found, RECORD, start, Bounds(first, end, 8), log_end)

    def spot(self, *given, **named):
        place = self.place(*given, **named)
        return place.offset, place.done, place.kept

    def test_as_kept(self):
        """A place inside of the log is taken as it is, with its attempts and the log that it is of; leases of before its last move stay lost."""
        found = msgspec.structs.replace(commit(5, ((7, 9), (20, 30)), attempts=((5, 2), (40, 3))), log_epoch=6)
        place = Place(5, ((7, 9), (20, 30)), 100, True, since=2, attempts=((5, 2), (40, 3)), log_epoch=6)
        self.assertEqual(self.place(found), place)
        self.assertEqual(commit_of(RECORD, 1, place, 4096), found)

    def test_none(self):
        """Without one: the first message, whatever the binding's start: repeated, never skipped. Leases of before are lost."""
        self.assertEqual(self.place(None, first=8), Place(8, (), 100, False, missing=True, since=3, log_epoch=8))

    def test_retention(self):
        """What lies before the log's start is done, and told; what was done there is left out, and so are its attempts."""
        self.assertEqual(self.spot(commit(5, ((7, 9), (20, 30))), first=8), (9, ((20, 30),), False))
        self.assertEqual(self.spot(commit(5, ((7, 9), (20, 30))), first=10), (10, ((20, 30),), False))
        self.assertEqual(self.spot(commit(5, ((7, 9), (20, 30))), first=20), (30, (), False))
        place = self.place(commit(5, ((7, 9),), attempts=((5, 2), (9, 3))), first=8)
        self.assertEqual((place.attempts, place.skipped, place.since, place.stood), (((9, 3),), (5, 7), 2, None))
        self.assertIsNone(self.place(commit(5), first=5).skipped)

    def test_cut_where_the_end_is_known(self):
        """Back to where the log of the commit's epoch ended, though it has grown past the place since; what was done or tried past that is not."""
        for end in (20, 100):
            self.assertEqual(self.spot(commit(50), end=end, log_end=20), (20, (), False))
            place = self.place(commit(5, ((7, 9), (20, 30)), attempts=((5, 2), (9, 3), (40, 2))), end=end, log_end=25)
            self.assertEqual((place.offset, place.done, place.attempts, place.stood), (5, ((7, 9), (20, 25)), ((5, 2), (9, 3)), 30))
            self.assertEqual(self.spot(commit(5, ((7, 9), (20, 30))), end=end, log_end=20), (5, ((7, 9),), False))

    def test_an_epoch_that_ended_behind_the_place(self):
        """Another leader with all that was read: nothing is moved."""
        self.assertEqual(self.spot(commit(5, ((7, 9),)), log_end=9), (5, ((7, 9),), True))
        self.assertEqual(self.spot(commit(5), log_end=5), (5, (), True))

    def test_cut_where_nobody_knows_where(self):
        """A place past the end: as a new group would begin. One before it stays; what was done past it may be of messages that are gone."""
        self.assertEqual(self.spot(commit(50), first=2, end=40), (40, (), False))
        self.assertEqual(self.spot(commit(50), first=2, end=40, start="earliest"), (2, (), False))
        self.assertEqual(self.spot(commit(5, ((7, 9), (20, 30))), end=25), (5, (), False))
        self.assertEqual(self.place(commit(50), end=40).stood, 50)

    def test_cut_and_retention(self):
        """Where retention has gone past the cut too, it goes on at the log's start."""
        place = self.place(commit(50), first=30, end=60, log_end=20)
        self.assertEqual((place.offset, place.stood, place.skipped), (30, 50, (20, 29)))

    def test_read_further_than_done(self):
        """A group in use goes back where only what it had read or leased was cut off."""
        place = Place(5, ((7, 9),), 60, True, since=2, attempts=((9, 2), (31, 2)))
        moved = settled(place, "latest", Bounds(0, 60), 30, 40)
        self.assertEqual((moved.offset, moved.done, moved.attempts, moved.stood, moved.kept), (5, ((7, 9),), ((9, 2),), 40, False))
        self.assertIsNone(settled(place, "latest", Bounds(0, 60), 40, 40).stood)
