"""``next``: where a replay goes on, as an opaque text that is safe in a query and in a header.

It holds the topic, the partition that was asked for (or none) and the offset to read next by partition. It grants nothing, so it is not
signed: who may read the topic may read any offset of it. It is checked, since it comes from a client.
"""

import base64

import msgspec

from psubd import fields
from psubd.errors import BadParameter

FORMAT = "n1."
"""Begins every one: tells it from a number and a word, and from the next format."""
MAX_PARTITION = 2**31 - 1


class Place(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """``partition`` None: all of the topic's."""

    topic: str
    partition: int | None
    offsets: dict[int, int]


def write(place: Place) -> str:
    """A place as text."""
    return FORMAT + base64.urlsafe_b64encode(msgspec.msgpack.encode(place)).rstrip(b"=").decode("ascii")


def read(text: str) -> Place:
    """A text that `write` made. :raises BadParameter: it is not one."""
    try:
        coded = text.removeprefix(FORMAT).translate(str.maketrans("-_", "+/"))
        raw = base64.b64decode(coded + "=" * (-len(coded) % 4), validate=True)
        place = msgspec.msgpack.decode(raw, type=Place)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        raise not_ours() from None
    partitions = list(place.offsets) if place.partition is None else [*place.offsets, place.partition]
    sane = all(0 <= partition <= MAX_PARTITION for partition in partitions) and all(0 <= offset <= fields.INT64 for offset in place.offsets.values())
    if not sane or not fields.topic_id(place.topic) or write(place) != text:
        raise not_ours()
    return place


def not_ours() -> BadParameter:
    """The refusal."""
    return BadParameter("offset: not a next of a replay answer; send it as it came, or begin with earliest, latest, time:<ms> or a number")
