"""What is registered, read from this node's snapshot of the registry.

A thing's version for ``ETag`` and ``If-Match`` is the serial of the change that wrote it last. A count of its writes would begin anew with one
that is deleted and made again, and an old ``If-Match`` would hit another thing.
"""

from typing import TypeVar

import msgspec

from psubd.errors import NotFound
from psubd.interfaces import IRegistry
from psubd.model import Application, Bindings, Group, Token, Topic

T = TypeVar("T", Application, Topic, Token, Group)

PLACES: dict[type, tuple[str, str]] = {
    Application: ("/applications", "application"),
    Topic: ("/topics", "topic"),
    Token: ("/tokens", "token"),
    Group: ("/groups", "group"),
}


class Records:
    """Typed reading of the registry."""

    def __init__(self, registry: IRegistry) -> None:
        self._registry = registry

    def names(self, kind: type) -> list[str]:
        """The names of all of that kind, sorted."""
        return list(self._registry.snapshot().children(PLACES[kind][0]))

    def find(self, kind: type[T], name: str) -> tuple[T, int] | None:
        """The thing and its version, or None. A name from a path may be anything: one with a slash is nobody's."""
        entry = None if "/" in name else self._registry.snapshot().get(f"{PLACES[kind][0]}/{name}")
        return None if entry is None else (msgspec.json.decode(entry.data, type=kind), entry.serial)

    def get(self, kind: type[T], name: str) -> tuple[T, int]:
        """The thing and its version. :raises NotFound:"""
        found = self.find(kind, name)
        if found is None:
            raise NotFound(f"{PLACES[kind][1]} {name[:200]!r} is not registered")
        return found

    def some(self, kind: type[T], names: list[str]) -> list[tuple[T, int]]:
        """Those of the names that are there."""
        return [found for name in names if (found := self.find(kind, name)) is not None]

    def bindings(self, application: str) -> Bindings:
        """The application's bindings by topic; empty where it has none."""
        entry = None if "/" in application else self._registry.snapshot().get(f"/bindings/{application}")
        return Bindings() if entry is None else msgspec.json.decode(entry.data, type=Bindings)

    def bound(self) -> list[str]:
        """The applications that have bindings, sorted."""
        return list(self._registry.snapshot().children("/bindings"))
