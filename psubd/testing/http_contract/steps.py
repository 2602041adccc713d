"""How the HTTP contract speaks of a daemon."""

import http.client
import json
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode
from uuid import uuid4

from psubd.testing.daemon import PATIENCE_S, Client, Reply, Tenant, bind, make_topic, register, whole_log

T = TypeVar("T")

MEBIBYTE = 1 << 20
Lines = Sequence[tuple[str, str | bytes]]
"""Field lines as sent: repeats and order kept."""


class Host(Protocol):
    """What the host class provides, beside trial's assertions."""

    data_port: int
    """Of what is under test, on 127.0.0.1."""

    manager: Client
    """A connection to the same daemon's manager port, as an admin."""


class Stand:
    """An application with a topic that it owns, and a connection for each of its trades.

    :ivar pub: shows pubkey and secret. :ivar sub: shows the subkey.
    """

    def __init__(self, port: int, tenant: Tenant, topic: str) -> None:
        self.tenant, self.topic = tenant, topic
        self.pub, self.sub = Client(port, tenant.publish), Client(port, tenant.subscribe)

    @property
    def id(self) -> str:
        return self.tenant.id

    def close(self) -> None:
        self.pub.close()
        self.sub.close()


class Steps:
    """What the cases are written with."""

    data_port: int
    manager: Client
    assertEqual: Callable[..., None]
    assertTrue: Callable[..., None]
    assertFalse: Callable[..., None]
    assertIn: Callable[..., None]
    assertNotIn: Callable[..., None]
    assertNotEqual: Callable[..., None]
    assertLess: Callable[..., None]
    assertLessEqual: Callable[..., None]
    assertGreater: Callable[..., None]
    assertGreaterEqual: Callable[..., None]
    addCleanup: Callable[..., None]
    fail: Callable[..., Any]

    # --- who and what there is ---

    def name(self) -> str:
        """A name that nobody had before."""
        return f"http-{uuid4().hex[:12]}"

    def data(self, headers: Mapping[str, str] | None = None) -> Client:
        """A connection to the data port."""
        client = Client(self.data_port, headers)
        self.addCleanup(client.close)
        return client

    def tenant(self) -> Tenant:
        """A new application, bound to nothing."""
        return register(self.manager, self.name())

    def stand(self, partitions: int = 1, topic: Mapping[str, Any] | None = None, **binding: Any) -> Stand:
        """A new application with a new topic of ``partitions``, bound for pub and sub from its first message on.

        :param topic: further members of the topic. :param binding: of the binding, over these.
        """
        tenant, name = self.tenant(), self.name()
        make_topic(self.manager, name, tenant.id, partitions=partitions, **(topic or {}))
        bind(self.manager, tenant.id, name, **{"pub": True, "sub": True, "start": "earliest", **binding})
        return self.standing(tenant, name)

    def standing(self, tenant: Tenant, topic: str) -> Stand:
        """The application's connections, for a topic that is there."""
        made = Stand(self.data_port, tenant, topic)
        self.addCleanup(made.close)
        return made

    def bind(self, application: str, topic: str, **settings: Any) -> None:
        """Bind them, or change the binding."""
        bind(self.manager, application, topic, **settings)

    def manage(self, method: str, target: str, document: Any = None, status: int = 200) -> Reply:
        """A request to the manager that must be answered so."""
        path = f"/api/v1/{target}"
        reply = self.manager.request(method, path) if document is None else self.manager.send(method, path, document)
        self.assertEqual(reply.status, status, reply)
        return reply

    # --- publish ---

    def send(self, stand: Stand, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
        """Publish one message, whatever the answer is."""
        return stand.pub.request("POST", f"/v1/pub/{stand.topic}", body, headers)

    def put(self, stand: Stand, *values: bytes, **headers: str) -> list[int]:
        """Publish what must be taken, one message after another; the offsets."""
        return [self.place(stand, value, headers)["offset"] for value in values]

    def place(self, stand: Stand, body: bytes, headers: Mapping[str, str] | None = None) -> Any:
        """Publish one message that must be taken; its whole answer."""
        reply = self.send(stand, body, headers)
        self.assertEqual(reply.status, 200, reply)
        return reply.json

    def batch(self, stand: Stand, records: Sequence[Any], headers: Mapping[str, str] | None = None) -> Reply:
        """Publish a JSON batch, whatever the answer is."""
        body = json.dumps({"records": records}).encode()
        return stand.pub.request("POST", f"/v1/pub/{stand.topic}/batch", body, {"content-type": "application/json", **(headers or {})})

    def put_batch(self, stand: Stand, records: Sequence[Any]) -> list[dict[str, int]]:
        """The same where all must be taken; each one's place."""
        reply = self.batch(stand, records)
        self.assertEqual((reply.status, reply.json.get("failed")), (200, 0), reply)
        results: list[dict[str, int]] = reply.json["results"]
        return results

    # --- read ---

    def poll(self, stand: Stand, query: str = "timeout=0") -> Reply:
        """Ask the stand's group for messages, whatever the answer is."""
        return stand.sub.request("GET", f"/v1/sub?{query}")

    def read(self, stand: Stand, query: str = "batchSize=100&timeout=5000") -> list[dict[str, Any]]:
        """The messages of one answer; none for a 204."""
        reply = self.poll(stand, query)
        self.assertIn(reply.status, (200, 204), reply)
        return reply.json["messages"] if reply.status == 200 else []

    def values(self, stand: Stand, query: str = "batchSize=100&timeout=5000") -> list[str]:
        return [message["value"] for message in self.read(stand, query)]

    def drain(self, stand: Stand, count: int, query: str = "") -> list[dict[str, Any]]:
        """At least ``count`` messages of the group, over as many answers as it takes, then one look that there is no more."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            messages = self.read(stand, f"batchSize=1000&timeout=10000{query}")
            self.assertTrue(messages, f"{len(found)} of {count} came")
            found += messages
        self.assertEqual(self.read(stand, f"batchSize=1000&timeout=0{query}"), [])
        return found

    def log(self, stand: Stand) -> list[dict[str, Any]]:
        """All messages of the stand's topic, as a replay."""
        return list(whole_log(stand.sub, stand.topic))

    def replay(self, stand: Stand, offset: str | int, **parameters: Any) -> Reply:
        """One replay answer, whatever it is."""
        return self.poll(stand, urlencode({"topic": stand.topic, "offset": offset, "batchSize": 100, "timeout": 0, **parameters}))

    def follow(self, stand: Stand, offset: str | int, **parameters: Any) -> list[str]:
        """The values that a replay gives, answer after answer, until nothing is there."""
        found: list[str] = []
        while (reply := self.replay(stand, offset, **parameters)).status == 200:
            found += [message["value"] for message in reply.json["messages"]]
            offset = reply.json["next"]
        self.assertEqual(reply.status, 204, reply)
        return found

    # --- what must not change ---

    def state(self, stand: Stand) -> Any:
        """Where the topic begins and ends, and where each of the application's groups stands on what."""
        topic = stand.sub.request("GET", f"/v1/topics/{stand.topic}")
        groups = stand.sub.request("GET", "/v1/groups")
        self.assertEqual((topic.status, groups.status), (200, 200), (topic, groups))
        places = [(item["topic"], item["partition"], item["committed"], group["group"]) for group in groups.json["items"] for item in group["items"]]
        return topic.json["partitions"], sorted(places)

    @contextmanager
    def unchanged(self, *stands: Stand) -> Iterator[None]:
        """Nothing is stored, no cursor moves and no group is made by what is done within."""
        before = [self.state(stand) for stand in stands]
        yield
        self.assertEqual([self.state(stand) for stand in stands], before)

    def assert_refused(self, reply: Reply, status: int, code: str, what: object = None) -> None:
        """A problem document with this status and code, as RFC 9457 and the contract want it."""
        self.assertEqual((reply.status, reply.headers.get("content-type")), (status, "application/problem+json"), (what, reply))
        document = reply.json
        told = (document["status"], document["code"], document["type"])
        self.assertEqual(told, (status, code, f"urn:psubd:{code}"), (what, reply))
        self.assertTrue(document["detail"] and document["title"], (what, reply))

    # --- at the same time ---

    def aside(self, work: Callable[[], T]) -> "Future[T]":
        """``work`` in a thread of its own; its result is asked for with `result`."""
        threads = ThreadPoolExecutor(1)
        self.addCleanup(threads.shutdown)
        return threads.submit(work)

    def result(self, future: "Future[T]") -> T:
        return future.result(PATIENCE_S)

    def polling(self, stand: Stand, query: str, headers: Mapping[str, str] | None = None) -> "Future[Reply]":
        """A poll on a connection of its own that waits when this returns."""
        client, before = self.data({**stand.tenant.subscribe, **(headers or {})}), self.waiting()
        asked = self.aside(lambda: client.request("GET", f"/v1/sub?{query}"))
        self.until(lambda: self.waiting() > before or asked.done(), "the poll waits")
        self.assertFalse(asked.done(), "the poll was answered at once")
        return asked

    def waiting(self) -> int:
        """How many polls and replays wait on the node."""
        return self.metric("psubd_polls_waiting")

    def metric(self, name: str) -> int:
        """What the manager's metrics say under that name."""
        found = re.search(rf"^{name} (\S+)$".encode(), self.manager.request("GET", "/metrics").body, re.MULTILINE)
        assert found is not None, f"{name} is gone"
        return int(float(found[1]))

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until ``holds``; fail with ``what`` where it never does."""
        end = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > end:
                self.fail(f"never came: {what}")
            time.sleep(0.02)

    def now(self) -> int:
        """Milliseconds since the epoch, by the daemon's clock: it runs on this machine."""
        return time.time_ns() // 1_000_000

    # --- byte by byte ---

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """A bare connection. :param receive_buffer: bytes that the kernel takes for it, about."""
        line = socket.socket()
        self.addCleanup(line.close)
        if receive_buffer is not None:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        line.settimeout(PATIENCE_S)
        line.connect(("127.0.0.1", self.data_port))
        return line

    def say(self, request: bytes, method: str = "POST") -> Reply:
        """Send these bytes on a connection of their own; the answer to ``method``."""
        with self.connect() as line:
            line.sendall(request)
            return heard(line, method)

    def tell(self, method: str, target: str, lines: Lines, body: bytes | None = b"") -> Reply:
        """A request with exactly these field lines, beside Host and the body's length. :param body: None: no length is said."""
        return self.say(written(method, target, lines, body), method)

    def publish_lines(self, stand: Stand, body: bytes, lines: Lines) -> Reply:
        """Publish one message with field lines that may repeat."""
        return self.tell("POST", f"/v1/pub/{stand.topic}", [*stand.tenant.publish.items(), *lines], body)


def written(method: str, target: str, lines: Lines, body: bytes | None = b"") -> bytes:
    """A request as bytes."""
    sized: Lines = [] if body is None else [("content-length", str(len(body)))]
    head = [f"{method} {target} HTTP/1.1".encode(), b"host: localhost"]
    head += [name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()) for name, value in (*lines, *sized)]
    return b"\r\n".join([*head, b"", body or b""])


def heard(line: socket.socket, method: str) -> Reply:
    """The next answer."""
    answer = http.client.HTTPResponse(line, method=method)
    answer.begin()
    return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def broken(line: socket.socket) -> None:
    """Break the connection: RST."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.close()
