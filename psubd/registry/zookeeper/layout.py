"""What stands where in ZooKeeper, and how it is written. Pure; docs/zookeeper.md has the table.

/                   {"format": 1, "id": ..., "slots": 256}
/applications/<id>  and so on for each of `psubd.registry.tree.ROOTS`: a path of the registry is a znode
/log                the newest changes; set in the transaction of each change
/log/<n>            20 segments with 50 older changes each, in a ring
/blobs/<id>-<n>     pieces of what is too large for a path's own znode or the log
/nodes/<key>        ephemeral: a node that is there
/slots/<n>          ephemeral: who serves the slot
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from psubd.interfaces import Change, Entry
from psubd.registry.tree import ROOTS

FORMAT = 1
SLOTS = 256

ROOT, LOG, BLOBS, NODES, CLAIMS = "/", "/log", "/blobs", "/nodes", "/slots"

SEGMENT = 50
"""Changes in a segment. ``/log`` holds this many to twice as many less one: each change writes it, and each node reads it at each change."""

SEGMENTS = 20
"""With them the log goes back 1,000 changes and more: what `psubd.registry.mirror.KEPT_CHANGES` keeps."""

INLINE = 65_536
"""Bytes of a value that stand in its own znode; larger ones go to blobs."""

PIECE = 262_144
"""Bytes of one znode below ``/blobs``: far from ZooKeeper's limit on a packet, 1,048,575 bytes (``jute.maxbuffer``)."""

PATHS_INLINE = 1_024
"""Bytes of a change's paths that stand in the log itself."""


class Root(msgspec.Struct, frozen=True):
    """What the chroot's own znode holds. ``id`` tells one registry from another under the same name."""

    format: int
    id: str
    slots: int


class Ref(NamedTuple):
    """``size`` bytes from ``at`` on of the blob ``blob``, which is pieces of `PIECE` bytes."""

    blob: str
    at: int
    size: int

    @property
    def pieces(self) -> list[str]:
        """The znodes that hold it."""
        last = (self.at + max(0, self.size - 1)) // PIECE
        return [piece(self.blob, number) for number in range(self.at // PIECE, last + 1)]

    def cut(self, pieces: Iterable[bytes]) -> bytes:
        """The bytes, from what `pieces` hold."""
        begin = self.at % PIECE
        return b"".join(pieces)[begin : begin + self.size]

    @property
    def text(self) -> str:
        return f"{self.blob} {self.at} {self.size}"

    @classmethod
    def of(cls, text: str) -> "Ref":
        """:raises ValueError:"""
        blob, at, size = text.split(" ")
        return cls(blob, int(at), int(size))


class Logged(msgspec.Struct, frozen=True, array_like=True):
    """A change in the log.

    :ivar token: random: how the one that made it recognises it after a lost connection.
    :ivar paths: in the order written, ``+`` before one that was put, ``-`` before one that was deleted; or a `Ref` to them, as JSON.
    """

    serial: int
    at_ms: int
    actor: str
    what: str
    token: str
    paths: tuple[str, ...] | str

    def change(self) -> Change:
        return Change(self.serial, self.at_ms, self.actor, self.what, tuple(path[1:] for path in self.paths))


class Head(msgspec.Struct, frozen=True):
    """What ``/log`` holds: the serial of the newest change, and the newest changes in order."""

    serial: int = 0
    entries: tuple[Logged, ...] = ()

    @property
    def before(self) -> int:
        """Serial of the newest change that has gone to a segment."""
        return self.serial - len(self.entries)

    def with_next(self, entry: Logged) -> "tuple[Head, tuple[int, tuple[Logged, ...]] | None]":
        """The head after one more change; and, where it was full, the segment's number with what goes there."""
        entries = (*self.entries, entry)
        if len(entries) < 2 * SEGMENT:
            return Head(entry.serial, entries), None
        full = entries[:SEGMENT]
        return Head(entry.serial, entries[SEGMENT:]), (segment_of(full[0].serial), full)

    def needs(self, after: int) -> list[int] | None:
        """The segments with the changes after ``after`` that are no longer here; None: they are no longer kept."""
        if after >= self.before:
            return []
        if after < self.before - SEGMENTS * SEGMENT:
            return None
        first, last = after // SEGMENT, (self.before - 1) // SEGMENT
        return [number % SEGMENTS for number in range(first, last + 1)]


def segment_of(serial: int) -> int:
    """The segment in which the change of that serial ends up."""
    return (serial - 1) // SEGMENT % SEGMENTS


def segment_path(number: int) -> str:
    return f"{LOG}/{number}"


def piece(blob: str, number: int) -> str:
    return f"{BLOBS}/{blob}-{number}"


def last_of(entries: Sequence[Logged]) -> dict[str, tuple[bool, int]]:
    """By path what the newest change of it did: whether it stands, and that change's serial."""
    return {path[1:]: (path[0] == "+", entry.serial) for entry in entries for path in entry.paths}


class Value(NamedTuple):
    """What a path's znode holds: serial of the change that wrote it, and the data, or where that is."""

    serial: int
    data: bytes | Ref

    def encode(self) -> bytes:
        """``17 {"id": ...}``; ``17@<blob> <at> <size>``."""
        if isinstance(self.data, Ref):
            return b"%d@%s" % (self.serial, self.data.text.encode())
        return b"%d %s" % (self.serial, self.data)

    def entry(self, version: int) -> Entry:
        """``version`` as ZooKeeper counts, from 0. Only for data that is here."""
        assert isinstance(self.data, bytes)
        return Entry(self.data, version + 1, self.serial)


def decode(stored: bytes) -> Value:
    """:raises ValueError: for what psubd did not write."""
    length = next((at for at, byte in enumerate(stored[:20]) if not 48 <= byte <= 57), 0)
    if length == 0:
        raise ValueError("does not begin with a serial")
    serial, rest = int(stored[:length]), stored[length + 1 :]
    return Value(serial, Ref.of(rest.decode("ascii"))) if stored[length] == ord("@") else Value(serial, rest)


def encode_paths(paths: Sequence[str]) -> bytes:
    return msgspec.json.encode(paths)


def decode_paths(stored: bytes) -> tuple[str, ...]:
    return msgspec.json.decode(stored, type=tuple[str, ...])


encode_head = msgspec.json.Encoder().encode
decode_head = msgspec.json.Decoder(Head).decode
encode_segment = msgspec.json.Encoder().encode
decode_segment = msgspec.json.Decoder(tuple[Logged, ...]).decode


def parents() -> list[str]:
    """The znodes that are made once, below the chroot."""
    return [*sorted(ROOTS), LOG, *(segment_path(number) for number in range(SEGMENTS)), BLOBS, NODES, CLAIMS]
