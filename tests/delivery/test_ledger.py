"""The ledger's rules, one by one. `test_histories` holds them against a naive model."""

import re

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from psubd.delivery import ledger as module
from psubd.delivery.book import Book
from psubd.delivery.cursor import Cursor, encode
from psubd.delivery.ledger import Death, IllegalEvent, Ledger, Place, Rules, Snapshot
from psubd.delivery.states import TRANSITIONS, Entry, Event, State
from tests.delivery.portions import MUCH, again, fed, message, offsets_of, portion


class AutoTests(SynchronousTestCase):
    def test_a_run_is_one_lease(self):
        """In auto mode a run of messages is one lease with one serial, in offset order, that lasts as long as it takes."""
        ledger = fed()
        one, other = ledger.lease(5, 4, MUCH) + ledger.lease(6, 4, MUCH)
        self.assertEqual((offsets_of([one]), offsets_of([other])), ([0, 1, 2, 3], [4, 5, 6, 7]))
        self.assertNotEqual(one.serial, other.serial)
        self.assertEqual((one.attempt, one.until, one.size), (1, None, 40))
        self.assertFalse(ledger.tick(10**15))
        self.assertEqual(ledger.leased, 8)

    def test_size(self):
        """An answer keeps to its bytes, but one message always fits, unless the caller has some already."""
        ledger = fed()
        self.assertEqual(offsets_of(ledger.lease(0, 10, 25)), [0, 1])
        self.assertEqual(offsets_of(ledger.lease(0, 10, 3)), [2])
        self.assertEqual(ledger.lease(0, 10, 3, first_fits=False), [])
        self.assertEqual(offsets_of(ledger.lease(0, 1, 10)), [3])

    def test_done(self):
        """A lease that was wholly handed over is done, once."""
        ledger = fed(4)
        [lease] = ledger.lease(0, 4, MUCH)
        ledger.done(lease.serial)
        self.assertEqual(ledger.place(), Place(4, (), ()))
        with self.assertRaises(IllegalEvent):
            ledger.done(lease.serial)

    def test_given_back_comes_first(self):
        """What was not handed over goes before newer ones, at the same attempt, with another serial; a part of it may go."""
        ledger = fed()
        [lease] = ledger.lease(0, 5, MUCH)
        [newer] = ledger.lease(0, 1, MUCH)
        ledger.give_back(lease)
        again_ = ledger.lease(1, 3, MUCH) + ledger.lease(1, 4, MUCH)
        self.assertEqual(offsets_of(again_), [0, 1, 2, 3, 4, 6, 7])
        self.assertEqual({lease.attempt for lease in again_}, {1})
        self.assertNotIn(lease.serial, {lease.serial for lease in again_})
        self.assertEqual(ledger.committed, 0)
        self.assertEqual(offsets_of([newer]), [5])

    def test_given_back_and_leased_explicitly(self):
        """A run that came back is handed out one by one where a lease is explicit."""
        ledger = fed()
        ledger.give_back(ledger.lease(0, 5, MUCH)[0])
        leases = ledger.lease(0, 3, MUCH, until=50)
        self.assertEqual([len(lease.messages) for lease in leases], [1, 1, 1])
        self.assertTrue(ledger.ack(1, leases[1].serial))
        self.assertEqual(ledger.place(), Place(0, ((1, 2),), ()))
        self.assertEqual(offsets_of(ledger.lease(0, 9, MUCH)), [3, 4, 5, 6, 7, 8, 9])

    def test_tokens_do_not_end_it(self):
        """A token of an earlier lease does not ack a message that is out in auto mode, or was and came back."""
        ledger = fed(4)
        leases = ledger.lease(0, 4, MUCH, until=10)
        ledger.tick(10)
        again(ledger)
        auto = ledger.lease(10, 4, MUCH)
        for lease in leases:
            self.assertFalse(ledger.ack(lease.messages[0].offset, lease.serial))
        self.assertFalse(ledger.ack(0, auto[0].serial))
        for lease in auto:
            ledger.give_back(lease)
        self.assertFalse(ledger.ack(2, leases[2].serial))
        self.assertEqual(ledger.committed, 0)

    def test_max_in_flight(self):
        """No more are out than max_in_flight, at each moment; it can be set anew."""
        ledger = fed(rules=Rules(3))
        [lease] = ledger.lease(0, 10, MUCH)
        self.assertEqual(offsets_of([lease]), [0, 1, 2])
        self.assertFalse(ledger.ready)
        ledger.give_back(lease)
        self.assertTrue(ledger.ready)
        self.assertEqual(len(ledger.lease(0, 10, MUCH, until=9)), 3)
        ledger.bind(Rules(5), 0)
        self.assertEqual(offsets_of(ledger.lease(0, 10, MUCH)), [3, 4])


