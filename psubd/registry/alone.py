"""Who serves which groups where there is one node: it serves all."""

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from zope.interface import implementer

from psubd.errors import InUse
from psubd.interfaces import Claim, IClock, IMembership, INodes, Member

FOREVER_MS = 1 << 62
"""A moment that never comes."""


@implementer(IMembership)
class Alone:
    """One slot, held from the start on with the node's epoch; its lease never ends.

    :param nodes: there once the registry has started.
    """

    log = Logger()
    slots = 1

    def __init__(self, nodes: INodes, clock: IClock) -> None:
        self._nodes, self._clock = nodes, clock
        self._held = True
        self._eligible, self._load = False, 0
        self._address: str | None = None
        self._listeners: dict[object, Callable[[], None]] = {}

    @property
    def key(self) -> str:
        return f"{self._nodes.node_id}-{self._nodes.epoch:x}"

    def members(self) -> Mapping[str, Member]:
        [node] = self._nodes.nodes()
        told = {name: node[name] for name in ("id", "version", "mode", "started_ms")}
        return {self.key: Member(key=self.key, address=self._address, eligible=self._eligible, load=self._load, self=True, **told)}

    def claims(self) -> Mapping[int, Claim]:
        return {0: Claim(self.key, self._nodes.epoch)} if self._held else {}

    def epoch_of(self, slot: int) -> int | None:
        return self._nodes.epoch if self._held and slot == 0 else None

    def lease_ends_ms(self) -> int:
        return FOREVER_MS

    def session_ms(self) -> int:
        return 0

    def claim(self, slot: int) -> Deferred[int]:
        if slot != 0:
            return fail(InUse(f"there is no slot {slot} on a single node"))
        self._hold(True)
        return succeed(self._nodes.epoch)

    def release(self, slot: int) -> Deferred[None]:
        self._hold(self._held and slot != 0)
        return succeed(None)

    def declare(self, eligible: bool, load: int) -> Deferred[None]:
        told = (eligible, load) != (self._eligible, self._load)
        self._eligible, self._load = eligible, load
        self._tell(told)
        return succeed(None)

    def locate(self, address: str | None) -> Deferred[None]:
        told, self._address = address != self._address, address
        self._tell(told)
        return succeed(None)

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        ear = object()
        self._listeners[ear] = changed

        def end() -> None:
            self._listeners.pop(ear, None)

        return end

    def _hold(self, held: bool) -> None:
        told, self._held = held != self._held, held
        self._tell(told)

    def _tell(self, changed: bool) -> None:
        for listener in list(self._listeners.values()) if changed else ():
            try:
                listener()
            except Exception:  # noqa: BLE001 - one listener's bug is nobody else's
                self.log.failure("a listener of the membership failed")
