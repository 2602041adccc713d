"""Messages that were read and never leased, in offset order: cut by slicing and bisection, not message by message."""

import operator
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, islice

from psubd.delivery.states import IllegalEvent
from psubd.model import Message, Slice, sizes

OFFSET = operator.attrgetter("offset")
_COMPACT_FROM = 1024
"""Messages that were taken before the lists are cut at their front."""


class Window:
    """:ivar first: the first message, None: there is none."""

    __slots__ = ("_head", "_messages", "_struck", "_sums", "first")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._messages: list[Message] = []
        self._sums = [0]  # payload bytes before each message, and after the last
        self._head = 0  # never struck
        self._struck: dict[int, int] = {}  # offset -> size: done while they lay here
        self.first: Message | None = None

    @property
    def count(self) -> int:
        return len(self._messages) - self._head - len(self._struck)

    @property
    def bytes(self) -> int:
        left = self._sums[-1] - self._sums[self._head]
        return left - sum(self._struck.values()) if self._struck else left

    def size(self, count: int) -> int:
        """Payload bytes of the first ``count`` messages, which there are."""
        return self._sums[self._head + count] - self._sums[self._head]

    def extend(self, messages: Sequence[Message]) -> None:
        self._messages += messages
        self._sums += accumulate(sizes(messages), initial=self._sums.pop())
        if self.first is None and messages:
            self.first = messages[0]

    def run(self, count: int, size: int, first_fits: bool, below: int | None) -> int:
        """How many of the first messages keep to ``count``, ``size`` bytes together and offsets under ``below``.

        None of them may be struck: ``below`` is no further than the first that is.
        """
        head = self._head
        most = min(head + count, len(self._messages))
        fit = bisect_right(self._sums, self._sums[head] + size, head, most + 1) - 1
        if fit <= head:
            fit = head + 1 if first_fits and head < most else head
        if below is not None:
            fit = bisect_left(self._messages, below, head, fit, key=OFFSET)
        return fit - head

    def offset(self, index: int) -> int:
        """Of the message ``index`` places past the first."""
        return self._messages[self._head + index].offset

    def take(self, count: int) -> list[Message]:
        """Remove the first ``count``, and hand them out."""
        head = self._head
        after = head + count
        messages = self._messages[head:after]
        self._advance(after)
        return messages

    def take_first(self) -> int:
        """Remove the first; its payload bytes."""
        head = self._head
        size = self._sums[head + 1] - self._sums[head]
        if self._struck or head + 1 == len(self._messages) or head >= _COMPACT_FROM:
            self._advance(head + 1)
        else:
            self._head = head + 1
            self.first = self._messages[head + 1]
        return size

    def drop_below(self, offset: int) -> None:
        """Remove those before ``offset``."""
        head = bisect_left(self._messages, offset, self._head, key=OFFSET)
        for at in [at for at in self._struck if at < offset]:
            del self._struck[at]
        if head > self._head:
            self._advance(head)

    def holds(self, offset: int) -> bool:
        index = bisect_left(self._messages, offset, self._head, key=OFFSET)
        return index < len(self._messages) and self._messages[index].offset == offset and offset not in self._struck

    def strike(self, offset: int) -> None:
        """The message at ``offset`` is done: it will not be taken."""
        index = bisect_left(self._messages, offset, self._head, key=OFFSET)
        self._struck[offset] = self._sums[index + 1] - self._sums[index]
        self._advance(self._head)

    def _advance(self, head: int) -> None:
        messages = self._messages
        while self._struck and head < len(messages) and messages[head].offset in self._struck:
            del self._struck[messages[head].offset]
            head += 1
        if head == len(messages):
            self.clear()
            return
        self._head = head
        self.first = messages[head]
        if head > _COMPACT_FROM and 2 * head > len(messages):
            del messages[:head], self._sums[:head]
            self._head = 0


def portion(messages: Sequence[Message], count: int, size: int, first_fits: bool) -> tuple[int, int]:
    """How many of the first messages keep to both bounds, and their payload bytes."""
    goes = taken = 0
    for message in islice(messages, count):
        if taken + message.size > size and (goes or not first_fits):
            break
        taken += message.size
        goes += 1
    return goes, taken


def check_slice(asked: int, found: Slice) -> None:
    """:raises IllegalEvent: unless its messages rise from ``asked``, and it goes on past them."""
    offsets = list(map(OFFSET, found.messages))
    if offsets and (offsets[0] < asked or not all(map(operator.lt, offsets, offsets[1:]))):
        raise IllegalEvent(f"offsets {offsets[:10]} do not rise from {asked}")
    if found.next_offset < (offsets[-1] + 1 if offsets else asked):
        raise IllegalEvent(f"a read at {asked} goes on at {found.next_offset}")
