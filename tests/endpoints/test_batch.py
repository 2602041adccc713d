"""POST /v1/pub/{topic}/batch: both formats, partial failures, and refusals that publish nothing."""

import json
from collections.abc import Sequence
from typing import Any
from unittest import mock

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed

from psubd.endpoints import batch, frames
from psubd.endpoints.batch import MAX_RECORDS, PLAIN_BYTES, PLAIN_RECORDS
from psubd.errors import PsubdError, StorageTimeout, StorageUnavailable
from psubd.model import Acks, Binding, Delivered, Message, Position, Rate, Record
from tests.endpoints.house import DataCase, Headers, Reply

JSON, LINES = ("content-type", "application/json"), ("content-type", "application/x-ndjson")
FRAMES = ("content-type", "application/vnd.psubd.frames")


def framed(value: bytes | None, key: bytes | None = None, headers: Any = (), partition: int = -1, timestamp: int = -1) -> bytes:
    """One frame, as a client sends it."""
    return frames.encode([Delivered("", partition, Message(0, timestamp, key, value, headers))])


class BatchCase(DataCase):
    def batch(self, *records: Any, headers: Headers = (), topic: str = "orders", query: str = "") -> Reply:
        """Records as a JSON batch."""
        return self.raw(json.dumps({"records": records}).encode(), JSON, headers, topic, query)

    def raw(self, body: bytes, media: tuple[str, str] | None = JSON, headers: Headers = (), topic: str = "orders", query: str = "") -> Reply:
        sent = [*self.shop.pub, *headers, *([] if media is None else [media])]
        return self.ask("POST", f"/v1/pub/{topic}/batch", sent, body, query)


class StoredTests(BatchCase):
    def test_json(self) -> None:
        """200 says where each record is, in the order given."""
        reply = self.batch({"value": "a", "partition": 1}, {"value": "b", "partition": 1}, {"value": "c", "partition": 0})
        self.assertEqual(reply.status, 200)
        results = [{"partition": 1, "offset": 0}, {"partition": 1, "offset": 1}, {"partition": 0, "offset": 0}]
        self.assertEqual(reply.json, {"results": results, "failed": 0})
        self.assertEqual([message.value for message in self.stored()], [b"c", b"a", b"b"])

    def test_lines(self) -> None:
        """A record a line; blank lines and CR at the end do not matter; the last line needs no end."""
        body = b'{"value": "a", "key": "k"}\r\n\n  \n{"value": {"n" : 1}, "key": "k"}\n{"value": null, "key": "k"}'
        reply = self.raw(body, LINES)
        self.assertEqual((reply.status, reply.json["failed"], len(reply.json["results"])), (200, 0, 3))
        self.assertEqual([message.value for message in self.stored()], [b"a", b'{"n" : 1}', None])
        self.assertEqual(self.stored()[1].headers, (("content-type", b"application/json"),))

    def test_frames(self) -> None:
        """A frame a record: null and empty told apart, key, partition, timestamp and headers kept; large bodies as small ones."""
        for size in (0, PLAIN_BYTES):
            body = framed(b"a" * size, b"k", (("h", b"\0"), ("n", None)), 1, 5) + framed(None, b"k", (), 1) + framed(b"", b"k", (), 1)
            before = len(self.stored())
            reply = self.raw(body, FRAMES)
            self.assertEqual((reply.status, reply.json["failed"], len(reply.json["results"])), (200, 0, 3), reply)
            first, null, empty = self.stored()[before:]
            told = first.value, first.key, first.headers, first.timestamp
            self.assertEqual(told, (b"a" * size, b"k", (("h", b"\0"), ("n", None)), 5))
            self.assertEqual((null.value, empty.value), (None, b""))

    def test_record(self) -> None:
        """Every member is kept."""
        self.batch({"value": {"base64": "/w=="}, "key": {"base64": "AA=="}, "timestamp": 5, "partition": 0, "headers": {"a": ["1", None]}})
        (message,) = self.stored()
        self.assertEqual((message.value, message.key, message.timestamp, message.headers), (b"\xff", b"\0", 5, (("a", b"1"), ("a", None))))

    def test_acks(self) -> None:
        """``acks`` is for all; 0 answers 202 with the count."""
        told: list[str] = []
        real = self.storage.publish
        self.patch(self.storage, "publish", lambda records, acks: (told.append(acks), real(records, acks))[1])
        self.assertEqual(self.batch({"value": "a"}, headers=[("acks", "1")]).status, 200)
        reply = self.batch({"value": "a"}, {"value": "b"}, headers=[("acks", "0")])
        self.assertEqual((reply.status, reply.json), (202, {"topic": "orders", "accepted": 2}))
        self.assertEqual(told, ["1", "0"])
        self.assertEqual(len(self.stored()), 3)

    def test_topic_said_again(self) -> None:
        """``topic.id`` that says what the path says is no mistake."""
        self.assertEqual(self.batch({"value": "a"}, headers=[("topic.id", "orders")]).status, 200)

    def test_most_records(self) -> None:
        """10,000 records are taken, in either format."""
        self.assertEqual(self.batch(*[{"value": ""}] * MAX_RECORDS).status, 200)
        self.assertEqual(self.raw(b'{"value":""}\n' * MAX_RECORDS, LINES).status, 200)
        self.assertEqual(len(self.stored()), 2 * MAX_RECORDS)

    def test_content_type_parameters(self) -> None:
        """The type's case and its charset do not matter."""
        self.assertEqual(self.raw(b'{"records": [{"value": ""}]}', ("content-type", "Application/JSON; charset=utf-8")).status, 200)

    def test_rate_counts_all(self) -> None:
        """A batch takes as many from the rate as it has records."""
        rate = Rate(messages_per_s=3)
        self.wait(self.registrar.put_binding(Binding(application="shop", topic="orders", serial=0, pub=True, sub=True, rate=rate), "test", None))
        self.assertEqual(self.batch({"value": "a"}, {"value": "b"}).status, 200)
        self.refuses(self.batch({"value": "a"}, {"value": "b"}), 429, "rate_limited")
        self.assertEqual(self.batch({"value": "c"}).status, 200)
        self.assertEqual(len(self.stored()), 3)


