"""What drivers write to Python's logging."""

import logging
from typing import Any

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from psubd import drivers
from psubd.drivers import QUIET_S, Journal

DRIVER = "a-driver"


class JournalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.told: list[str] = []
        globalLogPublisher.addObserver(self.hear)
        self.addCleanup(globalLogPublisher.removeObserver, self.hear)
        drivers.listen(DRIVER)
        self.logger = logging.getLogger(f"{DRIVER}.part")
        [journal] = [handler for handler in logging.getLogger(DRIVER).handlers if isinstance(handler, Journal)]
        journal._now = lambda: self.now
        journal._came.clear()

    def hear(self, event: Any) -> None:
        if event.get("log_namespace") == drivers.__name__:
            self.told.append(event["text"])

    def outage(self, tries: int, every_s: float = 10.0) -> None:
        for number in range(tries):
            self.logger.warning("try %d failed", number)
            self.logger.error(f"and again after {number} s")
            self.now += every_s

    def test_once(self) -> None:
        """However often a driver tries in an outage, each kind of line is told once; in the next outage again."""
        self.outage(50)
        self.assertEqual(self.told, ["try 0 failed", "and again after 0 s"])
        self.now += QUIET_S
        self.outage(2)
        self.assertEqual(len(self.told), 4)

    def test_levels(self) -> None:
        """Warnings and errors; nothing below, which may hold credentials."""
        self.logger.info("the password is")
        self.logger.debug("hush")
        self.assertEqual(self.told, [])
        self.assertFalse(self.logger.isEnabledFor(logging.INFO))

    def test_listen(self) -> None:
        """Listening again changes nothing."""
        drivers.listen(DRIVER)
        self.outage(1)
        self.assertEqual(len(self.told), 2)
