"""What drivers (kafka-python, kazoo) write to Python's ``logging``.

They write a line for each try to connect, some twice a second, while psubd says itself when Kafka and ZooKeeper go and come back. So each kind of
line is told once for as long as it comes again and again: who looks for the reason of an outage finds it, and the log does not fill.
"""

import logging
import time
from collections.abc import Callable

from twisted.logger import Logger

log = Logger()

QUIET_S = 60.0
"""A line that did not come for so long is told again: longer than any driver waits between two tries."""


class Journal(logging.Handler):
    """Carries a driver's warnings into Twisted's log as debug lines. Called on the driver's threads.

    :param now: seconds of a clock that is not set.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._now = now
        self._came: dict[tuple[str, int], float] = {}
        """When a line came last from each place in the driver's source: texts hold numbers that change."""

    def emit(self, record: logging.LogRecord) -> None:
        place, now = (record.pathname, record.lineno), self._now()
        before = self._came.get(place)
        self._came[place] = now
        if before is None or now - before >= QUIET_S:
            log.debug("{driver}: {text}", driver=record.name, text=record.getMessage())


def listen(driver: str) -> None:
    """Once for each process and driver. Never below WARNING: at DEBUG drivers write whole requests, payloads and credentials too."""
    logger = logging.getLogger(driver)
    if not any(isinstance(handler, Journal) for handler in logger.handlers):
        logger.addHandler(Journal())
    logger.setLevel(logging.WARNING)
    logger.propagate = False
