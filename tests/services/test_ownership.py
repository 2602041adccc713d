"""Which node serves which slots, and what moves when nodes come and go."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import OwnershipInDoubt, RegistryUnavailable
from psubd.interfaces import Claim
from psubd.services import ownership as module
from psubd.services.ownership import HERE, MOVING
from psubd.services.ownership_parcels import KEEP_MS, Parting, Received, SlotAsked, nobody
from psubd.slots import rendezvous, slot_of
from psubd.testing.clock import FakeClock
from tests.services.house import offsets, places
from tests.services.nodes import NodesCase


class Settling(NodesCase):
    ids = ("a", "b", "c")

    def test_shared_out(self):
        """Each slot is served by one node, by the one that it is due to; all nodes say the same of who serves it."""
        keys = [node.key for node in self.nodes]
        for slot in range(self.slots):
            [served] = [node for node in self.nodes if slot in node.slots()]
            self.assertEqual(served.key, rendezvous(slot, keys))
            self.assertEqual({node.ownership.seat(slot) for node in self.nodes} - {HERE}, {served.key})
        self.assertTrue(all(node.slots() for node in self.nodes))

    def test_poll_anywhere(self):
        """A message of a group is delivered through whichever node is asked, once."""
        self.publish(count=3)
        got = [place for node in self.nodes for place in node.take(count=1)]
        self.assertEqual(got, [("orders", 0, offset) for offset in range(3)])
        self.pass_time(1000)
        self.assertEqual(self.committed()["orders", 0], 3)

    def test_quiet(self):
        """Where nothing changes, nothing is claimed, released or declared again."""
        before = [len(node.membership.calls) for node in self.nodes]
        self.pass_time(60_000, 500)
        self.assertEqual([len(node.membership.calls) for node in self.nodes], before)

    def test_failed_claim(self):
        """A claim that fails is tried again, a while later."""
        c = self.nodes[2]
        self.nodes[0].membership.refuse = self.nodes[1].membership.refuse = RegistryUnavailable("away")
        c.die()
        self.pass_time(200)
        calls = [len(node.membership.calls) for node in self.nodes]
        self.pass_time(600)
        self.assertEqual([len(node.membership.calls) for node in self.nodes], calls)
        self.nodes[0].membership.refuse = self.nodes[1].membership.refuse = None
        self.pass_time(2000)
        self.assertEqual(sorted(self.nodes[0].slots() + self.nodes[1].slots()), list(range(self.slots)))


class Joining(NodesCase):
    def setUp(self):
        super().setUp()
        self.before = {node.id: set(node.slots()) for node in self.nodes}

    def test_third(self):
        """A third node gets what is due to it, about a third, and nothing else moves."""
        c = self.join("c")
        self.pass_time(3000)
        keys = [node.key for node in self.nodes]
        self.assertEqual(c.slots(), [slot for slot in range(self.slots) if rendezvous(slot, keys) == c.key])
        for node in self.nodes[:2]:
            self.assertEqual(self.before[node.id] - set(node.slots()), self.before[node.id] & set(c.slots()))
        self.assertEqual(c.metric("psubd_slots_served"), len(c.slots()))

    def test_leases_move(self):
        """Leases that are out go on at the new node: their messages are not given to anybody else, and their tokens count through any node."""
        self.publish(count=30)
        names = [name for node in self.nodes for name in self.groups_of(node, 8)]
        held = {name: self.nodes[0].lease(3, group=name, ack_timeout_ms=60_000) for name in names}
        c = self.join("c")
        self.pass_time(3000)
        moved = [name for name in names if slot_of(name, self.slots) in c.slots()]
        self.assertTrue(moved)
        for name in names:
            again = self.nodes[1].lease(100, group=name)
            self.assertEqual(offsets(again), list(range(3, 30)))
        for number, name in enumerate(names):
            self.assertEqual(self.nodes[number % 3].ack(*held[name]), (3, []))

    def test_both_at_once(self):
        """Two that come together take what is due to them from whoever has it, leases and all, though each hears late of the other."""
        self.publish(count=4)
        names = [name for node in self.nodes for name in self.groups_of(node, 10)]
        held = {name: self.nodes[0].lease(1, group=name, ack_timeout_ms=60_000) for name in names}
        c = self.node("c").open()
        d = self.node("e").open()
        d.membership.close_eyes()
        c.membership.close_eyes()
        c.start()
        d.start()
        self.clock.advance(50)
        c.membership.open_eyes()
        self.pass_time(400)
        d.membership.open_eyes()
        self.pass_time(6000)
        self.assertEqual(sorted(slot for node in self.nodes for slot in node.slots()), list(range(self.slots)))
        self.assertTrue(c.slots() and d.slots())
        for name in names:
            self.assertEqual(offsets(c.lease(100, group=name)), [1, 2, 3])
            self.assertEqual(d.ack(*held[name]), (1, []))

    def test_publisher_only(self):
        """A node that only publishes serves no group, and passes on what it is asked."""
        c = self.join("c", mode="pub")
        self.pass_time(3000)
        self.assertEqual(c.slots(), [])
        self.publish()
        self.assertEqual(c.take(), [("orders", 0, 0)])


class Leaving(NodesCase):
    ids = ("a", "b", "c")

    def test_drain(self):
        """A node that drains hands all over, with its leases, and then serves its clients through the others."""
        self.publish(count=6)
        a = self.nodes[0]
        names = self.groups_of(a, 4)
        held = {name: a.lease(2, group=name, ack_timeout_ms=60_000) for name in names}
        drained = a.ownership.drain()
        self.pass_time(3000)
        self.wait(drained)
        self.assertEqual(a.slots(), [])
        for name in names:
            self.assertEqual(a.ack(*held[name]), (2, []))
            self.assertEqual(offsets(a.lease(10, group=name)), [2, 3, 4, 5])
        self.assertEqual(sorted(self.nodes[1].slots() + self.nodes[2].slots()), list(range(self.slots)))

    def test_waiting_polls_go_along(self):
        """Polls that wait on a node that drains wait on at the next, at whichever node they came in, and get what comes; those of one node in their
        order."""
        a, b = self.nodes[0], self.nodes[1]
        [name] = self.groups_of(a)
        polls = [node.poll(name) for node in (a, b, a, b)]
        a.ownership.drain()
        self.pass_time(3000)
        self.assertNotIn(slot_of(name, self.slots), a.slots())
        self.publish(count=4)
        got = [offset for polling in polls for _, _, offset in places(self.wait(polling))]
        self.assertEqual(sorted(got), [0, 1, 2, 3])
        self.assertTrue(got[0] < got[2] and got[1] < got[3])

    def test_last(self):
        """The last node has nobody to drain to: it is done at once, and serves on."""
        for node in self.nodes[1:]:
            node.die()
        self.pass_time(3000)
        a = self.nodes[0]
        self.wait(a.ownership.drain())
        self.assertEqual(len(a.slots()), self.slots)

    def test_bound(self):
        """A drain ends after a while, though nobody could take the slots."""
        for node in self.nodes[1:]:
            node.ownership._fetch = lambda now: None
        drained = self.nodes[0].ownership.drain()
        self.pass_time(module.DRAIN_MS - 1000, 1000)
        self.assertNoResult(drained)
        self.pass_time(2000)
        self.wait(drained)

    def test_answers_being_written(self):
        """What is being written through another node when its slot leaves is settled there, or broken off; it comes again once, in order."""
        a, b = self.nodes[0], self.nodes[1]
        [name] = self.groups_of(a)
        self.publish(count=4)
        slow = self.wait(b.poll(name, batch=2))
        a.ownership.drain()
        self.clock.advance(200)
        self.assertTrue(slow.stands())
        self.pass_time(4000)
        self.assertFalse(slow.stands())
        self.assertEqual(b.take(group=name) + b.take(group=name), [("orders", 0, offset) for offset in range(4)])
        slow.settle(2)
        self.pass_time(1000)
        self.assertEqual(self.committed(name)["orders", 0], 4)

    def test_edge_not_reached(self):
        """A slot whose messages are being written by a node that is not heard of leaves once that one has surely broken off: it notices by itself."""
        a = self.nodes[0]
        [name] = self.groups_of(a)
        due = rendezvous(slot_of(name, self.slots), [node.key for node in self.nodes[1:]])
        edge, heir = sorted(self.nodes[1:], key=lambda node: node.key == due)
        self.publish()
        delivery = self.wait(edge.poll(name))
        wire = a.wire(edge)
        wire.held, wire.close = True, lambda end, own, others: None  # nothing arrives, not even that it was closed
        a.ownership.drain()
        got = None
        for _ in range(300):
            self.clock.advance(100)
            if slot_of(name, self.slots) in heir.slots() and not got:
                got = heir.take(group=name)
            self.assertFalse(got and delivery.stands())
        self.assertEqual(got, [("orders", 0, 0)])
        del wire.close
        wire.cut()
        delivery.settle(0)

    def test_answer_ends_in_time(self):
        """One that ends soon after its slot began to leave is done."""
        a, b = self.nodes[0], self.nodes[1]
        [name] = self.groups_of(a)
        self.publish(count=4)
        delivery = self.wait(b.poll(name, batch=2))
        a.ownership.drain()
        self.clock.advance(200)
        delivery.settle(2)
        self.pass_time(3000)
        self.assertEqual(b.take(group=name), [("orders", 0, 2), ("orders", 0, 3)])


class Dying(NodesCase):
    ids = ("a", "b", "c")

    def test_death(self):
        """What a dead node served others serve once its session has ended: what was not committed comes again, nothing is left out."""
        a, b = self.nodes[0], self.nodes[1]
        [name] = self.groups_of(a)
        self.publish(count=4)
        self.assertEqual(len(b.take(2, group=name)), 2)
        self.pass_time(1000)
        self.assertEqual(len(b.lease(2, group=name)), 2)
        waiting = b.poll(name, timeout=3000)
        a.die(expires=False)
        self.settle()
        self.pass_time(2000)
        self.assertNoResult(waiting)
        self.pass_time(4000)
        self.failureResultOf(waiting, OwnershipInDoubt)
        a.expire()
        self.pass_time(500)
        self.assertEqual(b.take(group=name), [("orders", 0, offset) for offset in (2, 3)])

    def test_waits_through(self):
        """A poll that came just before the session ended gets its message from the next owner."""
        a, b = self.nodes[0], self.nodes[1]
        [name] = self.groups_of(a)
        a.die(expires=False)
        polling = b.poll(name)
        self.pass_time(1000)
        a.expire()
        self.pass_time(500)
        self.publish()
        self.assertEqual(places(self.wait(polling)), [("orders", 0, 0)])

    def test_new_session(self):
        """A node whose session ended serves nothing until it has claimed anew; what it held is void, what others took is theirs."""
        a, b = self.nodes[0], self.nodes[1]
        [name] = self.groups_of(a)
        self.publish(count=2)
        [held] = a.lease(1, group=name)
        a.membership.expire()
        a.membership.end_lease()
        self.pass_time(500)
        self.assertEqual(offsets(b.lease(1, group=name)), [0])
        a.membership.join()
        self.pass_time(8000)
        self.assertEqual(sorted(slot for node in self.nodes for slot in node.slots()), list(range(self.slots)))
        self.assertIn(slot_of(name, self.slots), a.slots())
        self.assertEqual(b.ack(held), (0, [held.token]))


class Silence(NodesCase):
    def test_comes_back(self):
        """With the registry away all goes on until the lease ends, and again when it comes back: same claims, same leases."""
        self.publish(count=2)
        a, b = self.owner(), self.other()
        [held] = b.lease(1)
        before = [node.slots() for node in self.nodes]
        for node in self.nodes:
            node.membership.silence()
        self.pass_time(8000)
        self.assertEqual(offsets(b.lease(1)), [1])
        polls = [a.poll(), b.poll("shop", topics=("orders",))]
        self.pass_time(2000)
        for polling in [*polls, a.poll(), b.poll(), b.board.ack(b.grant(), [held.token])]:
            self.failureResultOf(polling, OwnershipInDoubt)
        for node in self.nodes:
            node.membership.answered()
        self.pass_time(1000)
        self.assertEqual([node.slots() for node in self.nodes], before)
        self.assertEqual(b.ack(held), (1, []))

    def test_answers_fall(self):
        """An answer that another node is writing does not stand any more once the owner's lease has ended, and neither does one once its own has."""
        self.publish(count=2)
        a, b = self.owner(), self.other()
        first, second = self.wait(b.poll()), self.wait(b.poll(ack="explicit"))
        a.membership.end_lease()
        self.settle()
        self.assertEqual((first.stands(), second.stands()), (False, False))
        first.settle(0)
        second.settle(0)
        a.membership.answered()
        self.pass_time(1000)
        third = self.wait(b.poll())
        self.assertTrue(third.stands())
        b.membership.end_lease()
        self.assertFalse(third.stands())
        third.settle(0)
        b.membership.answered()


