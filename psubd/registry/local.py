"""The registry of one node: an SQLite file, and the whole of it in memory."""

import os
import socket
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from psubd import __version__
from psubd.errors import PsubdError, RegistryUnavailable, StorageTimeout
from psubd.interfaces import Change, Environment, IClock, INodes, IRegistry, IRegistryFactory, ISnapshot, Plan
from psubd.registry.lane import Lane
from psubd.registry.mirror import Mirror
from psubd.registry.store import Store, plain
from psubd.registry.tree import Step

AGAIN_MS = 1000
"""Wait before another look at a file that could not be written or read."""


class Asked:
    """A change that somebody waits for."""

    def __init__(self, actor: str, plan: Callable[[ISnapshot, int], Plan]) -> None:
        self.actor, self.plan = actor, plan
        self.done: Deferred[Change] = Deferred()


@implementer(IRegistry, INodes)
class LocalRegistry:
    """Reads come from memory; changes go one after another through one thread to the file, and are seen once they are on the disk.

    A write that fails changes nothing and fails its change with RegistryUnavailable. Where it cannot be told whether it was written, the
    file is read again until it can; meanwhile other changes are refused. Only a stop in the middle of that leaves it open: StorageTimeout.
    After a failure `trouble` says why until a write goes through.

    :param path: the file; its folder must exist. A lock file and SQLite's own files stand beside it.
    :param reactor: IReactorFromThreads.
    :param mode: what this node serves, for `nodes`.
    """

    log = Logger()

    def __init__(self, path: str, clock: IClock, reactor: Any, metrics: CollectorRegistry | None = None, mode: str = "pubsub") -> None:
        self._clock = clock
        self._mode = mode
        self.store = Store(path)
        self.lane = Lane(reactor, "psubd-registry")
        self._mirror = Mirror()
        self._queue: deque[Asked] = deque()
        self._running = self._busy = self._in_doubt = False
        self._idle: list[Deferred[None]] = []
        self._pause: tuple[IDelayedCall, Deferred[None]] | None = None
        self._trouble: str | None = "the registry has not started"
        self._probe: IDelayedCall | None = None
        self._started_ms = 0
        self.node_id = ""
        self.epoch = 0
        self._changed = Counter("psubd_registry_changes", "Changes made in the registry by this node.", registry=metrics)
        self._failed = Counter("psubd_registry_failures", "Writes of the registry that failed.", registry=metrics)

    # --- IRegistry

    def start(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        self.lane.start()
        try:
            loaded = await self.lane.call(self.store.open, socket.gethostname())
        except BaseException:
            await self.lane.stop()
            raise
        self._mirror.load(loaded.entries, loaded.changes)
        self.node_id, self.epoch, self._started_ms = loaded.node_id, loaded.starts, self._clock.epoch_ms()
        self._running, self._trouble = True, None

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop()) if self._running else succeed(None)

    async def _stop(self) -> None:
        self._running, self._trouble = False, "the registry is stopped"
        self._end_pause()
        self._end_probe()
        if self._busy:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle
        await self.lane.call(self.store.close)
        await self.lane.stop()

    def snapshot(self) -> ISnapshot:
        return self._mirror.tree

    def change(self, actor: str, plan: Callable[[ISnapshot, int], Plan]) -> Deferred[Change]:
        if not self._running:
            return fail(RegistryUnavailable("the registry is not running; nothing was changed"))
        if self._in_doubt:
            return fail(self._refusal(str(self._trouble)))
        asked = Asked(actor, plan)
        self._queue.append(asked)
        if not self._busy:
            self._busy = True
            Deferred.fromCoroutine(self._drain())
        return asked.done

    def sync(self) -> Deferred[None]:
        return succeed(None)  # a change is answered after the snapshot shows it, and nobody else writes

    def listen(self, changed: Callable[[Change], None]) -> Callable[[], None]:
        return self._mirror.listen(changed)

    def history(self, after: int) -> Sequence[Change]:
        return self._mirror.history(after)

    def trouble(self) -> str | None:
        return self._trouble

    # --- INodes

    def nodes(self) -> Sequence[Mapping[str, Any]]:
        return [
            {
                "id": self.node_id,
                "version": __version__,
                "mode": self._mode,
                "started_ms": self._started_ms,
                "address": None,
                "eligible": self._mode != "pub",
                "self": True,
            }
        ]

    # --- one change after another

    async def _drain(self) -> None:
        while self._queue:
            await self._make(self._queue.popleft())
        self._busy = False
        idle, self._idle = self._idle, []
        for waiting in idle:
            waiting.callback(None)

    async def _make(self, asked: Asked) -> None:
        if asked.done.called:  # cancelled while it waited
            return
        try:
            change, steps = self._mirror.draft(asked.actor, asked.plan, self._clock.epoch_ms())
        except Exception:  # noqa: BLE001 - what a plan raises is its caller's
            asked.done.errback(Failure())
            return
        refused = await self._write(change, steps)
        if refused is None:
            self._changed.inc()
            self._mirror.show(change, steps)
            asked.done.callback(change)
        else:
            asked.done.errback(refused)

    async def _write(self, change: Change, steps: Sequence[Step]) -> PsubdError | None:
        """None: it is stored."""
        try:
            await self.lane.call(self.store.write, change, steps)
        except Exception as broken:  # noqa: BLE001 - whatever it was, the file tells what came of it
            self._failed.inc()
            self._be_in_trouble(broken)
            return await self._read_back(change, broken)
        if self._running and self._trouble is not None:
            self._wrote(None)
        return None

    async def _read_back(self, change: Change, why: Exception) -> PsubdError | None:
        while True:
            try:
                return None if await self.lane.call(self.store.holds, change) else self._refusal(plain(why))
            except (sqlite3.Error, OSError) as broken:
                self._begin_doubt(broken)
            if not self._running:
                return StorageTimeout("the registry stopped before it could be told whether the change was stored; look after the next start")
            await self._wait()
            self._in_doubt = False

    def _begin_doubt(self, broken: Exception) -> None:
        self.log.error("the registry cannot be read back: {why}", why=plain(broken))
        self._in_doubt = True
        queued = list(self._queue)
        self._queue.clear()
        for asked in queued:
            if not asked.done.called:
                asked.done.errback(self._refusal(plain(broken)))

    def _refusal(self, why: str) -> RegistryUnavailable:
        return RegistryUnavailable(f"the registry cannot be written now: {why}. Nothing was changed; try again")

    def _wait(self) -> Deferred[None]:
        waited: Deferred[None] = Deferred()
        self._pause = (self._clock.call_later(AGAIN_MS, self._end_pause), waited)
        return waited

    def _end_pause(self) -> None:
        pause, self._pause = self._pause, None
        if pause is not None:
            if pause[0].active():
                pause[0].cancel()
            pause[1].callback(None)

    # --- trouble, until a write goes through

    def _be_in_trouble(self, broken: Exception) -> None:
        self.log.error("the registry was not written: {why}", why=plain(broken))
        if self._running:
            self._trouble = plain(broken)
        self._look_again()

    def _look_again(self) -> None:
        if self._running and self._probe is None:
            self._probe = self._clock.call_later(AGAIN_MS, self._try_to_write)

    def _try_to_write(self) -> None:
        self._probe = None
        self.lane.call(self.store.probe).addCallbacks(self._wrote, self._wrote_not)

    def _end_probe(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.cancel()

    def _wrote(self, _: None) -> None:
        self._end_probe()
        if self._running:
            self._trouble = None
            self.log.info("the registry can be written again")

    def _wrote_not(self, failure: Failure) -> None:
        if self._running:
            self._trouble = plain(failure.value) if isinstance(failure.value, Exception) else str(failure.value)
            self._look_again()


@implementer(IPlugin, IRegistryFactory)
class LocalFactory:
    """``sqlite:``: one node, one file."""

    scheme = "sqlite"
    usage = "sqlite: (in the state folder) or sqlite:/absolute/path: one node, one file"
    shared = False

    def check(self, url: str, settings: Mapping[str, Any]) -> list[str]:
        mistakes = [f"registry.sqlite.{name}: there is no such setting" for name in settings]
        place = url.partition(":")[2]
        if place and (not os.path.isabs(place) or place.startswith("//") or "\0" in place or place.endswith("/")):
            mistakes.append(f"registry: {url!r} names no file; write sqlite: or sqlite:/absolute/path/file")
        return mistakes

    def build(self, url: str, environment: Environment) -> LocalRegistry:
        path = url.partition(":")[2] or os.path.join(environment.state, "registry.sqlite")
        return LocalRegistry(path, environment.clock, environment.reactor, environment.metrics, mode=environment.mode)
