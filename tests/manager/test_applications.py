from psubd.errors import RegistryUnavailable
from psubd.model import Credentials
from tests.manager.house import ManagerCase

LIST = "/api/v1/applications"


class ApplicationTests(ManagerCase):
    def test_create(self) -> None:
        """An application is made with its three keys, and they work."""
        reply = self.ok("POST", LIST, {"id": "shop", "name": "The shop"}, 201)
        made = reply.json
        self.assertEqual((reply.headers["location"], reply.headers["etag"]), (f"{LIST}/shop", f'"{self.registry.snapshot().serial}"'))
        self.assertEqual((made["id"], made["name"], made["version"]), ("shop", "The shop", self.registry.snapshot().serial))
        self.assertEqual([made[name][:3] for name in ("pubkey", "secret", "subkey")], ["pk_", "ps_", "sk_"])
        self.assertEqual(self.gate.publisher(Credentials(identity=made["pubkey"], secret=made["secret"])).application.id, "shop")
        self.assertEqual(self.gate.subscriber(Credentials(subkey=made["subkey"])).application.id, "shop")

    def test_name_defaults_to_id(self) -> None:
        """Without a name the id is it."""
        self.assertEqual(self.ok("POST", LIST, {"id": "shop"}, 201).json["name"], "shop")

    def test_shown_later(self) -> None:
        """Later the pubkey is shown, and when keys end; nothing that stands for a secret."""
        made = self.application()
        shown = self.ok("GET", f"{LIST}/shop").json
        self.assertEqual(shown, {name: value for name, value in made.items() if name not in ("secret", "subkey")})
        self.assertEqual(shown["secrets"], [{"until_ms": None}])
        self.assertEqual(shown["pubkeys"], [{"until_ms": None, "pubkey": made["pubkey"]}])
        self.assertEqual(self.ok("GET", LIST).json, {"items": [shown], "next": None})

    def test_refusals(self) -> None:
        """An id twice, and ids that are none."""
        self.application()
        self.refused(409, "exists", "POST", LIST, {"id": "shop", "name": "Other"})
        for id in ("", "a.b", "a/b", "a b", "x" * 65, "\xe9", "a\n"):
            reply = self.refused(400, "bad_body", "POST", LIST, {"id": id, "name": "x"})
            self.assertIn("$.id", reply.json["detail"])

    def test_registry_away(self) -> None:
        """With the registry away nothing is made: 503 with a time to come back."""
        self.registry.refuse = RegistryUnavailable("away")
        reply = self.refused(503, "storage_unavailable", "POST", LIST, {"id": "shop"})
        self.assertIn("retry-after", reply.headers)

    def test_paging(self) -> None:
        """250 applications come in pages, each once, in order."""
        for n in range(250):
            self.ok("POST", LIST, {"id": f"app-{n:03}"}, 201)
        for limit in (None, 1000, 17):
            seen: list[str] = []
            cursor, pages = None, 0
            while pages == 0 or cursor is not None:
                query = "&".join([f"limit={limit}"] * (limit is not None) + [f"cursor={cursor}"] * (cursor is not None))
                page = self.ok("GET", LIST, query=query).json
                seen += [item["id"] for item in page["items"]]
                cursor, pages = page["next"], pages + 1
            self.assertEqual(seen, [f"app-{n:03}" for n in range(250)])
            self.assertEqual(pages, -(-250 // (limit or 100)))

    def test_bad_pages(self) -> None:
        """A limit out of range, and a cursor that is not this list's: 400."""
        for query in ("limit=0", "limit=1001", "limit=-1", "limit=x", "limit=", "limit=1.5", "cursor=x", "cursor="):
            self.refused(400, "bad_parameter", "GET", LIST, query=query)
        self.application("a")
        self.application("b")
        cursor = self.ok("GET", LIST, query="limit=1").json["next"]
        self.refused(400, "bad_parameter", "GET", "/api/v1/topics", query=f"cursor={cursor}")


class RotationTests(ManagerCase):
    def setUp(self) -> None:
        super().setUp()
        self.made = self.application()

    def rotate(self, status: int = 200, **body: object) -> dict[str, str]:
        return dict(self.ok("POST", f"{LIST}/shop/rotate", body, status).json)

    def publishes(self, secret: str) -> bool:
        reply = self.gate_says(Credentials(identity="shop", secret=secret))
        return reply == "shop"

    def gate_says(self, shown: Credentials) -> str | None:
        try:
            return self.gate.publisher(shown).application.id
        except Exception:
            return None

    def test_at_once(self) -> None:
        """Without an overlap the former key ends at once."""
        fresh = self.rotate(which="secret")["secret"]
        self.assertTrue(self.publishes(fresh))
        self.assertFalse(self.publishes(self.made["secret"]))
        self.assertEqual(self.ok("GET", f"{LIST}/shop").json["secrets"], [{"until_ms": None}])

    def test_overlap(self) -> None:
        """With one both are valid until it is over, and it is shown when that is."""
        reply = self.rotate(which="secret", overlap_s=60)
        until = self.clock.epoch_ms() + 60_000
        self.assertEqual(reply["until_ms"], until)
        self.assertTrue(self.publishes(reply["secret"]))
        self.assertTrue(self.publishes(self.made["secret"]))
        shown = self.ok("GET", f"{LIST}/shop").json["secrets"]
        self.assertEqual([key["until_ms"] for key in shown], [None, until])
        self.clock.advance(60_000)
        self.assertFalse(self.publishes(self.made["secret"]))
        self.assertEqual(len(self.ok("GET", f"{LIST}/shop").json["secrets"]), 1)

    def test_each_kind(self) -> None:
        """Each kind of key can be rotated; the answer holds that one only."""
        for which in ("secret", "subkey", "pubkey"):
            reply = self.rotate(which=which)
            self.assertEqual({"secret", "subkey", "pubkey"} & set(reply), {which})
            self.assertNotEqual(reply[which], self.made[which])
        self.assertEqual(self.ok("GET", f"{LIST}/shop").json["pubkey"], reply["pubkey"])

    def test_refusals(self) -> None:
        """Another kind, an overlap out of range, an application that is not there."""
        for body in (
            {"which": "token"},
            {},
            {"which": "secret", "overlap_s": -1},
            {"which": "secret", "overlap_s": 10**9},
            {"which": "secret", "x": 1},
        ):
            self.refused(400, "bad_body", "POST", f"{LIST}/shop/rotate", body)
        self.refused(404, "no_such_route", "POST", f"{LIST}/none/rotate", {"which": "secret"})

    def test_if_match(self) -> None:
        """A rotation on a version that somebody changed is refused; the present one passes and gives the next."""
        path = f"{LIST}/shop/rotate"
        seen = self.ok("GET", f"{LIST}/shop").headers["etag"]
        reply = self.ok("POST", path, {"which": "secret"}, headers={"if-match": seen})
        self.assertEqual(reply.headers["etag"], self.ok("GET", f"{LIST}/shop").headers["etag"])
        refused = self.refused(412, "version_mismatch", "POST", path, {"which": "secret"}, headers={"if-match": seen})
        self.assertEqual(f'"{refused.json["version"]}"', reply.headers["etag"])


class IfMatchTests(ManagerCase):
    """`If-Match` on any write; deleting an application stands for all."""

    def setUp(self) -> None:
        super().setUp()
        self.application()

    @property
    def seen(self) -> str:
        return self.ok("GET", f"{LIST}/shop").headers["etag"]

    def test_mismatch(self) -> None:
        """Other versions, weak tags and tags that are not ours match nothing."""
        for sent in ('"1"', f"W/{self.seen}", '"x"', '""', f'"0{self.seen[1:]}', '"2", "3"', '"99999999999999999999"'):
            self.refused(412, "version_mismatch", "DELETE", f"{LIST}/shop", headers={"if-match": sent})

    def test_malformed(self) -> None:
        """What is no list of entity tags is 400: a version without its quotes must not be taken for "any"."""
        for sent in ("1", "", '"1', '"1" "2"', '*, "1"', "w/*", '"1",'):
            self.refused(400, "bad_header", "DELETE", f"{LIST}/shop", headers={"if-match": sent})

    def test_match(self) -> None:
        """The present version, alone or in a list, passes."""
        for sent in ("%s", '"1", %s', 'W/"7",%s', "*"):
            self.ok("DELETE", f"{LIST}/shop", status=204, headers={"if-match": sent.replace("%s", self.seen)})
            self.application()

    def test_made_again(self) -> None:
        """A version of one that was deleted since is none of the one that was made again under its id: somebody wrote in between."""
        self.topic()
        token = {"name": "ci", "role": "viewer"}
        self.ok("POST", "/api/v1/tokens", token, 201)
        paths = [f"{LIST}/shop", "/api/v1/topics/orders", "/api/v1/tokens/ci"]
        seen = [self.ok("GET", path).headers["etag"] for path in paths]
        self.ok("DELETE", f"{LIST}/shop", query="force=true")
        self.ok("DELETE", paths[2], status=204)
        self.application()
        self.topic()
        self.ok("POST", "/api/v1/tokens", token, 201)
        for path, etag in zip(paths, seen, strict=True):
            self.refused(412, "version_mismatch", "DELETE", path, headers={"if-match": etag})
        self.refused(412, "version_mismatch", "POST", f"{LIST}/shop/rotate", {"which": "secret"}, headers={"if-match": seen[0]})
        self.refused(412, "version_mismatch", "PATCH", paths[1], {"partitions": 3}, headers={"if-match": seen[1]})

    def test_not_there(self) -> None:
        """Where it is not there, that is what is said."""
        self.refused(404, "no_such_route", "DELETE", f"{LIST}/none", headers={"if-match": "*"})


class DeletionTests(ManagerCase):
    def test_alone(self) -> None:
        """An application that owns nothing and is not bound goes."""
        self.application()
        self.ok("DELETE", f"{LIST}/shop", status=204)
        self.refused(404, "no_such_route", "GET", f"{LIST}/shop")

    def test_in_use(self) -> None:
        """One that owns a topic, or is bound to one, stays."""
        self.application()
        self.application("mail")
        self.topic()
        self.bind("mail", sub=True)
        for id in ("shop", "mail"):
            self.refused(409, "in_use", "DELETE", f"{LIST}/{id}")
            self.refused(409, "in_use", "DELETE", f"{LIST}/{id}", query="force=false")

    def test_force(self) -> None:
        """With force its topics, bindings and groups go along, and the answer names them."""
        self.application()
        self.application("mail")
        self.topic()
        self.bind("mail", sub=True)
        gone = self.ok("DELETE", f"{LIST}/shop", query="force=true").json
        self.assertEqual(gone["topics"], ["orders"])
        self.refused(404, "no_such_route", "GET", "/api/v1/topics/orders")
        self.assertEqual(self.ok("GET", "/api/v1/bindings").json["items"], [])
        self.ok("GET", f"{LIST}/mail")
        self.assertEqual(self.wait(self.storage.describe(["orders"])), {})

    def test_force_is_a_boolean(self) -> None:
        """Anything but true or false is refused, rather than taken for one of them."""
        self.application()
        for query in ("force=1", "force=", "force=True"):
            self.refused(400, "bad_parameter", "DELETE", f"{LIST}/shop", query=query)

    def test_made_again(self) -> None:
        """An application made again under the same id takes no key of the former one."""
        former = self.application()
        self.ok("DELETE", f"{LIST}/shop", status=204)
        self.application()
        with self.assertRaises(Exception):  # noqa: B017
            self.gate.subscriber(Credentials(subkey=former["subkey"]))
