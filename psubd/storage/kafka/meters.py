"""What the storage counts."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from psubd.counts import Spread, Spreads
from psubd.model import Acks
from psubd.storage.kafka.client import KafkaClient

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)


class Meters(Collector):
    """Metrics of one Kafka storage, registered once in ``registry``. Most are numbers that the client's threads count anyway, read when they are
    scraped.

    :param client: gives the client, None before it was started.
    """

    def __init__(self, registry: CollectorRegistry, client: Callable[[], KafkaClient | None]) -> None:
        self._client = client
        self.served = {"shelf": 0, "broker": 0, "end": 0}
        seconds = Spreads("psubd_kafka_publish_seconds", "Seconds from accepting a message to its answer.", ["acks"], registry, bounds=BOUNDS)
        self.publish_seconds: dict[Acks, Spread] = {"0": seconds.labels("0"), "1": seconds.labels("1"), "all": seconds.labels("all")}
        self.failures = {"commit": 0, "read": 0}
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        client = self._client()
        yield from self._publishing(client)
        reads = CounterMetricFamily("psubd_kafka_reads", "Reads, by what served them: memory, a broker, or the known end.", labels=["by"])
        for by, count in self.served.items():
            reads.add_metric([by], count)
        yield reads
        failed = CounterMetricFamily("psubd_kafka_failures", "Calls that failed.", labels=["call"])
        for call, count in self.failures.items():
            failed.add_metric([call], count)
        yield failed
        requests, fetches, connections, up = (
            (0, 0, 0, 0) if client is None else (client.groups.requests, client.tail.fetches, client.connections, int(client.atlas.trouble is None))
        )
        yield CounterMetricFamily("psubd_kafka_commit_requests", "Commit requests that were sent.", value=requests)
        yield CounterMetricFamily("psubd_kafka_tail_fetches", "Long polls at the ends of partitions.", value=fetches)
        yield GaugeMetricFamily("psubd_kafka_connections", "Connections to brokers that stand.", value=connections)
        yield GaugeMetricFamily("psubd_kafka_up", "Whether Kafka answers.", value=up)

    def _publishing(self, client: KafkaClient | None) -> Iterable[Metric]:
        batches = CounterMetricFamily("psubd_kafka_batches", "Record batches that were sent.", labels=["acks"])
        records = CounterMetricFamily("psubd_kafka_records", "Records that were stored.", labels=["acks"])
        failed = CounterMetricFamily("psubd_kafka_failed_records", "Records that were not stored, or may not be.", labels=["acks"])
        retries = CounterMetricFamily("psubd_kafka_retries", "Batches that were sent again.", labels=["acks"])
        queued = GaugeMetricFamily("psubd_kafka_queued_bytes", "Of records that wait for Kafka.", labels=["acks"])
        for acks, outbox in () if client is None else client.outboxes.items():
            batches.add_metric([acks], outbox.sent_batches)
            records.add_metric([acks], outbox.sent_records)
            failed.add_metric([acks], outbox.failed_records)
            retries.add_metric([acks], outbox.retries)
            queued.add_metric([acks], outbox.queued_bytes)
        yield from (batches, records, failed, retries, queued)
