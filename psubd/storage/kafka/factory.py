"""``kafka:``."""

from collections.abc import Mapping
from typing import Any

import msgspec
from twisted.plugin import IPlugin
from zope.interface import implementer

from psubd.interfaces import Environment, IStorage, IStorageFactory
from psubd.storage.kafka import settings as kafka_settings


@implementer(IPlugin, IStorageFactory)
class KafkaFactory:
    """Provides ``kafka:``. The driver is imported only when a storage is checked or built: it takes a third of a second."""

    scheme = kafka_settings.SCHEME
    usage = "kafka://host:port,host:port  a Kafka cluster, through kafka-python"
    shared = True

    def check(self, url: str, settings: Mapping[str, Any]) -> list[str]:
        found = []
        try:
            kafka_settings.addresses(url)
        except ValueError as wrong:
            found.append(f"storage: {wrong}")
        try:
            chosen = kafka_settings.convert(settings)
        except msgspec.ValidationError as wrong:
            return [*found, f"storage.kafka: {wrong}"]
        return [*found, *kafka_settings.mistakes(chosen)]

    def build(self, url: str, environment: Environment) -> IStorage:
        from psubd.storage.kafka.backend import KafkaStorage  # here: see above

        return KafkaStorage(kafka_settings.addresses(url), environment.clock, environment.reactor, environment.settings, environment.metrics)
