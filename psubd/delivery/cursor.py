"""A group's place in one partition, and how it stands in the storage's commit (architecture, decision 2).

A commit is an offset and a metadata string. Nothing can prevent a late commit of somebody who no longer owns the group, so each says what it
belongs to: whoever loads one takes it only if topic, binding and reset are today's. The metadata is ASCII, nine or ten fields between ``;``:

    psubd2 ; topic uid ; binding mark ; reset serial ; epoch ; since ; <form> ; <what is done past the offset> ; <attempts> [ ; <note> ]

- ``uid`` and ``mark`` are percent-encoded (a foreign storage's ids may hold anything);
- the three numbers are decimal;
- form ``-``: nothing; ``r``: ranges, ``gap,length`` in hex between ``.``, each gap counted from the end of the one before (the first from the
  offset), a length of 1 left out; ``b``: a bitmap, deflated (RFC 1951, no wrapper) and base64: bit i (lowest first) is offset + 1 + i.
- attempts: ``gap,count`` in hex between ``.``: how often a message that is not done was delivered, from two on; each gap counted from the
  offset of the one before (the first from the commit's offset).
- note: what a client of a consumer instance committed as its own metadata, UTF-8 in base64; left out where there is none.

The shorter of ``r`` and ``b`` is written. The offset itself is never done: the first bit that can be set is the one after it.
A note is kept where it fits beside what is done. Attempts take what room is left; those that find none are left out, from the end: the message is
tried more often than it should, no more.
"""

import base64
import binascii
import math
import re
import zlib
from typing import NamedTuple
from urllib.parse import quote, unquote

from psubd.model import Commit

Ranges = tuple[tuple[int, int], ...]
"""Half-open ranges of offsets, rising, none empty, none touching the next."""

Attempts = tuple[tuple[int, int], ...]
"""Rising pairs: the offset of a message that is not done, and how often it was delivered, at least twice."""

FORMAT = "psubd2"
MAX_OFFSET = 2**63 - 1
MAX_SPAN = 1 << 20
"""Offsets that a bitmap may span: 128 KiB before it is deflated. Wider ones are written as ranges only."""

DEFLATE_OVERHEAD = 16
"""Bytes that deflate adds at most to 3 KiB which it cannot shrink (zlib's compressBound: 13 and a few for the length)."""

