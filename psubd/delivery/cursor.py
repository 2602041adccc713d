"""A group's place in one partition, and how it stands in the storage's commit (architecture, decision 2).

A commit is an offset and a metadata string. Nothing can prevent a late commit of somebody who no longer owns the group, so each says what it
belongs to: whoever loads one takes it only if topic, binding and reset are today's. The metadata is ASCII, seven fields between ``;``:

    psubd1 ; topic uid ; binding mark ; reset serial ; epoch ; <form> ; <what is done past the offset>

- ``uid`` and ``mark`` are percent-encoded (a foreign storage's ids may hold anything);
- the two numbers are decimal;
- form ``-``: nothing; ``r``: ranges, ``gap,length`` in hex between ``.``, each gap counted from the end of the one before (the first from the
  offset), a length of 1 left out; ``b``: a bitmap, deflated (RFC 1951, no wrapper) and base64: bit i (lowest first) is offset + 1 + i.

The shorter of ``r`` and ``b`` is written. The offset itself is never done: the first bit that can be set is the one after it.
"""

import base64
import binascii
import re
import zlib
from typing import NamedTuple
from urllib.parse import quote, unquote

from psubd.model import Commit

Ranges = tuple[tuple[int, int], ...]
"""Half-open ranges of offsets, rising, none empty, none touching the next."""

FORMAT = "psubd1"
MAX_OFFSET = 2**63 - 1
MAX_SPAN = 1 << 20
"""Offsets that a bitmap may span: 128 KiB before it is deflated. Wider ones are written as ranges only."""

DEFLATE_OVERHEAD = 16
"""Bytes that deflate adds at most to 3 KiB which it cannot shrink (zlib's compressBound: 13 and a few for the length)."""

