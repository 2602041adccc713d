"""Rough traffic on one daemon: publishers, subscribers with different habits, and an end of the daemon now and then.

All clients live in one asyncio loop, so that the times in their logs are of one clock and nothing is asked between a kill and the end of the
process. What they see goes into a `Log` a group and topic, for `lease_checker`.
"""

import asyncio
import signal
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import urlencode

from psubd.testing.daemon import Daemon, Reply, Tenant
from psubd.testing.lease_log import Down, Letter, Place, Published
from psubd.testing.lines import Broke, Door, Line
from psubd.testing.readers import HABITS, NOT_NOW, PAUSE_S, Audit, Habit, Load, Reader, Stage, name_of, now

DRAIN_S = 90.0
"""How long it may take until all is done once everybody behaves."""


class Ends(NamedTuple):
    """How often the daemon ends, by what, and how long it serves before each."""

    times: int
    by: Literal["kill", "stop"] = "kill"
    after_s: tuple[float, float] = (1.1, 1.9)


class Traffic:
    """One run.

    :param beside: a group that reads the same in auto mode.

    :ivar lag: of each group at the end.
    """

    def __init__(
        self,
        daemon: Daemon,
        tenant: Tenant,
        loads: Sequence[Load],
        ends: Ends,
        seed: int,
        beside: str = "audit",
        habits: Sequence[Habit] = HABITS,
    ) -> None:
        self.daemon, self.tenant, self.loads, self.ends = daemon, tenant, loads, ends
        self.beside, self.habits = beside, habits
        self.stage = Stage(Door(daemon), tenant, seed)
        self.logs, self.random = self.stage.logs, self.stage.random
        self.published: dict[str, list[Published]] = defaultdict(list)
        self.downs: list[Down] = []
        self.lag: dict[str, int] = {}

    def run(self) -> Self:
        """All of it, from a thread that has no event loop."""
        asyncio.run(self._run())
        for (_, topic), log in self.logs.items():
            log.published, log.downs = self.published[topic], self.downs
        return self

    async def _run(self) -> None:
        readers = [Reader(self.stage, load, habit, number).run() for load in self.loads for number, habit in enumerate(self.habits)]
        audits = [Audit(self.stage, self.loads, self.beside, 100 + number).run() for number in range(2)]
        reading = [asyncio.create_task(running) for running in (*readers, *audits)]
        publishing = [self._publish(load, number) for load in self.loads for number in range(2)]
        try:
            await self._watched(reading, asyncio.gather(self._end_again_and_again(), *publishing))
            self.stage.calm = True
            await self._watched(reading, self._drained())
            await self._letters()
        finally:
            self.stage.over = True
            await asyncio.gather(*reading, return_exceptions=True)

    async def _watched(self, reading: list[asyncio.Task[None]], work: Awaitable[Any]) -> None:
        """``work``, unless a reader fails before."""
        whole = asyncio.ensure_future(work)
        await asyncio.wait([whole, *reading], return_when=asyncio.FIRST_COMPLETED)
        for task in reading:
            if task.done():
                whole.cancel()
                await task
        await whole

    # --- publishing

    async def _publish(self, load: Load, number: int) -> None:
        """Until so many were answered; what was not is not sent again: what comes next has another name."""
        line, n, answered = self.stage.door.line(self.stage.tenant.publish), 0, 0
        mine = load.messages // 2
        pause = self.ends.times * sum(self.ends.after_s) / 2 / max(mine / 4, 1)  # a turn publishes four on average
        while not self._published_enough(answered, mine) and not self.stage.strange:
            count = self.random.choice((1, 1, 1, 1, 1, 1, 1, 1, 1, 31))
            records = [self._record(load, f"{load.topic}-{number}-{n + step}") for step in range(count)]
            try:
                places = await (self._one(line, load, records[0]) if count == 1 else self._batch(line, load, records))
            except Broke as broke:
                places = [None] * count if broke.sent else []
            self.published[load.topic] += [Published(name_of(value), key, place) for (key, value), place in zip(records, places, strict=False)]
            n += count
            answered += sum(place is not None for place in places)
            await asyncio.sleep(self.random.random() * 2 * pause * self._share(count) if places and places[0] else PAUSE_S)

    def _share(self, count: int) -> float:
        """How long a pause is after a turn of so many messages, of the usual one."""
        return 1

    def _published_enough(self, answered: int, wanted: int) -> bool:
        return answered >= wanted

    def _record(self, load: Load, name: str) -> tuple[str | None, str]:
        chance = self.random.random
        name += "-poison" if chance() < load.poison else ""
        key = None if chance() < 0.02 else f"k{self.random.randrange(load.keys)}"
        return key, f"{name}|".ljust(self.random.choice((40, 40, 40, 400, 400, 4000, 20_000)), ".")

    async def _one(self, line: Line, load: Load, record: tuple[str | None, str]) -> list[Place | None]:
        key, value = record
        reply = await line.ask("POST", f"/v1/pub/{load.topic}", value.encode(), {} if key is None else {"key": key})
        return self._places(reply, 1, [reply.json])

    async def _batch(self, line: Line, load: Load, records: list[tuple[str | None, str]]) -> list[Place | None]:
        reply = await line.send(f"/v1/pub/{load.topic}/batch", {"records": [{"key": key, "value": value} for key, value in records]})
        return self._places(reply, len(records), reply.json.get("results") or [{}] * len(records))

    def _places(self, reply: Reply, count: int, results: list[dict[str, Any]]) -> list[Place | None]:
        if reply.status not in (200, 207, *NOT_NOW):
            self.stage.strange.append(reply)
        if reply.status not in (200, 207):
            return [None] * count
        return [(result["partition"], result["offset"]) if "offset" in result else None for result in results]

    # --- the daemon's ends

    async def _end_again_and_again(self) -> None:
        for _ in range(self.ends.times):
            await asyncio.sleep(self.random.uniform(*self.ends.after_s))
            if self.stage.strange:
                return
            await (self._kill() if self.ends.by == "kill" else self._stop())
        await asyncio.sleep(self.ends.after_s[0])

    async def _kill(self) -> None:
        """Nothing is asked until the process is gone: this loop waits for that."""
        at = now()
        self.daemon.signal(signal.SIGKILL)
        self.daemon.wait()
        await self._start(at, True)

    async def _stop(self) -> None:
        at = now()
        self.daemon.signal(signal.SIGTERM)
        status = await asyncio.to_thread(self.daemon.wait)
        if status != -signal.SIGTERM:
            self.stage.strange.append(f"SIGTERM ended it with {status}")
        await self._start(at, False)

    async def _start(self, at: float, killed: bool) -> None:
        await asyncio.to_thread(self.daemon.start)
        self.downs.append(Down(at, now(), killed))

    # --- the end

    async def _drained(self) -> None:
        """Until nothing is left to do, for anybody."""
        line, until = self.stage.door.line(self.tenant.subscribe), now() + DRAIN_S * 1000
        while True:
            for group in (self.tenant.id, f"{self.tenant.id}.{self.beside}"):
                reply = await line.ask("GET", f"/v1/groups/{group}")
                assert reply.status in (200, *NOT_NOW), reply
                if reply.status == 200:
                    read = [item for item in reply.json["items"] if item["topic"] in {load.topic for load in self.loads}]
                    self.lag[group] = sum(item["lag"] for item in read)
            if not any(self.lag.values()) or now() > until or self.stage.strange:
                return
            await asyncio.sleep(0.1)

    async def _letters(self) -> None:
        line = self.stage.door.line(self.tenant.subscribe)
        for load in self.loads:
            if load.dead_letter is not None:
                place = "earliest"
                while place:
                    query = urlencode({"topic": load.dead_letter, "offset": place, "batchSize": 1000, "timeout": 0})
                    reply = await line.ask("GET", f"/v1/sub?{query}")
                    assert reply.status in (200, 204), reply
                    messages = reply.json["messages"] if reply.status == 200 else []
                    self.logs[self.tenant.id, load.topic].letters += [letter(message) for message in messages]
                    place = reply.json["next"] if messages else ""


def letter(message: dict[str, Any]) -> Letter:
    """A message of a dead-letter topic."""
    told = message["headers"]
    origin = int(told["psubd.origin-partition"]), int(told["psubd.origin-offset"])
    return Letter(name_of(message["value"]), origin, int(told["psubd.attempts"]), told["psubd.reason"])
