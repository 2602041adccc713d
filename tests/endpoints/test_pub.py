"""POST /v1/pub: every header, every refusal; a refusal stores nothing."""

import base64
from typing import Any

from twisted.internet.defer import Deferred

from psubd.errors import StorageTimeout, StorageUnavailable
from psubd.model import Acks, Binding, Rate, Record, TopicSpec
from psubd.services.partitioner import partition_of
from tests.endpoints.house import DataCase, Headers, Reply


class PubCase(DataCase):
    def pub(self, *headers: tuple[bytes | str, bytes | str], body: bytes = b"v", path: str = "/v1/pub/orders", query: str = "") -> Reply:
        return self.ask("POST", path, [*self.shop.pub, *headers], body, query)


class StoredTests(PubCase):
    def test_answer(self) -> None:
        """200 says where the message is."""
        reply = self.pub(("key", "k"))
        self.assertEqual((reply.status, reply.header("content-type")), (200, "application/json"))
        expected = {"topic": "orders", "partition": partition_of(b"k", 3), "offset": 0, "timestamp": self.clock.epoch_ms()}
        self.assertEqual(reply.json, expected)

    def test_topic_in_the_header(self) -> None:
        """The topic may stand in the path, in the header, in its twin, or everywhere alike."""
        for path, headers in (
            ("/v1/pub", [("topic.id", "orders")]),
            ("/v1/pub", [("topic-id", "orders")]),
            ("/v1/pub/orders", [("topic.id", "orders"), ("topic-id", "orders")]),
        ):
            self.assertEqual(self.pub(*headers, path=path).status, 200)
        self.assertEqual(len(self.stored()), 3)

    def test_message(self) -> None:
        """Value, key, headers, timestamp and partition are kept as they were sent."""
        self.pub(
            ("key", "k\u00e9"),
            ("partition", "2"),
            ("timestamp", "1000"),
            ("content-type", "text/html; a=b"),
            ("traceparent", "00-x"),
            ("tracestate", "a=1"),
            ("Header.Colour", "red, blue"),
            ("header-colour", "red, blue"),
            ("header.n", "\u00e9"),
            body=b"\x00\xff",
        )
        (message,) = self.stored()
        self.assertEqual((message.value, message.key, message.timestamp), (b"\x00\xff", "k\u00e9".encode(), 1000))
        kept = (
            ("content-type", b"text/html; a=b"),
            ("traceparent", b"00-x"),
            ("tracestate", b"a=1"),
            ("colour", b"red, blue"),
            ("n", "\u00e9".encode()),
        )
        self.assertEqual(message.headers, kept)
        self.assertEqual(self.wait(self.storage.bounds("orders"))[2].end, 1)

    def test_encoded(self) -> None:
        """Key and header values may be base64."""
        self.pub(("key", "/w=="), ("key.encoding", "base64"), ("header.a", "AA=="), ("headers-encoding", "base64"))
        (message,) = self.stored()
        self.assertEqual((message.key, message.headers), (b"\xff", (("a", b"\0"),)))

    def test_empty(self) -> None:
        """An empty body is an empty message; an empty key is a key; no key is none."""
        self.pub(("key", ""), body=b"")
        self.pub(body=b"")
        self.assertEqual({(message.value, message.key) for message in self.stored()}, {(b"", b""), (b"", None)})

    def test_tombstone(self) -> None:
        """``tombstone: true`` publishes null; ``false`` says nothing."""
        self.pub(("tombstone", "true"), ("partition", "0"), body=b"")
        self.pub(("tombstone", "false"), ("partition", "0"))
        self.assertEqual([message.value for message in self.stored()], [None, b"v"])

    def test_acks(self) -> None:
        """1, all and -1 answer with the place; 0 with 202 and the topic alone. All are stored."""
        for acks in ("1", "all", "-1"):
            self.assertEqual(self.pub(("acks", acks)).status, 200)
        reply = self.pub(("acks", "0"))
        self.assertEqual((reply.status, reply.json), (202, {"topic": "orders"}))
        self.assertEqual(len(self.stored()), 4)

    def test_acks_reach_the_storage(self) -> None:
        """What is asked for is what the storage is told; ``all`` where nothing is."""
        told: list[Any] = []
        real = self.storage.post
        self.patch(self.storage, "post", lambda record, acks, heard: (told.append(acks), real(record, acks, heard)))
        for headers in ([], [("acks", "all")], [("acks", "-1")], [("acks", "1")], [("acks", "0")]):
            self.pub(*headers)
        self.assertEqual(told, ["all", "all", "all", "1", "0"])

    def test_same_key_same_partition(self) -> None:
        """A key has one partition, whatever else is published."""
        found = {self.pub(("key", "user-1")).json["partition"] for _ in range(5) if self.pub().status == 200}
        self.assertEqual(found, {partition_of(b"user-1", 3)})

    def test_largest(self) -> None:
        """The largest value with the largest key is taken on a topic that psubd made."""
        self.assertEqual(self.pub(("key", "k" * 30_000), body=bytes(1_048_576)).status, 200)

    def test_basic(self) -> None:
        """Basic with the application's id, with the pubkey, and with three parts."""
        for text in (
            f"shop:{self.shop.secret}",
            f"{self.shop.pubkey}:{self.shop.secret}",
            f"{self.shop.pubkey}:{self.shop.secret}:{self.shop.subkey}",
        ):
            header = ("authorization", "Basic " + base64.b64encode(text.encode()).decode())
            self.assertEqual(self.ask("POST", "/v1/pub/orders", [header], b"v").status, 200)