class ExplicitTests(SynchronousTestCase):
    def test_one_message_a_lease(self):
        """Each message has a lease and a serial of its own."""
        ledger = fed(rules=Rules(3))
        leases = ledger.lease(0, 10, MUCH, until=100)
        self.assertEqual([(lease.messages[0].offset, lease.attempt, lease.until) for lease in leases], [(0, 1, 100), (1, 1, 100), (2, 1, 100)])
        self.assertEqual(len({lease.serial for lease in leases}), 3)

    def test_serials_are_drawn(self):
        """They are the caller's, so that no other process, earlier or later, gives the same."""
        ledger = fed(serials=iter([70, 71, 99]))
        self.assertEqual([lease.serial for lease in ledger.lease(0, 3, MUCH, until=5)], [70, 71, 99])

    def test_acks_in_any_order(self):
        """What is done past the first hole is kept, and the committed offset stays at the hole."""
        ledger = fed()
        leases = ledger.lease(0, 6, MUCH, until=100)
        for index in (4, 1, 2):
            self.assertTrue(ledger.ack(index, leases[index].serial))
        self.assertEqual(ledger.place(), Place(0, ((1, 3), (4, 5)), ()))
        ledger.ack(0, leases[0].serial)
        self.assertEqual(ledger.place(), Place(3, ((4, 5),), ()))

    def test_an_ack_repeated(self):
        """An ack said twice is as good as once, whoever says it."""
        ledger = fed()
        first, second = ledger.lease(0, 2, MUCH, until=100)
        for _ in range(2):
            self.assertTrue(ledger.ack(1, second.serial))
        ledger.ack(0, first.serial)
        self.assertTrue(ledger.ack(0, 12345))

    def test_the_instant_of_lapse(self):
        """A lease stands to before its end, and at that instant somebody else may get the message: never both."""
        ledger = fed(1)
        [lease] = ledger.lease(0, 1, MUCH, until=100)
        self.assertEqual(ledger.due, 100)
        self.assertEqual(ledger.lease(99, 1, MUCH, until=200), [])
        self.assertTrue(ledger.extend(0, lease.serial, 99, 100))
        self.assertTrue(ledger.tick(100))
        again(ledger)
        [other] = ledger.lease(100, 1, MUCH, until=200)
        self.assertEqual(other.attempt, 2)
        self.assertFalse(ledger.extend(0, lease.serial, 100, 300))
        self.assertFalse(ledger.ack(0, lease.serial))
        self.assertTrue(ledger.ack(0, other.serial))

    def test_a_lapsed_lease_still_acks(self):
        """As long as the message was not given out again; but it is neither let go, nor buried, nor extended."""
        ledger = fed(1)
        [lease] = ledger.lease(0, 1, MUCH, until=100)
        self.assertFalse(ledger.nack(0, lease.serial, 100))
        self.assertFalse(ledger.bury(0, lease.serial, 100))
        self.assertFalse(ledger.extend(0, lease.serial, 100, 200))
        self.assertTrue(ledger.ack(0, lease.serial))
        self.assertEqual(ledger.place(), Place(1, (), ()))

    def test_extend(self):
        """A lease that is extended lasts to its new end, be that later or earlier."""
        ledger = fed(2)
        one, other = ledger.lease(0, 2, MUCH, until=100)
        ledger.extend(0, one.serial, 50, 300)
        ledger.extend(1, other.serial, 50, 60)
        self.assertEqual(ledger.due, 60)
        ledger.tick(299)
        self.assertEqual(ledger.leased, 1)
        ledger.tick(300)
        self.assertEqual(ledger.leased, 0)
        self.assertIsNone(ledger.due)

    def test_nack(self):
        """A message that is let go comes back at once, in order, as another attempt; said again it changes nothing."""
        ledger = fed(3)
        leases = ledger.lease(0, 2, MUCH, until=100)
        for _ in range(2):
            self.assertTrue(ledger.nack(1, leases[1].serial, 5))
        again(ledger)
        [back, fresh] = ledger.lease(5, 2, MUCH, until=100)
        self.assertEqual([(lease.messages[0].offset, lease.attempt) for lease in (back, fresh)], [(1, 2), (2, 1)])
        self.assertFalse(ledger.nack(1, leases[1].serial, 6))
        self.assertEqual(ledger.leased, 3)

    def test_a_nack_of_an_earlier_lease(self):
        """Does not make the next lease, that lapsed, one that was let go."""
        ledger = fed(1)
        [lease] = ledger.lease(0, 1, MUCH, until=10)
        ledger.nack(0, lease.serial, 0)
        again(ledger)
        [lease] = ledger.lease(0, 1, MUCH, until=10)
        self.assertFalse(ledger.nack(0, lease.serial, 10))

    def test_nack_with_delay(self):
        """It waits as long as was asked for, to the millisecond, and others go on meanwhile."""
        ledger = fed(3)
        [lease] = ledger.lease(0, 1, MUCH, until=100)
        ledger.nack(0, lease.serial, 10, 500)
        self.assertEqual((ledger.waiting, ledger.due, ledger.idle), (1, 510, False))
        self.assertEqual(offsets_of(ledger.lease(509, 1, MUCH, until=10**6)), [1])
        ledger.tick(510)
        again(ledger)
        self.assertEqual(offsets_of(ledger.lease(510, 2, MUCH, until=10**6)), [0, 2])

    def test_backoff(self):
        """Each attempt waits twice as long as the one before, up to the most; what a nack asks for counts where it is more."""
        ledger = fed(1, rules=Rules(backoff_min=100, backoff_max=350))
        now, waits = 0, []
        for delay in (0, 0, 0, 0, 999):
            again(ledger)
            [lease] = ledger.lease(now, 1, MUCH, until=now + 10)
            ledger.nack(0, lease.serial, now, delay)
            waits.append(ledger.due - now)
            now = ledger.due
            ledger.tick(now)
        self.assertEqual(waits, [100, 200, 350, 350, 999])

    def test_a_lapse_waits_for_its_backoff(self):
        """From the moment on at which the lease was over, whenever that was noticed."""
        ledger = fed(1, rules=Rules(backoff_min=100, backoff_max=100))
        ledger.lease(0, 1, MUCH, until=50)
        ledger.tick(70)
        self.assertEqual(ledger.due, 150)

    def test_give_back(self):
        """What was not handed over comes back at once, without an attempt or a delay; its token still acks."""
        ledger = fed(2, rules=Rules(backoff_min=100, backoff_max=100, max_attempts=1))
        one, other = ledger.lease(0, 2, MUCH, until=50)
        ledger.give_back(one)
        [back] = ledger.lease(1, 1, MUCH, until=50)
        self.assertEqual((offsets_of([back]), back.attempt), ([0], 1))
        ledger.give_back(other)
        self.assertTrue(ledger.ack(1, other.serial))

    def test_give_back_too_late(self):
        """A lease that was acked, let go, or lapsed meanwhile is not given back."""
        ledger = fed(3)
        acked, nacked, lapsed = ledger.lease(0, 3, MUCH, until=50)
        ledger.ack(0, acked.serial)
        ledger.nack(1, nacked.serial, 10, 1000)
        ledger.tick(50)
        before = ledger.snapshot(60)
        for lease in (acked, nacked, lapsed):
            ledger.give_back(lease)
        self.assertEqual(ledger.snapshot(60), before)
        again(ledger)
        self.assertEqual([lease.attempt for lease in ledger.lease(60, 3, MUCH, until=99)], [2])


