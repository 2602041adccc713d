"""/v1/sub against a subscriber that says what it is told to: formats, what settles, what is refused before anybody is asked."""

import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from psubd import endpoints
from psubd.endpoints import formats, frames, places
from psubd.endpoints.places import Place
from psubd.errors import BadCredentials, StorageUnavailable, TopicNotBound
from psubd.model import Answer, Delivered, Delivery, Poll, Replay, Verdict
from tests.endpoints.house import Headers, Reply
from tests.endpoints.scripted import ScriptedCase, message


class SubCase(ScriptedCase):
    def setUp(self) -> None:
        super().setUp()
        self.settled: list[int] = []

    def begun(self, query: str = "", *headers: tuple[bytes | str, bytes | str]) -> "Deferred[Answer]":
        return self.begin("GET", "/v1/sub", [*self.shop.sub, *headers], query=query)

    def posted(self, headers: Headers = (), **form: Any) -> "Deferred[Answer]":
        return self.begin("POST", "/v1/sub", [*self.shop.sub, *headers], json.dumps(form).encode())

    def give(self, *messages: Delivered, next: dict[int, int] | None = None) -> None:
        """Answer the last ask."""
        self.scripted.give(messages, self.settled.append, next)


class AskTests(SubCase):
    def test_get(self) -> None:
        """The query is what the subscriber is asked for, in the name of the key's application."""
        self.begun("batchSize=5&topic=orders&group=g&timeout=0&maxBytes=2048&ack=auto")
        expected = ("shop", Poll("shop.g", ("orders",), 5, 2048, 0, "auto"))
        self.assertEqual(self.scripted.asks[0][:2], expected)

    def test_post(self) -> None:
        """The JSON object says the same."""
        self.posted(batchSize=5, topic=["orders"], group="g", timeout=0, maxBytes=2048, ack="auto")
        self.assertEqual(self.scripted.asks[0][1], Poll("shop.g", ("orders",), 5, 2048, 0, "auto"))

    def test_explicit(self) -> None:
        """What is said of leases goes to the subscriber."""
        self.begun("ack=explicit&ackTimeout=5000")
        self.posted(ack="explicit", ackTimeout=5000)
        for _, ask, _ in self.scripted.asks:
            self.assertEqual(ask, Poll("shop", ack="explicit", ack_timeout_ms=5000))

    def test_replay(self) -> None:
        """An offset makes it a replay."""
        self.begun("topic=orders&offset=earliest&batchSize=3")
        self.assertEqual(self.scripted.asks[0][1], Replay("orders", "earliest", None, 3))

    def test_bearer(self) -> None:
        """A Bearer subkey is enough."""
        self.begin("GET", "/v1/sub", [("authorization", f"Bearer {self.shop.subkey}")])
        self.assertEqual(len(self.scripted.asks), 1)

    def test_client_gone(self) -> None:
        """A client that goes away withdraws its ask."""
        waiting = self.begun()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.scripted.withdrawn, [self.scripted.asks[0][2]])


