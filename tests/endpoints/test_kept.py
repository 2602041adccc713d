"""What a publish keeps of a head for the next request: the same answers, and nothing that is not so any more."""

from typing import Any
from unittest import mock

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import maybeDeferred

from psubd.endpoints import pub
from psubd.endpoints.pub import MOST_TERMS, Publishing
from psubd.errors import PsubdError
from psubd.interfaces import Delete, Plan, Put
from psubd.model import Answer, Application, Binding, Position, Rate, Record
from psubd.testing.exchange import FakeExchange
from tests.endpoints.house import DataCase, Headers, Reply, refused

LINES = (
    *[("key", value) for value in ("k1", "k2", "azE=", "\xff", "")],
    *[("traceparent", value) for value in ("00-a", "00-b")],
    *[("tracestate", value) for value in ("a=1", "b=2")],
    *[("topic.id", value) for value in ("orders", "secrets", "..")],
    ("topic-id", "orders"),
    ("key.encoding", "base64"),
    ("key-encoding", "hex"),
    ("headers.encoding", "base64"),
    *[("header.a", value) for value in ("1", "MQ==")],
    ("header-a", "1"),
    ("header.traceparent", "00-a"),
    ("header.content-type", "text/plain"),
    ("content-type", "text/plain"),
    ("header.psubd-x", "1"),
    *[("acks", value) for value in ("0", "1", "all", "2")],
    *[("partition", value) for value in ("1", "9", "x")],
    *[("timestamp", value) for value in ("5", "-1")],
    *[("tombstone", value) for value in ("true", "false", "maybe")],
    ("delay", "1s"),
    ("x-request-id", "r1"),
    ("x-request-id", "r2"),
    ("user-agent", "u"),
    ("accept", "*/*"),
    ("subkey", "sk_x"),
)


class Heads:
    """Keeps by head, as the wire does."""

    def __init__(self) -> None:
        self.kept: dict[Any, dict[str, Any]] = {}

    def exchange(self, headers: Headers, body: bytes, query: bytes = b"", topic: str | None = None) -> FakeExchange:
        exchange = FakeExchange("POST", "/v1/pub", query, headers, body)
        exchange.kept = self.kept.setdefault((topic, exchange.headers, query), exchange.kept)
        return exchange


class KeptCase(DataCase):
    def setUp(self) -> None:
        super().setUp()
        self.heads = Heads()
        self.quick = self.publishing()

    def publishing(self) -> Publishing:
        """One that has seen nothing."""
        route, _ = self.route("POST", "/v1/pub")
        own: Any = route.endpoint
        return Publishing(own.__self__._callers, self.gate, self.publisher)

    def answered(self, publishing: Publishing, exchange: FakeExchange, topic: str | None = None) -> Reply:
        found: list[Any] = []
        maybeDeferred(publishing.publish, exchange, topic).addBoth(found.append)
        self.clock.advance(0)
        (outcome,) = found
        if isinstance(outcome, Answer):
            return Reply(outcome.status, outcome.headers, outcome.body)
        self.assertIsInstance(outcome.value, PsubdError, outcome)
        return refused(outcome.value)

    def again(self, *headers: tuple[bytes | str, bytes | str], body: bytes = b"v", query: bytes = b"", topic: str | None = "orders") -> Reply:
        """A publish with a head that may have been seen before."""
        return self.answered(self.quick, self.heads.exchange([*self.shop.pub, *headers], body, query, topic), topic)


