"""A process that publishes through `SqliteStorage` until it is killed or the disk is full: what it says was answered must be in the file.

    python -m tests.integration.storage.publishing PATH [limit of a file's size, bytes; 0: none] [publishes]

One line a publish: ``<partition> <offset> <value>`` when it was answered as stored, ``! <error>`` when it was not; each written at once.
With a limit it ends after twenty failures and the room's return; without, after so many publishes, or never.
"""

import os
import resource
import sys
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, gatherResults

from psubd.errors import PsubdError
from psubd.model import Position, Record, TopicSpec
from psubd.services.clock import SystemClock
from psubd.storage.sqlite import SqliteStorage

reactor: Any = installed
PUBLISHERS = 8


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


async def publish(storage: SqliteStorage, value: str, partition: int, post: bool = False) -> bool:
    """Publish or post one; whether it was stored."""
    record = Record("t", value.encode() * 50, partition=partition)
    if post:
        told: Deferred[Any] = Deferred()
        storage.post(record, "all", told.callback)
        answer = await told
    else:
        (answer,) = await storage.publish([record], "all")
    if isinstance(answer, Position):
        say(f"{partition} {answer.offset} {value}")
    return isinstance(answer, Position)


async def keep_on(storage: SqliteStorage, publisher: int, count: int) -> None:
    number = 0
    while not count or number < count / PUBLISHERS:
        await publish(storage, f"{publisher}-{number}", publisher % 3, post=publisher % 2 == 0)
        number += 1


async def until_full(storage: SqliteStorage, limit: int) -> None:
    failures = number = 0
    while failures < 20:
        number += 1
        try:
            await publish(storage, f"full-{number}", number % 3)
        except PsubdError as refused:
            failures += 1
            say(f"! {type(refused).__name__} {storage.trouble() is not None}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit * 10, resource.RLIM_INFINITY))
    for again in range(50):
        await publish(storage, f"room-{again}", again % 3)
    say(f"trouble {storage.trouble()}")
    await storage.stop()


async def main(path: str, limit: int = 0, count: int = 0) -> None:
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    storage = SqliteStorage(path, SystemClock(reactor), reactor, {"busy_timeout_ms": 1000}, CollectorRegistry())
    await storage.start()
    if storage.known("t") is None:
        await storage.create_topic(TopicSpec("t", 3))
    if limit:
        await until_full(storage, limit)
    else:
        await gatherResults([Deferred.fromCoroutine(keep_on(storage, publisher, count)) for publisher in range(PUBLISHERS)])
        await storage.stop()


def begin() -> None:
    done = Deferred.fromCoroutine(main(sys.argv[1], *map(int, sys.argv[2:])))
    done.addErrback(lambda failure: say(f"ERROR {failure.getTraceback()}"))
    done.addBoth(lambda _: reactor.stop())


if __name__ == "__main__":
    reactor.callWhenRunning(begin)
    reactor.run()
