"""What a tenant sees and steers: its own, in full; nobody else's."""

import json
from typing import Any

from twisted.internet.defer import fail

from psubd.endpoints.tenant import full_name
from psubd.errors import NotFound, StorageUnavailable, TopicMissing
from psubd.model import TopicSpec
from psubd.services.partitioner import partition_of
from tests.endpoints.house import DataCase, Headers, Reply

P = partition_of(b"k", 3)


class TenantCase(DataCase):
    def get(self, path: str, query: str = "", headers: Headers | None = None) -> Reply:
        return self.ask("GET", path, self.shop.sub if headers is None else headers, query=query)

    def read(self, query: str = "timeout=0&batchSize=100") -> list[str]:
        reply = self.ask("GET", "/v1/sub", self.shop.sub, query=query)
        return [message["value"] for message in reply.json["messages"]] if reply.status == 200 else []

    def put(self, group: str, form: Any, headers: Headers | None = None, query: str = "") -> Reply:
        body = form if isinstance(form, bytes) else json.dumps(form).encode()
        return self.ask("PUT", f"/v1/groups/{group}/offsets", self.shop.sub if headers is None else headers, body, query)

    def lag(self, group: str) -> int:
        lag: int = self.get(f"/v1/groups/{group}").json["lag"]
        return lag


class WhoamiTests(TenantCase):
    def test_either_credential(self) -> None:
        """Who one is, and which credential was shown."""
        for headers, kind in ((self.shop.pub, "secret"), (self.shop.sub, "subkey"), ([("authorization", f"Bearer {self.shop.subkey}")], "subkey")):
            reply = self.get("/v1/whoami", headers=headers)
            self.assertEqual(reply.status, 200)
            self.assertEqual(
                {name: reply.json[name] for name in ("application", "name", "credential", "until")},
                {"application": "shop", "name": "Shop", "credential": kind, "until": None},
            )

    def test_bindings(self) -> None:
        """The bindings as the manager's PUT takes them; what psubd keeps for itself is not shown."""
        (binding,) = self.get("/v1/whoami").json["bindings"]
        self.assertEqual(
            (binding["topic"], binding["pub"], binding["sub"], binding["start"], binding["ack"]), ("orders", True, True, "earliest", "auto")
        )
        self.assertEqual({"mark", "serial", "version", "application"} & set(binding), set())

    def test_no_secret(self) -> None:
        """No key and no digest stands in it."""
        body = self.get("/v1/whoami").body.decode()
        for key in (self.shop.secret, self.shop.subkey, self.shop.pubkey):
            self.assertNotIn(key, body)

    def test_ending_key(self) -> None:
        """A key that was rotated with an overlap says when it ends."""
        self.wait(self.registrar.rotate("shop", "subkey", 60, "test", None))
        self.assertEqual(self.get("/v1/whoami").json["until"], self.clock.epoch_ms() + 60_000)
        self.clock.advance(60_001)
        self.refuses(self.get("/v1/whoami"), 401, "bad_credentials")

    def test_query(self) -> None:
        """There is none."""
        self.refuses(self.get("/v1/whoami", "x=1"), 400, "bad_parameter")


class TopicTests(TenantCase):
    def test_list(self) -> None:
        """Bound topics with their partitions' first and end offsets, with either credential."""
        self.publish("1", "2")
        partitions = [{"partition": number, "first": 0, "end": 2 if number == P else 0} for number in range(3)]
        expected = {"items": [{"topic": "orders", "pub": True, "sub": True, "partitions": partitions}], "next": None}
        for headers in (self.shop.pub, self.shop.sub):
            self.assertEqual(self.get("/v1/topics", headers=headers).json, expected)
        self.assertEqual(self.get("/v1/topics/orders").json, expected["items"][0])

    def test_pages(self) -> None:
        """Pages follow the names; what is bound in between changes nothing of the rest."""
        for name in ("a", "b", "c"):
            self.topic(name, "shop")
        first = self.get("/v1/topics", "limit=2").json
        self.assertEqual([item["topic"] for item in first["items"]], ["a", "b"])
        self.wait(self.registrar.delete_topic("a", False, False, "test", None))
        second = self.get("/v1/topics", f"limit=2&cursor={first['next']}").json
        self.assertEqual(([item["topic"] for item in second["items"]], second["next"]), (["c", "orders"], None))

    def test_page_parameters(self) -> None:
        """Against their range."""
        for query in ("limit=0", "limit=1001", "limit=x", "limit=1&limit=1", "offset=1"):
            self.refuses(self.get("/v1/topics", query), 400, "bad_parameter")

    def test_not_bound(self) -> None:
        """403 whether it exists or not."""
        answers = [self.refuses(self.get(f"/v1/topics/{topic}"), 403, "topic_not_bound").body for topic in ("secrets", "missing", "__x")]
        self.assertEqual(len(set(answers)), 1)

    def test_gone(self) -> None:
        """Bound, but gone from the storage, or another one under its name: 404, and told in the list."""
        for again in (False, True):
            self.wait(self.storage.delete_topic("orders"))
            if again:
                self.wait(self.storage.create_topic(TopicSpec(name="orders")))
            self.refuses(self.get("/v1/topics/orders"), 404, "topic_missing")
            self.assertIsNone(self.get("/v1/topics").json["items"][0]["partitions"])

    def test_storage_away(self) -> None:
        """A storage that is away is told; a topic that goes away between two questions is only missing."""
        self.patch(self.storage, "bounds", lambda topic: fail(TopicMissing("gone")))
        self.assertIsNone(self.get("/v1/topics").json["items"][0]["partitions"])
        self.patch(self.storage, "bounds", lambda topic: fail(StorageUnavailable("away")))
        self.refuses(self.get("/v1/topics"), 503, "storage_unavailable")