class AnswerTests(SubCase):
    def test_json(self) -> None:
        """One object with the messages."""
        waiting = self.begun("batchSize=2")
        self.give(message(1, b"a", b"k"), message(2, b"\xff"))
        reply = self.reply(waiting)
        self.assertEqual((reply.status, reply.header("content-type")), (200, "application/json"))
        one = {
            "topic": "orders",
            "partition": 0,
            "offset": 1,
            "timestamp": 1700,
            "key": "k",
            "value": "a",
            "encoding": "utf-8",
            "headers": {},
            "attempt": 1,
        }
        two = {**one, "offset": 2, "key": None, "value": "/w==", "encoding": "base64"}
        self.assertEqual(reply.json, {"messages": [one, two]})

    def test_nothing(self) -> None:
        """204 without a body when the time is over, in every format."""
        for accept in ("application/json", "application/x-ndjson", "application/octet-stream", frames.TYPE):
            waiting = self.begun("", ("accept", accept))
            self.give()
            reply = self.reply(waiting)
            self.assertEqual((reply.status, reply.headers, reply.body), (204, [], b""))

    def test_lines(self) -> None:
        """One message a line."""
        waiting = self.begun("batchSize=2", ("accept", "application/x-ndjson"))
        self.give(message(1), message(2))
        reply = self.reply(waiting)
        self.assertEqual(reply.header("content-type"), "application/x-ndjson")
        self.assertEqual([json.loads(line)["offset"] for line in reply.body.splitlines()], [1, 2])

    def test_stands(self) -> None:
        """Whether a delivery stands goes on to the wire, in every format; an empty one has nothing to lose."""
        stands = lambda: True
        for accept, count in (("application/json", 2), ("application/x-ndjson", 2), ("application/octet-stream", 1)):
            waiting = self.begun(f"batchSize={count}", ("accept", accept))
            self.scripted.asks[-1][2].callback(Delivery(tuple(map(message, range(count))), self.settled.append, None, stands))
            self.assertIs(self.successResultOf(waiting).stands, stands)
        waiting = self.begun()
        self.scripted.asks[-1][2].callback(Delivery((), self.settled.append, None, stands))
        self.assertIsNone(self.successResultOf(waiting).stands)

    def test_octets(self) -> None:
        """The payload itself, the rest in headers."""
        waiting = self.begun("", ("accept", "application/octet-stream"))
        self.give(message(41, b"\x00\xff", b"k", headers=(("content-type", b"text/html"),)))
        reply = self.reply(waiting)
        self.assertEqual((reply.status, reply.body), (200, b"\x00\xff"))
        found = {name.decode(): value.decode() for name, value in reply.headers}
        expected = {
            "content-type": "application/octet-stream",
            "topic.id": "orders",
            "partition": "0",
            "offset": "41",
            "timestamp": "1700",
            "attempt": "1",
            "key": "k",
        }
        self.assertEqual(found, {**expected, "header.content-type": "text/html"})

    def test_explicit(self) -> None:
        """A leased message has its token and epoch, one that is not has neither: in the same answer too."""
        waiting = self.begun("batchSize=2")
        self.give(message(1, token="tk", epoch=7), message(2))
        leased, auto = self.reply(waiting).json["messages"]
        self.assertEqual((leased["ack"], leased["epoch"], {"ack", "epoch"} & auto.keys()), ("tk", 7, set()))
        waiting = self.begun("", ("accept", "application/octet-stream"))
        self.give(message(1, token="tk", epoch=7))
        reply = self.reply(waiting)
        self.assertEqual((reply.header("ack.token"), reply.header("epoch")), ("tk", "7"))

    def test_tombstone(self) -> None:
        """Null is an empty body that says so."""
        waiting = self.begun("", ("accept", "application/octet-stream"))
        self.give(message(41, None))
        reply = self.reply(waiting)
        self.assertEqual((reply.body, reply.header("tombstone")), (b"", "true"))

    def test_replay_next(self) -> None:
        """A replay's answer says where to go on: in the JSON, in a header of every other answer, and of an empty one too."""
        place = places.write(Place("orders", None, {0: 3, 1: 0}))
        for accept in ("application/json", "application/x-ndjson", "application/octet-stream", frames.TYPE):
            waiting = self.begun("topic=orders&offset=earliest", ("accept", accept))
            self.give(message(2, attempt=None), next={0: 3, 1: 0})
            reply = self.reply(waiting)
            if accept == "application/json":
                self.assertEqual((reply.json["next"], "attempt" in reply.json["messages"][0]), (place, False))
            else:
                self.assertEqual((reply.header("next"), reply.header("attempt")), (place, None))
            waiting = self.begun("topic=orders&offset=latest&timeout=0", ("accept", accept))
            self.give(next={0: 3, 1: 0})
            reply = self.reply(waiting)
            self.assertEqual((reply.status, reply.header("next")), (204, place))
        self.begun(f"topic=orders&offset={place}")
        self.assertEqual(self.scripted.asks[-1][1], Replay("orders", {0: 3, 1: 0}))

    def test_replay_of_a_partition(self) -> None:
        """``next`` remembers that one partition was asked for."""
        waiting = self.begun("topic=orders&offset=5&partition=1")
        self.give(message(5, attempt=None), next={1: 6})
        self.begun(f"topic=orders&offset={self.reply(waiting).json['next']}")
        self.assertEqual(self.scripted.asks[-1][1], Replay("orders", {1: 6}, 1))

    def test_post_without_tokens(self) -> None:
        """Without tokens POST answers as GET does."""
        waiting = self.posted(timeout=0)
        self.give()
        self.assertEqual(self.reply(waiting).status, 204)
        waiting = self.posted([("accept", "application/octet-stream")])
        self.give(message(1))
        self.assertEqual(self.reply(waiting).body, b"v")

    def test_post_with_no_tokens_in_the_list(self) -> None:
        """With tokens, though there be none, it is always 200 and JSON."""
        for messages in ((), (message(1),)):
            waiting = self.posted(tokens=[], timeout=0)
            self.give(*messages)
            reply = self.reply(waiting)
            self.assertEqual((reply.status, reply.json["acked"], reply.json["lost"], len(reply.json["messages"])), (200, 0, [], len(messages)))


