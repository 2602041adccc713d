"""The registry of one node on a real file with its real thread."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from typing import TypeVar

from prometheus_client import CollectorRegistry
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import ConfigError, RegistryUnavailable, StorageTimeout
from psubd.interfaces import Change, ISnapshot, Plan, Put
from psubd.registry.local import AGAIN_MS, LocalRegistry
from psubd.registry.store import Store
from psubd.testing.clock import FakeClock
from psubd.testing.registry_contract import RegistryContract
from psubd.testing.waiting import blockon

T = TypeVar("T")


class Files(SynchronousTestCase):
    """Registries in a folder of the test's own; all are stopped at its end."""

    def setUp(self) -> None:
        blockon(succeed(None))  # under plain trial: skipped, before anything is started
        self.clock = FakeClock()
        self.folder = self.mktemp()
        os.makedirs(self.folder)
        self.started: list[LocalRegistry] = []
        self.addCleanup(lambda: [blockon(registry.stop()) for registry in self.started])

    def wait(self, deferred: "Deferred[T]") -> T:
        return blockon(deferred)

    def build(self, folder: str | None = None, store: type[Store] = Store) -> LocalRegistry:
        path = os.path.join(folder or self.folder, "registry.sqlite")
        registry = LocalRegistry(path, self.clock, reactor, CollectorRegistry())
        registry.store = store(path)
        return registry

    def started_one(self, folder: str | None = None, store: type[Store] = Store) -> LocalRegistry:
        registry = self.build(folder, store)
        blockon(registry.start())
        self.started.append(registry)
        return registry


class LocalRegistryTests(Files, RegistryContract):
    """`psubd.registry.local.LocalRegistry` holds to the contract."""

    def setUp(self) -> None:
        super().setUp()
        self.registry = self.started_one()

    def restart(self, crash: bool = False) -> LocalRegistry:
        if not crash:
            blockon(self.registry.stop())
            return self.started_one()
        # What a kill leaves behind is what the files hold at that moment.
        image = self.mktemp()
        os.makedirs(image)
        for name in ("registry.sqlite", "registry.sqlite-wal"):
            shutil.copy(os.path.join(self.folder, name), image)
        self.folder = image
        return self.started_one()


