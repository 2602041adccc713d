"""The secret that the nodes of one registry share, by which they know each other."""

import secrets
from base64 import b64decode, b64encode

import msgspec
from twisted.internet.defer import Deferred

from psubd.errors import RegistryUnavailable
from psubd.interfaces import IRegistry, ISnapshot, Plan, Put
from psubd.peers.auth import SECRET_BYTES

PATH = "/secrets/peers"


class AlreadyThere(Exception):
    """Another node made it first: nothing to write."""


class PeerSecret:
    """Made once for a registry, then the same on all its nodes. Kept in the registry as JSON; nothing shows it. Called, it gives the bytes.

    Who can read the registry is a node: the registry's own access rules guard it.
    """

    def __init__(self, registry: IRegistry) -> None:
        self._registry = registry

    def __repr__(self) -> str:
        return "<PeerSecret>"

    def open(self) -> "Deferred[None]":
        """Make it where it is absent; one that is there stands. Fails with RegistryUnavailable."""
        return Deferred.fromCoroutine(self._open())

    def __call__(self) -> bytes:
        """:raises RegistryUnavailable: it was not opened, or what is kept cannot be read. What it is instead is not said."""
        entry = self._registry.snapshot().get(PATH)
        if entry is None:
            raise RegistryUnavailable(f"nothing stands at {PATH} in the registry: nodes cannot tell each other from strangers")
        try:
            secret = b64decode(msgspec.json.decode(entry.data, type=str), validate=True)
        except ValueError:  # msgspec's and binascii's are
            secret = b""
        if len(secret) != SECRET_BYTES:
            raise RegistryUnavailable(f"what stands at {PATH} in the registry is not {SECRET_BYTES} bytes of base64")
        return secret

    async def _open(self) -> None:
        if self._registry.snapshot().get(PATH) is not None:
            return

        def plan(snapshot: ISnapshot, serial: int) -> Plan:
            if snapshot.get(PATH) is not None:
                raise AlreadyThere
            return Plan("peers.secret_made", (Put(PATH, made),))

        made = msgspec.json.encode(b64encode(secrets.token_bytes(SECRET_BYTES)).decode())
        try:
            await self._registry.change("psubd", plan)
        except AlreadyThere:
            return
