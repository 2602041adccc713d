"""``--check``: what the configuration points at, tried."""

import socket
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from twisted.internet.defer import CancelledError
from twisted.internet.threads import deferToThread

from psubd.compose import backends, collectors, schemes
from psubd.config import Config, redact, scheme_of
from psubd.errors import ConfigError
from psubd.folder import FolderInUse, StateFolder
from psubd.interfaces import IRegistry
from psubd.peers.line import interface_of, place_of
from psubd.process import reasons
from psubd.services.clock import SystemClock

PATIENCE_S = 10
"""A registry of many nodes that is away is waited for without end when psubd starts; here for so long."""


async def check(config: Config, reactor: Any, out: TextIO) -> bool:
    """Try what the configuration points at, and say what was found, a line each. Opens no port.

    A state folder on which no psubd ran yet stays as it is: registry and storage are tried in a temporary one, and so they are for several workers,
    which have folders of their own in it.

    :returns: whether psubd would start, as far as can be told.
    """
    folder = StateFolder(config.state)
    found = [f"settings: no mistake; data port {', '.join(config.listen)}, manager port {', '.join(config.manager)}, mode {config.mode}"]
    found += workers(config)
    mistakes: list[str] = []
    try:
        if folder.used():
            folder.open()
            found.append(f"state: {folder.path}: can be written")
        else:
            refusal = folder.refusal()
            mistakes += [refusal] if refusal else []
            found += [] if refusal else [f"state: {folder.path}: can be written; no psubd has run on it yet"]
        if folder.used() and config.workers == 1:
            await try_parts(config, folder.path, reactor, found, mistakes)
        else:
            with TemporaryDirectory(prefix="psubd-check-") as path:
                await try_parts(config, path, reactor, found, mistakes)
    except FolderInUse as used:
        found += [f"{line}: registry and storage were not tried" for line in used.mistakes]
    except ConfigError as refused:
        mistakes += refused.mistakes
    finally:
        folder.close()
    await try_peers(config, found, mistakes)
    for line in (*found, *mistakes):
        print(f"psubd: {line}", file=out)
    return not mistakes


def workers(config: Config) -> list[str]:
    """Where each of several workers is reached beside the data port."""
    if config.workers == 1:
        return []
    crew = map(config.crew.worker, range(config.workers))
    ports = (f"{', '.join(worker.manager)} and {', '.join(worker.peer)}" for worker in crew)
    return [f"workers: {config.workers} share the data port; their manager and peer ports are {'; '.join(ports)}"]


async def try_parts(config: Config, state: str, reactor: Any, found: list[str], mistakes: list[str]) -> None:
    """Start the registry and the storage, one without the other, and stop them again; what came of it goes into the lists."""
    available = schemes()
    registry, storage = backends(config, available, state, SystemClock(reactor), reactor, collectors())
    shared = available.registries[scheme_of(config.registry)].shared
    for name, url, part in (("registry", config.registry, registry), ("storage", config.storage, storage)):
        try:
            trouble = await (try_registry(registry, reactor) if part is registry and shared else try_part(part))
        except Exception as failed:  # noqa: BLE001 - whatever it was: it is told in a line
            mistakes += reasons(failed)
            continue
        if trouble is None:
            found.append(f"{name} {redact(url)} works")
        else:
            mistakes.append(f"{name} {redact(url)}: {trouble}")


async def try_part(part: Any) -> str | None:
    """Start it and stop it; its trouble."""
    await part.start()
    trouble: str | None = part.trouble()
    await part.stop()
    return trouble


async def try_registry(registry: IRegistry, reactor: Any) -> str | None:
    """As `try_part`, for one whose start waits."""
    why: list[str | None] = []
    starting = registry.start()

    def give_up() -> None:
        why.append(registry.trouble())
        starting.cancel()

    patience = reactor.callLater(PATIENCE_S, give_up)
    try:
        await starting
    except CancelledError:
        return f"{why[0] or 'it does not answer'} (waited for {PATIENCE_S} s)"
    finally:
        if patience.active():
            patience.cancel()
    trouble = registry.trouble()
    await registry.stop()
    return trouble


async def try_peers(config: Config, found: list[str], mistakes: list[str]) -> None:
    """Whether the peer port's interface is this host's, and whether the address that other nodes are told is one."""
    refusals = [refusal for description in config.peer for refusal in interface_mistakes(description)]
    if config.peer_address:
        refusals += await deferToThread(host_mistakes, config.peer_address)
    mistakes += refusals
    if config.peer and not refusals:
        found.append(f"peer port {', '.join(config.peer)}; other nodes reach it at {config.peer_address or interface_of(config.peer[0])}")


def interface_mistakes(description: str) -> list[str]:
    """Why nothing could listen there, whatever the port. Opens none."""
    host = interface_of(description)
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError as refused:
        return [f"peer: {description!r}: cannot listen on {host}: {refused.strerror}"]
    return []


def host_mistakes(address: str) -> list[str]:
    """Why the address cannot be found. Blocks."""
    host, port = place_of(address)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as refused:
        return [f"peer_address: {address!r}: {host} cannot be found from here: {refused.strerror}"]
    return []
