"""The secret that all nodes share, by which psubd knows its own lease tokens and dead letters again."""

import hashlib
import secrets
from base64 import b64decode, b64encode

import msgspec
from twisted.internet.defer import Deferred

from psubd.errors import RegistryUnavailable
from psubd.interfaces import IRegistry, ISnapshot, Plan, Put

PATH = "/secrets/signet"
SECRET_BYTES = 32
MAC_BYTES = 16
"""128 bits: nobody guesses one over HTTP."""


class AlreadyThere(Exception):
    """Another node made it first: nothing to write."""


class Signet:
    """Made once for a registry, then the same on all its nodes, for good. Kept in the registry as JSON; nothing shows it.

    Where it is lost no token and no seal of before counts, so that it is never made anew where one stands.
    """

    def __init__(self, registry: IRegistry) -> None:
        self._registry = registry
        self._secret: bytes | None = None
        self._begun: dict[bytes, hashlib.blake2b] = {}

    def __repr__(self) -> str:
        return "<Signet>"

    def open(self) -> "Deferred[None]":
        """Make it where it is absent; one that is there stands. Fails with RegistryUnavailable, also where that is none, StorageTimeout."""
        return Deferred.fromCoroutine(self._open())

    def mac(self, purpose: bytes, data: bytes) -> bytes:
        """16 bytes that only who has the secret can make of ``data``. Another ``purpose`` (at most 16 bytes, ours) gives others.

        :raises RegistryUnavailable: it was not opened, or what is kept cannot be read.
        """
        begun = self._begun.get(purpose)
        if begun is None:
            begun = self._begun[purpose] = hashlib.blake2b(key=self._read(), digest_size=MAC_BYTES, person=purpose)
        mac = begun.copy()  # less than beginning with the key each time
        mac.update(data)
        return mac.digest()

    async def _open(self) -> None:
        await self._make()
        self._read()  # what cannot be read is told now, not to who was leased something

    async def _make(self) -> None:
        if self._registry.snapshot().get(PATH) is not None:
            return

        def plan(snapshot: ISnapshot, serial: int) -> Plan:
            if snapshot.get(PATH) is not None:
                raise AlreadyThere
            return Plan("signet.made", (Put(PATH, made),))

        made = msgspec.json.encode(b64encode(secrets.token_bytes(SECRET_BYTES)).decode())
        try:
            await self._registry.change("psubd", plan)
        except AlreadyThere:
            return

    def _read(self) -> bytes:
        if self._secret is None:
            entry = self._registry.snapshot().get(PATH)
            if entry is None:
                raise RegistryUnavailable(f"nothing stands at {PATH} in the registry: lease tokens and seals can be neither made nor told")
            self._secret = secret_of(entry.data)
        return self._secret


def secret_of(data: bytes) -> bytes:
    """:raises RegistryUnavailable: it is not what `Signet.open` writes. What it is instead is not said."""
    try:
        secret = b64decode(msgspec.json.decode(data, type=str), validate=True)
    except ValueError:  # msgspec's and binascii's are
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise RegistryUnavailable(f"what stands at {PATH} in the registry is not {SECRET_BYTES} bytes of base64")
    return secret
