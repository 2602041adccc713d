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
from psubd.storage.kafka.records import decode
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
