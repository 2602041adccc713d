"""Instances: made, subscribed, assigned, moved, left."""

from typing import Any

from psubd.endpoints.confluent.faults import BadFetch, BadInstance, Incomplete, NoSchemas
from psubd.errors import (
    BadBody,
    BadCredentials,
    BadParameter,
    IllegalState,
    InstanceExists,
    InstanceMissing,
    NotAcceptable,
    PartitionMissing,
    TopicNotBound,
    UnsupportedMediaType,
)
from psubd.model import InstanceSpec, Wish
from tests.endpoints.confluent.instance_house import ONE, V1, V2, InstanceCase
from tests.endpoints.house import Reply


class CreatingTests(InstanceCase):
    def spec(self, id: str = "a", group: str = "shop.g") -> InstanceSpec:
        spec: InstanceSpec = self.wait(self.consumers.look(self.shown(), group, id)).spec
        return spec

    def create(self, body: Any = None, type: str | None = V2, **more: Any) -> Reply:
        return self.call("POST", "/consumers/g", body, type, **more)

    def test_without_a_body(self) -> None:
        """Of the second version with its defaults, under an id of ours; the answer says where it is."""
        reply = self.create(None, None)
        self.assertEqual((reply.status, reply.header("content-type")), (200, V2))
        id = reply.json["instance_id"]
        self.assertEqual(reply.json, {"instance_id": id, "base_uri": f"http://proxy/consumers/g/instances/{id}"})
        self.assertTrue(id.startswith("rest-consumer-"))
        spec = self.spec(id)
        self.assertEqual((spec.dialect, spec.format, spec.reset, spec.auto_commit), (2, "binary", "latest", True))
        self.assertEqual((spec.min_bytes, spec.timeout_ms, spec.wish), (1, 1_000, Wish()))
        self.assertNotEqual(self.create(b"{}").json["instance_id"], id)

    def test_the_first_version(self) -> None:
        """By the type of the body, or by accept where there is none: it does not commit by itself."""
        for type, accept in ((V1, None), (None, f"{V1}, application/json"), ("application/vnd.kafka+json", None)):
            reply = self.create({"name": "a"} if type else None, type, accept=accept)
            self.assertEqual((reply.status, reply.header("content-type")), (200, V1))
            spec = self.spec(reply.json["instance_id"])
            self.assertEqual((spec.dialect, spec.reset, spec.auto_commit), (1, "latest", False))
            self.call("DELETE", f"/consumers/g/instances/{reply.json['instance_id']}", None, None)

    def test_settings(self) -> None:
        """Numbers and booleans also as strings, both names of each setting, members that nobody knows."""
        settings = {"format": "JSON", "auto.offset.reset": "smallest", "enable.auto.commit": "false", "fetch.min.bytes": "7", "x": [1]}
        self.assertEqual(self.create({"id": "a", "name": "other", "consumer.request.timeout.ms": "50", **settings}).json["instance_id"], "a")
        spec = self.spec()
        self.assertEqual((spec.format, spec.reset, spec.auto_commit, spec.min_bytes, spec.timeout_ms), ("json", "earliest", False, 7, 50))
        self.create(
            {"name": "b", "format": "text", "auto.offset.reset": "none", "auto.commit.enable": False, "responseMinBytes": -1, "requestWaitMs": 10**6}
        )
        spec = self.spec("b")
        self.assertEqual((spec.format, spec.reset, spec.auto_commit, spec.min_bytes, spec.timeout_ms), ("text", None, False, 1, 60_000))

    def test_settings_that_are_none(self) -> None:
        """Each is told, and no instance is there."""
        for error, members in (
            (BadInstance, {"format": "xml"}),
            (BadInstance, {"format": 1}),
            (NoSchemas, {"format": "avro"}),
            (NoSchemas, {"format": "protobuf"}),
            (BadInstance, {"auto.offset.reset": "middle"}),
            (BadInstance, {"auto.commit.enable": "yes"}),
            (BadFetch, {"fetch.min.bytes": 10_000_001}),
            (BadFetch, {"fetch.min.bytes": "-2"}),
            (BadFetch, {"responseMinBytes": True}),
            (BadInstance, {"consumer.request.timeout.ms": -1}),
            (BadInstance, {"requestWaitMs": "soon"}),
            (BadInstance, {"id": "a/b"}),
            (BadInstance, {"id": ".."}),
            (BadInstance, {"id": "x" * 201}),
            (BadInstance, {"id": 5}),
        ):
            self.fails(error, self.create({"name": "a", **members}))
        self.fails(InstanceMissing, self.call("GET", f"{ONE}/subscription"))

    def test_bodies_that_are_none(self) -> None:
        """What is no JSON object is BadBody; a type that is not ours is refused, a schema's by its own number."""
        for body in (b"{", b"[]", b'"a"'):
            self.fails(BadBody, self.create(body))
        self.fails(UnsupportedMediaType, self.create({}, "text/plain"))
        self.fails(NoSchemas, self.create({}, "application/vnd.kafka.avro.v2+json"))
        self.assertEqual(self.create({}, "application/vnd.kafka.json.v2+json; charset=utf-8").status, 200)

    def test_accept(self) -> None:
        """Plain JSON is answered as such; what is not given makes no instance."""
        self.assertEqual(self.create({}, accept="application/json").header("content-type"), "application/json")
        self.fails(NotAcceptable, self.create({"name": "a"}, accept="text/html"))
        self.fails(InstanceMissing, self.call("GET", f"{ONE}/subscription"))

    def test_an_id_that_is_there(self) -> None:
        self.create({"name": "a"})
        self.fails(InstanceExists, self.create({"name": "a"}))

    def test_names_in_the_path(self) -> None:
        """Any name that ?group= takes, the application's id too; what a group cannot be called is refused; ids are encoded in base_uri."""
        self.assertEqual(self.call("POST", "/consumers/shop", {"name": "a"}).status, 200)
        self.spec("a", "shop.shop")
        self.fails(BadParameter, self.call("POST", "/consumers/a b", {}))
        self.assertEqual(self.create({"name": "a b?"}).json["base_uri"], "http://proxy/consumers/g/instances/a%20b%3F")

    def test_strangers(self) -> None:
        """Without credentials to subscribe there is nothing on any route."""
        for route in self.routes:
            path = route.path.format(group="g", instance="a", topic="orders")
            self.fails(BadCredentials, self.ask(route.method, path))
            self.fails(BadCredentials, self.ask(route.method, path, self.shop.pub))


