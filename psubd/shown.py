"""How a message is shown as JSON, on both ports (contract, section 3): text where it is UTF-8, base64 where it is not."""

import base64
from typing import Any, Literal

from psubd.model import Headers


def base64_text(data: bytes) -> str:
    """``data`` in padded base64."""
    return base64.b64encode(data).decode("ascii")


def member(data: bytes | None) -> Any:
    """A key or a header's value as a JSON member: text, ``{"base64": ...}`` where it is not UTF-8, null."""
    if data is None:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64_text(data)}


def payload(value: bytes | None) -> tuple[str | None, Literal["utf-8", "base64"]]:
    """``value`` and ``encoding``."""
    if value is None:
        return None, "utf-8"
    try:
        return value.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return base64_text(value), "base64"


def header_members(headers: Headers) -> dict[str, Any]:
    """Record headers by name; a name that occurs more than once has a list."""
    found: dict[str, Any] = {}
    repeated: set[str] = set()
    for name, data in headers:
        value = member(data)
        if name not in found:
            found[name] = value
        elif name in repeated:
            found[name].append(value)
        else:
            repeated.add(name)
            found[name] = [found[name], value]
    return found
