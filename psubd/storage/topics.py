"""What the embedded storages take as a topic and as a record: Kafka's own settings by name, as far as one node can honour them."""

from collections.abc import Callable, Mapping
from secrets import token_urlsafe
from typing import Any, Literal, cast

import msgspec

from psubd.errors import BadBody, BadHeader, PsubdError, TooLarge
from psubd.fields import INT64, INTEGER, topic_id
from psubd.model import PartitionLayout, Record, StoredTopic, TopicSpec

MAX_PARTITIONS = 10_000
"""A topic's partitions: each costs one query in every sweep, so that ten thousand are a sweep of about a second."""

MAX_RECORD = 512 * 1024 * 1024
"""Bytes that ``max.message.bytes`` may allow: half of SQLite's own bound on a row (SQLITE_MAX_LENGTH, 10^9)."""

AHEAD_MS = 3_600_000
"""``message.timestamp.after.max.ms`` of Kafka 4, and what the HTTP contract lets a client ask for."""

TOMBSTONE_MS = 86_400_000
"""``delete.retention.ms`` of Kafka: how long a compacted topic keeps a tombstone."""

MAX_MESSAGE = "max.message.bytes"
RETENTION_MS = "retention.ms"
RETENTION_BYTES = "retention.bytes"
CLEANUP = "cleanup.policy"
AHEAD = "message.timestamp.after.max.ms"
BEFORE = "message.timestamp.before.max.ms"
TOMBSTONES = "delete.retention.ms"

CONFIG = {
    MAX_MESSAGE: (1, MAX_RECORD),
    RETENTION_MS: (-1, INT64),
    RETENTION_BYTES: (-1, INT64),
    CLEANUP: ("delete", "compact"),
    AHEAD: (0, INT64),
    BEFORE: (0, INT64),
    TOMBSTONES: (0, INT64),
}
"""The names that are taken, each with its least and greatest number, or its words. -1 is "without bound", as in Kafka."""


class Rules:
    """What a topic's records must keep to; made once per topic, asked for every record."""

    def __init__(self, topic: StoredTopic) -> None:
        self.partitions = topic.partitions
        self.max_bytes = topic.max_message_bytes
        self.ahead_ms = topic.timestamp_ahead_ms
        self.before_ms = int(topic.config.get(BEFORE, INT64))
        self.tombstone_ms = int(topic.config.get(TOMBSTONES, TOMBSTONE_MS))
        self.compact = topic.cleanup == "compact"

    def refusal(self, record: Record, size: int, timestamp: int, now: int) -> PsubdError | None:
        """Why the record cannot be stored, or None.

        :param size: the record's. :param timestamp: the record's, or the moment it came in. :param now: ms since the epoch.
        """
        if size > self.max_bytes:
            return TooLarge(f"the record has {size} bytes; topic {record.topic} takes {self.max_bytes} ({MAX_MESSAGE})")
        ahead = timestamp - now
        if ahead > self.ahead_ms or -ahead > self.before_ms or not 0 <= timestamp <= INT64:
            return BadHeader(f"timestamp: {timestamp} is out of what topic {record.topic} takes ({AHEAD}, {BEFORE})")
        if self.compact and record.key is None:
            return BadHeader(f"key: topic {record.topic} is compacted; its records need a key")
        return None


def stored(spec: TopicSpec) -> StoredTopic:
    """The topic that ``spec`` asks for, under a new uid. What ``config`` says wins over the spec's own fields.

    :raises BadBody: for an id, a number or a setting that cannot be taken; all of them named.
    """
    mistakes = [*_spec_mistakes(spec), *_config_mistakes(spec.config)]
    if mistakes:
        raise BadBody("; ".join(mistakes))
    topic = StoredTopic(
        name=spec.name,
        uid=token_urlsafe(16),
        partitions=spec.partitions,
        replication=1,
        retention_ms=spec.retention_ms,
        retention_bytes=spec.retention_bytes,
        cleanup=spec.cleanup,
        max_message_bytes=spec.max_message_bytes,
        timestamp_ahead_ms=AHEAD_MS,
    )
    return _with_config(topic, spec.config)


def grown(topic: StoredTopic, partitions: int) -> StoredTopic:
    """``topic`` with so many partitions. :raises BadBody: unless they are more than it has."""
    if not topic.partitions < partitions <= MAX_PARTITIONS:
        raise BadBody(f"partitions: {partitions}; topic {topic.name} has {topic.partitions}, send more than that, at most {MAX_PARTITIONS}")
    return msgspec.structs.replace(topic, partitions=partitions)


