"""What hosts of the contract of consumer instances have alike, on a clock that stands still."""

from twisted.python.failure import Failure

from psubd.model import Record


class ClockedHost:
    """For a test case with ``clock``, ``storage``, and ``pending``: whether a Deferred has not fired after a turn or two of the reactor."""

    def put(self, topic, *values, partition=0, timestamp=None):
        records = [Record(topic, value, None, (), partition, timestamp or self.clock.epoch_ms()) for value in values]
        return [position.offset for position in self.wait(self.storage.publish(records, "all"))]

    def wait(self, deferred):
        """In a turn or two: a commit goes out with the reactor's next."""
        self.pending(deferred)
        found = []
        deferred.addBoth(found.append)
        self.assertTrue(found, "it has not fired")
        if isinstance(found[0], Failure):
            found[0].raiseException()
        return found[0]

    def pass_ms(self, ms):
        for _ in range(100):
            self.clock.advance(ms / 100)