class DeadTests(SynchronousTestCase):
    def test_after_max_attempts(self):
        """The last attempt that lapses or is let go kills it, and it is told once. It is done when it is buried, not before."""
        ledger = fed(2, rules=Rules(max_attempts=2))
        for now in (0, 10):
            ledger.tick(now)
            again(ledger)
            self.assertEqual(ledger.take_deaths(), [])
            leases = ledger.lease(now, 2, MUCH, until=now + 10)
        ledger.nack(1, leases[1].serial, 15)
        ledger.tick(20)
        self.assertEqual(ledger.take_deaths(), [Death(1, 2, "max_attempts"), Death(0, 2, "max_attempts")])
        self.assertEqual(ledger.take_deaths(), [])
        self.assertEqual((ledger.dead, ledger.committed, ledger.ready, ledger.missing(), ledger.idle), (2, 0, False, None, False))
        ledger.buried(1)
        ledger.buried(1)
        self.assertEqual(ledger.place(), Place(0, ((1, 2),), ((0, 2),)))
        ledger.buried(0)
        self.assertEqual(ledger.place(), Place(2, (), ()))

    def test_nack_with_dead(self):
        """The holder sends it there at once; said again it changes nothing."""
        ledger = fed(1)
        [lease] = ledger.lease(0, 1, MUCH, until=10)
        for _ in range(2):
            self.assertTrue(ledger.bury(0, lease.serial, 5))
        self.assertTrue(ledger.nack(0, lease.serial, 5))
        self.assertEqual(ledger.take_deaths(), [Death(0, 1, "nack")])

    def test_acked_while_dead(self):
        """Its last lease still acks it; what was not told is not told any more, and it may be buried all the same."""
        ledger = fed(1)
        [lease] = ledger.lease(0, 1, MUCH, until=10)
        ledger.bury(0, lease.serial, 5)
        self.assertTrue(ledger.ack(0, lease.serial))
        self.assertEqual(ledger.take_deaths(), [])
        ledger.buried(0)
        ledger.revive(0)
        self.assertEqual(ledger.place(), Place(1, (), ()))

    def test_revived(self):
        """Where there is no dead-letter topic any more it goes out again, before newer ones."""
        ledger = fed(3, rules=Rules(max_attempts=1))
        ledger.lease(0, 1, MUCH, until=10)
        ledger.tick(10)
        ledger.bind(Rules(), 10)
        ledger.revive(0)
        again(ledger)
        leases = ledger.lease(10, 2, MUCH, until=20)
        self.assertEqual([(lease.messages[0].offset, lease.attempt) for lease in leases], [(0, 2), (1, 1)])

    def test_tried_too_often_when_it_would_be_leased(self):
        """Attempts that a commit tells of count, and a bound that was set lower counts at once."""
        ledger = Ledger(0, (), ((1, 5),), rules=Rules(max_attempts=5))
        ledger.feed(0, portion(0, range(3)))
        self.assertEqual(offsets_of(ledger.lease(0, 9, MUCH)), [0, 2])
        self.assertEqual(ledger.take_deaths(), [Death(1, 5, "max_attempts")])
        ledger = fed(1)
        [lease] = ledger.lease(0, 1, MUCH, until=10)
        ledger.nack(0, lease.serial, 0)
        ledger.bind(Rules(max_attempts=1), 0)
        self.assertFalse(ledger.ready)
        self.assertEqual(ledger.take_deaths(), [Death(0, 1, "max_attempts")])


