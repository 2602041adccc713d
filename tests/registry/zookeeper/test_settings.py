"""``[registry.zk]`` and the URL."""

import msgspec
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from psubd import plugins
from psubd.interfaces import Environment, IMembership, INodes, IRegistry, IRegistryFactory
from psubd.registry.zookeeper.factory import ZooKeeperFactory
from psubd.registry.zookeeper.membership import Membership
from psubd.registry.zookeeper.registry import ZooKeeperRegistry
from psubd.registry.zookeeper.settings import Place, convert, mistakes, place
from psubd.testing.clock import FakeClock

SECRET = "verysecret"


class Url(SynchronousTestCase):
    """``zk://host:port,.../chroot``"""

    def test_places(self) -> None:
        """Names, IPv4, IPv6, the default port and the default chroot; a chroot may have parts."""
        self.assertEqual(place("zk://a:1,10.0.0.1:2,[::1]:3,b/one/two"), Place(("a:1", "10.0.0.1:2", "[::1]:3", "b:2181"), "/one/two"))
        for url in ("zk://a:1", "zk://a:1/"):
            self.assertEqual(place(url), Place(("a:1",), "/psubd"))
        self.assertEqual(place("zk://a:1/x/").chroot, "/x")

    def test_what_is_no_place(self) -> None:
        """Each is told, with what to write."""
        for url in (
            "zk:",
            "zk://",
            "zk:///x",
            "zk://a:b",
            "zk://a:70000",
            "zk://a,,b",
            "zk://a b:1",
            "zk://::1:9",
            "zk://a/x//y",
            "zk://a/..",
            "zk://a/x/.",
            "zk://a/zookeeper",
            "zk://a/\u00e9",
            "zk://a?x=1",
            "zk://a/x#y",
            "http://a",
        ):
            with self.assertRaises(ValueError) as refused:
                place(url)
            self.assertIn("write", str(refused.exception), url)

    def test_credentials_are_refused_and_not_repeated(self) -> None:
        """They belong into the environment or the file."""
        with self.assertRaises(ValueError) as refused:
            place(f"zk://user:{SECRET}@a:1/x")
        self.assertIn("PSUBD_ZOOKEEPER_PASSWORD", str(refused.exception))
        self.assertNotIn(SECRET, str(refused.exception))


class Table(SynchronousTestCase):
    """The settings."""

    def test_defaults_are_sound(self) -> None:
        """Nothing set: nothing wrong."""
        self.assertEqual([], mistakes({}, {}))
        self.assertEqual(convert({}, {}).session_timeout_ms, 10_000)

    def test_credentials_of_the_environment_win(self) -> None:
        """And do not show in the settings' repr."""
        settings = convert({"username": "file", "password": "file"}, {"PSUBD_ZOOKEEPER_USERNAME": "env", "PSUBD_ZOOKEEPER_PASSWORD": SECRET})
        self.assertEqual(("env", SECRET), (settings.username, settings.password))
        self.assertNotIn(SECRET, repr(settings))

    def test_each_mistake_is_told(self) -> None:
        """By the setting's name."""
        for table, named in (
            ({"no_such": 1}, "no_such"),
            ({"session_timeout_ms": 1_999}, "session_timeout_ms"),
            ({"session_timeout_ms": "10 s"}, "session_timeout_ms"),
            ({"username": "u"}, "password"),
            ({"username": "u:v", "password": "p"}, "colon"),
            ({"auth_scheme": "kerberos"}, "auth_scheme"),
            ({"tls_ca_file": __file__}, "tls = true"),
            ({"tls": True, "tls_ca_file": "/no/such/file"}, "tls_ca_file"),
            ({"tls": True, "tls_key_file": __file__}, "tls_certificate_file"),
        ):
            found = mistakes(table, {})
            self.assertEqual(1, len(found), (table, found))
            self.assertIn(named, found[0])
            self.assertTrue(found[0].startswith("registry.zk."), found)

    def test_all_of_them_at_once(self) -> None:
        """One does not hide another."""
        table = {"no_such": 1, "session_timeout_ms": 0, "username": "u", "tls_key_file": "/no/such/file"}
        self.assertEqual(6, len(mistakes(table, {})), mistakes(table, {}))
        with self.assertRaises(msgspec.ValidationError):
            convert(table, {})

    def test_sasl_without_credentials(self) -> None:
        """It needs them."""
        self.assertIn("needs a username", "".join(mistakes({"auth_scheme": "sasl"}, {})))


class Factory(SynchronousTestCase):
    """The plugin."""

    def test_found(self) -> None:
        """The drop-in names it, shared among nodes."""
        [found] = [factory for factory in getPlugins(IRegistryFactory, plugins) if factory.scheme == "zk"]
        self.assertTrue(verifyObject(IRegistryFactory, found))
        self.assertTrue(found.shared)

    def test_classes(self) -> None:
        """What it builds, and what that has."""
        self.assertTrue(verifyClass(IRegistry, ZooKeeperRegistry))
        self.assertTrue(verifyClass(IMembership, Membership, tentative=False))

    def test_all_mistakes_at_once(self) -> None:
        """Of the URL and of the table; none without one."""
        found = ZooKeeperFactory().check("zk://a:b", {"session_timeout_ms": 0, "username": "u"})
        self.assertEqual(3, len(found), found)
        self.assertTrue(found[0].startswith("registry: "))
        self.assertEqual([], ZooKeeperFactory().check("zk://a:1/psubd", {}))

    def test_build(self) -> None:
        """Nothing is touched before the start."""
        environment = Environment(self.mktemp(), {"session_timeout_ms": 4_000}, FakeClock(), None, None, mode="pub")
        registry = ZooKeeperFactory().build("zk://127.0.0.1:1/x", environment)
        self.assertTrue(INodes.providedBy(registry))
        self.assertEqual(registry.trouble(), "the registry has not started")
        self.successResultOf(registry.stop())
