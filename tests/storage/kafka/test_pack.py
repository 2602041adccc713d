"""Record batches, against the driver's own builder and reader."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from twisted.trial.unittest import SynchronousTestCase

from psubd.model import Record
from psubd.storage.kafka.records import NO_PRODUCER, VARINTS, pack, varint

CODES = {"none": 0, "gzip": 1}
ROOM = 1 << 20


def built(records: list[Record], compression: str, room: int, producer: tuple[int, int, int]) -> tuple[bytes, int]:
    """What the driver's builder makes of them, and how many fit."""
    builder = MemoryRecordsBuilder(2, CODES[compression], room, producer_id=producer[0], producer_epoch=producer[1], base_sequence=producer[2])
    count = 0
    for record in records:
        if builder.append(record.timestamp, record.key, record.value, record.headers) is None:
            break
        count += 1
    builder.close()
    return bytes(builder.buffer()), count


octets = st.one_of(st.none(), st.binary(max_size=70), st.binary(min_size=4000, max_size=4200))
headers = st.lists(st.tuples(st.text(max_size=9), octets), max_size=3).map(tuple)
stamps = st.one_of(st.integers(1_700_000_000_000, 1_700_000_009_000), st.integers(0, 1 << 61))
records = st.lists(st.builds(Record, st.just("t"), octets, octets, headers, st.just(0), stamps), min_size=1, max_size=12)
producers = st.one_of(st.just(NO_PRODUCER), st.tuples(st.integers(0, 1 << 40), st.integers(0, 99), st.integers(0, (1 << 31) - 1)))


class PackTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(records, producers, st.sampled_from(["none", "none", "gzip"]), st.one_of(st.just(ROOM), st.integers(70, 9_000)))
    def test_byte_for_byte(self, given: list[Record], producer: tuple[int, int, int], compression: Any, room: int) -> None:
        """Whatever the records, the producer, the compression and the room: the driver's bytes, of as many records."""
        packed = pack(given, compression, room, producer)
        data, count = built(given, compression, room, producer)
        self.assertIsNone(packed.unfit)
        self.assertEqual([record.timestamp for record in given[:count]], packed.timestamps)
        if compression == "none":
            self.assertEqual(data, packed.data)
        self.assertEqual(self.read(data), self.read(packed.data))  # gzip writes the time into its head

    @staticmethod
    def read(data: bytes) -> list[tuple[Any, ...]]:
        (batch,) = MemoryRecords(data)
        assert batch.validate_crc()
        return [(each.offset, each.timestamp, each.key, each.value, each.headers) for each in batch]

    def test_many_records(self) -> None:
        """More than the table of varints holds."""
        given = [Record("t", b"%d" % number, None, (), 0, 5 + number) for number in range(len(VARINTS) + 50)]
        self.assertEqual(built(given, "none", ROOM, (1, 2, 3))[0], pack(given, "none", ROOM, (1, 2, 3)).data)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(1, 150), st.integers(0, 2), st.sampled_from([0, 1, 60, 64, 4095, 4096]), st.booleans()), min_size=1, max_size=4
        ),
        st.one_of(st.just(ROOM), st.integers(70, 30_000)),
    )
    def test_runs(self, runs: list[tuple[int, int, int, bool]], room: int) -> None:
        """Values that follow each other, of one size and of the same time: the driver's bytes, of as many records, where a run begins, ends, and
        where its numbers grow longer."""
        given = [
            Record("t", bytes([number % 256]) * size, b"k" if keyed else None, (), 0, 1_000 + 50 * stamp)
            for count, stamp, size, keyed in runs
            for number in range(count)
        ]
        packed = pack(given, "none", room)
        data, count = built(given, "none", room, NO_PRODUCER)
        self.assertEqual((data, count), (packed.data, len(packed.timestamps)))

    def test_no_timestamp(self) -> None:
        """The time of packing, told."""
        packed = pack([Record("t", b"x"), Record("t", b"y")], "none", ROOM)
        self.assertEqual([stamp for _, stamp, *_ in self.read(packed.data)], packed.timestamps)
        self.assertGreater(min(packed.timestamps), 1_700_000_000_000)

    def test_what_cannot_be_written_ends_the_batch(self) -> None:
        """What stood before it is there; it is told what was wrong."""
        unfit: list[Any] = [Record("t", "text"), Record("t", b"", None, (("\ud800", b""),)), Record("t", b"", timestamp=1 << 80), Record("t", b"", 5)]
        for each in unfit:
            packed = pack([Record("t", b"a", None, (), 0, 1), each, Record("t", b"b")], "none", ROOM)
            self.assertEqual(1, len(packed.timestamps), each)
            self.assertIsNotNone(packed.unfit)
            self.assertEqual([b"a"], [value for *_, value, _ in self.read(packed.data)])
            self.assertEqual([], pack([each], "none", ROOM).timestamps)
        odd: Any = Record("t", "b", None, (), 0, 1)  # as large as the one before it
        self.assertEqual(
            (1, TypeError), (len((packed := pack([Record("t", b"a", None, (), 0, 1), odd], "none", ROOM)).timestamps), type(packed.unfit))
        )

    def test_varints(self) -> None:
        """Zigzag, as Kafka has them (Protocol Buffers' sint64)."""
        told = {0: "00", -1: "01", 1: "02", 63: "7e", 64: "8001", -65: "8101", 8191: "fe7f", 1 << 34: "8080808080 01".replace(" ", "")}
        self.assertEqual(told, {number: varint(number).hex() for number in told})
