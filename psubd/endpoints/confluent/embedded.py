"""Keys and values inside Confluent's JSON: ``binary`` (base64), ``json`` (as it stands) and ``text`` (UTF-8), both ways.

What was published in one format may be read in another, and who else writes to the topic knows of none: so all bytes have a form in every format, and
one message that has not the format's own costs its reader nothing of the others. UTF-8 is a JSON string then, other bytes are ``{"base64": "..."}``.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from psubd import fields
from psubd.endpoints.coding import strict_base64
from psubd.endpoints.names import refuse_reserved
from psubd.errors import BadRecord
from psubd.model import Delivered, Headers
from psubd.shown import base64_text

Format = Literal["binary", "json", "text"]
NULL = b"null"
WHATEVER = 1 << 62

encode = msgspec.json.Encoder().encode
check_json = msgspec.json.Decoder(msgspec.Raw).decode
read_text = msgspec.json.Decoder(str | None).decode


class Header(msgspec.Struct, frozen=True, gc=False):
    """One record header: ``value`` is base64; null is null."""

    key: str
    value: str | None = None


# --- what is published -----------------------------------------------------------------------------------------------------------


def bytes_of(raw: bytes | msgspec.Raw, format: Format, name: str, most: int = WHATEVER) -> bytes | None:
    """The bytes of a key or a value from its JSON, which is well-formed; null is None.

    :param name: of the member, for the refusal. :param most: bytes that may be stored. :raises BadRecord:
    """
    said = bytes(raw).strip(b" \t\r\n")
    if said == NULL:
        return None
    if format == "json":
        return kept_json(said, name, most)
    try:
        text = read_text(said)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRecord(f"{name}: in the format {format} it is a JSON string or null") from None
    assert text is not None
    return text.encode() if format == "text" else from_base64(text, name)


def kept_json(said: bytes, name: str, most: int = WHATEVER) -> bytes:
    """JSON as its bytes stood in the request; the parser has found it well-formed, but has not looked into its strings. What is longer than ``most``
    nobody will store: nothing of it is looked at, which would take seconds."""
    if len(said) > most:
        return said
    if not said.isascii():
        try:
            said.decode("utf-8")
        except UnicodeDecodeError:
            raise BadRecord(f"{name}: not UTF-8") from None
    fields.check_depth(said, BadRecord)
    return said


def headers_of(given: Sequence[Header]) -> Headers:
    """Record headers, repeats kept. :raises ReservedHeader: :raises BadRecord:"""
    for header in given:
        refuse_reserved(header.key)
    return tuple((header.key, None if header.value is None else from_base64(header.value, f"headers.{header.key}")) for header in given)


def from_base64(text: str, name: str) -> bytes:
    """:raises BadRecord: it is not strict base64."""
    try:
        return strict_base64(text)
    except ValueError:
        raise BadRecord(f"{name[:80]}: not base64; send the standard alphabet, padded") from None


# --- what is read ----------------------------------------------------------------------------------------------------------------


def json_binary(data: bytes | None) -> bytes:
    """The bytes' JSON in the format ``binary``."""
    return NULL if data is None else b'"%s"' % base64_text(data).encode()


def json_json(data: bytes | None) -> bytes:
    """The bytes' JSON in the format ``json``: as they stand, where they are JSON."""
    if data is None:
        return NULL
    try:
        check_json(data)
        if not data.isascii():
            data.decode("utf-8")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return json_text(data)
    return data


def json_text(data: bytes | None) -> bytes:
    """The bytes' JSON in the format ``text``."""
    if data is None:
        return NULL
    try:
        return encode(data.decode("utf-8"))
    except UnicodeDecodeError:
        return b'{"base64":"%s"}' % base64_text(data).encode()


JSON_OF: dict[Format, Callable[[bytes | None], bytes]] = {"binary": json_binary, "json": json_json, "text": json_text}


def json_headers(headers: Headers) -> bytes:
    """``[{"key","value"}]``."""
    return encode([Header(name, None if value is None else base64_text(value)) for name, value in headers])


def records(messages: Sequence[Delivered], format: Format, dialect: Literal[1, 2]) -> bytes:
    """The body of a read. The second version of the API has ``timestamp`` and, where there are any, ``headers`` beside Confluent's five members."""
    json_of = JSON_OF[format]
    pieces: list[bytes] = []
    for delivered in messages:
        message = delivered.message
        members = (json_of(message.key), json_of(message.value), delivered.partition, message.offset)
        if dialect == 1:
            pieces.append(b'{"key":%b,"value":%b,"partition":%d,"offset":%d}' % members)
            continue
        head, tail = b'{"topic":"%b",' % delivered.topic.encode(), b""
        if message.headers:
            tail = b',"headers":%b' % json_headers(message.headers)
        pieces.append(b'%b"key":%b,"value":%b,"partition":%d,"offset":%d,"timestamp":%d%b}' % (head, *members, message.timestamp, tail))
    return b"[%b]" % b",".join(pieces)
