"""Tokens, groups and resets through any node."""

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from psubd.errors import BadCredentials, InUse, Moved, NoDeadLetter, NotFound, OverBudget, OwnershipInDoubt, PeerLost, RegistryUnavailable
from psubd.interfaces import IRedriver, ISubscriber
from psubd.model import Poll, Replay, Verdict
from psubd.services.ownership import HERE, MOVING
from psubd.services.switchboard import PATIENCE_MS, merged
from psubd.services.switchboard_lobby import DISBELIEF_MS, Lobby
from psubd.slots import slot_of
from psubd.testing.clock import FakeClock
from tests.services.house import offsets, places, tokens
from tests.services.nodes import NodesCase


class ThreeCase(NodesCase):
    """:ivar names: groups, one of each node's."""

    ids = ("a", "b", "c")

    def setUp(self):
        super().setUp()
        self.names = [self.groups_of(node)[0] for node in self.nodes]

    def lease_all(self, count=1, **settings):
        """So many messages of each group, through the first node, in the order of the nodes that serve them."""
        return [each for name in self.names for each in self.nodes[0].lease(count, group=name, **settings)]


class Tokens(ThreeCase):
    def test_provides(self):
        """It is what endpoints and manager take for the subscriber and the redriver."""
        verifyObject(ISubscriber, self.nodes[0].board)
        verifyObject(IRedriver, self.nodes[0].board)

    def test_ack(self):
        """Tokens of groups of several nodes are acked with one call to any of them; said again they count again."""
        self.publish(count=4)
        for node in self.nodes:
            held = self.lease_all()
            self.assertEqual(node.ack(*held), (3, []))
            self.assertEqual(node.ack(*held), (3, []))
        self.pass_time(1000)
        self.assertEqual([self.committed(name)["orders", 0] for name in self.names], [3, 3, 3])

    def test_lost(self):
        """Each is judged alone; those that took no effect are named in the order in which they were sent."""
        self.publish(count=2)
        held = self.lease_all(2)
        mine = tokens(held)
        self.assertEqual(self.nodes[2].nack(*mine[::2]), (3, []))
        for name in self.names:
            self.nodes[1].lease(1, group=name)  # the nacked ones are leased again
        forged = ["x" * 80, mine[1][:-1] + ("A" if mine[1][-1] != "A" else "B")]
        sent = [forged[0], *mine, forged[1]]
        self.assertEqual(self.nodes[0].ack(*sent), (3, [forged[0], mine[0], mine[2], mine[4], forged[1]]))

    def test_nothing_known(self):
        """Tokens of nothing that stands are all lost, and so are another application's; none at all is none."""
        self.publish()
        held = self.lease_all()
        self.create_application("else")
        self.bind("else", "orders")
        node = self.nodes[0]
        verdict = self.wait(node.board.ack(node.grant("else"), tokens(held)))
        self.assertEqual(verdict, Verdict(0, tuple(tokens(held))))
        self.assertEqual(self.wait(node.board.ack(node.grant(), [])), Verdict(0, ()))

    def test_extend(self):
        """A lease is extended through any node, and its message stays away so much longer."""
        self.publish()
        held = self.lease_all(ack_timeout_ms=5000)
        self.assertEqual(self.nodes[1].extend(*held, timeout=60_000), (3, []))
        self.pass_time(30_000, 1000)
        self.assertEqual(self.lease_all(), [])
        self.assertEqual(self.nodes[2].ack(*held), (3, []))

    def test_nack_delay(self):
        """A nack through any node gives back, after its delay."""
        self.publish()
        self.assertEqual(self.nodes[1].nack(*self.lease_all(), delay=5000), (3, []))
        self.assertEqual(self.lease_all(), [])
        self.pass_time(6000)
        self.assertEqual([each.attempt for each in self.lease_all()], [2, 2, 2])

    def test_dead(self):
        """A nack to the dead-letter topic through any node: stored there when it is answered. Where a binding has none, nothing is changed
        anywhere, also at other nodes."""
        self.create_topic("dead")
        self.create_topic("bare")
        self.bind("shop", "orders", dead_letter="dead")
        self.bind("shop", "bare")
        self.publish()
        self.publish("bare")
        held = [each for name in self.names for topic in ("orders", "bare") for each in self.nodes[0].lease(1, group=name, topics=(topic,))]
        self.assertEqual(len(held), 6)
        node = self.nodes[1]
        refused = node.board.nack(node.grant(), tokens(held), 0, True)
        self.settle()
        self.failureResultOf(refused, NoDeadLetter)
        letters = [each for each in held if each.topic == "orders"]
        self.assertEqual(node.nack(*letters, dead=True), (3, []))
        self.assertEqual(self.wait(self.storage.bounds("dead"))[0].end, 3)
        self.assertEqual(node.ack(*[each for each in held if each.topic == "bare"]), (3, []))

    def test_ended_key(self):
        """A grant that holds no longer acks nothing."""
        self.publish()
        held = self.lease_all()
        node = self.nodes[0]
        grant = node.grant()
        self.wait(self.registrar.rotate("shop", "subkey", 0, "test", None))
        judging = node.board.ack(grant, tokens(held))
        self.settle()
        self.failureResultOf(judging, BadCredentials)

    def test_moving(self):
        """Acks, nacks and extends that come while a group moves wait, and do not fail."""
        self.publish(count=3)
        a, b, c = self.nodes
        name = self.names[0]
        held = b.lease(3, group=name, ack_timeout_ms=60_000)
        a.wire(c).held = a.wire(b).held = True
        a.ownership.drain()
        self.settle()
        grant = b.grant()
        judged = [
            b.board.ack(grant, tokens(held[:1])),
            a.board.nack(grant, tokens(held[1:2]), 0, False),
            c.board.extend(grant, tokens(held[2:]), 90_000),
        ]
        self.pass_time(1000)
        a.wire(c).go_on()
        a.wire(b).go_on()
        self.pass_time(4000)
        self.assertEqual([self.wait(each) for each in judged], [Verdict(1, ())] * 3)
        self.assertEqual(a.slots(), [])
        self.assertEqual(offsets(c.lease(3, group=name)), [1])

    def test_poll_while_moving(self):
        """A poll that would not wait for a message waits for a group that moves, for longer than it would for one that is not reached."""
        self.publish()
        b = self.nodes[1]
        seat, b.ownership.seat = b.ownership.seat, lambda slot: MOVING
        polling = b.board.poll(b.grant(), Poll(self.names[0], timeout_ms=0))
        self.pass_time(2500)
        self.assertNoResult(polling)
        b.ownership.seat = seat
        self.pass_time(1000)
        self.assertEqual(places(self.wait(polling)), [("orders", 0, 0)])

    def test_not_reached(self):
        """Tokens of an owner that is not reached: in doubt after a while; the others took effect."""
        self.publish()
        a, b, _ = self.nodes
        held = self.lease_all()
        self.wires._factories.clear()
        a.wire(b).cut()
        self.settle()
        judging = a.board.ack(a.grant(), tokens(held))
        self.pass_time(PATIENCE_MS - 500)
        self.assertNoResult(judging)
        self.pass_time(1000)
        self.failureResultOf(judging, OwnershipInDoubt)
        self.pass_time(1000)
        self.assertEqual(self.committed(self.names[2])["orders", 0], 1)

    def test_link_breaks(self):
        """An ack, or an extend, whose answer went with the link is said again; a nack is not, since it may have been done."""
        self.publish(count=3)
        a, b, _ = self.nodes
        name = self.names[1]
        held = a.lease(3, group=name)
        asks = {
            "ack": lambda: a.board.ack(a.grant(), tokens(held[:1])),
            "extend": lambda: a.board.extend(a.grant(), tokens(held[1:2]), 60_000),
            "nack": lambda: a.board.nack(a.grant(), tokens(held[2:]), 0, False),
        }
        for verb, ask in asks.items():
            own = b.mesh.verbs[verb]

            def broken(member, body, own=own, verb=verb):
                b.mesh.verbs[verb] = own
                done = own(member, body)
                a.wire(b).cut()
                return done

            b.mesh.verbs[verb] = broken
            judging = ask()
            self.pass_time(1000)
            if verb == "nack":
                self.failureResultOf(judging, PeerLost)
            else:
                self.assertEqual(self.wait(judging), Verdict(1, ()))
        self.assertEqual(offsets(a.lease(3, group=name)), [2])

    def test_cancelled(self):
        """A client that goes away changes nothing about its acks."""
        self.publish()
        held = self.lease_all()
        a = self.nodes[0]
        a.board.ack(a.grant(), tokens(held)).addErrback(lambda failure: None).cancel()
        self.pass_time(1000)
        self.assertEqual([self.committed(name)["orders", 0] for name in self.names], [1, 1, 1])

    def test_group_not_seen_yet(self):
        """A token of a group that this node has not heard of yet: the registry is asked first, once for all who ask meanwhile."""
        self.publish()
        held = self.lease_all()
        a = self.nodes[0]
        find, a.board._whereabouts.find = a.board._whereabouts.find, lambda application, tag: None
        synced = Deferred()
        a.registry.sync = lambda: synced
        judging = a.board.ack(a.grant(), tokens(held))
        self.settle()
        self.assertNoResult(judging)
        a.board._whereabouts.find = find
        synced.callback(None)
        self.settle()
        self.assertEqual(self.wait(judging), Verdict(3, ()))
        a.board._whereabouts.find = lambda application, tag: None
        a.registry.sync = lambda: fail(RegistryUnavailable("away"))
        self.failureResultOf(a.board.ack(a.grant(), tokens(held)), OwnershipInDoubt)


