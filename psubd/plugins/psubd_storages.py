"""psubd's own storages."""

from psubd.storage.memory import MemoryFactory
from psubd.storage.sqlite import SqliteFactory

memory = MemoryFactory()
sqlite = SqliteFactory()
