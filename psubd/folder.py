"""The state folder: made for one user, used by one psubd at a time, its files written whole or not at all."""

import fcntl
import os
import tempfile
from contextlib import suppress

from zope.interface import implementer

from psubd.errors import ConfigError
from psubd.interfaces import ICarryover


class FolderInUse(ConfigError):
    """Another psubd runs on the folder."""


class StateFolder:
    """:param path: absolute; made with mode 0700 where it is not there (an existing one keeps its mode), files in it get 0600."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock: int | None = None

    def open(self) -> None:
        """Make it if need be, and lock it for this process.

        :raises FolderInUse: :raises ConfigError: where it cannot be written.
        """
        lock = None
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            # the lock's file stays when psubd ends: only a lock on a file that nobody unlinks is one lock. The kernel frees it, also after kill -9
            lock = os.open(self.file("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._take(lock)
            self.probe()
        except (OSError, ConfigError) as refused:
            if lock is not None:
                os.close(lock)
            if isinstance(refused, ConfigError):
                raise
            raise ConfigError([f"state: {self.path}: cannot be written: {refused.strerror}"]) from None
        self._lock = lock

    def _take(self, lock: int) -> None:
        """Lock the file, and say in it who did."""
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise FolderInUse([f"state: {self.path}: another psubd (process {owner}) runs on it; stop that one, or name another folder"]) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def used(self) -> bool:
        """Whether a psubd has run on it."""
        return os.path.exists(self.file("lock"))

    def refusal(self) -> str | None:
        """Why it could not be made, or be written; None: it could. Changes nothing."""
        there = self.path
        while not os.path.lexists(there):
            there = os.path.dirname(there)
        if os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK):
            return None
        return f"state: {self.path}: cannot be written: {there} is {'not writable for this user' if os.path.isdir(there) else 'not a folder'}"

    def probe(self) -> None:
        """Make a file and remove it. :raises OSError: where that cannot be done."""
        handle, name = tempfile.mkstemp(prefix=".probe-", dir=self.path)
        os.close(handle)
        os.unlink(name)

    def file(self, name: str) -> str:
        """The path of one of its files."""
        return os.path.join(self.path, name)

    def read(self, name: str) -> str | None:
        """The file's text; None where there is none."""
        try:
            with open(self.file(name), encoding="utf-8") as opened:
                return opened.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str) -> None:
        """The whole file, mode 0600, on stable storage; a reader sees the former one or this one, never a part.

        :raises OSError: the disk is full, ...; the former one stays.
        """
        handle, made = tempfile.mkstemp(prefix=f".{name}-", dir=self.path)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as opened:
                opened.write(text)
                opened.flush()
                os.fsync(opened.fileno())
            os.replace(made, self.file(name))
        except BaseException:
            with suppress(OSError):
                os.unlink(made)
            raise
        self._sync()

    def remove(self, name: str) -> None:
        """Remove the file; none there: done."""
        with suppress(FileNotFoundError):
            os.unlink(self.file(name))

    def take(self, name: str) -> bytes | None:
        """What is in the file, this once: it is gone from stable storage when this returns. None where there is none. :raises OSError:"""
        try:
            with open(self.file(name), "rb") as opened:
                found = opened.read()
        except FileNotFoundError:
            return None
        os.unlink(self.file(name))
        self._sync()
        return found

    def _sync(self) -> None:
        """The names in the folder are on stable storage too."""
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@implementer(ICarryover)
class FolderCarryover:
    """Leases in a file of the state folder, from a stop to the next start."""

    FILE = "leases.json"

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder

    def keep(self, data: bytes) -> None:
        self._folder.write(self.FILE, data.decode())

    def take(self) -> bytes | None:
        return self._folder.take(self.FILE)
