"""Publishing as Confluent's clients do it."""

from psubd.endpoints.confluent.settings import ConfluentSettings
from psubd.model import Rate
from tests.endpoints.confluent.produce_house import PLAIN, ConfluentCase, b64, embedded


class ProduceTests(ConfluentCase):
    def produced(self, records, format="json", path="/topics/orders", **more):
        reply = self.call("POST", path, {"records": records}, more.pop("kind", embedded(format)), **more)
        self.assertEqual(reply.status, 200, reply.body)
        return reply

    def test_formats(self) -> None:
        """Binary is base64, text is text, JSON is kept as its bytes stood; null values are tombstones, null and absent keys none."""
        self.produced([{"key": b64("k"), "value": b64("v"), "partition": 0}], "binary")
        self.produced([{"key": "k", "value": "grün", "partition": 0}], "text")
        body = b'{"records": [{"key": 7, "value": {"a":  1.50 }, "partition": 0}, {"key": null, "value": null, "partition": 0}, {"partition": 0}]}'
        self.produced_raw(body)
        found = [(message.key, message.value) for message in self.stored()]
        self.assertEqual(found, [(b"k", b"v"), (b"k", "grün".encode()), (b"7", b'{"a":  1.50 }'), (None, None), (None, None)])

    def produced_raw(self, body):
        self.assertEqual(self.call("POST", "/topics/orders", body, embedded("json")).status, 200)

    def test_answer(self) -> None:
        """Each record has its place, in order, with Confluent's members; the answer's type is that of the version."""
        reply = self.produced([{"value": 1, "partition": 2}, {"value": 2, "partition": 2}])
        place = {"partition": 2, "error_code": None, "error": None}
        self.assertEqual(reply.json, {"offsets": [{**place, "offset": 0}, {**place, "offset": 1}], "key_schema_id": None, "value_schema_id": None})
        self.assertEqual(reply.header("content-type"), PLAIN)
        reply = self.produced([{"value": b64("x")}], kind=embedded("binary", 1))
        self.assertEqual(reply.header("content-type"), "application/vnd.kafka.v1+json")

    def test_what_the_body_is(self) -> None:
        """`application/json` is JSON; of the first version's client, and without a format, it is binary."""
        for kind, accept, value in (
            ("application/json", None, {"a": 1}),
            ("application/json", "application/vnd.kafka.v1+json", b64("x")),
            (PLAIN, None, b64("x")),
            ("application/vnd.kafka.v1+json", None, b64("x")),
            ("application/vnd.kafka+json", None, b64("x")),
            ("application/octet-stream", None, b64("x")),
        ):
            self.assertEqual(self.call("POST", "/topics/orders", {"records": [{"value": value}]}, kind, accept=accept).status, 200, kind)
        values = {message.value for message in self.stored()}
        self.assertEqual(values, {b'{"a": 1}', b"x"})

    def test_schemas(self) -> None:
        """Avro, JSON Schema and Protobuf: 42205, and nothing is published. Other types: 415."""
        for format in ("avro", "jsonschema", "protobuf"):
            self.told(self.call("POST", "/topics/orders", {"records": [{"value": 1}]}, embedded(format)), 422, 42205)
            reply = self.told(self.call("POST", "/topics/orders", {"records": [{"value": 1}]}, embedded(format, 1)), 422, 42205)
            self.assertEqual(reply.header("content-type"), "application/vnd.kafka.v1+json")
        self.told(self.call("POST", "/topics/orders", {"records": [{"value": 1}]}, "text/plain"), 415, 415)
        self.assertEqual(self.stored(), [])

    def test_headers_and_timestamps(self) -> None:
        """Strimzi's additions: record headers, repeats and nulls kept, and a timestamp."""
        headers = [{"key": "a", "value": b64("1")}, {"key": "a", "value": None}, {"key": "b", "value": b64("2")}]
        self.produced([{"value": 1, "headers": headers, "timestamp": 1_700_000_000_000}])
        [message] = self.stored()
        self.assertEqual((message.headers, message.timestamp), ((("a", b"1"), ("a", None), ("b", b"2")), 1_700_000_000_000))

    def test_partition(self) -> None:
        """The path's partition is for records that have none of their own; one that is not there is 40402, and nothing is published."""
        self.produced([{"value": 1}, {"value": 2, "partition": 0}], path="/topics/orders/partitions/1")
        self.assertEqual([message.value for message in self.stored()], [b"2", b"1"])
        for partition in ("3", "x", "-1", "99999999999", "\u0661"):
            self.told(self.call("POST", f"/topics/orders/partitions/{partition}", {"records": [{"value": 1}]}, embedded("json")), 404, 40402)
        self.assertEqual(len(self.stored()), 2)

    def test_one_refused_record(self) -> None:
        """A record that is refused for itself keeps none of the others from being stored, and says why in its place."""
        large = "x" * 1_100_000
        reply = self.produced([{"value": 1}, {"value": 2, "partition": 3}, {"value": large}, {"value": 3, "timestamp": 2**62}, {"value": 4}])
        codes = [place["error_code"] for place in reply.json["offsets"]]
        self.assertEqual(codes, [None, 40402, 413, 400, None])
        self.assertEqual([place["partition"] is None for place in reply.json["offsets"]], [False, True, True, True, False])
        self.assertEqual(sorted(message.value for message in self.stored()), [b"1", b"4"])

    def test_numbers_as_text(self) -> None:
        """Partition and timestamp may be text, as Confluent's clients write numbers; what is none is 422 and names it."""
        self.produced([{"value": 1, "partition": "2", "timestamp": "1700000000000"}])
        self.assertEqual(self.stored()[0].timestamp, 1_700_000_000_000)
        self.assertEqual(self.wait(self.storage.bounds("orders"))[2].end, 1)
        for name in ("partition", "timestamp"):
            for said in ("x", "", "-1", -1, 1.5, True, "9" * 30, 10**18 * 10):
                reply = self.told(self.call("POST", "/topics/orders", {"records": [{"value": 1, name: said}]}, embedded("json")), 422, 422)
                self.assertIn(name, reply.json["message"])

    def test_topic_that_is_gone(self) -> None:
        """It is gone for all records alike: 40401 for the request."""
        self.wait(self.storage.delete_topic("orders"))
        self.told(self.call("POST", "/topics/orders", {"records": [{"value": 1}, {"value": 2}]}, embedded("json")), 404, 40401)

    def test_large_values_are_not_looked_into(self) -> None:
        """JSON that is too large to be stored is refused for that, however it nests: counting its brackets would keep the others waiting."""
        deep = b"[" * 100 + b"]" * 100
        body = b'{"records": [{"value": [%b]}, {"value": 1}]}' % b",".join([deep] * 10_000)
        reply = self.call("POST", "/topics/orders", body, embedded("json"))
        self.assertEqual([place["error_code"] for place in reply.json["offsets"]], [413, None])
        self.told(self.call("POST", "/topics/orders", b'{"records": [{"value": %b}]}' % deep, embedded("json")), 400, 400)
        reply = self.call("POST", "/topics/orders", b'{"records": [{"key": [%b], "value": 1}]}' % b",".join([deep] * 10_000), embedded("json"))
        self.assertEqual([place["error_code"] for place in reply.json["offsets"]], [413])

    def test_bad_bodies(self) -> None:
        """What is no batch is refused as a whole, with the record's number, and nothing of it is published."""
        good = {"value": b64("x")}
        for document, status, number in (
            (b"", 400, 400),
            (b"{", 400, 400),
            ({}, 422, 422),
            ({"records": []}, 422, 422),
            ({"records": None}, 422, 422),
            ({"records": 1}, 422, 422),
            ({"records": [good, 1]}, 422, 422),
            ({"records": [good, {"value": "%%"}]}, 400, 400),
            ({"records": [good, {"value": 1}]}, 400, 400),
            ({"records": [good, {"value": "eA==", "partition": -1}]}, 422, 422),
            ({"records": [good, {"value": "eA==", "headers": [{"key": "psubd.x", "value": None}]}]}, 400, 400),
        ):
            reply = self.told(self.call("POST", "/topics/orders", document, embedded("binary")), status, number)
            if isinstance(document, dict) and len(document.get("records") or [] if isinstance(document.get("records"), list) else []) == 2:
                self.assertIn("record 1", reply.json["message"])
        self.told(self.call("POST", "/topics/orders", {"records": [good] * 10_001}, embedded("binary")), 413, 413)
        self.assertEqual(self.stored(), [])

    def test_who_may(self) -> None:
        """No credentials: 40101; a topic of somebody else and one that nobody has are alike: 40401; a rate: 42901."""
        record = {"records": [{"value": 1}]}
        self.told(self.call("POST", "/topics/orders", record, embedded("json"), headers=[]), 401, 40101)
        self.told(self.call("POST", "/topics/orders", record, embedded("json"), headers=[self.basic("shop", self.other.secret)]), 401, 40101)
        messages = [self.told(self.call("POST", f"/topics/{topic}", record, embedded("json")), 404, 40401) for topic in ("secrets", "nobodys")]
        self.assertEqual(*(reply.json["message"].replace("secrets", "nobodys") for reply in messages))
        self.bind("shop", "orders", rate=Rate(messages_per_s=1))
        self.produced([{"value": 1}])
        reply = self.told(self.call("POST", "/topics/orders", record, embedded("json")), 429, 42901)
        self.assertIsNotNone(reply.header("retry-after"))

    def test_query(self) -> None:
        """Parameters that nobody knows are passed over, as at Confluent's (Strimzi's `async`); credentials there are refused, and not repeated."""
        record = {"records": [{"value": 1}]}
        self.assertEqual(self.call("POST", "/topics/orders", record, embedded("json"), query="async=true").status, 200)
        reply = self.told(self.call("POST", "/topics/orders", record, embedded("json"), query="secret=ps_abc"), 400, 400)
        self.assertNotIn("ps_abc", reply.json["message"])


