"""What the storage counts."""

from prometheus_client import CollectorRegistry, Counter

from psubd.counts import Counts, Spreads


class Meters:
    """Metrics of one SQLite storage, registered once in ``registry``. The writer's thread alone counts transactions and records; failures are counted
    from the readers' threads too, where the client locks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.transactions = Counts("psubd_storage_transactions", "Transactions that were committed.", (), registry).labels()
        self.records = Counts("psubd_storage_records", "Records that were stored.", (), registry).labels()
        self.batch = Spreads(
            "psubd_storage_transaction_records",
            "Records in a transaction that stored some.",
            (),
            registry,
            bounds=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384),
        ).labels()
        self.seconds = Spreads(
            "psubd_storage_commit_seconds",
            "Seconds that a transaction took, from its begin until it was on stable storage.",
            (),
            registry,
            bounds=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
        ).labels()
        self.failures = Counter("psubd_storage_failures", "Transactions and reads that failed, by why.", ["kind"], registry=registry)
        self.swept = Counter("psubd_storage_swept_records", "Records that retention and compaction took away.", registry=registry)