class PlaceTests(SynchronousTestCase):
    def test_a_fresh_message_is_a_hole(self):
        """What was read and not leased is not done."""
        ledger = fed()
        ledger.done(ledger.lease(0, 1, MUCH)[0].serial)
        self.assertEqual(ledger.place(), Place(1, (), ()))

    def test_gaps_are_done(self):
        """An offset without a message holds nothing up, before, between and after messages."""
        ledger = Ledger(0)
        ledger.feed(0, portion(0, [3, 4, 9], next_offset=20))
        self.assertEqual(ledger.committed, 3)
        leases = ledger.lease(0, 10, MUCH, until=9)
        for lease in leases[:2]:
            ledger.ack(lease.messages[0].offset, lease.serial)
        self.assertEqual(ledger.committed, 9)
        ledger.ack(9, leases[2].serial)
        self.assertEqual(ledger.place(), Place(20, (), ()))
        self.assertEqual(ledger.position, 20)

    def test_a_gap_alone(self):
        """A read that found only a gap moves the place on."""
        ledger = Ledger(5)
        ledger.feed(5, portion(5, [], next_offset=50))
        self.assertEqual(ledger.place(), Place(50, (), ()))

    def test_a_gap_that_is_read_later_takes_no_room(self):
        """However far it goes: what is out before it was granted by what the place had room for then."""
        ledger = fed(100, room=40)
        ledger.lease(0, 100, MUCH, until=9)
        before = ledger.place()
        ledger.feed(100, portion(100, [], next_offset=10**12))
        self.assertEqual(ledger.place(), before)

    def test_the_log_began_later(self):
        """Where retention took the messages at the position, the ledger goes on at the log's start."""
        ledger = Ledger(5)
        ledger.feed(5, portion(5, [], next_offset=5, first=30))
        self.assertEqual((ledger.position, ledger.committed), (30, 30))

    def test_attempts(self):
        """The place tells of deliveries from the second on; of one in auto mode only when it is over, since it may come back."""
        ledger = fed(3)
        for now in (0, 10):
            ledger.lease(now, 2, MUCH, until=now + 10)
            ledger.tick(now + 10)
            again(ledger)
        self.assertEqual(ledger.place().attempts, ((0, 2), (1, 2)))
        ledger.lease(20, 1, MUCH)
        self.assertEqual(ledger.place().attempts, ((0, 2), (1, 2)))
        ledger.lease(20, 1, MUCH, until=30)
        self.assertEqual(ledger.place().attempts, ((0, 2), (1, 3)))

    def test_oldest(self):
        """The oldest message that is not done is known as long as it is: without its payload while it is out."""
        ledger = fed(3)
        self.assertEqual(ledger.oldest(), message(0))
        first, second, third = ledger.lease(0, 3, MUCH, until=9)
        self.assertEqual((ledger.oldest().offset, ledger.oldest().timestamp, ledger.oldest().value), (0, 1000, None))
        ledger.ack(0, first.serial)
        ledger.give_back(second)
        self.assertEqual(ledger.oldest(), message(1))
        ledger.ack(2, third.serial)
        ledger.ack(1, second.serial)
        self.assertIsNone(ledger.oldest())


class LoadedTests(SynchronousTestCase):
    def test_done_is_not_leased_again(self):
        """What a commit said is done past its offset is never leased, and said again by the next commit."""
        ledger = Ledger(0, ((2, 4), (6, 7)))
        ledger.feed(0, portion(0, range(5)))
        self.assertEqual(ledger.place(), Place(0, ((2, 4), (6, 7)), ()))
        leases = ledger.lease(0, 10, MUCH, until=9)
        self.assertEqual(offsets_of(leases), [0, 1, 4])
        ledger.feed(5, portion(5, range(5, 9)))
        leases += ledger.lease(0, 10, MUCH, until=9)
        self.assertEqual(offsets_of(leases), [0, 1, 4, 5, 7, 8])
        ledger.ack(4, leases[2].serial)
        self.assertEqual(ledger.place(), Place(0, ((2, 5), (6, 7)), ()))
        ledger.ack(0, leases[0].serial)
        ledger.ack(1, leases[1].serial)
        self.assertEqual(ledger.place(), Place(5, ((6, 7),), ()))

    def test_done_is_not_read_again(self):
        """A position inside of what is done goes on past it."""
        ledger = Ledger(0, ((2, 400),))
        ledger.feed(0, portion(0, [0, 1]))
        self.assertEqual(ledger.position, 400)
        ledger.done(ledger.lease(0, 2, MUCH)[0].serial)
        self.assertEqual(ledger.place(), Place(400, (), ()))

    def test_loaded_holes_that_are_gaps(self):
        """A hole of the commit that compaction emptied since is done."""
        ledger = Ledger(0, ((5, 8), (10, 12)))
        ledger.feed(0, portion(0, [20], next_offset=21))
        self.assertEqual(ledger.place(), Place(20, (), ()))

    def test_attempts_go_on(self):
        """Deliveries that a commit told of are counted on from there, and told again as long as the message is not done."""
        ledger = Ledger(0, ((3, 4),), ((1, 2), (5, 4)))
        self.assertEqual(ledger.place(), Place(0, ((3, 4),), ((1, 2), (5, 4))))
        ledger.feed(0, portion(0, range(6)))
        leases = ledger.lease(0, 3, MUCH)
        self.assertEqual([(offsets_of([lease]), lease.attempt) for lease in leases], [([0], 1), ([1], 3), ([2], 1)])
        for lease in leases:
            ledger.done(lease.serial)
        self.assertEqual(ledger.place(), Place(4, (), ((5, 4),)))

    def test_acks_of_earlier_leases(self):
        """A lease of an earlier ledger acks what was not leased since: not read yet, in the window, or held."""
        ledger = fed(10, keys=(b"k",), rules=Rules(ordered=True))
        [lease] = ledger.lease(0, 5, MUCH, until=100)  # the others are held
        for offset in (3, 10, 12, 11, 50):
            self.assertTrue(ledger.ack(offset, 777))
        self.assertFalse(ledger.ack(0, 777))
        self.assertEqual(ledger.place(), Place(0, ((3, 4), (10, 13), (50, 51)), ()))
        ledger.ack(0, lease.serial)
        ledger.feed(10, portion(10, range(10, 60)))
        self.assertNotIn(11, offsets_of(ledger.lease(0, 100, MUCH)))
        plain = fed(10)
        self.assertTrue(plain.ack(4, 777))
        self.assertTrue(plain.ack(0, 777))
        self.assertEqual(plain.place(), Place(1, ((4, 5),), ()))
        self.assertEqual((plain.fresh, plain.window_bytes), (8, 80))
        self.assertEqual(offsets_of(plain.lease(0, 100, MUCH)), [1, 2, 3, 5, 6, 7, 8, 9])

    def test_acks_of_earlier_leases_keep_to_the_room(self):
        """Where the place could not be written any more, the ack is lost, and says so; the first message that is not done always fits."""
        ledger = Ledger(0, room=24)
        taken = [offset for offset in range(2, 2000, 2) if ledger.ack(offset, 777)]
        self.assertTrue(0 < len(taken) < 100, len(taken))
        place = ledger.place()
        encode(Cursor("", "", 0, 0, *place[:2]), 24 + len("psubd2;;;0;0;0;b;;"))
        self.assertTrue(ledger.ack(0, 777))
        self.assertEqual(ledger.committed, 1)

    def test_an_ack_far_beyond_takes_room(self):
        """What was sure to fit before it is asked again."""
        ledger = fed(200, room=60)
        ledger.lease(0, 1, MUCH, until=9)
        self.assertTrue(ledger.ack(10**9, 777))
        leases = ledger.lease(0, 200, MUCH, until=9)
        for lease in leases[1::2]:
            ledger.ack(lease.messages[0].offset, lease.serial)
        place = ledger.place()
        encode(Cursor("", "", 0, 0, *place[:2]), 60 + len("psubd2;;;0;0;0;b;;"))

    def test_more_is_loaded_than_fits(self):
        """Where a commit says more than fits today, the group goes on message by message: it never stands still."""
        many = tuple((at, at + 1) for at in range(2, 4000, 2))
        ledger = Ledger(0, many, room=20)
        ledger.feed(0, portion(0, range(4000)))
        for expected in (0, *range(1, 400, 2)):
            [lease] = ledger.lease(0, 10, MUCH)
            self.assertEqual(offsets_of([lease]), [expected])
            ledger.done(lease.serial)


