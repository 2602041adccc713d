"""Frozen values: what the rooms hand to each other.

Times are milliseconds since the epoch (``_ms`` names that end a moment, ``timestamp``), durations are milliseconds.
Registered things (`Application`, `Topic`, `Binding`, `Token`, `Group`) are what the registry keeps, as JSON, one value a path.
Of messages there are a lot: with ``gc=False`` the collector does not walk them, and nothing in them can be part of a cycle.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

Acks = Literal["0", "1", "all"]
AckMode = Literal["auto", "explicit"]
Start = Literal["earliest", "latest"]
Cleanup = Literal["delete", "compact"]
Role = Literal["admin", "viewer", "metrics"]
CredentialKind = Literal["pubkey", "secret", "subkey"]

Headers = tuple[tuple[str, bytes | None], ...]
"""Record headers in order, repeats kept; a null value is None."""


# --- messages -------------------------------------------------------------------------------------------------------------------


class Record(msgspec.Struct, frozen=True, gc=False):
    """A message to be stored. ``partition`` is set by the publisher before the storage sees it."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int | None = None
    timestamp: int | None = None

    @property
    def size(self) -> int:
        """Payload bytes: value, key and headers."""
        size = len(self.value or b"") + len(self.key or b"")
        for name, value in self.headers:
            size += len(name) + len(value or b"")
        return size


class Position(msgspec.Struct, frozen=True, gc=False):
    """Where a record was stored."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class Message(msgspec.Struct, frozen=True, gc=False):
    """A stored record as it was read."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def size(self) -> int:
        """Payload bytes: value, key and headers."""
        size = len(self.value or b"") + len(self.key or b"")
        for name, value in self.headers:
            size += len(name) + len(value or b"")
        return size


def sizes(messages: Iterable[Message | Record]) -> list[int]:
    """Payload bytes of each, as ``size`` says, at a third of its time: most have a value only."""
    return [each.size if each.headers or each.key is not None or each.value is None else len(each.value) for each in messages]


class Slice(msgspec.Struct, frozen=True):
    """The answer to one read.

    ``messages`` rise in offset. ``next_offset`` is where the next read goes on: past the last message *and* past any gap behind it
    (compaction, transaction markers), so that a reader which follows it never waits for an offset that will not come. It is equal to the
    offset that was asked for where nothing is there yet. ``first`` and ``end`` are the log's bounds at that moment: the first offset that is
    still there, and the offset that the next committed record gets. ``log_epoch`` is that of the last record before ``next_offset``, where the
    storage numbers the terms of its leaders (Kafka's leader epoch): with it a log that was cut can be told (`IStorage.log_ends`). -1: it does not.
    """

    messages: tuple[Message, ...]
    next_offset: int
    first: int
    end: int
    log_epoch: int = -1


class Bounds(msgspec.Struct, frozen=True):
    """The log's bounds of one partition: the first offset that is still there, and the offset of the next committed record. ``log_epoch``: as in
    `Slice`, of what lies before ``end``."""

    first: int
    end: int
    log_epoch: int = -1


class TopicPartition(msgspec.Struct, frozen=True, order=True):
    topic: str
    partition: int


class Commit(msgspec.Struct, frozen=True):
    """A group's place in one partition, as the storage keeps it.

    :ivar offset: the first offset that is not done.
    :ivar metadata: at most `StorageLimits.max_metadata` characters of ASCII; only psubd's `delivery` room reads it. A commit that psubd did
        not write is recognised by its metadata.
    :ivar log_epoch: of the log up to which was read (`Slice.log_epoch`); -1: not known.
    """

    offset: int
    metadata: str = ""
    log_epoch: int = -1


class PartitionLayout(msgspec.Struct, frozen=True):
    """Where a partition lies. Numbers are the storage's own names of its brokers; a storage without brokers is the one broker 0.

    :ivar leader: None: there is none now.
    """

    leader: int | None
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


class StoredTopic(msgspec.Struct, frozen=True):
    """What the storage knows of a topic.

    :ivar uid: another one for a topic that was deleted and made again under the same name.
    :ivar max_message_bytes: the largest record (value, key and headers, with the storage's own overhead) that it takes.
    :ivar timestamp_ahead_ms: how far past now a record's timestamp may lie.
    """

    name: str
    uid: str
    partitions: int
    replication: int
    retention_ms: int | None
    retention_bytes: int | None
    cleanup: Cleanup
    max_message_bytes: int
    config: dict[str, str] = {}
    timestamp_ahead_ms: int = 3_600_000


