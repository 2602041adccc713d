"""What is registered, read from a snapshot and written into a plan, as values."""

from collections.abc import Collection, Mapping
from typing import TypeVar

import msgspec

from psubd.errors import InUse, NotFound, VersionMismatch
from psubd.interfaces import Delete, ISnapshot, Put
from psubd.model import Application, Binding, Bindings, Group, Token, Topic
from psubd.services.group_records import named_below

T = TypeVar("T")

PATH_LIMIT = 1 << 20
"""Bytes at one path of the registry (`psubd.interfaces.ISnapshot`)."""

FEW = 8
"""Up to so many topics are looked for in the bindings' bytes before anything is decoded; more cost more than decoding."""


class Rolls:
    """A snapshot, decoded at each question. Lives as long as one plan."""

    def __init__(self, snapshot: ISnapshot) -> None:
        self._snapshot = snapshot

    def application(self, id: str) -> Application:
        """:raises NotFound:"""
        return self._there("application", id, Application)

    def topic(self, id: str) -> Topic:
        """:raises NotFound:"""
        return self._there("topic", id, Topic)

    def token(self, name: str) -> Token:
        """:raises NotFound:"""
        return self._there("token", name, Token)

    def has(self, kind: str, id: str) -> bool:
        """``kind``: ``application``, ``topic``, ``token``, ``redrive``."""
        return self._snapshot.get(f"/{kind}s/{id}") is not None

    def check_version(self, kind: str, id: str, if_match: int | None) -> None:
        """:raises VersionMismatch: where the caller saw another version of it than the present one: the serial of the change that wrote it."""
        entry = self._snapshot.get(f"/{kind}s/{id}")
        check_version(f"{kind} {id}", None if entry is None else entry.serial, if_match)

    def bindings(self, application: str) -> dict[str, Binding]:
        """The application's bindings by topic; a dict of the caller's own."""
        found = self._found(f"/bindings/{application}", Bindings)
        return {} if found is None else found.items

    def naming(self, topics: Collection[str]) -> list[str]:
        """The applications whose bindings are on one of the topics, or name one as dead-letter topic; maybe some more."""
        quoted = [f'"{topic}"'.encode() for topic in topics]
        return [name for name in self._snapshot.children("/bindings") if self._mentions(f"/bindings/{name}", quoted)]

    def owned_by(self, application: str) -> list[Topic]:
        """The topics that the application owns, sorted."""
        quoted = [f'"{application}"'.encode()]
        maybe = [name for name in self._snapshot.children("/topics") if self._mentions(f"/topics/{name}", quoted)]
        return [topic for name in maybe if (topic := self.topic(name)).owner == application]

    def group(self, name: str) -> Group | None:
        return self._found(f"/groups/{name}", Group)

    def groups_of(self, application: str) -> list[Group]:
        """The application's own group, if there is one, then the named ones, sorted."""
        return [group for name in named_below(self._snapshot, "/groups", application) if (group := self.group(name)) is not None]

    def with_instances(self, application: str) -> list[str]:
        """The application's groups that consumer instances were made in, sorted; a group of that name need not be there yet."""
        return named_below(self._snapshot, "/instances", application)

    def tokens(self) -> list[Token]:
        return [self.token(name) for name in self._snapshot.children("/tokens")]

    def _there(self, kind: str, id: str, shape: type[T]) -> T:
        found = self._found(f"/{kind}s/{id}", shape)
        if found is None:
            raise NotFound(f"{kind} {id[:200]!r} is not registered")
        return found

    def _found(self, path: str, shape: type[T]) -> T | None:
        entry = self._snapshot.get(path)
        return None if entry is None else msgspec.json.decode(entry.data, type=shape)

    def _mentions(self, path: str, quoted: Collection[bytes]) -> bool:
        entry = self._snapshot.get(path)
        return entry is not None and (len(quoted) > FEW or any(name in entry.data for name in quoted))


def check_version(what: str, present: int | None, if_match: int | None) -> None:
    """:raises VersionMismatch: where the caller saw another version; ``present`` None: there is none."""
    if if_match is not None and if_match != present:
        now = "is not there" if present is None else f"has version {present}"
        raise VersionMismatch(f"{what} {now}, not version {if_match}; read it again and decide anew")


def put(path: str, value: object) -> Put:
    """``value`` as JSON at ``path``."""
    return Put(path, msgspec.json.encode(value))


def put_bindings(application: str, items: Mapping[str, Binding]) -> Put | Delete:
    """All of an application's bindings, which were there or are some.

    :raises InUse: where they do not fit at their path.
    """
    path = f"/bindings/{application}"
    if not items:
        return Delete(path)
    written = put(path, Bindings(dict(items)))
    if len(written.data) > PATH_LIMIT:
        raise InUse(
            f"application {application} has too many bindings: {len(items)} take {len(written.data)} bytes of {PATH_LIMIT}; "
            "delete some, or use a second application"
        )
    return written
