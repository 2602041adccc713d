"""A subscriber that says what it is told to, behind the real routes."""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from psubd import endpoints
from psubd.model import Delivered, Delivery, Message, Poll, Replay, Verdict
from tests.endpoints.house import DataCase


class ScriptedSubscriber:
    """Keeps what was asked for; the test answers.

    :ivar asks: of whom, what, and the Deferred that the endpoint holds. :ivar calls: acks, nacks and extensions: which, of whom, with what, and
        the Deferred. :ivar withdrawn: those that were cancelled.
    """

    def __init__(self) -> None:
        self.asks: list[tuple[str, Poll | Replay, Deferred[Delivery]]] = []
        self.calls: list[tuple[str, str, tuple[Any, ...], Deferred[Verdict]]] = []
        self.withdrawn: list[Deferred[Any]] = []

    def poll(self, grant: Any, ask: Poll) -> "Deferred[Delivery]":
        return self._ask(grant, ask)

    def at_once(self, grant: Any, ask: Poll) -> None:
        """Nothing is at hand."""

    def replay(self, grant: Any, ask: Replay) -> "Deferred[Delivery]":
        return self._ask(grant, ask)

    def _ask(self, grant: Any, ask: Poll | Replay) -> "Deferred[Delivery]":
        self.asks.append((grant.application.id, ask, Deferred(self.withdrawn.append)))
        return self.asks[-1][2]

    def ack(self, grant: Any, tokens: Sequence[str]) -> "Deferred[Verdict]":
        return self._call("ack", grant, tokens)

    def nack(self, grant: Any, tokens: Sequence[str], delay_ms: int, dead: bool) -> "Deferred[Verdict]":
        return self._call("nack", grant, tokens, delay_ms, dead)

    def extend(self, grant: Any, tokens: Sequence[str], ack_timeout_ms: int) -> "Deferred[Verdict]":
        return self._call("extend", grant, tokens, ack_timeout_ms)

    def _call(self, which: str, grant: Any, *said: Any) -> "Deferred[Verdict]":
        self.calls.append((which, grant.application.id, said, Deferred(self.withdrawn.append)))
        return self.calls[-1][3]

    def give(self, messages: tuple[Delivered, ...], settle: Callable[[int], None], next: dict[int, int] | None = None) -> None:
        """Answer the last ask."""
        self.asks[-1][2].callback(Delivery(messages, settle, next))

    def judge(self, verdict: Verdict | Exception) -> None:
        """Answer the last call."""
        judged: Deferred[Any] = self.calls[-1][3]
        judged.callback(verdict) if isinstance(verdict, Verdict) else judged.errback(verdict)


class ScriptedCase(DataCase):
    """:ivar scripted: the subscriber."""

    def setUp(self) -> None:
        super().setUp()
        self.scripted: Any = ScriptedSubscriber()
        self.routes = endpoints.routes(self.gate, self.publisher, self.scripted, self.storage, self.clock)


def message(offset: int, value: bytes | None = b"v", key: bytes | None = None, **more: Any) -> Delivered:
    """A message of ``orders``."""
    return Delivered("orders", 0, Message(offset, 1700, key, value, more.pop("headers", ())), **{"attempt": 1, **more})
