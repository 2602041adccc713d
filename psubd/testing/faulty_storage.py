"""A storage that fails, stalls and has gaps when a test says so, around one that works."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from psubd.errors import InUse, PsubdError, StorageUnavailable
from psubd.interfaces import IStorage
from psubd.model import Acks, Bounds, Commit, PartitionLayout, Position, Record, Slice, StorageLimits, StoredTopic, TopicPartition, TopicSpec

T = TypeVar("T")
Told = Callable[[Position | PsubdError], None]

NOWHERE = "nowhere"
"""A topic that no test makes."""


@implementer(IStorage)
class FaultyStorage:
    """Passes everything on to ``beneath``, but for what a test set.

    :ivar failing: by method (``"read"``), or method and topic (``"read orders"``), or method, topic and partition (``"read orders 0"``):
        what it fails with; nothing is passed on then.
    :ivar held: methods that wait until `release`; what they wait with is passed on then.
    :ivar calls: how often each method was called.
    :ivar members: groups that somebody else is a member of: their commits are InUse, and so is forgetting them.
    :ivar strangers: groups whose places somebody else wrote: all calls on them are InUse, until `adopt`.
    :ivar hidden: by topic and partition, the offsets that compaction took: reads have a gap there.
    """

    def __init__(self, beneath: IStorage) -> None:
        self.beneath = beneath
        self.limits: StorageLimits = beneath.limits
        self.failing: dict[str, PsubdError] = {}
        self.held: set[str] = set()
        self.calls: dict[str, int] = {}
        self.members: set[str] = set()
        self.strangers: set[str] = set()
        self.hidden: dict[TopicPartition, set[int]] = {}
        self._waiting: list[tuple[str, Callable[[], object]]] = []

    def release(self, method: str) -> None:
        """Let what waits go on, in the order of the calls, and hold no more of it."""
        self.held.discard(method)
        due = [go for name, go in self._waiting if name == method]
        self._waiting = [(name, go) for name, go in self._waiting if name != method]
        for go in due:
            go()

    def start(self) -> "Deferred[None]":
        return self._call("start", "", self.beneath.start)

    def stop(self) -> "Deferred[None]":
        return self._call("stop", "", self.beneath.stop)

    def trouble(self) -> str | None:
        return self.beneath.trouble()

    def create_topic(self, spec: TopicSpec) -> "Deferred[StoredTopic]":
        return self._call("create_topic", spec.name, lambda: self.beneath.create_topic(spec))

    def describe(self, topics: Sequence[str]) -> "Deferred[dict[str, StoredTopic]]":
        return self._call("describe", " ".join(topics), lambda: self.beneath.describe(topics))

    def known(self, topic: str) -> StoredTopic | None:
        return self.beneath.known(topic)

    def grow(self, topic: str, partitions: int) -> "Deferred[StoredTopic]":
        return self._call("grow", topic, lambda: self.beneath.grow(topic, partitions))

    def configure(self, topic: str, changes: Mapping[str, Any]) -> "Deferred[StoredTopic]":
        return self._call("configure", topic, lambda: self.beneath.configure(topic, changes))

    def delete_topic(self, topic: str) -> "Deferred[None]":
        return self._call("delete_topic", topic, lambda: self.beneath.delete_topic(topic))

    def publish(self, records: Sequence[Record], acks: Acks) -> "Deferred[list[Position | PsubdError]]":
        return self._call("publish", records[0].topic if records else "", lambda: self.beneath.publish(records, acks))

    def post(self, record: Record, acks: Acks, told: Told) -> None:
        """By the name of ``publish``: held, failing and counted as one. Held, it is accepted."""
        self.calls["publish"] = self.calls.get("publish", 0) + 1
        if "publish" in self.held:
            self._waiting.append(("publish", lambda: self._post_late(record, acks, told)))
            return
        refused = self._refusal("publish", record.topic)
        if refused is None:
            self.beneath.post(record, acks, told)
        elif isinstance(refused, StorageUnavailable) or acks == "0":
            raise refused
        else:  # what surely fails beneath is told as soon as anything is, and stores nothing
            self.beneath.post(Record(NOWHERE, None, partition=0), acks, lambda _: told(refused))

    def _post_late(self, record: Record, acks: Acks, told: Told) -> None:
        refused = self._refusal("publish", record.topic)
        try:
            if refused is not None:
                raise refused
            self.beneath.post(record, acks, told)
        except PsubdError as failed:
            if acks != "0":
                told(failed)

    def read(self, topic: str, partition: int, offset: int, max_records: int, max_bytes: int) -> "Deferred[Slice]":
        found = self._call("read", f"{topic} {partition}", lambda: self.beneath.read(topic, partition, offset, max_records, max_bytes))
        return found.addCallback(self._with_gaps, self.hidden.get(TopicPartition(topic, partition), set()))

    def watch(self, topic: str, partition: int, offset: int) -> "Deferred[None]":
        return self._call("watch", f"{topic} {partition}", lambda: self.beneath.watch(topic, partition, offset))

    def layout(self, topic: str) -> "Deferred[dict[int, PartitionLayout]]":
        return self._call("layout", topic, lambda: self.beneath.layout(topic))

    def brokers(self) -> "Deferred[tuple[int, ...]]":
        return self._call("brokers", "", self.beneath.brokers)

    def bounds(self, topic: str) -> "Deferred[dict[int, Bounds]]":
        return self._call("bounds", topic, lambda: self.beneath.bounds(topic))

    def offset_at(self, topic: str, timestamp: int) -> "Deferred[dict[int, int]]":
        return self._call("offset_at", topic, lambda: self.beneath.offset_at(topic, timestamp))

    def log_ends(self, topic: str, epochs: Mapping[int, int]) -> "Deferred[dict[int, int]]":
        return self._call("log_ends", topic, lambda: self.beneath.log_ends(topic, epochs))

    def commit(self, group: str, places: Mapping[TopicPartition, Commit]) -> "Deferred[dict[TopicPartition, PsubdError]]":
        return self._call("commit", group, lambda: self._commit(group, places))

    def committed(self, group: str) -> "Deferred[dict[TopicPartition, Commit]]":
        return self._call("committed", group, lambda: self._unless_taken(group, self.strangers, lambda: self.beneath.committed(group)))

    def forget(self, group: str, topic: str | None) -> "Deferred[None]":
        others = self.strangers | self.members
        return self._call("forget", group, lambda: self._unless_taken(group, others, lambda: self.beneath.forget(group, topic)))

    def adopt(self, group: str) -> "Deferred[None]":
        self.strangers.discard(group)
        return self._call("adopt", group, lambda: self.beneath.adopt(group))

    def status(self) -> Mapping[str, Any]:
        return self.beneath.status()

    def _call(self, method: str, what: str, call: "Callable[[], Deferred[T]]") -> "Deferred[T]":
        self.calls[method] = self.calls.get(method, 0) + 1
        if method not in self.held:
            return self._passed(method, what, call)
        answer: Deferred[T] = Deferred()
        self._waiting.append((method, lambda: self._passed(method, what, call).chainDeferred(answer)))
        return answer

    def _passed(self, method: str, what: str, call: "Callable[[], Deferred[T]]") -> "Deferred[T]":
        refused = self._refusal(method, what)
        return call() if refused is None else fail(refused)

    def _refusal(self, method: str, what: str) -> PsubdError | None:
        names = (f"{method} {what}", f"{method} {what.partition(' ')[0]}", method)
        return next((self.failing[name] for name in names if name in self.failing), None)

    def _commit(self, group: str, places: Mapping[TopicPartition, Commit]) -> "Deferred[dict[TopicPartition, PsubdError]]":
        return succeed(dict.fromkeys(places, self._taken(group))) if group in self.strangers | self.members else self.beneath.commit(group, places)

    def _unless_taken(self, group: str, others: set[str], call: "Callable[[], Deferred[T]]") -> "Deferred[T]":
        return fail(self._taken(group)) if group in others else call()

    def _taken(self, group: str) -> InUse:
        return InUse(f"{group!r} has {'members' if group in self.members else 'places'} that are not psubd's")

    def _with_gaps(self, found: Slice, hidden: set[int]) -> Slice:
        return msgspec.structs.replace(found, messages=tuple(message for message in found.messages if message.offset not in hidden))
