"""Leases that are lost: 409 names them, the others take effect (contract, section 3)."""

from collections.abc import Sequence
from typing import Any

from psubd.testing.daemon import bind
from psubd.testing.http_contract.lease_steps import HOUR, ROUTES, LeaseSteps, tokens_of, values_of
from psubd.testing.http_contract.steps import Stand


class LossesContract(LeaseSteps):
    """Forged, another's, reset, revoked."""

    def test_forged(self) -> None:
        """What psubd did not write is lost, whatever it looks like; each token is judged alone."""
        stand = self.stand()
        self.put(stand, b"a", b"b")
        a, b = self.lease(stand, 2)
        token: str = a["ack"]
        forged = ["", "x", "x" * 200, "x" * 5000, "\u00e9\0", token[:-1], token + "A", token + "=", " " + token, token.swapcase()]
        forged += [token[:place] + ("B" if token[place] == "A" else "A") + token[place + 1 :] for place in range(0, len(token), 7)]
        forged += sorted({token[:cut] + b["ack"][cut:] for cut in range(1, len(token))} - {token, b["ack"]})
        for route, more in ROUTES:
            self.assert_lost(stand, route, forged, **more)
        self.assertEqual(self.out(stand), 2)
        self.assert_lost(stand, "ack", [*forged, b, a, *forged], [*forged, *forged])
        self.all_done(stand)

    def test_another_applications(self) -> None:
        """The token of another application is lost, though it is bound to the same topic: that one's lease stands."""
        stand, other = self.stand(), self.tenant()
        bind(self.manager, other.id, stand.topic, sub=True, start="earliest")
        reader = self.standing(other, stand.topic)
        self.put(stand, b"a")
        [own], [foreign] = self.lease(stand, 1), self.lease(reader, 1)
        for route, more in ROUTES:
            self.assert_lost(reader, route, [own], **more)
        self.assert_lost(stand, "ack", [foreign, own], [foreign])
        self.assertEqual((self.out(stand), self.out(reader)), (0, 1))
        self.ack(reader, foreign)

    def test_groups_of_one_application(self) -> None:
        """A token counts for the group that it is of: those of several groups, and topics, go in one call."""
        stand = self.stand()
        second = self.another(stand)
        self.put(stand, b"a")
        self.put(second, b"b")
        own, named = self.lease(stand, 2), self.lease(stand, 1, group="g", topic=stand.topic)
        self.assertEqual((values_of(named), sorted(values_of(own))), (["a"], ["a", "b"]))
        [first] = [message for message in own if message["value"] == "a"]
        self.ack(stand, first)
        self.assertEqual((self.out(stand), self.out(stand, "g"), self.out(second)), (0, 1, 1))
        self.ack(stand, *own, *named)
        self.all_done(stand)
        self.all_done(stand, "g")
        self.all_done(second)

    def test_moved_back(self) -> None:
        """A group that is moved while its messages are out loses their leases, whatever the way, and reads from there: nothing before comes
        later, nothing after is skipped, the attempts begin anew. Partitions that stay keep theirs."""
        stand = self.stand(2)
        places = {message["value"]: message for message in self.leased_of(stand, ("a0", "b0", "c0"), ("a1", "b1"))}
        self.nack(stand, places["b0"], delay=HOUR)
        to = {"topic": stand.topic, "to": {"offsets": {"0": places["b0"]["offset"]}}}
        reply = stand.sub.send("PUT", f"/v1/groups/{stand.id}/offsets", to)
        self.assertEqual(reply.status, 200, reply)
        for route, more in ROUTES:
            self.assert_lost(stand, route, [places[name] for name in ("a0", "b0", "c0")], **more)
        again = self.lease(stand, 2)
        self.assertEqual([(message["value"], message["attempt"]) for message in again], [("b0", 1), ("c0", 1)])
        self.assertFalse(set(tokens_of(again)) & set(tokens_of(list(places.values()))))
        self.assert_lost(stand, "ack", [places["b0"], *again, places["a1"], places["b1"]], [places["b0"]])
        self.all_done(stand)
        self.assert_nothing(stand)

    def leased_of(self, stand: Stand, *partitions: Sequence[str]) -> list[dict[str, Any]]:
        """Publish these values, partition by partition, and lease them all."""
        self.put_batch(stand, [{"value": value, "partition": number} for number, values in enumerate(partitions) for value in values])
        return self.lease(stand, sum(map(len, partitions)))

    def test_moved_forward(self) -> None:
        """A reset past what is out: its leases are lost, its messages do not come again."""
        stand = self.stand()
        self.put(stand, b"a", b"b")
        messages = self.lease(stand, 2)
        waiting = self.polling(stand, "timeout=30000&ack=explicit")
        self.assertEqual(stand.sub.send("PUT", f"/v1/groups/{stand.id}/offsets", {"topic": stand.topic, "to": "latest"}).status, 200)
        self.assert_lost(stand, "ack", messages)
        self.put(stand, b"c")
        self.assertEqual(values_of(self.result(waiting).json["messages"]), ["c"])
        self.assert_nothing(stand)

    def test_revoked(self) -> None:
        """A binding that is revoked loses its leases, and made again it has none of them: its messages begin where start says."""
        stand = self.stand()
        other = self.another(stand)
        self.put(stand, b"a")
        self.put(other, b"b")
        [first], [second] = self.lease(stand, 1, topic=stand.topic), self.lease(stand, 1, topic=other.topic)
        self.manage("DELETE", f"bindings/{stand.id}/{stand.topic}", status=204)
        for route, more in ROUTES[:2]:
            self.assert_lost(stand, route, [first], **more)
        self.assert_lost(stand, "ack", [first, second], [first])
        self.bind(stand.id, stand.topic, pub=True, sub=True, start="earliest")
        self.assert_lost(stand, "ack", [first])
        [again] = self.lease(stand, 1)
        self.assertEqual((again["value"], again["attempt"]), ("a", 1))
        self.assert_lost(stand, "ack", [first])
        self.bind(stand.id, stand.topic, pub=True)
        self.assert_lost(stand, "ack", [again])

    def test_a_binding_that_is_changed(self) -> None:
        """A PUT that keeps sub keeps the leases, whatever else it changes."""
        stand = self.stand()
        self.put(stand, b"a")
        [a] = self.lease(stand, 1)
        self.bind(stand.id, stand.topic, pub=True, sub=True, ack="explicit", ordered=True, max_in_flight=1)
        self.assert_nothing(stand)
        self.ack(stand, a)
        self.all_done(stand)

    def test_gone_with_its_group_or_topic(self) -> None:
        """A group that is deleted, a topic that is: their leases are lost, and stay so when there is another one of the name."""
        stand = self.stand()
        self.put(stand, b"a")
        [own], [named] = self.lease(stand, 1), self.lease(stand, 1, group="g")
        self.assertEqual(stand.sub.request("DELETE", "/v1/groups/g").status, 204)
        self.assert_lost(stand, "ack", [named])
        [again] = self.lease(stand, 1, group="g")
        self.assert_lost(stand, "ack", [named, again], [named])
        self.manage("DELETE", f"topics/{stand.topic}", status=204)
        self.assert_lost(stand, "ack", [own])
        self.manage("POST", "topics", {"id": stand.topic, "owner": stand.id}, 201)
        self.bind(stand.id, stand.topic, pub=True, sub=True, start="earliest")
        self.put(stand, b"new")
        [new] = self.lease(stand, 1)
        self.assertEqual(new["value"], "new")
        self.assert_lost(stand, "ack", [own, new], [own])
