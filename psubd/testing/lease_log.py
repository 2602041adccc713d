"""What the clients of one group saw, as values with times, and what follows from it for sure. No I/O.

All times are milliseconds of one clock that does not jump, taken by the one process that all clients run in: ``asked`` before the request's
first byte was sent, ``at`` after the answer's last byte was read. What the daemon did about it lies between the two.
"""

from bisect import bisect_right
from collections import defaultdict
from typing import Literal, NamedTuple

Place = tuple[int, int]
"""Partition and offset."""

GRAIN_MS = 2.0
"""The daemon counts in whole milliseconds of the same clock: what it takes for due may be due a millisecond later here, at both ends."""


class Published(NamedTuple):
    """A publish. ``place`` None: no answer came; it may be stored or not."""

    id: str
    key: str | None
    place: Place | None


class Delivered(NamedTuple):
    """A message that a client has read. ``token`` None: auto mode.

    :ivar timeout: its ackTimeout. :ivar whole: the answer came to its end. If not (a line of NDJSON before the connection was dropped), the
        daemon may have taken the message back.
    """

    client: int
    asked: float
    at: float
    id: str
    key: str | None
    place: Place
    attempt: int
    token: str | None
    epoch: int | None
    timeout: float
    whole: bool = True


class Broken(NamedTuple):
    """A poll whose answer did not come to its end: it may have leased anything for so long."""

    client: int
    asked: float
    at: float
    timeout: float


class Told(NamedTuple):
    """What a client said of one lease. One client says one thing of a lease at a time, and waits for the answer.

    :ivar outcome: "took": counted in a 200; "lost": named in a 409; "unknown": no answer, or one that says to try again.
    :ivar ms: a nack's delay, an extend's ackTimeout.
    """

    verb: Literal["ack", "nack", "dead", "extend"]
    token: str
    asked: float
    at: float
    outcome: Literal["took", "lost", "unknown"]
    ms: float = 0


class Down(NamedTuple):
    """The daemon's end and next start. ``at``: before the signal was sent; with kill -9 nobody asks anything before the process is gone.

    With many nodes: a change of the node that serves the group. ``killed``: the former one did not hand over, since it died, or was stopped or cut
    off from ``at`` on. ``up``: when the new one's claim was seen.

    :ivar epoch: many nodes: of the new claim. What is granted under it, or a greater one, is granted after this change.
    :ivar gone: the former one answered nothing after that; None: from ``at`` on. :ivar sure: False: it may have been a handover after all.
    """

    at: float
    up: float
    killed: bool
    epoch: int | None = None
    gone: float | None = None
    sure: bool = True

    @property
    def last(self) -> float:
        """The former owner may have answered until then."""
        return self.at if self.gone is None else self.gone


class Letter(NamedTuple):
    """A message of the dead-letter topic: where it was, and what it says."""

    id: str
    origin: Place
    attempts: int
    reason: str


class Promises(NamedTuple):
    """What the binding asks for, and what the daemon is given.

    :ivar commit_interval_ms: the daemon's. :ivar allowance_ms: how long writing that commit may take beside it, on a machine that has other
        work to do.
    """

    ordered: bool = False
    max_attempts: int | None = None
    backoff_min: float = 0
    backoff_max: float = 0
    commit_interval_ms: float = 500
    allowance_ms: float = 500


class Log:
    """All that was seen of one topic in one group."""

    def __init__(self) -> None:
        self.published: list[Published] = []
        self.delivered: list[Delivered] = []
        self.broken: list[Broken] = []
        self.told: list[Told] = []
        self.downs: list[Down] = []
        self.letters: list[Letter] = []
        self.edges: list[tuple[float, float]] = []
        """With many nodes: when a node that clients ask may have died, or been cut off, between handing over an answer in auto mode and telling so
        the one that serves the group."""


