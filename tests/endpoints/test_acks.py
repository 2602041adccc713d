"""/v1/ack, /v1/nack and /v1/extend against a subscriber that says what it is told to."""

import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from psubd.errors import BadCredentials, NoDeadLetter, OwnershipInDoubt
from psubd.model import Answer, Verdict
from tests.endpoints.house import Headers
from tests.endpoints.scripted import ScriptedCase

ROUTES: dict[str, dict[str, Any]] = {"ack": {}, "nack": {}, "extend": {"ackTimeout": 1000}}
"""Each route, with what it needs beside tokens."""
COUNTS = {"ack": "acked", "nack": "nacked", "extend": "extended"}


class AckTests(ScriptedCase):
    def called(self, route: str, headers: Headers = (), **form: Any) -> "Deferred[Answer]":
        return self.begin("POST", f"/v1/{route}", [*self.shop.sub, *headers], json.dumps(form).encode())

    def refused(self, status: int, code: str, deferred: "Deferred[Answer]") -> str:
        """Refused before any token was looked at; the detail."""
        reply = self.refuses(self.reply(deferred), status, code)
        self.assertEqual(self.scripted.calls, [])
        return str(reply.json["detail"])

    def test_what_is_asked(self) -> None:
        """The tokens as they came, repeats too, in the name of the key's application; what else the route takes, with its default."""
        tokens = ["b", "a", "b", ""]
        for route, more, said in (
            ("ack", {}, ()),
            ("nack", {}, (0, False)),
            ("nack", {"delay": 43_200_000}, (43_200_000, False)),
            ("nack", {"dead": True, "delay": 0}, (0, True)),
            ("extend", {"ackTimeout": 1000}, (1000,)),
            ("extend", {"ackTimeout": 43_200_000}, (43_200_000,)),
        ):
            self.called(route, tokens=tokens, **more)
            self.assertEqual(self.scripted.calls[-1][:3], (route, "shop", (tokens, *said)))

    def test_all_took_effect(self) -> None:
        """200 with their number."""
        for route, more in ROUTES.items():
            waiting = self.called(route, tokens=["a", "b"], **more)
            self.assertNoResult(waiting)
            self.scripted.judge(Verdict(2))
            reply = self.reply(waiting)
            self.assertEqual((reply.status, reply.header("content-type"), reply.json), (200, "application/json", {COUNTS[route]: 2}))

    def test_some_are_lost(self) -> None:
        """409 that lists them, and says how many of the others took effect."""
        for route, more in ROUTES.items():
            waiting = self.called(route, tokens=["a", "b", "c"], **more)
            self.scripted.judge(Verdict(1, ("a", "c")))
            reply = self.refuses(self.reply(waiting), 409, "lease_lost")
            self.assertEqual((reply.json["lost"], reply.json[COUNTS[route]]), (["a", "c"], 1))

    def test_failures(self) -> None:
        """What the subscriber fails with is the answer; a key that ended meanwhile names what the route takes."""
        waiting = self.called("nack", tokens=["a"], dead=True)
        self.scripted.judge(NoDeadLetter("none"))
        self.refuses(self.reply(waiting), 409, "no_dead_letter")
        waiting = self.called("ack", tokens=["a"])
        self.scripted.judge(OwnershipInDoubt("whose?"))
        self.assertEqual(self.refuses(self.reply(waiting), 503, "ownership_in_doubt").header("retry-after"), "1")
        waiting = self.called("extend", tokens=["a"], ackTimeout=1000)
        self.scripted.judge(BadCredentials("ended"))
        self.assertIn("Bearer", self.refuses(self.reply(waiting), 401, "bad_credentials").header("www-authenticate") or "")

    def test_client_gone(self) -> None:
        """What was begun goes on though its client has left, however it ends."""
        for verdict in (Verdict(1), OwnershipInDoubt("whose?")):
            waiting = self.called("ack", tokens=["a"])
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            self.scripted.judge(verdict)
        self.assertEqual(self.scripted.withdrawn, [])

    def test_credentials(self) -> None:
        """A subkey; nothing else, and not in the query."""
        for route in ROUTES:
            for headers in ([], self.shop.pub, [("subkey", self.shop.secret)]):
                self.refused(401, "bad_credentials", self.begin("POST", f"/v1/{route}", headers, b'{"tokens": ["a"]}'))
            self.refused(400, "bad_parameter", self.begin("POST", f"/v1/{route}", self.shop.sub, b"{}", f"subkey={self.shop.subkey}"))

    def test_no_query(self) -> None:
        """No parameter is taken from the query."""
        for route in ROUTES:
            self.refused(400, "bad_parameter", self.begin("POST", f"/v1/{route}", self.shop.sub, b'{"tokens": ["a"]}', "tokens=a"))

    def test_type(self) -> None:
        """JSON, or nothing said."""
        for route in ROUTES:
            self.refused(415, "unsupported_media_type", self.called(route, [("content-type", "text/plain")], tokens=["a"]))
        self.called("ack", [("content-type", "application/json; charset=utf-8")], tokens=["a"])
        self.assertEqual(len(self.scripted.calls), 1)

    def test_tokens(self) -> None:
        """From 1 to 10,000 texts."""
        for route, more in ROUTES.items():
            for tokens in ([], ["a"] * 10_001, [1], [None], [["a"]], "a", {"a": 1}, None):
                self.assertIn("tokens", self.refused(400, "bad_body", self.called(route, tokens=tokens, **more)))
        self.called("ack", tokens=["x" * 200] * 10_000)
        self.assertEqual(len(self.scripted.calls), 1)

    def test_bodies(self) -> None:
        """An object with what the route takes: nothing less, nothing more, nothing twice."""
        for route in ROUTES:
            for body in (b"", b"[]", b"null", b"{", b"{}", b'{"tokens": ["\xff"]}', b'{"tokens": ["\\ud800"]}'):
                self.refused(400, "bad_body", self.begin("POST", f"/v1/{route}", self.shop.sub, body))
        for route, members, name in (
            ("ack", '"delay": 0', "delay"),
            ("ack", '"ackTimeout": 1000', "ackTimeout"),
            ("ack", '"tokens": ["a"]', "tokens"),
            ("nack", '"delay": -1', "delay"),
            ("nack", '"delay": 43200001', "delay"),
            ("nack", '"delay": "0"', "delay"),
            ("nack", '"delay": 0, "delay": 0', "delay"),
            ("nack", '"dead": "true"', "dead"),
            ("nack", '"dead": null', "dead"),
            ("nack", '"dead": true, "delay": 1', "delay"),
            ("nack", '"ackTimeout": 1000', "ackTimeout"),
            ("extend", '"ack_timeout": 1000', "ack_timeout"),
            ("extend", '"ackTimeout": 999', "ackTimeout"),
            ("extend", '"ackTimeout": 43200001', "ackTimeout"),
            ("extend", '"ackTimeout": 1000.5', "ackTimeout"),
            ("extend", '"ackTimeout": 1000, "delay": 0', "delay"),
        ):
            body = f'{{"tokens": ["a"], {members}}}'.encode()
            self.assertIn(name, self.refused(400, "bad_body", self.begin("POST", f"/v1/{route}", self.shop.sub, body)))
        self.assertIn("ackTimeout", self.refused(400, "bad_body", self.called("extend", tokens=["a"])))
