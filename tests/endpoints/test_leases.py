"""Leases through the endpoints, with the real gate, registrar and subscriber over memory, and a clock that stands still."""

import json
from typing import Any

from psubd.model import Backoff
from tests.endpoints.house import DataCase, Reply

LINES = ("accept", "application/x-ndjson")
EXPLICIT = "ack=explicit&batchSize=10&timeout=0"


class LeaseCase(DataCase):
    """`shop`, with three messages of one partition."""

    def setUp(self) -> None:
        super().setUp()
        self.publish("1", "2", "3")

    def sub(self, query: str = EXPLICIT, *headers: tuple[bytes | str, bytes | str], handed: int | None = None) -> Reply:
        return self.ask("GET", "/v1/sub", [*self.shop.sub, *headers], query=query, handed=handed)

    def read(self, query: str = EXPLICIT) -> list[tuple[str, int]]:
        """Value and attempt of what an answer holds."""
        reply = self.sub(query)
        return [] if reply.status == 204 else [(message["value"], message["attempt"]) for message in reply.json["messages"]]

    def lease(self, query: str = EXPLICIT) -> list[str]:
        """The tokens of what an answer holds."""
        return [message["ack"] for message in self.sub(query).json["messages"]]

    def call(self, route: str, *tokens: str, **more: Any) -> Reply:
        return self.ask("POST", f"/v1/{route}", self.shop.sub, json.dumps({"tokens": tokens, **more}).encode())


class LeaseTests(LeaseCase):
    """Acks, lapses, what a broken connection leaves."""

    def test_ack(self) -> None:
        """What is acked is done, in any order; the place follows when there is no hole."""
        first, second, third = self.lease()
        self.assertEqual(self.call("ack", third, second).json, {"acked": 2})
        self.assertEqual(max(self.committed("shop").values()), 0)
        self.assertEqual(self.call("ack", first).json, {"acked": 1})
        self.assertEqual(max(self.committed("shop").values()), 3)
        self.assertEqual(self.call("ack", first, second, third).json, {"acked": 3})

    def test_lapse_at_the_instant(self) -> None:
        """A lease stands until its last millisecond and not at its end; then its message is somebody else's."""
        (token,) = self.lease("ack=explicit&ackTimeout=1000&timeout=0")
        self.clock.advance(999)
        self.assertEqual(self.call("extend", token, ackTimeout=5000).json, {"extended": 1})
        self.clock.advance(4999)
        self.assertEqual(self.read(), [("2", 1), ("3", 1)])
        self.clock.advance(1)
        self.refuses(self.call("extend", token, ackTimeout=5000), 409, "lease_lost")
        self.assertEqual(self.read(), [("1", 2)])
        reply = self.refuses(self.call("ack", token), 409, "lease_lost")
        self.assertEqual((reply.json["lost"], reply.json["acked"]), ([token], 0))

    def test_lapse_wakes_who_waits(self) -> None:
        """A poll that waits is answered when a lease lapses, without anybody asking again."""
        self.lease("ack=explicit&ackTimeout=1000&batchSize=10&timeout=0")
        waiting = self.begin("GET", "/v1/sub", self.shop.sub, query="timeout=5000&ack=explicit&batchSize=10")
        self.clock.advance(999)
        self.assertNoResult(waiting)
        self.clock.advance(1)
        self.assertEqual([message["attempt"] for message in self.reply(waiting).json["messages"]], [2, 2, 2])

    def test_delay_wakes_who_waits(self) -> None:
        """So it is when a delay is over, at its end and not before; the longer of delay and backoff counts, and the backoff doubles."""
        self.bind("shop", "orders", backoff=Backoff(300, 10_000))
        (token,) = self.lease("ack=explicit&timeout=0")
        for attempt, delay, wait in ((2, 200, 300), (3, 0, 600), (4, 2000, 2000), (5, 0, 2400)):
            self.assertEqual(self.call("nack", token, delay=delay).json, {"nacked": 1})
            self.assertEqual(self.call("nack", token).json, {"nacked": 1})
            self.read()
            waiting = self.begin("GET", "/v1/sub", self.shop.sub, query="timeout=5000&ack=explicit")
            self.clock.advance(wait - 1)
            self.assertNoResult(waiting)
            self.clock.advance(1)
            (message,) = self.reply(waiting).json["messages"]
            self.assertEqual((message["value"], message["attempt"]), ("1", attempt))
            token = message["ack"]

    def test_broken_lines(self) -> None:
        """Of lines in explicit mode those keep their lease that were handed over to their last byte; the others come again, uncounted."""
        probe = self.sub(EXPLICIT, LINES, handed=0)
        ends = [index + 1 for index, byte in enumerate(probe.body) if byte == ord("\n")]
        self.sub(EXPLICIT, LINES, handed=ends[1] - 1)
        self.assertEqual(self.read(), [("2", 1), ("3", 1)])

    def test_broken_json(self) -> None:
        """Of a JSON document all come again, and their tokens still ack until they do."""
        reply = self.sub(EXPLICIT, handed=100)
        first = reply.json["messages"][0]["ack"]
        self.assertEqual(self.call("ack", first).json, {"acked": 1})
        self.assertEqual(self.read(), [("2", 1), ("3", 1)])

    def test_broken_lines_in_auto_mode(self) -> None:
        """In auto mode all of them come again."""
        probe = self.sub("batchSize=10&timeout=0", LINES, handed=-1)
        self.sub("batchSize=10&timeout=0", LINES, handed=len(probe.body) - 1)
        self.assertEqual(self.read(), [("1", 1), ("2", 1), ("3", 1)])

    def test_acks_with_a_read(self) -> None:
        """Acked first, so that what they make room for is in the answer."""
        self.bind("shop", "orders", max_in_flight=1)
        (token,) = self.lease()
        form = {"tokens": [token, "x"], "ack": "explicit", "batchSize": 10, "timeout": 0}
        reply = self.ask("POST", "/v1/sub", self.shop.sub, json.dumps(form).encode()).json
        self.assertEqual((reply["acked"], reply["lost"], [message["value"] for message in reply["messages"]]), (1, ["x"], ["2"]))

    def test_another_tenant(self) -> None:
        """A token of shop's is nothing in another's hands, and is not harmed by it."""
        (token,) = self.lease("ack=explicit&timeout=0")
        for route, more in (("ack", {}), ("nack", {"dead": True}), ("extend", {"ackTimeout": 1000})):
            body = json.dumps({"tokens": [token], **more}).encode()
            reply = self.refuses(self.ask("POST", f"/v1/{route}", self.other.sub, body), 409, "lease_lost")
            self.assertEqual(reply.json["lost"], [token])
        self.assertEqual(self.call("ack", token).json, {"acked": 1})
