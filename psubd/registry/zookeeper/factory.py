"""``zk:``."""

from collections.abc import Mapping
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from psubd.interfaces import Environment, IRegistry, IRegistryFactory
from psubd.registry.zookeeper import settings as zookeeper_settings


@implementer(IPlugin, IRegistryFactory)
class ZooKeeperFactory:
    """Provides ``zk:``. kazoo is imported only when a registry is built: listing the schemes must stay quick."""

    scheme = zookeeper_settings.SCHEME
    usage = f"{zookeeper_settings.FORM}  ZooKeeper: many nodes; without a path it is {zookeeper_settings.DEFAULT_CHROOT}"
    shared = True

    def check(self, url: str, settings: Mapping[str, Any]) -> list[str]:
        found = []
        try:
            zookeeper_settings.place(url)
        except ValueError as wrong:
            found.append(f"registry: {wrong}")
        return [*found, *zookeeper_settings.mistakes(settings)]

    def build(self, url: str, environment: Environment) -> IRegistry:
        from psubd.registry.zookeeper.registry import ZooKeeperRegistry  # here: see above

        return ZooKeeperRegistry(
            zookeeper_settings.place(url),
            environment.state,
            environment.clock,
            environment.reactor,
            environment.settings,
            environment.metrics,
            environment.mode,
        )
