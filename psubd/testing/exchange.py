"""An exchange made by hand, for tests of endpoints."""

from collections.abc import Iterable, Sequence
from typing import Any

from zope.interface import implementer

from psubd.errors import BadHeader
from psubd.interfaces import IExchange


@implementer(IExchange)
class FakeExchange:
    """One request as the wire would hand it over: header names are lowered and values stripped, as the wire does.

    :param headers: pairs of ``str`` or ``bytes``, in order; text is sent as UTF-8.
    :param query: without the question mark.
    """

    def __init__(
        self,
        method: str = "GET",
        path: str = "/",
        query: bytes = b"",
        headers: Iterable[tuple[bytes | str, bytes | str]] = (),
        body: bytes = b"",
        client: str = "127.0.0.1",
        secure: bool = False,
        request_id: str = "fake-request",
    ) -> None:
        self.method = method
        self.path = path
        self.raw_query = query
        self.headers: Sequence[tuple[bytes, bytes]] = tuple((as_bytes(name).lower(), as_bytes(value).strip(b" \t")) for name, value in headers)
        self.body = body
        self.client = client
        self.secure = secure
        self.request_id = request_id
        self.kept: dict[str, Any] = {}

    def header(self, name: bytes) -> bytes | None:
        values = [value for sent, value in self.headers if sent == name]
        if len(values) > 1:
            raise BadHeader(f"{name.decode('latin-1')}: sent twice; send it once")
        return values[0] if values else None


def as_bytes(text: bytes | str) -> bytes:
    """``text`` in UTF-8."""
    return text.encode() if isinstance(text, str) else text