class Unreachable(NodesCase):
    ids = ("a", "b", "c")

    def test_gives_way(self):
        """A node that does not reach the storage for a while leaves its slots to those that do, and gets them back when it does."""
        a = self.nodes[0]
        own = a.slots()
        a.reaches = False
        self.pass_time(module.UNREACHABLE_MS - 1000)
        self.assertEqual(a.slots(), own)
        self.pass_time(8000)
        self.assertEqual(a.slots(), [])
        a.reaches = True
        self.pass_time(4000)
        self.assertEqual(a.slots(), own)

    def test_all_of_them(self):
        """Where nobody reaches it, one stays; nothing goes to and fro."""
        for node in self.nodes:
            node.reaches = False
        self.pass_time(30_000)
        served = [len(node.slots()) for node in self.nodes]
        self.assertEqual(sorted(served), [0, 0, self.slots])
        self.pass_time(30_000)
        self.assertEqual([len(node.slots()) for node in self.nodes], served)


class LinksCut(NodesCase):
    """The link breaks while a slot is on its way to a third node."""

    def setUp(self):
        super().setUp()
        self.publish(count=4)
        self.names = [name for node in self.nodes for name in self.groups_of(node, 10)]
        self.held = {name: self.nodes[0].lease(1, group=name, ack_timeout_ms=120_000) for name in self.names}

    def check(self, c, deferred=8000):
        self.pass_time(deferred)
        self.assertEqual(sorted(slot for node in self.nodes for slot in node.slots()), list(range(self.slots)))
        self.assertTrue(c.slots())
        for name in self.names:
            self.assertEqual(offsets(c.lease(100, group=name)), [1, 2, 3], name)
            self.assertEqual(self.nodes[1].ack(*self.held[name]), (1, []))

    def moments(self, verb):
        """Have the links of the new node cut once, when ``verb`` has been asked of it or answered by it."""
        c = self.node("c").open()
        cut = []
        original = c.mesh.call

        def call(member, asked, body, timeout_ms=None):
            calling = original(member, asked, body, timeout_ms)
            if asked == verb and member not in cut:
                cut.append(member)
                self.sever(c, member)
            return calling

        c.mesh.call = call
        c.start()
        return c

    def test_take_not_sent(self):
        """Before the other hears of it."""
        self.sever = lambda c, member: self.wire(c, member).cut()
        self.check(self.moments("take"))

    def test_take_unanswered(self):
        """When the other has handed over, and its answer goes with the link: the parcel is kept, and given again."""
        self.sever = self.swallow
        self.check(self.moments("take"), 12_000)

    def test_release_unanswered(self):
        """When the other has released, and its answer goes with the link: the parcel that came counts."""
        self.sever = self.swallow
        self.check(self.moments("release"), 12_000)

    def swallow(self, c, member):
        """What the new node said has arrived; what it is answered is held, and lost when the link breaks."""
        wire = self.wire(c, member)
        end = wire.dialler if wire.dialler.protocol is c.mesh._links[member] else wire.listener
        answering = end.other
        original = answering.move

        def move():
            answering.scheduled = False

        answering.move = move
        self.clock.call_later(700, lambda: (setattr(answering, "move", original), wire.cut()))

    def wire(self, c, member):
        mine = c.mesh._links[member]
        return next(wire for wire in self.wires.open if mine in (wire.dialler.protocol, wire.listener.protocol))

    def test_gone_for_good(self):
        """A node that took a slot's groups and then dies: the other, which has the claim, serves them on with their leases."""
        self.sever = self.swallow
        c = self.moments("take")
        self.pass_time(300)
        self.assertNotEqual(sorted(slot for node in self.nodes for slot in node.slots()), list(range(self.slots)))
        c.die()
        self.pass_time(3000)
        self.assertEqual(sorted(slot for node in self.nodes[:2] for slot in node.slots()), list(range(self.slots)))
        for name in self.names:
            self.assertEqual(offsets(self.nodes[0].lease(100, group=name)), [1, 2, 3])
            self.assertEqual(self.nodes[1].ack(*self.held[name]), (1, []))

    def test_cut_off(self):
        """A node that sees the others' claims and reaches none of them gets nothing, and says so; nobody else is disturbed."""
        c = self.node("c").open()
        self.wires.listen = lambda address, factory: lambda: None
        dial, self.wires._factories = dict(self.wires._factories), {}
        c.start()
        self.pass_time(3000)
        self.assertEqual(c.slots(), [])
        polling = c.poll(timeout=0)
        self.pass_time(1500)
        self.assertIn("does not reach", self.failureResultOf(polling, OwnershipInDoubt).value.detail)
        self.assertEqual(offsets(self.nodes[0].lease(10, group=self.names[0])), [1, 2, 3])
        self.wires._factories = dial


