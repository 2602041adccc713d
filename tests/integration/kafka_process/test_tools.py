"""psubd's HTTP beside Kafka's own tools."""

import time
from typing import Any
from uuid import uuid4

from psubd.testing.daemon import Client, Daemon, Tenant, bind, make_topic
from tests.integration.kafka_process.case import KafkaProcessCase, Publishing, Reading, connections_of
from tests.integration.process.case import drained, together

SHOWN = [part for name in ("timestamp", "partition", "headers", "key") for part in ("--formatter-property", f"print.{name}=true")]
KEYED = ("--reader-property", "parse.key=true")
GROUPS, TOPICS = 200, 20


class ExchangeTests(KafkaProcessCase):
    """What one writes the other reads."""

    def test_the_console_consumer_reads_what_was_published(self) -> None:
        """With timestamp, partition, headers and key."""
        with self.kafka_daemon() as daemon:
            tenant = self.bound(daemon, self.shop, self.orders, 6)
            at = time.time_ns() // 1_000_000 - 5_000
            fields = {"key": "schlüssel".encode(), "timestamp": str(at), "header.colour": "red", "content-type": "text/plain"}
            reply = daemon.data(**tenant.publish).request("POST", f"/v1/pub/{self.orders}", "wert €".encode(), fields)  # type: ignore[arg-type]
            self.assertEqual((reply.status, reply.json["timestamp"]), (200, at), reply)
            (line,) = self.cluster.console_consumer(self.orders, 1, *SHOWN)
            time_part, partition, headers, key, value = line.split("\t")
            self.assertEqual((time_part, partition), (f"CreateTime:{at}", f"Partition:{reply.json['partition']}"))
            self.assertEqual(set(headers.split(",")), {"colour:red", "content-type:text/plain"})
            self.assertEqual((key, value), ("schlüssel", "wert €"))

    def test_sub_reads_what_the_console_producer_wrote(self) -> None:
        """With key, headers, and the producer's timestamp; a poll that waits gets it."""
        with self.kafka_daemon() as daemon:
            tenant = self.bound(daemon, self.shop, self.orders)
            reading = Reading(daemon, tenant, "timeout=1000")
            begun = time.time_ns() // 1_000_000
            self.cluster.console_producer(self.orders, ["h1:v1,h2:v2\tk\tvalue €"], *KEYED, "--reader-property", "parse.headers=true")
            self.until(lambda: reading.messages, "the message")
            (message,) = reading.stop()
            self.assertEqual((message["key"], message["value"], message["headers"]), ("k", "value €", {"h1": "v1", "h2": "v2"}))
            self.assertLess(abs(message["timestamp"] - begun), 60_000)

    def test_keys_lie_where_the_java_client_puts_them(self) -> None:
        """Three hundred keys on six partitions, from Kafka's own producer and in one batch through psubd: each key twice in one partition."""
        with self.kafka_daemon() as daemon:
            tenant = self.bound(daemon, self.shop, self.orders, 6)
            keys = [f"key-{number}" + "é" * (number % 5) for number in range(300)]
            self.cluster.console_producer(self.orders, [f"{key}\ttheirs" for key in keys], *KEYED)
            batch = {"records": [{"key": key, "value": "ours"} for key in keys]}
            self.assertEqual(daemon.data(**tenant.publish).send("POST", f"/v1/pub/{self.orders}/batch", batch).status, 200)
            places: dict[str, list[tuple[int, str]]] = {key: [] for key in keys}
            for message in self.log(daemon, tenant):
                places[message["key"]].append((message["partition"], message["value"]))
            self.assertEqual({partition for each in places.values() for partition, _ in each}, set(range(6)))
            for key, found in places.items():
                self.assertEqual(len(found), 2, key)
                self.assertEqual({value for _, value in found}, {"theirs", "ours"})
                self.assertEqual(len({partition for partition, _ in found}), 1, (key, found))


