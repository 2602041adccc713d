"""Who is there, who serves what, and whether a node still may."""

import shutil
from typing import Any

from twisted.internet.defer import gatherResults

from psubd.errors import InUse, RegistryUnavailable
from psubd.interfaces import Claim, IMembership
from psubd.registry.zookeeper.registry import ZooKeeperRegistry
from psubd.testing.zookeeper import Wire, four_letters
from tests.integration.zookeeper.hosts import ZooKeeperCase


class Nodes(ZooKeeperCase):
    """Words for nodes and their slots."""

    def wire(self) -> Wire:
        """The network between a node and ZooKeeper."""
        made = Wire(self.ensemble.ports[1])
        self.addCleanup(made.close)
        return made

    def claim(self, node: ZooKeeperRegistry, slot: int) -> int:
        return self.wait(node.membership.claim(slot))

    def keys(self, node: ZooKeeperRegistry) -> list[str]:
        return list(node.membership.members())

    def sees(self, node: ZooKeeperRegistry, slot: int, claim: Claim | None) -> None:
        self.until(lambda: node.membership.claims().get(slot) == claim, f"slot {slot}: {claim}")


class Members(Nodes):
    """``/nodes``."""

    def test_provides(self) -> None:
        """What the registry has is an IMembership."""
        self.assertTrue(IMembership.providedBy(self.node().membership))

    def test_coming_and_going(self) -> None:
        """Each node sees all, itself marked; one that stops is gone at once."""
        a, b = self.node(), self.node()
        for node in (a, b):
            self.until(lambda node=node: len(self.keys(node)) == 2, "both nodes")
            self.assertEqual([key for key, member in node.membership.members().items() if member.self], [node.membership.key])
        self.assertEqual(len(a.nodes()), 2)
        self.wait(b.stop())
        self.until(lambda: self.keys(a) == [a.membership.key], "the other one's end")

    def test_what_a_node_says_of_itself(self) -> None:
        """Address, eligibility and load reach the others."""
        a, b = self.node(), self.node()
        self.assertFalse(a.membership.members()[a.membership.key].eligible)
        self.wait(gatherResults([a.membership.declare(True, 7), a.membership.locate("10.0.0.1:9092")]))
        self.until(lambda: (found := b.membership.members().get(a.membership.key)) is not None and found.address is not None, "the address")
        found = b.membership.members()[a.membership.key]
        self.assertEqual((found.id, found.address, found.eligible, found.load, found.self), (a.node_id, "10.0.0.1:9092", True, 7, False))

    def test_restart_within_the_old_session(self) -> None:
        """A node that is killed and started again removes its former self, claims and all, long before ZooKeeper would."""
        state = self.mktemp()
        watcher = self.node()
        node = self.node(state)
        former = node.membership.key
        first = self.claim(node, 3)
        self.sees(watcher, 3, Claim(former, first))
        self.crash(node)
        self.assertIn(former, self.keys(watcher))
        again = self.node(state)
        self.assertNotEqual(again.membership.key, former)
        self.until(lambda: former not in self.keys(watcher), "the former self's end")
        self.sees(watcher, 3, None)
        self.assertIn(former.rpartition("-")[2].lstrip("0"), four_letters(self.ensemble.ports[1], "dump"))  # the old session stands still
        self.assertGreater(self.claim(watcher, 3), first)

    def test_a_copied_state_folder(self) -> None:
        """Two processes with one id: the first one gives way, says so, and follows what is registered all the same."""
        state = self.mktemp()
        first = self.node(state)
        self.claim(first, 1)
        other = self.mktemp()
        shutil.copytree(state, other)
        second = self.node(other)
        self.until(lambda: first.membership.displaced, "the first one's giving way")
        self.assertIsNone(first.membership.epoch_of(1))
        self.assertIn("another process", str(first.trouble()))
        with self.assertRaises(RegistryUnavailable):
            self.claim(first, 1)
        self.assertIsNone(second.trouble())


