"""Token buckets."""

from twisted.trial.unittest import SynchronousTestCase

from psubd.access.rates import Bucket, Meter
from psubd.errors import RateLimited
from psubd.model import Rate


class BucketTests(SynchronousTestCase):
    """One unit of a rate."""

    def test_burst_then_rate(self) -> None:
        """A full bucket gives its whole burst at once, then so many a second, to the millisecond."""
        bucket = Bucket("messages", 10, 3, now=0)
        bucket.take(30, 0)
        self.assertEqual(bucket.lacks(1, 0), 100)
        self.assertEqual(bucket.lacks(1, 99), 1)
        self.assertEqual(bucket.lacks(1, 100), 0)

    def test_never_more_than_whole(self) -> None:
        """An idle bucket fills up to its burst and no further."""
        bucket = Bucket("messages", 10, 3, now=0)
        self.assertEqual(bucket.level(10**9), 30_000)

    def test_larger_than_the_whole(self) -> None:
        """What is larger than the burst passes when the bucket is full, and is paid for afterwards."""
        bucket = Bucket("bytes", 100, 1, now=0)
        self.assertEqual(bucket.lacks(1000, 0), 0)
        bucket.take(1000, 0)
        self.assertEqual(bucket.level(0), -900_000)
        self.assertEqual(bucket.lacks(1, 0), 9010)
        self.assertEqual(bucket.lacks(1000, 9000), 1000)
        self.assertEqual(bucket.lacks(1000, 10_000), 0)

    def test_no_fraction_is_lost(self) -> None:
        """Asked every millisecond, a slow rate adds up to what it says."""
        bucket = Bucket("messages", 1, 1, now=0)
        bucket.take(1, 0)
        for now in range(1000):
            self.assertTrue(bucket.lacks(1, now))
        self.assertEqual(bucket.lacks(1, 1000), 0)


class MeterTests(SynchronousTestCase):
    """A binding's rate."""

    def test_both_units(self) -> None:
        """Both units must allow it; what one refuses takes nothing from the other."""
        meter = Meter(Rate(messages_per_s=10, bytes_per_s=100, burst_s=1), 1, "topic t", 0)
        meter.admit(1, 100, 0)
        for _ in range(20):
            with self.assertRaises(RateLimited) as caught:
                meter.admit(1, 50, 0)
            self.assertEqual(caught.exception.limit, 100)
        meter.admit(9, 0, 0)

    def test_refusal(self) -> None:
        """The refusal says which rate, how much is left, and when: whole seconds, rounded up."""
        meter = Meter(Rate(messages_per_s=2, burst_s=5), 1, "topic t", 0)
        meter.admit(9, 10**9, 0)
        with self.assertRaises(RateLimited) as caught:
            meter.admit(4, 0, 0)
        error = caught.exception
        self.assertIn("topic t: 2 messages a second", error.detail)
        self.assertEqual((error.limit, error.remaining, error.reset, error.retry_after), (2, 1, 5, 2))

    def test_debt(self) -> None:
        """Nothing left is told until something is; bytes count where only they are bound."""
        meter = Meter(Rate(bytes_per_s=1000), 1, "topic t", 0)
        self.assertIsNone(meter.debt(0))
        meter.spend(1, 3000, 0)
        self.assertEqual(meter.debt(1999).reset, 2)
        self.assertIsNone(meter.debt(2001))

    def test_a_new_rate_forgives_no_debt(self) -> None:
        """Where the rate changes, what is owed stays owed; what was free is at most the new whole."""
        old = Meter(Rate(messages_per_s=10), 1, "topic t", 0)
        old.spend(30, 0, 0)
        new = Meter(Rate(messages_per_s=1), 1, "topic t", 0)
        new.follow(old, 0)
        self.assertIsNotNone(new.debt(19_999))
        self.assertIsNone(new.debt(20_001))
        new = Meter(Rate(messages_per_s=1), 1, "topic t", 0)
        rich = Meter(Rate(messages_per_s=1000), 1, "topic t", 0)
        new.follow(rich, 0)
        new.admit(1, 0, 0)
        self.assertIsNotNone(new.debt(0))
