"""The blocking side of the storage: the driver's threads and what runs on them. No reactor, no Twisted.

Work goes in with `submit`-like calls that return at once, and its result comes out by a callback on one of the threads here.
"""

import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

from kafka.future import Future

from psubd.errors import TopicMissing
from psubd.model import Acks, PartitionLayout, StoredTopic
from psubd.storage.kafka.atlas import Atlas, Change, Chart, layout_of, metadata_request
from psubd.storage.kafka.faults import Lost, Unsent
from psubd.storage.kafka.groups import Groups
from psubd.storage.kafka.line import Line
from psubd.storage.kafka.outbox import Entry, Outbox, Settled
from psubd.storage.kafka.reads import Reads
from psubd.storage.kafka.settings import KafkaSettings
from psubd.storage.kafka.tail import Round, Tail
from psubd.storage.kafka.topics import Topics

START_WAIT_S = 3.0
"""How long `start` waits for a first look at Kafka before it goes on without."""


class Postbox(Protocol):
    """What publishes: an `Outbox`, or one that looks like it."""

    @property
    def queued_bytes(self) -> int: ...
    @property
    def idempotent(self) -> bool: ...
    @property
    def sent_batches(self) -> int: ...
    @property
    def sent_records(self) -> int: ...
    @property
    def failed_records(self) -> int: ...
    @property
    def retries(self) -> int: ...
    def room(self, size: int) -> None: ...
    def post(self, entry: Entry, chart: Chart | None) -> None: ...
    def wake(self) -> None: ...
    def sweep(self) -> Coroutine[Any, Any, None]: ...
    def flush(self, deadline: float) -> Coroutine[Any, Any, None]: ...
    def end(self) -> None: ...


class KafkaClient:
    """Five threads with their connections, each for one kind of work, so that none waits behind another: a long poll behind a commit, a large
    read behind the metadata. At most ``connections`` to each broker, however many topics and groups there are.

    :param changed: called on a thread of ours when something befell a topic. :param came: the same with what `Tail` read.
    :param published: the same with records that are answered, by their level of acks.
    """

    def __init__(
        self,
        bootstrap: Sequence[str],
        settings: KafkaSettings,
        changed: Callable[[str, Change], None],
        came: Callable[[Round], None],
        published: Callable[[Acks, list[Settled]], None],
    ) -> None:
        self.settings = settings
        self._published = published
        self._turn = threading.Lock()
        self._started = self._stopped = False
        self.bootstrap = tuple(bootstrap)
        options = settings.driver()
        publishers = settings.publish_connections
        self.control = Line(f"{settings.client_id}-control", bootstrap, options)
        self.publishing = Line(f"{settings.client_id}-publish", bootstrap, options, publishers + 2)
        self.reading = Line(f"{settings.client_id}-read", bootstrap, options, settings.read_connections)
        self.tailing = Line(f"{settings.client_id}-tail", bootstrap, options, 2)
        self.committing = Line(f"{settings.client_id}-commit", bootstrap, options, settings.commit_connections)
        self.lines = (self.control, self.publishing, self.reading, self.tailing, self.committing)
        self.atlas = Atlas(self.control, settings, changed, lambda: self.tail.reroute())
        self.topics = Topics(self.control, self.atlas, settings)
        self.outboxes: dict[Acks, Postbox] = {
            "all": self.outbox("all", range(publishers)),
            "1": self.outbox("1", range(publishers, publishers + 1)),
            "0": self.outbox("0", range(publishers + 1, publishers + 2)),
        }
        self.reads = Reads(self.reading, self.atlas, settings)
        self.tail = Tail(self.tailing, self.atlas, settings, came)
        self.groups = Groups(self.committing)

    def outbox(self, acks: Acks, places: range) -> Postbox:
        """For one level of acks."""
        return Outbox(self.publishing, places, acks, self.atlas, self.settings, partial(self._published, acks))

    @property
    def connections(self) -> int:
        """Connections that stand now."""
        return sum(manager.connections for line in self.lines for manager in line.managers)

    @property
    def connections_per_broker(self) -> int:
        """The most that there can be to one broker."""
        return sum(len(line.managers) for line in self.lines)

    def start(self) -> None:
        """Begin to connect; returns when Kafka answered, or after `START_WAIT_S`: it goes on trying then. After `stop`: nothing happens."""
        with self._turn:
            if self._stopped:
                return
            self._begin()
        deadline = time.monotonic() + START_WAIT_S
        while self.atlas.trouble is not None and not self._stopped and time.monotonic() < deadline:
            self.atlas.kick()
            time.sleep(0.02)

    def _begin(self) -> None:
        for line in self.lines:
            line.start()
        self.control.submit(self.atlas.watch)
        for outbox in self.outboxes.values():
            self.publishing.submit(outbox.sweep)
        self._started = True

    def stop(self, deadline: float) -> None:
        """Send what was accepted by the deadline (`time.monotonic`), then close all connections and end all threads. Blocks so long."""
        with self._turn:
            self._stopped = True
        if self._started:
            waiting = [self.publishing.submit(outbox.flush, deadline) for outbox in self.outboxes.values()]
            for each in waiting:
                wait_for(each, deadline - time.monotonic() + 1)
        self.tail.stop()
        self.atlas.stop()
        for line in self.lines:
            line.stop()
        for outbox in self.outboxes.values():
            outbox.end()

    async def describe(self, topics: Sequence[str]) -> dict[str, StoredTopic]:
        """What is there now, on the control line; tried again until `storage_timeout_ms`. :raises Unsent: :raises Lost:"""
        deadline = time.monotonic() + self.settings.storage_timeout_s
        found: dict[str, StoredTopic] = await self.control.persist(deadline, lambda left: self.atlas.fresh(topics, left), again=(Unsent, Lost))
        return found

    async def layout(self, topic: str) -> dict[int, PartitionLayout]:
        """Where each partition of the topic lies now. Otherwise as `describe`. :raises TopicMissing: :raises KafkaError: it may not be known."""
        found = layout_of(topic, await self._metadata([topic]))
        if not found:
            raise TopicMissing(f"topic {topic!r} is not in Kafka")
        return found

    async def brokers(self) -> tuple[int, ...]:
        """The brokers that are there now; otherwise as `describe`."""
        told = await self._metadata([])
        return tuple(sorted(broker.node_id for broker in told.brokers))

    async def _metadata(self, topics: Sequence[str]) -> Any:
        deadline = time.monotonic() + self.settings.storage_timeout_s
        request = metadata_request(topics)
        return await self.control.persist(deadline, lambda left: self.control.ask(request, timeout_ms=left), again=(Unsent, Lost))


def wait_for(future: Future, timeout_s: float) -> None:
    """Wait for it to be done, however it ends."""
    done = threading.Event()
    future.add_both(lambda _: done.set())
    done.wait(timeout_s)
