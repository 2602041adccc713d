"""Errors as such: who asks, what routes there are, bodies and their bounds."""

from psubd.testing.confluent_contract.steps import V1, V2, Caller, ConfluentSteps, Instance, b64, embedded, everything, places
from psubd.testing.http_contract.steps import MEBIBYTE, written

ROUTES = [
    ("GET", "/brokers"),
    ("GET", "/topics"),
    ("GET", "/topics/{topic}"),
    ("GET", "/topics/{topic}/partitions"),
    ("GET", "/topics/{topic}/partitions/0"),
    ("GET", "/topics/{topic}/partitions/0/offsets"),
    ("GET", "/topics/{topic}/partitions/0/messages?offset=0"),
    ("POST", "/topics/{topic}"),
    ("POST", "/topics/{topic}/partitions/0"),
    ("POST", "/admin/topics"),
    ("POST", "/consumers/g"),
    ("DELETE", "/consumers/g/instances/a"),
    *((method, "/consumers/g/instances/a/subscription") for method in ("POST", "GET", "DELETE")),
    *((method, "/consumers/g/instances/a/assignments") for method in ("POST", "GET")),
    *(("POST", f"/consumers/g/instances/a/positions{tail}") for tail in ("", "/beginning", "/end")),
    ("GET", "/consumers/g/instances/a/records"),
    ("GET", "/consumers/g/instances/a/topics/{topic}"),
    *((method, "/consumers/g/instances/a/offsets") for method in ("POST", "GET")),
]
"""All but the root, which is anybody's."""