class SameTests(KeptCase):
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
    @given(st.lists(st.tuples(st.lists(st.sampled_from(LINES), max_size=6), st.sampled_from((b"", b"v")), st.sampled_from((None, "orders")))))
    def test_as_for_the_first_time(self, requests: list[tuple[list[tuple[str, str]], bytes, str | None]]) -> None:
        """Whatever heads came before: the same answer, and the same record, as from an endpoint that has seen none."""
        for lines, body, topic in requests * 2:
            headers = [*self.shop.pub, *((name, value.encode("latin-1")) for name, value in lines)]
            spread = not any(name in ("key", "partition") for name, _ in lines)
            quick = self.outcome(self.quick, self.heads.exchange(headers, body, b"", topic), topic, spread)
            self.assertEqual(quick, self.outcome(self.publishing(), FakeExchange("POST", "/v1/pub", b"", headers, body), topic, spread))

    def outcome(self, publishing: Publishing, exchange: FakeExchange, topic: str | None, spread: bool) -> tuple[Any, ...]:
        """Everything but the offset, and the partition where it is left to chance."""
        posted: list[Record] = []
        real = self.storage.post
        with mock.patch.object(self.storage, "post", lambda record, acks, told: (posted.append(record), real(record, acks, told))):
            reply = self.answered(publishing, exchange, topic)
        told = {**reply.json, "offset": None}
        if spread:
            told["partition"] = None
            posted = [msgspec.structs.replace(record, partition=None) for record in posted]
        return reply.status, reply.headers, told, posted


class AnswerTests(KeptCase):
    def test_bytes(self) -> None:
        """The answer is, byte for byte, the position as JSON."""
        self.topic("a.b-C_9", "shop", partitions=3)
        for topic in ("orders", "a.b-C_9"):
            for key in ("", "k1", "k2", "k3"):
                reply = self.again(("key", key), topic=topic)
                self.assertEqual(reply.body, msgspec.json.encode(msgspec.convert(reply.json, Position)))
                self.assertEqual(reply.headers, [(b"content-type", b"application/json")])

    def test_an_answer_is_its_own(self) -> None:
        """What is done to one answer's headers is not in the next."""
        self.again().headers.append((b"x", b"y"))
        self.assertEqual(len(self.again().headers), 1)


class NowTests(KeptCase):
    """A head that was taken once is judged by what is so now."""

    def test_body(self) -> None:
        """A tombstone with a body is refused, whatever came before with that head; a body counts into the limit."""
        for _ in range(2):
            self.assertEqual(self.again(("tombstone", "true"), ("key", "k"), body=b"").status, 200)
            self.refuses(self.again(("tombstone", "true"), ("key", "k"), body=b"x"), 400, "bad_header")
            self.refuses(self.again(body=bytes(1_048_577)), 413, "too_large")
            self.assertEqual(self.again(body=b"other").status, 200)
        self.assertEqual({message.value for message in self.stored()}, {None, b"other"})

    def test_binding(self) -> None:
        """Taken away and given back."""
        self.assertEqual(self.again().status, 200)
        self.bind("shop", "orders", pub=False)
        self.refuses(self.again(), 403, "topic_not_bound")
        self.bind("shop", "orders")
        self.assertEqual(self.again().status, 200)

    def test_credentials(self) -> None:
        """A secret that ended is 401 with the route's challenge, and stays so."""
        self.assertEqual(self.again().status, 200)
        self.wait(self.registrar.rotate("shop", "secret", 60, "test", None))
        self.assertEqual(self.again().status, 200)
        self.clock.advance(60_000)
        for _ in range(2):
            reply = self.refuses(self.again(), 401, "bad_credentials")
            self.assertEqual(reply.header("www-authenticate"), 'Basic realm="psubd", charset="UTF-8"')

    def test_application(self) -> None:
        """Made again with the same keys, it publishes with the heads of the former one."""
        self.assertEqual(self.again().status, 200)
        former = self.registry.snapshot().get("/applications/shop")
        assert former is not None
        other = msgspec.structs.replace(msgspec.json.decode(former.data, type=Application), serial=former.serial + 1000)
        for writes, status in (([Delete("/applications/shop")], 401), ([Put("/applications/shop", msgspec.json.encode(other))], 200)):
            self.wait(self.registry.change("test", lambda snapshot, serial, writes=writes: Plan("x", writes)))
            self.assertEqual(self.again().status, status)

    def test_topic(self) -> None:
        """Deleted, it is bound to nobody; made again with other partitions, it is that one."""
        self.assertEqual(self.again(("partition", "2")).status, 200)
        self.wait(self.registrar.delete_topic("orders", True, True, "test", None))
        self.refuses(self.again(("partition", "2")), 403, "topic_not_bound")
        self.topic("orders", "shop", partitions=1)
        self.refuses(self.again(("partition", "2")), 400, "bad_header")
        self.assertEqual(self.again().json["partition"], 0)

    def test_rate(self) -> None:
        """Each message counts."""
        self.wait(self.registrar.put_binding(Binding("shop", "orders", 0, pub=True, rate=Rate(messages_per_s=2)), "test", None))
        self.assertEqual([self.again().status for _ in range(4)], [200, 200, 429, 429])

    def test_time(self) -> None:
        """A timestamp that was too far ahead is not, later; a message without one gets the moment."""
        ahead = ("timestamp", str(self.clock.epoch_ms() + 3_600_001))
        self.refuses(self.again(ahead), 400, "bad_header")
        self.clock.advance(1)
        self.assertEqual(self.again(ahead).status, 200)
        self.assertEqual(self.again().json["timestamp"], self.clock.epoch_ms())


