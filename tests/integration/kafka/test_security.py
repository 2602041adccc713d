"""TLS and SASL."""

import io
import json

from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion
from twisted.logger import globalLogPublisher, textFileLogObserver

from psubd.errors import StorageUnavailable
from psubd.model import Position, Record, TopicSpec
from psubd.storage.kafka.backend import KafkaStorage
from psubd.testing.kafka import PASSWORD, Cluster, need, release
from tests.integration.kafka.hosts import KafkaCase, need_pytest


class Security(KafkaCase):
    """A listener with TLS and SASL."""

    made: Cluster | None = None

    def setUp(self) -> None:
        need_pytest()
        need()
        if Security.made is None:
            release()
            Security.made = Cluster(secure=True).start()
        self.cluster = Security.made
        self.written = io.StringIO()
        observer = textFileLogObserver(self.written)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    @classmethod
    def tearDownClass(cls) -> None:
        if Security.made is not None:
            Security.made.stop()
            Security.made = None

    def secure(self, **settings: object) -> KafkaStorage:
        told = {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "PLAIN",
            "username": "psubd",
            "password": PASSWORD,
            "tls_ca_file": str(self.cluster.certificate.certificate),
            "storage_timeout_ms": 3_000,
            "request_timeout_ms": 1_500,
            **settings,
        }
        return self.another(self.cluster.secure_bootstrap, **told)

    def works(self, storage: KafkaStorage) -> None:
        topic = self.wait(storage.create_topic(TopicSpec(self.name()))).name
        watch = storage.watch(topic, 0, 0)
        self.assertIsInstance(self.wait(storage.publish([Record(topic, b"x", None, (), 0, None)], "all"))[0], Position)
        self.wait(watch)
        self.assertEqual(b"x", self.wait(storage.read(topic, 0, 0, 1, 100)).messages[0].value)

    def test_tls_and_plain(self) -> None:
        """All kinds of connections pass; neither the log nor the status holds the password."""
        storage = self.secure()
        self.works(storage)
        self.assertNotIn(PASSWORD, json.dumps(storage.status()) + self.written.getvalue() + repr(storage.settings))

    def test_scram_and_a_user_that_comes_late(self) -> None:
        """Credentials that Kafka refuses are told as such, nothing goes through, and the password is in no message; once Kafka knows the user all
        works without a restart."""
        storage = self.secure(sasl_mechanism="SCRAM-SHA-512", username="late", password="latesecret")
        self.until(lambda: "credentials" in (storage.trouble() or ""), "the refusal")
        with self.assertRaises(StorageUnavailable) as refused:
            self.wait(storage.describe(["t"]))
        self.assertIn("credentials", refused.exception.detail)
        admin = KafkaAdminClient(bootstrap_servers=self.cluster.bootstrap)
        self.addCleanup(admin.close)
        admin.alter_user_scram_credentials([UserScramCredentialUpsertion("late", ScramMechanism.SCRAM_SHA_512, "latesecret")])
        self.until(lambda: storage.trouble() is None, "the end of the trouble")
        self.until(lambda: len(self.wait(storage.describe(["t"]))) == 0, "an answer")
        self.works(storage)
        self.assertNotIn("latesecret", self.written.getvalue())

    def test_a_certificate_that_nobody_signed(self) -> None:
        """Without its CA the broker is not trusted, and no password is sent."""
        storage = self.secure(tls_ca_file=None)
        self.assertIn("TLS", storage.trouble() or "")
        with self.assertRaises(StorageUnavailable):
            self.wait(storage.describe(["t"]))
