"""A process that is one of several workers: what it says to the one that started it, and that it ends with that one.

Two pipes lead there: its standard input, which nobody writes to and whose end says that the other process is gone; and `WORDS`, on which it
says what it logs and which ports it has. Its standard output and error are those of the other process.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any

import msgspec
from twisted.internet import fdesc
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone, ReactorNotRunning
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, eventAsText
from zope.interface import implementer

log = Logger()

WORDS = 3
"""The file number on which it says its `Word`s."""


class Word(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line from a worker: an event of its log (``text``), or what its ports.json says (``ports``), once it serves."""

    time: float = 0.0
    level: str = "info"
    system: str = ""
    text: str = ""
    ports: msgspec.Raw = msgspec.Raw(b"")


@implementer(ILogObserver)
class Speaker:
    """Says `Word`s to the process that started this one. For any thread; if that process is gone nobody hears them.

    :param handle: a file number.
    """

    def __init__(self, handle: int = WORDS) -> None:
        self._handle = handle
        self._lock = Lock()

    def __call__(self, event: LogEvent) -> None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        if text:
            level = event.get("log_level") or LogLevel.info
            system = event.get("log_system") or f"{event.get('log_namespace', '-')}#{level.name}"
            self._say(Word(time=event.get("log_time") or time.time(), level=level.name, system=str(system), text=text))

    def ports(self, told: bytes) -> None:
        """What ports.json says."""
        self._say(Word(ports=msgspec.Raw(told)))

    def _say(self, word: Word) -> None:
        line = memoryview(msgspec.json.encode(word) + b"\n")
        with self._lock, suppress(OSError):
            while line:
                line = line[os.write(self._handle, line) :]


def speaker() -> Speaker:
    """For twistd's ``--logger``."""
    return Speaker()


class Leash(FileDescriptor):
    """Sees that the process at the other end of the pipe is gone. :param end: called then."""

    connected = True

    def __init__(self, reactor: Any, end: Callable[[], object], handle: int = 0) -> None:
        super().__init__(reactor)
        self._end, self._handle = end, handle

    def fileno(self) -> int:
        return self._handle

    def doRead(self) -> Any:
        return fdesc.readFromFD(self._handle, lambda data: None)

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        if reason.check(ConnectionDone):  # ConnectionLost: the reactor ends, and with it all that it reads
            self._end()


def follow(reactor: Any) -> None:
    """What a worker does before it is one: it ends when the process that started it is gone, and leaves Ctrl-C, which the terminal sends to both, to
    that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end() -> None:
        log.warn("the process that started this worker is gone: it ends too")
        with suppress(ReactorNotRunning):
            reactor.stop()

    reactor.callWhenRunning(Leash(reactor, end).startReading)
