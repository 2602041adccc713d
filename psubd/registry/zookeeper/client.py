"""The blocking side: kazoo, its threads, and two of ours. No Twisted, no zope.

Work goes in with `Client.submit`, which returns at once; the results come out by a callback on one of the threads here.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    ConnectionClosedError,
    ConnectionLoss,
    KazooException,
    RolledBackError,
    RuntimeInconsistency,
    SessionExpiredError,
    SessionMovedError,
)
from kazoo.protocol.states import KazooState, KeeperState, WatchedEvent, ZnodeStat
from kazoo.retry import KazooRetry
from kazoo.security import CREATOR_ALL_ACL

from psubd.registry.zookeeper.line import Lease, Line, Threads
from psubd.registry.zookeeper.settings import Place, ZooKeeperSettings

WINDOW = 128
"""Requests on their way at a time. kazoo writes a byte into a socket pair for each, which holds some 270 before it blocks the writer."""

PULSE_MS = 1_000
"""The longest wait between two requests that the leader has to answer. Not longer than `psubd.registry.zookeeper.line.MARGIN_MS`: what a
follower had not passed on when it lost its leader is then within the margin. A tenth of the session where that is less."""

OUTSTANDING_PULSES = 5

AGAIN_S = 1.0
"""Wait before kazoo is begun anew where its loop has ended (credentials refused, an answer that cannot be)."""

CLOSE_S = 3.0
"""How long a stop waits for the server's word before the connection is cut. The session then ends by itself."""

UNANSWERED = (ConnectionLoss, ConnectionClosedError, SessionExpiredError, SessionMovedError, AuthFailedError)


class Unsent(Exception):
    """There is no connection: surely not done."""


class Lost(Exception):
    """The connection went away before the answer: it may be done or not."""


class Get(NamedTuple):
    """Gives (data, stat). ``watch``: tell of the next change of the data."""

    path: str
    watch: bool = False


class Children(NamedTuple):
    """Gives (names, stat of the parent). ``watch``: tell when a name comes or goes."""

    path: str
    watch: bool = False


class Exists(NamedTuple):
    """Gives the stat, or None."""

    path: str


class Create(NamedTuple):
    """Gives the stat; within a `Together` nothing."""

    path: str
    data: bytes
    ephemeral: bool = False


class Set(NamedTuple):
    """Gives the stat. ``version`` -1: whatever it is."""

    path: str
    data: bytes
    version: int = -1


class Delete(NamedTuple):
    path: str
    version: int = -1


class Check(NamedTuple):
    """Within a `Together`: the path is there, with this version."""

    path: str
    version: int = -1


class Sync(NamedTuple):
    """What comes after it on this connection sees all that was written anywhere before it."""


class Ground(NamedTuple):
    """Make the chroot, each part of it that is not there."""


class Together(NamedTuple):
    """All or none. Gives a list: the stat for each Set, else None. Refused: what the one operation was refused with."""

    operations: tuple["Create | Set | Delete | Check", ...]


Operation = Get | Children | Exists | Create | Set | Delete | Sync | Ground | Together


