"""Publish and subscribe through the endpoints, with the real gate, registrar, publisher and subscriber over memory."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from psubd import endpoints
from psubd.endpoints.credentials import BASIC_OR_BEARER
from psubd.services.partitioner import partition_of
from psubd.shown import base64_text
from psubd.testing.exchange import FakeExchange
from tests.endpoints.house import DataCase, Headers, Reply

OCTETS = ("accept", "application/octet-stream")


class WalkCase(DataCase):
    def sub(self, query: str = "timeout=0", *headers: tuple[bytes | str, bytes | str], handed: int | None = None) -> Reply:
        return self.ask("GET", "/v1/sub", [*self.shop.sub, *headers], query=query, handed=handed)

    def values(self, reply: Reply) -> list[str]:
        return [message["value"] for message in reply.json["messages"]]


class WalkTests(WalkCase):
    def test_publish_then_subscribe(self) -> None:
        """A message comes out as it went in, once; then there is nothing more."""
        self.publish("hello", key="user-1", **{"content-type": "text/plain"})
        (message,) = self.sub().json["messages"]
        expected = {
            "topic": "orders",
            "partition": partition_of(b"user-1", 3),
            "offset": 0,
            "timestamp": self.clock.epoch_ms(),
            "key": "user-1",
            "value": "hello",
            "encoding": "utf-8",
            "headers": {"content-type": "text/plain"},
            "attempt": 1,
        }
        self.assertEqual(message, expected)
        self.assertEqual(self.sub().status, 204)
        self.assertEqual(self.committed("shop")[message["partition"]], 1)

    def test_waiting(self) -> None:
        """A poll that waits is answered by a message that comes, and ends 204 after its time."""
        waiting = self.begin("GET", "/v1/sub", self.shop.sub, query="timeout=1000")
        self.assertNoResult(waiting)
        self.publish("hello")
        self.assertEqual(self.values(self.reply(waiting)), ["hello"])
        waiting = self.begin("GET", "/v1/sub", self.shop.sub, query="timeout=1000")
        self.clock.advance(999)
        self.assertNoResult(waiting)
        self.clock.advance(1)
        self.assertEqual(self.reply(waiting).status, 204)

    def test_broken_connection(self) -> None:
        """An answer that was not wholly handed over comes again, first, in order, as the same attempt; the offset did not move."""
        self.publish("1", "2", "3")
        lost = self.sub("timeout=0&batchSize=2", handed=5)
        self.assertEqual(self.values(lost), ["1", "2"])
        self.assertNotIn(1, self.committed("shop").values())
        again = self.sub("timeout=0&batchSize=10")
        self.assertEqual(self.values(again), ["1", "2", "3"])
        self.assertEqual([message["attempt"] for message in again.json["messages"]], [1, 1, 1])
        self.assertEqual(self.committed("shop")[partition_of(b"k", 3)], 3)

    def test_broken_before_the_head(self) -> None:
        """A payload without bytes whose connection broke is not lost either."""
        self.publish("")
        self.assertEqual(self.sub("timeout=0", OCTETS, handed=-1).body, b"")
        self.assertEqual(self.sub("timeout=0", OCTETS).status, 200)
        self.assertEqual(self.sub("timeout=0", OCTETS).status, 204)

    def test_answer_that_cannot_be_made(self) -> None:
        """A bug while an answer is made costs no message."""
        self.publish("1")
        with_bug = self.patch(endpoints.sub, "as_json", lambda *_: 1 / 0)
        self.assertRaises(ZeroDivisionError, self.sub)
        with_bug.restore()
        self.assertEqual(self.values(self.sub()), ["1"])

    def test_client_gone_while_waiting(self) -> None:
        """A poll that was withdrawn gets nothing: the message goes to the next one."""
        waiting = self.begin("GET", "/v1/sub", self.shop.sub, query="timeout=1000")
        waiting.cancel()
        self.failureResultOf(waiting)
        self.publish("1")
        self.assertEqual(self.values(self.sub()), ["1"])

    def test_two_groups(self) -> None:
        """Each group gets every message; a group's name means the same in GET and POST."""
        self.publish("1")
        self.assertEqual(self.values(self.sub("timeout=0&group=g")), ["1"])
        self.assertEqual(self.values(self.sub("timeout=0")), ["1"])
        reply = self.ask("POST", "/v1/sub", self.shop.sub, json.dumps({"timeout": 0, "group": "g"}).encode())
        self.assertEqual(reply.status, 204)

    def test_formats_say_the_same(self) -> None:
        """One message, read by three groups in three formats."""
        self.publish(b"\xff", key="k", **{"header.a": "1"})
        self.assertEqual(self.values(self.sub("timeout=0&group=a")), ["/w=="])
        line = json.loads(self.sub("timeout=0&group=b", ("accept", "application/x-ndjson")).body)
        self.assertEqual((line["value"], line["encoding"], line["headers"]), ("/w==", "base64", {"a": "1"}))
        octets = self.sub("timeout=0&group=c", OCTETS)
        self.assertEqual((octets.body, octets.header("key"), octets.header("header.a")), (b"\xff", "k", "1"))

    def test_replay(self) -> None:
        """A replay reads from a place, page by page, and moves no group."""
        self.publish("1", "2", "3")
        before = self.committed("shop")
        page = self.sub("timeout=0&topic=orders&offset=earliest&batchSize=2")
        self.assertEqual(self.values(page), ["1", "2"])
        self.assertEqual([set(message) & {"attempt", "ack", "epoch"} for message in page.json["messages"]], [set(), set()])
        page = self.sub(f"timeout=0&topic=orders&batchSize=2&offset={page.json['next']}")
        self.assertEqual(self.values(page), ["3"])
        end = self.sub(f"timeout=0&topic=orders&batchSize=2&offset={page.json['next']}")
        self.assertEqual((end.status, end.header("next")), (204, page.json["next"]))
        self.assertEqual(self.committed("shop"), before)
        self.assertEqual(self.values(self.sub("timeout=0&batchSize=9")), ["1", "2", "3"])

    def test_replay_past_the_end(self) -> None:
        """400 of its own code; before the log's start is its start."""
        self.publish("1", partition="0", key=None)
        self.refuses(self.sub("topic=orders&offset=2&partition=0"), 400, "offset_out_of_range")
        self.refuses(self.sub("topic=orders&offset=0&partition=3"), 400, "bad_parameter")
        self.assertEqual(self.values(self.sub("topic=orders&offset=0&partition=0")), ["1"])

    def test_not_bound(self) -> None:
        """403 whether the topic exists or not; no cursor is made by it."""
        for query in ("topic=secrets", "topic=missing", "topic=orders&topic=secrets", "topic=secrets&offset=earliest", "topic=missing&group=g"):
            self.refuses(self.sub(f"timeout=0&{query}"), 403, "topic_not_bound")
        self.assertEqual([group["group"] for group in self.ask("GET", "/v1/groups", self.shop.sub).json["items"]], ["shop"])

    def test_revoked_while_waiting(self) -> None:
        """A poll that names a topic ends 403 when its binding is revoked."""
        waiting = self.begin("GET", "/v1/sub", self.shop.sub, query="topic=orders")
        self.wait(self.registrar.delete_binding("shop", "orders", "test", None))
        self.clock.advance(1000)
        self.refuses(self.reply(waiting), 403, "topic_not_bound")

    def test_key_rotated_while_waiting(self) -> None:
        """A poll whose key ended is 401 with the challenges of the route."""
        waiting = self.begin("GET", "/v1/sub", self.shop.sub, query="topic=orders")
        self.wait(self.registrar.rotate("shop", "subkey", 0, "test", None))
        self.clock.advance(1000)
        self.assertIn("Bearer", self.refuses(self.reply(waiting), 401, "bad_credentials").header("www-authenticate") or "")

    def test_topic_missing(self) -> None:
        """Bound, but gone from the storage."""
        self.wait(self.storage.delete_topic("orders"))
        self.refuses(self.sub("timeout=0&topic=orders"), 404, "topic_missing")
        self.refuses(self.sub("timeout=0&topic=orders&offset=earliest"), 404, "topic_missing")

    def test_too_many_groups(self) -> None:
        """The 1001st group of an application is 429 with when to come again; the others go on."""
        for number in range(999):
            self.sub(f"timeout=0&group=g{number}")
        reply = self.refuses(self.sub("timeout=0&group=one-more"), 429, "too_many_groups")
        self.assertIsNotNone(reply.header("retry-after"))
        self.publish("1")
        self.assertEqual(self.values(self.sub("timeout=0&group=g7")), ["1"])

    def test_refusals_move_no_cursor(self) -> None:
        """Every refusal leaves the group where it was, and its message to be read."""
        self.publish("1")
        before = self.committed("shop")
        for query, headers in (
            ("batchSize=0", []),
            ("offset=earliest", []),
            ("colour=red", []),
            ("timeout=0", [("accept", "text/event-stream")]),
            ("timeout=0&batchSize=2", [OCTETS]),
            ("timeout=0&subkey=x", []),
            ("timeout=0", [("secret", "ps_x")]),
        ):
            self.assertGreaterEqual(self.sub(query, *headers).status, 400)
        self.assertEqual(self.committed("shop"), before)
        self.assertEqual(self.values(self.sub()), ["1"])


