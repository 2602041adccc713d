"""Confluent's routes on a real Kafka."""

from psubd.testing import kafka
from psubd.testing.confluent_contract import ConfluentContract, RestartsContract
from tests.integration.http.case import HttpCase


class KafkaConfluentTests(ConfluentContract, HttpCase, RestartsContract):
    """`kafka://`, one broker."""

    cluster: kafka.Cluster

    @classmethod
    def storage(cls) -> str:
        cls.cluster = kafka.shared(1)
        return cls.cluster.url

    def test_the_daemon_is_on_kafka(self) -> None:
        """What these tests drive stores on the cluster that they started."""
        storage = self.manage("GET", "status").json["storage"]["status"]
        self.assertEqual((storage["kind"], storage["bootstrap"]), ("kafka", [self.cluster.bootstrap]))
