"""Who is who: credentials in every form, and what a tenant sees of its own (contract, sections 1 and 3)."""

import base64

from psubd.testing.daemon import bind, make_topic
from psubd.testing.http_contract.steps import Stand, Steps

GUESS = "A" * 43


def basic(*parts: str) -> dict[str, str]:
    """Authorization: Basic."""
    return {"authorization": f"Basic {base64.b64encode(':'.join(parts).encode()).decode()}"}


class CallersContract(Steps):
    """Credentials and tenants."""

    def keys(self, stand: Stand) -> tuple[str, str, str]:
        """pubkey, secret, subkey."""
        return stand.tenant.publish["pubkey"], stand.tenant.publish["secret"], stand.tenant.subscribe["subkey"]

    def test_every_form_of_credentials(self) -> None:
        """The headers named, Basic with the id or the pubkey, Basic with all three on every route, and Bearer for sub."""
        stand = self.stand()
        pubkey, secret, subkey = self.keys(stand)
        publish = [{"pubkey": pubkey, "secret": secret}, basic(stand.id, secret), basic(pubkey, secret), basic(pubkey, secret, subkey)]
        subscribe = [{"subkey": subkey}, {"authorization": f"Bearer {subkey}"}, {"authorization": f"bearer {subkey}"}]
        subscribe += [basic(stand.id, subkey), basic(pubkey, subkey), basic(pubkey, secret, subkey)]
        for shown in publish:
            self.assertEqual(self.data(shown).request("POST", f"/v1/pub/{stand.topic}", b"x").status, 200, shown)
        for shown in subscribe:
            self.assertEqual(self.data(shown).request("GET", "/v1/sub?timeout=0&group=g").status, 200 if shown in subscribe[:4] else 204, shown)
        for shown in (*publish, *subscribe):
            self.assertEqual(self.data(shown).request("GET", "/v1/whoami").json["application"], stand.id)

    def test_wrong_credentials_are_one_answer(self) -> None:
        """None, a guess, another tenant's, one of another kind, two kinds at once: 401 with a challenge, and nothing changes."""
        stand, other = self.stand(), self.stand()
        pubkey, secret, subkey = self.keys(stand)
        self.put(stand, b"here")
        wrong = [
            {"pubkey": pubkey, "secret": self.keys(other)[1]},
            {"pubkey": pubkey, "secret": f"ps_{GUESS}"},
            {"pubkey": f"pk_{GUESS}", "secret": secret},
            {"pubkey": pubkey, "secret": subkey},
            {"pubkey": secret, "secret": pubkey},
            basic(stand.id, subkey, secret),
            basic(other.id, secret),
            basic("nobody", secret),
        ]
        malformed = [
            {},
            {"pubkey": pubkey},
            {"secret": secret},
            {"pubkey": "", "secret": ""},
            {"pubkey": pubkey, "secret": secret, "subkey": subkey},
            {"pubkey": pubkey, "secret": secret, **basic(pubkey, secret)},
            {"subkey": subkey, "authorization": f"Bearer {subkey}"},
            {"authorization": f"Digest {secret}"},
            {"authorization": f"Basic {secret}"},
            basic(pubkey),
            basic(pubkey, ""),
        ]
        sub_only = [{"subkey": f"sk_{GUESS}"}, {"subkey": secret}, {"authorization": f"Bearer {secret}"}, {"authorization": f"Bearer {pubkey}"}]
        sub_only += [basic(other.id, subkey), {"pubkey": pubkey, "secret": secret}]
        details: dict[str, set[str]] = {"pub": set(), "sub": set()}
        with self.unchanged(stand, other):
            for shown in (*wrong, *malformed, {"subkey": subkey}, {"authorization": f"Bearer {subkey}"}):
                reply = self.data(shown).request("POST", f"/v1/pub/{stand.topic}", b"x")
                self.assert_refused(reply, 401, "bad_credentials", shown)
                self.assertIn("Basic", reply.headers["www-authenticate"])
                details["pub"].update([reply.json["detail"]] if shown in wrong else [])
            for shown in (*malformed, *sub_only):
                reply = self.data(shown).request("GET", "/v1/sub?timeout=0")
                self.assert_refused(reply, 401, "bad_credentials", shown)
                self.assertIn("Bearer", reply.headers["www-authenticate"])
                details["sub"].update([reply.json["detail"]] if shown in sub_only[:5] else [])
        self.assertEqual((len(details["pub"]), len(details["sub"])), (1, 1), details)

    def test_credentials_in_a_query(self) -> None:
        """Credentials in a query are 400, beside good ones too, and are not repeated in the answer."""
        stand = self.stand()
        with self.unchanged(stand):
            for name, value in (
                *stand.tenant.publish.items(),
                *stand.tenant.subscribe.items(),
                ("authorization", "Bearer+x1y2"),
                ("access_token", "x1y2"),
            ):
                for reply in (
                    stand.pub.request("POST", f"/v1/pub/{stand.topic}?{name}={value}", b"x"),
                    stand.sub.request("GET", f"/v1/sub?timeout=0&{name}={value}"),
                ):
                    self.assert_refused(reply, 400, "bad_parameter", name)
                    self.assertNotIn(value, reply.body.decode())

    def test_rotation(self) -> None:
        """A rotated key is valid beside the new one for the overlap that the caller named, and without one ends at once."""
        stand = self.stand()
        new = self.manage("POST", f"applications/{stand.id}/rotate", {"which": "secret", "overlap_s": 600}).json["secret"]
        pubkey, old, _ = self.keys(stand)
        for secret in (old, new):
            self.assertEqual(self.data({"pubkey": pubkey, "secret": secret}).request("POST", f"/v1/pub/{stand.topic}", b"x").status, 200)
        newest = self.manage("POST", f"applications/{stand.id}/rotate", {"which": "secret"}).json["secret"]
        told = [self.data({"pubkey": pubkey, "secret": one}).request("POST", f"/v1/pub/{stand.topic}", b"x").status for one in (old, new, newest)]
        self.assertEqual(told, [401, 401, 200])

    def test_whoami(self) -> None:
        """Either credential tells the application, which credential it was, and the bindings with their settings."""
        stand = self.stand(start="latest", max_in_flight=7)
        for client, kind in ((stand.pub, "secret"), (stand.sub, "subkey")):
            told = client.request("GET", "/v1/whoami").json
            self.assertEqual((told["application"], told["credential"], told["until"]), (stand.id, kind, None))
            [binding] = told["bindings"]
            shown = {name: binding[name] for name in ("topic", "pub", "sub", "ack", "start", "max_in_flight")}
            settings = {"topic": stand.topic, "pub": True, "sub": True, "ack": "auto", "start": "latest", "max_in_flight": 7}
            self.assertEqual(shown, settings)

    def test_topics(self) -> None:
        """A tenant sees its bound topics with each partition's first and end offset, in pages; those of others are 403, there or not."""
        stand, other = self.stand(2), self.stand()
        second = self.name()
        make_topic(self.manager, second, other.id)
        bind(self.manager, stand.id, second, sub=True)
        offsets = self.put(stand, b"a", b"b", partition="1")
        told = stand.pub.request("GET", f"/v1/topics/{stand.topic}").json
        empty, filled = told["partitions"]
        self.assertEqual((told["topic"], told["pub"], told["sub"]), (stand.topic, True, True))
        self.assertEqual((empty["partition"], empty["first"]), (0, empty["end"]))
        self.assertEqual(filled, {"partition": 1, "first": offsets[0], "end": offsets[1] + 1})
        items = stand.sub.request("GET", "/v1/topics").json["items"]
        self.assertEqual([item["topic"] for item in items], sorted([stand.topic, second]))
        page = stand.sub.request("GET", "/v1/topics?limit=1").json
        rest = stand.sub.request("GET", f"/v1/topics?limit=1&cursor={page['next']}").json
        self.assertEqual(([*page["items"], *rest["items"]], rest["next"]), (items, None))
        for topic in (other.topic, self.name()):
            self.assert_refused(stand.sub.request("GET", f"/v1/topics/{topic}"), 403, "topic_not_bound")

    def test_groups(self) -> None:
        """A tenant sees its groups with place, end, lag and the age of what waits; a group that is not there is 404."""
        stand = self.stand(2)
        offsets = self.put(stand, b"a", b"b", b"c", partition="0")
        self.assertEqual([self.values(stand, "timeout=5000") for _ in range(2)], [["a"], ["b"]])
        self.until(lambda: bool(stand.sub.request("GET", f"/v1/groups/{stand.id}").json["lag"] == 1), "the two are done")
        told = stand.pub.request("GET", f"/v1/groups/{stand.id}").json
        first, second = told["items"]
        self.assertEqual((told["group"], told["lag"], first["lag"], second["lag"]), (stand.id, 1, 1, 0))
        self.assertEqual((first["topic"], first["committed"], first["end"]), (stand.topic, offsets[2], offsets[2] + 1))
        self.assertTrue(0 <= told["oldest_ms"] <= 60_000 and second["oldest_ms"] is None, told)
        self.assertEqual([group["group"] for group in stand.pub.request("GET", "/v1/groups").json["items"]], [stand.id])
        self.assert_refused(stand.sub.request("GET", "/v1/groups/nothing"), 404, "no_such_route")

    def test_two_tenants(self) -> None:
        """Two tenants on one topic each get all of it; neither sees, reads, moves or deletes the other's groups, topics and keys."""
        stand, other = self.stand(), self.stand()
        bind(self.manager, other.id, stand.topic, sub=True, start="earliest")
        self.put(stand, b"one", b"two")
        self.put(other, b"private")
        self.assertEqual([message["value"] for message in self.drain(stand, 2, "&group=g")], ["one", "two"])
        self.assertEqual(sorted(message["value"] for message in self.drain(other, 3)), ["one", "private", "two"])
        with self.unchanged(stand, other):
            for name in (other.id, f"{other.id}.g"):
                self.assert_refused(stand.sub.request("GET", f"/v1/groups/{name}"), 404, "no_such_route")
                self.assert_refused(stand.sub.request("DELETE", f"/v1/groups/{name}"), 404, "no_such_route")
            reset = f'{{"topic": "{other.topic}", "to": "earliest"}}'.encode()
            reply = stand.sub.request("PUT", f"/v1/groups/{stand.id}/offsets", reset, {"content-type": "application/json"})
            self.assert_refused(reply, 403, "topic_not_bound")
            for query in (f"topic={other.topic}&timeout=0", f"topic={other.topic}&offset=earliest&timeout=0"):
                self.assert_refused(self.poll(stand, query), 403, "topic_not_bound")
        for client in (stand.pub, stand.sub):
            for target in ("/v1/whoami", "/v1/topics", "/v1/groups"):
                self.assertNotIn(other.id, client.request("GET", target).body.decode())
