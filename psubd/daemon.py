"""The running daemon: its parts started in the order in which they need each other, and stopped so that what was accepted is answered and what was
answered is kept.

Alone, a node opens everything and then its ports. One of many listens first, since its registry may be away for long: each request is 503 until
it has been read; and when it stops it lets go of its groups first, so that nobody waits for them. A worker shares its data port with others, and
opens that when it can serve.
"""

import gc
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TextIO

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger

from psubd import __version__, endpoints, keys, manager
from psubd.compose import Cluster, House, build, confluent_settings, schemes, wire_settings
from psubd.config import Config
from psubd.demo import FILE, NAME, Demo, curl_lines
from psubd.entrance import Entrance
from psubd.errors import RegistryUnavailable, Retryable, StorageTimeout
from psubd.folder import StateFolder
from psubd.interfaces import IRegistry, Route
from psubd.model import Token
from psubd.peers.line import advertised
from psubd.polling import without_log_context
from psubd.ports import Reached, Sharing, accept_rest, listen, place, turn_away
from psubd.process import Ending, raise_open_files, reasons, take, tell
from psubd.services.ownership import MOVING
from psubd.wire.site import Site
from psubd.worker import Speaker

log = Logger()

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter while another waits for it. The storage's writer needs it many times a transaction: with the
usual 5 ms and a busy reactor it stored 7,300 rows a second in batches of 128, with 1 ms 27,000, with 0.2 ms 72,000 (measured on 2 cores)."""

COLLECT_AFTER = (20_000, 20, 50)
"""`gc.set_threshold`: requests make many objects that live for a moment, and hardly a cycle. With Python's own thresholds, and all that was loaded at
the start looked at again and again, the collector took a quarter of the processor time of a publish (11.9 us, and 7.4 us so; measured on Kafka)."""

LINGER_MS = 100
"""How long the ports stay open after connections ceased to begin: those that had begun are completed and accepted, else they would be reset."""

AGAIN_MS = 1_000
"""Between two tries of a step that fails while the registry or the storage is away, where a node of many starts."""

SETTLE_MS, LOOK_MS = 10_000, 100
"""How long a node of many that has started waits at most for groups to have a node before it says that it is ready, and how often it looks."""

TOKEN_FILE = "admin-token"  # noqa: S105 - a file's name

PORT_NAMES = {"listen": "data", "manager": "manager"}
"""What the ports of a setting are called in metrics and ports.json."""

Step = Callable[[], Awaitable[Any]]


class Daemon(Service):
    """psubd as one service: its parts, its ports, and the files that say where they are.

    :param out: where the demonstration's lines go. twistd sends ``sys.stdout`` to the log, with a time before each line.
    :param speaker: tells the process that started this one, where it is a worker.
    """

    name = "psubd"

    def __init__(self, config: Config, reactor: Any, out: TextIO | None = None, speaker: Speaker | None = None) -> None:
        self.config = config
        self.reactor = reactor
        self.folder = StateFolder(config.state)
        self.common = StateFolder(config.folder)
        self.ending = Ending()
        self._out, self._speaker = out, speaker
        self._house: House | None = None
        self._sites: list[Site] = []
        self._ports: dict[str, list[IListeningPort]] = {"listen": [], "manager": [], "peer": []}
        self._starting: Deferred[None] | None = None
        self._waiting: Deferred[Any] | None = None
        self._trouble: str | None = "psubd is starting"
        self._entrance = Entrance(self._why_closed)
        self._keys: dict[str, str] = {}
        self._among = False
        self._stopping = False

    @property
    def house(self) -> House:
        """The parts; there once `_build` has made them."""
        assert self._house is not None
        return self._house

    def trouble(self) -> str | None:
        """Why this node should get no traffic, beside what storage and registry say of themselves."""
        return self._trouble

    # --- start --------------------------------------------------------------------------------------------------------------------

    def startService(self) -> None:
        """Take the folder, and start the parts once the reactor runs. :raises ConfigError: the folder cannot be used (`psubd.process.take`)."""
        super().startService()  # type: ignore[no-untyped-call]
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        without_log_context(self.reactor)
        gc.set_threshold(*COLLECT_AFTER)
        raise_open_files(2 * self.config.max_connections + 1024)
        take(self.folder.open)
        self.reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        self._starting = Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        """Never fails: what goes wrong is told, and ends the process."""
        try:
            await self._build()
            for step in self._alone() if self.house.cluster is None else self._one_of_many(self.house.cluster):
                if not self._stopping:
                    await step()
        except Exception as failed:  # noqa: BLE001 - whatever it was: it is told in a line, and the process ends
            if self._stopping and isinstance(failed, CancelledError):
                return  # it waited for something that is away
            tell([f"cannot start: {reason}" for reason in reasons(failed)])
            self.ending.status = 1
            self.reactor.stop()

    async def _build(self) -> None:
        self.folder.remove("ports.json")
        self._house = build(self.config, schemes(), self.folder, self.reactor)

    def _alone(self) -> Sequence[Step]:
        """A node that serves all: everything is there before the ports are."""
        return (self._open, self._first_token, self._demonstrate, self._listen, self._write_ports, self._announce)

    def _one_of_many(self, cluster: Cluster) -> Sequence[Step]:
        """The ports are there before the registry is. What needs the registry or the storage is tried until they are there."""
        lasting = (cluster.secret.open, self.house.subscriber.start, lambda: self._join(cluster), self._first_token, self._demonstrate)
        listens: Sequence[Step] = (self._listen, self._write_ports)
        apart = self.config.worker is not None
        return (
            *((self._listen_apart,) if apart else listens),
            self._read_registry,
            self._open_storage,
            *(self._lasting(step) for step in lasting),
            *((self._listen_shared, self._write_ports) if apart else ()),
            self._announce,
            lambda: self._settle(cluster),
        )

    async def _open(self) -> None:
        """Everything but the ports."""
        house = self.house
        await house.registry.start()
        house.gate.start()
        await house.storage.start()
        await house.membership.declare(self.config.mode != "pub", 0)
        await house.subscriber.start()
        house.monitor.start()

    async def _read_registry(self) -> None:
        """Wait for the registry, however long it is away."""
        self._trouble = "psubd is starting, and waits for its registry"
        log.info("psubd listens, and waits for its registry")
        await self._wait(self.house.registry.start())
        self.house.gate.start()
        self._trouble = "psubd is starting"

    async def _open_storage(self) -> None:
        await self.house.storage.start()
        self.house.monitor.start()

    async def _join(self, cluster: Cluster) -> None:
        """Be one of the nodes: reached by the others, served with slots."""
        if self._among:
            return
        self._among = True
        with suppress(RegistryUnavailable):  # the others are told as soon as it is there
            await self.house.membership.locate(self._peer_address())
        cluster.switchboard.serve()
        await cluster.ownership.start()
        await cluster.mesh.start()

    async def _settle(self, cluster: Cluster) -> None:
        """Requests are served already; load balancers are told once every group has a node, or soon after: the first nodes of all have yet to share
        them out."""
        self._trouble = "psubd is starting, and groups are on their way to their nodes"
        for _ in range(SETTLE_MS // LOOK_MS):
            if all(cluster.ownership.seat(slot) not in (None, MOVING) for slot in range(self.house.membership.slots)):
                break
            await self._wait(deferLater(self.reactor, LOOK_MS / 1000))
        self._trouble = None

    def _peer_address(self) -> str:
        """Where other nodes reach this one."""
        return advertised(self.config.peer[0], int(place(self._ports["peer"][0])), self.config.peer_address)

    def _lasting(self, step: Step) -> Step:
        """The step, tried again while what it needs is away."""

        async def lasting() -> None:
            while not self._stopping:
                try:
                    await step()
                except (Retryable, StorageTimeout) as away:
                    self._trouble = "psubd is starting, and waits for its registry or its storage"
                    log.warn("psubd cannot start yet, and goes on trying: {why}", why=away.detail)
                    await self._wait(deferLater(self.reactor, AGAIN_MS / 1000))
                else:
                    return

        return lasting

    async def _wait(self, waited: "Deferred[Any]") -> None:
        """Wait for something that a stop does not wait for."""
        self._waiting = waited
        try:
            await waited
        finally:
            self._waiting = None

    async def _first_token(self) -> None:
        """The admin token of the environment; else, where no admin token is registered, the one in the folder, made now if need be."""
        if self.config.worker is not None and self.config.worker.number > 0:
            return  # the first of the workers sees to it
        text = self.config.admin_token
        if text is None and not has_admin(self.house.registry):
            text = (self.common.read(TOKEN_FILE) or "").strip()
            if not text:
                text = keys.make("token")
                self.common.write(TOKEN_FILE, text + "\n")  # before it is registered: a crash between the two locks nobody out
        if text is not None:
            await self.house.registrar.ensure_admin(text)

    async def _demonstrate(self) -> None:
        """What ``--demo`` shows is registered before requests come in."""
        if self.config.demo:
            house = self.house
            shared = None if house.cluster is None else house.registry
            self._keys = await Demo(self.common, house.registrar, house.gate, house.clock, shared).keys()

    async def _listen(self) -> None:
        """All ports listen, or psubd does not start."""
        await self._listen_site("listen", self._data_routes(), self.reactor)
        await self._listen_apart()

    async def _listen_apart(self) -> None:
        """All ports but the data port."""
        await self._listen_site("manager", self._manager_routes(), self.reactor)
        cluster = self.house.cluster
        if cluster is not None:
            for description in self.config.peer:
                self._ports["peer"].append(await listen(self.reactor, "peer", description, cluster.line.guard(cluster.mesh.door)))

    async def _listen_shared(self) -> None:
        """The data port of a worker: once it can serve, since the kernel gives it its share from then on, and would, had it only a 503 to give."""
        await self._listen_site("listen", self._data_routes(), Sharing(self.reactor))

    async def _listen_site(self, name: str, routes: list[Route], reactor: Any) -> None:
        held = routes if self.house.cluster is None else self._entrance.hold(routes)
        site = Site(held, self.house.clock, port=PORT_NAMES[name], settings=wire_settings(self.config), metrics=self.house.metrics)
        self._sites.append(site)
        for description in getattr(self.config, name):
            self._ports[name].append(await listen(reactor, name, description, site))

    def _data_routes(self) -> list[Route]:
        house, config = self.house, self.config
        return endpoints.routes(
            house.gate,
            house.publisher,
            house.groups,
            house.storage,
            house.clock,
            consumers=house.consumers,
            registrar=house.registrar,
            confluent_settings=confluent_settings(config),
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
            subscriber=house.groups,
            redriver=house.redriver,
            nodes=house.nodes,
            membership=house.membership,
            seats=house.subscriber,
            peers=None if house.cluster is None else house.cluster.mesh,
            clock=house.clock,
            metrics=house.metrics,
            hosts=config.manager_hosts,
            manager_secure_cookie=config.manager_secure_cookie,
            version=__version__,
            config_view=config.view(),
            trouble=self._not_ready,
        )

    def _not_ready(self) -> str | None:
        """Why this node should get no traffic, whatever the reason."""
        return self.trouble() or self.house.storage.trouble() or self.house.unfit()

    def _why_closed(self) -> str:
        return f"{self._trouble}; it serves as soon as that is done: try again"

    async def _write_ports(self) -> None:
        """Say where we are."""
        ports = {name: [place(port) for port in listening] for name, listening in self._ports.items()}
        document = {"data": ports["listen"], "manager": ports["manager"][0], "peer": ports["peer"][0] if ports["peer"] else None}
        told = msgspec.json.encode(document)
        self.folder.write("ports.json", told.decode() + "\n")
        if self._speaker is not None:
            self._speaker.ports(told)

    async def _announce(self) -> None:
        """Serve, and say so: the log, and the demonstration's lines."""
        self._trouble = None
        self._entrance.open()
        gc.collect()
        gc.freeze()
        log.info(
            "psubd {version} serves: data port {data}, manager port {manager}",
            version=__version__,
            data=[place(port) for port in self._ports["listen"]],
            manager=[place(port) for port in self._ports["manager"]],
        )
        if self.config.demo:
            print("\n".join(self._demonstration()), file=self._out or sys.__stdout__, flush=True)

    def _demonstration(self) -> list[str]:
        """What ``--demo`` prints."""
        urls = {name: Reached.at(getattr(self.config, name)[0], self._ports[name][0].getHost()) for name in PORT_NAMES}
        token = "in PSUBD_ADMIN_TOKEN" if self.config.admin_token else f"in {self.common.file(TOKEN_FILE)}"
        data = urls["listen"]
        return [
            "",
            f"psubd {__version__}: data port {data.url}, manager port {urls['manager'].url}, the admin token is {token}",
            f"The application {NAME} is bound to the topic {NAME}; its keys are in {self.common.file(FILE)}. Publish, then read:",
            "",
            *(f"  {line}" for line in curl_lines(data.url, data.options, self._keys, self.config.mode)),
            "",
        ]

    # --- stop ---------------------------------------------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """Fires when all that was accepted is answered and kept, and all is closed."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopping, self._trouble = True, "psubd is stopping"
        for site in self._sites:
            site.retire()
        if self._waiting is not None:
            self._waiting.cancel()
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

    def _steps(self) -> list[tuple[str, Step]]:
        """What stops, in order."""
        ports: list[tuple[str, Step]] = [("the ports", self._stop_listening), ("requests in progress", self._drain)]
        house = self._house
        if house is None:
            return ports
        steps = [("the monitor", lambda: maybeDeferred(house.monitor.stop)), *ports]
        cluster = house.cluster if self._among else None
        if cluster is not None:
            steps[1:1] = [("the clients", self._serve_on), ("the groups", lambda: self._hand_over(cluster))]
            steps += [("the slots", lambda: maybeDeferred(cluster.ownership.stop)), ("the other nodes", cluster.mesh.stop)]
        return [
            *steps,
            ("the gate", lambda: maybeDeferred(house.gate.stop)),
            ("the storage", house.storage.stop),
            ("the registry", house.registry.stop),
        ]

    async def _serve_on(self) -> None:
        """Load balancers see that ``/ready`` fails, and send their clients to other nodes, if there are any; this one serves meanwhile."""
        if len(self.house.membership.members()) > 1:
            await deferLater(self.reactor, self.config.drain_delay_ms / 1000)

    async def _hand_over(self, cluster: Cluster) -> None:
        """Give the groups to other nodes. Without a lease there is nothing to give: they take it, or have."""
        if cluster.ownership.lease_stands():
            await cluster.ownership.drain()

    async def _stop_listening(self) -> None:
        """No new connections; those that the kernel has taken for us already are accepted first, else they would be reset."""
        listening = [pair for name, ports in self._ports.items() for pair in zip(getattr(self.config, name), ports, strict=False)]
        for description, port in listening:
            turn_away(description, port)
        if listening:
            await deferLater(self.reactor, LINGER_MS / 1000)
        for description, port in listening:
            accept_rest(description, port)
        await DeferredList([maybeDeferred(port.stopListening) for _, port in listening], consumeErrors=True)

    async def _drain(self) -> None:
        """Polls end empty, what is being written is settled and committed; other requests are answered, within the bound."""
        drained = DeferredList([site.drain() for site in self._sites], consumeErrors=True)
        bound = self.reactor.callLater(self.config.drain_timeout_ms / 1000, drained.cancel)
        try:
            if self._house is not None:
                await self._stop_groups(self._house)
        finally:
            in_time = all(done for done, _ in await drained)
            if bound.active():
                bound.cancel()
        if not in_time:
            log.warn("some requests were not answered within {ms} ms, and are cut off", ms=self.config.drain_timeout_ms)

    async def _stop_groups(self, house: House) -> None:
        """Of other nodes first: polls that wait there end empty too. Whatever became of that, what was done here is committed."""
        try:
            if house.cluster is not None and self._among:
                await house.cluster.switchboard.stop()
        finally:
            await house.subscriber.stop()


def has_admin(registry: IRegistry) -> bool:
    """Whether somebody can come in."""
    tree = registry.snapshot()
    entries = [tree.get(f"/tokens/{name}") for name in tree.children("/tokens")]
    return any(msgspec.json.decode(entry.data, type=Token).role == "admin" for entry in entries if entry is not None)
