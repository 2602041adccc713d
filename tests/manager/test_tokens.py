from tests.manager.house import ManagerCase

LIST = "/api/v1/tokens"


class TokenTests(ManagerCase):
    def test_create(self) -> None:
        """A token is made, shown this once, and opens what its role allows."""
        reply = self.ok("POST", LIST, {"name": "ci", "role": "admin"}, 201)
        self.assertEqual(reply.headers["location"], f"{LIST}/ci")
        token = reply.json["token"]
        self.assertTrue(token.startswith("pt_"))
        shown = self.ok("GET", f"{LIST}/ci", token=token)
        self.assertEqual(shown.json, {"name": "ci", "role": "admin", "created_ms": self.clock.epoch_ms(), "version": self.registry.snapshot().serial})
        self.assertEqual(shown.headers["etag"], f'"{self.registry.snapshot().serial}"')

    def test_list(self) -> None:
        """The list names everybody, without a token or a digest."""
        items = self.ok("GET", LIST).json["items"]
        self.assertEqual([(item["name"], item["role"]) for item in items], [("root", "admin"), ("scraper", "metrics"), ("watcher", "viewer")])
        self.assertEqual(set(items[0]), {"name", "role", "created_ms", "version"})

    def test_refusals(self) -> None:
        """A name twice, a bad name, an unknown role, a missing member."""
        self.refused(409, "exists", "POST", LIST, {"name": "root", "role": "viewer"})
        for body in (
            {"name": "a b", "role": "viewer"},
            {"name": "", "role": "viewer"},
            {"name": "x", "role": "owner"},
            {"name": "x"},
            {"role": "admin"},
        ):
            self.refused(400, "bad_body", "POST", LIST, body)

    def test_unknown(self) -> None:
        """A name that is not there, or cannot be: 404."""
        for name in ("none", "..", "a b", "applications"):
            self.refused(404, "no_such_route", "GET", f"{LIST}/{name}")
            self.refused(404, "no_such_route", "DELETE", f"{LIST}/{name}")

    def test_last_admin(self) -> None:
        """The last admin token stays: nobody could make another one."""
        self.refused(409, "in_use", "DELETE", f"{LIST}/root")
        other = self.token("other", "admin")
        self.ok("DELETE", f"{LIST}/root", status=204)
        self.ok("GET", LIST, token=other)

    def test_if_match(self) -> None:
        """A condition is judged before the token ends."""
        seen = self.ok("GET", f"{LIST}/watcher").headers["etag"]
        self.refused(412, "version_mismatch", "DELETE", f"{LIST}/watcher", headers={"if-match": self.ok("GET", f"{LIST}/root").headers["etag"]})
        self.ok("DELETE", f"{LIST}/watcher", status=204, headers={"if-match": seen})
