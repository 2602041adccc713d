"""What an endpoint sees of a request."""

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from psubd.errors import BadHeader
from psubd.interfaces import IExchange
from psubd.wire.handover import Line
from psubd.wire.head import Head


class View:
    """What an endpoint reads of a request, by its head.

    :ivar body: the whole body. :ivar tag: the request's id. :ivar line: what it came on.
    """

    __slots__ = ()

    head: Head
    line: Line
    body: bytes
    tag: bytes
    kept: dict[str, Any]

    @property
    def method(self) -> str:
        return self.head.method

    @property
    def path(self) -> str:
        return self.head.path.decode("ascii")

    @property
    def raw_query(self) -> bytes:
        return self.head.query

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        return self.head.fields

    @property
    def request_id(self) -> str:
        return self.tag.decode("ascii")

    @property
    def client(self) -> str:
        return peer_host(self.line.transport.getPeer())

    @property
    def secure(self) -> bool:
        return self.line.layered

    def header(self, name: bytes) -> bytes | None:
        found = None
        for sent, value in self.headers:
            if sent == name:
                if found is not None:
                    raise BadHeader(f"{name.decode('latin-1')}: sent twice; send it once")
                found = value
        return found


@implementer(IExchange)
class Exchange(View):
    """A request whose body has arrived; one of Klein's tree, for which nothing is kept."""

    __slots__ = ("body", "head", "kept", "line", "tag")

    def __init__(self, head: Head, body: bytes, tag: bytes, line: Line) -> None:
        self.head = head
        self.body = body
        self.tag = tag
        self.line = line
        self.kept = {}


def peer_host(address: Any) -> str:
    """The address's host; a UNIX socket's peer has none."""
    return str(getattr(address, "host", "unix"))