class GrowthTests(KafkaProcessCase):
    """Partitions that Kafka's own tool adds."""

    def test_two_to_three(self) -> None:
        """While messages are published and read the third partition is used and read, by a group that waits at the end and by one that lies behind;
        nothing is lost, nothing comes twice."""
        with self.kafka_daemon() as daemon:
            tenant = self.bound(daemon, self.shop, self.orders, 2)
            late = daemon.data(**tenant.subscribe)
            publishing = Publishing(daemon, tenant, self.orders, 4)
            reading = Reading(daemon, tenant, "batchSize=100&timeout=1500")
            self.until(lambda: len(publishing.stored) > 2_000 and len(reading.messages) > 500, "traffic")
            begun = late.request("GET", "/v1/sub?group=late&batchSize=10").json["messages"]
            self.cluster.topics("--alter", "--topic", self.orders, "--partitions", "3")
            used = self.until(lambda: any(partition == 2 for partition, _ in list(publishing.stored)), "a message in the third partition", 30)
            read = used + self.until(lambda: any(message["partition"] == 2 for message in list(reading.messages)), "it is read", 30)
            publishing.stop()
            got = reading.stop()
            self.assert_kept(publishing, got)
            rest = [message for messages in drained(late, "group=late&batchSize=500&timeout=1000") for message in messages]
            self.assert_kept(publishing, begun + rest)
            print(f"\ngrown: used after {used:.2f} s, read after {read:.2f} s; {publishing}")


