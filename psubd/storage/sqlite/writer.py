"""The one thread that writes: it takes all that waits, stores it in one transaction, and says so in one report."""

from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue

from psubd.errors import StorageTimeout, StorageUnavailable
from psubd.storage.sqlite.requests import Alter, Append, Close, Configure, Drop, Probe, Report, Request, SweepNow, Write
from psubd.storage.sqlite.store import Store
from psubd.storage.sqlite.sweep import steps

BATCH_BYTES = 32 * 1024 * 1024
"""Payload in one transaction, at most one request's more: what a client waits behind stays bounded."""


class Writer:
    """The loop of the writer's thread; `run` is the thread's body.

    No timer and no polling: an idle writer sleeps in ``get``. Requests that come while a transaction is under way gather, and share the next one.

    :param report: hands a report to the reactor's thread.
    """

    def __init__(self, store: Store, report: Callable[[Report], None]) -> None:
        self._store = store
        self._report = report
        self._queue: SimpleQueue[Request] = SimpleQueue()
        self._sweep: Iterator[Report] | None = None
        self._sweep_again: int | None = None
        self._kept_back: Request | None = None

    def put(self, request: Request) -> None:
        """Hand a request over, from any thread."""
        self._queue.put(request)

    def run(self) -> None:
        """Work until `Close`; everything put before it is done then."""
        while True:
            batch = self._take()
            if batch and isinstance(batch[0], Close):
                return
            if batch:
                self._work(batch)
            elif self._sweep is not None:
                self._sweep_on(self._sweep)

    def _take(self) -> Sequence[Request]:
        """All writes that wait, or one request of another kind. While a sweep goes on: empty, if nothing waits. Then it has a step after each."""
        first, self._kept_back = self._kept_back, None
        if first is None:
            first = self._next(wait=self._sweep is None)
        if first is None or not isinstance(first, Write):
            return [] if first is None else [first]
        batch: list[Request] = [first]
        size = _size(first)
        while size < BATCH_BYTES and (request := self._next(wait=False)) is not None:
            if not isinstance(request, Write):
                self._kept_back = request
                break
            batch.append(request)
            size += _size(request)
        return batch

    def _next(self, wait: bool) -> Request | None:
        try:
            return self._queue.get(block=wait)
        except Empty:
            return None

    def _work(self, batch: Sequence[Request]) -> None:
        first = batch[0]
        if isinstance(first, Write):
            self._report(self._store.write([request for request in batch if isinstance(request, Write)]))
        elif isinstance(first, SweepNow):
            self._begin_sweep(first.now)
        elif isinstance(first, Probe):
            self._report(self._store.probe())
        elif isinstance(first, Alter):
            self._report(self._store.alter(first))
            if isinstance(first, Configure | Drop):
                self._begin_sweep(first.now)
        if self._sweep is not None:
            self._sweep_on(self._sweep)

    def _begin_sweep(self, now: int) -> None:
        if self._sweep is None:
            self._sweep = steps(self._store, now)
        else:
            self._sweep_again = now

    def _sweep_on(self, sweep: Iterator[Report]) -> None:
        try:
            report = next(sweep)
        except StopIteration:
            self._end_sweep()
        except (StorageUnavailable, StorageTimeout) as error:
            self._end_sweep()
            self._report(Report(tried=True, fault=error.detail))
        except Exception as bug:  # noqa: BLE001 - a bug in retention must not end the writer
            self._end_sweep()
            self._report(Report(complaint=f"retention failed: {bug!r}"))
        else:
            if report.moved or report.complaint:
                self._report(report)

    def _end_sweep(self) -> None:
        again, self._sweep_again = self._sweep_again, None
        self._sweep = None if again is None else steps(self._store, again)


def _size(request: Request) -> int:
    return request.size if isinstance(request, Append) else 0
