"""What the manager does while tenants publish and read: grants end, topics grow, go and come again (contract, sections 1 and 3)."""

from psubd.testing.daemon import bind, make_topic
from psubd.testing.http_contract.steps import Steps


class ChangesContract(Steps):
    """Grants and topics."""

    def unbind(self, application: str, topic: str) -> None:
        self.manage("DELETE", f"bindings/{application}/{topic}", status=204)

    def test_revoked_while_polls_wait(self) -> None:
        """Polls and replays that name the topic end 403 topic_not_bound; one over all topics goes on with the rest, and ends when none is left."""
        stand = self.stand()
        other = self.name()
        make_topic(self.manager, other, stand.id)
        bind(self.manager, stand.id, other, pub=True, sub=True)
        named = self.polling(stand, f"topic={stand.topic}&timeout=60000")
        both = self.polling(stand, f"topic={stand.topic}&topic={other}&timeout=60000&group=both")
        replay = self.polling(stand, f"topic={stand.topic}&offset=latest&timeout=60000")
        every = [self.polling(stand, f"timeout=60000&group={group}") for group in ("gets", "ends")]
        self.unbind(stand.id, stand.topic)
        for poll in (named, both, replay):
            self.assert_refused(self.result(poll), 403, "topic_not_bound")
        self.assert_refused(self.send(stand, b"x"), 403, "topic_not_bound")
        self.assert_refused(self.replay(stand, "earliest"), 403, "topic_not_bound")
        gets, ends = every
        self.assertFalse(gets.done() or ends.done())
        self.put(self.standing(stand.tenant, other), b"rest")
        for poll in every:
            self.assertEqual([message["value"] for message in self.result(poll).json["messages"]], ["rest"])
        last = self.polling(stand, "timeout=60000&group=ends")
        self.unbind(stand.id, other)
        self.assert_refused(self.result(last), 403, "topic_not_bound")

    def test_a_key_that_ends_while_a_poll_waits(self) -> None:
        """A poll whose key ends is 401 with a challenge, and so is every later one; the new key goes on where the group was."""
        stand = self.stand()
        poll = self.polling(stand, "timeout=60000")
        new = self.manage("POST", f"applications/{stand.id}/rotate", {"which": "subkey"}).json["subkey"]
        ended = self.result(poll)
        self.assert_refused(ended, 401, "bad_credentials")
        self.assertIn("Bearer", ended.headers["www-authenticate"])
        self.assert_refused(self.poll(stand), 401, "bad_credentials")
        self.put(stand, b"kept")
        reply = self.data({"subkey": new}).request("GET", "/v1/sub?timeout=5000")
        self.assertEqual(reply.json["messages"][0]["value"], "kept")

    def test_an_application_that_is_deleted(self) -> None:
        """Its polls end 401, its keys are no more; made again under the same id it is another one: no key, no binding, no cursor of the former."""
        owner, stand = self.stand(), self.tenant()
        bind(self.manager, stand.id, owner.topic, sub=True, start="earliest")
        reader = self.standing(stand, owner.topic)
        self.put(owner, b"one")
        self.drain(reader, 1)
        poll = self.polling(reader, "timeout=60000")
        self.manage("DELETE", f"applications/{stand.id}?force=true")
        self.assert_refused(self.result(poll), 401, "bad_credentials")
        made = self.manage("POST", "applications", {"id": stand.id, "name": "another"}, 201).json
        self.assert_refused(self.poll(reader), 401, "bad_credentials")
        again = self.standing(stand._replace(subscribe={"subkey": made["subkey"]}), owner.topic)
        self.assert_refused(self.poll(again), 403, "topic_not_bound")
        bind(self.manager, stand.id, owner.topic, sub=True, start="earliest")
        self.assertEqual([message["value"] for message in self.drain(again, 1)], ["one"])

    def test_a_binding_made_again(self) -> None:
        """A binding that is deleted and made again, or whose sub was taken away, inherits no cursor: its groups begin where start says."""
        stand = self.stand()
        self.put(stand, b"a", b"b")
        self.drain(stand, 2)
        self.drain(stand, 2, "&group=g")
        self.unbind(stand.id, stand.topic)
        bind(self.manager, stand.id, stand.topic, pub=True, sub=True, start="earliest")
        self.assertEqual(len(self.drain(stand, 2)), 2)
        self.assertEqual(len(self.drain(stand, 2, "&group=g")), 2)
        bind(self.manager, stand.id, stand.topic, pub=True)
        self.assert_refused(self.poll(stand, f"topic={stand.topic}"), 403, "topic_not_bound")
        bind(self.manager, stand.id, stand.topic, pub=True, sub=True, start="latest")
        self.put(stand, b"c")
        self.assertEqual([message["value"] for message in self.drain(stand, 1)], ["c"])

    def test_partitions_added_while_polls_wait(self) -> None:
        """Partitions that the manager adds are read by polls and replays that wait, from their first message, whatever start says."""
        stand = self.stand(1, start="latest")
        self.put(stand, b"before")
        self.assertEqual(self.values(stand), ["before"])
        polls = [self.polling(stand, f"timeout=60000{more}") for more in ("", "&group=g", f"&topic={stand.topic}&offset=latest")]
        self.manage("PATCH", f"topics/{stand.topic}", {"partitions": 3})
        self.assertEqual(self.place(stand, b"on the new one", {"partition": "2"})["partition"], 2)
        for poll in polls:
            self.assertEqual([message["value"] for message in self.result(poll).json["messages"]], ["on the new one"])
        self.put(stand, b"first", partition="1")
        self.assertEqual([message["value"] for message in self.drain(stand, 1)], ["first"])
        self.assertEqual([message["value"] for message in self.drain(stand, 1, "&group=g")], ["first"])
        with self.unchanged(stand):
            self.assert_refused(self.send(stand, b"x", {"partition": "3"}), 400, "bad_header")

    def test_a_topic_that_is_deleted(self) -> None:
        """Deleted by the manager it is bound to nobody: what waits on it and all that names it is 403 topic_not_bound, as if it had never been."""
        stand = self.stand()
        self.put(stand, b"a")
        self.drain(stand, 1)
        poll = self.polling(stand, f"topic={stand.topic}&timeout=60000")
        self.manage("DELETE", f"topics/{stand.topic}", status=204)
        self.assert_refused(self.result(poll), 403, "topic_not_bound")
        for reply in (
            self.send(stand, b"x"),
            self.batch(stand, [{"value": "x"}]),
            self.poll(stand, f"topic={stand.topic}&timeout=0"),
            self.replay(stand, "earliest"),
            stand.sub.request("GET", f"/v1/topics/{stand.topic}"),
        ):
            self.assert_refused(reply, 403, "topic_not_bound")

    def test_a_topic_made_again(self) -> None:
        """A topic deleted and made again under the same name is another one: it has none of the former's messages, no binding, and no group's
        cursor: its first message is read by all that begin at the earliest, though they had stood behind it."""
        stand = self.stand(2)
        for partition in ("0", "1"):
            self.put(stand, b"old", b"old", b"old", partition=partition)
        self.drain(stand, 6)
        self.drain(stand, 6, "&group=g")
        self.manage("DELETE", f"topics/{stand.topic}", status=204)
        make_topic(self.manager, stand.topic, stand.id, partitions=2)
        self.assert_refused(self.poll(stand, f"topic={stand.topic}"), 403, "topic_not_bound")
        bind(self.manager, stand.id, stand.topic, pub=True, sub=True, start="earliest")
        self.assertEqual(self.log(stand), [])
        for partition in ("0", "1"):
            self.put(stand, b"new", partition=partition)
        for group in ("", "&group=g"):
            self.assertEqual([message["value"] for message in self.drain(stand, 2, group)], ["new", "new"])

    def test_rates(self) -> None:
        """Over the binding's rate a publish is 429 with when to come again, and nothing is stored; another tenant is not held up."""
        stand, other = self.stand(), self.stand()
        self.bind(stand.id, stand.topic, pub=True, sub=True, rate={"messages_per_s": 1, "burst_s": 2})
        stored, refused = 0, None
        for _ in range(20):
            reply = self.send(stand, b"x")
            if reply.status != 200:
                refused = reply
                break
            stored += 1
        assert refused is not None, "never over the rate"
        self.assert_refused(refused, 429, "rate_limited")
        for name in ("retry-after", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"):
            self.assertTrue(refused.headers[name].isdecimal(), name)
        self.put(other, b"x")
        bounds = stand.pub.request("GET", f"/v1/topics/{stand.topic}").json["partitions"][0]
        self.assertEqual(bounds["end"] - bounds["first"], stored)
