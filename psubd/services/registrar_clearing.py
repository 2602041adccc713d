"""What goes along when topics go, or an application."""

from collections.abc import Collection

import msgspec

from psubd.interfaces import Delete, Put
from psubd.model import Binding, Group
from psubd.services.registrar_rolls import Rolls, put, put_bindings


class Clearing:
    """The writes of a change that takes topics away, and what it took along.

    :param serial: of the change.
    :ivar bindings: that went, as ``shop/orders``. :ivar dead_letters: that stay without their dead-letter topic and ``max_attempts``.
    :ivar groups: that went. :ivar places: (group, topic) whose places in the storage are to be forgotten; topic None: all.
    """

    def __init__(self, rolls: Rolls, serial: int) -> None:
        self._rolls, self._serial = rolls, serial
        self.writes: list[Put | Delete] = []
        self.bindings: list[str] = []
        self.dead_letters: list[str] = []
        self.groups: list[str] = []
        self.places: list[tuple[str, str | None]] = []

    def drop_topics(self, topics: Collection[str], but: str | None = None) -> None:
        """The topics go, and every binding on them; ``but``: an application whose bindings go anyhow."""
        for topic in sorted(topics):
            self.writes.append(Delete(f"/topics/{topic}"))
        for application in self._rolls.naming(topics) if topics else ():
            if application != but:
                self._strip(application, topics)

    def drop_application(self, id: str) -> None:
        """The application goes, with its bindings, groups and consumer instances."""
        self.writes.append(Delete(f"/applications/{id}"))
        items = self._rolls.bindings(id)
        if items:
            self.writes.append(put_bindings(id, {}))
        self.bindings += [f"{id}/{topic}" for topic in items]
        for group in self._rolls.groups_of(id):
            self.writes.append(Delete(f"/groups/{group.name}"))
            if self._rolls.has("redrive", group.name):
                self.writes.append(Delete(f"/redrives/{group.name}"))
            self.groups.append(group.name)
            self.places.append((group.name, None))
        self.writes += [Delete(f"/instances/{name}") for name in self._rolls.with_instances(id)]

    def drop_places(self, application: str, topics: Collection[str]) -> None:
        """The application's groups stand on the topics no more."""
        for group in self._rolls.groups_of(application):
            gone = [topic for topic in group.topics if topic in topics]
            if gone:
                self.writes.append(put(f"/groups/{group.name}", without(group, gone)))
                self.places += [(group.name, topic) for topic in gone]

    def what_went(self) -> dict[str, list[str]]:
        """By kind, for who forced it."""
        return {"bindings": sorted(self.bindings), "dead_letters": sorted(self.dead_letters), "groups": self.groups}

    def _strip(self, application: str, topics: Collection[str]) -> None:
        items = self._rolls.bindings(application)
        kept: dict[str, Binding] = {}
        for topic, binding in items.items():
            if topic in topics:
                self.bindings.append(f"{application}/{topic}")
            elif binding.dead_letter in topics:
                self.dead_letters.append(f"{application}/{topic}")
                kept[topic] = msgspec.structs.replace(binding, dead_letter=None, max_attempts=None, version=self._serial)
            else:
                kept[topic] = binding
        if kept != items:
            self.writes.append(put_bindings(application, kept))
            self.drop_places(application, topics)


def without(group: Group, topics: Collection[str]) -> Group:
    return msgspec.structs.replace(group, topics={topic: place for topic, place in group.topics.items() if topic not in topics})
