"""Groups that somebody else has in the storage: what is said of it, and how often psubd tries to have one back.

Only Kafka has other members and other writers of a group's places (`IStorage.commit` fails with InUse). A commit that passes is the proof that
the group is psubd's again, so the tries are commits.
"""

from psubd.errors import InUse, OwnershipInDoubt, PsubdError
from psubd.interfaces import IClock
from psubd.services.notices import Notices

FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 1_000, 5_000
"""Between two tries: doubling from the one to the other."""


class Contest:
    """Whether somebody else has a loaded group. While that is so, nothing of it is leased.

    :ivar error: what the storage said at the last try; None: nobody else has it.
    """

    def __init__(self, name: str, clock: IClock, notices: Notices) -> None:
        self._name, self._clock, self._notices = name, clock, notices
        self.error: InUse | None = None
        self._pause_ms = self._next_ms = 0

    @property
    def stands(self) -> bool:
        return self.error is not None

    @property
    def due(self) -> bool:
        """Whether the group may be committed now; one that is not contested always."""
        return self.error is None or self._clock.elapsed_ms() >= self._next_ms

    def lost(self, error: InUse) -> bool:
        """A commit was refused. True: it is the first one."""
        first = self.error is None
        if self.error is None or self.error.detail != error.detail:  # members that left may have left places
            self._notices.contested(self._name, error.detail)
        self.error = error
        self._pause_ms = FIRST_PAUSE_MS if first else min(2 * self._pause_ms, LONGEST_PAUSE_MS)
        self._next_ms = self._clock.elapsed_ms() + self._pause_ms
        return first

    def won(self) -> bool:
        """A commit passed. True: the group was contested until now."""
        if self.error is None:
            return False
        self.error = None
        self._notices.regained(self._name)
        return True

    def refusal(self) -> OwnershipInDoubt:
        """What a poll is told meanwhile."""
        wait_s = -(-(self._next_ms - self._clock.elapsed_ms()) // 1000)
        why = "" if self.error is None else f" ({self.error.detail})"
        return OwnershipInDoubt(f"somebody else uses group {self._name!r} in the storage{why}; it goes on once its places can be kept again", wait_s)


def foreign(group: str, why: InUse) -> InUse:
    """What a client is told whose group could not be taken. :param why: the storage's own words."""
    return InUse(
        f"group {group!r} is somebody else's in the storage: {why.detail}. Stop its members and take it over with PUT .../groups/{group}/offsets, "
        "or use another group"
    )


def foreign_own(application: str, why: InUse) -> InUse:
    """What is told where an application's own group cannot begin."""
    return InUse(
        f"nothing was changed: the application's own group {application!r} is somebody else's in the storage: {why.detail}. Stop its members; then "
        "take it over with PUT .../offsets where the application is bound already, or delete it with the storage's own tools; or use another "
        "application id, or another group_prefix for psubd"
    )


def with_members(group: str, why: InUse) -> InUse:
    """What is told who wants to take over a group that cannot be had now."""
    return InUse(f"group {group!r} cannot be taken over now: {why.detail}. Send the request again when they are gone")


def in_doubt(group: str, why: PsubdError) -> PsubdError:
    """What somebody is told who shows leases of a group that cannot be come to."""
    return OwnershipInDoubt(f"the leases of group {group!r} cannot be looked at now: {why.detail}") if isinstance(why, InUse) else why
