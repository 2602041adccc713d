"""A change as what is sent to ZooKeeper: one transaction, and before it the blobs that it refers to. Pure."""

from collections.abc import Sequence

import msgspec

from psubd.errors import TooLarge
from psubd.interfaces import Change
from psubd.registry.tree import Step
from psubd.registry.zookeeper import layout
from psubd.registry.zookeeper.client import Check, Create, Delete, Set, Together
from psubd.registry.zookeeper.layout import Head, Logged, Ref, Value

PACKET = 900_000
"""Bytes that a transaction may have. ZooKeeper closes the connection on a packet of more than 1,048,575."""

OPERATION = 64
"""Bytes of one operation of a transaction beside its path and data, at most: headers, the ACL, flags."""

SMALL = 256
"""A value of so many bytes stays inline in a transaction that is too large: a reference is hardly shorter."""


class Parcel(msgspec.Struct, frozen=True):
    """What makes a change.

    :ivar pieces: what is written before, each alone. :ivar together: the transaction; its first operation sets ``/log``.
    :ivar head: the log after it. :ivar refs: where the values are that do not stand in their own znodes.
    """

    pieces: tuple[Create, ...]
    together: Together
    head: Head
    refs: dict[str, Ref]


class Hold:
    """A blob that is being filled."""

    def __init__(self, blob: str) -> None:
        self._blob, self._filled = blob, bytearray()

    def put(self, data: bytes) -> Ref:
        ref = Ref(self._blob, len(self._filled), len(data))
        self._filled += data
        return ref

    def pieces(self) -> tuple[Create, ...]:
        size = layout.PIECE
        return tuple(
            Create(layout.piece(self._blob, n), bytes(self._filled[n * size : (n + 1) * size])) for n in range(-(-len(self._filled) // size))
        )


def pack(change: Change, steps: Sequence[Step], head: Head, version: int, token: str, blob: str, chroot: str) -> Parcel:
    """:param version: of the znode ``/log``, which nobody must have set since. :param token: names the change in the log.
    :param blob: name of the blob, another one for each try.

    :raises TooLarge: more paths than one transaction of ZooKeeper's takes.
    """
    hold = Hold(blob)
    room = PACKET - 2 * len(layout.encode_head(head)) - 8_192  # the log, a segment that leaves it, and the new entry
    limit = layout.INLINE if sum(cost(step, chroot, layout.INLINE) for step in steps) < room else SMALL
    refs = {step.path: hold.put(step.entry.data) for step in steps if step.entry is not None and len(step.entry.data) > limit}
    logged = _logged(change, steps, token, hold)
    after, full = head.with_next(logged)
    log = [Set(layout.LOG, layout.encode_head(after), version)]
    if full is not None:
        log.append(Set(layout.segment_path(full[0]), layout.encode_segment(full[1])))
    together = Together((*log, *(operation(step, refs.get(step.path)) for step in steps)))
    if sum(size(each, chroot) for each in together.operations) > PACKET:
        raise TooLarge(f"the change writes {len(steps)} paths, more than one transaction of ZooKeeper's takes; make it in parts")
    return Parcel(hold.pieces(), together, after, refs)


def _logged(change: Change, steps: Sequence[Step], token: str, hold: Hold) -> Logged:
    paths: tuple[str, ...] | str = tuple(("-" if step.entry is None else "+") + step.path for step in steps)
    written = layout.encode_paths(paths)
    if len(written) > layout.PATHS_INLINE:
        paths = hold.put(written).text
    return Logged(change.serial, change.at_ms, change.actor, change.what, token, paths)


def operation(step: Step, ref: Ref | None) -> Create | Set | Delete:
    """What leaves the step's path as it says. Which paths are there is known: nobody has changed one since ``/log`` was set last."""
    if step.entry is None:
        return Delete(step.path)
    data = Value(step.entry.serial, ref or step.entry.data).encode()
    return Create(step.path, data) if step.entry.version == 1 else Set(step.path, data)


def cost(step: Step, chroot: str, inline: int) -> int:
    """Bytes of the step's operation where data of more than ``inline`` bytes stands elsewhere."""
    data = 0 if step.entry is None else len(step.entry.data)
    return len(chroot) + len(step.path) + OPERATION + (data if data <= inline else 64)


def size(each: Create | Set | Delete | Check, chroot: str) -> int:
    """Bytes of the operation in the packet, at most."""
    return len(chroot) + len(each.path) + OPERATION + len(getattr(each, "data", b""))
