"""The driver's record batches <-> `Message` and `Record`."""

from collections.abc import Sequence
from typing import Any

from kafka import errors
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.structs import TopicPartition

from psubd.model import Message, Record

MAGIC = 2
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
NO_PRODUCER = (-1, -1, -1)
NO_EPOCH = -1

OBJECT_BYTES = 300
"""What a message costs in memory beside its payload: measured with tracemalloc, rounded up."""


def decode(topic: str, partition: int, offset: int, data: bytes | None, aborted: Sequence[Any] | None) -> tuple[list[Message], int, int]:
    """The committed records of a fetched piece of the log from ``offset`` on, where the next fetch goes on (past markers, aborted records and what
    was compacted away), and the leader epoch of its last batch, -1 without any. `KafkaConsumer`'s own parser does it: CRCs, compression,
    transactions.

    What stands before a broken batch is given; the read that begins there fails.

    :raises KafkaError: for a broken batch at the place itself, or a compression whose package is not installed.
    """
    if not data:
        return [], offset, NO_EPOCH
    piece = Fetcher.PartitionRecords(
        offset, TopicPartition(topic, partition), MemoryRecords(data), isolation_level=IsolationLevel.READ_COMMITTED, aborted_transactions=aborted
    )
    try:
        messages = [Message(each.offset, each.timestamp, each.key, each.value, tuple(each.headers)) for each in piece.take()]
    except errors.KafkaError:
        raise
    except Exception as broken:  # the codecs raise what they like for what they cannot undo
        raise errors.CorruptRecordError(f"records at {offset} of {topic} {partition}: {type(broken).__name__}") from broken
    return messages, max(offset, piece.next_fetch_offset), int(piece.leader_epoch)


class BatchBuilder:
    """One batch of one partition, filled record by record.

    :param room: bytes that it may have; the first record always fits.
    """

    def __init__(self, compression: str, room: int, producer: tuple[int, int, int] = NO_PRODUCER) -> None:
        producer_id, epoch, sequence = producer
        self._builder = MemoryRecordsBuilder(MAGIC, CODECS[compression], room, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)

    def add(self, record: Record) -> int | None:
        """The record's timestamp, or None: it does not fit any more."""
        added = self._builder.append(record.timestamp, record.key, record.value, record.headers)
        return None if added is None else int(added.timestamp)

    def close(self) -> bytes:
        """The batch, ready to be sent (a bytearray: nobody copies it)."""
        self._builder.close()
        built: bytes = self._builder.buffer()
        return built
