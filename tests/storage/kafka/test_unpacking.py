"""Our parser of record batches against the driver's own."""

import struct

from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.structs import TopicPartition
from twisted.trial.unittest import SynchronousTestCase

from psubd.model import Message
from psubd.storage.kafka.records import CHECKED, UNCHECKED, decode, sized, varint
from psubd.storage.kafka.unpacking import BEFORE_CRC, HEADER, Odd, unpack

GZIP = 1
BODIES = st.none() | st.binary(max_size=40) | st.sampled_from([b"", b"x" * 63, b"x" * 64, b"x" * 8191, b"x" * 8192])
HEADERS = st.lists(st.tuples(st.text(max_size=70), BODIES), max_size=4)
STAMPS = st.integers(0, 2**42) | st.sampled_from([0, 1, 63, 64, 8191, 8192, 2**40])
RECORDS = st.lists(st.tuples(STAMPS, BODIES, BODIES, HEADERS), min_size=1, max_size=8)


def by_driver(offset, data):
    """What `KafkaConsumer` reads."""
    piece = Fetcher.PartitionRecords(
        offset, TopicPartition("t", 0), MemoryRecords(data), isolation_level=IsolationLevel.READ_COMMITTED, aborted_transactions=None
    )
    messages = [Message(each.offset, each.timestamp, each.key, each.value, tuple(each.headers)) for each in piece.take()]
    return messages, max(offset, piece.next_fetch_offset), piece.leader_epoch


def batch(records, compression=0, base=0):
    builder = MemoryRecordsBuilder(2, compression, 1 << 24)
    for timestamp, key, value, headers in records:
        builder.append(timestamp, key, value, headers)
    builder.close()
    data = bytearray(builder.buffer())
    data[:8] = base.to_bytes(8)
    return bytes(data)


def altered(data, field, value):
    """The first batch with another value in its header, and a CRC that fits."""
    fields = list(HEADER.unpack_from(data))
    fields[field] = value
    length = struct.unpack_from(">i", data, 8)[0] + 12
    whole = bytearray(data)
    HEADER.pack_into(whole, 0, *fields)
    whole[17:21] = crc32c(bytes(whole[BEFORE_CRC:length])).to_bytes(4)
    return bytes(whole)


EPOCH, ATTRIBUTES, LAST_DELTA, LAST_MS, COUNT = 2, 5, 6, 8, 12
PLAIN = [(1000, b"k", b"v", []), (1001, None, None, [("a", b"1"), ("a", None)]), (999, b"", b"", [])]


RUNS = st.lists(
    st.tuples(
        st.integers(1, 200),  # records
        st.sampled_from([None, b"", b"k", b"key-1", b"k" * 70]),
        st.sampled_from([None, b"", b"v", b"x" * 63, b"x" * 64, b"x" * 100]),
        st.sampled_from([0, 1, 50, -1, -70, 9000]),  # ms from one to the next, in thirds
        st.sampled_from([1, 1, 1, 2, 70]),  # and its offset
        st.sampled_from([(), (("a", b"1"),)]),
    ),
    min_size=1,
    max_size=5,
)


def alike(runs):
    """A batch of runs of records of one size each, whose keys and values differ, with the offsets that compaction left."""
    parts, delta, stamp, count = [], -1, 0, 0
    for records, key, value, ms, step, headers in runs:
        for number in range(records):
            delta, stamp, count = delta + step, stamp + (ms if number % 3 == 0 else 0), count + 1
            key, value = turned(key, number), turned(value, number)
            shown = b"".join(sized(name.encode()) + sized(each) for name, each in headers)
            fields = [
                varint(stamp),
                varint(delta),
                *(varint(-1) if each is None else sized(each) for each in (key, value)),
                varint(len(headers)),
                shown,
            ]
            parts.append(sized(b"\0" + b"".join(fields)))
    body = b"".join(parts)
    checked = CHECKED.pack(0, delta, 1_000_000, 1_000_000 + stamp, -1, -1, -1, count)
    return UNCHECKED.pack(0, len(checked + body) + HEADER.size - len(checked) - 12, 0, 2, crc32c(checked + body)) + checked + body


def turned(data, number):
    """The same with another first byte."""
    return bytes([number % 256]) + data[1:] if data else data


