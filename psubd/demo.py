"""``--demo``: an application bound to a topic, and two curl lines that publish and read."""

import shlex
from collections.abc import Sequence
from contextlib import suppress

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from psubd import keys
from psubd.errors import Exists
from psubd.folder import StateFolder
from psubd.interfaces import IClock, IGate, IRegistrar, IRegistry, ISnapshot, Plan, Put
from psubd.model import Application, Binding, CredentialKind, Key, TopicSpec

NAME = "demo"
"""The application's id, and the topic's."""

FILE = "demo.json"
ACTOR = "--demo"
KINDS: tuple[CredentialKind, ...] = ("pubkey", "secret", "subkey")

PATH = "/secrets/demo"
"""Where nodes that share a registry keep the keys for each other, as they stand in `FILE`. Of the demonstration's application only."""

PATIENCE_MS, AGAIN_MS = 5_000, 250
"""How long another node that has just made the application is given to write down its keys, and how often is looked."""

log = Logger()


class Demo:
    """Registers the demonstration, at each start what is missing of it.

    :param shared: the registry, where other nodes may show the same demonstration: then its keys stand there too, for all of them.
    """

    def __init__(self, folder: StateFolder, registrar: IRegistrar, gate: IGate, clock: IClock, shared: IRegistry | None = None) -> None:
        self.folder = folder
        self.registrar = registrar
        self.gate = gate
        self.clock = clock
        self.shared = shared

    async def keys(self) -> dict[str, str]:
        """The application's keys, working ones, as they are in `FILE`. A key that neither it nor another node knows, or that ended, is made anew.

        :raises PsubdError: the registry or the storage cannot take it now. :raises OSError: the file cannot be written.
        """
        kept = self._kept()
        if self.gate.grant_of(NAME) is None:
            with suppress(Exists):  # another node was first
                _, kept = await self.registrar.create_application(NAME, NAME, ACTOR)
        if self._missing(kept) and self.shared is not None:
            kept = await self._others(self.shared)
        for kind in self._missing(kept):
            _, kept[kind] = await self.registrar.rotate(NAME, kind, 0, ACTOR, None)
        self._keep(kept)
        if self.shared is not None:
            await self._share(self.shared, kept)
        await self._bind()
        return kept

    def _missing(self, kept: dict[str, str]) -> list[CredentialKind]:
        """The kinds of which no key that works is known."""
        standing = self.gate.grant_of(NAME)
        return [kind for kind in KINDS if standing is None or not works(standing.application, kind, kept.get(kind))]

    async def _others(self, shared: IRegistry) -> dict[str, str]:
        """What another node wrote down. One that has just made the application may be about to."""
        until = self.clock.elapsed_ms() + PATIENCE_MS
        while True:
            await shared.sync()
            entry = shared.snapshot().get(PATH)
            found = {} if entry is None else msgspec.json.decode(entry.data, type=dict[str, str])
            if not self._missing(found) or self.clock.elapsed_ms() >= until:
                return found
            passed: Deferred[None] = Deferred()
            self.clock.call_later(AGAIN_MS, passed.callback, None)
            await passed

    async def _share(self, shared: IRegistry, kept: dict[str, str]) -> None:
        """Write them down for the other nodes."""
        data = msgspec.json.encode(kept, order="sorted")

        def plan(snapshot: ISnapshot, serial: int) -> Plan:
            return Plan("demo.keys_kept", (Put(PATH, data),))

        entry = shared.snapshot().get(PATH)
        if entry is None or entry.data != data:
            await shared.change(ACTOR, plan)

    async def _bind(self) -> None:
        """The topic is there, and bound for pub and sub from its first message."""
        if self.gate.topic(NAME) is None:
            with suppress(Exists):  # as above
                await self.registrar.create_topic(TopicSpec(name=NAME), NAME, None, False, ACTOR)
        standing = self.gate.grant_of(NAME)
        binding = None if standing is None else standing.bindings.get(NAME)
        if binding is None or not (binding.pub and binding.sub):
            await self.registrar.put_binding(Binding(NAME, NAME, 0, pub=True, sub=True, start="earliest"), ACTOR, None)

    def _kept(self) -> dict[str, str]:
        """What `FILE` holds; nothing where it is lost or no longer what was written."""
        text = self.folder.read(FILE)
        if text is None:
            return {}
        try:
            return msgspec.convert({kind: key for kind, key in msgspec.json.decode(text).items() if kind in KINDS}, dict[str, str])
        except (msgspec.DecodeError, msgspec.ValidationError, AttributeError):
            log.warn("{file} was not whole; its keys are made anew", file=self.folder.file(FILE))
            return {}

    def _keep(self, kept: dict[str, str]) -> None:
        """Write `FILE` if it says something else."""
        text = msgspec.json.format(msgspec.json.encode({"application": NAME, "topic": NAME, **{kind: kept[kind] for kind in KINDS}})).decode() + "\n"
        if self.folder.read(FILE) != text:
            self.folder.write(FILE, text)


def works(application: Application, kind: CredentialKind, key: str | None) -> bool:
    """Whether the key is the application's newest of its kind (an older one ends soon)."""
    newest: Sequence[Key] = {"pubkey": application.pubkeys, "secret": application.secrets, "subkey": application.subkeys}[kind][:1]
    return key is not None and any(keys.digest(key) == one.digest for one in newest)


def curl_lines(url: str, options: Sequence[str], shown: dict[str, str], mode: str) -> list[str]:
    """The lines that publish and read, as they are typed into a shell.

    :param url: the data port's. :param options: what curl needs to reach it (``--unix-socket ...``).
    :param mode: a data port that only publishes has no line that reads, and the other way.
    """
    publish = [
        "curl", *options, "-H", f"pubkey: {shown['pubkey']}", "-H", f"secret: {shown['secret']}", "-H", "content-type: text/plain",
        "--data-binary", "hello, world", f"{url}/v1/pub/{NAME}",
    ]  # fmt: skip
    read = ["curl", *options, "-H", f"subkey: {shown['subkey']}", f"{url}/v1/sub?topic={NAME}"]
    return [shlex.join(line) for line, left_out in ((publish, "sub"), (read, "pub")) if mode != left_out]
