"""Subscribers that leave nothing out: they ack, nack, extend, forget, come too late, drop connections, and write down what they saw."""

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode

from psubd.testing.daemon import Reply, Tenant
from psubd.testing.lease_log import Broken, Delivered, Log, Told
from psubd.testing.lines import Broke, Door

NOT_NOW = (503, 504)
"""Statuses that say: again, later."""
PAUSE_S = 0.03

Verb = Literal["ack", "nack", "dead", "extend"]
COUNTS: dict[Verb, str] = {"ack": "acked", "nack": "nacked", "dead": "nacked", "extend": "extended"}


def now() -> float:
    """Milliseconds of the clock that leases run on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) * 1000


def name_of(value: str) -> str:
    """The id of a message: what its value begins with."""
    return value.partition("|")[0]


class Habit(NamedTuple):
    """How a subscriber goes about it. The rates are shares of messages; of polls for ``drops``.

    :ivar lines: reads NDJSON. :ivar acks: one call a message, one a batch, or with the next read. :ivar timeout: ackTimeout, ms.
    :ivar forgets: says nothing. :ivar late: says something when the lease has lapsed. :ivar holds: acks shortly before that. :ivar extends: and acks
        after the first deadline. :ivar drops: the connection in the middle of an answer.
    """

    batch: int
    timeout: int
    lines: bool = False
    acks: Literal["one", "bulk", "next"] = "bulk"
    nacks: float = 0.02
    dead: float = 0.005
    forgets: float = 0.005
    late: float = 0.01
    holds: float = 0.01
    extends: float = 0.005
    drops: float = 0.0


HABITS = (
    Habit(1, 1000, acks="one"),
    Habit(50, 3000),
    Habit(10, 2000, lines=True),
    Habit(20, 2500, acks="next", nacks=0.05),
    Habit(50, 1000, lines=True, drops=0.25),
    Habit(30, 1200, drops=0.25, acks="next"),
    Habit(5, 1000, forgets=0.05, late=0.05),
    Habit(8, 1500, acks="one", nacks=0.15, extends=0.1, holds=0.1),
)


class Load(NamedTuple):
    """What is published to a topic. ``poison``: share of the messages that every subscriber nacks, for as long as it behaves or not."""

    topic: str
    messages: int
    keys: int
    dead_letter: str | None = None
    poison: float = 0.0


class Stage:
    """What all clients of one run share.

    :ivar logs: by (group, topic). :ivar strange: answers that nobody should get. :ivar figures: what was done, counted. :ivar calm: from now on
        everybody behaves. :ivar over: stop.
    """

    def __init__(self, door: Door, tenant: Tenant, seed: int) -> None:
        self.door, self.tenant = door, tenant
        self.random = random.Random(seed)
        self.logs: dict[tuple[str, str], Log] = defaultdict(Log)
        self.strange: list[Any] = []
        self.figures: dict[str, int] = defaultdict(int)
        self.calm = False
        self.over = False


class Reader:
    """One subscriber of one topic, in explicit mode. What it does later it does over a connection of its own."""

    def __init__(self, stage: Stage, load: Load, habit: Habit, number: int) -> None:
        self.stage, self.load, self.habit, self.number = stage, load, habit, number
        self.log = stage.logs[stage.tenant.id, load.topic]
        self.random = random.Random(stage.random.random())
        self.polls = stage.door.line(stage.tenant.subscribe)
        self.aside = stage.door.line(stage.tenant.subscribe)
        self.lock = asyncio.Lock()
        self.tokens: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        while not self.stage.over:
            messages = await self.poll()
            await self.treat(messages)
            for task in [task for task in self.tasks if task.done()]:
                self.tasks.discard(task)
                await task
            if not messages:
                await asyncio.sleep(PAUSE_S)
        await self.say("ack", self.tokens)
        await asyncio.gather(*self.tasks)

    # --- reading

    async def poll(self) -> list[Delivered]:
        """What came, whole; what was seen of an answer that was dropped is logged, and sometimes acked."""
        tokens, self.tokens = self.tokens, []
        cut = self.random.choice((0, 30, 300, 3000, 30_000)) if self.random.random() < self.habit.drops and not self.stage.calm else None
        asked = now()
        try:
            reply = await self.request(tokens, cut)
        except Broke as broke:
            if broke.sent:
                self.broke(asked, tokens)
            self.later(self.say("ack", tokens))
            return []
        if cut is not None and reply.status == 200:
            self.broke(asked, tokens)
            self.later(self.say("ack", tokens))
            self.seen_of(reply, asked)
            return []
        return self.read(reply, asked, tokens)

    async def request(self, tokens: list[str], cut: int | None) -> Reply:
        habit = self.habit
        ask: dict[str, Any] = {"batchSize": habit.batch, "timeout": self.random.choice((0, 100, 300)), "ackTimeout": habit.timeout, "ack": "explicit"}
        if tokens:
            return await self.polls.send("/v1/sub", {**ask, "topic": self.load.topic, "tokens": tokens}, cut)
        query = urlencode({**ask, "topic": self.load.topic})
        accept = "application/x-ndjson" if habit.lines else "application/json"
        return await self.polls.ask("GET", f"/v1/sub?{query}", None, {"accept": accept}, cut)

    def read(self, reply: Reply, asked: float, tokens: list[str]) -> list[Delivered]:
        at = now()
        if reply.status in NOT_NOW:
            self.broke(asked, tokens)
            self.later(self.say("ack", tokens))
            return []
        if reply.status not in (200, 204):
            self.stage.strange.append(reply)
            return []
        if tokens:
            self.note("ack", tokens, asked, at, reply.json["lost"], reply.json["acked"])
        return self.deliver(shown(reply), asked, at, True)

    def broke(self, asked: float, tokens: list[str]) -> None:
        """A poll whose answer did not come: it may have leased anything, and the acks that it carried may have taken effect."""
        at = now()
        self.log.broken.append(Broken(self.number, asked, at, self.habit.timeout))
        self.log.told += [Told("ack", token, asked, at, "unknown") for token in tokens]

    def seen_of(self, reply: Reply, asked: float) -> None:
        """An answer that was dropped: whole lines of NDJSON were read all the same."""
        at = now()
        self.stage.figures["answers dropped"] += 1
        if self.habit.lines:
            whole = [json.loads(line) for line in reply.body.split(b"\n")[:-1]]
            seen = self.deliver(whole, asked, at, False)
            self.later(self.say("ack", [made.token for made in seen if made.token and self.random.random() < 0.5]))

    def deliver(self, messages: list[dict[str, Any]], asked: float, at: float, whole: bool) -> list[Delivered]:
        made = [delivered(message, self.number, asked, at, self.habit.timeout, whole) for message in messages]
        self.log.delivered += made
        return made

    # --- what becomes of them

    async def treat(self, messages: list[Delivered]) -> None:
        if messages and self.random.random() < 0.3:
            await asyncio.sleep(self.random.random() * 0.05)
        acked = [made.token for made in messages if made.token and not await self.mishap(made, made.token)]
        if self.habit.acks == "next":
            self.tokens += acked
        elif self.habit.acks == "bulk":
            await self.say("ack", acked)
        else:
            for token in acked:
                await self.say("ack", [token])

    async def mishap(self, made: Delivered, token: str) -> bool:
        """Whether anything else becomes of it than an ack in time."""
        habit, chance = self.habit, self.random.random()
        if "-poison" in made.id:
            await self.say("nack", [token])
            return True
        dead = habit.dead if self.load.dead_letter else 0
        for share, what in ((habit.nacks, self.nack), (dead, self.bury), (habit.forgets, self.forget), (habit.extends, self.extend)):
            if not self.stage.calm and chance < share:
                await what(made, token)
                return True
            chance -= share
        if not self.stage.calm and chance < habit.late:
            self.later(self.too_late(made, token))
            return True
        if not self.stage.calm and chance < habit.late + habit.holds:
            self.later(self.say("ack", [token], at=made.asked + made.timeout * self.random.uniform(0.5, 0.9)))
            return True
        return False

    async def nack(self, made: Delivered, token: str) -> None:
        await self.say("nack", [token], self.random.choice((0, 0, 100, 400)))

    async def bury(self, made: Delivered, token: str) -> None:
        await self.say("dead", [token])

    async def forget(self, made: Delivered, token: str) -> None:
        self.stage.figures["forgotten"] += 1

    async def extend(self, made: Delivered, token: str) -> None:
        self.later(self.extended(made, token))

    async def extended(self, made: Delivered, token: str) -> None:
        await self.say("extend", [token], int(made.timeout), at=made.asked + made.timeout * 0.6)
        await self.say("ack", [token], at=made.asked + made.timeout * self.random.uniform(1.1, 1.4))

    async def too_late(self, made: Delivered, token: str) -> None:
        """Just after the lapse: an ack may still count, nothing else does."""
        verb: Verb = self.random.choice(("ack", "ack", "nack", "extend"))
        await self.say(verb, [token], int(made.timeout) if verb == "extend" else 0, at=made.at + made.timeout + 5 + self.random.random() * 50)

    def later(self, what: Coroutine[Any, Any, None]) -> None:
        self.tasks.add(asyncio.create_task(what))

    # --- saying it

    async def say(self, verb: Verb, tokens: list[str], ms: int = 0, at: float = 0) -> None:
        """Once; an ack again and again until it is answered. Over the connection aside: the one for polls waits, or is dropped."""
        await asyncio.sleep(max(0.0, at - now()) / 1000)
        while tokens:
            async with self.lock:
                unknown = await self.say_once(verb, tokens, ms)
            if not unknown or verb != "ack" or self.stage.over:
                return
            await asyncio.sleep(PAUSE_S)

    async def say_once(self, verb: Verb, tokens: list[str], ms: int) -> bool:
        """Whether it was not answered."""
        words: dict[str, dict[str, Any]] = {"nack": {"delay": ms}, "dead": {"dead": True}, "extend": {"ackTimeout": ms}}
        asked = now()
        try:
            reply = await self.aside.send(f"/v1/{verb.replace('dead', 'nack')}", {"tokens": tokens, **words.get(verb, {})})
        except Broke as broke:
            if broke.sent:
                self.log.told += [Told(verb, token, asked, now(), "unknown", ms) for token in tokens]
            return True
        if reply.status in NOT_NOW:
            self.log.told += [Told(verb, token, asked, now(), "unknown", ms) for token in tokens]
            return True
        if reply.status in (200, 409):
            self.note(verb, tokens, asked, now(), reply.json.get("lost", []), reply.json.get(COUNTS[verb]), ms)
        else:
            self.stage.strange.append(reply)
        return False

    def note(self, verb: Verb, tokens: list[str], asked: float, at: float, lost: list[str], count: Any, ms: int = 0) -> None:
        if count != len(tokens) - len(lost) or not set(lost) <= set(tokens):
            self.stage.strange.append((verb, tokens, lost, count))
        gone = set(lost)
        self.log.told += [Told(verb, token, asked, at, "lost" if token in gone else "took", ms) for token in tokens]
        self.stage.figures[f"{verb} lost"] += len(lost)
        self.stage.figures[f"{verb} took"] += len(tokens) - len(lost)


class Audit:
    """One subscriber of a group beside: auto mode, all topics, well behaved."""

    def __init__(self, stage: Stage, loads: Sequence[Load], group: str, number: int) -> None:
        self.stage, self.loads, self.group, self.number = stage, loads, group, number
        self.line = stage.door.line(stage.tenant.subscribe)

    async def run(self) -> None:
        topics = [("topic", load.topic) for load in self.loads]
        query = urlencode([*topics, ("group", self.group), ("batchSize", 40), ("timeout", 300), ("ack", "auto")])
        group = f"{self.stage.tenant.id}.{self.group}"
        logs = {load.topic: self.stage.logs[group, load.topic] for load in self.loads}
        while not self.stage.over:
            asked = now()
            try:
                reply = await self.line.ask("GET", f"/v1/sub?{query}")
            except Broke as broke:
                self.broke(logs.values() if broke.sent else (), asked)
                await asyncio.sleep(PAUSE_S)
                continue
            if reply.status in NOT_NOW:
                self.broke(logs.values(), asked)
            if reply.status not in (200, 204, *NOT_NOW):
                self.stage.strange.append(reply)
            for message in shown(reply) if reply.status == 200 else ():
                logs[message["topic"]].delivered.append(delivered(message, self.number, asked, now(), 0, True))
            if reply.status != 200:
                await asyncio.sleep(PAUSE_S)

    def broke(self, logs: Iterable[Log], asked: float) -> None:
        for log in logs:
            log.broken.append(Broken(self.number, asked, now(), self.stage.door.back_ms))


def shown(reply: Reply) -> list[dict[str, Any]]:
    """The messages of an answer of 200 or 204."""
    if reply.status == 204:
        return []
    if reply.headers["content-type"].startswith("application/x-ndjson"):
        return [json.loads(line) for line in reply.body.splitlines()]
    return list(reply.json["messages"])


def delivered(message: Mapping[str, Any], client: int, asked: float, at: float, timeout: float, whole: bool) -> Delivered:
    place = message["partition"], message["offset"]
    name = name_of(message["value"])
    return Delivered(client, asked, at, name, message["key"], place, message["attempt"], message.get("ack"), message.get("epoch"), timeout, whole)
