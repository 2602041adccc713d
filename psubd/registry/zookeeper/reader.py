"""Reading the tree from ZooKeeper: all of it, or what changes have left."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from kazoo.exceptions import NoNodeError

from psubd.interfaces import Entry
from psubd.registry.tree import ROOTS
from psubd.registry.zookeeper import layout
from psubd.registry.zookeeper.client import Children, Get, Operation, Sync
from psubd.registry.zookeeper.layout import Head, Logged, Ref
from psubd.registry.zookeeper.session import Session

PORTION = 2_000
"""Reads that are asked for together: as many results are taken in one turn of the reactor."""


class Damaged(Exception):
    """What stands in ZooKeeper is not what psubd writes."""


class Moved(Exception):
    """It was changed while it was read; read it again."""


class Log(NamedTuple):
    """``/log`` as it was read; ``version`` is the znode's."""

    head: Head
    version: int


class Found(NamedTuple):
    """What stands at a path: the entry, and where its data is if it is not there itself."""

    entry: Entry
    ref: Ref | None


class Everything(NamedTuple):
    """The whole tree as of ``log``, and the changes that are kept, with the blobs that they refer to."""

    log: Log
    found: dict[str, Found]
    changes: list[Logged]
    blobs: set[str]


class Reader:
    """All methods fail with Unsent or Lost where the connection goes, and with Damaged."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def log(self, sync: bool) -> Log:
        """The log, watched. ``sync``: as of all that was answered anywhere before the call."""
        asked: list[Operation] = [Sync()] if sync else []
        stored, stat = checked((await self._session.batch(*asked, Get(layout.LOG, watch=True)))[-1], layout.LOG)
        return Log(decoded(layout.LOG, layout.decode_head, stored), stat.version)

    async def since(self, after: int, head: Head) -> list[Logged] | None:
        """The changes after ``after`` up to ``head``'s, with their paths; None: they are not all kept any more."""
        needed = head.needs(after)
        return None if needed is None else await self._whole(await self._entries(needed, after, head))

    async def _entries(self, needed: Sequence[int], after: int, head: Head) -> list[Logged]:
        """The changes after ``after`` as they are written, from the segments ``needed`` and the head."""
        entries = [entry for each in await self._segments(needed) for entry in each] + list(head.entries)
        wanted = [entry for entry in entries if entry.serial > after]
        if [entry.serial for entry in wanted] != list(range(after + 1, head.serial + 1)):
            raise Moved
        return wanted

    async def at(self, last: Mapping[str, tuple[bool, int]]) -> dict[str, Found | None]:
        """What stands at the paths. ``last``: what the newest change of each did (`layout.last_of`).

        :raises Moved: where one of them was changed again since.
        """
        standing = [path for path, (stands, _) in last.items() if stands]
        found: dict[str, Found | None] = dict.fromkeys(last)
        found.update(await self._read(standing))
        for path in standing:
            there = found[path]
            if there is None or there.entry.serial != last[path][1]:
                raise Moved
        return found

    async def everything(self) -> Everything:
        """The whole tree. Reads it as it stands, then again what was changed meanwhile, until nothing was."""
        log = await self.log(sync=True)
        found: dict[str, Found] = {}
        for root in sorted(ROOTS):
            names, _ = checked(await self._session.ask(Children(root)), root)
            found.update(await self._read([f"{root}/{name}" for name in names], moving=True))
        seen = -1
        while True:
            later = await self.log(sync=False)
            seen = beyond(seen, later.head)
            try:
                since = await self.since(log.head.serial, later.head)
                if since is None:
                    return await self.everything()
                for path, there in (await self.at(layout.last_of(since))).items():
                    found.pop(path, None)
                    if there is not None:
                        found[path] = there
                return Everything(later, found, *await self._kept(later.head))
            except Moved:
                continue

    async def _kept(self, head: Head) -> tuple[list[Logged], set[str]]:
        """The changes that the log goes back, in order, and the blobs that it refers to."""
        oldest = max(0, head.before - layout.SEGMENTS * layout.SEGMENT)
        written = await self._entries(head.needs(oldest) or [], oldest, head)
        blobs = {Ref.of(entry.paths).blob for entry in written if isinstance(entry.paths, str)}
        return await self._whole(written), blobs

    async def _segments(self, numbers: Sequence[int]) -> list[tuple[Logged, ...]]:
        paths = [layout.segment_path(number) for number in numbers]
        results = await self._session.batch(*map(Get, paths)) if paths else []
        return [decoded(path, layout.decode_segment, checked(result, path)[0]) for path, result in zip(paths, results, strict=True)]

    async def _whole(self, entries: Sequence[Logged]) -> list[Logged]:
        """The changes with their paths, wherever those stand."""
        elsewhere = {entry.paths: Ref.of(entry.paths) for entry in entries if isinstance(entry.paths, str)}
        stored = await self._stored(set(elsewhere.values()))
        return [entry if isinstance(entry.paths, tuple) else with_paths(entry, stored.get(elsewhere[entry.paths])) for entry in entries]

    async def _read(self, paths: Sequence[str], moving: bool = False) -> dict[str, Found]:
        """What stands at those of the paths at which something does. ``moving``: leave out what was changed meanwhile, instead of `Moved`."""
        found: dict[str, Found] = {}
        for start in range(0, len(paths), PORTION):
            portion = paths[start : start + PORTION]
            results = zip(portion, await self._session.batch(*map(Get, portion)), strict=True)
            found.update(
                await self._found([(path, *checked(result, path)) for path, result in results if not isinstance(result, NoNodeError)], moving)
            )
        return found

    async def _found(self, read: Sequence[tuple[str, bytes, Any]], moving: bool) -> dict[str, Found]:
        values = [(path, decoded(path, layout.decode, stored), stat.version) for path, stored, stat in read]
        stored = await self._stored({value.data for _, value, _ in values if isinstance(value.data, Ref)})
        found: dict[str, Found] = {}
        for path, value, version in values:
            ref = value.data if isinstance(value.data, Ref) else None
            data = stored.get(ref) if ref is not None else value.data
            if data is not None:
                found[path] = Found(value._replace(data=data).entry(version), ref)
            elif not moving:
                raise Moved
        return found

    async def _stored(self, refs: Collection[Ref]) -> dict[Ref, bytes]:
        """The bytes that stand elsewhere, each piece read once. Those that are gone are left out: what referred to them was changed."""
        pieces = sorted({piece for ref in refs for piece in ref.pieces})
        results = await self._session.batch(*map(Get, pieces)) if pieces else []
        there = {piece: checked(result, piece)[0] for piece, result in zip(pieces, results, strict=True) if not isinstance(result, NoNodeError)}
        return {ref: ref.cut(there[piece] for piece in ref.pieces) for ref in refs if all(piece in there for piece in ref.pieces)}


