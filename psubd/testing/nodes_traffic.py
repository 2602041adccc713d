"""The traffic of `psubd.testing.traffic` on several nodes at once, and what befalls these meanwhile."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence

from psubd.slots import id_of
from psubd.testing.claims import LOOK_S, Claims, Trouble, changes, unseen
from psubd.testing.cluster import DRAIN_DELAY_MS, SPAWNER, Node, Nodes
from psubd.testing.daemon import PATIENCE_S, Tenant
from psubd.testing.readers import Habit, Load, now
from psubd.testing.ring import Ring
from psubd.testing.traffic import Ends, Traffic

AFTER_MS = 6_000
"""How much later than a session timeout a node that was stopped or cut off may lose its slots for that reason: ZooKeeper rounds up, and it counts
anew from the last word that it heard."""

NOTICE_S = DRAIN_DELAY_MS / 5000
"""How long a load balancer goes on sending requests to a node that is stopping."""


class NodesTraffic(Traffic):
    """One run.

    :param seconds: how long publishing takes, about. It goes on as long as ``story`` does.
    :param story: what happens meanwhile: a coroutine function that is called with this.

    :ivar troubles: what was done to nodes.
    """

    def __init__(
        self,
        nodes: Nodes,
        tenant: Tenant,
        loads: Sequence[Load],
        story: "Callable[[NodesTraffic], Awaitable[None]]",
        seconds: float,
        seed: int,
        habits: Sequence[Habit],
    ) -> None:
        super().__init__(nodes.all[0], tenant, loads, Ends(1, after_s=(seconds, seconds)), seed, habits=habits)
        self.nodes, self.story = nodes, story
        self.ring = self.stage.door = Ring(nodes)
        self.troubles: list[Trouble] = []
        self._told = False
        self.groups = (tenant.id, f"{tenant.id}.{self.beside}")
        self.claims = Claims(nodes.ensemble.hosts, nodes.chroot, self.groups)

    def run(self) -> "NodesTraffic":
        """All of it, from a thread that has no event loop."""
        with self.claims:
            asyncio.run(self._run())
            self.claims.catch_up()
        for group in self.groups:
            missed = unseen(self.claims.turns(group), (log for (of, _), log in self.logs.items() if of == group))
            assert not missed, f"claims on {group} came and went while nobody could look: {missed}, beside {self.claims.turns(group)}"
        for (group, topic), log in self.logs.items():
            log.published = self.published[topic]
            log.downs = changes(self.claims.turns(group), self.troubles)
            log.edges = [(trouble.at, trouble.over) for trouble in self.troubles]
        return self

    async def _end_again_and_again(self) -> None:
        await asyncio.sleep(1)
        try:
            await self.story(self)
        finally:
            self._told = True

    def _share(self, count: int) -> float:
        """So that publishing takes as long as it was to take, whatever sizes the turns have."""
        return count / 4

    def _published_enough(self, answered: int, wanted: int) -> bool:
        return self._told and super()._published_enough(answered, wanted)

    # --- what may happen

    async def owner(self) -> Node:
        """The node that serves the tenant's own group now, or soon."""
        until = now() + PATIENCE_S * 1000
        while now() < until:
            name = await asyncio.to_thread(self.claims.owner, self.tenant.id)
            for node in self.nodes.running:
                if node.id == name:
                    return node
            await asyncio.sleep(LOOK_S)
        raise AssertionError(f"nobody serves {self.tenant.id}")

    def kill(self, node: Node) -> float:
        """kill -9. Nothing is asked until the process is gone: the loop waits for that. When it was."""
        at = now()
        node.signal(signal.SIGKILL)
        node.wait()
        gone = now()
        self.troubles.append(Trouble(node.id, at, gone, gone, gone))
        return at

    async def terminate(self, node: Node) -> None:
        """SIGTERM, and its end. The load balancer finds out a moment later: it asks for ``/ready``."""
        node.signal(signal.SIGTERM)
        await asyncio.sleep(NOTICE_S)
        node.out = True
        status = await asyncio.to_thread(node.wait)
        if status != -signal.SIGTERM:
            self.stage.strange.append(f"SIGTERM ended {node.name} with {status}")

    async def start(self, node: Node) -> None:
        """Start it, and wait until it takes traffic: until then the load balancer, which asks for ``/ready``, leaves it out."""
        node.out = True
        await asyncio.to_thread(node.start)
        await asyncio.to_thread(node.wait_for, node.ready, "it is not ready")
        node.out = False

    async def stop_for(self, node: Node, meanwhile: Awaitable[None]) -> None:
        """SIGSTOP, then ``meanwhile``, then SIGCONT. The load balancer leaves it out as long."""
        at = now()
        node.freeze()
        gone = now()
        await self._befalls([node], at, gone, meanwhile)

    async def cut_for(self, node: Node, meanwhile: Awaitable[None], silently: bool) -> None:
        """Between it and ZooKeeper nothing passes, during ``meanwhile``."""
        at = now()
        if silently:
            node.wire.swallow()
        else:
            node.wire.cut()
        await self._befalls([node], at, None, meanwhile)

    async def without_ensemble(self, meanwhile: Awaitable[None]) -> None:
        """ZooKeeper is not there during ``meanwhile``; it forgets nothing."""
        at = now()
        await asyncio.to_thread(self.nodes.ensemble.kill, 1)
        await self._befalls(self.nodes.running, at, None, meanwhile)

    async def _befalls(self, nodes: Sequence[Node], at: float, gone: float | None, meanwhile: Awaitable[None]) -> None:
        try:
            await meanwhile
        finally:
            for node in nodes:
                node.thaw()
                node.wire.heal()
            if not self.nodes.ensemble.servers[1].running:
                await asyncio.wrap_future(SPAWNER.submit(self.nodes.ensemble.restart, 1))
            over = now()
            for node in nodes:
                self.troubles.append(Trouble(node.id, at, gone, over, over + self.nodes.session_ms + AFTER_MS))

    async def taken_over(self, group: str, former: str) -> float:
        """Wait until another node than ``former`` (a node id) has the group's slot. When that was seen."""
        return await self._owned(group, lambda owner: owner != former, f"nobody took {group} over from {former}")

    async def came_home(self, group: str, node: str) -> float:
        """Wait until the node (an id) has the group's slot. When that was seen."""
        return await self._owned(group, lambda owner: owner == node, f"{group} did not come to {node}")

    async def _owned(self, group: str, holds: Callable[[str], bool], otherwise: str) -> float:
        until = now() + PATIENCE_S * 1000
        while now() < until:
            turns = self.claims.turns(group)
            if turns and holds(id_of(turns[-1].key)):
                return turns[-1].first
            await asyncio.sleep(LOOK_S)
        raise AssertionError(f"{otherwise}: {self.claims.turns(group)}, looked at until {now():.0f}; the last trouble: {self.claims.trouble}")