class PartialTests(BatchCase):
    def failing(self, *results: PsubdError | None) -> None:
        """The storage refuses the records that have an error here."""

        def publish(records: Sequence[Record], acks: Acks) -> Deferred[list[Any]]:
            given = [error or Position(record.topic, record.partition or 0, 7, 0) for error, record in zip(results, records, strict=True)]
            return succeed(given)

        self.patch(self.storage, "publish", publish)

    def test_some_stand(self) -> None:
        """207: each in its place, the failed ones with code and detail."""
        self.failing(None, StorageUnavailable("disk full"), None)
        reply = self.batch(*[{"value": "a", "partition": 0}] * 3)
        stood = {"partition": 0, "offset": 7}
        self.assertEqual(reply.status, 207)
        self.assertEqual(reply.json, {"results": [stood, {"error": {"code": "storage_unavailable", "detail": "disk full"}}, stood], "failed": 1})

    def test_none_stands(self) -> None:
        """The first failure's own status, as a problem document, with all results."""
        self.failing(StorageTimeout("may be there"), StorageUnavailable("disk full", 4))
        reply = self.refuses(self.batch({"value": "a"}, {"value": "b"}), 504, "storage_timeout")
        self.assertEqual([result["error"]["code"] for result in reply.json["results"]], ["storage_timeout", "storage_unavailable"])
        self.assertEqual(reply.json["failed"], 2)

    def test_whole_failure(self) -> None:
        """What the storage fails as a whole with is the answer."""
        self.patch(self.storage, "publish", lambda records, acks: fail(StorageUnavailable("away", 3)))
        self.assertEqual(self.refuses(self.batch({"value": "a"}), 503, "storage_unavailable").header("retry-after"), "3")


