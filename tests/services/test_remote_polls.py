"""Polls of clients whose node does not serve their group: what the two nodes tell each other, and what becomes of messages where they cannot."""

import msgspec
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import BadCredentials, BadParameter, OwnershipInDoubt, RegistryUnavailable, TopicNotBound
from psubd.model import Delivered, Delivery, Message, Poll
from psubd.services import remote_codec as codec
from psubd.services.remote_holds import HOLD_MS, MARGIN_MS
from psubd.services.remote_owner import GIVE_BACK_MS, Out
from psubd.services.remote_settles import GIVEN_UP_MS, Settles
from psubd.slots import rendezvous, slot_of
from psubd.testing.clock import FakeClock
from tests.services.house import offsets, places
from tests.services.nodes import NodesCase


class PairCase(NodesCase):
    """:ivar a: serves the group ``shop``. :ivar b: does not."""

    def setUp(self):
        super().setUp()
        self.a, self.b = self.owner(), self.other()

    @property
    def wire(self):
        return self.a.wire(self.b)

    def lent(self):
        return self.a.metric("psubd_answers_lent"), self.b.metric("psubd_answers_borrowed")


class Passing(PairCase):
    def test_waits_there(self):
        """A poll waits at the owner, beside the owner's own, and each message goes to the one that has waited longest."""
        polls = [node.poll() for node in (self.b, self.a, self.b, self.a)]
        self.assertEqual(self.a.metric("psubd_polls_waiting"), 4)
        for number, polling in enumerate(polls):
            self.publish()
            self.assertEqual(places(self.wait(polling)), [("orders", 0, number)])

    def test_whole(self):
        """What the message holds arrives as it was stored; in auto mode it is done once it was written."""
        self.publish(count=2, key=b"k")
        delivery = self.wait(self.b.poll(batch=10))
        self.assertEqual(delivery.messages[0], Delivered("orders", 0, Message(0, delivery.messages[0].message.timestamp, b"k", b"v" * 10, ()), 1))
        self.assertTrue(delivery.stands())
        self.assertEqual(self.lent(), (1, 1))
        delivery.settle(2)
        delivery.settle(0)  # only the first call counts
        self.pass_time(1000)
        self.assertEqual((self.committed()["orders", 0], self.lent()), (2, (0, 0)))

    def test_broken(self):
        """Auto: what was not wholly written comes again, in order, no attempt counted."""
        self.publish(count=3)
        self.wait(self.b.poll(batch=3)).settle(2)
        self.settle()
        again = self.wait(self.b.poll(batch=3))
        self.assertEqual([(each.message.offset, each.attempt) for each in again.messages], [(0, 1), (1, 1), (2, 1)])
        again.settle(0)

    def test_broken_explicit(self):
        """Explicit: what was written keeps its lease, the rest comes again at once."""
        self.publish(count=3)
        delivery = self.wait(self.b.poll(batch=3, ack="explicit"))
        delivery.settle(1)
        self.settle()
        self.assertEqual(offsets(self.a.lease(3)), [1, 2])
        self.assertEqual(self.a.ack(delivery.messages[0]), (1, []))

    def test_empty(self):
        """Nothing there: an empty answer after the poll's time, from the owner."""
        polling = self.b.poll(timeout=2000)
        self.pass_time(1900)
        self.assertNoResult(polling)
        self.pass_time(200)
        self.assertEqual(self.wait(polling).messages, ())
        self.assertEqual(self.wait(self.b.poll(timeout=0)).messages, ())
        self.assertEqual(self.lent(), (0, 0))

    def test_refused(self):
        """What the owner refuses the client is told as though it had asked there."""
        self.create_topic("other")
        self.failureResultOf(self.b.poll(topics=("other",)), TopicNotBound)
        waiting = self.b.poll(topics=("orders",))
        self.unbind("shop", "orders")
        self.settle()
        self.failureResultOf(waiting, TopicNotBound)

    def test_key_ends(self):
        """A poll that waits elsewhere ends with its key."""
        waiting = self.b.poll()
        self.wait(self.registrar.rotate("shop", "subkey", 0, "test", None))
        self.settle()
        self.failureResultOf(waiting, BadCredentials)

    def test_names(self):
        """A group's name is judged where it comes in."""
        grant = self.b.grant()
        for group in ("owner", "shop.__x", "shop.a/b"):
            self.failureResultOf(self.b.board.poll(grant, Poll(group)), BadParameter)
            self.failureResultOf(self.a.board.poll(grant, Poll(group)), BadParameter)

    def test_application_made_again(self):
        """An application that was deleted and made again is another one, for the owner too."""
        grant = self.b.grant()
        self.unbind("shop", "orders")
        self.wait(self.registrar.delete_application("shop", True, "test", None))
        self.create_application("shop")
        self.bind("shop", "orders")
        caller = self.b.board._edge._caller(grant)
        body = codec.encode(codec.AskedPoll(1, caller, Poll("shop")))
        asking = self.b.mesh.call(self.a.key, "poll", body, None)
        self.settle()
        self.failureResultOf(asking, BadCredentials)

    def test_many(self):
        """10,000 polls that wait elsewhere are entries on one connection, and each gets its message."""
        polls = [self.b.board.poll(self.b.grant(), Poll("shop")) for _ in range(10_000)]
        self.settle()
        self.assertEqual((self.a.metric("psubd_polls_waiting"), len(self.wires.open)), (10_000, 1))
        self.publish(count=10_000)
        self.pass_time(1000)
        deliveries = [self.wait(polling) for polling in polls]
        self.assertEqual([offset for delivery in deliveries for _, _, offset in places(delivery)], list(range(10_000)))
        for delivery in deliveries:
            delivery.settle(1)
        self.pass_time(1000)
        self.assertEqual((self.committed()["orders", 0], self.lent()), (10_000, (0, 0)))

    def test_stop(self):
        """A node that stops answers those that wait elsewhere empty, and tells what became of the rest."""
        self.publish()
        delivery = self.wait(self.b.poll())
        waiting = self.b.poll()
        delivery.settle(1)
        self.b.stop()
        self.assertEqual(self.wait(waiting).messages, ())
        self.pass_time(1000)
        self.assertEqual(self.committed()["orders", 0], 1)

    def test_mixed(self):
        """An answer with both kinds of messages: the auto ones are done when all was written."""
        self.create_topic("notes")
        self.bind("shop", "notes", ack="explicit")
        self.b.take()
        self.publish("notes")
        self.publish("orders")
        delivery = self.wait(self.b.poll(batch=2))
        self.assertEqual(sorted((each.topic, each.token is None) for each in delivery.messages), [("notes", False), ("orders", True)])
        delivery.settle(2)
        self.pass_time(1000)
        self.assertEqual(self.committed()["orders", 0], 1)
        self.assertEqual(self.a.ack(*[each for each in delivery.messages if each.token]), (1, []))


