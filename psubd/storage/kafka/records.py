"""Kafka's record batches <-> `Message` and `Record`."""

import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from crc32c import crc32c
from kafka import codec, errors
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.memory_records import MemoryRecords
from kafka.structs import TopicPartition

from psubd.model import Headers, Message, Record
from psubd.storage.kafka.settings import Compression
from psubd.storage.kafka.unpacking import Odd, unpack

MAGIC = 2
NO_CODEC = 0
CODECS: dict[Compression, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip": (1, codec.gzip_encode),
    "snappy": (2, codec.snappy_encode),
    "lz4": (3, codec.lz4_encode),
    "zstd": (4, codec.zstd_encode),
}
UNCHECKED = struct.Struct(">qiibI")
"""Base offset, length, leader epoch, magic, CRC: what the CRC does not cover."""
CHECKED = struct.Struct(">hiqqqhii")
"""Attributes, last offset delta, first and last timestamp, producer id, its epoch, base sequence, count."""
BEFORE_LENGTH = struct.calcsize(">qi")
"""Bytes that the length does not count."""
HEADER = struct.Struct(UNCHECKED.format + CHECKED.format[1:])

NO_PRODUCER = (-1, -1, -1)
NO_EPOCH = -1

OBJECT_BYTES = 300
"""What a message costs in memory beside its payload: measured with tracemalloc, rounded up."""


def decode(topic: str, partition: int, offset: int, data: bytes | None, aborted: Sequence[Any] | None) -> tuple[list[Message], int, int]:
    """The committed records of a fetched piece of the log from ``offset`` on, where the next fetch goes on (past markers, aborted records and what
    was compacted away), and the leader epoch of its last batch, -1 without any. `unpack` does it where all is plain; where transactions were
    aborted, or anything is odd, `KafkaConsumer`'s own parser.

    What stands before a broken batch is given; the read that begins there fails.

    :raises KafkaError: for a broken batch at the place itself, or a compression whose package is not installed.
    """
    if not data:
        return [], offset, NO_EPOCH
    if not aborted:
        try:
            return unpack(offset, bytes(data))
        except Odd:
            pass
    piece = Fetcher.PartitionRecords(
        offset, TopicPartition(topic, partition), MemoryRecords(data), isolation_level=IsolationLevel.READ_COMMITTED, aborted_transactions=aborted
    )
    try:
        messages = [Message(each.offset, each.timestamp, each.key, each.value, tuple(each.headers)) for each in piece.take()]
    except errors.KafkaError:
        raise
    except Exception as broken:  # the codecs raise what they like for what they cannot undo
        raise errors.CorruptRecordError(f"records at {offset} of {topic} {partition}: {type(broken).__name__}") from broken
    return messages, max(offset, piece.next_fetch_offset), int(piece.leader_epoch)


class Packed(NamedTuple):
    """One batch of one partition. ``timestamps``: of the records in it, those that had none filled in. ``unfit``: why the one behind them cannot be
    written down."""

    data: bytes
    timestamps: list[int]
    unfit: Exception | None


def pack(records: Iterable[Record], compression: Compression, room: int, producer: tuple[int, int, int] = NO_PRODUCER) -> Packed:
    """As many of the records as fit: a record batch v2, byte for byte what the driver's own builder makes of them, at a sixth of its time.

    :param room: bytes that it may have, before compression; the first record always fits.
    """
    body, timestamps, unfit = written(records, room - HEADER.size)
    attributes = NO_CODEC
    if compression != "none" and body:
        packed = CODECS[compression][1](body)
        if len(packed) < len(body):
            body, attributes = packed, CODECS[compression][0]
    first, last = (timestamps[0], max(timestamps)) if timestamps else (0, 0)
    count = len(timestamps)
    checked = CHECKED.pack(attributes, max(0, count - 1), first, last, *producer, count)
    crc = crc32c(body, crc32c(checked))
    return Packed(b"".join((UNCHECKED.pack(0, len(body) + HEADER.size - BEFORE_LENGTH, 0, MAGIC, crc), checked, body)), timestamps, unfit)


def written(records: Iterable[Record], room: int) -> tuple[bytes, list[int], Exception | None]:
    """The records of a batch, one after the other (KIP-98 has the form). A value that is alone in its record, and as large and of the same time as
    the one before it, takes half as long."""
    parts: list[bytes] = []
    timestamps: list[int] = []
    first = now = count = size = 0
    last, width, wide, whole, head, middle = None, -1, 0, 0, b"", b""
    try:
        for record in records:
            timestamp, key, value = record.timestamp, record.key, record.value
            if timestamp is None:
                timestamp = now = now or time.time_ns() // 1_000_000
            if timestamp == last and key is None and type(value) is bytes and len(value) == width and count < SHORT and not record.headers:
                number = VARINTS[count]
                if len(number) != wide:
                    wide = len(number)
                    head, middle, whole = alike(timestamp - first, wide, width)
                size += whole
                if size > room:
                    break
                parts += (head, number, middle, value, NO_HEADERS)
                timestamps.append(timestamp)
                count += 1
                continue
            if not count:
                first = checked_timestamp(timestamp)
            delta = timestamp - first
            text = b"\0%b%b%b%b%b" % (
                VARINTS[delta] if 0 <= delta < SHORT else varint(checked_timestamp(timestamp) - first),
                VARINTS[count] if count < SHORT else varint(count),
                NULL if key is None else sized(key),
                NULL if value is None else sized(value),
                headers_of(record.headers) if record.headers else NO_HEADERS,
            )
            length = len(text)
            prefix = VARINTS[length] if length < SHORT else varint(length)
            size += length + len(prefix)
            if size > room and count:
                break
            parts += (prefix, text)
            timestamps.append(timestamp)
            count += 1
            last, width, wide = timestamp, -1 if value is None else len(value), 0
    except Exception as unfit:  # noqa: BLE001 - whatever cannot be written down
        return b"".join(parts), timestamps, unfit
    return b"".join(parts), timestamps, None


def alike(delta: int, wide: int, width: int) -> tuple[bytes, bytes, int]:
    """A record that is a value of ``width`` bytes alone: what stands before its number, which takes ``wide`` bytes, what behind that, and how many
    bytes it has.

    :param delta: ms since the batch's first.
    """
    before, middle = b"\0" + varint(delta), NULL + varint(width)
    length = len(before) + wide + len(middle) + width + len(NO_HEADERS)
    prefix = varint(length)
    return prefix + before, middle, len(prefix) + length


def checked_timestamp(timestamp: int) -> int:
    if not -(1 << 62) <= timestamp < 1 << 62:
        raise ValueError("no timestamp")
    return timestamp


def sized(data: bytes) -> bytes:
    """Data with its length before it."""
    length = len(data)
    return b"%b%b" % (VARINTS[length] if length < SHORT else varint(length), data)


def headers_of(headers: Headers) -> bytes:
    parts = [varint(len(headers))]
    for name, value in headers:
        parts += (sized(name.encode()), NULL if value is None else sized(value))
    return b"".join(parts)


def varint(number: int) -> bytes:
    """A signed number as Kafka's records hold it: zigzag, seven bits a byte, the lowest first."""
    left, made = (number << 1) ^ (number >> 63), bytearray()
    while left > 0x7F:
        made.append(0x80 | left & 0x7F)
        left >>= 7
    made.append(left)
    return bytes(made)


SHORT = 4096
VARINTS = tuple(varint(number) for number in range(SHORT))
NULL = varint(-1)
NO_HEADERS = varint(0)
