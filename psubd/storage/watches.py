"""Who waits for a record to come: one Deferred each, tens of thousands of them, no timer and no thread."""

from twisted.internet.defer import Deferred


class Watches:
    """The waiting of one storage, by topic and partition. On the reactor's thread only."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[int, dict[Deferred[None], int]]] = {}

    def wait(self, topic: str, partition: int, offset: int) -> "Deferred[None]":
        """Fires when `grew` says that the partition's end is past ``offset``, or at `changed`. Cancelling withdraws it."""
        waiting = self._waiting.setdefault(topic, {}).setdefault(partition, {})
        waiter: Deferred[None] = Deferred(lambda cancelled: self._withdraw(topic, partition, cancelled))
        waiting[waiter] = offset
        return waiter

    def grew(self, topic: str, partition: int, end: int) -> None:
        """Fire those that wait for an offset below ``end``."""
        waiting = self._waiting.get(topic, {}).get(partition)
        if waiting is None:
            return
        due = [waiter for waiter, offset in waiting.items() if offset < end]
        for waiter in due:
            self._withdraw(topic, partition, waiter)
        fire(due)

    def changed(self, topic: str) -> None:
        """Fire all that wait on the topic: it went away, was made again or got partitions."""
        fire([waiter for waiting in self._waiting.pop(topic, {}).values() for waiter in waiting])

    def close(self) -> None:
        """Fire all: the storage stops, and who reads now is told so."""
        for topic in list(self._waiting):
            self.changed(topic)

    def __len__(self) -> int:
        return sum(len(waiting) for partitions in self._waiting.values() for waiting in partitions.values())

    def _withdraw(self, topic: str, partition: int, waiter: "Deferred[None]") -> None:
        partitions = self._waiting.get(topic, {})
        waiting = partitions.get(partition, {})
        waiting.pop(waiter, None)
        if not waiting:
            partitions.pop(partition, None)
        if not partitions:
            self._waiting.pop(topic, None)


def fire(waiters: "list[Deferred[None]]") -> None:
    """Call those back that were not cancelled by the one before."""
    for waiter in waiters:
        if not waiter.called:
            waiter.callback(None)
