"""The promises of delivery through several nodes, another one for every single request, through everything that befalls them."""

import asyncio
from collections.abc import Callable

from psubd.testing.cluster import Node
from psubd.testing.daemon import PATIENCE_S
from psubd.testing.lease_log import Log
from psubd.testing.nodes_traffic import NodesTraffic
from tests.integration.cluster.case import HASTY, LONG, TrafficCase, end_nodes, owners
from tests.integration.process.test_delivery import UNHURRIED

MESSAGES = 20_000 if LONG else 1_000
SOME = 4_000 if LONG else 400
PATIENT = UNHURRIED if LONG else tuple(habit._replace(timeout=habit.timeout + 2000, holds=0.1, forgets=0.002) for habit in HASTY)
"""Leases that outlast a restart."""


def tearDownModule() -> None:
    end_nodes()


async def lost(traffic: NodesTraffic, node: Node) -> None:
    """Another node takes the group over from this one, and serves it for a moment."""
    await traffic.taken_over(traffic.tenant.id, node.id)
    await asyncio.sleep(0.5)


async def until(holds: Callable[[], bool], otherwise: str) -> None:
    ends = asyncio.get_running_loop().time() + PATIENCE_S
    while not holds():
        assert asyncio.get_running_loop().time() < ends, otherwise
        await asyncio.sleep(0.05)


def refused(traffic: NodesTraffic) -> bool:
    """Whether somebody read of a group while nobody could tell whose it is."""
    return any(b"ownership_in_doubt" in answer.body for answer in traffic.ring.unserved)


def acked_after_move(log: Log) -> int:
    """How many leases were read before a handover, and acked after it."""
    read = {made.token: made.at for made in log.delivered if made.token is not None}
    acked = [(read[word.token], word.asked) for word in log.told if word.verb == "ack" and word.outcome == "took" and word.token in read]
    return sum(any(got < change.up < said for change in log.downs) for got, said in acked)


class UntroubledTests(TrafficCase):
    """Nobody loses what he serves, and no request is refused: with sessions that outlast the pauses of a machine that has much else to do."""

    session_ms = 15_000

    def test_plain(self) -> None:
        """Nothing happens: every message is done, each ack through whichever node, and no request is refused."""

        async def nothing(traffic: NodesTraffic) -> None:
            pass

        traffic = self.story(nothing, MESSAGES, 100 if LONG else 4, 1)
        self.assertEqual(traffic.ring.unserved, [])
        self.assertTrue(all(len(traffic.claims.turns(group)) == 1 for group in traffic.groups), "a slot moved for no reason")

    def test_terminate(self) -> None:
        """SIGTERM of the node that serves the group, and a third one joining, with leases out: no request that was accepted is refused or cut off, no
        lease is lost, nothing that is leased is held twice."""

        async def terminated(traffic: NodesTraffic) -> None:
            for _ in range(5 if LONG else 1):
                node = await traffic.owner()
                await traffic.terminate(node)
                await asyncio.sleep(0.5)
                await traffic.start(node)
                await traffic.came_home(traffic.tenant.id, node.id)
                await asyncio.sleep(0.5)

        traffic = self.story(terminated, SOME, 40 if LONG else 4, 3, PATIENT)
        self.assertEqual(traffic.ring.unserved, [])
        changes = [change for log in traffic.logs.values() for change in log.downs]
        self.assertGreaterEqual(len(changes), 2)
        self.assertFalse([change for change in changes if change.killed])
        moved = sum(acked_after_move(log) for log in traffic.logs.values())
        print(f"  {moved} leases were acked on another node than the one that had granted them")
        self.assertTrue(moved, "the story was too tame")

    def test_wall_clock(self) -> None:
        """The wall clock of the group's node jumps an hour ahead, and two back: nobody notices."""

        async def set_clock(traffic: NodesTraffic) -> None:
            node = await traffic.owner()
            try:
                for ahead_ms in (3_600_000, -3_600_000, 0):
                    node.set_clock(ahead_ms)
                    await asyncio.sleep(3 if LONG else 1.2)
            finally:
                node.set_clock(0)

        traffic = self.story(set_clock, SOME, 10 if LONG else 3, 8)
        self.assertEqual(traffic.ring.unserved, [])
        self.assertEqual([owners(traffic.claims.turns(group))[1:] for group in traffic.groups], [[], []])


class TroubleTests(TrafficCase):
    def test_kill(self) -> None:
        """kill -9 of the node that serves the group, and its restart: another one takes over once the session has ended, what was done comes again
        only if it was acked within the last commit interval, and the slot goes home by a handover."""

        async def killed(traffic: NodesTraffic) -> None:
            for _ in range(5 if LONG else 1):
                node = await traffic.owner()
                at = traffic.kill(node)
                taken = await traffic.taken_over(traffic.tenant.id, node.id)
                print(f"\ntaken over {taken - at:.0f} ms after kill -9, session {self.nodes.session_ms} ms")
                await traffic.start(node)
                await traffic.came_home(traffic.tenant.id, node.id)
                await asyncio.sleep(1)

        traffic = self.story(killed, SOME, 60 if LONG else 4, 2)
        changes = next(iter(traffic.logs.values())).downs
        self.assertEqual([change.killed for change in changes][:2], [True, False])

    def test_stop(self) -> None:
        """SIGSTOP of the node that serves the group for longer than its session, then SIGCONT: another one takes over, and the former one says
        nothing more of the group before it has taken the slot back."""

        async def stopped(traffic: NodesTraffic) -> None:
            for _ in range(5 if LONG else 1):
                node = await traffic.owner()

                await traffic.stop_for(node, lost(traffic, node))
                await traffic.came_home(traffic.tenant.id, node.id)
                await asyncio.sleep(0.5)

        traffic = self.story(stopped, SOME, 60 if LONG else 4, 4)
        self.assertIn(True, [change.killed for change in next(iter(traffic.logs.values())).downs])

    def test_ensemble_away(self) -> None:
        """ZooKeeper stops for longer than the session: publishing goes on; group reads do until the lease ends, and are refused then, 503
        ownership_in_doubt; all goes on by itself afterwards."""

        async def away(traffic: NodesTraffic) -> None:
            async def meanwhile() -> None:
                await asyncio.sleep(self.nodes.session_ms / 1000)
                await until(lambda: refused(traffic), "no read was refused")
                before = sum(map(len, traffic.published.values()))
                await asyncio.sleep(60 if LONG else 0)
                await until(lambda: sum(map(len, traffic.published.values())) > before, "nothing was published")

            await traffic.without_ensemble(meanwhile())
            await asyncio.sleep(1)

        traffic = self.story(away, SOME, 70 if LONG else 4, 5)
        self.assertFalse([answer for answer in traffic.ring.unserved if answer.target.startswith("/v1/pub")])

    def test_cut(self) -> None:
        """The line between the group's node and ZooKeeper is reset and stays away: another node takes over."""
        self.cut(silently=False)

    def test_cut_silently(self) -> None:
        """The same with a line that swallows all that is sent."""
        self.cut(silently=True)

    def cut(self, silently: bool) -> None:
        async def story(traffic: NodesTraffic) -> None:
            for _ in range(3 if LONG else 1):
                node = await traffic.owner()

                await traffic.cut_for(node, lost(traffic, node), silently)
                await traffic.came_home(traffic.tenant.id, node.id)
                await asyncio.sleep(0.5)

        traffic = self.story(story, SOME, 40 if LONG else 4, 6 + silently)
        self.assertFalse([answer for answer in traffic.ring.unserved if answer.target.startswith("/v1/pub")])
