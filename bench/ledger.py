"""What the ledger costs, as multiples of an empty method call of the same run: `python -m bench.ledger`.

Prints the time of each operation with 1,000 and with 100,000 messages out, one message leased and acked by itself, a batch of 1,000 in auto
mode per message, and the memory of a lease. Times are the best of several rounds: the others were disturbed.
"""

import gc
import itertools
import time
import tracemalloc

from psubd.delivery.ledger import Ledger, Rules
from psubd.model import Message, Slice

ROUNDS = 7
WIDE = 1_000_000
"""Characters of room for the place: the bound of what may be out is then ``max_in_flight`` alone."""


class Empty:
    def call(self) -> None:
        pass


def best(work, operations, prepare=lambda: None):
    """Seconds per operation of the fastest round of ``work(prepare())``."""
    times = []
    for _ in range(ROUNDS):
        ready = prepare()
        gc.collect()
        gc.disable()
        begun = time.perf_counter()
        work(ready)
        times.append((time.perf_counter() - begun) / operations)
        gc.enable()
    return min(times)


def empty_call():
    call = Empty().call

    def work(_):
        for _ in itertools.repeat(None, 100_000):
            call()

    return best(work, 100_000)


def fed(out, more):
    """A ledger with ``out`` explicit leases, and ``more`` fresh messages."""
    ledger = Ledger(0, rules=Rules(max_in_flight=10**7), room=WIDE)
    ledger.feed(0, messages(0, out + more))
    leases = []
    for until in range(10_000, 10_000 + out):
        leases += ledger.lease(0, 1, 10**6, until=until)
    return ledger, leases


def messages(start, count, key=None):
    return Slice(tuple(Message(at, at, key, b"v" * 100, ()) for at in range(start, start + count)), start + count, 0, start + count)


def lease_and_ack(out, count=1000):
    """One message leased and acked by itself, while ``out`` others are out."""

    def work(ready):
        ledger, _ = ready
        for _ in itertools.repeat(None, count):
            [lease] = ledger.lease(1, 1, 10**6, until=10**9)
            ledger.ack(lease.messages[0].offset, lease.serial)

    return best(work, count, lambda: fed(out, count))


def lapse_and_lease(out, count=1000):
    """A lease lapses, its message is read again and leased again."""

    def work(ready):
        ledger, leases = ready
        for now in range(10_000, 10_000 + count):
            ledger.tick(now)
            ledger.refill(now - 10_000, Slice((leases[now - 10_000].messages[0],), now - 9_999, 0, 10**9))
            ledger.lease(now, 1, 10**6, until=10**9)

    return best(work, count, lambda: fed(out, 0))


def ordered_held(held, count=1000):
    """Messages of other keys flow, while ``held`` wait behind one of theirs."""

    def prepare():
        ledger = Ledger(0, rules=Rules(ordered=True, max_in_flight=10**7), room=WIDE)
        ledger.feed(0, messages(0, held, b"hot"))
        ledger.lease(0, 1, 10**6, until=10**9)
        found = messages(held, count)
        ledger.feed(held, Slice(tuple(Message(m.offset, 0, b"%d" % m.offset, b"v", ()) for m in found.messages), held + count, 0, 0))
        ledger.lease(0, 1, 10**6, until=10**9)
        return ledger

    def work(ledger):
        for _ in itertools.repeat(None, count - 1):
            [lease] = ledger.lease(1, 1, 10**6, until=10**9)
            ledger.ack(lease.messages[0].offset, lease.serial)

    return best(work, count - 1, prepare)


def ack_one(out, count=1000):
    """Acks of every second lease: holes stay between them."""

    def work(ready):
        ledger, leases = ready
        for lease in leases[: 2 * count : 2]:
            ledger.ack(lease.messages[0].offset, lease.serial)

    return best(work, min(count, out // 2), lambda: fed(out, 0))


def tick_one(out, count=500):
    """Lapses, one by one."""

    def work(ready):
        ledger, _ = ready
        for now in range(10_000, 10_000 + count):
            ledger.tick(now)

    return best(work, count, lambda: fed(out, 0))


def auto_batch(size=1000, batches=20):
    """Batches of ``size`` messages in auto mode: leased and done, and read into the window, per message."""

    def prepare():
        return Ledger(0), [messages(at * size, size) for at in range(batches)]

    def lease(ready):
        ledger, slices = ready
        for found in slices:
            ledger.feed(ledger.position, found)
            for lease in ledger.lease(1, size, 10**9):
                ledger.done(lease.serial)

    return best(lease, size * batches, prepare)


def whole_batch(size=1000, batches=20):
    """One batch in auto mode, leased and done, after it was read."""

    def prepare():
        ledger = Ledger(0)
        ledger.feed(0, messages(0, size * batches))
        return ledger

    def work(ledger):
        for _ in range(batches):
            [lease] = ledger.lease(1, size, 10**9)
            ledger.done(lease.serial)

    return best(work, batches, prepare)


def memory(out=100_000):
    """Bytes that one of ``out`` explicit leases takes in the ledger, without the payload."""
    ledger = Ledger(0, rules=Rules(max_in_flight=10**7), room=WIDE)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for start in range(0, out, 1000):
        ledger.feed(start, messages(start, 1000))
        for until in range(1000):
            ledger.lease(0, 1, 10**6, until=10**12 + start + until)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / out


def main():
    call = empty_call()

    def show(what, seconds):
        print(f"{what:<58} {seconds * 1e9:>9.0f} ns {seconds / call:>9.1f} empty calls")

    show("an empty method call", call)
    one = lease_and_ack(0)
    show("one message leased and acked", one)
    for out in (1_000, 100_000):
        show(f"the same, {out} others out", lease_and_ack(out))
    for out in (1_000, 100_000):
        show(f"the same, ordered, {out} others held behind one", ordered_held(out))
    for out in (1_000, 100_000):
        show(f"an ack, {out} out", ack_one(out))
        show(f"a lapse, {out} out", tick_one(out))
        show(f"a lapse, read again and leased again, {out} out", lapse_and_lease(out))
    show("auto, batches of 1,000: a message read, leased and done", auto_batch())
    batch = whole_batch()
    show("auto, a batch of 1,000 as a whole, leased and done", batch)
    print(f"  {batch / one:.1f} x one message leased and acked by itself")
    print(f"memory of an explicit lease, 100,000 out: {memory():.0f} bytes")


if __name__ == "__main__":
    main()
