"""One link's state: the calls that wait for the other end, and those that the other end waits for. No I/O: frames in, an outbox out."""

from collections.abc import Callable, Mapping
from functools import partial

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from psubd.errors import Internal, OverBudget, OwnershipInDoubt, PeerLost, PeerTimeout, PsubdError, TooLarge
from psubd.interfaces import IClock
from psubd.peers.faults import decode_fault, encode_fault
from psubd.peers.frames import BODY_BYTES, Frame, IllegalFrame, Kind
from psubd.peers.outbox import Outbox
from psubd.peers.pieces import Pieces

log = Logger()

Handler = Callable[[str, bytes], "Deferred[bytes] | bytes"]
"""Called with the member that asks and the body."""
MOST_SERVED = 100_000
"""Calls of one member that may wait here: each is an entry and what its handler keeps. The next one is OverBudget."""

MOST_PINGS = 10
"""Pings that may wait for their answers: the line is silent, or stuck, and will be broken."""


class Link:
    """What is said with one member, from when it is known to when the line breaks.

    :param verbs: who serves what; looked up at each call.
    :param wake: called when the outbox has something.
    :ivar up: False once it was lost.
    """

    def __init__(self, member: str, verbs: Mapping[str, Handler], clock: IClock, wake: Callable[[], None], outbox: Outbox | None = None) -> None:
        self.member = member
        self.outbox = outbox or Outbox()
        self.up = True
        self._verbs = verbs
        self._clock = clock
        self._wake = wake
        self._pieces = Pieces()
        self._pings = 0
        self._last = 0
        self._asked: dict[int, Deferred[bytes]] = {}
        self._served: dict[int, Deferred[bytes]] = {}

    @property
    def asked(self) -> int:
        """Calls that wait for the other end."""
        return len(self._asked)

    @property
    def served(self) -> int:
        """Calls of the other end that wait here."""
        return len(self._served)

    def call(self, verb: str, body: bytes, timeout_ms: int | None = None) -> "Deferred[bytes]":
        """As `psubd.interfaces.IPeers.call`."""
        refused = self._refuse(body)
        if refused is not None:
            return fail(refused)
        self._last = id = self._last + 1
        self.outbox.put(Kind.CALL, id, body, verb)
        answer = self._asked[id] = Deferred(partial(self._withdraw, id))
        if timeout_ms is not None:
            timer = self._clock.call_later(timeout_ms, self._too_late, id, verb, timeout_ms)
            answer.addBoth(disarm, timer)
        self._wake()
        return answer

    def tell(self, verb: str, body: bytes) -> bool:
        """As `psubd.interfaces.IPeers.tell`. False too where the outbox is full."""
        if self._refuse(body) is not None:
            return False
        self.outbox.put(Kind.TELL, 0, body, verb)
        self._wake()
        return True

    def ping(self) -> None:
        """Have the other end say something, unless it owes enough answers."""
        if self._pings >= MOST_PINGS:
            return
        self._pings += 1
        self.outbox.hasten(Kind.PING)
        self._wake()

    def received(self, frame: Frame) -> None:
        """Take a frame. :raises IllegalFrame: the link is to be broken."""
        whole = self._pieces.received(frame) if frame.kind in (Kind.LARGE, Kind.PIECE, Kind.DROP) else frame
        if whole is None:
            return
        meant = MEANINGS.get(whole.kind)
        if meant is None:
            raise IllegalFrame(f"{whole.kind.name} does not belong on a link that is up")
        meant(self, whole)

    def lost(self, why: str) -> None:
        """The line broke: the handlers of calls that came over it are cancelled, then the calls that went over it fail with PeerLost."""
        self.up = False
        served, self._served = self._served, {}
        for doing in served.values():
            doing.cancel()
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            answer.errback(PeerLost(f"the connection to node {self.member} broke before it answered ({why}); it may have done it or not"))

    def _refuse(self, body: bytes) -> PsubdError | None:
        if not self.up:
            return PeerLost(f"there is no connection to node {self.member}")
        if len(body) > BODY_BYTES:
            return TooLarge(f"{len(body)} bytes for node {self.member}; one message between nodes has at most {BODY_BYTES}")
        if not self.outbox.room(len(body)):
            return OverBudget(f"{self.outbox.waiting} bytes wait already to go to node {self.member}")
        return None

    # --- calls of ours

    def _withdraw(self, id: int, answer: "Deferred[bytes]") -> None:
        """The caller waits no more."""
        if self._asked.pop(id, None) is not None:
            self._call_off(id)

    def _call_off(self, id: int) -> None:
        if not self.outbox.withdraw(Kind.CALL, id):
            self.outbox.put(Kind.CANCEL, id)
        self._wake()

    def _too_late(self, id: int, verb: str, timeout_ms: int) -> None:
        answer = self._asked.pop(id)
        self._call_off(id)
        answer.errback(PeerTimeout(f"node {self.member} did not answer {verb} within {timeout_ms} ms; it may have done it or not"))

    def _replied(self, frame: Frame) -> None:
        answer = self._answered(frame)
        if answer is not None:
            answer.callback(frame.body)

    def _failed(self, frame: Frame) -> None:
        answer = self._answered(frame)
        if answer is not None:
            answer.errback(decode_fault(frame.body))

    def _answered(self, frame: Frame) -> "Deferred[bytes] | None":
        """The call that the frame answers; None: it was withdrawn while the answer was on its way."""
        if not 0 < frame.id <= self._last:
            raise IllegalFrame(f"{frame.kind.name} answers call {frame.id}, which was never made")
        return self._asked.pop(frame.id, None)

    # --- calls of the other end's

    def _called(self, frame: Frame) -> None:
        if frame.id in self._served:
            raise IllegalFrame(f"call {frame.id} was made twice")
        if len(self._served) >= MOST_SERVED:
            return self._fault(frame.id, frame.verb, Failure(OverBudget(f"{MOST_SERVED} calls of node {self.member} wait here already")))
        try:
            result = self._handler(frame.verb)(self.member, frame.body)
        except Exception:  # noqa: BLE001 - what a handler raises is told to the caller
            return self._fault(frame.id, frame.verb, Failure())
        if isinstance(result, Deferred):
            self._served[frame.id] = result
            result.addCallbacks(self._done, self._undone, callbackArgs=(frame.id, frame.verb), errbackArgs=(frame.id, frame.verb))
            return None
        return self._answer(frame.id, frame.verb, result)

    def _told(self, frame: Frame) -> None:
        try:
            result = self._handler(frame.verb)(self.member, frame.body)
        except Exception:  # noqa: BLE001 - there is nobody to tell
            return self._unheard(Failure(), frame.verb)
        if isinstance(result, Deferred):
            result.addErrback(self._unheard, frame.verb)
        return None

    def _handler(self, verb: str) -> Handler:
        handler = self._verbs.get(verb)
        if handler is None:
            # not NotSupported: to a client it is a node of another version, which will be replaced
            raise OwnershipInDoubt(f"a node of this version does not serve {verb}")
        return handler

    def _done(self, result: bytes, id: int, verb: str) -> None:
        if self._served.pop(id, None) is not None:
            self._answer(id, verb, result)

    def _undone(self, failure: Failure, id: int, verb: str) -> None:
        if self._served.pop(id, None) is not None:
            self._fault(id, verb, failure)
        elif failure.check(CancelledError, PsubdError) is None:
            log.failure("{verb}, asked by node {member}, failed after it was cancelled", failure, verb=verb, member=self.member)

    def _cancelled(self, frame: Frame) -> None:
        doing = self._served.pop(frame.id, None)
        if doing is not None:
            doing.cancel()
        elif self.outbox.withdraw(Kind.REPLY, frame.id) or self.outbox.withdraw(Kind.ERROR, frame.id):
            self._wake()

    def _answer(self, id: int, verb: str, result: object) -> None:
        if not isinstance(result, bytes):  # else the mistake of one handler would break the link of all
            return self._fault(id, verb, Failure(TypeError(f"the answer to {verb} is {type(result).__name__}, not bytes")))
        if len(result) > BODY_BYTES:
            return self._fault(id, verb, Failure(TooLarge(f"the answer to {verb} has {len(result)} bytes, more than {BODY_BYTES}")))
        if not self.outbox.room(len(result)):
            return self._fault(id, verb, Failure(OverBudget(f"{self.outbox.waiting} bytes wait already to go to node {self.member}")))
        self.outbox.put(Kind.REPLY, id, result)
        return self._wake()

    def _fault(self, id: int, verb: str, failure: Failure) -> None:
        """Tell the caller. Room or not: a failure is small, and there is one a call."""
        error = failure.value
        if not isinstance(error, PsubdError):
            log.failure("{verb}, asked by node {member}, failed", failure, verb=verb, member=self.member)
            error = Internal(f"a node failed while it served {verb}; its log says more")
        self.outbox.put(Kind.ERROR, id, encode_fault(error))
        self._wake()

    def _unheard(self, failure: Failure, verb: str) -> None:
        log.failure("{verb}, told by node {member}, failed", failure, verb=verb, member=self.member)

    # --- the link's own

    def _pinged(self, frame: Frame) -> None:
        self.outbox.hasten(Kind.PONG)
        self._wake()

    def _ponged(self, frame: Frame) -> None:
        self._pings = max(0, self._pings - 1)


MEANINGS: Mapping[Kind, Callable[[Link, Frame], None]] = {
    Kind.CALL: Link._called,
    Kind.REPLY: Link._replied,
    Kind.ERROR: Link._failed,
    Kind.CANCEL: Link._cancelled,
    Kind.TELL: Link._told,
    Kind.PING: Link._pinged,
    Kind.PONG: Link._ponged,
}
"""What each kind of whole frame means to a link."""


def disarm(result: object, timer: IDelayedCall) -> object:
    """Pass the result on; the timer is of no use any more."""
    if timer.active():
        timer.cancel()
    return result
