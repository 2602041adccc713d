"""What the ledger costs: steps, memory, and characters of a commit. Steps are counted, not timed; `bench/ledger.py` shows times."""

import gc
import sys
import tracemalloc

from twisted.trial.unittest import SynchronousTestCase

from psubd.delivery.cursor import Cursor, decode, encode, room
from psubd.delivery.ledger import Ledger, Rules
from psubd.model import Slice
from tests.delivery.portions import MUCH, fed, message, offsets_of, portion

WIDE = Rules(max_in_flight=10**6)
ANY_ROOM = 10**6


def lines_of(work):
    """How many lines of Python ``work`` runs."""
    lines = 0

    def count(frame, event, argument):
        nonlocal lines
        lines += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


class StepTests(SynchronousTestCase):
    """As many steps with 100,000 messages out as with 1,000."""

    def same(self, lines):
        self.assertLess(lines(100_000), 1.5 * lines(1_000))

    def out(self, out, more=0):
        """A ledger with ``out`` explicit leases that end one by one, and ``more`` fresh messages."""
        ledger = fed(out + more, rules=WIDE, room=ANY_ROOM)
        leases = []
        for until in range(1, out + 1):
            leases += ledger.lease(0, 1, MUCH, until=until)
        return ledger, leases

    def test_lapse(self):
        """Lapsing."""

        def lines(out):
            ledger, _ = self.out(out)
            return lines_of(lambda: [ledger.tick(now) for now in range(1, 101)])

        self.same(lines)

    def test_ack(self):
        """Acking in order, and with holes left between."""

        def lines(out):
            ledger, leases = self.out(out)
            return lines_of(
                lambda: [(ledger.ack(lease.messages[0].offset, lease.serial), ledger.committed) for lease in leases[:100] + leases[101:301:2]]
            )

        self.same(lines)

    def test_nack_and_extend(self):
        """Letting go and extending."""

        def lines(out):
            ledger, leases = self.out(out)

            def work():
                for lease in leases[:200:2]:
                    ledger.nack(lease.messages[0].offset, lease.serial, 0, 10**6)
                for lease in leases[1:200:2]:
                    ledger.extend(lease.messages[0].offset, lease.serial, 0, 10**6)

            return lines_of(work)

        self.same(lines)

    def test_read_again(self):
        """Reading what lapsed again, and leasing it again."""

        def lines(out):
            ledger, _ = self.out(out)

            def work():
                for now in range(1, 101):
                    ledger.tick(now)
                    ledger.refill(now - 1, portion(now - 1, [now - 1]))
                    ledger.lease(now, 1, MUCH, until=10**9)

            return lines_of(work)

        self.same(lines)

    def test_lease_and_give_back(self):
        """Leasing in either mode, doing and giving back."""

        def lines(out):
            ledger, _ = self.out(out, 1000)

            def work():
                for _ in range(50):
                    [run] = ledger.lease(0, 4, MUCH)
                    ledger.give_back(run)
                    [part, rest] = ledger.lease(0, 2, MUCH) + ledger.lease(0, 2, MUCH)
                    [single] = ledger.lease(0, 1, MUCH, until=10**9)
                    ledger.done(part.serial)
                    ledger.done(rest.serial)
                    ledger.give_back(single)
                    [single] = ledger.lease(0, 1, MUCH, until=10**9)
                    ledger.ack(single.messages[0].offset, single.serial)

            return lines_of(work)

        self.same(lines)

    def test_a_hot_key(self):
        """Others flow at the same cost however many wait behind one of a key; and each of those costs the same."""

        def ledger_of(held):
            ledger = Ledger(0, rules=Rules(10**6, ordered=True), room=ANY_ROOM)
            ledger.feed(0, portion(0, range(held), keys=(b"hot",)))
            [hot] = ledger.lease(0, 9, MUCH, until=10**9)
            found = [message(held + number, key=b"%d" % number) for number in range(200)]
            ledger.feed(held, Slice(tuple(found), held + 200, 0, held + 200))
            return ledger, hot

        def others(held):
            ledger, _ = ledger_of(held)
            ledger.lease(0, 1, MUCH, until=10**9)
            return lines_of(lambda: [ledger.lease(0, 1, MUCH, until=10**9) for _ in range(100)])

        def theirs(held):
            ledger, hot = ledger_of(held)
            ledger.lease(0, 200, MUCH, until=10**9)

            def work(hot=hot):
                for _ in range(100):
                    ledger.ack(hot.messages[0].offset, hot.serial)
                    [hot] = ledger.lease(0, 1, MUCH, until=10**9)

            return lines_of(work)

        self.assertLess(others(20_000), 1.5 * others(1_000))
        self.assertLess(theirs(20_000), 1.5 * theirs(1_000))

    def test_many_of_a_key_in_one_answer(self):
        """Auto: an answer that asks again and again does not go through what it holds each time."""

        def lines(held):
            ledger = fed(held + 200, keys=(b"hot",), rules=Rules(10**6, ordered=True), room=ANY_ROOM)
            ledger.lease(0, held, MUCH, answer=1)
            return lines_of(lambda: [ledger.lease(0, 1, MUCH, answer=1) for _ in range(100)])

        self.assertLess(lines(20_000), 1.5 * lines(1_000))

    def test_a_batch(self):
        """A batch of 1,000 in auto mode is leased and done in fewer steps than 20 messages leased and acked by themselves."""
        ledger = fed(2000)

        def batch():
            [lease] = ledger.lease(0, 1000, MUCH)
            ledger.done(lease.serial)

        def single():
            [lease] = ledger.lease(0, 1, MUCH, until=9)
            ledger.ack(lease.messages[0].offset, lease.serial)

        self.assertLess(lines_of(batch), 20 * lines_of(single))


