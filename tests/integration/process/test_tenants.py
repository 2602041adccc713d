"""Two tenants cannot see, guess or touch each other's groups, topics and keys: over HTTP, on both ports."""

import re
from typing import Any

from psubd.testing.daemon import Client, Reply, bind, make_topic
from tests.integration.process.case import ProcessCase

THERE, NOT_THERE = "secret-orders", "no-such-thing"
"""A topic of the other tenant's, and one that nobody has."""

FOREIGN = [
    ("POST", "/v1/pub/{topic}", "publish"),
    ("POST", "/v1/pub/{topic}/batch", "publish"),
    ("GET", "/v1/sub?topic={topic}&timeout=0", "subscribe"),
    ("GET", "/v1/sub?topic={topic}&offset=earliest&timeout=0", "subscribe"),
    ("GET", "/v1/topics/{topic}", "subscribe"),
    ("GET", "/v1/topics/{topic}", "publish"),
]
"""What a tenant may try on a topic."""


def shape(reply: Reply, *names: str) -> tuple[int, dict[str, str], str]:
    """An answer without what differs anyway: its id and time, and the names that the request itself held."""
    headers = {name: value for name, value in reply.headers.items() if name not in ("x-request-id", "date", "content-length")}
    text = reply.body.decode()
    for name in names:
        text = text.replace(name, "NAME")
    return reply.status, headers, re.sub(r'"request_id":"[^"]*"', "", text)


