"""A process whose wall clock is set."""

import os
import subprocess
import sys
import tempfile
import time

from twisted.trial.unittest import SynchronousTestCase

from psubd.testing.wall_clock import set_clock

ASK = """
import sys
from psubd.testing.wall_clock import fake, set_clock
fake(sys.argv[1])
import time
from twisted.python.runtime import seconds
before = time.monotonic()
told = [time.time() / 60, time.time_ns() / 60e9, seconds() / 60]
set_clock(sys.argv[1], -3_600_000)
print(*map(round, [*told, time.time() / 60, time.monotonic() - before]))
"""


class WallClockTests(SynchronousTestCase):
    def test_jumps(self) -> None:
        """What is read is the host's time and what the file says, at once when that changes; also by what took the function itself. The other clocks
        stay."""
        handle, path = tempfile.mkstemp()
        os.close(handle)
        os.unlink(path)
        self.addCleanup(os.unlink, path)
        set_clock(path, 7_200_000)
        minute = time.time() / 60
        told = subprocess.run([sys.executable, "-c", ASK, path], capture_output=True, text=True, check=True, timeout=60).stdout.split()
        *ahead, behind, steady = map(int, told)
        for minutes in ahead:
            self.assertTrue(minute + 118 < minutes < minute + 125, told)
        self.assertTrue(minute - 62 < behind < minute - 55, told)
        self.assertEqual(steady, 0)