class InjectionTests(WalkCase):
    """What a publisher chose ends in the head of an octet-stream answer; nothing of it breaks out of its line."""

    def octets(self, *records: Any) -> Reply:
        body = json.dumps({"records": records}).encode()
        reply = self.ask("POST", "/v1/pub/orders/batch", [*self.shop.pub, ("content-type", "application/json")], body)
        self.assertEqual(reply.status, 200)
        reply = self.sub("timeout=0", OCTETS)
        for name, value in reply.headers:
            self.assertRegex(name, rb"\A[a-z0-9.!#$%&'*+^_`|~-]+\Z")
            self.assertRegex(value, rb"\A[\x20-\x7e]*\Z")
        return reply

    def test_line_ends(self) -> None:
        """CR, LF, NUL and colons in key, names and values."""
        evil = "x\r\nset-cookie: a=b\r\n\r\n<html>\0"
        reply = self.octets({"value": "v", "key": evil, "headers": {evil: "1", "a:b": "1", "ok": evil}})
        names = {name for name, _ in reply.headers}
        self.assertNotIn(b"set-cookie", names)
        self.assertEqual((reply.header("key.encoding"), reply.header("headers.encoding"), reply.header("headers.omitted")), ("base64", "base64", "2"))

    def test_html(self) -> None:
        """``text/html`` everywhere: the answer is an octet-stream all the same."""
        html = "text/html"
        reply = self.octets({"value": "<script>", "key": html, "headers": {"content-type": html, html: html, "x": html}})
        self.assertEqual(
            (reply.header("content-type"), reply.header("header.content-type"), reply.body), ("application/octet-stream", html, b"<script>")
        )

    def test_300_headers(self) -> None:
        """Of 300 headers 59 lines are given beside the key."""
        reply = self.octets({"value": "v", "key": "k", "headers": {f"h{number}": "1" for number in range(300)}})
        self.assertEqual(len([name for name, _ in reply.headers if name.startswith(b"header.")]), 59)
        self.assertEqual(reply.header("headers.omitted"), "241")

    def test_own_names(self) -> None:
        """A record header named as one of psubd's own response headers stays below ``header.``."""
        reply = self.octets(
            {"value": "v", "headers": {"offset": "9", "topic.id": "x", "tombstone": "true", "content-length": "0", "x-request-id": "a"}}
        )
        self.assertEqual((reply.header("offset"), reply.header("topic.id"), reply.header("tombstone")), ("0", "orders", None))
        self.assertEqual((reply.header("content-length"), reply.header("header.content-length")), (None, "0"))


