"""Messages as binary frames, ``application/vnd.psubd.frames`` (docs/http.md, "Binary frames"): one shape for what is read and for what is published,
so that what was read can be posted back.

    u32 size       bytes of the frame behind this field
    u8  version    1
    i32 partition  -1: none is named (publish)
    i64 offset     ignored in a publish
    i64 timestamp  ms since the epoch; -1: none is named (publish)
    i64 epoch      of the owner, with an explicit ack; -1: none; ignored in a publish
    u32 attempt    from 1; 0: none (a replay); ignored in a publish
    u16 topic      length in bytes; ignored in a publish
    u16 token      length in bytes; 0: none; ignored in a publish
    i32 key        length in bytes; -1: none
    i32 value      length in bytes; -1: null, a tombstone
    u32 headers    how many
    topic, token (ASCII), key, value, then each header: u32 length of its name, i32 length of its value (-1: null), name (UTF-8), value

All numbers are big-endian. Frames follow each other with nothing between them.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from psubd import fields
from psubd.endpoints.names import refuse_reserved
from psubd.errors import BadBody, BadRecord
from psubd.model import Delivered, Headers, Record

TYPE = "application/vnd.psubd.frames"
VERSION = 1

FIXED = Struct(">IBiqqqIHHiiI")
HEADER = Struct(">Ii")
SIZE = Struct(">I")
BEHIND_SIZE = FIXED.size - SIZE.size
MOST_PARTITION = 2**31 - 1


class Frame(NamedTuple):
    """Where one frame is in a body: it begins behind its size."""

    body: bytes
    begin: int
    end: int


PLAIN = Struct(">Bi"), Struct(">qIHHi"), Struct(">I")
"""What frames of one lease have alike: version and partition; epoch, attempt and the sizes of topic, token and key; how many headers."""


@lru_cache(256)
def fixed_and_topic(size: int) -> tuple[Callable[..., bytes], Callable[..., bytes]]:
    """What packs the numbers of a frame, and its topic of ``size`` bytes behind them; and the same where those in `PLAIN` are packed already."""
    same, alike, count = PLAIN
    return Struct(f"{FIXED.format}{size}s").pack, Struct(f">I{same.size}sqq{alike.size}si{count.size + size}s").pack


def encode(messages: Sequence[Delivered]) -> bytes:
    """A frame a message. Some steps less for a value without key, token, epoch and headers: long answers are mostly of those, and of one lease."""
    pieces: list[bytes] = []
    name: str | None = None
    topic, least, (pack, pack_plain) = b"", BEHIND_SIZE, fixed_and_topic(0)
    partition, attempt, same, alike, counted = -1, None, b"", b"", b""
    for delivered in messages:
        message, token, epoch = delivered.message, delivered.token, delivered.epoch
        key, value, headers = message.key, message.value, message.headers
        if delivered.topic is not name or delivered.partition != partition or delivered.attempt != attempt:
            name, partition, attempt = delivered.topic, delivered.partition, delivered.attempt
            topic = name.encode("ascii")
            least = BEHIND_SIZE + len(topic)
            pack, pack_plain = fixed_and_topic(len(topic))
            same, counted = PLAIN[0].pack(VERSION, partition), PLAIN[2].pack(0) + topic
            alike = PLAIN[1].pack(-1, attempt or 0, len(topic), 0, -1)
        value_size = -1 if value is None else len(value)
        if key is None and value and token is None and epoch is None and not headers:
            pieces += (pack_plain(least + value_size, same, message.offset, message.timestamp, alike, value_size, counted), value)
            continue
        shown = b"" if token is None else token.encode("ascii")
        said = packed(headers) if headers else b""
        key_size = -1 if key is None else len(key)
        pieces += (
            pack(
                least + len(shown) + (key_size if key else 0) + (value_size if value else 0) + len(said), VERSION, delivered.partition,
                message.offset, message.timestamp, -1 if epoch is None else epoch, delivered.attempt or 0, least - BEHIND_SIZE, len(shown),
                key_size, value_size, len(headers), topic,
            ),
            shown,
            key or b"",
            value or b"",
            said,
        )  # fmt: skip
    return b"".join(pieces)


def whole(body: bytes, handed: int) -> int:
    """How many frames of our own body are whole in its first ``handed`` bytes."""
    count, end = 0, 0
    while end < handed:
        end += SIZE.size + SIZE.unpack_from(body, end)[0]
        count += end <= handed
    return count


def packed(headers: Headers) -> bytes:
    """A message's headers."""
    pieces: list[bytes] = []
    for name, value in headers:
        encoded = name.encode()
        pieces += (HEADER.pack(len(encoded), -1 if value is None else len(value)), encoded, value or b"")
    return b"".join(pieces)


