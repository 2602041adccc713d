"""The right of this node to act for a slot: its claim, while its own lease stands."""

from collections.abc import Callable

from psubd.errors import Moved, OwnershipInDoubt
from psubd.interfaces import ISnapshot, Plan


class Tenure:
    """One claim of one slot. To be asked at the very moment of each effect, not before something that waits.

    :param epoch_of: `psubd.interfaces.IMembership.epoch_of`.

    :ivar epoch: of the claim. :ivar leaving: the slot is being handed over: nothing is begun any more, what was begun is finished.
    :ivar ended: the claim is gone: it stands never again. :ivar handed: its leases stand on another node, which has the ledgers.
    """

    def __init__(self, slot: int, epoch: int, epoch_of: Callable[[int], int | None]) -> None:
        self.slot, self.epoch = slot, epoch
        self.leaving = self.ended = self.handed = False
        self._epoch_of = epoch_of

    @property
    def stands(self) -> bool:
        """Whether this node may act for the slot at this instant. One that does not may stand again, if it has not ended: the ensemble was away for
        less than the session."""
        return not self.ended and self._epoch_of(self.slot) == self.epoch

    @property
    def grants(self) -> bool:
        """Whether something may be begun: granted, acked, read for the first time."""
        return not self.leaving and self.stands

    def check(self) -> None:
        """Before something is begun. :raises Moved: OwnershipInDoubt:"""
        if not self.grants:
            raise self.refusal()

    def confirm(self) -> None:
        """Before a step of what was begun. :raises Moved: OwnershipInDoubt:"""
        if not self.stands:
            raise self.refusal()

    def refusal(self) -> OwnershipInDoubt:
        """What is told who comes while it does not grant."""
        if self.leaving or self.ended:
            return moved()
        return OwnershipInDoubt("this node cannot tell now whether it still serves the group; ask again in a moment", 1)


Tenures = Callable[[str], Tenure]
"""A group's full name -> the tenure of its slot. Raises Moved where it is not served here."""


def moved() -> Moved:
    """What is told who comes to a group that is served elsewhere."""
    return Moved("another node serves the group now, or is about to; ask again in a moment", 1)


def under(tenure: Tenure, plan: Callable[[ISnapshot, int], Plan]) -> Callable[[ISnapshot, int], Plan]:
    """The same change, which writes nothing unless the tenure stands when it is written."""

    def confirmed(snapshot: ISnapshot, serial: int) -> Plan:
        tenure.confirm()
        return plan(snapshot, serial)

    return confirmed
