"""The storage contract on a real Kafka."""

from psubd.testing.storage_contract import StorageContract
from tests.integration.kafka.hosts import KafkaCase


class KafkaContract(StorageContract, KafkaCase):
    """`StorageContract` with one broker."""

    name = StorageContract.name
    until = StorageContract.until