WIDEST_NUMBER = 2**63 - 1
MOST_ATTEMPTS = 2**32 - 1
_OURS = re.compile(r"psubd[0-9]+;", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_ATTEMPTS = re.compile(r"[0-9a-f]{1,16},[0-9a-f]{1,8}(?:\.[0-9a-f]{1,16},[0-9a-f]{1,8})*", re.ASCII)
_RANGES = re.compile(r"[0-9a-f]{1,16}(?:,[0-9a-f]{1,16})?(?:\.[0-9a-f]{1,16}(?:,[0-9a-f]{1,16})?)*", re.ASCII)


class CursorTooLong(ValueError):
    """What is done past the first hole does not fit into the storage's metadata. The caller leaves it out: repeated, never skipped."""


class Cursor(NamedTuple):
    """A place, and what it belongs to.

    :ivar uid: the storage's id of the topic. :ivar mark: `Binding.mark`. :ivar reset: serial of the group's last reset on the topic, 0: none.
    :ivar epoch: of the node that wrote it; 0: written by none that owned the group (where a group begins).
    :ivar offset: the first offset that is not done. :ivar done: what is done past it; the first range begins past ``offset``.
    :ivar since: serial of the last reset, or cut of the log, that moved this partition; 0: none did.
    :ivar attempts: of messages that are not done; may be fewer after a load. :ivar note: a client's own metadata; empty: none, or it did not fit.
    """

    uid: str
    mark: str
    reset: int
    epoch: int
    offset: int
    done: Ranges = ()
    since: int = 0
    attempts: Attempts = ()
    note: str = ""


def encode(cursor: Cursor, limit: int = 4096) -> Commit:
    """The commit that says ``cursor``.

    :param limit: characters that the metadata may have.
    :raises CursorTooLong: where even the shorter form does not fit.
    :raises ValueError: for a cursor that no ledger can have (ranges out of order, touching, or not past the offset; attempts likewise).
    """
    check_ranges(cursor.offset, cursor.done)
    check_attempts(cursor.offset, cursor.attempts)
    metadata = _head(cursor.uid, cursor.mark, cursor.reset, cursor.epoch, cursor.since) + _tail(cursor.offset, cursor.done) + ";"
    if len(metadata) > limit:
        raise CursorTooLong(f"{len(metadata)} characters for {len(cursor.done)} ranges past offset {cursor.offset}; {limit} fit")
    note = _note_text(cursor.note, limit - len(metadata))
    return Commit(cursor.offset, metadata + _attempts_text(cursor.offset, cursor.attempts, limit - len(metadata) - len(note)) + note)


def decode(commit: Commit) -> Cursor | None:
    """The cursor that ``commit`` says; None: psubd did not write it, or in a format that this version does not know."""
    fields = commit.metadata.split(";")
    if len(fields) not in (9, 10) or fields[0] != FORMAT or not 0 <= commit.offset <= MAX_OFFSET:
        return None
    _, uid, mark, reset, epoch, since, form, text, tries = fields[:9]
    if any(_NUMBER.fullmatch(number) is None for number in (reset, epoch, since)):
        return None
    try:
        done = _parse(commit.offset, form, text)
        check_ranges(commit.offset, done)
        attempts = _parse_attempts(commit.offset, tries)
        check_attempts(commit.offset, attempts)
        note = base64.b64decode(fields[9].encode("ascii"), validate=True).decode() if len(fields) > 9 else ""
    except (ValueError, zlib.error, binascii.Error):
        return None
    return Cursor(unquote(uid), unquote(mark), int(reset), int(epoch), commit.offset, done, int(since), attempts, note)


def written_here(commit: Commit) -> bool:
    """Whether psubd wrote it, in this format or in another one, of a version to come."""
    return _OURS.match(commit.metadata) is not None


def room(uid: str, mark: str, limit: int = 4096) -> int:
    """Characters that are left for what is done, whatever numbers the other fields get."""
    return limit - len(_head(uid, mark, WIDEST_NUMBER, WIDEST_NUMBER, WIDEST_NUMBER)) - len("b;;")


def bitmap_span(characters: int) -> int:
    """Offsets past the first hole of which any set surely fits into ``characters`` as a bitmap that deflate cannot shrink."""
    return max(0, min(MAX_SPAN, 8 * (characters // 4 * 3 - DEFLATE_OVERHEAD)))


def fits(span: int, ranges: int, characters: int) -> bool:
    """Whether every set of at most ``ranges`` ranges within ``span`` offsets past the first hole surely fits into ``characters``.

    Either as a bitmap that deflate cannot shrink, or as ranges: 2 R numbers that together are at most S have the most digits where all are
    equal (the logarithm is concave), and each has at most one digit more than its logarithm, and a separator.
    """
    if span <= bitmap_span(characters):
        return True
    numbers = min(2 * ranges, span)
    return numbers == 0 or (numbers * 2 <= characters and numbers * (math.log(span / numbers, 16) + 2) <= characters)


def check_ranges(offset: int, done: Ranges) -> None:
    """:raises ValueError: unless the ranges rise, are not empty, do not touch, and begin past ``offset``."""
    last = offset
    for start, end in done:
        if not last < start < end <= MAX_OFFSET + 1:
            raise ValueError(f"range {start}..{end} after {last}")
        last = end


def check_attempts(offset: int, attempts: Attempts) -> None:
    """:raises ValueError: unless the offsets rise, from ``offset`` on, and each count is at least two."""
    last = offset - 1
    for at, count in attempts:
        if not last < at <= MAX_OFFSET or not 2 <= count <= MOST_ATTEMPTS:
            raise ValueError(f"{count} attempts at {at} after {last}")
        last = at


def _head(uid: str, mark: str, reset: int, epoch: int, since: int) -> str:
    return f"{FORMAT};{quote(uid, safe='')};{quote(mark, safe='')};{reset};{epoch};{since};"


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


def _note_text(note: str, left: int) -> str:
    """The note's field with its separator, if ``left`` characters hold it."""
    text = ";" + base64.b64encode(note.encode()).decode("ascii") if note else ""
    return text if len(text) <= left else ""


def _attempts_text(offset: int, attempts: Attempts, left: int) -> str:
    """As many, from the front, as ``left`` characters hold."""
    parts = []
    left += 1  # the first has no separator
    last = offset
    for at, count in attempts:
        part = f"{at - last:x},{count:x}"
        left -= len(part) + 1
        if left < 0:
            break
        parts.append(part)
        last = at
    return ".".join(parts)


def _parse_attempts(offset: int, text: str) -> Attempts:
    if not text:
        return ()
    if _ATTEMPTS.fullmatch(text) is None:
        raise ValueError(text)
    attempts = []
    last = offset
    for part in text.split("."):
        gap, _, count = part.partition(",")
        last += int(gap, 16)
        attempts.append((last, int(count, 16)))
    return tuple(attempts)


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
