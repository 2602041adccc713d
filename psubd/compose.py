"""Config -> the parts of the daemon, built and handed to each other. The only module that names concrete classes.

One node has its registry, its storage and its subscriber. Of many nodes (a registry whose plugin says that it is shared) each has more: its
membership says who serves which groups, `Ownership` has this node serve what is its, `Switchboard` takes each call to the node that serves
the group, and `Mesh` is the way there.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from twisted.plugin import getPlugins

import psubd.plugins
from psubd import __version__
from psubd.access.gate import Gate
from psubd.config import NAMES, Config, PeerTls, Schemes, scheme_of
from psubd.endpoints.confluent.settings import ConfluentSettings
from psubd.errors import ConfigError
from psubd.folder import FolderCarryover, StateFolder
from psubd.interfaces import (
    Environment,
    IClock,
    IConsumers,
    IMembership,
    INodes,
    IRedriver,
    IRegistry,
    IRegistryFactory,
    ISeats,
    IStorage,
    IStorageFactory,
    ISubscriber,
)
from psubd.peers import line
from psubd.peers.line import Line, Tls
from psubd.peers.mesh import Mesh
from psubd.peers.secret import PeerSecret
from psubd.registry.alone import Alone
from psubd.services.clock import SystemClock
from psubd.services.monitor import Monitor
from psubd.services.muster import Muster
from psubd.services.ownership import Ownership
from psubd.services.publisher import Publisher
from psubd.services.redrive import Redriver
from psubd.services.registrar import Registrar
from psubd.services.subscriber import Subscriber
from psubd.services.switchboard import Switchboard
from psubd.slots import slot_of
from psubd.wire.limits import WireSettings


class Cluster(msgspec.Struct, frozen=True):
    """What only one of many nodes has.

    :ivar line: what the peer port and the connections to other nodes are made of.
    """

    line: Line
    secret: PeerSecret
    mesh: Mesh
    ownership: Ownership
    switchboard: Switchboard


class House(msgspec.Struct, frozen=True):
    """The parts, built and handed to each other, not started.

    :ivar subscriber: of the groups that this node serves. :ivar groups: of all groups, whichever node serves them; likewise ``consumers`` and
        ``redriver``.
    :ivar unfit: why the registry keeps this node from serving; None: it does not.
    """

    clock: IClock
    metrics: CollectorRegistry
    registry: IRegistry
    nodes: INodes
    membership: IMembership
    storage: IStorage
    gate: Gate
    registrar: Registrar
    subscriber: Subscriber
    groups: ISubscriber
    consumers: IConsumers
    publisher: Publisher
    redriver: IRedriver
    monitor: Monitor
    unfit: Callable[[], str | None]
    cluster: Cluster | None = None


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
    shared = found.registries[scheme_of(config.registry)].shared
    snapshot = Snapshot(registry, config, clock) if shared else None
    membership = snapshot.membership if snapshot is not None else Alone(nodes, clock)
    gate = Gate(registry, clock, stale=None if snapshot is None else snapshot.stale)
    subscriber = Subscriber(
        storage,
        registry,
        gate,
        nodes,
        clock,
        config.commit_interval_ms,
        metrics,
        membership=None if snapshot is None else membership,
        carryover=None if shared else FolderCarryover(folder),
        instance_timeout_ms=config.consumer_instance_timeout_ms,
    )
    publisher = Publisher(storage, clock, config.max_message_bytes, metrics)
    redriver = Redriver(storage, registry, gate, publisher, clock, metrics, tenure_of=subscriber.tenure_of)
    cluster = None
    if snapshot is not None:
        cluster = build_cluster(config, snapshot, registry, storage, gate, subscriber, redriver, clock, reactor, metrics)
    return House(
        clock=clock,
        metrics=metrics,
        registry=registry,
        nodes=nodes,
        membership=membership,
        storage=storage,
        gate=gate,
        registrar=Registrar(registry, storage, clock, config.max_message_bytes),
        subscriber=subscriber,
        groups=subscriber if cluster is None else cluster.switchboard,
        consumers=subscriber if cluster is None else cluster.switchboard,
        publisher=publisher,
        redriver=redriver if cluster is None else cluster.switchboard,
        monitor=Monitor(subscriber, storage, registry, clock, metrics, __version__, own=own_groups(subscriber, membership) if shared else None),
        unfit=registry.trouble if snapshot is None else snapshot.unfit,
        cluster=cluster,
    )


def build_cluster(
    config: Config,
    snapshot: "Snapshot",
    registry: IRegistry,
    storage: IStorage,
    gate: Gate,
    subscriber: Subscriber,
    redriver: Redriver,
    clock: IClock,
    reactor: Any,
    metrics: CollectorRegistry,
) -> Cluster:
    """What one of many nodes has beside. :raises ConfigError: the files of ``peer_tls`` were good when they were judged, and are not now."""
    membership, secret = snapshot.membership, PeerSecret(registry)
    try:
        way = Line(reactor, tls_of(config.peer_tls))
    except (ValueError, OSError) as refused:
        raise ConfigError([f"peer_tls: {refused}"]) from None
    mesh = Mesh(membership=membership, secret=secret, clock=clock, dial=way.dial)
    ownership = Ownership(membership, mesh, subscriber, clock, mode=config.mode, reachable=lambda: storage.trouble() is None, metrics=metrics)
    metrics.register(Muster(membership, mesh, snapshot.seen_ms, clock))
    switchboard = Switchboard(subscriber, subscriber, redriver, ownership, membership, mesh, registry, gate, clock, metrics)
    return Cluster(way, secret, mesh, ownership, switchboard)


class Snapshot:
    """How far what a node of many has read from the registry may still be gone by.

    :raises ConfigError: the registry's plugin does not know.
    """

    def __init__(self, registry: Any, config: Config, clock: IClock) -> None:
        if not hasattr(registry, "membership") or not hasattr(registry, "seen_ms"):
            raise ConfigError([f"registry: the plugin of {scheme_of(config.registry)}: provides no membership; it is not made for this version"])
        self.membership: IMembership = registry.membership
        self._registry, self._config, self._clock = registry, config, clock

    def seen_ms(self) -> int:
        """When it was last known to be current, on `IClock.elapsed_ms`."""
        seen: int = self._registry.seen_ms
        return seen

    def stale(self) -> str | None:
        """Why nobody may be let in by it any more; None: it is new enough."""
        if self._clock.elapsed_ms() - self.seen_ms() <= self._config.snapshot_max_age_s * 1000:
            return None
        return f"the registry has not been heard of for more than {self._config.snapshot_max_age_s} s, and what was read from it is too old to go by"

    def unfit(self) -> str | None:
        """Why this node should get no traffic. While the registry is away publishing and replay go on by what was read: if that took all nodes out of
        a load balancer, nothing would. A node that serves groups only has nothing left once its lease has ended."""
        trouble: str | None = self._registry.trouble()
        if trouble is None:
            return None
        if getattr(self.membership, "displaced", False):
            return trouble
        over = self.membership.lease_ends_ms() <= self._clock.elapsed_ms()
        return trouble if over and self._config.mode == "sub" else self.stale()


def own_groups(seats: ISeats, membership: IMembership) -> Callable[[str], bool]:
    """Whether this node serves the group."""
    return lambda group: slot_of(group, membership.slots) in seats.seated()


def tls_of(table: PeerTls) -> Tls | None:
    """What the table names; None: nothing."""
    return Tls(table.certificate, table.key, table.authority) if table != PeerTls() else None


def peer_mistakes(peer: Sequence[str], address: str, table: PeerTls) -> list[str]:
    """`psubd.config.PeerJudge`."""
    return line.peer_mistakes(peer, address, tls_of(table))


def wire_settings(config: Config) -> WireSettings:
    """The settings of a port that share a name with the configuration's."""
    return WireSettings(**{name: getattr(config, name) for name in WireSettings.__struct_fields__ if name in NAMES})


def confluent_settings(config: Config) -> ConfluentSettings:
    """What Confluent's routes are told."""
    return ConfluentSettings(
        anonymous=config.anonymous,
        base_url=config.consumer_base_url,
        trusted_proxies=config.trusted_proxies,
        request_timeout_ms=config.consumer_request_timeout_ms,
        request_max_bytes=config.consumer_request_max_bytes,
        application_topics=config.application_topics,
    )