class RefusedTests(PubCase):
    """Every refusal; none of them stores anything."""

    def tearDown(self) -> None:
        self.assertEqual(self.stored(), [])
        self.assertEqual(self.stored("secrets"), [])

    def refused(self, status: int, code: str, *headers: tuple[bytes | str, bytes | str], **more: Any) -> Reply:
        return self.refuses(self.pub(*headers, **more), status, code)

    def test_credentials(self) -> None:
        """None, half, wrong, another's, of the wrong kind, two kinds: 401 with a challenge, and the same words for all that the gate judges."""
        shop, other = self.shop, self.other
        wrong: list[Headers] = [
            [],
            [("pubkey", shop.pubkey)],
            [("secret", shop.secret)],
            shop.sub,
            [*shop.pub, *shop.sub],
            [("pubkey", other.pubkey), ("secret", shop.secret)],
            [("pubkey", "nobody"), ("secret", shop.secret)],
            [("pubkey", shop.pubkey), ("secret", shop.pubkey)],
            [("pubkey", shop.pubkey), ("secret", "ps_" + "a" * 43)],
            [("pubkey", shop.pubkey), ("secret", shop.subkey)],
        ]
        replies = [self.ask("POST", "/v1/pub/orders", headers, b"v") for headers in wrong]
        for reply in replies:
            self.refuses(reply, 401, "bad_credentials")
            self.assertIn("Basic", reply.header("www-authenticate") or "")
        self.assertEqual(len({reply.json["detail"] for reply in replies[5:]}), 1)

    def test_credentials_twice(self) -> None:
        """A credential sent twice is malformed."""
        self.refused(400, "bad_header", ("secret", self.shop.secret))

    def test_credentials_in_the_query(self) -> None:
        """Never, even beside good ones, and not repeated."""
        reply = self.refused(400, "bad_parameter", query=f"secret={self.shop.secret}")
        self.assertNotIn(self.shop.secret, reply.body.decode())

    def test_query(self) -> None:
        """There is no query here."""
        self.refused(400, "bad_parameter", query="acks=1")

    def test_not_bound(self) -> None:
        """403 whether the topic exists or not, or could not even be named so; the answers differ in nothing but the name."""
        for topic in ("secrets", "missing", "__x", "%"):
            self.refused(403, "topic_not_bound", path=f"/v1/pub/{topic}")
        self.refused(403, "topic_not_bound", ("topic.id", "secrets"), path="/v1/pub")
        texts = [self.pub(path=f"/v1/pub/{topic}").body.replace(topic.encode(), b"") for topic in ("secrets", "missing")]
        self.assertEqual(texts[0], texts[1])

    def test_bound_for_sub_only(self) -> None:
        """A binding without pub does not let publish."""
        self.bind("shop", "secrets", pub=False)
        self.refused(403, "topic_not_bound", path="/v1/pub/secrets")

    def test_revoked(self) -> None:
        """From the moment that the binding is gone."""
        self.bind("shop", "secrets")
        self.wait(self.registrar.delete_binding("shop", "secrets", "test", None))
        self.refused(403, "topic_not_bound", path="/v1/pub/secrets")

    def test_topic_missing(self) -> None:
        """Bound, but gone from the storage: 404."""
        self.topic("gone", "shop")
        self.wait(self.storage.delete_topic("gone"))
        self.refused(404, "topic_missing", path="/v1/pub/gone")

    def test_no_topic(self) -> None:
        """Neither path nor header names one."""
        self.refused(400, "bad_header", path="/v1/pub")

    def test_topic_malformed(self) -> None:
        """A header that names what no topic is called."""
        for name in ("", "..", "a b", "__x", "\u00e9", "a" * 201):
            self.refused(400, "bad_header", ("topic.id", name), path="/v1/pub")

    def test_topics_conflict(self) -> None:
        """Path and header, or the twins, name different topics."""
        self.refused(400, "conflicting_headers", ("topic.id", "secrets"))
        self.refused(400, "conflicting_headers", ("topic.id", "orders"), ("topic-id", "secrets"), path="/v1/pub")

    def test_twice(self) -> None:
        """Single-valued headers sent twice."""
        for name in (
            "topic.id",
            "key",
            "key.encoding",
            "acks",
            "partition",
            "timestamp",
            "headers.encoding",
            "content-type",
            "traceparent",
            "tombstone",
        ):
            self.refused(400, "bad_header", (name, "orders"), (name, "orders"))

    def test_malformed_headers(self) -> None:
        """Each header against its grammar."""
        wrong: list[tuple[str, bytes | str]] = [
            ("acks", "2"),
            ("acks", ""),
            ("acks", "ALL"),
            ("acks", "00"),
            ("partition", "3"),
            ("partition", "-1"),
            ("partition", "x"),
            ("partition", ""),
            ("partition", "1.0"),
            ("partition", "\u0661"),
            ("partition", "9" * 20),
            ("timestamp", "-1"),
            ("timestamp", str(self.clock.epoch_ms() + 3_600_001)),
            ("timestamp", "9" * 19),
            ("timestamp", "now"),
            ("tombstone", "yes"),
            ("tombstone", "TRUE"),
            ("tombstone", ""),
            ("key", b"\xff"),
            ("key.encoding", "hex"),
            ("headers.encoding", "gzip"),
            ("header.a", b"\xff"),
            ("header.", "x"),
        ]
        for header in wrong:
            self.refused(400, "bad_header", header, ("header.present", "x"))
        self.refused(400, "bad_header", ("key", "/w="), ("key.encoding", "base64"))
        self.refused(400, "bad_header", ("header.a", "/w="), ("headers.encoding", "base64"))

    def test_tombstone_with_a_body(self) -> None:
        """A tombstone has no body."""
        self.refused(400, "bad_header", ("tombstone", "true"))

    def test_reserved(self) -> None:
        """psubd's own record headers, in either spelling."""
        for name in ("header.psubd.origin-topic", "header-psubd", "Header.PSUBD.Seal"):
            self.refused(400, "reserved_header", (name, "x"))

    def test_header_conflicts(self) -> None:
        """Twins of record headers, and content-type said twice."""
        self.refused(400, "conflicting_headers", ("header.a", "1"), ("header-a", "2"))
        self.refused(400, "conflicting_headers", ("content-type", "a"), ("header.content-type", "b"))
        self.refused(400, "conflicting_headers", ("key.encoding", "base64"), ("key-encoding", "hex"))

    def test_later(self) -> None:
        """What is not built yet is told, never ignored, whatever its value."""
        for name in ("idempotency-key", "delay", "deliver.at", "deliver-at"):
            for value in ("", "0", "1000"):
                self.refused(400, "not_supported", (name, value))

    def test_too_large(self) -> None:
        """Value, key and headers over their limits; the limit is named."""
        self.assertIn("1048576", self.refused(413, "too_large", body=bytes(1_048_577)).json["detail"])
        self.refused(413, "too_large", ("key", "k" * 65_537))
        self.refused(413, "too_large", ("key", "k" * 40_000), ("header.a", "x" * 40_000))

    def test_adopted_limit(self) -> None:
        """An adopted topic's own limit is known beforehand and named."""
        self.wait(self.storage.create_topic(TopicSpec(name="small", max_message_bytes=500)))
        self.topic("small", "shop")
        reply = self.refused(413, "too_large", path="/v1/pub/small", body=bytes(500))
        self.assertIn("500", reply.json["detail"])
        self.assertIn("small", reply.json["detail"])

    def test_compacted(self) -> None:
        """A compacted topic needs a key."""
        self.topic("state", "shop", cleanup="compact")
        self.refused(400, "bad_header", path="/v1/pub/state")
        self.assertEqual(self.stored("state"), [])

    def test_over_the_rate(self) -> None:
        """Over the binding's rate: 429 with when to come again; nothing is taken from the rate by it."""
        rate = Rate(messages_per_s=1)
        self.topic("slow", "shop")
        self.wait(self.registrar.put_binding(Binding(application="shop", topic="slow", serial=0, pub=True, rate=rate), "test", None))
        self.assertEqual(self.pub(path="/v1/pub/slow").status, 200)
        for _ in range(3):
            reply = self.refused(429, "rate_limited", path="/v1/pub/slow")
        self.assertEqual((reply.header("retry-after"), reply.header("ratelimit-limit"), reply.header("ratelimit-remaining")), ("1", "1", "0"))
        self.clock.advance(1000)
        self.assertEqual(self.pub(path="/v1/pub/slow").status, 200)
        self.assertEqual(len(self.stored("slow")), 2)

    def test_storage_away(self) -> None:
        """503 with when to come again; 504 says that the message may be there."""
        self.patch(self.storage, "post", self.away)
        self.assertEqual(self.refused(503, "storage_unavailable").header("retry-after"), "3")
        self.patch(self.storage, "post", lambda record, acks, told: self.clock.call_later(0, told, StorageTimeout("it may be there or not")))
        self.refused(504, "storage_timeout")
        self.patch(self.storage, "post", lambda record, acks, told: self.clock.call_later(0, told, StorageUnavailable("disk full")))
        self.refused(503, "storage_unavailable")

    def away(self, record: Record, acks: Acks, told: Any) -> None:
        raise StorageUnavailable("away", 3)


class ColdTests(PubCase):
    def test_first_publish_asks(self) -> None:
        """A topic that the storage has not looked at yet is asked for first; the message follows."""
        known, real = self.storage.known, self.storage.describe
        warm: list[str] = []
        self.patch(self.storage, "known", lambda topic: known(topic) if warm else None)
        asked: list[Deferred[Any]] = []

        def describe(topics: Any) -> Any:
            asked.append(Deferred())
            return asked[-1].addCallback(lambda _: real(topics))

        self.patch(self.storage, "describe", describe)
        waiting = self.begin("POST", "/v1/pub/orders", self.shop.pub, b"v")
        self.assertNoResult(waiting)
        self.assertEqual(self.stored(), [])
        warm.append("orders")
        asked[0].callback(None)
        self.clock.advance(0)
        self.assertEqual(self.reply(waiting).status, 200)
        self.assertEqual(len(self.stored()), 1)
