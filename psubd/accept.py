"""Media types that a client accepts (RFC 9110 section 12.5.1)."""

import re
from collections.abc import Sequence

import msgspec

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
QUALITY = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


class Range(msgspec.Struct, frozen=True):
    """One element of ``Accept``: ``*/*``, ``type/*`` or a type, with its weight. Parameters but ``q`` do not matter to us."""

    media: str
    weight: float


def best(headers: Sequence[tuple[bytes, bytes]], offers: Sequence[str]) -> str | None:
    """The offer that the client likes most, the earlier of equals; None: it takes none of them.

    :param headers: the request's field lines, as `psubd.interfaces.IExchange` has them.

    Without ``Accept`` the first. An element that cannot be read, or that has a weight which is none, is left out, as if it was not there.
    """
    lines = [value for name, value in headers if name == b"accept"]
    if not lines:
        return offers[0]
    ranges = [found for element in b",".join(lines).decode("latin-1").lower().split(",") if (found := media_range(element)) is not None]
    weights = [weight(offer, ranges) for offer in offers]
    most = max(weights)
    return offers[weights.index(most)] if most > 0 else None


def media_range(element: str) -> Range | None:
    """One element of ``Accept``, or None."""
    media, *parameters = (part.strip() for part in element.split(";"))
    kind, slash, subtype = media.partition("/")
    if not slash or not TOKEN.fullmatch(kind) or not TOKEN.fullmatch(subtype) or (kind == "*" and subtype != "*"):
        return None
    for parameter in parameters:
        name, _, said = parameter.partition("=")
        if name.strip() == "q":
            return Range(media, float(said)) if QUALITY.fullmatch(said := said.strip()) else None
    return Range(media, 1.0)


def weight(offer: str, ranges: Sequence[Range]) -> float:
    """What the most specific range that covers the offer gives it."""
    for media in (offer, offer.partition("/")[0] + "/*", "*/*"):
        weights = [found.weight for found in ranges if found.media == media]
        if weights:
            return max(weights)
    return 0.0
