"""What was read, for everybody who reads near it: one shelf for each partition, in pieces that touch where nothing lies between.

The piece at the end grows while somebody waits on the partition (`tail` reads there), so that all groups that stand near the end are served from
memory, one fetch for all of them. Pieces from further behind come from single reads, and serve whoever passes the same place soon.
On the reactor's thread only; no I/O.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from itertools import accumulate

import msgspec

from psubd.model import Message, Slice, sizes
from psubd.storage.kafka.reads import Piece
from psubd.storage.kafka.records import NO_EPOCH

FRESH_MS = 1_500
"""An end that the tail has not spoken for since is asked of the broker. An open fetch is answered every 500 ms at least."""

OLD_MS = 30_000
"""Pieces are dropped so long after they came: retention may have taken what they hold."""

QUICK_MS = 1_000
"""Who has come to the end of a part so soon after it was read will want the next one."""

MERGE_BYTES = 65_536
"""Pieces smaller than this grow with what follows them, so that a trickle does not make a piece of every message."""


class Part:
    """One piece: every committed message from ``start`` up to ``next``. ``sums``: payload bytes before each, and after the last."""

    __slots__ = ("came_at", "log_epoch", "messages", "next", "size", "start", "sums")

    def __init__(self, piece: Piece, now: int) -> None:
        self.start, self.next, self.size = piece.start, piece.next, piece.size
        self.messages: list[Message] = list(piece.messages)
        self.sums = list(accumulate(sizes(piece.messages), initial=0))
        self.came_at, self.log_epoch = now, piece.log_epoch

    def grow(self, piece: Piece, now: int) -> None:
        """Take on the piece that begins where this one ends."""
        self.messages.extend(piece.messages)
        self.sums.extend(accumulate(sizes(piece.messages), initial=self.sums.pop()))
        self.next, self.came_at = piece.next, now
        self.log_epoch = max(self.log_epoch, piece.log_epoch)
        self.size += piece.size


class Shelf:
    """One partition.

    :ivar first: :ivar end: the log's bounds as last heard of.
    :ivar frontier: where the tail stands; None: nobody reads the end.
    :ivar heard_at: when the tail last spoke for the partition (elapsed ms).
    :ivar written: the offset behind the last one that was published here: the tail hears of it a moment later.
    :ivar used_at: when somebody last waited or read here. :ivar log_epoch: the newest leader epoch of what was put here.
    :ivar passing: the two parts that were last put before the last one, or read through quickly: somebody who lags reads there in portions.
    """

    __slots__ = ("end", "first", "frontier", "heard_at", "log_epoch", "parts", "passing", "starts", "used_at", "written")

    def __init__(self, now: int) -> None:
        self.parts: list[Part] = []
        self.starts: list[int] = []
        self.passing: tuple[Part, ...] = ()
        self.first = self.end = self.written = 0
        self.frontier: int | None = None
        self.log_epoch = NO_EPOCH
        self.heard_at, self.used_at = now - FRESH_MS, now

    def at(self, offset: int) -> int | None:
        """Index of the part that holds ``offset``."""
        index = bisect_right(self.starts, offset) - 1
        return index if index >= 0 and offset < self.parts[index].next else None

    def passes(self, part: Part) -> None:
        """Somebody who lags reads there."""
        if part not in self.passing:
            self.passing = (part, *self.passing[:1])

    def due(self, offset: int, now: int) -> int | None:
        """Where to read on already, for somebody who has come to ``offset``; None: nowhere, since that was not quick, or enough is here. What was
        read is kept for him until then."""
        index = self.at(offset - 1)
        if index is None or now - self.parts[index].came_at > QUICK_MS:
            return None
        part, following = self.parts[index], self.parts[index].next
        if (index + 1 < len(self.parts) and self.starts[index + 1] == following) or following >= self.end:
            return None
        self.passes(part)
        return following

    def lacking(self, piece: Piece) -> Piece:
        """What of the piece is not here, from its front up to the next part that is."""
        start = piece.start
        while (index := self.at(start)) is not None:
            start = self.parts[index].next
        index = bisect_left(self.starts, start)
        stop = min(piece.next, self.starts[index]) if index < len(self.starts) else piece.next
        if (start, stop) == (piece.start, piece.next):
            return piece
        messages = tuple(message for message in piece.messages if start <= message.offset < stop)
        size = piece.size * len(messages) // max(1, len(piece.messages))
        return msgspec.structs.replace(piece, start=start, next=max(start, stop), messages=messages, size=size)

    def at_end(self, offset: int, now: int) -> bool:
        """Whether nothing is known to lie at ``offset`` or behind it, and the knowledge is fresh."""
        return self.frontier == offset and max(self.written, self.end) <= offset and now - self.heard_at < FRESH_MS

    def slice(self, offset: int, max_records: int, max_bytes: int) -> Slice | None:
        """What lies at ``offset``, if it is here."""
        index = self.at(offset)
        if index is None:
            return None
        taken: list[Message] = []
        size, following, epoch = 0, offset, NO_EPOCH
        while index < len(self.parts) and self.parts[index].start <= following < self.parts[index].next:
            part = self.parts[index]
            epoch = max(epoch, part.log_epoch)
            messages, sums = part.messages, part.sums
            begin = bisect_left(messages, following, key=_offset)
            most = min(len(messages), begin + max_records - len(taken))
            fit = max(begin, bisect_right(sums, sums[begin] + max_bytes - size, begin, most + 1) - 1)
            if fit == begin < most and not taken:
                fit += 1
            taken += messages[begin:fit]
            size += sums[fit] - sums[begin]
            if fit < len(messages):
                stopped = messages[fit].offset
                return Slice(tuple(taken), stopped, self.first, max(self.end, stopped), epoch)
            following = part.next
            index += 1
        return Slice(tuple(taken), following, self.first, max(self.end, following), epoch)


class Budget(msgspec.Struct, frozen=True):
    """Bytes: of one partition's end, and of all shelves together."""

    window: int
    total: int


