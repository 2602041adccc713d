"""Media types: what a body is (RFC 9110 section 8.3)."""

from psubd.errors import UnsupportedMediaType
from psubd.interfaces import IExchange

CHARSETS = ("utf-8", "utf8", "us-ascii")


def sent_type(exchange: IExchange) -> str | None:
    """The body's type in lower case without its parameters, or None. :raises UnsupportedMediaType: its charset is not UTF-8."""
    value = exchange.header(b"content-type")
    if value is None:
        return None
    media, *parameters = (part.strip() for part in value.decode("latin-1").lower().split(";"))
    for parameter in parameters:
        name, _, said = parameter.partition("=")
        if name.strip() == "charset" and said.strip().strip('"') not in CHARSETS:
            raise UnsupportedMediaType("content-type: only UTF-8 is read; send charset=utf-8 or none")
    return media


def require_json(exchange: IExchange) -> None:
    """:raises UnsupportedMediaType: the body says that it is another thing than JSON. One that says nothing is taken for JSON."""
    sent = sent_type(exchange)
    if sent is not None and sent != "application/json":
        raise UnsupportedMediaType(f"content-type: {sent[:60]!r} is not taken here; send application/json")
