"""What the gate looks things up in: the registry's entries decoded once, and turned round."""

from typing import TypeVar

import msgspec
from twisted.logger import Logger

from psubd.interfaces import ISnapshot
from psubd.model import Application, Binding, Bindings, CredentialKind, Key, Topic

T = TypeVar("T")


class Held(msgspec.Struct, frozen=True):
    """Whose key it is, and what kind."""

    application: str
    kind: CredentialKind
    key: Key


class Index:
    """Applications, topics, bindings both ways, and keys by digest; each change of the registry costs what it changed, not the whole.

    An application's dict of bindings is never changed, only replaced: a `psubd.model.Grant` may keep it.
    """

    log = Logger()

    def __init__(self) -> None:
        self.applications: dict[str, Application] = {}
        self.topics: dict[str, Topic] = {}
        self.bindings: dict[str, dict[str, Binding]] = {}
        self.by_topic: dict[str, dict[str, Binding]] = {}
        self.keys: dict[str, Held] = {}

    def load(self, snapshot: ISnapshot) -> None:
        """Take in all that is there."""
        for parent in ("/applications", "/topics", "/bindings"):
            for name in snapshot.children(parent):
                self.update(snapshot, f"{parent}/{name}")

    def update(self, snapshot: ISnapshot, path: str) -> set[str]:
        """Take in what stands at ``path`` now; the applications that it matters to."""
        _, parent, name = path.split("/", 2)
        if parent == "applications":
            self._put_application(name, self._decoded(snapshot, path, Application))
            return {name}
        if parent == "topics":
            self._put_topic(name, self._decoded(snapshot, path, Topic))
            return set(self.by_topic.get(name, ()))
        if parent == "bindings":
            found = self._decoded(snapshot, path, Bindings)
            self._put_bindings(name, {} if found is None else found.items)
            return {name}
        return set()

    def _decoded(self, snapshot: ISnapshot, path: str, shape: type[T]) -> T | None:
        entry = snapshot.get(path)
        if entry is None:
            return None
        try:
            return msgspec.json.decode(entry.data, type=shape)
        except msgspec.DecodeError as broken:
            # Nobody gets in by what cannot be read; the others are not shut out for it.
            self.log.error("the registry's {path} cannot be read and counts as absent: {why}", path=path, why=str(broken))
            return None

    def _put_application(self, id: str, now: Application | None) -> None:
        former = self.applications.pop(id, None)
        for _, key in () if former is None else keys_of(former):
            self.keys.pop(key.digest, None)
        if now is not None:
            self.applications[id] = now
            for kind, key in keys_of(now):
                self.keys[key.digest] = Held(id, kind, key)

    def _put_topic(self, id: str, now: Topic | None) -> None:
        if now is None:
            self.topics.pop(id, None)
        else:
            self.topics[id] = now

    def _put_bindings(self, application: str, now: dict[str, Binding]) -> None:
        former = self.bindings.pop(application, {})
        if now:
            self.bindings[application] = now
        for topic in former.keys() - now.keys():
            bound = self.by_topic[topic]
            del bound[application]
            if not bound:
                del self.by_topic[topic]
        for topic, binding in now.items():
            if former.get(topic) != binding:
                self.by_topic.setdefault(topic, {})[application] = binding


def keys_of(application: Application) -> list[tuple[CredentialKind, Key]]:
    """Every key of the application with its kind."""
    kinds: list[tuple[CredentialKind, tuple[Key, ...]]] = [
        ("pubkey", application.pubkeys),
        ("secret", application.secrets),
        ("subkey", application.subkeys),
    ]
    return [(kind, key) for kind, keys in kinds for key in keys]