class OwnLinesTests(KeptCase):
    def test_key_and_trace(self) -> None:
        """Messages that differ in key and trace each have their own; what they have in common is theirs too."""
        common = (("content-type", "text/plain"), ("header.n", "1"), ("partition", "0"))
        for number in range(5):
            self.again(*common, ("key", f"k{number}"), ("traceparent", f"00-{number}"), ("tracestate", "a=1"), ("tracestate", f"b={number}"))
        self.again(*common)
        found = [(message.key, dict(message.headers)) for message in self.stored()]
        both = {"content-type": b"text/plain", "n": b"1"}
        own = [(b"k%d" % n, {**both, "traceparent": b"00-%d" % n, "tracestate": b"a=1,b=%d" % n}) for n in range(5)]
        self.assertEqual(found, [*own, (None, both)])
        self.assertEqual([name for name, _ in self.stored()[0].headers], ["content-type", "traceparent", "tracestate", "n"])

    def test_topics_are_apart(self) -> None:
        """The same lines on another path are for another topic."""
        self.topic("more", "shop")
        for topic in ("orders", "more", "orders", "more"):
            self.assertEqual(self.again(("key", topic), topic=topic).json["topic"], topic)

    def test_topic_in_path_and_header(self) -> None:
        """A header that was taken without a path, or beside one, conflicts with another path."""
        self.topic("more", "shop")
        said = ("topic.id", "orders")
        for path, status in ((None, 200), ("orders", 200), ("more", 400), (None, 200), ("more", 400)):
            self.assertEqual(self.again(said, ("key", "k"), topic=path).status, status, path)

    def test_trace_said_twice(self) -> None:
        """A trace in a record header of that name conflicts with another one in its own line, also where it was taken alone before."""
        said = ("header.traceparent", "00-a")
        for own, status in (((), 200), ((("traceparent", "00-a"),), 200), ((("traceparent", "00-b"),), 400), ((), 200)):
            self.assertEqual(self.again(said, *own).status, status)
        self.assertEqual({message.headers for message in self.stored()}, {(("traceparent", b"00-a"),)})

    def test_bounded(self) -> None:
        """However many heads come, a bounded number is remembered, and none that is long."""
        self.patch(pub, "MOST_TERMS", 8)
        for number in range(50):
            self.assertEqual(self.again(("header.n", str(number))).status, 200)
            self.assertEqual(self.again(("header.n", "x" * 5000), ("key", str(number))).status, 200)
        self.assertLessEqual(len(self.quick._terms), 8)
        self.assertLess(max(len(value) for _, rest in self.quick._terms for _, value in rest), 100)
        self.assertGreater(MOST_TERMS, 8)
