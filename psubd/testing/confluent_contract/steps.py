"""How the contract of Confluent's routes speaks of a daemon."""

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from psubd.testing.daemon import Client, Reply, Tenant
from psubd.testing.http_contract.steps import Stand, Steps

V1, V2 = "application/vnd.kafka.v1+json", "application/vnd.kafka.v2+json"
ONE_HOUR_MS = 3_600_000


def embedded(format: str, version: int = 2) -> str:
    """The media type with embedded keys and values."""
    return f"application/vnd.kafka.{format}.v{version}+json"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def everything(tenant: Tenant) -> dict[str, str]:
    """One header that is right on every route: ``Basic <pubkey>:<secret>:<subkey>``."""
    parts = [tenant.publish["pubkey"], tenant.publish["secret"], tenant.subscribe["subkey"]]
    return {"authorization": f"Basic {b64(':'.join(parts).encode())}"}


class Caller:
    """A client of Confluent's proxy: one connection, one credential for all. :ivar id: the application's."""

    def __init__(self, client: Client, id: str) -> None:
        self._client, self.id = client, id

    def ask(self, method: str, target: str, document: Any = None, type: str | None = V2, accept: str | None = None, **lines: str) -> Reply:
        """:param document: the body as JSON, or bytes as they are; None: no body, and no content-type."""
        body = document if isinstance(document, bytes) or document is None else json.dumps(document).encode()
        headers = {**lines, **({"accept": accept} if accept is not None else {}), **({"content-type": type} if body is not None and type else {})}
        return self._client.request(method, target, body, headers)

    def produce(self, topic: str, *records: Mapping[str, Any], format: str = "json", **more: Any) -> Reply:
        """Publish."""
        return self.ask("POST", f"/topics/{topic}", {"records": records}, embedded(format), **more)


class Instance:
    """A consumer instance, as its client has it."""

    def __init__(self, caller: Caller, group: str, id: str) -> None:
        self.caller, self.group, self.id = caller, group, id
        self.path = f"/consumers/{quote(group, safe='')}/instances/{quote(id, safe='')}"

    def ask(self, method: str, tail: str, document: Any = None, type: str | None = V2, **more: Any) -> Reply:
        """A request below its path."""
        return self.caller.ask(method, f"{self.path}{tail}", document, type, **more)

    def subscribe(self, *topics: str) -> Reply:
        return self.ask("POST", "/subscription", {"topics": topics})

    def assign(self, topic: str, *partitions: int) -> Reply:
        return self.ask("POST", "/assignments", {"partitions": places(topic, *partitions)})

    def read(self, query: str = "", accept: str | None = None) -> Reply:
        """One read, whatever the answer is."""
        return self.ask("GET", f"/records?{query}", accept=accept)

    def commit(self, *offsets: Mapping[str, Any], **more: Any) -> Reply:
        """Without offsets: what it was given."""
        return self.ask("POST", "/offsets", {"offsets": offsets} if offsets else None, **more)

    def committed(self, topic: str, *partitions: int) -> Reply:
        return self.ask("GET", "/offsets", {"partitions": places(topic, *partitions)})

    def leave(self) -> Reply:
        return self.ask("DELETE", "")


def places(topic: str, *partitions: int) -> list[dict[str, Any]]:
    return [{"topic": topic, "partition": partition} for partition in partitions]


class ConfluentSteps(Steps):
    """Topics are the stand's: one application, one topic, bound both ways from its first message on. Each instance has a connection of its own."""

    def caller(self, stand: Stand) -> Caller:
        """A new connection of the stand's application."""
        return Caller(self.data(everything(stand.tenant)), stand.id)

    def make(self, stand: Stand, id: str | None = None, group: str = "g", type: str = V2, **settings: Any) -> Instance:
        """A new instance that begins at the log's start and does not commit by itself, unless it is said otherwise. Underscores are dots."""
        members = {"auto.offset.reset": "earliest", "auto.commit.enable": "false", **({"name": id} if id is not None else {})}
        members |= {name.replace("_", "."): value for name, value in settings.items()}
        caller = self.caller(stand)
        reply = caller.ask("POST", f"/consumers/{group}", members, type)
        self.assertEqual(reply.status, 200, reply)
        return Instance(caller, group, reply.json["instance_id"])

    def reader(self, stand: Stand, id: str | None = None, group: str = "g", **settings: Any) -> Instance:
        """The same, subscribed to the stand's topic, of format ``json``."""
        made = self.make(stand, id, group, **{"format": "json", **settings})
        self.done(made.subscribe(stand.topic))
        return made

    def twin(self, stand: Stand, instance: Instance) -> Instance:
        """The same instance, on another connection."""
        return Instance(self.caller(stand), instance.group, instance.id)

    def store(self, stand: Stand, *values: Any, partition: int = 0) -> None:
        """Publish JSON values to a partition."""
        reply = self.caller(stand).produce(stand.topic, *({"value": value, "partition": partition} for value in values))
        self.assertEqual((reply.status, [each["error_code"] for each in reply.json["offsets"]]), (200, [None] * len(values)), reply)

    def records(self, instance: Instance, query: str = "timeout=1000") -> list[dict[str, Any]]:
        """What one read gives."""
        reply = instance.read(query)
        self.assertEqual(reply.status, 200, reply)
        found: list[dict[str, Any]] = reply.json
        return found

    def got(self, instance: Instance, query: str = "timeout=1000") -> list[Any]:
        """The values that one read gives."""
        return [record["value"] for record in self.records(instance, query)]

    def all_of(self, count: int, *instances: Instance) -> list[Any]:
        """So many values at least, over all of them, then what a last read of each gives."""
        found = self.some(count, *instances)
        for instance in instances:
            found += self.got(instance, "timeout=0")
        return found

    def some(self, count: int, *instances: Instance, query: str = "timeout=100") -> list[Any]:
        """So many values at least, read by turns."""
        found: list[Any] = []

        def enough() -> bool:
            for instance in instances if len(found) < count else ():
                found.extend(self.got(instance, query))
            return len(found) >= count

        self.until(enough, f"{count} records")
        return found

    def stands(self, instance: Instance, topic: str, partition: int = 0) -> int | None:
        """The offset that the group's place has; None: it has none."""
        reply = instance.committed(topic, partition)
        self.assertEqual(reply.status, 200, reply)
        found = [each["offset"] for each in reply.json["offsets"]]
        return found[0] if found else None

    def done(self, reply: Reply) -> None:
        """204, without a body."""
        self.assertEqual((reply.status, reply.body), (204, b""), reply)

    def says(self, reply: Reply, document: Any, type: str = V2) -> None:
        """200 with exactly this."""
        self.assertEqual((reply.status, reply.headers["content-type"], reply.json), (200, type, document), reply)

    def told(self, reply: Reply, status: int, number: int, type: str = V2) -> Reply:
        """An error as Confluent's proxy tells it: nothing but the number and a message."""
        self.assertEqual((reply.status, reply.headers["content-type"]), (status, type), reply)
        self.assertEqual((reply.json["error_code"], reply.json.keys()), (number, {"error_code", "message"}), reply)
        self.assertTrue(reply.json["message"], reply)
        return reply
