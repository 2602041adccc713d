"""What has to be there before anything else: the chroot, its own znode, the parents."""

import secrets

import msgspec
from kazoo.exceptions import BadVersionError, NoAuthError, NodeExistsError

from psubd.errors import ConfigError
from psubd.registry.zookeeper import layout
from psubd.registry.zookeeper.client import Create, Exists, Get, Ground, Set, Sync
from psubd.registry.zookeeper.layout import Root
from psubd.registry.zookeeper.reader import Damaged
from psubd.registry.zookeeper.session import Session


class Replaced(Exception):
    """Another registry stands where the one stood that this node has read, or an older state of it (a backup): serials must not go back."""


async def prepare(session: Session, known: Root | None) -> Root:
    """Make what is not there, and read the root. Safe for nodes that start together.

    :param known: the root as this node has read it before.
    :raises ConfigError: it is something else, a newer psubd's, or these credentials may not have it. :raises Replaced:
    """
    try:
        root = await _root(session)
        if known is not None and root.id != known.id:
            raise Replaced
        if known is None:
            await _parents(session)
    except NoAuthError:
        raise ConfigError([f"registry: {session.place.shown}: ZooKeeper does not let this node in; see username and password"]) from None
    return root


async def _root(session: Session) -> Root:
    await session.ask(Ground())
    _, found = await session.batch(Sync(), Get(layout.ROOT))
    if isinstance(found, Exception):
        raise found
    data, stat = found
    if not data:
        try:
            fresh = Root(layout.FORMAT, secrets.token_hex(8), layout.SLOTS)
            await session.ask(Set(layout.ROOT, msgspec.json.encode(fresh), stat.version))
        except BadVersionError:
            return await _root(session)  # another node was first
        return fresh
    return judged(data, session.place.shown)


def judged(data: bytes, where: str) -> Root:
    """:raises ConfigError:"""
    try:
        root = msgspec.json.decode(data, type=Root)
    except msgspec.DecodeError:
        raise ConfigError([f"registry: {where} holds something else than psubd's registry; name another path"]) from None
    if root.format > layout.FORMAT:
        raise ConfigError([f"registry: {where} was written by a newer psubd (format {root.format}, this one knows {layout.FORMAT}); upgrade psubd"])
    return root


async def _parents(session: Session) -> None:
    """Those that are there stay as they are: a later psubd has more of them."""
    begun = {layout.LOG: layout.encode_head(layout.Head())}
    begun |= {layout.segment_path(number): layout.encode_segment(()) for number in range(layout.SEGMENTS)}
    paths = layout.parents()
    there = await session.batch(*map(Exists, paths))
    absent = [path for path, stat in zip(paths, there, strict=True) if stat is None]
    made = await session.batch(*(Create(path, begun.get(path, b"")) for path in absent))
    for path, result in zip(absent, made, strict=True):
        if isinstance(result, NoAuthError):
            raise result
        if isinstance(result, Exception) and not isinstance(result, NodeExistsError):
            raise Damaged(f"{path} cannot be made: {type(result).__name__}")
