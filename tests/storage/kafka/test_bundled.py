"""The records of one call, as they are given to an outbox."""

import uuid

from twisted.trial.unittest import SynchronousTestCase

from psubd.errors import PsubdError, TooLarge, TopicMissing
from psubd.model import Position, Record, StoredTopic, sizes
from psubd.storage.kafka.atlas import Chart
from psubd.storage.kafka.backend import Call, bundled
from psubd.storage.kafka.outbox import Bundle, Settled, count_of, records_of, size_of

CHARTS = {"t": Chart(StoredTopic("t", "uid", 3, 1, None, None, "delete", 100), uuid.uuid4(), (1, 1, 1))}


class BundledTests(SynchronousTestCase):
    def test_by_partition(self) -> None:
        """Those of one partition go as one, in their order; what is refused is told at once; each answer is at its record's place in the call."""
        records = [Record("t", b"%d" % number, None, (), partition) for number, partition in enumerate([0, 1, 0, 2, 0, 1, 9])]
        records += [Record("t", b"x" * 101, None, (), 0), Record("gone", b"")]
        call = Call(len(records))
        entries = bundled(records, CHARTS, call, 1.0, 2)
        self.assertEqual([[b"0", b"2", b"4"], [b"1", b"5"], [b"3"]], [[record.value for record in records_of([entry])] for entry in entries])
        self.assertEqual([True, True, False], [isinstance(entry, Bundle) for entry in entries])
        self.assertEqual([sum(map(size_of, records_of([entry]))) for entry in entries], [entry.size for entry in entries])
        self.assertNoResult(call.answer)
        for base, entry in zip((10, 20, 30), entries, strict=True):
            settled = Settled([entry], None, "t", entry.record.partition or 0, base, [5] * count_of([entry]))
            for each, result in settled.results():
                each.told(result)
        found: list[Position | PsubdError] = self.successResultOf(call.answer)
        self.assertEqual([10, 20, 11, 30, 12, 21], [result.offset for result in found if isinstance(result, Position)])
        self.assertEqual([TopicMissing, TooLarge, TopicMissing], [type(result) for result in found[6:]])

    def test_few_go_alone(self) -> None:
        """Where they are fewer than asked for."""
        records = [Record("t", b"a", None, (), 0), Record("t", b"b", None, (), 0)]
        entries = bundled(records, CHARTS, Call(2), 1.0, 3)
        self.assertEqual([False, False], [isinstance(entry, Bundle) for entry in entries])

    def test_sizes(self) -> None:
        """As each record's own, whatever it has."""
        records = [
            Record("t", value, key, headers)
            for value in (None, b"", b"ab")
            for key in (None, b"", b"k")
            for headers in ((), (("a", None), ("b", b"1")))
        ]
        self.assertEqual([record.size for record in records], sizes(records))
