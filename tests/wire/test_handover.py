"""When bytes count as handed to the operating system, with a layer (TLS) that gathers writes above the socket's transport."""

from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.protocol import Factory
from twisted.protocols.policies import ProtocolWrapper
from twisted.trial.unittest import SynchronousTestCase

from psubd.testing.clock import FakeClock
from psubd.wire.handover import Handover, Line, Pump


class Watcher:
    """Knows who wants to write, as a reactor does."""

    def __init__(self) -> None:
        self.writers: set[Any] = set()

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def run(self) -> None:
        """Once around: whoever wants to write may."""
        for writer in list(self.writers):
            writer.doWrite()


class Descriptor(FileDescriptor):
    """A socket's transport that takes at most `room` bytes."""

    connected = 1

    def __init__(self, watcher: Watcher) -> None:
        super().__init__(watcher)  # type: ignore[arg-type]
        self.room = 1_000_000
        self.took = b""

    def writeSomeData(self, data: bytes) -> int:
        piece = bytes(data[: self.room])
        self.room -= len(piece)
        self.took += piece
        return len(piece)


class Gatherer(ProtocolWrapper):
    """Holds what is written until the clock's next turn, as `twisted.protocols.tls.BufferingTLSTransport` does."""

    def __init__(self, below: Descriptor, clock: FakeClock) -> None:
        super().__init__(Factory(), None)  # type: ignore[arg-type, type-var]
        self.transport = below  # type: ignore[assignment]
        self.clock = clock

    def write(self, data: bytes) -> None:
        self.clock.call_later(0, self.transport.write, data)  # type: ignore[union-attr]


class Taken(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.watcher = Watcher()
        self.below = Descriptor(self.watcher)
        self.settled: list[int] = []
        self.done: list[int] = []
        self.broken: list[int] = []

    def hand(self, layered: bool, body: bytes = b"x" * 100, stands: Callable[[], bool] | None = None) -> Handover:
        transport = Gatherer(self.below, self.clock) if layered else self.below
        pump = Pump(Line(transport, layered), self.clock, 1000, lambda: self.broken.append(1))
        return Handover(pump, b"head", body, 60, self.settled.append, lambda: self.done.append(1), stands)

    def test_plain(self) -> None:
        """Without a layer: settled when the socket took the last byte; a part of it is not enough."""
        self.below.room = 63
        self.hand(False)
        self.watcher.run()
        self.assertEqual((self.settled, self.below.took), ([], b"head" + b"x" * 59))
        self.below.room = 1
        self.watcher.run()
        self.watcher.run()
        self.assertEqual(self.settled, [])
        self.below.room = 40
        self.watcher.run()
        self.assertEqual((self.settled, self.done, len(self.below.took)), ([100], [1], 104))
        self.assertIsNone(self.below.producer)

    def test_layered(self) -> None:
        """With a layer: a socket that is empty because the layer still holds everything counts nothing."""
        handover = self.hand(True)
        self.below.write(b"something of the layer's own")
        self.watcher.run()
        self.assertEqual((handover.taken, handover.written), (-1, 60))
        for _ in range(4):
            self.clock.advance(0)
            self.watcher.run()
        self.assertEqual((handover.taken, self.settled, self.done), (100, [100], [1]))

    def test_layered_and_full(self) -> None:
        """With a layer, and a socket that takes nothing: nothing is counted, however many turns go by; nor after it broke."""
        self.below.room = 0
        handover = self.hand(True)
        for _ in range(5):
            self.clock.advance(0)
            self.watcher.run()
        self.assertEqual((handover.taken, self.settled), (-1, []))
        handover.lost()
        self.clock.advance(0)
        self.assertEqual((self.settled, self.done), ([-1], []))

    def test_layered_lost_before_its_turn(self) -> None:
        """A handover that is lost leaves the next one on its own: no late turn of the former counts for it."""
        first = self.hand(True)
        first.lost()
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual((first.taken, self.settled, self.below.producer), (-1, [-1], None))

    def test_stands(self) -> None:
        """An answer that stands to its end goes out as any other, and leaves nothing behind on its connection."""
        self.hand(False, stands=lambda: True)
        for _ in range(3):
            self.watcher.run()
        self.assertEqual((self.settled, self.done, len(self.below.took), self.broken), ([100], [1], 104, []))
        self.hand(False, body=b"next", stands=None)
        self.watcher.run()
        self.assertEqual((self.settled, self.broken), ([100, 4], []))

    def test_falls_before_the_system_takes_it(self) -> None:
        """What was written, and ceased to stand before the operating system took it, does not go out: neither a portion that was not begun, nor the
        rest of one. It is settled with what was taken before."""
        for layered in (False, True):
            for room, turns in ((0, 1), (63, 1), (104, 0)):
                self.setUp()
                self.below.room, standing = room, [True]
                handover = self.hand(layered, stands=lambda standing=standing: bool(standing))
                for _ in range(4 * turns):
                    self.watcher.run()
                    self.clock.advance(0)
                took = len(self.below.took)
                standing.clear()
                self.below.room = 1000
                for _ in range(4):
                    self.watcher.run()
                    self.clock.advance(0)
                self.assertEqual((len(self.below.took), bool(self.broken)), (took, True), (layered, room))
                handover.lost()
                self.assertEqual((self.settled, self.done), ([-1], []))

    def test_falls_between_portions(self) -> None:
        """What was taken before it fell counts."""
        standing = [True]
        self.below.room = 64
        handover = self.hand(False, stands=lambda: bool(standing))
        self.watcher.run()
        standing.clear()
        self.below.room = 1000
        self.watcher.run()
        handover.lost()
        self.assertEqual((self.settled, self.done, len(self.below.took), bool(self.broken)), ([60], [], 64, True))
