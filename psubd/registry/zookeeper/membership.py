"""Nodes and slots: who is there, who serves what, and whether this node still may."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from psubd import __version__
from psubd.errors import InUse, RegistryUnavailable
from psubd.interfaces import Claim, IClock, IMembership, Member
from psubd.registry.zookeeper import layout
from psubd.registry.zookeeper.client import Check, Children, Create, Delete, Get, Lost, Set, Sync, Together, Unsent
from psubd.registry.zookeeper.session import Session
from psubd.slots import id_of

KEY = re.compile(r"(.+)-([0-9a-f]{16})")

AGAIN_MS = 1_000
"""Wait before another look at the members where one failed for a reason of ours."""


class Told(msgspec.Struct, frozen=True):
    """What a node's znode holds, as JSON."""

    id: str
    address: str | None
    version: str
    mode: str
    started_ms: int
    eligible: bool
    load: int


class Own(NamedTuple):
    """A claim of this node's: its czxid, and the session that it stands with."""

    epoch: int
    session: int


class Displaced(Exception):
    """Another process is here with this node's id."""


@implementer(IMembership)
class Membership:
    """As the znodes say, read again whenever one of them moves. A claim of ours counts while the session that made it does, which is looked at
    at each question and not when the news of its end arrives.

    To be driven by the registry: `enter` with each connection.
    """

    log = Logger()

    def __init__(self, session: Session, clock: IClock, mode: str, started_ms: int) -> None:
        self._session, self._clock = session, clock
        self.id, self._mode, self._started_ms = "", mode, started_ms
        self.slots = layout.SLOTS
        self._eligible, self._load = False, 0
        self._session_ms = session.asked_ms
        self._address: str | None = None
        self._written: tuple[str, bytes] | None = None
        self._epoch = 0
        self._own: dict[int, Own] = {}
        self._leaving: set[int] = set()
        self._members: dict[str, Told] = {}
        self._claims: dict[int, Claim] = {}
        self._known: set[str] = set()
        self._stirred: set[str] = set()
        """What moved since the last look began: what that look reads of it may be of before."""
        self._moved = False
        self._turn = DeferredLock()
        self._listeners: dict[object, Callable[[], None]] = {}
        self._standing = False
        self._timer: IDelayedCall | None = None
        self.displaced = False
        session.follow(layout.NODES, self._notice)
        session.follow(layout.CLAIMS, self._notice)

    # --- IMembership

    @property
    def key(self) -> str:
        return key_of(self.id, self._session.id)

    def members(self) -> Mapping[str, Member]:
        own = self.key
        return {key: member_of(key, told, own) for key, told in sorted(self._members.items())}

    def claims(self) -> Mapping[int, Claim]:
        return self._claims

    def epoch_of(self, slot: int) -> int | None:
        own, lease = self._own.get(slot), self._session.lease
        if own is None or lease is None or own.session != lease.session or self._clock.elapsed_ms() >= lease.ends_ms:
            return None
        return own.epoch

    def lease_ends_ms(self) -> int:
        lease = self._session.lease
        return 0 if lease is None else lease.ends_ms

    def session_ms(self) -> int:
        lease = self._session.lease
        if lease is not None:
            self._session_ms = lease.timeout_ms
        return self._session_ms

    def claim(self, slot: int) -> Deferred[int]:
        return Deferred.fromCoroutine(self._claim(slot))

    def release(self, slot: int) -> Deferred[None]:
        return Deferred.fromCoroutine(self._release(slot))

    def declare(self, eligible: bool, load: int) -> Deferred[None]:
        self._eligible, self._load = eligible, load
        return Deferred.fromCoroutine(self._declare())

    def locate(self, address: str | None) -> Deferred[None]:
        self._address = address
        return Deferred.fromCoroutine(self._declare())

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        ear = object()
        self._listeners[ear] = changed

        def end() -> None:
            self._listeners.pop(ear, None)

        return end

    # --- driven by the registry

    async def enter(self) -> int:
        """Be among the nodes with the present session, and see who else is; the epoch of this node's own znode. Fails with Unsent, Lost and
        Displaced."""
        if self.displaced:
            raise Displaced
        key, session = self.key, self._session.id
        await self._clear_former(key)
        epoch = await self._appear(key, session)
        self._known.clear()
        await self._look()
        self._check_lease()
        while self._written != (key, self._data()):  # declared meanwhile
            await self._write(key)
        return epoch

    def session_moved(self, state: str) -> None:
        """The session entered ``state``."""
        if state == "expired":
            self._claims = {slot: claim for slot, claim in self._claims.items() if slot not in self._own}
            self._own.clear()
            self._leaving.clear()
        self._check_lease()
        self._tell()

    def renewed(self) -> None:
        """A lease that had ended stands again."""
        self._check_lease()

    def stop(self) -> None:
        """Follow nothing any more; nothing is claimed any more."""
        self._own.clear()
        self._disarm()

    # --- being there

    async def _clear_former(self, key: str) -> None:
        """What this node left behind when it was started last, before ZooKeeper noticed that it had gone: its claims first, so that nobody
        finds a claim of a node that is not there."""
        names, _ = await self._session.ask(Children(layout.NODES))
        former = {name for name in names if id_of(name) == self.id and name != key}
        if not former:
            return
        slots, _ = await self._session.ask(Children(layout.CLAIMS))
        paths = [f"{layout.CLAIMS}/{slot}" for slot in slots]
        found = zip(paths, await self._session.batch(*map(Get, paths)), strict=True)
        held = [(path, result[0].decode()) for path, result in found if not isinstance(result, Exception) and result[0].decode() in former]
        self.log.info("removing this node's former self: {former}, {count} slots", former=sorted(former), count=len(held))
        # only while the former session stands: after its end the same path may be somebody else's claim
        together = (Together((Check(f"{layout.NODES}/{name}"), Delete(path, 0))) for path, name in held)
        await self._session.batch(*together, *(Delete(f"{layout.NODES}/{name}") for name in sorted(former)))

    async def _appear(self, key: str, session: int) -> int:
        data = self._data()
        path = f"{layout.NODES}/{key}"
        if self._written is None or self._written[0] != key:
            # one that exists is of this session too: its answer was lost
            await self._session.batch(Create(path, data, ephemeral=True))
        try:
            stat = await self._session.ask(Set(path, data))
        except NoNodeError:
            lease = self._session.lease
            if lease is None or lease.session != session:
                raise Lost("the session ended") from None
            self._be_displaced()
            raise Displaced from None
        if stat.ephemeralOwner != session:  # the session ended in between: the next one enters anew
            raise Lost("the session ended")
        self._written, self._epoch = (key, data), int(stat.czxid)
        return self._epoch

    def _be_displaced(self) -> None:
        """Our session stands and our znode does not. Only one who starts with this node's id removes it: then two have it, and this one gives way."""
        self.log.critical("another process runs with the id {id} of this node: was its state folder copied? This one serves no group", id=self.id)
        self.displaced = True
        self._own.clear()

    def _data(self) -> bytes:
        return msgspec.json.encode(Told(self.id, self._address, __version__, self._mode, self._started_ms, self._eligible, self._load))

    async def _declare(self) -> None:
        try:
            if self._written != (self.key, self._data()):
                await self._write(self.key)
        except (Unsent, Lost, NoNodeError) as away:
            raise RegistryUnavailable("the other nodes cannot be told now; they are as soon as ZooKeeper is there") from away

    async def _write(self, key: str) -> None:
        data = self._data()
        await self._session.ask(Set(f"{layout.NODES}/{key}", data))
        self._written = (key, data)

    # --- claims

    async def _claim(self, slot: int) -> int:
        if not 0 <= slot < self.slots:
            raise InUse(f"there are slots 0 to {self.slots - 1}")
        if self.displaced:
            raise RegistryUnavailable("another process runs with this node's id")
        key, session, path = self.key, self._session.id, f"{layout.CLAIMS}/{slot}"
        self._leaving.discard(slot)
        try:
            stat = await self._session.ask(Create(path, key.encode(), ephemeral=True))
        except Unsent as away:
            raise RegistryUnavailable("ZooKeeper cannot be reached") from away
        except (NodeExistsError, Lost):
            return await self._read_back(slot, key, session)
        return self._take(slot, key, session, stat)

    async def _read_back(self, slot: int, key: str, session: int) -> int:
        """Whose the slot is: after a create that found one, or whose connection was lost. Once there is another connection, what went over the old
        one has been taken or never is: ZooKeeper closes it, and refuses what comes for a session that has moved."""
        while True:
            await self._session.returns()
            if self._session.id != session:
                raise RegistryUnavailable("the session ended before the slot was claimed")
            try:
                return await self._claimed(slot, key, session)
            except Lost:
                continue

    async def _claimed(self, slot: int, key: str, session: int) -> int:
        """Whose claim stands there: ours too, if its answer was lost."""
        try:
            result = (await self._session.batch(Sync(), Get(f"{layout.CLAIMS}/{slot}")))[-1]
        except Unsent:
            raise Lost("away again") from None
        if isinstance(result, NoNodeError):
            raise RegistryUnavailable(f"slot {slot} was not claimed; try again")
        if isinstance(result, Exception):
            raise result
        data, stat = result
        if stat.ephemeralOwner != session or data != key.encode():
            raise InUse(f"slot {slot} is {data.decode('utf-8', 'replace')}'s")
        return self._take(slot, key, session, stat)

    def _take(self, slot: int, key: str, session: int, stat: Any) -> int:
        if stat.ephemeralOwner != session:
            # It was sent when the session had just ended, and made with the next one, which does not want it by that name: `_adopt` removes it.
            raise RegistryUnavailable("the session ended before the slot was claimed")
        epoch = int(stat.czxid)
        self._own[slot] = Own(epoch, session)
        self._claims[slot] = Claim(key, epoch)
        self._tell()
        return epoch

    async def _release(self, slot: int) -> None:
        own = self._own.pop(slot, None)
        if own is None:
            return
        self._leaving.add(slot)
        while own.session == self._session.id and slot in self._leaving:
            try:
                await self._remove(slot, own.session)
                break
            except (Unsent, Lost):
                await self._session.returns()
        self._leaving.discard(slot)
        if slot not in self._own and self._claims.get(slot) == Claim(key_of(self.id, own.session), own.epoch):
            self._claims.pop(slot)
        self._tell()

    async def _remove(self, slot: int, session: int) -> None:
        """Delete a claim of the session's. Together with a look at the session's own node: made with another session by mistake, it would hit
        somebody else's claim."""
        node = Check(f"{layout.NODES}/{key_of(self.id, session)}")
        try:
            await self._session.ask(Together((node, Delete(f"{layout.CLAIMS}/{slot}", 0))))
        except (NoNodeError, BadVersionError):
            return

    # --- following

    def _notice(self, path: str) -> None:
        """A watch fired."""
        self._known.discard(path)
        self._stirred.add(path)
        first, self._moved = not self._moved, True
        if first:
            Deferred.fromCoroutine(self._look_again())

    async def _look_again(self) -> None:
        try:
            await self._look()
        except (Unsent, Lost):
            pass  # the next connection enters anew
        except Exception:  # noqa: BLE001 - whatever it was, the nodes must be seen again
            self.log.failure("the nodes could not be read")
            self._clock.call_later(AGAIN_MS, self._notice, layout.NODES)

    async def _look(self) -> None:
        """Read what has moved. One look at a time: what moves meanwhile is another one's."""
        await self._turn.acquire()
        try:
            self._moved = False
            await self._look_once()
        finally:
            self._turn.release()

    async def _look_once(self) -> None:
        session = self._session.id
        self._stirred.clear()
        nodes, slots = await self._session.batch(Children(layout.NODES, watch=True), Children(layout.CLAIMS, watch=True))
        for result in (nodes, slots):
            if isinstance(result, Exception):
                raise result
        members = {f"{layout.NODES}/{name}" for name in nodes[0] if KEY.fullmatch(name)}
        claims = {f"{layout.CLAIMS}/{name}" for name in slots[0] if name.isdecimal()}
        self._known &= members | claims
        wanted = sorted((members | claims) - self._known)
        results = await self._session.batch(*(Get(path, watch=True) for path in wanted)) if wanted else []
        if session == self._session.id:
            self._take_in(members, claims, slots[1].pzxid, dict(zip(wanted, results, strict=True)))
            self._look_at_self(nodes[1].pzxid)

    def _take_in(self, members: set[str], claims: set[str], as_of: int, read: Mapping[str, Any]) -> None:
        """``as_of``: zxid of the newest claim or release that the list of ``claims`` shows."""
        found = {path: result for path, result in read.items() if not isinstance(result, Exception)}
        gone = read.keys() - found.keys()
        self._known |= found.keys() - self._stirred
        before = (self._members, self._claims, dict(self._own))
        self._members = {name_of(path): told for path in members - gone if (told := self._told(path, found)) is not None}
        present = {slot: claim for path in claims - gone if (claim := self._claim_at(path, found)) is not None for slot in [int(name_of(path))]}
        newer = {slot: own for slot, own in self._own.items() if own.epoch > as_of}  # claimed after the list was made
        present.update({slot: self._claims[slot] for slot in newer if slot in self._claims})
        self._own = {slot: own for slot, own in self._own.items() if slot in newer or present.get(slot) == self._claims.get(slot)}
        self._claims = present
        self._adopt(found)
        if before != (self._members, self._claims, self._own):
            self._tell()

    def _look_at_self(self, as_of: int) -> None:
        """``as_of``: zxid of the newest coming or going that the list of nodes shows."""
        here = self._written is not None and self._written[0] == self.key and self._epoch <= as_of
        if here and self.key not in self._members and not self.displaced:
            self._be_displaced()
            self._tell()

    def _told(self, path: str, found: Mapping[str, Any]) -> Told | None:
        """What was not read is as it was, also where its watch fired since the list was made: that one is read next."""
        if path not in found:
            return self._members.get(name_of(path))
        try:
            return msgspec.json.decode(found[path][0], type=Told)
        except msgspec.DecodeError:
            self.log.error("{path} is no node of psubd's", path=path)
            return None

    def _claim_at(self, path: str, found: Mapping[str, Any]) -> Claim | None:
        if path not in found:
            return self._claims.get(int(name_of(path)))
        data, stat = found[path]
        return Claim(data.decode("utf-8", "replace"), int(stat.czxid))

    def _adopt(self, found: Mapping[str, Any]) -> None:
        """Claims with our session: one whose answer was lost is ours; one that was made for the session before is nobody's."""
        session = self._session.id
        for path, (data, stat) in found.items():
            if not path.startswith(layout.CLAIMS) or stat.ephemeralOwner != session:
                continue
            slot = int(name_of(path))
            if data != self.key.encode():
                Deferred.fromCoroutine(self._remove(slot, session)).addErrback(lambda failure: failure.trap(Unsent, Lost))
            elif slot not in self._leaving:
                self._own[slot] = Own(int(stat.czxid), session)

    # --- the lease, for those who listen

    def _check_lease(self) -> None:
        """Tell whether the lease stands where that has changed, and look again when it would end."""
        self._disarm()
        left = self.lease_ends_ms() - self._clock.elapsed_ms()
        standing = left > 0
        if standing:
            self._timer = self._clock.call_later(left + 1, self._check_lease)
        if standing != self._standing:
            self._standing = standing
            if not standing:
                self.log.warn("the lease on this node's slots has ended; it serves no group until ZooKeeper answers")
            self._tell()

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _tell(self) -> None:
        for ear, listener in list(self._listeners.items()):
            if ear in self._listeners:
                try:
                    listener()
                except Exception:  # noqa: BLE001 - one listener's bug is nobody else's
                    self.log.failure("a listener of the membership failed")


def key_of(node: str, session: int) -> str:
    """A member's key."""
    return f"{node}-{session & (1 << 64) - 1:016x}"


def name_of(path: str) -> str:
    return path.rpartition("/")[2]


def member_of(key: str, told: Told, own: str) -> Member:
    return Member(key=key, self=key == own, **msgspec.structs.asdict(told))
