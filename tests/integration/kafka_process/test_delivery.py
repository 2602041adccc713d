"""The promises of delivery over HTTP on Kafka: as on SQLite."""

from tests.integration.kafka_process.case import KafkaProcessCase
from tests.integration.process.test_delivery import KILLS, MESSAGES, STOPS, UNHURRIED, DeliveryStories, Ends


class DeliveryTests(DeliveryStories, KafkaProcessCase):
    def setUp(self) -> None:
        super().setUp()
        self.suffix = self.orders.removeprefix("orders")

    def test_kills(self) -> None:
        """kill -9 five times under random acks, nacks, lapses and dropped connections: every message is done or dead in the end; what was done comes
        again only after a kill within the commit interval; no two leases of a message stand at once; what is ordered comes in order."""
        self.story(self.kafka_daemon(), Ends(KILLS), 3)

    def test_stops(self) -> None:
        """The same with SIGTERM: leases, tokens, attempts and delays go on in the next process, and nothing that was done comes again."""
        self.story(self.kafka_daemon(), Ends(STOPS, "stop"), 4, MESSAGES // 2, UNHURRIED)
