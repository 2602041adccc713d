"""One request that was let in: who calls, and what it said, read by the route's own description."""

import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from psubd import fields
from psubd.errors import BadHeader, VersionMismatch
from psubd.interfaces import IExchange
from psubd.manager import listing
from psubd.manager.doc import JSON
from psubd.model import Answer, Role

ENTITY_TAG = re.compile(rb'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
ENTITY_TAGS = re.compile(rb"%b(?:[ \t]*,[ \t]*%b)*" % (ENTITY_TAG.pattern, ENTITY_TAG.pattern))
VERSION = re.compile(rb"[1-9][0-9]{0,18}")


class Caller(msgspec.Struct, frozen=True):
    """Who calls.

    :ivar name: the token's name. :ivar client: the peer's address.
    :ivar stands: whether the credential still holds, now.
    """

    name: str
    role: Role
    client: str
    stands: Callable[[], bool]

    @property
    def actor(self) -> str:
        """Who did it, for the audit."""
        return f"token {self.name} from {self.client}"


class Visit(msgspec.Struct, frozen=True):
    """:ivar caller: None on an open route. :ivar query: the parameters that were sent. :ivar form: the body, as the route's shape.
    :ivar media: the content type to answer with, of those that the route has; empty where it answers without a body."""

    exchange: IExchange
    caller: Caller | None
    query: dict[str, str]
    form: Any
    media: str

    @property
    def actor(self) -> str:
        return self.caller.actor if self.caller is not None else f"nobody from {self.exchange.client}"

    def number(self, name: str, low: int, high: int, default: int) -> int:
        """A query parameter as a number. :raises BadParameter:"""
        text = self.query.get(name)
        return default if text is None else fields.integer(text, name, low, high)

    def flag(self, name: str) -> bool:
        """A query parameter as a boolean, absent as false. :raises BadParameter:"""
        text = self.query.get(name)
        return text is not None and fields.boolean(text, name)

    def page(self, keys: Sequence[listing.Key], name: str) -> tuple[Sequence[listing.Key], str | None]:
        """The page of a list that was asked for. :raises BadParameter:"""
        return listing.cut(keys, self.number("limit", 1, listing.MOST, listing.LIMIT), self.query.get("cursor"), name)

    def if_match(self, current: int | None) -> int | None:
        """The version that the write must still find, or None where the caller does not care.

        Weak tags never match, since a write compares strongly; ``*`` is whatever is there now (RFC 9110 section 13.1.1).

        :param current: the present version; None: the thing is not there.
        :raises VersionMismatch: :raises BadHeader: it is not a list of entity tags.
        """
        sent = self.exchange.header(b"if-match")
        if sent is None:
            return None
        if current is None:
            raise VersionMismatch("If-Match names a version, but it does not exist (any more)")
        if sent != b"*" and current not in strong_versions(sent):
            raise VersionMismatch("If-Match does not name the present version; read it again, then write", version=current)
        return current


Call = Callable[..., Coroutine[Any, Any, Answer]]
"""What a noun does on one route: called with the visit, and the path's parts by keyword."""


def strong_versions(header: bytes) -> set[int]:
    """The versions that a list of entity tags names; a tag that is not one of ours matches nothing."""
    if ENTITY_TAGS.fullmatch(header) is None:
        raise BadHeader('if-match: not a list of entity tags; send the answer\'s ETag with its quotes, as "3"')
    tags = ((found[1], found[2]) for found in ENTITY_TAG.finditer(header))
    return {int(text) for weak, text in tags if weak is None and VERSION.fullmatch(text)}


def answer(value: Any, status: int = 200, *, version: int | None = None, location: str | None = None) -> Answer:
    """A JSON answer with what belongs to it."""
    headers = [(b"content-type", JSON.encode())]
    if version is not None:
        headers.append((b"etag", b'"%d"' % version))
    if location is not None:
        headers.append((b"location", location.encode()))
    return Answer(status=status, body=fields.json_bytes(value), headers=headers)


def no_content() -> Answer:
    """204."""
    return Answer(status=204)
