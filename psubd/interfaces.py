"""What the rooms promise each other, in walking order: the table of contents of psubd.

    publish    wire -> endpoints -> IGate -> IPublisher -> IStorage
    subscribe  wire -> endpoints -> IGate -> ISubscriber (delivery) <-> IStorage
    bind       wire -> manager -> IRegistrar -> IRegistry -> IGate (on every node)

All of it runs on the reactor's thread; what blocks lives behind a provider's own threads. A Deferred that is returned may be cancelled where
that is said; every failure that a client may be told is a `psubd.errors.PsubdError`. Providers are started and stopped by `psubd.compose`,
in the order in which they depend on each other.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from zope.interface import Attribute, Interface

from psubd.errors import PsubdError
from psubd.model import (
    Acks,
    Aim,
    Answer,
    Application,
    Binding,
    Bounds,
    Commit,
    CredentialKind,
    Credentials,
    Delivery,
    Elastic,
    Grant,
    GroupView,
    InstanceSpec,
    Mark,
    PartitionLayout,
    Poll,
    Position,
    Record,
    Redriven,
    Replay,
    ResetTo,
    Role,
    Slice,
    Standing,
    StorageLimits,
    StoredTopic,
    Token,
    Topic,
    TopicPartition,
    TopicSpec,
    Verdict,
    Wish,
)

# --- time -----------------------------------------------------------------------------------------------------------------------


class IClock(Interface):
    """Time, handed in by constructor. Two clocks: only `elapsed_ms` may decide how long something lasted."""

    def epoch_ms() -> int:
        """Wall clock: milliseconds since the epoch. May jump."""

    def elapsed_ms() -> int:
        """CLOCK_BOOTTIME in milliseconds: never jumps, and counts a suspended host's sleep."""

    def call_later(ms: float, call: Callable[..., Any], *args: Any) -> IDelayedCall:
        """Call ``call`` in ``ms`` milliseconds or later."""


# --- HTTP: what endpoints answer on ---------------------------------------------------------------------------------------------


class IExchange(Interface):
    """One request whose head and body have arrived, within the limits of its route. The wire makes it; an endpoint reads it."""

    method: str = Attribute("The method, upper case.")
    path: str = Attribute("The path as sent, without the query; for logs.")
    raw_query: bytes = Attribute("The query as sent, without the question mark; `psubd.fields.query` reads it.")
    headers: Sequence[tuple[bytes, bytes]] = Attribute("Field lines in order: name in lower case, value without outer blanks.")
    body: bytes = Attribute("The whole body; gzip undone.")
    request_id: str = Attribute("The client's own x-request-id if it was sane, else one of ours.")
    client: str = Attribute("The peer's address, for the audit.")
    secure: bool = Attribute("Whether it came over TLS.")
    kept: dict[str, Any] = Attribute(
        "What endpoints have derived from this very head (method, target and all field lines, byte for byte but for the number of content-length) in "
        "an earlier request; empty at first, and whenever it was let go. "
        "Whatever else an answer depends on (the body, what is registered, the time) must be judged anew each time."
    )

    def header(name: bytes) -> bytes | None:
        """The value of the single-valued header ``name`` (lower case), or None.

        :raises BadHeader: where it was sent twice.
        """


class IOutlet(Interface):
    """The body of an answer that stays open (`Answer.stream`). The wire makes it, after the head was written."""

    buffered: int = Attribute("Bytes written that the operating system has not taken yet: what a slow client costs.")

    def write(data: bytes) -> None:
        """Send some of the body. After the connection went away: nothing happens."""

    def finish() -> None:
        """End the body; the connection may go on."""

    def on_lost(lost: Callable[[], None]) -> None:
        """Call ``lost`` once when the connection went away, or the server stops, before `finish`."""


Endpoint = Callable[..., "Deferred[Answer] | Answer"]
"""Called with the exchange and the path's parts by keyword. Raises or fails with `PsubdError`; anything else is told as 500 `internal`.
The wire cancels the Deferred when the client goes away; the endpoint gives back what it holds."""