class GroupTests(TenantCase):
    def test_one(self) -> None:
        """Lag and the age of the oldest message, by partition and in sum; with either credential; no node."""
        self.publish("1", "2")
        self.clock.advance(500)
        for headers in (self.shop.pub, self.shop.sub):
            found = self.get("/v1/groups/shop", headers=headers).json
            self.assertEqual((found["group"], found["lag"], found["oldest_ms"]), ("shop", 2, 500))
            item = {"topic": "orders", "partition": P, "committed": 0, "end": 2, "lag": 2, "leased": 0, "oldest_ms": 500}
            self.assertEqual([line for line in found["items"] if line["partition"] == P], [item])
        self.read()
        self.assertEqual((self.lag("shop"), self.get("/v1/groups/shop").json["oldest_ms"]), (0, None))

    def test_names(self) -> None:
        """A group's full and its short name are the same one."""
        self.publish("1")
        self.read("timeout=0&group=g.1")
        self.assertEqual(self.get("/v1/groups/g.1").json, self.get("/v1/groups/shop.g.1").json)
        self.assertEqual(self.get("/v1/groups/g.1").json["group"], "shop.g.1")

    def test_full_name(self) -> None:
        """Whatever stands in the path, it is one of the application's own."""
        self.assertEqual(
            [full_name(name, "shop") for name in ("shop", "shop.g", "g", "other", "other.g", "shop.shop")],
            ["shop", "shop.g", "shop.g", "shop.other", "shop.other.g", "shop.shop"],
        )
        for name in ("shop.", "..", "__x", "a b", "shop.__x", "a" * 201):
            self.assertRaises(NotFound, full_name, name, "shop")

    def test_list(self) -> None:
        """All of the application's, in pages, and nobody else's."""
        for group in ("b", "a"):
            self.read(f"timeout=0&group={group}")
        self.ask("GET", "/v1/sub", self.other.sub, query="timeout=0&group=theirs")
        first = self.get("/v1/groups", "limit=2").json
        second = self.get("/v1/groups", f"limit=2&cursor={first['next']}").json
        self.assertEqual([item["group"] for item in first["items"] + second["items"]], ["shop", "shop.a", "shop.b"])
        self.assertIsNone(second["next"])

    def test_unknown(self) -> None:
        """A group that is not there, and another tenant's, are one answer."""
        self.ask("GET", "/v1/sub", self.other.sub, query="timeout=0&group=theirs")
        for group in ("nothing", "other", "other.theirs", "theirs", ".."):
            self.assertEqual(self.get(f"/v1/groups/{group}").status, 404)

    def test_delete(self) -> None:
        """Deleted with its cursors; the next read begins anew."""
        self.publish("1")
        self.assertEqual(self.read("timeout=0&group=g"), ["1"])
        reply = self.ask("DELETE", "/v1/groups/g", self.shop.sub)
        self.assertEqual((reply.status, reply.body), (204, b""))
        self.assertEqual(self.get("/v1/groups/g").status, 404)
        self.assertEqual(self.read("timeout=0&group=g"), ["1"])

    def test_delete_refused(self) -> None:
        """With the secret 401, not one's own 404; nothing is deleted."""
        self.ask("GET", "/v1/sub", self.other.sub, query="timeout=0&group=theirs")
        self.read("timeout=0&group=g")
        self.refuses(self.ask("DELETE", "/v1/groups/g", self.shop.pub), 401, "bad_credentials")
        for group in ("theirs", "other.theirs", "other"):
            self.assertEqual(self.ask("DELETE", f"/v1/groups/{group}", self.shop.sub).status, 404)
        self.assertEqual(self.ask("DELETE", "/v1/groups/g", self.shop.sub, query="force=true").status, 400)
        self.assertEqual(len(self.get("/v1/groups").json["items"]), 2)
        self.assertEqual(len(self.get("/v1/groups", headers=self.other.sub).json["items"]), 2)


