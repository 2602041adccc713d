"""Bodies of requests."""

import json

from psubd.endpoints import frames
from psubd.model import Delivered, Message

FRAMES = frames.TYPE
JSON = "application/json"

VALUE = "x" * 100


def batch(media: str, records: int, key: str | None = None) -> bytes:
    """A batch of so many records of 100 bytes, as JSON or as frames; with one key, or none."""
    if media == FRAMES:
        return frame(None if key is None else key.encode(), VALUE.encode()) * records
    record = {"value": VALUE} if key is None else {"key": key, "value": VALUE}
    return json.dumps({"records": [record] * records}).encode()


def frame(key: bytes | None, value: bytes) -> bytes:
    """One record to be published."""
    return frames.encode([Delivered("", -1, Message(0, -1, key, value, ()))])
