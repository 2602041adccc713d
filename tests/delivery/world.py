"""One partition of one group, twice: a ledger, and the naive model that it is held against. `test_histories` drives both through random histories.

The model is plain sets and dicts: what the log holds, what is done, and a `Fate` for each message that the ledger may know. Each thing that can
happen (`STEPS`) is a method that takes two bytes and picks with them, so that Hypothesis can shrink a history and a plain random driver can run
many. Each promise of the contract (section 3) is a method that bears its name.

`python -m tests.delivery.world FIRST END` runs the random histories of these numbers.
"""

import itertools
import random
import sys

import msgspec

from psubd.delivery.cursor import Cursor, decode, encode
from psubd.delivery.ledger import Ledger, Rules
from psubd.delivery.snapshot import Snapshot
from psubd.model import Message, Slice

KEYS = (b"a", b"b", b"c", None)
GAPS = (0, 0, 0, 0, 0, 1, 3, 40, 10**6)
ROOMS = (24, 48, 48, 400)
RULES = (
    Rules(16),
    Rules(16),
    Rules(5, max_attempts=2),
    Rules(16, ordered=True),
    Rules(16, ordered=True, max_attempts=3, backoff_min=10, backoff_max=25),
    Rules(8, backoff_min=7, backoff_max=20),
)
KEEP = 40
"""Payload bytes that a ledger keeps of what came back: a handful of messages."""

EXPLICIT_MS = (1, 20, 20, 50)


class Fate:
    """What became of one message, as the model sees it."""

    __slots__ = ("answer", "attempts", "dead", "explicit", "let_go", "serial", "until", "waits")

    def __init__(self, attempts=0):
        self.attempts = attempts
        self.serial = 0  # of its last lease by this ledger
        self.explicit = False
        self.until = None  # LEASED: a number, or "auto"
        self.answer = 0
        self.waits = None  # until when
        self.dead = False
        self.let_go = None  # "nack" or "bury": what the holder of the last lease said

    @property
    def out(self):
        return self.until is not None


