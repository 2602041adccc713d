"""The trade on three brokers, while one of them dies or hangs: nothing lost, nothing twice, in order."""

import time

from tests.integration.kafka_process.case import KafkaProcessCase, Publishing, Reading
from tests.integration.process.case import LONG

MESSAGES = 10_000 if LONG else 3_000
CONNECTIONS = 8
PARTITIONS = 6
SUBSCRIBERS = 4
HANG_S = 15 if LONG else 8
"""Longer than the brokers' session (3 s) and the replicas' patience (5 s): the one that hangs is given up, and comes back as an old one."""


class ThreeBrokersCase(KafkaProcessCase):
    """Replication 3, two in sync at least."""

    brokers = 3

    def assert_rising(self, messages: list[dict[str, object]]) -> None:
        last: dict[object, object] = {}
        for message in messages:
            self.assertGreater(message["offset"], last.get(message["partition"], -1))
            last[message["partition"]] = message["offset"]


class TradeTests(ThreeBrokersCase):
    def test_thousands(self) -> None:
        """10,000 messages (3,000 in a short run) of 1 KiB over 8 connections and 6 partitions; a broker is killed with -9 when a third of them is
        published, another one when a third is read by 4 subscribers of one group. All that was acknowledged is there, at the place that was
        answered; no offset comes twice; what was answered 503 is not there. A second group with one subscriber gets the same, in order per key. At
        the end all is in sync."""
        daemon = self.kafka_daemon().start()
        tenant = self.bound(daemon, self.shop, self.orders, PARTITIONS)
        publishing = Publishing(daemon, tenant, self.orders, CONNECTIONS, MESSAGES // CONNECTIONS)
        self.until(lambda: len(publishing.stored) > MESSAGES // 3, "a third published")
        self.cluster.kill(1)
        publishing.wait()
        self.assertEqual(len(publishing.stored), MESSAGES)
        self.assertEqual({partition for partition, _ in publishing.stored}, set(range(PARTITIONS)))
        self.cluster.restart(1)
        self.until(self.in_sync, "the first broker in sync")
        shares = [Reading(daemon, tenant, "group=workers&batchSize=20&timeout=1500") for _ in range(SUBSCRIBERS)]
        self.until(lambda: sum(len(share.messages) for share in shares) > MESSAGES // 3, "a third read")
        self.cluster.kill(2)
        got = [share.stop() for share in shares]
        twice = self.assert_kept(publishing, [message for share in got for message in share])
        for share in got:
            self.assert_rising(share)
        alone = Reading(daemon, tenant, "group=audit&batchSize=100&timeout=1500").stop()
        self.assertEqual(self.assert_kept(publishing, alone), twice)
        self.assert_rising(alone)
        self.assert_order_per_key(publishing, alone)
        self.cluster.restart(2)
        self.until(self.in_sync, "all in sync")
        self.assertNotIn("Traceback", daemon.output())
        print(f"\nthousands: {publishing}; of the 504 {twice} are there; polls told {[share.told for share in shares]}")


class HangTests(ThreeBrokersCase):
    """The storage's time is shorter here than Kafka needs to give up a broker that hangs: some publishes are answered 504."""

    settings = {"storage_timeout_ms": 3_000, "request_timeout_ms": 1_500}

    def test_a_broker_hangs(self) -> None:
        """One broker is stopped (SIGSTOP) for a while and goes on: its connections stand and nothing answers. Messages go on meanwhile, or are
        answered 503 or 504; what was acknowledged is there, in order per key, and what was answered 503 is not; the subscriber gets all of it,
        once."""
        daemon = self.kafka_daemon().start()
        tenant = self.bound(daemon, self.shop, self.orders, PARTITIONS)
        publishing = Publishing(daemon, tenant, self.orders, 4)
        reading = Reading(daemon, tenant, "batchSize=100&timeout=1500")
        self.until(lambda: len(publishing.stored) > 500, "five hundred")
        self.addCleanup(self.cluster.resume, 2)
        self.cluster.pause(2)
        before = len(publishing.stored)
        time.sleep(HANG_S)
        self.until(lambda: len(publishing.stored) > before + 500, "five hundred while it hangs")
        meanwhile = len(publishing.stored)
        self.cluster.resume(2)
        self.until(lambda: len(publishing.stored) > meanwhile + 1_000, "a thousand more with the broker back")
        publishing.stop()
        got = reading.stop()
        left = self.assert_kept(publishing, self.log(daemon, tenant))
        self.assertEqual(self.assert_kept(publishing, got), left)
        self.assert_rising(got)
        self.assert_order_per_key(publishing, got)
        self.until(self.in_sync, "all in sync")
        self.assertNotIn("Traceback", daemon.output())
        print(f"\nhang: {publishing}; {meanwhile - before} while it hung; of the 504 {left} are there; polls told {reading.told}")