class TopicSpec(msgspec.Struct, frozen=True):
    """A topic to be made. ``retention_*`` None: without bound; ``replication`` None: the storage's own default."""

    name: str
    partitions: int = 1
    replication: int | None = None
    retention_ms: int | None = 604_800_000
    retention_bytes: int | None = None
    cleanup: Cleanup = "delete"
    max_message_bytes: int = 1_048_576 + 65_536 + 4096
    config: dict[str, str] = {}


class StorageLimits(msgspec.Struct, frozen=True):
    """:ivar max_metadata: characters (UTF-16 units) of `Commit.metadata`; Kafka's default ``offset.metadata.max.bytes`` is 4096.

    :ivar places_expire: whether a place that is not committed again for days goes (Kafka: ``offsets.retention.minutes``, 7 days, partition by
        partition where a group has no members).
    """

    max_metadata: int = 4096
    places_expire: bool = False


# --- what is registered ---------------------------------------------------------------------------------------------------------


class Key(msgspec.Struct, frozen=True):
    """One valid credential of an application: ``digest`` is the SHA-256 of the key in hex; ``until_ms`` None: without end.

    The pubkey is an identifier, not a secret: it is kept in ``text`` too, and shown.
    """

    digest: str
    until_ms: int | None = None
    text: str | None = None

    def __repr__(self) -> str:
        return f"<Key until {self.until_ms}>"


class Application(msgspec.Struct, frozen=True):
    """A tenant. Each kind of key has one or two valid ones: the newest first."""

    id: str
    name: str
    serial: int
    created_ms: int
    pubkeys: tuple[Key, ...]
    secrets: tuple[Key, ...]
    subkeys: tuple[Key, ...]


class Elastic(msgspec.Struct, frozen=True):
    max_partitions: int


class Topic(msgspec.Struct, frozen=True):
    """A registered stream. ``uid`` is the storage's `StoredTopic.uid`, ``serial`` the registry's: a topic made again has others."""

    id: str
    owner: str
    serial: int
    created_ms: int
    uid: str
    partitions: int
    replication: int | None
    retention_ms: int | None
    retention_bytes: int | None
    cleanup: Cleanup
    elastic: Elastic | None
    config: dict[str, str]
    adopted: bool


class Backoff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Wait before a lapsed or nacked message comes again: ``min`` ms, doubling per attempt up to ``max`` ms."""

    min: int = 0
    max: int = 0


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Per node and direction; None: no bound. ``burst_s``: how many seconds' worth may come at once."""

    messages_per_s: int | None = None
    bytes_per_s: int | None = None
    burst_s: int = 1


class Binding(msgspec.Struct, frozen=True):
    """Application x topic: what is granted, and how messages are delivered. The defaults are the contract's (section 5).

    :ivar serial: the registry's serial of the change that made it: a binding made again is another one, and inherits no cursor.
    :ivar mark: random, set anew whenever ``sub`` is granted: the commits of the application's groups on the topic carry it, so that a
        binding made again takes no commit of the former one. Chosen before the change, since the group's place is stored first.
    :ivar version: serial of the change that wrote this binding last (an application's bindings share one path, so the path's will not do).
    """

    application: str
    topic: str
    serial: int
    pub: bool = False
    sub: bool = False
    ack: AckMode = "auto"
    ack_timeout_ms: int = 30_000
    start: Start = "latest"
    replay: bool = True
    ordered: bool = False
    max_attempts: int | None = None
    dead_letter: str | None = None
    max_in_flight: int = 10_000
    backoff: Backoff = Backoff()
    rate: Rate | None = None
    mark: str = ""
    version: int = 0


class Bindings(msgspec.Struct, frozen=True):
    """All bindings of one application, by topic: one path of the registry."""

    items: dict[str, Binding] = {}


class Token(msgspec.Struct, frozen=True):
    """A manager token. ``digest`` is the SHA-256 of the token in hex."""

    name: str
    role: Role
    digest: str
    serial: int
    created_ms: int


class GroupTopic(msgspec.Struct, frozen=True):
    """What a group's commits on a topic must say to be today's (architecture, decision 2).

    :ivar uid: the storage's id of the topic that the group began on.
    :ivar mark: `Binding.mark` of that time.
    :ivar reset: serial of the group's last reset on the topic; 0: none.
    """

    uid: str
    mark: str
    reset: int = 0


