"""``[storage.kafka]`` and the URL."""

import msgspec
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from psubd.interfaces import IStorageFactory
from psubd.storage.kafka.factory import KafkaFactory
from psubd.storage.kafka.settings import addresses, convert, mistakes

SECRET = "verysecret"


class Url(SynchronousTestCase):
    """``kafka://host:port,...``"""

    def test_addresses(self) -> None:
        """Names, IPv4, IPv6, and the default port."""
        self.assertEqual(["a:1", "10.0.0.1:2", "[::1]:3", "b:9092"], addresses("kafka://a:1,10.0.0.1:2,[::1]:3,b"))
        self.assertEqual(["[::1]:9092"], addresses("kafka://[::1]/"))

    def test_what_is_no_address(self) -> None:
        """Each is told, with what to write."""
        for url in (
            "kafka:",
            "kafka://",
            "kafka://a:b",
            "kafka://a:70000",
            "kafka://a,,b",
            "kafka://a/topic",
            "kafka://a?x=1",
            "kafka://::1:9",
            "http://a",
        ):
            with self.assertRaises(ValueError) as refused:
                addresses(url)
            self.assertIn("write", str(refused.exception) + " write" * ("settings go into" in str(refused.exception)), url)

    def test_credentials_are_refused_and_not_repeated(self) -> None:
        """They belong into the environment or the file."""
        with self.assertRaises(ValueError) as refused:
            addresses(f"kafka://user:{SECRET}@a:1")
        self.assertIn("PSUBD_KAFKA_PASSWORD", str(refused.exception))
        self.assertNotIn(SECRET, str(refused.exception))


class Table(SynchronousTestCase):
    """The settings."""

    def test_defaults_are_sound(self) -> None:
        """Nothing set: nothing wrong."""
        self.assertEqual([], mistakes(convert({}, {})))

    def test_credentials_of_the_environment_win(self) -> None:
        """And neither shows in the settings' repr."""
        settings = convert({"username": "file", "password": "file"}, {"PSUBD_KAFKA_USERNAME": "env", "PSUBD_KAFKA_PASSWORD": SECRET})
        self.assertEqual(("env", SECRET), (settings.username, settings.password))
        self.assertNotIn(SECRET, repr(settings))
        self.assertEqual(SECRET, settings.driver()["sasl_plain_password"])

    def test_what_cannot_work_together(self) -> None:
        """Each combination is told, naming the setting."""
        for table, named in (
            ({"security_protocol": "SASL_SSL"}, "sasl_mechanism"),
            ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, "password"),
            ({"sasl_mechanism": "PLAIN"}, "security_protocol"),
            ({"security_protocol": "SSL", "tls_ca_file": "/no/such/file"}, "tls_ca_file"),
            ({"tls_ca_file": __file__}, "tls_"),
            ({"security_protocol": "SSL", "tls_key_file": __file__}, "tls_certificate_file"),
            ({"request_timeout_ms": 9_000}, "storage_timeout_ms"),
        ):
            found = mistakes(convert(table, {}))
            self.assertEqual(1, len([mistake for mistake in found if named in mistake]), (table, found))

    def test_unknown_and_ill_formed_settings(self) -> None:
        """They are named."""
        for table, named in (({"no_such": 1}, "no_such"), ({"linger_ms": -1}, "linger_ms"), ({"compression": "rar"}, "compression")):
            with self.assertRaises(msgspec.ValidationError) as refused:
                convert(table, {})
            self.assertIn(named, str(refused.exception))


class Factory(SynchronousTestCase):
    """The plugin."""

    def test_provides_the_interface(self) -> None:
        """IStorageFactory, shared among nodes."""
        factory = KafkaFactory()
        self.assertTrue(verifyObject(IStorageFactory, factory))
        self.assertEqual(("kafka", True), (factory.scheme, factory.shared))

    def test_all_mistakes_at_once(self) -> None:
        """Of the URL and of the table."""
        found = KafkaFactory().check("kafka://a:b", {"security_protocol": "SASL_SSL"})
        self.assertEqual(3, len(found), found)
        self.assertEqual([], KafkaFactory().check("kafka://a:1", {}))
