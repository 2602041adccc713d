"""A consumer instance in memory, and the partitions that it has. No I/O.

An instance reads on from a position of its own. What it was given is out until it is known whether it was wholly written to the client; then the
position moves, or stays where it was. What was wholly written is its due until it is committed: nobody else gets the partition before that, unless
it takes too long.
"""

from collections import deque
from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred

from psubd.model import InstanceSpec, TopicPartition


class Stand(msgspec.Struct, frozen=True, array_like=True):
    """Where an instance stands in a partition: what goes with a slot to its next owner.

    :ivar made: serial of the instance. :ivar since: of the channel (`psubd.services.channels.Channel.since`). :ivar uid: the storage's topic.
    :ivar position: what it reads next. :ivar handed: behind the last message that was wholly written; None: none was.
    :ivar kept: what it committed last; None: nothing. :ivar sought: it gets what is done, too.
    """

    group: str
    instance: str
    made: int
    at: TopicPartition
    uid: str
    since: int
    position: int
    handed: int | None = None
    kept: int | None = None
    sought: bool = False


class Holding:
    """One partition, while one instance has it.

    :ivar version: another one after each move that was no reading: what was read before it does not count. :ivar out: some of it is in an answer
        that is not settled. :ivar live: it still has the partition. :ivar heir: the instance that it is due to; None: nobody waits for it.
    :ivar at_end: there was nothing more at the last look. :ivar overdue: it has had its time, and goes as soon as nothing of it is out.
    :ivar due: `psubd.services.patience.Waiter`, while an heir waits.
    """

    __slots__ = ("at", "at_end", "due", "handed", "heir", "kept", "live", "member", "out", "over", "overdue", "position", "sought", "version")

    def __init__(self, member: "Member", at: TopicPartition, position: int, over: "Callable[[Holding], None]") -> None:
        self.member, self.at, self.position, self.over = member, at, position, over
        self.handed: int | None = None
        self.kept: int | None = None
        self.sought = self.out = self.overdue = self.at_end = False
        self.live = True
        self.version = self.due = 0
        self.heir: str | None = None

    @property
    def owed(self) -> int | None:
        """What is to be committed of it: behind the last message that was wholly written. None: nothing."""
        handed = self.handed
        return None if handed is None or (self.kept is not None and handed <= self.kept) else handed

    @property
    def free(self) -> bool:
        """Whether it may go to somebody else, and nothing is given twice."""
        return not self.out and (self.overdue or self.owed is None)

    def given_anyhow(self, offset: int) -> bool:
        """Whether it gets the message though that may be done: it pointed there, or has committed past it itself before it read it."""
        return self.sought or (self.kept is not None and offset < self.kept)

    def seek(self, offset: int) -> None:
        """Read on there. What was wholly written and is not committed stays owed."""
        if self.owed is None:
            self.handed = None
        self.position, self.sought, self.kept = offset, True, None
        self.version += 1

    def begin(self, position: int) -> None:
        """The group's place was moved: what was read before counts no more."""
        self.position, self.handed, self.kept, self.sought = position, None, None, False
        self.version += 1

    def settle(self, version: int, behind: int, following: int) -> None:
        """What was read at that version was wholly written. :param behind: the offset behind its last message. :param following: where to read on."""
        if version == self.version:
            self.position = following
        self.handed = behind

    def expire(self) -> None:
        """The heir has waited for as long as it has to."""
        self.over(self)

    def stand(self, group: str, uid: str, since: int) -> Stand:
        """As it goes to the slot's next owner."""
        member = self.member
        return Stand(group, member.id, member.spec.serial, self.at, uid, since, self.position, self.handed, self.kept, self.sought)

    def go_on(self, stand: Stand) -> None:
        """As the slot's former owner left it."""
        self.position, self.handed, self.kept, self.sought = stand.position, stand.handed, stand.kept, stand.sought


class Turn:
    """One read of an instance at a time, in the order in which they came."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[Deferred[None]] = deque()
        self._watching: list[Deferred[None]] = []

    def take(self) -> "Deferred[None]":
        """Fires when it is one's turn, to be followed by `give`. May be cancelled before."""
        mine: Deferred[None] = Deferred(self._waiting.remove)
        if self._taken:
            self._waiting.append(mine)
        else:
            self._taken = True
            mine.callback(None)
        return mine

    def give(self) -> None:
        """The next one's turn."""
        self._taken = False
        watching, self._watching = self._watching, []
        for watcher in watching:
            if not watcher.called:
                watcher.callback(None)
        if self._waiting and not self._taken:
            self._taken = True
            self._waiting.popleft().callback(None)

    def passed(self) -> "Deferred[None]":
        """Fires at the next `give`. May be cancelled."""
        watcher: Deferred[None] = Deferred(self._watching.remove)
        self._watching.append(watcher)
        return watcher


class Member:
    """A consumer instance of a loaded group.

    :ivar holdings: what it has; the one whose turn it is to give first comes first. :ivar lost: what went to another instance though something of
        it was written and not committed; told once. :ivar out: answers that are not settled. :ivar calls: those that are under way.
    :ivar unsure: the node that served it is gone without a word: what was read there and not committed comes again, and was not read here yet.
    :ivar used_ms: when it was last called. :ivar leaving: it is being dismissed. :ivar live: it is registered.
    :ivar due: `psubd.services.patience.Waiter`.
    """

    def __init__(self, id: str, spec: InstanceSpec, now: int, idle: "Callable[[Member], None]") -> None:
        self.id, self.spec, self.used_ms = id, spec, now
        self.holdings: dict[TopicPartition, Holding] = {}
        self.lost: set[TopicPartition] = set()
        self.turn = Turn()
        self.out = self.calls = self.due = 0
        self.leaving = self.unsure = False
        self.live = True
        self._idle = idle

    @property
    def busy(self) -> bool:
        """Whether somebody uses it at this moment."""
        return self.calls > 0 or self.out > 0

    def expire(self) -> None:
        self._idle(self)
