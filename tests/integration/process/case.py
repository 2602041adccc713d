"""What the tests of whole processes share."""

import os
import shutil
import tempfile
import unittest
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlencode

from twisted.trial.unittest import SynchronousTestCase

from psubd.testing.daemon import Client, Daemon, Tenant, bind, make_topic, register

T = TypeVar("T")
S = TypeVar("S")

LONG = "PSUBD_LONG" in os.environ
"""make test-long: the failure stories at full length."""

with_pytest = unittest.skipUnless("PYTEST_VERSION" in os.environ, "starts processes: run it with pytest")


@with_pytest
class ProcessCase(SynchronousTestCase):
    """A folder of its own; every daemon that a test started is ended with it."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="psubd-process-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.state = os.path.join(self.folder, "state")

    def daemon(self, *options: str, state: str | None = None, **more: Any) -> Daemon:
        """A daemon on the test's state folder, not started."""
        made = Daemon(state or self.state, options, **more)
        self.addCleanup(made.kill)
        return made

    def bound(self, daemon: Daemon, application: str = "shop", topic: str = "orders", partitions: int = 1) -> Tenant:
        """An application that owns a topic and is bound to it for pub and sub, from its first message."""
        manager = daemon.manager()
        tenant = register(manager, application)
        make_topic(manager, topic, application, partitions=partitions)
        bind(manager, application, topic, pub=True, sub=True, start="earliest")
        manager.close()
        return tenant


def together(jobs: Sequence[S], work: Callable[[S], T]) -> list[T]:
    """Each job in a thread of its own; what they gave, in order."""
    with ThreadPoolExecutor(len(jobs)) as threads:
        return list(threads.map(work, jobs))


def whole_log(client: Client, topic: str) -> Iterator[dict[str, Any]]:
    """All messages of a topic, read as a replay, by its subscriber."""
    place = "earliest"
    while True:
        reply = client.request("GET", "/v1/sub?" + urlencode({"topic": topic, "offset": place, "batchSize": 2000, "timeout": 0}))
        assert reply.status in (200, 204), reply
        if reply.status == 204 or not reply.json["messages"]:
            return
        yield from reply.json["messages"]
        place = reply.json["next"]


def drained(client: Client, query: str, patience: int = 2) -> Iterator[list[dict[str, Any]]]:
    """A group's messages, one answer after another, until so many polls in a row were empty."""
    empty = 0
    while empty < patience:
        reply = client.request("GET", f"/v1/sub?{query}")
        assert reply.status in (200, 204), reply
        empty = empty + 1 if reply.status == 204 else 0
        if reply.status == 200:
            yield reply.json["messages"]