class Groups(ThreeCase):
    def test_views(self):
        """Any node shows all groups as they stand where they are served, and who serves them."""
        self.publish(count=5)
        self.lease_all(2)
        for node in self.nodes:
            shown = node.board.groups("shop")
            self.settle()
            views = {view.group: view for view in self.wait(shown)}
            self.assertEqual(sorted(views), sorted(["shop", *self.names]))
            for number, name in enumerate(self.names):
                one = node.board.group(name)
                self.settle()
                self.assertEqual(self.wait(one), views[name])
                item = views[name].items[0]
                self.assertEqual((item.leased, item.lag, item.node), (2, 5, self.nodes[number].id))

    def test_cost(self):
        """The places of a group are asked for once, by the node that serves it, if they are not in its memory."""
        self.lease_all()
        before = self.storage.calls.get("committed", 0)
        shown = self.nodes[0].board.groups(None)
        self.settle()
        self.assertEqual(len(self.wait(shown)), 4)
        self.assertEqual(self.storage.calls["committed"] - before, 1)  # of "shop"
        few = self.nodes[0].board.groups(None, set(self.names[:2]).__contains__)
        self.settle()
        self.assertEqual([view.group for view in self.wait(few)], sorted(self.names[:2]))

    def test_not_reached(self):
        """A group whose node is not reached is shown as the storage has it."""
        self.publish(count=5)
        held = self.lease_all(2)
        a, b, _ = self.nodes
        b.ack(*held)
        self.pass_time(1000)
        self.lease_all(1)
        self.wires._factories.clear()
        a.wire(b).cut()
        self.settle()
        one, shown = a.board.group(self.names[1]), a.board.groups(None)
        self.settle()
        view = self.wait(one)
        item = view.items[0]
        self.assertEqual((item.committed, item.leased, item.node), (2, 0, "b"))
        self.assertIn(view, self.wait(shown))

    def test_lost_on_the_way(self):
        """Also where the link breaks while it is asked."""
        self.publish(count=5)
        self.lease_all(2)
        a, b, _ = self.nodes
        a.wire(b).held = True
        one, shown = a.board.group(self.names[1]), a.board.groups("shop")
        self.settle()
        self.assertNoResult(one)
        a.wire(b).cut()
        self.settle()
        self.assertEqual(self.wait(one).items[0].leased, 0)
        self.assertEqual(len(self.wait(shown)), 4)

    def test_unknown(self):
        """A group that is not there is not there, whoever is asked."""
        for node in self.nodes:
            for name in ("shop.nowhere1", "shop.nowhere2", "shop.nowhere3"):
                asking = node.board.group(name)
                self.settle()
                self.failureResultOf(asking, NotFound)

    def test_reset(self):
        """A reset through any node moves the group where it is served, in use or not."""
        self.publish(count=5)
        held = self.lease_all(3)
        for node, name in zip(self.nodes[1:] + self.nodes[:1], self.names, strict=True):
            dry = node.board.reset(name, "orders", [0], {0: 1}, True, "me")
            self.settle()
            self.assertEqual(self.wait(dry), {0: 1})
            resetting = node.board.reset(name, "orders", None, "earliest", False, "me")
            self.settle()
            self.assertEqual(self.wait(resetting), {0: 0, 1: 0, 2: 0})
        self.assertEqual(self.nodes[0].ack(*held), (0, tokens(held)))
        self.assertEqual([each.message.offset for each in self.lease_all()], [0, 0, 0])

    def test_forget(self):
        """A group is deleted through any node; polls that wait on it anywhere end."""
        waiting = [self.nodes[0].poll(name) for name in self.names]
        for node, name, polling in zip(self.nodes[1:] + self.nodes[:1], self.names, waiting, strict=True):
            forgetting = node.board.forget_group(name, "me")
            self.settle()
            self.wait(forgetting)
            self.failureResultOf(polling, NotFound)

    def test_redrive(self):
        """Letters are moved back through any node, by the one that serves the group."""
        self.create_topic("dead")
        self.bind("shop", "orders", dead_letter="dead")
        self.publish()
        a, b, c = self.nodes
        self.assertEqual(a.nack(*self.lease_all(), dead=True), (3, []))
        redriving = a.board.redrive(self.names[1], "dead", 10, "me")
        self.settle()
        self.assertEqual(self.wait(redriving).moved, 1)
        self.assertEqual((a.metric("psubd_redriven_messages_total"), b.metric("psubd_redriven_messages_total")), (0, 1))
        redriving = c.board.redrive(self.names[2], "dead", 10, "me")
        self.settle()
        self.assertEqual(self.wait(redriving).moved, 1)

    def test_nobody_serves(self):
        """Where nobody can be asked, nothing is done, and that is said."""
        a, b, _ = self.nodes
        self.publish()
        self.lease_all()
        self.wires._factories.clear()
        a.wire(b).cut()
        asks = [a.board.reset(self.names[1], "orders", None, "latest", False, "me"), a.board.forget_group(self.names[1], "me")]
        self.pass_time(PATIENCE_MS + 200)
        for asking in asks:
            self.failureResultOf(asking, OwnershipInDoubt)

    def test_here(self):
        """Replays and notices are this node's own."""
        self.publish(count=2)
        node = self.nodes[0]
        replayed = self.wait(node.board.replay(node.grant(), Replay("orders", "earliest", 0, 5, timeout_ms=0)))
        self.assertEqual([each.message.offset for each in replayed.messages], [0, 1])
        heard = []
        end = node.board.listen(heard.append)
        node.subscriber._notices.regained("shop")
        end()
        self.assertEqual(heard, ["group.regained shop"])


