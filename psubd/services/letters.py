"""Dead letters: what a message becomes in a dead-letter topic, and how psubd knows one of its own again.

A letter has the message's value, key and headers, then the headers of `SAID` (ASCII, numbers as digits, times in ms since the epoch), then the
seal: a MAC over all of them. Where the letter is too large for its topic, the message's own headers are cut from the end, and
``psubd.headers-cut`` says how many. A header of the message whose name begins with ``psubd.`` is not kept: a letter that dies again is sealed anew.
"""

from base64 import urlsafe_b64encode
from collections.abc import Iterator
from hmac import compare_digest
from typing import NamedTuple

import msgspec

from psubd.errors import TooLarge
from psubd.model import Headers, Message, Record, StoredTopic
from psubd.services.partitioner import partition_of
from psubd.services.publisher import sized, stored_size, text_size, varint_size
from psubd.services.signet import Signet

OWN = "psubd."
"""What the names of psubd's own record headers begin with; endpoints refuse them in what is published."""
SEAL = OWN + "seal"
CUT = OWN + "headers-cut"
REDRIVE_GROUP = OWN + "redrive-group"
"""Names the one group (full name) that a redriven message is for."""
PURPOSE = b"letter"
COUNT_BYTES = 4
"""More than the number of headers takes above one byte."""


class Origin(NamedTuple):
    """Where a letter comes from, and why it is one. ``group`` is the full name; ``time`` is when it was written, in ms since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    group: str
    attempts: int
    reason: str
    time: int


SAID = tuple(OWN + name for name in ("origin-topic", "origin-partition", "origin-offset", "origin-timestamp", "group", "attempts", "reason", "time"))
"""The headers' names, in the order of `Origin`."""


def letter(message: Message, origin: Origin, stored: StoredTopic, signet: Signet) -> Record:
    """The record of the dead-letter topic ``stored``, judged: partition and timestamp are set.

    :raises TooLarge: it does not fit there, even without the message's own headers. :raises RegistryUnavailable: no signet.
    """
    own = own_headers(message.headers)
    said = tuple((name, str(value).encode()) for name, value in zip(SAID, origin, strict=True))
    partition = origin.partition % stored.partitions if message.key is None else partition_of(message.key, stored.partitions)
    plain = Record(stored.name, message.value, message.key, own + said, partition, origin.time)
    room = stored.max_message_bytes - header_size(SEAL, b"." * 22)
    if stored_size(plain) > room:
        plain = msgspec.structs.replace(plain, headers=cut(plain, own, room) + said)
        dropped = len(own) - len(plain.headers) + len(said)
        plain = msgspec.structs.replace(plain, headers=(*plain.headers, (CUT, b"%d" % dropped)))
    return msgspec.structs.replace(plain, headers=(*plain.headers, (SEAL, seal(plain, signet))))


def own_headers(headers: Headers) -> Headers:
    """The headers that are not psubd's, whatever their case: over HTTP nobody can tell them apart."""
    return tuple(header for header in headers if not header[0].lower().startswith(OWN))


def cut(plain: Record, own: Headers, room: int) -> Headers:
    """Those of ``own``, from the front, with which ``plain`` fits. :raises TooLarge: it fits with none."""
    rest = msgspec.structs.replace(plain, headers=plain.headers[len(own) :])
    left = room - stored_size(rest) - header_size(CUT, str(len(own)).encode()) - COUNT_BYTES
    if left < 0:
        raise TooLarge(f"topic {plain.topic} takes at most {room} bytes; even without headers of its own the message needs {room - left}")
    for place, (name, value) in enumerate(own):
        left -= header_size(name, value)
        if left < 0:
            return own[:place]
    return own


def header_size(name: str, value: bytes | None) -> int:
    """The most that it takes in a storage."""
    return varint_size(text_size(name)) + text_size(name) + sized(value)


def seal(record: Record | Message, signet: Signet, headers: Headers | None = None) -> bytes:
    """The MAC over key, value and ``headers`` (None: the record's), as text."""
    parts = parts_of(record, record.headers if headers is None else headers)
    return urlsafe_b64encode(signet.mac(PURPOSE, b"".join(parts))).rstrip(b"=")


def parts_of(record: Record | Message, headers: Headers) -> Iterator[bytes]:
    """What is sealed: each piece with its length before it, null told from empty, so that no two letters give the same bytes."""
    for piece in (record.key, record.value):
        yield from framed(piece)
    for name, value in headers:
        yield from framed(name.encode("utf-8", "surrogatepass"))
        yield from framed(value)


def framed(piece: bytes | None) -> tuple[bytes, ...]:
    return (b"~",) if piece is None else (b"%d:" % len(piece), piece)


def verify(message: Message, signet: Signet) -> Origin | None:
    """Where a sealed letter comes from. None: psubd did not write it, or not so. :raises RegistryUnavailable: no signet."""
    if not message.headers or message.headers[-1][0] != SEAL:
        return None
    plain = message.headers[:-1]
    if not compare_digest(seal(message, signet, plain), message.headers[-1][1] or b""):
        return None
    # What is sealed is what `letter` wrote: there is one of each, and it is well formed.
    said = {name: (value or b"").decode() for name, value in plain if name in SAID}
    topic, partition, offset, timestamp, group, attempts, reason, time = (said[name] for name in SAID)
    return Origin(topic, int(partition), int(offset), int(timestamp), group, int(attempts), reason, int(time))
