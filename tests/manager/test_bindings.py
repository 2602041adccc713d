from typing import Any

from psubd.model import Record
from tests.manager.house import ManagerCase

LIST = "/api/v1/bindings"
ONE = f"{LIST}/mail/orders"
DEFAULTS: dict[str, Any] = {
    "application": "mail",
    "topic": "orders",
    "pub": False,
    "sub": True,
    "ack": "auto",
    "ack_timeout_ms": 30_000,
    "start": "latest",
    "replay": True,
    "ordered": False,
    "max_attempts": None,
    "dead_letter": None,
    "max_in_flight": 10_000,
    "backoff": {"min": 0, "max": 0},
    "rate": None,
}


class BindingTests(ManagerCase):
    def setUp(self) -> None:
        super().setUp()
        self.application()
        self.application("mail")
        self.topic()

    @property
    def serial(self) -> int:
        """Of the registry's last change: the version of what it wrote."""
        return self.registry.snapshot().serial

    def test_made(self) -> None:
        """The first PUT makes it, with the contract's defaults."""
        reply = self.ok("PUT", ONE, {"sub": True}, 201)
        made = {**DEFAULTS, "version": self.serial}
        self.assertEqual(reply.json, made)
        self.assertEqual((reply.headers["etag"], reply.headers["location"]), (f'"{self.serial}"', ONE))
        self.assertEqual(self.ok("GET", ONE).json, made)

    def test_replaced(self) -> None:
        """A later PUT replaces all settings: what is absent is the default again."""
        settings = {
            "pub": True,
            "sub": True,
            "ack": "auto",
            "ack_timeout_ms": 60_000,
            "start": "earliest",
            "replay": False,
            "max_in_flight": 5,
            "rate": {"messages_per_s": 100, "bytes_per_s": None, "burst_s": 2},
        }
        self.assertEqual(self.bind("mail", **settings), {**DEFAULTS, **settings, "version": self.serial})
        reply = self.ok("PUT", ONE, {"sub": True}, 200)
        self.assertEqual(reply.json, {**DEFAULTS, "version": self.serial})
        self.assertEqual(reply.headers["etag"], f'"{self.serial}"')
        self.assertNotIn("location", reply.headers)

    def test_backoff(self) -> None:
        """A backoff without an upper bound does not double."""
        self.assertEqual(self.bind("mail", sub=True, backoff={"min": 500})["backoff"], {"min": 500, "max": 500})
        self.assertEqual(self.bind("mail", status=200, sub=True, backoff={"min": 5, "max": 9})["backoff"], {"min": 5, "max": 9})

    def test_refusals(self) -> None:
        """Every member out of its range or unknown is refused, and named."""
        for member, value in (
            ("pub", 1),
            ("pub", "true"),
            ("sub", None),
            ("ack", "manual"),
            ("ack_timeout_ms", 999),
            ("ack_timeout_ms", 43_200_001),
            ("start", "now"),
            ("replay", "x"),
            ("ordered", 0),
            ("max_attempts", 0),
            ("dead_letter", "a/b"),
            ("max_in_flight", 0),
            ("backoff", 0),
            ("backoff", {"min": -1}),
            ("backoff", {"min": 2, "max": 1}),
            ("backoff", {"mni": 1}),
            ("rate", {"messages_per_s": 0}),
            ("rate", {"burst_s": 0}),
            ("rate", []),
            ("sbu", True),
            ("version", 1),
        ):
            reply = self.refused(400, "bad_body", "PUT", ONE, {"sub": True, member: value})
            self.assertIn(member, reply.json["detail"])

    def test_nothing_granted(self) -> None:
        """A binding that grants nothing is none."""
        for body in ({}, {"pub": False, "sub": False}):
            self.refused(400, "bad_body", "PUT", ONE, body)

    def test_dead_letters(self) -> None:
        """A bound of attempts needs a topic to put the message; that is registered, and another one."""
        self.refused(400, "bad_body", "PUT", ONE, {"sub": True, "max_attempts": 3})
        self.refused(400, "bad_body", "PUT", ONE, {"sub": True, "max_attempts": 3, "dead_letter": "orders"})
        self.assertIn(self.call("PUT", ONE, {"sub": True, "max_attempts": 3, "dead_letter": "none"}).status, (400, 404))
        self.topic("dead")
        self.assertEqual(self.bind("mail", sub=True, max_attempts=3, dead_letter="dead")["dead_letter"], "dead")

    def test_unknown(self) -> None:
        """An application or a topic that is not registered: 404, and nothing is made."""
        for path in (f"{LIST}/none/orders", f"{LIST}/mail/none", f"{LIST}/a.b/orders", f"{LIST}/mail/.."):
            self.refused(404, "no_such_route", "PUT", path, {"sub": True})
            self.refused(404, "no_such_route", "GET", path)
            self.refused(404, "no_such_route", "DELETE", path)

    def test_delete(self) -> None:
        """A revoked binding is gone, with the application's cursor on the topic."""
        self.bind("mail", sub=True)
        self.assertEqual(len(self.wait(self.storage.committed("mail"))), 1)
        self.ok("DELETE", ONE, status=204)
        self.refused(404, "no_such_route", "GET", ONE)
        self.assertEqual(self.wait(self.storage.committed("mail")), {})

    def test_start(self) -> None:
        """The group begins where `start` says at the moment of the grant: nothing published after it is lost."""
        self.wait(self.storage.publish([Record("orders", b"old", partition=0, timestamp=1)], "all"))
        self.bind("mail", sub=True)
        self.wait(self.storage.publish([Record("orders", b"new", partition=0, timestamp=1)], "all"))
        item = self.ok("GET", "/api/v1/groups/mail").json["items"][0]
        self.assertEqual((item["committed"], item["end"], item["lag"]), (1, 2, 1))

    def test_if_match(self) -> None:
        """A write on a version that somebody changed, or of a binding that is not there, is refused."""
        self.refused(412, "version_mismatch", "PUT", ONE, {"sub": True}, headers={"if-match": "*"})
        self.refused(412, "version_mismatch", "PUT", ONE, {"sub": True}, headers={"if-match": '"1"'})
        seen = f'"{self.bind("mail", sub=True)["version"]}"'
        present = self.ok("PUT", ONE, {"pub": True, "sub": True}, 200, headers={"if-match": seen}).headers["etag"]
        self.refused(412, "version_mismatch", "PUT", ONE, {"sub": True}, headers={"if-match": seen})
        self.refused(412, "version_mismatch", "DELETE", ONE, headers={"if-match": seen})
        self.ok("DELETE", ONE, status=204, headers={"if-match": present})
        self.bind("mail", sub=True)
        self.refused(412, "version_mismatch", "DELETE", ONE, headers={"if-match": present})

    def test_own_version(self) -> None:
        """Another binding's change does not move this one's version."""
        seen = self.bind("mail", sub=True)["version"]
        self.topic("bills")
        self.bind("mail", "bills", sub=True)
        self.bind("mail", "bills", 200, pub=True)
        self.assertEqual(self.ok("GET", ONE).headers["etag"], f'"{seen}"')


