"""Faults for real: another process, a kill, a full disk, a broken file."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from typing import Any

from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest

from psubd.errors import ConfigError, StorageUnavailable, TopicMissing
from psubd.model import Position, Record, TopicSpec
from psubd.testing.waiting import blockon
from tests.integration.storage.rooms import SqliteCase

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
CHILD = "tests.integration.storage.publishing"


class OtherProcess(SqliteCase):
    def setUp(self) -> None:
        super().setUp()
        self.wait(self.storage.stop())

    def child(self, *arguments: str, before: tuple[str, ...] = ()) -> "subprocess.Popen[bytes]":
        """A process that publishes into the file; ended at the end of the test, whatever happens."""
        process = subprocess.Popen([*before, sys.executable, "-m", CHILD, self.path, *arguments], cwd=ROOT, stdout=subprocess.PIPE)
        self.addCleanup(self.end, process)
        return process

    def end(self, process: "subprocess.Popen[bytes]") -> None:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def lines(self, process: "subprocess.Popen[bytes]", count: int) -> list[str]:
        """Its next lines, as they come."""
        assert process.stdout is not None
        return [process.stdout.readline().decode().strip() for _ in range(count)]

    def stored(self, storage: Any) -> dict[tuple[int, int], str]:
        """Value by partition and offset, of all that is there."""
        found: dict[tuple[int, int], str] = {}
        for partition in range(3):
            offset, end = 0, self.wait(storage.bounds("t"))[partition].end
            while offset < end:
                part = self.wait(storage.read("t", partition, offset, 1000, 1 << 24))
                found |= {(partition, message.offset): message.value[: len(message.value) // 50].decode() for message in part.messages}
                offset = part.next_offset
        return found

    def answered(self, lines: list[str]) -> dict[tuple[int, int], str]:
        self.assertEqual([], [line for line in lines if line.startswith("ERROR")])
        split = [line.split() for line in lines if line[:1].isdigit() and len(line.split()) == 3]
        return {(int(partition), int(offset)): value for partition, offset, value in split}


class KillTests(OtherProcess):
    def test_what_was_answered_survives_kill_9(self) -> None:
        """Six rounds on one file: every message that was answered before the kill is there, where it was said to be, with its own value."""
        expected: dict[tuple[int, int], str] = {}
        for _ in range(6):
            process = self.child()
            assert process.stdout is not None
            lines = self.lines(process, 300)
            os.kill(process.pid, signal.SIGKILL)
            lines += process.stdout.read().decode().split("\n")[:-1]
            process.wait()
            answered = self.answered(lines)
            self.assertGreaterEqual(len(answered), 290)
            self.assertEqual(set(), set(answered) & set(expected), "an offset is never used again")
            expected |= answered
            storage = self.open()
            stored = self.stored(storage)
            self.assertEqual(expected, {place: stored.get(place) for place in expected})
            self.wait(storage.stop())


class SyncTests(OtherProcess):
    def test_every_answer_comes_after_a_sync(self) -> None:
        """Watched from outside (strace): when a stored message is told, no write of the WAL with that message's value is without a sync behind it."""
        strace = shutil.which("strace")
        if strace is None:
            raise SkipTest("needs strace")
        trace = f"{self.folder}/trace"
        watch = (strace, "-f", "-y", "-qq", "-s", "5000", "-o", trace, "-e", "trace=write,pwrite64,fdatasync,fsync")
        process = self.child("0", "400", before=watch)
        assert process.stdout is not None
        said = process.stdout.read().decode().splitlines()
        if not said and process.wait():
            raise SkipTest("strace may not trace here")
        self.assertEqual((0, 400), (process.wait(), len(self.answered(said))))
        with open(trace, encoding="ascii", errors="replace") as file:
            told, early = self.told_before_sync(file.read().splitlines())
        self.assertEqual(400, told)
        self.assertEqual([], early)

    def told_before_sync(self, lines: list[str]) -> tuple[int, list[str]]:
        """How many messages were told, and which of them before the writes that hold them were synced."""
        written, synced, told, early = "", "", 0, []
        syncing: set[str] = set()
        for line in lines:
            thread = line.split()[0]
            if "pwrite64(" in line and "storage.sqlite-wal>" in line:
                written += line
            elif "sync(" in line and "storage.sqlite-wal>" in line and line.endswith("<unfinished ...>"):
                syncing.add(thread)
            elif line.endswith("= 0") and (thread in syncing or ("sync(" in line and "storage.sqlite-wal>" in line)):
                syncing.discard(thread)
                synced, written = synced + written, ""
            elif "write(1<" in line and line.split('"')[1][:1].isdigit():
                told += 1
                value = line.split('"')[1].removesuffix("\\n").split(" ")[-1]
                if value * 20 not in synced:
                    early.append(line)
        return told, early


