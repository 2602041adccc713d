"""The OpenAPI description of Confluent's routes: ``GET /openapi.json`` on the data port.

The paths and methods are those of the table itself; what each takes and answers stands in `SAID`, and a test sees that none is left out. Clients
of Confluent's send members that nobody knows, and numbers as text: what is described here is what a client should send, and more is taken.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from psubd import __version__
from psubd.endpoints.answers import encode
from psubd.endpoints.confluent import media
from psubd.endpoints.confluent.embedded import Header
from psubd.interfaces import IExchange, Route
from psubd.model import Answer, TopicPartition

PART = re.compile(r"{([a-z_]+)}")
REFERENCE = "#/components/schemas/{name}"


class Fault(msgspec.Struct, frozen=True):
    """How every error is told."""

    error_code: int
    message: str


class Record(msgspec.Struct, frozen=True):
    """``key`` and ``value``: base64 (binary), text, or any JSON, as the content type says; null is a tombstone."""

    value: Any
    key: Any = None
    partition: int | None = None
    timestamp: int | None = None
    headers: list[Header] | None = None


class Records(msgspec.Struct, frozen=True):
    records: list[Record]


class Place(msgspec.Struct, frozen=True):
    partition: int | None
    offset: int | None
    error_code: int | None
    error: str | None


class Produced(msgspec.Struct, frozen=True):
    """A place for each record, in order."""

    offsets: list[Place]
    key_schema_id: int | None
    value_schema_id: int | None


class Replica(msgspec.Struct, frozen=True):
    broker: int
    leader: bool
    in_sync: bool


class Partition(msgspec.Struct, frozen=True):
    partition: int
    leader: int
    replicas: list[Replica]


class Topic(msgspec.Struct, frozen=True):
    name: str
    configs: dict[str, str]
    partitions: list[Partition]


class Brokers(msgspec.Struct, frozen=True):
    brokers: list[int]


class Bounds(msgspec.Struct, frozen=True):
    beginning_offset: int
    end_offset: int


class NewTopic(msgspec.Struct, frozen=True):
    topic_name: str
    partitions_count: int | None = None
    replication_factor: int | None = None


class NewInstance(msgspec.Struct, frozen=True, rename={"reset": "auto.offset.reset", "commit": "auto.commit.enable", "fetch": "fetch.min.bytes"}):
    name: str | None = None
    format: str | None = None
    reset: str | None = None
    commit: str | bool | None = None
    fetch: int | str | None = None


class Made(msgspec.Struct, frozen=True):
    instance_id: str
    base_uri: str


class Subscription(msgspec.Struct, frozen=True):
    """Either of the two."""

    topics: list[str] | None = None
    topic_pattern: str | None = None


class Topics(msgspec.Struct, frozen=True):
    topics: list[str]


class Partitions(msgspec.Struct, frozen=True):
    partitions: list[TopicPartition]


class Offset(msgspec.Struct, frozen=True):
    topic: str
    partition: int
    offset: int
    metadata: str | None = None


class Time(msgspec.Struct, frozen=True):
    topic: str
    partition: int
    timestamp: str | int


class Offsets(msgspec.Struct, frozen=True):
    offsets: list[Offset]


class Positions(msgspec.Struct, frozen=True):
    offsets: list[Offset] | None = None
    timestamps: list[Time] | None = None


class Said(msgspec.Struct, frozen=True):
    """What is said of one operation.

    :ivar answers: shape by status; None: no body. :ivar body: shape of what is sent; None: nothing is. :ivar optional: the body may be left out.
    :ivar embedded: whether keys and values are in the body, or the answer. :ivar refused: statuses beside those of all routes.
    :ivar query: parameters.
    """

    summary: str
    answers: Mapping[int, Any]
    body: Any = None
    optional: bool = False
    embedded: bool = False
    refused: tuple[int, ...] = ()
    query: tuple[str, ...] = ()


EVERYWHERE = (400, 404, 406, 408, 413, 414, 431, 500, 503)
"""What the wire may answer on any route, and what storage, registry and ownership may be in the way of."""

KNOWN = (401, 504)
WRITES = (409, 411, 415, 422, 429)

SAID: dict[str, Said] = {
    "root": Said("Whether it is there", {200: dict[str, str]}),
    "postRoot": Said("Whether it is there", {200: dict[str, str]}),
    "listBrokers": Said("The brokers", {200: Brokers}, refused=KNOWN),
    "listTopicNames": Said("The topics that the application is bound to", {200: list[str]}, refused=KNOWN),
    "getTopicMetadata": Said("One topic", {200: Topic}, refused=KNOWN),
    "listPartitions": Said("A topic's partitions", {200: list[Partition]}, refused=KNOWN),
    "getPartition": Said("One partition", {200: Partition}, refused=KNOWN),
    "getPartitionOffsets": Said("Where a partition begins and ends", {200: Bounds}, refused=KNOWN),
    "readPartition": Said(
        "Read a partition without an instance (v1)",
        {200: list[Any]},
        embedded=True,
        refused=(*KNOWN, 403, 422, 429),
        query=("offset", "timestamp", "count"),
    ),
    "produce": Said("Publish", {200: Produced}, Records, embedded=True, refused=(*KNOWN, *WRITES)),
    "produceToPartition": Said("Publish to a partition", {200: Produced}, Records, embedded=True, refused=(*KNOWN, *WRITES)),
    "makeTopic": Said("Make a topic of one's own", {201: None}, NewTopic, refused=(*KNOWN, *WRITES, 403)),
    "createInstance": Said("Make a consumer instance", {200: Made}, NewInstance, True, refused=(*KNOWN, *WRITES)),
    "deleteInstance": Said("It leaves its group", {204: None}, refused=(*KNOWN, 409)),
    "subscribeInstance": Said("What it reads: topics, or a pattern", {204: None}, Subscription, refused=(*KNOWN, *WRITES)),
    "getSubscription": Said("What it reads", {200: Topics}, refused=KNOWN),
    "unsubscribeInstance": Said("It reads nothing", {204: None}, refused=(*KNOWN, 409)),
    "assignInstance": Said("What it reads: partitions, by hand", {204: None}, Partitions, refused=(*KNOWN, *WRITES)),
    "getAssignments": Said("The partitions that it has", {200: Partitions}, refused=KNOWN),
    "seekInstance": Said("Where it reads on", {204: None}, Positions, refused=(*KNOWN, *WRITES)),
    "seekInstanceToBeginning": Said("It reads on at the beginning", {204: None}, Partitions, refused=(*KNOWN, *WRITES)),
    "seekInstanceToEnd": Said("It reads on at the end", {204: None}, Partitions, refused=(*KNOWN, *WRITES)),
    "readInstance": Said("Read", {200: list[Any]}, embedded=True, refused=(*KNOWN, 409, 429), query=("timeout", "max_bytes")),
    "readInstanceTopic": Said("Read a topic (v1)", {200: list[Any]}, embedded=True, refused=(*KNOWN, 409, 429), query=("timeout", "max_bytes")),
    "commitInstance": Said("What is done; without a body: what was read", {200: list[Any]}, Offsets, True, refused=(*KNOWN, *WRITES)),
    "getInstanceOffsets": Said(
        "Where the group stands on the partitions that the body names", {200: Offsets}, Partitions, refused=(*KNOWN, 411, 415, 422)
    ),
}
"""By the route's name."""


