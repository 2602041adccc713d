"""The thread on which a blocking store is called."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

P = ParamSpec("P")
R = TypeVar("R")


class Lane:
    """One named thread that makes blocking calls in the order in which they were asked for.

    Not a `twisted.python.threadpool.ThreadPool`: its ``stop`` holds the reactor until the slowest call has ended.

    :param reactor: IReactorFromThreads: brings the results back.
    """

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor = reactor
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ended: Deferred[None] = Deferred()
        # A daemon thread: a process that ends without `stop` (a failed start) must not hang on it.
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def call(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        """Call it on the thread, after what was asked for before. Cancelling gives up the result; the call is made all the same."""
        done: Deferred[R] = Deferred()

        def job() -> None:
            try:
                result = call(*args, **kwargs)
            except BaseException:  # noqa: BLE001 - whatever it was goes to who asked
                self._reactor.callFromThread(done.errback, Failure())
            else:
                self._reactor.callFromThread(done.callback, result)

        self._jobs.put(job)
        return done

    def stop(self) -> Deferred[None]:
        """Fires when all that was asked for is done and the thread ends. To be called once, after `start`."""
        self._jobs.put(None)
        return self._ended

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        self._reactor.callFromThread(self._ended.callback, None)
