"""The Java client's partitions, and the spread."""

import base64
import json
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from psubd.services.partitioner import POSITIVE, RECORD_BYTES, RUN_BYTES, RUN_MS, SHORT, Spread, murmur2, partition_of

VECTORS = json.loads((Path(__file__).parent / "murmur2_vectors.json").read_text())["vectors"]


class Murmur2Tests(SynchronousTestCase):
    def test_equals_java(self) -> None:
        """Every key of the vector file hashes as the Java client hashes it."""
        self.assertGreater(len(VECTORS), 220)
        wrong = [key for key, hashed in VECTORS if murmur2(base64.b64decode(key)) != hashed]
        self.assertEqual(wrong, [])

    def test_partition_is_javas(self) -> None:
        """The partition is toPositive(hash) % partitions: the sign bit is cut off, as Java's Utils.toPositive does; not abs()."""
        for key, hashed in VECTORS:
            for partitions in (1, 2, 3, 6, 1000):
                self.assertEqual(partition_of(base64.b64decode(key), partitions), (hashed & 0x7FFFFFFF) % partitions)

    def test_known_partition(self) -> None:
        """One value counted by hand: murmur2("21") is -973932308, 1173551340 without its sign bit."""
        self.assertEqual((partition_of(b"21", 6), partition_of(b"21", 7)), (0, 3))

    def test_keys_that_come_again(self) -> None:
        """A key that is known has the partition that it had, short or long, whatever came in between."""
        keys = [b"k%d" % number * size for number in range(200) for size in (1, SHORT, 300)]
        first = [partition_of(key, 7) for key in keys]
        self.assertEqual(first, [(murmur2(key) & POSITIVE) % 7 for key in keys])
        self.assertEqual(first, [partition_of(key, 7) for key in keys])


class SpreadTests(SynchronousTestCase):
    def test_even(self) -> None:
        """Records that come one by one are shared out evenly, one more or less."""
        for partitions in (1, 2, 7):
            spread = Spread()
            counted = Counter(spread.next("t", partitions, 100, n * RUN_MS) for n in range(100))
            self.assertEqual(set(counted), set(range(partitions)))
            self.assertLessEqual(max(counted.values()) - min(counted.values()), 1)

    def test_runs(self) -> None:
        """What comes together goes to one partition, up to so many bytes; then to the next, and in the long run all get as much."""
        spread = Spread()
        run = RUN_BYTES // (1004 + RECORD_BYTES)
        given = [spread.next("t", 4, 1004, 5) for _ in range(8 * run)]
        self.assertEqual([len(set(given[at : at + run])) for at in range(0, len(given), run)], [1] * 8)
        self.assertEqual(Counter(given), dict.fromkeys(range(4), 2 * run))

    def test_time(self) -> None:
        """A run ends when its time is over, also where the clock was set back."""
        spread = Spread()
        places = [spread.next("t", 3, 1, now) for now in (100, 100 + RUN_MS - 1, 100 + RUN_MS, 50)]
        self.assertEqual([(place - places[0]) % 3 for place in places], [0, 0, 1, 2])

    def test_alone(self) -> None:
        """A record that nothing goes together with goes to the next partition, however quickly it comes."""
        spread = Spread()
        self.assertEqual(Counter(spread.next("t", 3, 1, 0, True) for _ in range(9)), dict.fromkeys(range(3), 3))

    def test_empty_records(self) -> None:
        """Records without payload end a run too."""
        spread = Spread()
        self.assertEqual(len({spread.next("t", 2, 0, 0) for _ in range(RUN_BYTES // RECORD_BYTES + 2)}), 2)

    def test_topics_do_not_share_turns(self) -> None:
        """Two topics that are published to in turn are both spread evenly."""
        spread = Spread()
        counted = Counter((topic, spread.next(topic, 2, 1, n * RUN_MS)) for n in range(50) for topic in ("a", "b"))
        self.assertEqual(set(counted.values()), {25})

    def test_growth(self) -> None:
        """After a topic grew, its new partitions get their share."""
        spread = Spread()
        for n in range(10):
            spread.next("t", 2, 1, n * RUN_MS)
        counted = Counter(spread.next("t", 5, 1, n * RUN_MS) for n in range(10, 60))
        self.assertEqual(counted, dict.fromkeys(range(5), 10))