class Client:
    """One session after another with ZooKeeper. Paths are below the chroot, "/" is the chroot itself.

    :param now_ms: a clock that counts a suspended host's sleep; called from any thread.
    :param told: called on a thread with what befell the session: ``established`` (with its id), ``lost`` (the connection), ``expired``,
        ``renewed`` (a lease that had ended stands again).
    :param moved: called on a thread with the path of a watch that fired.
    :ivar calls: requests sent but pulses. :ivar refusal: why the credentials were refused, or None.
    """

    def __init__(
        self,
        place: Place,
        settings: ZooKeeperSettings,
        now_ms: Callable[[], int],
        told: Callable[[str, int], None],
        moved: Callable[[str], None],
    ) -> None:
        self._place, self._settings, self._now_ms, self._told, self._moved = place, settings, now_ms, told, moved
        self._jobs: SimpleQueue[tuple[Sequence[Operation], Callable[[list[Any]], None]] | None] = SimpleQueue()
        self._window = threading.Semaphore(WINDOW)
        self._pulses = threading.Semaphore(OUTSTANDING_PULSES)
        self._ending = threading.Event()
        self._changing = threading.Lock()
        self._threads = [
            threading.Thread(target=self._send, name="psubd-zookeeper", daemon=True),
            threading.Thread(target=self._watch_over, name="psubd-zookeeper-pulse", daemon=True),
        ]
        self._kazoo: KazooClient = None
        self._line: Line = None  # type: ignore[assignment]
        self.calls = 0
        self.refusal: str | None = None
        self._begin()

    # --- the session

    @property
    def lease(self) -> Lease | None:
        """Of the present session; None: there is none."""
        return self._line.lease

    @property
    def connected(self) -> bool:
        return bool(self._kazoo.connected)

    def start(self) -> None:
        """Begin to connect, and go on until `stop`. Returns at once."""
        self._kazoo.start_async()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the session, so that what is ephemeral goes at once; without a connection it ends by itself. Blocks, up to `CLOSE_S` or little more."""
        self._ending.set()
        self._jobs.put(None)
        with self._changing:
            cutter = threading.Timer(CLOSE_S, self._line.cut)
            cutter.daemon = True
            cutter.start()
            with contextlib.suppress(KazooException):
                self._kazoo.stop()
                self._kazoo.close()
            cutter.cancel()

    def _begin(self) -> None:
        """A kazoo client of its own; ended ones cannot be begun again reliably."""
        settings, seconds = self._settings, self._settings.session_timeout_ms / 1000
        digest = [("digest", f"{settings.username}:{settings.password}")] if settings.username and settings.auth_scheme == "digest" else None
        kazoo = KazooClient(
            hosts=",".join(self._place.hosts),
            timeout=seconds,
            handler=Threads(min(3.0, seconds / 4), seconds),
            default_acl=CREATOR_ALL_ACL if settings.username else None,
            auth_data=digest,
            connection_retry=KazooRetry(max_tries=-1, delay=0.05, max_delay=0.5),
            use_ssl=settings.tls,
            ca=settings.tls_ca_file,
            certfile=settings.tls_certificate_file,
            keyfile=settings.tls_key_file,
            keyfile_password=settings.tls_key_password,
            check_hostname=settings.tls_check_hostname,
        )
        line = Line(kazoo, self._sasl(), self._now_ms, lambda: self._told("renewed", 0))
        kazoo._connection = line
        kazoo.add_listener(partial(self._state, kazoo, line))
        self._kazoo, self._line = kazoo, line

    def _sasl(self) -> dict[str, Any] | None:
        if self._settings.auth_scheme != "sasl":
            return None
        return {"mechanism": "DIGEST-MD5", "username": self._settings.username, "password": self._settings.password}

    def _state(self, kazoo: KazooClient, line: Line, state: str) -> None:
        """On kazoo's thread: its listener."""
        if state == KazooState.CONNECTED:
            self.refusal = None
            if line.lease is not None:
                self._told("established", line.lease.session)
        elif state == KazooState.SUSPENDED:
            self._told("lost", 0)
        else:
            line.lease = None
            if kazoo.client_state == KeeperState.AUTH_FAILED:
                self.refusal = "ZooKeeper refuses the credentials"
            self._told("expired", 0)

    def _watch_over(self) -> None:
        """On a thread of its own: show the leader that we are there, break a connection that is silent, begin kazoo anew where it gave up."""
        while not self._ending.wait(self._pause_s()):
            if self._line.ended:
                self._begin_anew()
                continue
            lease = self._line.lease
            if lease is None or not self._kazoo.connected:
                continue
            if self._now_ms() - lease.confirmed_ms > lease.timeout_ms * 2 // 3:
                self._line.cut()
            elif self._pulses.acquire(blocking=False):
                self._kazoo.sync_async(self._place.chroot).rawlink(lambda _: self._pulses.release())

    def _pause_s(self) -> float:
        lease = self._line.lease
        timeout_ms = self._settings.session_timeout_ms if lease is None else lease.timeout_ms
        return min(PULSE_MS, timeout_ms // 10) / 1000

    def _begin_anew(self) -> None:
        self._ending.wait(AGAIN_S)
        with self._changing:
            if self._ending.is_set():
                return
            with contextlib.suppress(KazooException):
                self._kazoo.stop()
                self._kazoo.close()
            self._begin()
            self._kazoo.start_async()

    # --- requests

    def submit(self, operations: Sequence[Operation], done: Callable[[list[Any]], None]) -> None:
        """From any thread: send them in order, one behind the other; ``done`` is called once, on a thread, with what each gave or the exception that
        it ended with: `Unsent`, `Lost`, or ZooKeeper's refusal (`kazoo.exceptions`)."""
        self._jobs.put((operations, done))

    def _send(self) -> None:
        while (job := self._jobs.get()) is not None:
            operations, done = job
            batch = Batch(len(operations), done)
            for place, operation in enumerate(operations):
                self._window.acquire()
                self._send_one(operation, partial(self._answered, batch, place, operation))
            if not operations:
                done([])
        self._refuse_the_rest()

    def _refuse_the_rest(self) -> None:
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is not None:
                job[1]([Unsent("stopped") for _ in job[0]])

    def _send_one(self, operation: Operation, answered: Callable[[Any], None]) -> None:
        kazoo = self._kazoo
        if not kazoo.connected:
            answered(None)
            return
        self.calls += 1
        try:
            asked = self._issue(kazoo, operation)
        except Exception as broken:  # noqa: BLE001 - one operation's bug is nobody else's
            asked = kazoo.handler.async_result()
            asked.set_exception(broken)
        asked.rawlink(answered)

    def _issue(self, kazoo: KazooClient, operation: Operation) -> Any:
        match operation:
            case Get(path, watch):
                return kazoo.get_async(self._full(path), self._fired if watch else None)
            case Children(path, watch):
                return kazoo.get_children_async(self._full(path), self._fired if watch else None, include_data=True)
            case Exists(path):
                return kazoo.exists_async(self._full(path))
            case Create(path, data, ephemeral):
                return kazoo.create_async(self._full(path), data, ephemeral=ephemeral, include_data=True)
            case Set(path, data, version):
                return kazoo.set_async(self._full(path), data, version)
            case Delete(path, version):
                return kazoo.delete_async(self._full(path), version)
            case Sync():
                return kazoo.sync_async(self._place.chroot)
            case Ground():
                return kazoo.ensure_path_async(self._place.chroot)
            case Together(operations):
                return self._together(kazoo, operations)

    def _together(self, kazoo: KazooClient, operations: Sequence[Create | Set | Delete | Check]) -> Any:
        transaction = kazoo.transaction()
        for operation in operations:
            match operation:
                case Create(path, data, ephemeral):
                    transaction.create(self._full(path), data, ephemeral=ephemeral)
                case Set(path, data, version):
                    transaction.set_data(self._full(path), data, version)
                case Delete(path, version):
                    transaction.delete(self._full(path), version)
                case Check(path, version):
                    transaction.check(self._full(path), version)
        return transaction.commit_async()

    def _full(self, path: str) -> str:
        return self._place.chroot + path if path != "/" else self._place.chroot

    def _answered(self, batch: "Batch", place: int, operation: Operation, result: Any) -> None:
        self._window.release()
        batch.put(place, Unsent("not connected") if result is None else outcome(operation, result))

    def _fired(self, event: WatchedEvent) -> None:
        """On a thread of kazoo's. Without a path it only says that the connection went away, with every watch."""
        if event.path:
            self._moved(event.path.removeprefix(self._place.chroot) or "/")


class Batch:
    """Results as they come in. ``done`` is called with all of them."""

    def __init__(self, count: int, done: Callable[[list[Any]], None]) -> None:
        self._results: list[Any] = [None] * count
        self._missing, self._done = count, done
        self._lock = threading.Lock()

    def put(self, place: int, result: Any) -> None:
        with self._lock:
            self._results[place] = result
            self._missing -= 1
            last = self._missing == 0
        if last:
            self._done(self._results)


def outcome(operation: Operation, result: Any) -> Any:
    """What kazoo's ``result`` means for ``operation``: a value, or an exception."""
    refused = result.exception
    if refused is not None:
        return Lost(type(refused).__name__) if isinstance(refused, UNANSWERED) else refused
    if isinstance(operation, Create):
        return result.value[1]
    if isinstance(operation, Together):
        refusals = [each for each in result.value if isinstance(each, Exception)]
        plain = [each for each in refusals if not isinstance(each, RolledBackError | RuntimeInconsistency)]
        return (plain or refusals)[0] if refusals else [each if isinstance(each, ZnodeStat) else None for each in result.value]
    return result.value