class Route(msgspec.Struct, frozen=True):
    """One method of one path.

    :ivar path: a template: ``/v1/pub/{topic}``; a part is one segment, percent-decoded once.
    :ivar max_body: bytes that the body may have (also after gzip is undone); 0: none is read.
    :ivar needs_length: a request without ``content-length`` and not chunked is 411.
    :ivar gzip: whether ``content-encoding: gzip`` is undone; elsewhere any coding is 415.
    :ivar head: whether HEAD answers as GET does, without the body (only where GET changes nothing).
    :ivar name: the route's name in metrics and in OpenAPI (``operationId``).
    :ivar doc: what OpenAPI says of it (manager port).
    :ivar admit: called before a body is read, with an exchange that has none yet: what it raises (`PsubdError`) is the answer, so that a
        stranger's body takes no memory. The endpoint judges again afterwards, since a key may end while a body comes in; where a small body came
        with its head, the endpoint alone judges.
    :ivar refusal: how an error is told on this route, also one that the wire finds (404 and 405 of the path too), given the error and the request's
        field lines; None: RFC 9457. Its status is the error's own unless the dialect has another.
    :ivar slash: one trailing slash more is taken as none.
    :ivar hot: asked so often that the data port serves it past Klein's tree; what it does must not depend on that.
    """

    method: str
    path: str
    endpoint: Endpoint
    name: str
    max_body: int = 0
    needs_length: bool = False
    gzip: bool = False
    head: bool = False
    doc: Any = None
    admit: "Callable[[IExchange], Any] | None" = None
    refusal: "Callable[[PsubdError, Sequence[tuple[bytes, bytes]]], Answer] | None" = None
    slash: bool = False
    hot: bool = False


# --- access: who may do what ----------------------------------------------------------------------------------------------------