class Aging(NodesCase):
    ids = ("a", "b", "c")

    def test_after_a_handover(self):
        """Where the slot goes to another node, those that wait for it go on there in the order in which they came to any of the nodes: those of its
        own clients, which are there at once, no sooner than the others."""
        former = self.owner()
        heir, third = [node for node in self.nodes if node is not former]
        polls = []
        for node in (third, former, heir, third, former, heir):
            polls.append(node.poll(timeout=60_000))
            self.pass_time(200)
        former.ownership.drain()
        self.pass_time(3000)
        self.assertIn(self.owner(), (heir, third))
        late = self.owner().poll(timeout=60_000)
        for number, polling in enumerate([*polls, late]):
            self.publish()
            self.pass_time(100)
            self.assertEqual(places(self.wait(polling)), [("orders", 0, number)])


class Cancelled(PairCase):
    def test_while_it_waits(self):
        """A client that goes away withdraws its poll from the owner."""
        waiting = self.b.poll()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.settle()
        self.assertEqual(self.a.metric("psubd_polls_waiting"), 0)
        self.publish()
        self.assertEqual(self.b.take(), [("orders", 0, 0)])

    def test_while_its_answer_comes(self):
        """What is on its way to a client that went away goes back to the front, no attempt counted."""
        waiting = self.b.poll(batch=2)
        self.wire.held = True
        self.publish(count=2)
        self.assertEqual(self.lent(), (1, 0))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.wire.go_on()
        self.settle()
        again = self.wait(self.a.poll(batch=2))
        self.assertEqual([(each.message.offset, each.attempt) for each in again.messages], [(0, 1), (1, 1)])
        again.settle(2)
        self.assertEqual(self.lent(), (0, 0))

    def test_before_it_is_sent(self):
        """One that is withdrawn before it went leaves nothing."""
        self.wire.held = True
        waiting = self.b.poll()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.wire.go_on()
        self.publish()
        self.assertEqual(self.lent(), (0, 0))


