"""A daemon for all tests of a class, as `psubd.testing.http_contract` wants it."""

import os
import shutil
import signal
import tempfile
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from psubd.testing.daemon import Daemon
from tests.integration.process.case import with_pytest


@with_pytest
class HttpCase(SynchronousTestCase):
    """The real daemon on the class's storage.

    :cvar twistd: what starts it, instead of ``twistd``. :cvar settings: its configuration, as TOML.
    """

    daemon: Daemon
    folder: str
    twistd: Sequence[str] | None = None
    settings = ""

    @classmethod
    def storage(cls) -> str:
        """The storage's URL."""
        raise NotImplementedError

    @classmethod
    def setUpClass(cls) -> None:
        storage = cls.storage()
        cls.folder = tempfile.mkdtemp(prefix="psubd-http-")
        config = os.path.join(cls.folder, "psubd.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(cls.settings)
        cls.daemon = Daemon(os.path.join(cls.folder, "state"), ("--storage", storage, "--config", config), twistd=cls.twistd)
        try:
            cls.daemon.start()
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls) -> None:
        cls.daemon.kill()
        shutil.rmtree(cls.folder, ignore_errors=True)

    def setUp(self) -> None:
        self.logged = len(self.daemon.output())
        self.addCleanup(self.no_traceback)
        self.reach()

    def reach(self) -> None:
        """Where the daemon is now."""
        self.manager = self.daemon.manager()
        self.addCleanup(self.manager.close)
        self.data_port = self.daemon.ports.data

    def restart(self, kill: bool = False) -> None:
        """End the daemon, by SIGTERM or SIGKILL, and start it on the same state."""
        if kill:
            self.daemon.kill()
        else:
            self.assertEqual(self.daemon.stop(), -signal.SIGTERM)
        self.daemon.start()
        self.reach()

    def no_traceback(self) -> None:
        """Whatever a client does, the daemon's log has no traceback of it."""
        self.assertNotIn("Traceback", self.daemon.output()[self.logged :])