class TenantTests(ProcessCase):
    def setUp(self) -> None:
        super().setUp()
        self.running = self.daemon().start()
        self.manager = self.running.manager()
        self.mine = self.bound(self.running, "shop", "orders")
        self.theirs = self.bound(self.running, "bank", THERE)
        self.publish(self.theirs.publish, THERE, b"for the bank only")

    def publish(self, keys: dict[str, str], topic: str, body: bytes) -> Reply:
        return self.running.data(**keys).request("POST", f"/v1/pub/{topic}", body)

    def ask(self, client: Client, method: str, target: str, topic: str) -> Reply:
        body = b'{"records": [{"value": "x"}]}' if "batch" in target else b"x" if method == "POST" else None
        headers = {"content-type": "application/json"} if "batch" in target else {}
        return client.request(method, target.replace("{topic}", topic), body, headers)

    def test_foreign_topics(self) -> None:
        """Whether another's topic is there cannot be told: its answers are those of one that nobody has, byte by byte but for the name; and
        nothing was published by it or taken from it."""
        for method, target, kind in FOREIGN:
            client = self.running.data(**getattr(self.mine, kind))
            there, not_there = (self.ask(client, method, target, topic) for topic in (THERE, NOT_THERE))
            self.assertEqual(shape(there, THERE), shape(not_there, NOT_THERE), (method, target))
            self.assertEqual((there.status, there.json["code"]), (403, "topic_not_bound"), (method, target))
            self.assertNotIn("bank", there.body.decode())
        got = self.running.data(**self.theirs.subscribe).request("GET", "/v1/sub?batchSize=10")
        self.assertEqual([message["value"] for message in got.json["messages"]], ["for the bank only"])

    def test_foreign_topic_in_the_header(self) -> None:
        """The same by the header instead of the path."""
        client = self.running.data(**self.mine.publish)
        there, not_there = (client.request("POST", "/v1/pub", b"x", {"topic.id": topic}) for topic in (THERE, NOT_THERE))
        self.assertEqual(shape(there, THERE), shape(not_there, NOT_THERE))
        self.assertEqual(there.status, 403)

    def test_foreign_groups(self) -> None:
        """A group's name leads to the tenant's own: the other's groups cannot be read, moved, deleted or joined, nor told to be there."""
        theirs = self.running.data(**self.theirs.subscribe)
        self.publish(self.theirs.publish, THERE, b"another")
        self.assertEqual(theirs.request("GET", "/v1/sub?group=audit&batchSize=1").status, 200)
        before = self.places(theirs)
        mine = self.running.data(**self.mine.subscribe)
        for method, target, body in (
            ("GET", "/v1/groups/{}", None),
            ("DELETE", "/v1/groups/{}", None),
            ("PUT", "/v1/groups/{}/offsets", b'{"topic": "secret-orders", "to": "earliest"}'),
        ):
            headers = {"content-type": "application/json"} if body else {}
            for name in ("bank", "bank.audit"):
                there = mine.request(method, target.format(name), body, headers)
                not_there = mine.request(method, target.format("nobody"), body, headers)
                self.assertEqual(shape(there, name), shape(not_there, "nobody"), (method, name))
                self.assertIn(there.status, (403, 404), (method, name, there))
        self.assertEqual(mine.request("GET", "/v1/sub?group=bank.audit&timeout=0").status, 204)
        self.assertEqual(self.places(theirs), before)
        self.assertNotIn("bank", str([item for item in mine.request("GET", "/v1/groups").json["items"] if item["group"] != "shop.bank.audit"]))

    def places(self, client: Client) -> list[tuple[Any, ...]]:
        """Where the tenant's groups stand; their ages grow anyway."""
        groups = client.request("GET", "/v1/groups").json["items"]
        return [(group["group"], item["topic"], item["partition"], item["committed"]) for group in groups for item in group["items"]]

    def test_lists(self) -> None:
        """A tenant's lists show its own only."""
        for kind in ("publish", "subscribe"):
            client = self.running.data(**getattr(self.mine, kind))
            for target in ("/v1/whoami", "/v1/topics", "/v1/groups"):
                reply = client.request("GET", target)
                self.assertEqual(reply.status, 200, (kind, target, reply))
                self.assertNotIn(b"bank", reply.body)
                self.assertNotIn(THERE.encode(), reply.body)

    def test_keys_do_not_stand_for_each_other(self) -> None:
        """A key of the wrong kind, of another tenant, or a guess: one answer."""
        keys = {**self.mine.publish, **self.mine.subscribe}
        pairs: list[dict[str, str]] = [
            {"pubkey": keys["pubkey"], "secret": self.theirs.publish["secret"]},
            {"pubkey": self.theirs.publish["pubkey"], "secret": keys["secret"]},
            {"pubkey": keys["pubkey"], "secret": keys["subkey"]},
            {"pubkey": keys["subkey"], "secret": keys["secret"]},
            {"pubkey": keys["pubkey"], "secret": keys["pubkey"]},
            {"pubkey": keys["pubkey"], "secret": "ps_" + "A" * 43},
            {"pubkey": "pk_" + "A" * 43, "secret": keys["secret"]},
        ]
        answers = {repr(shape(self.publish(pair, "orders", b"x"))) for pair in pairs}
        self.assertEqual(len(answers), 1, answers)
        self.assertEqual(self.publish(pairs[0], "orders", b"x").status, 401)
        shown = [{"subkey": keys["secret"]}, {"subkey": keys["pubkey"]}, {"subkey": "sk_" + "A" * 43}]
        refused = {repr(shape(self.running.data(**one).request("GET", "/v1/sub?timeout=0"))) for one in shown}
        self.assertEqual(len(refused), 1, refused)
        self.assertEqual(self.running.data(**self.mine.subscribe).request("GET", "/v1/sub?timeout=0").status, 204)

    def test_tenants_keys_on_the_manager_port(self) -> None:
        """A tenant's keys open nothing on the manager port, whether the thing is there or not; an admin token nothing on the data port."""
        manager = Client(self.running.ports.manager)
        for shown in ({"authorization": f"Bearer {self.mine.subscribe['subkey']}"}, self.mine.publish, self.mine.subscribe, {}):
            answers = set()
            for target in ("applications/bank", "applications/nobody", f"topics/{THERE}", "topics/nothing", "groups/bank", "tokens/admin"):
                answers.add(repr(shape(manager.request("GET", f"/api/v1/{target}", None, shown))))
            self.assertEqual(len(answers), 1, answers)
            self.assertEqual(manager.request("GET", "/api/v1/status", None, shown).status, 401)
        reply = self.running.data(authorization="Bearer pt_of-the-process-tests").request("GET", "/v1/sub?timeout=0")
        self.assertEqual(reply.status, 401)

    def test_made_again(self) -> None:
        """An application that is deleted and made again is another one: its former keys, cursor and bindings are gone."""
        mine = self.running.data(**self.mine.subscribe)
        self.publish(self.mine.publish, "orders", b"one")
        self.assertEqual(mine.request("GET", "/v1/sub").status, 200)
        self.assertEqual(self.manager.request("DELETE", "/api/v1/applications/shop?force=true").status, 200)
        self.assertEqual(mine.request("GET", "/v1/sub?timeout=0").status, 401)
        made: Any = self.manager.send("POST", "/api/v1/applications", {"id": "shop", "name": "another"}).json
        self.assertEqual(mine.request("GET", "/v1/sub?timeout=0").status, 401)
        again = self.running.data(subkey=made["subkey"])
        self.assertEqual(again.request("GET", "/v1/topics").json["items"], [])
        make_topic(self.manager, "orders", "shop")
        bind(self.manager, "shop", "orders", sub=True, pub=True, start="earliest")
        self.assertEqual(again.request("GET", "/v1/sub?timeout=0").status, 204)
