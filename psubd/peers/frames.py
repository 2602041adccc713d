"""Bytes <-> frames, with no I/O: what two nodes say to each other, as it stands on the line.

A frame is a u32 (bytes that follow it), a u8 (`Kind`), a u64 (`id`), and a body; all big-endian. What the id and the body are:

    HELLO, CHALLENGE, PROOF, WELCOME   id 0; `psubd.peers.auth`
    CALL    the caller's number of the call; u8 length of the verb, verb (ASCII), body
    REPLY   the number of the call that it answers; the answer
    ERROR   likewise; `psubd.peers.faults`
    CANCEL  likewise; nothing: the caller waits no more
    TELL    0; as CALL, and never answered
    PING    0; nothing: answer PONG
    PONG    0; nothing
    LARGE   a number of the sender's, of its large messages; u8 kind (CALL, REPLY, ERROR or TELL), u64 id, u32 size, verb: a message of that kind
            follows in pieces, ``size`` bytes of body
    PIECE   that number; the next bytes of its body. The message is whole with its last byte
    DROP    that number; nothing: the rest of it will not come

Any body longer than `PIECE_BYTES` goes as LARGE, and its pieces may lie between any other frames.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

HEAD = struct.Struct("!IBQ")
START = struct.Struct("!BQI")
PIECE_BYTES = 65_536
VERB_LENGTH = 64
BODY_BYTES = 128 * 1_048_576
"""What a message's body may have. An answer to a poll has at most 64 MiB of payload (the contract's ``maxBytes``), and base64 a third more."""
AFTER_SIZE = HEAD.size - 4
LARGEST = AFTER_SIZE + 1 + VERB_LENGTH + PIECE_BYTES
"""Bytes after the u32 of the longest legal frame."""


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    CHALLENGE = 2
    PROOF = 3
    WELCOME = 4
    CALL = 16
    REPLY = 17
    ERROR = 18
    CANCEL = 19
    TELL = 20
    PING = 21
    PONG = 22
    LARGE = 23
    PIECE = 24
    DROP = 25


KINDS = {int(kind): kind for kind in Kind}
NAMED = frozenset((Kind.CALL, Kind.TELL))
EMPTY = frozenset((Kind.CANCEL, Kind.PING, Kind.PONG, Kind.DROP))
BODIED = frozenset((Kind.CALL, Kind.REPLY, Kind.ERROR, Kind.TELL))
"""Those that may be large."""


class IllegalFrame(Exception):
    """The other end sent what no psubd sends; the text says what. The connection is of no use any more."""


class Frame(NamedTuple):
    """:ivar verb: of CALL and TELL, else empty. :ivar body: without the verb."""

    kind: Kind
    id: int
    body: bytes = b""
    verb: str = ""


class Start(NamedTuple):
    """What a LARGE frame announces."""

    kind: Kind
    id: int
    size: int
    verb: str


def encode(kind: Kind, id: int = 0, body: bytes = b"", verb: str = "") -> bytes:
    """One frame. :raises ValueError: the verb is not one, or the body is longer than a frame's."""
    if kind in NAMED:
        body = bytes((len(named(verb)),)) + verb.encode("ascii") + body
    if len(body) > LARGEST - AFTER_SIZE:
        raise ValueError(f"a frame's body has at most {LARGEST - AFTER_SIZE} bytes, not {len(body)}")
    return HEAD.pack(AFTER_SIZE + len(body), kind, id) + body


def encode_start(stream: int, start: Start) -> bytes:
    """The LARGE frame that begins a message in pieces."""
    verb = named(start.verb) if start.kind in NAMED else ""
    return encode(Kind.LARGE, stream, START.pack(start.kind, start.id, start.size) + verb.encode("ascii"))