class SubModeTests(ConfluentCase):
    mode = "sub"

    def test_left_out(self) -> None:
        """A node that only subscribes publishes nothing and makes no topic, and shows topics all the same."""
        for path in ("/topics/orders", "/topics/orders/partitions/0"):
            self.told(self.call("POST", path, {"records": [{"value": 1}]}, embedded("json")), 404, 404)
        with self.assertRaisesRegex(AssertionError, "no route"):
            self.call("POST", "/admin/topics", {"name": "fresh"}, PLAIN)
        self.assertEqual(self.call("GET", "/topics").json, ["orders"])


class PubModeTests(ConfluentCase):
    mode = "pub"

    def test_left_out(self) -> None:
        """A node that only publishes reads nothing."""
        for method, path in (("POST", "/consumers/g"), ("GET", "/topics/orders/partitions/0/messages")):
            with self.assertRaisesRegex(AssertionError, "no route"):
                self.call(method, path, None if method == "GET" else {})


class AnonymousTests(ConfluentCase):
    settings = ConfluentSettings(anonymous="shop")

    def test_who_shows_nothing(self) -> None:
        """A request without any credential is the configured application's, to publish and to read; one that shows half a credential, or a wrong one,
        is refused as ever."""
        record = {"records": [{"value": 1}]}
        self.assertEqual(self.call("POST", "/topics/orders", record, embedded("json"), headers=[]).status, 200)
        self.assertEqual(self.call("GET", "/topics", headers=[]).json, ["orders"])
        self.assertEqual(self.call("POST", "/consumers/g", {"name": "i"}, headers=[("host", "psubd")]).status, 200)
        for shown in ([("pubkey", self.shop.pubkey)], [("authorization", "Basic !")], [("subkey", "sk_wrong")], [self.basic("shop", "ps_wrong")]):
            self.told(self.call("POST", "/topics/orders", record, embedded("json"), headers=shown), 401, 40101)
        self.told(self.call("POST", "/topics/secrets", record, embedded("json"), headers=[]), 404, 40401)

    def test_own_credentials(self) -> None:
        """Who shows credentials is who they say."""
        shown = [self.basic(self.other.pubkey, self.other.secret, self.other.subkey)]
        self.assertEqual(self.call("GET", "/topics", headers=shown).json, ["secrets"])

    def test_credentials_in_the_query(self) -> None:
        """Who shows a credential in the query is no guest: that is refused as ever, and not repeated."""
        record = {"records": [{"value": 1}]}
        for method, path, document in (("POST", "/topics/orders", record), ("GET", "/topics", None), ("POST", "/consumers/g", {})):
            reply = self.told(self.call(method, path, document, embedded("json"), query="subkey=sk_abc", headers=[("host", "psubd")]), 400, 400)
            self.assertNotIn("sk_abc", reply.json["message"])
        self.assertEqual(self.stored(), [])

    def test_elsewhere(self) -> None:
        """No other route lets anybody in."""
        self.told(self.call("POST", "/v1/pub/orders", b"x", headers=[]), 401, 40101)
        self.told(self.call("GET", "/v1/sub", headers=[]), 401, 40101)

    def test_no_such_application(self) -> None:
        """An application that is not there lets nobody in."""
        self.wait(self.registrar.delete_application("shop", True, "test", None))
        self.told(self.call("GET", "/topics", headers=[]), 401, 40101)
