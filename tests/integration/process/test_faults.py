"""What the machine does to psubd: no room, a locked file, a folder that cannot be written. Told plainly, nothing lost, and it goes on."""

import os
import resource
import sqlite3
import subprocess
import time
import unittest
from collections.abc import Callable

from psubd.testing.daemon import Client, Daemon
from tests.integration.process.case import ProcessCase, whole_log

BLOCK = b"x" * 65_536
ROOM = 24 * 1024 * 1024

as_root = unittest.skipUnless(os.geteuid() == 0, "mounts a file system: run it as root")


class RoomTests(ProcessCase):
    """The same story on a file system without room, and on a file that may not grow."""

    def fill(self, client: Client) -> list[int]:
        """Publish until it is refused. The offsets that were answered 200."""
        stored: list[int] = []
        for _ in range(2 * ROOM // len(BLOCK)):
            reply = client.request("POST", "/v1/pub/orders", BLOCK)
            if reply.status != 200:
                self.assertEqual((reply.status, reply.json["code"]), (503, "storage_unavailable"), reply)
                self.assertIn("retry-after", reply.headers)
                return stored
            stored.append(reply.json["offset"])
        raise AssertionError("it never said that there is no room")

    def until(self, holds: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + 60
        while not holds():
            self.assertLess(time.monotonic(), until, what)
            time.sleep(0.1)

    def story(self, daemon: Daemon, make_room: Callable[[], None]) -> None:
        """Fill it; reading goes on; what was answered is there; with room it works again without a restart; and all of it after one."""
        tenant = self.bound(daemon)
        publish, read, manager = daemon.data(**tenant.publish), daemon.data(**tenant.subscribe), daemon.manager()
        stored = self.fill(publish)
        self.assertTrue(stored)
        self.assertEqual({message["offset"] for message in whole_log(read, "orders")}, set(stored))
        self.assertEqual(manager.request("GET", "/alive").status, 200)
        self.assertEqual(manager.request("GET", "/ready").status, 503)
        trouble = manager.request("GET", "/api/v1/status").json["storage"]["trouble"]
        self.assertTrue(trouble, "the status does not say why")
        make_room()
        self.until(lambda: publish.request("POST", "/v1/pub/orders", b"there is room").status == 200, "it does not work again")
        self.until(lambda: manager.request("GET", "/ready").status == 200, "it is not ready again")
        self.assertNotIn("Traceback", daemon.output())
        daemon.stop()
        daemon.start()
        kept = {message["offset"]: len(message["value"]) for message in whole_log(daemon.data(**tenant.subscribe), "orders")}
        self.assertEqual({offset: kept.get(offset) for offset in stored}, {offset: len(BLOCK) for offset in stored})
        daemon.stop()

    @as_root
    def test_disk_full(self) -> None:
        """A file system without room."""
        disk = os.path.join(self.folder, "disk")
        os.mkdir(disk)
        self.mount("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", disk)
        daemon = self.daemon(state=os.path.join(disk, "state"))
        daemon.log_path = os.path.join(self.folder, "log")
        self.story(daemon.start(), lambda: self.mount("-o", f"remount,size={8 * ROOM}", disk, unmount=False))

    def test_file_size_limit(self) -> None:
        """A file that may not grow (ulimit -f)."""

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))

        daemon = self.daemon(prepare=limit).start()
        self.story(daemon, lambda: resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)) and None)

    @as_root
    def test_read_only(self) -> None:
        """A state folder on a read-only file system is told in a line, and ends with 1."""
        disk = os.path.join(self.folder, "disk")
        os.mkdir(disk)
        self.mount("-t", "tmpfs", "-o", "ro", "tmpfs", disk)
        self.assert_refused(os.path.join(disk, "state"), "Read-only file system")

    def test_not_a_folder(self) -> None:
        """A state folder that cannot be made is told in a line, and ends with 1."""
        self.assert_refused("/dev/null/state", "Not a directory")

    def test_second_daemon(self) -> None:
        """One psubd at a time runs on a state folder; the second is told which process has it, and does no harm."""
        daemon = self.daemon().start()
        self.assert_refused(self.state, f"another psubd (process {daemon.pid}) runs on it")
        self.assertEqual(daemon.manager().request("GET", "/ready").status, 200)
        self.assertTrue(os.path.exists(daemon.file("ports.json")))

    def assert_refused(self, state: str, why: str) -> None:
        refused = self.daemon(state=state)
        refused.log_path = os.path.join(self.folder, "refused.log")
        refused.spawn()
        self.assertEqual(refused.wait(), 1)
        (line,) = (line for line in refused.output().splitlines() if line.startswith("psubd: "))
        self.assertIn(state, line)
        self.assertIn(why, line)
        self.assertNotIn("Traceback", refused.output())

    def mount(self, *words: str, unmount: bool = True) -> None:
        subprocess.run(["mount", *words], check=True)
        if unmount:
            self.addCleanup(subprocess.run, ["umount", "--lazy", words[-1]], check=True)


class LockedTests(ProcessCase):
    """Another program holds SQLite's lock (a backup that went wrong, the sqlite3 shell)."""

    def locked(self, daemon: Daemon, name: str) -> sqlite3.Connection:
        other = sqlite3.connect(daemon.file(name), isolation_level=None, timeout=30)
        other.execute("BEGIN IMMEDIATE")
        return other

    def config(self) -> str:
        path = os.path.join(self.folder, "psubd.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write("[storage.sqlite]\nbusy_timeout_ms = 200\n")
        return path

    def test_storage(self) -> None:
        """Publishes are told 503 and are not stored; reading goes on; when the lock goes it works again."""
        with self.daemon("--config", self.config()) as daemon:
            tenant = self.bound(daemon)
            publish, read = daemon.data(**tenant.publish), daemon.data(**tenant.subscribe)
            self.assertEqual(publish.request("POST", "/v1/pub/orders", b"before").status, 200)
            other = self.locked(daemon, "storage.sqlite")
            refused = publish.request("POST", "/v1/pub/orders", b"refused")
            self.assertEqual((refused.status, refused.json["code"]), (503, "storage_unavailable"), refused)
            self.assertEqual([message["value"] for message in whole_log(read, "orders")], ["before"])
            other.execute("ROLLBACK")
            other.close()
            self.assertEqual(publish.request("POST", "/v1/pub/orders", b"after").status, 200)
            self.assertEqual([message["value"] for message in whole_log(read, "orders")], ["before", "after"])
            self.assertNotIn("Traceback", daemon.output())

    def test_registry(self) -> None:
        """A change is told 503 and is not made; publishing goes on; when the lock goes it can be made."""
        with self.daemon() as daemon:
            tenant = self.bound(daemon)
            manager = daemon.manager()
            other = self.locked(daemon, "registry.sqlite")
            refused = manager.send("POST", "/api/v1/applications", {"id": "late", "name": "late"})
            self.assertEqual(refused.status, 503, refused)
            self.assertEqual(daemon.data(**tenant.publish).request("POST", "/v1/pub/orders", b"meanwhile").status, 200)
            self.assertEqual(manager.request("GET", "/api/v1/applications/late").status, 404)
            other.execute("ROLLBACK")
            other.close()
            self.assertEqual(manager.send("POST", "/api/v1/applications", {"id": "late", "name": "late"}).status, 201)
            self.assertNotIn("Traceback", daemon.output())
