"""Messages that go to the dead-letter topic, from a group that is in use."""

from psubd.errors import NoDeadLetter, StorageUnavailable
from tests.services.house import SubscriberTestCase, offsets


class DeathTests(SubscriberTestCase):
    def setUp(self):
        super().setUp()
        self.create_topic("dead")
        self.bind("shop", "orders", max_attempts=2, dead_letter="dead")
        self.told = []
        self.subscriber.listen(self.told.append)

    def letters(self):
        """The letters in the dead-letter topic: their headers."""
        return [dict(message.headers) for message in self.wait(self.storage.read("dead", 0, 0, 100, 1 << 20)).messages]

    def origins(self):
        return [int(letter["psubd.origin-offset"]) for letter in self.letters()]

    def test_max_attempts(self):
        """After max_attempts deliveries, by lapse or nack, a message goes there and is done; the next one is delivered."""
        self.publish(count=3)
        held = self.lease(2)
        self.nack(held[1])
        self.clock.advance(30_000)
        held = self.lease(2)
        self.assertEqual({each.attempt for each in held}, {2})
        self.nack(held[0])
        self.assertEqual(self.origins(), [0])
        self.clock.advance(30_000)
        self.assertEqual(self.origins(), [0, 1])
        self.assertEqual(self.letters()[0] | {"psubd.group": b"shop", "psubd.attempts": b"2", "psubd.reason": b"max_attempts"}, self.letters()[0])
        self.assertEqual(self.drain(), [("orders", 0, 2)])
        self.clock.advance(500)
        self.assertEqual(self.committed()["orders", 0], 3)

    def test_dead(self):
        """A nack with dead sends it there at once, and is answered after that was tried; repeated it is safe as long as it was not stored."""
        self.publish(count=2)
        held = self.lease(2)
        self.storage.held.add("publish")
        nacked = self.subscriber.nack(self.grant(), [held[0].token], 0, True)
        self.assertNoResult(nacked)
        self.storage.release("publish")
        self.assertEqual(self.verdict(nacked), (1, []))
        self.assertEqual((self.origins(), self.letters()[0]["psubd.reason"]), ([0], b"nack"))
        self.assertEqual(self.take(), [])
        self.assertEqual(self.nack(held[0], dead=True), (0, [held[0].token]))

    def test_no_dead_letter(self):
        """Where the binding of one of the topics names no dead-letter topic nothing is changed, of the others neither; other nacks go."""
        self.create_topic("news")
        self.bind("shop", "news")
        self.publish()
        self.publish("news")
        held = self.lease(2)
        self.failureResultOf(self.subscriber.nack(self.grant(), [each.token for each in held], 0, True), NoDeadLetter)
        self.assertEqual(self.origins(), [])
        self.assertEqual(self.extend(*held), (2, []))
        forged = "x" * 72
        self.failureResultOf(self.subscriber.nack(self.grant(), [forged, *(each.token for each in held)], 0, True), NoDeadLetter)
        self.assertEqual(self.nack(forged, dead=True), (0, [forged]))

    def test_cannot_be_stored(self):
        """While it cannot be stored a message stays, holds its group in memory and the place back, and is told of; acked late it is done."""
        self.publish(count=3)
        held = self.lease(2)
        self.storage.failing["publish"] = StorageUnavailable("away")
        self.assertEqual(self.nack(*held, dead=True), (2, []))
        self.ack(*self.lease(1))
        self.assertEqual(self.metric("psubd_dead_letters_waiting"), 2)
        self.assertEqual([line.split(":")[0] for line in self.told], [f"group.letter_stuck shop orders partition 0 offset {at}" for at in (0, 1)])
        for _ in range(10):
            self.clock.advance(30_000)
        self.assertEqual(self.committed()["orders", 0], 0)
        self.assertEqual(self.metric("psubd_groups_loaded"), 1)
        self.assertEqual(self.ack(held[1]), (1, []))
        self.storage.failing.clear()
        self.clock.advance(30_000)
        self.assertIn(0, self.origins())
        self.clock.advance(500)
        self.assertEqual(self.committed()["orders", 0], 3)

    def test_binding_without_one(self):
        """Where the binding names none any more, what is on its way there comes back to the group."""
        self.publish()
        [held] = self.lease()
        self.storage.failing["publish"] = StorageUnavailable("away")
        self.nack(held, dead=True)
        self.bind("shop", "orders")
        self.clock.advance(30_000)
        self.assertEqual(self.take(), [("orders", 0, 0)])
        self.storage.failing.clear()
        self.assertEqual(self.origins(), [])

    def test_found_after_a_crash(self):
        """A message that had its attempts before a crash, or under a binding that allowed more, goes there instead of out."""
        self.bind("shop", "orders")
        self.publish(count=2)
        for _ in range(3):
            self.nack(*self.lease(1))
        self.clock.advance(500)
        self.crash()
        self.bind("shop", "orders", max_attempts=2, dead_letter="dead")
        self.assertEqual(offsets(self.lease(2)), [1])
        self.assertEqual(self.origins(), [0])

    def test_a_crash_before_the_commit(self):
        """A crash between the letter and its message's end repeats, it does not lose."""
        self.publish()
        self.nack(*self.lease(1), dead=True)
        self.crash()
        self.assertEqual(offsets(self.lease(2)), [0])

    def test_the_key_waits(self):
        """Where order is kept the key waits until the letter is stored."""
        self.bind("shop", "orders", max_attempts=2, dead_letter="dead", ordered=True)
        self.publish(count=2, key=b"a")
        self.storage.failing["publish"] = StorageUnavailable("away")
        self.nack(*self.lease(1), dead=True)
        self.assertEqual(self.lease(1), [])
        waiting = self.poll()
        self.storage.failing.clear()
        self.clock.advance(2000)
        self.assertEqual(self.got(waiting), [("orders", 0, 1)])

    def test_many_of_a_key(self):
        """Where order is kept the end of one dead message brings the next one's death: however many, each is stored once."""
        self.bind("shop", "orders", ack_timeout_ms=1000)
        self.publish(count=600, key=b"a")
        self.assertEqual(len(self.lease(600)), 600)
        self.clock.advance(1000)
        self.bind("shop", "orders", max_attempts=1, dead_letter="dead", ordered=True)
        self.assertEqual(self.lease(1), [])
        self.assertEqual(self.wait(self.storage.bounds("dead"))[0].end, 600)
        self.assertEqual(self.metric("psubd_dead_letters_waiting"), 0)

    def test_stop(self):
        """A node that stops with letters that cannot be stored stops, and they come again."""
        self.publish()
        self.storage.failing["publish"] = StorageUnavailable("away")
        self.nack(*self.lease(1), dead=True)
        self.restart()
        self.storage.failing.clear()
        self.assertEqual(self.drain(), [("orders", 0, 0)])


class RedrivenTests(SubscriberTestCase):
    def test_for_another_group(self):
        """A message that was redriven for one group is delivered to that one only; for the others it is done as a gap is."""
        for group in (b"shop", b"shop.g", b"shop"):
            self.publish(headers=(("a", None), ("psubd.redrive-group", group)))
        self.publish()
        self.assertEqual(self.drain(), [("orders", 0, 0), ("orders", 0, 2), ("orders", 0, 3)])
        self.assertEqual(self.drain(group="shop.g"), [("orders", 0, 1), ("orders", 0, 3)])
        self.clock.advance(500)
        self.assertEqual([self.committed(group)["orders", 0] for group in ("shop", "shop.g")], [4, 4])

    def test_read_again(self):
        """Also where what is around it comes back."""
        self.publish()
        self.publish(headers=(("psubd.redrive-group", b"shop.g"),))
        self.publish()
        self.nack(*self.lease(2))
        self.assertEqual(offsets(self.lease(3)), [0, 2])
