"""Confluent's REST Proxy as its clients know it: both versions of its API (contract, section 4; docs/http.md, "Consumer instances").

`routes` is the table. Keys and values stand in its JSON in one of three formats (`embedded`); which version a request speaks its media types say
(`media`); errors are told in its shape and by its numbers (`refusals`).
"""

import msgspec

from psubd.endpoints import batch
from psubd.endpoints.confluent import admin, consumers
from psubd.endpoints.confluent.base import Base
from psubd.endpoints.confluent.callers import Guests
from psubd.endpoints.confluent.description import Described
from psubd.endpoints.confluent.produce import Producing
from psubd.endpoints.confluent.refusals import refuse
from psubd.endpoints.confluent.settings import ConfluentSettings
from psubd.endpoints.confluent.topics import Shown
from psubd.errors import NoSuchRoute
from psubd.interfaces import IClock, IConsumers, IExchange, IGate, IPublisher, IRegistrar, IStorage, ISubscriber, Route
from psubd.model import Answer

MAX_ADMIN_BODY = 65_536
PRODUCE = "/topics/{topic}"
PRODUCE_TO_PARTITION = "/topics/{topic}/partitions/{partition}"


def routes(
    gate: IGate,
    publisher: IPublisher,
    subscriber: ISubscriber,
    instances: IConsumers,
    storage: IStorage,
    registrar: IRegistrar,
    clock: IClock,
    settings: ConfluentSettings,
    mode: str,
    max_message_bytes: int,
) -> list[Route]:
    """The routes of both versions. :param mode: ``pub`` leaves out those that read messages, ``sub`` those that publish.
    :param max_message_bytes: the largest value, in bytes.
    """
    guests = Guests(gate, settings.anonymous)
    found = shown_routes(Shown(guests, subscriber, storage), mode)
    if mode != "sub":
        found += produce_routes(Producing(guests, gate, publisher, storage, clock, max_message_bytes), guests)
        made = admin.TopicMaking(guests, gate, registrar, storage, settings)
        found.append(Route("POST", "/admin/topics", made.make, "makeTopic", MAX_ADMIN_BODY, gzip=True, admit=guests.publisher))
    if mode != "pub":
        most, wait = settings.request_max_bytes, settings.request_timeout_ms
        found += consumers.instance_routes(guests.subscriber, instances, Base(settings).of, timeout_ms=wait, max_bytes=most)
    described = Route("GET", "/openapi.json", Described(found).show, "describe", head=True)
    return [*(spoken(route, guests) for route in found + absent(mode)), described]


def spoken(route: Route, guests: Guests) -> Route:
    """The route in this dialect; a stranger's body is not read."""
    admit = route.admit or (guests.subscriber if route.max_body else None)
    return msgspec.structs.replace(route, refusal=refuse, slash=True, admit=admit)


def shown_routes(shown: Shown, mode: str) -> list[Route]:
    """What reads no group."""
    found = [
        Route("GET", "/", shown.root, "root", head=True),
        Route("POST", "/", shown.root, "postRoot"),
        Route("GET", "/brokers", shown.brokers, "listBrokers", head=True),
        Route("GET", "/topics", shown.topics, "listTopicNames", head=True),
        Route("GET", "/topics/{topic}", shown.topic, "getTopicMetadata", head=True),
        Route("GET", "/topics/{topic}/partitions", shown.partitions, "listPartitions", head=True),
        Route("GET", "/topics/{topic}/partitions/{partition}", shown.partition, "getPartition", head=True),
        Route("GET", "/topics/{topic}/partitions/{partition}/offsets", shown.offsets, "getPartitionOffsets", head=True),
    ]
    if mode != "pub":
        found.append(Route("GET", "/topics/{topic}/partitions/{partition}/messages", shown.messages, "readPartition"))
    return found


def absent(mode: str) -> list[Route]:
    """Where only reading is served, publishing is no route, though what is below the same address is: 404, and not 405."""
    if mode != "sub":
        return []
    return [Route("POST", PRODUCE, not_served, "noProduce"), Route("POST", PRODUCE_TO_PARTITION, not_served, "noProduceToPartition")]


def not_served(exchange: IExchange, topic: str, partition: str = "") -> Answer:
    """:raises NoSuchRoute: always."""
    raise NoSuchRoute('this node serves reading only (mode = "sub"); publish at another one')


def produce_routes(producing: Producing, guests: Guests) -> list[Route]:
    """Publishing."""
    most, admit = batch.MAX_BODY, guests.publisher
    return [
        Route("POST", PRODUCE, producing.to_topic, "produce", most, needs_length=True, gzip=True, admit=admit),
        Route("POST", PRODUCE_TO_PARTITION, producing.to_partition, "produceToPartition", most, needs_length=True, gzip=True, admit=admit),
    ]