class GroupTests(KafkaProcessCase):
    """psubd's groups in Kafka."""

    def described(self, group: str) -> dict[tuple[str, int], tuple[int, int, int]]:
        """Topic and partition -> committed, end and lag, as kafka-consumer-groups has them."""
        lines = self.cluster.groups("--describe", "--group", group).splitlines()
        rows = [line.split() for line in lines if line.startswith(group)]
        return {(row[1], int(row[2])): (int(row[3]), int(row[4]), int(row[5])) for row in rows}

    def test_the_lag(self) -> None:
        """kafka-consumer-groups --describe shows the application's group and a named one under psubd's prefix, with offsets, ends and lags."""
        with self.kafka_daemon() as daemon:
            tenant = self.bound(daemon, self.shop, self.orders, 2)
            publish, read = daemon.data(**tenant.publish), daemon.data(**tenant.subscribe)
            for n in range(10):
                publish.request("POST", f"/v1/pub/{self.orders}", b"x", {"partition": str(n % 2)})
            self.assertEqual(self.read(read, 7), 7)
            self.assertEqual(self.read(read, 10, "group=named"), 10)
            group = f"psubd.{self.shop}"
            self.until(lambda: sum(committed for committed, _, _ in self.described(group).values()) == 7, "the commit in Kafka")
            shown = self.described(group)
            self.assertEqual(set(shown), {(self.orders, 0), (self.orders, 1)})
            self.assertTrue(all(end == 5 and lag == end - committed for committed, end, lag in shown.values()), shown)
            self.until(lambda: set(self.described(f"{group}.named").values()) == {(5, 5, 0)}, "the named group at the end")
            items = daemon.manager().request("GET", f"/api/v1/groups/{self.shop}").json["items"]
            self.assertEqual({(self.orders, item["partition"]): (item["committed"], item["end"], item["lag"]) for item in items}, shown)

    def read(self, client: Client, count: int, query: str = "") -> int:
        """Read so many messages: an answer has what is at hand, perhaps fewer."""
        got = 0
        while got < count:
            got += len(client.request("GET", f"/v1/sub?{query}&batchSize={count - got}&timeout=10000").json["messages"])
        return got

    def test_two_hundred_groups(self) -> None:
        """200 groups on 20 topics, all polled at once: each gets all, and psubd holds no more connections to the broker than it says; while all
        wait, and when all have committed."""
        with self.kafka_daemon() as daemon:
            manager = daemon.manager()
            tenant = self.bound(daemon, self.shop, f"{self.orders}-0")
            topics = [f"{self.orders}-{n}" for n in range(TOPICS)]
            for topic in topics[1:]:
                make_topic(manager, topic, self.shop)
                bind(manager, self.shop, topic, pub=True, sub=True, start="earliest")
            publish = daemon.data(**tenant.publish)
            for topic in topics:
                self.assertEqual(publish.request("POST", f"/v1/pub/{topic}", b"first").status, 200)
            begun = time.monotonic()
            waiting = together(range(GROUPS), lambda n: self.rounds(daemon, tenant, n, topics, publish))
            took = time.monotonic() - begun
            manager = daemon.manager()  # a connection that was quiet so long may be closed
            status = manager.request("GET", "/api/v1/status").json["storage"]["status"]
            ports = set(self.cluster.ports.values())
            held = max([count for count in waiting if count] + [connections_of(daemon.pid, ports)])
            self.assertGreater(held, 0)
            self.assertLessEqual(held, status["connections_per_broker_at_most"])
            group = f"psubd.{self.shop}.g7"
            self.until(lambda: sum(committed for committed, _, _ in self.described(group).values()) == 2 * TOPICS, "a group's commits")
            print(f"\n200 groups: {held} connections to 1 broker at most, of {status['connections_per_broker_at_most']}; {took:.1f} s")

    def rounds(self, daemon: Daemon, tenant: Tenant, number: int, topics: list[str], publish: Client) -> int:
        """One group: the first messages, then a long poll which the last group's thread ends by publishing. What that one counted while all
        waited."""
        client, counted = daemon.data(**tenant.subscribe), 0
        self.take(client, number, "first", topics)
        if number == GROUPS - 1:
            time.sleep(3)
            counted = connections_of(daemon.pid, set(self.cluster.ports.values()))
            for topic in topics:
                assert publish.request("POST", f"/v1/pub/{topic}", b"second").status == 200
        self.take(client, number, "second", topics)
        return counted

    def take(self, client: Client, number: int, value: str, topics: list[str]) -> None:
        got: list[dict[str, Any]] = []
        while len(got) < len(topics):
            reply = client.request("GET", f"/v1/sub?group=g{number}&batchSize=100&timeout=60000")
            assert reply.status == 200, reply
            got += reply.json["messages"]
        assert sorted(message["topic"] for message in got) == sorted(topics), got
        assert {message["value"] for message in got} == {value}, got