class UnpackTests(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(st.lists(RECORDS, min_size=1, max_size=3), st.sampled_from([0, GZIP]), st.integers(0, 30))
    def test_as_the_driver(self, batches, compression, offset):
        """Whatever is in a batch, packed or not, is read as the driver reads it, from any offset in it."""
        data, base = b"", 0
        for records in batches:
            data += batch(records, compression, base)
            base += len(records) + 2  # compaction took what is between
        self.assertEqual(unpack(offset, data), by_driver(offset, data))

    @settings(max_examples=150, deadline=None)
    @given(RUNS, st.integers(0, 400), st.booleans())
    def test_runs_of_records_that_are_alike(self, runs, offset, stamped_by_broker):
        """Records of one size that follow each other are read as the driver reads them, wherever a run begins, changes or ends, with offsets that
        compaction took out and timestamps that go back; also where the broker gave them its own."""
        data = alike(runs)
        if stamped_by_broker:
            data = altered(data, ATTRIBUTES, 0x08)
        self.assertEqual(unpack(offset, data), by_driver(offset, data))

    def test_a_long_run(self):
        """10,000 records of one size, past the offsets and times whose numbers take more bytes."""
        data = alike([(10_000, b"k", b"x" * 100, 1, 1, ())])
        for offset in (0, 1, 63, 64, 700, 8191, 8192, 9_999, 10_000):
            self.assertEqual(unpack(offset, data), by_driver(offset, data))
        self.assertEqual([message.offset for message in unpack(0, data)[0]], list(range(10_000)))

    def test_odd_within_a_run(self):
        """A byte that is changed within a run, under a CRC that fits, is read as the driver reads it, or left to it."""
        data = alike([(150, b"k", b"v" * 3, 1, 1, ())])
        for at in range(HEADER.size + 700, HEADER.size + 760):
            for flip in (0x01, 0x02, 0x80, 0xFF):
                changed = altered(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :], EPOCH, 0)
                try:
                    ours = unpack(0, changed)
                except Odd:
                    continue
                self.assertEqual(ours, by_driver(0, changed), (at, flip))

    def test_batches_that_are_not_data(self):
        """Control batches are passed over; a leader's epoch, the broker's own timestamps and offsets that compaction took off the end count."""
        data = batch(PLAIN)
        for field, value in [(EPOCH, 7), (ATTRIBUTES, 0x30), (ATTRIBUTES, 0x08), (LAST_DELTA, 9), (LAST_MS, 77)]:
            changed = altered(data, field, value)
            self.assertEqual(unpack(0, changed), by_driver(0, changed), field)
        self.assertEqual({message.timestamp for message in unpack(0, altered(data, ATTRIBUTES, 0x08))[0]}, {1001})
        self.assertEqual(unpack(0, altered(data, ATTRIBUTES, 0x20))[:2], ([], 3))

    def test_a_batch_that_is_not_whole(self):
        """What a fetch cut off is left for the next one, wherever the cut is."""
        first, second = batch(PLAIN), batch(PLAIN, base=3)
        for size in range(len(second)):
            self.assertEqual(unpack(0, first + second[:size]), by_driver(0, first + second[:size]))
        self.assertEqual(unpack(5, second[:20]), ([], 5, -1))

    def test_what_is_odd_is_left_to_the_driver(self):
        """Every single byte that is changed behind the length is noticed, and never taken for records."""
        data = batch(PLAIN)
        for at in range(16, len(data)):
            changed = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
            self.assertRaises(Odd, unpack, 0, changed)

    def test_odd_with_a_crc_that_fits(self):
        """A body that says other lengths than it has, or another number of records, is not taken for records either: the driver judges it."""
        data = batch(PLAIN)
        for at in range(HEADER.size, len(data)):
            for flip in (0x01, 0x02, 0x80, 0xFF):
                changed = altered(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :], EPOCH, 0)
                try:
                    ours = unpack(0, changed)
                except Odd:
                    continue
                self.assertEqual(ours, by_driver(0, changed), (at, flip))
        for count in (0, 2, 4, -1):
            self.assertRaises(Odd, unpack, 0, altered(data, COUNT, count))

    def test_decode_uses_it(self):
        """`decode` gives the same, and the driver's refusal of what is broken."""
        data = batch(PLAIN)
        self.assertEqual(decode("t", 0, 0, data, []), unpack(0, data))
        self.assertEqual(decode("t", 0, 0, bytearray(data), None), unpack(0, data))
        with self.assertRaises(Exception) as caught:
            decode("t", 0, 0, data[:-1] + b"\xff", [])
        self.assertEqual(type(caught.exception).__name__, "CorruptRecordError")
