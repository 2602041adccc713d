"""Orders of coming one after another: work that many ask for at once, one thing at a time for each name, many things but not too many."""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred, DeferredList, DeferredLock, DeferredSemaphore
from twisted.python.failure import Failure

T = TypeVar("T")
Job = Coroutine[Deferred[Any], Any, T]


class Rounds:
    """Runs a job on demand, one run at a time. Whoever asks gets the outcome of a run that *began* after the ask, and shares it with the others.

    :param job: makes one run.
    """

    def __init__(self, job: Callable[[], Job[None]]) -> None:
        self._job = job
        self._waiting: list[Deferred[None]] = []
        self._running = False

    def next(self) -> "Deferred[None]":
        """Fires after such a run, or fails with what it failed with. Cancel to wait no longer; the run goes on."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        self._begin()
        return waiter

    def _begin(self) -> None:
        if not self._running and self._waiting:
            self._running = True
            waiters, self._waiting = self._waiting, []
            Deferred.fromCoroutine(self._job()).addBoth(self._ended, waiters)

    def _ended(self, outcome: "Failure | None", waiters: "list[Deferred[None]]") -> None:
        self._running = False
        for waiter in waiters:
            if waiter.called:
                continue
            if isinstance(outcome, Failure):
                waiter.errback(outcome)
            else:
                waiter.callback(None)
        self._begin()


class Locks:
    """One thing at a time for each name: ``async with locks.of(name)``. A lock that nobody holds or waits for is forgotten."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, DeferredLock] = WeakValueDictionary()

    def of(self, name: str) -> DeferredLock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = DeferredLock()
        return lock

    async def passed(self, whose: Callable[[str], bool]) -> None:
        """Wait until what goes on now under those names is over, and what waits for it by now."""
        for lock in [lock for name, lock in list(self._locks.items()) if whose(name) and lock.locked]:
            async with lock:
                pass


async def outcomes(jobs: Iterable[Job[T]], at_once: int = 16) -> "list[T | Failure]":
    """What each of ``jobs`` gave or failed with, in order; so many run at a time."""
    turn = DeferredSemaphore(at_once)

    async def in_turn(job: Job[T]) -> T:
        async with turn:
            return await job

    pairs = await DeferredList([Deferred.fromCoroutine(in_turn(job)) for job in jobs], consumeErrors=True)
    return [outcome for _, outcome in pairs]


async def all_of(jobs: Iterable[Job[T]], at_once: int = 16) -> list[T]:
    """What each of ``jobs`` gave, in order. :raises Exception: what the first in order that failed failed with, once all have ended."""
    found: list[T] = []
    for outcome in await outcomes(jobs, at_once):
        if isinstance(outcome, Failure):
            outcome.raiseException()
        else:
            found.append(outcome)
    return found


def carried_through(work: Job[T]) -> "Deferred[T]":
    """The work's result. Cancelling gives up the result only: half of a registration, or of a reset, is worse than one that nobody waits for."""
    waited: Deferred[T] = Deferred()
    Deferred.fromCoroutine(work).addCallbacks(waited.callback, waited.errback)
    return waited
