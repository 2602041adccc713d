"""A client of consumer instances (Confluent's second version), that asks through whatever it is given: one node, or the nodes in turn."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from psubd.testing.daemon import Reply

PLAIN = "application/vnd.kafka.v2+json"
BINARY = "application/vnd.kafka.binary.v2+json"


class Asks(Protocol):
    """Who takes requests."""

    def request(self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """One request and its whole answer."""


class Read(NamedTuple):
    """One message as it was read."""

    partition: int
    offset: int
    value: str


class InstanceClient:
    """One instance.

    :param ask: makes each request, and again where it should: `psubd.testing.ring.RoundClient`, say, behind what tries again. :param group: as in the
        path.
    """

    def __init__(self, ask: Callable[[Callable[[], Reply]], Reply], client: Asks, group: str, name: str) -> None:
        self._ask, self._client, self.group, self.name = ask, client, group, name

    def through(self, client: Asks) -> "InstanceClient":
        """The same instance, asked through another one."""
        return InstanceClient(self._ask, client, self.group, self.name)

    def create(self, **settings: str) -> Reply:
        return self._send("POST", f"/consumers/{self.group}", {"name": self.name, "format": "binary", **settings})

    def subscribe(self, *topics: str) -> Reply:
        return self._send("POST", f"{self._path}/subscription", {"topics": topics})

    def read(self, timeout_ms: int = 1_000, max_bytes: int | None = None) -> list[Read]:
        """:raises AssertionError: with the answer, where it is none."""
        size = "" if max_bytes is None else f"&max_bytes={max_bytes}"
        target = f"{self._path}/records?timeout={timeout_ms}{size}"
        reply = self._ask(lambda: self._client.request("GET", target, None, {"accept": BINARY}))
        assert reply.status == 200, reply
        return [Read(each["partition"], each["offset"], base64.b64decode(each["value"]).decode()) for each in reply.json]

    def commit(self, offsets: Sequence[Mapping[str, Any]] | None = None) -> Reply:
        """``offsets`` None: all that was read."""
        return self._send("POST", f"{self._path}/offsets", None if offsets is None else {"offsets": offsets})

    def partitions(self) -> list[int]:
        """Those that it has."""
        reply = self._ask(lambda: self._client.request("GET", f"{self._path}/assignments"))
        assert reply.status == 200, reply
        return [each["partition"] for each in reply.json["partitions"]]

    def delete(self) -> Reply:
        return self._ask(lambda: self._client.request("DELETE", self._path))

    @property
    def _path(self) -> str:
        return f"/consumers/{self.group}/instances/{self.name}"

    def _send(self, method: str, target: str, document: Any) -> Reply:
        body = b"" if document is None else json.dumps(document).encode()
        return self._ask(lambda: self._client.request(method, target, body, {"content-type": PLAIN}))