class Group(msgspec.Struct, frozen=True):
    """A cursor over an application's bound topics. Full name: ``<application>`` or ``<application>.<group>``."""

    name: str
    application: str
    serial: int
    created_ms: int
    topics: dict[str, GroupTopic] = {}


# --- consumer instances (Confluent's REST proxy, contract section 4) ------------------------------------------------------------


class Wish(msgspec.Struct, frozen=True):
    """What an instance reads: exactly one of the three is set, or none.

    :ivar topics: subscribed by name. :ivar pattern: subscribed by a regular expression (RE2), matched whole against the topics that are bound.
    :ivar partitions: assigned by hand.
    """

    topics: tuple[str, ...] | None = None
    pattern: str | None = None
    partitions: tuple[TopicPartition, ...] | None = None


class InstanceSpec(msgspec.Struct, frozen=True):
    """A consumer instance as it was asked for, and what it reads; kept in the registry, so that any node can go on with it.

    :ivar dialect: 1 or 2: the version of Confluent's API that made it.
    :ivar format: ``binary``, ``json`` or ``text``: the embedded format of what it reads.
    :ivar reset: where it begins on a partition where its group has no place. ``None`` (Kafka's ``none``): it is refused then.
    :ivar auto_commit: what one read gave and was wholly written is done with the next read.
    :ivar min_bytes: a read waits for so many payload bytes, or its timeout (``fetch.min.bytes``; 1: for anything).
    :ivar timeout_ms: how long a read waits at most (``consumer.request.timeout.ms``).
    :ivar serial: of the registry's change that made it: one made again under the same id is another one.
    """

    dialect: Literal[1, 2]
    format: Literal["binary", "json", "text"] = "binary"
    reset: Start | None = "latest"
    auto_commit: bool = True
    min_bytes: int = 1
    timeout_ms: int = 1_000
    wish: Wish = Wish()
    serial: int = 0
    created_ms: int = 0


class Instances(msgspec.Struct, frozen=True):
    """All consumer instances of one group, by id: one path of the registry."""

    items: dict[str, InstanceSpec] = {}


class Standing(msgspec.Struct, frozen=True):
    """An instance as it is now.

    :ivar topics: that it reads: those that it subscribed to, or that its pattern matches today; of hand-made assignments: theirs.
    :ivar partitions: that it has now. Those that are on their way to it from another instance are not among them.
    """

    spec: InstanceSpec
    topics: tuple[str, ...]
    partitions: tuple[TopicPartition, ...]


class Aim(msgspec.Struct, frozen=True):
    """Where an instance is to read on in a partition: an offset, an end of the log, or the first message at or after a time (ms)."""

    at: TopicPartition
    to: int | Literal["earliest", "latest"] | tuple[Literal["time"], int]


class Mark(msgspec.Struct, frozen=True):
    """A place that a client commits, or has committed.

    :ivar offset: of the next message, as the storage keeps it; -1: there is no place. :ivar metadata: the client's own, at most 256 characters.
    :ivar consumed: the offset of the last message that was handed over to the instance; None: none was.
    """

    at: TopicPartition
    offset: int
    metadata: str = ""
    consumed: int | None = None


# --- access ---------------------------------------------------------------------------------------------------------------------


class Credentials(msgspec.Struct, frozen=True):
    """What a request showed, before anybody looked it up. ``identity`` is an application id or a pubkey. Never logged.

    `repr` hides what is secret.
    """

    identity: str | None = None
    secret: str | None = None
    subkey: str | None = None

    def __repr__(self) -> str:
        return "<Credentials>"


class Grant(msgspec.Struct, frozen=True):
    """Who a request is, and what it may do; a value of one moment, so that a request sees one state of the registry.

    :ivar until_ms: when the key that was shown ends, or None.
    :ivar bindings: the application's bindings by topic.
    :ivar digests: of the keys that were shown: the grant holds as long as all of them do. None were: ().
    """

    application: Application
    kind: Literal["publish", "subscribe"]
    until_ms: int | None
    bindings: dict[str, Binding]
    digests: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Grant {self.application.id} {self.kind}>"


# --- subscribe ------------------------------------------------------------------------------------------------------------------