def cut(body: bytes, most: int) -> list[Frame]:
    """The frames of ``body``, not looked into.

    :param most: frames; it stops one above that.
    :raises BadBody: the frames do not end where the body does.
    """
    found: list[Frame] = []
    at, end = 0, len(body)
    while at < end and len(found) <= most:
        begin = at + SIZE.size
        if begin > end:
            raise BadBody("the body ends within the size of a frame")
        at = begin + SIZE.unpack_from(body, begin - SIZE.size)[0]
        if at > end:
            raise BadBody(f"frame {len(found)} says {at - begin} bytes, and the body has {end - begin} left")
        found.append(Frame(body, begin, at))
    return found


def read(topic: str, frame: Frame) -> Record:
    """The record of one frame. :raises BadRecord: :raises ReservedHeader: without ``record``, which the caller adds."""
    body, begin, end = frame
    if end - begin < BEHIND_SIZE:
        raise BadRecord(f"the frame has {end - begin} bytes behind its size; {BEHIND_SIZE} are the least")
    _, version, partition, _, timestamp, _, _, name_size, token_size, key_size, value_size, count = FIXED.unpack_from(body, begin - SIZE.size)
    if version != VERSION:
        raise BadRecord(f"version: {version} is not known; send {VERSION}")
    at = begin + BEHIND_SIZE + name_size + token_size
    if key_size < -1 or value_size < -1:
        raise BadRecord("a length is below -1, which stands for null")
    key_end = at + max(0, key_size)
    value_end = key_end + max(0, value_size)
    if value_end > end:
        raise BadRecord("topic, token, key and value are longer than the frame")
    headers = tuple(read_headers(body, value_end, end, count)) if count else ()
    if not count and value_end != end:
        raise BadRecord(f"{end - value_end} bytes are left at the end of the frame")
    if partition < -1:
        raise BadRecord(f"partition: {partition} is out of range; send 0 to {MOST_PARTITION}, or -1 for none")
    if timestamp < -1:
        raise BadRecord(f"timestamp: {timestamp} is out of range; send 0 to {fields.INT64}, or -1 for none")
    return Record(
        topic,
        None if value_size < 0 else body[key_end:value_end],
        None if key_size < 0 else body[at:key_end],
        headers,
        None if partition < 0 else partition,
        None if timestamp < 0 else timestamp,
    )


def read_all(topic: str, body: bytes, most: int) -> list[Record] | None:
    """The records of all frames, as `cut` and `read` make them; None: more than ``most``, or something is wrong, which those two name."""
    records: list[Record] = []
    add, unpack = records.append, FIXED.unpack_from
    begin, last, fixed = 0, len(body) - FIXED.size, FIXED.size
    for _ in range(most):
        if begin > last:
            break
        size, version, partition, _, timestamp, _, _, name_size, token_size, key_size, value_size, count = unpack(body, begin)
        end = begin + 4 + size
        at = begin + fixed + name_size + token_size
        if version != VERSION or partition < -1 or timestamp < -1:
            return None
        if key_size > 0:
            key_end = at + key_size
            key: bytes | None = body[at:key_end]
        elif key_size:
            if key_size != -1:
                return None
            key_end, key = at, None
        else:
            key_end, key = at, b""
        if value_size >= 0:
            value_end = key_end + value_size
            value: bytes | None = body[key_end:value_end]
        elif value_size == -1:
            value_end, value = key_end, None
        else:
            return None
        if count:
            if value_end > end:
                return None
            headers = tuple(read_headers(body, value_end, end, count))
        elif value_end == end:
            headers = ()
        else:
            return None
        add(Record(topic, value, key, headers, None if partition < 0 else partition, None if timestamp < 0 else timestamp))
        begin = end
    return records if begin == len(body) else None


def read_headers(body: bytes, at: int, end: int, count: int) -> Iterator[tuple[str, bytes | None]]:
    """The headers of one frame, which end where it does. :raises BadRecord: :raises ReservedHeader:"""
    if count * HEADER.size > end - at:
        raise BadRecord(f"headers: {count} are more than the frame has room for")
    for _ in range(count):
        if at + HEADER.size > end:
            raise BadRecord("headers: they are longer than the frame")
        name_size, value_size = HEADER.unpack_from(body, at)
        at += HEADER.size
        name_end = at + name_size
        value_end = name_end + max(0, value_size)
        if value_end > end or value_size < -1:
            raise BadRecord("headers: a length is longer than the frame, or below -1")
        yield read_name(body[at:name_end]), None if value_size < 0 else body[name_end:value_end]
        at = value_end
    if at != end:
        raise BadRecord(f"{end - at} bytes are left at the end of the frame")


def read_name(raw: bytes) -> str:
    """A header's name. :raises BadRecord: not UTF-8. :raises ReservedHeader:"""
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRecord("headers: a name is not UTF-8") from None
    refuse_reserved(name)
    return name
