import re

from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from psubd.keys import digest
from tests.manager.house import ManagerCase, Reply

CLEAR = re.compile(rb"(?:ps|sk|pt)_[A-Za-z0-9_-]{43}")


class SecretsTests(ManagerCase):
    def setUp(self) -> None:
        self.logged: list[str] = []
        globalLogPublisher.addObserver(self.see)
        self.addCleanup(globalLogPublisher.removeObserver, self.see)
        self.bodies: list[bytes] = []
        super().setUp()

    def see(self, event: LogEvent) -> None:
        self.logged.append(f"{formatEvent(event)} {event!r}")

    def call(self, method: str, path: str, body: object = None, **how: object) -> Reply:
        reply = super().call(method, path, body, **how)
        self.bodies.append(reply.body + repr(reply.headers).encode())
        return reply

    def test_shown_once(self) -> None:
        """A key is in the one answer that made it: in no other answer, event, refusal or log line; its digest is nowhere."""
        outlet = self.stream()
        made = self.ok("POST", "/api/v1/applications", {"id": "shop"}, 201).json
        keys = [made["secret"], made["subkey"]]
        keys += [self.ok("POST", "/api/v1/applications/shop/rotate", {"which": which, "overlap_s": 60}).json[which] for which in ("secret", "subkey")]
        keys.append(self.ok("POST", "/api/v1/tokens", {"name": "ci", "role": "viewer"}, 201).json["token"])
        self.assertTrue(all(CLEAR.fullmatch(key.encode()) for key in keys))
        keys += [self.admin, self.viewer, self.scraper]
        self.bodies.clear()
        self.topic()
        self.bind("shop", status=200, pub=True, sub=True)
        cookie = self.ok("POST", "/api/v1/session", {"token": self.admin}, token=None).headers["set-cookie"].split(";")[0]
        paths = ("applications", "applications/shop", "tokens", "tokens/ci", "topics", "topics/orders", "bindings", "groups", "nodes", "status")
        for path in paths:
            self.ok("GET", f"/api/v1/{path}")
        self.ok("GET", "/api/v1/events", headers={"accept": "application/json"})
        self.ok("GET", "/openapi.json")
        self.ok("GET", "/metrics")
        for key in keys:
            self.call("GET", f"/api/v1/applications/{key}", headers={"authorization": f"Bearer {key}x"})
            self.call("GET", "/api/v1/status", headers={"authorization": f"Bearer {key}", "cookie": cookie})
            self.call("POST", "/api/v1/session", {"token": f"{key}x"}, token=None)
        self.ok("DELETE", "/api/v1/applications/shop", query="force=true")
        seen = b"\n".join([*self.bodies, outlet.written, "\n".join(self.logged).encode()])
        for key in keys:
            self.assertNotIn(key.encode(), seen)
            self.assertNotIn(digest(key).encode(), seen)
        self.assertNotIn(cookie.partition("=")[2].encode(), seen.replace(b"psubd-session=" + cookie.partition("=")[2].encode(), b"", 1))