def decode_start(frame: Frame) -> Start:
    """What a LARGE frame announces. :raises IllegalFrame:"""
    if len(frame.body) < START.size:
        raise IllegalFrame(f"a LARGE frame has a body of {len(frame.body)} bytes, and needs {START.size}")
    number, id, size = START.unpack_from(frame.body)
    kind = KINDS.get(number)
    if kind not in BODIED:
        raise IllegalFrame(f"a LARGE frame announces kind {number}, which has no body")
    if not 0 < size <= BODY_BYTES:
        raise IllegalFrame(f"a LARGE frame announces {size} bytes; a body has 1 to {BODY_BYTES}")
    verb = frame.body[START.size :]
    if kind not in NAMED and verb:
        raise IllegalFrame(f"a LARGE frame of kind {kind.name} names a verb")
    return Start(kind, id, size, spoken(verb) if kind in NAMED else "")


def named(verb: str) -> str:
    """The verb. :raises ValueError: it is not 1 to 64 printable ASCII characters."""
    if not (0 < len(verb) <= VERB_LENGTH and verb.isascii() and verb.isprintable()):
        raise ValueError(f"a verb is 1 to {VERB_LENGTH} printable ASCII characters, not {verb!r}")
    return verb


def spoken(verb: bytes) -> str:
    """A verb that came in. :raises IllegalFrame:"""
    try:
        return named(verb.decode("ascii"))
    except ValueError:  # UnicodeDecodeError is one
        raise IllegalFrame(f"a verb is 1 to {VERB_LENGTH} printable ASCII characters, and {len(verb)} bytes came that are not") from None


class Parser:
    """Takes bytes as they come, gives frames. After it raised it gives nothing more.

    :ivar largest: bytes after the u32 that a frame may have; may be changed between two frames.
    """

    def __init__(self, largest: int = LARGEST) -> None:
        self.largest = largest
        self._data = b""
        self._at = 0
        self._illegal = False

    @property
    def pending(self) -> int:
        """Bytes that came and are in no frame yet."""
        return len(self._data) - self._at

    def feed(self, data: bytes) -> None:
        """Take what came; `next` until it gives None."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def next(self) -> Frame | None:
        """The next whole frame, or None. :raises IllegalFrame: what came can be none; nothing after it is looked at."""
        if self._illegal:
            raise IllegalFrame("nothing is read after an illegal frame")
        try:
            return self._parse()
        except IllegalFrame:
            self._illegal = True
            self._data, self._at = b"", 0
            raise

    def _parse(self) -> Frame | None:
        data, at = self._data, self._at
        if len(data) - at < 4:
            return None
        if len(data) - at < HEAD.size:
            self._judge_size(int.from_bytes(data[at : at + 4]))
            return None
        size, number, id = HEAD.unpack_from(data, at)
        self._judge_size(size)
        kind = KINDS.get(number)
        if kind is None:
            raise IllegalFrame(f"there is no frame of kind {number}")
        end = at + 4 + size
        if len(data) < end:
            return None
        self._at = end
        return frame_of(kind, id, data[at + HEAD.size : end])

    def _judge_size(self, size: int) -> None:
        if not AFTER_SIZE <= size <= self.largest:
            raise IllegalFrame(f"a frame has {AFTER_SIZE} to {self.largest} bytes here, not {size}")


def frame_of(kind: Kind, id: int, body: bytes) -> Frame:
    """:raises IllegalFrame: the body is none of that kind's."""
    if kind in NAMED:
        end = 1 + body[0] if body else 1
        if len(body) < end:
            raise IllegalFrame(f"a {kind.name} frame ends within its verb")
        return Frame(kind, id, body[end:], spoken(body[1:end]))
    if body and kind in EMPTY:
        raise IllegalFrame(f"a {kind.name} frame has no body, and this one has {len(body)} bytes")
    if not body and kind is Kind.PIECE:
        raise IllegalFrame("a piece is empty")
    if len(body) > PIECE_BYTES:
        raise IllegalFrame(f"a {kind.name} frame has {len(body)} bytes of body, more than {PIECE_BYTES}")
    return Frame(kind, id, body)
