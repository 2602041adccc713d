from psubd.errors import RateLimited
from psubd.manager.sessions import ATTEMPTS, ATTEMPTS_MS, LASTS_MS, MOST, Attempts, Sessions
from psubd.model import Token
from tests.manager.house import ManagerCase, Reply


class SignInTests(ManagerCase):
    def sign_in(self, token: str = "", **how: object) -> Reply:
        return self.call("POST", "/api/v1/session", {"token": token or self.admin}, token=None, **how)

    def cookie(self, **how: object) -> str:
        return self.sign_in(**how).headers["set-cookie"]

    def reads(self, cookie: str) -> bool:
        return self.call("GET", "/api/v1/status", token=None, headers={"cookie": cookie.split(";")[0]}).status == 200

    def test_session(self) -> None:
        """A token gives a session that opens what the token opens; the answer says who one is."""
        reply = self.sign_in()
        self.assertEqual(reply.json, {"name": "root", "role": "admin", "until_ms": self.clock.epoch_ms() + 43_200_000})
        self.assertTrue(self.reads(reply.headers["set-cookie"]))
        self.assertNotIn(self.admin, reply.headers["set-cookie"])

    def test_cookie(self) -> None:
        """The cookie is out of scripts' reach, goes to no other site, ends after 12 hours; over TLS it is for TLS only."""
        flags = set(self.cookie().split("; ")[1:])
        self.assertEqual(flags, {"Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Strict"})
        self.assertIn("; Secure", self.cookie(secure=True))

    def test_wrong_token(self) -> None:
        """No session for a token that is not one; the body's token is not echoed."""
        reply = self.refused(401, "bad_credentials", "POST", "/api/v1/session", {"token": "pt_wrong"}, token=None)
        self.assertNotIn("pt_wrong", reply.body.decode())
        self.refused(400, "bad_body", "POST", "/api/v1/session", {"token": ""}, token=None)
        self.refused(400, "bad_body", "POST", "/api/v1/session", {"token": "x" * 201}, token=None)

    def test_end(self) -> None:
        """After 12 hours a session opens nothing."""
        cookie = self.cookie()
        self.clock.advance(LASTS_MS - 1)
        self.assertTrue(self.reads(cookie))
        self.clock.advance(1)
        self.assertFalse(self.reads(cookie))

    def test_ends_with_its_token(self) -> None:
        """A token that ends takes its sessions along, also where one of the same name is made."""
        cookie = self.cookie(token=self.viewer)
        self.assertTrue(self.reads(cookie))
        self.ok("DELETE", "/api/v1/tokens/watcher", status=204)
        self.assertFalse(self.reads(cookie))
        self.token("watcher", "viewer")
        self.assertFalse(self.reads(cookie))

    def test_guessed_cookie(self) -> None:
        """A cookie that was never given opens nothing."""
        for cookie in ("psubd-session=", "psubd-session=x", f"psubd-session={self.admin}", "psubd-session"):
            self.assertFalse(self.reads(cookie), cookie)

    def test_attempts(self) -> None:
        """After so many failures an address waits, with the right token too; others do not; a while later it may again."""
        for _ in range(ATTEMPTS):
            self.assertEqual(self.sign_in(token="wrong", client="10.0.0.9").status, 401)
        reply = self.refused(429, "rate_limited", "POST", "/api/v1/session", {"token": self.admin}, token=None, client="10.0.0.9")
        self.assertEqual(reply.headers["retry-after"], "60")
        self.assertEqual(self.sign_in(client="10.0.0.10").status, 200)
        self.clock.advance(ATTEMPTS_MS)
        self.assertEqual(self.sign_in(client="10.0.0.9").status, 200)

    def test_many_addresses(self) -> None:
        """Addresses that failed are bounded: beyond it the oldest is forgotten, and no other."""
        attempts = Attempts(self.clock)
        for client in ("first", "second"):
            for _ in range(ATTEMPTS):
                attempts.failed(client)
        for n in range(MOST - 1):
            attempts.failed(f"other {n}")
        attempts.check("first")
        with self.assertRaises(RateLimited):
            attempts.check("second")

    def test_success_costs_nothing(self) -> None:
        """Sign-ins that succeed do not count."""
        for _ in range(3 * ATTEMPTS):
            self.assertEqual(self.sign_in().status, 200)


class SecureTests(ManagerCase):
    def test_behind_a_proxy(self) -> None:
        """Where a proxy speaks TLS, the setting makes the cookie for TLS only."""
        from psubd import manager

        self.routes = manager.routes(
            registrar=self.registrar,
            registry=self.registry,
            gate=self.gate,
            storage=self.storage,
            subscriber=self.subscriber,
            redriver=self.redriver,
            nodes=self.registry,
            membership=self.membership,
            seats=self.subscriber,
            clock=self.clock,
            metrics=self.metrics,
            manager_secure_cookie=True,
        )
        cookie = self.ok("POST", "/api/v1/session", {"token": self.admin}, token=None).headers["set-cookie"]
        self.assertIn("; Secure", cookie)


class SessionsTests(ManagerCase):
    def test_bound(self) -> None:
        """Sessions are bounded: beyond it the oldest ends."""
        sessions = Sessions(self.clock)
        token = Token("root", "admin", "digest", 1, 0)
        first, second = sessions.begin(token), sessions.begin(token)
        for _ in range(MOST - 2):
            sessions.begin(token)
        self.assertIsNotNone(sessions.find(first))
        sessions.begin(token)
        self.assertIsNone(sessions.find(first))
        self.assertIsNotNone(sessions.find(second))