class TenancyTests(WalkCase):
    def others(self, method: str, path: str, query: str = "", body: bytes = b"", headers: Headers = ()) -> Reply:
        return self.ask(method, path, [*self.other.sub, *headers], body, query)

    def test_groups_are_apart(self) -> None:
        """Two applications on one topic have cursors of their own, also where they name their groups alike or after each other."""
        self.bind("other", "orders")
        self.publish("1")
        for query in (
            "timeout=0&topic=orders",
            "timeout=0&topic=orders&group=g",
            "timeout=0&topic=orders&group=shop",
            "timeout=0&topic=orders&group=shop.g",
        ):
            self.assertEqual(self.values(self.others("GET", "/v1/sub", query)), ["1"])
        for query in ("timeout=0", "timeout=0&group=g"):
            self.assertEqual(self.values(self.sub(query)), ["1"])

    def test_no_one_elses_topic(self) -> None:
        """A topic that one is not bound to is neither read nor written nor seen."""
        for query in ("topic=orders&timeout=0", "topic=orders&offset=earliest"):
            self.refuses(self.others("GET", "/v1/sub", query), 403, "topic_not_bound")
        self.refuses(self.others("GET", "/v1/topics/orders"), 403, "topic_not_bound")
        self.refuses(self.ask("POST", "/v1/pub/orders", self.other.pub, b"x"), 403, "topic_not_bound")
        self.assertEqual(self.stored(), [])


