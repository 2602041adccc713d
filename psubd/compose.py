"""Config -> the running daemon. The only module that names concrete classes.

Started in the order in which the parts need each other: folder, registry, gate, storage, subscriber, listeners; stopped so that what was
accepted is answered and what was answered is kept.
"""

import os
import sys
from collections.abc import Awaitable, Callable
from tempfile import TemporaryDirectory
from typing import Any, TextIO

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.plugin import getPlugins

import psubd.plugins
from psubd import __version__, endpoints, keys, manager
from psubd.access.gate import Gate
from psubd.config import NAMES, Config, Schemes, redact, scheme_of
from psubd.demo import FILE, NAME, Demo, curl_lines
from psubd.errors import ConfigError
from psubd.folder import FolderCarryover, FolderInUse, StateFolder
from psubd.interfaces import Environment, IClock, INodes, IRegistry, IRegistryFactory, IStorage, IStorageFactory, Route
from psubd.model import Token
from psubd.ports import Reached, listen, place
from psubd.process import Ending, end_plainly, raise_open_files, reasons, tell
from psubd.services.clock import SystemClock
from psubd.services.monitor import Monitor
from psubd.services.publisher import Publisher
from psubd.services.redrive import Redriver
from psubd.services.registrar import Registrar
from psubd.services.subscriber import Subscriber
from psubd.wire.limits import WireSettings
from psubd.wire.site import Site

log = Logger()

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter while another waits for it. The storage's writer needs it many times a transaction: with the
usual 5 ms and a busy reactor it stored 7,300 rows a second in batches of 128, with 1 ms 27,000, with 0.2 ms 72,000 (measured on 2 cores)."""

LINGER_MS = 100
"""How long after ``/ready`` began to fail the ports still accept: connections that the kernel holds for us already would be reset otherwise."""

TOKEN_FILE = "admin-token"  # noqa: S105 - a file's name

PORT_NAMES = {"listen": "data", "manager": "manager"}
"""What the ports of a setting are called in metrics and ports.json."""


class House(msgspec.Struct, frozen=True):
    """The parts, built and handed to each other, not started."""

    clock: IClock
    metrics: CollectorRegistry
    registry: IRegistry
    nodes: INodes
    storage: IStorage
    gate: Gate
    registrar: Registrar
    subscriber: Subscriber
    publisher: Publisher
    redriver: Redriver
    monitor: Monitor


def schemes() -> Schemes:
    """The plugins that are installed. :raises ConfigError: two of one kind have the same scheme."""
    mistakes: list[str] = []
    storages = by_scheme("storage", getPlugins(IStorageFactory, psubd.plugins), mistakes)
    registries = by_scheme("registry", getPlugins(IRegistryFactory, psubd.plugins), mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    return Schemes(storages, registries)


def by_scheme(kind: str, factories: Any, mistakes: list[str]) -> dict[str, Any]:
    """The factories by scheme; where two share one, a mistake that names both."""
    found: dict[str, Any] = {}
    for factory in factories:
        other = found.setdefault(factory.scheme, factory)
        if other is not factory:
            names = sorted(f"{type(one).__module__}.{type(one).__qualname__}" for one in (other, factory))
            mistakes.append(f"{kind} plugins: {' and '.join(names)} both provide {factory.scheme}:; uninstall one")
    return found


def collectors() -> CollectorRegistry:
    """A registry for this daemon's metrics, with those of the process and the interpreter."""
    metrics = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=metrics)
    return metrics


def backends(config: Config, found: Schemes, state: str, clock: IClock, reactor: Any, metrics: CollectorRegistry) -> tuple[IRegistry, IStorage]:
    """The registry and the storage that the configuration names, built by their plugins."""
    registry_scheme, storage_scheme = scheme_of(config.registry), scheme_of(config.storage)
    registry_environment = Environment(state, config.registry_tables.get(registry_scheme, {}), clock, reactor, metrics, config.mode)
    storage_environment = Environment(state, config.storage_tables.get(storage_scheme, {}), clock, reactor, metrics, config.mode)
    return (
        found.registries[registry_scheme].build(config.registry, registry_environment),
        found.storages[storage_scheme].build(config.storage, storage_environment),
    )


