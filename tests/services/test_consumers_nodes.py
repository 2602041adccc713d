"""Random histories of consumer instances over three nodes, beside clients of the sub endpoint: nodes that come, drain, die, fall silent, links that
are cut and held. Nobody has what another holds, and in the end nothing is left out."""

from psubd.errors import PsubdError
from psubd.model import Poll, Wish
from tests.services.circle import SPEC
from tests.services.test_nodes_histories import Client, World

GROUP = "shop.g1"


class InstancesHistory(World):
    steps = 160

    def play(self, seed):
        self.instances, self.reading, self.asked, self.ids = [], [], [], iter(range(1000))
        self.there, self.given, self.vague = set(), {}, set()
        super().play(seed)

    def step(self):
        acts = ((self.enlist, 6), (self.dismiss, 2), (self.read, 30), (self.commit, 14), (super().step, 60))
        [act] = self.random.choices([act for act, _ in acts], [weight for _, weight in acts])
        act()
        if act != super().step:
            self.clock.advance(self.random.choice((0, 1, 20, 100)))
            self.gather()
            self.check()

    def produce(self):
        partition, count = self.random.randrange(3), self.random.randint(1, 4)
        self.there |= {(partition, offset) for offset in self.publish(partition=partition, count=count)}
        self.published += count

    def enlist(self):
        if len(self.instances) < 3:
            node, id = self.random.choice(self.up), f"c{next(self.ids)}"
            made = node.board.enlist(node.grant(), GROUP, id, SPEC)
            made.addCallback(lambda _: node.board.wish(node.grant(), GROUP, id, Wish(topics=("orders",))))
            self.ask_on(made.addCallback(lambda _: self.instances.append(id)))

    def dismiss(self):
        """Whose answers are not being written: they would be broken off at its own node only."""
        idle = [id for id in self.instances if all(client.instance != id for client in self.answers if hasattr(client, "instance"))]
        idle = [id for id in idle if all(reading[0] != id for reading in self.reading)]
        if idle:
            node, id = self.random.choice(self.up), self.random.choice(idle)
            self.instances.remove(id)
            self.ask_on(node.board.dismiss(node.grant(), GROUP, id))

    def read(self):
        if self.instances:
            node, id = self.random.choice(self.up), self.random.choice(self.instances)
            ask = Poll(GROUP, None, self.random.randint(1, 4), timeout_ms=self.random.choice((0, 2_000, 10_000)))
            self.reading.append((id, node, self.clock.elapsed_ms(), node.board.read(node.grant(), GROUP, id, ask)))

    def commit(self):
        if self.instances:
            node = self.random.choice(self.up)
            id = self.random.choice(self.instances)
            committing = node.board.commit(node.grant(), GROUP, id, None)
            self.ask_on(committing.addCallbacks(self.committed_to, self.perhaps, errbackArgs=(id,)))

    def perhaps(self, failure, id):
        """It may have been done, or be done yet, and its answer was lost."""
        failure.trap(PsubdError)
        self.vague.add(id)
        self.done[GROUP] |= self.given.get(id, set())

    def committed_to(self, marks):
        for mark in marks:
            self.done[GROUP] |= {place for place in self.there if place[0] == mark.at.partition and place[1] < mark.offset}

    def ask_on(self, deferred):
        self.asked.append(deferred.addErrback(lambda failure: failure.trap(PsubdError)))

    def gather(self):
        super().gather()
        for reading in list(self.reading):
            id, node, asked, polling = reading
            if not polling.called or polling.paused or hasattr(polling.result, "addCallback"):
                continue
            self.reading.remove(reading)
            outcome = []
            polling.addBoth(outcome.append)
            if not hasattr(outcome[0], "messages"):
                self.assertTrue(outcome[0].check(PsubdError), outcome[0])
            elif node.running and outcome[0].messages:
                client = Client(node, GROUP, outcome[0], asked, True)
                client.instance = id
                self.answers.append(client)

    def end(self, client):
        """What an instance was given is done once it is committed."""
        if not hasattr(client, "instance"):
            return super().end(client)
        client.over = True
        self.answers.remove(client)
        if client.written == len(client.delivery.messages):
            places = {(each.partition, each.message.offset) for each in client.delivery.messages}
            self.given.setdefault(client.instance, set()).update(places)
            self.done[GROUP] |= places if client.instance in self.vague else set()
        client.delivery.settle(client.written)
        return None

    def finish(self):
        self.pass_time(12_000, 500)
        self.gather()
        self.calm_down()
        for id in [*self.instances, *(f"c{number}" for number in range(next(self.ids)))]:
            self.ask_on(self.up[0].board.dismiss(self.up[0].grant(), GROUP, id))
        self.pass_time(10_000, 500)
        super().finish()


def history(seed):
    def test(self):
        self.play(seed)

    test.__doc__ = f"History {seed}."
    return test


for number in range(8):
    setattr(InstancesHistory, f"test_instances_{number}", history(1000 + number))