class LinksCut(PairCase):
    def test_while_it_waits(self):
        """A poll whose link breaks goes on when it is there again."""
        waiting = self.b.poll()
        self.wire.cut()
        self.pass_time(500)
        self.assertNoResult(waiting)
        self.publish()
        self.assertEqual(places(self.wait(waiting)), [("orders", 0, 0)])

    def test_while_its_answer_comes(self):
        """What went with the link goes back as soon as there is another, and comes again in order; no attempt was counted."""
        for mode in ("auto", "explicit"):
            waiting = self.b.poll(ack=mode, timeout=10_000)
            self.wire.held = True
            [first] = self.publish()
            self.assertEqual(self.lent()[0], 1)
            self.wire.cut()
            self.pass_time(1000)
            delivery = self.wait(waiting)
            self.assertEqual([(each.message.offset, each.attempt) for each in delivery.messages], [(first, 1)])
            delivery.settle(1)
            self.settle()
            self.assertEqual(self.lent(), (0, 0))

    def test_while_it_is_written(self):
        """An answer whose link breaks does not stand any more, not even over the next link; what was written of it is told all the same."""
        self.publish(count=2)
        delivery = self.wait(self.b.poll(batch=2, ack="explicit"))
        self.wire.cut()
        self.settle()
        self.assertFalse(delivery.stands())
        self.pass_time(500)
        self.assertTrue(self.b.mesh.linked(self.a.key))
        self.assertFalse(delivery.stands())
        delivery.settle(1)
        self.settle()
        self.assertEqual(offsets(self.a.lease(2)), [1])

    def test_while_it_is_settled(self):
        """What was written is done, though the link broke before that was told."""
        self.publish(count=2)
        delivery = self.wait(self.b.poll())
        self.wire.held = True
        delivery.settle(1)
        self.settle()
        self.wire.cut()
        self.pass_time(1500)
        self.assertEqual((self.committed()["orders", 0], self.lent()), (1, (0, 0)))
        self.assertEqual(self.a.take(), [("orders", 0, 1)])

    def test_settled_twice(self):
        """Said again, since the answer to it was lost, it changes nothing."""
        self.publish(count=2)
        first = self.wait(self.b.poll())
        number = next(iter(self.b.board._edge._borrowed))
        first.settle(1)
        self.settle()
        self.b.board._edge._settles.tell(self.a.key, number, 0)
        self.settle()
        self.assertEqual(self.a.take(), [("orders", 0, 1)])

    def test_silence(self):
        """On a line that swallows everything: the answer falls, unnoticed by anybody, well before its message is given to somebody else."""
        self.publish()
        delivery = self.wait(self.b.poll())
        self.wires._factories.clear()
        self.wire.held = True
        fell = None
        for ms in range(0, 30_000, 100):
            if fell is None and not delivery.stands():
                fell = ms
            if self.a.lease(1):
                break
            self.clock.advance(100)
        self.assertIsNotNone(fell)
        self.assertLess(fell + 3000, ms)

    def test_stopped(self):
        """An edge that stood still finds old bytes in its buffers, which say nothing: its answer has fallen."""
        self.publish()
        delivery = self.wait(self.b.poll())
        self.wire.held = True
        self.pass_time(3000, 1000)
        self.wire.go_on()
        self.assertTrue(delivery.stands())
        self.clock.advance(0)
        self.assertTrue(delivery.stands())
        self.wire.held = True
        self.clock.reactor.rightNow += 20
        self.assertFalse(delivery.stands())

    def test_edge_gone(self):
        """An edge that is gone: what is done by being written comes again after a while, explicit leases last as long as they were granted."""
        self.publish(count=2)
        self.wait(self.b.poll())
        explicit = self.wait(self.b.poll(ack="explicit", ack_timeout_ms=60_000))
        self.b.die()
        self.pass_time(GIVE_BACK_MS - 1000)
        self.assertEqual(self.a.take(), [])
        self.pass_time(1500)
        self.assertEqual(self.a.take(), [("orders", 0, 0)])
        self.assertEqual(self.a.ack(*explicit.messages), (1, []))

    def test_edge_gone_then_lapse(self):
        """They lapse as any other."""
        self.publish()
        self.wait(self.b.poll(ack="explicit", ack_timeout_ms=20_000))
        self.b.die()
        self.pass_time(15_000, 500)
        self.assertEqual(self.a.take(), [])
        self.pass_time(6000, 500)
        self.assertEqual(self.a.take(), [("orders", 0, 0)])

    def test_not_reached(self):
        """A node that is cut off from an owner that lives says so, and not that there is nothing."""
        self.wires._factories.clear()
        self.wire.cut()
        self.settle()
        polls = [self.b.poll(timeout=ms) for ms in (0, 2000, 60_000)]
        self.pass_time(900)
        for polling in polls:
            self.assertNoResult(polling)
        self.pass_time(200)
        self.assertIn("does not reach it", self.failureResultOf(polls[0], OwnershipInDoubt).value.detail)
        self.assertNoResult(polls[1])
        self.pass_time(1000)
        self.failureResultOf(polls[1], OwnershipInDoubt)
        self.assertNoResult(polls[2])
        self.pass_time(3000)
        self.failureResultOf(polls[2], OwnershipInDoubt)
        self.assertEqual(self.b.metric("psubd_polls_seeking"), 0)


