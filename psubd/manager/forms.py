"""What clients send: the shapes of request bodies. Unknown members are refused; a refusal names the field.

The ranges are the registrar's, which has the last word: here they stand for the document, and so that a refusal shows the field's path.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from psubd import fields
from psubd.model import AckMode, Backoff, Cleanup, CredentialKind, Elastic, Rate, Role, Start

ApplicationId = Annotated[str, Meta(pattern=fields.APPLICATION_PATTERN, description="An application's id.")]
TopicId = Annotated[str, Meta(pattern=fields.TOPIC_PATTERN, description="A topic's id.")]
TokenName = Annotated[str, Meta(pattern=fields.TOPIC_PATTERN, description="A token's name.")]
Label = Annotated[str, Meta(pattern=fields.LABEL_PATTERN, description="Text for people, without control characters.")]

INT64 = 2**63 - 1
Amount = Annotated[int, Meta(ge=1, le=INT64)]
Offset = Annotated[int, Meta(ge=0, le=INT64)]
Partition = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Partitions = Annotated[int, Meta(ge=1, le=10_000)]
"""Of one topic."""

HALF_A_DAY = 43_200_000
"""The longest lease and delay of the contract (section 3)."""

Config = Annotated[dict[Annotated[str, Meta(min_length=1, max_length=200)], Annotated[str, Meta(max_length=4096)]], Meta(max_length=100)]
"""The storage's own settings, as text."""


class NewToken(msgspec.Struct, forbid_unknown_fields=True):
    name: TokenName
    role: Role


class NewApplication(msgspec.Struct, forbid_unknown_fields=True):
    """``name`` absent: the id."""

    id: ApplicationId
    name: Label | UnsetType = UNSET


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    """``overlap_s``: how long the present key stays valid beside the new one; at most 30 days."""

    which: CredentialKind
    overlap_s: Annotated[int, Meta(ge=0, le=30 * 86_400)] = 0


class ElasticForm(msgspec.Struct, forbid_unknown_fields=True):
    """Up to how many partitions psubd may add by itself."""

    max_partitions: Partitions

    def value(self) -> Elastic:
        return Elastic(max_partitions=self.max_partitions)


class NewTopic(msgspec.Struct, forbid_unknown_fields=True):
    """``partitions`` given and different from those of a topic that the storage has already: 409. A retention of null: without bound."""

    id: TopicId
    owner: ApplicationId
    partitions: Partitions | UnsetType = UNSET
    replication: Annotated[int, Meta(ge=1, le=32_767)] | None = None
    retention_ms: Amount | None = 604_800_000
    retention_bytes: Amount | None = None
    cleanup: Cleanup = "delete"
    elastic: ElasticForm | None = None
    config: Config = {}


class TopicChange(msgspec.Struct, forbid_unknown_fields=True):
    """What is absent stays. ``partitions``: more only."""

    partitions: Partitions | UnsetType = UNSET
    retention_ms: Amount | UnsetType | None = UNSET
    retention_bytes: Amount | UnsetType | None = UNSET
    elastic: ElasticForm | UnsetType | None = UNSET
    config: Config | UnsetType = UNSET

    def changes(self) -> dict[str, object]:
        """The members that were sent."""
        sent: dict[str, object] = {name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name) is not UNSET}
        if isinstance(self.elastic, ElasticForm):
            sent["elastic"] = self.elastic.value()
        return sent


class BackoffForm(msgspec.Struct, forbid_unknown_fields=True):
    """Wait before a lapsed or nacked message comes again: ``min`` ms, doubling per attempt up to ``max`` ms (absent: always ``min``)."""

    min: Annotated[int, Meta(ge=0, le=HALF_A_DAY)] = 0
    max: Annotated[int, Meta(ge=0, le=HALF_A_DAY)] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.max is not UNSET and self.max < self.min:
            raise ValueError("backoff: `max` is less than `min`")

    def value(self) -> Backoff:
        return Backoff(min=self.min, max=self.min if self.max is UNSET else self.max)


Rated = Annotated[int, Meta(ge=1, le=10**12)]


class RateForm(msgspec.Struct, forbid_unknown_fields=True):
    """Per node and direction; null: no bound. ``burst_s``: how many seconds' worth may come at once."""

    messages_per_s: Rated | None = None
    bytes_per_s: Rated | None = None
    burst_s: Annotated[int, Meta(ge=1, le=3600)] = 1

    def value(self) -> Rate:
        return Rate(messages_per_s=self.messages_per_s, bytes_per_s=self.bytes_per_s, burst_s=self.burst_s)


class BindingForm(msgspec.Struct, forbid_unknown_fields=True):
    """All settings of a binding: what is absent is the default. At least one of ``pub`` and ``sub`` is granted."""

    pub: bool = False
    sub: bool = False
    ack: AckMode = "auto"
    ack_timeout_ms: Annotated[int, Meta(ge=1000, le=HALF_A_DAY)] = 30_000
    start: Start = "latest"
    replay: bool = True
    ordered: bool = False
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] | None = None
    dead_letter: TopicId | None = None
    max_in_flight: Annotated[int, Meta(ge=1, le=100_000)] = 10_000
    backoff: BackoffForm = msgspec.field(default_factory=BackoffForm)
    rate: RateForm | None = None

    def __post_init__(self) -> None:
        if not (self.pub or self.sub):
            raise ValueError("grant `pub` or `sub`, or both; DELETE takes a binding away")


class Place(msgspec.Struct, forbid_unknown_fields=True):
    """The first message at or after a time (ms), or an offset for each partition: one of the two."""

    timestamp: Annotated[int, Meta(ge=0, le=INT64)] | UnsetType = UNSET
    offsets: dict[Partition, Offset] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if (self.timestamp is UNSET) == (self.offsets is UNSET):
            raise ValueError("to: send either `timestamp` or `offsets`")
        if self.offsets == {}:
            raise ValueError("to.offsets: name at least one partition")


class Reset(msgspec.Struct, forbid_unknown_fields=True):
    """Where a group's cursor goes. ``partitions`` absent: all of the topic's, or those that ``to.offsets`` names."""

    topic: TopicId
    to: Literal["earliest", "latest"] | Place
    partitions: Annotated[list[Partition], Meta(min_length=1, max_length=10_000)] | None = None

    def __post_init__(self) -> None:
        if self.partitions is None or not isinstance(self.to, Place) or self.to.offsets is UNSET:
            return
        if set(self.partitions) != set(self.to.offsets):
            raise ValueError("`partitions` and `to.offsets` name different partitions; leave `partitions` out")


class Redrive(msgspec.Struct, forbid_unknown_fields=True):
    """``topic``: the dead-letter topic; ``limit``: how many letters are moved at most."""

    topic: TopicId
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100
