"""What ``kafka://`` holds, through librdkafka where that matters."""

from psubd.errors import StorageTimeout, StorageUnavailable
from psubd.storage.kafka.rd_backend import RdKafkaStorage
from tests.integration.kafka import test_failures, test_publish, test_security


class RdPoisons(test_publish.Poisons):
    """No record makes another one fail, though librdkafka fails a batch whole."""

    driver = RdKafkaStorage
    orderly = False


class RdLevels(test_publish.Levels):
    """Levels of acks, and what the storage holds back."""

    driver = RdKafkaStorage


class RdOneOfThree(test_failures.OneOfThree):
    """A broker is killed, comes back, hangs."""

    driver = RdKafkaStorage


class RdAway(test_failures.Away):
    """The only broker goes, or was never there. What librdkafka was given it does not tell from what it sent."""

    driver = RdKafkaStorage
    cut_off = (StorageUnavailable, StorageTimeout)


class RdSecurity(test_security.Security):
    """A listener with TLS and SASL."""

    driver = RdKafkaStorage
