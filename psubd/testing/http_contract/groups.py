"""Groups: where they begin, that each goes its own way, and how they are moved (contract, sections 3 and 5)."""

import time
from typing import Any

from psubd.testing.daemon import Reply, make_topic, register
from psubd.testing.http_contract.steps import Stand, Steps


class GroupsContract(Steps):
    """Several groups of an application."""

    def reset(self, stand: Stand, to: Any, group: str | None = None, query: str = "", **members: Any) -> Reply:
        """Move a group of the stand's on its topic, whatever the answer is."""
        return stand.sub.send("PUT", f"/v1/groups/{group or stand.id}/offsets{query}", {"topic": stand.topic, "to": to, **members})

    def moved(self, stand: Stand, to: Any, group: str | None = None, **members: Any) -> dict[str, int]:
        """Move it; where it stands now."""
        reply = self.reset(stand, to, group, **members)
        self.assertEqual(reply.status, 200, reply)
        offsets: dict[str, int] = reply.json["offsets"]
        return offsets

    def test_groups_are_independent(self) -> None:
        """Every group gets all messages, the application's own and named ones, and none moves another one's cursor."""
        stand = self.stand()
        self.put(stand, b"a", b"b")
        for query in ("", "&group=one", "&group=t.w-o_2", f"&group={stand.id}"):
            self.assertEqual([message["value"] for message in self.drain(stand, 2, query)], ["a", "b"], query)
        names = [group["group"] for group in stand.sub.request("GET", "/v1/groups").json["items"]]
        self.assertEqual(names, sorted([stand.id, *(f"{stand.id}.{name}" for name in ("one", "t.w-o_2", stand.id))]))

    def test_the_own_group_begins_at_the_grant(self) -> None:
        """With start latest the application's own group misses nothing that was published after the PUT, read or not, and gets nothing before
        it; a later PUT moves no cursor."""
        stand = self.stand(sub=False)
        self.put(stand, b"before")
        self.bind(stand.id, stand.topic, pub=True, sub=True, start="latest")
        self.put(stand, b"after")
        self.bind(stand.id, stand.topic, pub=True, sub=True, start="earliest", max_in_flight=5)
        self.put(stand, b"later")
        self.assertEqual([message["value"] for message in self.drain(stand, 2)], ["after", "later"])

    def test_a_named_group_begins_at_its_first_read(self) -> None:
        """A named group begins where start says when it is first read: with latest at the end of that moment, whether that read got anything."""
        stand = self.stand(2, start="latest")
        self.put(stand, b"a", b"b")
        self.assertEqual(self.poll(stand, "group=g&timeout=0").status, 204)
        self.put(stand, b"c", b"d")
        self.assertEqual(sorted(message["value"] for message in self.drain(stand, 2, "&group=g")), ["c", "d"])
        self.bind(stand.id, stand.topic, pub=True, sub=True, start="earliest")
        self.assertEqual(len(self.drain(stand, 4, "&group=whole")), 4)

    def test_reset(self) -> None:
        """A group goes to earliest, latest, a time, or offsets, and reads on from there; others stay; dry_run says where and changes nothing."""
        stand = self.stand()
        offsets = self.put(stand, b"a", b"b")
        time.sleep(0.01)
        when = self.now()
        offsets += self.put(stand, b"c", b"d")
        self.drain(stand, 4)
        self.drain(stand, 4, "&group=other")
        with self.unchanged(stand):
            self.assertEqual(self.reset(stand, "earliest", query="?dry_run=true").json, {"offsets": {"0": offsets[0]}})
            self.assertEqual(self.poll(stand).status, 204)
        steps: list[tuple[Any, int, list[str]]] = [
            ("earliest", offsets[0], ["a", "b", "c", "d"]),
            ({"timestamp": when}, offsets[2], ["c", "d"]),
            ({"offsets": {"0": offsets[1]}}, offsets[1], ["b", "c", "d"]),
            ({"timestamp": self.now() + 60_000}, offsets[3] + 1, []),
            ("latest", offsets[3] + 1, []),
            ({"timestamp": 0}, offsets[0], ["a", "b", "c", "d"]),
        ]
        for to, place, values in steps:
            self.assertEqual(self.moved(stand, to), {"0": place}, to)
            self.assertEqual([message["value"] for message in self.drain(stand, len(values))], values, to)
        self.assertEqual(self.poll(stand, "group=other&timeout=0").status, 204)

    def test_reset_of_some_partitions(self) -> None:
        """Only the partitions named are moved; the others go on where they were."""
        stand = self.stand(3)
        for partition in range(3):
            self.put(stand, f"p{partition}".encode(), partition=str(partition))
        self.drain(stand, 3)
        self.assertEqual(set(self.moved(stand, "earliest", partitions=[1])), {"1"})
        self.assertEqual([message["value"] for message in self.drain(stand, 1)], ["p1"])
        first = stand.sub.request("GET", f"/v1/topics/{stand.topic}").json["partitions"][2]["first"]
        self.assertEqual(self.moved(stand, {"offsets": {"2": first}}), {"2": first})
        self.assertEqual([message["value"] for message in self.drain(stand, 1)], ["p2"])

    def test_reset_before_the_first_read(self) -> None:
        """A named group begins where a reset put it before its first read, not where start says."""
        stand = self.stand(start="latest")
        offsets = self.put(stand, b"a", b"b", b"c")
        self.assertEqual(self.moved(stand, {"offsets": {"0": offsets[1]}}, "g"), {"0": offsets[1]})
        self.assertEqual([message["value"] for message in self.drain(stand, 2, "&group=g")], ["b", "c"])

    def test_reset_while_a_poll_waits(self) -> None:
        """A poll that waits gets what its group was moved back to."""
        stand = self.stand()
        self.put(stand, b"again")
        self.drain(stand, 1)
        poll = self.polling(stand, "timeout=30000")
        self.moved(stand, "earliest")
        self.assertEqual([message["value"] for message in self.result(poll).json["messages"]], ["again"])

    def test_wrong_resets_change_nothing(self) -> None:
        """A partition or an offset that is not there, a topic that is not bound, a body that is none: a 4xx each, and nothing moves."""
        stand = self.stand()
        offsets = self.put(stand, b"a", b"b")
        self.drain(stand, 2)
        with self.unchanged(stand):
            for to in ({"offsets": {"1": 0}}, {"offsets": {"0": offsets[1] + 2}}):
                self.assert_refused(self.reset(stand, to), 400, "bad_parameter", to)
            self.assert_refused(self.reset(stand, "earliest", partitions=[7]), 400, "bad_parameter")
            wrongs: list[Any] = ["first", {}, {"offsets": {}}, {"timestamp": -1}, {"timestamp": 1, "offsets": {"0": 0}}, None]
            for wrong in wrongs:
                self.assert_refused(self.reset(stand, wrong), 400, "bad_body", wrong)
            self.assert_refused(self.reset(stand, "earliest", query="?dry_run=yes"), 400, "bad_parameter")
            self.assert_refused(
                stand.sub.send("PUT", f"/v1/groups/{stand.id}/offsets", {"topic": self.name(), "to": "latest"}), 403, "topic_not_bound"
            )
            reply = stand.pub.send("PUT", f"/v1/groups/{stand.id}/offsets", {"topic": stand.topic, "to": "earliest"})
            self.assert_refused(reply, 401, "bad_credentials")

    def test_the_longest_names(self) -> None:
        """An application of 64 characters, a topic and a group of 200: all of it works."""
        tenant, topic, group = register(self.manager, self.name().ljust(64, "a")), self.name().ljust(200, "t"), "g" * 200
        make_topic(self.manager, topic, tenant.id)
        self.bind(tenant.id, topic, pub=True, sub=True, start="earliest")
        stand = self.standing(tenant, topic)
        self.put(stand, b"x", b"y")
        self.assertEqual([message["value"] for message in self.drain(stand, 2, f"&group={group}")], ["x", "y"])
        self.assertEqual(list(self.moved(stand, "earliest", group)), ["0"])
        self.assertEqual(stand.sub.request("DELETE", f"/v1/groups/{group}").status, 204)

    def test_forgotten(self) -> None:
        """A group that is deleted is gone; read again it is a new one that begins where start says. Deleting what is not there is 404."""
        stand = self.stand()
        self.put(stand, b"a")
        self.drain(stand, 1, "&group=g")
        self.assertEqual(stand.sub.request("DELETE", "/v1/groups/g").status, 204)
        with self.unchanged(stand):
            self.assert_refused(stand.sub.request("GET", "/v1/groups/g"), 404, "no_such_route")
            self.assert_refused(stand.sub.request("DELETE", "/v1/groups/g"), 404, "no_such_route")
            self.assert_refused(stand.pub.request("DELETE", f"/v1/groups/{stand.id}"), 401, "bad_credentials")
        self.assertEqual([message["value"] for message in self.drain(stand, 1, "&group=g")], ["a"])

    def test_without_replay_nothing_goes_back(self) -> None:
        """A binding without replay: no reset goes back, no replay reads before the cursor; forward is allowed."""
        stand = self.stand(replay=False)
        offsets = self.put(stand, b"a", b"b", b"c")
        self.assertEqual(self.values(stand, "timeout=5000"), ["a"])
        self.until(lambda: self.state(stand)[1][0][2] == offsets[1], "it is done")
        with self.unchanged(stand):
            self.assert_refused(self.reset(stand, "earliest"), 403, "topic_not_bound")
            self.assert_refused(self.reset(stand, {"offsets": {"0": offsets[0]}}), 403, "topic_not_bound")
            self.assert_refused(self.replay(stand, "earliest"), 403, "topic_not_bound")
            self.assertEqual(len(self.follow(stand, offsets[1], partition=0)), 2)
        self.assertEqual(self.moved(stand, {"offsets": {"0": offsets[2]}}), {"0": offsets[2]})
        self.assertEqual([message["value"] for message in self.drain(stand, 1)], ["c"])
