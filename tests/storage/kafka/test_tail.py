"""The tail, where its line ends."""

import gc
import uuid
import warnings
from types import SimpleNamespace
from typing import Any

from kafka import errors
from twisted.trial.unittest import SynchronousTestCase

from psubd.storage.kafka.line import Line
from psubd.storage.kafka.settings import convert
from psubd.storage.kafka.tail import Reader, Tail


class EndingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.line = Line("tail", (), {"request_timeout_ms": 1000}, width=0)
        atlas: Any = SimpleNamespace(kick=lambda: None)
        self.tail = Tail(self.line, atlas, convert({}), lambda arrived: None)
        self.reader = Reader("orders", 0, 0, uuid.uuid4())

    def test_stopped(self) -> None:
        """A tail that has stopped begins nothing, and no coroutine that nobody would await, also where its line has ended."""
        self.tail.stop()
        for _ in range(2):
            self.tail._failed(self.reader, errors.NotLeaderForPartitionError)
            self.tail._failed(self.reader, errors.OffsetOutOfRangeError)
            self.tail._reseat()
            self.assertEqual(len(self.line.net._pending_tasks), 0)
            self.line.net.close()

    def test_ended(self) -> None:
        """Where the line has ended before the tail was told, nothing is left that Python would warn of."""
        self.line.net.close()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.assertRaises(RuntimeError, self.tail._reseat)
            gc.collect()
        self.assertEqual([str(each.message) for each in caught], [])
