"""What the driver writes to Python's ``logging``."""

import logging

from twisted.logger import Logger

log = Logger()

DRIVER = "kafka"


class Journal(logging.Handler):
    """Carries the driver's warnings into Twisted's log as debug lines: it writes one for each try to connect, while psubd itself says when Kafka goes
    and comes back."""

    def emit(self, record: logging.LogRecord) -> None:
        log.debug("{driver}: {text}", driver=record.name, text=record.getMessage())


def listen() -> None:
    """Once for each process. Never below WARNING: at DEBUG the driver writes whole requests, payloads and credentials too."""
    logger = logging.getLogger(DRIVER)
    if not any(isinstance(handler, Journal) for handler in logger.handlers):
        logger.addHandler(Journal(logging.WARNING))
    logger.setLevel(logging.WARNING)
    logger.propagate = False
