"""The body of an answer that stays open."""

from collections import deque
from collections.abc import Callable

from twisted.logger import Logger
from zope.interface import implementer

from psubd.interfaces import IOutlet
from psubd.wire.handover import Pump

log = Logger()


@implementer(IOutlet)
class Outlet:
    """Writes what it is given as fast as the client takes it.

    :param chunked: False for an HTTP/1.0 client: the body ends with the connection.
    :param done: called once the end was taken; not when the connection is lost.
    :param stands: `psubd.model.Answer.stands`.
    """

    def __init__(self, pump: Pump, head: bytes, chunked: bool, done: Callable[[], None], stands: Callable[[], bool] | None = None) -> None:
        self.pump = pump
        self.chunked = chunked
        self.done = done
        self.queue: deque[bytes] = deque((head,))
        self.waiting = 0
        self.out = 0
        self.listeners: list[Callable[[], None]] = []
        self.finished = False
        self.ended = False
        self.gone = False
        pump.start(self, stands)
        self.push()

    @property
    def buffered(self) -> int:
        return self.waiting + self.out

    def write(self, data: bytes) -> None:
        if self.finished or not data:
            return
        self.waiting += len(data)
        self.queue.append(b"%x\r\n%s\r\n" % (len(data), data) if self.chunked else data)
        self.push()

    def finish(self) -> None:
        if self.finished:
            return
        self.finished, self.listeners = True, []
        if self.chunked:
            self.queue.append(b"0\r\n\r\n")
        self.push()

    def on_lost(self, lost: Callable[[], None]) -> None:
        if self.gone:
            lost()
        elif not self.finished:
            self.listeners.append(lost)

    def push(self) -> None:
        """Write all that waits, unless the last portion is still on its way."""
        if self.pump.busy or self.ended:
            return
        if self.queue:
            self.out, self.waiting = self.waiting, 0
            portion = b"".join(self.queue)
            self.queue.clear()
            self.pump.write(portion)
        elif self.finished:
            self.ended = True
            self.pump.stop()
            self.done()

    def emptied(self) -> None:
        self.out = 0
        self.push()

    def lost(self) -> None:
        self.gone = self.ended = True
        self.pump.stop()
        self.tell()
        self.finished = True
        self.queue.clear()
        self.waiting = self.out = 0

    def stop(self) -> None:
        """The server stops: whoever writes is told, and the body is ended properly."""
        self.tell()
        self.finish()

    def tell(self) -> None:
        """Call the listeners, once."""
        listeners, self.listeners = self.listeners, []
        for listener in listeners:
            try:
                listener()
            except Exception:  # noqa: BLE001  the other listeners are told all the same
                log.failure("a stream's on_lost failed")