class MemoryTests(SynchronousTestCase):
    def taken(self, work):
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            kept = work()
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - before, kept
        finally:
            tracemalloc.stop()

    def test_outstanding_leases(self):
        """Each of 100,000 messages that are out takes less than 1 KiB, without its payload."""
        ledger = Ledger(0, rules=WIDE, room=ANY_ROOM)

        def work():
            for start in range(0, 100_000, 1000):
                ledger.feed(start, portion(start, range(start, start + 1000), size=100))
                ledger.lease(0, 1000, MUCH, until=10**12 + start)

        taken, _ = self.taken(work)
        self.assertEqual(ledger.leased, 100_000)
        self.assertLess(taken, 100_000 * 1024)

    def test_what_is_done_takes_none(self):
        """Leases of twelve hours that are acked at once, nacks, and messages that come back leave nothing behind."""
        ledger = Ledger(0, rules=Rules(max_in_flight=100))

        def work():
            for start in range(0, 20_000, 20):
                ledger.feed(start, portion(start, range(start, start + 20)))
                for lease in ledger.lease(start, 20, MUCH, until=start + 43_200_000):
                    ledger.extend(lease.messages[0].offset, lease.serial, start, start + 43_200_001)
                    ledger.nack(lease.messages[0].offset, lease.serial, start, 40_000_000)
                    ledger.ack(lease.messages[0].offset, lease.serial)

        taken, _ = self.taken(work)
        self.assertEqual((ledger.committed, ledger.due), (20_000, None))
        self.assertLess(taken, 100_000)


class RateTests(SynchronousTestCase):
    """What is done past the first hole fits the metadata of Kafka's default, 4096 characters."""

    UID, MARK = "u" * 22, "m" * 11

    def ledger(self):
        return Ledger(0, room=room(self.UID, self.MARK, 4096))

    def committed(self, ledger):
        place = ledger.place()
        cursor = Cursor(self.UID, self.MARK, 2**62, 2**62, place.offset, place.done, 2**62, place.attempts)
        commit = encode(cursor, 4096)
        self.assertLessEqual(len(commit.metadata), 4096)
        self.assertEqual(decode(commit).done, place.done)
        return place

    def lease(self, ledger, count):
        if ledger.fresh < count:
            ledger.feed(ledger.position, portion(ledger.position, range(ledger.position, ledger.position + count)))
        return ledger.lease(0, count, MUCH, until=10**9)

    def test_every_second_of_max_in_flight(self):
        """Of 10,000 out every second one is acked: it fits, and leasing goes on."""
        ledger = self.ledger()
        leases = self.lease(ledger, 10_000)
        self.assertEqual(len(leases), 10_000)
        for lease in leases[1::2]:
            self.assertTrue(ledger.ack(lease.messages[0].offset, lease.serial))
        place = self.committed(ledger)
        self.assertEqual(len(place.done), 5_000)
        more = self.lease(ledger, 10_000)
        self.assertEqual(len(more), 5_000)
        for lease in more[1::2]:
            ledger.ack(lease.messages[0].offset, lease.serial)
        self.committed(ledger)

    def test_one_of_twenty_is_slow(self):
        """At full rate, each slow one acked only when 20,000 newer ones were: it fits all the way, and leasing never stops."""
        ledger = self.ledger()
        slow = []
        for _ in range(100):
            leases = self.lease(ledger, 1000)
            self.assertEqual(len(leases), 1000)
            for lease in leases:
                if lease.messages[0].offset % 20:
                    ledger.ack(lease.messages[0].offset, lease.serial)
                else:
                    slow.append(lease)
            self.committed(ledger)
            while len(slow) > 1000:
                lease = slow.pop(0)
                ledger.ack(lease.messages[0].offset, lease.serial)
        self.assertEqual(offsets_of(slow[:1]), [ledger.committed])