class ChoosingTests(InstanceCase):
    def test_subscribe_look_unsubscribe(self) -> None:
        self.made()
        self.assertEqual(self.call("GET", f"{ONE}/subscription", None, None).json, {"topics": []})
        self.assertEqual(self.call("POST", f"{ONE}/subscription", {"topics": ["orders"], "topic_pattern": None}).status, 204)
        self.assertEqual(self.call("GET", f"{ONE}/subscription", None, None).json, {"topics": ["orders"]})
        self.assertEqual(len(self.call("GET", f"{ONE}/assignments", None, None).json["partitions"]), 3)
        reply = self.call("DELETE", f"{ONE}/subscription", None, None)
        self.assertEqual((reply.status, reply.body), (204, b""))
        self.assertEqual(self.call("GET", f"{ONE}/subscription", None, None).json, {"topics": []})

    def test_a_pattern(self) -> None:
        self.made()
        self.assertEqual(self.call("POST", f"{ONE}/subscription", {"topic_pattern": "ord.*"}).status, 204)
        self.assertEqual(self.call("GET", f"{ONE}/subscription", None, None).json, {"topics": ["orders"]})
        self.fails(BadParameter, self.call("POST", f"{ONE}/subscription", {"topic_pattern": "("}))

    def test_what_is_no_subscription(self) -> None:
        self.made()
        path = f"{ONE}/subscription"
        self.fails(IllegalState, self.call("POST", path, {"topics": ["orders"], "topic_pattern": "o.*"}))
        self.fails(Incomplete, self.call("POST", path, {}))
        self.fails(Incomplete, self.call("POST", path, b" "))
        self.fails(BadBody, self.call("POST", path, {"topics": "orders"}))
        self.fails(TopicNotBound, self.call("POST", path, {"topics": ["secrets"]}))
        self.fails(UnsupportedMediaType, self.call("POST", path, {"topics": ["orders"]}, "text/plain"))
        self.assertEqual(self.call("GET", path, None, None).json, {"topics": []})

    def test_by_hand(self) -> None:
        """Partitions, numbers as strings too; they are no subscription."""
        self.made()
        places = [{"topic": "orders", "partition": "0"}, {"topic": "orders", "partition": 2}]
        self.assertEqual(self.call("POST", f"{ONE}/assignments", {"partitions": places}).status, 204)
        expected = [{"topic": "orders", "partition": 0}, {"topic": "orders", "partition": 2}]
        self.assertEqual(self.call("GET", f"{ONE}/assignments", None, None).json, {"partitions": expected})
        self.assertEqual(self.call("GET", f"{ONE}/subscription", None, None).json, {"topics": []})
        self.fails(IllegalState, self.call("POST", f"{ONE}/subscription", {"topics": ["orders"]}))
        self.fails(PartitionMissing, self.call("POST", f"{ONE}/assignments", {"partitions": [{"topic": "orders", "partition": 3}]}))
        self.fails(Incomplete, self.call("POST", f"{ONE}/assignments", {"partitions": None}))
        self.fails(BadBody, self.call("POST", f"{ONE}/assignments", {"partitions": [{"topic": "orders"}]}))
        self.fails(BadBody, self.call("POST", f"{ONE}/assignments", {"partitions": [{"topic": "orders", "partition": -1}]}))
        self.assertEqual(self.call("POST", f"{ONE}/assignments", {"partitions": []}).status, 204)
        self.assertEqual(self.call("GET", f"{ONE}/assignments", None, None).json, {"partitions": []})

    def test_leave(self) -> None:
        self.made()
        self.assertEqual(self.call("DELETE", ONE, None, None).status, 204)
        self.fails(InstanceMissing, self.call("DELETE", ONE, None, None))


