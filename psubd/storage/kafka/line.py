"""A thread of the driver's with its connections.

Everything here but what says otherwise runs on the line's own thread, as coroutines of the driver's event loop (`kafka.net`), which needs no
lock. The driver's connection managers do the work: they bootstrap, know the brokers, connect, authenticate and back off.
"""

import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from kafka import errors
from kafka.future import Future
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from psubd.storage.kafka.faults import DENIED, LoginBroken, Lost, Unsent

RENEW_S = 30.0
"""A manager that reached no broker for so long is replaced: it starts again from the configured addresses, where the driver's own would go on
asking brokers that it heard of before for ever."""

FAILED_S = 1.0
"""The same after the driver gave up looking for the cluster."""

TELLING_S = 10.0
"""For so long a refusal of our credentials tells more than a connection that broke later."""

LEAST_MS = 200.0
"""A request gets so long at least, however near the deadline is."""

FIRST_PAUSE_S, LAST_PAUSE_S = 0.02, 0.5


class Turn:
    """One at a time, in the order of asking, among the coroutines of one line."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[Future] = deque()

    async def __aenter__(self) -> None:
        if self._held:
            place = Future()
            self._waiting.append(place)
            await place
        self._held = True

    async def __aexit__(self, *raised: object) -> None:
        if self._waiting:
            self._waiting.popleft().success(None)
        else:
            self._held = False


class Connections(KafkaConnectionManager):  # type: ignore[misc]  # the driver has no types
    """The driver's connection manager, which also keeps why it last failed to connect: the driver tells only its log.

    :ivar why: what the newest connection that failed failed with, None since one stood.
    """

    why: BaseException | None = None
    why_at = 0.0

    def get_connection(self, node_id: Any, *given: Any, **named: Any) -> KafkaConnection:
        connection = super().get_connection(node_id, *given, **named)
        if connection.initializing:
            connection.init_future.add_errback(self._failed)
        return connection

    def _failed(self, error: BaseException) -> None:
        # A broker that refuses a login says so and closes; the driver drops what came with the end of a connection, mostly also these words.
        if self.config["sasl_mechanism"] and "socket disconnected" in str(error):
            error = LoginBroken(str(error))
        now = time.monotonic()
        if not isinstance(self.why, DENIED) or isinstance(error, DENIED) or now - self.why_at > TELLING_S:
            self.why, self.why_at = error, now


class Manager:
    """One of the driver's connection managers: at most one connection to each broker; replaced when it is of no use any more."""

    def __init__(self, net: NetworkSelector, options: dict[str, Any]) -> None:
        self.net, self.options = net, options
        self.good_at = self.made_at = time.monotonic()
        self.made = Connections(net, **options)
        self._search: Future | None = None

    def begin(self) -> None:
        """Look for the cluster; goes on until it is found."""
        self._search = self.made.bootstrap_async()

    def close(self) -> None:
        self.made.close()

    @property
    def connections(self) -> int:
        return len(self.made.least_used_connections())

    def nodes(self) -> list[int]:
        """The brokers' ids; empty until one was reached."""
        return [broker.node_id for broker in self.made.cluster.brokers()]

    async def connection(self, node: int | None, timeout_ms: float | None = None) -> KafkaConnection:
        """A connection that stands, to the broker (None: the one with the least to do), in so many ms at most. :raises Unsent:"""
        if not self.made.bootstrapped:
            self._renew()
            raise Unsent("no broker of the cluster was reached yet") from self.made.why
        chosen = self.made.least_loaded_node() if node is None else node
        try:
            connection = self.made.get_connection(chosen)
            if not connection.connected:
                await self.made.wait_for(connection.init_future, timeout_ms)
        except errors.UnknownBrokerIdError as unknown:
            self.made.cluster.request_update()
            raise Unsent("the broker is not known yet") from unknown
        except Exception as failed:  # noqa: BLE001 - not the driver's errors only: TLS files that cannot be read, say
            self._renew()
            raise Unsent("no connection to the broker") from (self.made.why or failed)
        if not connection.connected or connection.paused:
            raise Unsent("the broker asks to wait")
        self.good_at, self.made.why = time.monotonic(), None
        return connection

    def _renew(self) -> None:
        """Begin anew from the configured addresses, if nothing was reached for long, or the driver gave up."""
        now = time.monotonic()
        gave_up = self._search is not None and self._search.failed() and now - self.made_at > FAILED_S
        if gave_up or now - max(self.good_at, self.made_at) > RENEW_S:
            old, self.made, self.made_at = self.made, Connections(self.net, **self.options), now
            self.made.why, self.made.why_at = old.why, old.why_at
            old.close()
            self.begin()


