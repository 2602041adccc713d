"""How often: token buckets for a binding's rate (`psubd.model.Rate`), one pair for each direction.

Counted in thousandths, as integers: so many a second is so many thousandths a millisecond, and no fraction is lost.
"""

from psubd.errors import RateLimited
from psubd.model import Rate


class Bucket:
    """So many a second, so many seconds' worth at once. Full at first.

    What is larger than the whole bucket passes when the bucket is full, and leaves it in debt: the rate holds in the long run, and no
    message is too large to pass at all.

    :param unit: what is counted, for the refusal.
    """

    __slots__ = ("_at_ms", "_level", "_whole", "per_s", "unit")

    def __init__(self, unit: str, per_s: int, burst_s: int, now: int) -> None:
        self.unit, self.per_s = unit, per_s
        self._whole = per_s * burst_s * 1000
        self._level, self._at_ms = self._whole, now

    def level(self, now: int) -> int:
        """Thousandths that are there at ``now`` (ms of a clock that never jumps); below 0: debt."""
        self._level = min(self._whole, self._level + (now - self._at_ms) * self.per_s)
        self._at_ms = now
        return self._level

    def lacks(self, amount: int, now: int) -> int:
        """Milliseconds until ``amount`` may pass; 0: now."""
        missing = min(amount * 1000, self._whole) - self.level(now)
        return max(0, -(-missing // self.per_s))

    def take(self, amount: int, now: int) -> None:
        self._level = self.level(now) - amount * 1000

    def follow(self, former: "Bucket", now: int) -> None:
        """Begin where ``former`` stands: a new rate forgives no debt."""
        self._level = min(self._whole, former.level(now))

    def refusal(self, amount: int, now: int, what: str) -> RateLimited:
        """What to tell who asks for ``amount`` and lacks it."""
        missing = self._whole - self.level(now)
        return RateLimited(
            f"over the rate of {what}: {self.per_s} {self.unit} a second; try again later",
            -(-self.lacks(amount, now) // 1000),
            limit=self.per_s,
            remaining=max(0, self.level(now) // 1000),
            reset=max(1, -(-missing // (self.per_s * 1000))),
        )


class Meter:
    """A binding's rate in one direction.

    :param serial: of the binding: one made again begins anew.
    :param what: names it in a refusal, as ``topic orders``.
    """

    __slots__ = ("_bytes", "_messages", "_what", "rate", "serial")

    def __init__(self, rate: Rate, serial: int, what: str, now: int) -> None:
        self.rate, self.serial, self._what = rate, serial, what
        self._messages = None if rate.messages_per_s is None else Bucket("messages", rate.messages_per_s, rate.burst_s, now)
        self._bytes = None if rate.bytes_per_s is None else Bucket("bytes", rate.bytes_per_s, rate.burst_s, now)

    def follow(self, former: "Meter", now: int) -> None:
        """Begin where ``former`` stands, for what both count."""
        if self._messages is not None and former._messages is not None:
            self._messages.follow(former._messages, now)
        if self._bytes is not None and former._bytes is not None:
            self._bytes.follow(former._bytes, now)

    def admit(self, messages: int, size: int, now: int) -> None:
        """Take ``messages`` of ``size`` bytes together. :raises RateLimited: and takes nothing."""
        for bucket, amount in self._amounts(messages, size):
            if bucket.lacks(amount, now):
                raise bucket.refusal(amount, now, self._what)
        self.spend(messages, size, now)

    def spend(self, messages: int, size: int, now: int) -> None:
        """Take them, into debt if need be."""
        for bucket, amount in self._amounts(messages, size):
            bucket.take(amount, now)

    def debt(self, now: int) -> RateLimited | None:
        """What to tell who wants more while nothing is left; None: something is."""
        for bucket, amount in self._amounts(1, 1):
            if bucket.level(now) <= 0:
                return bucket.refusal(amount, now, self._what)
        return None

    def _amounts(self, messages: int, size: int) -> list[tuple[Bucket, int]]:
        return [(bucket, amount) for bucket, amount in ((self._messages, messages), (self._bytes, size)) if bucket is not None]
