"""The floor under a request: what this machine gives with no psubd in the way.

A bare Twisted protocol on llhttp (httptools) that answers every request, with nothing behind it, or with one Kafka driver and acks=all.
No routing, no credentials, no limits, no errors: a yardstick to divide by in the same run, not code to build on.

    python -m bench.floor none|kafka-python|confluent [--kafka HOST:PORT] [--topic T] [--port 0]

Prints its port when it serves. The topic must exist.
"""

import argparse
import threading
from collections.abc import Iterable
from typing import Any

import httptools
from twisted.internet import protocol
from twisted.internet import reactor as the_reactor

reactor: Any = the_reactor

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
BODY = b'{"topic":"t","partition":%d,"offset":%d,"timestamp":%d}'

Placed = tuple[Any, int, int, int]
"""A connection, and where its record is: partition, offset, timestamp."""


def answer(placed: Iterable[Placed]) -> None:
    for connection, partition, offset, timestamp in placed:
        if connection.connected:
            body = BODY % (partition, offset, timestamp)
            connection.transport.write(HEAD % (len(body), body))


class NoDriver:
    """Answers at once."""

    def send(self, connection: Any, key: bytes | None, value: bytes) -> None:
        answer([(connection, 0, 41, 1)])


class Confluent:
    """confluent-kafka, its answers gathered by a thread that polls."""

    def __init__(self, kafka: str, topic: str) -> None:
        from confluent_kafka import Producer

        self.topic = topic
        self.placed: list[Placed] = []
        self.producer = Producer({"bootstrap.servers": kafka, "acks": "all", "linger.ms": 1})
        threading.Thread(target=self.poll, daemon=True).start()

    def send(self, connection: Any, key: bytes | None, value: bytes) -> None:
        def delivered(error: Any, message: Any) -> None:
            self.placed.append((connection, message.partition(), message.offset(), message.timestamp()[1]))

        self.producer.produce(self.topic, value, key, on_delivery=delivered)

    def poll(self) -> None:
        while True:
            self.producer.poll(0.05)
            if self.placed:
                placed, self.placed = self.placed, []
                reactor.callFromThread(answer, placed)


class KafkaPython:
    """kafka-python, fed from a thread with what a millisecond gathers."""

    def __init__(self, kafka: str, topic: str) -> None:
        from kafka import KafkaProducer

        self.topic = topic
        self.waiting: list[tuple[Any, bytes | None, bytes]] = []
        self.placed: list[Placed] = []
        self.producer = KafkaProducer(bootstrap_servers=kafka, acks="all", linger_ms=1, batch_size=256 * 1024)
        self.producer.partitions_for(topic)

    def send(self, connection: Any, key: bytes | None, value: bytes) -> None:
        self.waiting.append((connection, key, value))
        if len(self.waiting) == 1:
            reactor.callLater(0.001, self.hand_over)

    def hand_over(self) -> None:
        waiting, self.waiting = self.waiting, []
        reactor.callInThread(self.produce, waiting)

    def produce(self, waiting: list[tuple[Any, bytes | None, bytes]]) -> None:
        for connection, key, value in waiting:
            self.producer.send(self.topic, value, key).add_callback(self.delivered, connection)

    def delivered(self, connection: Any, meta: Any) -> None:
        self.placed.append((connection, meta.partition, meta.offset, meta.timestamp))
        if len(self.placed) == 1:
            reactor.callFromThread(self.flush)

    def flush(self) -> None:
        placed, self.placed = self.placed, []
        answer(placed)


class Http(protocol.Protocol):
    """A connection. llhttp calls the methods that begin with ``on_``."""

    factory: Any

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        self.parser = httptools.HttpRequestParser(self)
        self.key: bytes | None = None
        self.body: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"key":
            self.key = value

    def on_body(self, chunk: bytes) -> None:
        self.body.append(chunk)

    def on_message_complete(self) -> None:
        key, body, self.key, self.body = self.key, b"".join(self.body), None, []
        self.factory.driver.send(self, key, body)


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m bench.floor", description=(__doc__ or "").splitlines()[0])
    options.add_argument("driver", choices=["none", "kafka-python", "confluent"])
    options.add_argument("--kafka", default="127.0.0.1:9092")
    options.add_argument("--topic", default="floor")
    options.add_argument("--port", type=int, default=0)
    args = options.parse_args()
    factory: Any = protocol.Factory.forProtocol(Http)
    factory.noisy = False
    drivers: dict[str, Any] = {"none": lambda *_: NoDriver(), "kafka-python": KafkaPython, "confluent": Confluent}
    factory.driver = drivers[args.driver](args.kafka, args.topic)
    print(reactor.listenTCP(args.port, factory, interface="127.0.0.1").getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
