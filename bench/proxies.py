"""Other proxies, put beside psubd: `--peer KIND=URL`. Each kind's dialect is built in.

The topic `TOPIC` must exist on their Kafka, with one partition, or be made by the proxy; so that they and psubd work on one Kafka, give that to
`make bench` (``KAFKA=host:port``).
"""

import base64
import http.client
import json
import urllib.parse
import uuid
from collections.abc import Callable
from typing import NamedTuple

from bench.load import LoadFailed, Request

TOPIC = "bench-peer"
BINARY, V2 = "application/vnd.kafka.binary.v2+json", "application/vnd.kafka.v2+json"


class Dialect(NamedTuple):
    """How one kind of proxy is spoken to; None: it has no such thing.

    :ivar publish: one message of so many bytes, with this key. :ivar batch: so many messages of 100 bytes. :ivar read: one message (or what comes)
        of the topic for the group; ``prepare`` has been called for it. :ivar mark: what stands once in an answer for each message.
    """

    publish: Callable[[str, int, str], Request]
    batch: Callable[[str, int], Request] | None
    read: Callable[["Peer", str, str], Request]
    mark: bytes


class Peer(NamedTuple):
    """One that runs."""

    kind: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.kind} at {self.host}:{self.port}"

    @property
    def dialect(self) -> Dialect:
        return DIALECTS[self.kind]

    def ask(self, request: Request) -> bytes:
        """Send it once. :raises LoadFailed: where it is refused, or nobody listens."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(request.method, request.target, request.body or None, dict(request.headers))
            reply = connection.getresponse()
            body = reply.read()
        except OSError as broken:
            raise LoadFailed(f"{self.kind} at {self.host}:{self.port}: {broken}") from None
        finally:
            connection.close()
        if reply.status >= 300:
            raise LoadFailed(f"{self.kind}: {request.method} {request.target}: {reply.status} {body[:300]!r}")
        return body


def peer(text: str) -> Peer:
    """What ``KIND=http://host:port`` names. :raises ValueError:"""
    kind, _, url = text.partition("=")
    parts = urllib.parse.urlsplit(url)
    if kind not in DIALECTS or parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
        raise ValueError(f"{text!r}: write KIND=http://host:port, KIND one of {', '.join(DIALECTS)}")
    return Peer(kind, parts.hostname, parts.port or 80)


def pixy_publish(topic: str, size: int, key: str) -> Request:
    """``sync``: answered when all in-sync replicas have it."""
    return Request("POST", f"/topics/{topic}/messages?sync&key={key}", {"content-type": "text/plain"}, b"x" * size)


def pixy_read(peer: Peer, topic: str, group: str) -> Request:
    """One message, acked by itself."""
    return Request("GET", f"/topics/{topic}/messages?group={group}")


def v2_record(size: int, key: str | None = None) -> dict[str, str]:
    record = {} if key is None else {"key": base64.b64encode(key.encode()).decode()}
    return {**record, "value": base64.b64encode(b"x" * size).decode()}


def v2_publish(topic: str, size: int, key: str) -> Request:
    return Request("POST", f"/topics/{topic}", {"content-type": BINARY, "accept": V2}, json.dumps({"records": [v2_record(size, key)]}).encode())


def v2_batch(topic: str, records: int) -> Request:
    return Request("POST", f"/topics/{topic}", {"content-type": BINARY, "accept": V2}, json.dumps({"records": [v2_record(100)] * records}).encode())


def v2_read(peer: Peer, topic: str, group: str) -> Request:
    """An instance of its own, made and subscribed here, reads from the topic's beginning."""
    name, kind = f"bench-{uuid.uuid4().hex[:8]}", {"content-type": V2}
    settings = {"name": name, "format": "binary", "auto.offset.reset": "earliest"}
    peer.ask(Request("POST", f"/consumers/{group}", kind, json.dumps(settings).encode()))
    instance = f"/consumers/{group}/instances/{name}"
    peer.ask(Request("POST", f"{instance}/subscription", kind, json.dumps({"topics": [topic]}).encode()))
    return Request("GET", f"{instance}/records?timeout=1000&max_bytes=1000000", {"accept": BINARY})


DIALECTS = {
    "kafka-pixy": Dialect(pixy_publish, None, pixy_read, b'"offset":'),
    "strimzi": Dialect(v2_publish, v2_batch, v2_read, b'"offset":'),
    "confluent-rest": Dialect(v2_publish, v2_batch, v2_read, b'"offset":'),
}
