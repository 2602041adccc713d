"""The tree of this node: read once, then kept up with the log."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from twisted.logger import Logger

from psubd.interfaces import Change, IClock, ISnapshot, Plan
from psubd.registry.tree import Step
from psubd.registry.zookeeper import layout
from psubd.registry.zookeeper.client import Delete, Lost, Unsent
from psubd.registry.zookeeper.copy import Copy
from psubd.registry.zookeeper.ground import Replaced
from psubd.registry.zookeeper.layout import Logged, Ref
from psubd.registry.zookeeper.parcel import Parcel, pack
from psubd.registry.zookeeper.reader import Everything, Found, Log, Moved, Reader, beyond, refs_of
from psubd.registry.zookeeper.session import Session
from psubd.registry.zookeeper.sweep import sweep


class Draft(NamedTuple):
    """A change that is not made yet."""

    change: Change
    steps: list[Step]
    parcel: Parcel


class Follower:
    """To be asked for one thing at a time. Its coroutines fail with Unsent and Lost where the connection goes, with Damaged, and with Replaced.

    :param found: called with each change that others have made, after it is shown.
    """

    log = Logger()

    def __init__(self, session: Session, clock: IClock, found: Callable[[Logged], None]) -> None:
        self._session, self._clock, self._tell = session, clock, found
        self._reader = Reader(session)
        self.mirror = Copy()
        self._log: Log | None = None
        self._refs: dict[str, Ref] = {}
        self._distrusted = False
        self._unswept: set[str] | None = None

    async def catch_up(self, sync: bool) -> bool:
        """Show what others have changed; the first time, all that there is. ``sync``: as of all that was answered anywhere before the call.

        False: not all of it could be told change by change.
        """
        if self._log is None:
            self._load(await self._reader.everything())
        elif self._distrusted:
            return self._reload(await self._reader.everything())
        else:
            return await self._follow(sync)
        return True

    async def _follow(self, sync: bool) -> bool:
        seen = -1
        while True:
            log = await self._reader.log(sync)
            seen = beyond(seen, log.head)
            known = self.mirror.tree.serial
            if log.head.serial < known:
                raise Replaced
            try:
                since = await self._reader.since(known, log.head)
                if since is None:
                    return self._reload(await self._reader.everything())
                found = await self._reader.at(layout.last_of(since))
            except Moved:
                continue
            self._show(log, since, found)
            return True

    def distrust(self) -> None:
        """Read all again the next time: something was not as the tree here says."""
        self._distrusted = True

    def draft(self, actor: str, plan: Callable[[ISnapshot, int], Plan], token: str) -> Draft:
        """The change that ``plan`` makes of the tree as it is now. What the plan raises comes out; TooLarge."""
        assert self._log is not None, "nothing was read yet"
        change, steps = self.mirror.draft(actor, plan, self._clock.epoch_ms())
        blob = secrets.token_hex(12)
        parcel = pack(change, steps, self._log.head, self._log.version, token, blob, self._session.place.chroot)
        return Draft(change, steps, parcel)

    def take(self, draft: Draft, version: int) -> None:
        """The draft was made, and ``/log`` has this version now: let it be seen, and tell the listeners."""
        self._log = Log(draft.parcel.head, version)
        stale = self._keep_refs(draft.steps, draft.parcel.refs)
        self.mirror.show(draft.change, draft.steps)
        self.remove(stale)

    def remove(self, pieces: set[str]) -> None:
        """Remove pieces of blobs that a change of this node's has left without a use. Where that fails, or the node ends before it, they stay until
        the next sweep."""
        if pieces:
            self._session.batch(*map(Delete, sorted(pieces))).addErrback(lambda failure: failure.trap(Unsent, Lost))

    async def sweep(self, now_at: str) -> None:
        """Once, after all was read: remove what nobody refers to. ``now_at``: a path that was made just now."""
        if self._unswept is not None:
            await sweep(self._session, self._unswept | {ref.blob for ref in self._refs.values()}, now_at)
            self._unswept = None

    # --- what was read

    def _load(self, everything: Everything) -> None:
        self.mirror.load(((path, there.entry) for path, there in everything.found.items()), [entry.change() for entry in everything.changes])
        self._refs = dict(refs_of(everything.found))
        self._log, self._unswept = everything.log, everything.blobs

    def _show(self, log: Log, entries: Sequence[Logged], found: Mapping[str, Found | None]) -> None:
        """Let it be seen at once, then tell one change after another."""
        tree = self.mirror.tree
        steps = [Step(path, there and there.entry) for path, there in found.items() if there is not None or tree.get(path) is not None]
        self._keep_refs(steps, {path: there.ref for path, there in found.items() if there is not None and there.ref is not None})
        self._log = log
        for entry in entries:
            self.mirror.show(entry.change(), steps)
            steps = []
            self._tell(entry)

    def _reload(self, everything: Everything) -> bool:
        """More was missed than the log goes back, or the tree here is not to be trusted. What differs is told as one change, before the new ones."""
        tree, there = self.mirror.tree, everything.found
        if everything.log.head.serial < tree.serial:
            raise Replaced
        new = [entry for entry in everything.changes if entry.serial > tree.serial]
        whole = not new or new[0].serial == tree.serial + 1
        serial = new[0].serial - 1 if new else everything.log.head.serial
        paths = sorted({path for path, _ in tree.entries()} | there.keys())
        steps = [Step(path, found and found.entry) for path in paths if ((found := there.get(path)) and found.entry) != tree.get(path)]
        change = Change(serial, self._clock.epoch_ms(), "psubd", "registry.reloaded", tuple(step.path for step in steps))
        self.log.warn("the registry was read again as a whole; {count} paths differ", count=len(steps))
        self.mirror.retell(change, steps)
        self._show(everything.log, new, {})
        self._refs, self._distrusted = dict(refs_of(there)), False
        return whole

    def _keep_refs(self, steps: Sequence[Step], refs: Mapping[str, Ref]) -> set[str]:
        """Remember where values stand; the pieces that nothing refers to any more."""
        left = [self._refs.pop(step.path) for step in steps if step.path in self._refs]
        self._refs.update(refs)
        used = {piece for ref in self._refs.values() for piece in ref.pieces} if left else set()
        return {piece for ref in left for piece in ref.pieces} - used
