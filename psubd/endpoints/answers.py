"""The small answers that many routes give."""

from typing import Any

import msgspec

from psubd.model import Answer

JSON = b"application/json"
JSON_LINE = (b"content-type", JSON)

encode = msgspec.json.Encoder().encode
"""`msgspec.json.encode` would make an encoder each time."""


def json_answer(value: Any, status: int = 200) -> Answer:
    """``value`` as JSON."""
    return Answer(status, encode(value), [JSON_LINE])