class FileTests(Files):
    """The file and who may have it."""

    def refusal(self, registry: LocalRegistry) -> str:
        with self.assertRaises(ConfigError) as caught:
            blockon(registry.start())
        blockon(registry.stop())
        [mistake] = caught.exception.mistakes
        return mistake

    def test_one_process(self) -> None:
        """A file that somebody holds is refused, with the holder's process id; when it was let go, it can be had."""
        first = self.started_one()
        said = self.refusal(self.build())
        self.assertIn("in use by another process", said)
        self.assertIn(str(os.getpid()), said)
        blockon(first.stop())
        self.started_one()

    def test_modes(self) -> None:
        """Nobody else can read any of the files, also where the file was there with a wider mode."""
        registry = self.started_one()
        blockon(registry.stop())
        os.chmod(os.path.join(self.folder, "registry.sqlite"), 0o644)
        registry = self.started_one()
        blockon(registry.change("a", lambda s, n: Plan("x", (Put("/topics/t", b""),))))
        names = sorted(os.listdir(self.folder))
        self.assertEqual(names, ["registry.sqlite", "registry.sqlite-shm", "registry.sqlite-wal", "registry.sqlite.lock"])
        for name in names:
            self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.folder, name)).st_mode), 0o600, name)

    def test_no_folder(self) -> None:
        """A folder that is not there is told, and is not made."""
        said = self.refusal(self.build(os.path.join(self.folder, "absent")))
        self.assertIn("No such file or directory", said)
        self.assertFalse(os.path.exists(os.path.join(self.folder, "absent")))

    def test_damaged(self) -> None:
        """A file that is no database is refused in plain words, and stays as it was."""
        path = os.path.join(self.folder, "registry.sqlite")
        with open(path, "wb") as out:
            out.write(b"not a database " * 1000)
        self.assertIn("damaged", self.refusal(self.build()))
        with open(path, "rb") as kept:
            self.assertEqual(kept.read(), b"not a database " * 1000)

    def test_damaged_page(self) -> None:
        """A damaged page in the middle is found at the start, not at the first change."""
        registry = self.started_one()
        blockon(registry.change("a", lambda s, n: Plan("x", tuple(Put(f"/topics/t{i}", b"x" * 3000) for i in range(20)))))
        blockon(registry.stop())
        with open(os.path.join(self.folder, "registry.sqlite"), "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 4096)
        self.assertIn("damaged", self.refusal(self.build()))

    def test_something_else(self) -> None:
        """Another program's database is refused and not written."""
        path = os.path.join(self.folder, "registry.sqlite")
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE theirs (x)")
        other.close()
        self.assertIn("something else", self.refusal(self.build()))
        other = sqlite3.connect(path)
        self.addCleanup(other.close)
        self.assertEqual(other.execute("SELECT name FROM sqlite_master").fetchall(), [("theirs",)])

    def test_newer(self) -> None:
        """A file of a newer psubd is refused, and says so."""
        blockon(self.started_one().stop())
        later = sqlite3.connect(os.path.join(self.folder, "registry.sqlite"))
        later.execute("PRAGMA user_version = 99")
        later.close()
        self.assertIn("newer psubd (schema 99", self.refusal(self.build()))

    def test_locked(self) -> None:
        """A file that another program holds locked is refused at the start, in plain words."""
        blockon(self.started_one().stop())
        other = sqlite3.connect(os.path.join(self.folder, "registry.sqlite"), isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        self.patch(sys.modules["psubd.registry.store"], "BUSY_S", 0.05)
        self.assertIn("locked by another process", self.refusal(self.build()))

    def test_not_writable(self) -> None:
        """A folder or a file that may not be written is told at the start, in plain words, for a user who is not root."""
        script = textwrap.dedent(
            """
            import os, sys
            from psubd.errors import ConfigError
            from psubd.registry.store import Store
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            try:
                Store(sys.argv[1]).open("host")
            except ConfigError as refused:
                print(refused.mistakes)
            """
        )
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "registry.sqlite")
        registry = LocalRegistry(path, self.clock, reactor)
        blockon(registry.start())
        blockon(registry.stop())
        os.chmod(path + ".lock", 0o666)
        for mode, file_mode in ((0o555, 0o444), (0o777, 0o444)):
            os.chmod(path, file_mode)
            os.chmod(folder, mode)
            said = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
            os.chmod(folder, 0o700)
            self.assertIn("Permission denied", said.stdout, said.stderr)

    def test_reading_asks_nobody(self) -> None:
        """Snapshot, history, sync and nodes are answered from memory: the file is not touched, the thread not asked."""
        registry = self.started_one()
        blockon(registry.change("a", lambda s, n: Plan("x", (Put("/topics/t", b"1"),))))
        store, lane = registry.store, registry.lane
        registry.store = registry.lane = None
        self.assertEqual(registry.snapshot().get("/topics/t").data, b"1")
        self.assertEqual(list(registry.snapshot().children("/topics")), ["t"])
        self.assertEqual(len(registry.history(0)), 1)
        self.successResultOf(registry.sync())
        self.assertEqual(len(registry.nodes()), 1)
        registry.store, registry.lane = store, lane

    def test_a_folder_in_its_place(self) -> None:
        """A folder where the file should be is told."""
        os.makedirs(os.path.join(self.folder, "registry.sqlite"))
        self.assertIn("directory", self.refusal(self.build()))

    def test_thread(self) -> None:
        """Only the named thread touches the file, and it ends with the registry."""
        touched = set()

        class Watched(Store):
            def connection(self) -> sqlite3.Connection:
                touched.add(threading.current_thread().name)
                return super().connection()

        registry = self.started_one(store=Watched)
        blockon(registry.change("a", lambda s, n: Plan("x", (Put("/topics/t", b""),))))
        blockon(registry.stop())
        self.assertEqual(touched, {"psubd-registry"})
        registry.lane._thread.join(10)
        self.assertFalse(registry.lane._thread.is_alive())

    def test_stop_does_not_hold_the_reactor(self) -> None:
        """While a stop waits for a slow write, the reactor goes on."""
        go_on = threading.Event()

        class Slow(Store):
            def write(self, change, steps):
                go_on.wait(20)
                super().write(change, steps)

        registry = self.started_one(store=Slow)
        asked = registry.change("a", lambda s, n: Plan("x", (Put("/topics/t", b""),)))
        stopped = registry.stop()
        blockon(deferLater(reactor, 0.01, lambda: None))
        self.assertNoResult(stopped)
        go_on.set()
        blockon(stopped)
        self.assertEqual(blockon(asked).serial, 1)


class FaultTests(Files):
    """Writes that fail, and outcomes that nobody can tell at first."""

    def ask(self, registry: LocalRegistry, name: str, data: bytes = b"") -> "Deferred[Change]":
        def plan(snapshot: ISnapshot, serial: int) -> Plan:
            return Plan("x", (Put(f"/topics/{name}", data),))

        return registry.change("a", plan)

    def turn(self, registry: LocalRegistry) -> None:
        """Let the timers fire and the thread do what they ask for."""
        self.clock.advance(AGAIN_MS)
        blockon(registry.lane.call(lambda: None))

    def test_disk_full(self) -> None:
        """No space: the change is refused and nothing is changed, here and in the file; trouble is told until a write goes through."""

        class Small(Store):
            pages: int | None = None

            def connection(self) -> sqlite3.Connection:
                connection = super().connection()
                connection.execute(f"PRAGMA max_page_count = {self.pages or 1 << 30}")
                return connection

        registry = self.started_one(store=Small)
        heard: list[Change] = []
        registry.listen(heard.append)
        blockon(self.ask(registry, "small"))
        registry.store.pages = 6
        with self.assertRaises(RegistryUnavailable) as caught:
            blockon(self.ask(registry, "large", b"x" * 500_000))
        self.assertIn("no space", caught.exception.detail)
        self.assertIn("no space", registry.trouble())
        self.assertEqual(registry.snapshot().serial, 1)
        self.assertIsNone(registry.snapshot().get("/topics/large"))
        self.assertEqual(len(heard), 1)
        registry.store.pages = None
        self.assertIn("no space", registry.trouble())
        self.turn(registry)
        self.assertIsNone(registry.trouble())
        self.assertEqual(blockon(self.ask(registry, "large", b"x" * 500_000)).serial, 2)

    def test_trouble_lasts(self) -> None:
        """As long as nothing can be written, trouble stays, however often it is tried."""

        class Full(Store):
            def write(self, change, steps):
                raise sqlite3.OperationalError("disk I/O error")

            def probe(self):
                raise sqlite3.OperationalError("still broken")

        registry = self.started_one(store=Full)
        with self.assertRaises(RegistryUnavailable):
            blockon(self.ask(registry, "t"))
        for _ in range(3):
            self.turn(registry)
            self.assertEqual(registry.trouble(), "still broken")

    def test_locked_for_a_while(self) -> None:
        """A file locked by another process (a backup): refused, nothing changed; it goes on when the lock is gone."""
        self.patch(sys.modules["psubd.registry.store"], "BUSY_S", 0.05)
        registry = self.started_one()
        other = sqlite3.connect(os.path.join(self.folder, "registry.sqlite"), isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        with self.assertRaises(RegistryUnavailable) as caught:
            blockon(self.ask(registry, "t"))
        self.assertIn("locked by another process", caught.exception.detail)
        other.execute("ROLLBACK")
        self.assertEqual(blockon(self.ask(registry, "t")).serial, 1)
        self.assertIsNone(registry.trouble())

    def test_written_after_all(self) -> None:
        """A write that fails after it was stored is read back and answered as made; the serials go on."""

        class Late(Store):
            fails = True

            def write(self, change, steps):
                super().write(change, steps)
                if self.fails:
                    raise sqlite3.OperationalError("disk I/O error")

        registry = self.started_one(store=Late)
        self.assertEqual(blockon(self.ask(registry, "t", b"1")).serial, 1)
        self.assertEqual(registry.snapshot().get("/topics/t").data, b"1")
        registry.store.fails = False
        self.assertEqual(blockon(self.ask(registry, "t", b"2")).serial, 2)

    def test_in_doubt(self) -> None:
        """While the file cannot be read back, nothing is answered: others are refused, unchanged. Then the file tells."""

        class Gone(Store):
            blind = 0

            def write(self, change, steps):
                super().write(change, steps)
                if self.blind:
                    raise sqlite3.OperationalError("disk I/O error")

            def holds(self, change):
                if self.blind:
                    self.blind -= 1
                    raise sqlite3.OperationalError("unable to read")
                return super().holds(change)

        registry = self.started_one(store=Gone)
        registry.store.blind = 2
        asked, queued = self.ask(registry, "t"), self.ask(registry, "u")
        with self.assertRaises(RegistryUnavailable):
            blockon(queued)
        with self.assertRaises(RegistryUnavailable):
            blockon(self.ask(registry, "v"))
        blockon(deferLater(reactor, 0, lambda: None))  # blockon came back in the middle of the refusals
        self.turn(registry)
        self.assertNoResult(asked)
        self.assertEqual(registry.snapshot().serial, 0)
        self.clock.advance(AGAIN_MS)
        self.assertEqual(blockon(asked).serial, 1)
        self.assertEqual(blockon(self.ask(registry, "w")).serial, 2)
        self.assertEqual(list(registry.snapshot().children("/topics")), ["t", "w"])

    def test_stop_in_doubt(self) -> None:
        """A stop does not wait for an outcome that cannot be told: the change fails and says that it may be there."""

        class Blind(Store):
            def write(self, change, steps):
                raise sqlite3.OperationalError("disk I/O error")

            def holds(self, change):
                raise sqlite3.OperationalError("unable to read")

        registry = self.started_one(store=Blind)
        asked = self.ask(registry, "t")
        asked.addErrback(lambda failure: failure.value)
        while registry._pause is None:
            blockon(deferLater(reactor, 0.01, lambda: None))
        blockon(registry.stop())
        error = blockon(asked)
        self.assertIsInstance(error, StorageTimeout)
        self.assertIn("could be told", error.detail)


class KillTests(Files):
    """A process that is killed while it writes."""

    CHILD = textwrap.dedent(
        """
        import sys
        from twisted.internet import reactor
        from twisted.internet.defer import Deferred
        from psubd.interfaces import Plan, Put
        from psubd.registry.local import LocalRegistry
        from psubd.services.clock import SystemClock

        async def main():
            registry = LocalRegistry(sys.argv[1], SystemClock(reactor), reactor)
            await registry.start()
            def plan(snapshot, serial):
                return Plan("x", (Put(f"/topics/t{serial % 50}", b"%d" % serial), Put("/topics/last", b"%d" % serial)))

            while True:
                change = await registry.change("child", plan)
                print(change.serial, registry.epoch, flush=True)

        reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()))
        reactor.run()
        """
    )

    def test_kill(self) -> None:
        """What was answered before ``kill -9`` is there, each change whole; the epoch rises; the next process gets the file."""
        path = os.path.join(self.folder, "registry.sqlite")
        for round_ in range(3):
            child = subprocess.Popen([sys.executable, "-c", self.CHILD, path], stdout=subprocess.PIPE, text=True)
            lines = [child.stdout.readline() for _ in range(30)]
            child.send_signal(signal.SIGKILL)
            lines += child.stdout.readlines()
            child.wait()
            child.stdout.close()
            said = [line.split() for line in lines if line.endswith("\n")]
            registry = self.started_one()
            serial = registry.snapshot().serial
            self.assertTrue(serial >= int(said[-1][0]) > 0)
            self.assertEqual(registry.snapshot().get("/topics/last").data, b"%d" % serial)
            self.assertEqual(registry.snapshot().get(f"/topics/t{serial % 50}").data, b"%d" % serial)
            self.assertEqual(registry.epoch, int(said[-1][1]) + 1)
            self.assertEqual(registry.epoch, 2 * (round_ + 1))
            blockon(registry.stop())

    LIMITED = textwrap.dedent(
        """
        import resource, sys
        from twisted.internet import reactor
        from twisted.internet.defer import Deferred
        from psubd.errors import RegistryUnavailable
        from psubd.interfaces import Plan, Put
        from psubd.registry.local import LocalRegistry
        from psubd.services.clock import SystemClock

        def limit(size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        def change(registry, name, size):
            return registry.change("child", lambda s, n: Plan("x", (Put(f"/topics/{name}", b"x" * size),)))

        async def main():
            registry = LocalRegistry(sys.argv[1], SystemClock(reactor), reactor)
            await registry.start()
            await change(registry, "before", 10)
            limit(200_000)
            for _ in range(2):
                try:
                    await change(registry, "large", 500_000)
                except RegistryUnavailable:
                    print("refused", registry.snapshot().serial, list(registry.snapshot().children("/topics")), registry.trouble() is not None)
            limit(resource.RLIM_INFINITY)
            print("made", (await change(registry, "after", 500_000)).serial, registry.trouble())
            await registry.stop()
            reactor.stop()

        reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()))
        reactor.run()
        """
    )

    def test_the_system_takes_no_more_bytes(self) -> None:
        """The operating system refuses to let the file grow: refused, unchanged; with room again it goes on; a restart finds the same."""
        path = os.path.join(self.folder, "registry.sqlite")
        said = subprocess.run([sys.executable, "-c", self.LIMITED, path], capture_output=True, text=True, timeout=60, check=True)
        refused = "refused 1 ['before'] True"
        self.assertEqual(said.stdout.splitlines(), [refused, refused, "made 2 None"], said.stderr)
        self.assertEqual(list(self.started_one().snapshot().children("/topics")), ["after", "before"])

    def test_many_begun_at_once_then_stopped(self) -> None:
        """A stop right behind many changes leaves all of them made."""
        registry = self.started_one()
        asked = gatherResults([registry.change("a", lambda s, n: Plan("x", (Put(f"/topics/t{n}", b""),))) for _ in range(100)])
        blockon(registry.stop())
        blockon(asked)
        self.assertEqual(len(self.started_one().snapshot().children("/topics")), 100)
