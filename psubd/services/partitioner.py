"""Which partition a record goes to: as the Java client has it for records with a key, an even spread for those without.

The hash is Kafka's variant of MurmurHash2 (``org.apache.kafka.common.utils.Utils.murmur2``), so that a key lands on the same partition
whether psubd or a Java producer publishes it, on every storage.
"""

import struct
from functools import lru_cache
from secrets import randbelow

SEED = 0x9747B28C
MIX = 0x5BD1E995
SHIFT = 24
WORD = 0xFFFFFFFF
POSITIVE = 0x7FFFFFFF

RUN_BYTES = 16_384
"""Kafka's ``batch.size``, which ends a run in the Java client (KIP-794)."""
RUN_MS = 10
"""So that a reader of one partition does not wait for what seldom comes to the others; longer than a batch takes to gather under load."""
RECORD_BYTES = 20
"""What a record takes beside its payload, about: an empty one counts too."""

SHORT = 64
"""Bytes of a key whose hash is kept: so many of them take about 3 MiB."""


@lru_cache(maxsize=256)
def words(count: int) -> struct.Struct:
    """The format of ``count`` little-endian 32-bit words. Keys are short, so there are few different ones."""
    return struct.Struct(f"<{count}I")


def murmur2(data: bytes) -> int:
    """The hash of ``data`` as Java's ``int``, from -2**31 to 2**31 - 1."""
    length = len(data)
    hashed = SEED ^ length
    for word in words(length >> 2).unpack_from(data):
        word = word * MIX & WORD
        hashed = (hashed * MIX & WORD) ^ ((word ^ word >> SHIFT) * MIX & WORD)
    rest = length & 3
    if rest:
        hashed = (hashed ^ int.from_bytes(data[-rest:], "little")) * MIX & WORD
    hashed = (hashed ^ hashed >> 13) * MIX & WORD
    hashed ^= hashed >> 15
    return hashed - 0x1_0000_0000 if hashed > POSITIVE else hashed


@lru_cache(maxsize=16_384)
def known(key: bytes) -> int:
    """`murmur2`, for keys that come again and again."""
    return murmur2(key)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, 0 to ``partitions`` - 1: Java's ``toPositive(murmur2(key)) % partitions``."""
    return ((known(key) if len(key) <= SHORT else murmur2(key)) & POSITIVE) % partitions


class Spread:
    """Partitions for records without a key: one after another, for each topic on its own, and each for a run of records.

    What comes together goes to one partition, so that a storage gets few large batches instead of one for each partition, as the Java client
    does it (KIP-480, KIP-794). A run ends after `RUN_BYTES` or `RUN_MS`: all partitions get as many bytes in the long run, and records that come
    one by one go round. It begins at a random partition, so that many processes that each publish little do not all publish to the first.
    """

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}

    def next(self, topic: str, partitions: int, size: int, now: int, alone: bool = False) -> int:
        """The next record's partition, 0 to ``partitions`` - 1.

        :param size: of its payload, in bytes. :param now: ms of a clock, which may jump: a run ends early then.
        :param alone: no other record is on its way to the storage: there is nothing that it could go together with.
        """
        run = self._runs.get(topic)
        if run is None:
            run = self._runs[topic] = Run(randbelow(partitions), now)
        elif alone or run.left <= 0 or not 0 <= now - run.begun < RUN_MS:
            run.turn, run.left, run.begun = run.turn + 1, RUN_BYTES, now
        run.left -= size + RECORD_BYTES
        return run.turn % partitions


class Run:
    """Records that follow each other to one partition. :ivar left: bytes that it still takes."""

    __slots__ = ("begun", "left", "turn")

    def __init__(self, turn: int, now: int) -> None:
        self.turn, self.begun, self.left = turn, now, RUN_BYTES
