"""The Java client's partitions, and the spread."""

import base64
import json
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from psubd.services.partitioner import Spread, murmur2, partition_of

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


class SpreadTests(SynchronousTestCase):
    def test_even(self) -> None:
        """Any run of records is shared out evenly, one more or less."""
        for partitions in (1, 2, 7):
            spread = Spread()
            counted = Counter(spread.next("t", partitions) for _ in range(100))
            self.assertEqual(set(counted), set(range(partitions)))
            self.assertLessEqual(max(counted.values()) - min(counted.values()), 1)

    def test_topics_do_not_share_turns(self) -> None:
        """Two topics that are published to in turn are both spread evenly."""
        spread = Spread()
        counted = Counter((topic, spread.next(topic, 2)) for _ in range(50) for topic in ("a", "b"))
        self.assertEqual(set(counted.values()), {25})

    def test_growth(self) -> None:
        """After a topic grew, its new partitions get their share."""
        spread = Spread()
        for _ in range(10):
            spread.next("t", 2)
        counted = Counter(spread.next("t", 5) for _ in range(50))
        self.assertEqual(counted, dict.fromkeys(range(5), 10))
