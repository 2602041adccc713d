"""Many records a request (contract, section 2)."""

import base64
import gzip
import json
from typing import Any

from psubd.testing.daemon import Reply
from psubd.testing.http_contract.steps import MEBIBYTE, Stand, Steps

RAW = base64.b64encode(b"\xff\x00raw").decode()
JSON_KEPT = "application/json"

FORMS: list[tuple[str, Any, str, dict[str, str]]] = [
    ('"text"', "text", "utf-8", {}),
    ('"gr\\u00fcn \\"q\\""', 'grün "q"', "utf-8", {}),
    ('""', "", "utf-8", {}),
    (f'{{"base64": "{RAW}"}}', RAW, "base64", {}),
    ('{"base64": "dGV4dA=="}', "text", "utf-8", {}),
    ("null", None, "utf-8", {}),
    ('{"json": {"a":  1.0}}', '{"a":  1.0}', "utf-8", {"content-type": JSON_KEPT}),
    ('{"json": "text"}', '"text"', "utf-8", {"content-type": JSON_KEPT}),
    ('{"json": null}', "null", "utf-8", {"content-type": JSON_KEPT}),
    ('{"a": 1,  "a": 2}', '{"a": 1,  "a": 2}', "utf-8", {"content-type": JSON_KEPT}),
    ('[1, 1.50, "x"]', '[1, 1.50, "x"]', "utf-8", {"content-type": JSON_KEPT}),
    ("1e400", "1e400", "utf-8", {"content-type": JSON_KEPT}),
    ("123456789012345678901234567890", "123456789012345678901234567890", "utf-8", {"content-type": JSON_KEPT}),
    ("true", "true", "utf-8", {"content-type": JSON_KEPT}),
    ("{}", "{}", "utf-8", {"content-type": JSON_KEPT}),
]
"""A record's value as it stands in the request, and what a reader gets for it."""

WRONG_RECORDS: list[tuple[str, int, str]] = [
    ("{}", 400, "bad_record"),
    ('{"value": "x", "colour": 1}', 400, "bad_record"),
    ('{"value": {"base64": "YQ"}}', 400, "bad_record"),
    ('{"value": "YQ", "encoding": "base64"}', 400, "bad_record"),
    ('{"value": "x", "key": 1}', 400, "bad_record"),
    ('{"value": "x", "key": {"base64": "?"}}', 400, "bad_record"),
    ('{"value": "x", "partition": 3}', 400, "bad_record"),
    ('{"value": "x", "partition": -1}', 400, "bad_record"),
    ('{"value": "x", "partition": "0"}', 400, "bad_record"),
    ('{"value": "x", "timestamp": -1}', 400, "bad_record"),
    ('{"value": "x", "timestamp": 99999999999999}', 400, "bad_record"),
    ('{"value": "x", "headers": ["a"]}', 400, "bad_record"),
    ('{"value": "x", "headers": {"a": 1}}', 400, "bad_record"),
    ('{"value": "x", "headers": {"psubd.group": "a"}}', 400, "reserved_header"),
    ('{"value": ' + "[" * 65 + "]" * 65 + "}", 400, "bad_record"),
    ('{"value": "' + "x" * (MEBIBYTE + 1) + '"}', 413, "too_large"),
    ("[]", 400, "bad_record"),
]

