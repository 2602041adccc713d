"""What the configuration adds: guests without credentials, proxies in front, bounds, and how long an instance may be idle."""

from psubd.testing.confluent_contract.steps import Caller, ConfluentSteps, Instance

GUEST = "guest"
IDLE_MS = 3_000

SETTINGS = f"""
anonymous = "{GUEST}"
trusted_proxies = ["127.0.0.1"]
application_topics = 2
consumer_instance_timeout_ms = {IDLE_MS}
consumer_request_timeout_ms = 50
consumer_request_max_bytes = 2048
"""
"""What the host's daemon is configured with. The host registers the guest."""


class SettingsContract(ConfluentSteps):
    """Of a daemon that is configured so."""

    def guest(self) -> Caller:
        """A client without credentials."""
        return Caller(self.data(), GUEST)

    def test_guests(self) -> None:
        """Who shows nothing is the guest, on these routes alone; who shows something wrong is nobody."""
        name = self.name()
        self.manage("POST", "topics", {"id": name, "owner": GUEST}, 201)
        self.bind(GUEST, name, pub=True, sub=True, start="earliest")
        caller = self.guest()
        self.assertEqual(caller.produce(name, {"value": 1}).status, 200)
        self.assertIn(name, caller.ask("GET", "/topics").json)
        reply = caller.ask("POST", "/consumers/g", {"format": "json", "auto.offset.reset": "earliest"})
        instance = Instance(caller, "g", reply.json["instance_id"])
        self.done(instance.subscribe(name))
        self.assertEqual(self.got(instance), [1])
        self.done(instance.leave())
        for method, path in (("GET", "/v1/topics"), ("GET", "/v1/sub"), ("GET", "/v1/whoami")):
            self.assertEqual(self.data().request(method, path).status, 401)
        self.assertEqual(self.data().request("POST", f"/v1/pub/{name}", b"x").status, 401)
        self.told(Caller(self.data({"subkey": "sk_wrong"}), GUEST).ask("GET", "/topics"), 401, 40101)

    def test_proxies_in_front(self) -> None:
        """base_uri is what the nearest proxy says that is trusted; without one, the request's own host."""
        caller = self.caller(self.stand())
        for lines, base in (
            ({}, f"http://127.0.0.1:{self.data_port}"),
            ({"host": "proxy.example:8080"}, "http://proxy.example:8080"),
            ({"forwarded": "for=1.2.3.4;proto=https;host=rest.example"}, "https://rest.example"),
            ({"x-forwarded-proto": "https", "x-forwarded-host": "rest.example", "x-forwarded-port": "8443"}, "https://rest.example:8443"),
            ({"x-forwarded-proto": "https", "x-forwarded-host": "rest.example", "x-forwarded-prefix": "/kafka"}, "https://rest.example/kafka"),
        ):
            reply = caller.ask("POST", "/consumers/g", {}, **lines)
            self.assertEqual(reply.json["base_uri"], f"{base}/consumers/g/instances/{reply.json['instance_id']}", lines)

    def test_how_many_topics(self) -> None:
        """40301 for a topic more than application_topics allows."""
        stand = self.stand()
        caller = self.caller(stand)
        self.assertEqual(caller.ask("POST", "/admin/topics", {"topic_name": self.name()}).status, 201)
        self.told(caller.ask("POST", "/admin/topics", {"topic_name": self.name()}), 403, 40301)

    def test_an_instance_that_nobody_uses(self) -> None:
        """Is discarded after its time, with what it did not commit; one that is used stays, and a read that waits is a use."""
        stand = self.stand()
        before = self.metric("psubd_instances_discarded_total")
        self.store(stand, 1)
        idle, used = self.reader(stand, group="idle"), self.reader(stand, group="used", consumer_request_timeout_ms=2 * IDLE_MS)
        self.assertEqual((self.got(idle), self.got(used)), ([1], [1]))
        self.assertEqual(self.got(used, f"timeout={IDLE_MS + 1500}"), [])
        self.until(lambda: self.metric("psubd_instances_discarded_total") > before, "the idle one is discarded")
        self.told(idle.read(), 404, 40403)
        self.assertEqual(self.got(self.reader(stand, group="idle")), [1])
        self.assertEqual(used.commit().status, 200)

    def test_bounds_of_a_read(self) -> None:
        """How long one waits where the instance does not say, and how large an answer may be whatever the client asks for."""
        stand = self.stand()
        self.store(stand, "a" * 1000, "b" * 1000, "c" * 1000)
        instance = self.reader(stand)
        self.assertEqual([len(self.got(instance, "max_bytes=1000000")) for _ in range(3)], [2, 1, 0])
