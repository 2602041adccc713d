"""What the cases of explicit acks are written with."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from psubd.testing.daemon import Reply, bind, make_topic
from psubd.testing.http_contract.steps import Stand, Steps

HOUR = 3_600_000
SOON = 1000
"""The shortest lease, in ms."""

ROUTES: tuple[tuple[str, dict[str, Any]], ...] = (("extend", {"ackTimeout": HOUR}), ("nack", {}), ("ack", {}))
"""The routes that take tokens, and what each needs beside; the one that would do most is the last."""

Shown = Sequence[Any]
"""Messages that were leased, or tokens."""


class LeaseSteps(Steps):
    """Leasing, and what becomes of it."""

    def lease(self, stand: Stand, count: int, **parameters: Any) -> list[dict[str, Any]]:
        """So many messages in explicit mode, over as many answers as it takes."""
        query = urlencode({"ack": "explicit", "ackTimeout": HOUR, "batchSize": 100, "timeout": 10_000, **parameters}, doseq=True)
        found: list[dict[str, Any]] = []
        while len(found) < count:
            messages = self.read(stand, query)
            self.assertTrue(messages, f"{len(found)} of {count} came")
            found += messages
        self.assertEqual(len(found), count)
        return found

    def assert_nothing(self, stand: Stand, **parameters: Any) -> None:
        """Nothing is to be had now."""
        self.assertEqual(self.read(stand, urlencode({"batchSize": 100, "timeout": 0, **parameters}, doseq=True)), [])

    def show(self, stand: Stand, route: str, shown: Shown, **members: Any) -> Reply:
        """Show tokens to a route, whatever the answer is."""
        return stand.sub.send("POST", f"/v1/{route}", {"tokens": tokens_of(shown), **members})

    def taken(self, stand: Stand, route: str, shown: Shown, **members: Any) -> None:
        """All of them take effect."""
        reply = self.show(stand, route, shown, **members)
        self.assertEqual((reply.status, reply.json), (200, {COUNTS[route]: len(shown)}), reply)

    def ack(self, stand: Stand, *shown: Any) -> None:
        self.taken(stand, "ack", shown)

    def nack(self, stand: Stand, *shown: Any, **members: Any) -> None:
        self.taken(stand, "nack", shown, **members)

    def assert_lost(self, stand: Stand, route: str, shown: Shown, lost: Shown | None = None, **members: Any) -> None:
        """409: these are lost (None: all of them), in the order sent; the others take effect."""
        missing = tokens_of(shown if lost is None else lost)
        reply = self.show(stand, route, shown, **members)
        self.assert_refused(reply, 409, "lease_lost", route)
        self.assertEqual((reply.json["lost"], reply.json[COUNTS[route]]), (missing, len(shown) - len(missing)), route)

    def items(self, stand: Stand, group: str | None = None) -> list[dict[str, Any]]:
        """The group's state on the stand's topic, by partition."""
        shown = stand.sub.request("GET", f"/v1/groups/{group or stand.id}")
        self.assertEqual(shown.status, 200, shown)
        return [item for item in shown.json["items"] if item["topic"] == stand.topic]

    def out(self, stand: Stand, group: str | None = None) -> int:
        """How many messages of the topic are leased."""
        return sum(int(item["leased"]) for item in self.items(stand, group))

    def all_done(self, stand: Stand, group: str | None = None) -> None:
        """Every message of the topic is done, and the place is behind it."""
        self.until(lambda: all(item["committed"] == item["end"] for item in self.items(stand, group)), "all is done")

    def with_letters(self, **binding: Any) -> tuple[Stand, Stand]:
        """A stand whose binding names a dead-letter topic, and another application that reads that."""
        other = self.stand()
        stand = self.stand(dead_letter=other.topic, **binding)
        return stand, other

    def another(self, stand: Stand, **binding: Any) -> Stand:
        """One more topic of the stand's application."""
        topic = self.name()
        make_topic(self.manager, topic, stand.id)
        bind(self.manager, stand.id, topic, **{"pub": True, "sub": True, "start": "earliest", **binding})
        return self.standing(stand.tenant, topic)


COUNTS = {"ack": "acked", "nack": "nacked", "extend": "extended"}
"""What each route counts under."""


def tokens_of(shown: Shown) -> list[str]:
    """The tokens of messages, and tokens as they are."""
    return [item if isinstance(item, str) else item["ack"] for item in shown]


def values_of(messages: Sequence[dict[str, Any]]) -> list[str]:
    return [message["value"] for message in messages]