class Recalled(PairCase):
    def test_on_its_way(self):
        """An answer that is still coming when the owner's lease ends is not used, and is there again when it goes on."""
        waiting = self.b.poll()
        self.wire.held = True
        self.publish(size=500_000)  # in pieces: what is said after it overtakes it
        self.a.membership.end_lease()
        self.clock.advance(10)
        self.wire.go_on()
        self.settle()
        self.assertEqual(self.lent(), (0, 0))
        self.pass_time(500)
        self.failureResultOf(waiting, OwnershipInDoubt)
        self.a.membership.answered()
        self.pass_time(1000)
        self.assertEqual([(each.message.offset, each.attempt) for each in self.a.lease(5)], [(0, 1)])

    def test_others_number(self):
        """A node calls back its own answers only."""
        self.publish()
        delivery = self.wait(self.b.poll())
        [number] = self.b.board._edge._borrowed
        self.assertEqual(self.b.board._edge._recall("somebody", codec.encode([number, 99])), codec.encode([]))
        self.assertTrue(delivery.stands())
        delivery.settle(1)

    def test_unanswered(self):
        """A recall that is not answered: after a while the answer is given up, as with a link that broke."""
        self.publish()
        delivery = self.wait(self.b.poll())
        self.b.mesh.verbs["recall"] = lambda member, body: self.never
        self.never = Deferred()
        self.a.board._owner.recall(next(iter(self.a.board._owner._by_slot)))
        gone = self.a.board._owner.gone(next(iter(self.a.board._owner._by_slot)))
        self.pass_time(6000)
        self.assertNoResult(gone)
        self.pass_time(GIVE_BACK_MS)
        self.wait(gone)
        self.assertEqual(self.a.take(), [("orders", 0, 0)])
        delivery.settle(0)


