"""What a message can be, and what it becomes (`TRANSITIONS`, drawn in `psubd.delivery.ledger`)."""

import enum
from collections.abc import Sequence

from psubd.model import Message


class IllegalEvent(Exception):
    """The ledger was told something that cannot be: a bug of the caller's. Nothing was changed."""


class State(enum.IntEnum):
    FRESH = 0
    HELD = 1
    READY = 2
    LEASED = 3
    WAITING = 4
    DEAD = 5
    DONE = 6


class Event(enum.IntEnum):
    LEASE = 0
    HOLD = 1
    FREE = 2
    DONE = 3
    ACK = 4
    GIVE_BACK = 5
    LAPSE = 6
    NACK = 7
    DELAY = 8
    WAKE = 9
    DIE = 10
    BURY = 11
    BURIED = 12
    REVIVE = 13
    VANISH = 14


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.FRESH, Event.LEASE): State.LEASED,
    (State.FRESH, Event.HOLD): State.HELD,
    (State.FRESH, Event.DIE): State.DEAD,
    (State.FRESH, Event.ACK): State.DONE,
    (State.HELD, Event.LEASE): State.LEASED,
    (State.HELD, Event.FREE): State.READY,
    (State.HELD, Event.DIE): State.DEAD,
    (State.HELD, Event.ACK): State.DONE,
    (State.HELD, Event.VANISH): State.DONE,
    (State.READY, Event.LEASE): State.LEASED,
    (State.READY, Event.HOLD): State.HELD,
    (State.READY, Event.DELAY): State.WAITING,
    (State.READY, Event.DIE): State.DEAD,
    (State.READY, Event.ACK): State.DONE,
    (State.READY, Event.VANISH): State.DONE,
    (State.LEASED, Event.DONE): State.DONE,
    (State.LEASED, Event.ACK): State.DONE,
    (State.LEASED, Event.GIVE_BACK): State.READY,
    (State.LEASED, Event.LAPSE): State.READY,
    (State.LEASED, Event.NACK): State.READY,
    (State.LEASED, Event.BURY): State.DEAD,
    (State.WAITING, Event.WAKE): State.READY,
    (State.WAITING, Event.ACK): State.DONE,
    (State.DEAD, Event.BURIED): State.DONE,
    (State.DEAD, Event.ACK): State.DONE,
    (State.DEAD, Event.REVIVE): State.READY,
}


AFTER: tuple[tuple[State | None, ...], ...] = tuple(tuple(TRANSITIONS.get((state, event)) for event in Event) for state in State)
"""`TRANSITIONS` by state and event, for a lookup without hashing."""


class Ending(enum.IntEnum):
    """What a client said last of its lease: with it a nack that is repeated is known."""

    NONE = 0
    NACKED = 1
    BURIED = 2


class Entry:
    """One message that is not done, or a run of such that is handed out and comes back as one (a block).

    :ivar start: the (first) message's offset. :ivar end: where the next message began when this one was read: the gap between belongs to it.
    :ivar count: messages. :ivar timestamp: the first one's.
    :ivar attempt: deliveries that count; while it is leased, with this one.
    :ivar serial: of its last lease by this ledger, 0: none. :ivar ending: what the holder of that said.
    :ivar due: LEASED: when the lease lapses, None: auto. WAITING: when the delay ends.
    :ivar answer: LEASED in auto mode: the answer that it goes into, else 0.
    :ivar lane: `lane_of` its key; None: not known.
    :ivar messages: READY and HELD: the messages, None where they were let go; ``size`` their payload bytes.
    """

    __slots__ = ("answer", "attempt", "count", "due", "end", "ending", "lane", "messages", "serial", "size", "start", "state", "timestamp")

    def __init__(
        self,
        start: int,
        end: int,
        count: int,
        timestamp: int,
        lane: int | None = None,
        attempt: int = 0,
        state: State = State.FRESH,
        serial: int = 0,
        ending: Ending = Ending.NONE,
    ) -> None:
        self.start = start
        self.end = end
        self.count = count
        self.timestamp = timestamp
        self.lane = lane
        self.attempt = attempt
        self.state = state
        self.serial = serial
        self.ending = ending
        self.due: int | None = None
        self.answer = 0
        self.messages: Sequence[Message] | None = None
        self.size = 0

    @property
    def counted(self) -> int:
        """Deliveries that count, whatever comes: one in auto mode may still be given back."""
        return self.attempt - 1 if self.state is State.LEASED and self.due is None else self.attempt