class Asked(NodesCase):
    """What a node answers that is asked for a slot."""

    def ask(self, slot, epoch=None):
        a, b = self.nodes
        epoch = a.subscriber.seated()[slot] if epoch is None else epoch
        return b.mesh.call(a.key, "take", SlotAsked(slot, epoch).encode(), None)

    def test_not_due(self):
        """Who is not due there does not get it."""
        a, _ = self.nodes
        slot = a.slots()[0]
        asking = self.ask(slot)
        self.pass_time(2000)
        self.assertIn("is not due", self.failureResultOf(asking, OwnershipInDoubt).value.detail)
        self.assertIn(slot, a.slots())

    def test_other_epoch(self):
        """Who means another claim than the present one does not get it."""
        a, b = self.nodes
        slot = a.slots()[0]
        a.ownership._duty.of = lambda slot, draining: b.key
        asking = self.ask(slot, 1)
        self.pass_time(200)
        self.failureResultOf(asking, OwnershipInDoubt)
        self.assertIn(slot, a.slots())

    def test_not_fetched(self):
        """What was handed over and is not fetched is served again, after a while, with its leases."""
        a, b = self.nodes
        [name] = self.groups_of(a)
        self.publish(count=2)
        [held] = b.lease(1, group=name, ack_timeout_ms=120_000)
        slot = slot_of(name, self.slots)
        own = a.ownership._duty.of
        a.ownership._duty.of = lambda asked, draining: b.key if asked == slot else own(asked, draining)
        asking = self.ask(slot)
        self.pass_time(500)
        self.assertTrue(self.wait(asking))
        a.ownership._duty.of = own
        self.assertEqual((a.ownership.seat(slot), b.ownership.seat(slot)), (MOVING, a.key))
        self.pass_time(KEEP_MS - 1000, 500)
        self.assertNotIn(slot, a.slots())
        self.pass_time(2000)
        self.assertIn(slot, a.slots())
        self.assertEqual(offsets(b.lease(10, group=name)), [1])
        self.assertEqual(b.ack(held), (1, []))

    def test_release_of_nothing(self):
        """A release said again is done; one of a slot that was taken back is refused."""
        a, b = self.nodes
        slot = a.slots()[0]
        epoch = a.subscriber.seated()[slot]
        refused = b.mesh.call(a.key, "release", SlotAsked(slot, epoch).encode(), None)
        done = b.mesh.call(a.key, "release", SlotAsked(slot, 1).encode(), None)
        self.settle()
        self.failureResultOf(refused, OwnershipInDoubt)
        self.assertEqual(self.wait(done), b"")


