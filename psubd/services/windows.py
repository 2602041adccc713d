"""The memory that reading ahead may take, over all groups of a node."""

from collections.abc import Callable


class Windows:
    """Payload bytes that were read ahead, or came back, and are not leased, over all groups of this node.

    :param budget: with so many, nobody reads ahead, and ``shed`` is called to give back what nobody waits for.
    """

    def __init__(self, budget: int, shed: Callable[[], None]) -> None:
        self.budget = budget
        self.held = 0
        self._shed = shed

    @property
    def full(self) -> bool:
        return self.held >= self.budget

    def add(self, size: int) -> None:
        """``size`` bytes more are held; negative: fewer."""
        self.held += size
        if size > 0 and self.full:
            self._shed()
