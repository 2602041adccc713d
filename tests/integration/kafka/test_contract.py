"""The storage contract on a real Kafka."""

from psubd.storage.kafka.rd_backend import RdKafkaStorage
from psubd.testing.storage_contract import StorageContract
from tests.integration.kafka.hosts import KafkaCase


class RdKafkaContract(StorageContract, KafkaCase):
    """The same through librdkafka."""

    driver = RdKafkaStorage
    name = StorageContract.name
    until = StorageContract.until


class KafkaContract(StorageContract, KafkaCase):
    """`StorageContract` with one broker."""

    name = StorageContract.name
    until = StorageContract.until
