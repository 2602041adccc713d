"""The links of one node: to whom they are kept, and what is said over them."""

import random
from collections.abc import Callable

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolFactory
from twisted.logger import Logger
from zope.interface import implementer

from psubd.errors import PeerLost
from psubd.interfaces import IClock, IMembership, IPeers
from psubd.peers.auth import Answering, Dialling, Secret
from psubd.peers.connection import PING_MS, Connection
from psubd.peers.dialler import Dial, Dialler
from psubd.peers.link import Handler, Link

log = Logger()

MOST_STRANGERS = 64
"""Connections that came in and are not proven. One more, and the oldest of them is closed: a node proves itself in milliseconds, so that whoever
fills the places does not keep nodes from each other."""


@implementer(IProtocolFactory)
class Door:
    """What the peer port's listener makes connections with."""

    def __init__(self, answer: "Callable[[IAddress], Connection]") -> None:
        self._answer = answer

    def buildProtocol(self, addr: IAddress) -> Connection:
        return self._answer(addr)

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass


@implementer(IPeers)
class Mesh:
    """One link with each other member that has an address. Serve verbs before `start`; listen with `door` whenever it suits.

    :param secret: gives the 32 bytes that all nodes share (`psubd.peers.secret`). :param dial: the way to an address (`psubd.peers.line`).
    :ivar door: for the peer port's listener; wrap it for TLS (`psubd.peers.line.Line.guard`).
    """

    def __init__(self, *, membership: IMembership, secret: Secret, clock: IClock, dial: Dial, random: Callable[[], float] = random.random) -> None:
        self.verbs: dict[str, Handler] = {}
        self.door: IProtocolFactory = Door(self._answer)
        self._membership = membership
        self._secret = secret
        self._clock = clock
        self._dial = dial
        self._random = random
        self._key = ""
        self._running = False
        self._links: dict[str, Connection] = {}
        self._open: set[Connection] = set()
        self._strangers: dict[Connection, None] = {}
        self._diallers: dict[str, Dialler] = {}
        self._lost: list[Callable[[str], None]] = []
        self._unlisten: Callable[[], None] | None = None
        self._timer: IDelayedCall | None = None

    # --- IPeers

    def start(self) -> Deferred[None]:
        self._running = True
        self._key = self._membership.key
        self._unlisten = self._membership.listen(self.review)
        self._timer = self._clock.call_later(PING_MS, self._tick)
        self.review()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        self._running = False
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        diallers, self._diallers = self._diallers, {}
        for dialler in diallers.values():
            dialler.retire()
        open_still = list(self._open)
        for connection in open_still:
            connection.finish("a node stops")
        return DeferredList([connection.closed for connection in open_still]).addCallback(lambda _: None)

    def call(self, member: str, verb: str, body: bytes, timeout_ms: int | None = None) -> Deferred[bytes]:
        link = self._link(member)
        if link is None:
            return fail(PeerLost(f"there is no connection to node {member} now"))
        return link.call(verb, body, timeout_ms)

    def tell(self, member: str, verb: str, body: bytes) -> bool:
        link = self._link(member)
        return link is not None and link.tell(verb, body)

    def serve(self, verb: str, handler: Handler) -> None:
        if verb in self.verbs:
            raise ValueError(f"{verb} is served already")
        self.verbs[verb] = handler

    def linked(self, member: str) -> bool:
        link = self._link(member)
        return link is not None and link.up

    def on_lost(self, lost: Callable[[str], None]) -> Callable[[], None]:
        self._lost.append(lost)
        return lambda: self._lost.remove(lost)

    # --- to whom links are kept

    def review(self) -> None:
        """Dial who is new, leave who is gone, let in who waits."""
        if not self._running:
            return
        if self._membership.key != self._key:
            self._begin_anew()
        members = self._membership.members() if self._key else {}  # without a session this node is nobody, and knows nobody
        for member in [member for member in self._diallers if member not in members]:
            self._diallers.pop(member).end("the node is gone")
        for connection in [connection for member, connection in self._links.items() if member not in members]:
            connection.end("the node is gone")
        for member, shown in members.items():
            if member > self._key and shown.address is not None:
                self._keep(member, shown.address)
        for connection in list(self._strangers):
            if self.knows(connection.name):
                connection.admit()

    def _begin_anew(self) -> None:
        """This node is another member now: its session ended. Nobody knows it by its former key, and nothing may be done under it."""
        log.info("this node was {old} and is {new} now", old=self._key, new=self._membership.key)
        self._key = self._membership.key
        diallers, self._diallers = self._diallers, {}
        for dialler in diallers.values():
            dialler.end("this node's session ended")
        for connection in list(self._open):
            connection.end("this node's session ended")

    def _keep(self, member: str, address: str) -> None:
        dialler = self._diallers.get(member)
        if dialler is not None:
            return dialler.move(address)
        self._diallers[member] = Dialler(member, address, self._dial, self._ask, self._clock, self._random)
        return self._diallers[member].dial()

    def _ask(self, member: str) -> Connection:
        return Connection(self, Dialling(self._secret, self._key, member), self._clock, member)

    def _answer(self, addr: IAddress) -> Connection:
        return Connection(self, Answering(self._secret, self._key), self._clock, str(getattr(addr, "host", addr)))

    def _tick(self) -> None:
        self._timer = self._clock.call_later(PING_MS, self._tick)
        for connection in list(self._links.values()):
            connection.tick()

    def _link(self, member: str) -> Link | None:
        connection = self._links.get(member)
        return None if connection is None else connection.link

    # --- what its connections ask of it (`psubd.peers.connection.Home`)

    def arrived(self, connection: Connection) -> bool:
        self._open.add(connection)
        self._strangers[connection] = None
        unproven = [stranger for stranger in self._strangers if stranger.incoming and not stranger.proven]
        if len(unproven) > MOST_STRANGERS:
            unproven[0].end(f"more than {MOST_STRANGERS} connections are not proven, and this is the oldest")
            self._strangers.pop(unproven[0], None)
        return self._running

    def knows(self, member: str) -> bool:
        return member in self._membership.members()

    def joined(self, connection: Connection) -> None:
        self._strangers.pop(connection, None)
        former = self._links.get(connection.name)
        if former is not None:  # the dialler saw it end, and this node has not yet
            former.end("the node dialled anew")
        self._links[connection.name] = connection
        log.info("linked with node {member}", member=connection.name)

    def parted(self, connection: Connection, why: str) -> None:
        if self._links.get(connection.name) is connection:
            del self._links[connection.name]
        log.info("the link with node {member} ended: {why}", member=connection.name, why=why)
        for lost in list(self._lost):
            try:
                lost(connection.name)
            except Exception:  # noqa: BLE001 - one listener's fault is not the others'
                log.failure("a listener failed when the link with node {member} ended", member=connection.name)

    def gone(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._strangers.pop(connection, None)