class SettleTests(SubCase):
    def handed(self, accept: str, handed: int, *messages: Delivered) -> int:
        """How many of the messages are done when so many bytes of the answer were handed over; below 0: from the end."""
        waiting = self.begun(f"batchSize={len(messages)}", ("accept", accept))
        self.give(*messages)
        answer = self.successResultOf(waiting)
        assert answer.settle is not None
        self.assertEqual(self.settled, [])
        answer.settle(handed if handed >= 0 else len(answer.body) + 1 + handed)
        (done,) = self.settled
        self.settled.clear()
        return done

    def test_all_or_nothing(self) -> None:
        """All messages of a JSON answer count when the whole of it was handed over, none when one byte was missing."""
        for more in ({}, {"token": "tk", "epoch": 7}):
            messages = [message(offset, **more) for offset in range(3)]
            self.assertEqual([self.handed("application/json", handed, *messages) for handed in (-1, -2, 0)], [3, 0, 0])

    def test_line_by_line(self) -> None:
        """Of lines those count whose last byte was handed over."""
        messages = [message(offset, token="tk", epoch=7) for offset in range(3)]
        body, ends = formats.json_lines(messages)
        self.assertEqual((body[: ends[0]].count(b"\n"), ends[2]), (1, len(body)))
        told = [
            self.handed("application/x-ndjson", handed, *messages) for handed in (0, ends[0] - 1, ends[0], ends[1] - 1, ends[1], ends[2] - 1, ends[2])
        ]
        self.assertEqual(told, [0, 0, 1, 1, 2, 2, 3])

    def test_frame_by_frame(self) -> None:
        """Of frames likewise."""
        messages = [message(offset, token="tk", epoch=7) for offset in range(3)]
        body = frames.encode(messages)
        ends = [len(body) // 3 * number for number in (1, 2, 3)]
        told = [self.handed(frames.TYPE, handed, *messages) for handed in (0, ends[0] - 1, ends[0], ends[1], ends[2] - 1, ends[2])]
        self.assertEqual(told, [0, 0, 1, 2, 2, 3])

    def test_not_even_the_head(self) -> None:
        """A connection that broke before the head was handed over got nothing."""
        waiting = self.begun("", ("accept", "application/x-ndjson"))
        self.give(message(1))
        settle = self.successResultOf(waiting).settle
        assert settle is not None
        settle(-1)
        self.assertEqual(self.settled, [0])

    def test_octets(self) -> None:
        """The same for one payload."""
        self.assertEqual([self.handed("application/octet-stream", handed, message(1, b"abc")) for handed in (3, 2, 0)], [1, 0, 0])

    def test_no_body(self) -> None:
        """A payload without bytes is done when the head was handed over: 0 bytes of 0; a connection that broke before that is -1."""
        for value in (b"", None):
            for handed, done in ((0, 1), (-1, 0)):
                waiting = self.begun("", ("accept", "application/octet-stream"))
                self.give(message(1, value))
                settle = self.successResultOf(waiting).settle
                assert settle is not None
                settle(handed)
                self.assertEqual(self.settled.pop(), done)

    def test_empty_is_settled(self) -> None:
        """An empty delivery is settled at once, and its answer carries nothing to settle."""
        waiting = self.begun()
        self.give()
        self.assertIsNone(self.successResultOf(waiting).settle)
        self.assertEqual(self.settled, [0])

    def test_a_bug_loses_nothing(self) -> None:
        """Whatever goes wrong while the answer is made, the messages go back."""
        broken: list[tuple[Any, str, str]] = [
            (formats, "Read", "application/json"),
            (formats, "as_read", "application/x-ndjson"),
            (endpoints.sub.octets, "head", "application/octet-stream"),
        ]
        for module, name, accept in broken:
            self.patch(module, name, lambda *_: 1 / 0)
            waiting = self.begun("", ("accept", accept))
            self.give(message(1))
            self.failureResultOf(waiting, ZeroDivisionError)
            self.assertEqual(self.settled, [0])
            self.settled.clear()

    def test_out_of_memory_too(self) -> None:
        """Also what is no Exception."""

        def no_memory(*_: object) -> None:
            raise MemoryError

        self.patch(formats, "Read", no_memory)
        waiting = self.begun()
        self.give(message(1))
        self.failureResultOf(waiting, MemoryError)
        self.assertEqual(self.settled, [0])


class RefusedTests(SubCase):
    """What is refused before the subscriber is asked for anything."""

    def refused(self, status: int, code: str, deferred: "Deferred[Answer]") -> Reply:
        reply = self.refuses(self.reply(deferred), status, code)
        self.assertEqual(self.scripted.asks, [])
        return reply

    def test_credentials(self) -> None:
        """None, wrong, another's key for it, two kinds: 401; both challenges."""
        wrong: list[Headers] = [[], self.shop.pub, [*self.shop.sub, *self.shop.pub], [("subkey", self.shop.secret)], [("subkey", "sk_" + "a" * 43)]]
        for method, body in (("GET", b""), ("POST", b"{}")):
            for headers in wrong:
                reply = self.refused(401, "bad_credentials", self.begin(method, "/v1/sub", headers, body))
                self.assertIn("Bearer", reply.header("www-authenticate") or "")

    def test_credentials_in_the_query(self) -> None:
        """400, not repeated."""
        reply = self.refused(400, "bad_parameter", self.begin("GET", "/v1/sub", query=f"subkey={self.shop.subkey}"))
        self.assertNotIn(self.shop.subkey, reply.body.decode())

    def test_parameters(self) -> None:
        """Ranges, grammar, unknown ones, repeats, combinations; each names itself."""
        queries = {
            "batchSize=0": "batchSize",
            "batchSize=10001": "batchSize",
            "maxBytes=1023": "maxBytes",
            "timeout=60001": "timeout",
            "timeout=-1": "timeout",
            "ackTimeout=999": "ackTimeout",
            "group=": "group",
            "group=a&group=b": "group",
            "topic=__x": "topic",
            "ack=maybe": "ack",
            "colour=red": "colour",
            "partition=0": "partition",
            "offset=earliest": "topic",
            "topic=orders&offset=5": "partition",
            "topic=orders&offset=earliest&group=g": "group",
        }
        for query, name in queries.items():
            self.assertIn(name, self.refused(400, "bad_parameter", self.begun(query)).json["detail"])

    def test_body(self) -> None:
        """POST wants a JSON object, and no query."""
        for body in (b"", b"[]", b"{", b'{"batchSize": "1"}', b'{"batchSize": 0}', b'{"colour": 1}', b'{"tokens": [1]}', b'{"tokens": "a"}'):
            self.refused(400, "bad_body", self.begin("POST", "/v1/sub", self.shop.sub, body))
        self.refused(400, "bad_parameter", self.begin("POST", "/v1/sub", self.shop.sub, b"{}", "timeout=0"))
        self.refused(415, "unsupported_media_type", self.posted([("content-type", "application/x-www-form-urlencoded")]))

    def test_accept(self) -> None:
        """What is not given: 406; streams are not built yet. With tokens only JSON is."""
        for accept in ("text/event-stream", "text/html", "application/json;q=0"):
            self.refused(406, "not_acceptable", self.begun("", ("accept", accept)))
        self.refused(406, "not_acceptable", self.posted([("accept", "application/octet-stream")], tokens=[]))

    def test_octets_carry_one(self) -> None:
        """An octet-stream with a batch is a mistake; where JSON is as welcome, it is JSON."""
        self.refused(400, "bad_parameter", self.begun("batchSize=2", ("accept", "application/octet-stream")))
        waiting = self.begun("batchSize=2", ("accept", "application/octet-stream, application/json"))
        self.give(message(1))
        self.assertEqual(self.reply(waiting).header("content-type"), "application/json")

    def test_key_ends_while_waiting(self) -> None:
        """A key that ends meanwhile is 401 with the challenges of this route; a binding that ends is 403."""
        waiting = self.begun()
        self.scripted.asks[0][2].errback(BadCredentials("ended"))
        self.assertIn("Bearer", self.refuses(self.reply(waiting), 401, "bad_credentials").header("www-authenticate") or "")
        waiting = self.begun()
        self.scripted.asks[1][2].errback(TopicNotBound("revoked"))
        self.refuses(self.reply(waiting), 403, "topic_not_bound")


class TokenTests(SubCase):
    """Acks with the next read."""

    def test_acks_come_first(self) -> None:
        """The tokens are acked, then it is polled; the answer says both, and is 200 also without a message."""
        for messages in ((), (message(1, token="tk", epoch=7),)):
            waiting = self.posted(tokens=["a", "b", "c"], timeout=5, ack="explicit")
            asked = len(self.scripted.asks)
            self.assertEqual(self.scripted.calls[-1][:3], ("ack", "shop", (["a", "b", "c"],)))
            self.scripted.judge(Verdict(2, ("b",)))
            self.assertEqual((len(self.scripted.asks), self.scripted.asks[-1][1]), (asked + 1, Poll("shop", timeout_ms=5, ack="explicit")))
            self.give(*messages)
            reply = self.reply(waiting)
            self.assertEqual((reply.status, reply.json["acked"], reply.json["lost"], len(reply.json["messages"])), (200, 2, ["b"], len(messages)))
        self.assertEqual(self.settled, [0, 1])

    def test_wrong_ask_acks_nothing(self) -> None:
        """A parameter that is not valid, or a type that is not given, and no token is looked at."""
        self.refuses(self.reply(self.posted(tokens=["a"], topic="__x")), 400, "bad_parameter")
        self.refuses(self.reply(self.posted(tokens=["a"], timeout=-1)), 400, "bad_body")
        self.refuses(self.reply(self.posted(tokens=["a"] * 10_001)), 400, "bad_body")
        self.refuses(self.reply(self.posted(tokens=["a"], topic="orders", offset="earliest")), 400, "bad_parameter")
        self.refuses(self.reply(self.posted([("accept", "application/x-ndjson")], tokens=["a"])), 406, "not_acceptable")
        self.assertEqual((self.scripted.calls, self.scripted.asks), ([], []))

    def test_acks_that_fail(self) -> None:
        """Where the acks cannot be judged it is not polled, and the answer says why."""
        waiting = self.posted(tokens=["a"])
        self.scripted.judge(StorageUnavailable("away"))
        self.refuses(self.reply(waiting), 503, "storage_unavailable")
        self.assertEqual(self.scripted.asks, [])

    def test_poll_that_fails(self) -> None:
        """Where the poll fails the answer says why; a key that ended names the challenges of the route."""
        waiting = self.posted(tokens=["a"])
        self.scripted.judge(Verdict(1))
        self.scripted.asks[-1][2].errback(BadCredentials("ended"))
        self.assertIn("Bearer", self.refuses(self.reply(waiting), 401, "bad_credentials").header("www-authenticate") or "")

    def test_client_gone_while_acking(self) -> None:
        """Acks that were begun go on without the client; then nothing is polled for it."""
        waiting = self.posted(tokens=["a"])
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.scripted.withdrawn, [])
        self.scripted.judge(Verdict(1))
        self.assertEqual(self.scripted.asks, [])

    def test_client_gone_while_waiting(self) -> None:
        """After them its poll is withdrawn."""
        waiting = self.posted(tokens=["a"])
        self.scripted.judge(Verdict(1))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.scripted.withdrawn, [self.scripted.asks[0][2]])

    def test_a_bug_loses_nothing(self) -> None:
        """What goes wrong while the answer is made gives the messages back here too."""
        self.patch(formats, "Read", lambda *_: 1 / 0)
        waiting = self.posted(tokens=["a"])
        self.scripted.judge(Verdict(1))
        self.give(message(1))
        self.failureResultOf(waiting, ZeroDivisionError)
        self.assertEqual(self.settled, [0])