def with_paths(entry: Logged, stored: bytes | None) -> Logged:
    """:raises Moved: its paths are gone: it is no longer kept."""
    if stored is None:
        raise Moved
    return msgspec.structs.replace(entry, paths=decoded(layout.LOG, layout.decode_paths, stored))


def beyond(seen: int, head: Head) -> int:
    """The log's serial, where another look at it was needed since something had moved.

    :raises Damaged: it is the same as at the look before: it was not psubd that moved it.
    """
    if head.serial == seen:
        raise Damaged("a path is not as the log says; was it edited by hand?")
    return head.serial


def checked(result: Any, path: str) -> Any:
    """The result. :raises Damaged: where it is a refusal."""
    if isinstance(result, Exception):
        raise Damaged(f"{path} cannot be read: {type(result).__name__}")
    return result


def decoded(path: str, decode: Any, stored: bytes) -> Any:
    """:raises Damaged:"""
    try:
        return decode(stored)
    except ValueError as wrong:  # msgspec's errors are ValueErrors
        raise Damaged(f"{path} holds what psubd did not write: {wrong}") from None


def refs_of(found: Mapping[str, Found]) -> Iterable[tuple[str, Ref]]:
    """Where the data of those is that have it elsewhere."""
    return ((path, there.ref) for path, there in found.items() if there.ref is not None)
