"""What the registrar takes: ranges and words that need nothing registered to be judged. Every refusal is BadBody and names the field."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from psubd.errors import BadBody
from psubd.fields import INT64, application_id, topic_id
from psubd.model import Backoff, Binding, Elastic, Rate, TopicSpec

T = TypeVar("T")

NAME_LENGTH = 200
PARTITIONS = 10_000
"""A topic's: above what one Kafka broker is advised to carry (4,000), below what the embedded storage sweeps in about a second."""

ACK_TIMEOUT_MS = (1000, 43_200_000)
"""Contract, section 3: a lease lasts at most 12 hours."""

MAX_ATTEMPTS = 1000
MAX_IN_FLIGHT = 100_000
BACKOFF_MS = 43_200_000
OVERLAP_S = 2_592_000
"""30 days: a key that was replaced must not live on unnoticed."""

BURST_S = 3600
CONFIG_ENTRIES, CONFIG_NAME, CONFIG_VALUE = 100, 200, 4096


class TopicChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `IRegistrar.alter_topic` may be given."""

    partitions: int | UnsetType = UNSET
    retention_ms: int | UnsetType | None = UNSET
    retention_bytes: int | UnsetType | None = UNSET
    elastic: Elastic | UnsetType | None = UNSET
    config: dict[str, str] | UnsetType = UNSET

    def stored(self) -> dict[str, Any]:
        """What the storage is to be told, without the partitions."""
        told = {"retention_ms": self.retention_ms, "retention_bytes": self.retention_bytes, "config": self.config}
        return {name: value for name, value in told.items() if value is not UNSET}


def within(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise BadBody(f"{field}: {value} is out of range; send {low} to {high}")


def typed(value: Any, shape: type[T]) -> T:
    """``value`` with every member of the type that ``shape`` says. :raises BadBody:"""
    try:
        return msgspec.convert(msgspec.to_builtins(value), shape)
    except msgspec.ValidationError as refused:
        raise BadBody(str(refused)) from None


def check_application_id(id: str, field: str = "id") -> None:
    if not application_id(id):
        raise BadBody(f"{field}: {id[:80]!r} is no application id; send 1 to 64 of A-Z a-z 0-9 _ -")


def check_name(name: str, field: str = "name") -> None:
    if not 1 <= len(name) <= NAME_LENGTH or not name.isprintable() or name.isspace():
        raise BadBody(f"{field}: send 1 to {NAME_LENGTH} printable characters")


def check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise BadBody(f"{field}: {value[:40]!r} is none of {', '.join(choices)}")


def check_token_name(name: str) -> None:
    if not topic_id(name):
        raise BadBody(f"name: {name[:80]!r} is no name for a token; send 1 to {NAME_LENGTH} of A-Z a-z 0-9 . _ -")


def check_spec(spec: TopicSpec, elastic: Elastic | None) -> None:
    """A topic to be made. What only the storage can tell (its own settings) is the storage's."""
    if not topic_id(spec.name):
        raise BadBody(f"id: {spec.name[:80]!r} is no topic id; send 1 to 200 of A-Z a-z 0-9 . _ -, not . or .., not beginning with __")
    typed(spec, TopicSpec)
    within("partitions", spec.partitions, 1, PARTITIONS)
    if spec.replication is not None:
        within("replication", spec.replication, 1, 32_767)
    check_retention(spec.retention_ms, spec.retention_bytes)
    check_config(spec.config)
    check_elastic(elastic, spec.partitions)


def check_changes(changes: Mapping[str, Any]) -> TopicChanges:
    """What is to be altered of a topic."""
    taken = typed(dict(changes), TopicChanges)
    if taken.partitions is not UNSET:
        within("partitions", taken.partitions, 1, PARTITIONS)
    check_retention(None if taken.retention_ms is UNSET else taken.retention_ms, None if taken.retention_bytes is UNSET else taken.retention_bytes)
    if taken.config is not UNSET:
        check_config(taken.config)
    return taken


def check_retention(ms: int | None, size: int | None) -> None:
    for field, value in (("retention_ms", ms), ("retention_bytes", size)):
        if value is not None:
            within(field, value, 1, INT64)


def check_config(config: Mapping[str, str]) -> None:
    if len(config) > CONFIG_ENTRIES:
        raise BadBody(f"config: {len(config)} settings; send at most {CONFIG_ENTRIES}")
    for name, value in config.items():
        if not 1 <= len(name) <= CONFIG_NAME or not name.isprintable():
            raise BadBody(f"config: a setting's name has 1 to {CONFIG_NAME} printable characters")
        if len(value) > CONFIG_VALUE:
            raise BadBody(f"config: {name}: send at most {CONFIG_VALUE} characters")


def check_elastic(elastic: Elastic | None, partitions: int) -> None:
    """``partitions``: those that the topic has or is to have."""
    if elastic is not None:
        within("elastic.max_partitions", elastic.max_partitions, partitions, PARTITIONS)


def check_binding(binding: Binding) -> None:
    """A binding's own settings."""
    typed(binding, Binding)
    if not (binding.pub or binding.sub):
        raise BadBody("pub, sub: grant at least one of them; DELETE the binding to take it away")
    within("ack_timeout_ms", binding.ack_timeout_ms, *ACK_TIMEOUT_MS)
    within("max_in_flight", binding.max_in_flight, 1, MAX_IN_FLIGHT)
    check_attempts(binding)
    check_backoff(binding.backoff)
    if binding.rate is not None:
        check_rate(binding.rate)


def check_attempts(binding: Binding) -> None:
    if binding.max_attempts is not None:
        within("max_attempts", binding.max_attempts, 1, MAX_ATTEMPTS)
        if binding.dead_letter is None:
            raise BadBody("max_attempts: needs dead_letter, the topic that the messages go to then")
    if binding.dead_letter == binding.topic:
        raise BadBody("dead_letter: is the topic itself; name another registered topic")


def check_backoff(backoff: Backoff) -> None:
    within("backoff.min", backoff.min, 0, BACKOFF_MS)
    within("backoff.max", backoff.max, 0, BACKOFF_MS)
    if backoff.min > backoff.max:
        raise BadBody(f"backoff: min {backoff.min} is more than max {backoff.max}")


def check_rate(rate: Rate) -> None:
    if rate.messages_per_s is None and rate.bytes_per_s is None:
        raise BadBody("rate: give messages_per_s or bytes_per_s, or send null for no bound")
    for field, value in (("rate.messages_per_s", rate.messages_per_s), ("rate.bytes_per_s", rate.bytes_per_s)):
        if value is not None:
            within(field, value, 1, 10**12)
    within("rate.burst_s", rate.burst_s, 1, BURST_S)
