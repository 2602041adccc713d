"""Messages as JSON and NDJSON (contract, section 3)."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from psubd.model import Delivered
from psubd.shown import header_members, member, payload

NO_HEADERS: dict[str, Any] = {}


class Read(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One message of an answer. Every member is always there but the last three, which belong to a group (``attempt``) or to explicit acks. Nothing
    in it can be part of a cycle: the collector need not walk them."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: Any
    value: str | None
    encoding: str
    headers: dict[str, Any]
    attempt: int | None = None
    ack: str | None = None
    epoch: int | None = None


class Messages(msgspec.Struct, frozen=True):
    """A whole JSON answer. ``acked`` and ``lost`` are there where tokens were sent, ``next`` in a replay."""

    messages: list[Read]
    next: str | UnsetType = UNSET
    acked: int | UnsetType = UNSET
    lost: list[str] | UnsetType = UNSET


def as_read(delivered: Delivered) -> Read:
    """A message as its JSON members."""
    message = delivered.message
    value, key, headers = message.value, message.key, message.headers
    encoding = "utf-8"
    try:
        text = None if value is None else value.decode()
    except UnicodeDecodeError:
        text, encoding = payload(value)
    return Read(
        delivered.topic,
        delivered.partition,
        message.offset,
        message.timestamp,
        None if key is None else member(key),
        text,
        encoding,
        header_members(headers) if headers else NO_HEADERS,
        delivered.attempt,
        delivered.token,
        delivered.epoch,
    )


def json_lines(messages: Sequence[Delivered]) -> tuple[bytes, list[int]]:
    """One message a line, each line ended; and where each one's end is, in bytes from the beginning."""
    encode = msgspec.json.Encoder().encode_into
    lines = bytearray()
    ends: list[int] = []
    for delivered in messages:
        encode(as_read(delivered), lines, len(lines))
        lines += b"\n"
        ends.append(len(lines))
    return bytes(lines), ends
