"""The header lines of a publish: dotted names and their hyphen twins, record headers, keys (contract, preamble and section 2)."""

from collections.abc import Iterable, Sequence

import msgspec

from psubd.endpoints.coding import strict_base64
from psubd.errors import BadHeader, ConflictingHeaders, ReservedHeader
from psubd.model import Headers

Line = tuple[bytes, bytes]

SINGLES = (
    "topic.id",
    "key",
    "key.encoding",
    "acks",
    "partition",
    "timestamp",
    "headers.encoding",
    "content-type",
    "traceparent",
    "tombstone",
    "idempotency-key",
    "delay",
    "deliver.at",
)
SPELLINGS = {spelling.encode(): name for name in SINGLES for spelling in (name, name.replace(".", "-"))}
TRACE = {"traceparent": b"traceparent", "tracestate": b"tracestate"}
"""W3C Trace Context: record headers of their own names."""
DOTTED, HYPHENED = b"header.", b"header-"
RESERVED = "psubd"


class Lines(msgspec.Struct, frozen=True):
    """What the head of a publish said.

    :ivar singles: the contract's single-valued headers that were sent, by their dotted name.
    :ivar named: the lines of ``header.<name>``: name without the prefix, in lower case, and value, in order.
    :ivar tracestate: its lines joined, since W3C Trace Context lets it be split; None: none.
    """

    singles: dict[str, bytes]
    named: list[Line]
    tracestate: bytes | None

    def text(self, name: str) -> str | None:
        """A single-valued header as ASCII text, or None. :raises BadHeader:"""
        value = self.singles.get(name)
        if value is None:
            return None
        if not value.isascii():
            raise BadHeader(f"{name}: only ASCII is allowed here")
        return value.decode("ascii")


def read(lines: Iterable[Line]) -> Lines:
    """Sort the field lines of a request. Names that the contract does not know are left alone.

    :raises BadHeader: a single-valued header was sent twice. :raises ConflictingHeaders: twins differ.
    """
    singles: dict[str, bytes] = {}
    seen: set[bytes] = set()
    dotted: list[Line] = []
    hyphened: list[Line] = []
    states: list[bytes] = []
    for raw, value in lines:
        name = SPELLINGS.get(raw)
        if name is not None:
            if raw in seen:
                raise BadHeader(f"{raw.decode()}: sent twice; send it once")
            seen.add(raw)
            if singles.setdefault(name, value) != value:
                raise ConflictingHeaders(f"{name} and {name.replace('.', '-')} were both sent, and differ; send one of them")
        elif raw.startswith(DOTTED):
            dotted.append((raw[7:], value))
        elif raw.startswith(HYPHENED):
            hyphened.append((raw[7:], value))
        elif raw == b"tracestate":
            states.append(value)
    return Lines(singles, merged(dotted, hyphened), b",".join(states) if states else None)


def merged(dotted: list[Line], hyphened: list[Line]) -> list[Line]:
    """The lines of both spellings; what both say alike counts once. :raises ConflictingHeaders: they differ on a name."""
    if not hyphened:
        return dotted
    if not dotted:
        return hyphened
    said = by_name(dotted)
    for name, values in by_name(hyphened).items():
        if said.setdefault(name, values) != values:
            shown = name.decode("latin-1")
            raise ConflictingHeaders(f"header.{shown} and header-{shown} were both sent, and differ; send one of them")
    both = {name for name, _ in dotted}
    return dotted + [line for line in hyphened if line[0] not in both]


def by_name(lines: Sequence[Line]) -> dict[bytes, list[bytes]]:
    """Values in order, by name."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in lines:
        found.setdefault(name, []).append(value)
    return found


def record_headers(lines: Lines) -> Headers:
    """The record's headers: ``content-type``, ``traceparent``, ``tracestate``, then ``header.<name>`` in the order sent.

    :raises BadHeader: a name or a value is not valid. :raises ReservedHeader: a name begins with ``psubd``.
    :raises ConflictingHeaders: ``header.content-type`` says another thing than ``content-type``, or likewise of the trace.
    """
    kept = kept_headers(lines)
    return (*kept.items(), *named_headers(lines, kept))


def common_headers(lines: Lines) -> tuple[Headers, Headers]:
    """As `record_headers`, without the trace: what stands before it, and what behind."""
    said = lines.singles.get("content-type")
    kept = {} if said is None else {"content-type": said}
    return tuple(kept.items()), named_headers(lines, kept)


def named_headers(lines: Lines, kept: dict[str, bytes]) -> Headers:
    """Those of ``header.<name>``, but for what ``kept`` says alike."""
    if not lines.named:
        return ()
    encoded = is_base64(lines, "headers.encoding")
    headers: list[tuple[str, bytes | None]] = []
    for raw, value in lines.named:
        name = record_name(raw)
        data = decoded(value, f"header.{name}", encoded)
        if name in kept:
            if data != kept[name]:
                raise ConflictingHeaders(f"{name} and header.{name} were both sent, and differ; send one of them")
            continue
        headers.append((name, data))
    return tuple(headers)


def kept_headers(lines: Lines) -> dict[str, bytes]:
    """The lines that become record headers under their own name."""
    found: dict[str, bytes] = {name: lines.singles[name] for name in ("content-type", "traceparent") if name in lines.singles}
    if lines.tracestate is not None:
        found["tracestate"] = lines.tracestate
    return found


def record_name(raw: bytes) -> str:
    """The name behind ``header.``. :raises BadHeader: none, or not ASCII. :raises ReservedHeader:"""
    if not raw or not raw.isascii():
        raise BadHeader("header.<name>: the name is empty or not ASCII; use the JSON batch for such a name")
    name = raw.decode("ascii").lower()
    refuse_reserved(name)
    return name


def refuse_reserved(name: str) -> None:
    """:raises ReservedHeader: for a name of psubd's own, whatever its case: over HTTP a reader could not tell them apart."""
    if name[:5].lower() == RESERVED:
        raise ReservedHeader(f"{name[:60]}: record headers that begin with {RESERVED} are psubd's own; take another name")


def decoded(value: bytes, name: str, encoded: bool) -> bytes:
    """A header's value as the bytes that it stands for. :raises BadHeader:"""
    if encoded:
        try:
            return strict_base64(value)
        except ValueError:
            raise BadHeader(f"{name}: not base64; send the standard alphabet, padded") from None
    if not value.isascii():
        try:
            value.decode("utf-8")
        except UnicodeDecodeError:
            raise BadHeader(f"{name}: not UTF-8; send UTF-8 bytes, or base64 with its encoding header") from None
    return value


def is_base64(lines: Lines, name: str) -> bool:
    """Whether the encoding header ``name`` says base64. :raises BadHeader: it says another thing."""
    said = lines.singles.get(name)
    if said is None:
        return False
    if said != b"base64":
        raise BadHeader(f"{name}: only base64 is known; leave it out for UTF-8")
    return True


def record_key(lines: Lines) -> bytes | None:
    """The message's key; None: none was sent. :raises BadHeader:"""
    encoded = is_base64(lines, "key.encoding")
    value = lines.singles.get("key")
    return None if value is None else decoded(value, "key", encoded)
