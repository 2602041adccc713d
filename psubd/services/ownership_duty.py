"""To which node each slot is due, as this one sees it."""

from psubd.interfaces import IMembership
from psubd.slots import rendezvous


class Duty:
    """To whom each slot is due."""

    def __init__(self, membership: IMembership) -> None:
        self._membership = membership
        self._eligible: frozenset[str] = frozenset()
        self._due: dict[int, str | None] = {}

    def of(self, slot: int, draining: bool) -> str | None:
        """The key of the member that should have it; None: nobody may. :param draining: this node does not count."""
        self._see(draining)
        return self._due.get(slot)

    def slots(self, member: str, draining: bool) -> list[int]:
        """Those that are due to it."""
        self._see(draining)
        return [slot for slot, due in self._due.items() if due == member]

    def anybody(self, draining: bool) -> bool:
        """Whether somebody may serve groups."""
        self._see(draining)
        return bool(self._eligible)

    def _see(self, draining: bool) -> None:
        own = self._membership.key
        eligible = frozenset(key for key, member in self._membership.members().items() if member.eligible and not (draining and key == own))
        if eligible != self._eligible or len(self._due) != self._membership.slots:
            self._eligible = eligible
            self._due = {slot: rendezvous(slot, eligible) for slot in range(self._membership.slots)}
