"""What kazoo writes to Python's ``logging``."""

import logging

from twisted.logger import Logger

log = Logger()

DRIVER = "kazoo"


class Journal(logging.Handler):
    """Carries kazoo's warnings into Twisted's log as debug lines: it writes several for each try to connect, while psubd says itself when
    ZooKeeper goes and comes back."""

    def emit(self, record: logging.LogRecord) -> None:
        log.debug("{driver}: {text}", driver=record.name, text=record.getMessage())


def listen() -> None:
    """Once for each process. Never below WARNING: at DEBUG kazoo writes whole requests, the credentials' too."""
    driver = logging.getLogger(DRIVER)
    driver.setLevel(logging.WARNING)
    driver.propagate = False
    if not any(isinstance(handler, Journal) for handler in driver.handlers):
        driver.addHandler(Journal(logging.WARNING))
