"""Bodies of requests."""

import json
from struct import Struct

FRAME = Struct(">IBiqqqIHHiiI")
"""docs/http.md, "Binary frames": size, version, partition, offset, timestamp, epoch, attempt, lengths of topic, token, key and value; headers."""

FRAMES = "application/vnd.psubd.frames"
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
    body = (key or b"") + value
    length = -1 if key is None else len(key)
    return FRAME.pack(FRAME.size - 4 + len(body), 1, -1, 0, -1, -1, 0, 0, 0, length, len(value), 0) + body
