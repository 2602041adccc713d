"""Record batches v2 (KIP-98) -> `Message`, at a fifth of the time that the driver's own parser takes.

Only for what is as it should be: whatever is odd in the least raises `Odd`, and the driver's parser says what it is (`records.decode`).
"""

from struct import Struct
from typing import Final

from crc32c import crc32c
from kafka import codec

from psubd.model import Headers, Message

HEADER: Final = Struct(">qiibIhiqqqhii")
"""Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and last timestamp, producer id, its epoch, base sequence,
count."""
BEFORE_LENGTH, BEFORE_CRC = 12, 21
"""Bytes that the length, and the CRC, do not count."""

MAGIC = 2
CODEC, APPEND_TIME, CONTROL = 0x07, 0x08, 0x20
DECODERS = {1: codec.gzip_decode, 2: codec.snappy_decode, 3: codec.lz4_decode, 4: codec.zstd_decode}

NO_EPOCH = -1


class Odd(Exception):
    """Something is not as it should be."""


def unpack(offset: int, data: bytes) -> tuple[list[Message], int, int]:
    """The records from ``offset`` on, where the next fetch goes on, and the leader epoch of the last batch, -1 without any. A batch at the end that
    is not whole does not count.

    :param data: batches of which no transaction was aborted. :raises Odd:
    """
    messages: list[Message] = []
    following, epoch, at, size = offset, NO_EPOCH, 0, len(data)
    while size - at >= BEFORE_LENGTH:
        end = at + BEFORE_LENGTH + int.from_bytes(data[at + 8 : at + BEFORE_LENGTH], signed=True)
        if end > size:
            break
        if end - at < HEADER.size:
            raise Odd("a batch that is shorter than its header")
        base, _, epoch, magic, crc, attributes, last_delta, first_ms, last_ms, _, _, _, count = HEADER.unpack_from(data, at)
        if magic != MAGIC or crc32c(memoryview(data)[at + BEFORE_CRC : end]) != crc:
            raise Odd("another format, or a CRC that does not fit")
        if not attributes & CONTROL:
            stamp = last_ms if attributes & APPEND_TIME else None
            kind = attributes & CODEC
            try:
                if kind:
                    body = bytes(DECODERS[kind](data[at + HEADER.size : end]))
                    read(body, 0, len(body), count, base, offset, first_ms, stamp, messages)
                else:
                    read(data, at + HEADER.size, end, count, base, offset, first_ms, stamp, messages)
            except Exception as broken:  # the codecs raise what they like
                raise Odd(type(broken).__name__) from broken
        following, at = base + last_delta + 1, end
    return messages, max(offset, following), epoch


def read(data: bytes, at: int, end: int, count: int, base: int, offset: int, first_ms: int, stamp: int | None, messages: list[Message]) -> None:
    """Add the batch's records from ``offset`` on, which stand at ``at``; they end just at ``end``. Numbers are zigzag varints, mostly of one byte:
    read in place, since calls would cost more than all else.

    :param stamp: the timestamp of all; None: each has its own. :raises Exception: they are not what they should be.
    """
    for _ in range(count):
        number = data[at]
        at += 1
        if number > 0x7F:
            number, at = longer(data, at, number)
        after = at + (number >> 1)
        if number & 1 or data[at]:
            raise Odd("a negative length, or attributes")
        number = data[at + 1]
        at += 2
        if number > 0x7F:
            number, at = longer(data, at, number)
        timestamp = first_ms + ((number >> 1) ^ -(number & 1)) if stamp is None else stamp
        number = data[at]
        at += 1
        if number > 0x7F:
            number, at = longer(data, at, number)
        place = base + ((number >> 1) ^ -(number & 1))
        number = data[at]
        at += 1
        if number > 0x7F:
            number, at = longer(data, at, number)
        if number & 1:
            key = None
        else:
            key = data[at : at + (number >> 1)]
            at += number >> 1
        number = data[at]
        at += 1
        if number > 0x7F:
            number, at = longer(data, at, number)
        if number & 1:
            value = None
        else:
            value = data[at : at + (number >> 1)]
            at += number >> 1
        if data[at]:
            headers, at = headers_at(data, at)
        else:
            headers = ()
            at += 1
        if at != after:
            raise Odd("a record of another length")
        if place >= offset or messages:
            messages.append(Message(place, timestamp, key, value, headers))
    if at != end:
        raise Odd("bytes behind the last record")


def headers_at(data: bytes, at: int) -> tuple[Headers, int]:
    """The headers whose count stands at ``at``, and what comes after them."""
    count, at = number_at(data, at)
    if count < 0:
        raise Odd("a negative count of headers")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        number = data[at]
        at += 1
        if number > 0x7F:
            number, at = longer(data, at, number)
        if number & 1:
            raise Odd("a header without a name")
        name = data[at : at + (number >> 1)].decode()
        at += number >> 1
        number = data[at]
        at += 1
        if number > 0x7F:
            number, at = longer(data, at, number)
        if number & 1:
            headers.append((name, None))
        else:
            headers.append((name, data[at : at + (number >> 1)]))
            at += number >> 1
    return tuple(headers), at


def number_at(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag varint, and what comes after it."""
    number = data[at]
    at += 1
    if number > 0x7F:
        number, at = longer(data, at, number)
    return (number >> 1) ^ -(number & 1), at


def longer(data: bytes, at: int, number: int) -> tuple[int, int]:
    """The varint whose first byte is ``number``, as it stands there (zigzag not undone), and what comes after it."""
    number &= 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    if number >> 64:
        raise Odd("a number of more than 64 bits")
    return number, at