class Held(PairCase):
    """An owner says again and again how long what it gave may be written."""

    def silence(self):
        """Nothing goes between the two from now on, and neither is told."""
        self.wires._factories.clear()
        self.wire.held = True

    def falls_after(self, delivery, most=30_000):
        """In how many ms it does."""
        for ms in range(0, most, 50):
            if not delivery.stands():
                return ms
            self.clock.advance(50)
        self.fail("it stands for ever")

    def test_long(self):
        """An answer that is written for long stands as long as both nodes and the line do."""
        self.publish()
        delivery = self.wait(self.b.poll())
        for _ in range(60):
            self.pass_time(1000)
            self.assertTrue(delivery.stands())
        delivery.settle(1)

    def test_waited_for_long(self):
        """So does one for which the client has waited."""
        polling = self.b.poll(timeout=60_000)
        self.pass_time(40_000, 500)
        self.publish()
        self.assertTrue(self.wait(polling).stands())

    def test_owner_without_registry(self):
        """An owner that is cut off from the registry, and then from the node that writes its answer: that one ends it no later than the owner's
        lease, though both links were there until shortly before."""
        self.publish()
        delivery = self.wait(self.b.poll())
        self.a.membership.silence()
        ends = self.a.membership.lease_ends_ms()
        self.pass_time(ends - self.clock.elapsed_ms() - 1500)
        self.assertTrue(delivery.stands())
        self.silence()
        self.clock.advance(1500)
        self.assertFalse(delivery.stands())
        delivery.settle(0)

    def test_while_it_stops(self):
        """A node that stops writes its answers to their end."""
        self.publish()
        delivery = self.wait(self.b.poll())
        stopped = self.b.board.stop()
        self.b.board.stop = lambda: stopped
        for _ in range(20):
            self.pass_time(1000)
            self.assertTrue(delivery.stands())
        delivery.settle(1)
        self.pass_time(1000)
        self.assertEqual(self.committed()["orders", 0], 1)

    def test_short_lease(self):
        """Where sessions are short it is asked so often that an answer stands all the time."""
        self.a.membership._session_ms = 2000
        self.publish()
        delivery = self.wait(self.b.poll())
        self.pass_time(2000)
        for _ in range(200):
            self.clock.advance(20)
            self.assertTrue(delivery.stands())
        self.silence()
        self.assertLessEqual(self.falls_after(delivery), 1000)
        delivery.settle(0)

    def test_never_again(self):
        """What has fallen stays so, also where the line was not broken: its message may be another's by now. Polls that wait are asked anew."""
        self.publish()
        delivery = self.wait(self.b.poll())
        waiting = self.b.poll(timeout=60_000)
        granted = self.a.board._owner._granted_holds
        granted.refuse(self.b.key)
        self.falls_after(delivery)
        granted.relent(self.b.key)
        self.pass_time(3000)
        self.assertFalse(delivery.stands())
        delivery.settle(0)
        self.pass_time(500)
        again = self.wait(waiting)
        self.assertEqual((places(again), again.stands()), ([("orders", 0, 0)], True))
        again.settle(1)

    def test_explicit_kept(self):
        """Answers with both kinds whose node falls silent: explicit leases last as they were granted, whatever the answers ended with; the rest comes
        again."""
        explicit = ("amounts", "zones")
        for topic in explicit:
            self.create_topic(topic)
            self.bind("shop", topic, ack="explicit", ack_timeout_ms=60_000)
        self.b.take()
        held = []
        for _ in range(3):
            for topic in ("orders", *explicit):
                self.publish(topic)
            held += self.wait(self.b.poll(batch=3)).messages
        leased = [each for each in held if each.token]
        self.assertEqual((len(held), len(leased)), (9, 6))
        self.b.die()
        self.pass_time(GIVE_BACK_MS + 1500)
        self.assertEqual(self.a.take(topics=explicit), [])
        self.assertEqual(self.a.take(), [("orders", 0, number) for number in range(3)])
        self.assertEqual(self.a.ack(*leased), (6, []))


