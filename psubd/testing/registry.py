"""A registry in memory: the double for tests of what uses one."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from psubd import __version__
from psubd.errors import PsubdError, RegistryUnavailable
from psubd.interfaces import Change, IClock, INodes, IRegistry, ISnapshot, Plan
from psubd.registry.mirror import Mirror


class Asked:
    """A change that somebody waits for."""

    def __init__(self, actor: str, plan: Callable[[ISnapshot, int], Plan]) -> None:
        self.actor, self.plan = actor, plan
        self.done: Deferred[Change] = Deferred()


@implementer(IRegistry, INodes)
class MemoryRegistry:
    """All at once: a change is made, shown and answered before `change` returns. To be started like any other.

    :param past: a registry whose tree, history and epoch this one begins with: what a restart finds.
    :param beside: a registry that shares its tree with this one, as that of another node: each change is shown to both at once.
    :ivar refuse: set it, and every change fails with it and writes nothing.
    :ivar held: set it, and changes wait until `release`.
    """

    def __init__(self, clock: IClock, past: "MemoryRegistry | None" = None, beside: "MemoryRegistry | None" = None) -> None:
        self._clock = clock
        self._mirror = Mirror()
        self._queue: deque[Asked] = deque()
        self._running = self._busy = False
        self.refuse: PsubdError | None = None
        self.held = False
        self.node_id = "memory"
        self.epoch = 0
        self._started_ms = 0
        self._nodes: list[MemoryRegistry] = [] if beside is None else beside._nodes
        self._nodes.append(self)
        found = past or beside
        if found is not None:
            self._inherit(found)

    def _inherit(self, past: "MemoryRegistry") -> None:
        self._mirror.load(past._mirror.tree.entries(), past.history(0))
        self.epoch = past.epoch

    def start(self) -> Deferred[None]:
        self._running = True
        self.epoch += 1
        self._started_ms = self._clock.epoch_ms()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        self.release()
        self._running = False
        return succeed(None)

    def snapshot(self) -> ISnapshot:
        return self._mirror.tree

    def change(self, actor: str, plan: Callable[[ISnapshot, int], Plan]) -> Deferred[Change]:
        if not self._running:
            return fail(RegistryUnavailable("the registry is not running; nothing was changed"))
        asked = Asked(actor, plan)
        self._queue.append(asked)
        self._go_on()
        return asked.done

    def sync(self) -> Deferred[None]:
        return succeed(None)

    def listen(self, changed: Callable[[Change], None]) -> Callable[[], None]:
        return self._mirror.listen(changed)

    def history(self, after: int) -> Sequence[Change]:
        return self._mirror.history(after)

    def trouble(self) -> str | None:
        if not self._running:
            return "the registry is not running"
        return None if self.refuse is None else self.refuse.detail

    def nodes(self) -> Sequence[Mapping[str, Any]]:
        return [
            {
                "id": self.node_id,
                "version": __version__,
                "mode": "pubsub",
                "started_ms": self._started_ms,
                "address": None,
                "eligible": True,
                "self": True,
            }
        ]

    def release(self) -> None:
        """Make the changes that were held."""
        self.held = False
        self._go_on()

    def _go_on(self) -> None:
        # A listener, or who waits for a change, may ask for the next one: it waits its turn in the queue.
        if self._busy or self.held:
            return
        self._busy = True
        while self._queue and not self.held:
            self._make(self._queue.popleft())
        self._busy = False

    def _make(self, asked: Asked) -> None:
        if asked.done.called:  # cancelled while it waited
            return
        try:
            if self.refuse is not None:
                raise self.refuse
            change, steps = self._mirror.draft(asked.actor, asked.plan, self._clock.epoch_ms())
        except Exception:  # noqa: BLE001 - what a plan raises is its caller's
            asked.done.errback(Failure())
            return
        for node in self._nodes:
            node._mirror.show(change, steps)
        asked.done.callback(change)