class Lease:
    """One delivery with all that was said of it, and for how long it stood for sure.

    :ivar life: which process granted it, counted over kills; ``latest_life``: the same, where that is not known for sure (auto mode with many nodes:
        it does not say its epoch). :ivar end: it stood for sure from ``delivery.at`` until then (where that is earlier:
        it is not known to have stood at all). :ivar free: nobody may have the message again before that: ``end`` and its delay.
    """

    def __init__(self, delivery: Delivered, told: list[Told], log: Log, promises: Promises) -> None:
        self.delivery = delivery
        self.told = told
        self.kills = [down for down in log.downs if down.killed]
        self.stops = [down for down in log.downs if not (down.killed and down.sure)]
        self.life, self.latest_life = lives(self.kills, delivery)
        self.standing = [self._end_before(number) for number in range(len(told) + 1)]
        self.end = self.standing[-1] if delivery.whole and delivery.token is not None else delivery.asked
        self.free = self.end if self._crashed_by(self.end) else self.end + max(0.0, self._wait(promises) - GRAIN_MS)

    def stood(self, number: int) -> float:
        """Until when it stood for sure, as far as the words before ``told[number]`` tell."""
        return self.standing[number] if self.delivery.whole else self.delivery.asked

    def _end_before(self, number: int) -> float:
        end = self.delivery.asked + self.delivery.timeout - GRAIN_MS
        for word in self.told[:number]:
            if word.verb != "extend":
                end = min(end, word.asked)
                break
            extended = word.asked + word.ms - GRAIN_MS
            end = extended if word.outcome == "took" else min(end, extended if word.outcome == "unknown" else word.asked)
        return min([end, *(kill.at for kill in self.kills[self.life : self.life + 1])])

    def _crashed_by(self, moment: float) -> bool:
        return any(kill.at <= moment for kill in self.kills[self.life : self.life + 1])

    def _wait(self, promises: Promises) -> float:
        """How long the message stays away after this lease, unless it is done or dead."""
        made = self.delivery
        if made.token is None or any(word.verb in ("ack", "dead") for word in self.told) or made.attempt >= (promises.max_attempts or float("inf")):
            return 0
        backoff = min(promises.backoff_max, promises.backoff_min * 2.0 ** (self.delivery.attempt - 1))
        taken = [word.ms for word in self.told if word.verb == "nack" and word.outcome == "took"]
        return max([backoff, *taken])

    def over(self, number: int) -> float:
        """It does not stand any more at that time, as far as the words before ``told[number]`` tell. A stop may lengthen it by as long as it took."""
        latest = self.delivery.at + self.delivery.timeout
        for word in self.told[:number]:
            if word.verb == "extend" and word.outcome != "lost":
                latest = word.at + word.ms if word.outcome == "took" else float("inf")
        latest += sum(stop.up - stop.at for stop in self.stops if self.delivery.asked < stop.up and stop.at < latest)
        surely = [kill.at if kill.epoch is None else kill.up for kill in self.kills[self.latest_life :] if kill.sure]
        return min([latest + GRAIN_MS, *surely[:1]])

    def granted_after(self, other: "Lease") -> bool:
        """For sure."""
        if self.life > other.latest_life:
            return True
        if self.latest_life < other.life:
            return False
        if self.of_life_of(other) and self.delivery.place == other.delivery.place and self.delivery.attempt != other.delivery.attempt:
            return self.delivery.attempt > other.delivery.attempt
        return self.delivery.asked >= other.delivery.at

    def of_life_of(self, other: "Lease") -> bool:
        """Granted in the same life, for sure."""
        return self.life == self.latest_life == other.life == other.latest_life

    def __str__(self) -> str:
        made, token = self.delivery, (self.delivery.token or "auto")[-6:]
        words = ", ".join(f"{word.verb} {word.outcome} {word.asked:.0f}-{word.at:.0f}" for word in self.told)
        asked = f"client {made.client}, attempt {made.attempt}, life {self.life}, ..{token}, asked {made.asked:.0f}, got {made.at:.0f}"
        return f"[{asked}, stood until {self.end:.0f}{'' if made.whole else ', cut'}; {words}]"


class Story:
    """A log in the order of what follows from what: leases by message, by key."""

    def __init__(self, log: Log, promises: Promises) -> None:
        self.log, self.promises = log, promises
        words: dict[str, list[Told]] = defaultdict(list)
        for word in sorted(log.told, key=lambda word: word.asked):
            words[word.token].append(word)
        self.leases = [Lease(made, words.get(made.token or "", []), log, promises) for made in sorted(log.delivered, key=lambda made: made.at)]
        self.kills = [down for down in log.downs if down.killed]
        self.messages: dict[Place, list[Lease]] = defaultdict(list)
        for lease in self.leases:
            self.messages[lease.delivery.place].append(lease)
        self.keys: dict[Place, str | None] = {made.place: made.key for made in log.published if made.place is not None}
        self.keys.update((lease.delivery.place, lease.delivery.key) for lease in self.leases)
        self.lettered = {letter.origin for letter in log.letters}

    def acked(self, place: Place) -> bool:
        """Whether an ack of it was answered 200; in auto mode, whether it came whole."""
        return any(True for lease in self.messages.get(place, ()) for _ in done_times(lease))


def lives(kills: list[Down], made: Delivered) -> tuple[int, int]:
    """In which life it was granted: the earliest and the latest that it may have been, counted over kills."""
    if made.epoch is not None and all(kill.epoch is not None for kill in kills):
        life = sum(1 for kill in kills if kill.epoch is not None and kill.epoch <= made.epoch)
        return life, life
    if all(kill.epoch is None for kill in kills):
        life = bisect_right([kill.at for kill in kills], made.asked)
        return life, life
    return sum(1 for kill in kills if kill.up <= made.asked), sum(1 for kill in kills if kill.at <= made.at)


def done_times(lease: Lease, verbs: tuple[str, ...] = ("ack",)) -> list[tuple[float, float]]:
    """The bounds of each moment in which the message was done by this lease, for sure."""
    if lease.delivery.token is None:
        return [(lease.delivery.asked, lease.delivery.at)] if lease.delivery.whole else []
    return [(word.asked, word.at) for word in lease.told if word.verb in verbs and word.outcome == "took"]