class SlotLeaves(NodesCase):
    """A slot leaves its node while another node writes an answer that is done by being written, and falls silent. The third one is to have it."""

    ids = ("a", "b", "c")

    def setUp(self):
        super().setUp()
        self.owned = self.owner()
        slot = slot_of("shop", self.slots)
        order = [rendezvous(slot, {node.key for node in self.nodes if node is not self.owned})]
        self.heir = next(node for node in self.nodes if node.key in order)
        self.edge = next(node for node in self.nodes if node not in (self.owned, self.heir))
        self.publish()
        self.delivery = self.wait(self.edge.poll())

    def moves(self, watch=lambda: None):
        """ms until the heir has it."""
        self.owned.ownership.drain()
        for ms in range(0, 60_000, 50):
            if slot_of("shop", self.slots) in self.heir.subscriber.seated():
                return ms
            watch()
            self.clock.advance(50)
        self.fail("it does not move")

    def silence(self):
        self.wires._factories.clear()
        for wire in self.edge.wires():
            wire.held = True

    def test_silent(self):
        """It moves as soon as the silent node has surely ended its answer, and that is some 5 s; not before."""
        fell = []
        self.silence()
        moved = self.moves(lambda: fell.append(self.delivery.stands()))
        self.assertFalse(fell[-1])
        self.assertLessEqual(moved, HOLD_MS + MARGIN_MS + 200)
        self.assertGreater(moved, HOLD_MS - 1000)
        self.assertEqual(self.heir.take(), [("orders", 0, 0)])

    def test_link_broken(self):
        """So where its link broke, and does not come again."""
        self.wires._factories.clear()
        self.owned.wire(self.edge).cut()
        self.assertLessEqual(self.moves(), HOLD_MS + MARGIN_MS + 200)
        self.assertFalse(self.delivery.stands())

    def test_back_too_late(self):
        """A node that comes back when the slot has moved writes nothing of it."""
        self.silence()
        self.moves()
        for wire in self.edge.wires():
            wire.go_on()
        self.assertFalse(self.delivery.stands())
        self.pass_time(3000)
        self.assertFalse(self.delivery.stands())
        self.delivery.settle(1)
        self.settle()
        self.assertEqual(self.heir.take(), [("orders", 0, 0)])


class Behind(PairCase):
    """The owner has not seen yet what the edge has."""

    def setUp(self):
        super().setUp()
        self.synced = 0
        self.b.board._edge._seen = lambda: self.a.registry.snapshot().serial + 1

    def test_catches_up(self):
        """The owner first sees what the other node had seen; those that come meanwhile share one look."""
        done = []
        own = self.a.registry.sync

        def sync():
            self.synced += 1
            waiting = Deferred()
            done.append(waiting)
            return waiting

        self.a.registry.sync = sync
        polls = [self.b.poll() for _ in range(3)]
        self.assertEqual((self.synced, self.a.metric("psubd_polls_waiting")), (1, 0))
        while done:
            done.pop(0).callback(None)
        self.settle()
        self.assertEqual((self.synced, self.a.metric("psubd_polls_waiting")), (2, 3))
        self.a.registry.sync = own
        for polling in polls:
            polling.cancel()
            self.failureResultOf(polling, CancelledError)

    def test_cannot(self):
        """An owner that cannot see it now does not judge by what it has."""
        self.a.registry.sync = lambda: fail(RegistryUnavailable("away"))
        self.failureResultOf(self.b.poll(), OwnershipInDoubt)
        judging = self.b.board._edge.judge(self.a.key, "ack", self.b.grant(), 0, ["x"])
        asked = Deferred.fromCoroutine(judging)
        self.settle()
        self.failureResultOf(asked, OwnershipInDoubt)