class FullDiskTests(OtherProcess):
    def test_a_full_disk_loses_nothing_that_was_answered(self) -> None:
        """Files that may not grow (RLIMIT_FSIZE): each publish is refused as StorageUnavailable, `trouble` tells; with room again it goes on, and all
        that was answered is there, nothing of what was refused."""
        process = self.child(str(2_000_000))
        assert process.stdout is not None
        lines = process.stdout.read().decode().splitlines()
        self.assertEqual(0, process.wait())
        refused = [line for line in lines if line.startswith("!")]
        self.assertEqual(20, len(refused))
        self.assertEqual({"True"}, {line.split()[2] for line in refused})
        self.assertLessEqual({line.split()[1] for line in refused}, {"Full", "StorageUnavailable"})
        self.assertEqual("trouble None", lines[-1])
        answered = self.answered(lines)
        self.assertEqual(50, len([value for value in answered.values() if value.startswith("room-")]))
        storage = self.open()
        self.assertEqual(answered, self.stored(storage))

    def test_a_full_file_tells_and_goes_on(self) -> None:
        """At max_bytes: refused, in trouble; after a deletion there is room, and the trouble ends."""
        storage = self.open(max_bytes=2 << 20)
        for name in ("t", "u"):
            self.wait(storage.create_topic(TopicSpec(name)))
        value = b"x" * 500_000
        with self.assertRaises(StorageUnavailable):
            for _ in range(10):
                self.wait(storage.publish([Record("t", value, partition=0)], "all"))
        self.assertIn("no room", storage.trouble() or "")
        self.assertEqual([], self.wait(storage.publish([Record("t", value, partition=0)], "0")))
        self.clock.advance(1000)
        self.pause()
        self.assertIsNotNone(storage.trouble())
        self.assertGreaterEqual(self.sample("psubd_storage_failures_total", kind="full"), 2)
        self.wait(storage.delete_topic("t"))
        self.assertIsNone(storage.trouble())
        self.assertIsInstance(self.wait(storage.publish([Record("u", value, partition=0)], "all"))[0], Position)


class InUseTests(SqliteCase):
    def test_a_second_process_is_refused_at_start(self) -> None:
        """While this one holds the file, another process's start is a plain ConfigError; this one is not disturbed."""
        code = (
            "import sys; from psubd.storage.sqlite.database import Database; from psubd.errors import ConfigError\n"
            "try: Database(sys.argv[1], 100).open()\n"
            "except ConfigError as refused: print(refused)"
        )
        said = subprocess.run([sys.executable, "-c", code, self.path], cwd=ROOT, capture_output=True, text=True, check=True)
        self.assertIn("another process uses it", said.stdout)
        self.assertEqual("", said.stderr)
        self.wait(self.storage.create_topic(TopicSpec("t")))

    def test_a_start_that_fails_can_be_tried_again(self) -> None:
        """ConfigError while the file is held; stop is harmless then; once it is free another storage starts."""
        second = self.built()
        with self.assertRaises(ConfigError):
            self.wait(second.start())
        self.assertIsNotNone(second.trouble())
        self.wait(second.stop())
        self.wait(self.storage.stop())
        self.open()

    def test_a_lock_of_another_program_is_answered_and_passes(self) -> None:
        """A publish while the sqlite3 shell holds the file for longer than the timeout: StorageUnavailable; then it goes on."""
        self.wait(self.storage.stop())
        storage = self.open(busy_timeout_ms=50)
        self.wait(storage.create_topic(TopicSpec("t")))
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        with self.assertRaises(StorageUnavailable):
            self.wait(storage.publish([Record("t", b"x", partition=0)], "all"))
        self.assertIsNotNone(storage.trouble())
        self.clock.advance(1000)
        self.assertIsNotNone(storage.trouble())
        other.execute("ROLLBACK")
        for _ in range(200):
            self.clock.advance(1000)
            self.pause()
            if storage.trouble() is None:
                break
        self.assertIsNone(storage.trouble(), "the probe has ended it, nobody published")
        (position,) = self.wait(storage.publish([Record("t", b"y", partition=0)], "all"))
        self.assertEqual(0, position.offset)


