"""Messages as bytes: how a row holds one, and how a whole answer is decoded."""

from collections.abc import Callable

import msgspec

from psubd.model import Headers, Message

pack: Callable[[tuple[int, int, bytes | None, bytes | None, Headers]], bytes] = msgspec.msgpack.Encoder().encode
"""A message (offset, timestamp, key, value, headers) as an array in msgpack."""

_unpack = msgspec.msgpack.Decoder(list[tuple[int, int, bytes | None, bytes | None, Headers]]).decode

ARRAY_32 = b"\xdd"
"""msgpack's "array of so many" mark, a four-byte big-endian count behind it; packed messages in a row make it a list."""


def unpack(count: int, packed: bytes) -> list[Message]:
    """``count`` packed messages in a row, in the order of their offsets.

    :raises msgspec.DecodeError: for bytes that `pack` did not make: the file is damaged.
    """
    messages = [Message(*fields) for fields in _unpack(ARRAY_32 + count.to_bytes(4, "big") + packed)]
    messages.sort(key=_offset)  # SQLite concatenates in the order of the inner query, but promises nothing
    return messages


def _offset(message: Message) -> int:
    return message.offset
