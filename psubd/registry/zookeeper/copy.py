"""What this node knows of a tree that others write too."""

from collections.abc import Sequence

from psubd.interfaces import Change
from psubd.registry.mirror import Mirror
from psubd.registry.tree import Step


class Copy(Mirror):
    """A mirror that may have missed more than can be told change by change."""

    def retell(self, change: Change, steps: Sequence[Step]) -> None:
        """Let ``steps`` be seen, and tell them as ``change``, which is none of the history's."""
        self.tree.take(change.serial, steps)
        for ear, listener in list(self._listeners.items()):
            if ear in self._listeners:
                self._tell(listener, change)