class Line:
    """One thread, and ``width`` connections to each broker.

    :param name: the thread's, and with a number the client id that Kafka's own logs and quotas show.
    """

    def __init__(self, name: str, bootstrap: Sequence[str], options: dict[str, Any], width: int = 1) -> None:
        self.name = name
        self.timeout_ms = float(options["request_timeout_ms"])
        self.net = NetworkSelector(client_id=name, slow_task_threshold_secs=0)
        ids = [name if width == 1 else f"{name}-{number}" for number in range(width)]
        self.managers = [Manager(self.net, {**options, "bootstrap_servers": list(bootstrap), "client_id": each}) for each in ids]

    def start(self) -> None:
        """From any thread. Returns at once."""
        self.net.start()
        for manager in self.managers:
            manager.begin()

    def stop(self) -> None:
        """From any other thread: close the connections, end the thread, wait for it. What still waits for an answer is cancelled."""
        # The managers first: the driver's metadata loop spins for ever, its thread with it, where the event loop is closed under it.
        self.run(self._close)
        self.net.close()

    def _close(self) -> None:
        for manager in self.managers:
            manager.close()

    def submit(self, work: Callable[..., Any], *given: Any) -> Future:
        """From any thread: run the function or coroutine function on the line's thread."""
        return self.net.call_soon_with_future(work, *given)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> Future:
        """Begin the coroutine beside the one that runs."""
        return self.net.call_soon_with_future(work)

    def run(self, work: Callable[..., Any], *given: Any) -> Any:
        """From any other thread: the same, and wait for what comes of it."""
        return self.net.run(work, *given)

    async def ask(self, request: Any, node: int | None = None, place: int = 0, timeout_ms: float | None = None) -> Any:
        """One request, one answer, no second try.

        :param place: which of the connections to the broker; taken modulo the width.
        :raises Unsent: never sent. :raises Lost: sent, no answer.
        """
        connection = await self.managers[place % len(self.managers)].connection(node, timeout_ms)
        return await self.over(connection, request, timeout_ms)

    @staticmethod
    async def over(connection: KafkaConnection, request: Any, timeout_ms: float | None = None) -> Any:
        """The same on a connection that stands."""
        try:
            return await connection.send_request(request, request_timeout_ms=timeout_ms)
        except errors.NodeNotReadyError as paused:
            raise Unsent("the broker asks to wait") from paused
        except errors.IncompatibleBrokerVersion:
            raise
        except errors.KafkaError as failed:
            raise Lost("no answer from the broker") from failed

    async def persist(self, deadline: float, attempt: Callable[[float], Coroutine[Any, Any, Any]], *, again: tuple[type[BaseException], ...]) -> Any:
        """Call ``attempt`` until it does not raise one of ``again``, or the deadline (`time.monotonic`) has come: then what it raised last.

        It is given the ms that its requests may take.
        """
        pause = FIRST_PAUSE_S
        while True:
            try:
                return await attempt(max(LEAST_MS, min(self.timeout_ms, (deadline - time.monotonic()) * 1000)))
            except again:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                await self.net.sleep(min(pause, left))
                pause = min(pause * 2, LAST_PAUSE_S)
