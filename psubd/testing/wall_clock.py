"""psubd with a wall clock that can be set, while the host's stays as it is.

    python -m psubd.testing.wall_clock FILE [what twistd takes]

runs twistd. What Python code of that process reads as the wall clock (``time.time``, ``time.time_ns``) is the host's plus the milliseconds that
stand in FILE, a signed number of 8 bytes; `set_clock` writes it, at any time. Clocks that do not jump stay as they are, and so does what C code
reads by itself: the dates of TLS certificates, SQLite's.
"""

import mmap
import struct
import sys
import time
from pathlib import Path

AHEAD = struct.Struct("<q")


def set_clock(path: str, ahead_ms: int) -> None:
    """Set the wall clock of the process on ``path`` so far ahead of the host's, negative: behind. The file is made where it is not there."""
    file = Path(path)
    if not file.exists():
        file.write_bytes(AHEAD.pack(0))
    with file.open("r+b") as opened:
        opened.write(AHEAD.pack(ahead_ms))


def fake(path: str) -> None:
    """From now on this process's wall clock is that of the file. Before anything else has taken ``time.time`` for itself."""
    with open(path, "rb") as file:
        shared = mmap.mmap(file.fileno(), AHEAD.size, prot=mmap.PROT_READ)
    true_time_ns = time.time_ns

    def time_ns() -> int:
        ahead_ms: int = AHEAD.unpack(shared[:])[0]
        return true_time_ns() + ahead_ms * 1_000_000

    def seconds() -> float:
        return time_ns() / 1e9

    time.time_ns, time.time = time_ns, seconds


def main() -> None:
    fake(sys.argv.pop(1))
    from twisted.scripts.twistd import run  # after that: it and all that it imports take the faked clock

    sys.argv[0] = "twistd"
    run()


if __name__ == "__main__":
    main()
