"""Whatever comes in: no exception gets out, nothing is run that was not sent, and every answer is whole."""

import random

from twisted.internet.defer import succeed
from zope.interface.verify import verifyClass, verifyObject

from psubd.interfaces import IExchange, IOutlet
from psubd.model import Answer
from psubd.wire.exchange import Exchange, View
from psubd.wire.hot import HotRequest
from psubd.wire.outlet import Outlet
from tests.wire.peer import Endpoint, WireCase, chunked, get, post

ROUNDS = 3000
NOISE = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b":",
    b" ",
    b"\t",
    b"\xff",
    b"0",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"a" * 200,
    b"%2F",
    b";",
]


class Echo(Endpoint):
    def __call__(self, exchange: IExchange, **parts: str) -> object:
        self.calls.append((exchange, parts))
        return succeed(Answer(body=exchange.body))


class Garbage(WireCase):
    def setUp(self) -> None:
        super().setUp()
        self.endpoint = Echo()
        self.site = self.serve()

    def spoil(self, chance: random.Random, raw: bytes) -> bytes:
        """``raw`` with a few pieces cut out, doubled or put in."""
        for _ in range(chance.randint(1, 4)):
            at, size = chance.randrange(len(raw) + 1), chance.randint(0, 12)
            middle = chance.choice([b"", raw[at : at + size] * 2, chance.choice(NOISE), chance.randbytes(3)])
            raw = raw[:at] + middle + raw[at + size :]
        return raw

    def test_spoiled(self) -> None:
        """Spoiled requests in random pieces: each connection gets whole answers, of which only the known statuses, and nothing is logged."""
        chance = random.Random(20261124)
        good = [get(), post(b"hello"), chunked(b"hello world" * 20, piece=7), get("/none"), post(b"x" * 2000), get("/get", "Expect: 100-continue")]
        seen = set()
        for _ in range(ROUNDS):
            raw = self.spoil(chance, b"".join(chance.choices(good, k=chance.randint(1, 3))))
            peer = self.peer()
            start = 0
            while start < len(raw):
                end = start + chance.choice((1, 3, 50, 1000))
                peer.send(raw[start:end])
                start = end
            seen |= {response.status for response in peer.responses()}
            self.assertEqual(peer.raw[peer.read :], b"", raw)
            peer.lose()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertLessEqual(seen, {100, 200, 400, 404, 405, 413, 414, 415, 431})
        self.assertLessEqual({200, 400, 404, 405, 413}, seen)
        self.assertEqual(self.metric("psubd_http_body_bytes"), 0)
        self.assertEqual(self.clock.reactor.getDelayedCalls(), [])


class Interfaces(WireCase):
    def test_provided(self) -> None:
        """What endpoints get is what the interfaces promise."""
        verifyClass(IOutlet, Outlet)
        self.peer().send(get())
        kind: type[View] = HotRequest if self.hot else Exchange
        self.assertIsInstance(self.endpoint.exchange, kind)
        verifyObject(IExchange, self.endpoint.exchange)
