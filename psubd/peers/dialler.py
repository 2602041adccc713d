"""Getting to one other node, and getting there again."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from psubd.interfaces import IClock
from psubd.peers.connection import Connection

log = Logger()

FIRST_MS = 100
LONGEST_MS = 2000

Dial = Callable[[str], IStreamClientEndpoint]
"""The way to an address ("host:port"). Raises ValueError where it is none."""


@implementer(IProtocolFactory)
class Single:
    """Makes the one connection that was dialled for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress) -> Connection:
        return self._connection

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass


class Dialler:
    """Keeps one connection to a member, from `dial` to `end`: dials again when it ended or did not come about, after 100 ms, doubling to 2 s
    until a link stood; each wait is less by up to a half, so that many nodes do not come at once.

    :param make: makes a connection, not connected yet. :param random: 0 to 1.
    """

    def __init__(self, member: str, address: str, dial: Dial, make: Callable[[str], Connection], clock: IClock, random: Callable[[], float]) -> None:
        self.member, self.address = member, address
        self._dial, self._make = dial, make
        self._clock, self._random = clock, random
        self._tries = 0
        self._ended = False
        self._attempt: Deferred[IProtocol] | None = None
        self._connection: Connection | None = None
        self._timer: IDelayedCall | None = None

    def dial(self) -> None:
        """Try now."""
        self._timer = None
        try:
            endpoint = self._dial(self.address)
        except ValueError as refused:
            return self._rest(str(refused))
        connection = self._connection = self._make(self.member)
        connection.closed.addCallback(lambda _: self._closed(connection))
        self._attempt = endpoint.connect(Single(connection))
        self._attempt.addCallbacks(self._connected, self._failed)
        return None

    def move(self, address: str) -> None:
        """It is reached at another address now; a connection that stands is left."""
        self.address = address

    def end(self, why: str) -> None:
        """Dial no more, and close what was dialled."""
        self.retire()
        if self._connection is not None:
            self._connection.end(why)

    def retire(self) -> None:
        """Dial no more; a connection that stands is left."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._attempt is not None:
            self._attempt.cancel()

    def _connected(self, protocol: object) -> None:
        self._attempt = None
        if self._ended and self._connection is not None:  # too late to cancel it
            self._connection.end("not wanted any more")

    def _failed(self, failure: Failure) -> None:
        self._attempt = self._connection = None
        self._rest(failure.getErrorMessage())

    def _closed(self, connection: Connection) -> None:
        self._connection = None
        if connection.link is not None:
            self._tries = 0
        self._rest("the connection ended")

    def _rest(self, why: str) -> None:
        if self._ended:
            return
        delay = min(LONGEST_MS, FIRST_MS * 2**self._tries) * (1 - self._random() / 2)
        if self._tries in (1, 5):  # a node that has just gone is no news, one that stays away is
            log.info("node {member} at {address} is not reached: {why}; going on", member=self.member, address=self.address, why=why)
        self._tries = min(self._tries + 1, 10)
        self._timer = self._clock.call_later(delay, self.dial)