class Described:
    """Serves the description of ``routes``."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._document = encode(document(routes))

    def show(self, exchange: IExchange) -> Answer:
        """No secret is in it: whoever asks."""
        return Answer(body=self._document, headers=[media.line(media.JSON)])


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole description."""
    shapes = [shape for said in SAID.values() for shape in (said.body, *said.answers.values()) if shape is not None]
    distinct: list[Any] = [Fault]
    distinct += [shape for index, shape in enumerate(shapes) if shape not in shapes[:index]]
    schemas, components = msgspec.json.schema_components(distinct, ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        known = list(zip(distinct, schemas, strict=True))
        paths.setdefault(route.path, {})[route.method.lower()] = operation(route, SAID[route.name], known)
    basic = {"type": "http", "scheme": "basic", "description": "`<pubkey>:<secret>:<subkey>`, or two of them, as the route needs."}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "psubd: the routes of Confluent's REST Proxy",
            "version": __version__,
            "description": "Versions 1 and 2 of its API; docs/http.md says what psubd does where it leaves something open.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"basic": basic}},
    }


def operation(route: Route, said: Said, known: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """One method of one path."""

    def schema(shape: Any) -> Any:
        return next(schema for each, schema in known if each == shape)

    types = [media.embedded(version, form) for version in (2, 1) for form in media.FORMATS] if said.embedded else [media.plain(2), media.plain(1)]
    types.append(media.JSON)
    answers = types if said.embedded and said.body is None else [media.plain(2), media.plain(1), media.JSON]
    told = {kind: {"schema": schema(Fault)} for kind in (media.plain(2), media.plain(1))}
    good = {
        str(status): {"description": "Done."}
        if shape is None
        else {"description": "As asked.", "content": {kind: {"schema": schema(shape)} for kind in answers}}
        for status, shape in said.answers.items()
    }
    bad = {str(status): {"description": "Refused.", "content": told} for status in sorted({*EVERYWHERE, *said.refused})}
    described: dict[str, Any] = {
        "operationId": route.name,
        "summary": said.summary,
        "security": [{"basic": []}] if 401 in said.refused else [],
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in PART.findall(route.path)),
            *({"name": name, "in": "query", "required": False, "schema": {"type": "integer", "minimum": 0}} for name in said.query),
        ],
        "responses": {**good, **bad},
    }
    if said.body is not None:
        content = {kind: {"schema": schema(said.body)} for kind in types}
        described["requestBody"] = {"required": not said.optional, "content": content}
    return described
