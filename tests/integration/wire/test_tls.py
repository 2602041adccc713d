"""The same promises over TLS, where a layer above the socket gathers what is written."""

import datetime
import ssl
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.ssl import PrivateCertificate

from psubd.model import Answer
from psubd.wire.site import Site
from tests.integration.wire.case import Client, SocketCase
from tests.wire.peer import get, post

MIB = 1_048_576


def certificate() -> PrivateCertificate:
    """A self-signed one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    signed = builder.not_valid_before(now - day).not_valid_after(now + day).sign(key, hashes.SHA256())
    pem = signed.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return PrivateCertificate.loadPEM(pem)


class Tls(SocketCase):
    def open(self, site: Site) -> Any:
        return self.reactor.listenSSL(0, site, certificate().options(), interface="127.0.0.1")

    def connect(self, receive_buffer: int | None = None) -> Client:
        client = super().connect(receive_buffer)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2", "http/1.1"])

        def shake() -> None:
            client.wrapped = context.wrap_socket(client.socket)

        self.run_client(shake)
        return client

    def test_all(self) -> None:
        """HTTP/1.1 is spoken; small and large answers on one connection are settled with their whole length."""
        self.listen()
        client = self.connect()
        self.assertEqual(client.wrapped.selected_alpn_protocol(), "http/1.1")
        for size in (0, 1, 65_536, 5 * MIB):
            settled: list[int] = []
            self.endpoint.answer = Answer(body=b"x" * size, settle=settled.append)
            self.assertEqual(len(self.run_client(client.send(get()).response)[2]), size)
            self.until(lambda settled=settled: bool(settled))
            self.assertEqual(settled, [size])
        self.assertTrue(self.endpoint.calls[0][0].secure)

    def test_slow(self) -> None:
        """A client that reads late: nothing is settled while the body is still here."""
        self.listen()
        settled: list[int] = []
        self.endpoint.answer = Answer(body=b"x" * (16 * MIB), settle=settled.append)
        client = self.connect(4096)
        self.run_client(client.send, get())
        self.until(lambda: bool(self.endpoint.calls))
        self.turn(0.3)
        self.assertEqual(settled, [])
        self.assertEqual(len(self.run_client(client.response)[2]), 16 * MIB)
        self.until(lambda: settled == [16 * MIB])

    def test_stalled(self) -> None:
        """A client that takes nothing is broken, and settled with less."""
        self.listen(write_timeout_ms=300)
        settled: list[int] = []
        self.endpoint.answer = Answer(body=b"x" * (16 * MIB), settle=settled.append)
        client = self.connect(4096)
        self.run_client(client.send, get())
        self.until(lambda: bool(settled))
        self.assertLess(settled[0], 16 * MIB)
        self.until(lambda: not self.site.port.connections)

    def test_fell(self) -> None:
        """An answer that ceases to stand right after it was written does not go out, nor does a long one go on."""
        self.listen()
        for body, least in ((b"message", 0), (b"x" * (16 * MIB), 1)):
            settled: list[int] = []
            standing = [True]
            client = self.connect(4096)
            before = len(self.waiting.waits)
            self.run_client(client.send, get("/wait"))
            self.until(lambda before=before: len(self.waiting.waits) > before)
            self.waiting.waits[-1].callback(Answer(body=body, settle=settled.append, stands=lambda standing=standing: bool(standing)))
            self.turn(0.3 * least)
            standing.clear()
            self.assertTrue(self.run_client(client.closed))
            self.until(lambda settled=settled: bool(settled))
            self.assertLess(settled[0], len(body))
            self.assertEqual(b"message" in client.buffer, False)

    def test_small_and_lost(self) -> None:
        """A small answer whose client was reset before it went out is not taken for handed over."""
        self.listen()
        settled: list[int] = []
        client = self.connect()
        self.run_client(client.send, get("/wait"))
        self.until(lambda: bool(self.waiting.waits))
        self.waiting.waits[0].callback(Answer(body=b"message", settle=settled.append))
        client.reset()
        self.until(lambda: bool(settled))
        self.assertEqual(settled, [-1])

    def test_gone_while_waiting(self) -> None:
        """A client that goes away while its request waits: the endpoint is cancelled."""
        self.listen()
        for leave in (Client.close, Client.reset):
            self.waiting.cancelled = 0
            client = self.connect()
            self.run_client(client.send, get("/wait"))
            self.until(lambda: any(not wait.called for wait in self.waiting.waits))
            leave(client)
            self.until(lambda: self.waiting.cancelled == 1)

    def test_refused(self) -> None:
        """A refusal that ends the connection arrives whole, and so does one that does not."""
        self.listen()
        client = self.connect()
        self.run_client(client.send, post(b"x" * MIB))
        self.assertEqual(self.run_client(client.response)[0], 413)
        self.run_client(client.send, b"nonsense\r\n\r\n")
        self.assertEqual(self.run_client(client.response)[0], 400)
        client.close()

    def test_drain(self) -> None:
        """Draining answers what is in flight and closes."""
        self.listen()
        client, idle = self.connect(), self.connect()
        self.run_client(client.send, get("/wait"))
        self.until(lambda: bool(self.waiting.waits))
        drained = self.site.drain()
        self.waiting.waits[0].callback(Answer(body=b"done"))
        self.assertEqual(self.run_client(client.response)[2], b"done")
        self.wait(drained)
        self.assertTrue(self.run_client(idle.closed))
