"""Who served a group when: the claims in ZooKeeper, watched from beside the nodes, and what follows from them for what clients may have seen."""

import threading
import time
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.retry import KazooRetry

from psubd.slots import id_of, slot_of
from psubd.testing.lease_log import Down
from psubd.testing.readers import now

LOOK_S = 0.02
"""Between two looks at the claims. One that stood shorter than that may go unseen."""

BLIND_MS = 5_000

HANDOVER_MS = 3_000
"""How long before its claim goes a node may have stopped the clocks of the leases that it hands over."""

SLOTS = 256


class Turn(NamedTuple):
    """One claim on a slot: whose (a member key), its epoch, when it was seen first (after that look) and last (before that look)."""

    key: str
    epoch: int
    first: float
    last: float


class Trouble(NamedTuple):
    """What was done to a node, which it may not have survived as an owner.

    :ivar node: its id. :ivar at: when it began. :ivar gone: it answered nothing after that, until ``over``; None: it may have answered until its
        lease ended. :ivar over: when it could act again. :ivar until: it gives up no slot for that reason after that.
    """

    node: str
    at: float
    gone: float | None
    over: float
    until: float


class Claims:
    """Watches the slots of some groups, on a thread of its own. A context manager."""

    def __init__(self, hosts: str, chroot: str, groups: Iterable[str] = ()) -> None:
        again = KazooRetry(max_tries=-1, delay=0.1, backoff=1, max_delay=0.5)  # its own waits grow to a minute
        self._client = KazooClient(f"{hosts}{chroot}", timeout=10.0, connection_retry=again)
        self._slots = {slot_of(group, SLOTS) for group in groups}
        self._turns: dict[int, list[Turn]] = {slot: [] for slot in self._slots}
        self._looked: dict[int, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="claims", daemon=True)

    def __enter__(self) -> "Claims":
        self._client.start(timeout=30)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join(30)
        self._client.stop()
        self._client.close()

    def follow(self, group: str) -> None:
        """Watch its slot too."""
        slot = slot_of(group, SLOTS)
        self._turns.setdefault(slot, [])
        self._slots = self._slots | {slot}

    def turns(self, group: str) -> list[Turn]:
        """The claims on the group's slot, in order, as far as seen."""
        return list(self._turns[slot_of(group, SLOTS)])

    def watched(self) -> bool:
        """Whether each slot was looked at a moment ago: what follows from the turns is of no worth where it was not."""
        return self._thread.is_alive() and all(now() - self._looked.get(slot, 0) < BLIND_MS for slot in self._slots)

    def owner(self, group: str) -> str | None:
        """The id of the node whose claim stands now; None: nobody's."""
        stands = self._look(slot_of(group, SLOTS))
        return id_of(stands[0]) if stands else None

    def all(self) -> dict[int, str]:
        """Who has each slot that is claimed now: node ids."""
        slots = [int(name) for name in self._client.get_children("/slots")]
        found = {slot: self._look(slot) for slot in slots}
        return {slot: id_of(stands[0]) for slot, stands in found.items() if stands}

    def wait_all(self, nodes: int, seconds: float = 60) -> dict[int, str]:
        """Wait until every slot is claimed, by so many nodes, and no claim moves for a moment."""
        until, seen = time.monotonic() + seconds, self.all()
        while time.monotonic() < until:
            time.sleep(0.2)
            former, seen = seen, self.all()
            if seen == former and len(seen) == SLOTS and len(set(seen.values())) == nodes:
                return seen
        raise AssertionError(f"{len(seen)} slots are claimed, by {len(set(seen.values()))} nodes")

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            for slot in self._slots:
                self._note(slot)

    def _note(self, slot: int) -> None:
        asked = now()
        try:
            stands = self._look(slot)
        except (KazooException, KazooTimeoutError):
            return
        turns, at = self._turns[slot], now()
        self._looked[slot] = at
        if stands is None:
            return
        key, epoch = stands
        if turns and turns[-1].epoch == epoch:
            turns[-1] = turns[-1]._replace(last=asked)
        else:
            turns.append(Turn(key, epoch, at, asked))

    def _look(self, slot: int) -> tuple[str, int] | None:
        try:
            data, stat = self._client.get(f"/slots/{slot}")
        except NoNodeError:
            return None
        return data.decode(), stat.czxid


def changes(turns: list[Turn], troubles: Iterable[Trouble]) -> list[Down]:
    """Each change of the owner: a handover, or the end of the former one without one. Where that cannot be told, the latter, not for sure."""
    found = []
    for former, turn in pairwise(turns):
        its = [trouble for trouble in troubles if trouble.node == id_of(former.key) and former.first <= trouble.until and trouble.at <= turn.first]
        others = [trouble for trouble in troubles if former.last - HANDOVER_MS <= trouble.over and trouble.at <= turn.first]
        if its:
            gone = turn.first if any(trouble.gone is None for trouble in its) else max(trouble.gone or 0 for trouble in its)
            found.append(Down(min(trouble.at for trouble in its), turn.first, True, turn.epoch, gone))
        elif others:
            found.append(Down(min(former.last - HANDOVER_MS, *(trouble.at for trouble in others)), turn.first, True, turn.epoch, turn.first, False))
        else:
            found.append(Down(former.last - HANDOVER_MS, turn.first, False, turn.epoch))
    return found


def told(turns: list[Turn], names: Mapping[str, str]) -> Any:
    """The turns in a line, with the nodes' names."""
    return ", ".join(f"{names.get(id_of(turn.key), turn.key)}@{turn.epoch} {turn.first:.0f}-{turn.last:.0f}" for turn in turns)