class RoomTests(SynchronousTestCase):
    def test_leases_keep_to_what_can_be_written(self):
        """No further message is leased than a commit can tell of, in either mode, and the rest comes when the first is done."""
        for until in (None, 100):
            ledger = fed(1000, room=40)
            leased = offsets_of(ledger.lease(0, 1000, MUCH, until=until))
            self.assertTrue(10 < len(leased) < 1000, len(leased))
            self.assertEqual(ledger.lease(0, 1000, MUCH, until=until), [])
        leases = fed(1000, room=40).lease(0, 1000, MUCH, until=100)
        ledger = fed(1000, room=40)
        leases = ledger.lease(0, 1000, MUCH, until=100)
        for lease in leases[1::2]:
            ledger.ack(lease.messages[0].offset, lease.serial)
        self.assertEqual(ledger.lease(0, 1000, MUCH), [])
        for lease in leases[0:20:2]:
            ledger.ack(lease.messages[0].offset, lease.serial)
        self.assertTrue(ledger.ready)

    def test_wide_gaps_do_not_stop_it(self):
        """On a compacted topic, where offsets lie millions apart, many may be out at a time."""
        ledger = Ledger(0)
        ledger.feed(0, portion(0, range(0, 10**9, 10**7)))
        self.assertEqual(len(ledger.lease(0, 1000, MUCH, until=9)), 100)


