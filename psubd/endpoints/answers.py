"""The small answers that many routes give."""

from typing import Any

import msgspec

from psubd.model import Answer

JSON = b"application/json"


def json_answer(value: Any, status: int = 200) -> Answer:
    """``value`` as JSON."""
    return Answer(status=status, body=msgspec.json.encode(value), headers=[(b"content-type", JSON)])
