"""Other proxies' dialects."""

import base64
import json

from twisted.trial.unittest import SynchronousTestCase

from bench.load import LoadFailed
from bench.proxies import DIALECTS, Peer, peer
from tests.integration.bench.listener import Asked, Listener


class Named(SynchronousTestCase):
    def test_kind_and_address(self) -> None:
        self.assertEqual(peer("kafka-pixy=http://10.0.0.1:19092"), Peer("kafka-pixy", "10.0.0.1", 19092))
        self.assertEqual(peer("strimzi=http://bridge/"), Peer("strimzi", "bridge", 80))

    def test_what_is_no_peer(self) -> None:
        """An unknown kind, another scheme, a path: refused before anything is measured."""
        for text in ("karapace=http://h:1", "strimzi", "strimzi=https://h:1", "strimzi=http://h:1/v2", "strimzi=h:1"):
            self.assertRaises(ValueError, peer, text)


class Dialects(SynchronousTestCase):
    def test_one_message_of_the_size(self) -> None:
        """Every kind publishes the same bytes under the same key, in its own way."""
        raw = DIALECTS["kafka-pixy"].publish("t", 100, "k1")
        self.assertEqual((raw.target, raw.body), ("/topics/t/messages?sync&key=k1", b"x" * 100))
        for kind in ("strimzi", "confluent-rest"):
            made = DIALECTS[kind].publish("t", 100, "k1")
            [record] = json.loads(made.body)["records"]
            self.assertEqual((made.target, made.headers["content-type"]), ("/topics/t", "application/vnd.kafka.binary.v2+json"))
            self.assertEqual((base64.b64decode(record["key"]), base64.b64decode(record["value"])), (b"k1", b"x" * 100))

    def test_batches(self) -> None:
        batch = DIALECTS["strimzi"].batch
        assert batch is not None
        self.assertEqual(len(json.loads(batch("t", 100).body)["records"]), 100)
        self.assertIsNone(DIALECTS["kafka-pixy"].batch)

    def test_a_consumer_instance_is_made_and_subscribed(self) -> None:
        """Reading from a v2 proxy takes an instance, which begins at the topic's first message."""
        with Listener() as listener:
            proxy = Peer("strimzi", "127.0.0.1", listener.port)
            request = proxy.dialect.read(proxy, "t", "g")
        made, subscribed = listener.asked
        name = json.loads(made.body)["name"]
        self.assertEqual((made.target, json.loads(made.body)["auto.offset.reset"]), ("/consumers/g", "earliest"))
        self.assertEqual(subscribed.target, f"/consumers/g/instances/{name}/subscription")
        self.assertEqual(json.loads(subscribed.body), {"topics": ["t"]})
        self.assertTrue(request.target.startswith(f"/consumers/g/instances/{name}/records?"))

    def test_a_refusal_is_told(self) -> None:
        def answer(asked: Asked) -> tuple[int, bytes]:
            return 404, b"no topic"

        with Listener(answer) as listener:
            proxy = Peer("kafka-pixy", "127.0.0.1", listener.port)
            self.assertRaisesRegex(LoadFailed, "404.*no topic", proxy.ask, proxy.dialect.publish("t", 1, "k"))
