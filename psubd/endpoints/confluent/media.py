"""The media types of Confluent's API: which version of it a request speaks, and in which format keys and values are embedded."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from psubd import accept
from psubd.endpoints import media
from psubd.endpoints.confluent.embedded import Format
from psubd.endpoints.confluent.faults import NoSchemas, OtherFormat
from psubd.errors import NotAcceptable, UnsupportedMediaType
from psubd.interfaces import IExchange

Dialect = Literal[1, 2]
Lines = Sequence[tuple[bytes, bytes]]

FORMATS: tuple[Format, ...] = ("binary", "json", "text")
SCHEMAS = ("avro", "jsonschema", "protobuf")
JSON = "application/json"
OCTETS = "application/octet-stream"


class Kind(msgspec.Struct, frozen=True):
    """:ivar dialect: None: either. :ivar format: None: nothing is embedded, or it is not said how."""

    dialect: Dialect | None
    format: Format | None = None


def embedded(dialect: Dialect, format: str) -> str:
    """The type of a body with embedded keys and values."""
    return f"application/vnd.kafka.{format}.v{dialect}+json"


def plain(dialect: Dialect) -> str:
    """The type of a body without."""
    return f"application/vnd.kafka.v{dialect}+json"


KINDS = {
    **{embedded(dialect, format): Kind(dialect, format) for dialect in (1, 2) for format in FORMATS},
    plain(1): Kind(1),
    plain(2): Kind(2),
    "application/vnd.kafka+json": Kind(1),
    OCTETS: Kind(1),
    JSON: Kind(None),
}
"""What is known. The first version has no ``text`` at Confluent's; here it may have."""

NO_SCHEMAS = "schemas (avro, jsonschema, protobuf) are not served; send and read binary, json or text"
OF_SCHEMAS = {embedded(dialect, name): Kind(dialect) for dialect in (1, 2) for name in SCHEMAS}
SPOKEN = {**KINDS, **OF_SCHEMAS}
"""What says which version a request speaks: also what is refused."""


def line(media: str) -> tuple[bytes, bytes]:
    """The header line of an answer."""
    return b"content-type", media.encode("ascii")


def sent(exchange: IExchange) -> Kind | None:
    """What the body is; None: it is not said. :raises UnsupportedMediaType: :raises NoSchemas:"""
    said = media.sent_type(exchange)
    if said is None:
        return None
    if said in OF_SCHEMAS:
        raise NoSchemas(f"content-type: {NO_SCHEMAS}")
    if said not in KINDS:
        raise UnsupportedMediaType(f"content-type: {said[:60]!r} is not taken here; send {plain(2)}, or {embedded(2, 'json')} and the like")
    return KINDS[said]


def dialect_of(lines: Lines) -> Dialect | None:
    """The version that the request speaks, by ``content-type``, else by ``accept``; None: by neither."""
    for name in (b"content-type", b"accept"):
        for kind in kinds(lines, name):
            if kind.dialect is not None:
                return kind.dialect
    return None


def spoken(lines: Lines) -> Dialect:
    """The version that the request speaks; the second where it says none."""
    return dialect_of(lines) or 2


def kinds(lines: Lines, name: bytes) -> list[Kind]:
    """The types that a header names, as far as they are known, in their order."""
    said = b",".join(value for found, value in lines if found == name).decode("latin-1").lower()
    types = [element.partition(";")[0].strip() for element in said.split(",")]
    return [SPOKEN[each] for each in types if each in SPOKEN]


def answer_type(exchange: IExchange, dialect: Dialect) -> str:
    """The type of an answer with nothing embedded. :raises NotAcceptable:"""
    offers = (plain(dialect), JSON, "application/vnd.kafka+json", *(embedded(dialect, format) for format in FORMATS))
    liked = accept.best(exchange.headers, offers)
    if liked is None:
        raise NotAcceptable(f"accept: none of it is given here; accept {plain(dialect)}")
    return JSON if liked == JSON else plain(dialect)


def read_type(exchange: IExchange, dialect: Dialect, format: Format) -> str:
    """The type of a read's answer. What names no format gets the instance's own. :raises OtherFormat: :raises NotAcceptable:"""
    offers = (embedded(dialect, format), plain(dialect), "application/vnd.kafka+json", JSON)
    liked = accept.best(exchange.headers, offers)
    if liked is not None:
        return JSON if liked == JSON else offers[0]
    if any(kind.format is not None for kind in kinds(exchange.headers, b"accept")) or accept.best(exchange.headers, tuple(OF_SCHEMAS)):
        raise OtherFormat(f"accept: the instance was made for the format {format}; accept {offers[0]}, or make another instance")
    raise NotAcceptable(f"accept: none of it is given here; accept {offers[0]}")


def produced(exchange: IExchange) -> Format:
    """How keys and values are embedded in what is published. ``application/json`` is JSON, unless it is the first version's client that says it; what
    names no format is ``binary``. :raises UnsupportedMediaType: :raises NoSchemas:"""
    kind = sent(exchange)
    if kind is None:
        return "binary"
    if kind.format is not None:
        return kind.format
    return "json" if kind.dialect is None and dialect_of(exchange.headers) != 1 else "binary"


def free_type(exchange: IExchange) -> tuple[Format, str]:
    """Format and type of the answer to a read without an instance, which is the first version's: ``binary`` where none is named.

    :raises NoSchemas: it accepts nothing but those. :raises NotAcceptable:"""
    usual = embedded(1, "binary")
    offers = (usual, plain(1), "application/vnd.kafka+json", JSON, *(embedded(dialect, format) for dialect in (1, 2) for format in FORMATS), plain(2))
    liked = accept.best(exchange.headers, offers)
    if liked is None:
        if accept.best(exchange.headers, tuple(OF_SCHEMAS)):
            raise NoSchemas(f"accept: {NO_SCHEMAS}")
        raise NotAcceptable(f"accept: none of it is given here; accept {usual}, {embedded(1, 'json')} and the like")
    format = KINDS[liked].format or "binary"
    return format, JSON if liked == JSON else embedded(1, format)
