"""``acme:``, a storage of a third party. It keeps a list of messages for each partition, and knows of psubd only what docs/plugins.md says."""

from collections import defaultdict
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.plugin import IPlugin
from zope.interface import implementer

from psubd.errors import BadBody, Exists, TopicMissing
from psubd.interfaces import IClock, IStorage, IStorageFactory
from psubd.model import Bounds, Commit, Message, Position, Slice, StorageLimits, StoredTopic, TopicPartition


@implementer(IStorage)
class AcmeStorage:
    """:param greeting: what ``status`` says, from ``[storage.acme]``."""

    limits = StorageLimits()

    def __init__(self, clock: IClock, greeting: str) -> None:
        self._clock = clock
        self._greeting = greeting
        self._topics: dict[str, StoredTopic] = {}
        self._logs: dict[TopicPartition, list[Message]] = {}
        self._waiting: dict[TopicPartition, list[Deferred[None]]] = defaultdict(list)
        self._places: dict[str, dict[TopicPartition, Commit]] = defaultdict(dict)
        self._made = 0

    def start(self):
        return succeed(None)

    def stop(self):
        return succeed(None)

    def trouble(self):
        return None

    def status(self):
        return {"kind": "acme", "greeting": self._greeting}

    def known(self, topic):
        return self._topics.get(topic)

    def describe(self, topics):
        return succeed({name: self._topics[name] for name in topics if name in self._topics})

    def create_topic(self, spec):
        if spec.name in self._topics:
            return fail(Exists(f"topic {spec.name} is there"))
        self._made += 1
        stored = StoredTopic(
            spec.name, f"acme-{self._made}", 0, 1, spec.retention_ms, spec.retention_bytes, spec.cleanup, spec.max_message_bytes, spec.config
        )
        self._topics[spec.name] = stored
        return self._with_partitions(stored, spec.partitions)

    def grow(self, topic, partitions):
        stored = self._topics.get(topic)
        if stored is None:
            return fail(TopicMissing(topic))
        if partitions <= stored.partitions:
            return fail(BadBody("partitions: more only"))
        return self._with_partitions(stored, partitions)

    def configure(self, topic, changes):
        stored = self._topics.get(topic)
        if stored is None:
            return fail(TopicMissing(topic))
        kept = {"retention_ms": stored.retention_ms, "retention_bytes": stored.retention_bytes, "config": stored.config, **changes}
        return self._with_partitions(self._changed(stored, **kept), stored.partitions)

    def delete_topic(self, topic):
        stored = self._topics.pop(topic, None)
        for partition in range(stored.partitions if stored else 0):
            self._logs.pop(TopicPartition(topic, partition), None)
            self._wake(TopicPartition(topic, partition))
        return succeed(None)

    def post(self, record, acks, told):
        def answered(answers):
            for answer in answers:
                self._clock.call_later(0, told, answer)

        self.publish([record], acks).addCallback(answered)

    def publish(self, records, acks):
        stored = [self._append(record) for record in records]
        return succeed([] if acks == "0" else stored)

    def read(self, topic, partition, offset, max_records, max_bytes):
        log = self._logs.get(TopicPartition(topic, partition))
        if log is None:
            return fail(TopicMissing(topic))
        taken: list[Message] = []
        for message in log[max(offset, 0) : max(offset, 0) + max_records]:
            if taken and sum(one.size for one in taken) + message.size > max_bytes:
                break
            taken.append(message)
        return succeed(Slice(tuple(taken), taken[-1].offset + 1 if taken else offset, 0, len(log)))

    def watch(self, topic, partition, offset):
        place = TopicPartition(topic, partition)
        log = self._logs.get(place)
        if log is None or len(log) > offset:
            return succeed(None)
        waiter: Deferred[None] = Deferred(lambda cancelled: self._waiting[place].remove(cancelled))
        self._waiting[place].append(waiter)
        return waiter

    def bounds(self, topic):
        if topic not in self._topics:
            return fail(TopicMissing(topic))
        return succeed({partition: Bounds(0, len(self._logs[TopicPartition(topic, partition)])) for partition in self._partitions(topic)})

    def log_ends(self, topic, epochs):
        return succeed({}) if topic in self._topics else fail(TopicMissing(topic))

    def offset_at(self, topic, timestamp):
        if topic not in self._topics:
            return fail(TopicMissing(topic))
        found = {}
        for partition in self._partitions(topic):
            log = self._logs[TopicPartition(topic, partition)]
            found[partition] = next((one.offset for one in log if one.timestamp >= timestamp), len(log))
        return succeed(found)

    def commit(self, group, places):
        self._places[group].update(places)
        return succeed({})

    def committed(self, group):
        return succeed(dict(self._places[group]))

    def forget(self, group, topic):
        self._places[group] = {place: commit for place, commit in self._places[group].items() if topic not in (None, place.topic)}
        return succeed(None)

    def adopt(self, group):
        return succeed(None)

    def _append(self, record):
        log = self._logs.get(TopicPartition(record.topic, record.partition))
        if log is None:
            return TopicMissing(record.topic)
        log.append(Message(len(log), record.timestamp, record.key, record.value, record.headers))
        self._wake(TopicPartition(record.topic, record.partition))
        return Position(record.topic, record.partition, len(log) - 1, record.timestamp)

    def _wake(self, place):
        for waiter in self._waiting.pop(place, []):
            waiter.callback(None)

    def _partitions(self, topic):
        return range(self._topics[topic].partitions)

    def _with_partitions(self, stored, partitions):
        self._topics[stored.name] = self._changed(stored, partitions=partitions)
        for partition in range(stored.partitions, partitions):
            self._logs[TopicPartition(stored.name, partition)] = []
        return succeed(self._topics[stored.name])

    def _changed(self, stored, **changes):
        fields = {name: getattr(stored, name) for name in StoredTopic.__struct_fields__}
        return StoredTopic(**{**fields, **changes})


@implementer(IPlugin, IStorageFactory)
class AcmeFactory:
    """Tells psubd of ``acme:``."""

    scheme = "acme"
    usage = "acme:  a log of Acme's, in memory"
    shared = False

    def check(self, url: str, settings: Any) -> list[str]:
        mistakes = [] if url == "acme:" else [f"storage: {url!r}: acme: takes nothing behind the colon"]
        return mistakes + [f"storage.acme: {name}: there is no such setting; there is greeting" for name in settings if name != "greeting"]

    def build(self, url: str, environment: Any) -> AcmeStorage:
        return AcmeStorage(environment.clock, environment.settings.get("greeting", ""))
