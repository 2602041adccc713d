from twisted.internet.defer import CancelledError, fail

from psubd.errors import RegistryUnavailable
from psubd.manager.doc import Doc
from tests.manager.house import ManagerCase

OPEN = {"/alive", "/ready", "/api/v1/session"}


class CredentialTests(ManagerCase):
    def test_closed_without_a_token(self) -> None:
        """Every route but the open ones answers 401 to who shows nothing, and names the scheme."""
        for route in self.routes:
            if route.path not in OPEN:
                path = route.path.replace("{", "").replace("}", "")
                reply = self.refused(401, "bad_credentials", route.method, path, token=None)
                self.assertTrue(reply.headers["www-authenticate"].startswith("Bearer "))

    def test_open_routes(self) -> None:
        """The probes answer without a token."""
        self.assertEqual(self.ok("GET", "/alive", token=None).json, {"alive": True})
        self.assertEqual(self.ok("GET", "/ready", token=None).json, {"ready": True})

    def test_unknown_credentials(self) -> None:
        """A token that is not one, another scheme, or an application's key: 401, all alike."""
        keys = self.application()
        for shown in (
            "Bearer",
            "Bearer ",
            "Bearer x",
            f"Bearer {self.admin}x",
            f"Bearer {self.admin[:-1]}",
            f"Basic {self.admin}",
            self.admin,
            f"Bearer {keys['secret']}",
            f"Bearer {keys['subkey']}",
            f"Bearer {keys['pubkey']}",
            "Bearer \xff",
        ):
            reply = self.refused(401, "bad_credentials", "GET", "/api/v1/status", headers={"authorization": shown})
            self.assertEqual(reply.json["detail"], "no valid token: send Authorization: Bearer <token>, or sign in")
        self.ok("GET", "/api/v1/status", headers={"authorization": f"bearer {self.admin}"})

    def test_two_credentials(self) -> None:
        """A token and a session in one request, or two sessions: 401, whichever is valid."""
        cookie = self.sign_in()
        self.ok("GET", "/api/v1/status", token=None, headers={"cookie": f"other=1; {cookie}"})
        self.refused(401, "bad_credentials", "GET", "/api/v1/status", headers={"cookie": cookie})
        self.refused(401, "bad_credentials", "GET", "/api/v1/status", token=None, headers={"cookie": f"{cookie}; psubd-session=x"})
        self.refused(401, "bad_credentials", "GET", "/api/v1/status", headers={"cookie": "psubd-session=x"})

    def test_two_authorizations(self) -> None:
        """The header sent twice: 400."""
        twice = [("authorization", f"Bearer {self.admin}")] * 2
        self.refused(400, "bad_header", "GET", "/api/v1/status", headers=twice)

    def test_ended_token(self) -> None:
        """A token that was deleted opens nothing from then on; one made again under its name is another one."""
        self.ok("DELETE", "/api/v1/tokens/watcher", status=204)
        self.refused(401, "bad_credentials", "GET", "/api/v1/status", token=self.viewer)
        fresh = self.ok("POST", "/api/v1/tokens", {"name": "watcher", "role": "viewer"}, 201).json["token"]
        self.refused(401, "bad_credentials", "GET", "/api/v1/status", token=self.viewer)
        self.ok("GET", "/api/v1/status", token=fresh)

    def test_registry_away(self) -> None:
        """With the registry away, an unknown token is not judged (503) and status still answers to a known one."""
        away = RegistryUnavailable("away")
        self.registry.sync = lambda: fail(away)  # type: ignore[method-assign]
        self.refused(503, "storage_unavailable", "GET", "/api/v1/status", headers={"authorization": "Bearer x"})
        self.refused(503, "storage_unavailable", "GET", "/api/v1/applications")
        self.ok("GET", "/api/v1/status")

    def sign_in(self) -> str:
        return self.ok("POST", "/api/v1/session", {"token": self.admin}, token=None).headers["set-cookie"].split(";")[0]