WIDEST_NUMBER = 2**63 - 1
_OURS = re.compile(r"psubd[0-9]+;", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_RANGES = re.compile(r"[0-9a-f]{1,16}(?:,[0-9a-f]{1,16})?(?:\.[0-9a-f]{1,16}(?:,[0-9a-f]{1,16})?)*", re.ASCII)


class CursorTooLong(ValueError):
    """What is done past the first hole does not fit into the storage's metadata. The caller leaves it out: repeated, never skipped."""


class Cursor(NamedTuple):
    """A place, and what it belongs to.

    :ivar uid: the storage's id of the topic. :ivar mark: `Binding.mark`. :ivar reset: serial of the group's last reset on the topic, 0: none.
    :ivar epoch: of the node that wrote it; 0: written by none that owned the group (where a group begins).
    :ivar offset: the first offset that is not done. :ivar done: what is done past it; the first range begins past ``offset``.
    """

    uid: str
    mark: str
    reset: int
    epoch: int
    offset: int
    done: Ranges = ()


def encode(cursor: Cursor, limit: int = 4096) -> Commit:
    """The commit that says ``cursor``.

    :param limit: characters that the metadata may have.
    :raises CursorTooLong: where even the shorter form does not fit.
    :raises ValueError: for a cursor that no ledger can have (ranges out of order, touching, or not past the offset).
    """
    check_ranges(cursor.offset, cursor.done)
    metadata = _head(cursor.uid, cursor.mark, cursor.reset, cursor.epoch) + _tail(cursor.offset, cursor.done)
    if len(metadata) > limit:
        raise CursorTooLong(f"{len(metadata)} characters for {len(cursor.done)} ranges past offset {cursor.offset}; {limit} fit")
    return Commit(cursor.offset, metadata)


def decode(commit: Commit) -> Cursor | None:
    """The cursor that ``commit`` says; None: psubd did not write it, or in a format that this version does not know."""
    fields = commit.metadata.split(";")
    if len(fields) != 7 or fields[0] != FORMAT or not 0 <= commit.offset <= MAX_OFFSET:
        return None
    _, uid, mark, reset, epoch, form, text = fields
    if _NUMBER.fullmatch(reset) is None or _NUMBER.fullmatch(epoch) is None:
        return None
    try:
        done = _parse(commit.offset, form, text)
        check_ranges(commit.offset, done)
    except (ValueError, zlib.error, binascii.Error):
        return None
    return Cursor(unquote(uid), unquote(mark), int(reset), int(epoch), commit.offset, done)


def written_here(commit: Commit) -> bool:
    """Whether psubd wrote it, in this format or in another one, of a version to come."""
    return _OURS.match(commit.metadata) is not None


def room(uid: str, mark: str, limit: int = 4096) -> int:
    """Characters that are left for what is done, whatever numbers the other fields get."""
    return limit - len(_head(uid, mark, WIDEST_NUMBER, WIDEST_NUMBER)) - len("b;")


def fits(span: int, ranges: int, characters: int) -> bool:
    """Whether every set of at most ``ranges`` ranges within ``span`` offsets past the first hole surely fits into ``characters``.

    Either as a bitmap that deflate cannot shrink, or as ranges of the longest numbers that ``span`` allows.
    """
    bitmap_bytes = characters // 4 * 3 - DEFLATE_OVERHEAD
    digits = max(1, (span.bit_length() + 3) // 4)
    return (span <= MAX_SPAN and span <= 8 * bitmap_bytes) or ranges * (2 * digits + 2) <= characters


def check_ranges(offset: int, done: Ranges) -> None:
    """:raises ValueError: unless the ranges rise, are not empty, do not touch, and begin past ``offset``."""
    last = offset
    for start, end in done:
        if not last < start < end <= MAX_OFFSET + 1:
            raise ValueError(f"range {start}..{end} after {last}")
        last = end


def _head(uid: str, mark: str, reset: int, epoch: int) -> str:
    return f"{FORMAT};{quote(uid, safe='')};{quote(mark, safe='')};{reset};{epoch};"


def _tail(offset: int, done: Ranges) -> str:
    if not done:
        return "-;"
    ranges = _ranges_text(offset, done)
    if done[-1][1] - offset > MAX_SPAN:
        return "r;" + ranges
    bitmap = _bitmap_text(offset, done)
    return "b;" + bitmap if len(bitmap) < len(ranges) else "r;" + ranges


def _ranges_text(offset: int, done: Ranges) -> str:
    parts = []
    last = offset
    for start, end in done:
        parts.append(f"{start - last:x}" if end - start == 1 else f"{start - last:x},{end - start:x}")
        last = end
    return ".".join(parts)


def _bitmap_text(offset: int, done: Ranges) -> str:
    bits = bytearray((done[-1][1] - offset - 1 + 7) // 8)
    for start, end in done:
        _set_bits(bits, start - offset - 1, end - offset - 1)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return base64.b64encode(deflate.compress(bytes(bits)) + deflate.flush()).decode("ascii")


def _set_bits(bits: bytearray, start: int, end: int) -> None:
    """Set the bits from ``start`` to before ``end``; whole bytes at once."""
    while start < end and start % 8:
        bits[start // 8] |= 1 << start % 8
        start += 1
    whole = (end - start) // 8
    bits[start // 8 : start // 8 + whole] = b"\xff" * whole
    for bit in range(start + 8 * whole, end):
        bits[bit // 8] |= 1 << bit % 8


def _parse(offset: int, form: str, text: str) -> Ranges:
    if form == "-" and not text:
        return ()
    if form == "r":
        return _parse_ranges(offset, text)
    if form == "b":
        return _parse_bitmap(offset, text)
    raise ValueError(form)


def _parse_ranges(offset: int, text: str) -> Ranges:
    if _RANGES.fullmatch(text) is None:
        raise ValueError(text)
    done = []
    last = offset
    for part in text.split("."):
        gap, _, length = part.partition(",")
        start = last + int(gap, 16)
        last = start + int(length or "1", 16)
        done.append((start, last))
    return tuple(done)


def _parse_bitmap(offset: int, text: str) -> Ranges:
    inflate = zlib.decompressobj(-15)
    bits = inflate.decompress(base64.b64decode(text.encode("ascii"), validate=True), MAX_SPAN // 8 + 1)
    if not inflate.eof or inflate.unused_data:
        raise ValueError("a bitmap that does not end, or is too wide")
    # One string of 0 and 1, lowest bit first: runs of 1 are found in C.
    string = format(int.from_bytes(bits, "little"), "b")[::-1]
    return tuple((offset + 1 + run.start(), offset + 1 + run.end()) for run in re.finditer("1+", string))
