"""A daemon for all tests of a class, as `psubd.testing.http_contract` wants it."""

import os
import shutil
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from psubd.testing.daemon import Daemon
from tests.integration.process.case import with_pytest


@with_pytest
class HttpCase(SynchronousTestCase):
    """The real daemon on the class's storage."""

    daemon: Daemon
    folder: str

    @classmethod
    def storage(cls) -> str:
        """The storage's URL."""
        raise NotImplementedError

    @classmethod
    def setUpClass(cls) -> None:
        storage = cls.storage()
        cls.folder = tempfile.mkdtemp(prefix="psubd-http-")
        cls.daemon = Daemon(os.path.join(cls.folder, "state"), ("--storage", storage))
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
        self.manager = self.daemon.manager()
        self.addCleanup(self.manager.close)
        self.data_port = self.daemon.ports.data

    def no_traceback(self) -> None:
        """Whatever a client does, the daemon's log has no traceback of it."""
        self.assertNotIn("Traceback", self.daemon.output()[self.logged :])
