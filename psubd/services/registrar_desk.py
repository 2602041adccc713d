"""What the parts of the registrar share."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from psubd.errors import PsubdError
from psubd.interfaces import IClock, IRegistry, ISnapshot, IStorage, Plan
from psubd.services.registrar_rolls import Rolls
from psubd.services.rounds import carried_through

T = TypeVar("T")

Draw = Callable[[Rolls, int], tuple[T, Plan]]
"""What a change makes, and what it writes, from what is registered and the serial to come. Pure: it may be called again."""


class Desk:
    """One registrar's registry, storage and clock, and how it goes about a change."""

    log = Logger()

    def __init__(self, registry: IRegistry, storage: IStorage, clock: IClock, max_message_bytes: int) -> None:
        self._registry, self._storage, self._clock = registry, storage, clock
        self._max_message_bytes = max_message_bytes
        self._turn = DeferredLock()

    async def _make(self, actor: str, draw: Draw[T]) -> T:
        """Make the change that ``draw`` draws; what it made of the snapshot that counted."""
        drawn: list[T] = []

        def plan(snapshot: ISnapshot, serial: int) -> Plan:
            made, writes = draw(Rolls(snapshot), serial)
            drawn[:] = [made]
            return writes

        await self._registry.change(actor, plan)
        return drawn[0]

    def _in_turn(self, work: Callable[[], Coroutine[Any, Any, T]]) -> "Deferred[T]":
        """One after another: what touches the storage and the registry both. Another node may still come between; the plans see it."""

        async def alone() -> T:
            await self._turn.acquire()
            try:
                return await work()
            finally:
                self._turn.release()

        return carried_through(alone())

    def _now(self) -> Rolls:
        return Rolls(self._registry.snapshot())

    async def _forget(self, group: str, topic: str | None) -> None:
        """Drop a group's places. They count no more by then (`psubd.services.places.todays`), so a storage that is away costs space only."""
        try:
            await self._storage.forget(group, topic)
        except PsubdError as failed:
            self.log.warn("places of group {group} stay in the storage, where they count no more: {why}", group=group, why=failed.detail)
