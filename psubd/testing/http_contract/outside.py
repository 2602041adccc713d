"""What others do to the topics in the storage behind psubd's back (contract, sections 2, 5 and 6)."""

from collections.abc import Callable, Mapping
from typing import Any

from psubd.testing.daemon import bind, make_topic
from psubd.testing.http_contract.poisons import NEIGHBOURS, ROUNDS, Poisoned
from psubd.testing.http_contract.steps import Stand

LIMIT = 2000


class OutsideContract(Poisoned):
    """For a storage that others use too: the host class says how they do.

    The host provides ``lose(topic)``, which deletes the topic behind psubd, ``found(topic, partitions, settings)``, which makes one there,
    ``set_up(topic, settings)``, which changes some of its settings (Kafka's names), and ``produce(topic, value)``, which stores a message there; each
    returns when it is done.
    """

    lose: Callable[[str], None]
    found: Callable[[str, int, Mapping[str, str]], None]
    set_up: Callable[[str, Mapping[str, str]], None]
    produce: Callable[[str, bytes], None]

    def refusals(self, stand: Stand) -> None:
        """All that names the topic is 404 topic_missing, while what is not bound stays 403."""
        for reply in (
            self.send(stand, b"x"),
            self.batch(stand, [{"value": "x"}]),
            stand.sub.request("GET", f"/v1/topics/{stand.topic}"),
        ):
            self.assert_refused(reply, 404, "topic_missing")
        self.assert_refused(self.poll(stand, f"topic={stand.topic}x&timeout=0"), 403, "topic_not_bound")

    def test_a_topic_lost_behind_psubd(self) -> None:
        """Bound, but gone from the storage: 404 topic_missing for publish, poll and replay, also for a poll that waits; the tenant's other
        topics go on."""
        stand, second = self.stand(), self.name()
        make_topic(self.manager, second, stand.id)
        bind(self.manager, stand.id, second, pub=True, sub=True, start="earliest")
        self.put(stand, b"a")
        self.drain(stand, 1)
        poll = self.polling(stand, f"topic={stand.topic}&timeout=60000")
        self.lose(stand.topic)
        self.assert_refused(self.result(poll), 404, "topic_missing")
        self.refusals(stand)
        self.assert_refused(self.poll(stand, f"topic={stand.topic}&timeout=0"), 404, "topic_missing")
        self.assert_refused(self.replay(stand, "earliest"), 404, "topic_missing")
        listed = {item["topic"]: item["partitions"] for item in stand.sub.request("GET", "/v1/topics").json["items"]}
        self.assertEqual((listed[stand.topic], listed[second] is None), (None, False))
        self.put(self.standing(stand.tenant, second), b"other")
        self.assertEqual(self.values(stand), ["other"])

    def test_a_topic_made_again_behind_psubd(self) -> None:
        """Another topic under the same name is not the one that was registered: publishing to it is 404 topic_missing until it is registered
        again, and then no group stands where it stood on the former one."""
        stand = self.stand()
        self.put(stand, b"old", b"old")
        self.drain(stand, 2)
        self.lose(stand.topic)
        self.found(stand.topic, 1, {})
        self.refusals(stand)
        self.manage("DELETE", f"topics/{stand.topic}", status=204)
        make_topic(self.manager, stand.topic, stand.id)
        bind(self.manager, stand.id, stand.topic, pub=True, sub=True, start="earliest")
        self.put(stand, b"new")
        self.assertEqual([message["value"] for message in self.drain(stand, 1)], ["new"])

    def test_no_cursor_on_a_topic_made_again_behind_psubd(self) -> None:
        """A group that stood on the former topic begins at the first message of the one that others made in its place: repeated, never skipped."""
        stand = self.stand(start="latest")
        self.put(stand, b"old", b"old")
        self.drain(stand, 2)
        self.lose(stand.topic)
        self.found(stand.topic, 1, {})
        self.produce(stand.topic, b"new")
        self.until(lambda: (found := self.poll(stand)).status == 200 and found.json["messages"][0]["value"] == "new", "the new one's first message")

    def test_the_storages_own_time(self) -> None:
        """A topic whose messages carry the time at which the storage took them: the answer to the publish says what a reader gets."""
        stand, topic = self.stand(), self.name()
        self.found(topic, 1, {"message.timestamp.type": "LogAppendTime"})
        self.manage("POST", "topics", {"id": topic, "owner": stand.id}, 201)
        bind(self.manager, stand.id, topic, pub=True, sub=True, start="earliest")
        adopted, before = self.standing(stand.tenant, topic), self.now()
        place = self.place(adopted, b"x", {"timestamp": "1"})
        self.assertEqual([message["timestamp"] for message in self.drain(adopted, 1)], [place["timestamp"]])
        self.assertGreaterEqual(place["timestamp"], before)

    def test_adopted(self) -> None:
        """A topic that is there is adopted as it stands, with what it holds; other partitions than it has are 409; its own limit is known
        beforehand, and named; unregistered, its data stays."""
        stand, topic = self.stand(), self.name()
        self.found(topic, 2, {"max.message.bytes": str(LIMIT)})
        document = {"id": topic, "owner": stand.id, "partitions": 3}
        refused = self.manager.send("POST", "/api/v1/topics", document)
        self.assert_refused(refused, 409, "exists")
        for _ in range(2):
            self.assertTrue(self.manage("POST", "topics", {"id": topic, "owner": stand.id}, 201).json["adopted"])
            bind(self.manager, stand.id, topic, pub=True, sub=True, start="earliest")
            adopted = self.standing(stand.tenant, topic)
            self.put(adopted, b"x" * (LIMIT - 200), partition="1")
            with self.unchanged(adopted):
                reply = self.send(adopted, b"x" * LIMIT)
                self.assert_refused(reply, 413, "too_large")
                self.assertIn(str(LIMIT), reply.json["detail"])
            self.manage("DELETE", f"topics/{topic}", status=204)
        self.manage("POST", "topics", {"id": topic, "owner": stand.id}, 201)
        bind(self.manager, stand.id, topic, sub=True, start="earliest")
        self.assertEqual(len(self.drain(adopted, 2)), 2)

    def test_what_only_the_storage_can_tell(self) -> None:
        """Settings changed behind psubd a moment ago: a record that the storage refuses with its whole batch fails alone, with its 4xx; its
        neighbours of another tenant are sent again without it, are 200, and there, once. In a batch of the tenant's own: 207."""
        for settings, poison, headers, status in (
            ({"max.message.bytes": str(LIMIT)}, b"x" * 2 * LIMIT, {"key": "k"}, 413),
            ({"message.timestamp.before.max.ms": "60000"}, b"x", {"key": "k", "timestamp": "1"}, 400),
            ({"message.timestamp.after.max.ms": "1000"}, b"x", {"key": "k", "timestamp": str(self.now() + 600_000)}, 400),
            ({"cleanup.policy": "compact"}, b"x", {}, 400),
        ):
            shared, other = self.neighbour()
            self.put(shared, b"known", key="known")
            self.set_up(shared.topic, settings)
            answered, poisoned = self.at_once(shared, other, poison, headers)
            self.assertEqual({reply.status for reply in answered}, {200}, (settings, answered))
            self.assertEqual([reply.status for reply in poisoned], [status] * ROUNDS, (settings, poisoned))
            log = self.log(shared)[1:]
            self.assertEqual({message["offset"] for message in log}, {reply.json["offset"] for reply in answered}, settings)
            self.assertEqual(len(log), NEIGHBOURS * ROUNDS, settings)
            good: dict[str, Any] = {"key": "k", "value": "good"}
            bad: dict[str, Any] = {"key": headers.get("key"), "value": poison.decode()}
            bad |= {"timestamp": int(headers["timestamp"])} if "timestamp" in headers else {}
            mixed = self.batch(shared, [good, bad, good])
            if mixed.status != 207:  # psubd has looked at the settings meanwhile, and judges the record itself
                self.assert_refused(mixed, status, mixed.json["code"], settings)
                self.assertEqual(mixed.json["record"], 1)
                continue
            first, failed, last = mixed.json["results"]
            self.assertEqual((mixed.json["failed"], set(failed), set(failed["error"])), (1, {"error"}, {"code", "detail"}))
            self.assertLess(first["offset"], last["offset"])