WRONG_BODIES: list[tuple[str, bytes, int, str]] = [
    ("application/json", b"", 400, "bad_body"),
    ("application/json", b"[]", 400, "bad_body"),
    ("application/json", b"{}", 400, "bad_body"),
    ("application/json", b'{"records": []}', 400, "bad_body"),
    ("application/json", b'{"records": {}}', 400, "bad_body"),
    ("application/json", b'{"records": [{"value": 1}], "more": 1}', 400, "bad_body"),
    ("application/json", b'{"records": [{"value": "\xff"}]}', 400, "bad_record"),
    ("application/json", b'{"records": [', 400, "bad_body"),
    ("application/x-ndjson", b"\n\n", 400, "bad_body"),
    ("text/plain", b'{"records": [{"value": 1}]}', 415, "unsupported_media_type"),
    ("application/json; charset=utf-16", b'{"records": [{"value": 1}]}', 415, "unsupported_media_type"),
    ("application/vnd.psubd.frames", b"x", 400, "bad_body"),
    ("application/vnd.psubd.frames", b"\0\0\0\1\1", 400, "bad_record"),
    ("application/json", b'{"records": [' + b'{"value":1},' * 10_000 + b'{"value":1}]}', 413, "too_large"),
    ("application/x-ndjson", b'{"value":1}\n' * 10_001, 413, "too_large"),
]