class StubOwnership:
    def __init__(self):
        self.seats, self.stands, self.changed = {}, True, None

    def seat(self, slot):
        return self.seats.get(slot)

    def lease_stands(self):
        return self.stands

    def listen(self, changed):
        self.changed = changed
        return lambda: None


class StubPeers:
    def __init__(self):
        self.links = set()

    def linked(self, member):
        return member in self.links


class Waiting(SynchronousTestCase):
    """Those who wait for an owner."""

    def setUp(self):
        self.clock, self.ownership, self.peers = FakeClock(), StubOwnership(), StubPeers()
        self.lobby = Lobby(self.ownership, self.peers, self.clock)

    def tearDown(self):
        self.assertEqual((self.lobby.waiting, self.clock.reactor.getDelayedCalls()), (0, []))

    def test_at_once(self):
        """Whose owner is known and reached waits for nothing."""
        self.ownership.seats = {1: HERE, 2: "m"}
        self.peers.links = {"m"}
        self.assertEqual([self.successResultOf(self.lobby.find(slot, 1000)) for slot in (1, 2)], [HERE, "m"])

    def test_order(self):
        """Those who wait for one slot go in the order in which they came, as soon as it has an owner; who left is left out."""
        self.ownership.seats = {1: MOVING}
        went = []
        waiting = [self.lobby.find(1, 5000).addCallback(lambda place, number=number: went.append((number, place))) for number in range(4)]
        waiting[1].addErrback(lambda failure: None).cancel()
        self.clock.advance(500)
        self.assertEqual((went, self.lobby.waiting), ([], 3))
        self.ownership.seats = {1: HERE}
        self.ownership.changed()
        self.assertEqual(went, [(0, HERE), (2, HERE), (3, HERE)])
        self.clock.advance(100)

    def test_link(self):
        """A link that comes about is seen, though nobody tells."""
        self.ownership.seats = {1: "m"}
        waiting = self.lobby.find(1, 5000)
        self.peers.links = {"m"}
        self.assertNoResult(waiting)
        self.clock.advance(100)
        self.assertEqual(self.successResultOf(waiting), "m")

    def test_patience(self):
        """Nobody waits longer than it wants; why is told."""
        self.ownership.seats = {1: "m", 2: MOVING}
        waiting = [self.lobby.find(slot, 1000) for slot in (1, 2, 3)]
        for _ in range(11):
            self.clock.advance(100)
        told = [self.failureResultOf(each, OwnershipInDoubt).value.detail for each in waiting]
        self.assertEqual(["does not reach it" in detail for detail in told], [True, False, False])

    def test_lease(self):
        """Without a lease of its own this node sends nobody anywhere; those who wait are told when it ends."""
        self.ownership.seats = {1: MOVING, 2: "m", 3: HERE}
        self.peers.links = {"m"}
        waiting = self.lobby.find(1, 5000)
        self.ownership.stands = False
        self.ownership.changed()
        self.failureResultOf(waiting, OwnershipInDoubt)
        self.failureResultOf(self.lobby.find(2, 5000), OwnershipInDoubt)
        self.assertEqual(self.successResultOf(self.lobby.find(3, 5000)), HERE)  # the subscriber judges that
        self.clock.advance(100)

    def test_disbelieved(self):
        """A place that said it does not serve the slot is not asked again at once, unless another has it by then."""
        self.ownership.seats = {1: "m", 2: "m"}
        self.peers.links = {"m", "n"}
        self.lobby.disbelieve(1, "m")
        self.assertIsNone(self.lobby.where(1))
        self.assertEqual(self.lobby.where(2), "m")
        self.ownership.seats[1] = "n"
        self.assertEqual(self.lobby.where(1), "n")
        self.ownership.seats[1] = "m"
        self.lobby.disbelieve(1, "m")
        waiting = self.lobby.find(1, 5000)
        for _ in range(DISBELIEF_MS // 100):
            self.assertNoResult(waiting)
            self.clock.advance(100)
        self.assertEqual(self.successResultOf(waiting), "m")

    def test_stop(self):
        """Who waits when psubd stops is told so, and who would have to wait then; who need not is sent on."""
        waiting = self.lobby.find(1, 5000)
        self.ownership.seats = {2: "m"}
        self.peers.links = {"m"}
        self.lobby.stop()
        self.failureResultOf(waiting, OverBudget)
        self.failureResultOf(self.lobby.find(1, 5000), OverBudget)
        self.assertEqual(self.successResultOf(self.lobby.find(2, 5000)), "m")


class Verdicts(SynchronousTestCase):
    def test_merged(self):
        """What was lost is told in the order sent, tokens of nothing and of several slots among each other, also where one was sent twice."""
        told = {1: Verdict(1, ("a", "a")), 2: Verdict(1, ("c",))}
        self.assertEqual(merged(["x", "c", "a", "b", "d", "a"], [None, 2, 1, 1, 2, 1], told), Verdict(2, ("x", "c", "a", "a")))

    def test_failed(self):
        """What one slot failed with, all do."""
        told = {1: Verdict(1, ()), 2: Failure(InUse("x"))}
        self.assertRaises(InUse, merged, ["a", "b"], [1, 2], told)


class Rerouted(ThreeCase):
    def test_gives_up(self):
        """A group that nobody wants to serve though it is said to be theirs is given up after a while."""
        a, b, _ = self.nodes
        b.mesh.verbs["poll"] = lambda member, body: fail(Moved("not here"))
        polling = a.poll(self.names[1], timeout=2000)
        for _ in range(100):
            self.clock.advance(100)
            if polling.called and not isinstance(polling.result, Deferred):
                break
        self.failureResultOf(polling, OwnershipInDoubt)

    def test_time_left(self):
        """It goes on with the time that it has left."""
        a, b, _ = self.nodes
        [name] = self.names[:1]
        polling = b.poll(name, timeout=10_000)
        self.pass_time(4000)
        a.ownership.drain()
        self.pass_time(5800)
        self.assertNoResult(polling)
        self.pass_time(300)
        self.assertEqual(self.wait(polling).messages, ())

    def test_local_moves(self):
        """One that waits at its own node goes on to the next owner when the slot moves there."""
        a = self.nodes[0]
        [name] = self.names[:1]
        polling = a.board.poll(a.grant(), Poll(name))
        self.settle()
        a.ownership.drain()
        self.pass_time(3000)
        self.assertEqual(a.metric("psubd_polls_passed_waiting"), 1)
        self.publish()
        self.assertEqual(places(self.wait(polling)), [("orders", 0, 0)])
        self.assertNotIn(slot_of(name, self.slots), a.slots())

    def test_stopping(self):
        """A poll that seeks an owner when its node stops ends empty."""
        a, b, _ = self.nodes
        self.wires._factories.clear()
        a.wire(b).cut()
        self.settle()
        polling = a.poll(self.names[1])
        a.stop()
        self.assertEqual(self.wait(polling).messages, ())

    def test_after_the_stop(self):
        """What comes while a node empties its accept queue: a poll ends empty at once, though there is something; an ack goes to the group's node."""
        a, b, _ = self.nodes
        self.publish(count=2)
        [held] = self.wait(b.poll(self.names[1], ack="explicit")).messages
        a.board.stop()
        a.board.stop = lambda: succeed(None)  # once
        self.assertEqual(self.wait(a.board.poll(a.grant(), Poll(self.names[1]))).messages, ())
        acked = a.board.ack(a.grant(), [held.token])
        self.settle()
        self.assertEqual(self.wait(acked).count, 1)
