"""The plugin that provides ``sqlite:``."""

from collections.abc import Mapping
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from psubd.interfaces import Environment, IStorage, IStorageFactory
from psubd.storage.sqlite.backend import SqliteStorage
from psubd.storage.sqlite.settings import mistakes, path_of, url_mistakes


@implementer(IPlugin, IStorageFactory)
class SqliteFactory:
    """Provides ``sqlite:``."""

    scheme = "sqlite"
    usage = "sqlite:[/path/of/the/file]  the embedded log, durable, of one node (default: storage.sqlite in the state folder)"
    shared = False

    def check(self, url: str, settings: Mapping[str, Any]) -> list[str]:
        return [*url_mistakes(url), *mistakes(settings)]

    def build(self, url: str, environment: Environment) -> IStorage:
        return SqliteStorage(path_of(url, environment.state), environment.clock, environment.reactor, environment.settings, environment.metrics)
