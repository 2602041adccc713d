"""What is measured: each row with the ways to drive it, its floor, and its target."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bench import bodies, load, polls, reader
from bench.house import House, Served
from bench.load import Request
from bench.proxies import TOPIC, Peer
from bench.samples import Round, Sample, ratio
from bench.usage import family, usage

Measure = Callable[[House, float], Sample]
"""Measures one part of a row for about so many seconds."""


class Target(NamedTuple):
    """:ivar what: what ``value`` makes of one round. :ivar least: whether ``bound`` is the least or the most that meets the target; None: there is
    none, the figure is told."""

    what: str
    value: Callable[[Round], float | None]
    bound: float | None = None
    least: bool = True

    def met(self, value: float) -> bool | None:
        if self.bound is None:
            return None
        return value >= self.bound if self.least else value <= self.bound


class Row(NamedTuple):
    """One line of the table.

    :ivar floor: what the part ``floor`` is, in words. :ivar parts: measured one after another in each round, psubd first in one and last in the next.
    :ivar unit: what is counted. :ivar note: said below the table. :ivar warm: whether each part runs shortly before the rounds.
    """

    name: str
    what: str
    floor: str
    parts: Mapping[str, Measure]
    targets: Sequence[Target] = ()
    unit: str = "requests"
    note: str = ""
    warm: bool = True


def rates(taken: Round) -> float | None:
    return ratio(taken["psubd"].rate, taken["floor"].rate)


def tails(taken: Round) -> float | None:
    return ratio(taken["psubd"].p99_us, taken["floor"].p99_us)


def lone(taken: Round) -> float | None:
    """One connection: of the storage's own round trip and 2.5 times the empty floor's median."""
    driver, floor = taken["driver"].p50_us, taken["floor"].p50_us
    return None if driver is None or floor is None else ratio(taken["psubd"].p50_us, driver + 2.5 * floor)


def at_least(bound: float | None) -> Target:
    return Target("rate, of the floor's", rates, bound)


LONE = Target("p50, of the driver's round trip + 2.5 x the floor's p50", lone, 1.0, least=False)

DRIVERS = {"kafka": "kafka-python", "rdkafka": "confluent", "sqlite": "sqlite"}
"""What is below each storage."""

BROKERS = ("kafka", "rdkafka")
"""The storages on Kafka."""


# --- publish, one message a request ---------------------------------------------------------------------------------------------


def fixed(served: Served, size: int = 100) -> str:
    """As most clients: keep-alive connections that send the same head again and again."""
    return load.same(served.publishing(served.topic("bench"), size, key="k1"))


def differing(served: Served, size: int = 100) -> str:
    """Another key and another traceparent each time, as clients send them that trace."""
    return load.differing(served.publishing(served.topic("bench"), size))


def publish_targets(storage: str, connections: int) -> list[Target]:
    if connections == 1:
        return [LONE]
    if connections == 32 and storage != "sqlite":
        return [at_least(1.0), Target("p99, of the floor's", tails, 1.5, least=False)]
    if connections == 128:
        return [at_least({"sqlite": 0.5, "kafka": 1.3, "rdkafka": 0.75}[storage])]
    return [at_least(None)]


def floor_of(storage: str, connections: int) -> str:
    return "none" if storage not in BROKERS or connections == 1 else DRIVERS[storage]


def publish(
    storage: str, connections: int, script: Callable[[Served, int], str] = fixed, kind: str = "", size: int = 100, peers: Sequence[Peer] = ()
) -> Row:
    server = floor_of(storage, connections)

    def psubd(house: House, seconds: float) -> Sample:
        served = house.psubd(storage)
        return served.load(script(served, size), connections, seconds)

    def floor(house: House, seconds: float) -> Sample:
        served = house.psubd(storage)
        return house.floor(server).load(script(served, size), connections, seconds)

    parts: dict[str, Measure] = {"psubd": psubd, "floor": floor}
    if connections == 1:
        parts["driver"] = lambda house, seconds: house.driver("roundtrip", DRIVERS[storage], seconds)
    for peer in peers:
        parts[str(peer)] = beside(peer, storage, connections, peer.dialect.publish(TOPIC, size, "k1"))
    traits = [f"{size:,} bytes"] if size != 100 else []
    traits += ["other keys and traceparents each time"] if kind else []
    return Row(
        f"publish-{storage}-{connections}" + (f"-{size}b" if size != 100 else "") + kind,
        ", ".join(["publish", f"{storage}:", f"{connections} connection{'s' * (connections > 1)}", *traits]),
        "the empty floor" if server == "none" else f"the {server} floor",
        parts,
        publish_targets(storage, connections) if size == 100 else [at_least(None)],
    )


def beside(peer: Peer, storage: str, connections: int, request: Request) -> Measure:
    """The same from another proxy."""

    def part(house: House, seconds: float) -> Sample:
        house.psubd(storage).topic(TOPIC, shared=True)
        return load.run(load.same(request), peer.port, connections, seconds, 0, peer.host)

    return part


def publish_rows(storage: str, peers: Sequence[Peer]) -> list[Row]:
    found = [publish(storage, connections, peers=peers) for connections in (1, 32, 128)]
    found.append(publish(storage, 128, differing, "-differing")._replace(targets=[at_least(None)]))
    if storage == "sqlite":
        found += [publish(storage, connections) for connections in (8, 512)]
        found += [publish(storage, 32, size=size) for size in (1_000, 10_000, 100_000)]
    return found


# --- batches --------------------------------------------------------------------------------------------------------------------

RECORDS, BATCHES = 100, 16
"""Records in a batch, and batches at a time."""


def batch(storage: str, media: str, peers: Sequence[Peer] = ()) -> Row:
    name = media_name(media)

    def psubd(house: House, seconds: float) -> Sample:
        served = house.psubd(storage)
        headers = {**served.tenant.publish, "acks": "all", "content-type": media}
        request = Request("POST", f"/v1/pub/{served.topic('bench')}/batch", headers, bodies.batch(media, RECORDS))
        served.ask(request)
        return served.load(load.same(request), BATCHES, seconds).times(RECORDS)

    def floor(house: House, seconds: float) -> Sample:
        house.psubd(storage)
        return house.driver("batches", DRIVERS[storage], seconds)

    parts: dict[str, Measure] = {"psubd": psubd, "floor": floor}
    for peer in peers:
        if peer.dialect.batch is not None and media == bodies.JSON:
            alone = beside(peer, storage, BATCHES, peer.dialect.batch(TOPIC, RECORDS))
            parts[str(peer)] = lambda house, seconds, alone=alone: alone(house, seconds).times(RECORDS)  # type: ignore[misc]
    return Row(
        f"batch-{storage}-{name}",
        f"batches of {RECORDS} x 100 bytes as {name}, {storage}:, {BATCHES} connections",
        f"{DRIVERS[storage]} alone, as many batches at a time",
        parts,
        [at_least(0.6)],
        "records",
    )


def media_name(media: str) -> str:
    return "frames" if media == bodies.FRAMES else "json"


# --- subscribe ------------------------------------------------------------------------------------------------------------------

BACKLOG = 300_000
"""Messages of 100 bytes that lie in the topic; each round reads from the first of them."""

DEEP_BACKLOG = 1_500_000
"""The same on Kafka, whose drivers read some of these faster than they could be put there by psubd."""


def backlog(served: Served) -> str:
    """The topic to read from."""
    return served.filled("reads", DEEP_BACKLOG if served.name in BROKERS else BACKLOG)


def single(storage: str, peers: Sequence[Peer] = ()) -> Row:
    def request(served: Served) -> Request:
        return Request("GET", f"/v1/sub?topic={backlog(served)}&ack=auto&timeout=5000", served.tenant.subscribe)

    def psubd(house: House, seconds: float) -> Sample:
        served = house.psubd(storage)
        read = request(served)
        served.rewind(served.topic("reads"))
        served.ask(read)
        return served.load(load.same(read), 64, seconds)

    def floor(house: House, seconds: float) -> Sample:
        return house.floor("none").load(load.same(request(house.psubd(storage))), 64, seconds)

    parts: dict[str, Measure] = {"psubd": psubd, "floor": floor}
    for peer in peers:
        if peer.kind == "kafka-pixy":
            parts[str(peer)] = beside(peer, storage, 64, peer.dialect.read(peer, TOPIC, "bench"))
    what = f"subscribe, one message a GET, auto ack, {storage}:, 64 connections"
    return Row(f"subscribe-{storage}-64", what, "the empty floor", parts, [at_least(0.4)])


TOKEN = '"ack":"([^"]+)"'


def explicit(storage: str) -> Row:
    def script(served: Served, token: str) -> str:
        target = f"/v1/sub?topic={backlog(served)}&ack=explicit&timeout=5000"
        ack = Request("POST", "/v1/ack", {**served.tenant.subscribe, "content-type": "application/json"}, b'{"tokens": ["%s"]}')
        return load.read_and_ack(Request("GET", target, served.tenant.subscribe), ack, token)

    def psubd(house: House, seconds: float) -> Sample:
        served = house.psubd(storage)
        made = script(served, TOKEN)
        served.rewind(served.topic("reads"))
        served.ask(Request("GET", f"/v1/sub?topic={served.topic('reads')}&ack=auto", served.tenant.subscribe))
        return served.load(made, 64, seconds)

    def floor(house: House, seconds: float) -> Sample:
        return house.floor("none").load(script(house.psubd(storage), '"topic":"([^"]+)"'), 64, seconds)

    what = f"subscribe, one message a GET, explicit, and an ack of each, {storage}:, 64 connections"
    return Row(f"subscribe-{storage}-64-explicit", what, "the empty floor", {"psubd": psubd, "floor": floor}, [at_least(None)])


READERS, BATCH_SIZE = 4, 1000


def many(storage: str, media: str, peers: Sequence[Peer] = ()) -> Row:
    name = media_name(media)

    def psubd(house: House, seconds: float) -> Sample:
        served = house.psubd(storage)
        target = f"/v1/sub?topic={backlog(served)}&ack=auto&batchSize={BATCH_SIZE}&timeout=0"
        request = Request("GET", target, {**served.tenant.subscribe, "accept": media})
        served.rewind(served.topic("reads"))
        served.ask(request)
        before, counted = usage(family(served.pid)), served.metric("psubd_delivered_messages_total")
        found = reader.read(request, served.port, READERS, seconds)
        after = usage(family(served.pid))
        return read_sample(found, served.metric("psubd_delivered_messages_total") - counted, after.cpu_us - before.cpu_us, after.rss_kib)

    def floor(house: House, seconds: float) -> Sample:
        served = house.psubd(storage)
        return house.driver("consume", DRIVERS[storage], seconds, backlog(served))

    parts: dict[str, Measure] = {"psubd": psubd, "floor": floor}
    for peer in peers:
        if peer.dialect.batch is not None and media == bodies.JSON:
            parts[str(peer)] = read_from(peer, storage)
    return Row(
        f"subscribe-{storage}-1000-{name}",
        f"subscribe, batchSize={BATCH_SIZE}, auto ack, as {name}, {storage}:, {READERS} connections",
        f"{DRIVERS[storage]} alone",
        parts,
        [at_least((0.5 if media == bodies.FRAMES else 0.3) if storage != "sqlite" else None)],
        "messages",
    )


def read_sample(found: reader.Read, messages: float, cpu_us: float | None, rss_kib: float | None) -> Sample:
    took = found.took
    if not took or not messages:
        raise load.LoadFailed("nothing was read")
    p50, p99 = took[len(took) // 2] * 1e6, took[min(len(took) - 1, len(took) * 99 // 100)] * 1e6
    return Sample(messages / found.seconds, p50, p99, None if cpu_us is None else cpu_us / messages, rss_kib)


def read_from(peer: Peer, storage: str) -> Measure:
    """One consumer instance of another proxy, one request after another; it has no more at a time."""

    def part(house: House, seconds: float) -> Sample:
        served = house.psubd(storage)
        served.filled(TOPIC, BACKLOG, shared=True)
        request = peer.dialect.read(peer, TOPIC, f"bench{house.number()}")
        for _ in range(30):  # it joins its group first
            if peer.dialect.mark in peer.ask(request):
                break
        found = reader.read(request, peer.port, 1, seconds, peer.dialect.mark, peer.host)
        return read_sample(found, found.marks, None, None)

    return part


# --- long polls -----------------------------------------------------------------------------------------------------------------

POLLS, PUBLISHES = 10_000, 300


def idle_polls(storage: str = "sqlite", count: int = POLLS) -> Row:
    def psubd(house: House, seconds: float) -> Sample:
        served = house.fresh(storage)
        try:
            return polls.waiting(served, count, PUBLISHES)
        finally:
            served.end()

    return Row(
        f"polls-{count}",
        f"{count:,} idle long polls, {storage}:; p50 and p99 are of a publish until a waiting one has it",
        "none",
        {"psubd": psubd},
        [
            Target("KiB a poll", lambda taken: taken["psubd"].each_kib, 12, least=False),
            Target("ms until a publish reaches a poll, p50", lambda taken: ratio(taken["psubd"].p50_us, 1000), 5, least=False),
        ],
        "publishes",
        warm=False,
    )


# --- all of them ----------------------------------------------------------------------------------------------------------------


def storage_rows(storage: str, peers: Sequence[Peer] = ()) -> list[Row]:
    """All rows of one storage but those of `bench.growth`."""
    if storage == "memory":
        return [single(storage)]
    others = peers if storage in BROKERS else ()
    found = publish_rows(storage, others)
    found += [batch(storage, media, others) for media in (bodies.FRAMES, bodies.JSON)]
    found += [single(storage, others), explicit(storage), many(storage, bodies.FRAMES), many(storage, bodies.JSON, others)]
    return [*found, idle_polls(storage)] if storage == "sqlite" else found