def configured(topic: StoredTopic, changes: Mapping[str, Any]) -> StoredTopic:
    """``topic`` with ``changes`` (`psubd.interfaces.IStorage.configure`); ``config`` sets the names in it and leaves the others.

    :raises BadBody: for what cannot be taken, all of it named; ``cleanup.policy`` is chosen when a topic is made.
    """
    config = changes.get("config") or {}
    mistakes = [f"{name}: cannot be changed" for name in changes if name not in ("retention_ms", "retention_bytes", "config")]
    mistakes += [*_bound_mistakes(changes), *_config_mistakes(config)]
    if not mistakes and config.get(CLEANUP, topic.cleanup) != topic.cleanup:
        mistakes.append(f"{CLEANUP}: is chosen when the topic is made; make another topic")
    if mistakes:
        raise BadBody("; ".join(mistakes))
    for name, field in ((RETENTION_MS, "retention_ms"), (RETENTION_BYTES, "retention_bytes")):
        if field in changes:
            topic = _with_bound(topic, name, field, changes[field])
    return _with_config(topic, config)


def _spec_mistakes(spec: TopicSpec) -> list[str]:
    found = []
    if not topic_id(spec.name):
        found.append("id: send 1 to 200 of A-Z a-z 0-9 . _ -, not . or .., not beginning with __")
    if not 1 <= spec.partitions <= MAX_PARTITIONS:
        found.append(f"partitions: {spec.partitions} is out of range; send 1 to {MAX_PARTITIONS}")
    if spec.replication not in (None, 1):
        found.append(f"replication: {spec.replication}; an embedded storage has one copy, send null or 1")
    if spec.cleanup not in ("delete", "compact"):
        found.append(f"cleanup: {spec.cleanup!r}; send delete or compact")
    if not 1 <= spec.max_message_bytes <= MAX_RECORD:
        found.append(f"max_message_bytes: {spec.max_message_bytes} is out of range; send 1 to {MAX_RECORD}")
    return found + _bound_mistakes({"retention_ms": spec.retention_ms, "retention_bytes": spec.retention_bytes})


def _bound_mistakes(bounds: Mapping[str, Any]) -> list[str]:
    found = []
    for name in ("retention_ms", "retention_bytes"):
        value = bounds.get(name)
        if value is not None and (type(value) is not int or not 0 <= value <= INT64):
            found.append(f"{name}: {value!r}; send a number from 0, or null for no bound")
    return found


def _config_mistakes(config: object) -> list[str]:
    if not isinstance(config, Mapping):
        return ["config: send an object of strings"]
    return [mistake for name, value in config.items() if (mistake := _setting_mistake(name, value)) is not None]


def _setting_mistake(name: object, value: object) -> str | None:
    if name not in CONFIG:
        return f"config: {str(name)[:80]!r} is not taken by an embedded storage; it takes {', '.join(CONFIG)}"
    taken = CONFIG[name]
    if isinstance(taken[0], str):
        return None if value in taken else f"config: {name}: {value!r}; send {' or '.join(cast(tuple[str, ...], taken))}"
    low, high = cast(tuple[int, int], taken)
    if isinstance(value, str) and INTEGER.fullmatch(value) and low <= int(value) <= high:
        return None
    return f"config: {name}: {value!r}; send a string of digits, {low} to {high}"


def _with_bound(topic: StoredTopic, name: str, field: str, value: int | None) -> StoredTopic:
    config = dict(topic.config)
    if name in config:
        config[name] = str(-1 if value is None else value)
    return msgspec.structs.replace(topic, config=config, **{field: value})


def _with_config(topic: StoredTopic, config: Mapping[str, str]) -> StoredTopic:
    fields: dict[str, Any] = {FIELDS[name][0]: FIELDS[name][1](value) for name, value in config.items() if name in FIELDS}
    return msgspec.structs.replace(topic, config={**topic.config, **config}, **fields)


def _bound(value: str) -> int | None:
    return None if int(value) == -1 else int(value)


def _cleanup(value: str) -> Literal["delete", "compact"]:
    return "compact" if value == "compact" else "delete"


FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    MAX_MESSAGE: ("max_message_bytes", int),
    RETENTION_MS: ("retention_ms", _bound),
    RETENTION_BYTES: ("retention_bytes", _bound),
    CLEANUP: ("cleanup", _cleanup),
    AHEAD: ("timestamp_ahead_ms", int),
}
"""The settings that have a member of `StoredTopic` of their own, and how they are read."""


def here(partitions: int) -> dict[int, PartitionLayout]:
    """Where the partitions of a storage without brokers lie."""
    return dict.fromkeys(range(partitions), PartitionLayout(0, (0,), (0,)))
