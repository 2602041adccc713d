"""Record batches v2 (KIP-98) -> `Message`, at a fifth of the time that the driver's own parser takes.

Only for what is as it should be: whatever is odd in the least raises `Odd`, and the driver's parser says what it is (`records.decode`).

Records that follow each other and are laid out alike, as those of one size are, are read together, a column at a time (`run`): at a quarter of that.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import chain, repeat
from struct import Struct
from typing import Final, NamedTuple

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

LEAST_RUN, MOST_RUN = 16, 512
"""Records that are read together: fewer are not worth it, and more would only cost more where they turn out to be different."""

PATIENCE, MOST_PATIENCE = 16, 1024
"""Records until reading them together is tried again where it failed: twice as many each time."""

HIGH = bytes(range(0x80, 0x100))
"""The bytes of a varint but the last."""

PLACED = bytes(range(0, 0x80, 2)), *(bytes(each) for each in zip(*((delta << 1 & 0x7F | 0x80, delta >> 6) for delta in range(64, 8192)), strict=True))
"""The varints of the offsets 0 to 63, which are of one byte, and the first and second bytes of those of 64 to 8,191."""


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
    """Add the batch's records from ``offset`` on, which stand at ``at``; they end just at ``end``. Numbers are zigzag varints, mostly of one byte or
    two: read in place, since calls would cost more than all else.

    :param stamp: the timestamp of all; None: each has its own. :raises Exception: they are not what they should be.
    """
    left, tries, patience = count, 0, PATIENCE // 2
    while left > 0:
        begin = at
        number = data[at]
        at += 1
        if number > 0x7F:
            if data[at] < 0x80:
                number += (data[at] << 7) - 0x80
                at += 1
            else:
                number, at = longer(data, at, number)
        after = at + (number >> 1)
        if number & 1 or data[at]:
            raise Odd("a negative length, or attributes")
        at += 1
        stamped = at
        number = data[at]
        at += 1
        if number > 0x7F:
            number, at = longer(data, at, number)
        timestamp = first_ms + ((number >> 1) ^ -(number & 1)) if stamp is None else stamp
        placed = at
        number = data[at]
        at += 1
        if number > 0x7F:
            if data[at] < 0x80:
                number += (data[at] << 7) - 0x80
                at += 1
            else:
                number, at = longer(data, at, number)
        place = base + ((number >> 1) ^ -(number & 1))
        keyed = at
        number = data[at]
        at += 1
        if number > 0x7F:
            number, at = longer(data, at, number)
        if number & 1:
            key = None
        else:
            key = data[at : at + (number >> 1)]
            at += number >> 1
        valued = at
        number = data[at]
        at += 1
        if number > 0x7F:
            if data[at] < 0x80:
                number += (data[at] << 7) - 0x80
                at += 1
            else:
                number, at = longer(data, at, number)
        if number & 1:
            value = None
        else:
            value = data[at : at + (number >> 1)]
            at += number >> 1
        if data[at]:
            headers, at = headers_at(data, at)
            tries = MOST_PATIENCE
        else:
            headers = ()
            at += 1
        if at != after:
            raise Odd("a record of another length")
        if place >= offset or messages:
            messages.append(Message(place, timestamp, key, value, headers))
        left -= 1
        tries -= 1
        if tries < 0 and left >= LEAST_RUN and value is not None and data[at] == data[begin]:
            shape = Shape(at - begin, stamped - begin, placed - begin, keyed - begin, key, valued - begin, value)
            found = run(data, at, min(left, MOST_RUN, (end - at) // shape.size), shape, base, place + 1, first_ms, stamp)
            if found:
                messages += found if messages else [message for message in found if message.offset >= offset]
                at += len(found) * shape.size
                left -= len(found)
            else:
                tries = patience = min(2 * patience, MOST_PATIENCE)
    if at != end:
        raise Odd("bytes behind the last record")


class Shape(NamedTuple):
    """How a record without headers is laid out: ``size`` bytes, and where in it what begins. ``key`` and ``value`` are its own."""

    size: int
    stamped: int
    placed: int
    keyed: int
    key: bytes | None
    valued: int
    value: bytes


def run(data: bytes, at: int, most: int, shape: Shape, base: int, place: int, first_ms: int, stamp: int | None) -> list[Message]:
    """The records at ``at`` that are laid out as the one before them, whose offsets are ``place`` and those that follow it. Some may be left over;
    an empty list where it is not worth it.

    :param most: so many there may be, and their bytes.
    """
    size, key = shape.size, shape.key
    key_at, value_at = shape.valued - len(key or b""), size - 1 - len(shape.value)
    count = alike(data, at, most, size, (*range(shape.stamped), *range(shape.keyed, key_at), *range(shape.valued, value_at), size - 1))
    delta, wide = place - base, shape.keyed - shape.placed
    count = min(count, (64 if wide == 1 else 8192) - delta)
    if count < LEAST_RUN or wide > 2 or delta < (0 if wide == 1 else 64):
        return []
    stamps = stamps_of(data, at + shape.stamped, count, size, shape.placed - shape.stamped, first_ms, stamp)
    if stamps is None or not follow(data, at + shape.placed, count, size, wide, delta):
        return []
    cut = layout(key_at, len(key or b""), value_at, len(shape.value), size).iter_unpack(memoryview(data)[at : at + count * size])
    keys: Iterable[bytes | None] = repeat(key)
    values: Iterable[bytes] = chain.from_iterable(cut)
    if key:
        keys, values = zip(*cut, strict=True)
    return list(map(Message, range(place, place + count), stamps, keys, values, repeat(())))


@lru_cache(maxsize=1024)
def layout(key_at: int, key_size: int, value_at: int, value_size: int, size: int) -> Struct:
    """Cuts the key, unless it is empty, and the value out of a record."""
    if key_size:
        return Struct(f"{key_at}x{key_size}s{value_at - key_at - key_size}x{value_size}s{size - value_at - value_size}x")
    return Struct(f"{value_at}x{value_size}s{size - value_at - value_size}x")


def alike(data: bytes, at: int, count: int, size: int, columns: tuple[int, ...]) -> int:
    """How many of the first ``count`` records of that size have in these columns what the record before them has."""
    for column in columns:
        if count < LEAST_RUN:
            break
        begin = at + column
        found = data[begin : at + count * size : size]
        count -= len(found.lstrip(data[begin - size : begin - size + 1]))
    return count


def follow(data: bytes, at: int, count: int, size: int, wide: int, delta: int) -> bool:
    """Whether the varints at ``at`` are ``delta``, ``delta`` + 1 and so on, of ``wide`` bytes each."""
    columns = [data[at + byte : at + byte + (count - 1) * size + 1 : size] for byte in range(wide)]
    if wide == 1:
        return columns[0] == PLACED[0][delta : delta + count]
    return columns[0] == PLACED[1][delta - 64 : delta - 64 + count] and columns[1] == PLACED[2][delta - 64 : delta - 64 + count]


def stamps_of(data: bytes, at: int, count: int, size: int, wide: int, first_ms: int, stamp: int | None) -> Iterable[int] | None:
    """The timestamps whose varints stand at ``at``; None: they are not of ``wide`` bytes, or of more than two."""
    columns = [data[at + byte : at + byte + (count - 1) * size + 1 : size] for byte in range(wide)]
    if wide > 2 or not columns[-1].isascii() or (wide == 2 and columns[0].translate(None, HIGH)):
        return None
    if stamp is not None:
        return repeat(stamp, count)
    if wide == 1:
        return [first_ms + ((number >> 1) ^ -(number & 1)) for number in columns[0]]
    low, high = columns
    return [first_ms + (((number := (first & 0x7F) | (second << 7)) >> 1) ^ -(number & 1)) for first, second in zip(low, high, strict=True)]


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
