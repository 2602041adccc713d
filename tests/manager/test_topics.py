from twisted.internet.defer import fail

from psubd.errors import StorageUnavailable
from psubd.model import Record, TopicSpec
from tests.manager.house import ManagerCase

LIST = "/api/v1/topics"


class TopicTests(ManagerCase):
    def setUp(self) -> None:
        super().setUp()
        self.application()

    def test_defaults(self) -> None:
        """A topic is made with the contract's defaults, owned and bound for publishing; the storage has it."""
        reply = self.ok("POST", LIST, {"id": "orders", "owner": "shop"}, 201)
        made = reply.json
        self.assertEqual((reply.headers["location"], reply.headers["etag"]), (f"{LIST}/orders", f'"{self.registry.snapshot().serial}"'))
        self.assertEqual((made["owner"], made["partitions"], made["retention_ms"], made["retention_bytes"]), ("shop", 1, 604_800_000, None))
        self.assertEqual((made["cleanup"], made["elastic"], made["adopted"]), ("delete", None, False))
        self.assertEqual(made["version"], self.registry.snapshot().serial)
        self.assertEqual((made["storage"]["name"], made["storage"]["partitions"], made["storage_trouble"]), ("orders", 1, None))
        self.assertTrue(self.ok("GET", "/api/v1/bindings/shop/orders").json["pub"])

    def test_settings(self) -> None:
        """What is given is what it gets."""
        made = self.topic(partitions=6, retention_ms=None, retention_bytes=10**9, cleanup="compact", elastic={"max_partitions": 12})
        self.assertEqual((made["partitions"], made["retention_ms"], made["retention_bytes"], made["cleanup"]), (6, None, 10**9, "compact"))
        self.assertEqual(made["elastic"], {"max_partitions": 12})
        self.assertEqual(made["storage"]["retention_bytes"], 10**9)

    def test_adopted(self) -> None:
        """One that the storage has is adopted as it is there, unless other partitions were asked for."""
        self.wait(self.storage.create_topic(TopicSpec("orders", 3)))
        self.refused(409, "exists", "POST", LIST, {"id": "orders", "owner": "shop", "partitions": 4})
        made = self.topic()
        self.assertEqual((made["adopted"], made["partitions"]), (True, 3))

    def test_refusals(self) -> None:
        """An owner that is not there, an id twice, and every member out of its range."""
        self.assertIn(self.call("POST", LIST, {"id": "orders", "owner": "none"}).status, (400, 404))
        self.topic()
        self.refused(409, "exists", "POST", LIST, {"id": "orders", "owner": "shop"})
        for member, value in (
            ("id", "__x"),
            ("id", ".."),
            ("id", "a/b"),
            ("id", "x" * 201),
            ("owner", "a.b"),
            ("partitions", 0),
            ("partitions", -1),
            ("partitions", 10_001),
            ("partitions", "1"),
            ("partitions", 1.5),
            ("partitions", None),
            ("partitions", True),
            ("replication", 0),
            ("retention_ms", 0),
            ("retention_ms", 10**20),
            ("retention_bytes", -1),
            ("cleanup", "both"),
            ("elastic", {}),
            ("elastic", {"max_partitions": 0}),
            ("elastic", {"max_partitions": 2, "min": 1}),
            ("config", {"x": 1}),
            ("config", {"": "x"}),
            ("config", []),
        ):
            reply = self.refused(400, "bad_body", "POST", LIST, {"id": "new", "owner": "shop", member: value})
            self.assertIn(f"$.{member}", reply.json["detail"])
        self.assertEqual(self.wait(self.storage.describe(["new"])), {})

    def test_list(self) -> None:
        """Topics come in pages, each as the storage has it now."""
        self.assertEqual(self.ok("GET", LIST).json, {"items": [], "next": None})
        for n in range(5):
            self.topic(f"t{n}")
        first = self.ok("GET", LIST, query="limit=3").json
        second = self.ok("GET", LIST, query=f"limit=3&cursor={first['next']}").json
        self.assertEqual([item["id"] for item in first["items"] + second["items"]], ["t0", "t1", "t2", "t3", "t4"])
        self.assertEqual([item["storage"]["name"] for item in first["items"]], ["t0", "t1", "t2"])
        self.assertIsNone(second["next"])

    def test_storage_away(self) -> None:
        """With the storage away the registered state is shown, and why the rest is not; nothing is made."""
        self.topic()
        self.storage.describe = lambda topics: fail(StorageUnavailable("the disk is gone"))  # type: ignore[method-assign]
        shown = self.ok("GET", f"{LIST}/orders").json
        self.assertEqual((shown["storage"], shown["storage_trouble"]), (None, "the disk is gone"))
        self.assertEqual(self.ok("GET", LIST).json["items"], [shown])

    def test_gone_from_storage(self) -> None:
        """One that is gone from the storage says so."""
        self.topic()
        self.wait(self.storage.delete_topic("orders"))
        shown = self.ok("GET", f"{LIST}/orders").json
        self.assertEqual((shown["storage"], shown["storage_trouble"]), (None, "gone from the storage"))

    def test_unknown(self) -> None:
        """404 for what is not registered, with every method."""
        for method in ("GET", "DELETE"):
            self.refused(404, "no_such_route", method, f"{LIST}/none")
        self.refused(404, "no_such_route", "PATCH", f"{LIST}/none", {"partitions": 2})


