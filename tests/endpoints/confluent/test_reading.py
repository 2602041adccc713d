"""/records, and the first version's /topics."""

from typing import Any
from unittest.mock import patch

from psubd.endpoints.confluent import embedded
from psubd.endpoints.confluent.faults import OtherFormat, SecondTopic
from psubd.errors import BadParameter, IllegalState, InstanceMissing, NotAcceptable, TopicNotBound
from psubd.model import Answer
from tests.endpoints.confluent.instance_house import ONE, V1, V2, InstanceCase
from tests.endpoints.house import Reply

BINARY, JSON = "application/vnd.kafka.binary.v2+json", "application/vnd.kafka.json.v2+json"


class RecordsTests(InstanceCase):
    def read(self, accept: str | None = None, query: str = "timeout=0", **more: Any) -> Reply:
        return self.call("GET", f"{ONE}/records", None, None, accept, query, **more)

    def test_a_record(self) -> None:
        """Confluent's members, with the timestamp, and the headers where there are any."""
        self.stores(b"v", key=b"k", headers=(("h", b"1"), ("h", None)))
        self.stores(None)
        self.made("a", "orders")
        reply = self.read()
        self.assertEqual((reply.status, reply.header("content-type")), (200, BINARY))
        common = {"topic": "orders", "partition": 0, "timestamp": self.clock.epoch_ms()}
        headers = [{"key": "h", "value": "MQ=="}, {"key": "h", "value": None}]
        first = {**common, "key": "aw==", "value": "dg==", "offset": 0, "headers": headers}
        self.assertEqual(reply.json, [first, {**common, "key": None, "value": None, "offset": 1}])
        self.assertEqual(self.records(), [])

    def test_accept(self) -> None:
        """What names no format gets the instance's own; another format is 406 with a number of its own; nothing is read then."""
        self.stores(b"1")
        self.made("a", "orders", format="json")
        for accept in (BINARY, "application/vnd.kafka.avro.v2+json", "application/vnd.kafka.text.v2+json"):
            self.fails(OtherFormat, self.read(accept))
        self.fails(NotAcceptable, self.read("text/html"))
        for accept, type in (
            (None, JSON),
            (JSON, JSON),
            (V2, JSON),
            ("*/*", JSON),
            ("application/json", "application/json"),
            (f"{BINARY}, {JSON}", JSON),
        ):
            reply = self.read(accept, handed=0)
            self.assertEqual((reply.header("content-type"), [record["value"] for record in reply.json]), (type, [1]), accept)

    def test_all_or_nothing(self) -> None:
        """An answer of which a byte was not handed over gives all its messages again."""
        self.stores(b"0", b"1")
        self.made("a", "orders")
        size = len(self.read(handed=0).body)
        self.assertEqual(len(self.read(handed=size - 1).json), 2)
        self.assertEqual(len(self.read(handed=-1).json), 2)
        self.assertEqual(len(self.read(handed=size).json), 2)
        self.assertEqual(self.records(), [])

    def test_an_answer_that_cannot_be_built(self) -> None:
        """Gives its messages back, and holds up nobody."""
        self.stores(b"0")
        self.made("a", "orders")
        with patch.object(embedded, "records", side_effect=ZeroDivisionError), self.assertRaises(ZeroDivisionError):
            self.read()
        self.assertEqual(len(self.records()), 1)

    def test_whether_it_may_still_be(self) -> None:
        """The answer asks the delivery, as one of /v1/sub does."""
        self.stores(b"0")
        self.made("a", "orders")
        answers: list[Answer] = []
        self.begin("GET", f"{ONE}/records", self.shop.sub, query="timeout=0").addCallback(answers.append)
        stands = answers[0].stands
        assert stands is not None
        self.assertTrue(stands())
        self.call("DELETE", ONE, None, None)
        self.assertFalse(stands())

    def test_how_long_and_how_much(self) -> None:
        """The timeout of the query only shortens the instance's; a message that is larger than max_bytes comes alone."""
        self.made("a", "orders", consumer_request_timeout_ms=200)
        for query, after in (("", 200), ("timeout=50", 50), ("timeout=-1", 200), ("timeout=9999999&x=1", 200)):
            waiting = self.begin("GET", f"{ONE}/records", self.shop.sub, query=query)
            self.clock.advance(after - 10)
            self.assertFalse(waiting.called, query)
            self.clock.advance(11)
            self.assertEqual(self.reply(waiting).json, [])
        self.stores(b"0" * 100, b"1" * 10, b"2" * 10)
        self.assertEqual([len(self.records("timeout=0&max_bytes=20")) for _ in range(3)], [1, 2, 0])
        for query in ("timeout=x", "max_bytes=1.5", "max_bytes=-2", "timeout=1&timeout=2"):
            self.fails(BadParameter, self.read(query=query))

    def test_so_many_bytes(self) -> None:
        """fetch.min.bytes: a read waits for them."""
        self.made("a", "orders", fetch_min_bytes="3")
        self.stores(b"0")
        waiting = self.begin("GET", f"{ONE}/records", self.shop.sub)
        self.clock.advance(1)
        self.assertFalse(waiting.called)
        self.stores(b"00")
        self.clock.advance(1)
        self.assertEqual(len(self.reply(waiting).json), 2)

    def test_a_client_that_goes_away(self) -> None:
        """Withdraws its read: the next gets what came."""
        self.made("a", "orders")
        waiting = self.begin("GET", f"{ONE}/records", self.shop.sub)
        waiting.addErrback(lambda failure: None)
        waiting.cancel()
        self.stores(b"0")
        self.assertEqual(len(self.records()), 1)

    def test_what_reads_nothing(self) -> None:
        self.fails(InstanceMissing, self.read())
        self.made("a")
        self.fails(IllegalState, self.read())


class TopicTests(InstanceCase):
    def read(self, topic: str = "orders", accept: str | None = None, query: str = "timeout=0", **more: Any) -> Reply:
        return self.call("GET", f"{ONE}/topics/{topic}", None, None, accept, query, **more)

    def test_the_first_read_subscribes(self) -> None:
        """Four members, in the first version's type; another topic is refused from then on."""
        self.stores(b"v", key=b"k", headers=(("h", b"1"),))
        self.made("a", type=V1)
        reply = self.read()
        self.assertEqual((reply.status, reply.header("content-type")), (200, "application/vnd.kafka.binary.v1+json"))
        self.assertEqual(reply.json, [{"key": "aw==", "value": "dg==", "partition": 0, "offset": 0}])
        self.assertEqual(self.read().json, [])
        self.topic("more", "shop")
        self.bind("shop", "more")
        self.fails(SecondTopic, self.read("more"))
        self.assertEqual(self.read("orders").status, 200)

    def test_a_topic_that_is_not_bound(self) -> None:
        """Is told, and the instance may read another then."""
        self.made("a", type=V1)
        self.fails(TopicNotBound, self.read("secrets"))
        self.assertEqual(self.read().status, 200)

    def test_accept(self) -> None:
        self.made("a", type=V1, format="json")
        for accept, type in (
            ("application/vnd.kafka.json.v1+json", "application/vnd.kafka.json.v1+json"),
            (f"{V1}, application/json", "application/vnd.kafka.json.v1+json"),
            ("application/vnd.kafka+json", "application/vnd.kafka.json.v1+json"),
            ("application/json", "application/json"),
        ):
            self.assertEqual(self.read(accept=accept).header("content-type"), type)
        self.fails(OtherFormat, self.read(accept="application/vnd.kafka.binary.v1+json"))