class RefusedTests(BatchCase):
    """Every refusal; none of them publishes anything, the good neighbours neither."""

    def tearDown(self) -> None:
        self.assertEqual(self.stored(), [])
        self.assertEqual(self.stored("secrets"), [])

    def test_bad_record(self) -> None:
        """What the request alone can tell names the record, in either format."""
        wrong: list[Any] = [
            {},
            {"value": "a", "colour": 1},
            {"value": "a", "partition": 3},
            {"value": "a", "partition": -1},
            {"value": "a", "timestamp": self.clock.epoch_ms() + 3_600_001},
            {"value": {"base64": "x"}},
            {"value": "a", "key": 5},
            "text",
            None,
        ]
        for record in wrong:
            reply = self.refuses(self.batch({"value": "good"}, {"value": "good"}, record), 400, "bad_record")
            self.assertEqual(reply.json["record"], 2)
            reply = self.refuses(self.raw(b'{"value":"good"}\n\n' + json.dumps(record).encode(), LINES), 400, "bad_record")
            self.assertEqual(reply.json["record"], 1)

    def test_first_bad_record(self) -> None:
        """The first of several is named."""
        self.assertEqual(self.batch({"value": "good"}, {}, {}).json["record"], 1)

    def test_reserved(self) -> None:
        """psubd's own header names: the record is named."""
        reply = self.refuses(self.batch({"value": "a"}, {"value": "a", "headers": {"psubd.seal": "x"}}), 400, "reserved_header")
        self.assertEqual(reply.json["record"], 1)

    def test_large_record(self) -> None:
        """One record over a limit: 413, named."""
        for record in ({"value": "a" * 1_048_577}, {"value": "a", "key": "k" * 65_537}, {"value": ["a" * 1_048_577]}):
            reply = self.refuses(self.batch({"value": "a"}, record), 413, "too_large")
            self.assertEqual(reply.json["record"], 1)

    def test_compacted(self) -> None:
        """No key on a compacted topic."""
        self.topic("state", "shop", cleanup="compact")
        self.assertEqual(self.refuses(self.batch({"value": "a", "key": "k"}, {"value": "a"}, topic="state"), 400, "bad_record").json["record"], 1)
        self.assertEqual(self.stored("state"), [])

    def test_too_many(self) -> None:
        """10,001 records, or lines, blank ones too."""
        self.refuses(self.batch(*[{"value": ""}] * (MAX_RECORDS + 1)), 413, "too_large")
        self.refuses(self.raw(b'{"value":""}\n' * (MAX_RECORDS + 1), LINES), 413, "too_large")
        self.refuses(self.raw(b'{"value":""}\n' * MAX_RECORDS + b'{"value":""}', LINES), 413, "too_large")
        self.refuses(self.raw(b"\n" * (MAX_RECORDS + 1), LINES), 413, "too_large")

    def test_no_records(self) -> None:
        """Nothing to publish is a mistake."""
        self.refuses(self.batch(), 400, "bad_body")
        for body in (b"", b"\n", b" \n\r\n"):
            self.refuses(self.raw(body, LINES), 400, "bad_body")

    def test_bad_body(self) -> None:
        """A body that is not ``{"records": [...]}``."""
        for body in (
            b"",
            b"[]",
            b"{}",
            b'{"records": {}}',
            b'{"records": null}',
            b'{"records": [], "more": 1}',
            b'{"records": [{"value": ""}',
            b"{\xff",
            b"null",
        ):
            self.refuses(self.raw(body), 400, "bad_body")

    def test_deep(self) -> None:
        """Deep JSON anywhere is a refusal, not a crash."""
        deep = b"[" * 100_000
        for body in (deep, b'{"records": ' + deep, b'{"records": [' + deep + b"]}", b'{"x": ' + deep, b'{"records": [{"value": ' + deep):
            self.assertEqual(self.raw(body).status, 400)
        self.assertEqual(self.raw(deep, LINES).status, 400)
        closed = b"[" * 65 + b"]" * 65
        self.refuses(self.raw(b'{"records": [{"value": ' + closed + b"}]}"), 400, "bad_record")
        self.refuses(self.raw(b'{"records": [{"value": "", "headers": ' + closed + b"}]}"), 400, "bad_record")

    def test_frames(self) -> None:
        """A frame that is wrong is named by its number, and nothing is published; a body that ends within one is refused as a whole."""
        good, bad = framed(b"a"), framed(b"b", None, (), 99)
        self.assertEqual(self.refuses(self.raw(good + bad, FRAMES), 400, "bad_record").json["record"], 1)
        self.assertEqual(self.refuses(self.raw(good + framed(b"", None, (("psubd-x", b""),)), FRAMES), 400, "reserved_header").json["record"], 1)
        self.assertEqual(self.refuses(self.raw(good * 2 + b"\0\0\0\1\1" + good, FRAMES), 400, "bad_record").json["record"], 2)
        self.refuses(self.raw(good + good[:-1], FRAMES), 400, "bad_body")
        self.refuses(self.raw(b"", FRAMES), 400, "bad_body")
        self.refuses(self.raw(good * (MAX_RECORDS + 1), FRAMES), 413, "too_large")

    def test_media(self) -> None:
        """Other types are 415, none too."""
        for media in (None, ("content-type", "text/plain"), ("content-type", "application/json; charset=utf-16"), ("content-type", "")):
            self.refuses(self.raw(b'{"records": [{"value": ""}]}', media), 415, "unsupported_media_type")

    def test_other_headers(self) -> None:
        """The headers that describe one message are refused by name."""
        for name in (
            "key",
            "key.encoding",
            "key-encoding",
            "partition",
            "timestamp",
            "headers.encoding",
            "traceparent",
            "tracestate",
            "tombstone",
            "idempotency-key",
            "delay",
            "deliver.at",
            "header.a",
            "header-a",
        ):
            reply = self.refuses(self.batch({"value": "a"}, headers=[(name, "1")]), 400, "bad_header")
            self.assertIn(name.replace("header-", "header.").replace("key-encoding", "key.encoding"), reply.json["detail"])

    def test_acks_malformed(self) -> None:
        """Against its grammar."""
        self.refuses(self.batch({"value": "a"}, headers=[("acks", "2")]), 400, "bad_header")

    def test_topics_conflict(self) -> None:
        """Header and path."""
        self.refuses(self.batch({"value": "a"}, headers=[("topic.id", "secrets")]), 400, "conflicting_headers")

    def test_credentials(self) -> None:
        """401 before the body is looked at."""
        reply = self.ask("POST", "/v1/pub/orders/batch", [*self.shop.sub, JSON], b"{")
        self.refuses(reply, 401, "bad_credentials")

    def test_not_bound(self) -> None:
        """403 before the body is looked at, whether the topic exists or not."""
        for topic in ("secrets", "missing"):
            self.refuses(self.raw(b"{", topic=topic), 403, "topic_not_bound")

    def test_topic_missing(self) -> None:
        """Bound, but gone from the storage: no record is to blame."""
        self.topic("gone", "shop")
        self.wait(self.storage.delete_topic("gone"))
        self.assertNotIn("record", self.refuses(self.batch({"value": "a"}, topic="gone"), 404, "topic_missing").json)

    def test_query(self) -> None:
        """There is none here."""
        self.refuses(self.batch({"value": "a"}, query="acks=1"), 400, "bad_parameter")


