import os

from prometheus_client import CollectorRegistry
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

import psubd.plugins
from psubd.errors import ConfigError
from psubd.interfaces import Environment, IStorage, IStorageFactory
from psubd.storage.memory import MemoryFactory, MemoryStorage
from psubd.storage.sqlite import SqliteFactory, SqliteStorage
from psubd.storage.sqlite.settings import SqliteSettings, parse
from psubd.testing.clock import FakeClock


class FactoryTests(SynchronousTestCase):
    def test_both_schemes_are_found_as_plugins(self) -> None:
        """The drop-in under psubd/plugins names memory and sqlite."""
        found = {factory.scheme: factory for factory in getPlugins(IStorageFactory, psubd.plugins)}
        self.assertLessEqual({"memory", "sqlite"}, set(found))
        for scheme in ("memory", "sqlite"):
            self.assertTrue(verifyObject(IStorageFactory, found[scheme]))
            self.assertFalse(found[scheme].shared)
            self.assertTrue(found[scheme].usage.startswith(f"{scheme}:"))

    def test_providers_keep_the_interfaces(self) -> None:
        """Both storages and both factories have every member, with its parameters."""
        for storage in (MemoryStorage, SqliteStorage):
            self.assertTrue(verifyClass(IStorage, storage))
        for factory in (MemoryFactory, SqliteFactory):
            self.assertTrue(verifyClass(IStorageFactory, factory))

    def test_every_mistake_is_told(self) -> None:
        """A relative path, unknown names, wrong types and ranges: a line each that names the setting."""
        factory = SqliteFactory()
        settings = {"reader_threads": 0, "retention_interval_ms": "30", "nonsense": 1, "max_bytes": 5, "tail_bytes": True}
        mistakes = factory.check("sqlite:relative", settings)
        self.assertEqual(6, len(mistakes))
        for word in ("relative", *settings):
            self.assertEqual(1, len([mistake for mistake in mistakes if f" {word}:" in mistake or f"{word}'" in mistake]), word)
        self.assertEqual([], factory.check("sqlite:", {}))
        self.assertEqual([], factory.check("sqlite:/some/file.db", {"reader_threads": 2, "max_bytes": 1 << 30}))
        for url in ("sqlite:/folder/", "sqlite:/nul\0", "sqlite:host/file"):
            self.assertEqual(1, len(factory.check(url, {})), url)

    def test_settings_that_are_wrong_build_nothing(self) -> None:
        """ConfigError with the same lines."""
        with self.assertRaises(ConfigError):
            parse({"reader_threads": 0})
        self.assertEqual(SqliteSettings(reader_threads=2), parse({"reader_threads": 2}))

    def test_where_the_file_is(self) -> None:
        """In the state folder, or where the URL says; nothing is touched before start."""
        state = os.path.abspath(self.mktemp())
        for url, path in (("sqlite:", f"{state}/storage.sqlite"), ("sqlite:/x/y.db", "/x/y.db")):
            storage = SqliteFactory().build(url, Environment(state, {}, FakeClock(), None, CollectorRegistry()))
            self.assertEqual(path, storage.status()["path"])
            self.assertIsNotNone(storage.trouble())
        self.assertFalse(os.path.exists(state))
