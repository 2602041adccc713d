"""What nodes say to each other about groups (`psubd.services.remote_owner`, `remote_edge`): MessagePack, payloads as bytes.

poll     AskedPoll                 -> messages            the answer is settled with `settle`, under the number that the ask gave itself
settle   [[number, count], ...]    -> empty               said again until it is answered
recall   [number, ...]             -> [[number, count]]   the owner's: the messages of these polls must not be given to anybody any more
hold     nothing                   -> ms                  how long the node that asks may go on with what it got (`remote_holds`)
ack, nack, extend   AskedLeases    -> Verdict
group    a name                    -> GroupView
groups   an application or null    -> [GroupView, ...]    of the groups that the node serves
reset    AskedReset                -> {partition: offset}
forget   [group, actor]            -> empty
redrive  AskedRedrive              -> Redriven
instance AskedInstance             -> what the call gives, or null
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import msgspec

from psubd.errors import OwnershipInDoubt
from psubd.model import Aim, Delivered, Headers, InstanceSpec, Mark, Message, Poll, ResetTo, TopicPartition, Wish

T = TypeVar("T")

encode = msgspec.msgpack.encode


class Caller(msgspec.Struct, frozen=True, array_like=True):
    """Who asks, so that the owner's gate can judge it: never a key, but the digests of those that were shown.

    :ivar serial: of the application. :ivar seen: the registry serial that the node that judged first has seen: the owner catches up with it.
    """

    application: str
    serial: int
    digests: tuple[str, ...]
    until_ms: int | None
    seen: int


class AskedPoll(msgspec.Struct, frozen=True, array_like=True):
    """``number``: never used twice by the node that asks."""

    number: int
    caller: Caller
    ask: Poll


class AskedLeases(msgspec.Struct, frozen=True, array_like=True):
    """``ms``: a nack's delay, or what an extend asks for. ``dead``: of a nack. All tokens are of groups in ``slot``."""

    caller: Caller
    slot: int
    tokens: tuple[str, ...]
    ms: int = 0
    dead: bool = False


class AskedReset(msgspec.Struct, frozen=True, array_like=True):
    group: str
    topic: str
    partitions: tuple[int, ...] | None
    to: ResetTo
    dry_run: bool
    actor: str
    seen: int


class AskedRedrive(msgspec.Struct, frozen=True, array_like=True):
    group: str
    topic: str
    limit: int
    actor: str
    seen: int


class AskedName(msgspec.Struct, frozen=True, array_like=True):
    """A group, or an application; ``actor``: who forgets it."""

    name: str | None
    seen: int
    actor: str = ""


class Enlist(msgspec.Struct, frozen=True, array_like=True, tag="enlist"):
    spec: InstanceSpec


class Dismiss(msgspec.Struct, frozen=True, array_like=True, tag="dismiss"):
    pass


class Wished(msgspec.Struct, frozen=True, array_like=True, tag="wish"):
    wish: Wish


class Look(msgspec.Struct, frozen=True, array_like=True, tag="look"):
    pass


class Seek(msgspec.Struct, frozen=True, array_like=True, tag="seek"):
    aims: tuple[Aim, ...]


class Marked(msgspec.Struct, frozen=True, array_like=True, tag="commit"):
    marks: tuple[Mark, ...] | None


class Places(msgspec.Struct, frozen=True, array_like=True, tag="committed"):
    partitions: tuple[TopicPartition, ...]


InstanceCall = Enlist | Dismiss | Wished | Look | Seek | Marked | Places


class AskedInstance(msgspec.Struct, frozen=True, array_like=True):
    """What is asked of a consumer instance, but for its reads, which are polls."""

    caller: Caller
    group: str
    instance: str
    call: InstanceCall


Row = tuple[str, int, int, int, bytes | None, bytes | None, Headers, int | None, str | None, int | None]
"""A delivered message: topic, partition, offset, timestamp, key, value, headers, attempt, token, epoch."""

Settled = tuple[int, int]
"""A poll's number, and how many of its messages were handed over."""

Verb = Literal["ack", "nack", "extend"]

ROWS = msgspec.msgpack.Decoder(list[Row])
POLLS = msgspec.msgpack.Decoder(AskedPoll)


def encode_messages(messages: Sequence[Delivered]) -> bytes:
    return encode([row_of(delivered) for delivered in messages])


def row_of(delivered: Delivered) -> Row:
    read = delivered.message
    return (
        delivered.topic,
        delivered.partition,
        read.offset,
        read.timestamp,
        read.key,
        read.value,
        read.headers,
        delivered.attempt,
        delivered.token,
        delivered.epoch,
    )


def decode_messages(body: bytes) -> tuple[Delivered, ...]:
    """:raises OwnershipInDoubt: a node of another version said it."""
    try:
        rows = ROWS.decode(body)
    except msgspec.MsgspecError as wrong:
        raise unread(wrong) from None
    return tuple(delivered_of(row) for row in rows)


def delivered_of(row: Row) -> Delivered:
    topic, partition, offset, timestamp, key, value, headers, attempt, token, epoch = row
    return Delivered(topic, partition, Message(offset, timestamp, key, value, headers), attempt, token, epoch)


def decode_poll(body: bytes) -> AskedPoll:
    """:raises OwnershipInDoubt:"""
    try:
        return POLLS.decode(body)
    except msgspec.MsgspecError as wrong:
        raise unread(wrong) from None


def decode(body: bytes, kind: type[T] | Any) -> T:
    """:raises OwnershipInDoubt: a node of another version said it."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.MsgspecError as wrong:
        raise unread(wrong) from None


def decode_settled(body: bytes) -> list[Settled]:
    """:raises OwnershipInDoubt:"""
    settled: list[Settled] = decode(body, list[Settled])
    return settled


def unread(wrong: Exception) -> OwnershipInDoubt:
    """Not BadBody: to a client it is a node of another version, which will be replaced."""
    return OwnershipInDoubt(f"what another node said cannot be read ({wrong}); is it of another version?")
