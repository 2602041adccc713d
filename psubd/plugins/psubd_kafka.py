"""The storage on Kafka."""

from psubd.storage.kafka.factory import KafkaFactory

kafka = KafkaFactory()
