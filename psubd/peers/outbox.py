"""What one node has to say to another and the line has not taken yet.

Three lanes. *Urgent*: a few bytes that the link itself needs (pings, the end of a large message). *Short*: frames, in the order given.
*Large*: messages in pieces of 64 KiB, in turns, one piece of each. Short and large take turns too, 64 KiB each, so that neither waits for the whole
of the other. Short messages keep their order among themselves; a large one may come after what was said later.

So that the other end need not hold without bound what came in part, a large message begins only when it and those that are on their way have at most
`WINDOW` bytes together; the others wait, unbegun. The other end holds the sender to that (`psubd.peers.pieces`).
"""

from collections import deque

from psubd.peers.frames import NAMED, PIECE_BYTES, Kind, Start, encode, encode_start, named

WINDOW = 256 * 1_048_576
"""Bytes of the large messages that are on their way at a time: two of the largest."""
MOST_BYTES = 256 * 1_048_576
"""What may wait here. Then `room` is False: calls are refused, answers become an error."""


class Large:
    """One message in pieces.

    :ivar stream: its number on this link; 0: it has no place in the window yet. :ivar sent: bytes that went. :ivar dead: withdrawn.
    """

    __slots__ = ("body", "dead", "id", "kind", "sent", "stream", "verb")

    def __init__(self, kind: Kind, id: int, body: bytes, verb: str) -> None:
        self.kind, self.id, self.body, self.verb = kind, id, body, verb
        self.stream = self.sent = 0
        self.dead = False


class Outbox:
    """:ivar waiting: bytes that wait.

    :param piece: bytes of a piece; what is longer is large.
    """

    def __init__(self, piece: int = PIECE_BYTES, window: int = WINDOW, most: int = MOST_BYTES) -> None:
        self._piece, self._window, self._most = piece, window, most
        self._urgent: list[bytes] = []
        self._short: deque[bytes] = deque()
        self._unbegun: deque[Large] = deque()
        self._turns: deque[Large] = deque()
        self._large: dict[tuple[Kind, int], Large] = {}
        self._streams = 0
        self._under_way = 0
        self._short_next = True
        self.waiting = 0

    def room(self, size: int) -> bool:
        """Whether a body of ``size`` bytes can still wait here. An empty outbox has room for one."""
        return not self.waiting or self.waiting + size <= self._most

    def put(self, kind: Kind, id: int = 0, body: bytes = b"", verb: str = "") -> None:
        """Say it. :raises ValueError: ``verb`` is none, where the kind has one."""
        if len(body) > self._piece:
            large = Large(kind, id, body, named(verb) if kind in NAMED else "")
            self._unbegun.append(large)
            if kind is not Kind.TELL:
                self._large[kind, id] = large
            self.waiting += len(body)
        else:
            frame = encode(kind, id, body, verb)
            self._short.append(frame)
            self.waiting += len(frame)

    def hasten(self, kind: Kind, id: int = 0) -> None:
        """Say it before all else."""
        frame = encode(kind, id)
        self._urgent.append(frame)
        self.waiting += len(frame)

    def withdraw(self, kind: Kind, id: int) -> bool:
        """Take back a large message that has not gone wholly. False: there is none; it was short, or has gone."""
        large = self._large.pop((kind, id), None)
        if large is None:
            return False
        large.dead = True
        self.waiting -= len(large.body) - large.sent
        if large.stream:
            self._under_way -= len(large.body)
        if large.sent:
            # at once: the other end must know before the next large message begins, or it counts more than WINDOW
            self.hasten(Kind.DROP, large.stream)
        large.body = b""
        return True

    def take(self) -> bytes | None:
        """What to write next, about 64 KiB at most; None: nothing waits."""
        if self._urgent:
            return self._take_urgent()
        first, second = (self._take_short, self._take_piece) if self._short_next else (self._take_piece, self._take_short)
        self._short_next = not self._short_next
        return first() or second()

    def _take_urgent(self) -> bytes:
        taken = b"".join(self._urgent)
        self._urgent.clear()
        self.waiting -= len(taken)
        return taken

    def _take_short(self) -> bytes | None:
        if not self._short:
            return None
        frames = [self._short.popleft()]
        size = len(frames[0])
        while self._short and size + len(self._short[0]) <= self._piece:
            frames.append(self._short.popleft())
            size += len(frames[-1])
        self.waiting -= size
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def _take_piece(self) -> bytes | None:
        self._begin()
        while self._turns:
            large = self._turns.popleft()
            if not large.dead:
                return self._cut(large)
        return None

    def _begin(self) -> None:
        """Let as many begin as the window has room for, in their order."""
        while self._unbegun and (self._unbegun[0].dead or not self._under_way or self._under_way + len(self._unbegun[0].body) <= self._window):
            large = self._unbegun.popleft()
            if not large.dead:
                self._streams += 1
                large.stream = self._streams
                self._under_way += len(large.body)
                self._turns.append(large)

    def _cut(self, large: Large) -> bytes:
        """Its next piece."""
        piece = large.body[large.sent : large.sent + self._piece]
        first = b"" if large.sent else encode_start(large.stream, Start(large.kind, large.id, len(large.body), large.verb))
        large.sent += len(piece)
        self.waiting -= len(piece)
        if large.sent < len(large.body):
            self._turns.append(large)
        else:
            self._under_way -= len(large.body)
            self._large.pop((large.kind, large.id), None)
        return first + encode(Kind.PIECE, large.stream, piece)
