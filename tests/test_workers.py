"""The process that starts workers: when it starts which, what it says, and how it ends."""

import io
import json
import os
import shutil
import signal
import sys
import tempfile
from typing import Any
from unittest import mock

import msgspec
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from psubd import workers
from psubd.config import WORKER, Config
from psubd.crew import Worker
from psubd.errors import ConfigError
from psubd.folder import StateFolder
from psubd.worker import WORDS, Word
from psubd.workers import FIRST_PAUSE_S, LASTED_S, LONGEST_PAUSE_S, Supervisor, command


class Process:
    """A process that ends when the test says so."""

    def __init__(self, protocol: Any, environ: dict[str, str], pid: int) -> None:
        self.protocol, self.pid = protocol, pid
        self.worker = msgspec.json.decode(environ[WORKER], type=Worker)
        self.signals: list[str] = []
        self.pipes = {WORDS: mock.Mock(fileno=lambda: 1_000_000)}
        self.over = False
        protocol.makeConnection(self)

    def signalProcess(self, name: str) -> None:
        if self.over:
            raise ProcessExitedAlready
        self.signals.append(name)

    def say(self, **word: Any) -> None:
        self.protocol.childDataReceived(WORDS, msgspec.json.encode(Word(**word)) + b"\n")

    def serve(self, manager: int, peer: int | None = None) -> None:
        self.say(ports=msgspec.Raw(msgspec.json.encode({"data": [1], "manager": manager, "peer": peer})))

    def end(self, status: int | None = None, signal: int | None = None) -> None:
        self.over = True
        self.protocol.processEnded(Failure(ProcessTerminated(status, signal) if status or signal else ProcessDone(0)))


