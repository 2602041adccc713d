"""What is known of a session, from kazoo's connection."""

from types import SimpleNamespace
from typing import Any

from kazoo.client import KazooClient
from kazoo.protocol.connection import ConnectionHandler
from kazoo.protocol.serialization import Connect, Exists, ReplyHeader, Sync
from twisted.trial.unittest import SynchronousTestCase

from psubd.registry.zookeeper.line import MARGIN_MS, Lease, Line, Threads

SYNC = Sync("/")
OK, NO_NODE, EXPIRED, MOVED = 0, -101, -112, -118


class Lines(SynchronousTestCase):
    """`Line`, with kazoo's own half replaced."""

    def setUp(self) -> None:
        self.now, self.renewed, self.answer = 0, 0, None
        for name in ("_invoke", "_submit", "_read_response"):
            self.patch(ConnectionHandler, name, lambda *_, **__: self.answer)
        self.line = Line(KazooClient("127.0.0.1:1", handler=Threads(1.0, 6.0)), None, lambda: self.now, self.renew)

    def renew(self) -> None:
        self.renewed += 1

    def connect(self, session: int, timeout_ms: int) -> None:
        self.answer = (SimpleNamespace(session_id=session, time_out=timeout_ms), None)
        self.line._invoke(1.0, Connect(0, 0, 10_000, 0, b"", False))

    def send(self, xid: int, request: Any = SYNC) -> None:
        self.line._submit(request, 1.0, xid)

    def hear(self, xid: int, error: int = OK) -> None:
        self.line._read_response(ReplyHeader(xid, 1, error), b"", 0)

    def test_as_granted(self) -> None:
        """The session lasts as long as the server said, not as was asked."""
        self.now = 50
        self.connect(7, 4_000)
        self.assertEqual(self.line.lease, Lease(7, 4_000, 50))
        self.assertEqual(self.line.lease.ends_ms, 50 + 4_000 - MARGIN_MS)

    def test_from_when_it_was_sent(self) -> None:
        """An answer counts from the moment before its request was sent."""
        self.connect(7, 4_000)
        self.now = 1_000
        self.send(1)
        self.now = 2_500
        self.hear(1)
        self.assertEqual(self.line.lease.confirmed_ms, 1_000)

    def test_only_what_the_leader_answers(self) -> None:
        """A read may be a follower's that has lost its leader."""
        self.connect(7, 4_000)
        self.now = 1_000
        self.send(1, Exists("/", None))
        self.hear(1)
        self.assertEqual(self.line.lease.confirmed_ms, 0)

    def test_a_refusal_is_an_answer(self) -> None:
        """That a path is not there was the leader's word too."""
        self.connect(7, 4_000)
        self.now = 1_000
        self.send(1)
        self.hear(1, NO_NODE)
        self.assertEqual(self.line.lease.confirmed_ms, 1_000)

    def test_never_backwards(self) -> None:
        """An older request's answer takes nothing away."""
        self.connect(7, 4_000)
        for xid, self.now in ((1, 100), (2, 200)):
            self.send(xid)
        self.hear(2)
        self.hear(1)
        self.assertEqual(self.line.lease.confirmed_ms, 200)

    def test_ended(self) -> None:
        """A session that is refused is none, before anybody else hears of it."""
        for error in (EXPIRED, MOVED):
            self.connect(7, 4_000)
            self.send(1)
            self.hear(1, error)
            self.assertIsNone(self.line.lease)
        self.connect(7, 4_000)
        self.connect(0, 0)
        self.assertIsNone(self.line.lease)

    def test_answers_of_an_older_connection(self) -> None:
        """They are forgotten with it: the numbers begin anew."""
        self.connect(7, 4_000)
        self.send(1)
        self.now = 3_000
        self.connect(8, 4_000)
        self.now = 3_500
        self.hear(1)
        self.assertEqual(self.line.lease, Lease(8, 4_000, 3_000))

    def test_slow_servers(self) -> None:
        """A server that does not answer in time is left for the next one; in turn after turn each gets longer, so that slow ones are reached too."""
        waited: list[float] = []

        def silent(line: Line, timeout: float, *_: Any) -> Any:
            waited.append(timeout)
            raise TimeoutError

        answers = ConnectionHandler._invoke
        self.patch(ConnectionHandler, "_invoke", silent)
        for _ in range(5):
            self.assertRaises(TimeoutError, self.connect, 7, 4_000)
        self.assertEqual(waited, [1.0, 2.0, 4.0, 6.0, 6.0])
        self.assertEqual(self.line.handler.patience_s, 6.0)
        self.patch(ConnectionHandler, "_invoke", answers)
        self.connect(7, 4_000)
        self.assertEqual(self.line.handler.patience_s, 1.0)

    def test_renewed(self) -> None:
        """It is told when a lease stands that did not; not each time that it grows."""
        self.connect(7, 4_000)
        self.assertEqual(self.renewed, 1)
        self.send(1)
        self.now = 2_000
        self.send(2)
        self.hear(1)
        self.hear(2)
        self.assertEqual(self.renewed, 1)
        self.now = 10_000
        self.send(3)
        self.hear(3)
        self.assertEqual(self.renewed, 2)
