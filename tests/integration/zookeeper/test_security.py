"""TLS, credentials, and who may read what psubd writes."""

import shutil
from pathlib import Path
from tempfile import mkdtemp
from uuid import uuid4

import pytest_twisted
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError
from twisted.trial.unittest import SkipTest

from psubd.errors import ConfigError
from psubd.interfaces import Put
from psubd.registry.zookeeper.factory import ZooKeeperFactory
from psubd.registry.zookeeper.settings import mistakes
from psubd.testing.zookeeper import Ensemble, need, release
from tests.integration.zookeeper.hosts import ZooKeeperCase

PASSWORD = "of-the-zookeeper-tests"
OWNER = {"username": "psubd", "password": PASSWORD}


class Security(ZooKeeperCase):
    """A server with a port for TLS, which takes digests and SASL."""

    secure: Ensemble
    folder: str

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        need()
        release()
        cls.folder = mkdtemp(prefix="psubd-jaas-")
        jaas = Path(cls.folder) / "jaas.conf"
        jaas.write_text(f'Server {{ org.apache.zookeeper.server.auth.DigestLoginModule required user_psubd="{PASSWORD}"; }};\n')
        cls.secure = Ensemble(
            1,
            {"authProvider.sasl": "org.apache.zookeeper.server.auth.SASLAuthenticationProvider"},
            secure=True,
            jvm=(f"-Djava.security.auth.login.config={jaas}",),
        ).start()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.secure.stop()
        shutil.rmtree(cls.folder)
        super().tearDownClass()

    def setUp(self) -> None:
        if pytest_twisted._instances.gr_twisted is None:
            raise SkipTest("needs pytest-twisted: run it with pytest")
        self.ensemble = self.secure
        self.chroot = f"/{uuid4().hex[:12]}"  # at the top: a parent that is made with credentials is the owner's too

    def tls(self) -> dict[str, object]:
        certificate = self.secure.certificate
        return {
            "tls": True,
            "tls_ca_file": str(certificate.certificate),
            "tls_certificate_file": str(certificate.both),
            "tls_key_file": str(certificate.both),
        }

    def test_digest(self) -> None:
        """With credentials, only who has them reads or writes: a node without is told at its start, by name of the settings."""
        owner = self.node(**OWNER)
        self.wait(self.put(owner, Put("/secrets/s", b"mine")))
        self.wait(owner.membership.claim(1))
        for settings in ({}, {**OWNER, "password": "another"}):
            with self.assertRaises(ConfigError) as refused:
                self.wait(self.build(**settings).start())
            self.assertIn("username and password", str(refused.exception))
        self.assertEqual(self.node(**OWNER).snapshot().get("/secrets/s").data, b"mine")

    def test_every_znode_is_the_owners(self) -> None:
        """Nothing of what was written is open to others."""
        owner = self.node(**OWNER)
        self.wait(self.put(owner, Put("/secrets/s", bytes(100_000)), Put("/topics/t", b"")))
        self.wait(owner.membership.claim(1))
        stranger = KazooClient(self.secure.hosts)
        stranger.start()
        self.addCleanup(lambda: (stranger.stop(), stranger.close()))
        admin = KazooClient(self.secure.hosts, auth_data=[("digest", f"psubd:{PASSWORD}")])
        admin.start()
        self.addCleanup(lambda: (admin.stop(), admin.close()))
        seen, waiting = 0, [self.chroot]
        while waiting:
            path = waiting.pop()
            with self.assertRaises(NoAuthError):
                stranger.get(path)
            waiting += [f"{path}/{name}" for name in admin.get_children(path)]
            seen += 1
        self.assertGreater(seen, 30)

    def test_tls(self) -> None:
        """Over TLS, with a certificate that is checked; by name too, unless told not to."""
        node = self.node(hosts=self.secure.secure_hosts, **self.tls())
        self.wait(self.put(node, Put("/topics/t", bytes(300_000))))
        plain = self.node()
        self.assertEqual(len(plain.snapshot().get("/topics/t").data), 300_000)
        node.session.client._line.cut()  # as where it is silent
        self.until(lambda: node.session.connections == 2 and node.trouble() is None, "the next connection")
        self.wait(self.put(node, Put("/topics/t", b"2")))
        strange = self.build(hosts=self.secure.secure_hosts, tls=True)
        started = strange.start()
        started.addErrback(lambda _: None)
        self.pause(1)
        self.assertFalse(started.called)
        self.assertIn("does not answer yet", str(strange.trouble()))

    def test_sasl(self) -> None:
        """DIGEST-MD5, where pure-sasl is installed."""
        try:
            import puresasl  # noqa: F401
        except ImportError:
            self.assertIn("pure-sasl", "".join(mistakes({**OWNER, "auth_scheme": "sasl"}, {})))
            return
        node = self.node(**OWNER, auth_scheme="sasl")
        self.wait(self.put(node, Put("/topics/t", b"")))
        with self.assertRaises(ConfigError) as refused:
            self.wait(self.build(**{**OWNER, "password": "another", "auth_scheme": "sasl"}).start())
        self.assertIn("refuses the credentials", str(refused.exception))

    def test_secrets_are_not_told(self) -> None:
        """Not in what the registry says of itself."""
        node = self.node(**OWNER)
        session = node.session
        told = [vars(node), vars(session), vars(session.client), node.trouble(), ZooKeeperFactory().check(f"zk://u:{PASSWORD}@h", OWNER)]
        self.assertNotIn(PASSWORD, repr(told))

    def test_something_else(self) -> None:
        """A path that holds another program's data, or a newer psubd's, is refused and stays as it is."""
        client = KazooClient(self.secure.hosts)
        client.start()
        self.addCleanup(lambda: (client.stop(), client.close()))
        for number, (data, said) in enumerate(((b"theirs", "something else"), (b'{"format": 9, "id": "x", "slots": 1}', "newer psubd"))):
            self.chroot = f"/other/{number}"
            client.create(self.chroot, data, makepath=True)
            with self.assertRaises(ConfigError) as refused:
                self.wait(self.build().start())
            self.assertIn(said, str(refused.exception))
            self.assertEqual((client.get(self.chroot)[0], client.get_children(self.chroot)), (data, []))