class Claims(Nodes):
    """``/slots``."""

    def test_one_at_a_time(self) -> None:
        """A slot is one node's; its epoch rises with each claim of any slot."""
        a, b = self.node(), self.node()
        first = self.claim(a, 0)
        self.assertEqual(a.membership.epoch_of(0), first)
        self.assertIsNone(b.membership.epoch_of(0))
        self.sees(b, 0, Claim(a.membership.key, first))
        with self.assertRaises(InUse):
            self.claim(b, 0)
        second = self.claim(b, 255)
        self.assertGreater(second, first)
        self.assertEqual(self.claim(a, 0), first)  # asked again: the same
        released = a.membership.release(0)
        self.assertIsNone(a.membership.epoch_of(0))  # before anything was sent
        self.wait(released)
        third = self.claim(b, 0)
        self.assertGreater(third, second)
        self.sees(a, 0, Claim(b.membership.key, third))
        self.wait(a.membership.release(0))  # not held: done, and b's stands
        self.assertEqual(b.membership.epoch_of(0), third)

    def test_no_such_slot(self) -> None:
        """There are 256."""
        node = self.node()
        self.assertEqual(node.membership.slots, 256)
        for slot in (-1, 256):
            with self.assertRaises(InUse):
                self.claim(node, slot)

    def test_many(self) -> None:
        """All slots can be taken at once, by nodes that race for them: each goes to one."""
        a, b = self.node(), self.node()
        asked = [node.membership.claim(slot) for slot in range(256) for node in (a, b)]
        for each in asked:
            each.addErrback(lambda failure: failure.trap(InUse) and None)
        self.wait(gatherResults(asked))
        held = [[slot for slot in range(256) if node.membership.epoch_of(slot) is not None] for node in (a, b)]
        self.assertEqual(sorted(held[0] + held[1]), list(range(256)))
        for node in (a, b):
            self.until(lambda node=node: len(node.membership.claims()) == 256, "all claims")
        self.assertEqual(a.membership.claims(), b.membership.claims())

    def test_released_and_claimed_at_once(self) -> None:
        """A claim that follows its own release is another one."""
        node = self.node()
        first = self.claim(node, 9)
        released = node.membership.release(9)
        second = self.claim(node, 9)
        self.wait(released)
        self.assertGreater(second, first)
        self.assertEqual(node.membership.epoch_of(9), second)
        self.pause(0.1)
        self.assertEqual(node.membership.claims()[9].epoch, second)

    def test_a_create_whose_answer_was_lost(self) -> None:
        """The claim was made, and the connection went before the node heard of it: it is read back, with the epoch of its making."""
        wire = self.wire()
        node, other = self.node(hosts=f"127.0.0.1:{wire.port}"), self.node()
        wire.swallow(requests=False)
        asked = node.membership.claim(5)
        self.until(lambda: 5 in other.membership.claims(), "the claim at the server")
        self.assertFalse(asked.called)
        wire.cut()
        wire.heal()
        epoch = self.wait(asked)
        self.assertEqual(other.membership.claims()[5], Claim(node.membership.key, epoch))
        self.assertEqual(node.membership.epoch_of(5), epoch)

    def test_a_create_that_was_lost(self) -> None:
        """It never reached ZooKeeper: the claim fails, and the slot is free."""
        wire = self.wire()
        node, other = self.node(hosts=f"127.0.0.1:{wire.port}"), self.node()
        wire.swallow()
        asked = node.membership.claim(5)
        self.pause(0.2)
        wire.cut()
        wire.heal()
        with self.assertRaises(RegistryUnavailable):
            self.wait(asked)
        self.assertIsNone(node.membership.epoch_of(5))
        self.claim(other, 5)

    def test_a_create_that_comes_late(self) -> None:
        """The network holds it back until the node has given up the connection: it is made or not, and the node knows which."""
        wire = self.wire()
        node, other = self.node(hosts=f"127.0.0.1:{wire.port}"), self.node()
        wire.hold()
        asked = node.membership.claim(5)
        self.until(lambda: node.trouble() is not None, "the node's giving up the silent connection")
        wire.heal()
        try:
            epoch: int | None = self.wait(asked)
        except RegistryUnavailable:
            epoch = None
        self.until(lambda: node.trouble() is None, "the connection")
        self.assertEqual(node.membership.epoch_of(5), epoch)
        self.sees(other, 5, None if epoch is None else Claim(node.membership.key, epoch))

    def test_a_delete_that_was_lost(self) -> None:
        """A release whose connection went is repeated until the slot is free."""
        wire = self.wire()
        node, other = self.node(hosts=f"127.0.0.1:{wire.port}"), self.node()
        self.claim(node, 5)
        wire.swallow()
        released = node.membership.release(5)
        self.pause(0.2)
        self.assertFalse(released.called)
        wire.cut()
        wire.heal()
        self.wait(released)
        self.claim(other, 5)