class RefusingContract(ConfluentSteps):
    def test_credentials(self) -> None:
        """None, wrong ones, and those of the other trade are 40101 on every route, with a challenge."""
        stand = self.stand()
        for lines in ({}, {"authorization": f"Basic {b64(b'a:b')}"}, {"subkey": "sk_wrong"}, {"pubkey": "pk_wrong", "secret": "se_wrong"}):
            for method, path in ROUTES:
                caller = Caller(self.data(lines), stand.id)
                reply = caller.ask(
                    method, path.format(topic=stand.topic), {} if method == "POST" else None, embedded("json") if "/topics/{" in path else V2
                )
                self.told(reply, 401, 40101)
                self.assertTrue(reply.headers["www-authenticate"].startswith("Basic "), reply)
        reader, writer = Caller(self.data(stand.tenant.subscribe), stand.id), Caller(self.data(stand.tenant.publish), stand.id)
        self.told(reader.produce(stand.topic, {"value": 1}), 401, 40101)
        self.told(writer.ask("POST", "/consumers/g", {}), 401, 40101)
        self.assertEqual((reader.ask("POST", "/consumers/g", {}).status, writer.produce(stand.topic, {"value": 1}).status), (200, 200))

    def test_credentials_in_the_query(self) -> None:
        """Are refused everywhere: 400."""
        stand = self.stand()
        subkey = stand.tenant.subscribe["subkey"]
        for path in (f"/topics?subkey={subkey}", f"/consumers/g/instances/a/records?subkey={subkey}"):
            self.told(Caller(self.data(), stand.id).ask("GET", path), 400, 400)

    def test_routes_that_are_not_there(self) -> None:
        """404 and 405 with Allow, told as all errors here; in the first version's type where that is spoken."""
        caller = self.caller(self.stand())
        for path in ("/consumers", "/consumers/g/x", "/consumers/g/instances", "/consumers/g/instances/a/x", "/topics/t/x", "/brokers/1", "/admin/x"):
            self.told(caller.ask("GET", path), 404, 404)
        self.told(caller.ask("GET", "/consumers/g/x", accept=V1), 404, 404, V1)
        for method, path, allowed in (
            ("GET", "/consumers/g", {"POST", "OPTIONS"}),
            ("PUT", "/consumers/g/instances/a/subscription", {"POST", "GET", "DELETE", "OPTIONS"}),
            ("DELETE", "/topics", {"GET", "HEAD", "OPTIONS"}),
            ("POST", "/consumers/g/instances/a/records", {"GET", "OPTIONS"}),
        ):
            reply = self.told(caller.ask(method, path), 405, 405)
            self.assertLessEqual({each.strip() for each in reply.headers["allow"].split(",")} - {"HEAD"}, allowed)

    def test_types(self) -> None:
        """415 for a body that is none of ours, and for a charset that is not UTF-8; 406 for an answer."""
        stand = self.stand()
        instance = self.make(stand)
        for type in ("text/plain", "application/xml", f"{V2}; charset=latin-1"):
            self.told(instance.ask("POST", "/subscription", {"topics": [stand.topic]}, type), 415, 415)
        self.told(instance.ask("GET", "/subscription", accept="text/html"), 406, 406)
        self.says(instance.ask("GET", "/subscription", accept="application/json"), {"topics": []}, "application/json")

    def test_bodies(self) -> None:
        """What is no JSON, not UTF-8, or nests too deep is 400 on every route that has a body; one that is too large 413."""
        stand = self.stand()
        instance = self.reader(stand)
        deep = b'{"offsets": ' + b"[" * 100 + b"]" * 100 + b"}"
        for tail in ("/subscription", "/assignments", "/positions", "/positions/beginning", "/positions/end", "/offsets"):
            for body in (b"{", b"\xff", b"[]", deep, b'{"offsets": 1, "partitions": 1, "topics": 1}'):
                self.told(instance.ask("POST", tail, body), 400, 400)
            self.told(instance.ask("POST", tail, b" " * 5 * MEBIBYTE), 413, 413)
        self.told(self.caller(stand).ask("POST", "/consumers/g", b" " * 5 * MEBIBYTE), 413, 413)
        self.assertEqual(self.got(instance, "timeout=0"), [])

    def test_a_body_on_a_get(self) -> None:
        """Is read where it says which partitions, over a real connection that goes on afterwards."""
        stand = self.stand()
        instance = self.reader(stand)
        for _ in range(3):
            self.assertEqual(instance.committed(stand.topic, 0).status, 200)
        self.told(instance.ask("GET", "/offsets", b"{"), 400, 400)

    def test_what_the_wire_refuses(self) -> None:
        """A broken credential, a body without a length, a header that is sent twice: told as all errors here."""
        stand = self.stand()
        keys = list(everything(stand.tenant).items())
        self.told(self.say(written("GET", "/topics", [("authorization", "Basic !!")]), "GET"), 401, 40101)
        self.told(self.say(written("POST", f"/topics/{stand.topic}", [*keys, ("content-type", embedded("json"))], None), "POST"), 411, 411)
        self.told(self.say(written("GET", "/topics", [*keys, *keys]), "GET"), 400, 400)
        with self.unchanged(stand):
            lines = [*keys, ("content-type", embedded("json")), ("content-encoding", "br")]
            self.told(self.say(written("POST", f"/topics/{stand.topic}", lines, b"x"), "POST"), 415, 415)

    def test_a_rate_for_reading(self) -> None:
        """42901 with Retry-After while the binding is in debt."""
        stand = self.stand()
        self.store(stand, *range(50))
        self.bind(stand.id, stand.topic, pub=True, sub=True, start="earliest", rate={"messages_per_s": 1})
        instance = self.reader(stand)
        self.assertEqual(len(self.got(instance)), 50)
        reply = self.told(instance.read("timeout=0"), 429, 42901)
        self.assertTrue(int(reply.headers["retry-after"]) >= 1)

    def test_ids_in_the_path(self) -> None:
        """Percent-encoded ones are the instance's; one that is not UTF-8 is refused."""
        stand = self.stand()
        instance = self.reader(stand, "a b+\u00e9")
        self.store(stand, 1)
        self.assertEqual(self.got(instance), [1])
        caller = self.caller(stand)
        self.assertIn(caller.ask("GET", "/consumers/g/instances/%FF/records").status, (400, 404))
        self.told(Instance(caller, "g", "a b").leave(), 404, 40403)
        self.told(caller.ask("POST", "/consumers/g/instances/a/assignments", {"partitions": places("t", 0)}), 404, 40403)