class WindowTests(SynchronousTestCase):
    def test_forgotten_and_read_again(self):
        """A window that was forgotten is read again from where it began; nothing is skipped or leased twice."""
        ledger = fed()
        out = ledger.lease(0, 3, MUCH)
        self.assertEqual((ledger.fresh, ledger.window_bytes), (7, 70))
        ledger.drop_window()
        self.assertEqual((ledger.fresh, ledger.window_bytes, ledger.position), (0, 0, 3))
        ledger.feed(3, portion(3, range(3, 6)))
        self.assertEqual(offsets_of(ledger.lease(0, 10, MUCH)), [3, 4, 5])
        self.assertEqual(ledger.committed, out[0].messages[0].offset)

    def test_the_payload_of_what_is_out_is_not_kept(self):
        """A message that lapsed or was let go is read again; one that was given back need not be."""
        ledger = fed(3)
        leases = ledger.lease(0, 3, MUCH, until=10)
        self.assertEqual(ledger.window_bytes, 0)
        ledger.give_back(leases[2])
        self.assertEqual((ledger.window_bytes, ledger.missing()), (10, None))
        ledger.tick(10)
        self.assertEqual((ledger.missing(), ledger.ready), (0, False))
        self.assertEqual(ledger.lease(10, 9, MUCH), [])
        ledger.refill(0, portion(0, [0], end=3))
        self.assertTrue(ledger.ready)
        self.assertEqual((offsets_of(ledger.lease(10, 9, MUCH)), ledger.missing()), ([0], 1))

    def test_what_is_gone_is_done(self):
        """A message that retention or compaction took before it came again is done."""
        for found in (portion(0, [1, 2]), portion(0, [1, 2], next_offset=3, first=1)):
            ledger = fed(3)
            ledger.lease(0, 3, MUCH, until=10)
            ledger.tick(10)
            ledger.refill(0, found)
            self.assertEqual(ledger.committed, 1)
            self.assertEqual(offsets_of(ledger.lease(10, 3, MUCH)), [1, 2])

    def test_one_that_is_gone_before_its_gap_ends(self):
        """A message is gone where the log begins in the gap behind it."""
        ledger = Ledger(0)
        ledger.feed(0, portion(0, [0, 10]))
        ledger.lease(0, 2, MUCH, until=9)
        ledger.tick(9)
        ledger.refill(0, portion(0, [], next_offset=5, first=5))
        self.assertEqual(ledger.committed, 10)

    def test_the_rest_of_a_run(self):
        """Of a run that was read in part, the rest is found wherever in it the messages lie."""
        ledger = Ledger(0)
        ledger.feed(0, portion(0, [0, 1, 5], next_offset=10))
        ledger.give_back(ledger.lease(0, 3, MUCH)[0])
        ledger.drop_window()
        ledger.refill(0, portion(0, [0, 1]))
        self.assertEqual(offsets_of(ledger.lease(0, 3, MUCH)), [0, 1])
        ledger.refill(2, portion(2, [5], next_offset=10))
        self.assertEqual(offsets_of(ledger.lease(0, 3, MUCH)), [5])

    def test_a_run_that_is_gone_in_part(self):
        """A run whose messages were let go is read again, in pieces, and what is not there any more is done."""
        ledger = fed(10, keep=50)
        [lease] = ledger.lease(0, 10, MUCH)
        ledger.give_back(lease)
        self.assertEqual(ledger.window_bytes, 50)
        ledger.drop_window()
        self.assertEqual((ledger.window_bytes, ledger.missing()), (0, 0))
        ledger.refill(0, portion(0, [0, 2, 3], next_offset=4))
        self.assertEqual(offsets_of(ledger.lease(0, 10, MUCH)), [0, 2, 3])
        self.assertEqual(ledger.missing(), 4)
        ledger.refill(4, portion(4, [9], next_offset=10))
        self.assertEqual(offsets_of(ledger.lease(0, 10, MUCH)), [9])
        self.assertEqual(ledger.place(), Place(0, ((4, 9),), ()))

    def test_little_is_kept(self):
        """Payload of what came back is kept to a bound, but the message that is next is read whatever its size."""
        ledger = fed(10, keep=15)
        leases = ledger.lease(0, 10, MUCH, until=10)
        ledger.tick(10)
        ledger.refill(0, portion(0, range(10)))
        self.assertEqual(ledger.window_bytes, 10)
        self.assertEqual(len(leases), 10)
        [lease] = ledger.lease(10, 10, MUCH, until=20)
        ledger.refill(1, portion(1, [1], size=1000))
        self.assertEqual(ledger.window_bytes, 1000)
        self.assertEqual(offsets_of([lease]), [0])


