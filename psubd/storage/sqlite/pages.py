"""What was read from the file lately: groups that read the same place, one after another, cost one read. On the reactor's thread only."""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from operator import attrgetter

from psubd.model import Message
from psubd.storage.sqlite.tail import OVERHEAD

BUDGET = 16 * 1024 * 1024
"""Bytes of all pages, as they are counted: payload, and `OVERHEAD` a message."""

OFFSET = attrgetter("offset")


class Page:
    """All messages of log ``no`` from ``start`` up to ``next``."""

    __slots__ = ("messages", "next", "no", "size", "start")

    def __init__(self, no: int, start: int, following: int, messages: Sequence[Message]) -> None:
        self.no, self.start, self.next, self.messages = no, start, following, messages
        self.size = sum(message.size for message in messages) + OVERHEAD * (len(messages) + 1)


class Pages:
    """Within ``budget`` bytes; what was used longest ago goes first.

    :ivar era: another one whenever anything became untrue: what was asked of the file before must not be put here.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self.era = self.held = 0
        self._budget = budget
        self._logs: dict[int, list[Page]] = {}
        self._recent: OrderedDict[Page, None] = OrderedDict()

    def read(self, no: int, offset: int, max_records: int, max_bytes: int) -> tuple[Sequence[Message], int] | None:
        """Messages from ``offset`` on, at least one where there is one, and where the next read goes on; None: ask the file."""
        pages = self._logs.get(no, [])
        index = bisect_right(pages, offset, key=_start) - 1
        if index < 0 or offset >= pages[index].next:
            return None
        page = pages[index]
        self._recent.move_to_end(page)
        begin = bisect_left(page.messages, offset, key=OFFSET)
        size = 0
        for at in range(begin, len(page.messages)):
            size += page.messages[at].size
            if at - begin == max_records or (size > max_bytes and at > begin):
                return page.messages[begin:at], page.messages[at].offset
        return page.messages[begin:], page.next

    def put(self, no: int, start: int, messages: Sequence[Message], following: int) -> None:
        """What was just read."""
        page = Page(no, start, following, messages)
        if following <= start or page.size > self._budget // 4:
            return
        pages = self._logs.setdefault(no, [])
        index = bisect_left(pages, start, key=_start)
        if index < len(pages) and pages[index].start == start:
            self._forget(pages.pop(index))
        pages.insert(index, page)
        self._recent[page] = None
        self.held += page.size
        while self.held > self._budget:
            self._drop(next(iter(self._recent)))

    def drop(self, no: int) -> None:
        """The log is not what it was."""
        self.era += 1
        for page in self._logs.pop(no, []):
            self._forget(page)

    def clear(self) -> None:
        for no in list(self._logs):
            self.drop(no)
        self.era += 1

    def _drop(self, page: Page) -> None:
        pages = self._logs[page.no]
        pages.remove(page)
        if not pages:
            del self._logs[page.no]
        self._forget(page)

    def _forget(self, page: Page) -> None:
        del self._recent[page]
        self.held -= page.size


def _start(page: Page) -> int:
    return page.start