class World:
    def __init__(self, make=Ledger, start=0):
        self.make = make
        self.serials = itertools.count(1)
        self.room = ROOMS[start % len(ROOMS)]
        self.rules = RULES[start // 4 % len(RULES)]
        self.now = 1000
        self.log = {}  # what the storage has now
        self.published = {}
        self.first = 0
        self.end = 0
        self.answers = 0
        self.tokens = []  # (offset, serial) of all explicit leases since the last reset
        self.begin(0)
        self.commit(0, 0)

    def begin(self, offset):
        """A ledger that nothing was leased from."""
        self.ledger = self.make(offset, rules=self.rules, room=self.room, serials=self.serials, keep=KEEP)
        self.done = {at for at in self.published if at < offset}
        self.fates = {}
        self.leases = []  # that stand
        self.ended = []  # leases that ended, for late give-backs
        self.ticked = True
        self.stray = set()  # that the log lost while the ledger knew them

    # --- what can happen ---

    def publish(self, a, b):
        """Some messages, with gaps between them and behind."""
        for index in range(1 + a % 12):
            offset = self.end + GAPS[(b + index * (1 + a // 12)) % len(GAPS)]
            message = Message(offset, offset + 5, KEYS[(a * b + index * index) % len(KEYS)], b"v" * (index % 4 * 5), ())
            self.log[offset] = self.published[offset] = message
            self.end = offset + 1
        self.end += b % 3

    def retain(self, a, b):
        """The log begins later; what was before is gone."""
        there = sorted(self.log)
        if there and b % 3 == 0:
            self.first = max(self.first, there[a % len(there)])
            self.vanish([at for at in there if at < self.first])

    def compact(self, a, b):
        there = sorted(self.log)
        if there:
            self.vanish([there[(a + index * 3) % len(there)] for index in range(1 + b % 3)])

    def vanish(self, offsets):
        for at in set(offsets):
            del self.log[at]
            if at not in self.done:
                self.stray.add(at)

    def read(self, a, b):
        """What is due to be read: a payload that is missing, else at the position."""
        missing = self.ledger.missing()
        if missing is not None and b % 4:
            self.refill(missing, 1 + a % 9, b)
            return
        at = self.ledger.position
        if at <= self.end:
            self.ledger.feed(at, self.portion(at, a % 16, b))

    def reread(self, a, b):
        """A refill that was asked for earlier, or twice."""
        if self.fates:
            known = sorted(self.fates)
            self.refill(known[a % len(known)], 1 + b % 5, b)

    def refill(self, at, count, b):
        self.ledger.refill(at, self.portion(at, count, b))

    def portion(self, at, count, b):
        there = sorted(offset for offset in self.log if offset >= at)
        taken = there[:count]
        least = max(taken[-1] + 1 if taken else at, self.first)
        most = there[count] if len(there) > count else max(self.end, at)
        after = least if b % 5 == 0 else most
        return Slice(tuple(self.log[offset] for offset in taken), max(after, at), self.first, self.end)

    def drop_window(self, a, b):
        self.ledger.drop_window()
        assert self.ledger.window_bytes == 0
        assert self.ledger.fresh == 0

    def lease_auto(self, a, b):
        """Into a new answer, or the last one again."""
        if b % 3:
            self.answers += 1
        self.lease(1 + a % 12, 10**6 if b % 5 else a % 30, bool(b % 7), None, self.answers)

    def lease_explicit(self, a, b):
        self.lease(1 + a % 12, 10**6 if b % 5 else a % 30, True, self.now + EXPLICIT_MS[b % len(EXPLICIT_MS)], 0)

    def lease(self, count, size, first_fits, until, answer):
        was_ready = self.ledger.ready if self.ticked else None
        self.take_deaths()
        # what is given in few steps is what a lease of one message would have given
        quick = self.ledger.lease_next(self.now) if until is None and first_fits and count % 3 == 1 else None
        leases = [quick] if quick is not None else self.ledger.lease(self.now, count, size, first_fits, until=until, answer=answer)
        self.ticked = True
        # those that were tried too often died on the way to a lease
        deaths = self.ledger.take_deaths()
        for death in deaths:
            self.died(death)
        if was_ready is not None and first_fits and not deaths and (was_ready or not answer):
            assert bool(leases) == was_ready, f"ready said {was_ready}, {len(leases)} leases"
        assert sum(len(lease.messages) for lease in leases) <= count
        total = sum(lease.size for lease in leases)
        assert total <= size or (first_fits and len(leases) == len(leases[0].messages) == 1), "an answer keeps to its bytes"
        for lease in leases:
            self.granted(lease, until, answer)
        assert not leases or sum(fate.out for fate in self.fates.values()) <= self.rules.max_in_flight, "max_in_flight"

    def granted(self, lease, until, answer):
        assert lease.until == until
        assert lease.size == sum(message.size for message in lease.messages)
        assert lease.messages
        assert until is None or len(lease.messages) == 1
        for message in lease.messages:
            fate = self.fates.setdefault(message.offset, Fate())
            self.a_message_is_delivered_as_it_was_published(message)
            self.what_is_done_is_not_delivered_again(message)
            self.two_leases_never_overlap(message, fate)
            self.delays_are_waited_for(message, fate)
            self.attempts_count(message, fate, lease.attempt)
            self.first_leases_are_in_offset_order(message)
            self.what_comes_back_comes_before_newer(message)
            self.order_per_key(message, answer if until is None else 0)
            fate.attempts += 1
            fate.serial = lease.serial
            fate.until = "auto" if until is None else until
            fate.explicit = until is not None
            fate.answer = answer if until is None else 0
            fate.waits = fate.let_go = None
            if until is not None:
                self.tokens.append((message.offset, lease.serial))
        self.leases.append(lease)

    def a_message_is_delivered_as_it_was_published(self, message):
        assert message == self.published[message.offset]

    def what_is_done_is_not_delivered_again(self, message):
        assert message.offset not in self.done, f"{message.offset} is done"

    def two_leases_never_overlap(self, message, fate):
        assert not fate.out, f"{message.offset} is out until {fate.until}, at {self.now}"

    def delays_are_waited_for(self, message, fate):
        assert not fate.dead, f"{message.offset} is dead"
        assert fate.waits is None, f"{message.offset} waits until {fate.waits}, at {self.now}"

    def attempts_count(self, message, fate, attempt):
        """Each delivery one more, but those that were given back; and no more than are allowed."""
        assert attempt == fate.attempts + 1, f"attempt {attempt} of {message.offset} after {fate.attempts}"
        assert self.rules.max_attempts is None or attempt <= self.rules.max_attempts

    def first_leases_are_in_offset_order(self, message):
        if not self.rules.ordered:
            earlier = [at for at in self.log if at < message.offset and at not in self.done and at not in self.fates]
            assert not earlier, f"{message.offset} before {earlier}"

    def what_comes_back_comes_before_newer(self, message):
        earlier = [at for at in self.returned() if at < message.offset and at not in self.stray]
        if self.rules.ordered:
            earlier = [at for at in earlier if not self.key_waits(at)]
        assert not earlier, f"{message.offset} before {earlier}, which came back"

    def order_per_key(self, message, answer):
        """Each earlier one of the key is done, or out in the same answer."""
        if self.rules.ordered:
            for at, earlier in self.log.items():
                if at < message.offset and earlier.key == message.key and at not in self.done:
                    fate = self.fates.get(at)
                    together = fate is not None and fate.out and answer and fate.answer == answer
                    assert together, f"{message.offset} before {at}"

    def returned(self):
        return [
            at for at, fate in self.fates.items() if fate.serial and at not in self.done and not (fate.out or fate.dead or fate.waits is not None)
        ]

    def key_waits(self, at):
        key = self.published[at].key
        return any(other < at and self.published[other].key == key and other not in self.done for other in self.published)

    def finish(self, a, b):
        """An answer in auto mode was wholly handed over."""
        auto = [lease for lease in self.leases if lease.until is None]
        if auto:
            lease = auto[a % len(auto)]
            self.ledger.done(lease.serial)
            self.leases.remove(lease)
            self.ended.append(lease)
            for message in lease.messages:
                self.complete(message.offset)

    def give_back(self, a, b):
        """An answer was not wholly handed over."""
        if self.leases:
            lease = self.leases[a % len(self.leases)]
            self.leases.remove(lease)
            self.ended.append(lease)
            self.ledger.give_back(lease)
            for message in lease.messages:
                if message.offset not in self.done:  # by a commit of all below
                    fate = self.fates[message.offset]
                    fate.attempts -= 1
                    self.free(fate)

    def done_below(self, a, b):
        """A consumer instance commits: an offset of a message, one that lies in a gap, or the end."""
        there = [at for at in sorted(self.published) if at >= self.ledger.committed]
        upto = min(there[a % min(len(there), 20)] + b % 3, self.end) if there else self.end
        self.ledger.done_below(upto)
        for at in self.published:
            if at < upto:
                self.complete(at)
        assert self.ledger.committed >= upto

    def give_back_late(self, a, b):
        """An answer broke whose leases had ended in another way."""
        if self.ended and self.ticked:
            before = self.ledger.place()
            self.ledger.give_back(self.ended[a % len(self.ended)])
            assert self.ledger.place() == before

    def ack(self, a, b):
        """With a lease of these or of older ones, the newest most often."""
        if self.tokens:
            at, serial = self.token(a, b)
            self.judge_ack(at, serial, self.ledger.ack(at, serial))

    def ack_all(self, a, b):
        """Every second lease that stands."""
        for at, fate in list(self.fates.items())[b % 2 :: 2]:
            if fate.out and fate.explicit:
                self.judge_ack(at, fate.serial, self.ledger.ack(at, fate.serial))

    def ack_foreign(self, a, b):
        """A serial that was never given: it does not ack what this ledger leased."""
        leased = [at for at, fate in self.fates.items() if fate.serial > 0 and at not in self.done and at not in self.stray]
        if leased:
            assert not self.ledger.ack(leased[a % len(leased)], 2**40)

    def token(self, a, b):
        return self.tokens[-1 - a % min(len(self.tokens), 12 if b % 3 else 200)]

    def judge_ack(self, at, serial, taken):
        fate = self.fates.get(at)
        if at in self.stray or at not in self.log:
            pass  # gone from the log: it may be done, or what cannot be told from the run around it
        elif at in self.done:
            assert taken, f"an ack repeated is safe: {at}"
        elif fate is not None and fate.serial > 0:
            assert taken == (fate.serial == serial and fate.explicit), f"ack {at} {serial}: {taken}, last {fate.serial}"
        else:
            assert taken or self.room < 400, f"the ack {at} by a lease of an earlier ledger found no room"
        if taken:
            self.complete(at)

    def complete(self, at):
        self.done.add(at)
        self.stray.discard(at)
        fate = self.fates.pop(at, None)
        if fate is not None and fate.explicit:
            self.forget_lease(fate)

    def forget_lease(self, fate):
        for lease in self.leases:
            if lease.serial == fate.serial:
                self.leases.remove(lease)
                self.ended.append(lease)
                return

    def nack(self, a, b):
        if self.tokens:
            at, serial = self.token(a, b)
            fate = self.settle_first(at)
            taken = self.ledger.nack(at, serial, self.now, delay := (0, 0, 15)[b % 3])
            mine = fate is not None and fate.serial == serial and fate.explicit
            if at not in self.stray:
                assert taken == (mine and (fate.out or fate.let_go is not None)), f"nack {at}: {taken}"
            if mine and fate.out:
                self.come_back(fate, self.now, delay)
                fate.let_go = "nack"

    def bury(self, a, b):
        if self.tokens:
            at, serial = self.token(a, b)
            fate = self.settle_first(at)
            taken = self.ledger.bury(at, serial, self.now)
            mine = fate is not None and fate.serial == serial and fate.explicit
            if at not in self.stray:
                assert taken == (mine and (fate.out or fate.let_go == "bury")), f"bury {at}: {taken}"
            if mine and fate.out:
                self.free(fate)
                fate.dead = True
                fate.let_go = "bury"

    def extend(self, a, b):
        if self.tokens:
            at, serial = self.token(a, b)
            fate = self.settle_first(at)
            taken = self.ledger.extend(at, serial, self.now, self.now + 1 + b)
            stands = fate is not None and fate.serial == serial and fate.explicit and fate.out
            assert taken == stands, f"extend {at}: {taken}"
            if taken:
                fate.until = self.now + 1 + b

    def settle_first(self, at):
        """The ledger lapses first what is due; so did the model, when the clock moved."""
        self.ticked = True
        return self.fates.get(at)

    def buried(self, a, b):
        self.tick()
        self.take_deaths()
        dead = sorted(at for at, fate in self.fates.items() if fate.dead)
        if dead:
            self.ledger.buried(dead[a % len(dead)])
            self.complete(dead[a % len(dead)])

    def revive(self, a, b):
        self.tick()
        self.take_deaths()
        dead = sorted(at for at, fate in self.fates.items() if fate.dead)
        if dead:
            fate = self.fates[dead[a % len(dead)]]
            self.ledger.revive(dead[a % len(dead)])
            fate.dead = False
            fate.let_go = None

    def wait(self, a, b):
        """The clock moves: a little, or exactly to the next instant, or to just before it."""
        times = [fate.until for fate in self.fates.values() if fate.out and fate.explicit] + [
            fate.waits for fate in self.fates.values() if fate.waits is not None
        ]
        now = self.now
        self.now = max(now, min(times) - (b % 4 == 3)) if times and b % 4 else now + a % 40
        self.lapse()
        if a % 2:
            self.tick()
        else:
            self.ticked = self.ticked and now == self.now

    def tick(self):
        self.ledger.tick(self.now)
        self.ticked = True
        due = self.ledger.due
        assert due is None or due > self.now

    def lapse(self):
        """What is due in the model."""
        for fate in self.fates.values():
            if fate.out and fate.explicit and fate.until <= self.now:
                self.come_back(fate, fate.until, 0)
            if fate.waits is not None and fate.waits <= self.now:
                fate.waits = None

    def come_back(self, fate, at, delay):
        self.free(fate)
        fate.let_go = None
        rules = self.rules
        if rules.max_attempts is not None and fate.attempts >= rules.max_attempts:
            fate.dead = True
            return
        delay = max(delay, min(rules.backoff_max, rules.backoff_min * 2 ** (fate.attempts - 1)))
        fate.waits = at + delay if delay and at + delay > self.now else None

    def free(self, fate):
        self.forget_lease(fate)
        fate.until = None
        fate.answer = 0

    def bind(self, a, b):
        self.tick()
        self.take_deaths()
        self.rules = RULES[a % len(RULES)]
        self.ledger.bind(self.rules, self.now)

    def take_deaths(self):
        if not self.ticked:
            return
        for death in self.ledger.take_deaths():
            self.died(death)

    def died(self, death):
        fate = self.fates.setdefault(death.offset, Fate())
        assert death.offset not in self.done
        assert death.attempts == fate.attempts
        self.dead_only_after_max_attempts(death, fate)
        fate.dead = True
        fate.serial = fate.serial or -1  # it is not fresh any more

    def dead_only_after_max_attempts(self, death, fate):
        """Or after a nack that asked for it."""
        assert not fate.out
        assert fate.waits is None
        if death.reason == "nack":
            assert fate.dead
            assert fate.let_go == "bury"
        else:
            assert self.rules.max_attempts is not None
            assert fate.attempts >= self.rules.max_attempts

    # --- commits, crashes, handovers, resets ---

    def cursor(self):
        place = self.ledger.place()
        return Cursor("t", "m", 0, 0, place.offset, place.done, 0, place.attempts)

    def limit(self):
        return self.room + len("psubd2;t;m;0;0;0;b;;")

    def commit(self, a, b):
        self.commitment = encode(self.cursor(), self.limit())
        self.committed_done = set(self.done)
        self.committed_attempts = {at: fate.attempts for at, fate in self.fates.items()}

    def crash(self, a, b):
        """The process dies: the next one knows the last commit. (No ack that was committed is lost: `nothing_is_skipped` asks.)"""
        cursor = decode(self.commitment)
        self.begin(cursor.offset)
        self.ledger = self.make(cursor.offset, cursor.done, cursor.attempts, rules=self.rules, room=self.room, serials=self.serials, keep=KEEP)
        self.done = set(self.committed_done)
        for at, count in cursor.attempts:
            assert count <= self.committed_attempts[at], "a crash sets attempts back, never forward"
            self.fates[at] = Fate(count)
        self.stray = {at for at in self.published if at not in self.log and at not in self.done}

    def restart(self, a, b):
        """All that is done was committed."""
        self.commit(a, b)
        self.crash(a, b)

    def hand_over(self, a, b):
        """Another process goes on, by another clock."""
        self.tick()
        self.take_deaths()
        before = self.ledger.place()
        text = msgspec.json.encode(self.ledger.snapshot(self.now))
        shift = (0, 500, -500)[a % 3]
        self.now += shift
        for fate in self.fates.values():
            if fate.until == "auto":
                fate.attempts -= 1
                self.free(fate)
            elif fate.out:
                fate.until += shift
            elif fate.waits is not None:
                fate.waits += shift
        snapshot = msgspec.json.decode(text, type=Snapshot)
        self.ledger = self.make.restore(snapshot, self.now, rules=self.rules, room=self.room, serials=self.serials, keep=KEEP)
        after = self.ledger.place()
        assert after == before, f"{before} handed over as {after}"
        self.leases = [lease._replace(until=lease.until + shift) for lease in self.leases if lease.until is not None]
        for death in self.ledger.take_deaths():
            assert self.fates[death.offset].dead

    def reset(self, a, b):
        """The group goes on elsewhere; what was leased before is void."""
        if b % 4 == 0:
            there = [self.first, *sorted(self.log), self.end]
            self.begin(there[a % len(there)])
            self.tokens = []
            self.commit(0, 0)

    # --- what holds, always ---

    def committed_is_never_past_a_hole(self):
        committed = self.ledger.committed
        for at in self.log:
            assert at >= committed or at in self.done, f"committed {committed} is past {at}"

    def a_gap_is_done(self):
        """Nothing but a message that is not done holds the committed offset up."""
        committed = self.ledger.committed
        held_up = committed in self.published and committed not in self.done
        assert held_up or committed >= self.ledger.position or committed == self.ledger.missing(), f"{committed} is held up by nothing"

    def nothing_is_skipped(self):
        """What a commit would say now is done, is: neither a message that was not, nor less than all that was."""
        place = self.ledger.place()
        said = {at for at in self.log if at < place.offset or any(start <= at < end for start, end in place.done)}
        done = self.done & self.log.keys()
        assert said <= done, f"{place} skips {sorted(said - done)}"
        assert said >= done, f"{place} loses {sorted(done - said)}"

    def the_place_fits_its_room(self):
        cursor = self.cursor()
        found = decode(encode(cursor, self.limit()))
        assert (found.offset, found.done) == (cursor.offset, cursor.done)
        assert found.attempts == cursor.attempts[: len(found.attempts)]

    def counts_are_true(self):
        """What is out, waits and is dead."""
        if self.ticked:
            self.take_deaths()
            fates = self.fates.values()
            assert self.ledger.leased == sum(fate.out for fate in fates)
            assert self.ledger.waiting == sum(fate.waits is not None for fate in fates)
            assert self.ledger.dead == sum(fate.dead for fate in fates)
            assert self.ledger.idle == (not any(fate.out or fate.waits is not None or fate.dead for fate in fates))

    def the_barrier_is_the_first_that_is_elsewhere(self):
        """Who reads on from the committed offset, past none that is out, waits or is dead, skips nothing of somebody else's."""
        if self.ticked:
            self.take_deaths()
            elsewhere = [at for at, fate in self.fates.items() if (fate.out or fate.waits is not None or fate.dead) and at not in self.done]
            assert self.ledger.barrier(self.ledger.committed) == min(elsewhere, default=None)
            for asked in {at + more for at in self.fates for more in (0, 1)}:
                found, first = self.ledger.barrier(asked), min((at for at in elsewhere if at >= asked), default=None)
                if found != first:  # within a run that is out a gap cannot be told from a message
                    assert found == asked, f"{found} for {first}, from {asked}"
                    assert asked not in self.log or asked in self.done or asked in self.stray, f"{asked} is nobody's"

    def done_is_known_one_by_one(self):
        known = {at for at in self.log if self.ledger.is_done(at)}
        assert known == self.done & self.log.keys(), f"{sorted(known ^ (self.done & self.log.keys()))}"

    def it_does_not_stand_still(self):
        """What came back is ready, or is to be read first, unless too many are out."""
        if self.ticked and not self.rules.ordered and self.ledger.leased < self.rules.max_in_flight:
            most = self.rules.max_attempts
            back = [at for at in self.returned() if at not in self.stray and (most is None or self.fates[at].attempts < most)]
            assert not back or self.ledger.ready or self.ledger.missing() is not None, f"{back} wait for nothing"

    def the_oldest_is_known(self):
        oldest = self.ledger.oldest()
        if oldest is not None and oldest.offset in self.published:
            assert oldest.offset == self.ledger.committed
            assert oldest.timestamp == self.published[oldest.offset].timestamp

    def nothing_is_lost_at_the_end(self):
        """At last each message that the log has is done, and the committed offset is the log's end."""
        self.tick()
        self.take_deaths()
        self.rules = self.rules._replace(max_attempts=None)
        self.ledger.bind(self.rules, self.now)
        for _ in range(10_000):
            if self.ledger.committed >= self.end:
                break
            self.advance()
        assert self.ledger.committed >= self.end, f"stands still at {self.ledger.committed} of {self.end}"
        assert self.ledger.place().done == ()
        assert set(self.log) <= self.done
        assert self.ledger.leased == self.ledger.waiting == self.ledger.dead == 0
        assert self.ledger.due is None

    def advance(self):
        for lease in list(self.leases):
            if lease.until is None:
                self.finish(0, 0)
        self.now += 100
        self.lapse()
        self.tick()
        self.take_deaths()
        for at in [at for at, fate in self.fates.items() if fate.dead]:
            self.ledger.buried(at)
            self.complete(at)
        missing = self.ledger.missing()
        if missing is not None:
            self.refill(missing, 100, 1)
        elif not self.ledger.fresh and self.ledger.position < self.end:
            self.ledger.feed(self.ledger.position, self.portion(self.ledger.position, 50, 1))
        self.answers += 1
        self.lease(50, 10**6, True, None, self.answers)


STEPS = {
    "publish": 5,
    "read": 7,
    "lease_auto": 5,
    "lease_explicit": 8,
    "finish": 4,
    "give_back": 2,
    "give_back_late": 1,
    "done_below": 3,
    "ack": 7,
    "ack_all": 2,
    "ack_foreign": 1,
    "nack": 3,
    "bury": 1,
    "extend": 1,
    "buried": 2,
    "revive": 1,
    "wait": 6,
    "bind": 1,
    "commit": 2,
    "crash": 1,
    "restart": 1,
    "hand_over": 1,
    "reset": 1,
    "retain": 1,
    "compact": 1,
    "drop_window": 1,
    "reread": 1,
}
"""What can happen, and how often."""

ALWAYS = (
    "committed_is_never_past_a_hole",
    "a_gap_is_done",
    "nothing_is_skipped",
    "the_place_fits_its_room",
    "counts_are_true",
    "the_barrier_is_the_first_that_is_elsewhere",
    "done_is_known_one_by_one",
    "it_does_not_stand_still",
    "the_oldest_is_known",
)
"""Promises that are asked after each step. The others are asked of each lease and death, and `World.nothing_is_lost_at_the_end`."""


def run_history(seed, make=Ledger, steps=60):
    """One random history, always the same for a seed."""
    dice = random.Random(seed)
    world = World(make, dice.randrange(256))
    for name in dice.choices(list(STEPS), list(STEPS.values()), k=steps):
        getattr(world, name)(dice.randrange(256), dice.randrange(256))
        for promise in ALWAYS:
            getattr(world, promise)()
    world.nothing_is_lost_at_the_end()


if __name__ == "__main__":
    for number in range(int(sys.argv[1]), int(sys.argv[2])):
        try:
            run_history(number)
        except BaseException:
            print("history", number, file=sys.stderr)
            raise
