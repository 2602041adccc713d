"""Dead letters and redrive (contract, sections 3 and 5)."""

from typing import Any

from psubd.testing.daemon import Reply, bind
from psubd.testing.http_contract.lease_steps import HOUR, SOON, LeaseSteps, values_of
from psubd.testing.http_contract.steps import Stand

NAMES = ("origin-topic", "origin-partition", "origin-offset", "origin-timestamp", "group", "attempts", "reason", "time", "seal")


class LettersContract(LeaseSteps):
    """What cannot be dealt with goes aside, and comes back on demand."""

    def die(self, stand: Stand, *values: bytes, group: str | None = None) -> list[dict[str, Any]]:
        """Publish these, lease them and give them up; the messages as they were leased."""
        self.put(stand, *values)
        messages = self.lease(stand, len(values), **({} if group is None else {"group": group}))
        self.nack(stand, *messages, dead=True)
        return messages

    def redrive(self, group: str, topic: str, **more: Any) -> Reply:
        """Ask the manager for it, whatever the answer is."""
        return self.manager.send("POST", f"/api/v1/groups/{group}/redrive", {"topic": topic, **more})

    def redriven(self, group: str, topic: str, **more: Any) -> tuple[int, int]:
        """Redrive what must be answered; how many were moved, how many left."""
        reply = self.redrive(group, topic, **more)
        self.assertEqual((reply.status, set(reply.json)), (200, {"moved", "left"}), reply)
        for left in reply.json["left"]:
            self.assertEqual((set(left), bool(left["why"])), ({"partition", "offset", "why"}, True))
        return reply.json["moved"], len(reply.json["left"])

    def test_after_the_last_attempt(self) -> None:
        """After max_attempts a message lies in the dead-letter topic with key, value and headers as they were, and where it came from, sealed;
        in its own topic it is done."""
        stand, other = self.with_letters(max_attempts=2)
        when = self.now() - 5000
        place = self.place(stand, b"\xffvalue", {"key": "k", "header.a": "1", "content-type": "x/y", "timestamp": str(when)})
        self.put(stand, b"next")
        for attempt in (1, 2):
            message = next(message for message in self.lease(stand, 3 - attempt) if message["offset"] == place["offset"])
            self.assertEqual(message["attempt"], attempt)
            self.nack(stand, message)
        [letter] = self.read(other, "timeout=10000")
        self.assertEqual((letter["key"], letter["value"], letter["encoding"], letter["attempt"]), ("k", message["value"], "base64", 1))
        headers: dict[str, str] = letter["headers"]
        self.assertEqual((headers["a"], headers["content-type"]), ("1", "x/y"))
        told = {name: headers[f"psubd.{name}"] for name in NAMES}
        self.assertEqual(set(headers), {"a", "content-type", *(f"psubd.{name}" for name in NAMES)})
        self.assertTrue(told.pop("seal"))
        self.assertLessEqual(abs(int(told.pop("time")) - self.now()), HOUR)
        expected = {"origin-topic": stand.topic, "origin-partition": "0", "origin-offset": str(place["offset"]), "origin-timestamp": str(when)}
        self.assertEqual(told, {**expected, "group": stand.id, "attempts": "2", "reason": "max_attempts"})
        self.assert_nothing(stand)
        self.until(lambda: self.items(stand)[0]["committed"] == place["offset"] + 1, "it is done")
        self.ack(stand, message)

    def test_a_lapse_is_an_attempt(self) -> None:
        """A lease that lapses counts as well."""
        stand, other = self.with_letters(max_attempts=1)
        self.put(stand, b"a")
        self.lease(stand, 1, ackTimeout=SOON)
        [letter] = self.read(other, "timeout=10000")
        self.assertEqual((letter["value"], letter["headers"]["psubd.reason"], letter["headers"]["psubd.attempts"]), ("a", "max_attempts", "1"))
        self.all_done(stand)

    def test_given_up_at_once(self) -> None:
        """nack with dead: it is there when the answer is, with the group that gave it up, and no other group's message is touched."""
        stand, other = self.with_letters()
        self.put(stand, b"a", b"b")
        [a] = self.lease(stand, 1, group="g", batchSize=1)
        self.nack(stand, a, dead=True)
        [letter] = self.read(other, "timeout=10000")
        told = (letter["value"], letter["headers"]["psubd.group"], letter["headers"]["psubd.reason"], letter["headers"]["psubd.attempts"])
        self.assertEqual(told, ("a", f"{stand.id}.g", "nack", "1"))
        self.assertEqual(values_of(self.lease(stand, 1, group="g")), ["b"])
        self.assertEqual(values_of(self.drain(stand, 2)), ["a", "b"])
        self.assert_lost(stand, "extend", [a], ackTimeout=HOUR)

    def test_without_a_dead_letter_topic(self) -> None:
        """nack with dead is 409 no_dead_letter and changes nothing, for none of the call's tokens."""
        stand, other = self.with_letters()
        without = self.another(stand)
        self.put(stand, b"a")
        self.put(without, b"b")
        messages = self.lease(stand, 2)
        self.assert_refused(self.show(stand, "nack", messages, dead=True), 409, "no_dead_letter")
        self.assertEqual((self.out(stand), self.out(without), self.log(other)), (1, 1, []))
        self.taken(stand, "extend", messages, ackTimeout=HOUR)
        self.ack(stand, *messages)

    def test_ordered(self) -> None:
        """A key goes on behind a message that was given up."""
        stand, other = self.with_letters(ordered=True, max_attempts=1)
        self.put_batch(stand, [{"key": "k", "value": value} for value in "abc"])
        for value, members in (("a", {}), ("b", {"dead": True})):
            [message] = self.lease(stand, 1)
            self.assertEqual(message["value"], value)
            self.nack(stand, message, **members)
        self.assertEqual(values_of(self.lease(stand, 1)), ["c"])
        self.assertEqual(values_of(self.drain(other, 2)), ["a", "b"])

    def test_redrive(self) -> None:
        """Back to the topic that it came from, for the group that gave it up: as a new message of it, once. Other groups and applications
        count it as done; the letter stays where it lies."""
        stand, other = self.with_letters()
        bind(self.manager, other.id, stand.topic, sub=True, start="earliest")
        [a, _] = self.die(stand, b"a", b"b", group="g")
        for reader in ("&group=g", "", f"&topic={stand.topic}"):
            self.read(stand, f"batchSize=10&timeout=0{reader}")
        self.drain(other, 4)
        self.assertEqual(self.redriven(f"{stand.id}.g", other.topic, limit=1), (1, 0))
        [again] = self.read(stand, "group=g&batchSize=10&timeout=10000")
        self.assertEqual((again["value"], again["attempt"], again["headers"]), ("a", 1, {"psubd.redrive-group": f"{stand.id}.g"}))
        self.assertGreater(again["offset"], a["offset"])
        self.assertEqual(self.redriven(f"{stand.id}.g", other.topic, limit=10), (1, 0))
        self.assertEqual(self.values(stand, "group=g&batchSize=10&timeout=10000"), ["b"])
        self.assertEqual(self.redriven(f"{stand.id}.g", other.topic), (0, 0))
        self.put(stand, b"c")
        self.assertEqual(self.values(stand), ["c"])
        self.assertEqual(values_of(self.drain(other, 1)), ["c"])
        self.all_done(stand)
        self.assertEqual(values_of(self.log(other)), ["a", "b"])

    def test_letters_of_others_are_left(self) -> None:
        """What psubd did not seal is left and told; so is what was of a binding that names this topic no more. Another group's is not moved."""
        stand, other = self.with_letters()
        self.die(stand, b"a")
        self.put(other, b"forged")
        self.read(stand, "group=g&timeout=0")
        moved, _ = self.redriven(f"{stand.id}.g", other.topic)
        self.assertEqual(moved, 0)
        self.bind(stand.id, stand.topic, pub=True, sub=True)
        moved, left = self.redriven(stand.id, other.topic)
        self.assertEqual((moved, left), (0, 2))
        self.bind(stand.id, stand.topic, pub=True, sub=True, dead_letter=other.topic)
        moved, _ = self.redriven(stand.id, other.topic)
        self.assertEqual(moved, 1)
        self.assertEqual(self.values(stand), ["a"])

    def test_redrive_of_what_is_not_there(self) -> None:
        """A group that is not there is 404, so is a topic; a body that is none is 400."""
        stand, other = self.with_letters()
        self.assert_refused(self.redrive(f"{stand.id}.none", other.topic), 404, "no_such_route")
        self.assertEqual(self.redrive(stand.id, self.name()).status, 404)
        for wrong in ({"limit": 0}, {"limit": 10_001}, {"limit": "1"}, {"more": 1}):
            self.assert_refused(self.redrive(stand.id, other.topic, **wrong), 400, "bad_body", wrong)
