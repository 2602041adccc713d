"""Lists: ``{"items": [...], "next": cursor|null}`` with ``?limit=`` and ``?cursor=``.

A page follows the keys' order and goes on behind the last key that it gave, not at a count: what is made or deleted between two pages
moves nothing else in or out.
"""

import base64
import binascii
from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from psubd.errors import BadParameter
from psubd.manager.doc import Parameter

T = TypeVar("T")
Key = tuple[str, ...]

LIMIT, MOST = 100, 1000
PAGING = (
    Parameter("limit", Annotated[int, msgspec.Meta(ge=1, le=MOST)], f"How many items at most; {LIMIT} where it is not given."),
    Parameter("cursor", str, "The `next` of the page before."),
)


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list; ``next`` null: the last one."""

    items: list[T]
    next: str | None


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What a cursor holds: the list that it belongs to, with its filters, and the last key given."""

    list: str
    key: Key


def cut(keys: Sequence[Key], limit: int, cursor: str | None, name: str) -> tuple[Sequence[Key], str | None]:
    """The keys of one page, and the cursor of the next.

    :param keys: all of them, sorted.
    :param name: the list with its filters; a cursor of another list is refused.
    :raises BadParameter: the cursor is not one of this list's.
    """
    begin = 0 if cursor is None else bisect_right(keys, read_cursor(cursor, name))
    page = keys[begin : begin + limit]
    more = begin + limit < len(keys)
    return page, write_cursor(page[-1], name) if more else None


def write_cursor(key: Key, name: str) -> str:
    """An opaque text that stands for "behind this key"."""
    return base64.urlsafe_b64encode(msgspec.json.encode(Mark(name, key))).rstrip(b"=").decode()


def read_cursor(text: str, name: str) -> Key:
    """The key in a cursor. :raises BadParameter: it is not one of this list's."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        mark = msgspec.json.decode(raw, type=Mark)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise BadParameter("cursor: not one that this API gave; begin without it") from None
    if mark.list != name:
        raise BadParameter("cursor: of another list, or of other filters; begin without it")
    return mark.key


def keyed(names: Sequence[str]) -> list[Key]:
    """Names as keys of a list."""
    return [(name,) for name in names]


def filters(**values: Any) -> str:
    """Filters as a part of a list's name."""
    return "&".join(f"{name}={value}" for name, value in values.items() if value is not None)
