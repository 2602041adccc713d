"""Replays: reading from a place, without any group (contract, section 3)."""

import time
from urllib.parse import quote

from psubd.testing.daemon import Reply
from psubd.testing.http_contract.steps import Steps


def read(reply: Reply) -> list[str]:
    """The values of an answer."""
    return [message["value"] for message in reply.json["messages"]] if reply.status == 200 else []


class ReplaysContract(Steps):
    """What offset does."""

    def test_from_every_kind_of_place(self) -> None:
        """earliest, latest, a time, a number with its partition; no attempt; before the log's start is its start; no cursor moves."""
        stand = self.stand(2)
        offsets = self.put(stand, b"a", b"b", partition="0")
        time.sleep(0.01)
        when = self.now()
        self.put(stand, b"c", partition="0")
        self.put(stand, b"d", partition="1")
        with self.unchanged(stand):
            self.assertEqual(sorted(self.follow(stand, "earliest")), ["a", "b", "c", "d"])
            self.assertEqual(self.follow(stand, "earliest", partition=1), ["d"])
            self.assertEqual(sorted(self.follow(stand, f"time:{when}")), ["c", "d"])
            self.assertEqual(self.follow(stand, f"time:{when + 60_000}"), [])
            self.assertEqual(self.follow(stand, offsets[1], partition=0), ["b", "c"])
            self.assertEqual(self.follow(stand, 0, partition=0), ["a", "b", "c"])
            self.assertEqual(self.replay(stand, "latest").status, 204)
            [message, *_] = self.replay(stand, "earliest").json["messages"]
            members = {"topic", "partition", "offset", "timestamp", "key", "value", "encoding", "headers"}
            self.assertEqual(set(message), members)

    def test_goes_on_with_next(self) -> None:
        """next goes on where the answer ended, in every form of an answer, and past what was published meanwhile; each message comes once."""
        stand = self.stand(3)
        places = self.put_batch(stand, [{"value": str(number)} for number in range(20)])
        found, place = [], "earliest"
        with self.unchanged(stand):
            while True:
                reply = self.replay(stand, place, batchSize=3)
                if reply.status == 204:
                    break
                found += [(message["partition"], message["offset"]) for message in reply.json["messages"]]
                place = reply.json["next"]
        self.assertEqual(sorted(found), sorted((each["partition"], each["offset"]) for each in places))
        place = reply.headers["next"]
        self.put(stand, b"new")
        for accept in ("application/octet-stream", "application/x-ndjson"):
            target = f"/v1/sub?topic={stand.topic}&offset={quote(place)}&timeout=0"
            lines = stand.sub.request("GET", target, None, {"accept": accept})
            self.assertEqual((lines.status, b"new" in lines.body, "attempt" in lines.headers), (200, True, False))
            self.assertEqual(self.replay(stand, lines.headers["next"]).status, 204)

    def test_past_the_end(self) -> None:
        """At the end it waits and is 204; past it 400 offset_out_of_range."""
        stand = self.stand()
        [offset] = self.put(stand, b"a")
        with self.unchanged(stand):
            self.assertEqual(self.replay(stand, offset + 1, partition=0).status, 204)
            for past in (offset + 2, 2**63 - 1):
                self.assert_refused(self.replay(stand, past, partition=0), 400, "offset_out_of_range")

    def test_a_publish_wakes_a_replay(self) -> None:
        """A replay at the end waits for the next message."""
        stand = self.stand(2)
        waiting = self.polling(stand, f"topic={stand.topic}&offset=latest&timeout=30000")
        self.put(stand, b"new")
        self.assertEqual(read(self.result(waiting)), ["new"])

    def test_what_does_not_go_with_offset(self) -> None:
        """A group, acks, no topic or several, a partition that is not there, a place that is none: 400."""
        stand = self.stand()
        self.put(stand, b"a")
        place = self.replay(stand, "earliest").json["next"]
        topic = f"topic={stand.topic}"
        wrong = [
            f"{topic}&offset=earliest&group=g",
            f"{topic}&offset=earliest&ack=auto",
            f"{topic}&offset=earliest&ackTimeout=5000",
            "offset=earliest",
            f"{topic}&topic={stand.topic}x&offset=earliest",
            f"{topic}&offset=0",
            f"{topic}&offset=0&partition=1",
            f"{topic}&offset=earliest&partition=-1",
            f"{topic}&offset=first",
            f"{topic}&offset=",
            f"{topic}&offset=-1&partition=0",
            f"{topic}&offset=time:",
            f"{topic}&offset=time:-1",
            f"{topic}&offset=time:now",
            f"{topic}&offset={place}x",
            f"topic={stand.topic}x&offset={place}",
        ]
        with self.unchanged(stand):
            for query in wrong:
                self.assert_refused(self.poll(stand, query), 400, "bad_parameter", query)
            self.assert_refused(self.poll(stand, f"topic={self.name()}&offset=earliest"), 403, "topic_not_bound")
