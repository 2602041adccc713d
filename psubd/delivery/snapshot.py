"""All of a ledger, as a value that can be encoded: it goes on in another process from there."""

from collections.abc import Iterable

import msgspec

from psubd.delivery.states import Ending, Entry, State


class Item(msgspec.Struct, frozen=True, array_like=True):
    """One open entry (`psubd.delivery.states.Entry`), not held, and not out in auto mode: those are as if they had come back.

    :ivar left: ms of its lease or delay.
    """

    start: int
    end: int
    count: int
    timestamp: int
    lane: int | None
    state: int
    attempt: int
    serial: int
    ending: int
    left: int | None


class Snapshot(msgspec.Struct, frozen=True):
    """:ivar position: where reading goes on. :ivar committed: the first offset that is not done.
    :ivar reach: past the last message that was taken up. :ivar newest: the last serial.
    :ivar done: ranges past ``reach``. :ivar attempts: of messages past it that were not taken up.
    """

    position: int
    committed: int
    reach: int
    newest: int
    done: tuple[tuple[int, int], ...]
    attempts: tuple[tuple[int, int], ...]
    items: tuple[Item, ...]


def item_of(entry: Entry, now: int) -> Item:
    """The entry, as a snapshot has it."""
    back = entry.state is State.HELD or (entry.state is State.LEASED and entry.due is None)
    state = State.READY if back else entry.state
    left = None if entry.due is None else max(0, entry.due - now)
    return Item(entry.start, entry.end, entry.count, entry.timestamp, entry.lane, state, entry.counted, entry.serial, entry.ending, left)


def entries_of(items: Iterable[Item]) -> list[tuple[Entry, int | None]]:
    """The entries, and what each had left. :raises ValueError: where they do not rise, or hold what cannot be."""
    entries = []
    last = -1
    for item in items:
        if not last < item.start < item.end or item.count < 1:
            raise ValueError(f"entry {item.start}..{item.end} after {last}")
        last = item.end - 1
        state, ending = State(item.state), Ending(item.ending)
        timed = state in (State.LEASED, State.WAITING)
        if (item.left is not None) != timed or not (timed or state in (State.READY, State.DEAD)):
            raise ValueError(f"{item.left} ms left of entry {item.start}, which is {state.name.lower()}")
        entry = Entry(item.start, item.end, item.count, item.timestamp, item.lane, item.attempt, state, item.serial, ending)
        entries.append((entry, item.left))
    return entries
