"""Which registries there are, and how a URL names one."""

from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from psubd import plugins
from psubd.interfaces import Environment, INodes, IRegistry, IRegistryFactory
from psubd.registry.local import LocalFactory, LocalRegistry
from psubd.testing.clock import FakeClock


class FactoryTests(SynchronousTestCase):
    """`psubd.registry.local.LocalFactory`."""

    def test_found(self) -> None:
        """The drop-in names the sqlite: registry, for one node."""
        [found] = [factory for factory in getPlugins(IRegistryFactory, plugins) if factory.scheme == "sqlite"]
        self.assertTrue(verifyObject(IRegistryFactory, found))
        self.assertFalse(found.shared)

    def test_class(self) -> None:
        """What it builds provides both interfaces."""
        self.assertTrue(verifyClass(IRegistry, LocalRegistry))

    def test_urls(self) -> None:
        """An absolute path or none is taken; everything else is told, with the setting's name."""
        factory = LocalFactory()
        for url in ("sqlite:", "sqlite:/var/lib/psubd/registry.sqlite"):
            self.assertEqual(factory.check(url, {}), [])
        for url in ("sqlite:relative", "sqlite://host/path", "sqlite:///path", "sqlite:/folder/", "sqlite:/a\0b", "sqlite:./x"):
            [mistake] = factory.check(url, {})
            self.assertIn("registry:", mistake)
        self.assertEqual(len(factory.check("sqlite:x", {"speed": 9, "size": 1})), 3)

    def test_build(self) -> None:
        """Without a path the file is in the state folder; nothing is touched before the start."""
        state = self.mktemp()
        environment = Environment(state, {}, FakeClock(), None, None, mode="pub")
        factory = LocalFactory()
        registry = factory.build("sqlite:", environment)
        self.assertEqual(registry.store.path, f"{state}/registry.sqlite")
        self.assertEqual(factory.build("sqlite:/a/b", environment).store.path, "/a/b")
        self.assertTrue(INodes.providedBy(registry))
        [node] = registry.nodes()
        self.assertEqual((node["mode"], node["eligible"]), ("pub", False))
        self.assertEqual(registry.trouble(), "the registry has not started")
        self.successResultOf(registry.stop())
