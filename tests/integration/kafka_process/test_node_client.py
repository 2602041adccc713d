"""Confluent's own Node client, unchanged, against psubd on real Kafka."""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from psubd.testing import npm
from psubd.testing.daemon import Daemon, Tenant, bind, make_topic, register
from tests.integration.kafka_process.case import KafkaProcessCase
from tests.integration.process.case import with_pytest

SCRIPT = Path(__file__).with_name("kafka_rest_client.js")
RUN_S = 120


@with_pytest
class NodeClientTests(KafkaProcessCase):
    def setUp(self) -> None:
        npm.need()
        super().setUp()

    def test_whole_round(self) -> None:
        """It sees brokers, topics and partitions, produces to topic and partition, consumes all of it once and in order, commits, leaves; who joins
        the group next gets only what came later; an unknown topic is 404 with Confluent's number."""
        daemon = self.kafka_daemon().start()
        tenant = self.tenant(daemon)
        seen = self.run_client(daemon, tenant)
        self.assertIn(self.orders, seen["topics"])
        self.assertEqual(seen["partitions"], [0, 1])
        self.assertEqual((seen["topic"]["name"], len(seen["topic"]["partitions"])), (self.orders, 2))
        leaders = {partition["leader"] for partition in seen["topic"]["partitions"]}
        self.assertLessEqual(leaders, set(seen["brokers"]))
        self.assertEqual([place.get("error_code") for place in seen["produced"]["offsets"]], [None] * 4)
        self.assertEqual(seen["produced"]["offsets"][2]["partition"], 1)
        self.assertEqual(seen["producedToPartition"]["offsets"][0]["partition"], 0)
        first = seen["first"]["messages"]
        self.assertEqual(sorted(message["value"] for message in first), ["bytes", "keyed", "placed", "plain", "to a partition"])
        self.assertEqual([message["key"] for message in first if message["value"] == "keyed"], ["k"])
        self.assert_in_order(first)
        last = {partition: max(m["offset"] for m in first if m["partition"] == partition) for partition in {m["partition"] for m in first}}
        told = {mark["partition"]: (mark["topic"], mark["consumed"], mark["committed"]) for mark in seen["first"]["committed"]}
        self.assertEqual(told, {partition: (self.orders, offset, offset) for partition, offset in last.items()})
        self.assertEqual([message["value"] for message in seen["second"]["messages"]], ["later"])
        self.assertNotEqual(seen["first"]["id"], seen["second"]["id"])
        self.assertEqual(seen["missing"], {"status": 404, "code": 40401})

    def tenant(self, daemon: Daemon) -> Tenant:
        manager = daemon.manager()
        made = register(manager, self.shop)
        make_topic(manager, self.orders, self.shop, partitions=2)
        bind(manager, self.shop, self.orders, pub=True, sub=True, start="earliest")
        return made

    def run_client(self, daemon: Daemon, tenant: Tenant) -> Any:
        shown = ":".join((tenant.publish["pubkey"], tenant.publish["secret"], tenant.subscribe["subkey"]))
        authorization = "Basic " + base64.b64encode(shown.encode()).decode()
        url = f"http://127.0.0.1:{daemon.ports.data}"
        environ = {**os.environ, "NODE_PATH": str(npm.package("kafka-rest", "0.0.5")), "NODE_NO_WARNINGS": "1"}
        command = ["node", str(SCRIPT), url, authorization, self.orders, f"group-{self.shop}"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, env=environ, check=False)
        self.assertEqual(ran.returncode, 0, f"{ran.stdout}\n{ran.stderr}\n{daemon.output()[-3000:]}")
        return json.loads(ran.stdout)

    def assert_in_order(self, messages: list[dict[str, Any]]) -> None:
        """Each partition's offsets rise, none twice."""
        for partition in {message["partition"] for message in messages}:
            offsets = [message["offset"] for message in messages if message["partition"] == partition]
            self.assertEqual(offsets, sorted(set(offsets)))
