"""Bytes that a client writes as text."""

import binascii


def strict_base64(text: str | bytes) -> bytes:
    """Standard base64, padded, nothing else in it and no bits left over: one text for each bytes.

    :raises ValueError: it is not that.
    """
    if len(text) % 4:
        raise ValueError("not strict base64")  # CPython 3.11 lets a lone = behind whole groups pass
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise ValueError("not strict base64") from None
    tail = len(data) % 3
    if tail and binascii.b2a_base64(data[-tail:], newline=False) != (text.encode() if isinstance(text, str) else text)[-4:]:
        raise ValueError("not strict base64")
    return data