class BatchesContract(Steps):
    """JSON and NDJSON batches."""

    def many(self, stand: Stand, body: bytes, kind: str = "application/x-ndjson", **headers: str) -> Reply:
        return stand.pub.request("POST", f"/v1/pub/{stand.topic}/batch", body, {"content-type": kind, **headers})

    def test_value_forms(self) -> None:
        """Each form of a value, in JSON and in NDJSON: text, base64, json, null, any other JSON as its bytes stood, with its content type."""
        stand = self.stand()
        records = [f'{{"value": {text}}}' for text, *_ in FORMS]
        self.assertEqual(self.many(stand, f'{{"records": [{", ".join(records)}]}}'.encode(), "application/json; charset=UTF-8").status, 200)
        self.assertEqual(self.many(stand, "\n".join(records).encode()).status, 200)
        told = [(message["value"], message["encoding"], message["headers"]) for message in self.drain(stand, 2 * len(FORMS))]
        expected = [(value, encoding, headers) for _, value, encoding, headers in FORMS]
        self.assertEqual(told[: len(FORMS)], expected)
        self.assertEqual(told[len(FORMS) :], expected)

    def test_all_that_a_record_says_is_read_back(self) -> None:
        """Key, partition, timestamp and headers of each record, with nulls, lists, base64 and their order."""
        stand, when = self.stand(3), self.now() - 5_000
        headers = {"z": "1", "null": None, "list": ["a", None, {"base64": RAW}], "b": {"base64": RAW}, "Upper": "x", "ü": "", "": "no name"}
        records = [
            {"key": {"base64": RAW}, "value": "x", "partition": 1, "timestamp": when, "headers": headers},
            {"key": None, "value": "y", "partition": 1, "timestamp": None, "headers": None},
            {"key": "", "value": {"json": 1}, "partition": 1, "headers": {"Content-Type": "x/y", "none": []}},
        ]
        places = self.put_batch(stand, records)
        messages = self.drain(stand, 3)
        self.assertEqual([{name: message[name] for name in ("partition", "offset")} for message in messages], places)
        self.assertEqual([message["key"] for message in messages], [{"base64": RAW}, None, ""])
        self.assertEqual([list(message["headers"].items()) for message in messages], [list(headers.items()), [], [("Content-Type", "x/y")]])
        self.assertEqual(messages[0]["timestamp"], when)

    def test_what_was_read_can_be_posted_back(self) -> None:
        """An answer's messages are a batch's records: what is read of them then is the same again, but for the place and the topic."""
        source, copy = self.stand(), self.stand()
        self.put(source, b"text", **{"key": "k", "header.a": "1", "content-type": "text/plain"})
        self.put(source, b"\xff\x00")
        self.put(source, b"", tombstone="true")
        self.put_batch(source, [{"value": {"a": 1}, "headers": {"list": ["1", None, {"base64": RAW}]}}])
        messages = self.drain(source, 4)
        self.put_batch(copy, [{**message, "partition": 0} for message in messages])

        def bare(message: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in message.items() if name not in ("topic", "offset", "partition")}

        self.assertEqual([bare(message) for message in self.drain(copy, 4)], [bare(message) for message in messages])

    def test_order_and_places(self) -> None:
        """10,000 records, the most: taken in the order given, each one's place in its turn, the offsets of a partition rising."""
        stand = self.stand(2)
        places = self.put_batch(stand, [{"key": str(number % 7), "value": str(number)} for number in range(10_000)])
        log = {(message["partition"], message["offset"]): message["value"] for message in self.log(stand)}
        self.assertEqual(log, {(place["partition"], place["offset"]): str(number) for number, place in enumerate(places)})
        for partition in (0, 1):
            offsets = [place["offset"] for place in places if place["partition"] == partition]
            self.assertEqual(offsets, sorted(offsets))

    def test_the_largest(self) -> None:
        """A batch of almost 16 MiB, each record with 1 MiB of value: all of it stands, and is read back."""
        stand = self.stand(2)
        values = [letter * MEBIBYTE for letter in "abcdefghijklmno"]
        self.put_batch(stand, [{"value": value} for value in values])
        self.assertEqual(sorted(message["value"] for message in self.drain(stand, 15)), values)

    def test_acks_of_a_batch(self) -> None:
        """acks applies to all records: 0 answers 202 with how many; the other headers of a message are 400 on a batch."""
        stand = self.stand()
        records = [{"value": str(number)} for number in range(5)]
        reply = self.batch(stand, records, {"acks": "0"})
        self.assertEqual((reply.status, reply.json), (202, {"topic": stand.topic, "accepted": 5}))
        self.assertEqual(self.batch(stand, records, {"acks": "1"}).status, 200)
        self.assertEqual(self.batch(stand, records, {"topic.id": stand.topic}).status, 200)
        self.drain(stand, 15)
        with self.unchanged(stand):
            self.assert_refused(self.batch(stand, records, {"acks": "2"}), 400, "bad_header")
            for name in (
                "key",
                "partition",
                "timestamp",
                "header.a",
                "header-a",
                "traceparent",
                "tracestate",
                "tombstone",
                "idempotency-key",
                "delay",
            ):
                self.assert_refused(self.batch(stand, records, {name: "1"}), 400, "bad_header", name)

    def test_a_wrong_record_is_named_and_nothing_is_published(self) -> None:
        """What the request alone can tell is 400 or 413 with the record's number, and none of its neighbours is stored."""
        stand = self.stand(3)
        with self.unchanged(stand):
            for record, status, code in WRONG_RECORDS:
                for body, kind in (
                    (f'{{"records": [{{"value": 1}}, {record}, {{"value": 2}}]}}', "application/json"),
                    (f'{{"value": 1}}\n\n{record}\n{{"value": 2}}\n', "application/x-ndjson"),
                ):
                    reply = self.many(stand, body.encode(), kind)
                    self.assert_refused(reply, status, code, record[:80])
                    self.assertEqual(reply.json["record"], 1, record[:80])

    def test_wrong_bodies_change_nothing(self) -> None:
        """A body that is no batch, too many records, too many bytes, another type: a 4xx each, and nothing is stored."""
        stand = self.stand()
        with self.unchanged(stand):
            for kind, body, status, code in WRONG_BODIES:
                self.assert_refused(self.many(stand, body, kind), status, code, (kind, body[:60]))
            self.assert_refused(stand.pub.request("POST", f"/v1/pub/{stand.topic}/batch", b"{}"), 415, "unsupported_media_type")
            large = gzip.compress(b'{"records": [{"value": "' + b"x" * 16 * MEBIBYTE + b'"}]}')
            self.assert_refused(self.many(stand, large, "application/json", **{"content-encoding": "gzip"}), 413, "too_large")
            document = json.dumps({"records": [{"value": "x"}]}).encode()
            self.assert_refused(stand.pub.request("POST", f"/v1/pub/{stand.topic}/batch?x=1", document), 400, "bad_parameter")
