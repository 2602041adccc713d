"""What this node knows of the registry: the tree, the last changes, and who wants to hear of new ones."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from twisted.logger import Logger

from psubd.interfaces import Change, Entry, ISnapshot, Plan
from psubd.registry.tree import Step, Tree, steps_of

KEPT_CHANGES = 1000
"""Changes that `IRegistry.history` goes back."""


class Mirror:
    """The registry as it stands in memory. The registry loads it once, drafts each change on it, and shows it once it is stored."""

    log = Logger()

    def __init__(self) -> None:
        self.tree = Tree()
        self._changes: deque[Change] = deque(maxlen=KEPT_CHANGES)
        self._listeners: dict[object, Callable[[Change], None]] = {}

    def load(self, entries: Iterable[tuple[str, Entry]], changes: Iterable[Change]) -> None:
        """Begin with what is stored; the changes in order, the last of them the newest that there is."""
        for path, entry in entries:
            self.tree.put(path, entry)
        self._changes.extend(changes)
        self.tree.serial = self._changes[-1].serial if self._changes else 0

    def draft(self, actor: str, plan: Callable[[ISnapshot, int], Plan], at_ms: int) -> tuple[Change, list[Step]]:
        """The change that ``plan`` makes of the tree as it is now, and what it will leave. Writes nothing; what the plan raises comes out."""
        serial = self.tree.serial + 1
        drawn = plan(self.tree, serial)
        steps = steps_of(self.tree, drawn.writes, serial)
        return Change(serial, at_ms, actor, drawn.what, tuple(step.path for step in steps)), steps

    def show(self, change: Change, steps: Sequence[Step]) -> None:
        """A drafted change is stored: let it be seen, and tell the listeners."""
        self.tree.take(change.serial, steps)
        self._changes.append(change)
        for ear, listener in list(self._listeners.items()):
            if ear in self._listeners:  # not ended by one before it
                self._tell(listener, change)

    def listen(self, changed: Callable[[Change], None]) -> Callable[[], None]:
        ear = object()
        self._listeners[ear] = changed

        def end() -> None:
            self._listeners.pop(ear, None)

        return end

    def history(self, after: int) -> Sequence[Change]:
        if not self._changes:
            return []
        known = max(0, after - self._changes[0].serial + 1)
        return list(self._changes)[known:]

    def _tell(self, listener: Callable[[Change], None], change: Change) -> None:
        try:
            listener(change)
        except Exception:  # noqa: BLE001 - one listener's bug is nobody else's
            self.log.failure("a listener failed on change {serial}", serial=change.serial)
