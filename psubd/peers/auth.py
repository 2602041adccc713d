"""Who is at the other end: both prove that they know the cluster's secret, before anything else is said. No I/O.

    dialler                                       listener
    HELLO  version, its key, the listener's, nonce ──▶
           ◀── CHALLENGE  nonce
    PROOF  HMAC-SHA256 ──▶                                      the dialler is known now
           ◀── WELCOME  HMAC-SHA256                             sent once its membership shows the dialler

Each MAC is over protocol version, the prover's role, both keys and both nonces, so that what was recorded, reflected, or made for another pair
or another version proves nothing. The dialler proves first: a stranger gets a nonce and nothing else. After that the line itself is trusted: it
is loopback or TLS (`psubd.peers.line`), so no frame carries a MAC of its own.

Of a pair of nodes the one with the smaller key dials; another dialler is refused, so that there is one connection a pair.
"""

import hmac
import secrets
from collections.abc import Callable

from psubd.peers.frames import Frame, Kind, encode

VERSION = 1
SECRET_BYTES = 32
NONCE_BYTES = 32
KEY_BYTES = 255
"""UTF-8 bytes of a member's key."""
BYTES_BEFORE = 1024
"""What may come before the other end is known. A handshake has at most 603 bytes one way."""

Secret = Callable[[], bytes]
"""Gives the cluster's secret; raises where it cannot be told now."""


class Refused(Exception):
    """The other end is not who it says, or not who was asked for; the text says why, without a secret."""


def proof(secret: bytes, role: bytes, dialler: str, listener: str, nonces: tuple[bytes, bytes]) -> bytes:
    """What ``role`` ("dialler" or "listener") shows. ``nonces``: the dialler's, the listener's."""
    if len(secret) != SECRET_BYTES:
        raise Refused(f"the secret of the nodes has {len(secret)} bytes, and needs {SECRET_BYTES}")
    parts = (b"psubd.peers", bytes((VERSION,)), role, key_bytes(dialler), key_bytes(listener), *nonces)
    return hmac.digest(secret, b"".join(bytes((len(part),)) + part for part in parts), "sha256")


def key_bytes(key: str) -> bytes:
    """:raises Refused: too long to be a member's key."""
    encoded = key.encode()
    if not 0 < len(encoded) <= KEY_BYTES:
        raise Refused(f"a member's key has 1 to {KEY_BYTES} bytes, not {len(encoded)}")
    return encoded


class Dialling:
    """The dialler's side.

    :param own: this node's key. :param other: the key of the member that it dialled.
    :ivar member: who is at the other end, once that is proven.
    """

    def __init__(self, secret: Secret, own: str, other: str, nonce: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._secret, self._own, self._other = secret, own, other
        self._nonce = nonce(NONCE_BYTES)
        self._nonces: tuple[bytes, bytes] | None = None
        self.member: str | None = None

    def begin(self) -> bytes:
        """What to send first."""
        own, other = key_bytes(self._own), key_bytes(self._other)
        body = b"".join((bytes((VERSION, len(own))), own, bytes((len(other),)), other, self._nonce))
        return encode(Kind.HELLO, 0, body)

    def received(self, frame: Frame) -> bytes:
        """What to answer. :raises Refused: and nothing is to be answered."""
        if self._nonces is None:
            self._nonces = self._nonce, nonce_of(expect(frame, Kind.CHALLENGE).body)
            return encode(Kind.PROOF, 0, self._proof(b"dialler"))
        if self.member is not None or not hmac.compare_digest(expect(frame, Kind.WELCOME).body, self._proof(b"listener")):
            raise Refused(f"what answers there does not prove that it is {self._other}")
        self.member = self._other
        return b""

    def welcome(self) -> bytes:
        """Nothing: the listener's part."""
        return b""

    def _proof(self, role: bytes) -> bytes:
        assert self._nonces is not None
        return proof(self._secret(), role, self._own, self._other, self._nonces)


class Answering:
    """The listener's side.

    :param own: this node's key.
    :ivar member: who is at the other end, once that is proven.
    """

    def __init__(self, secret: Secret, own: str, nonce: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._secret, self._own = secret, own
        self._nonce = nonce(NONCE_BYTES)
        self._hello: tuple[str, bytes] | None = None
        self._welcome = b""
        self.member: str | None = None

    def begin(self) -> bytes:
        """What to send first: nothing."""
        return b""

    def received(self, frame: Frame) -> bytes:
        """What to answer. :raises Refused: and nothing is to be answered."""
        if self._hello is None:
            self._hello = self._judge(expect(frame, Kind.HELLO).body)
            return encode(Kind.CHALLENGE, 0, self._nonce)
        if self.member is not None or not hmac.compare_digest(expect(frame, Kind.PROOF).body, self._proof(b"dialler")):
            raise Refused(f"it does not prove that it is {self._hello[0]}")
        self._welcome = encode(Kind.WELCOME, 0, self._proof(b"listener"))
        self.member = self._hello[0]
        return b""

    def welcome(self) -> bytes:
        """What to send once it is known and may come in."""
        return self._welcome

    def _proof(self, role: bytes) -> bytes:
        assert self._hello is not None
        dialler, nonce = self._hello
        return proof(self._secret(), role, dialler, self._own, (nonce, self._nonce))

    def _judge(self, body: bytes) -> tuple[str, bytes]:
        """Who says hello, and its nonce."""
        if body[:1] != bytes((VERSION,)):
            raise Refused(f"it speaks version {body[0] if body else 'none'} of the nodes' protocol, and this node {VERSION}")
        dialler, rest = text_of(body[1:])
        listener, rest = text_of(rest)
        if listener != self._own:
            raise Refused(f"{dialler} asks for {listener}, and this is {self._own}")
        if dialler >= self._own:
            raise Refused(f"{dialler} dials {self._own}; of two nodes the one with the smaller key dials")
        return dialler, nonce_of(rest)


def expect(frame: Frame, kind: Kind) -> Frame:
    """The frame. :raises Refused: it is of another kind."""
    if frame.kind is not kind:
        raise Refused(f"it sent {frame.kind.name} where {kind.name} was expected")
    return frame


def nonce_of(body: bytes) -> bytes:
    """:raises Refused: not a nonce."""
    if len(body) != NONCE_BYTES:
        raise Refused(f"its nonce has {len(body)} bytes, and needs {NONCE_BYTES}")
    return body


def text_of(body: bytes) -> tuple[str, bytes]:
    """A key that its length stands before, and what follows it. :raises Refused:"""
    end = 1 + body[0] if body else 1
    if end < 2 or len(body) < end:
        raise Refused("its hello ends within a key, or names none")
    try:
        return body[1:end].decode(), body[end:]
    except UnicodeDecodeError:
        raise Refused("its hello names a key that is not UTF-8") from None