class ThreadTests(SqliteCase):
    def test_publishes_that_wait_share_transactions(self) -> None:
        """A thousand publishes made at once: far fewer transactions than publishes."""
        self.wait(self.storage.create_topic(TopicSpec("t", 4)))
        before = self.sample("psubd_storage_transactions_total")
        waiting = [self.storage.publish([Record("t", b"%d" % number, partition=number % 4)], "all") for number in range(1000)]
        for publish in waiting:
            self.assertIsInstance(self.wait(publish)[0], Position)
        self.assertLess(self.sample("psubd_storage_transactions_total") - before, 100)
        self.assertEqual(1000, self.sample("psubd_storage_records_total"))
        self.assertEqual(1000, self.sample("psubd_storage_transaction_records_sum"))

    def test_it_survives_a_reopening(self) -> None:
        """Topics, messages and ends are there after stop and start; offsets go on."""
        topic = self.wait(self.storage.create_topic(TopicSpec("t", 2)))
        self.wait(self.storage.publish([Record("t", b"a", partition=1, timestamp=self.now())], "all"))
        self.wait(self.storage.stop())
        again = self.open()
        self.assertEqual(topic, again.known("t"))
        self.assertEqual(b"a", self.wait(again.read("t", 1, 0, 10, 1000)).messages[0].value)
        (position,) = self.wait(again.publish([Record("t", b"b", partition=1)], "all"))
        self.assertEqual(1, position.offset)

    def test_stop_finishes_what_was_accepted(self) -> None:
        """Publishes with every acks made just before stop are stored; the WAL is written back, the threads end, the file is free."""
        self.wait(self.storage.create_topic(TopicSpec("t")))
        waiting = [self.storage.publish([Record("t", b"x" * 100_000, partition=0)], acks) for acks in ("all", "1", "0") for _ in range(30)]
        self.wait(self.storage.stop())
        for publish in waiting:
            self.wait(publish)
        self.assertFalse(os.path.exists(f"{self.path}-wal"))
        self.assertEqual([], [thread.name for thread in threading.enumerate() if "psubd-storage" in thread.name])
        self.assertEqual(90, self.wait(self.open().bounds("t"))[0].end)

    def test_stop_does_not_hold_the_reactor(self) -> None:
        """While a slow read is finished, the reactor goes on: a timer fires before stop has ended."""
        self.wait(self.storage.create_topic(TopicSpec("t")))
        let_go = threading.Event()
        self.addCleanup(let_go.set)
        slow = self.storage._ask(lambda connection: let_go.wait(20))
        stopped = self.storage.stop()
        blockon(deferLater(self.reactor, 0.05, lambda: None))
        self.assertFalse(stopped.called)
        let_go.set()
        self.wait(stopped)
        self.assertTrue(self.wait(slow))

    def test_stop_during_start(self) -> None:
        """A storage stopped before it has started never serves, and lets go of the file."""
        self.wait(self.storage.stop())
        storage = self.built()
        started = storage.start()
        stopped = storage.stop()
        with self.assertRaises(StorageUnavailable):
            self.wait(started)
        self.wait(stopped)
        self.open()

    def test_a_cancelled_publish_is_no_fault(self) -> None:
        """Who asked went away: the record is stored all the same, and nothing is raised."""
        self.wait(self.storage.create_topic(TopicSpec("t")))
        publish = self.storage.publish([Record("t", b"x", partition=0)], "all")
        publish.addErrback(lambda _: None)
        publish.cancel()
        self.wait(self.storage.publish([Record("t", b"y", partition=0)], "all"))
        self.assertEqual(2, self.wait(self.storage.bounds("t"))[0].end)

    def test_too_much_waiting_is_refused(self) -> None:
        """Beyond queue_bytes a publish is StorageUnavailable at once; when the writer has worked, there is room again."""
        self.wait(self.storage.stop())
        storage = self.open(queue_bytes=1 << 20, busy_timeout_ms=10_000)
        self.wait(storage.create_topic(TopicSpec("t")))
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        waiting = [storage.publish([Record("t", b"x" * 400_000, partition=0)], "all") for _ in range(2)]
        with self.assertRaises(StorageUnavailable):
            self.wait(storage.publish([Record("t", b"x" * 400_000, partition=0)], "all"))
        other.execute("ROLLBACK")
        for publish in waiting:
            self.wait(publish)
        self.wait(storage.publish([Record("t", b"x" * 400_000, partition=0)], "all"))
        self.assertEqual(0, storage.status()["waiting_bytes"])

    def test_a_topic_made_again_during_a_read(self) -> None:
        """The read that was under way is TopicMissing: never the new topic's messages, nor a gap over the old one's."""
        self.wait(self.storage.stop())
        storage = self.open(tail_bytes=0, reader_threads=1)
        self.wait(storage.create_topic(TopicSpec("t")))
        self.wait(storage.publish([Record("t", b"old", partition=0)], "all"))
        let_go = threading.Event()
        self.addCleanup(let_go.set)
        slow = storage._ask(lambda connection: let_go.wait(20))
        reading, looking = storage.read("t", 0, 0, 10, 1000), storage.offset_at("t", 0)
        self.wait(storage.delete_topic("t"))
        self.wait(storage.create_topic(TopicSpec("t")))
        let_go.set()
        self.wait(slow)
        for late in (reading, looking):
            with self.assertRaises(TopicMissing):
                self.wait(late)

    def test_reads_do_not_wait_for_the_writer(self) -> None:
        """While a transaction cannot go on (another program holds the file), reads from the file are answered."""
        self.wait(self.storage.stop())
        storage = self.open(tail_bytes=0, busy_timeout_ms=10_000)
        self.wait(storage.create_topic(TopicSpec("t")))
        self.wait(storage.publish([Record("t", b"x", partition=0)], "all"))
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        publish = storage.publish([Record("t", b"y", partition=0)], "all")
        self.assertEqual(b"x", self.wait(storage.read("t", 0, 0, 10, 1000)).messages[0].value)
        self.assertFalse(publish.called)
        other.execute("ROLLBACK")
        self.wait(publish)
