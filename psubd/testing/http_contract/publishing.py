"""Publish, one message a request: what goes with it in headers (contract, section 2)."""

import base64

from psubd.testing.daemon import bind, make_topic
from psubd.testing.http_contract.steps import Lines, Steps

HOUR = 3_600_000

JAVAS = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
    (b"", 275646681),
    (b"L", -640691068),
    (b"\x98", -404328380),
    (b"\x84\x27", -1728109904),
    (b"\xe3\xb4\x0a", -1819385158),
]
"""murmur2 of keys as the Java client hashes them: the first six from Kafka's UtilsTest.testMurmur2, the others from its class."""

WRONG_HEADERS: list[tuple[Lines, int, str]] = [
    ([("key", b"\xff\xfe")], 400, "bad_header"),
    ([("key", "not base64"), ("key.encoding", "base64")], 400, "bad_header"),
    ([("key", "YQ"), ("key.encoding", "base64")], 400, "bad_header"),
    ([("key", "a"), ("key.encoding", "hex")], 400, "bad_header"),
    ([("key", "a"), ("key", "a")], 400, "bad_header"),
    ([("key.encoding", "base64"), ("key-encoding", "hex"), ("key", "YQ==")], 400, "conflicting_headers"),
    ([("partition", "3")], 400, "bad_header"),
    ([("partition", "-1")], 400, "bad_header"),
    ([("partition", "one")], 400, "bad_header"),
    ([("partition", "1"), ("partition", "1")], 400, "bad_header"),
    ([("timestamp", "-1")], 400, "bad_header"),
    ([("timestamp", "soon")], 400, "bad_header"),
    ([("timestamp", "99999999999999999999")], 400, "bad_header"),
    ([("acks", "2")], 400, "bad_header"),
    ([("acks", "ALL")], 400, "bad_header"),
    ([("header.psubd.origin-topic", "x")], 400, "reserved_header"),
    ([("header-PSUBD", "x")], 400, "reserved_header"),
    ([("header.", "x")], 400, "bad_header"),
    ([("header.a", b"\xff")], 400, "bad_header"),
    ([("header.a", "plain"), ("headers.encoding", "base64")], 400, "bad_header"),
    ([("header.a", "1"), ("header-a", "2")], 400, "conflicting_headers"),
    ([("content-type", "text/plain"), ("header.content-type", "text/html")], 400, "conflicting_headers"),
    ([("tombstone", "true")], 400, "bad_header"),
    ([("tombstone", "yes")], 400, "bad_header"),
    ([("topic.id", "another")], 400, "conflicting_headers"),
    ([("topic.id", "no topic can be called so")], 400, "bad_header"),
    ([("idempotency-key", "once")], 400, "not_supported"),
    ([("delay", "1000")], 400, "not_supported"),
    ([("deliver.at", "1")], 400, "not_supported"),
    ([("deliver-at", "1")], 400, "not_supported"),
]
"""Field lines that one message may not have, beside a body and a topic of three partitions."""


