"""Bindings with ``ordered``: strict per key, other keys flow."""

from psubd.model import Backoff
from tests.services.house import SubscriberTestCase, offsets, places


class OrderTests(SubscriberTestCase):
    def setUp(self):
        super().setUp()
        self.bind("shop", "orders", ordered=True)
        self.take()

    def publish_keys(self, text, partition=0):
        """A message for each letter, which is its key; "-" has none."""
        for letter in text:
            self.publish(partition=partition, key=None if letter == "-" else letter.encode())

    def test_explicit(self):
        """One message of a key is out at a time, also inside one answer; other keys flow meanwhile."""
        self.publish_keys("aabab")
        held = self.lease(5)
        self.assertEqual(offsets(held), [0, 2])
        waiting = self.poll(batch=5, ack="explicit")
        self.assertNoResult(waiting)
        self.ack(held[1])
        self.assertEqual(self.got(waiting), [("orders", 0, 4)])
        self.ack(held[0])
        self.assertEqual(offsets(self.lease(5)), [1])

    def test_no_key(self):
        """Messages without a key are one lane of their partition; another partition is another one."""
        self.publish_keys("--")
        self.publish_keys("--", 1)
        held = self.lease(4)
        self.assertEqual(sorted((each.partition, each.message.offset) for each in held), [(0, 0), (1, 0)])

    def test_auto(self):
        """In auto mode one answer may hold several of a key, in order, also where several polls share what is there; the next ones wait for it."""
        polls = [self.poll(batch=3), self.poll(batch=3)]
        self.storage.held.add("read")
        self.publish_keys("aaaabb")
        self.storage.release("read")
        one, other = (self.wait(poll) for poll in polls)
        self.assertEqual([sorted({each.message.key for each in delivery.messages}) for delivery in (one, other)], [[b"a"], [b"b"]])
        self.assertEqual(offsets(one.messages), [0, 1, 2])
        self.assertEqual(self.take(), [])
        one.settle(0)
        self.assertEqual(self.take(2), [("orders", 0, 0), ("orders", 0, 1)])
        other.settle(len(other.messages))
        self.assertEqual([offset for _, _, offset in self.drain()], [2, 3, 5][: 3 if len(other.messages) == 1 else 2])

    def test_waits(self):
        """While a message of a key waits, its key waits."""
        self.bind("shop", "orders", ordered=True, backoff=Backoff(5000, 5000))
        self.publish_keys("aab")
        held = self.lease(3)
        self.nack(held[0])
        self.ack(held[1])
        self.assertEqual(self.lease(3), [])
        self.clock.advance(5000)
        self.assertEqual(offsets(self.lease(3)), [0])

    def test_after_a_crash(self):
        """A key goes on from its first message that was not committed, in order."""
        self.publish_keys("ababab")
        for _ in range(2):
            self.ack(*self.lease(6))
        self.clock.advance(500)
        self.ack(*self.lease(6))
        self.crash()
        self.assertEqual(offsets(self.lease(6)), [4, 5])

    def test_switched_while_in_use(self):
        """Order may be wanted, or not any more, while messages are out."""
        self.publish_keys("aaa")
        first = self.lease(3)
        self.bind("shop", "orders")
        rest = self.lease(3)
        self.assertEqual((offsets(first), offsets(rest)), ([0], [1, 2]))
        self.bind("shop", "orders", ordered=True)
        self.nack(rest[0], rest[1])
        self.assertEqual(self.lease(3), [])
        self.ack(*first)
        self.assertEqual(places(self.wait(self.poll(ack="explicit", batch=3))), [("orders", 0, 1)])