class GivenBack(NodesCase):
    def test_left_to_another(self):
        """A slot whose claim has gone and whose node still lives was given back for somebody who has its parcel: others leave it to that one for
        a while. Where nobody comes it is claimed."""
        a, b = self.nodes
        slot = a.slots()[0]
        a.ownership.stop()
        self.wait(a.membership.declare(False, 0))
        self.wait(a.membership.release(slot))
        a.subscriber.drop(slot)
        self.pass_time(module.GRACE_MS - 500)
        self.assertNotIn(slot, b.slots())
        self.pass_time(1000)
        self.assertIn(slot, b.slots())

    def test_its_node_is_gone(self):
        """Where its node is gone too it is claimed at once."""
        a, b = self.nodes
        slot = a.slots()[0]
        a.die()
        self.settle()
        self.assertIn(slot, b.slots())


class Parcels(SynchronousTestCase):
    def test_received(self):
        """A parcel counts as long as nobody else had the slot since, for a while only where its release was not confirmed."""
        claim, other = Claim("a-1", 1), Claim("a-1", 2)
        received = Received(claim, b"p", 1000)
        self.assertTrue(received.counts(claim, 8999))
        self.assertFalse(received.counts(claim, 9000))
        self.assertFalse(received.counts(other, 1000))
        self.assertFalse(received.counts(None, 1000))
        received.sure = True
        self.assertTrue(received.counts(claim, 60_000))

    def test_packed(self):
        """Who asks while it is packed shares the parcel; who waits no longer leaves the others alone."""
        clock, handing = FakeClock(), Deferred()
        parting = Parting(1, "a-1", 0)
        packing = Deferred.fromCoroutine(parting.pack(handing, 3, nobody, clock))
        first, second = parting.packed(), parting.packed()
        first.cancel()
        self.failureResultOf(first)
        self.assertFalse(parting.ready)
        handing.callback(b"parcel")
        self.successResultOf(packing)
        self.successResultOf(second)
        self.successResultOf(parting.packed())
        self.assertEqual((parting.ready, parting.parcel), (True, b"parcel"))
        self.assertEqual(clock.reactor.getDelayedCalls(), [])
