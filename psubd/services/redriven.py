"""Messages that were redriven: for one group only, a gap for all others."""

import msgspec

from psubd.model import Headers, Slice
from psubd.services.letters import REDRIVE_GROUP


def own(found: Slice, group: str) -> Slice:
    """What of a slice is for ``group`` (full name)."""
    if not any(message.headers for message in found.messages):
        return found
    name = group.encode()
    messages = tuple(message for message in found.messages if not message.headers or is_for(message.headers, name))
    return found if len(messages) == len(found.messages) else msgspec.structs.replace(found, messages=messages)


def is_for(headers: Headers, group: bytes) -> bool:
    """Whether a message with these headers is for ``group``."""
    return all(name != REDRIVE_GROUP or value == group for name, value in headers)