class IGate(Interface):
    """The application border. Reads an in-memory index of the registry's snapshot: nothing here waits. Where the snapshot is too old to go by, all
    that judges a credential or a grant raises RegistryUnavailable."""

    serial: int = Attribute(
        "Rises with every change of what the gate goes by: what was looked up at one serial still holds at it, but for keys that end."
    )

    def publisher(shown: Credentials) -> Grant:
        """Who publishes with these. :raises BadCredentials: one answer for unknown, wrong and ended."""

    def subscriber(shown: Credentials) -> Grant:
        """Who subscribes with these. :raises BadCredentials:"""

    def may_publish(grant: Grant, topic: str, messages: int, size: int) -> Topic:
        """The topic, if the grant publishes on it and its rate allows ``messages`` of ``size`` bytes together now.

        :raises TopicNotBound: :raises RateLimited: and takes nothing from the rate then.
        """

    def may_subscribe(grant: Grant, topics: Sequence[str] | None) -> dict[str, Binding]:
        """The bindings with ``sub`` granted for ``topics`` (None: all), by the registry of this moment. :raises BadCredentials: where the
        grant's key has ended or its application is another one now. :raises TopicNotBound: for a topic that is not bound, or where none is
        left. :raises RateLimited: where all that are asked for are in debt. The caller changes nothing in it: while none of the topics has a
        rate, and nothing else has changed, the same dictionary comes again."""

    def watch(application: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` after each change of the application, its bindings or their topics (deleted too), and when one of its keys
        ends. Returns what ends the watch."""

    def spent(application: str, topic: str, messages: int, size: int) -> None:
        """Take what was delivered from the binding's rate for reading; into debt if need be. `may_subscribe` leaves out the topics that
        are in debt, and raises RateLimited where none is left."""

    def grant_of(application: str) -> Grant | None:
        """The application's present standing, without a credential; None: it is not there."""

    def topic(name: str) -> Topic | None:
        """The registered topic of that name."""

    def bindings_of(topic: str) -> dict[str, Binding]:
        """The topic's bindings by application."""


# --- services: the trade --------------------------------------------------------------------------------------------------------


class IPublisher(Interface):
    """Judges records before the storage sees them, picks their partitions, stores them."""

    def ready(topic: Topic) -> "Deferred[None] | None":
        """None where the topic can be judged now: the hot path. Else what asks the storage about it once; what `judge` says after it fired
        is final. Fails with StorageUnavailable, StorageTimeout."""

    def judge(topic: Topic, record: Record) -> Record:
        """The record with its partition and timestamp set, or the refusal that the request alone can tell.

        :raises TooLarge: over the limit of psubd or of the (adopted) topic, naming it. :raises BadHeader: timestamp or partition out of
            range, no key on a compacted topic. :raises TopicMissing: the topic is gone from the storage.
        """

    def judge_all(topic: Topic, records: Sequence[Record]) -> list[Record]:
        """`judge` of all, for many at a time; raises what one of them is refused with."""

    def post(record: Record, acks: Acks, told: "Callable[[Position | PsubdError], None]") -> None:
        """Store one judged record: `publish` for the hot path, as `IStorage.post`."""

    def publish(records: Sequence[Record], acks: Acks) -> "Deferred[list[Position | PsubdError]]":
        """Store judged records of one topic, in order; each is answered alone. ``acks`` 0: fired at once, positions not known: an empty list."""


class ISubscriber(Interface):
    """Groups: who gets which message. The rules are in `psubd.delivery`; this drives them with the storage and the clock."""

    def poll(grant: Grant, ask: Poll) -> "Deferred[Delivery]":
        """Fires as soon as there is one message, or empty after the ask's timeout. Cancelling withdraws the ask.

        Fails with TopicNotBound or BadCredentials the moment the grant no longer holds, TopicMissing, TooManyGroups, StorageUnavailable; InUse
        where somebody else has the group in the storage, OwnershipInDoubt where that befell a group while it was served.
        """

    def at_once(grant: Grant, ask: Poll) -> Delivery | None:
        """What `poll` would fire with before it returned, without a Deferred: the hot path. None: nothing is at hand that the ask may have, or
        it is refused: `poll` tells. Never raises."""

    def replay(grant: Grant, ask: Replay) -> "Deferred[Delivery]":
        """Read from a place, without any group. Cancelling withdraws the ask. Fails with OffsetOutOfRange past the end."""

    def ack(grant: Grant, tokens: Sequence[str]) -> "Deferred[Verdict]":
        """The messages of these leases are done. Takes effect when it fires; it is in the storage within the commit interval. A message that is
        done already counts; so does a lease that lapsed, or went with its node, as long as its message was not leased again.

        Each token is judged alone: one that was leased again, is forged, another application's, reset or revoked is in `Verdict.lost`. Fails with
        StorageUnavailable, StorageTimeout or OwnershipInDoubt where a group's standing cannot be told now: what took effect stays, and the
        call may be repeated."""

    def nack(grant: Grant, tokens: Sequence[str], delay_ms: int, dead: bool) -> "Deferred[Verdict]":
        """Back to the group, after ``delay_ms`` or the binding's backoff, whichever is longer; ``dead``: to the dead-letter topic at once, and it
        fires after that was tried. Only leases that stand; otherwise as `ack`. Fails with NoDeadLetter, and changes nothing then."""

    def extend(grant: Grant, tokens: Sequence[str], ack_timeout_ms: int) -> "Deferred[Verdict]":
        """The leases last so long from now on. Only leases that stand; otherwise as `ack`."""

    def groups(application: str | None, only: Callable[[str], bool] | None = None) -> "Deferred[list[GroupView]]":
        """All groups of the application (None: of everybody), by name, with the state of each partition. ``only``: those whose full names it lets
        through; nothing is asked of the storage for the others."""

    def group(name: str) -> "Deferred[GroupView]":
        """One group by its full name. Fails with NotFound."""

    def reset(group: str, topic: str, partitions: Sequence[int] | None, to: ResetTo, dry_run: bool, actor: str) -> "Deferred[dict[int, int]]":
        """Move the group's cursor, in use or not; what is leased there is lost. The new offsets by partition. The registry is written first.
        A group that somebody else wrote in the storage is taken over on purpose.

        Fails with BadParameter (no such partition, offset out of the log), TopicNotBound, InUse (somebody else is a member of it now).
        """

    def forget_group(group: str, actor: str) -> "Deferred[None]":
        """Delete the group: its cursors and its place in the registry. Polls that wait on it end NotFound. Fails with NotFound."""

    def listen(told: Callable[[str], None]) -> Callable[[], None]:
        """Call ``told`` with a line for each thing that an operator should know of a group and that nobody did to it, its kind first:
        ``group.places_missing shop orders partitions 3-5: ...``, ``group.contested shop ...``, ``group.regained shop``. Returns what ends it."""


class IConsumers(Interface):
    """Consumer instances: clients of Confluent's REST proxy, each with an id of its own in a group (its full name), whichever node they ask.

    An instance has partitions: its share of those that its group's instances subscribed to, or those that it was assigned by hand, and nobody else
    of the group gets their messages while it has them, the sub endpoint neither. It reads on from its own position, which begins where the group
    stands; what it read is done when it is committed, and given again to who has the partition next otherwise. All of it is in
    the registry but the positions: when its node dies it goes on at another one from what was committed.

    All calls but `enlist` fail with InstanceMissing, and renew the instance: one that nobody called for its time is dismissed. All fail with
    BadCredentials, TopicNotBound, StorageUnavailable, StorageTimeout, RegistryUnavailable, OwnershipInDoubt as `ISubscriber` does.
    """

    def enlist(grant: Grant, group: str, instance: str, spec: InstanceSpec) -> "Deferred[None]":
        """Make it; ``spec.wish`` may be set, serial and time are the node's. Fails with InstanceExists, TooManyGroups (too many instances, or
        groups)."""

    def dismiss(grant: Grant, group: str, instance: str) -> "Deferred[None]":
        """It leaves: its partitions go to the others of the group; what it was given and did not commit comes again. In auto-commit, what it was
        wholly given is done first."""

    def wish(grant: Grant, group: str, instance: str, wish: Wish) -> "Deferred[None]":
        """What it reads from now on, instead of what it read; ``Wish()``: nothing. The group's place on topics that are new to it is kept by the
        time this fires, so that ``latest`` misses nothing that is published after. Fails with IllegalState (assigned by hand and subscribed
        exclude each other until it wishes for nothing), PartitionMissing, NoPlace, BadParameter (the pattern)."""

    def look(grant: Grant, group: str, instance: str) -> "Deferred[Standing]":
        """How it stands."""

    def read(grant: Grant, group: str, instance: str, ask: Poll) -> "Deferred[Delivery]":
        """As `ISubscriber.poll` with ``ask.instance`` set: what its partitions have, in offset order each, from where it stands. One read of an
        instance at a time: the next waits until it is known what became of the one before, and goes on from there; what
        was not wholly written is given again. Not leased: `Delivered.token` and ``attempt`` are None."""

    def seek(grant: Grant, group: str, instance: str, aims: Sequence[Aim]) -> "Deferred[None]":
        """Read on there; the group's place stays. All or none. Fails with IllegalState (a partition that it does not have), PartitionMissing,
        OffsetOutOfRange."""

    def commit(grant: Grant, group: str, instance: str, marks: Sequence[Mark] | None) -> "Deferred[list[Mark]]":
        """Take the group's place there, in storage when this fires: what is below is done, also where somebody else has it. A mark
        below what is done is a reset of that partition. None: what was wholly written to the client. The marks as they stand then, with
        `Mark.consumed`. Fails with IllegalState where a partition went to another instance meanwhile (the others are committed), PartitionMissing,
        OffsetOutOfRange (past the end), BadParameter."""

    def committed(grant: Grant, group: str, instance: str, partitions: Sequence[TopicPartition]) -> "Deferred[list[Mark]]":
        """The group's places. Fails with PartitionMissing."""


class IRedriver(Interface):
    """Dead letters back to where they came from."""

    def redrive(group: str, topic: str, limit: int, actor: str) -> "Deferred[Redriven]":
        """Publish up to ``limit`` letters of ``group`` (full name) that lie in the dead-letter topic ``topic`` to their origin again, for that group
        only. A letter is moved once; what was moved is kept in the registry. Only sealed letters, and only to an origin whose binding names
        ``topic``: the others are left and told.

        Fails with NotFound (no such group), TopicMissing, StorageUnavailable, StorageTimeout, RegistryUnavailable; what was moved before stays."""


class ICarryover(Interface):
    """What a node leaves for its own next start: leases outlive a restart on SIGTERM, and no other end of the process."""

    def keep(data: bytes) -> None:
        """Keep it durably. :raises OSError:"""

    def take() -> bytes | None:
        """What was kept, this once: a crash after it finds nothing. None: nothing was."""


class IRegistrar(Interface):
    """Applications, topics, bindings, tokens: every rule of registering them. ``actor`` is who did it, for the audit ("token ci, 10.0.0.7").

    ``if_match``: the version that the caller saw (`Binding.version`, else `Entry.serial`); another one now: VersionMismatch. Fails with NotFound,
    Exists, InUse, BadBody, RegistryUnavailable, StorageUnavailable, and changes nothing then.
    """

    def create_application(id: str, name: str, actor: str) -> "Deferred[tuple[Application, dict[str, str]]]":
        """Make it; the second value holds ``pubkey``, ``secret`` and ``subkey`` in the clear, this once."""

    def rotate(id: str, which: CredentialKind, overlap_s: int, actor: str, if_match: int | None) -> "Deferred[tuple[Application, str]]":
        """A new key of that kind; the present one ends in ``overlap_s`` seconds, an older one at once. The new key in the clear, this once."""

    def delete_application(id: str, force: bool, actor: str, if_match: int | None) -> "Deferred[dict[str, list[str]]]":
        """InUse while it owns topics or is bound, unless ``force``: then those go too, and are named: ``topics``, ``bindings``, ``groups``."""

    def create_topic(
        spec: TopicSpec, owner: str, elastic: Elastic | None, partitions_given: bool, actor: str, adopt: bool = True, most: int | None = None
    ) -> "Deferred[Topic]":
        """Make it in the storage, or adopt it as it is there; bind its owner for pub. Exists where it is registered, or where it is in the
        storage with other partitions than were given; without ``adopt``, where it is in the storage at all. Forbidden where the owner owns
        ``most`` topics already, by the registry at the moment of the change."""

    def alter_topic(id: str, changes: Mapping[str, Any], actor: str, if_match: int | None) -> "Deferred[Topic]":
        """``changes``: partitions (more only), retention_ms, retention_bytes, elastic, config."""

    def delete_topic(id: str, force: bool, data: bool, actor: str, if_match: int | None) -> "Deferred[dict[str, list[str]]]":
        """InUse while another application is bound or a binding names it as its dead-letter topic, unless ``force``. An adopted topic's data
        stays unless ``data``."""

    def put_binding(binding: Binding, actor: str, if_match: int | None) -> "Deferred[tuple[Binding, bool]]":
        """Set the whole binding (its serials are the registrar's). True: it was made. Where ``sub`` is granted now, the application's own
        group gets its place in the storage first."""

    def delete_binding(application: str, topic: str, actor: str, if_match: int | None) -> "Deferred[None]":
        """Revoke it; the application's cursors on the topic are forgotten."""

    def create_token(name: str, role: Role, actor: str) -> "Deferred[tuple[Token, str]]":
        """A manager token; in the clear this once."""

    def delete_token(name: str, actor: str, if_match: int | None = None) -> "Deferred[None]":
        """End it. InUse for the last admin token."""

    def token_of(shown: str) -> Token | None:
        """Whose token this is, or None."""


# --- registry: a small tree with versions ---------------------------------------------------------------------------------------


class Entry(msgspec.Struct, frozen=True):
    """What stands at a path. ``version`` rises with each write of the path, from 1; ``serial`` is that of the change that wrote it last."""

    data: bytes
    version: int
    serial: int


class Put(msgspec.Struct, frozen=True):
    path: str
    data: bytes


class Delete(msgspec.Struct, frozen=True):
    path: str


class Change(msgspec.Struct, frozen=True):
    """One change that was made: ``paths`` in the order written; ``what`` and ``actor`` are for the audit (never a key, hash or payload)."""

    serial: int
    at_ms: int
    actor: str
    what: str
    paths: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True):
    """What a change writes, all or none. ``what``: one line for the audit, as ``application.created shop``."""

    what: str
    writes: tuple[Put | Delete, ...]


class ISnapshot(Interface):
    """The whole tree in memory, as of one serial. Paths: ``/applications/<id>``, ``/topics/<id>``, ``/bindings/<application>``,
    ``/tokens/<name>``, ``/groups/<full name>``, ``/instances/<full name>``, ``/redrives/<full name>``, ``/secrets/<name>``; a path has at most
    1 MiB of data (ZooKeeper's limit)."""

    serial: int = Attribute("Serial of the last change that it holds; 0: none.")

    def get(path: str) -> Entry | None:
        """What stands at the path."""

    def children(parent: str) -> Sequence[str]:
        """The names below ``parent`` ("/applications"), sorted."""


class IRegistry(Interface):
    """The registered things, on one node or many. Changes are numbered by a serial that rises by one, over all nodes."""

    def start() -> "Deferred[None]":
        """Fires once the first snapshot is there. Fails with ConfigError where it can never work (not writable, a newer schema)."""

    def stop() -> "Deferred[None]":
        """Fires when all is closed; changes that were begun are finished first."""

    def snapshot() -> ISnapshot:
        """The tree as this node knows it now. The object is a live view: read what you need, keep nothing."""

    def change(actor: str, plan: Callable[[ISnapshot, int], Plan]) -> "Deferred[Change]":
        """Make one change. ``plan`` is called with the newest snapshot and the serial that the change will have, and returns what to write;
        it is pure, and is called again when somebody else wrote in between. What it raises fails the Deferred, and nothing is written.

        Fires after the snapshot here shows the change and the listeners were called. Fails with RegistryUnavailable; where the outcome
        cannot be told (a lost connection), it is read back first.
        """

    def sync() -> "Deferred[None]":
        """Fires when the snapshot here shows every change that had been answered anywhere before the call."""

    def listen(changed: Callable[[Change], None]) -> Callable[[], None]:
        """Call ``changed`` for every change, after the snapshot shows it, in order. Returns what ends it."""

    def history(after: int) -> Sequence[Change]:
        """The changes with a greater serial than ``after``, of the last 1,000 that are kept, in order."""

    def trouble() -> str | None:
        """Why the registry cannot be written now, for ``/ready`` and status; None: it can."""


class INodes(Interface):
    """The nodes that serve together. Alone, one."""

    node_id: str = Attribute("This node's id.")
    epoch: int = Attribute("Rises with each start of this node, also after a crash; there once the registry has started.")

    def nodes() -> Sequence[Mapping[str, Any]]:
        """All of them: ``id``, ``version``, ``mode``, ``started_ms``, ``address``, ``eligible``, ``self``."""


# --- peers: node to node --------------------------------------------------------------------------------------------------------


class IPeers(Interface):
    """Other nodes, by member key (`IMembership`): one link with each, that carries frames both ways however many calls wait."""

    def start() -> "Deferred[None]":
        """Begin to keep links with the members; verbs are served by then. Fires at once: links come about by themselves."""

    def stop() -> "Deferred[None]":
        """Calls end as at a lost link; what was answered before goes out. Fires when all connections are closed."""

    def call(member: str, verb: str, body: bytes, timeout_ms: int | None) -> "Deferred[bytes]":
        """Ask another node. Cancelling withdraws it at the other end too: its Deferred is cancelled.

        Short bodies (64 KiB) of one node arrive in the order given; a longer one, at most 128 MiB, after all of its pieces. Fails with `PsubdError`:
        what the other end failed with, same class and members; PeerLost (no link, or it broke before the answer came: it is not told
        whether it was done); PeerTimeout (likewise); TooLarge and OverBudget (surely not done).
        """

    def tell(member: str, verb: str, body: bytes) -> bool:
        """Tell another node something that it does not answer. False: it will not arrive, since there is no link now or too much waits for it."""

    def serve(verb: str, handler: "Callable[[str, bytes], Deferred[bytes] | bytes]") -> None:
        """Answer ``verb`` (1 to 64 ASCII characters) with what ``handler`` gives for the member that asks and the body. What it raises or fails
        with is told to the caller where it is a `PsubdError`; anything else is logged and told as Internal. For what was told, only logged."""

    def linked(member: str) -> bool:
        """Whether a call would go out now."""

    def on_lost(lost: Callable[[str], None]) -> Callable[[], None]:
        """Call ``lost`` with the member whenever a link broke. The handlers of calls that came over it were cancelled before, and calls over it have
        failed. Returns what ends it."""


# --- who serves which groups ----------------------------------------------------------------------------------------------------


class Member(msgspec.Struct, frozen=True):
    """A node that is there now: its znode stands.

    :ivar key: ``<id>-<session id, hex>``, another one for each session. :ivar address: ``host:port`` of its peer port; None: none.
    :ivar load: groups loaded.
    """

    key: str
    id: str
    address: str | None
    version: str
    mode: str
    started_ms: int
    eligible: bool
    load: int
    self: bool


class Claim(msgspec.Struct, frozen=True):
    """Who serves a slot: `Member.key`, and the claim's epoch, which rises with each claim of any slot (ZooKeeper's czxid)."""

    member: str
    epoch: int


class IMembership(Interface):
    """Which node serves which groups. A group falls into one of ``slots`` (`psubd.slots.slot_of`); a node serves a slot if and only if its claim
    stands and its own lease does. Alone, a node serves all. With a registry of many nodes it is the registry's ``membership``."""

    slots: int = Attribute("How many slots there are: 256, as the registry's root says; alone: 1. There once the registry has started.")
    key: str = Attribute("This node's member key; another one after a session that ended.")

    def members() -> Mapping[str, Member]:
        """The nodes by key, as far as this node knows."""

    def claims() -> Mapping[int, Claim]:
        """Who serves what, by slot, as far as this node knows."""

    def epoch_of(slot: int) -> int | None:
        """The epoch of this node's claim on the slot, if claim and lease stand at this very instant; None: it must not act. Compares inline, without
        I/O: asked at each grant, ack and commit."""

    def lease_ends_ms() -> int:
        """When this node's lease ends unless it is confirmed before, on `IClock.elapsed_ms`."""

    def session_ms() -> int:
        """How long a session lasts that nothing is heard of, as the registry granted it; as it was asked for, until it has granted one. 0: there are
        no sessions, since there is one node."""

    def claim(slot: int) -> "Deferred[int]":
        """Take the slot; its epoch. Fails with InUse (somebody has it), RegistryUnavailable. Where the connection was lost in the middle, it is
        read back first."""

    def release(slot: int) -> "Deferred[None]":
        """Give the slot back: `epoch_of` is None from the call on, and others may claim it once it fires. Not held: done."""

    def declare(eligible: bool, load: int) -> "Deferred[None]":
        """What the other nodes are told of this one. Fails with RegistryUnavailable; they are told all the same as soon as that is over."""

    def locate(address: str | None) -> "Deferred[None]":
        """Where other nodes reach this one; as `declare`."""

    def listen(changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` after members, claims, the session or the lease changed; the end of the lease (noticed late after a stop) too. Returns
        what ends it."""


class ISeats(Interface):
    """The groups of the slots that this node serves. Whoever drives it holds the claims (`IMembership`); alone, all is seated from the start on."""

    def take_over(slot: int, epoch: int, parcel: bytes | None) -> None:
        """Groups of the slot may be loaded from now on, under that claim. A slot that is seated already with the same epoch: nothing happens; with
        another one: as though it had been dropped before.

        :param parcel: what `hand_over` gave on the node that served the slot before. None: nobody handed it over."""

    def hand_over(slot: int) -> "Deferred[bytes]":
        """Stop serving the slot, in good order: nothing more is granted, polls that wait fail with Moved, and so does whatever comes for the slot
        from the call on. Fires, after at most a few seconds, with what the next node goes on from: answers in auto mode that were not settled by
        then are given back and do not stand any more (`Delivery.stands`), and what is done is committed. From then on nothing of the slot
        acts here. Never fails; a slot that is not seated, or ends meanwhile (`drop`), gives b"" (as a parcel: nothing to go on from)."""

    def drop(slot: int) -> None:
        """The claim is gone: groups of the slot end at once. Polls fail with Moved, answers that are being written do not stand any more, nothing
        is committed. Not seated: nothing happens."""

    def seated() -> Mapping[int, int]:
        """The epochs of the slots that are served here, by slot; without those that are being handed over."""

    def loaded() -> int:
        """How many groups are in memory."""


# --- storage: Kafka or else -----------------------------------------------------------------------------------------------------


class IStorage(Interface):
    """A log per topic and partition, and the groups' places in it. Stateless to read; nothing here knows a tenant.

    Any call may fail with StorageUnavailable (surely not done) or StorageTimeout (may be done), within the storage's own timeout. Records
    are given and taken in batches; no thread hop a message.
    """

    limits: StorageLimits = Attribute("Fixed bounds of this storage.")

    def start() -> "Deferred[None]":
        """Open or reach the storage. Fails with ConfigError where it can never work. A storage that is away is not a failure: it fires, goes on
        trying, and says so in `trouble`."""

    def stop() -> "Deferred[None]":
        """Finish what was accepted, then close. Nothing is accepted after the call."""

    def trouble() -> str | None:
        """Why it cannot serve now, for ``/ready`` and status; None: it can."""

    def create_topic(spec: TopicSpec) -> "Deferred[StoredTopic]":
        """Make it. Fails with Exists (nothing changed), BadBody (a config that it does not take)."""

    def describe(topics: Sequence[str]) -> "Deferred[dict[str, StoredTopic]]":
        """What is there now, asked afresh; a topic that is not there is left out."""

    def known(topic: str) -> StoredTopic | None:
        """What `describe` would say, from memory, for the hot path. None: not there, or not looked at yet: ask `describe`."""

    def grow(topic: str, partitions: int) -> "Deferred[StoredTopic]":
        """Give the topic so many partitions, more than it has. Fails with TopicMissing, BadBody."""

    def configure(topic: str, changes: Mapping[str, Any]) -> "Deferred[StoredTopic]":
        """Set ``retention_ms``, ``retention_bytes`` (None: no bound) or ``config`` (a dict of strings). Fails with TopicMissing, BadBody."""

    def delete_topic(topic: str) -> "Deferred[None]":
        """Delete it with its data. One that is not there: done."""

    def post(record: Record, acks: Acks, told: "Callable[[Position | PsubdError], None]") -> None:
        """Append one judged record: `publish` for the hot path. ``told`` is called once with what came of it, on the reactor's thread, never within
        this call; with acks ``0`` the record is accepted when this returns, and ``told`` is never called (a failure is logged). Calls of one
        turn of the reactor cross to the storage together, in order.

        :raises StorageUnavailable: it is not accepted, and ``told`` will not be called.
        """

    def publish(records: Sequence[Record], acks: Acks) -> "Deferred[list[Position | PsubdError]]":
        """Append judged records (partition set). Per partition in the order given; one record's failure is no other's. ``all``: on stable
        storage, on every in-sync replica, before it fires. ``0``: fires when accepted, with an empty list."""

    def read(topic: str, partition: int, offset: int, max_records: int, max_bytes: int) -> "Deferred[Slice]":
        """Committed records from ``offset`` on, at once: at least one where there is one, whatever ``max_bytes`` says. An offset before the
        log's start: from its start; past its end: an empty slice with the bounds. Fails with TopicMissing (also for the partition)."""

    def watch(topic: str, partition: int, offset: int) -> "Deferred[None]":
        """Fires when a record at ``offset`` or later may be there to read, at once where one is; also when the topic went away or grew, and when
        the storage is cut off from it, so that who waits finds that out by reading. Cancel to withdraw it. Cheap: tens of thousands may wait."""

    def layout(topic: str) -> "Deferred[dict[int, PartitionLayout]]":
        """By partition, where it lies now. Fails with TopicMissing."""

    def brokers() -> "Deferred[tuple[int, ...]]":
        """The brokers that are there now, sorted; a storage without brokers: (0,)."""

    def bounds(topic: str) -> "Deferred[dict[int, Bounds]]":
        """First and end offset of every partition. Fails with TopicMissing."""

    def offset_at(topic: str, timestamp: int) -> "Deferred[dict[int, int]]":
        """For every partition the first offset whose record's timestamp is ``timestamp`` (ms) or later; its end where there is none."""

    def log_ends(topic: str, epochs: Mapping[int, int]) -> "Deferred[dict[int, int]]":
        """By partition, where the log of that epoch (`Commit.log_epoch`) ended: a place past it is of records that were cut off. A partition is
        left out where the log of that epoch was not cut, or nothing is known of it. Fails with TopicMissing, StorageUnavailable, StorageTimeout."""

    def commit(group: str, places: Mapping[TopicPartition, Commit]) -> "Deferred[dict[TopicPartition, PsubdError]]":
        """Keep the group's places, durably; the failed ones with why. All that a group has to say goes in one call. InUse: somebody else has
        the group, with members or with places that psubd did not write; theirs are never overwritten."""

    def committed(group: str) -> "Deferred[dict[TopicPartition, Commit]]":
        """All places of the group that are kept. Fails with InUse where psubd did not write them, until `adopt`."""

    def forget(group: str, topic: str | None) -> "Deferred[None]":
        """Drop the group's places on the topic (None: all). None there: done."""

    def adopt(group: str) -> "Deferred[None]":
        """Take the group over on purpose: places that psubd did not write, which otherwise fail every call on the group with InUse, no longer
        count. Where nobody else can write places: nothing happens."""

    def status() -> Mapping[str, Any]:
        """For the status page: ``kind`` and what an operator wants to know. JSON values; no credential."""


# --- plugins: which storages and registries there are ---------------------------------------------------------------------------


class Environment(msgspec.Struct, frozen=True):
    """What a factory may use to build with.

    :ivar state: the state folder, which exists and can be written.
    :ivar settings: the configuration's table for this scheme (``[storage.sqlite]``), as TOML gave it.
    :ivar reactor: IReactorCore, IReactorTime, IReactorThreads, IReactorFromThreads.
    :ivar metrics: a `prometheus_client.CollectorRegistry` for the provider's own metrics.
    :ivar mode: what this node serves: ``pubsub``, ``pub`` or ``sub``.
    """

    state: str
    settings: Mapping[str, Any]
    clock: IClock
    reactor: Any
    metrics: Any
    mode: str = "pubsub"


class IStorageFactory(Interface):
    """A plugin that provides storages for one URL scheme. Found with `twisted.plugin` under ``psubd/plugins/``."""

    scheme: str = Attribute("As in ``sqlite:``; lower case.")
    usage: str = Attribute("One line for --help: the URL's form and what it is.")
    shared: bool = Attribute("Whether many nodes see the same log. One that is not is refused with a registry of many nodes.")

    def check(url: str, settings: Mapping[str, Any]) -> list[str]:
        """Every mistake in the URL and the settings, a line each; touches nothing."""

    def build(url: str, environment: Environment) -> IStorage:
        """The storage, not started."""


class IRegistryFactory(Interface):
    """A plugin that provides registries for one URL scheme."""

    scheme: str = Attribute("As in ``sqlite:``; lower case.")
    usage: str = Attribute("One line for --help.")
    shared: bool = Attribute("Whether many nodes share it.")

    def check(url: str, settings: Mapping[str, Any]) -> list[str]:
        """Every mistake in the URL and the settings, a line each; touches nothing."""

    def build(url: str, environment: Environment) -> IRegistry:
        """The registry, not started."""
