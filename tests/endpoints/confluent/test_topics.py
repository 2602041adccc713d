"""What Confluent's routes show of topics and brokers, and the topics that applications make."""

from twisted.internet.defer import CancelledError

from psubd.endpoints.confluent.settings import ConfluentSettings
from psubd.model import TopicSpec
from tests.endpoints.confluent.produce_house import PLAIN, ConfluentCase, embedded


class ShownTests(ConfluentCase):
    def test_root(self) -> None:
        """`{}` for whoever asks, with either method."""
        for method in ("GET", "POST"):
            reply = self.call(method, "/", headers=[])
            self.assertEqual((reply.status, reply.json, reply.header("content-type")), (200, {}, PLAIN))

    def test_topics(self) -> None:
        """The bound topics by name, with either credential; strangers get 40101."""
        for shown in (self.basic("shop", self.shop.secret), self.basic("shop", self.shop.subkey)):
            self.assertEqual(self.call("GET", "/topics", headers=[shown]).json, ["orders"])
        self.told(self.call("GET", "/topics", headers=[]), 401, 40101)
        self.assertEqual(self.call("GET", "/brokers").json, {"brokers": [0]})
        self.told(self.call("GET", "/brokers", headers=[]), 401, 40101)

    def test_topic(self) -> None:
        """Name, settings by Kafka's names as text, partitions with leader and replicas."""
        replica = {"broker": 0, "leader": True, "in_sync": True}
        partitions = [{"partition": number, "leader": 0, "replicas": [replica]} for number in range(3)]
        shown = self.call("GET", "/topics/orders").json
        self.assertEqual((shown["name"], shown["partitions"]), ("orders", partitions))
        self.assertEqual(shown["configs"]["retention.ms"], "604800000")
        self.assertEqual(self.call("GET", "/topics/orders/partitions").json, partitions)
        self.assertEqual(self.call("GET", "/topics/orders/partitions/1").json, partitions[1])

    def test_offsets(self) -> None:
        """Where the log begins and ends."""
        self.publish("a", "b", topic="orders", key=None, partition="1")
        self.assertEqual(self.call("GET", "/topics/orders/partitions/1/offsets").json, {"beginning_offset": 0, "end_offset": 2})

    def test_not_there(self) -> None:
        """Others' topics and those that nobody has are 40401 alike, a partition that there is not is 40402, a topic that is gone 40401."""
        for path in ("", "/partitions", "/partitions/0", "/partitions/0/offsets", "/partitions/0/messages?offset=0"):
            path, _, query = path.partition("?")
            for topic in ("secrets", "nobodys"):
                self.told(self.call("GET", f"/topics/{topic}{path}", query=query), 404, 40401)
        for partition in ("3", "x"):
            for path in ("", "/offsets", "/messages?offset=0"):
                path, _, query = path.partition("?")
                self.told(self.call("GET", f"/topics/orders/partitions/{partition}{path}", query=query), 404, 40402)
        self.wait(self.storage.delete_topic("orders"))
        for path in ("", "/partitions", "/partitions/0/offsets"):
            self.told(self.call("GET", f"/topics/orders{path}"), 404, 40401)

    def test_not_acceptable(self) -> None:
        """A type that is not given is 406; `application/json` and the first version's are."""
        self.told(self.call("GET", "/topics", accept="text/html"), 406, 406)
        for accept in ("application/json", "application/vnd.kafka.v1+json", PLAIN):
            self.assertEqual(self.call("GET", "/topics", accept=accept).header("content-type"), accept)

    def test_messages(self) -> None:
        """The first version's read without an instance: from an offset or a time, so many as were asked for, in the
        accepted format; nobody's group moves."""
        self.publish('{"n":0}', '{"n":1}', '{"n":2}', key=None, partition="2")
        path = "/topics/orders/partitions/2/messages"
        reply = self.call("GET", path, query="offset=1&count=5", accept=embedded("json", 1))
        expected = [{"key": None, "value": {"n": number}, "partition": 2, "offset": number} for number in (1, 2)]
        self.assertEqual((reply.json, reply.header("content-type")), (expected, embedded("json", 1)))
        self.assertEqual(self.call("GET", path, query="timestamp=0").json, [{"key": None, "value": "eyJuIjowfQ==", "partition": 2, "offset": 0}])
        self.assertEqual(self.call("GET", path, query="offset=3").json, [])
        self.assertEqual(self.committed("shop").get(2, 0), 0)

    def test_messages_accepted(self) -> None:
        """The format that the client likes best; without one binary. What is not given is 406, schemas are 42205, and nothing is read then."""
        self.publish("1", key=None, partition="2")
        path = "/topics/orders/partitions/2/messages"
        binary, json = embedded("binary", 1), embedded("json", 1)
        for accept, value, kind in (
            (None, "MQ==", binary),
            ("*/*", "MQ==", binary),
            (PLAIN, "MQ==", binary),
            ("application/json", "MQ==", "application/json"),
            (embedded("json"), 1, json),
            (f"{json};q=0, {binary}", "MQ==", binary),
            (f"{binary};q=0.5, {json}", 1, json),
            (f"{embedded('avro', 1)}, {json};q=0.1", 1, json),
        ):
            reply = self.call("GET", path, query="offset=0", accept=accept)
            self.assertEqual((reply.status, reply.json[0]["value"], reply.header("content-type")), (200, value, kind), accept)
            self.assertEqual(sorted(reply.json[0]), ["key", "offset", "partition", "value"])
        self.told(self.call("GET", path, query="offset=0", accept="text/html"), 406, 406)
        self.told(self.call("GET", path, query="offset=0", accept=embedded("avro", 1)), 422, 42205)

    def test_messages_badly_asked(self) -> None:
        """Exactly one of offset and timestamp; an offset past the end is told; the subkey is needed."""
        path = "/topics/orders/partitions/2/messages"
        for query in ("", "offset=1&timestamp=1", "offset=x", "offset=0&count=0", "offset=0&nobody=1", "offset=1"):
            self.told(self.call("GET", path, query=query), 400, 400)
        self.told(self.call("GET", path, query="offset=0", headers=[self.basic("shop", self.shop.secret)]), 401, 40101)


