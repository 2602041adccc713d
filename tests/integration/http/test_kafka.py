"""The HTTP contract on a real Kafka."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic

from psubd.testing import kafka
from psubd.testing.http_contract import HttpContract, OutsideContract, RestartsContract
from tests.integration.http.case import HttpCase


class KafkaHttpTests(HttpContract, OutsideContract, HttpCase, RestartsContract):
    """`kafka://`, one broker; what others do to topics is done with the driver's own admin client."""

    cluster: kafka.Cluster

    @classmethod
    def storage(cls) -> str:
        cls.cluster = kafka.shared(1)
        return cls.cluster.url

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        admin = KafkaAdminClient(bootstrap_servers=self.cluster.bootstrap)
        try:
            yield admin
        finally:
            admin.close()

    def lose(self, topic: str) -> None:
        with self.admin() as admin:
            admin.delete_topics([topic])
            self.until(lambda: topic not in admin.list_topics(), "the topic is gone")

    def found(self, topic: str, partitions: int, settings: Mapping[str, str]) -> None:
        with self.admin() as admin:
            admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=dict(settings))])
            self.until(lambda: topic in admin.list_topics(), "the topic is there")

    def set_up(self, topic: str, settings: Mapping[str, str]) -> None:
        with self.admin() as admin:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=dict(settings))])

    def produce(self, topic: str, value: bytes) -> None:
        producer = KafkaProducer(bootstrap_servers=self.cluster.bootstrap)
        try:
            producer.send(topic, value).get(30)
        finally:
            producer.close()

    def test_the_daemon_is_on_kafka(self) -> None:
        """What these tests drive stores on the cluster that they started."""
        storage = self.manage("GET", "status").json["storage"]["status"]
        self.assertEqual((storage["kind"], storage["bootstrap"]), ("kafka", [self.cluster.bootstrap]))

    def test_names_that_kafka_takes_for_one(self) -> None:
        """`a_b` beside `a.b` is refused by Kafka: 400 that says so, and it is not registered."""
        stand, name = self.stand(), self.name()
        self.manage("POST", "topics", {"id": f"{name}.a", "owner": stand.id}, 201)
        refused = self.manager.send("POST", "/api/v1/topics", {"id": f"{name}_a", "owner": stand.id})
        self.assert_refused(refused, 400, "bad_body")
        self.assertEqual(self.manager.request("GET", f"/api/v1/topics/{name}_a").status, 404)
