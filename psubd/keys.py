"""What a key looks like, how one is made, and what is kept of it.

Keys are 32 random bytes as 43 characters of URL-safe base64 behind a prefix that names their kind (contract, section 1), so that one that
turns up in the wrong place can be told by its look. Kept is the SHA-256 of the whole text: 256 random bits need no salt and no slow hash.
"""

import hashlib
import secrets
from typing import Literal

KeyKind = Literal["pubkey", "secret", "subkey", "token"]

PREFIXES: dict[KeyKind, str] = {"pubkey": "pk_", "secret": "ps_", "subkey": "sk_", "token": "pt_"}


def make(kind: KeyKind) -> str:
    """A new random key of that kind: 46 characters."""
    return PREFIXES[kind] + secrets.token_urlsafe(32)


def digest(text: str) -> str:
    """What is kept of a key: the SHA-256 of the whole text, in hex. Takes any text that a client may send."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
