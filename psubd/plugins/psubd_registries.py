"""psubd's own registries."""

from psubd.registry.local import LocalFactory
from psubd.registry.zookeeper.factory import ZooKeeperFactory

sqlite = LocalFactory()
zookeeper = ZooKeeperFactory()