class ChangeTests(ManagerCase):
    def setUp(self) -> None:
        super().setUp()
        self.application()
        self.topic(partitions=2)

    def test_grow(self) -> None:
        """Partitions can be added, in the storage too; never taken away."""
        reply = self.ok("PATCH", f"{LIST}/orders", {"partitions": 4})
        self.assertEqual(
            (reply.json["partitions"], reply.json["storage"]["partitions"], reply.headers["etag"]), (4, 4, f'"{self.registry.snapshot().serial}"')
        )
        self.refused(400, "bad_body", "PATCH", f"{LIST}/orders", {"partitions": 3})

    def test_parts(self) -> None:
        """What is absent stays; null takes a bound away."""
        changed = self.ok("PATCH", f"{LIST}/orders", {"retention_ms": None, "elastic": {"max_partitions": 9}}).json
        self.assertEqual((changed["retention_ms"], changed["elastic"], changed["partitions"]), (None, {"max_partitions": 9}, 2))
        changed = self.ok("PATCH", f"{LIST}/orders", {"retention_bytes": 10**6, "elastic": None}).json
        self.assertEqual((changed["retention_bytes"], changed["elastic"], changed["retention_ms"]), (10**6, None, None))
        self.assertIsNone(changed["storage"]["retention_ms"])

    def test_refusals(self) -> None:
        """What cannot be changed, is out of range or of another kind."""
        for body in (
            {"cleanup": "compact"},
            {"id": "x"},
            {"owner": "x"},
            {"partitions": 0},
            {"partitions": None},
            {"retention_ms": -1},
            {"elastic": 3},
        ):
            self.refused(400, "bad_body", "PATCH", f"{LIST}/orders", body)

    def test_if_match(self) -> None:
        """A change on a version that somebody changed is refused."""
        seen = {"if-match": self.ok("GET", f"{LIST}/orders").headers["etag"]}
        self.ok("PATCH", f"{LIST}/orders", {"retention_bytes": 5 * 10**6}, headers=seen)
        self.refused(412, "version_mismatch", "PATCH", f"{LIST}/orders", {"partitions": 9}, headers=seen)
        self.refused(412, "version_mismatch", "DELETE", f"{LIST}/orders", headers=seen)


class DeletionTests(ManagerCase):
    def setUp(self) -> None:
        super().setUp()
        self.application()
        self.application("mail")
        self.topic()

    def test_alone(self) -> None:
        """A topic that its owner alone is bound to goes, with its data."""
        self.ok("DELETE", f"{LIST}/orders", status=204)
        self.refused(404, "no_such_route", "GET", f"{LIST}/orders")
        self.assertEqual(self.wait(self.storage.describe(["orders"])), {})
        self.assertEqual(self.ok("GET", "/api/v1/bindings").json["items"], [])

    def test_in_use(self) -> None:
        """One that another application is bound to stays, but with force."""
        self.bind("mail", sub=True)
        self.refused(409, "in_use", "DELETE", f"{LIST}/orders")
        self.ok("DELETE", f"{LIST}/orders", status=204, query="force=true")
        self.refused(404, "no_such_route", "GET", "/api/v1/bindings/mail/orders")

    def test_dead_letters(self) -> None:
        """One that a binding names for its dead letters stays."""
        self.topic("dead")
        self.bind("mail", sub=True, max_attempts=3, dead_letter="dead")
        self.refused(409, "in_use", "DELETE", f"{LIST}/dead")

    def test_adopted(self) -> None:
        """An adopted one is forgotten and its data stays, unless that is said."""
        self.wait(self.storage.create_topic(TopicSpec("old")))
        self.topic("old")
        self.ok("DELETE", f"{LIST}/old", status=204)
        self.assertIn("old", self.wait(self.storage.describe(["old"])))
        self.topic("old")
        self.ok("DELETE", f"{LIST}/old", status=204, query="data=true")
        self.assertEqual(self.wait(self.storage.describe(["old"])), {})