class PublishingContract(Steps):
    """One message a request."""

    def test_the_answer_says_where_it_is(self) -> None:
        """200 with topic, partition, offset and timestamp: the offsets rise, the time is now, and it is what a reader gets."""
        stand, before = self.stand(), self.now()
        first, second = self.place(stand, b"one"), self.place(stand, b"two")
        self.assertEqual(set(first), {"topic", "partition", "offset", "timestamp"})
        self.assertEqual((first["topic"], first["partition"]), (stand.topic, 0))
        self.assertLess(first["offset"], second["offset"])
        self.assertTrue(before <= first["timestamp"] <= second["timestamp"] <= self.now())
        told = [(message["topic"], message["partition"], message["offset"], message["timestamp"]) for message in self.log(stand)]
        self.assertEqual(told, [tuple(place[name] for name in ("topic", "partition", "offset", "timestamp")) for place in (first, second)])

    def test_all_that_goes_with_a_message_is_read_back(self) -> None:
        """Key, partition, timestamp, content-type, traceparent, tracestate and record headers come back as they were sent."""
        stand, when = self.stand(3), self.now() - 5_000
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        lines: Lines = [
            ("key", "order-1"),
            ("partition", "2"),
            ("timestamp", str(when)),
            ("header.b", "2"),
            ("content-type", "Text/Plain; charset=x"),
            ("traceparent", trace),
            ("header.a", "1"),
            ("tracestate", "x=1,y=2"),
        ]
        reply = self.publish_lines(stand, b"hello", lines)
        self.assertEqual((reply.status, reply.json["partition"], reply.json["timestamp"]), (200, 2, when), reply)
        headers = {"content-type": "Text/Plain; charset=x", "traceparent": trace, "tracestate": "x=1,y=2", "b": "2", "a": "1"}
        [message] = self.read(stand)
        self.assertEqual(list(message["headers"].items()), list(headers.items()))
        place = {"topic": stand.topic, "partition": 2, "offset": reply.json["offset"], "timestamp": when}
        content = {"key": "order-1", "value": "hello", "encoding": "utf-8", "headers": headers, "attempt": 1}
        self.assertEqual(message, {**place, **content})

    def test_topic_in_the_header(self) -> None:
        """POST /v1/pub takes the topic from its header, by either name; the path and the header may say the same."""
        stand = self.stand()
        for headers in ({"topic.id": stand.topic}, {"topic-id": stand.topic}, {"topic.id": stand.topic, "topic-id": stand.topic}):
            self.assertEqual(stand.pub.request("POST", "/v1/pub", b"x", headers).status, 200)
        self.assertEqual(self.send(stand, b"x", {"topic.id": stand.topic}).status, 200)
        with self.unchanged(stand):
            self.assert_refused(stand.pub.request("POST", "/v1/pub", b"x"), 400, "bad_header")
            different = {"topic.id": stand.topic, "topic-id": f"{stand.topic}x"}
            self.assert_refused(stand.pub.request("POST", "/v1/pub", b"x", different), 400, "conflicting_headers")
        self.assertEqual(len(self.log(stand)), 4)

    def test_keys(self) -> None:
        """No key, an empty one, UTF-8, and any bytes by base64 are told from each other and come back."""
        stand = self.stand()
        binary = base64.b64encode(b"\xff\x00k").decode()
        binary_lines, ascii_lines = [("key", binary), ("key.encoding", "base64")], [("key", "YQ=="), ("key-encoding", "base64")]
        said: list[Lines] = [[], [("key", "")], [("key", "schlüssel")], binary_lines, ascii_lines]
        for lines in said:
            self.assertEqual(self.publish_lines(stand, b"x", lines).status, 200)
        self.assertEqual([message["key"] for message in self.drain(stand, 5)], [None, "", "schlüssel", {"base64": binary}, "a"])

    def test_record_headers(self) -> None:
        """One record header a field line: names in lower case, repeats in order, commas kept, an empty value is one; hyphen twins count once."""
        stand = self.stand()
        lines = [("header.A", "1"), ("header.b", "x, y"), ("header.a", "2"), ("header.Empty", ""), ("header.a", "ü")]
        lines += [("header-a", "1"), ("header-a", "2"), ("header-a", "ü"), ("header-c.d", "3")]
        self.assertEqual(self.publish_lines(stand, b"x", lines).status, 200)
        [message] = self.read(stand)
        self.assertEqual(list(message["headers"].items()), [("a", ["1", "2", "ü"]), ("b", "x, y"), ("empty", ""), ("c.d", "3")])

    def test_record_headers_in_base64(self) -> None:
        """With headers.encoding: base64 all of header.<name> are bytes; what is not UTF-8 comes back in base64, content-type stays as it is."""
        stand = self.stand()
        raw, text = base64.b64encode(b"\xff\x00").decode(), base64.b64encode(b"text").decode()
        headers = {"headers.encoding": "base64", "header.raw": raw, "header.text": text, "content-type": "text/plain"}
        self.put(stand, b"x", **headers)
        [message] = self.read(stand)
        self.assertEqual(message["headers"], {"content-type": "text/plain", "raw": {"base64": raw}, "text": "text"})

    def test_payloads(self) -> None:
        """Any bytes are a payload: text and binary come back as they were, an empty body is an empty message, a tombstone is null."""
        stand = self.stand()
        every = bytes(range(256))
        self.put(stand, "grün\r\n\0".encode(), every, b"")
        self.put(stand, b"", key="k", tombstone="true")
        self.put(stand, b"", tombstone="false")
        told = [(message["value"], message["encoding"]) for message in self.drain(stand, 5)]
        whole = base64.b64encode(every).decode()
        self.assertEqual(told, [("grün\r\n\0", "utf-8"), (whole, "base64"), ("", "utf-8"), (None, "utf-8"), ("", "utf-8")])

    def test_acks(self) -> None:
        """1, all, -1 and none answer 200 with the place, 0 answers 202 with the topic; all of them arrive."""
        stand = self.stand()
        for acks in ("1", "all", "-1"):
            self.assertEqual(self.place(stand, acks.encode(), {"acks": acks})["topic"], stand.topic)
        reply = self.send(stand, b"0", {"acks": "0"})
        self.assertEqual((reply.status, reply.json), (202, {"topic": stand.topic}))
        self.assertEqual(sorted(message["value"] for message in self.drain(stand, 4)), ["-1", "0", "1", "all"])

    def test_a_key_has_its_javas_partition(self) -> None:
        """A key goes where the Java client puts it: murmur2 over its bytes, on every storage; for single messages and for batches."""
        stand = self.stand(6)
        places, records = {}, []
        for key, _ in JAVAS:
            text = base64.b64encode(key).decode()
            places[key] = [self.place(stand, b"x", {"key": text, "key.encoding": "base64"})["partition"]]
            records.append({"key": {"base64": text}, "value": "x"})
        for (key, _), place in zip(JAVAS, self.put_batch(stand, records), strict=True):
            places[key].append(place["partition"])
        self.assertEqual(places, {key: [(hashed & 0x7FFFFFFF) % 6] * 2 for key, hashed in JAVAS})

    def test_without_a_key_messages_are_spread(self) -> None:
        """Messages without key or partition reach every partition; an exact partition is kept to, with a key too."""
        stand = self.stand(3)
        self.assertEqual({self.place(stand, b"x")["partition"] for _ in range(9)}, {0, 1, 2})
        for partition in (2, 0, 1):
            self.assertEqual(self.place(stand, b"x", {"partition": str(partition), "key": "abc"})["partition"], partition)

    def test_timestamps(self) -> None:
        """0 and almost an hour ahead are taken and kept, two hours ahead are 400."""
        stand = self.stand(topic={"retention_ms": None})
        ahead = self.now() + HOUR - 60_000
        for when in (0, 1, ahead):
            self.assertEqual(self.place(stand, b"x", {"timestamp": str(when)})["timestamp"], when)
        with self.unchanged(stand):
            self.assert_refused(self.send(stand, b"x", {"timestamp": str(self.now() + 2 * HOUR)}), 400, "bad_header")
        self.assertEqual([message["timestamp"] for message in self.drain(stand, 3)], [0, 1, ahead])

    def test_wrong_headers_change_nothing(self) -> None:
        """Each header that is not valid, or belongs to a later version, is a 4xx that names its code; nothing is stored, no cursor moves."""
        stand = self.stand(3)
        self.put(stand, b"before")
        self.assertEqual(self.values(stand), ["before"])
        with self.unchanged(stand):
            for lines, status, code in WRONG_HEADERS:
                self.assert_refused(self.publish_lines(stand, b"x", lines), status, code, lines)
            self.assert_refused(stand.pub.request("POST", f"/v1/pub/{stand.topic}?key=a", b"x"), 400, "bad_parameter")

    def test_compacted_topics_want_a_key(self) -> None:
        """On a compacted topic a message without a key is 400 and not stored; with one, and as a tombstone, it is taken."""
        stand = self.stand(topic={"cleanup": "compact"})
        self.put(stand, b"one", key="k")
        with self.unchanged(stand):
            self.assert_refused(self.send(stand, b"x"), 400, "bad_header")
            self.assert_refused(self.send(stand, b"", {"tombstone": "true"}), 400, "bad_header")
            refused = self.batch(stand, [{"key": "k", "value": "x"}, {"value": "x"}])
            self.assert_refused(refused, 400, "bad_record")
            self.assertEqual(refused.json["record"], 1)
        self.put(stand, b"", key="k2", tombstone="true")
        self.put(stand, b"", key="")
        self.assertEqual([(message["key"], message["value"]) for message in self.drain(stand, 3)][-2:], [("k2", None), ("", "")])

    def test_topics_that_are_not_bound(self) -> None:
        """A topic of nobody's, of another tenant's, bound for sub only, or that no topic can be called: 403 topic_not_bound, one answer."""
        stand, other = self.stand(), self.stand()
        reading = self.name()
        make_topic(self.manager, reading, other.id)
        bind(self.manager, stand.id, reading, sub=True)
        told = set()
        with self.unchanged(stand, other):
            for topic in (other.topic, self.name(), reading, "no%20topic"):
                for target, body in ((f"/v1/pub/{topic}", b"x"), (f"/v1/pub/{topic}/batch", b'{"records":[{"value":"x"}]}')):
                    reply = stand.pub.request("POST", target, body, {"content-type": "application/json"})
                    self.assert_refused(reply, 403, "topic_not_bound", topic)
                    told.add(reply.json["detail"].replace(topic, "").replace("no topic", ""))
        self.assertEqual(len(told), 1, told)
