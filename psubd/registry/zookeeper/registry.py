"""The registry of many nodes: every node has all of it in memory, and follows one log of changes in ZooKeeper."""

import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from kazoo.exceptions import BadVersionError
from prometheus_client import CollectorRegistry, Counter
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from psubd.errors import ConfigError, RegistryUnavailable, StorageTimeout
from psubd.interfaces import Change, IClock, INodes, IRegistry, ISnapshot, Plan
from psubd.registry.zookeeper import ground, layout
from psubd.registry.zookeeper.client import Lost, Unsent
from psubd.registry.zookeeper.follower import Follower
from psubd.registry.zookeeper.identity import node_id
from psubd.registry.zookeeper.layout import Logged, Root
from psubd.registry.zookeeper.membership import Displaced, Membership
from psubd.registry.zookeeper.parcel import Parcel
from psubd.registry.zookeeper.session import Session
from psubd.registry.zookeeper.settings import Place, convert

AGAIN_MS = 1_000
"""Wait before another try where something failed."""

DOUBT_MS = 30_000
"""How long who waits for a change is left waiting where the connection went in the middle of it and does not come back."""


class Asked:
    """A change that somebody waits for. ``token`` is in the log once it is made, whatever became of the answer."""

    def __init__(self, actor: str, plan: Callable[[ISnapshot, int], Plan]) -> None:
        self.actor, self.plan = actor, plan
        self.token = secrets.token_hex(12)
        self.done: Deferred[Change] = Deferred()
        self.limit: IDelayedCall | None = None

    def made(self, change: Change) -> None:
        self.end_limit()
        if not self.done.called:
            self.done.callback(change)

    def failed(self, error: BaseException | Failure) -> None:
        self.end_limit()
        if not self.done.called:
            self.done.errback(error)

    def end_limit(self) -> None:
        limit, self.limit = self.limit, None
        if limit is not None and limit.active():
            limit.cancel()


