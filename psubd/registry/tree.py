"""The whole tree in memory, and what a write does to it. Every registry keeps one; where the tree is stored is the registry's own."""

import re
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

import msgspec
from zope.interface import implementer

from psubd.errors import TooLarge
from psubd.interfaces import Delete, Entry, ISnapshot, Put

ROOTS = frozenset({"/applications", "/topics", "/bindings", "/tokens", "/groups", "/instances", "/redrives", "/secrets"})
"""The parents of all paths; they need not be made."""

DATA_LIMIT = 1 << 20
"""Bytes at one path: ZooKeeper's default ``jute.maxbuffer``; held everywhere, so that a registry can move to ZooKeeper."""

PATH = re.compile(r"(/[a-z]+)/((?!\.{1,2}\Z)[!-.0-~]{1,300})")
"""One name below a root: printable ASCII without the slash; ``.`` and ``..`` are none (ZooKeeper refuses them)."""


class Step(msgspec.Struct, frozen=True):
    """What one write leaves at a path; None: nothing."""

    path: str
    entry: Entry | None


@implementer(ISnapshot)
class Tree:
    """Paths with their entries, as of ``serial``. Reading is what `ISnapshot` says; `put`, `drop` and ``serial`` are for the owner alone."""

    def __init__(self) -> None:
        self.serial = 0
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, list[str]] = {}
        self._listed: dict[str, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, path: str) -> Entry | None:
        return self._entries.get(path)

    def children(self, parent: str) -> Sequence[str]:
        # A tuple, kept until a name comes or goes: nobody can write into it, and listing again costs nothing.
        listed = self._listed.get(parent)
        if listed is None:
            listed = self._listed[parent] = tuple(self._names.get(parent, ()))
        return listed

    def entries(self) -> Iterable[tuple[str, Entry]]:
        """Every path with what stands there, in no order."""
        return self._entries.items()

    def put(self, path: str, entry: Entry) -> None:
        """Let ``entry`` stand at ``path``."""
        if path not in self._entries:
            parent, name = parts(path)
            insort(self._names.setdefault(parent, []), name)
            self._listed.pop(parent, None)
        self._entries[path] = entry

    def drop(self, path: str) -> None:
        """Take away what stands at ``path``. :raises KeyError: where nothing does."""
        del self._entries[path]
        parent, name = parts(path)
        names = self._names[parent]
        del names[bisect_left(names, name)]
        self._listed.pop(parent, None)

    def take(self, serial: int, steps: Sequence[Step]) -> None:
        """Do ``steps``; the tree is then as of ``serial``."""
        for step in steps:
            if step.entry is None:
                self.drop(step.path)
            else:
                self.put(step.path, step.entry)
        self.serial = serial


def parts(path: str) -> tuple[str, str]:
    """Parent and name. :raises ValueError: for a path that cannot be."""
    found = PATH.fullmatch(path)
    if found is None or found[1] not in ROOTS:
        raise ValueError(f"not a path of the registry: {path!r}")
    return found[1], found[2]


def steps_of(tree: Tree, writes: Sequence[Put | Delete], serial: int) -> list[Step]:
    """What ``writes`` will leave, if they are made now as the change ``serial``.

    :raises ValueError: a plan that cannot be meant: no write, a path twice, a delete where nothing stands, not a path.
    :raises TooLarge: more than `DATA_LIMIT` bytes at one path.
    """
    if not writes or len({write.path for write in writes}) != len(writes):
        raise ValueError("a plan writes each of its paths once, and one at least")
    return [step_of(tree, write, serial) for write in writes]


def step_of(tree: Tree, write: Put | Delete, serial: int) -> Step:
    """One write of a plan; raises as `steps_of` does."""
    parts(write.path)
    present = tree.get(write.path)
    if isinstance(write, Delete):
        if present is None:
            raise ValueError(f"a plan deletes what is not there: {write.path}")
        return Step(write.path, None)
    if len(write.data) > DATA_LIMIT:
        raise TooLarge(f"{write.path} would hold {len(write.data)} bytes; a path of the registry holds at most {DATA_LIMIT}")
    return Step(write.path, Entry(write.data, 1 if present is None else present.version + 1, serial))
