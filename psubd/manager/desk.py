"""All of the manager's routes, with their parts handed to each other."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from psubd import __version__
from psubd.interfaces import (
    IClock,
    IGate,
    IMembership,
    INodes,
    IPeers,
    IRedriver,
    IRegistrar,
    IRegistry,
    ISeats,
    IStorage,
    ISubscriber,
    Route,
)
from psubd.manager.applications import Applications
from psubd.manager.bindings import BoundApplications
from psubd.manager.events import Events
from psubd.manager.groups import Groups
from psubd.manager.guard import Guard
from psubd.manager.journal import Journal
from psubd.manager.metrics import Metrics
from psubd.manager.openapi import OpenApi
from psubd.manager.peek import Peek
from psubd.manager.probes import Probes
from psubd.manager.records import Records
from psubd.manager.sessions import Sessions
from psubd.manager.signin import SignIns
from psubd.manager.status import Staff, StatusDesk
from psubd.manager.tokens import Tokens
from psubd.manager.topics import Topics


def routes(
    *,
    registrar: IRegistrar,
    registry: IRegistry,
    gate: IGate,
    storage: IStorage,
    subscriber: ISubscriber,
    redriver: IRedriver,
    nodes: INodes,
    membership: IMembership,
    seats: ISeats,
    peers: IPeers | None = None,
    clock: IClock,
    metrics: CollectorRegistry,
    hosts: Iterable[str] = (),
    manager_secure_cookie: bool = False,
    version: str = __version__,
    config_view: Mapping[str, Any] | None = None,
    trouble: Callable[[], str | None] | None = None,
) -> list[Route]:
    """The routes of the manager port.

    :param subscriber: of all groups, whichever node serves them; likewise ``redriver``. :param seats: of the groups that this node serves.
    :param peers: the other nodes; None: there are none.
    :param metrics: what ``/metrics`` shows.
    :param hosts: names that the manager answers to, beside loopback.
    :param manager_secure_cookie: whether the session's cookie is ``Secure`` though the port itself speaks plain HTTP: a proxy in front has TLS.
    :param config_view: the settings in effect for ``/api/v1/status``, credentials taken out.
    :param trouble: why this node should get no traffic; None: it should. Without it, what storage and registry say.
    """
    why = trouble or (lambda: storage.trouble() or registry.trouble())
    staff = Staff(nodes, membership, seats, peers, clock)
    sessions = Sessions(clock)
    guard = Guard(registrar, registry, sessions, hosts)
    records, journal = Records(registry), Journal(registry, clock)
    subscriber.listen(journal.befell)
    described = [
        *Probes(guard, why).routes(),
        *SignIns(guard, sessions, clock, manager_secure_cookie).routes(),
        *Tokens(guard, registrar, records).routes(),
        *Applications(guard, registrar, records, clock).routes(),
        *Topics(guard, registrar, records, storage).routes(),
        *Peek(guard, journal, records, storage).routes(),
        *BoundApplications(guard, registrar, records, gate).routes(),
        *Groups(guard, subscriber, redriver, records).routes(),
        *StatusDesk(guard, storage, registry, staff, clock, why, version, config_view or {}).routes(),
        *Events(guard, journal, clock).routes(),
        *Metrics(guard, metrics).routes(),
    ]
    return [*described, *OpenApi(guard, described, version).routes()]