class Poll(msgspec.Struct, frozen=True):
    """One ask for messages of a group. ``topics`` None: all that the application is bound to for sub. ``ack`` None: each binding's own.

    :ivar waited_ms: how long it has waited before, for a node that serves the group, or at one that served it: its age goes with it.
    :ivar instance: the consumer instance that reads; it gets what its partitions have, without a lease. None: the sub endpoint.
    :ivar min_bytes: of an instance: it waits for so many payload bytes, or its timeout.
    """

    group: str
    topics: tuple[str, ...] | None = None
    batch_size: int = 1
    max_bytes: int = 8_388_608
    timeout_ms: int = 30_000
    ack: AckMode | None = None
    ack_timeout_ms: int | None = None
    waited_ms: int = 0
    instance: str | None = None
    min_bytes: int = 1


class Replay(msgspec.Struct, frozen=True):
    """Read without a group. ``start`` is ``earliest``, ``latest``, ``("time", ms)``, or the offset to read next by partition.

    ``partition`` None: all of the topic's, one after another from each one's place.
    """

    topic: str
    start: Literal["earliest", "latest"] | tuple[Literal["time"], int] | dict[int, int]
    partition: int | None = None
    batch_size: int = 1
    max_bytes: int = 8_388_608
    timeout_ms: int = 30_000


class Delivered(msgspec.Struct, frozen=True, gc=False):
    """One message of an answer. ``attempt`` is None in a replay; ``token`` and ``epoch`` are there in explicit mode only."""

    topic: str
    partition: int
    message: Message
    attempt: int | None = None
    token: str | None = None
    epoch: int | None = None


class Delivery(msgspec.Struct, frozen=True):
    """What a poll got.

    :ivar settle: to be called once with how many of ``messages``, from the front, were wholly handed to the operating system on a connection
        that still stood. Messages in auto mode are done when that is all of them, else they go back to the front of the group, no attempt
        counted. In explicit mode each that was handed over keeps its lease, the others go back likewise. A replay's does nothing.
    :ivar next: a replay's place to go on: offset by partition.
    :ivar stands: asked right before each portion of the answer is handed to the operating system, the first too. False: this node must not give
        the messages to anybody any more; the connection is aborted, and ``settle`` is told what was handed over before. None: they always may be.
    """

    messages: tuple[Delivered, ...]
    settle: Callable[[int], None]
    next: dict[int, int] | None = None
    stands: Callable[[], bool] | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What became of tokens that were shown. ``count``: those that took effect; ``lost``: the others, as they were sent, in their order."""

    count: int
    lost: tuple[str, ...] = ()


class Left(msgspec.Struct, frozen=True):
    """A message of a dead-letter topic that was not redriven, and why."""

    partition: int
    offset: int
    why: str


class Redriven(msgspec.Struct, frozen=True):
    """What a redrive did: how many letters it moved, and which it left."""

    moved: int
    left: tuple[Left, ...] = ()


class GroupItem(msgspec.Struct, frozen=True):
    """A group's state on one partition; ``oldest_ms`` is the age of the oldest message that is not done, None where nothing waits."""

    topic: str
    partition: int
    committed: int
    end: int
    lag: int
    leased: int
    oldest_ms: int | None
    node: str


class GroupView(msgspec.Struct, frozen=True):
    group: str
    application: str
    items: tuple[GroupItem, ...]


ResetTo = Literal["earliest", "latest"] | tuple[Literal["timestamp"], int] | dict[int, int]
"""Where a reset goes: an end of the log, the first message at or after a time (ms), or an offset for each partition."""


# --- HTTP -----------------------------------------------------------------------------------------------------------------------


class Answer(msgspec.Struct):
    """What an endpoint answers. ``content-length``, ``x-request-id`` and the contract's fixed headers are the wire's to add.

    :ivar headers: names in lower case; values are bytes without CR, LF or NUL (the wire refuses others as a bug of ours).
    :ivar settle: called once when it is known how much of the body was handed to the operating system on a connection that still stood:
        its number of bytes, ``len(body)`` when all of it was; -1 when the connection broke before even the head was, which an answer
        without a body could not tell from all of it. The wire calls it for every answer that carries one, come what may.
    :ivar stands: asked right before each portion is handed to the operating system, the head too: whether it may still be. Once it may not, the
        connection is aborted (RST), nothing more of it is written, and ``settle`` is told what was handed over before. None: it always may be.
    :ivar stream: instead of ``body``: called with a `psubd.interfaces.IOutlet` once the head was written.
    """

    status: int = 200
    body: bytes = b""
    headers: list[tuple[bytes, bytes]] = []
    settle: Callable[[int], None] | None = None
    stream: Callable[[Any], None] | None = None
    stands: Callable[[], bool] | None = None