PLAIN = st.fixed_dictionaries(
    {"value": st.text(max_size=3)},
    optional={
        "key": st.none() | st.sampled_from(["a", "b\u00e9"]),
        "partition": st.none() | st.integers(0, 2),
        "timestamp": st.none() | st.integers(0, 5),
        "headers": st.none() | st.dictionaries(st.sampled_from(["a", "B"]), st.none() | st.sampled_from(["1", ""])),
        "encoding": st.just("utf-8"),
    },
)
ODD = st.sampled_from(
    [
        {"value": None},
        {"value": {"n": 1}},
        {"value": "a", "encoding": "base64"},
        {"value": "YQ==", "encoding": "base64"},
        {"value": "a", "key": {"base64": "YQ=="}},
        {"value": "a", "partition": 7},
        {"value": "a", "partition": -1},
        {"value": "a", "timestamp": 2**62},
        {"value": "a", "headers": {"psubd-x": "1"}},
        {"value": "a", "headers": {"a": ["1", "2"]}},
        {"value": "a", "topic": "t", "offset": 4},
        {"value": "a", "no": 1},
        {"key": "a"},
        "text",
        [],
    ]
)


class PlainTests(BatchCase):
    """Batches of text are read in one go: that changes nothing in what becomes of them."""

    def setUp(self) -> None:
        super().setUp()
        self.given: list[list[Record]] = []
        real = self.storage.publish
        self.patch(self.storage, "publish", lambda records, acks: (self.given.append(list(records)), real(records, acks))[1])

    def outcome(self, body: bytes, media: tuple[str, str]) -> tuple[int, Any, Any]:
        """The status, the refusal, and what the storage was given; the partition that a record without one gets is left to chance."""
        self.given.clear()
        reply = self.raw(body, media)
        asked = [[record if record.key is not None else msgspec.structs.replace(record, partition=None) for record in call] for call in self.given]
        return reply.status, None if reply.status == 200 else reply.json, asked

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(st.lists(PLAIN | PLAIN | PLAIN | ODD, max_size=6), st.sampled_from((JSON, LINES)), st.integers(0, 40))
    def test_as_one_by_one(self, found: list[Any], media: tuple[str, str], broken: int) -> None:
        """The same records, the same refusal with the same number, as where each is read by itself."""
        body = json.dumps({"records": found}).encode() if media == JSON else b"\n".join(json.dumps(record).encode() for record in found)
        if broken < 8:
            body = body[: -broken or None] + (b" x" if broken == 1 else b"")
        quick = self.outcome(body, media)
        with mock.patch.object(batch, "read_plain", return_value=None):
            self.assertEqual(quick, self.outcome(body, media))

    def test_a_record_a_line(self) -> None:
        """A record over two lines, and two on a line, are refused."""
        for body in (b'{"value":\n"a"}', b'{"value": "a"} {"value": "b"}'):
            self.refuses(self.raw(body, LINES), 400, "bad_record")

    def test_which_are_read_so(self) -> None:
        """Text throughout, and not too much of it."""
        for body, media in ((b'{"records": [{"value": "a", "key": "k"}]}', "application/json"), (b'{"value": "a"}\n', "application/x-ndjson")):
            self.assertEqual(len(batch.read_plain("orders", media, body) or ()), 1)
            self.assertIsNone(batch.read_plain("orders", media, body.replace(b'"a"', b"1")))
            self.assertIsNone(batch.read_plain("orders", media, body.replace(b"a", b"a" * PLAIN_BYTES, 1)))
            self.assertIsNone(batch.read_plain("orders", media, body.replace(b"a", b"{" * (PLAIN_RECORDS + 1))))
            self.assertIsNone(batch.read_plain("orders", "text/plain", body))


