"""``sqlite:``: the durable embedded storage.

From the reactor's thread to the disk and back:

    backend (async face) -> writer (one thread, one transaction for all that waits) -> store (blocking half) -> database (commits, faults)
    backend -> reading (a few threads, each with a connection of its own; WAL shows them only what is committed)
    backend -> mirror (ends, topics, the newest messages, who waits: in memory, moved when a transaction has ended)

``sweep`` is retention and compaction, done by the writer between transactions; ``schema`` is the tables and why they are as they are.
"""

from psubd.storage.sqlite.backend import SqliteStorage
from psubd.storage.sqlite.factory import SqliteFactory

__all__ = ["SqliteFactory", "SqliteStorage"]