class Leases(Nodes):
    """Whether a node may still act."""

    def test_compared_at_each_question(self) -> None:
        """After a stop of the process nothing has run yet, and the claim does not count already."""
        node = self.node()
        epoch = self.claim(node, 2)
        clock = Jumping(node._clock)
        node.membership._clock = clock
        self.assertEqual(node.membership.epoch_of(2), epoch)
        clock.ahead_ms = 10_000
        self.assertIsNone(node.membership.epoch_of(2))

    def test_renewed_while_nothing_is_asked(self) -> None:
        """A node that has nothing to do keeps its lease."""
        node = self.node()
        before = node.membership.lease_ends_ms()
        self.until(lambda: node.membership.lease_ends_ms() > before + 1_000, "a longer lease")

    def test_expired(self) -> None:
        """A node whose line is silent stops in time, another one takes its slot, and with the next session it is another member by itself."""
        wire = self.wire()
        node, other = self.node(hosts=f"127.0.0.1:{wire.port}"), self.node()
        self.wait(node.membership.declare(True, 1))
        former, first = node.membership.key, self.claim(node, 8)
        told: list[int | None] = []
        node.membership.listen(lambda: told.append(node.membership.epoch_of(8)))
        wire.swallow()
        second = self.taken(other, 8, node)
        self.assertGreater(second, first)
        self.assertIsNone(told[-1])
        wire.heal()
        self.until(lambda: node.trouble() is None and node.membership.key != former, "the next session")
        self.sees(node, 8, Claim(other.membership.key, second))
        self.until(lambda: node.membership.key in self.keys(other) and former not in self.keys(other), "the new member")
        self.assertTrue(other.membership.members()[node.membership.key].eligible)
        with self.assertRaises(InUse):
            self.claim(node, 8)

    def taken(self, other: ZooKeeperRegistry, slot: int, holder: ZooKeeperRegistry) -> int:
        """Claim it until that goes; the holder's claim never stands beside it."""
        while True:
            try:
                epoch = self.claim(other, slot)
            except (InUse, RegistryUnavailable):  # it stood, or it went between the claim and the look at whose it is
                self.pause(0.02)
                continue
            self.assertIsNone(holder.membership.epoch_of(slot))
            return epoch

    def test_the_session_outlives_the_lease(self) -> None:
        """ZooKeeper is away until the lease has ended, and comes back before the session has: same member, same claim, same epoch."""
        node = self.node()
        key, epoch = node.membership.key, self.claim(node, 4)
        told: list[bool] = []
        node.membership.listen(lambda: told.append(node.membership.epoch_of(4) is not None))
        self.ensemble.kill(1)
        self.until(lambda: told and not told[-1], "the end of the lease")
        self.ensemble.restart(1)  # sessions begin anew there, with their whole time
        self.until(lambda: node.trouble() is None, "the connection")
        self.assertEqual((node.membership.key, node.membership.epoch_of(4)), (key, epoch))
        self.assertTrue(told[-1])


class Jumping:
    """A clock that a test sets forward, as a stopped process finds it."""

    def __init__(self, clock: Any) -> None:
        self._clock, self.ahead_ms = clock, 0

    def elapsed_ms(self) -> int:
        return self._clock.elapsed_ms() + self.ahead_ms

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)
