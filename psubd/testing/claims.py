"""Who served a group when: the claims in ZooKeeper, watched from beside the nodes, and what follows from them for what clients may have seen."""

import contextlib
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.retry import KazooRetry

from psubd.slots import id_of, rendezvous, slot_of
from psubd.testing.lease_log import Down, Log
from psubd.testing.readers import now

LOOK_S = 0.02
"""Between two looks at the claims. One that stood shorter than that may go unseen."""

ANSWER_S = 10
"""A look that is not answered within that is given up, and made again."""

RENEW_S = 20
"""Without an answer for so long the client of ZooKeeper is begun anew: it may have given up."""

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
    """Watches the slots of some groups, on a thread of its own. A context manager.

    :ivar trouble: why a look failed last.
    """

    def __init__(self, hosts: str, chroot: str, groups: Iterable[str] = ()) -> None:
        self._where = f"{hosts}{chroot}"
        self._client = self._new_client()
        self._slots = {slot_of(group, SLOTS) for group in groups}
        self._turns: dict[int, list[Turn]] = {slot: [] for slot in self._slots}
        self._looked: dict[int, float] = {}
        self.trouble = "none"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="claims", daemon=True)

    def __enter__(self) -> "Claims":
        self._client.start(timeout=60)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join(60)
        self._end_client()

    def follow(self, group: str) -> None:
        """Watch its slot too."""
        slot = slot_of(group, SLOTS)
        self._turns.setdefault(slot, [])
        self._slots = self._slots | {slot}

    def turns(self, group: str) -> list[Turn]:
        """The claims on the group's slot, in order, as far as seen."""
        return list(self._turns[slot_of(group, SLOTS)])

    def catch_up(self, seconds: float = 60) -> None:
        """Wait until each slot was looked at after this call: the turns are whole then, up to now. :raises AssertionError: it never was."""
        asked = now()
        while not all(self._looked.get(slot, 0) > asked for slot in self._slots):
            assert now() - asked < seconds * 1000, f"the claims cannot be looked at any more; the last trouble: {self.trouble}"
            time.sleep(LOOK_S)

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

    def wait_home(self, nodes: Collection[str], seconds: float = 60) -> float:
        """Wait until each slot is with the one of these nodes (ids) that should have it; how long that took, in seconds."""
        home = {slot: id_of(rendezvous(slot, (f"{node}-" for node in nodes)) or "") for slot in range(SLOTS)}
        begun, away = time.monotonic(), SLOTS
        while away:
            assert time.monotonic() - begun < seconds, f"{away} slots are not where they should be"
            found = self.all()
            away = sum(found.get(slot) != node for slot, node in home.items())
        return time.monotonic() - begun

    def _watch(self) -> None:
        answered = time.monotonic()
        while not self._over.wait(LOOK_S):
            try:
                for slot in self._slots:
                    self._note(slot)
            except Exception as trouble:  # noqa: BLE001 - ZooKeeper may be away, and whatever else it is: it is told in the end, and tried again
                self.trouble = f"{type(trouble).__name__}: {trouble}"
                if time.monotonic() - answered < RENEW_S:
                    continue
                self._renew()
            answered = time.monotonic()

    def _renew(self) -> None:
        self._end_client()
        self._client = self._new_client()
        self._client.start_async()

    def _new_client(self) -> KazooClient:
        again = KazooRetry(max_tries=-1, delay=0.1, backoff=1, max_delay=0.5)  # its own waits grow to a minute
        return KazooClient(self._where, timeout=10.0, connection_retry=again)

    def _end_client(self) -> None:
        with contextlib.suppress(Exception):
            self._client.stop()
            self._client.close()

    def _note(self, slot: int) -> None:
        asked = now()
        stands = self._look(slot)
        turns = self._turns[slot]
        if stands is not None:
            key, epoch = stands
            if turns and turns[-1].epoch == epoch:
                turns[-1] = turns[-1]._replace(last=asked)
            else:
                turns.append(Turn(key, epoch, now(), asked))
        self._looked[slot] = asked

    def _look(self, slot: int) -> tuple[str, int] | None:
        try:
            data, stat = self._client.get_async(f"/slots/{slot}").get(timeout=ANSWER_S)
        except NoNodeError:
            return None
        return data.decode(), stat.czxid


def unseen(turns: Iterable[Turn], logs: Iterable[Log]) -> list[int]:
    """The epochs of claims that stood while nobody could look, twice or more in one blind stretch, and of which a client was told all the same: what
    `changes` makes of these turns would be wrong. One that no client was told of granted nothing."""
    seen = {turn.epoch for turn in turns}
    return sorted({made.epoch for log in logs for made in log.delivered if made.epoch is not None} - seen)


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