class SeekingTests(InstanceCase):
    def setUp(self) -> None:
        super().setUp()
        self.stores(b"0", b"1", b"2")
        self.made("a", "orders")

    def offsets(self) -> list[int]:
        return [record["offset"] for record in self.records()]

    def seek(self, body: Any, tail: str = "") -> Reply:
        return self.call("POST", f"{ONE}/positions{tail}", body)

    def test_offsets_and_ends(self) -> None:
        at = {"topic": "orders", "partition": 0}
        self.assertEqual(self.seek({"offsets": [{**at, "offset": "1", "metadata": "m"}]}).status, 204)
        self.assertEqual(self.offsets(), [1, 2])
        self.assertEqual(self.seek({"partitions": [at]}, "/beginning").status, 204)
        self.assertEqual(self.offsets(), [0, 1, 2])
        self.seek({"partitions": [at]}, "/beginning")
        self.assertEqual(self.seek({"partitions": [at]}, "/end").status, 204)
        self.assertEqual(self.offsets(), [])

    def test_times(self) -> None:
        """ISO 8601, seconds, milliseconds."""
        at = {"topic": "orders", "partition": 0}
        for said in ("2023-11-14T22:13:20Z", 1_700_000_000, 1_700_000_000.0, "1700000000000", 1_700_000_000_000):
            self.assertEqual(self.seek({"timestamps": [{**at, "timestamp": said}]}).status, 204, said)
            self.assertEqual((said, self.offsets()), (said, [0, 1, 2]))
        self.seek({"offsets": [{**at, "offset": 1}], "timestamps": [{"topic": "orders", "partition": 1, "timestamp": 0}]})
        self.assertEqual(self.offsets(), [1, 2])
        for said in ("yesterday", -1, "1e400", 1e300):
            self.fails(BadBody, self.seek({"timestamps": [{**at, "timestamp": said}]}))

    def test_what_is_nowhere(self) -> None:
        self.fails(Incomplete, self.seek({}))
        self.fails(Incomplete, self.seek({}, "/beginning"))
        self.fails(PartitionMissing, self.seek({"offsets": [{"topic": "orders", "partition": 3, "offset": 0}]}))
        self.fails(BadBody, self.seek({"offsets": [{"topic": "orders", "partition": 0, "offset": "x"}]}))
        self.made("b")
        aims = {"offsets": [{"topic": "orders", "partition": 0, "offset": 0}]}
        self.fails(IllegalState, self.call("POST", "/consumers/g/instances/b/positions", aims))
