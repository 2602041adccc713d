"""What a port has seen of heads before: clients on connections that are kept send the same one again and again.

A whole head that comes a second time is kept, with its route and with what endpoints derive from it (`psubd.interfaces.IExchange.kept`), so that
the next one costs a look-up; where it says how long its body is, that number is left out of what is compared. Where one line differs each
time (a trace's id), the others are found line by line.

Everything here is bounded, and what came first goes first, in lots. Who sends heads that are never the same takes no room from others, since
one that came once is remembered as a number only; who sends many twice pushes others out, who are then read as slowly as at their first time.
Heads hold credentials: all is let go when the port closes.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from psubd.interfaces import Route
from psubd.wire.head import FRESH, Head, Lines, Start, Told, parse_field, parse_head, parse_start
from psubd.wire.intake import simple
from psubd.wire.limits import WireSettings
from psubd.wire.meters import RouteMeter

MOST_HEADS = 4096
MOST_BYTES = 16_777_216
"""Of heads with what was parsed of them, as `Known.weight` estimates it: some 4,400 of 300 bytes in ten lines."""
LONGEST_HEAD = 2048
SIGHTS = 16_384
"""Heads that came once and are remembered as a number."""

MOST_LINES = 4096
LONGEST_LINE = 256
MOST_TALES = 1024
LONGEST_TALE = 8
"""Of the fields that the wire goes by."""

LENGTH_LINES = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
"""How clients write it; one that writes it otherwise has a head of its own for each length."""
SIZE = len(LENGTH_LINES[0])

K = TypeVar("K")
V = TypeVar("V")


class HotRoute:
    """A route that is served past the tree. :ivar meter: where its requests are counted."""

    __slots__ = ("meter", "route")

    def __init__(self, route: Route, meter: RouteMeter) -> None:
        self.route = route
        self.meter = meter


class Known:
    """A head for a hot route, and what follows from it alone.

    :ivar call: the route's endpoint, with the path's parts.
    :ivar own_id: the client's ``x-request-id``, where it is sane.
    :ivar most: bytes of a body that may go to the endpoint as they stand, if they are here already; -1: none, the long way has to judge.
    """

    __slots__ = ("call", "head", "hot", "kept", "most", "own_id")

    def __init__(self, head: Head, hot: HotRoute, call: Callable[..., Any], own_id: bytes | None) -> None:
        self.head = head
        self.hot = hot
        self.call = call
        self.own_id = own_id
        self.kept: dict[str, Any] = {}
        self.most = hot.route.max_body if simple(head, hot.route) and not head.close else -1

    def head_of(self, length: int | None) -> Head:
        """The head with that length of the body, which was left out of what was compared."""
        head = self.head
        if length is None or length == head.length:
            return head
        said = b"content-length", b"%d" % length
        fields, telling = (tuple(said if line[0] == said[0] else line for line in lines) for lines in (head.fields, head.telling))
        return msgspec.structs.replace(head, fields=fields, telling=telling, length=length)

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes: the bytes, a copy in pieces, and the objects."""
        return 2 * sum(len(name) + len(value) for name, value in self.head.fields) + 200 * len(self.head.fields) + 1200


class Bounded(Generic[K, V]):
    """A table that forgets what came first, in lots. :ivar found: what is there; look there."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.found: dict[K, V] = {}

    def keep(self, key: K, value: V) -> None:
        """Add one."""
        if len(self.found) >= self.most:
            for old in list(self.found)[: self.most // 8]:
                del self.found[old]
        self.found[key] = value


class KnownLines(Lines):
    """Lines that were read before are not read again; those that are refused are."""

    def __init__(self) -> None:
        self.starts: Bounded[bytes, Start] = Bounded(MOST_LINES)
        self.lines: Bounded[bytes, tuple[bytes, bytes]] = Bounded(MOST_LINES)
        self.tales: Bounded[tuple[Any, bool], Told] = Bounded(MOST_TALES)

    def start(self, line: bytes, limits: WireSettings) -> Start:
        known = self.starts.found.get(line)
        if known is None:
            known = parse_start(line, limits)
            if len(line) <= LONGEST_LINE:
                self.starts.keep(line, known)
        return known

    def fields(self, lines: list[bytes]) -> tuple[tuple[bytes, bytes], ...]:
        known = self.lines.found.get
        return tuple([known(line) or self.read(line, number) for number, line in enumerate(lines, 1)])

    def told(self, telling: tuple[tuple[bytes, bytes], ...], old: bool, authority: bytes | None) -> Told:
        if authority is not None:
            return super().told(telling, old, authority)
        told = self.tales.found.get((telling, old))
        if told is None:
            told = super().told(telling, old, None)
            if len(telling) <= LONGEST_TALE:
                self.tales.keep((telling, old), told)
        return told

    def read(self, line: bytes, number: int) -> tuple[bytes, bytes]:
        """One that is not known."""
        field = parse_field(line, number)
        if len(line) <= LONGEST_LINE:
            self.lines.keep(line, field)
        return field


class Memo:
    """The heads that a port knows.

    :param find: tells the hot route that a head is for, and what follows from the head; None: it is the tree's.
    :ivar heads: by what `cut` gives; look there before `read`.
    """

    def __init__(self, settings: WireSettings, find: Callable[[Head], Known | None]) -> None:
        self.settings = settings
        self.find = find
        self.heads: dict[bytes, Known] = {}
        self.weight = 0
        self.once: set[int] = set()
        self.lines: Lines = KnownLines()
        self.open = True

    def read(self, raw: bytes, key: bytes) -> Known | Head:
        """What a head says that is not in `heads`: known from now on, if it came before; or not for a hot route.

        :param key: the head, `cut`. :raises PsubdError: it is refused."""
        head = parse_head(raw, self.settings, self.lines)
        known = self.find(head)
        if known is None:
            return head
        self.learn(key, known)
        return known

    def learn(self, key: bytes, known: Known) -> None:
        """Keep a head, if it came before."""
        if len(key) > LONGEST_HEAD or not self.open:
            return
        sight = hash(key)
        if sight not in self.once:
            if len(self.once) >= SIGHTS:
                self.once.clear()
            self.once.add(sight)
            return
        self.once.discard(sight)
        if len(self.heads) >= MOST_HEADS or self.weight >= MOST_BYTES:
            self.drop()
        self.heads[key] = known
        self.weight += known.weight

    def drop(self) -> None:
        """Let an eighth go, the oldest first."""
        for key in list(self.heads)[: max(1, len(self.heads) // 8)]:
            self.weight -= self.heads.pop(key).weight

    def close(self) -> None:
        """Let all go, and keep nothing more."""
        self.open = False
        self.heads.clear()
        self.once.clear()
        self.lines = FRESH
        self.weight = 0


def cut(raw: bytes) -> tuple[bytes, int | None]:
    """What two heads have in common that differ in the length of their bodies only, and that length.

    Both are told by the first field line whose name is written in one of two ways; no other line can hold its beginning, with a line end before
    it. A number that is not written as we would write it is left where it is. What was cut goes without the empty line at its end as well: else a
    head that says no number where one belongs would look like it."""
    start = raw.find(LENGTH_LINES[0])
    if start < 0:
        start = raw.find(LENGTH_LINES[1])
        if start < 0:
            return raw, None
    start += SIZE
    end = raw.find(b"\r", start)
    digits = raw[start:end]
    if not digits.isdigit() or len(digits) > 18 or (digits[0] == 48 and len(digits) > 1):
        return raw, None
    return raw[:start] + raw[end:-4], int(digits)
