"""This process: how it ends, what it may open, and how it tells the one who started it."""

import atexit
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from twisted.logger import Logger

from psubd.errors import ConfigError, PsubdError

log = Logger()


def steady(reactor: Any) -> None:
    """Have the reactor's timers run on CLOCK_BOOTTIME, as `psubd.interfaces.IClock.elapsed_ms`. By itself it takes the wall clock: set back an hour,
    no timer comes for an hour. Before the first timer: a reactor that runs stays as it is."""
    if not reactor.running:
        reactor.seconds = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)


class Ending:
    """The status that the process ends with.

    twistd ends with 0 whatever happened in the reactor, and offers no other way (`twisted.scripts.twistd.runApp`): so the status is set at the
    interpreter's exit, when everything of twistd's is done.
    """

    def __init__(self) -> None:
        self.status = 0
        atexit.register(self.leave)

    def leave(self) -> None:
        """End with the status, if it is one to tell."""
        if self.status:
            for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
                with suppress(OSError, ValueError, AttributeError):
                    stream.flush()  # type: ignore[union-attr]
            os._exit(self.status)


def end_plainly(told: Exception) -> None:
    """Let this exception end the process without a traceback, since it was told. Not SystemExit instead: twistd's parent process waits for
    ever for a child that ends by it."""
    usual = sys.excepthook

    def hook(kind: type[BaseException], raised: BaseException, trace: TracebackType | None) -> None:
        if raised is not told:
            usual(kind, raised, trace)

    sys.excepthook = hook


def take(open_folder: Callable[[], object]) -> None:
    """Open the state folder for this process, and write nothing from now on that others may read.

    :raises ConfigError: it cannot be used, which was told. In the background, twistd passes it on to the command that was typed.
    """
    os.umask(0o077)
    try:
        open_folder()
    except ConfigError as refused:
        tell(refused.mistakes)
        end_plainly(refused)
        raise


def tell(lines: Sequence[str]) -> None:
    """To the one who started psubd, and to the log (a daemon's standard error goes nowhere)."""
    for line in lines:
        log.error("{line}", line=line)
        if sys.__stderr__ is not None:
            print(f"psubd: {line}", file=sys.__stderr__, flush=True)


def reasons(failed: BaseException) -> list[str]:
    """Why it failed, a line each; a bug of ours goes to the log with its traceback."""
    if isinstance(failed, ConfigError):
        return failed.mistakes
    if isinstance(failed, PsubdError):
        return [failed.detail]
    if isinstance(failed, OSError):
        return [f"{failed.filename}: {failed.strerror}" if failed.filename else str(failed)]
    log.failure("cannot start")
    return [f"a bug of psubd's: {type(failed).__name__}: {failed}; the log has the traceback"]


def raise_open_files(wanted: int) -> None:
    """Raise the limit on open files towards ``wanted``, as far as the system lets this user; connections are files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
