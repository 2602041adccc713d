"""What a ledger is told to go by, and what it hands out."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from psubd.delivery.cursor import Attempts, Ranges
from psubd.model import Message


class Rules(NamedTuple):
    """What a binding says.

    :ivar max_attempts: deliveries after which a message is dead; None: without end.
    :ivar backoff_min: ms before a message that lapsed or was let go comes again, doubling per attempt up to ``backoff_max``.
    """

    max_in_flight: int = 10_000
    ordered: bool = False
    max_attempts: int | None = None
    backoff_min: int = 0
    backoff_max: int = 0

    def backoff(self, attempt: int) -> int:
        """ms that a message waits after that many deliveries."""
        return min(self.backoff_max, self.backoff_min << min(attempt - 1, 62)) if self.backoff_min else 0


PLAIN = Rules()


class Lease(NamedTuple):
    """One or more messages, handed out together.

    :ivar serial: never used twice. :ivar attempt: which delivery of each of the messages this is, from 1.
    :ivar until: ms; None: auto, it lasts as long as its answer is being written. Given: explicit, and exactly one message.
    :ivar size: payload bytes of them together.
    """

    serial: int
    messages: Sequence[Message]
    attempt: int
    until: int | None
    size: int


class Death(NamedTuple):
    """A message that belongs into the dead-letter topic."""

    offset: int
    attempts: int
    reason: Literal["max_attempts", "nack"]


class Place(NamedTuple):
    """What a commit has to say: the first offset that is not done, what is done past it, and deliveries so far (from two on)."""

    offset: int
    done: Ranges
    attempts: Attempts
