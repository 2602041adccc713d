"""The state folder."""

import os
import shutil
import stat
import tempfile
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import ConfigError
from psubd.folder import FolderCarryover, FolderInUse, StateFolder


class FolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        above = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, above)
        self.folder = StateFolder(os.path.join(above, "deep", "state"))
        self.addCleanup(self.folder.close)

    def test_made(self) -> None:
        """Made for one user, with the folders above; it then counts as used."""
        self.assertFalse(self.folder.used())
        self.folder.open()
        self.assertEqual(stat.S_IMODE(os.stat(self.folder.path).st_mode), 0o700)
        self.assertTrue(self.folder.used())
        self.assertEqual(os.listdir(self.folder.path), ["lock"])

    def test_one_at_a_time(self) -> None:
        """A second one is refused and told who has it, until the first lets go."""
        self.folder.open()
        other = StateFolder(self.folder.path)
        self.addCleanup(other.close)
        refused = self.assertRaises(FolderInUse, other.open)
        self.assertIn(f"(process {os.getpid()})", refused.mistakes[0])
        self.folder.close()
        other.open()

    def test_cannot_be_made(self) -> None:
        """Told with the reason, also before anything is tried."""
        folder = StateFolder("/dev/null/state")
        refused = self.assertRaises(ConfigError, folder.open)
        self.assertEqual(refused.mistakes, ["state: /dev/null/state: cannot be written: Not a directory"])
        self.assertEqual(folder.refusal(), "state: /dev/null/state: cannot be written: /dev/null is not a folder")
        self.assertIsNone(self.folder.refusal())
        self.assertFalse(self.folder.used())

    def test_no_room(self) -> None:
        """A full disk at the start is told, and gives the lock back."""
        with mock.patch("os.pwrite", side_effect=OSError(28, "No space left on device")):
            refused = self.assertRaises(ConfigError, self.folder.open)
        self.assertEqual(refused.mistakes, [f"state: {self.folder.path}: cannot be written: No space left on device"])
        self.folder.open()

    def test_files(self) -> None:
        """Written whole with mode 0600 whatever the umask says; read back; removed, also where it is not there."""
        self.folder.open()
        former = os.umask(0)
        self.addCleanup(os.umask, former)
        self.assertIsNone(self.folder.read("a"))
        self.folder.write("a", "one\u2603")
        self.folder.write("a", "two")
        self.assertEqual(self.folder.read("a"), "two")
        self.assertEqual(stat.S_IMODE(os.stat(self.folder.file("a")).st_mode), 0o600)
        self.assertEqual(sorted(os.listdir(self.folder.path)), ["a", "lock"])
        for _ in range(2):
            self.folder.remove("a")
        self.assertIsNone(self.folder.read("a"))

    def test_write_fails(self) -> None:
        """No room: the former file stays, and nothing is left beside it."""
        self.folder.open()
        self.folder.write("a", "one")
        with mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")):
            self.assertRaises(OSError, self.folder.write, "a", "two")
        self.assertEqual(self.folder.read("a"), "one")
        self.assertEqual(sorted(os.listdir(self.folder.path)), ["a", "lock"])


class CarryoverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = StateFolder(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder.path)
        self.carryover = FolderCarryover(self.folder)

    def test_this_once(self) -> None:
        """What was kept is taken once, by the next start; the file is for its owner only, and gone then."""
        self.assertIsNone(self.carryover.take())
        self.carryover.keep(b'["\xc3\xa4"]')
        self.assertEqual(stat.S_IMODE(os.stat(self.folder.file("leases.json")).st_mode), 0o600)
        self.assertEqual(FolderCarryover(self.folder).take(), b'["\xc3\xa4"]')
        self.assertEqual(os.listdir(self.folder.path), [])
        self.assertIsNone(self.carryover.take())

    def test_unreadable(self) -> None:
        """A file that is no text is gone all the same: it is told of once."""
        with open(self.folder.file("leases.json"), "wb") as file:
            file.write(b"\xff")
        self.assertEqual(self.carryover.take(), b"\xff")
        self.assertEqual(os.listdir(self.folder.path), [])