class TurnTests(BatchCase):
    def slow(self) -> list[int]:
        """Each record takes 4 ms to judge."""
        judged: list[int] = []
        real = self.publisher.judge
        self.patch(self.clock, "elapsed_ms", lambda: 4 * len(judged))

        def judge(topic: Any, record: Record) -> Record:
            judged.append(len(judged))
            return real(topic, record)

        self.patch(self.publisher, "judge", judge)
        return judged

    def begun(self, count: int) -> "Deferred[Any]":
        body = json.dumps({"records": [{"value": 1}] * count}).encode()
        return self.begin("POST", "/v1/pub/orders/batch", [*self.shop.pub, JSON], body)

    def test_others_get_their_turn(self) -> None:
        """A large batch is judged in slices of some 10 ms, and published whole at the end."""
        judged = self.slow()
        waiting = self.begun(8)
        self.assertEqual(len(judged), 3)
        self.assertEqual(self.stored(), [])
        seen: list[tuple[int, int]] = []
        self.clock.call_later(0, lambda: seen.append((len(judged), len(self.stored()))))
        self.clock.advance(0)
        self.assertEqual(seen, [(6, 0)])
        self.assertEqual(self.reply(waiting).json["failed"], 0)
        self.assertEqual(len(self.stored()), 8)

    def test_client_gone(self) -> None:
        """A client that goes away in between publishes nothing, and nothing is left behind."""
        self.slow()
        waiting = self.begun(8)
        waiting.cancel()
        self.failureResultOf(waiting)
        self.clock.advance(1)
        self.assertEqual(self.stored(), [])

    def test_revoked_meanwhile(self) -> None:
        """A binding that is revoked in between publishes nothing."""
        self.slow()
        waiting = self.begun(8)
        self.wait(self.registrar.delete_binding("shop", "orders", "test", None))
        self.clock.advance(0)
        self.clock.advance(0)
        self.refuses(self.reply(waiting), 403, "topic_not_bound")
        self.assertEqual(self.stored(), [])