class GapTests(KafkaProcessCase):
    """Offsets that no message has."""

    def test_aborted_transactions(self) -> None:
        """A group reads past what a transactional producer aborted, to the end, without those records; its lag is 0 then, in psubd and in Kafka."""
        from kafka import KafkaProducer

        with self.kafka_daemon() as daemon:
            tenant = self.bound(daemon, self.shop, self.orders)
            reading = Reading(daemon, tenant, "batchSize=10&timeout=1000")
            producer = KafkaProducer(bootstrap_servers=self.cluster.bootstrap, transactional_id=f"test-{uuid4().hex}")
            self.addCleanup(producer.close, 5)
            producer.init_transactions()
            for number, commit in enumerate((True, False, False, True, False)):
                producer.begin_transaction()
                for n in range(3):
                    producer.send(self.orders, b"%d-%d" % (number, n), partition=0).get(10)
                (producer.commit_transaction if commit else producer.abort_transaction)()
            values = [message["value"] for message in reading.stop()]
            self.assertEqual(values, ["0-0", "0-1", "0-2", "3-0", "3-1", "3-2"])
            fresh = [message["value"] for messages in drained(daemon.data(**tenant.subscribe), "group=fresh&timeout=500", 1) for message in messages]
            self.assertEqual(fresh, values)
            for group in (self.shop, f"{self.shop}.fresh"):
                self.assert_no_lag(daemon, group)
            self.assertEqual(daemon.data(**tenant.publish).request("POST", f"/v1/pub/{self.orders}", b"behind").json["offset"], 20)
            self.assertEqual(daemon.data(**tenant.subscribe).request("GET", "/v1/sub").json["messages"][0]["value"], "behind")

    def test_a_compacted_topic(self) -> None:
        """A group reads a topic to the end that Kafka's cleaner went over: the newest of each key, no stall in the holes, lag 0."""
        quick = {"min.cleanable.dirty.ratio": "0.01", "segment.ms": "200", "max.compaction.lag.ms": "500", "min.compaction.lag.ms": "0"}
        with self.kafka_daemon() as daemon:
            manager = daemon.manager()
            tenant = self.bound(daemon, self.shop, f"{self.orders}-other")
            make_topic(manager, self.orders, self.shop, cleanup="compact", config=quick)
            bind(manager, self.shop, self.orders, pub=True, sub=True, start="earliest")
            publish, read = daemon.data(**tenant.publish), daemon.data(**tenant.subscribe)
            for turn in range(4):
                records = [{"key": f"k{n % 10}", "value": f"{turn}"} for n in range(400)]
                self.assertEqual(publish.send("POST", f"/v1/pub/{self.orders}/batch", {"records": records}).status, 200)
                time.sleep(0.3)
            begun = read.request("GET", f"/v1/sub?group=early&topic={self.orders}&batchSize=7").json["messages"]
            touches = 0

            def cleaned() -> bool:
                nonlocal touches
                touches += 1
                publish.request("POST", f"/v1/pub/{self.orders}", b"", {"key": "touch"})
                time.sleep(0.3)
                return self.size_in_kafka() < 1_000

            self.until(cleaned, "the cleaner")
            daemon.stop()
            daemon.start()  # nothing that was read before the cleaning is at hand
            read = daemon.data(**tenant.subscribe)
            got = [message for messages in drained(read, f"topic={self.orders}&batchSize=100&timeout=1000") for message in messages]
            self.assertEqual({message["key"] for message in got}, {f"k{n}" for n in range(10)} | {"touch"})
            self.assertLess(len(got), 1_000)
            offsets = [message["offset"] for message in got]
            self.assertEqual(offsets, sorted(set(offsets)))
            self.assertEqual(offsets[-1], 1_599 + touches)
            self.assert_no_lag(daemon, self.shop)
            rest = [message for messages in drained(read, f"group=early&topic={self.orders}&batchSize=100&timeout=1000") for message in messages]
            self.assertEqual([message["offset"] for message in rest], [offset for offset in offsets if offset > begun[-1]["offset"]])
            self.assert_no_lag(daemon, f"{self.shop}.early")

    def size_in_kafka(self) -> int:
        """Records of the topic as a consumer of Kafka's gets them."""
        from kafka import KafkaConsumer
        from kafka.structs import TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=self.cluster.bootstrap, enable_auto_commit=False)
        try:
            place = TopicPartition(self.orders, 0)
            consumer.assign([place])
            consumer.seek_to_beginning(place)
            end, count = consumer.end_offsets([place])[place], 0
            while consumer.position(place) < end:
                count += sum(len(records) for records in consumer.poll(500).values())
            return count
        finally:
            consumer.close()

    def assert_no_lag(self, daemon: Daemon, group: str) -> None:
        def lags() -> list[int]:
            items = daemon.manager().request("GET", f"/api/v1/groups/{group}").json["items"]
            return [item["lag"] for item in items]

        self.until(lambda: set(lags()) == {0}, f"no lag of {group}")

        def in_kafka() -> set[str]:
            lines = self.cluster.groups("--describe", "--group", f"psubd.{group}").splitlines()
            return {line.split()[5] for line in lines if line.startswith("psubd.")}

        self.until(lambda: in_kafka() == {"0"}, f"no lag of {group} in Kafka")
