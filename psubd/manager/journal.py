"""What the events tell: the registry's changes, who looked at a tenant's messages on this node, and what befell its groups.

The latter two change nothing that is registered, and a registry numbers changes only. So these asides are kept here, the last 1,000 of this
process, and stand behind the change that came before them: change 12, asides 12.1, 12.2, change 13. Each is a line of the log too, which
outlives the process.
"""

from collections import deque
from collections.abc import Callable

import msgspec
from twisted.logger import Logger

from psubd.interfaces import Change, IClock, IRegistry

KEPT_ASIDES = 1000
Place = tuple[int, int]

log = Logger()


class Told(msgspec.Struct, frozen=True):
    """A change, or (``aside`` > 0) the aside of that number since the change ``change.serial``."""

    change: Change
    aside: int = 0

    @property
    def place(self) -> Place:
        return self.change.serial, self.aside

    @property
    def id(self) -> str:
        """As an event's id: ``12`` or ``12.1``."""
        return f"{self.change.serial}.{self.aside}" if self.aside else str(self.change.serial)


Ear = Callable[[Told], None]


class Journal:
    def __init__(self, registry: IRegistry, clock: IClock) -> None:
        self._registry, self._clock = registry, clock
        self._asides: deque[Told] = deque(maxlen=KEPT_ASIDES)
        self._ears: dict[object, Ear] = {}

    def look(self, actor: str, what: str) -> None:
        """Somebody looked. To be told before what was seen is."""
        log.info("audit: {actor}: {what}", actor=actor, what=what)
        self._aside(actor, what)

    def befell(self, what: str) -> None:
        """Something came about by itself, and is in the log already."""
        self._aside("psubd", what)

    def since(self, place: Place) -> list[Told]:
        """What came behind the place, of what is kept, in order."""
        changes = [Told(change) for change in self._registry.history(place[0])]
        return sorted(changes + [told for told in self._asides if told.place > place], key=lambda told: told.place)

    def lost(self, after: int) -> int | None:
        """Up to which change those behind the change ``after`` are no longer kept; None: all are. An ``after`` that is yet to come is another
        registry's: all that this one has is news."""
        newest = self._registry.snapshot().serial
        if after > newest:
            return newest
        kept = self._registry.history(after)
        first = kept[0].serial if kept else newest + 1
        return first - 1 if first > after + 1 else None

    def listen(self, ear: Ear) -> Callable[[], None]:
        """Call ``ear`` for everything that comes. Returns what ends it."""
        key = object()
        self._ears[key] = ear
        deaf = self._registry.listen(lambda change: ear(Told(change)))

        def end() -> None:
            self._ears.pop(key, None)
            deaf()

        return end

    def _aside(self, actor: str, what: str) -> None:
        serial = self._registry.snapshot().serial
        told = Told(Change(serial, self._clock.epoch_ms(), actor, what, ()), self._asides_since(serial) + 1)
        self._asides.append(told)
        for ear in list(self._ears.values()):
            ear(told)

    def _asides_since(self, serial: int) -> int:
        last = self._asides[-1] if self._asides else None
        return last.aside if last is not None and last.change.serial == serial else 0
