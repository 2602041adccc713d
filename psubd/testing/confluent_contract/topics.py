"""Brokers, topics, partitions, and reads without an instance (tables 1a and 1b)."""

from psubd.testing.confluent_contract.steps import V1, V2, ConfluentSteps, b64, embedded
from psubd.testing.http_contract.steps import Stand


class TopicsContract(ConfluentSteps):
    def test_the_root(self) -> None:
        """GET and POST / are answered to anybody: it is there."""
        for method, body in (("GET", None), ("POST", {})):
            caller = self.caller(self.stand())
            self.says(caller.ask(method, "/", body), {})
        reply = self.data().request("GET", "/")
        self.assertEqual((reply.status, reply.json), (200, {}))

    def test_brokers(self) -> None:
        """Numbers, at least one."""
        reply = self.caller(self.stand()).ask("GET", "/brokers")
        self.assertEqual(reply.status, 200, reply)
        self.assertTrue(reply.json["brokers"] and all(isinstance(broker, int) for broker in reply.json["brokers"]), reply)

    def test_topics_are_those_that_are_bound(self) -> None:
        """The application's own, in both versions; another's is not among them."""
        stand, other = self.stand(), self.stand()
        self.says(self.caller(stand).ask("GET", "/topics"), [stand.topic])
        self.bind(stand.id, other.topic, pub=True)
        self.says(self.caller(stand).ask("GET", "/topics", accept=V1), sorted([stand.topic, other.topic]), V1)

    def test_a_topic(self) -> None:
        """Its name, its settings by Kafka's names, its partitions with where they lie."""
        stand = self.stand(2)
        reply = self.caller(stand).ask("GET", f"/topics/{stand.topic}")
        self.assertEqual((reply.status, reply.json["name"], set(reply.json)), (200, stand.topic, {"name", "configs", "partitions"}), reply)
        self.assertEqual(reply.json["configs"]["cleanup.policy"], "delete")
        self.assertEqual([part["partition"] for part in reply.json["partitions"]], [0, 1])
        self.says(self.caller(stand).ask("GET", f"/topics/{stand.topic}/partitions"), reply.json["partitions"])
        self.says(self.caller(stand).ask("GET", f"/topics/{stand.topic}/partitions/1"), reply.json["partitions"][1])
        (replica,) = reply.json["partitions"][1]["replicas"]
        brokers = self.caller(stand).ask("GET", "/brokers").json["brokers"]
        self.assertEqual((replica["leader"], replica["in_sync"]), (True, True))
        self.assertIn(reply.json["partitions"][1]["leader"], brokers)
        self.assertEqual(replica["broker"], reply.json["partitions"][1]["leader"])

    def test_offsets_of_a_partition(self) -> None:
        """Where its log begins and ends."""
        stand = self.stand()
        self.store(stand, 1, 2)
        self.says(self.caller(stand).ask("GET", f"/topics/{stand.topic}/partitions/0/offsets"), {"beginning_offset": 0, "end_offset": 2})

    def test_what_is_not_there(self) -> None:
        """40401 for a topic that is not bound, whether it is there or not; 40402 for a partition."""
        stand, other = self.stand(), self.stand()
        caller = self.caller(stand)
        for name in (other.topic, self.name()):
            for tail in ("", "/partitions", "/partitions/0", "/partitions/0/offsets", "/partitions/0/messages?offset=0"):
                self.told(caller.ask("GET", f"/topics/{name}{tail}"), 404, 40401)
        for partition in ("1", "-1", "x"):
            for tail in ("", "/offsets", "/messages?offset=0"):
                self.told(caller.ask("GET", f"/topics/{stand.topic}/partitions/{partition}{tail}"), 404, 40402)

    def test_messages_without_an_instance(self) -> None:
        """The first version's: from an offset or a time on, one unless count says more, in the format that accept says; no group moves."""
        stand = self.stand()
        self.send(stand, b"zero", {"timestamp": "1600000000000"})
        self.send(stand, b'{"n": 1}', {"timestamp": "1600000001000", "key": "k"})
        path = f"/topics/{stand.topic}/partitions/0/messages"
        caller = self.caller(stand)
        first = {"key": None, "value": b64(b"zero"), "partition": 0, "offset": 0}
        second = {"key": b64(b"k"), "value": b64(b'{"n": 1}'), "partition": 0, "offset": 1}
        with self.unchanged(stand):
            for accept, type in ((None, embedded("binary", 1)), (V1, embedded("binary", 1)), (embedded("binary", 1), embedded("binary", 1))):
                self.says(caller.ask("GET", f"{path}?offset=0", accept=accept), [first], type)
            self.says(caller.ask("GET", f"{path}?offset=0&count=5"), [first, second], embedded("binary", 1))
            self.says(caller.ask("GET", f"{path}?timestamp=1600000000500"), [second], embedded("binary", 1))
            self.says(caller.ask("GET", f"{path}?offset=2"), [], embedded("binary", 1))
            json = {**second, "key": "k", "value": {"n": 1}}
            self.says(caller.ask("GET", f"{path}?offset=1", accept=embedded("json", 1)), [json], embedded("json", 1))
            for query in ("", "?offset=0&timestamp=1", "?offset=x", "?offset=0&count=0"):
                self.told(caller.ask("GET", f"{path}{query}"), 400, 400)

    def test_making_a_topic(self) -> None:
        """The Strimzi bridge's: it is the application's, bound both ways; one that is there is refused, and stays whose it is."""
        stand, other = self.stand(), self.stand()
        caller, name = self.caller(stand), self.name()
        reply = caller.ask("POST", "/admin/topics", {"topic_name": name, "partitions_count": 3, "replication_factor": 1})
        self.assertEqual(reply.status, 201, reply)
        self.says(caller.ask("GET", "/topics"), sorted([stand.topic, name]))
        self.assertEqual(len(caller.ask("GET", f"/topics/{name}/partitions").json), 3)
        made = Stand(self.data_port, stand.tenant, name)
        self.addCleanup(made.close)
        self.store(made, 1)
        self.assertEqual(self.got(self.reader(made)), [1])
        for taken in (name, other.topic):
            self.told(caller.ask("POST", "/admin/topics", {"topic_name": taken}), 409, 409)
        self.told(self.caller(stand).ask("GET", f"/topics/{other.topic}"), 404, 40401)
        many, none = {"partitions_count": 257}, {"partitions_count": 0}
        for wrong in ({}, {"topic_name": "a/b"}, {"topic_name": self.name(), **none}, {"topic_name": self.name(), **many}):
            self.told(caller.ask("POST", "/admin/topics", wrong), 422, 422)
        self.told(caller.ask("POST", "/admin/topics", b"{"), 400, 400)

    def test_a_slash_at_the_end(self) -> None:
        """One more is taken as none."""
        stand = self.stand()
        self.says(self.caller(stand).ask("GET", "/topics/"), [stand.topic])
        self.assertEqual(self.caller(stand).ask("GET", f"/topics/{stand.topic}/partitions/").status, 200)
        self.assertEqual(self.caller(stand).ask("POST", "/consumers/g/", {}).headers["content-type"], V2)
