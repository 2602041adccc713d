"""What a channel does between two reads: it waits for something that may be broken off, and tells who wants to know that no read is on its way."""

from twisted.internet.defer import Deferred

from psubd.interfaces import IClock


class Waits:
    """One wait at a time."""

    def __init__(self, clock: IClock) -> None:
        self._clock = clock
        self._on: Deferred[None] | None = None
        self._told: list[Deferred[None]] = []

    def __bool__(self) -> bool:
        return self._on is not None

    async def on(self, waited: "Deferred[None]", go: bool = True) -> None:
        """Wait for it. :param go: False: it is broken off at once. :raises CancelledError: it was broken off."""
        if not go:
            waited.cancel()
        self._on = waited
        self.tell()
        try:
            await waited
        finally:
            self._on = None

    def sleep(self, ms: int) -> "Deferred[None]":
        """What fires in ``ms``."""
        waiter: Deferred[None] = Deferred(lambda cancelled: timer.cancel())
        timer = self._clock.call_later(ms, waiter.callback, None)
        return waiter

    def end(self) -> None:
        """Break it off."""
        waited, self._on = self._on, None
        if waited is not None:
            waited.cancel()

    def quiet(self) -> "Deferred[None]":
        """Fires at the next `tell`."""
        waiter: Deferred[None] = Deferred()
        self._told.append(waiter)
        return waiter

    def tell(self) -> None:
        """No read is on its way."""
        told, self._told = self._told, []
        for waiter in told:
            if not waiter.called:
                waiter.callback(None)