class Words(SynchronousTestCase):
    def test_messages(self):
        """Messages arrive as they are: no key, no value, headers that repeat, a token."""
        messages = (
            Delivered("t", 3, Message(1 << 60, 5, None, None, ()), 2),
            Delivered("t", 0, Message(0, 0, b"", b"\xff", (("a", None), ("a", b"\x00"))), 1, "token", (1 << 63) - 1),
        )
        self.assertEqual(codec.decode_messages(codec.encode_messages(messages)), messages)
        self.assertEqual(codec.decode_messages(codec.encode_messages(())), ())

    def test_polls(self):
        """An ask arrives as it is."""
        caller = codec.Caller("shop", 3, ("d1", "d2"), None, 17)
        asked = codec.AskedPoll(9, caller, Poll("shop.g", ("a", "b"), 5, 100, 7, "explicit", 1000))
        self.assertEqual(codec.decode_poll(codec.encode(asked)), asked)

    def test_resets(self):
        """So does where a reset goes."""
        for to in ("earliest", "latest", ("timestamp", 5), {0: 3, 7: 1}):
            asked = codec.AskedReset("g", "t", (1, 2), to, True, "me", 4)
            self.assertEqual(codec.decode(codec.encode(asked), codec.AskedReset), asked)

    def test_unread(self):
        """What cannot be read is a node of another version, which is no fault of the client's."""
        for body in (b"", b"\xc1", b"{}", msgspec.msgpack.encode([1, 2]), msgspec.msgpack.encode({"number": 1})):
            self.assertRaises(OwnershipInDoubt, codec.decode_messages, body)
            self.assertRaises(OwnershipInDoubt, codec.decode_poll, body)
            self.assertRaises(OwnershipInDoubt, codec.decode_settled, body)

    def test_given_up(self):
        """Where nobody tells what became of an answer, nothing that is done by being written is done, and explicit leases stay."""

        def given_up(modes):
            messages = tuple(Delivered("t", 0, Message(0, 0, None, None, ()), 1, "x" if mode == "e" else None) for mode in modes)
            return Out("m", 1, 0, Delivery(messages, lambda count: None)).give_up()

        self.assertEqual([given_up(modes) for modes in ("a", "aa", "e", "ee", "eea")], [0, 1, 1, 2, 2])


class FakePeers:
    def __init__(self):
        self.calls = []

    def call(self, member, verb, body, timeout_ms):
        answer = Deferred()
        self.calls.append((member, verb, codec.decode_settled(body), answer))
        return answer


class Telling(SynchronousTestCase):
    def setUp(self):
        self.clock, self.peers = FakeClock(), FakePeers()
        self.settles = Settles(self.peers, self.clock)

    def test_together(self):
        """What comes while one message is on its way goes together with the next."""
        for number in range(5):
            self.settles.tell("m", number, 1)
        self.assertEqual([said for _, _, said, _ in self.peers.calls], [[(0, 1)]])
        quiet = self.settles.quiet()
        self.peers.calls[0][3].callback(b"")
        self.assertEqual(self.peers.calls[1][2], [(number, 1) for number in range(1, 5)])
        self.assertNoResult(quiet)
        self.peers.calls[1][3].callback(b"")
        self.successResultOf(quiet)
        self.successResultOf(self.settles.quiet())

    def test_given_up(self):
        """Told again and again, for as long as the owner waits to hear it."""
        self.settles.tell("m", 1, 1)
        for _ in range(GIVEN_UP_MS // 200 + 5):
            self.peers.calls[-1][3].called or self.peers.calls[-1][3].errback(OwnershipInDoubt("lost"))
            self.clock.advance(200)
        self.assertEqual(self.clock.reactor.getDelayedCalls(), [])
        self.assertGreater(len(self.peers.calls), 40)
        self.successResultOf(self.settles.quiet())

    def test_stop(self):
        """Nothing is told any more after a stop."""
        self.settles.tell("m", 1, 1)
        self.peers.calls[0][3].errback(OwnershipInDoubt("lost"))
        self.settles.stop()
        self.clock.advance(60_000)
        self.assertEqual(len(self.peers.calls), 1)
