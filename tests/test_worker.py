"""What a worker says, and when it ends."""

import os
import signal
from typing import Any
from unittest import mock

import msgspec
from twisted.internet.error import ConnectionDone, ConnectionLost, ReactorNotRunning
from twisted.internet.testing import MemoryReactor
from twisted.logger import ILogObserver, Logger, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from psubd import worker
from psubd.worker import Leash, Speaker, Word


class SpeakerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.end, handle = os.pipe()
        self.speaker = Speaker(handle)
        self.addCleanup(os.close, handle)
        self.addCleanup(lambda: self.end >= 0 and os.close(self.end))

    def said(self) -> list[Word]:
        return [msgspec.json.decode(line, type=Word) for line in os.read(self.end, 1 << 16).splitlines()]

    def test_log(self) -> None:
        """Each event is one line: its time, its level, who logs, and its text, with the traceback; an event without text is none."""
        self.assertTrue(verifyObject(ILogObserver, self.speaker))
        log = Logger("psubd.some", observer=LogPublisher(self.speaker))
        log.warn("{what} of\ntwo lines", what="a text")
        log.info("")
        try:
            raise KeyError("lost")
        except KeyError:
            log.failure("it failed")
        warned, failed = self.said()
        self.assertEqual((warned.level, warned.system, warned.text), ("warn", "psubd.some#warn", "a text of\ntwo lines"))
        self.assertGreater(warned.time, 1e9)
        self.assertEqual(failed.text.splitlines()[0], "it failed")
        self.assertIn("KeyError: 'lost'", failed.text)

    def test_system(self) -> None:
        """Twisted's own events say where they come from by themselves."""
        self.speaker({"log_system": "-", "log_format": "Site starting"})
        (word,) = self.said()
        self.assertEqual((word.system, word.text, word.level), ("-", "Site starting", "info"))

    def test_ports(self) -> None:
        """What ports.json says, as it is."""
        self.speaker.ports(b'{"manager":1}')
        (word,) = self.said()
        self.assertEqual((bytes(word.ports), word.text), (b'{"manager":1}', ""))

    def test_nobody_hears(self) -> None:
        """A worker whose starter is gone goes on to its end."""
        os.close(self.end)
        self.end = -1
        self.speaker({"log_format": "into the void"})


class LeashTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ended: list[str] = []
        self.handle, self.starter = os.pipe()
        self.addCleanup(os.close, self.handle)
        self.leash = Leash(mock.Mock(), lambda: self.ended.append("end"), self.handle)

    def test_reads(self) -> None:
        """What is written there is not looked at; the end of the other process is the end."""
        self.assertEqual(self.leash.fileno(), self.handle)
        os.write(self.starter, b"nonsense")
        self.assertIsNone(self.leash.doRead())
        os.close(self.starter)
        self.assertIsInstance(self.leash.doRead(), ConnectionDone)

    def test_ends(self) -> None:
        """It is told once the pipe has ended, and not where this process's own reactor lets go of it."""
        self.leash.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.ended, [])
        self.leash.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.ended, ["end"])
        os.close(self.starter)

    def test_follow(self) -> None:
        """From the reactor's start it watches its standard input, and stops as on SIGTERM, once; Ctrl-C is not its own."""
        os.close(self.starter)
        reactor: Any = MemoryReactor()
        reactor.stop = mock.Mock(side_effect=[None, ReactorNotRunning()])
        with mock.patch("signal.signal") as set_signal:
            worker.follow(reactor)
        set_signal.assert_called_once_with(signal.SIGINT, signal.SIG_IGN)
        self.assertEqual(reactor.getReaders(), [])
        ((call, given, named),) = reactor.whenRunningHooks
        call(*given, **named)
        (leash,) = reactor.getReaders()
        self.assertEqual(leash.fileno(), 0)
        for _ in range(2):
            leash.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(reactor.stop.call_count, 2)