def build(config: Config, found: Schemes, folder: StateFolder, reactor: Any) -> House:
    """All the parts, handed to each other; nothing is opened. :raises ConfigError: a plugin refuses."""
    clock, metrics = SystemClock(reactor), collectors()
    registry, storage = backends(config, found, folder.path, clock, reactor, metrics)
    if not INodes.providedBy(registry):
        raise ConfigError([f"registry: the plugin of {scheme_of(config.registry)}: provides no INodes; it is not made for this version"])
    nodes: INodes = registry
    gate = Gate(registry, clock)
    subscriber = Subscriber(storage, registry, gate, nodes, clock, config.commit_interval_ms, metrics, carryover=FolderCarryover(folder))
    publisher = Publisher(storage, clock, config.max_message_bytes, metrics)
    return House(
        clock=clock,
        metrics=metrics,
        registry=registry,
        nodes=nodes,
        storage=storage,
        gate=gate,
        registrar=Registrar(registry, storage, clock, config.max_message_bytes),
        subscriber=subscriber,
        publisher=publisher,
        redriver=Redriver(storage, registry, gate, publisher, clock, metrics),
        monitor=Monitor(subscriber, storage, registry, clock, metrics, __version__),
    )


class Daemon(Service):
    """psubd as one service: its parts, its ports, and the files that say where they are.

    :param out: where the demonstration's lines go. twistd sends ``sys.stdout`` to the log, with a time before each line.
    """

    name = "psubd"

    def __init__(self, config: Config, reactor: Any, out: TextIO | None = None) -> None:
        self.config = config
        self.reactor = reactor
        self.folder = StateFolder(config.state)
        self.ending = Ending()
        self._out = out
        self._house: House | None = None
        self._sites: list[Site] = []
        self._ports: dict[str, list[IListeningPort]] = {"listen": [], "manager": []}
        self._starting: Deferred[None] | None = None
        self._trouble: str | None = "psubd is starting"
        self._keys: dict[str, str] = {}
        self._stopping = False

    @property
    def house(self) -> House:
        """The parts; there once `_open` has built them."""
        assert self._house is not None
        return self._house

    def trouble(self) -> str | None:
        """Why this node should get no traffic, beside what storage and registry say of themselves."""
        return self._trouble

    # --- start --------------------------------------------------------------------------------------------------------------------

    def startService(self) -> None:
        """Take the folder, and start the parts once the reactor runs.

        :raises ConfigError: the folder cannot be used, which was told. In the background, twistd passes it on to the command that was typed.
        """
        super().startService()  # type: ignore[no-untyped-call]
        os.umask(0o077)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        raise_open_files(len(self._ports) * self.config.max_connections + 1024)
        try:
            self.folder.open()
        except ConfigError as refused:
            tell(refused.mistakes)
            end_plainly(refused)
            raise
        self.reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        self._starting = Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        """Never fails: what goes wrong is told, and ends the process."""
        try:
            for step in (self._open, self._first_token, self._demonstrate, self._listen, self._announce):
                if not self._stopping:
                    await step()
        except Exception as failed:  # noqa: BLE001 - whatever it was: it is told in a line, and the process ends
            tell([f"cannot start: {reason}" for reason in reasons(failed)])
            self.ending.status = 1
            self.reactor.stop()

    async def _open(self) -> None:
        """Everything but the ports."""
        self.folder.remove("ports.json")
        house = self._house = build(self.config, schemes(), self.folder, self.reactor)
        await house.registry.start()
        house.gate.start()
        await house.storage.start()
        await house.subscriber.start()
        house.monitor.start()

    async def _first_token(self) -> None:
        """The admin token of the environment; else, where no admin token is registered, the one in the folder, made now if need be."""
        text = self.config.admin_token
        if text is None and not has_admin(self.house.registry):
            text = (self.folder.read(TOKEN_FILE) or "").strip()
            if not text:
                text = keys.make("token")
                self.folder.write(TOKEN_FILE, text + "\n")  # before it is registered: a crash between the two locks nobody out
        if text is not None:
            await self.house.registrar.ensure_admin(text)

    async def _demonstrate(self) -> None:
        """What ``--demo`` shows is registered before the ports open."""
        if self.config.demo:
            self._keys = await Demo(self.folder, self.house.registrar, self.house.gate).keys()

    async def _listen(self) -> None:
        """All ports listen, or psubd does not start."""
        for name, routes in (("listen", self._data_routes()), ("manager", self._manager_routes())):
            site = Site(routes, self.house.clock, port=PORT_NAMES[name], settings=wire_settings(self.config), metrics=self.house.metrics)
            self._sites.append(site)
            for description in getattr(self.config, name):
                self._ports[name].append(await listen(self.reactor, name, description, site))
        self._trouble = None

    def _data_routes(self) -> list[Route]:
        house, config = self.house, self.config
        return endpoints.routes(
            house.gate,
            house.publisher,
            house.subscriber,
            house.storage,
            house.clock,
            mode=config.mode,
            max_message_bytes=config.max_message_bytes,
            ready=self._not_ready,
        )

    def _manager_routes(self) -> list[Route]:
        house, config = self.house, self.config
        return manager.routes(
            registrar=house.registrar,
            registry=house.registry,
            gate=house.gate,
            storage=house.storage,
            subscriber=house.subscriber,
            redriver=house.redriver,
            nodes=house.nodes,
            clock=house.clock,
            metrics=house.metrics,
            hosts=config.manager_hosts,
            manager_secure_cookie=config.manager_secure_cookie,
            version=__version__,
            config_view=config.view(),
            ready=self.trouble,
        )

    def _not_ready(self) -> str | None:
        """Why this node should get no traffic, whatever the reason."""
        return self.trouble() or self.house.storage.trouble() or self.house.registry.trouble()

    async def _announce(self) -> None:
        """Say where we are: ports.json, the log, and the demonstration's lines."""
        ports = {name: [place(port) for port in listening] for name, listening in self._ports.items()}
        document = {"data": ports["listen"], "manager": ports["manager"][0], "peer": None}
        self.folder.write("ports.json", msgspec.json.encode(document).decode() + "\n")
        log.info(
            "psubd {version} serves: data port {data}, manager port {manager}", version=__version__, data=ports["listen"], manager=ports["manager"]
        )
        if self.config.demo:
            print("\n".join(self._demonstration()), file=self._out or sys.__stdout__, flush=True)

    def _demonstration(self) -> list[str]:
        """What ``--demo`` prints."""
        urls = {name: Reached.at(description, port.getHost()) for name, description, port in self._listening()}
        token = "in PSUBD_ADMIN_TOKEN" if self.config.admin_token else f"in {self.folder.file(TOKEN_FILE)}"
        data = urls["listen"]
        return [
            "",
            f"psubd {__version__}: data port {data.url}, manager port {urls['manager'].url}, the admin token is {token}",
            f"The application {NAME} is bound to the topic {NAME}; its keys are in {self.folder.file(FILE)}. Publish, then read:",
            "",
            *(f"  {line}" for line in curl_lines(data.url, data.options, self._keys, self.config.mode)),
            "",
        ]

    def _listening(self) -> list[tuple[str, str, IListeningPort]]:
        """The first of each kind of port, with its description."""
        return [(name, getattr(self.config, name)[0], ports[0]) for name, ports in self._ports.items()]

    # --- stop ---------------------------------------------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """Fires when all that was accepted is answered and kept, and all is closed."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopping, self._trouble = True, "psubd is stopping"
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        """One step after another, whatever became of the one before: it may be the next that keeps what was answered."""
        if self._starting is not None:
            await self._starting
        for name, step in self._steps():
            try:
                await step()
            except Exception:  # noqa: BLE001 - as said
                log.failure("while stopping {name}", name=name)
        self.folder.remove("ports.json")
        self.folder.close()
        log.info("psubd has stopped")

    def _steps(self) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
        """What stops, in order."""
        steps: list[tuple[str, Callable[[], Awaitable[Any]]]] = [("the ports", self._stop_listening), ("requests in progress", self._drain)]
        if self._house is not None:
            monitor, gate, storage, registry = self._house.monitor, self._house.gate, self._house.storage, self._house.registry
            steps.insert(0, ("the monitor", lambda: maybeDeferred(monitor.stop)))
            steps += [("the gate", lambda: maybeDeferred(gate.stop)), ("the storage", storage.stop), ("the registry", registry.stop)]
        return steps

    async def _stop_listening(self) -> None:
        """No new connections; those that the kernel has taken for us already are accepted first, else they would be reset."""
        listening = [port for ports in self._ports.values() for port in ports]
        if listening:
            await deferLater(self.reactor, LINGER_MS / 1000)
        await DeferredList([maybeDeferred(port.stopListening) for port in listening], consumeErrors=True)

    async def _drain(self) -> None:
        """Polls end empty, what is being written is settled and committed; other requests are answered, within the bound."""
        drained = DeferredList([site.drain() for site in self._sites], consumeErrors=True)
        bound = self.reactor.callLater(self.config.drain_timeout_ms / 1000, drained.cancel)
        try:
            if self._house is not None:
                await self._house.subscriber.stop()
        finally:
            in_time = all(done for done, _ in await drained)
            if bound.active():
                bound.cancel()
        if not in_time:
            log.warn("some requests were not answered within {ms} ms, and are cut off", ms=self.config.drain_timeout_ms)