class Shelves:
    """All shelves, within their budget: the parts that were used longest ago go first."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.by_topic: dict[str, dict[int, Shelf]] = {}
        self._uids: dict[str, str] = {}
        self.size = 0
        self._recent: OrderedDict[int, tuple[Shelf, Part]] = OrderedDict()

    def get(self, topic: str, partition: int) -> Shelf | None:
        return self.by_topic.get(topic, {}).get(partition)

    def make(self, topic: str, partition: int, now: int, uid: str = "") -> Shelf:
        """The partition's shelf. Where the topic is another one than what is here was read from (``uid``), that is forgotten first."""
        if self._uids.setdefault(topic, uid) != uid:
            self.clear(topic)
            self._uids[topic] = uid
        shelf = self.get(topic, partition)
        if shelf is None:
            shelf = self.by_topic.setdefault(topic, {})[partition] = Shelf(now)
        return shelf

    def put(self, shelf: Shelf, piece: Piece, now: int) -> None:
        """Keep of a piece what is not there yet, up to the next part that is."""
        if piece.log_epoch > shelf.log_epoch:
            # Another leader: what was read of a former one's log may have been cut off.
            self._empty(shelf)
            shelf.log_epoch = piece.log_epoch
        shelf.first, shelf.end = piece.first, max(piece.end, shelf.end)
        new = shelf.lacking(piece)
        if new.next <= new.start:
            return
        before = bisect_left(shelf.starts, new.start) - 1
        neighbour = shelf.parts[before] if before >= 0 else None
        if neighbour is not None and neighbour.next == new.start and neighbour.size < MERGE_BYTES:
            neighbour.grow(new, now)
            self.size += new.size
            self._recent.move_to_end(id(neighbour))
        else:
            neighbour = Part(new, now)
            self._insert(shelf, before + 1, neighbour)
        if neighbour is not shelf.parts[-1]:
            shelf.passes(neighbour)
        self._trim(shelf)

    def slice(self, shelf: Shelf, offset: int, max_records: int, max_bytes: int) -> Slice | None:
        """`Shelf.slice`, noting that the part was used."""
        index = shelf.at(offset)
        if index is None:
            return None
        self._recent.move_to_end(id(shelf.parts[index]))
        return shelf.slice(offset, max_records, max_bytes)

    def clear(self, topic: str) -> None:
        """Forget all that was read of the topic."""
        self._uids.pop(topic, None)
        for shelf in self.by_topic.pop(topic, {}).values():
            self._empty(shelf)

    def forget(self, topic: str, partition: int) -> None:
        """Forget one partition."""
        shelf = self.by_topic.get(topic, {}).pop(partition, None)
        if shelf is not None:
            self._empty(shelf)
            if not self.by_topic[topic]:
                del self.by_topic[topic], self._uids[topic]

    def cut(self, topic: str, partition: int, end: int, log_epoch: int | None = None) -> None:
        """Drop what reaches past the end of the log, or past the end of the log of that epoch if it was read of it or of an earlier one."""
        shelf = self.get(topic, partition)
        if shelf is None:
            return
        for part in list(shelf.parts):
            if part.next > end and (log_epoch is None or part.log_epoch <= log_epoch):
                self._drop(shelf, part)

    def age(self, now: int) -> None:
        """Drop what is old."""
        for shelf, part in [held for held in self._recent.values() if now - held[1].came_at > OLD_MS]:
            self._drop(shelf, part)

    def _insert(self, shelf: Shelf, index: int, part: Part) -> None:
        shelf.parts.insert(index, part)
        shelf.starts.insert(index, part.start)
        self.size += part.size
        self._recent[id(part)] = (shelf, part)

    def _drop(self, shelf: Shelf, part: Part) -> None:
        index = shelf.parts.index(part)
        del shelf.parts[index], shelf.starts[index]
        self.size -= part.size
        del self._recent[id(part)]
        if part in shelf.passing:
            shelf.passing = tuple(each for each in shelf.passing if each is not part)

    def _trim(self, shelf: Shelf) -> None:
        passing = shelf.passing
        held = sum(part.size for part in shelf.parts if part not in passing)
        for part in shelf.parts[:-1]:
            if held <= self.budget.window:
                break
            if part not in passing:
                held -= part.size
                self._drop(shelf, part)
        while self.size > self.budget.total and len(self._recent) > 1:
            oldest, part = next(iter(self._recent.values()))
            self._drop(oldest, part)

    def _empty(self, shelf: Shelf) -> None:
        for part in list(shelf.parts):
            self._drop(shelf, part)


def _offset(message: Message) -> int:
    return message.offset