class OrderedTests(SynchronousTestCase):
    ORDERED = Rules(ordered=True)

    def test_one_of_a_key_at_a_time(self):
        """Explicit: also inside of one answer; other keys flow, and messages without a key are one."""
        ledger = fed(9, keys=(b"a", b"b", None), rules=self.ORDERED)
        leases = ledger.lease(0, 9, MUCH, until=100)
        self.assertEqual(offsets_of(leases), [0, 1, 2])
        ledger.ack(1, leases[1].serial)
        self.assertEqual(offsets_of(ledger.lease(0, 9, MUCH, until=100)), [4])

    def test_successive_ones_in_one_answer(self):
        """Auto: one answer may hold several of a key, in order, also if it asks twice; another one may not."""
        ledger = fed(9, keys=(b"a", b"b", None), rules=self.ORDERED)
        self.assertEqual(offsets_of(ledger.lease(0, 4, MUCH, answer=1)), [0, 1, 2, 3])
        self.assertEqual(offsets_of(ledger.lease(0, 9, MUCH, answer=2)), [])
        leases = ledger.lease(0, 9, MUCH, answer=1)
        self.assertEqual(offsets_of(leases), [4, 5, 6, 7, 8])
        ledger.give_back(leases[0])
        self.assertEqual(offsets_of(ledger.lease(0, 9, MUCH, answer=2)), [])
        self.assertEqual(offsets_of(ledger.lease(0, 9, MUCH, answer=1)), [4])

    def test_its_key_waits(self):
        """While a message waits for its delay, or is on its way to the dead-letter topic, its key waits."""
        ledger = fed(4, keys=(b"a", b"b"), rules=Rules(ordered=True, max_attempts=2))
        one, other = ledger.lease(0, 9, MUCH, until=100)
        ledger.nack(0, one.serial, 0, 50)
        ledger.bury(1, other.serial, 0)
        self.assertEqual(ledger.lease(10, 9, MUCH, until=100), [])
        ledger.buried(1)
        self.assertEqual(offsets_of(ledger.lease(10, 9, MUCH, until=100)), [3])
        ledger.tick(50)
        again(ledger, keys=(b"a", b"b"))
        self.assertEqual(offsets_of(ledger.lease(50, 9, MUCH, until=100)), [0])

    def test_switched_on_while_messages_are_out(self):
        """What is out stays out; nothing of its key goes out before all of them are done."""
        ledger = fed(8, keys=(b"a", b"b"))
        leases = ledger.lease(0, 4, MUCH, until=100)
        ledger.bind(self.ORDERED, 0)
        self.assertEqual(offsets_of(ledger.lease(0, 9, MUCH, until=100)), [])
        for at in (0, 1, 3):
            ledger.ack(at, leases[at].serial)
        self.assertEqual(offsets_of(ledger.lease(0, 9, MUCH, until=100)), [5])

    def test_switched_on_while_keys_are_not_known(self):
        """A run that is out in auto mode might be of any key: nothing newer goes out before it is done or back."""
        ledger = fed(8, keys=(b"a", b"b"))
        [lease] = ledger.lease(0, 4, MUCH)
        ledger.bind(self.ORDERED, 0)
        self.assertFalse(ledger.ready)
        self.assertEqual(ledger.lease(0, 9, MUCH, until=100), [])
        ledger.give_back(lease)
        self.assertEqual(offsets_of(ledger.lease(0, 9, MUCH, until=100)), [0, 1])

    def test_what_came_back_waits_for_unknown_keys_too(self):
        """Also a message that came back goes out only when the run before it is done."""
        ledger = fed(8, keys=(b"a", b"b"))
        [run] = ledger.lease(0, 4, MUCH)
        [lease] = ledger.lease(0, 1, MUCH, until=100)
        ledger.give_back(lease)
        ledger.bind(self.ORDERED, 0)
        self.assertFalse(ledger.ready)
        self.assertEqual(ledger.lease(0, 9, MUCH, until=100), [])
        ledger.done(run.serial)
        self.assertEqual(offsets_of(ledger.lease(0, 9, MUCH, until=100)), [4, 5])

    def test_the_key_of_what_is_leased_explicitly_is_known(self):
        """Also of a message that came back from a lease in auto mode: other keys flow when order is asked for."""
        ledger = fed(4, keys=(b"a", b"b"))
        ledger.give_back(ledger.lease(0, 1, MUCH)[0])
        ledger.lease(0, 1, MUCH, until=100)
        ledger.bind(self.ORDERED, 0)
        self.assertEqual(offsets_of(ledger.lease(0, 9, MUCH, until=100)), [1])

    def test_switched_off(self):
        """What was held flows."""
        ledger = fed(4, keys=(b"a",), rules=self.ORDERED)
        ledger.lease(0, 9, MUCH, until=100)
        ledger.bind(Rules(), 0)
        self.assertEqual(offsets_of(ledger.lease(0, 9, MUCH, until=100)), [1, 2, 3])

    def test_held_payload_is_bounded(self):
        """What a hot key holds back is let go, and read again when its turn comes."""
        ledger = fed(100, keys=(b"a",), rules=self.ORDERED, keep=100)
        [lease] = ledger.lease(0, 9, MUCH, until=100)
        self.assertEqual((ledger.fresh, ledger.window_bytes), (0, 50))
        seen = []
        while lease is not None:
            seen += offsets_of([lease])
            ledger.ack(seen[-1], lease.serial)
            again(ledger, keys=(b"a",))
            lease = next(iter(ledger.lease(0, 1, MUCH, until=100)), None)
        self.assertEqual(seen, list(range(100)))


class SnapshotTests(SynchronousTestCase):
    def moved(self, ledger, now, then, **named):
        snapshot = msgspec.json.decode(msgspec.json.encode(ledger.snapshot(now)), type=Snapshot)
        return Ledger.restore(snapshot, then, **named)

    def test_leases_move(self):
        """Serials, attempts, delays, deaths and the time that is left go on, by another clock; what was out in auto mode is back."""
        rules = Rules(max_attempts=2)
        ledger = fed(10, rules=rules)
        auto = ledger.lease(0, 2, MUCH)
        leases = ledger.lease(0, 5, MUCH, until=100)
        ledger.ack(4, leases[2].serial)
        ledger.nack(5, leases[3].serial, 10, 70)
        ledger.bury(6, leases[4].serial, 10)
        ledger.take_deaths()
        after = self.moved(ledger, 30, 1000, rules=rules, serials=iter(range(50, 99)))
        self.assertEqual(after.place(), ledger.place())
        self.assertEqual((after.leased, after.waiting, after.dead, after.due), (2, 1, 1, 1050))
        self.assertEqual(after.take_deaths(), [Death(6, 1, "nack")])
        self.assertTrue(after.ack(2, leases[0].serial))
        self.assertTrue(after.nack(3, leases[1].serial, 1069))
        self.assertFalse(after.extend(3, leases[1].serial, 1069, 2000))
        self.assertEqual((after.position, after.missing()), (7, 0))
        again(after)
        back = after.lease(1069, 9, MUCH)
        self.assertEqual([(offsets_of([lease]), lease.attempt, lease.serial) for lease in back], [([0, 1], 1, 50), ([3], 2, 51), ([5], 2, 52)])
        self.assertEqual(len(auto), 1)

    def test_what_is_not_taken_up_moves(self):
        """Acks past what was read, and attempts of messages that were not leased since, too."""
        ledger = Ledger(0, ((5, 7),), ((3, 4),))
        ledger.feed(0, portion(0, range(3)))
        ledger.ack(20, 777)
        after = self.moved(ledger, 0, 0)
        self.assertEqual(after.place(), Place(0, ((5, 7), (20, 21)), ((3, 4),)))
        self.assertEqual(after.position, 0)

    def test_order_moves(self):
        """Keys that wait go on waiting."""
        ledger = fed(4, keys=(b"a", b"b"), rules=Rules(ordered=True))
        [one, _] = ledger.lease(0, 9, MUCH, until=100)
        after = self.moved(ledger, 0, 0, rules=Rules(ordered=True))
        self.assertEqual((after.ready, after.missing()), (False, None))
        after.ack(0, one.serial)
        self.assertEqual(after.missing(), 2)

    def test_nonsense(self):
        """A snapshot that no ledger made is refused."""
        ledger = fed(4)
        ledger.lease(0, 4, MUCH, until=9)
        snapshot = ledger.snapshot(0)
        for items in (snapshot.items[::-1], snapshot.items[:1] * 2):
            with self.assertRaises(ValueError):
                Ledger.restore(msgspec.structs.replace(snapshot, items=items), 0)
        item = snapshot.items[0]
        for wrong in (
            {"left": None},
            {"state": State.READY},
            {"state": 99},
            {"state": State.DONE, "left": None},
            {"ending": 9},
            {"count": 0},
            {"end": 0},
        ):
            with self.assertRaises(ValueError, msg=wrong):
                Ledger.restore(msgspec.structs.replace(snapshot, items=(msgspec.structs.replace(item, **wrong),)), 0)
        with self.assertRaises(ValueError):
            Ledger.restore(msgspec.structs.replace(snapshot, done=((1, 2),)), 0)


