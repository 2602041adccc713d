"""What is in etc/: the init script runs psubd in the background, the unit file is one that systemd takes."""

import configparser
import os
import signal
import stat
import subprocess
import sys
import time
import unittest
from pathlib import Path

from psubd.config import Config
from psubd.services.ownership import DRAIN_MS
from psubd.testing.daemon import PATIENCE_S, Client
from tests.integration.process.case import ProcessCase

ETC = Path(__file__).resolve().parents[3] / "etc"
TWISTD = os.path.join(os.path.dirname(sys.executable), "twistd")


@unittest.skipUnless(os.geteuid() == 0, "the init script changes its user: run it as root")
class InitScriptTests(ProcessCase):
    def setUp(self) -> None:
        super().setUp()
        folder = Path(self.folder)
        self.pid_file, self.log = folder / "psubd.pid", folder / "log" / "psubd.log"
        (folder / "psubd.toml").write_text('listen = ["tcp:0:interface=127.0.0.1"]\nmanager = ["tcp:0:interface=127.0.0.1"]\n')
        self.defaults = folder / "defaults"
        self.defaults.write_text(
            f"TWISTD={TWISTD}\nRUN_AS=root\nSTATE={self.state}\nCONFIG={folder}/psubd.toml\nLOGFILE={self.log}\nPIDFILE={self.pid_file}\n"
        )
        self.addCleanup(self.end)

    def script(self, word: str) -> tuple[int, str]:
        done = subprocess.run(
            [str(ETC / "init.d" / "psubd"), word],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env={**os.environ, "DEFAULTS": str(self.defaults)},
        )
        return done.returncode, done.stdout + done.stderr

    def end(self) -> None:
        """Whatever happened, the process that the script started ends."""
        if self.pid_file.exists():
            os.kill(int(self.pid_file.read_text()), signal.SIGKILL)

    def port(self) -> int:
        """The manager's port, once it listens."""
        ports, until = Path(self.state) / "ports.json", time.monotonic() + PATIENCE_S
        while not ports.exists():
            self.assertLess(time.monotonic(), until, self.log.read_text() if self.log.exists() else "no log")
            time.sleep(0.05)
        return int(ports.read_text().split('"manager":')[1].split(",")[0])

    def test_life(self) -> None:
        """start, status, start again, restart, stop, stop again: each with its exit status; the files are for one user."""
        self.assertEqual(self.script("status"), (3, "psubd does not run\n"))
        self.assertEqual(self.script("start")[0], 0)
        self.assertEqual(Client(self.port()).request("GET", "/ready").status, 200)
        pid = int(self.pid_file.read_text())
        self.assertEqual(self.script("status"), (0, f"psubd runs (process {pid})\n"))
        self.assertEqual(self.script("start"), (0, f"psubd runs already (process {pid})\n"))
        self.assertEqual(self.script("restart")[0], 0)
        self.assertEqual(Client(self.port()).request("GET", "/ready").status, 200)
        self.assertNotEqual(int(self.pid_file.read_text()), pid)
        self.assertEqual(stat.S_IMODE(self.log.stat().st_mode) & 0o077, 0)
        self.assertEqual(self.script("stop"), (0, "psubd has stopped\n"))
        self.assertFalse(self.pid_file.exists())
        self.assertEqual(self.script("stop"), (0, "psubd does not run\n"))
        self.assertEqual(self.script("nonsense")[0], 2)

    def test_mistake(self) -> None:
        """A mistake in the file: start and check say it, and end with a status; a restart leaves the running one alone."""
        self.assertEqual(self.script("start")[0], 0)
        port = self.port()
        (Path(self.folder) / "psubd.toml").write_text("listne = []\n")
        for word in ("check", "restart"):
            status, said = self.script(word)
            self.assertNotEqual(status, 0)
            self.assertIn("listne is not a setting; did you mean listen?", said)
        self.assertEqual(Client(port).request("GET", "/ready").status, 200)
        self.assertEqual(self.script("stop")[0], 0)
        self.assertNotEqual(self.script("start")[0], 0)

    def test_log_rotation(self) -> None:
        """What etc/logrotate does: the log is renamed, SIGUSR1 makes psubd go on in a new file, and nothing is lost between."""
        self.assertEqual(self.script("start")[0], 0)
        self.port()
        rotated = self.log.with_name("psubd.log-20260101")
        self.log.rename(rotated)
        self.log.touch(0o600)
        os.kill(int(self.pid_file.read_text()), signal.SIGUSR1)
        until = time.monotonic() + PATIENCE_S
        while not self.log.with_name("psubd.log.1").exists():
            self.assertLess(time.monotonic(), until)
            time.sleep(0.05)
        self.assertEqual(self.script("stop")[0], 0)
        self.assertIn("psubd has stopped", self.log.read_text())
        self.assertIn("serves: data port", rotated.read_text())
        self.assertEqual(self.log.with_name("psubd.log.1").read_text(), "")


class UnitTests(ProcessCase):
    def test_service(self) -> None:
        """The unit starts psubd in the foreground, though what it points at is away, and ends it by SIGTERM with more time than it takes."""
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str  # type: ignore[method-assign, assignment]
        unit.read(ETC / "psubd.service")
        service = unit["Service"]
        self.assertIn("--nodaemon --pidfile= psubd", service["ExecStart"])
        self.assertNotIn("ExecStartPre", service)
        takes_ms = Config().drain_delay_ms + DRAIN_MS + Config().drain_timeout_ms
        self.assertGreater(int(service["TimeoutStopSec"]) * 1000, 1.5 * takes_ms)
        self.assertEqual((service["KillSignal"], service["UMask"], service["StateDirectoryMode"]), ("SIGTERM", "0077", "0700"))
