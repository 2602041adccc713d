"""``[storage.kafka]`` and the URL."""

import msgspec
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from psubd.interfaces import IStorageFactory
from psubd.storage.kafka import factory
from psubd.storage.kafka.factory import KafkaFactory, RdKafkaFactory
from psubd.storage.kafka.settings import addresses, convert, convert_rd, mistakes

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

    def test_through_librdkafka(self) -> None:
        """Its own scheme and table, named in what is told; without its package that is told too, and nothing is imported before."""
        made = RdKafkaFactory()
        self.assertTrue(verifyObject(IStorageFactory, made))
        self.patch(factory, "find_spec", lambda name: None)
        found = made.check("kafka://a:1", {"request_timeout_ms": 9_000})
        self.assertEqual(3, len(found), found)
        self.assertIn("psubd[rdkafka]", found[0])
        self.assertIn("rdkafka://", found[1])
        self.assertTrue(found[2].startswith("storage.rdkafka.request_timeout_ms: "), found[2])
        self.patch(factory, "find_spec", lambda name: object())
        self.assertEqual([], made.check("rdkafka://a:1,b", {"linger_ms": 0.25}))

    def test_what_librdkafka_is_told(self) -> None:
        """The same security, by its own names; nothing that is not set; what psubd relies on."""
        table = {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-256",
            "username": "u",
            "password": SECRET,
            "tls_ca_file": "/ca",
            "tls_certificate_file": "/crt",
            "tls_key_file": "/key",
            "tls_key_password": "k",
            "tls_check_hostname": False,
        }
        told = convert_rd(table, {}).librdkafka(["a:1", "b:2"])
        expected = {
            "bootstrap.servers": "a:1,b:2",
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": "u",
            "sasl.password": SECRET,
            "ssl.ca.location": "/ca",
            "ssl.certificate.location": "/crt",
            "ssl.key.location": "/key",
            "ssl.key.password": "k",
            "ssl.endpoint.identification.algorithm": "none",
            "partitioner": "murmur2_random",
            "delivery.timeout.ms": 10_000,
            "allow.auto.create.topics": False,
        }
        self.assertEqual(expected, {name: told[name] for name in expected})
        plain = convert_rd({}, {}).librdkafka(["a:1"])
        self.assertEqual([], [name for name in plain if name.startswith(("ssl.", "sasl."))])
        self.assertGreater(plain["message.max.bytes"], 1_048_576)
        self.assertNotIn(SECRET, repr(convert_rd(table, {})))
