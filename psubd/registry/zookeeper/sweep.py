"""Blobs that nothing refers to: of changes that were not made after all, or of a node that ended before it removed them."""

from collections.abc import Iterable

from psubd.registry.zookeeper import layout
from psubd.registry.zookeeper.client import Children, Delete, Exists
from psubd.registry.zookeeper.session import Session

AGE_MS = 3_600_000
"""Younger ones may belong to a change that another node is about to make."""


async def sweep(session: Session, used: Iterable[str], now_at: str) -> int:
    """Remove what is not used and old; how many znodes that were. Fails with Unsent and Lost.

    :param used: names of blobs. :param now_at: a path that was made just now: its time is ZooKeeper's.
    """
    names, _ = await session.ask(Children(layout.BLOBS))
    in_use = set(used)
    idle = [f"{layout.BLOBS}/{name}" for name in names if name.rpartition("-")[0] not in in_use]
    if not idle:
        return 0
    now, *stats = await session.batch(Exists(now_at), *map(Exists, idle))
    if now is None or isinstance(now, Exception):
        return 0
    old = [path for path, stat in zip(idle, stats, strict=True) if hasattr(stat, "ctime") and now.mtime - stat.ctime > AGE_MS]
    await session.batch(*map(Delete, old))
    return len(old)
