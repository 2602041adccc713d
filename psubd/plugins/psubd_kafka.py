"""The storages on Kafka."""

from psubd.storage.kafka.factory import KafkaFactory, RdKafkaFactory

kafka = KafkaFactory()
rdkafka = RdKafkaFactory()