class Reactor(MemoryReactorClock):
    """Spawns `Process`es."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[Process] = []
        self.fails: list[OSError] = []
        self.stops = 0

    def spawnProcess(self, protocol: Any, executable: str, args: Any, env: dict[str, str], childFDs: Any) -> Process:
        if self.fails:
            raise self.fails.pop()
        self.called = (executable, args, childFDs)
        self.spawned.append(Process(protocol, env, 100 + len(self.spawned)))
        return self.spawned[-1]

    def stop(self) -> None:
        self.stops += 1


class SupervisorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.state)
        self.reactor = Reactor()
        self.published: list[Any] = []
        self.stderr = io.StringIO()
        self.enterContext(mock.patch("sys.__stderr__", self.stderr))
        self.enterContext(mock.patch("os.umask"))
        self.supervisor = self.made()

    def made(self, **more: Any) -> Supervisor:
        given = {"listen": ("tcp:0:interface=127.0.0.1",), "manager": ("tcp:9191",), "peer": ("tcp:9291",), "workers": 2, **more}
        with mock.patch("atexit.register"):
            made = Supervisor(Config(state=self.state, **given), self.reactor, ["/python", "-m", "twistd"], self.published.append)
        self.addCleanup(made.claims.close)
        return made

    def start(self) -> list[Process]:
        self.supervisor.startService()
        for call, given, named in self.reactor.whenRunningHooks:
            call(*given, **named)
        return list(self.reactor.spawned)

    def told(self) -> Any:
        """ports.json, None: there is none."""
        text = StateFolder(self.state).read("ports.json")
        return None if text is None else json.loads(text)

    def running(self) -> list[int]:
        """The numbers of the workers whose process has not ended."""
        return sorted(process.worker.number for process in self.reactor.spawned if not process.over)

    def test_start(self) -> None:
        """Each is told its own ports and folder and the same data port; ports.json is there once all serve, and no former one before."""
        StateFolder(self.state).write("ports.json", "stale")
        first, second = self.start()
        self.assertEqual(self.reactor.called, ("/python", ["/python", "-m", "twistd"], {0: "w", 1: 1, 2: 2, WORDS: "r"}))
        self.assertEqual((first.worker.manager, second.worker.manager, second.worker.peer), (("tcp:9191",), ("tcp:9192",), ("tcp:9292",)))
        self.assertEqual(first.worker.listen, second.worker.listen)
        number = int(first.worker.listen[0].split(":")[1])
        self.assertGreater(number, 0)
        self.assertTrue(os.path.isdir(f"{self.state}/worker-1"))
        first.serve(9191, 9291)
        self.assertIsNone(self.told())
        second.serve(9192, 9292)
        workers = [{"manager": 9191, "peer": 9291}, {"manager": 9192, "peer": 9292}]
        self.assertEqual(self.told(), {"data": [number], "manager": 9191, "peer": 9291, "workers": workers})

    def test_log(self) -> None:
        """What a worker logs is logged as it was, with the worker's number; however the pipe cuts it up."""
        _, second = self.start()
        line = msgspec.json.encode(Word(time=12.5, level="warn", system="psubd.daemon#warn", text="a {text}")) + b"\n"
        for at in range(len(line)):
            second.protocol.childDataReceived(WORDS, line[at : at + 1])
        second.protocol.childDataReceived(WORDS, line + line)
        self.assertEqual(len(self.published), 3)
        event = self.published[0]
        self.assertEqual((event["log_time"], event["log_level"], event["log_system"]), (12.5, LogLevel.warn, "worker-1 psubd.daemon#warn"))
        self.assertEqual(event["log_format"].format(**event), "a {text}")

    def test_started_again(self) -> None:
        """One that dies is started again after a pause, which doubles while it dies at once; one that has lasted begins anew. The others go on."""
        first, second = self.start()
        first.serve(1)
        second.serve(2)
        pause = FIRST_PAUSE_S
        for _ in range(8):
            self.reactor.spawned[-1].end(signal=signal.SIGKILL)
            self.reactor.advance(pause - 0.01)
            self.assertEqual(self.running(), [0])
            self.reactor.advance(0.02)
            self.assertEqual(self.running(), [0, 1])
            pause = min(2 * pause, LONGEST_PAUSE_S)
        self.reactor.spawned[-1].serve(77)
        self.assertEqual([worker["manager"] for worker in self.told()["workers"]], [1, 77])
        self.reactor.advance(LASTED_S)
        self.reactor.spawned[-1].end()
        self.reactor.advance(FIRST_PAUSE_S)
        self.assertEqual(self.running(), [0, 1])
        self.assertEqual((self.reactor.stops, first.signals), (0, []))

    def test_refused_at_the_start(self) -> None:
        """One that cannot start, before all have served, ends all, with its status; two of them too."""
        first, second = self.start()
        first.serve(1)
        second.end(status=3)
        self.assertEqual((self.supervisor.ending.status, self.reactor.stops), (3, 1))
        self.assertIn("worker 1 cannot start", self.stderr.getvalue())
        stopped = self.supervisor.stopService()
        self.assertEqual(first.signals, ["TERM"])
        self.assertNoResult(stopped)
        first.end(signal=15)
        self.successResultOf(stopped)

    def test_refused_later(self) -> None:
        """Once all have served, one that cannot start again is tried again: the others serve."""
        first, second = self.start()
        first.serve(1)
        second.serve(2)
        second.end(status=1)
        self.reactor.advance(FIRST_PAUSE_S)
        self.assertEqual((self.running(), self.reactor.stops), ([0, 1], 0))
        self.reactor.spawned[-1].end(signal=9)
        self.reactor.fails.append(OSError(11, "Resource temporarily unavailable"))
        self.reactor.advance(2 * FIRST_PAUSE_S)
        self.assertEqual((self.running(), self.reactor.stops), ([0], 0))
        self.assertIn("worker 1 cannot start: [Errno 11] Resource temporarily unavailable", self.stderr.getvalue())
        self.reactor.advance(4 * FIRST_PAUSE_S)
        self.assertEqual(self.running(), [0, 1])

    def test_port_taken(self) -> None:
        """A data port that somebody has is told as with one process, and nothing is started."""
        self.supervisor.claims.listenTCP(0, mock.Mock(), interface="127.0.0.1")
        taken = self.supervisor.claims._held[0]
        taken.listen()
        self.supervisor = self.made(listen=(f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1",))
        self.assertEqual(self.start(), [])
        self.assertEqual((self.supervisor.ending.status, self.reactor.stops), (1, 1))
        self.assertIn("cannot listen: Address already in use", self.stderr.getvalue())
        self.successResultOf(self.supervisor.stopService())

    def test_folder_in_use(self) -> None:
        """One process at a time on the state folder."""
        other = StateFolder(self.state)
        other.open()
        self.addCleanup(other.close)
        self.patch(sys, "excepthook", mock.Mock())
        self.assertRaises(ConfigError, self.supervisor.startService)
        self.assertIn("another psubd", self.stderr.getvalue())

    def test_former_worker(self) -> None:
        """A worker of a killed psubd that still drains is waited for; nobody else is."""
        former = StateFolder(f"{self.state}/worker-1")
        former.open()
        self.start()
        self.assertEqual(self.running(), [0])
        for _ in range(50):
            self.reactor.advance(workers.AGAIN_S)
        self.assertEqual(self.running(), [0])
        former.close()
        self.reactor.advance(workers.AGAIN_S)
        self.assertEqual(self.running(), [0, 1])
        self.assertEqual(self.reactor.stops, 0)

    def test_no_folder(self) -> None:
        """A folder that cannot be made ends it at the start."""
        with open(f"{self.state}/worker-1", "w"):
            pass
        self.start()
        self.assertEqual((self.supervisor.ending.status, self.reactor.stops), (1, 1))
        self.assertIn("worker 1 cannot start: state:", self.stderr.getvalue())

    def test_stop(self) -> None:
        """All are told at once, none is started any more, and it has stopped when all have ended."""
        first, second = self.start()
        first.serve(1)
        second.serve(2)
        second.end(signal=11)
        stopped = self.supervisor.stopService()
        self.assertEqual(first.signals, ["TERM"])
        self.reactor.advance(LONGEST_PAUSE_S)
        self.assertEqual(self.running(), [0])
        self.assertNoResult(stopped)
        self.assertIsNotNone(self.told())
        first.end(signal=15)
        self.successResultOf(stopped)
        self.assertIsNone(self.told())
        StateFolder(self.state).open()

    def test_stop_of_one_that_is_gone(self) -> None:
        """A process that has ended, unseen so far, is no trouble."""
        first, second = self.start()
        first.over = second.over = True
        stopped = self.supervisor.stopService()
        first.end(signal=9)
        second.end(status=1)
        self.successResultOf(stopped)
        self.assertEqual(self.supervisor.ending.status, 0)

    def test_ports_cannot_be_told(self) -> None:
        """A full disk: an end at the start, a word later on."""
        first, second = self.start()
        with mock.patch.object(self.supervisor.folder, "write", side_effect=OSError(28, "No space left on device")):
            first.serve(1)
            second.serve(2)
        self.assertEqual((self.supervisor.ending.status, self.reactor.stops), (1, 1))
        self.assertIn("cannot start: ports.json cannot be written: [Errno 28]", self.stderr.getvalue())
        self.supervisor.ending.status = self.reactor.stops = 0
        second.serve(2)
        with mock.patch.object(self.supervisor.folder, "write", side_effect=OSError(28, "No space left on device")):
            second.serve(3)
        self.assertEqual((self.supervisor.ending.status, self.reactor.stops, self.running()), (0, 0, [0, 1]))


class CommandTests(SynchronousTestCase):
    OURS = ("--nodaemon", "--pidfile=", "--logger", "psubd.worker.speaker", "psubd", "--mode", "pub")

    def command(self, original: list[str], words: list[str], **more: Any) -> list[str]:
        with mock.patch("sys.orig_argv", original), mock.patch("sys.argv", words), mock.patch("sys.executable", "/venv/python"):
            return list(command(["--mode", "pub"], **more))

    def test_as_this_process(self) -> None:
        """The interpreter's options and the script, whose path is made absolute, since twistd may be in another folder by then; not twistd's own."""
        here = os.path.basename(__file__)
        with mock.patch("os.path.exists", lambda path: path == here):
            got = self.command(["python", "-X", "dev", here, "-l", "log", "psubd"], [here, "-l", "log", "psubd"], settings={"state": "/s"})
        self.assertEqual(got, ["/venv/python", "-X", "dev", os.path.abspath(here), *self.OURS, "--state", "/s"])

    def test_reactor(self) -> None:
        """The reactor is the same."""
        got = self.command(["python", "twistd", "psubd"], ["twistd", "psubd"], settings={}, reactor="poll")
        self.assertEqual(got, ["/venv/python", "twistd", "--reactor", "poll", *self.OURS])

    def test_otherwise(self) -> None:
        """A program that runs twistd by itself: its worker is twistd."""
        got = self.command(["python", "program.py"], ["twistd", "-n", "psubd"], settings={})
        self.assertEqual(got, ["/venv/python", *workers.LOADER, *self.OURS])
