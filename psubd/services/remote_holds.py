"""How long the node that holds a client's connection may go on with answers that another node has given it, the owner of their groups.

The edge asks the owner for it once a second, and oftener where leases are short, while it has something of it (the verb "hold"). The owner says
how many ms more: `HOLD_MS`, and never longer than its own lease lasts. The edge counts them from when it asked, the owner from when it answered,
which is later: so what the edge still writes has ended by the time at which the owner says so, however long the two were on their way, and
whichever of the two processes or hosts stood still. Neither has to reach the other for that:

- an owner whose line to the edge is silent may give the messages to others, or its slot to another node, once what it granted is over
  (`MARGIN_MS` later, since the clocks of two hosts differ);
- an owner that is cut off from the registry too has granted nothing beyond its lease, and nobody has its slots before that.
"""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from psubd.errors import PsubdError
from psubd.interfaces import IClock, IMembership, IPeers
from psubd.services.remote_codec import decode, encode

HOLD_MS = 5_000
"""As long as a line may be silent before it is broken: a pause that the line survives costs no answer."""

BEAT_MS, LEAST_BEAT_MS = 1_000, 100
"""Between two asks: a fifth of what was granted, within these bounds."""

ANSWER_MS = 5_000

MARGIN_MS = 500
"""By so much the clocks of two hosts may differ within `HOLD_MS`: they are slewed by a tenth at the very most."""

log = Logger()


class Hold:
    """Of one owner. :ivar until_ms: what it gave may be used before that, as far as the owner is concerned."""

    def __init__(self) -> None:
        self.until_ms = 0
        self.asked = False
        self.timer: IDelayedCall | None = None

    @property
    def goes_on(self) -> bool:
        """Whether it is asked for, or will be."""
        return self.asked or (self.timer is not None and self.timer.active())

    def stop(self) -> None:
        self.until_ms = 0
        if self.timer is not None and self.timer.active():
            self.timer.cancel()


class Holds:
    """The edge's.

    :param wanted: whether something is there, or waited for, of the member. :param lapsed: called with a member that grants something after what it
        had granted was over: what came before is not to be used any more, for it may be somebody else's.
    """

    def __init__(self, peers: IPeers, clock: IClock, wanted: Callable[[str], bool], lapsed: Callable[[str], None]) -> None:
        self._peers, self._clock, self._wanted, self._lapsed = peers, clock, wanted, lapsed
        self._of: dict[str, Hold] = {}

    def want(self, member: str) -> None:
        """Something of it is about to be asked for. What comes is granted: the owner answers this first."""
        hold = self._of.get(member)
        if hold is None:
            hold = self._of[member] = Hold()
        if not hold.goes_on:
            self._ask(member, hold)

    def stands(self, member: str) -> bool:
        """Whether what it gave may be used at this instant, as far as it is concerned."""
        hold = self._of.get(member)
        return hold is not None and self._clock.elapsed_ms() < hold.until_ms

    def lost(self, member: str) -> None:
        """The link broke."""
        hold = self._of.pop(member, None)
        if hold is not None:
            hold.stop()

    def _ask(self, member: str, hold: Hold) -> None:
        hold.asked = True
        asking: Deferred[bytes] = self._peers.call(member, "hold", b"", ANSWER_MS)
        granted: Deferred[int] = asking.addCallback(self._granted, member, hold, self._clock.elapsed_ms())
        granted.addErrback(self._refused).addCallback(self._again, member, hold)

    def _granted(self, body: bytes, member: str, hold: Hold, asked_ms: int) -> int:
        ms: int = decode(body, int)
        if hold.until_ms and self._clock.elapsed_ms() >= hold.until_ms:
            self._lapsed(member)
        hold.until_ms = max(hold.until_ms, asked_ms + ms)
        return ms

    def _refused(self, failure: Failure) -> int:
        if failure.check(PsubdError) is None:
            log.failure("asking how long answers of another node hold broke", failure)
        return BEAT_MS

    def _again(self, ms: int, member: str, hold: Hold) -> None:
        hold.asked = False
        if self._of.get(member) is hold:
            hold.timer = self._clock.call_later(max(LEAST_BEAT_MS, min(BEAT_MS, ms // 5)), self._beat, member, hold)

    def _beat(self, member: str, hold: Hold) -> None:
        if self._wanted(member):
            self._ask(member, hold)
        else:  # nothing is left that could lapse
            hold.until_ms = 0


class Granted:
    """The owner's: until when each edge may go on with what it has.

    To a member that does not answer a recall, over a link that is there, nothing more is granted for a while, so that what it has ends.
    """

    def __init__(self, membership: IMembership, clock: IClock) -> None:
        self._membership, self._clock = membership, clock
        self._refused: set[str] = set()
        self._until: dict[str, int] = {}

    def hold(self, member: str, body: bytes) -> bytes:
        """The verb: it may go on so long."""
        now = self._clock.elapsed_ms()
        ms = 0 if member in self._refused else max(0, min(HOLD_MS, self._membership.lease_ends_ms() - now))
        self._until[member] = max(self._until.get(member, 0), now + ms)
        return encode(ms)

    def over_ms(self, member: str) -> int:
        """When all that the member has ends, unless it asks again over this link: nothing of it is written after that."""
        return self._until.get(member, self._clock.elapsed_ms() + HOLD_MS) + MARGIN_MS

    def lost(self, member: str) -> int:
        """The link broke: `over_ms`, for good. What it asks over the next link is for what it gets there: that which came over this one it has broken
        off before (`psubd.services.remote_edge.Edge`)."""
        over = self.over_ms(member)
        self._until.pop(member, None)
        self._refused.discard(member)
        return over

    def refuse(self, member: str) -> int:
        """Grant it nothing more, until `relent`; `over_ms`, for good."""
        self._refused.add(member)
        return self.over_ms(member)

    def relent(self, member: str) -> None:
        self._refused.discard(member)
