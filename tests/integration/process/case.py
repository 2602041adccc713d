"""What the tests of whole processes share."""

import os
import shutil
import tempfile
import unittest
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from psubd.testing.daemon import Daemon, Tenant, bind, drained, make_topic, register, together, whole_log

__all__ = ["LONG", "ProcessCase", "drained", "together", "whole_log", "with_pytest"]

LONG = "PSUBD_LONG" in os.environ
"""make test-long: the failure stories at full length."""

with_pytest = unittest.skipUnless("PYTEST_VERSION" in os.environ, "starts processes: run it with pytest")


@with_pytest
class ProcessCase(SynchronousTestCase):
    """A folder of its own; every daemon that a test started is ended with it."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="psubd-process-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.state = os.path.join(self.folder, "state")

    def daemon(self, *options: str, state: str | None = None, **more: Any) -> Daemon:
        """A daemon on the test's state folder, not started."""
        made = Daemon(state or self.state, options, **more)
        self.addCleanup(made.kill)
        return made

    def bound(self, daemon: Daemon, application: str = "shop", topic: str = "orders", partitions: int = 1) -> Tenant:
        """An application that owns a topic and is bound to it for pub and sub, from its first message."""
        manager = daemon.manager()
        tenant = register(manager, application)
        make_topic(manager, topic, application, partitions=partitions)
        bind(manager, application, topic, pub=True, sub=True, start="earliest")
        manager.close()
        return tenant