def wire_settings(config: Config) -> WireSettings:
    """The settings of a port that share a name with the configuration's."""
    return WireSettings(**{name: getattr(config, name) for name in WireSettings.__struct_fields__ if name in NAMES})


def has_admin(registry: IRegistry) -> bool:
    """Whether somebody can come in."""
    tree = registry.snapshot()
    entries = [tree.get(f"/tokens/{name}") for name in tree.children("/tokens")]
    return any(msgspec.json.decode(entry.data, type=Token).role == "admin" for entry in entries if entry is not None)


async def check(config: Config, reactor: Any, out: TextIO) -> bool:
    """Try what the configuration points at, and say what was found, a line each. Opens no port.

    A state folder on which no psubd ran yet stays as it is: registry and storage are tried in a temporary one.

    :returns: whether psubd would start, as far as can be told.
    """
    folder = StateFolder(config.state)
    found = [f"settings: no mistake; data port {', '.join(config.listen)}, manager port {', '.join(config.manager)}, mode {config.mode}"]
    mistakes: list[str] = []
    try:
        if folder.used():
            folder.open()
            found.append(f"state: {folder.path}: can be written")
            await try_parts(config, folder.path, reactor, found, mistakes)
        else:
            refusal = folder.refusal()
            mistakes += [refusal] if refusal else []
            found += [] if refusal else [f"state: {folder.path}: can be written; no psubd has run on it yet"]
            with TemporaryDirectory(prefix="psubd-check-") as path:
                await try_parts(config, path, reactor, found, mistakes)
    except FolderInUse as used:
        found += [f"{line}: registry and storage were not tried" for line in used.mistakes]
    except ConfigError as refused:
        mistakes += refused.mistakes
    finally:
        folder.close()
    for line in (*found, *mistakes):
        print(f"psubd: {line}", file=out)
    return not mistakes


async def try_parts(config: Config, state: str, reactor: Any, found: list[str], mistakes: list[str]) -> None:
    """Start the registry and the storage, one without the other, and stop them again; what came of it goes into the lists."""
    registry, storage = backends(config, schemes(), state, SystemClock(reactor), reactor, collectors())
    for name, url, part in (("registry", config.registry, registry), ("storage", config.storage, storage)):
        try:
            await part.start()
            trouble = part.trouble()
            await part.stop()
        except Exception as failed:  # noqa: BLE001 - whatever it was: it is told in a line
            mistakes += reasons(failed)
            continue
        if trouble is None:
            found.append(f"{name} {redact(url)} works")
        else:
            mistakes.append(f"{name} {redact(url)}: {trouble}")
