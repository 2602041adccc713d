"""Ten thousand connections that wait for a message, in this one process; and how soon a publish reaches one of them."""

import select
import time
from collections.abc import Sequence

from bench.house import Served
from bench.load import LoadFailed, Request
from bench.reader import PATIENCE_S, Line, bytes_of
from bench.samples import Sample
from bench.usage import family, usage

TOPICS = 100
"""The polls are spread over so many: a publish reaches one of the hundred that wait for its topic."""

TIMEOUT_MS = 60_000
"""The longest that a poll may wait. One that is answered 204 asks again."""

PAUSE_S = 0.005
"""Between two publishes: nothing else is to do then."""


class Crowd:
    """Connections that wait, ``count`` of them over these topics. A context manager."""

    def __init__(self, served: Served, topics: Sequence[str], count: int) -> None:
        self.served, self.topics = served, topics
        self.ready = select.epoll()
        self.lines: dict[int, Line] = {}
        for number in range(count):
            target = f"/v1/sub?topic={topics[number % len(topics)]}&timeout={TIMEOUT_MS}"
            line = Line(served.port, bytes_of(Request("GET", target, served.tenant.subscribe), served.port))
            self.lines[line.socket.fileno()] = line
            self.ready.register(line.socket, select.EPOLLIN)
            line.ask()

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *raised: object) -> None:
        self.ready.close()
        for line in self.lines.values():
            line.socket.close()

    def settle(self) -> None:
        """Wait until psubd says that all of them wait. :raises LoadFailed:"""
        until = time.monotonic() + TIMEOUT_MS / 1000 - 15
        while (waiting := self.served.metric("psubd_polls_waiting")) < len(self.lines):
            if time.monotonic() > until:
                raise LoadFailed(f"{waiting:.0f} polls of {len(self.lines)} wait")
            time.sleep(0.2)

    def reach(self, publisher: Line) -> float:
        """Publish one message. Seconds until a waiting client had it; that one waits again then."""
        publisher.ask()
        reached = None
        published = False
        while reached is None or not published:
            events = self.ready.poll(PATIENCE_S)
            if not events:
                raise LoadFailed("a message reaches nobody")
            for number, _ in events:
                if number == publisher.socket.fileno():
                    published = publisher.take() is not None or published
                    continue
                line = self.lines[number]
                if line.take() is not None:
                    if line.status == 200:
                        reached = time.perf_counter() - publisher.sent
                    line.ask()
        return reached


def publisher_of(served: Served, topic: str) -> Line:
    return Line(served.port, bytes_of(served.publishing(topic), served.port))


def waiting(served: Served, count: int, publishes: int) -> Sample:
    """What each of so many waiting polls takes in the process, and how soon publishes reach one."""
    topics = [served.topic(f"poll{number}") for number in range(TOPICS)]
    with Crowd(served, topics, TOPICS) as few:  # each group is loaded, and what is made once is made
        few.settle()
        before = usage(family(served.pid)).rss_kib
    until = time.monotonic() + PATIENCE_S
    while served.metric("psubd_polls_waiting") and time.monotonic() < until:
        time.sleep(0.1)
    with Crowd(served, topics, count) as crowd:
        crowd.settle()
        after = usage(family(served.pid)).rss_kib
        publishers = [publisher_of(served, topic) for topic in topics]
        took = []
        for number in range(publishes):
            publisher = publishers[number % TOPICS]
            crowd.ready.register(publisher.socket, select.EPOLLIN)
            took.append(crowd.reach(publisher))
            crowd.ready.unregister(publisher.socket)
            time.sleep(PAUSE_S)
        for publisher in publishers:
            publisher.socket.close()
    took.sort()
    p50, p99 = took[len(took) // 2], took[min(len(took) - 1, len(took) * 99 // 100)]
    return Sample(p50_us=p50 * 1e6, p99_us=p99 * 1e6, rss_kib=after, each_kib=(after - before) / count)
