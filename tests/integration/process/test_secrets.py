"""A secret is in no log, metric, event, status or file but the ones that are made to hold it."""

import json
import os
import socket

from psubd.testing.daemon import Tenant
from tests.integration.process.case import ProcessCase


class SecretTests(ProcessCase):
    def test_nowhere(self) -> None:
        """After publishing, reading, rotating, refusing and failing: no key, token, payload or credential of a URL in the daemon's output, its
        metrics, events, status, OpenAPI, or in any file of its folder (payloads: but the storage's)."""
        file = os.path.join(self.folder, "psubd.toml")
        with open(file, "w", encoding="utf-8") as config:
            config.write('[storage]\nurl = "sqlite:"\n')
        with self.daemon("--demo", "--config", file, environ={"PSUBD_ADMIN_TOKEN": None}) as daemon:
            with open(daemon.file("admin-token"), encoding="utf-8") as token_file:
                token = token_file.read().strip()
            manager = daemon.manager(token)
            made = [manager.send("POST", "/api/v1/applications", {"id": "shop", "name": "shop"}).json]
            shop = made[0]
            manager.send("POST", "/api/v1/topics", {"id": "orders", "owner": "shop"})
            manager.send("PUT", "/api/v1/bindings/shop/orders", {"pub": True, "sub": True})
            rotated = [
                manager.send("POST", "/api/v1/applications/shop/rotate", {"which": which, "overlap_s": 60}).json for which in ("secret", "subkey")
            ]
            other = manager.send("POST", "/api/v1/tokens", {"name": "alice", "role": "viewer"}).json["token"]
            tenant = Tenant("shop", {"pubkey": shop["pubkey"], "secret": shop["secret"]}, {"subkey": shop["subkey"]})
            self.use(daemon.ports.data, tenant)
            daemon.data(**tenant.publish).request("POST", "/v1/pub/orders", b"payload-of-the-test", {"key": "key-of-the-test"})
            daemon.data(**tenant.subscribe).request("GET", "/v1/sub?timeout=2000")
            told = [
                manager.request("GET", target).body.decode()
                for target in ("/metrics", "/api/v1/status", "/openapi.json", "/api/v1/applications/shop")
            ]
            told.append(self.events(daemon.ports.manager, token))
            daemon.stop()
            secrets = [text for answer in (*made, *rotated) for text in self.secrets_in(answer)] + [token, other]
            self.assertGreaterEqual(len(secrets), 6)
            with open(daemon.file("demo.json"), encoding="utf-8") as demo:
                shown_by_demo = [text for text in json.load(demo).values() if text.startswith(("ps_", "sk_"))]
            files = {name: self.bytes_of(name) for name in os.listdir(self.state) if name not in ("admin-token", "demo.json")}
            for secret in (*secrets, *shown_by_demo):
                for text in told:
                    self.assertNotIn(secret, text)
                for name, content in files.items():
                    self.assertNotIn(secret.encode(), content, name)
                if secret not in shown_by_demo:
                    self.assertNotIn(secret, daemon.output())
            for text in (*told, daemon.output()):
                self.assertNotIn("payload-of-the-test", text)
                self.assertNotIn("key-of-the-test", text)
            self.assertNotIn(b"payload-of-the-test", files["registry.sqlite"])

    def use(self, port: int, tenant: Tenant) -> None:
        """Show the secrets in places where they do not belong: a query, a wrong header, a broken request, an unknown route."""
        secret, subkey = tenant.publish["secret"], tenant.subscribe["subkey"]
        for start in (
            f"GET /v1/sub?subkey={subkey} HTTP/1.1",
            f"GET /v1/{secret} HTTP/1.1",
            f"POST /v1/pub/{secret} HTTP/1.1\r\ncontent-length: 0\r\nsecret: {secret}",
            f"GET /v1/sub HTTP/1.1\r\nsubkey: {secret}",
            f"GET /v1/sub HTTP/1.1\r\nsubkey: {subkey}\r\nsubkey: {subkey}",
            f"{secret} / HTTP/1.1",
            f"GET /v1/sub HTTP/1.1\r\n{subkey}",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(f"{start}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            self.assertIn(b"HTTP/1.1 4", answer)

    def events(self, port: int, token: str) -> str:
        """All events that are kept, until the first comment or pause."""
        with socket.create_connection(("127.0.0.1", port), timeout=3) as connection:
            connection.sendall(
                f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nLast-Event-ID: 0\r\n\r\n".encode()
            )
            got = b""
            try:
                while b"token.created" not in got:
                    got += connection.recv(65536)
            except TimeoutError:
                pass
        self.assertIn(b"HTTP/1.1 200", got)
        return got.decode()

    def secrets_in(self, answer: dict[str, object]) -> list[str]:
        """The answer's secret texts."""
        return [text for text in answer.values() if isinstance(text, str) and text.startswith(("ps_", "sk_"))]

    def bytes_of(self, name: str) -> bytes:
        with open(os.path.join(self.state, name), "rb") as file:
            return file.read()
