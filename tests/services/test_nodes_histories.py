"""Random histories over three nodes: nodes that come, drain, die and fall silent, links that are cut and held, clients everywhere. Whatever happens
in whatever order: no message has two leases that stand, explicit ones that nobody's death ended can be acked, and in the end nothing is left out.
"""

import random
from functools import partial

from twisted.python.failure import Failure

from psubd.errors import PsubdError
from psubd.model import Poll
from tests.services.house import tokens
from tests.services.nodes import NodesCase

LEASE_MS = 8000


class Client:
    """One answer, as a client sees it: a chunk of it is written at each step, as long as its node says that it may be.

    :ivar until: explicit leases last so long, for sure.
    """

    def __init__(self, node, group, delivery, asked, auto):
        self.node, self.group, self.delivery, self.asked, self.auto = node, group, delivery, asked, auto
        self.written = 0
        self.over = False
        self.until = asked + LEASE_MS


class World(NodesCase):
    ids = ("a", "b", "c")
    slots = 4
    steps = 120

    def play(self, seed):
        self.random = random.Random(seed)
        self.groups = ["shop", "shop.g1", "shop.g2"]
        self.polls, self.answers, self.held, self.acking = [], [], [], []
        self.done = {group: set() for group in self.groups}
        self.deaths = []
        self.published = 0
        self.named = iter("defghijklmnop")
        for group in self.groups:
            self.nodes[0].take(group=group)
        for _ in range(self.steps):
            self.step()
        self.finish()

    def step(self):
        acts = (
            (self.ask, 30),
            (self.write, 12),
            (self.ack_some, 20),
            (self.produce, 10),
            (self.cancel, 5),
            (self.cut, 4),
            (self.hold, 6),
            (self.let_go, 4),
            (self.drain, 3),
            (self.join_one, 4),
            (self.kill, 1),
            (self.fall_silent, 2),
            (self.hear_again, 3),
        )
        [act] = self.random.choices([act for act, _ in acts], [weight for _, weight in acts])
        act()
        self.clock.advance(self.random.choice((0, 0, 1, 20, 100, 400, 1500)))
        self.gather()
        self.check()

    @property
    def up(self):
        return [node for node in self.nodes if node.running]

    # --- clients

    def ask(self):
        node, group = self.random.choice(self.up), self.random.choice(self.groups)
        auto = self.random.random() < 0.4
        settings = {"ack": "auto"} if auto else {"ack": "explicit", "ack_timeout_ms": LEASE_MS}
        ask = Poll(group, None, self.random.randint(1, 3), timeout_ms=self.random.choice((0, 3000, 20_000)), **settings)
        self.polls.append((node, group, auto, self.clock.elapsed_ms(), node.board.poll(node.grant(), ask)))

    def gather(self):
        """Answers that came."""
        for poll in list(self.polls):
            node, group, auto, asked, polling = poll
            if not polling.called or polling.paused or hasattr(polling.result, "addCallback"):
                continue
            self.polls.remove(poll)
            outcome = []
            polling.addBoth(outcome.append)
            if hasattr(outcome[0], "messages") and node.running:
                if outcome[0].messages:
                    self.answers.append(Client(node, group, outcome[0], asked, auto))
                else:
                    outcome[0].settle(0)
            elif not hasattr(outcome[0], "messages"):
                self.assertTrue(outcome[0].check(PsubdError), outcome[0])

    def write(self):
        """Some answers go on: one more message of each is handed over, if it may be."""
        for client in self.random.sample(self.answers, min(2, len(self.answers))):
            self.write_one(client)

    def write_one(self, client):
        broken = self.random.random() < 0.1
        if broken or (client.delivery.stands is not None and not client.delivery.stands()):
            return self.end(client)
        client.written += 1
        if client.written == len(client.delivery.messages):
            self.end(client)
        return None

    def end(self, client):
        client.over = True
        self.answers.remove(client)
        client.delivery.settle(client.written)
        whole = client.written == len(client.delivery.messages)
        if client.auto and whole:
            self.done[client.group].update((each.partition, each.message.offset) for each in client.delivery.messages)
        if not client.auto:
            now = self.clock.elapsed_ms()
            self.held += [(client.group, each, now, client) for each in client.delivery.messages[: client.written]]

    def ack_some(self):
        if not self.held:
            return
        chosen = self.random.sample(self.held, min(3, len(self.held)))
        node = self.random.choice(self.up)
        for group in self.groups:
            own = [each for each in chosen if each[0] == group]
            if own:
                judging = node.board.ack(node.grant(), tokens([each[1] for each in own]))
                judging.addCallbacks(self.acked, self.unacked, (own,))
                self.acking.append(judging)
                for each in own:
                    self.held.remove(each)

    def acked(self, verdict, own):
        lost = set(verdict.lost)
        for group, each, _, client in own:
            place = (each.partition, each.message.offset)
            if each.token not in lost:
                self.done[group].add(place)
            elif self.clock.elapsed_ms() < client.until and not self.ended_since(client.asked):
                self.fail(f"{group} {place}: the lease of {client.asked} was lost at {self.clock.elapsed_ms()}, and stood until {client.until}")

    def unacked(self, failure):
        failure.trap(PsubdError)

    def ended_since(self, since):
        """Whether a node's death, or the end of its lease, may have ended leases that were granted since."""
        return any(at >= since for at in self.deaths)

    def cancel(self):
        if self.polls:
            poll = self.random.choice(self.polls)
            self.polls.remove(poll)
            poll[4].addErrback(lambda failure: None)
            poll[4].addCallback(lambda delivery: delivery and delivery.settle(0))
            poll[4].cancel()

    def produce(self):
        count = self.random.randint(1, 4)
        self.publish(partition=self.random.randrange(3), count=count)
        self.published += count

    # --- what befalls nodes

    def cut(self):
        whole = [wire for wire in self.wires.open if not wire.held]
        if whole:
            self.random.choice(whole).cut()

    def hold(self):
        """Nothing arrives any more, not even that the other end closed it."""
        if self.wires.open:
            wire = self.random.choice(self.wires.open)
            wire.held = True
            wire.close = partial(self.close_one, wire)

    def close_one(self, wire, end, own, others):
        if not end.closed:
            end.closed = True
            self.clock.call_later(0, end.protocol.connectionLost, Failure(own))

    def let_go(self):
        for wire in self.wires.open:
            if wire.held and self.random.random() < 0.7:
                self.free(wire)

    def free(self, wire):
        if wire.held:
            del wire.close
            wire.go_on()
            if wire.dialler.closed or wire.listener.closed:
                wire.cut()

    def drain(self):
        if len([node for node in self.up if not node.ownership._drains]) > 2:
            self.random.choice(self.up).ownership.drain()

    def join_one(self):
        if len(self.up) < 4:
            self.node(next(self.named)).open().start()

    def kill(self):
        if len(self.up) > 2 and len([node for node in self.up if not node.ownership._drains]) > 1:
            node = self.random.choice(self.up)
            self.deaths.append(self.clock.elapsed_ms() + 20_000)
            for client in [client for client in self.answers if client.node is node]:
                self.answers.remove(client)  # its connection is gone; what was written of it was
                client.over = True
            node.die(expires=self.random.random() < 0.5)
            self.expiring = node

    def fall_silent(self):
        node = self.random.choice(self.up)
        node.membership.silence()
        self.deaths.append(self.clock.elapsed_ms() + 30_000)

    def hear_again(self):
        for node in self.nodes:
            if not node.running and node.key in node.membership._ensemble.members:
                node.expire()
            elif node.running and node.membership._lease_ends is not None:
                ends = node.membership.lease_ends_ms()
                if ends + 1000 < self.clock.elapsed_ms():  # its session has ended
                    node.membership.expire()
                    node.membership.join()
                else:
                    node.membership.answered()

    # --- the checker

    def check(self):
        """No message is in two answers that may be written, or in one and under an explicit lease that stands, at the same time."""
        now = self.clock.elapsed_ms()
        out = {}
        for client in self.answers:
            leased = now < client.until and not self.ended_since(client.asked)  # else they ended with a node that got them later
            if (client.auto or leased) and (client.delivery.stands is None or client.delivery.stands()):
                for each in client.delivery.messages:
                    self.see(out, client.group, each, f"{client.node.id} writes it since {client.asked}")
        for group, each, _, client in self.held:
            if now < client.until and not self.ended_since(client.asked):
                self.see(out, group, each, f"leased at {client.asked} until {client.until}")

    def see(self, out, group, each, what):
        place = (group, each.topic, each.partition, each.message.offset)
        self.assertNotIn(place, out, f"{place}: {out.get(place)}; {what}; now {self.clock.elapsed_ms()}")
        out[place] = what

    def end_all(self):
        """Every answer that is being written ends."""
        for client in list(self.answers):
            self.end(client)

    def calm_down(self):
        """Nothing more befalls anybody, and all that goes on comes to its end."""
        self.end_all()
        for wire in self.wires.open:
            self.free(wire)
        for _ in range(3):
            self.hear_again()
            self.pass_time(4000, 500)
        if all(node.ownership._drains for node in self.up):
            self.join_one()
        self.pass_time(40_000, 500)
        self.gather()
        self.end_all()

    def finish(self):
        """All calms down; then each group gets all that it has not done."""
        self.calm_down()
        self.held.clear()
        self.pass_time(20_000, 500)
        for group in self.groups:
            rest = set()
            for _ in range(200):
                got = self.random.choice(self.up).take(group=group)
                if not got and len(rest | self.done[group]) == self.published:
                    break
                rest |= {(partition, offset) for _, partition, offset in got}
            self.assertEqual(len(rest | self.done[group]), self.published, group)
        self.pass_time(2000)
        for group in self.groups:
            self.assertEqual(sum(self.committed(group).values()), self.published)


class History(World):
    """One world for each seed."""


def history(seed):
    def test(self):
        self.play(seed)

    test.__doc__ = f"History {seed}."
    return test


for number in range(12):
    setattr(History, f"test_{number}", history(number))
