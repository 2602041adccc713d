"""Publishing as Confluent's clients do it (tables 1a and 1b)."""

import gzip
import json
from typing import Any

from psubd.testing.confluent_contract.steps import V1, V2, ConfluentSteps, b64, embedded
from psubd.testing.daemon import Reply
from psubd.testing.http_contract.steps import MEBIBYTE


class ProducingContract(ConfluentSteps):
    def stored(self, reply: Reply, *places: tuple[int, int], type: str = V2) -> None:
        """200, each record at that partition and offset."""
        offsets = [{"partition": partition, "offset": offset, "error_code": None, "error": None} for partition, offset in places]
        self.says(reply, {"offsets": offsets, "key_schema_id": None, "value_schema_id": None}, type)

    def test_publishing_binary(self) -> None:
        """Keys and values in base64; a null value is a tombstone, and none at all."""
        stand = self.stand()
        records: list[dict[str, Any]] = [{"key": b64(b"\xff"), "value": b64(b"\x00v")}, {"value": None}, {"key": b64(b"k")}, {"value": ""}]
        self.stored(self.caller(stand).produce(stand.topic, *records, format="binary"), (0, 0), (0, 1), (0, 2), (0, 3))
        found = [(message["key"], message["value"], message["encoding"]) for message in self.log(stand)]
        self.assertEqual(found, [({"base64": "/w=="}, "\x00v", "utf-8"), (None, None, "utf-8"), ("k", None, "utf-8"), (None, "", "utf-8")])

    def test_publishing_json(self) -> None:
        """The value's JSON as it stood in the request; application/json is taken as this."""
        stand = self.stand()
        body = b'{"records": [{"key": "k", "value": {"b": 1.10, "a":[ ]}}, {"value": "text"}, {"value": 0}, {"value": null}]}'
        for type in (embedded("json"), "application/json"):
            self.assertEqual(self.caller(stand).ask("POST", f"/topics/{stand.topic}", body, type).status, 200)
        expected = [('"k"', '{"b": 1.10, "a":[ ]}'), (None, '"text"'), (None, "0"), (None, None)]
        self.assertEqual([(message["key"], message["value"]) for message in self.log(stand)], expected * 2)

    def test_publishing_text(self) -> None:
        """Strimzi's: strings as their UTF-8."""
        stand = self.stand()
        self.stored(self.caller(stand).produce(stand.topic, {"key": "k", "value": "\u00e9 1"}, format="text"), (0, 0))
        self.assertEqual([(message["key"], message["value"]) for message in self.log(stand)], [("k", "\u00e9 1")])

    def test_headers_and_timestamps(self) -> None:
        """Strimzi's, of each record."""
        stand = self.stand()
        headers = [{"key": "a", "value": b64(b"1")}, {"key": "a", "value": b64(b"2")}, {"key": "n", "value": None}]
        self.stored(self.caller(stand).produce(stand.topic, {"value": 1, "timestamp": 1_600_000_000_000, "headers": headers}), (0, 0))
        (message,) = self.log(stand)
        self.assertEqual((message["timestamp"], message["headers"]), (1_600_000_000_000, {"a": ["1", "2"], "n": None}))

    def test_to_a_partition(self) -> None:
        """By the record or by the path, of which the record's goes before."""
        stand = self.stand(3)
        caller = self.caller(stand)
        self.stored(caller.produce(stand.topic, {"value": 1, "partition": 2}), (2, 0))
        records = {"records": [{"value": 2}, {"value": 3, "partition": 2}]}
        self.stored(caller.ask("POST", f"/topics/{stand.topic}/partitions/1", records, embedded("json")), (1, 0), (2, 1))
        self.told(caller.ask("POST", f"/topics/{stand.topic}/partitions/3", records, embedded("json")), 404, 40402)

    def test_the_first_version(self) -> None:
        """Its types; binary where the type names no format."""
        stand = self.stand()
        caller = self.caller(stand)
        records = {"records": [{"value": b64(b"a")}]}
        for offset, type in enumerate((embedded("binary", 1), V1, "application/vnd.kafka+json")):
            self.stored(caller.ask("POST", f"/topics/{stand.topic}", records, type), (0, offset), type=V1)
        self.stored(caller.ask("POST", f"/topics/{stand.topic}", {"records": [{"value": "a"}]}, embedded("json", 1)), (0, 3), type=V1)
        self.assertEqual([message["value"] for message in self.log(stand)], ["a", "a", "a", '"a"'])

    def test_what_one_record_is_refused_for(self) -> None:
        """200; that record has its number and why, the others are stored."""
        stand = self.stand(1)
        reply = self.caller(stand).produce(stand.topic, {"value": 1}, {"value": "x" * 2 * MEBIBYTE}, {"value": 2, "partition": 1}, {"value": 3})
        self.assertEqual(reply.status, 200, reply.status)
        offsets = reply.json["offsets"]
        self.assertEqual([each["error_code"] for each in offsets], [None, 413, 40402, None])
        self.assertEqual([each["offset"] for each in offsets], [0, None, None, 1])
        self.assertTrue(offsets[1]["error"] and offsets[2]["error"])
        self.assertEqual([message["value"] for message in self.log(stand)], ["1", "3"])

    def test_what_the_whole_request_is_refused_for(self) -> None:
        """And nothing is stored."""
        stand, other = self.stand(), self.stand()
        caller = self.caller(stand)
        with self.unchanged(stand):
            nothing: list[dict[str, Any]] = [{}, {"records": []}, {"records": None}, {"records": 1}]
            for body in nothing:
                self.told(caller.ask("POST", f"/topics/{stand.topic}", body, embedded("binary")), 422, 422)
            self.told(caller.ask("POST", f"/topics/{stand.topic}", b"{", embedded("binary")), 400, 400)
            self.told(caller.produce(stand.topic, {"value": b64(b"a")}, {"value": "no base64"}, format="binary"), 400, 400)
            self.told(caller.produce(stand.topic, {"value": 1}, format="text"), 400, 400)
            for schema in ("avro", "jsonschema", "protobuf"):
                self.told(caller.produce(stand.topic, {"value": 1}, format=schema), 422, 42205)
            self.told(caller.ask("POST", f"/topics/{stand.topic}", {"records": [{"value": 1}]}, "text/plain"), 415, 415)
            for topic in (other.topic, self.name()):
                self.told(caller.produce(topic, {"value": 1}), 404, 40401)

    def test_a_rate(self) -> None:
        """42901 with Retry-After, and nothing is stored."""
        stand = self.stand(rate={"messages_per_s": 1})
        caller = self.caller(stand)
        reply = caller.produce(stand.topic, {"value": 1}, {"value": 2})
        if reply.status == 200:  # one that is larger than the rate is taken whole, and the next waits
            reply = caller.produce(stand.topic, {"value": 3})
        self.told(reply, 429, 42901)
        self.assertTrue(int(reply.headers["retry-after"]) >= 1)

    def test_compressed(self) -> None:
        """gzip is undone."""
        stand = self.stand()
        body = gzip.compress(json.dumps({"records": [{"value": 1}]}).encode())
        lines = {"content-encoding": "gzip"}
        self.stored(self.caller(stand).ask("POST", f"/topics/{stand.topic}", body, embedded("json"), **lines), (0, 0))