class ResetTests(TenantCase):
    def test_everywhere(self) -> None:
        """To an end, to a time, to offsets; the answer says where; the next read begins there."""
        self.publish("1")
        self.clock.advance(1000)
        later = self.clock.epoch_ms()
        self.publish("2", "3")
        for to, offset, values in (
            ("earliest", 0, ["1", "2", "3"]),
            ({"timestamp": later}, 1, ["2", "3"]),
            ({"offsets": {str(P): 2}}, 2, ["3"]),
            ("latest", 3, []),
        ):
            reply = self.put("shop", {"topic": "orders", "partitions": [P], "to": to})
            self.assertEqual((reply.status, reply.json), (200, {"offsets": {str(P): offset}}))
            self.assertEqual(self.read(), values)

    def test_all_partitions(self) -> None:
        """Without partitions all of them."""
        self.assertEqual(self.put("g", {"topic": "orders", "to": "earliest"}).json, {"offsets": {"0": 0, "1": 0, "2": 0}})

    def test_before_the_first_read(self) -> None:
        """A group that nobody has read begins where it was put."""
        self.publish("1", "2")
        self.put("g", {"topic": "orders", "to": {"offsets": {str(P): 1}}})
        self.assertEqual(self.read("timeout=0&group=g"), ["2"])

    def test_dry_run(self) -> None:
        """``dry_run=true`` says where it would go and changes nothing."""
        self.publish("1")
        self.read()
        reply = self.put("shop", {"topic": "orders", "partitions": [P], "to": "earliest"}, query="dry_run=true")
        self.assertEqual(reply.json, {"offsets": {str(P): 0}})
        self.assertEqual(self.lag("shop"), 0)
        self.assertEqual(self.put("shop", {"topic": "orders", "to": "earliest"}, query="dry_run=false").status, 200)
        self.assertEqual(self.lag("shop"), 1)

    def test_refused(self) -> None:
        """Everything that is malformed, not bound or not one's own; the cursor stays."""
        self.publish("1")
        self.read()
        good = {"topic": "orders", "to": "earliest"}
        self.refuses(self.put("shop", good, self.shop.pub), 401, "bad_credentials")
        self.refuses(self.put("shop", good, []), 401, "bad_credentials")
        for topic in ("secrets", "missing"):
            self.refuses(self.put("shop", {**good, "topic": topic}), 403, "topic_not_bound")
        for query in ("dry_run=1", "dry_run=", "x=1", "dry_run=true&dry_run=true"):
            self.refuses(self.put("shop", good, query=query), 400, "bad_parameter")
        self.refuses(self.put("shop", good, [*self.shop.sub, ("content-type", "text/plain")]), 415, "unsupported_media_type")
        bodies: list[Any] = [
            b"",
            b"{",
            {},
            {"topic": "orders"},
            {**good, "to": "first"},
            {**good, "to": {}},
            {**good, "to": {"timestamp": 1, "offsets": {"0": 0}}},
            {**good, "to": {"timestamp": -1}},
            {**good, "to": {"offsets": {}}},
            {**good, "to": {"offsets": {"x": 0}}},
            {**good, "to": {"offsets": {"0": -1}}},
            {**good, "partitions": []},
            {**good, "partitions": [-1]},
            {**good, "colour": 1},
        ]
        for body in bodies:
            self.refuses(self.put("shop", body), 400, "bad_body")
        for form in (
            {**good, "partitions": [3]},
            {**good, "to": {"offsets": {"3": 0}}},
            {**good, "to": {"offsets": {str(P): 2}}},
            {**good, "partitions": [0], "to": {"offsets": {"1": 0}}},
        ):
            self.refuses(self.put("shop", form), 400, "bad_parameter")
        self.assertEqual(self.put("..", good).status, 404)
        self.assertEqual(self.lag("shop"), 0)

    def test_another_tenants(self) -> None:
        """A path that names another tenant's group is one's own group of that name; theirs stays."""
        self.bind("other", "orders")
        self.publish("1")
        self.ask("GET", "/v1/sub", self.other.sub, query="timeout=0&topic=orders")
        self.assertEqual(self.put("other", {"topic": "orders", "to": "earliest"}).status, 200)
        self.assertEqual(self.get("/v1/groups/other", headers=self.other.sub).json["lag"], 0)
        self.assertIn("shop.other", [item["group"] for item in self.get("/v1/groups").json["items"]])

    def test_without_replay(self) -> None:
        """A binding without replay lets the cursor go forward only: what lies before it is out of reach."""
        self.publish("1", "2", "3")
        self.read()
        self.bind("shop", "orders", replay=False)
        for to in ("earliest", {"offsets": {str(P): 2}}, {"timestamp": 0}):
            self.refuses(self.put("shop", {"topic": "orders", "partitions": [P], "to": to}), 403, "topic_not_bound")
            self.refuses(self.put("new", {"topic": "orders", "partitions": [P], "to": to}), 403, "topic_not_bound")
        self.assertEqual((self.lag("shop"), len(self.get("/v1/groups").json["items"])), (0, 1))
        self.publish("4", "5")
        self.assertEqual(self.put("shop", {"topic": "orders", "to": {"offsets": {str(P): 4}}}).status, 200)
        self.assertEqual(self.read(), ["5"])
        self.publish("6")
        self.assertEqual(self.put("shop", {"topic": "orders", "to": "latest"}).status, 200)
        self.assertEqual(self.lag("shop"), 0)

    def test_audited(self) -> None:
        """The registry's history says who did it, without a key."""
        self.put("g", {"topic": "orders", "to": "earliest"})
        actor = self.registry.history(0)[-1].actor
        self.assertEqual(actor, "application shop from 127.0.0.1")
