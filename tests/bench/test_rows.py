"""The rows' targets."""

from twisted.trial.unittest import SynchronousTestCase

from bench.__main__ import rows
from bench.growth import costs, driver_costs
from bench.proxies import peer
from bench.rows import lone
from bench.samples import Sample

BOUNDS = {
    "publish-rdkafka-128": [(">=", 0.75)],
    "publish-kafka-128": [(">=", 1.3)],
    "publish-kafka-32": [(">=", 1.0), ("<=", 1.5)],
    "publish-rdkafka-32": [(">=", 1.0), ("<=", 1.5)],
    "publish-sqlite-1": [("<=", 1.0)],
    "publish-kafka-1": [("<=", 1.0)],
    "publish-rdkafka-1": [("<=", 1.0)],
    "publish-sqlite-128": [(">=", 0.5)],
    "batch-kafka-json": [(">=", 0.6)],
    "batch-rdkafka-frames": [(">=", 0.6)],
    "batch-sqlite-frames": [(">=", 0.6)],
    "subscribe-sqlite-64": [(">=", 0.4)],
    "subscribe-memory-64": [(">=", 0.4)],
    "subscribe-kafka-64": [(">=", 0.4)],
    "subscribe-rdkafka-64": [(">=", 0.4)],
    "subscribe-kafka-1000-frames": [(">=", 0.5)],
    "subscribe-rdkafka-1000-json": [(">=", 0.3)],
    "polls-10000": [("<=", 12), ("<=", 5)],
    "groups-kafka-1000": [("<=", 64), ("<=", 14)],
    "topics-sqlite-1000": [("<=", 1.5)],
    "topics-rdkafka-1000": [("<=", 1.5)],
    "partitions-kafka-1000": [("<=", 1.5)],
    "partitions-kafka-1000-keys": [("<=", 1.2)],
}


class Targets(SynchronousTestCase):
    def test_they_are_those_that_were_promised(self) -> None:
        """Every line of the table of promises has its row, with its bounds."""
        by_name = {row.name: row for row in rows(())}
        found = {
            name: [(">=" if target.least else "<=", target.bound) for target in by_name[name].targets if target.bound is not None] for name in BOUNDS
        }
        self.assertEqual(found, BOUNDS)

    def test_one_connection(self) -> None:
        """Its median is held against the driver's round trip and 2.5 empty floors."""
        taken = {"psubd": Sample(p50_us=900), "floor": Sample(p50_us=80), "driver": Sample(p50_us=700)}
        self.assertEqual(lone(taken), 1.0)

    def test_growth_is_of_processor_time_a_message(self) -> None:
        """And with keys, of what the driver alone grows."""
        taken = {"psubd": Sample(cpu_us=60), "floor": Sample(cpu_us=40), "driver": Sample(cpu_us=30), "driver with one": Sample(cpu_us=10)}
        self.assertEqual((costs(taken), driver_costs(taken)), (1.5, 0.5))


class Peers(SynchronousTestCase):
    def test_they_stand_beside_what_they_can_do(self) -> None:
        """Each other proxy has a part in the rows on Kafka that its dialect knows, and in no other."""
        found = rows([peer("strimzi=http://h:1"), peer("kafka-pixy=http://h:2")])
        beside = {row.name: [name.split(" at ")[0] for name in row.parts if " at " in name] for row in found}
        self.assertEqual(beside["publish-kafka-128"], ["strimzi", "kafka-pixy"])
        self.assertEqual((beside["batch-kafka-json"], beside["batch-kafka-frames"]), (["strimzi"], []))
        self.assertEqual((beside["subscribe-rdkafka-64"], beside["subscribe-rdkafka-1000-json"]), (["kafka-pixy"], ["strimzi"]))
        self.assertEqual(beside["publish-sqlite-128"], [])