class MakingTests(ConfluentCase):
    settings = ConfluentSettings(application_topics=2)

    def test_made(self) -> None:
        """The application owns it, may publish and read from its first message on."""
        reply = self.call("POST", "/admin/topics", {"topic_name": "mine", "partitions_count": 4, "replication_factor": 1})
        self.assertEqual((reply.status, reply.body), (201, b""))
        topic = self.gate.topic("mine")
        assert topic is not None
        self.assertEqual((topic.owner, topic.partitions), ("shop", 4))
        binding = self.gate.bindings_of("mine")["shop"]
        self.assertEqual((binding.pub, binding.sub, binding.start), (True, True, "earliest"))

    def test_never_taken(self) -> None:
        """A topic that is registered, or only in the storage, is 409 and stays whose it is."""
        self.wait(self.storage.create_topic(TopicSpec("foreign")))
        for name in ("secrets", "foreign"):
            self.told(self.call("POST", "/admin/topics", {"topic_name": name}), 409, 409)
        self.assertNotIn("shop", self.gate.bindings_of("secrets"))
        self.assertIsNone(self.gate.topic("foreign"))

    def test_at_most(self) -> None:
        """An application owns so many topics, made here or not; one more is 40301."""
        self.assertEqual(self.call("POST", "/admin/topics", {"topic_name": "mine"}).status, 201)
        self.told(self.call("POST", "/admin/topics", {"topic_name": "another"}), 403, 40301)
        self.assertIsNone(self.gate.topic("another"))

    def test_at_most_at_once(self) -> None:
        """Requests that come together make no more than one after another; what is refused leaves nothing in the storage."""
        self.registry.held = True
        begun = [self.begin("POST", "/admin/topics", [self.all_keys], b'{"topic_name": "mine-%d"}' % number) for number in range(5)]
        self.registry.held = False
        self.registry.release()
        self.lines = ()
        replies = [self.reply(each) for each in begun]
        self.assertEqual([reply.status for reply in replies], [201, 403, 403, 403, 403])
        self.told(replies[1], 403, 40301)
        self.assertEqual(sorted(self.wait(self.storage.describe([f"mine-{number}" for number in range(5)]))), ["mine-0"])

    def test_client_goes_away(self) -> None:
        """A client that goes away while its topic is made leaves a whole one: it could not make it again."""
        self.registry.held = True
        begun = self.begin("POST", "/admin/topics", [self.all_keys], b'{"topic_name": "mine"}')
        begun.addErrback(lambda failure: failure.trap(CancelledError) and None)
        begun.cancel()
        self.registry.held = False
        self.registry.release()
        binding = self.gate.bindings_of("mine")["shop"]
        self.assertEqual((binding.pub, binding.sub), (True, True))

    def test_badly_asked(self) -> None:
        """Names that no topic can have, partitions beyond bounds, no JSON: nothing is made. The secret is needed."""
        for document in (
            {},
            {"topic_name": "__x"},
            {"topic_name": "a b"},
            {"topic_name": "x", "partitions_count": 0},
            {"topic_name": "x", "partitions_count": 257},
        ):
            self.told(self.call("POST", "/admin/topics", document), 422, 422)
        self.told(self.call("POST", "/admin/topics", b"{"), 400, 400)
        self.told(self.call("POST", "/admin/topics", {"topic_name": "x"}, "text/plain"), 415, 415)
        self.told(self.call("POST", "/admin/topics", {"topic_name": "x"}, headers=[self.basic("shop", self.shop.subkey)]), 401, 40101)


class NoMakingTests(ConfluentCase):
    settings = ConfluentSettings(application_topics=0)

    def test_switched_off(self) -> None:
        """With none allowed nobody makes any."""
        self.told(self.call("POST", "/admin/topics", {"topic_name": "mine"}), 403, 40301)
