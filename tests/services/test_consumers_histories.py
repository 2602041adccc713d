"""Random histories of consumer instances beside clients of the sub endpoint, over a storage that answers late. Whatever happens in whatever order:
nobody has what another holds, nothing is lost, and what is done does not come again while the node lives."""

import random

from twisted.python.failure import Failure

from psubd.errors import PsubdError
from psubd.model import Mark, TopicPartition
from tests.services.circle import Circle
from tests.services.house import SubscriberTestCase
from tests.services.test_carried import Drawer

LEASE_MS = 5_000


class Answer:
    """One that is being written. ``id``: the instance; None: a poll's."""

    def __init__(self, id, delivery):
        self.id, self.delivery = id, delivery
        self.places = {(each.partition, each.message.offset) for each in delivery.messages}


class History(Circle, SubscriberTestCase):
    steps = 150
    settings = {"instance_timeout_ms": 60_000}

    def play(self, seed, ordered=False, dies=False):
        self.random, self.dies = random.Random(seed), dies
        self.carryover = Drawer()
        self.restart()
        self.bind("shop", "orders", ordered=ordered, ack_timeout_ms=3_000)
        self.here, self.calls, self.reads, self.polls, self.answers, self.held = set(), [], [], [], [], {}
        self.done, self.published, self.ids = set(), set(), iter(range(1000))
        self.handed, self.autos, self.maybe, self.over = {}, set(), set(), set()
        self.drain(group="shop.g")
        for _ in range(self.steps):
            self.step()
        self.finish()

    def step(self):
        acts = (
            (self.produce, 12),
            (self.join, 5),
            (self.leave, 3),
            (self.read_on, 25),
            (self.settle, 20),
            (self.commit_read, 10),
            (self.commit_marks, 4),
            (self.leap, 2),
            (self.poll_explicit, 6),
            (self.poll_auto, 6),
            (self.ack_some, 8),
            (self.stall, 5),
            (self.go_on, 8),
            (self.restart_well, 2),
            (self.die, 1 if self.dies else 0),
        )
        [act] = self.random.choices([act for act, _ in acts], [weight for _, weight in acts])
        act()
        self.clock.advance(self.random.choice((0, 0, 1, 20, 400, 1_500)))
        self.gather()
        self.check()

    # --- instances

    def join(self):
        if len(self.here) < 4:
            id = f"c{next(self.ids)}"
            wish = self.random.choice(({"topics": ("orders",)}, {"pattern": "ord.*"}, {"partitions": (TopicPartition("orders", 0),)}))
            auto = self.random.random() < 0.3
            if auto:
                self.autos.add(id)
            making = self.enlist(id, auto_commit=auto)
            making.addCallback(lambda _: self.wish(id, **wish))
            making.addCallback(lambda _: self.here.add(id))
            self.keep(making)

    def leave(self):
        if self.here:
            id = self.random.choice(sorted(self.here))
            self.here.discard(id)
            self.keep(self.dismiss(id))

    def read_on(self):
        if self.here:
            id = self.random.choice(sorted(self.here))
            reading = self.read(id, timeout=self.random.choice((0, 500, 5_000)), batch=self.random.randint(1, 5))
            self.reads.append((id, reading))
            if self.random.random() < 0.05:
                reading.cancel()

    def settle(self):
        if self.answers:
            answer = self.random.choice(self.answers)
            self.answers.remove(answer)
            stands = answer.delivery.stands is None or answer.delivery.stands()
            whole = stands and self.random.random() < 0.8
            if whole and answer.id is not None:
                self.handed.setdefault(answer.id, set()).update(answer.places)
                self.maybe |= answer.places if answer.id in self.autos else set()
            answer.delivery.settle(len(answer.delivery.messages) if whole else self.random.randrange(len(answer.delivery.messages)))
            if whole and answer.id is None:
                self.done |= answer.places

    def commit_read(self):
        if self.here:
            id = self.random.choice(sorted(self.here))
            self.keep(self.commit(id).addCallbacks(self.committed_to, self.not_committed, errbackArgs=(id,)))

    def not_committed(self, failure, id):
        """Some of it may be."""
        failure.trap(PsubdError)
        self.maybe |= self.handed.get(id, set())

    def committed_to(self, marks):
        for mark in marks:
            self.done |= {place for place in self.published if place[0] == mark.at.partition and place[1] < mark.offset}

    def commit_marks(self):
        """Further than anybody read, now and then; never back, as far as can be told."""
        if self.here and all(call.called for call in self.calls):
            id, partition = self.random.choice(sorted(self.here)), self.random.randrange(3)
            offsets = [offset for at, offset in self.published if at == partition]
            undone = [offset for offset in offsets if (partition, offset) not in self.done | self.maybe]
            if undone:
                mark = Mark(TopicPartition("orders", partition), min(undone) + 1)
                self.over |= {(partition, offset) for offset in offsets if offset < mark.offset}  # who holds it holds what was told to be done
                self.keep(self.consumers.commit(self.grant(), self.group, id, [mark]).addCallback(self.committed_to))

    def leap(self):
        """To the end: what lies between is nobody's, by the client's own will."""
        if self.here:
            partition = self.random.randrange(3)
            self.maybe |= {place for place in self.published if place[0] == partition}
            self.keep(self.seek("latest", partition, self.random.choice(sorted(self.here))))

    # --- clients of the sub endpoint

    def poll_explicit(self):
        settings = {"ack": "explicit", "ack_timeout_ms": LEASE_MS}
        self.polls.append(
            (
                self.clock.elapsed_ms() + LEASE_MS,
                self.poll(group=self.group, timeout=self.random.choice((0, 2_000)), batch=self.random.randint(1, 3), **settings),
            )
        )

    def poll_auto(self):
        self.polls.append((None, self.poll(group=self.group, timeout=self.random.choice((0, 2_000)), batch=self.random.randint(1, 3), ack="auto")))

    def ack_some(self):
        for token in self.random.sample(sorted(self.held), min(2, len(self.held))):
            place, _ = self.held.pop(token)
            self.keep(self.subscriber.ack(self.grant(), [token]).addCallback(self.acked, place))

    def acked(self, verdict, place):
        if not verdict.lost:
            self.done.add(place)

    # --- the rest

    def produce(self):
        partition = self.random.randrange(3)
        key = self.random.choice((None, b"a", b"b"))
        self.published |= {(partition, offset) for offset in self.publish(partition=partition, count=self.random.randint(1, 4), key=key)}

    def stall(self):
        self.storage.held.add(self.random.choice(("read", "commit", "committed", "bounds")))

    def go_on(self):
        for method in list(self.storage.held):
            self.storage.release(method)

    def restart_well(self):
        self.go_on()
        stopping = self.subscriber.stop()
        self.gather()
        while self.answers:  # too late
            self.answers.pop().delivery.settle(0)
        self.clock.advance(1)
        self.wait(stopping)
        self.gather()
        self.subscriber = self.make_subscriber()

    def die(self):
        self.go_on()
        self.gather()
        self.clock.advance(501)  # what is done by then is in the storage
        self.crash()
        for answer in self.answers:
            self.maybe |= answer.places if answer.id in self.autos else set()
        for _, waiting in self.reads + self.polls:
            waiting.addErrback(lambda _: None)
        for kept in (self.answers, self.held, self.reads, self.polls, self.calls):
            kept.clear()

    def keep(self, deferred):
        self.calls.append(deferred.addErrback(self.refused))

    def refused(self, failure):
        failure.trap(PsubdError)

    def gather(self):
        for id, reading in list(self.reads):
            if reading.called:
                self.reads.remove((id, reading))
                self.take_up(reading, id)
        for until, polling in list(self.polls):
            if polling.called:
                self.polls.remove((until, polling))
                delivery = self.take_up(polling, None, until is not None)
                if until is not None and delivery is not None:
                    delivery.settle(len(delivery.messages))
                    self.held |= {each.token: ((each.partition, each.message.offset), until) for each in delivery.messages}

    def take_up(self, deferred, id, explicit=False):
        found = []
        deferred.addBoth(found.append)
        if isinstance(found[0], Failure):
            self.assertTrue(found[0].check(PsubdError) or "Cancelled" in repr(found[0]), found[0])
            return None
        if not found[0].messages:
            return None
        if not explicit:
            self.answers.append(Answer(id, found[0]))
            if not self.dies:
                self.assertEqual(self.answers[-1].places & self.done - self.over, set(), "done, and given again")
        return found[0]

    def check(self):
        """Nobody has what another holds."""
        now = self.clock.elapsed_ms()
        self.held = {token: (place, until) for token, (place, until) in self.held.items() if until > now + 2}
        out = [place for answer in self.answers if answer.delivery.stands is None or answer.delivery.stands() for place in answer.places]
        out += [place for place, _ in self.held.values()]
        out = [place for place in out if place not in self.over]
        self.assertEqual(len(out), len(set(out)), sorted(out))

    def finish(self):
        """All leave; what is not done comes, and nothing else."""
        self.go_on()
        self.gather()
        while self.answers:
            self.settle()
            self.gather()
        for _ in range(20):
            self.clock.advance(1_000)
            self.gather()
            while self.answers:
                self.settle()
        for id in list(self.here):
            self.here.discard(id)
            self.keep(self.dismiss(id))
        self.clock.advance(300_000)
        self.assertEqual([call for call in self.calls if not call.called], [])
        self.assertEqual(self.metric("psubd_instances"), 0)
        came = {(partition, offset) for _, partition, offset in self.drain(group=self.group)}
        self.assertEqual(self.published - self.done - came - self.maybe, set())
        if not self.dies:
            self.assertEqual(came & self.done, set())


class HistoryTests(History):
    def test_alive(self):
        """While the node lives, restarts in good order counted."""
        for seed in range(8):
            with self.subTest(seed=seed):
                self.again()
                self.play(seed)

    def test_ordered(self):
        """The same where order is kept."""
        for seed in range(100, 104):
            with self.subTest(seed=seed):
                self.again()
                self.play(seed, ordered=True)

    def test_dies(self):
        """What is done may come again after a death; nothing is lost."""
        for seed in range(200, 206):
            with self.subTest(seed=seed):
                self.again()
                self.play(seed, dies=True)

    def again(self):
        self.tearDown()
        self.setUp()
