"""One record of a JSON or NDJSON batch (contract, section 2): what was read can be posted back."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec

from psubd import fields
from psubd.endpoints.coding import strict_base64
from psubd.endpoints.names import refuse_reserved
from psubd.errors import BadHeader, BadRecord, PsubdError, ReservedHeader, TooLarge
from psubd.model import Headers, Record

Scalar = str | int | float | bool | None
CONTENT_TYPE = "content-type"
JSON = b"application/json"


class Base64(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes, as ``{"base64": ...}``."""

    base64: str


Text = str | Base64 | None


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record as a client writes it. The last five are what an answer of sub says beside it: taken and ignored."""

    value: msgspec.Raw
    key: Text = None
    partition: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    timestamp: Annotated[int, msgspec.Meta(ge=0, le=fields.INT64)] | None = None
    headers: dict[str, Text | list[Text]] | None = None
    encoding: Literal["utf-8", "base64"] = "utf-8"
    topic: Scalar = None
    offset: Scalar = None
    attempt: Scalar = None
    ack: Scalar = None
    epoch: Scalar = None


class Plain(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The usual record, of text throughout: what it takes means the same as in `Form`, and is read several times as fast."""

    value: str
    key: str | None = None
    partition: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    timestamp: Annotated[int, msgspec.Meta(ge=0, le=fields.INT64)] | None = None
    headers: dict[str, str | None] | None = None
    encoding: Literal["utf-8"] = "utf-8"


class PlainBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    records: list[Plain]


read_plain_body = msgspec.json.Decoder(PlainBody).decode
read_plain = msgspec.json.Decoder(Plain).decode
read_form = msgspec.json.Decoder(Form).decode
read_text = msgspec.json.Decoder(str).decode
read_object: Callable[[bytes], dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def in_record(refused: PsubdError, number: int) -> PsubdError:
    """The refusal of one record of a batch: it names the record, and what is a header of a single publish is a member here."""
    if isinstance(refused, BadHeader):
        return BadRecord(refused.detail, record=number)
    if isinstance(refused, (BadRecord, ReservedHeader, TooLarge)):
        refused.members = {**refused.members, "record": number}
    return refused


def plain(topic: str, found: Sequence[Plain]) -> list[Record]:
    """Records of text. :raises ReservedHeader: without ``record``."""
    return [
        Record(
            topic,
            record.value.encode(),
            None if record.key is None else record.key.encode(),
            () if record.headers is None else read_headers(record.headers),
            record.partition,
            record.timestamp,
        )
        for record in found
    ]


def read(topic: str, raw: bytes | msgspec.Raw, max_value: int) -> Record:
    """A record from its JSON.

    :param max_value: bytes; a JSON value that is larger is refused before it is looked into.
    :raises BadRecord: :raises ReservedHeader: :raises TooLarge: without ``record``, which the caller adds.
    """
    try:
        form = read_form(raw)
        value, is_json = read_value(form, max_value)
    except msgspec.ValidationError as refused:
        raise BadRecord(str(refused)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise BadRecord(fields.not_json(bytes(raw), broken)) from None
    headers = () if form.headers is None else read_headers(form.headers)
    if is_json and not any(name.lower() == CONTENT_TYPE for name, _ in headers):
        headers = (*headers, (CONTENT_TYPE, JSON))
    return Record(topic, value, read_bytes(form.key, "key"), headers, form.partition, form.timestamp)


def read_value(form: Form, max_value: int) -> tuple[bytes | None, bool]:
    """The value's bytes, and whether they are JSON kept as it stood."""
    raw = bytes(form.value)
    if raw[:1] == b'"':
        text = read_text(raw)
        return (from_base64(text, "value") if form.encoding == "base64" else text.encode()), False
    if raw == b"null":
        return None, False
    if form.encoding == "base64":
        raise BadRecord("value: with encoding base64 it must be a base64 string, or null")
    if raw[:1] == b"{":
        members = read_object(raw)
        if len(members) == 1:
            if "base64" in members:
                return from_base64(msgspec.json.decode(members["base64"], type=str), "value.base64"), False
            if "json" in members:
                raw = bytes(members["json"])
    return kept_json(raw, max_value), True


def kept_json(raw: bytes, max_value: int) -> bytes:
    """JSON as its bytes stood in the request; the parser has found it well-formed, but has not looked into its strings."""
    if len(raw) > max_value:
        raise TooLarge(f"the value has {len(raw)} bytes; psubd takes at most {max_value} (max-message-bytes)")
    if not raw.isascii():
        raw.decode("utf-8")
    fields.check_depth(raw, BadRecord)
    return raw


def read_headers(given: dict[str, Any]) -> Headers:
    """Record headers; a list repeats the name. :raises ReservedHeader: :raises BadRecord:"""
    headers: list[tuple[str, bytes | None]] = []
    for name, said in given.items():
        refuse_reserved(name)
        values = said if isinstance(said, list) else (said,)
        headers += [(name, read_bytes(value, f"headers.{name}")) for value in values]
    return tuple(headers)


def read_bytes(said: Text, name: str) -> bytes | None:
    """A key or a header's value."""
    if said is None:
        return None
    return said.encode() if isinstance(said, str) else from_base64(said.base64, name)


def from_base64(text: str, name: str) -> bytes:
    """:raises BadRecord: it is not strict base64."""
    try:
        return strict_base64(text)
    except ValueError:
        raise BadRecord(f"{name[:80]}: not base64; send the standard alphabet, padded") from None
