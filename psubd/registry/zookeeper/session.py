"""The reactor's side of ZooKeeper: requests as Deferreds, what befalls the session as events. The shape of txzookeeper.

    connecting --established--> connected --lost--> suspended --established--> connected
    suspended --expired--> expired --established--> connected
    any --stopped--> closed

docs/zookeeper.md draws it.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from psubd import drivers
from psubd.errors import RegistryUnavailable
from psubd.interfaces import IClock
from psubd.registry.lane import Lane
from psubd.registry.zookeeper.client import Client, Get, Lost, Operation, Unsent
from psubd.registry.zookeeper.line import Lease
from psubd.registry.zookeeper.settings import Place, ZooKeeperSettings


class Events(Protocol):
    """What befalls a session."""

    def established(self, session: int) -> None:
        """A server took us: with the session that we had, or a new one."""

    def lost(self) -> None:
        """The connection is gone; the session may stand."""

    def expired(self) -> None:
        """The session is gone, and all that was ephemeral in it."""

    def stopped(self) -> None:
        """We end it."""


class Standing:
    """Where the session stands, for those who listen.

    :ivar state: the machine's. :ivar session: the newest one's id; 0: there was none. :ivar fresh: whether it is another one than before.
    :ivar connections: how many there were.
    """

    log = Logger()

    def __init__(self) -> None:
        self.state, self.session, self.fresh, self.connections = "connecting", 0, False, 0
        self.listeners: list[Callable[[str], None]] = []

    def enter(self, state: str) -> None:
        """Be in ``state``, and tell it. A listener's bug is nobody else's."""
        self.state = state
        self.connections += state == "connected"
        for listener in list(self.listeners):
            try:
                listener(state)
            except Exception:  # noqa: BLE001 - as said
                self.log.failure("a listener failed on the session's state {state}", state=state)


def _machine() -> Callable[[Standing], Events]:
    builder = TypeMachineBuilder(Events, Standing)
    connecting, connected, suspended, expired, closed = map(builder.state, ("connecting", "connected", "suspended", "expired", "closed"))

    for before in (connecting, suspended, expired):

        @before.upon(Events.established).to(connected)
        def take(events: Events, standing: Standing, session: int) -> None:
            standing.fresh, standing.session = session != standing.session, session
            standing.enter("connected")

    @connected.upon(Events.established).loop()
    def retake(events: Events, standing: Standing, session: int) -> None:
        """Without a loss before it: kazoo was begun anew."""
        standing.fresh, standing.session = session != standing.session, session
        standing.enter("connected")

    @connected.upon(Events.lost).to(suspended)
    def suspend(events: Events, standing: Standing) -> None:
        standing.enter("suspended")

    for before in (connected, suspended):

        @before.upon(Events.expired).to(expired)
        def expire(events: Events, standing: Standing) -> None:
            standing.enter("expired")

    for before in (connecting, connected, suspended, expired):

        @before.upon(Events.stopped).to(closed)
        def close(events: Events, standing: Standing) -> None:
            standing.enter("closed")

    for before in (connecting, suspended, expired, closed):
        before.upon(Events.lost).loop().returns(None)
    for before in (connecting, expired, closed):
        before.upon(Events.expired).loop().returns(None)
    closed.upon(Events.established).loop().returns(None)
    closed.upon(Events.stopped).loop().returns(None)
    return cast(Callable[[Standing], Events], builder.build())


machine = _machine()


class Crossing:
    """Calls that threads leave for the reactor's, which is woken once for all that gathered; made in the order in which they were left."""

    log = Logger()

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor, self._lock = reactor, threading.Lock()
        self._calls: deque[Callable[[], object]] = deque()

    def put(self, call: Callable[[], object]) -> None:
        with self._lock:
            self._calls.append(call)
            first = len(self._calls) == 1
        if first:
            self._reactor.callFromThread(self._empty)

    def _empty(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, deque()
        for call in calls:
            try:
                call()
            except Exception:  # noqa: BLE001 - one call's bug must not take the others' answers along
                self.log.failure("an answer of ZooKeeper could not be handed over")


class Session:
    """ZooKeeper for the reactor's thread. All methods are to be called there.

    :param reactor: IReactorFromThreads.
    :ivar asked_ms: the session timeout that servers are asked for.
    """

    log = Logger()

    def __init__(self, place: Place, settings: ZooKeeperSettings, clock: IClock, reactor: Any) -> None:
        self.place, self.asked_ms = place, settings.session_timeout_ms
        self._crossing = Crossing(reactor)
        self._standing = Standing()
        self._events = machine(self._standing)
        self._lane = Lane(reactor, "psubd-zookeeper-stop")
        self._watches: dict[str, Callable[[str], None]] = {}
        self._returns: list[Deferred[None]] = []
        self._renewed: Callable[[], None] = lambda: None
        self.client = Client(place, settings, clock.elapsed_ms, self._told, self._moved)
        self._standing.listeners.append(self._log)

    @property
    def state(self) -> str:
        """``connecting``, ``connected``, ``suspended``, ``expired`` or ``closed``."""
        return self._standing.state

    @property
    def id(self) -> int:
        """The newest session's, as far as the reactor's thread has heard; `lease` may be ahead."""
        return self._standing.session

    @property
    def fresh(self) -> bool:
        """Within a listener's call on ``connected``: whether it is another session than before."""
        return self._standing.fresh

    @property
    def connections(self) -> int:
        """How many there were, so that one can be told from the next."""
        return self._standing.connections

    @property
    def lease(self) -> Lease | None:
        """What is known of the present session at this instant."""
        return self.client.lease

    def start(self) -> None:
        """Begin to connect, and go on until `stop`."""
        drivers.listen("kazoo")
        self._lane.start()
        self.client.start()

    def stop(self) -> Deferred[None]:
        """End the session. Fires when kazoo's threads have ended; what was not answered fails."""
        self._events.stopped()
        self._release()
        ended = self._lane.call(self.client.stop)
        ended.addErrback(lambda failure: self.log.failure("ZooKeeper's client did not stop", failure))
        return ended.addCallback(lambda _: self._lane.stop())

    def listen(self, told: Callable[[str], None], renewed: Callable[[], None]) -> None:
        """Call ``told`` with each state that is entered, also the same one again; ``renewed`` when a lease that had ended stands again."""
        self._standing.listeners.append(told)
        self._renewed = renewed

    def follow(self, root: str, moved: Callable[[str], None]) -> None:
        """Call ``moved`` with the path when a watch at or below ``root`` ("/nodes") fires. Watches go with the connection, without a call."""
        self._watches[root] = moved

    def returns(self) -> Deferred[None]:
        """Fires when there is a connection again, at once where there is one. Fails with RegistryUnavailable at the stop."""
        waiting: Deferred[None] = Deferred()
        self._returns.append(waiting)
        if self.state in ("connected", "closed"):
            self._release()
        return waiting

    # --- requests

    def batch(self, *operations: Operation) -> Deferred[list[Any]]:
        """Send them one behind the other. Fires with what each gave, or ZooKeeper's refusal of it as an exception in its place; fails with Unsent or
        Lost where one of them has no answer."""
        if self.state != "connected":
            return fail(Unsent(f"the session is {self.state}"))
        answered: Deferred[list[Any]] = Deferred()
        self.client.submit(operations, lambda results: self._crossing.put(lambda: settle(answered, results)))
        return answered

    def ask(self, operation: Operation) -> Deferred[Any]:
        """One request: its value, or its refusal as a failure."""
        return self.batch(operation).addCallback(only)

    def get(self, path: str) -> Deferred[tuple[bytes, Any]]:
        """Data and stat."""
        return self.ask(Get(path))

    def get_and_watch(self, path: str) -> Deferred[tuple[bytes, Any]]:
        """The same; what `follow` named for the path's root is called at the next change."""
        return self.ask(Get(path, watch=True))

    # --- from the threads

    def _told(self, event: str, session: int) -> None:
        self._crossing.put(lambda: self._befell(event, session))

    def _befell(self, event: str, session: int) -> None:
        match event:
            case "established":
                self._events.established(session)
            case "lost":
                self._events.lost()
            case "expired":
                self._events.expired()
            case "renewed":
                self._renewed()
        if event == "established":
            self._release()

    def _moved(self, path: str) -> None:
        root = "/" + path[1:].partition("/")[0]
        moved = self._watches.get(root)
        if moved is not None:
            self._crossing.put(lambda: moved(path))

    def _release(self) -> None:
        waiting, self._returns = self._returns, []
        for each in waiting:
            if self.state == "connected":
                each.callback(None)
            else:
                each.errback(RegistryUnavailable("psubd is stopping"))

    def _log(self, state: str) -> None:
        if state == "suspended":
            self.log.warn("the connection to ZooKeeper ({place}) is lost", place=self.place.shown)
        elif state == "expired":
            self.log.error("the session with ZooKeeper ({place}) is over", place=self.place.shown)
        elif state == "connected":
            self.log.info("connected to ZooKeeper ({place}), session {session:x}", place=self.place.shown, session=self.id & (1 << 64) - 1)


def settle(answered: "Deferred[list[Any]]", results: list[Any]) -> None:
    """Fire it."""
    unanswered = sorted((each for each in results if isinstance(each, Lost | Unsent)), key=lambda each: isinstance(each, Unsent))
    if unanswered:
        answered.errback(unanswered[0])  # Lost before Unsent: some of it may be done
    else:
        answered.callback(results)


def only(results: list[Any]) -> Any:
    """The one value. :raises Exception: the refusal."""
    [result] = results
    if isinstance(result, Exception):
        raise result
    return result