class RoleTests(ManagerCase):
    def setUp(self) -> None:
        super().setUp()
        self.application()
        self.topic()
        self.bind("shop", status=200, sub=True)

    def paths(self) -> list[tuple[str, str, Doc]]:
        """Every route that needs a token, with a path that exists."""
        names = {"{id}": "shop", "{name}": "root", "{application}": "shop", "{topic}": "orders", "{group}": "shop"}
        found = []
        for route in self.routes:
            path = route.path.replace("/topics/{id}", "/topics/orders")
            for part, name in names.items():
                path = path.replace(part, name)
            if route.path not in OPEN:
                found.append((route.method, path, route.doc))
        return found

    def test_viewer(self) -> None:
        """A viewer reads everything but messages, and changes nothing."""
        for method, path, _ in self.paths():
            if method == "GET" and not path.endswith("/messages"):
                self.ok(method, path, token=self.viewer)
            else:
                self.refused(403, "bad_credentials", method, path, token=self.viewer)

    def test_metrics(self) -> None:
        """A token for metrics opens nothing but the metrics."""
        for method, path, _ in self.paths():
            if path == "/metrics":
                self.ok(method, path, token=self.scraper)
            else:
                self.refused(403, "bad_credentials", method, path, token=self.scraper)

    def test_viewer_session(self) -> None:
        """A session has its token's role."""
        cookie = self.ok("POST", "/api/v1/session", {"token": self.viewer}, token=None).headers["set-cookie"].split(";")[0]
        self.ok("GET", "/api/v1/applications", token=None, headers={"cookie": cookie})
        self.refused(403, "bad_credentials", "DELETE", "/api/v1/topics/orders", token=None, headers={"cookie": cookie})

    def test_order_of_judgement(self) -> None:
        """A stranger learns nothing of what is there: credentials come before the name, the query and the body."""
        for path in ("/api/v1/applications/shop", "/api/v1/applications/none"):
            self.refused(401, "bad_credentials", "DELETE", path, token=None, query="x=1")
            self.refused(403, "bad_credentials", "DELETE", path, token=self.viewer, query="x=1")


class OriginTests(ManagerCase):
    def test_foreign_host(self) -> None:
        """Every route, the open ones too, refuses a Host that is not the manager's own."""
        for route in self.routes:
            path = route.path.replace("{", "").replace("}", "")
            self.refused(403, "bad_header", route.method, path, headers={"host": "evil.example"})
        self.ok("GET", "/alive", token=None, headers={"host": "psubd.example:9091"})

    def test_foreign_origin(self) -> None:
        """A request from another site's page is refused with the right token or cookie, too; one of our own page passes."""
        cookie = self.ok("POST", "/api/v1/session", {"token": self.admin}, token=None).headers["set-cookie"].split(";")[0]
        body = {"id": "shop", "name": "Shop"}
        for origin in ("http://evil.example", "null", "http://127.0.0.1:8080"):
            headers = {"host": "127.0.0.1:9091", "origin": origin, "cookie": cookie}
            self.refused(403, "bad_header", "POST", "/api/v1/applications", body, token=None, headers=headers)
            self.refused(403, "bad_header", "POST", "/api/v1/session", {"token": self.admin}, token=None, headers={"origin": origin})
        headers = {"host": "127.0.0.1:9091", "origin": "http://127.0.0.1:9091", "cookie": cookie}
        self.ok("POST", "/api/v1/applications", body, 201, token=None, headers=headers)