class PeekTests(ManagerCase):
    PATH = "/api/v1/topics/orders/messages"

    def setUp(self) -> None:
        super().setUp()
        self.application()
        self.topic(partitions=2)

    def publish(self, *values: bytes | None, **members: object) -> None:
        records = [Record("orders", value, partition=1, timestamp=5, **members) for value in values]  # type: ignore[arg-type]
        self.wait(self.storage.publish(records, "all"))

    def test_messages(self) -> None:
        """Messages are shown as a subscriber gets them, with where to go on and the log's bounds."""
        self.publish(b"one", key=b"k", headers=(("a", b"1"), ("a", b"\xff"), ("b", None)))
        self.publish(b"\xff\xfe", None)
        look = self.ok("GET", self.PATH, query="partition=1").json
        self.assertEqual(
            look["items"][0],
            {
                "topic": "orders",
                "partition": 1,
                "offset": 0,
                "timestamp": 5,
                "key": "k",
                "value": "one",
                "encoding": "utf-8",
                "headers": {"a": ["1", {"base64": "/w=="}], "b": None},
            },
        )
        self.assertEqual([(item["value"], item["encoding"]) for item in look["items"][1:]], [("//4=", "base64"), (None, "utf-8")])
        self.assertEqual((look["next"], look["first"], look["end"]), (3, 0, 3))
        self.assertEqual(self.ok("GET", self.PATH).json["items"], [])

    def test_bounds(self) -> None:
        """At most so many, and 1 MiB of payload; from the offset that is named."""
        self.publish(*[b"x" * 300_000] * 6)
        self.assertEqual(len(self.ok("GET", self.PATH, query="partition=1").json["items"]), 3)
        look = self.ok("GET", self.PATH, query="partition=1&offset=4&limit=1").json
        self.assertEqual(([item["offset"] for item in look["items"]], look["next"]), ([4], 5))
        self.assertEqual(self.ok("GET", self.PATH, query="partition=1&offset=6").json["items"], [])

    def test_refusals(self) -> None:
        """Numbers that are none, a partition that is not there, an offset past the end, a topic that is not registered."""
        for query in ("partition=-1", "partition=x", "offset=-1", "offset=latest", "offset=9999999999999999999", "limit=0", "limit=1001", "cursor=x"):
            self.refused(400, "bad_parameter", "GET", self.PATH, query=query)
        self.wait(self.storage.create_topic(TopicSpec("hidden")))
        self.refused(404, "no_such_route", "GET", "/api/v1/topics/hidden/messages")
        self.assertIn("0 to 1", self.call("GET", self.PATH, query="partition=9").json["detail"])
        self.assertEqual(self.call("GET", self.PATH, query="partition=9").code, "bad_parameter")
        self.assertEqual(self.call("GET", self.PATH, query="partition=1&offset=1").code, "offset_out_of_range")

    def test_audited(self) -> None:
        """Who looked, and where, is in the events; nothing registered changes."""
        self.publish(b"one")
        version = self.ok("GET", "/api/v1/topics/orders").json["version"]
        self.ok("GET", self.PATH, query="partition=1&offset=0&limit=7", client="10.1.2.3")
        event = self.ok("GET", "/api/v1/events", headers={"accept": "application/json"}).json["items"][0]
        self.assertEqual(event["actor"], "token root from 10.1.2.3")
        self.assertEqual(event["what"], "topic.peeked orders partition 1 from offset 0, at most 7")
        self.assertEqual(event["paths"], [])
        self.assertEqual(self.ok("GET", "/api/v1/topics/orders").json["version"], version)

    def test_events(self) -> None:
        """A look is told to who listens now, and once to who comes back; changes and looks keep their order."""
        outlet = self.stream()
        self.ok("GET", self.PATH)
        self.ok("GET", self.PATH)
        self.application("other")
        self.ok("GET", self.PATH)
        kinds = ["topic.peeked", "topic.peeked", "application.created", "topic.peeked"]
        self.assertEqual([event["event"] for event in outlet.events()], kinds)
        for seen in range(4):
            resumed = self.stream(headers={"last-event-id": outlet.events()[seen]["id"]})
            self.assertEqual(resumed.events(), outlet.events()[seen + 1 :])
        listed = self.ok("GET", "/api/v1/events", headers={"accept": "application/json"}, query="limit=2").json
        more = self.ok("GET", "/api/v1/events", headers={"accept": "application/json"}, query=f"limit=2&cursor={listed['next']}").json
        whats = [item["what"].split()[0] for item in listed["items"] + more["items"]]
        self.assertEqual(whats, kinds[::-1])
