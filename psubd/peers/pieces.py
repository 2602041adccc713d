"""Large messages as they come in: pieces that lie between other frames, put together again."""

from psubd.peers.frames import Frame, IllegalFrame, Kind, Start, decode_start
from psubd.peers.outbox import WINDOW


class Part:
    """What has come of one message."""

    __slots__ = ("came", "pieces", "start")

    def __init__(self, start: Start) -> None:
        self.start = start
        self.pieces: list[bytes] = []
        self.came = 0


class Pieces:
    """What has come in part, at most ``window`` bytes of announced bodies together.

    :ivar held: bytes that are announced and not whole yet.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._parts: dict[int, Part] = {}
        self.held = 0

    def received(self, frame: Frame) -> Frame | None:
        """Take a LARGE, PIECE or DROP frame; the message, if it is whole now. :raises IllegalFrame:"""
        if frame.kind is Kind.LARGE:
            self._start(frame.id, decode_start(frame))
            return None
        part = self._parts.get(frame.id)
        if part is None:
            raise IllegalFrame(f"a {frame.kind.name} frame belongs to large message {frame.id}, which was not begun")
        if frame.kind is Kind.DROP:
            self._end(frame.id, part)
            return None
        return self._add(frame, part)

    def _start(self, stream: int, start: Start) -> None:
        if stream in self._parts:
            raise IllegalFrame(f"large message {stream} was begun twice")
        if self.held and self.held + start.size > self._window:
            raise IllegalFrame(
                f"large message {stream} has {start.size} bytes, {self.held} are on their way already, and together at most {self._window} may be"
            )
        self._parts[stream] = Part(start)
        self.held += start.size

    def _add(self, frame: Frame, part: Part) -> Frame | None:
        part.came += len(frame.body)
        if part.came > part.start.size:
            raise IllegalFrame(f"large message {frame.id} has more than the {part.start.size} bytes that were announced")
        part.pieces.append(frame.body)
        if part.came < part.start.size:
            return None
        self._end(frame.id, part)
        return Frame(part.start.kind, part.start.id, b"".join(part.pieces), part.start.verb)

    def _end(self, stream: int, part: Part) -> None:
        del self._parts[stream]
        self.held -= part.start.size
