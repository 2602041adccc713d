"""What the data port serves: HTTP shapes, no rules. Endpoints read an exchange, ask the gate, and call a service; they do not know the wire.

`routes` is the table. One publish goes `pub` (or `batch`) -> gate -> publisher; one read goes `sub` -> gate -> subscriber -> `formats`.
"""

from collections.abc import Callable

from psubd.endpoints import asks, batch, confluent, tenant
from psubd.endpoints.acks import Acking
from psubd.endpoints.batch import Batches
from psubd.endpoints.confluent.settings import ConfluentSettings
from psubd.endpoints.credentials import Callers
from psubd.endpoints.probes import Probes
from psubd.endpoints.pub import Publishing
from psubd.endpoints.sub import Subscribing
from psubd.endpoints.tenant import Tenant
from psubd.interfaces import IClock, IConsumers, IExchange, IGate, IPublisher, IRegistrar, IStorage, ISubscriber, Route
from psubd.model import Grant

MAX_MESSAGE_BYTES = 1_048_576
CONFLUENT_DEFAULTS = ConfluentSettings()


def routes(
    gate: IGate,
    publisher: IPublisher,
    subscriber: ISubscriber,
    storage: IStorage,
    clock: IClock,
    *,
    consumers: IConsumers | None = None,
    registrar: IRegistrar | None = None,
    confluent_settings: ConfluentSettings = CONFLUENT_DEFAULTS,
    ready: Callable[[], str | None] | None = None,
    mode: str = "pubsub",
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> list[Route]:
    """The data port's routes.

    :param consumers: consumer instances, whichever node serves them; with ``registrar`` it brings Confluent's routes. None: they are left out.
    :param ready: why this node cannot serve now, or None; without it, what the storage says.
    :param mode: ``pubsub``, ``pub`` (without the routes that read groups) or ``sub`` (without those that publish).
    :param max_message_bytes: the largest value, in bytes.
    """
    callers = Callers(gate)
    found = probe_routes(Probes(ready or storage.trouble))
    found += tenant_routes(Tenant(callers, gate, subscriber, storage), callers.subscriber)
    if mode != "sub":
        one, many = Publishing(callers, gate, publisher), Batches(callers, gate, publisher, clock, max_message_bytes)
        found += pub_routes(one, many, callers.publisher, max_message_bytes)
    if mode != "pub":
        found += sub_routes(Subscribing(callers, subscriber), Acking(callers, subscriber), callers.subscriber)
    if consumers is not None and registrar is not None:
        most = max_message_bytes
        found += confluent.routes(gate, publisher, subscriber, consumers, storage, registrar, clock, confluent_settings, mode, most)
    return found


def pub_routes(one: Publishing, many: Batches, admit: Callable[[IExchange], Grant], max_message_bytes: int) -> list[Route]:
    """Publishing."""
    return [
        Route("POST", "/v1/pub", one.publish, "publish", max_message_bytes, needs_length=True, gzip=True, admit=admit, hot=True),
        Route("POST", "/v1/pub/{topic}", one.publish, "publishTo", max_message_bytes, needs_length=True, gzip=True, admit=admit, hot=True),
        Route("POST", "/v1/pub/{topic}/batch", many.publish, "publishBatch", batch.MAX_BODY, needs_length=True, gzip=True, admit=admit, hot=True),
    ]


def sub_routes(subscribing: Subscribing, acking: Acking, admit: Callable[[IExchange], Grant]) -> list[Route]:
    """Reading, where GET is not safe: no HEAD."""
    return [
        Route("GET", "/v1/sub", subscribing.get, "subscribe", hot=True),
        Route("POST", "/v1/sub", subscribing.post, "subscribeWith", asks.MAX_BODY, admit=admit, hot=True),
        Route("POST", "/v1/ack", acking.ack, "ack", asks.MAX_BODY, admit=admit, hot=True),
        Route("POST", "/v1/nack", acking.nack, "nack", asks.MAX_BODY, admit=admit, hot=True),
        Route("POST", "/v1/extend", acking.extend, "extend", asks.MAX_BODY, admit=admit, hot=True),
    ]


def tenant_routes(own: Tenant, admit: Callable[[IExchange], Grant]) -> list[Route]:
    """A tenant's own things."""
    return [
        Route("GET", "/v1/whoami", own.whoami, "whoami", head=True),
        Route("GET", "/v1/topics", own.topics, "listTopics", head=True),
        Route("GET", "/v1/topics/{topic}", own.topic, "getTopic", head=True),
        Route("GET", "/v1/groups", own.groups, "listGroups", head=True),
        Route("GET", "/v1/groups/{group}", own.group, "getGroup", head=True),
        Route("DELETE", "/v1/groups/{group}", own.forget, "deleteGroup"),
        Route("PUT", "/v1/groups/{group}/offsets", own.reset, "resetGroup", tenant.MAX_RESET_BODY, admit=admit),
    ]


def probe_routes(probes: Probes) -> list[Route]:
    """For load balancers."""
    return [
        Route("GET", "/alive", probes.alive, "alive", head=True),
        Route("GET", "/ready", probes.ready, "ready", head=True),
    ]