class PostBackTests(SynchronousTestCase):
    text = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=6)
    datum = st.none() | text | st.binary(min_size=1, max_size=6).map(lambda raw: {"base64": base64_text(raw)})
    names = text.filter(lambda name: name[:5].lower() != "psubd")
    record = st.fixed_dictionaries(
        {"value": datum | st.integers(-5, 5) | st.lists(st.none() | st.booleans(), max_size=2)},
        optional={
            "key": datum,
            "headers": st.dictionaries(names, datum | st.lists(datum, max_size=3), max_size=3),
            "timestamp": st.integers(0, 10**12),
        },
    )

    @given(st.lists(record, min_size=1, max_size=3))
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def test_what_was_read_can_be_posted_back(self, records: list[dict[str, Any]]) -> None:
        """What sub gives as JSON, posted back as a batch, reads the same but for its offset."""
        house = WalkCase()
        house.setUp()
        media = ("content-type", "application/json")

        def publish(what: Any) -> None:
            reply = house.ask("POST", "/v1/pub/orders/batch", [*house.shop.pub, media], json.dumps({"records": what}).encode())
            self.assertEqual((reply.status, reply.json.get("failed")), (200, 0), reply.body)

        def read() -> list[dict[str, Any]]:
            messages: list[dict[str, Any]] = []
            while (reply := house.sub("timeout=0&batchSize=100")).status == 200:
                messages += reply.json["messages"]
            return sorted(messages, key=lambda message: (message["partition"], message["offset"]))

        publish(records)
        first = read()
        self.assertEqual(len(first), len(records))
        publish(first)
        again = read()
        self.assertEqual([{**message, "offset": 0} for message in again], [{**message, "offset": 0} for message in first])


class KeptTests(WalkCase):
    """The same head again and again: what follows from it is kept, what does not is judged anew."""

    def setUp(self) -> None:
        super().setUp()
        self.kept: dict[str, Any] = {}

    def again(self, *headers: tuple[bytes | str, bytes | str], query: str = "timeout=0") -> Reply:
        route, _ = self.route("GET", "/v1/sub")
        exchange = FakeExchange("GET", "/v1/sub", query.encode(), [*self.shop.sub, *headers])
        exchange.kept = self.kept
        return self.reply(maybeDeferred(route.endpoint, exchange))

    def test_message_after_message(self) -> None:
        """Each gets the next message, in the same form, and an empty answer at the end."""
        self.publish("1", "2", "3")
        self.assertEqual([self.values(self.again()) for _ in range(3)], [["1"], ["2"], ["3"]])
        self.assertTrue(self.kept)
        self.assertEqual(self.again().status, 204)
        self.publish("4")
        self.assertEqual(self.values(self.again()), ["4"])

    def test_type_that_is_accepted(self) -> None:
        """The payload alone, each time."""
        self.publish("1", "2", "3")
        self.assertEqual([self.again(OCTETS).body for _ in range(3)], [b"1", b"2", b"3"])

    def test_broken_connection(self) -> None:
        """An answer that was given at once and not wholly handed over comes again."""
        self.publish("1", "2")
        self.again()
        lost = self.again()
        assert lost.answer is not None
        self.assertEqual(self.values(lost), ["2"])
        self.publish("3")
        self.assertEqual(self.values(self.sub(handed=3)), ["3"])
        self.assertEqual(self.values(self.again()), ["3"])

    def test_key_that_ended(self) -> None:
        """A key that was replaced, or whose time is over, opens nothing any more: 401 with the challenge, and no message is lost."""
        self.publish("1", "2", "3")
        self.again()
        self.wait(self.registrar.rotate("shop", "subkey", 60, "test", None))
        self.assertEqual(self.values(self.again()), ["2"])
        self.clock.advance(60_000)
        refused = self.again()
        self.assertEqual((refused.status, refused.header("www-authenticate")), (401, BASIC_OR_BEARER))

    def test_binding_that_went(self) -> None:
        """403 as soon as it is revoked."""
        self.publish("1", "2", "3")
        self.again()
        self.wait(self.registrar.delete_binding("shop", "orders", "test", None))
        self.assertEqual(self.again().status, 403)

    def test_what_is_wrong(self) -> None:
        """A head that is refused is refused again, and nothing is kept of it."""
        for query in ("batchSize=0", "batchSize=x", "nonsense=1"):
            self.assertEqual([self.again(query=query).status for _ in range(2)], [400, 400])
        self.assertEqual(self.again(("accept", "text/html")).status, 406)
        self.assertNotIn("sub", self.kept)
