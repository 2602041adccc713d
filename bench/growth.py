"""Rows of what grows: topics, partitions, groups, processes. psubd with many of them, beside itself with one."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bench import load
from bench.house import House, Served
from bench.load import Request
from bench.rows import DRIVERS, Measure, Row, Target, rates
from bench.samples import Round, Sample, ratio
from bench.usage import connections_to, family, usage

S = TypeVar("S")
T = TypeVar("T")

MANY = 1_000
CONNECTIONS = 128
THREADS = 16


def costs(taken: Round) -> float | None:
    """Processor time a message, of that with one."""
    return ratio(taken["psubd"].cpu_us, taken["floor"].cpu_us)


def driver_costs(taken: Round) -> float | None:
    """The same, of what the driver alone grows."""
    return ratio(costs(taken), ratio(taken["driver"].cpu_us, taken["driver with one"].cpu_us))


GROWN = Target("CPU a message, of that with one", costs, 1.5, least=False)
GROWN_BESIDE = Target("CPU a message, its growth of the driver's", driver_costs, 1.2, least=False)
SLOWED = Target("rate, of that with one", rates)


def in_threads(work: Callable[[S], T], jobs: Iterable[S]) -> list[T]:
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(work, jobs))


# --- topics and partitions ------------------------------------------------------------------------------------------------------


def topics(storage: str) -> Row:
    def over(count: int) -> Measure:
        def part(house: House, seconds: float) -> Sample:
            served = house.psubd(storage)
            names = in_threads(lambda number: served.topic(f"many{number}", shared=True, bound=False), range(count))
            return served.load(load.rotating([served.publishing(name, key="k1") for name in names]), CONNECTIONS, seconds)

        return part

    what = f"publish over {MANY:,} topics, {storage}:, {CONNECTIONS} connections"
    return Row(f"topics-{storage}-{MANY}", what, "itself with one topic", {"psubd": over(MANY), "floor": over(1)}, [GROWN, SLOWED])


def topic_with(served: Served, partitions: int) -> str:
    return served.topic(f"wide{partitions}", shared=True, bound=False, partitions=partitions)


def partitions(storage: str, keyed: bool) -> Row:
    def over(count: int) -> Measure:
        def part(house: House, seconds: float) -> Sample:
            served = house.psubd(storage)
            request = served.publishing(topic_with(served, count))
            return served.load(load.differing(request, traced=False) if keyed else load.same(request), CONNECTIONS, seconds)

        return part

    def driver(count: int) -> Measure:
        return lambda house, seconds: house.driver("keyed", DRIVERS[storage], seconds, topic_with(house.psubd(storage), count), count)

    parts = {"psubd": over(MANY), "floor": over(1)}
    if keyed:
        parts |= {"driver": driver(MANY), "driver with one": driver(1)}
    return Row(
        f"partitions-{storage}-{MANY}" + ("-keys" if keyed else ""),
        f"publish to a topic of {MANY:,} partitions, {'a new key each time' if keyed else 'no keys'}, {storage}:, {CONNECTIONS} connections",
        "itself with one partition",
        parts,
        [GROWN_BESIDE if keyed else GROWN, SLOWED],
    )


# --- groups ---------------------------------------------------------------------------------------------------------------------

APPLICATIONS = 4
"""An application may have 1,000 groups with its own; so these share them."""

MESSAGES, READERS = 5_000, 64

POOL = {"kafka": 14, "rdkafka": 14 + 12}
"""The most connections to one broker with the default settings: 1 for control, 3 to publish, 2 to read, 2 at the tails, 6 to commit; and the two
(one of them to bootstrap) of each of librdkafka's six producers."""


def group_reads(served: Served, topic: str, count: int) -> list[Request]:
    """One message for each of so many groups of four applications."""
    tenants = [served.tenant, *(served.another(topic) for _ in range(APPLICATIONS - 1))]
    target = f"/v1/sub?topic={topic}&ack=auto&timeout=0&group=g"
    return [Request("GET", f"{target}{number}", tenants[number % APPLICATIONS].subscribe) for number in range(count)]


def grouped(house: House, served: Served, seconds: float) -> Sample:
    topic = served.filled("grouped", MESSAGES)
    first, *others = group_reads(served, topic, MANY + 1)
    served.ask(first)
    before = usage(family(served.pid)).rss_kib
    in_threads(served.ask, others)
    after = usage(family(served.pid)).rss_kib
    brokers = [int(address.rpartition(":")[2]) for address in house.bootstrap.split(",")]
    connections = connections_to(family(served.pid), brokers)
    found = served.load(load.rotating(others), READERS, seconds)
    return found._replace(each_kib=(after - before) / MANY, connections=connections)


def groups(storage: str) -> Row:
    def psubd(house: House, seconds: float) -> Sample:
        served = house.fresh(storage)
        try:
            return grouped(house, served, seconds)
        finally:
            served.end()

    def floor(house: House, seconds: float) -> Sample:
        served = house.psubd(storage)
        topic = served.filled("grouped-one", 100_000)
        served.rewind(topic)
        return served.load(load.same(Request("GET", f"/v1/sub?topic={topic}&ack=auto&timeout=0", served.tenant.subscribe)), READERS, seconds)

    return Row(
        f"groups-{storage}-{MANY}",
        f"subscribe, one message a GET, over {MANY:,} groups on one topic, {storage}:, {READERS} connections",
        "itself with one group",
        {"psubd": psubd, "floor": floor},
        [
            Target("KiB a group", lambda taken: taken["psubd"].each_kib, 64, least=False),
            Target("connections to the broker", lambda taken: taken["psubd"].connections, POOL[storage], least=False),
            Target("CPU a message, of that with one", costs),
            SLOWED,
        ],
        warm=False,
    )


# --- processes ------------------------------------------------------------------------------------------------------------------


def workers(storage: str, options: Sequence[str], shared: bool) -> Row:
    """``shared``: whether they need a registry that nodes share."""

    def over(count: int) -> Measure:
        def part(house: House, seconds: float) -> Sample:
            served = house.kept((storage, str(count)), lambda: house.fresh(storage, [*more(house), *options, "--workers", str(count)]))
            return served.load(load.same(served.publishing(served.topic("bench", bound=False), key="k1")), CONNECTIONS, seconds)

        return part

    def more(house: House) -> list[str]:
        return ["--registry", house.registry(), "--peer", "tcp:0:interface=127.0.0.1"] if shared else []

    what = f"publish, {storage}:, 2 workers, {CONNECTIONS} connections; CPU and memory are of all processes"
    return Row(f"workers-{storage}-2", what, "itself with one worker", {"psubd": over(2), "floor": over(1)}, [SLOWED, Target(GROWN.what, costs)])


# --- all of them ----------------------------------------------------------------------------------------------------------------


def growth_rows(storage: str) -> list[Row]:
    found = [topics(storage), partitions(storage, keyed=False), partitions(storage, keyed=True)]
    if storage == "sqlite":
        return [*found, workers(storage, ["--mode", "pub"], shared=False)]
    return [*found, groups(storage), workers(storage, [], shared=True)]