class ContentTests(ManagerCase):
    def test_content_type(self) -> None:
        """A body that is not said to be JSON is refused: what a form of another site can send."""
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", ""):
            headers = {"content-type": kind}
            self.refused(415, "unsupported_media_type", "POST", "/api/v1/applications", raw=b'{"id": "shop"}', headers=headers)
        self.refused(415, "unsupported_media_type", "POST", "/api/v1/applications", raw=b'{"id": "shop"}')
        headers = {"content-type": "Application/JSON; charset=utf-8"}
        self.ok("POST", "/api/v1/applications", status=201, raw=b'{"id": "shop"}', headers=headers)

    def test_bodies(self) -> None:
        """No body, no JSON, the wrong JSON, a member that is not known, depth: 400 that names the field."""
        for raw, said in (
            (b"", "empty"),
            (b"{", "not JSON"),
            (b"\xff", "not JSON"),
            (b'{"id": "\xff"}', "not JSON"),
            (b"[]", "object"),
            (b"null", "object"),
            (b'"x"', "object"),
            (b"{}", "`id`"),
            (b'{"id": 7}', "$.id"),
            (b'{"id": "a.b"}', "$.id"),
            (b'{"id": "a\\n"}', "$.id"),
            (b'{"id": "a", "nmae": "b"}', "nmae"),
            (b'{"id": "a", "name": ""}', "$.name"),
            (b'{"id": "a", "name": "a\\u0000"}', "$.name"),
            (b'{"id": "a", "name": null}', "$.name"),
            (b'{"id": "a"} x', "not JSON"),
            (b'{"id": ' + b"[" * 100_000, "deeper"),
        ):
            reply = self.refused(400, "bad_body", "POST", "/api/v1/applications", raw=raw, headers={"content-type": "application/json"})
            self.assertIn(said, reply.json["detail"])

    def test_query(self) -> None:
        """A parameter that the route does not know, or sent twice: 400 that names it."""
        for path, query in (("/api/v1/applications", "x=1"), ("/api/v1/applications", "limit=1&limit=1"), ("/api/v1/status", "token=abc")):
            reply = self.refused(400, "bad_parameter", "GET", path, query=query)
            self.assertIn(query.split("=")[0], reply.json["detail"])

    def test_not_acceptable(self) -> None:
        """A client that takes no JSON gets 406, before a write is made."""
        self.refused(406, "not_acceptable", "POST", "/api/v1/applications", {"id": "shop"}, headers={"accept": "text/html"})
        self.refused(406, "not_acceptable", "GET", "/api/v1/applications", headers={"accept": "application/xml, text/*"})
        self.ok("GET", "/api/v1/applications", headers={"accept": "text/html, */*;q=0.1"})

    def test_conditions_that_are_not_judged(self) -> None:
        """A condition on a write that does not take it is refused, not ignored."""
        body = {"id": "shop"}
        self.refused(400, "not_supported", "POST", "/api/v1/applications", body, headers={"if-match": '"1"'})
        self.refused(400, "not_supported", "POST", "/api/v1/applications", body, headers={"if-none-match": "*"})
        self.ok("GET", "/api/v1/applications", headers={"if-match": '"1"'})

    def test_client_leaves(self) -> None:
        """A client that goes away in the middle of a write does not stop it: nothing is left half made."""
        self.registry.held = True
        _, made = self.begin("POST", "/api/v1/applications", {"id": "shop"})
        made.cancel()
        self.failureResultOf(made, CancelledError)
        self.registry.release()
        self.ok("GET", "/api/v1/applications/shop")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_refusal_nobody_reads(self) -> None:
        """A write that is refused after its client went away is no error of ours."""
        self.application()
        self.registry.held = True
        _, made = self.begin("POST", "/api/v1/applications", {"id": "shop"})
        made.cancel()
        self.failureResultOf(made, CancelledError)
        self.registry.release()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_bug_nobody_waits_for(self) -> None:
        """A bug in a write whose client went away is logged."""
        self.registry.held = True
        _, made = self.begin("POST", "/api/v1/applications", {"id": "shop"})
        made.cancel()
        self.failureResultOf(made, CancelledError)
        self.registry.refuse = ZeroDivisionError("bug")  # type: ignore[assignment]
        self.registry.release()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