class IllegalTests(SynchronousTestCase):
    def refused(self, ledger, call, *arguments):
        before = (ledger.snapshot(0), ledger.position, ledger.fresh, ledger.window_bytes)
        with self.assertRaises(IllegalEvent):
            call(*arguments)
        self.assertEqual(before, (ledger.snapshot(0), ledger.position, ledger.fresh, ledger.window_bytes))

    def test_a_lease_that_is_not_there(self):
        """A lease that never was, is done or was given back is not done; one that never was is not given back. Nothing changes."""
        ledger = fed()
        [first], [second] = ledger.lease(0, 1, MUCH), ledger.lease(0, 1, MUCH)
        ledger.done(first.serial)
        ledger.give_back(second)
        for serial in (first.serial, second.serial, 0, 99):
            self.refused(ledger, ledger.done, serial)
        self.refused(ledger, ledger.give_back, first._replace(serial=99))
        self.refused(ledger, ledger.give_back, first._replace(messages=(message(5),)))

    def test_a_death_that_was_not(self):
        """Only a dead message is buried or revived; one that is done already may be told so."""
        ledger = fed()
        ledger.lease(0, 2, MUCH)
        ledger.lease(0, 1, MUCH, until=9)
        for offset in (0, 1, 2, 3, 500):
            self.refused(ledger, ledger.buried, offset)
            self.refused(ledger, ledger.revive, offset)

    def test_a_read_that_was_not_due(self):
        """An answer to another read than the one that was due, or one that does not rise, is refused."""
        ledger = fed()
        self.refused(ledger, ledger.feed, 9, portion(9, [9]))
        self.refused(ledger, ledger.feed, 10, portion(10, [9, 10]))
        self.refused(ledger, ledger.feed, 10, portion(10, [11, 11]))
        self.refused(ledger, ledger.feed, 10, portion(10, [10, 11], next_offset=11))
        self.refused(ledger, ledger.feed, 10, portion(10, [], next_offset=9))
        self.refused(ledger, ledger.refill, 5, portion(5, [4, 5]))

    def test_a_place_that_cannot_be(self):
        """A ledger does not begin with ranges that are out of order or at its own offset, nor with such attempts."""
        for done in [((0, 2),), ((3, 3),), ((5, 6), (2, 3))]:
            with self.assertRaises(ValueError):
                Ledger(0, done)
        for attempts in [((4, 2),), ((6, 1),), ((6, 2), (6, 3))]:
            with self.assertRaises(ValueError):
                Ledger(5, (), attempts)


class TableTests(SynchronousTestCase):
    def test_the_table(self):
        """Every step that the table does not name is illegal, and leaves the message, and the count of messages, as they were."""
        for state in State:
            for event in Event:
                book = Book(0)
                entry = Entry(1, 2, 1, 0, state=state)
                book.enter(entry)
                if (state, event) in TRANSITIONS:
                    book.step(entry, event)
                    self.assertEqual(entry.state, TRANSITIONS[state, event])
                else:
                    with self.assertRaises(IllegalEvent):
                        book.step(entry, event)
                    self.assertEqual(entry.state, state)
                self.assertEqual((book.tally[entry.state], sum(book.tally)), (1, 1))

    def test_the_drawn_table(self):
        """The table that the module shows is the one that it goes by."""
        rows = re.findall(r"^    ([A-Z]+) +([a-z_]+) +([A-Z]+)\b", module.__doc__, re.MULTILINE)
        drawn = [((State[before], Event[event.upper()]), State[after]) for before, event, after in rows]
        self.assertEqual(len(drawn), len(dict(drawn)))
        self.assertEqual(dict(drawn), TRANSITIONS)
