"""``kafka:`` and ``rdkafka:``."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
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
    convert: Callable[[Mapping[str, Any]], kafka_settings.KafkaSettings] = staticmethod(kafka_settings.convert)

    def check(self, url: str, settings: Mapping[str, Any]) -> list[str]:
        return [*self._absent(), *checked(url, settings, self.scheme, self.convert)]

    def _absent(self) -> list[str]:
        """What is not installed."""
        return []

    def build(self, url: str, environment: Environment) -> IStorage:
        from psubd.storage.kafka.backend import KafkaStorage  # here: see above

        return KafkaStorage(self._addresses(url), environment.clock, environment.reactor, environment.settings, environment.metrics)

    def _addresses(self, url: str) -> list[str]:
        return kafka_settings.addresses(url, self.scheme)


@implementer(IPlugin, IStorageFactory)
class RdKafkaFactory(KafkaFactory):
    """Provides ``rdkafka:``. The second driver is looked for only when a storage is checked or built: it comes with ``psubd[rdkafka]``."""

    scheme = kafka_settings.RD_SCHEME
    usage = "rdkafka://host:port,host:port  the same, publishing through librdkafka (needs psubd[rdkafka])"
    convert = staticmethod(kafka_settings.convert_rd)

    def _absent(self) -> list[str]:
        if find_spec("confluent_kafka") is None:
            return ["storage: rdkafka:// needs the package confluent-kafka; install it with psubd: pip install 'psubd[rdkafka]'"]
        return []

    def build(self, url: str, environment: Environment) -> IStorage:
        from psubd.storage.kafka.rd_backend import RdKafkaStorage  # here: see above

        return RdKafkaStorage(self._addresses(url), environment.clock, environment.reactor, environment.settings, environment.metrics)


def checked(url: str, settings: Mapping[str, Any], scheme: str, convert: Callable[[Mapping[str, Any]], kafka_settings.KafkaSettings]) -> list[str]:
    """Every mistake in the URL and the settings."""
    found = []
    try:
        kafka_settings.addresses(url, scheme)
    except ValueError as wrong:
        found.append(f"storage: {wrong}")
    try:
        chosen = convert(settings)
    except msgspec.ValidationError as wrong:
        return [*found, f"storage.{scheme}: {wrong}"]
    return [*found, *kafka_settings.mistakes(chosen, scheme)]
