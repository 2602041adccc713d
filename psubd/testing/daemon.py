"""The real daemon as a process, for tests that drive it over HTTP: its own state folder, free ports, ended by its own process id."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import urlencode

T = TypeVar("T")
S = TypeVar("S")

PATIENCE_S = 60.0
"""How long a start or a stop may take on a loaded machine before the test fails."""

ADMIN_TOKEN = "pt_of-the-process-tests"


class Reply(NamedTuple):
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection to a port, opened anew where it was closed. For one thread.

    :param always: headers that every request carries.
    """

    def __init__(self, port: int, always: Mapping[str, str] | None = None, timeout: float = PATIENCE_S) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self._always = dict(always or {})

    def request(self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Send one request and read its whole answer. :raises OSError: :raises http.client.HTTPException: the connection broke."""
        try:
            self._connection.request(method, target, body, {**self._always, **(headers or {})})
            answer = self._connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        except BaseException:
            self._connection.close()
            raise

    def send(self, method: str, target: str, document: Any) -> Reply:
        """A request with a JSON body."""
        return self.request(method, target, json.dumps(document).encode(), {"content-type": "application/json"})

    def close(self) -> None:
        self._connection.close()


class Ports(NamedTuple):
    data: int
    manager: int


class Daemon:
    """``twistd -n psubd`` on a state folder. A context manager: ended at its exit, whatever happened.

    :param state: the folder. :param options: further options of ``twistd psubd``.
    :param environ: over this process's environment; PSUBD_ADMIN_TOKEN is `ADMIN_TOKEN` unless it says something else (None: unset).
    :param endpoints: where it listens; ``ports`` is for TCP only. :param twistd: that of another environment.
    :param wrapper: words before the command (``strace ...``). :param prepare: called in the child before it becomes the daemon.
    """

    def __init__(
        self,
        state: str,
        options: Sequence[str] = (),
        environ: Mapping[str, str | None] | None = None,
        wrapper: Sequence[str] = (),
        prepare: Callable[[], None] | None = None,
        twistd: Sequence[str] | None = None,
        endpoints: Sequence[str] = ("--listen", "tcp:0:interface=127.0.0.1", "--manager", "tcp:0:interface=127.0.0.1"),
    ) -> None:
        self.state = state
        self.log_path = f"{state}.log"
        command = twistd or (os.path.join(os.path.dirname(sys.executable), "twistd"),)
        self._command = [*wrapper, *command, "--nodaemon", "--pidfile=", "psubd", "--state", state, *endpoints, *options]
        merged = {**os.environ, "PSUBD_ADMIN_TOKEN": ADMIN_TOKEN, "PYTHONUNBUFFERED": "1", **(environ or {})}
        self._environ = {name: value for name, value in merged.items() if value is not None}
        self._prepare = prepare
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def spawn(self) -> None:
        """Start the process and wait for nothing."""

        def prepare() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever was started in a shell's background ignores it, and so would its children
            if self._prepare is not None:
                self._prepare()

        with open(self.log_path, "ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ, preexec_fn=prepare, start_new_session=True
            )

    def start(self) -> Self:
        """Start the process and wait until it serves. :raises AssertionError: with its output, where it does not."""
        with suppress(FileNotFoundError):  # a killed daemon's would be taken for this one's
            os.unlink(self.file("ports.json"))
        self.spawn()
        self.wait_for(lambda: os.path.exists(self.file("ports.json")), "it does not listen")
        return self

    def wait_for(self, holds: Callable[[], bool], otherwise: str) -> None:
        """Wait until ``holds``, as long as the process lives."""
        until = time.monotonic() + PATIENCE_S
        while not holds():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"{otherwise} (status {self.process.poll()}):\n{self.output()}")
            time.sleep(0.02)

    def ready(self) -> bool:
        """Whether it takes traffic; each of its workers, where it has several."""
        with open(self.file("ports.json"), encoding="utf-8") as file:
            told = json.load(file)
        return all(takes_traffic(one["manager"]) for one in told.get("workers", [told]))

    def file(self, name: str) -> str:
        return os.path.join(self.state, name)

    def output(self) -> str:
        """All that it has written, over all starts."""
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    @property
    def ports(self) -> Ports:
        """The ports of this start."""
        with open(self.file("ports.json"), encoding="utf-8") as file:
            told = json.load(file)
        return Ports(told["data"][0], told["manager"])

    def data(self, **always: str) -> Client:
        """A connection to the data port."""
        return Client(self.ports.data, always)

    def manager(self, token: str = ADMIN_TOKEN) -> Client:
        """A connection to the manager port."""
        return Client(self.ports.manager, {"authorization": f"Bearer {token}"})

    def signal(self, number: int) -> None:
        """Send it to the process (below a wrapper: to the daemon itself)."""
        os.kill(self.pid, number)

    @property
    def pid(self) -> int:
        """The daemon's process id, which is not that of a wrapper."""
        with open(self.file("lock"), encoding="ascii") as file:
            return int(file.read())

    def stop(self) -> int:
        """SIGTERM, and wait for the end. The status, negative for a signal."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end. The status, negative for a signal."""
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """SIGKILL to all that was started here, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(PATIENCE_S)


def takes_traffic(port: int) -> bool:
    """Whether ``/ready`` is 200 there."""
    with closing(Client(port)) as client:
        try:
            return client.request("GET", "/ready").status == 200
        except (OSError, http.client.HTTPException):
            return False


class Tenant(NamedTuple):
    """An application's keys, as headers."""

    id: str
    publish: dict[str, str]
    subscribe: dict[str, str]


def register(manager: Client, name: str) -> Tenant:
    """Make an application. :raises AssertionError: with the answer, where it was not made."""
    reply = manager.send("POST", "/api/v1/applications", {"id": name, "name": name})
    assert reply.status == 201, reply
    made = reply.json
    return Tenant(name, {"pubkey": made["pubkey"], "secret": made["secret"]}, {"subkey": made["subkey"]})


def make_topic(manager: Client, name: str, owner: str, **settings: Any) -> None:
    """Make a topic."""
    reply = manager.send("POST", "/api/v1/topics", {"id": name, "owner": owner, **settings})
    assert reply.status == 201, reply


def bind(manager: Client, application: str, topic: str, **settings: Any) -> None:
    """Bind them."""
    reply = manager.send("PUT", f"/api/v1/bindings/{application}/{topic}", settings)
    assert reply.status in (200, 201), reply


def reads(client: Client, topic: str) -> bool:
    """Whether the node lets it read the topic."""
    reply = client.request("GET", f"/v1/topics/{topic}")
    return reply.status == 200 and reply.json["sub"]


def together(jobs: Sequence[S], work: Callable[[S], T]) -> list[T]:
    """Each job in a thread of its own; what they gave, in order."""
    with ThreadPoolExecutor(len(jobs)) as threads:
        return list(threads.map(work, jobs))


def whole_log(client: Client, topic: str) -> Iterator[dict[str, Any]]:
    """All messages of a topic, read as a replay, by its subscriber."""
    place = "earliest"
    while True:
        reply = client.request("GET", "/v1/sub?" + urlencode({"topic": topic, "offset": place, "batchSize": 2000, "timeout": 0}))
        assert reply.status in (200, 204), reply
        if reply.status == 204 or not reply.json["messages"]:
            return
        yield from reply.json["messages"]
        place = reply.json["next"]


def drained(client: Client, query: str, patience: int = 2) -> Iterator[list[dict[str, Any]]]:
    """A group's messages, one answer after another, until so many polls in a row were empty."""
    empty = 0
    while empty < patience:
        reply = client.request("GET", f"/v1/sub?{query}")
        assert reply.status in (200, 204), reply
        empty = empty + 1 if reply.status == 204 else 0
        if reply.status == 200:
            yield reply.json["messages"]
