"""``--workers N``: the process that starts N others on one data port, keeps them there, passes on what they log, and ends them.

A worker is ``twistd psubd`` again, told in `psubd.config.WORKER` what is its own; `psubd.worker` has the pipes between them.
"""

import fcntl
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ReactorNotRunning
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol, ServerFactory
from twisted.logger import ILogObserver, Logger, LogLevel, globalLogPublisher

from psubd.config import WORKER, Config
from psubd.crew import Spot, Worker
from psubd.errors import ConfigError
from psubd.folder import FolderInUse, StateFolder
from psubd.ports import Claims, listen, place
from psubd.process import Ending, reasons, take, tell
from psubd.worker import WORDS, Word

log = Logger()

PIPE_BYTES = 1 << 20
"""So much of what a worker says may wait while this process is busy: a worker that logs more than that waits."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Between the end of a worker and its next start; doubled with each, until one has lasted `LASTED_S`."""

LASTED_S = 60.0

AGAIN_S = 0.2
"""Between two looks at a state folder that a worker of a former psubd still has."""

LOADER = ("-c", "from twisted.scripts.twistd import run; run()")


class Places(msgspec.Struct, frozen=True):
    """Where a worker is reached beside the data port; as in its ports.json."""

    manager: int | str
    peer: int | str | None


