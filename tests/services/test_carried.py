"""Leases over a restart on SIGTERM."""

from zope.interface import implementer

from psubd.errors import StorageUnavailable
from psubd.interfaces import ICarryover
from psubd.model import Backoff
from tests.services.house import SubscriberTestCase, offsets


@implementer(ICarryover)
class Drawer:
    """A carryover in memory. ``refuses``: what `keep` raises."""

    def __init__(self):
        self.data = None
        self.refuses = None

    def keep(self, data):
        if self.refuses is not None:
            raise self.refuses
        self.data = data

    def take(self):
        data, self.data = self.data, None
        return data


class CarriedTests(SubscriberTestCase):
    def setUp(self):
        super().setUp()
        self.carryover = Drawer()
        self.restart()

    def down(self, ms):
        """The node stops, and starts again ``ms`` later; its boot clock begins anew, as that of another host might."""
        self.wait(self.subscriber.stop())
        self.clock.epoch += ms
        self.subscriber = self.make_subscriber()

    def down_and_away(self):
        """The same, and the storage is away when it starts, so that nothing of what was left is taken in before somebody uses it."""
        self.wait(self.subscriber.stop())
        self.storage.failing["committed"] = StorageUnavailable("away")
        self.subscriber = self.make_subscriber()
        self.storage.failing.clear()

    def test_leases_go_on(self):
        """A restart loses no lease: nobody else gets the message while it lasts, its token acks, nacks and extends."""
        self.publish(count=4)
        held = self.lease(3)
        self.ack(held[1])
        self.down(5000)
        self.assertEqual(self.drain(), [("orders", 0, 3)])
        self.assertEqual(self.extend(held[0]), (1, []))
        self.assertEqual(self.nack(held[2]), (1, []))
        self.assertEqual([(each.message.offset, each.attempt) for each in self.lease(2)], [(2, 2)])
        self.assertEqual(self.ack(held[0], held[1], held[2]), (2, [held[2].token]))

    def test_time_goes_on(self):
        """What passed while the node was down, and until the group was used again, counts off the leases."""
        self.publish(count=2)
        self.lease(1)
        self.lease(1, ack_timeout_ms=60_000)
        self.clock.advance(10_000)
        self.down(10_000)
        self.clock.advance(9999)
        self.assertEqual(self.lease(2), [])
        waiting = self.poll(timeout=60_000, ack="explicit")
        self.clock.advance(1)
        [again] = self.wait(waiting).messages
        self.assertEqual((again.message.offset, again.attempt), (0, 2))
        self.down(60_000)
        self.assertEqual(offsets(self.lease(2)), [0, 1])

    def test_delays_go_on(self):
        """So do delays, and what was tried."""
        self.bind("shop", "orders", backoff=Backoff(20_000, 20_000))
        self.publish(count=1)
        self.nack(*self.lease(1))
        self.down(10_000)
        self.assertEqual(self.lease(1), [])
        self.clock.advance(10_000)
        self.assertEqual([each.attempt for each in self.lease(1)], [2])

    def test_a_letter_that_is_not_stored(self):
        """A message that was on its way to the dead-letter topic goes there after the start, though nobody uses the group."""
        self.create_topic("dead")
        self.bind("shop", "orders", max_attempts=3, dead_letter="dead")
        self.publish()
        self.storage.failing["publish"] = StorageUnavailable("away")
        self.nack(*self.lease(1), dead=True)
        self.down(0)
        self.storage.failing.clear()
        self.clock.advance(2000)
        self.assertEqual(len(self.wait(self.storage.read("dead", 0, 0, 10, 1 << 20)).messages), 1)
        self.assertEqual(self.take(), [])

    def test_seen_from_the_start(self):
        """What is leased is shown, and lapses, though nobody uses the group; where the storage was away at the start, once somebody does."""
        self.publish(count=2)
        self.lease(2, ack_timeout_ms=60_000)
        self.down(0)
        self.assertEqual(self.leased(), 2)
        self.assertEqual(self.metric("psubd_leases_out"), 2)
        self.down_and_away()
        self.assertEqual(self.leased(), 0)
        self.assertEqual(self.take(), [])
        self.assertEqual(self.leased(), 2)
        self.down(0)
        self.clock.advance(60_000)
        self.assertEqual(self.metric("psubd_lapsed_total"), 2)

    def leased(self):
        return sum(item.leased for item in self.wait(self.subscriber.group("shop")).items)

    def test_never_used(self):
        """What nobody came for is left for the start after that."""
        self.publish()
        [held] = self.lease(ack_timeout_ms=3_600_000)
        for _ in range(3):
            self.clock.advance(1000)
            self.down_and_away()
        self.assertEqual(self.take(), [])
        self.assertEqual(self.extend(held), (1, []))

    def test_a_group_that_was_deleted_and_began_again(self):
        """What was left of the former one is not the new one's."""
        self.publish(count=2)
        [held] = self.lease(ack_timeout_ms=3_600_000, group="shop.g")
        self.down(1000)
        self.wait(self.subscriber.forget_group("shop.g", "test"))
        self.assertEqual(self.drain(group="shop.g"), [("orders", 0, 0), ("orders", 0, 1)])
        self.assertEqual(self.extend(held), (0, [held.token]))

    def test_this_once(self):
        """A crash after the start finds nothing: what was leased comes again, and acks as after any crash."""
        self.publish(count=2)
        held = self.lease(2)
        self.down(0)
        self.assertEqual(self.extend(held[0]), (1, []))
        self.crash()
        self.assertEqual(self.extend(held[0]), (0, [held[0].token]))
        self.assertEqual(self.ack(held[0]), (1, []))
        self.assertEqual(self.drain(), [("orders", 0, 1)])

    def test_moved_meanwhile(self):
        """Where the group was moved, or bound anew, since, the leases are lost."""
        self.publish(count=3)
        held = self.lease(3)
        self.down_and_away()
        self.wait(self.subscriber.reset("shop", "orders", None, {0: 1}, False, "test"))
        self.assertEqual(self.ack(*held), (0, [each.token for each in held]))
        self.assertEqual(offsets(self.lease(3)), [1, 2])
        self.down_and_away()
        self.unbind("shop", "orders")
        self.bind("shop", "orders")
        self.assertEqual(offsets(self.lease(3)), [0, 1, 2])

    def test_a_group_that_was_made_again(self):
        """A group that was deleted after the restart, before anybody used it, inherits nothing: neither leases nor what was done."""
        for group, down in (("shop", self.down_and_away), ("shop.mails", self.down_and_away), ("shop.more", self.restart)):
            self.publish(count=3)
            held = self.lease(3, group=group)
            self.ack(held[0])
            down()
            self.wait(self.subscriber.forget_group(group, "test"))
            again = self.lease(3, group=group)
            self.assertEqual([(each.message.offset, each.attempt) for each in again], [(0, 1), (1, 1), (2, 1)])
            self.assertEqual(self.ack(held[1]), (0, [held[1].token]))

    def test_not_committed(self):
        """Leases and acks that could not be committed at the stop go on too: the place in the storage is an older one of the same."""
        self.publish(count=3)
        held = self.lease(2)
        self.storage.failing["commit"] = StorageUnavailable("away")
        self.ack(held[0])
        self.down(0)
        self.storage.failing.clear()
        self.assertEqual(self.drain(), [("orders", 0, 2)])
        self.clock.advance(500)
        self.assertEqual(self.committed()["orders", 0], 1)

    def test_retention_was_faster(self):
        """Where the log begins behind what was kept, the group goes on there."""
        for hour in range(3):
            self.publish(timestamp=self.clock.epoch_ms() - (10 - hour) * 3_600_000)
        self.lease(1)
        self.wait(self.subscriber.stop())
        self.wait(self.storage.configure("orders", {"retention_ms": int(8.5 * 3_600_000)}))
        self.subscriber = self.make_subscriber()
        self.assertEqual(offsets(self.lease(3)), [2])

    def test_nothing_to_keep(self):
        """Where nothing is out nothing is left."""
        self.publish()
        self.ack(*self.lease(1))
        self.wait(self.subscriber.stop())
        self.assertIsNone(self.carryover.data)

    def test_cannot_be_kept(self):
        """A disk that is full, or a file that cannot be read, costs the leases, not the start: their messages come again."""
        self.publish()
        self.lease(1)
        self.carryover.refuses = OSError("full")
        self.down(0)
        self.assertEqual(offsets(self.lease(1)), [0])
        for data in (b"{", b"[{}]", b"\xff"):
            self.carryover.refuses = OSError("full")
            self.wait(self.subscriber.stop())
            self.carryover.refuses, self.carryover.data = None, data
            self.subscriber = self.make_subscriber()
            self.assertEqual(offsets(self.lease(1)), [0])

    def test_no_secret(self):
        """What is kept holds no payload, no token and no key."""
        self.publish(size=50)
        [held] = self.lease(1)
        self.wait(self.subscriber.stop())
        for secret in (b"v" * 50, held.token.encode(), self.keys["shop"]["subkey"].encode()):
            self.assertNotIn(secret, self.carryover.data)
