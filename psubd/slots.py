"""Which slot a group falls into, and which node should have a slot. The same on every node, in every version."""

from collections.abc import Iterable
from hashlib import blake2b


def slot_of(group: str, slots: int) -> int:
    """The slot, from 0, of the group with that full name."""
    return int.from_bytes(blake2b(group.encode(), digest_size=8).digest()) % slots


def rendezvous(slot: int, keys: Iterable[str]) -> str | None:
    """Which of the members (`psubd.interfaces.Member.key`) should have the slot; None: there is none.

    The highest hash of slot and node *id* wins, so that a node that comes or goes moves its own slots only, and one that was started again
    gets its slots back. Two keys of one id: the greater key.
    """
    return max(keys, key=lambda key: (_weight(slot, id_of(key)), key), default=None)


def id_of(key: str) -> str:
    """The node's id in a member key, ``<id>-<session>``."""
    return key.rpartition("-")[0]


def _weight(slot: int, node: str) -> bytes:
    return blake2b(f"{slot} {node}".encode(), digest_size=8).digest()