class Supervisor(Service):
    """:param command: what starts a worker; see `command`. :param publish: takes the events that workers log."""

    name = "psubd"

    def __init__(self, config: Config, reactor: Any, command: Sequence[str], publish: ILogObserver = globalLogPublisher) -> None:
        self.config, self.reactor, self.command, self.publish = config, reactor, command, publish
        self.folder = StateFolder(config.state)
        self.claims = Claims()
        self.ending = Ending()
        self.posts: list[Post] = []
        self._serving = self._stopping = False
        self._stopped: Deferred[None] = Deferred()

    def startService(self) -> None:
        """As `psubd.daemon.Daemon.startService`. :raises ConfigError:"""
        super().startService()  # type: ignore[no-untyped-call]
        take(self.folder.open)
        self.reactor.callWhenRunning(lambda: Deferred.fromCoroutine(self._start()))

    async def _start(self) -> None:
        """Never fails: what goes wrong is told, and ends the process."""
        try:
            self.folder.remove("ports.json")
            endpoints = [await self._claim(description) for description in self.config.listen]
            crew = self.config.crew
            self.posts = [Post(self, crew.worker(number, endpoints)) for number in range(crew.size)]
            for post in self.posts:
                post.start()
        except Exception as failed:  # noqa: BLE001 - as in the daemon
            self.give_up([f"cannot start: {reason}" for reason in reasons(failed)], 1)

    async def _claim(self, description: str) -> str:
        """The description with the number that all workers have."""
        port = await listen(self.claims, "listen", description, ServerFactory())
        return Spot.of(description).on(int(place(port)))

    # --- what workers do

    def serves(self) -> None:
        """A worker does, and has said where. ports.json is there once all have."""
        places = [each.places for each in self.posts]
        if self._stopping or None in places:
            return
        try:
            self.folder.write("ports.json", msgspec.json.encode(self._document()).decode() + "\n")
        except OSError as failed:
            told = [f"ports.json cannot be written: {reason}" for reason in reasons(failed)]
            if self._serving:
                tell(told)
            else:
                self.give_up([f"cannot start: {reason}" for reason in told], 1)
            return
        if not self._serving:
            self._serving = True
            log.info("all {count} workers serve: data port {data}", count=len(self.posts), data=self._document()["data"])

    def _document(self) -> dict[str, Any]:
        workers = [post.places for post in self.posts]
        first = workers[0]
        assert first is not None
        data = [Spot.of(description).port for description in self.posts[0].worker.listen]
        return {"data": data, "manager": first.manager, "peer": first.peer, "workers": workers}

    def ended(self, post: "Post", status: int | None) -> None:
        """A worker's process is gone. :param status: what it ended with; None: a signal ended it."""
        if self._stopping:
            self._look()
        elif status:
            self.refused(post, ["it has said why"], status)
        else:
            post.again()

    def refused(self, post: "Post", why: Sequence[str], status: int) -> None:
        """A worker cannot start. Until all have served that ends all, as with one process; later the others serve, and it is tried again."""
        told = [f"worker {post.worker.number} cannot start: {reason}" for reason in why]
        if self._serving:
            tell(told)
            post.again()
        else:
            self.give_up(told, status)

    def give_up(self, why: Sequence[str], status: int) -> None:
        """End all, with that status."""
        tell(why)
        self.ending.status = status
        with suppress(ReactorNotRunning):  # two of them cannot
            self.reactor.stop()

    # --- stop

    def stopService(self) -> Deferred[None]:
        """Fires when all have ended. Each answers what it has accepted, and hands over its groups."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopping = True
        for post in self.posts:
            post.stop()
        self._look()
        return self._stopped

    def _look(self) -> None:
        if self._stopped.called or any(post.running for post in self.posts):
            return
        self.folder.remove("ports.json")
        self.claims.close()
        self.folder.close()
        log.info("psubd has stopped, with all of its workers")
        self._stopped.callback(None)


class Post:
    """One worker's: its process, or the pause before the next one.

    :ivar places: where the present process is reached; None: it does not serve yet.
    """

    def __init__(self, supervisor: Supervisor, worker: Worker) -> None:
        self.worker = worker
        self.places: Places | None = None
        self._supervisor = supervisor
        self._reactor = supervisor.reactor
        self._process: Any = None
        self._begun_s = 0.0
        self._pid: int | None = None
        self._pause_s = FIRST_PAUSE_S
        self._waiting: IDelayedCall | None = None
        self._told = False

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start the process, once the one that a former psubd left behind has ended: it drains."""
        self._waiting = None
        folder = StateFolder(self.worker.state)
        try:
            folder.open()
            folder.close()
        except FolderInUse as used:
            if not self._told:
                self._told = True
                log.warn("worker {number} waits: {why}", number=self.worker.number, why=used.mistakes[0])
            self._waiting = self._reactor.callLater(AGAIN_S, self.start)
        except ConfigError as refused:
            self._supervisor.refused(self, refused.mistakes, 1)
        else:
            try:
                self._spawn()
            except OSError as failed:  # no memory, too many processes
                self._supervisor.refused(self, reasons(failed), 1)

    def _spawn(self) -> None:
        self._begun_s = self._reactor.seconds()
        environ = {**os.environ, WORKER: msgspec.json.encode(self.worker).decode()}
        command = self._supervisor.command
        files = {0: "w", 1: 1, 2: 2, WORDS: "r"}
        self._process = self._reactor.spawnProcess(Pipes(self), command[0], command, environ, childFDs=files)
        self._pid = self._process.pid

    def says(self, word: Word) -> None:
        """A word of its process."""
        if word.ports:
            self.places = msgspec.json.decode(word.ports, type=Places)
            self._supervisor.serves()
            return
        level = LogLevel.levelWithName(word.level)
        system = f"worker-{self.worker.number} {word.system}"
        self._supervisor.publish(
            {"log_time": word.time, "log_level": level, "log_namespace": "psubd", "log_system": system, "log_format": "{text}", "text": word.text}
        )

    def gone(self, failure: Any) -> None:
        """Its process has ended, and nothing comes from it any more."""
        self._process = self.places = None
        why = failure.value
        how = f"status {why.exitCode}" if why.signal is None else f"signal {why.signal}"
        log.info("worker {number} (process {pid}) has ended: {how}", number=self.worker.number, pid=self._pid, how=how)
        self._supervisor.ended(self, why.exitCode)

    def again(self) -> None:
        """Start another one, after a pause."""
        if self._reactor.seconds() - self._begun_s >= LASTED_S:
            self._pause_s = FIRST_PAUSE_S
        log.warn("worker {number} is started again in {seconds} s", number=self.worker.number, seconds=self._pause_s)
        self._waiting = self._reactor.callLater(self._pause_s, self.start)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def stop(self) -> None:
        """SIGTERM to the process; none is started any more."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if self._process is not None:
            with suppress(ProcessExitedAlready):
                self._process.signalProcess("TERM")


class Pipes(ProcessProtocol):
    """A process of a worker, as this one sees it. What it says comes as lines, a `Word` each."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._rest = b""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        with suppress(OSError):  # it may be above what this user may have
            fcntl.fcntl(transport.pipes[WORDS].fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._post.says(msgspec.json.decode(line, type=Word))

    def processEnded(self, reason: Any) -> None:
        self._post.gone(reason)


def command(words: Sequence[str], settings: Mapping[str, str], reactor: str | None = None) -> Sequence[str]:
    """What starts a worker: the interpreter and twistd as this process was started, in the foreground, with the same options of psubd's.

    :param words: psubd's options as they were given. :param settings: over them: paths that may have been relative to a folder that is left.
    :param reactor: the name that twistd was given.
    """
    said, given = sys.orig_argv, len(sys.argv) - 1
    same = said[len(said) - given :] == sys.argv[1:] and len(said) > given + 1
    loader = [os.path.abspath(word) if os.path.exists(word) else word for word in said[1 : len(said) - given]] if same else LOADER
    chosen = [] if reactor is None else ["--reactor", reactor]
    over = [word for name, text in settings.items() for word in (f"--{name}", text)]
    return [sys.executable, *loader, *chosen, "--nodaemon", "--pidfile=", "--logger", "psubd.worker.speaker", "psubd", *words, *over]
