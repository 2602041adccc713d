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


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, 0 to ``partitions`` - 1: Java's ``toPositive(murmur2(key)) % partitions``."""
    return (murmur2(key) & POSITIVE) % partitions


class Spread:
    """Partitions for records without a key: one after another, for each topic on its own.

    Any run of n records over p partitions gives each n/p of them, one more or less. It begins at a random partition, so that many processes
    that each publish little do not all publish to the first.
    """

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}

    def next(self, topic: str, partitions: int) -> int:
        """The next record's partition, 0 to ``partitions`` - 1."""
        turn = self._turns.get(topic)
        turn = randbelow(partitions) if turn is None else turn + 1
        self._turns[topic] = turn
        return turn % partitions
