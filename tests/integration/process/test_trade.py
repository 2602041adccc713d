"""The trade on the real daemon, over real HTTP: many publishers, many subscribers, nothing lost, nothing twice, in order."""

from collections import defaultdict
from typing import Any

from psubd.testing.daemon import Daemon, Tenant
from tests.integration.process.case import ProcessCase, drained, together

MESSAGES = 10_000
CONNECTIONS = 8
PARTITIONS = 6
SUBSCRIBERS = 4
KEYS = 25


class TradeTests(ProcessCase):
    def publish(self, daemon: Daemon, tenant: Tenant) -> dict[tuple[int, int], str]:
        """10,000 messages of 1 KiB over 8 connections, each with keys of its own. What each place answered to hold."""

        def connection(number: int) -> dict[tuple[int, int], str]:
            client = daemon.data(**tenant.publish)
            stored = {}
            for n in range(MESSAGES // CONNECTIONS):
                value = f"{number}-{n}".ljust(1024, ".")
                reply = client.request("POST", "/v1/pub/orders", value.encode(), {"key": f"{number}-{n % KEYS}"})
                assert reply.status == 200, reply
                stored[reply.json["partition"], reply.json["offset"]] = value
            return stored

        stored: dict[tuple[int, int], str] = {}
        for part in together(range(CONNECTIONS), connection):
            stored.update(part)
        return stored

    def read(self, daemon: Daemon, tenant: Tenant, group: str) -> list[dict[str, Any]]:
        """All that one subscriber gets, in the order in which it came."""
        client = daemon.data(**tenant.subscribe)
        return [message for messages in drained(client, f"group={group}&batchSize=100&timeout=1500") for message in messages]

    def test_ten_thousand(self) -> None:
        """10,000 messages of 1 KiB over 8 connections and 6 partitions, read by 4 subscribers of one group: all there, no offset twice, each
        subscriber sees each partition's offsets rising. A second group with one subscriber gets them all, in order per key."""
        with self.daemon() as daemon:
            tenant = self.bound(daemon, partitions=PARTITIONS)
            stored = self.publish(daemon, tenant)
            self.assertEqual(len(stored), MESSAGES)
            self.assertEqual({partition for partition, _ in stored}, set(range(PARTITIONS)))
            shares = together(range(SUBSCRIBERS), lambda _: self.read(daemon, tenant, "workers"))
            self.assert_each_once(stored, [message for share in shares for message in share])
            for share in shares:
                self.assert_rising(share)
            alone = self.read(daemon, tenant, "audit")
            self.assert_each_once(stored, alone)
            self.assert_rising(alone)
            self.assert_order_per_key(alone)

    def assert_each_once(self, stored: dict[tuple[int, int], str], messages: list[dict[str, Any]]) -> None:
        got = {(message["partition"], message["offset"]): message["value"] for message in messages}
        self.assertEqual(len(got), len(messages), "an offset came twice")
        self.assertTrue(got == stored, "something is missing, or came with another value")

    def assert_rising(self, messages: list[dict[str, Any]]) -> None:
        last: dict[int, int] = defaultdict(lambda: -1)
        for message in messages:
            self.assertGreater(message["offset"], last[message["partition"]])
            last[message["partition"]] = message["offset"]

    def assert_order_per_key(self, messages: list[dict[str, Any]]) -> None:
        """A key's messages come in the order in which its one publisher sent them."""
        last: dict[str, int] = defaultdict(lambda: -1)
        for message in messages:
            number = int(message["value"].rstrip(".").split("-")[1])
            self.assertGreater(number, last[message["key"]])
            last[message["key"]] = number