@implementer(IRegistry, INodes)
class ZooKeeperRegistry:
    """What was read serves on while ZooKeeper is away; changes fail then, and the membership's lease ends.

    One thing at a time is done on the tree: after each connection `_settle_down` reads what was missed; then `_work` catches up with the log and
    makes changes. A change that found somebody else first is planned again on what they left. One whose connection went in the middle waits
    until the log can be read: it has the change's token, or never will.

    :param state: the state folder, for the node's id. :param settings: ``[registry.zk]``.
    :param reactor: IReactorFromThreads.
    :param mode: what this node serves, for the other nodes.
    :ivar membership: `psubd.interfaces.IMembership` of this node.
    """

    log = Logger()

    def __init__(
        self,
        place: Place,
        state: str,
        clock: IClock,
        reactor: Any,
        settings: Mapping[str, Any],
        metrics: CollectorRegistry | None = None,
        mode: str = "pubsub",
    ) -> None:
        self.place, self._state, self._clock = place, state, clock
        self.node_id, self.epoch = "", 0
        self.session = Session(place, convert(settings), clock, reactor)
        self.membership = Membership(self.session, clock, mode, clock.epoch_ms())
        self.session.listen(self._session_moved, self.membership.renewed)
        self.session.follow(layout.LOG, self._log_moved)
        self._follower = Follower(self.session, clock, self._found)
        self._root: Root | None = None
        self._queue: deque[Asked] = deque()
        self._askers: list[Deferred[None]] = []
        self._current: Asked | None = None
        self._phase = "new"
        self._why = "the registry has not started"
        self._settled = self._settling = self._working = self._behind = False
        self._idle: list[Deferred[None]] = []
        self._again: IDelayedCall | None = None
        self._started: Deferred[None] | None = None
        self._seen_ms = 0
        self._changed = Counter("psubd_registry_changes", "Changes made in the registry by this node.", registry=metrics)
        self._failed = Counter("psubd_registry_failures", "Writes of the registry that failed.", registry=metrics)
        self._sessions = Counter("psubd_registry_sessions", "Sessions with ZooKeeper that this node has begun.", registry=metrics)

    # --- IRegistry

    def start(self) -> Deferred[None]:
        """Fires when the first snapshot is there; with ZooKeeper away that is when it comes. Cancel to give up."""
        try:
            self.node_id = self.membership.id = node_id(self._state)
        except ConfigError:
            return fail(Failure())
        self._phase, self._why = "starting", f"ZooKeeper ({self.place.shown}) does not answer yet"
        started: Deferred[None] = Deferred(lambda _: self._give_up_start())
        self._started = started
        self.session.start()
        return started

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop()) if self._phase in ("starting", "running") else succeed(None)

    async def _stop(self) -> None:
        self._phase = "stopping"
        if self._settled:
            self._work_on()
            await self._until_idle()
        await self._end("the registry is stopped")

    def _end(self, why: str) -> Deferred[None]:
        self._phase, self._why, self._settled = "stopped", why, False
        self._cancel_again()
        self.membership.stop()
        doubtful, self._current = self._current, None
        if doubtful is not None:
            doubtful.failed(StorageTimeout("psubd stopped before it could be told whether the change was made; look after the next start"))
        self._refuse_queued()
        return self.session.stop()

    def _give_up_start(self) -> None:
        self._started = None
        self._end("the start was given up")

    def snapshot(self) -> ISnapshot:
        return self._follower.mirror.tree

    def change(self, actor: str, plan: Callable[[ISnapshot, int], Plan]) -> Deferred[Change]:
        if not self._reached:
            return fail(self._refusal())
        asked = Asked(actor, plan)
        self._queue.append(asked)
        self._work_on()
        return asked.done

    def sync(self) -> Deferred[None]:
        """Fails with RegistryUnavailable while ZooKeeper is away."""
        if not self._reached:
            return fail(self._refusal())
        asker: Deferred[None] = Deferred()
        self._askers.append(asker)
        self._work_on()
        return asker

    def listen(self, changed: Callable[[Change], None]) -> Callable[[], None]:
        return self._follower.mirror.listen(changed)

    def history(self, after: int) -> Sequence[Change]:
        return self._follower.mirror.history(after)

    def trouble(self) -> str | None:
        if self.membership.displaced:
            return "another process runs with this node's id: was the state folder copied? Remove node-id from one of the two, and restart it"
        return None if self._settled and self._phase == "running" else self._why

    @property
    def _reached(self) -> bool:
        """Whether it is worth waiting: there is a connection. What has been missed is read first."""
        return self._phase == "running" and (self._settled or (self._settling and self.session.state == "connected"))

    @property
    def seen_ms(self) -> int:
        """The last moment, on `IClock.elapsed_ms`, at which the snapshot was known to be current."""
        lease = self.session.lease
        if self._settled and not self._behind and lease is not None:
            self._seen_ms = max(self._seen_ms, lease.confirmed_ms)
        return self._seen_ms

    # --- INodes

    def nodes(self) -> Sequence[Mapping[str, Any]]:
        names = ("id", "version", "mode", "started_ms", "address", "eligible", "self")
        return [{name: getattr(member, name) for name in names} for member in self.membership.members().values()]

    # --- after each connection

    def _session_moved(self, state: str) -> None:
        self._seen_ms = self.seen_ms
        self._settled = False
        self.membership.session_moved(state)
        if state == "connected":
            self._why = f"the registry is being read from ZooKeeper ({self.place.shown})"
            self._sessions.inc(1 if self.session.fresh else 0)
            self._settle()
            return
        if self._phase in ("starting", "running"):
            self._why = self.session.client.refusal or f"ZooKeeper ({self.place.shown}) cannot be reached"
        self._refuse_queued()
        if self.session.client.refusal is not None:
            self._start_failed(ConfigError([f"registry: {self.place.shown}: {self.session.client.refusal}; see username and password"]))

    def _settle(self) -> None:
        if self._phase in ("starting", "running") and not self._settling:
            self._settling = True
            self._cancel_again()
            Deferred.fromCoroutine(self._settle_down())

    async def _settle_down(self) -> None:
        """Have all that there is, be there, and go on."""
        connection = self.session.connections
        try:
            await self._until_idle()
            await self._take_stock()
        except (Unsent, Lost):
            self._refuse_queued()
            self._settle_again(0 if connection != self.session.connections else AGAIN_MS)
        except Exception:  # noqa: BLE001 - whatever it was: it is told, and tried again
            self._could_not_settle(Failure())
            self._refuse_queued()
        else:
            if connection == self.session.connections and self.session.state == "connected":
                self._have_settled()
            else:
                self._settle_again(0)
        finally:
            self._settling = False

    async def _take_stock(self) -> None:
        self._root = await ground.prepare(self.session, self._root)
        self.membership.slots = self._root.slots
        await self._catch_up(sync=True)
        self._resolve_doubt()
        with suppress(Displaced):  # what others change is followed all the same
            self.epoch = await self.membership.enter()
            await self._follower.sweep(f"{layout.NODES}/{self.membership.key}")

    def _have_settled(self) -> None:
        if self._phase not in ("starting", "running"):
            return
        self._settled, self._phase = True, "running"
        started, self._started = self._started, None
        if started is not None:
            started.callback(None)
        self._work_on()

    def _could_not_settle(self, failure: Failure) -> None:
        if self._started is not None and isinstance(failure.value, ConfigError):
            self._start_failed(failure.value)
            return
        if failure.check(ground.Replaced):
            self._why = f"another registry stands at {self.place.shown} than this node has read, or an older state of it; restart psubd to take it"
        else:
            self._why = f"the registry in ZooKeeper cannot be used: {failure.getErrorMessage()}"
            self.log.failure("the registry in ZooKeeper cannot be used", failure)
        self._settle_again(AGAIN_MS)

    def _start_failed(self, error: BaseException) -> None:
        started, self._started = self._started, None
        if started is not None:
            self._end(str(error)).addBoth(lambda _: started.errback(error))

    def _settle_again(self, ms: int) -> None:
        """Where there is a connection then; each new one settles anyway."""
        if self._phase in ("starting", "running") and self._again is None:
            self._again = self._clock.call_later(ms, self._try_again)

    def _try_again(self) -> None:
        self._again = None
        if self.session.state == "connected" and not self._settled:
            self._settle()

    def _cancel_again(self) -> None:
        again, self._again = self._again, None
        if again is not None:
            again.cancel()

    # --- one thing after another

    def _log_moved(self, path: str) -> None:
        self._seen_ms = self.seen_ms
        self._behind = True
        self._work_on()

    def _work_on(self) -> None:
        if self._settled and not self._working:
            self._working = True
            Deferred.fromCoroutine(self._work())

    async def _work(self) -> None:
        try:
            while self._settled and (self._askers or self._queue or self._behind):
                # changes go before what others have done: should they be in each other's way, the change finds out
                if self._askers or not self._queue:
                    await self._follow()
                else:
                    await self._make(self._queue.popleft())
        except (Unsent, Lost):
            self._unsettle()
        except Exception:  # noqa: BLE001 - whatever it was: it is told, and all is read again
            self._unsettle()
            self._follower.distrust()
            self.log.failure("the registry in ZooKeeper could not be followed")
        self._working = False
        idle, self._idle = self._idle, []
        for waiting in idle:
            waiting.callback(None)

    async def _until_idle(self) -> None:
        """What was begun on the tree has ended: its requests are answered, or never are."""
        if self._working:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle

    def _unsettle(self) -> None:
        self._seen_ms = self.seen_ms
        self._settled = False
        if self._phase == "running":
            self._why = f"ZooKeeper ({self.place.shown}) does not answer"
        self._refuse_queued()
        self._settle_again(AGAIN_MS)

    async def _follow(self) -> None:
        askers, self._askers = self._askers, []
        try:
            await self._catch_up(sync=bool(askers))
        except BaseException:
            self._askers = askers + self._askers  # refused with the others
            raise
        for asker in askers:
            if not asker.called:
                asker.callback(None)

    async def _catch_up(self, sync: bool) -> None:
        self._behind = False
        if not await self._follower.catch_up(sync) and self._current is not None:
            # more was missed than the log keeps: its token may have been there
            self._give_up(self._current)
            self._current = None

    def _found(self, entry: Logged) -> None:
        """A change was found in the log: it may be the one whose answer was lost."""
        if self._current is not None and entry.token == self._current.token:
            asked, self._current = self._current, None
            self._changed.inc()
            asked.made(entry.change())

    def _refuse_queued(self) -> None:
        queued, self._queue = list(self._queue), deque()
        askers, self._askers = self._askers, []
        for asked in queued:
            asked.failed(self._refusal())
        for asker in askers:
            if not asker.called:
                asker.errback(self._refusal())

    def _refusal(self) -> RegistryUnavailable:
        return RegistryUnavailable(f"the registry cannot be written now: {self.trouble() or self._why}. Nothing was changed; try again")

    # --- making a change

    async def _make(self, asked: Asked) -> None:
        if asked.done.called:  # cancelled while it waited
            return
        self._current = asked
        while self._current is not None:
            try:
                draft = self._follower.draft(asked.actor, asked.plan, asked.token)
            except Exception:  # noqa: BLE001 - what a plan raises is its caller's
                self._current = None
                asked.failed(Failure())
                return
            version = await self._write(asked, draft.parcel)
            if version is not None:
                self._current = None
                self._changed.inc()
                self._follower.take(draft, version)
                asked.made(draft.change)
            else:
                await self._lose_to_another(asked, draft.parcel)

    async def _write(self, asked: Asked, parcel: Parcel) -> int | None:
        """The new version of ``/log``; None: somebody else was first."""
        try:
            for result in await self.session.batch(*parcel.pieces) if parcel.pieces else ():
                if isinstance(result, Exception):
                    raise result
            sent = self.session.ask(parcel.together)
        except BaseException:
            self._put_back(asked)
            raise
        try:
            return int((await sent)[0].version)
        except BadVersionError:
            return None
        except Lost:
            self._doubt(asked)
            raise
        except BaseException:
            self._put_back(asked)
            raise

    def _put_back(self, asked: Asked) -> None:
        """It was not made; it is refused with the others that wait."""
        self._failed.inc()
        self._current = None
        self._queue.appendleft(asked)

    def _doubt(self, asked: Asked) -> None:
        """It may be made or not: the log tells, with the next connection."""
        self._failed.inc()
        asked.limit = self._clock.call_later(DOUBT_MS, self._give_up, asked)

    def _give_up(self, asked: Asked) -> None:
        asked.failed(StorageTimeout("ZooKeeper went away while the change was made, and it cannot be told whether it was; look when it is back"))

    def _resolve_doubt(self) -> None:
        """The log was read, and does not have it: it was not made, and never will be. It is made now, if somebody still waits."""
        asked, self._current = self._current, None
        if asked is not None and not asked.done.called:
            asked.end_limit()
            self._queue.appendleft(asked)

    async def _lose_to_another(self, asked: Asked, parcel: Parcel) -> None:
        self._failed.inc()
        self._follower.remove({piece.path for piece in parcel.pieces})
        try:
            await self._catch_up(sync=False)
        except BaseException:
            if self._current is not None:
                self._put_back(asked)
            raise