class ListTests(ManagerCase):
    def setUp(self) -> None:
        super().setUp()
        for id in ("a", "a-b", "a_b", "b"):
            self.application(id)
        for topic in ("x", "y"):
            self.topic(topic, owner="b")
            for id in ("a", "a-b", "a_b"):
                self.bind(id, topic, sub=True)

    def pairs(self, query: str = "") -> list[tuple[str, str]]:
        """All items of the list, page by page."""
        found: list[tuple[str, str]] = []
        more = ""
        while True:
            page = self.ok("GET", LIST, query="&".join(part for part in (query, more) if part)).json
            found += [(item["application"], item["topic"]) for item in page["items"]]
            if page["next"] is None:
                return found
            more = f"cursor={page['next']}"

    def test_all(self) -> None:
        """All bindings, each once, the owner's too, in one order at any page size."""
        wanted = [(id, topic) for id in ("a", "a-b", "a_b", "b") for topic in ("x", "y")]
        for limit in (1, 2, 3, 100):
            self.assertEqual(self.pairs(f"limit={limit}"), wanted)

    def test_filters(self) -> None:
        """By application, by topic, by both; who is not there has none."""
        self.assertEqual(self.pairs("application=a&limit=1"), [("a", "x"), ("a", "y")])
        self.assertEqual(self.pairs("topic=x&limit=1"), [("a", "x"), ("a-b", "x"), ("a_b", "x"), ("b", "x")])
        self.assertEqual(self.pairs("application=a&topic=y"), [("a", "y")])
        self.assertEqual(self.pairs("application=none"), [])
        self.assertEqual(self.pairs("topic=none"), [])

    def test_bad_filters(self) -> None:
        """A filter that no id can equal, and a cursor of other filters: 400."""
        for query in ("application=a.b", "application=", "topic=a/b", "topic="):
            self.refused(400, "bad_parameter", "GET", LIST, query=query)
        cursor = self.ok("GET", LIST, query="topic=x&limit=1").json["next"]
        self.refused(400, "bad_parameter", "GET", LIST, query=f"topic=y&cursor={cursor}")
