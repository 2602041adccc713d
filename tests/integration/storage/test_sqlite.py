"""The contract on SQLite, with its real threads and a real file."""

from psubd.testing.storage_contract import RetentionContract, StorageContract
from tests.integration.storage.rooms import SqliteCase


class SqliteStorageTests(StorageContract, SqliteCase):
    """The contract, reads near the end from memory."""


class SqliteFileTests(StorageContract, SqliteCase):
    """The contract, every read from the file."""

    settings = {"tail_bytes": 0}


class SqliteRetentionTests(RetentionContract, SqliteCase):
    """Retention and compaction, reads near the end from memory."""


class SqliteFileRetentionTests(RetentionContract, SqliteCase):
    """Retention and compaction, every read from the file."""

    settings = {"tail_bytes": 0}
