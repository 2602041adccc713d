"""What crosses between the reactor's thread and the writer's: requests one way, reports the other. Neither side touches the other's state."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from psubd.errors import PsubdError
from psubd.model import Commit, Message, Position, Record, StoredTopic, TopicPartition, TopicSpec

Told = Callable[[Position | PsubdError], None]
"""Who posted a record hears of it; None: with ``acks=0`` nobody does."""


class Append(msgspec.Struct):
    """Store records. Answered with a list of Position or PsubdError.

    :ivar now: ms since the epoch when they came in. :ivar size: bytes that they hold while they wait. :ivar ticket: whose answer it is: a Deferred,
        or by record, where each was posted by itself (`IStorage.post`), who is told.
    """

    records: Sequence[Record]
    now: int
    size: int
    ticket: Any = None

    def apart(self) -> "list[Append]":
        """What was posted together, each record in a request of its own; else the request as it is."""
        if not isinstance(self.ticket, list) or len(self.records) == 1:
            return [self]
        return [Append([record], self.now, 0, [told]) for record, told in zip(self.records, self.ticket, strict=True)]


class Keep(msgspec.Struct):
    """Keep a group's places. Answered with the failed ones."""

    group: str
    places: Mapping[TopicPartition, Commit]
    ticket: Any = None


class Forget(msgspec.Struct):
    """Drop a group's places on a topic (None: all). Answered with None."""

    group: str
    topic: str | None
    ticket: Any = None


class Create(msgspec.Struct):
    spec: TopicSpec
    ticket: Any = None


class Grow(msgspec.Struct):
    topic: str
    partitions: int
    ticket: Any = None


class Configure(msgspec.Struct):
    """``now``: the topic is swept at once, as of this moment."""

    topic: str
    changes: Mapping[str, Any]
    now: int
    ticket: Any = None


class Drop(msgspec.Struct):
    topic: str
    now: int
    ticket: Any = None


class SweepNow(msgspec.Struct):
    """Begin a sweep, unless one is going on."""

    now: int


class Probe(msgspec.Struct):
    """See whether the file can be written again."""


class Close(msgspec.Struct):
    """The last request."""


Write = Append | Keep | Forget
"""What shares a transaction with others."""

Alter = Create | Grow | Configure | Drop
"""What changes topics: a transaction each."""

Request = Write | Alter | SweepNow | Probe | Close


class Moved(msgspec.Struct):
    """A log's bounds after a transaction; ``messages``: what was appended, of ``payload`` bytes together. ``thinned``: compaction took some out of
    the middle."""

    topic: str
    partition: int
    first: int
    end: int
    messages: Sequence[Message] = ()
    payload: int = 0
    thinned: bool = False


class ShelfView(msgspec.Struct):
    """A topic with its logs: number, first and end offset of each partition."""

    topic: StoredTopic
    logs: tuple[tuple[int, int, int], ...]


class Report(msgspec.Struct):
    """What a transaction did.

    :ivar answers: ticket and outcome; an exception is a failure.
    :ivar shelves: topics that are another now; None: gone. :ivar all_shelves: ``shelves`` is all that there is (the file was read afresh).
    :ivar released: bytes of requests that wait no more.
    :ivar tried: whether it says anything of the file's health; then ``fault`` is why it cannot be written, None: it can.
    :ivar complaint: something for the log.
    """

    answers: list[tuple[Any, Any]] = []
    moved: list[Moved] = []
    shelves: dict[str, ShelfView | None] = {}
    all_shelves: bool = False
    released: int = 0
    tried: bool = False
    fault: str | None = None
    complaint: str | None = None
